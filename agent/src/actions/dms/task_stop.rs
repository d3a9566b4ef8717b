//! `dms.task.stop`: stops the forward task and checks that it stopped by
//! request and without loss. A rollback resumes it with `dms.task.resume`.

use super::health::Health;
use super::{STOPPED_BY_REQUEST, stop_and_wait};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::dms::{Dms, Task};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::StopDmsTask;
use serde_json::{Value, json};
use std::time::Duration;

pub struct Stop;

fn outputs(task: &Task) -> Outputs {
    Outputs::from([
        ("stop_reason".to_owned(), json!(task.stop_reason)),
        ("checkpoint".to_owned(), json!(task.checkpoint)),
    ])
}

/// Checks that the task stopped by request and without an error. A failure
/// message from before the run is ignored: a task that fails again the same way
/// is not `stopped`.
fn well_stopped(task: &Task, params: &StopDmsTask) -> Result<(), ActionError> {
    let by_request = task.stop_reason.eq_ignore_ascii_case(STOPPED_BY_REQUEST);
    let known = params.known_failure.as_deref();
    let unharmed = task.last_failure.is_empty() || known == Some(task.last_failure.as_str());
    if task.status == "stopped" && by_request && unharmed {
        return Ok(());
    }
    Err(ActionError::new(
        Code::LS2417,
        format!(
            "the task {} is {}, {:?}, last failure {:?}",
            task.identifier, task.status, task.stop_reason, task.last_failure
        ),
    )
    .state_left("it does not run; what it applied last is not proved")
    .remedy("see its log in the console; resume it and drain again, or roll back"))
}

#[async_trait]
impl Action for Stop {
    type Params = StopDmsTask;

    fn required_permissions(&self, params: &StopDmsTask) -> Vec<Permission> {
        vec![Permission::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &StopDmsTask) -> Result<Probe, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = dms.task(&params.task).await?;
        let finding = if task.is_at_rest() {
            well_stopped(&task, params)?;
            Finding::Satisfied
        } else {
            Finding::Pending
        };
        Ok(found(finding))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &StopDmsTask,
    ) -> Result<Description, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = dms.task(&params.task).await?;
        Ok(Description::of([format!(
            "StopReplicationTask {} (now {}), wait for {STOPPED_BY_REQUEST:?}",
            task.identifier, task.status
        )]))
    }

    /// Only the message of an earlier failure is known in the run alone.
    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &StopDmsTask,
    ) -> Result<Description, ActionError> {
        self.describe(cx, params).await
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StopDmsTask,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let task = stop_and_wait(cx, &dms, &params.task, limit).await?;
        well_stopped(&task, params)?;
        // Checked again: an error in the very last transaction shows only now.
        Health::of(&dms, &task).await?.passed(&task)?;
        cx.effect(format!("the task {}: stopped", task.identifier));
        Ok(outputs(&task))
    }
}
