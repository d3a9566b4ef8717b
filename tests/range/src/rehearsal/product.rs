//! The product as an operator meets it: the command `lockstep`, and how it
//! says that a run stands.

use crate::range::layout::Layout;
use crate::range::{self, Error, Range, agents, wait};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Output, Stdio};
use std::sync::mpsc::{Receiver, sync_channel};
use std::time::Duration;

/// Agents connect within a second; the bound is for a machine at its limits.
const AGENTS_LIMIT: Duration = Duration::from_secs(60);

/// A cutover of the rehearsal takes half a minute, a rollback as long again;
/// every phase has its own deadline, all of them together stay below this.
pub(super) const RUN_LIMIT: Duration = Duration::from_secs(900);

/// The command's exit code when its input was refused: nothing was started.
const REFUSED: u8 = 2;

/// How long a coordinator that was killed takes to answer again, at most.
const START_LIMIT: Duration = Duration::from_secs(30);

/// The command's exit code when it could reach no coordinator.
pub(super) const UNREACHABLE: u8 = 3;

/// Updates that have not been read; the watch waits beyond that many.
const HAPPENINGS: usize = 1024;

/// Status of a run, as `lockstep run show -o json` prints it.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct RunStatus {
    pub id: String,
    pub plan: String,
    /// Kind of the plan: `Cutover`, `Restart` or `Plan`.
    pub kind: String,
    pub digest: String,
    /// `completed`, `rolled-back`, `failed`, `aborted`, `waiting`, `running`.
    pub outcome: String,
    /// The command's exit code for it; none while it goes on.
    pub exit_code: Option<u8>,
    pub trace_id: String,
    /// Why it holds, failed or rolled back.
    pub reason: String,
    /// What it waits for.
    pub waits_on: Vec<String>,
    /// What is still changed.
    pub still_changed: Vec<String>,
    pub phases: Vec<PhaseStatus>,
}

/// Status of a phase.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct PhaseStatus {
    pub name: String,
    /// The standard phase it belongs to.
    pub standard: String,
    /// `forward` or `rollback`.
    pub track: String,
    /// Steps of the procedure.
    pub runbook_steps: Vec<String>,
    /// `done`, `failed`, `skipped`, `undone`…
    pub outcome: String,
    /// What the barrier itself cost.
    pub barrier_ms: u64,
    /// From its release to its completion.
    pub took_ms: u64,
    /// When it was released.
    pub released_at: Option<String>,
    /// When it was complete, or had failed.
    pub completed_at: Option<String>,
    pub tasks: Vec<TaskStatus>,
}

/// Status of a task.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
#[serde(default)]
pub struct TaskStatus {
    pub agent: String,
    pub step: String,
    pub action: String,
    /// `done`, `unchanged`, `failed`…
    pub outcome: String,
    pub detail: String,
    /// How long the action took.
    pub took_ms: u64,
    pub outputs: Value,
}

/// The command, with the operator's certificate.
#[derive(Debug, Clone)]
pub struct Product {
    layout: Layout,
}

impl Product {
    /// The product on this range.
    #[must_use]
    pub fn of(range: &Range) -> Self {
        Self {
            layout: range.layout.clone(),
        }
    }

    /// `lockstep` with the certificate of an operator: `operator` starts
    /// runs, `approver` approves them.
    #[must_use]
    pub fn command(&self, operator: &str) -> Command {
        let mut command = Command::new(self.layout.binary("lockstep"));
        command
            .envs(agents::operator(&self.layout, operator))
            .env_remove("LOCKSTEP_CRL")
            .stdin(Stdio::null());
        command
    }

    fn json(&self, purpose: &str, args: &[&str]) -> Result<Value, Error> {
        let text = range::run(
            purpose,
            self.command("operator").args(args).args(["-o", "json"]),
        )?;
        serde_json::from_str(&text).map_err(|error| Error::Answer {
            from: purpose.into(),
            detail: error.to_string(),
        })
    }

