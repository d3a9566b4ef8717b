//! `dms.reverse.delete`: gives up the fallback to Oracle. The task is stopped
//! and deleted and its slot dropped, also one that the customer created:
//! without a reader it would retain WAL.

use super::reverse_create::delete_and_wait;
use super::slots::{self, Known, Use};
use super::stop_and_wait;
use crate::action::{Action, ActionError, Context, Description, Outputs, found, satisfied_if};
use crate::host::dms::{Dms, Task};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::DmsReverseDelete;
use serde_json::Value;
use std::time::Duration;

pub struct Delete;

/// The task's slot. Of a deleted task only the name is known.
async fn own(
    dms: &Dms,
    session: &Session,
    task: Option<&Task>,
    arn: &str,
) -> Result<Option<String>, ActionError> {
    let slots = slots::all(session).await?;
    let known = match task {
        None => Known::by_arn(arn),
        Some(task) => Known::of(dms, task).await?,
    };
    known.choose(&slots, None)
}

/// Slots without a reader may be the task's under another name: they are
/// reported, so that they don't fill the disk unnoticed.
async fn tell_idle(cx: &Context, session: &Session) -> Result<(), ActionError> {
    let slots = slots::all(session).await?;
    let idle: Vec<&str> = slots
        .iter()
        .filter(|(_, used)| **used == Use::Idle)
        .map(|(slot, _)| slot.as_str())
        .collect();
    if !idle.is_empty() {
        cx.note(format!(
            "replication slots that nobody reads: {}; drop what nobody needs",
            idle.join(", ")
        ));
    }
    Ok(())
}

#[async_trait]
impl Action for Delete {
    type Params = DmsReverseDelete;

    fn required_permissions(&self, params: &DmsReverseDelete) -> Vec<Permission> {
        vec![
            Permission::Aws(params.resource.clone()),
            Permission::Postgres(params.postgres.clone()),
        ]
    }

    async fn probe(&self, cx: &Context, params: &DmsReverseDelete) -> Result<Probe, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let session = Session::open(cx, &params.postgres).await?;
        let task = dms.find(&params.task).await?;
        let left = own(&dms, &session, task.as_ref(), &params.task).await?;
        Ok(found(satisfied_if(task.is_none() && left.is_none())))
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
        if let Some(slot) = own(&dms, &session, task.as_ref(), &params.task).await? {
            would_do.push(format!("SELECT pg_drop_replication_slot('{slot}')"));
        }
        Ok(Description::of(would_do))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DmsReverseDelete,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let session = Session::open(cx, &params.postgres).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let task = dms.find(&params.task).await?;
        let slot = own(&dms, &session, task.as_ref(), &params.task).await?;
        if let Some(task) = task {
            if task.status != "deleting" {
                stop_and_wait(cx, &dms, &task.arn, limit).await?;
            }
            delete_and_wait(cx, &dms, &task, limit).await?;
        }
        if let Some(slot) = slot
            && slots::drop_slot(&session, &slot, limit).await?
        {
            cx.effect(format!("the slot {slot}: dropped"));
        }
        tell_idle(cx, &session).await?;
        Ok(Outputs::new())
    }
}
