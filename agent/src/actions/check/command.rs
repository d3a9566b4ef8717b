//! `check.command` and `command.run`: a command that the agent's policy
//! names, with the arguments that the policy gives it.

use super::PAUSE;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::config::CommandPolicy;
use crate::host::command::{self, Ended, Program};
use crate::policy::Need;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::Command;
use serde_json::Value;
use std::path::Path;
use std::time::Duration;

/// Runs it until it succeeds.
pub struct Check;
pub struct Run;

fn policy<'a>(cx: &'a Context, params: &Command) -> Result<&'a CommandPolicy, ActionError> {
    cx.host.policy.command(&params.command).ok_or_else(|| {
        let name = &params.command;
        ActionError::new(
            "LS2005",
            format!("this agent has no command {name} in its policy"),
        )
        .left("nothing was done")
        .next(format!("define [policy.commands.{name}] in agent.toml"))
    })
}

async fn once(cx: &Context, params: &Command, limit: Duration) -> Result<Ended, ActionError> {
    let policy = policy(cx, params)?;
    let (path, arguments) = policy.argv.split_first().ok_or_else(|| {
        ActionError::new("LS2005", format!("the command {} is empty", params.command))
    })?;
    let program = Program {
        path: Path::new(path),
        arguments: arguments.iter().map(String::as_str).collect(),
        environment: Vec::new(),
        limit: limit.min(Duration::from_secs(policy.timeout_secs)),
    };
    command::run(cx, &program).await
}

fn problem(params: &Command, ended: &Ended) -> Option<String> {
    let how = match ended.code {
        Some(0) => return None,
        Some(code) => format!("{} exited with {code}", params.command),
        None => format!("{} was ended by a signal", params.command),
    };
    match ended.last_line() {
        "" => Some(format!("{how} and said nothing")),
        last => Some(format!("{how}: {last}")),
    }
}

fn describe(cx: &Context, params: &Command) -> Result<Description, ActionError> {
    Ok(Description::of([policy(cx, params)?.argv.join(" ")]))
}

#[async_trait]
impl Action for Check {
    type Params = Command;

    fn needs(&self, params: &Command) -> Vec<Need> {
        vec![Need::Command(params.command.clone())]
    }

    async fn probe(&self, cx: &Context, params: &Command) -> Result<Probe, ActionError> {
        policy(cx, params).map(|_| found(Finding::Todo))
    }

    async fn describe(&self, cx: &Context, params: &Command) -> Result<Description, ActionError> {
        describe(cx, params)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &Command,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let began = tokio::time::Instant::now();
        let limit = Duration::from_secs(params.within_secs);
        loop {
            let left = limit.saturating_sub(began.elapsed());
            let ended = once(cx, params, left).await?;
            let Some(problem) = problem(params, &ended) else {
                return Ok(Outputs::new());
            };
            if began.elapsed() + PAUSE >= limit || cx.cancel.is_cancelled() {
                return Err(ActionError::new("LS2160", problem)
                    .left("nothing was changed by the check, unless its command changes things")
                    .next("mend the cause, then retry"));
            }
            tokio::time::sleep(PAUSE).await;
        }
    }
}

#[async_trait]
impl Action for Run {
    type Params = Command;

    fn needs(&self, params: &Command) -> Vec<Need> {
        vec![Need::Command(params.command.clone())]
    }

    /// Whether a command has had its effect, only the command knows: after a
    /// crash that is unknown.
    async fn probe(&self, cx: &Context, params: &Command) -> Result<Probe, ActionError> {
        policy(cx, params).map(|_| found(Finding::Unclear))
    }

    async fn describe(&self, cx: &Context, params: &Command) -> Result<Description, ActionError> {
        describe(cx, params)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &Command,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let ended = once(cx, params, Duration::from_secs(params.within_secs)).await?;
        match problem(params, &ended) {
            None => Ok(Outputs::new()),
            Some(problem) => Err(ActionError::new("LS2162", problem)
                .left("what the command had done stands")
                .next("see its output in the run's log, mend the cause, then retry")),
        }
    }
}