    /// Waits until that many agents are connected.
    ///
    /// # Errors
    /// [`Error::NotReady`] when they aren't, with what was seen last.
    pub fn wait_for_agents(&self, expected: usize) -> Result<(), Error> {
        wait::until(
            &format!("{expected} agents to connect"),
            AGENTS_LIMIT,
            || {
                let Ok(agents) = self.json("lockstep agents list", &["agents", "list"]) else {
                    return Ok(None);
                };
                let list = agents
                    .get("agents")
                    .unwrap_or(&agents)
                    .as_array()
                    .cloned()
                    .unwrap_or_default();
                let connected = list
                    .iter()
                    .filter(|agent| agent["connected"] == true)
                    .count();
                Ok((connected >= expected).then_some(()))
            },
        )
    }

    /// `run start --watch`, its output shown as it comes.
    ///
    /// # Errors
    /// When the command can't be started.
    pub fn start(&self, plan: &Path, vars: &[(&str, &str)]) -> Result<Child, Error> {
        self.spawn(&mut self.start_command(plan, vars))
    }

    /// The same as [`Product::start`], but what happens comes as the JSON of
    /// `-o jsonl`, as soon as it happens. Ends when the command ends.
    ///
    /// # Errors
    /// When the command can't be started.
    pub fn start_listening(
        &self,
        plan: &Path,
        vars: &[(&str, &str)],
    ) -> Result<(Child, Receiver<Value>), Error> {
        let mut child = self.spawn(
            self.start_command(plan, vars)
                .args(["-o", "jsonl"])
                .stdout(Stdio::piped()),
        )?;
        let (sender, receiver) = sync_channel(HAPPENINGS);
        let lines = child.stdout.take();
        std::thread::spawn(move || {
            for line in lines
                .into_iter()
                .flat_map(|out| BufReader::new(out).lines())
            {
                let value = line.ok().and_then(|line| serde_json::from_str(&line).ok());
                if let Some(value) = value {
                    // Without a receiver, the command still must
                    // not stall on a full pipe.
                    let _ = sender.send(value);
                }
            }
        });
        Ok((child, receiver))
    }

    fn start_command(&self, plan: &Path, vars: &[(&str, &str)]) -> Command {
        let vars = vars
            .iter()
            .flat_map(|(name, value)| ["--var".into(), format!("{name}={value}")]);
        let mut command = self.command("operator");
        command
            .args(["run", "start", "--watch"])
            .args(vars)
            .arg(plan);
        command
    }

    fn spawn(&self, command: &mut Command) -> Result<Child, Error> {
        command.spawn().map_err(|source| Error::Start {
            program: "lockstep".into(),
            purpose: "start the run".into(),
            source,
        })
    }

    /// `run watch`, and the code that it ends with.
    ///
    /// # Errors
    /// When the command can't be started, or does not end.
    pub fn watch(&self, run: &str) -> Result<Option<u8>, Error> {
        let mut command = self.command("operator");
        exit_code(&mut self.spawn(command.args(["run", "watch", run]))?)
    }

    /// A verb of an operator, watched until the run ends or waits for someone.
    ///
    /// # Errors
    /// When the command can't be started.
    pub fn verb(&self, verb: &str, run: &str) -> Result<Output, Error> {
        let confirmed = (verb == "skip").then_some("--yes");
        self.command("operator")
            .args([
                "run",
                verb,
                run,
                "--reason",
                "part of the rehearsal",
                "--watch",
            ])
            .args(confirmed)
            .output()
            .map_err(|source| Error::Start {
                program: "lockstep".into(),
                purpose: format!("{verb} the run"),
                source,
            })
    }

    /// Preflight of a plan; what the command printed.
    ///
    /// # Errors
    /// When the command can't be started.
    pub fn preflight(&self, plan: &Path, vars: &[(&str, &str)]) -> Result<Output, Error> {
        let vars = vars
            .iter()
            .flat_map(|(name, value)| ["--var".into(), format!("{name}={value}")]);
        self.command("operator")
            .arg("preflight")
            .args(vars)
            .arg(plan)
            .output()
            .map_err(|source| Error::Start {
                program: "lockstep".into(),
                purpose: "check a plan".into(),
                source,
            })
    }

