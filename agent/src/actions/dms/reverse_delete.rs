//! `dms.reverse.delete`: the way back given up. The task is stopped and
//! deleted, its slot dropped, the customer's own too: with the task gone it
//! would keep WAL for nobody.

use super::reverse_create::delete_and_wait;
use super::slots::{self, Known};
use super::stop_and_wait;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::dms::{Dms, Task};
use crate::host::postgres::Session;
use crate::policy::Need;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DmsReverseDelete;
use serde_json::Value;
use std::time::Duration;

/// The action.
pub struct Delete;

/// By what a deleted task's slot is known still: DMS may have dropped it, or
/// not have got to it.
fn orphans(slots: &slots::Slots, arn: &str) -> Vec<String> {
    let id = arn.rsplit(':').next().unwrap_or(arn).to_ascii_lowercase();
    slots
        .keys()
        .filter(|slot| !id.is_empty() && slot.contains(&id))
        .cloned()
        .collect()
}

async fn own(
    dms: &Dms,
    session: &Session,
    task: Option<&Task>,
    arn: &str,
) -> Result<Vec<String>, ActionError> {
    let slots = slots::all(session).await?;
    match task {
        None => Ok(orphans(&slots, arn)),
        Some(task) => {
            let known = Known::of(dms, task).await?;
            Ok(slots
                .into_keys()
                .filter(|slot| known.is(slot, &[]))
                .collect())
        }
    }
}

#[async_trait]
impl Action for Delete {
    type Params = DmsReverseDelete;

    fn needs(&self, params: &DmsReverseDelete) -> Vec<Need> {
        vec![
            Need::Aws(params.resource.clone()),
            Need::Postgres(params.postgres.clone()),
        ]
    }

    async fn probe(&self, cx: &Context, params: &DmsReverseDelete) -> Result<Probe, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let session = Session::open(cx, &params.postgres).await?;
        let task = dms.find(&params.task).await?;
        let left = own(&dms, &session, task.as_ref(), &params.task).await?;
        Ok(found(if task.is_none() && left.is_empty() {
            Finding::Already
        } else {
            Finding::Todo
        }))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DmsReverseDelete,
    ) -> Result<Description, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let session = Session::open(cx, &params.postgres).await?;
        let task = dms.find(&params.task).await?;
        let mut would_do = Vec::new();
        if let Some(task) = &task {
            would_do.push(format!(
                "StopReplicationTask, DeleteReplicationTask {} (now {})",
                task.identifier, task.status
            ));
        }
        for slot in own(&dms, &session, task.as_ref(), &params.task).await? {
            would_do.push(format!("SELECT pg_drop_replication_slot('{slot}')"));
        }
        Ok(Description::of(would_do))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DmsReverseDelete,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let session = Session::open(cx, &params.postgres).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let task = dms.find(&params.task).await?;
        let slots = own(&dms, &session, task.as_ref(), &params.task).await?;
        if let Some(task) = task {
            if task.status != "deleting" {
                stop_and_wait(cx, &dms, &task.arn, limit).await?;
            }
            delete_and_wait(cx, &dms, &task, limit).await?;
        }
        for slot in slots {
            if slots::drop_slot(&session, &slot, limit).await? {
                cx.note(format!("the slot {slot}: dropped"));
            }
        }
        Ok(Outputs::new())
    }
}
