//! `check.command` and `command.run`: a command that the agent's policy
//! names, with the arguments that the policy gives it.

use super::PAUSE;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::config::CommandPolicy;
use crate::host::command::{self, Ended, Program};
use crate::host::files;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{CheckCommand, RunCommand};
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Runs it until it succeeds.
pub struct Check;
pub struct Run;

fn policy<'a>(cx: &'a Context, command: &str) -> Result<&'a CommandPolicy, ActionError> {
    cx.host.policy.command(command).ok_or_else(|| {
        ActionError::new(
            Code::LS2005,
            format!("this agent has no command {command} in its policy"),
        )
        .state_left("nothing was done")
        .remedy(format!("define [policy.commands.{command}] in agent.toml"))
    })
}

/// Whether the command can be started.
fn startable(cx: &Context, command: &str) -> Result<(), ActionError> {
    let program = policy(cx, command)?.argv.first();
    let program = program.map_or("", String::as_str);
    files::may_execute(Path::new(program)).map_err(|e| {
        ActionError::new(Code::LS2110, format!("{program} can't be started"))
            .state_left("nothing was done")
            .remedy("see that the program exists and that the agent may run it")
            .source(e)
    })
}

async fn once(cx: &Context, command: &str, limit: Duration) -> Result<Ended, ActionError> {
    let policy = policy(cx, command)?;
    let (path, arguments) = policy
        .argv
        .split_first()
        .ok_or_else(|| ActionError::new(Code::LS2005, format!("the command {command} is empty")))?;
    let program = Program {
        path: Path::new(path),
        arguments: arguments.iter().map(String::as_str).collect(),
        environment: Vec::new(),
        limit: limit.min(Duration::from_secs(policy.timeout_secs)),
        tagged: true,
    };
    command::run(cx, &program).await
}

fn problem(command: &str, ended: &Ended) -> Option<String> {
    let how = match ended.code {
        Some(0) => return None,
        Some(code) => format!("{command} exited with {code}"),
        None => format!("{command} was ended by a signal"),
    };
    match ended.last_line() {
        "" => Some(format!("{how} and said nothing")),
        last => Some(format!("{how}: {last}")),
    }
}

fn describe(cx: &Context, command: &str) -> Result<Description, ActionError> {
    let mut description = Description::of([policy(cx, command)?.argv.join(" ")]);
    description.obstacle(startable(cx, command));
    Ok(description)
}

#[async_trait]
impl Action for Check {
    type Params = CheckCommand;

    fn required_permissions(&self, params: &CheckCommand) -> Vec<Permission> {
        vec![Permission::Command(params.command.clone())]
    }

    async fn probe(&self, cx: &Context, params: &CheckCommand) -> Result<Probe, ActionError> {
        startable(cx, &params.command).map(|()| found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &CheckCommand,
    ) -> Result<Description, ActionError> {
        describe(cx, &params.command)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &CheckCommand,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let began = tokio::time::Instant::now();
        let limit = Duration::from_secs(params.within_secs);
        loop {
            let left = limit.saturating_sub(began.elapsed());
            let ended = once(cx, &params.command, left).await?;
            let Some(problem) = problem(&params.command, &ended) else {
                return Ok(Outputs::new());
            };
            if began.elapsed() + PAUSE >= limit || cx.cancel.is_cancelled() {
                return Err(ActionError::new(Code::LS2160, problem)
                    .state_left(
                        "nothing was changed by the check, unless its command changes things",
                    )
                    .remedy("fix the cause, then retry"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[async_trait]
impl Action for Run {
    type Params = RunCommand;

    fn required_permissions(&self, params: &RunCommand) -> Vec<Permission> {
        vec![Permission::Command(params.command.clone())]
    }

    /// Only the command knows whether it has had its effect, so after a crash
    /// that is unknown.
    async fn probe(&self, cx: &Context, params: &RunCommand) -> Result<Probe, ActionError> {
        startable(cx, &params.command).map(|()| found(Finding::Indeterminate))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RunCommand,
    ) -> Result<Description, ActionError> {
        describe(cx, &params.command)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RunCommand,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let ended = once(cx, &params.command, Duration::from_secs(params.within_secs)).await?;
        let how = match ended.code {
            Some(code) => format!("exited with {code}"),
            None => "was ended by a signal".to_owned(),
        };
        // Its arguments may hold a secret.
        let program = policy(cx, &params.command)?.argv.first();
        let program = program.map_or("", String::as_str);
        cx.effect(format!(
            "ran the command {} ({program}): it {how}",
            params.command
        ));
        match problem(&params.command, &ended) {
            None => Ok(Outputs::new()),
            Some(problem) => Err(ActionError::new(Code::LS2162, problem)
                .state_left("what the command had done is in effect")
                .remedy("see its output in the run's log, fix the cause, then retry")),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_program_that_can_not_be_started_is_found_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let data = dir.path().join("data");
        std::fs::write(&data, "no program").unwrap();
        let config = format!(
            "[policy.commands]\nabsent.argv=['/nowhere/at-all']\n\
             data.argv=['{}']\ntrue.argv=['/bin/true']\n",
            data.display()
        );
        let cx = Context::of_test(&config);
        for (command, startable) in [("absent", false), ("data", false), ("true", true)] {
            let params = RunCommand {
                command: command.to_owned(),
                within_secs: 1,
            };
            let obstacles = Run.describe(&cx, &params).await.unwrap().obstacles;
            assert_eq!(obstacles.is_empty(), startable, "{command}: {obstacles:?}");
            let probed = Run.probe(&cx, &params).await;
            assert_eq!(probed.is_ok(), startable, "{command}");
        }
    }
}