    /// Waits until the run has ended or waits for someone; the command that
    /// started it may have lost its coordinator on the way.
    ///
    /// # Errors
    /// When the run goes on for ever.
    pub fn wait_for_end(&self) -> Result<RunStatus, Error> {
        wait::until("the run's end", RUN_LIMIT, || {
            let status = self.newest_run();
            Ok(status.ok().filter(|status| status.outcome != "running"))
        })
    }

    /// Waits until there is a run at all, after its command has ended with
    /// another code than 0. A range begins without one: a run that isn't there
    /// was refused, and never comes.
    ///
    /// # Errors
    /// [`Error::Command`] when there is none.
    pub fn wait_for_a_run(&self, exit_code: Option<u8>) -> Result<(), Error> {
        let found = wait::until("the run", time_for_a_run(exit_code), || {
            Ok(self.newest_run().ok())
        });
        match found {
            Err(Error::NotReady { .. }) => Err(no_run(exit_code)),
            other => other.map(drop),
        }
    }

    /// Status of the newest run.
    ///
    /// # Errors
    /// When the command fails, or there is no run.
    pub fn newest_run(&self) -> Result<RunStatus, Error> {
        let value = self.json("lockstep run show", &["run", "show"])?;
        serde_json::from_value(value).map_err(|error| Error::Answer {
            from: "lockstep run show".into(),
            detail: error.to_string(),
        })
    }
}

/// A command that was refused had its answer from the coordinator, so one look
/// is enough; any other may have lost it.
fn time_for_a_run(exit_code: Option<u8>) -> Duration {
    match exit_code {
        Some(REFUSED) => Duration::ZERO,
        _ => START_LIMIT,
    }
}

fn no_run(exit_code: Option<u8>) -> Error {
    Error::Command {
        purpose: "lockstep run start".into(),
        status: exit_code.map_or_else(|| "a signal".into(), |code| format!("exit code {code}")),
        output: "there is no run; what the command said is above".into(),
    }
}

/// Waits for the command's end; its exit code, unless a signal ended it.
pub(super) fn exit_code(command: &mut Child) -> Result<Option<u8>, Error> {
    let ended = wait::until("the command's end", RUN_LIMIT, || {
        Ok(command.try_wait().ok().flatten())
    });
    if ended.is_err() {
        // A child that can't be killed has ended.
        let _ = command.kill();
        let _ = command.wait();
    }
    let code = ended?.code();
    Ok(code.and_then(|code| u8::try_from(code).ok()))
}

/// All tasks of an action that were carried out, in the plan's order.
pub(super) fn tasks<'r>(
    run: &'r RunStatus,
    action: &'r str,
) -> impl Iterator<Item = &'r TaskStatus> {
    let forward = run.phases.iter().filter(|phase| phase.track != "rollback");
    forward
        .flat_map(|phase| &phase.tasks)
        .filter(move |task| task.action == action)
}

/// The SCN of the fence as the product has it, from the task that read it.
pub(super) fn fence_scn(run: &RunStatus) -> Option<u64> {
    tasks(run, "oracle.finalize").find_map(|task| {
        let scn = task.outputs.get("scn")?;
        scn.as_u64().or_else(|| scn.as_str()?.parse().ok())
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_refused_plan_is_not_waited_for() {
        assert_eq!(time_for_a_run(Some(REFUSED)), Duration::ZERO);
        for code in [Some(1), Some(UNREACHABLE), None] {
            assert_eq!(time_for_a_run(code), START_LIMIT);
        }
        assert_eq!(
            no_run(Some(REFUSED)).to_string(),
            "lockstep run start failed (exit code 2): there is no run; what the command said is \
             above"
        );
    }
}
