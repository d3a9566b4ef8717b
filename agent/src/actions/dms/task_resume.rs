//! `dms.task.resume`: resumes the forward task from its checkpoint.
//!
//! `resume-processing` only: `start-replication` would reload the tables of a
//! task that loads. It does not wait for `running`: Oracle must not stay closed
//! for DMS. It fails while the reverse task replicates, or changes would be
//! replicated in a loop.

use super::resume;
use crate::action::{Action, ActionError, Context, Description, Outputs, found, satisfied_if};
use crate::host::dms::{Dms, Poll, Task};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::ResumeDmsTask;
use serde_json::Value;
use std::time::Duration;

pub struct Resume;

/// The reverse task, if it exists and is not stopped.
async fn reverse(dms: &Dms, params: &ResumeDmsTask) -> Result<Option<Task>, ActionError> {
    let Some(identifier) = &params.reverse else {
        return Ok(None);
    };
    let task = dms.find_named(identifier).await?;
    Ok(task.filter(|task| !task.is_at_rest()))
}

fn circle(reverse: &Task) -> ActionError {
    ActionError::new(
        Code::LS2418,
        format!(
            "the reverse task {} is {}: both ways at once would send changes round in a circle",
            reverse.identifier, reverse.status
        ),
    )
    .state_left("the forward task was not resumed")
    .remedy("stop or delete the reverse task, then retry")
}

#[async_trait]
impl Action for Resume {
    type Params = ResumeDmsTask;

    fn required_permissions(&self, params: &ResumeDmsTask) -> Vec<Permission> {
        vec![Permission::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &ResumeDmsTask) -> Result<Probe, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let up = dms.task(&params.task).await?.is_up();
        // Only `execute` fails for the reverse task: its state at the probe may
        // be about to change.
        let so = up && reverse(&dms, params).await?.is_none();
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &ResumeDmsTask,
    ) -> Result<Description, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = dms.task(&params.task).await?;
        let mut description = Description::of([format!(
            "StartReplicationTask {} resume-processing (now {})",
            task.identifier, task.status
        )]);
        if let Some(reverse) = reverse(&dms, params).await? {
            description.obstacles.push(circle(&reverse).to_string());
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &ResumeDmsTask,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let mut poll = Poll::begin(cx, limit);
        // A reverse task that is stopping is waited for; one that replicates is
        // an error at once.
        while let Some(reverse) = reverse(&dms, params).await? {
            let resting = matches!(reverse.status.as_str(), "stopping" | "deleting");
            if !resting || !poll.again("the wait for the reverse task").await? {
                return Err(circle(&reverse));
            }
        }
        resume(cx, &dms, &params.task, limit).await?;
        Ok(Outputs::new())
    }
}
