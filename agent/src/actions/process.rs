//! `process.stop`: ends processes that no service manager owns.
//!
//! The agent's own policy defines the processes: by executable, and by an
//! argument where one executable serves many purposes. The agent can't start
//! them again; a plan that needs that uses a unit.
//!
//! A name that no process can have is an error: to find no process would otherwise mean
//! that none is left.

use crate::action::{Action, ActionError, Context, Description, Outputs, found, satisfied_if};
use crate::config::ProcessPolicy;
use crate::host::processes::{Found, find, impossible, may_signal, signal};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::StopProcess;
use rustix::process::Signal;
use serde_json::Value;
use std::time::Duration;

/// Interval between two checks whether they have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// After SIGKILL a process ends at once, or hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);

pub struct Stop;

fn policy<'a>(cx: &'a Context, name: &str) -> Result<&'a ProcessPolicy, ActionError> {
    cx.host.policy.process(name).ok_or_else(|| {
        ActionError::new(
            Code::LS2005,
            format!("this agent has no process {name} in its policy"),
        )
        .state_left("nothing was done")
        .remedy(format!("define [policy.processes.{name}] in agent.toml"))
    })
}

fn meant(cx: &Context, params: &StopProcess) -> Result<Vec<Found>, ActionError> {
    let mut processes = Vec::new();
    for name in &params.processes {
        processes.extend(find(name, policy(cx, name)?)?);
    }
    Ok(processes)
}

/// The processes of one entry of the policy, all of which the agent can end. Where
/// there is none, the entry must be one that a process can match.
fn checked(cx: &Context, name: &str) -> Result<Vec<Found>, ActionError> {
    let policy = policy(cx, name)?;
    let found = find(name, policy)?;
    found.iter().try_for_each(may_signal)?;
    match impossible(&policy.exe) {
        Some(why) if found.is_empty() => Err(ActionError::new(
            Code::LS2151,
            format!(
                "no process can match policy.processes.{name}: {}: {why}",
                policy.exe.display()
            ),
        )
        .state_left("nothing was done")
        .remedy(
            "correct it in agent.toml (`ls -l /proc/PID/exe` shows the executable of a process), \
             then retry",
        )),
        _ => Ok(found),
    }
}

/// That no process matches an entry of the policy: an argument that is written in another
/// way would be one cause.
fn absent(cx: &Context, name: &str) -> Result<String, ActionError> {
    let mut policy = policy(cx, name)?.clone();
    let Some(argument) = policy.argument.take() else {
        return Ok(format!("no process of policy.processes.{name} is running"));
    };
    let (exe, others) = (policy.exe.display().to_string(), find(name, &policy)?);
    Ok(format!(
        "no process of policy.processes.{name} is running: {} run {exe}, none with the argument \
         {argument}, which must be exactly as in the command line",
        others.len()
    ))
}

/// Waits until all have ended; returns those that have not.
async fn wait(
    cx: &Context,
    params: &StopProcess,
    limit: Duration,
) -> Result<Vec<Found>, ActionError> {
    let began = tokio::time::Instant::now();
    loop {
        let left = meant(cx, params)?;
        if left.is_empty() || began.elapsed() >= limit || cx.cancel.is_cancelled() {
            return Ok(left);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[async_trait]
impl Action for Stop {
    type Params = StopProcess;

    fn required_permissions(&self, params: &StopProcess) -> Vec<Permission> {
        params
            .processes
            .iter()
            .cloned()
            .map(Permission::Process)
            .collect()
    }

    async fn probe(&self, cx: &Context, params: &StopProcess) -> Result<Probe, ActionError> {
        let mut none = true;
        for name in &params.processes {
            none &= checked(cx, name)?.is_empty();
        }
        Ok(found(satisfied_if(none)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &StopProcess,
    ) -> Result<Description, ActionError> {
        let mut description = Description::default();
        for name in &params.processes {
            let Some(lines) = description.obstacle(checked(cx, name)) else {
                continue;
            };
            if lines.is_empty() {
                description.remarks.push(absent(cx, name)?);
            }
            for process in &lines {
                if let Some(unit) = &process.unit {
                    description.remarks.push(format!(
                        "the process {process} belongs to the unit {unit}, which may start it \
                         again; stop the unit instead"
                    ));
                }
            }
            let lines = lines.iter().map(|process| format!("SIGTERM {process}"));
            description.would_do.extend(lines);
        }
        if !description.would_do.is_empty() {
            let remark = "what is ended here can't be started again by a rollback";
            description.remarks.push(remark.to_owned());
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StopProcess,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        for process in meant(cx, params)? {
            if signal(&process, Signal::TERM)? {
                cx.effect(format!("SIGTERM to the process {process}"));
            }
        }
        for process in wait(cx, params, Duration::from_secs(params.timeout_secs)).await? {
            if signal(&process, Signal::KILL)? {
                cx.effect(format!("SIGKILL to the process {process}"));
            }
        }
        let left = wait(cx, params, KILL_LIMIT).await?;
        if left.is_empty() {
            return Ok(Outputs::new());
        }
        let left: Vec<String> = left.iter().map(Found::to_string).collect();
        Err(ActionError::new(
            Code::LS2150,
            format!("processes go on or came back: {}", left.join(", ")),
        )
        .state_left("those named still run")
        .remedy("find what starts them again, stop that, then retry"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[tokio::test]
    async fn a_name_that_no_process_can_have_is_an_obstacle_and_a_vote_against_it() {
        let dir = tempfile::tempdir().unwrap();
        let script = dir.path().join("importer");
        fs::write(&script, "#!/bin/sh\nsleep 600\n").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, mode).unwrap();
        let config = format!(
            "[policy.processes]\nscript.exe='{}'\nnone.exe='/nowhere'\n\
             idle.exe='/bin/sleep'\nidle.argument='{}'\n",
            script.display(),
            dir.path().display()
        );
        let cx = Context::of_test(&config);
        for (name, possible) in [("script", false), ("none", false), ("idle", true)] {
            let params = StopProcess {
                processes: vec![name.to_owned()],
                timeout_secs: 1,
            };
            let description = Stop.describe(&cx, &params).await.unwrap();
            let probed = Stop.probe(&cx, &params).await;
            match probed {
                Ok(_) => {
                    assert!(possible, "{name}");
                    let remark = &description.remarks[0];
                    assert!(remark.contains("none with the argument"), "{remark}");
                }
                Err(e) => {
                    assert!(!possible, "{name}");
                    assert_eq!(e.code(), Code::LS2151);
                    assert_eq!(description.obstacles, [e.report()]);
                }
            }
        }
    }
}
