//! `dms.task.stop`: the forward task stopped, by request and without loss.

use super::health::Health;
use super::{STOPPED_BY_REQUEST, resume, stop_and_wait};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, captured, recalled,
};
use crate::host::dms::{Dms, Task};
use crate::policy::Need;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DmsTask;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

pub struct Stop;

#[derive(Debug, Serialize, Deserialize)]
struct Capture {
    /// `Status` before.
    status: String,
}

fn outputs(task: &Task) -> Outputs {
    Outputs::from([
        ("stop_reason".to_owned(), json!(task.stop_reason)),
        ("checkpoint".to_owned(), json!(task.checkpoint)),
    ])
}

/// Stopped, for the reason that was asked for, without an error. A message
/// that was there when the run began says nothing of this stop: a task that
/// fails once more the same way is not `stopped`.
fn well_stopped(task: &Task, params: &DmsTask) -> Result<(), ActionError> {
    let by_request = task.stop_reason.eq_ignore_ascii_case(STOPPED_BY_REQUEST);
    let known = params.known_failure.as_deref();
    let unharmed = task.last_failure.is_empty() || known == Some(task.last_failure.as_str());
    if task.status == "stopped" && by_request && unharmed {
        return Ok(());
    }
    Err(ActionError::new(
        "LS2417",
        format!(
            "the task {} is {}, {:?}, last failure {:?}",
            task.identifier, task.status, task.stop_reason, task.last_failure
        ),
    )
    .left("it does not run; what it applied last is not proved")
    .next("see its log in the console; resume it and drain again, or roll back"))
}

#[async_trait]
impl Action for Stop {
    type Params = DmsTask;

    fn needs(&self, params: &DmsTask) -> Vec<Need> {
        vec![Need::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &DmsTask) -> Result<Probe, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = dms.task(&params.task).await?;
        let finding = if task.is_at_rest() {
            well_stopped(&task, params)?;
            Finding::Already
        } else {
            Finding::Todo
        };
        let status = task.status;
        captured(finding, &Capture { status })
    }

    async fn describe(&self, cx: &Context, params: &DmsTask) -> Result<Description, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = dms.task(&params.task).await?;
        Ok(Description::of([format!(
            "StopReplicationTask {} (now {}), wait for {STOPPED_BY_REQUEST:?}",
            task.identifier, task.status
        )]))
    }

    /// The message of an earlier failure alone comes from the run.
    async fn foresee(&self, cx: &Context, params: &DmsTask) -> Result<Description, ActionError> {
        self.describe(cx, params).await
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DmsTask,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let task = stop_and_wait(cx, &dms, &params.task, limit).await?;
        well_stopped(&task, params)?;
        // Once more: an error in the very last transaction shows only now.
        Health::of(&dms, &task).await?.passed(&task)?;
        cx.note(format!("the task {}: stopped", task.identifier));
        Ok(outputs(&task))
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DmsTask,
        capture: &Value,
    ) -> Result<Undone, ActionError> {
        let Capture { status } = recalled(capture)?;
        if !matches!(status.as_str(), "starting" | "running") {
            return Ok(Undone::Nothing);
        }
        let dms = Dms::of(cx, &params.resource).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        Ok(if resume(cx, &dms, &params.task, limit).await? {
            Undone::Restored
        } else {
            Undone::Nothing
        })
    }
}
