//! `check.command` and `command.run`: a command that the agent's policy
//! names, with the arguments that the policy gives it.

use super::PAUSE;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::config::CommandPolicy;
use crate::host::command::{self, Ended, Program};
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
    Ok(Description::of([policy(cx, command)?.argv.join(" ")]))
}

#[async_trait]
impl Action for Check {
    type Params = CheckCommand;

    fn required_permissions(&self, params: &CheckCommand) -> Vec<Permission> {
        vec![Permission::Command(params.command.clone())]
    }

    async fn probe(&self, cx: &Context, params: &CheckCommand) -> Result<Probe, ActionError> {
        policy(cx, &params.command).map(|_| found(Finding::Pending))
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
        policy(cx, &params.command).map(|_| found(Finding::Indeterminate))
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
        match problem(&params.command, &ended) {
            None => Ok(Outputs::new()),
            Some(problem) => Err(ActionError::new(Code::LS2162, problem)
                .state_left("what the command had done is in effect")
                .remedy("see its output in the run's log, fix the cause, then retry")),
        }
    }
}
