//! AWS DMS: the forward task, and the task back to Oracle.

pub mod connection_test;
mod forward_settings;
mod health;
pub mod lobs;
pub mod reverse_create;
pub mod reverse_delete;
pub mod reverse_settings;
pub mod reverse_start;
mod slots;
mod task_diff;
pub mod task_drain;
pub mod task_ready;
pub mod task_resume;
pub mod task_stop;

use crate::action::{ActionError, Context};
use crate::host::dms::{Dms, Poll, Start, Task};
use lockstep_api::Code;
use std::time::Duration;
use tokio::time::Instant;

/// The stop reason of a task that was stopped by request (API reference,
/// `ReplicationTask.StopReason`).
const STOPPED_BY_REQUEST: &str = "Stop Reason NORMAL";

/// Waits until a task is in a state that `enough` accepts; `None` is a task
/// that doesn't exist. A failed task ends the wait with an error unless
/// `enough` accepts it.
async fn wait(
    cx: &Context,
    dms: &Dms,
    arn: &str,
    limit: Duration,
    wanted: &str,
    enough: impl Fn(Option<&Task>) -> bool,
) -> Result<Option<Task>, ActionError> {
    let mut poll = Poll::begin(cx, limit);
    let mut last_reported = String::new();
    loop {
        let task = dms.find(arn).await?;
        if enough(task.as_ref()) {
            return Ok(task);
        }
        let status = task
            .as_ref()
            .map_or("deleted", |task| task.status.as_str())
            .to_owned();
        if status == "failed" || status == "deleted" {
            return Err(wrong_end(arn, task.as_ref(), wanted));
        }
        if last_reported != status {
            cx.note(format!("{}: {status}", name(task.as_ref(), arn)));
            last_reported.clone_from(&status);
        }
        if !poll
            .again(&format!("the wait for {arn} to be {wanted}"))
            .await?
        {
            return Err(ActionError::new(
                Code::LS2412,
                format!(
                    "{} is not {wanted} after {} s",
                    name(task.as_ref(), arn),
                    limit.as_secs()
                ),
            )
            .state_left(format!("it is {status}, and DMS may still go on with it"))
            .remedy("see its log in the console, then retry: the wait goes on"));
        }
    }
}

fn wrong_end(arn: &str, task: Option<&Task>, wanted: &str) -> ActionError {
    let (state, why) = task.map_or(("deleted", ""), |task| {
        (task.status.as_str(), task.last_failure.as_str())
    });
    let why = if why.is_empty() {
        String::new()
    } else {
        format!(" ({why})")
    };
    ActionError::new(
        Code::LS2413,
        format!("{} is {state}{why} instead of {wanted}", name(task, arn)),
    )
    .state_left("DMS does nothing more with it")
    .remedy("see its log in the console, fix the cause, then retry or roll back")
}

fn name(task: Option<&Task>, arn: &str) -> String {
    task.map_or_else(
        || arn.to_owned(),
        |task| format!("the task {}", task.identifier),
    )
}

/// Stops a task and waits until it has stopped; does nothing where it is
/// stopped already.
async fn stop_and_wait(
    cx: &Context,
    dms: &Dms,
    arn: &str,
    limit: Duration,
) -> Result<Task, ActionError> {
    let begun = Instant::now();
    // Only a running task can be stopped, so one that starts is waited for.
    let settled = wait(cx, dms, arn, limit, "running or stopped", |task| {
        task.is_some_and(|task| {
            task.is_at_rest() || matches!(task.status.as_str(), "running" | "stopping")
        })
    })
    .await?;
    if settled.is_some_and(|task| task.status == "running") {
        match dms.stop(arn).await {
            // It has stopped by itself meanwhile, or someone else has stopped
            // it.
            Err(refused) if refused.is_wrong_state() => {}
            done => done?,
        }
    }
    let limit = limit.saturating_sub(begun.elapsed());
    let stopped = wait(cx, dms, arn, limit, "stopped", |task| {
        task.is_some_and(Task::is_at_rest)
    })
    .await?;
    stopped.ok_or_else(|| wrong_end(arn, None, "stopped"))
}

/// `resume-processing`; returns once DMS has accepted the request.
async fn resume(cx: &Context, dms: &Dms, arn: &str, limit: Duration) -> Result<bool, ActionError> {
    let settled = wait(cx, dms, arn, limit, "stopped", |task| {
        task.is_some_and(|task| task.is_at_rest() || task.is_up())
    })
    .await?;
    let Some(task) = settled.filter(|task| !task.is_up()) else {
        return Ok(false);
    };
    if !task.has_run {
        return Err(ActionError::new(
            Code::LS2414,
            format!(
                "{} has never run, so it can't be resumed",
                name(Some(&task), arn)
            ),
        )
        .state_left("it was not started: a first start would load its tables anew")
        .remedy("start it by hand if that is what is wanted"));
    }
    match dms.start(arn, Start::Resume).await {
        // Someone else has started it; it is running, which is all that is
        // needed.
        Err(refused) if refused.is_wrong_state() && dms.task(arn).await?.is_up() => {}
        done => done?,
    }
    cx.effect(format!("{}: resuming", name(Some(&task), arn)));
    Ok(true)
}
