//! `dms.task.ready`: the forward task runs, and every table of it is well.
//!
//! Outputs `checkpoint`: the `RecoveryCheckpoint`, from which a rollback would
//! resume it; null where DMS names none.

use super::health::Health;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::dms::{Dms, Task};
use crate::policy::Need;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DmsTask;
use serde_json::{Value, json};

/// The action.
pub struct Ready;

async fn look(cx: &Context, params: &DmsTask) -> Result<(Task, Health), ActionError> {
    let dms = Dms::of(cx, &params.resource).await?;
    let task = dms.task(&params.task).await?;
    let mut health = Health::of(&dms, &task).await?;
    if task.status != "running" {
        health.obstacles.push(format!(
            "it is {}, not running ({}{})",
            task.status, task.stop_reason, task.last_failure
        ));
    }
    if task.migration_type == "full-load" {
        health
            .obstacles
            .push("it loads only and captures no changes".to_owned());
    }
    let target = dms.endpoint(&task.target).await?;
    let replica = target
        .after_connect
        .is_some_and(|script| script.contains("session_replication_role"));
    if replica {
        health.remarks.push(
            "its sessions set session_replication_role: triggers of mode origin don't fire for \
             what it applies"
                .to_owned(),
        );
    }
    Ok((task, health))
}

#[async_trait]
impl Action for Ready {
    type Params = DmsTask;

    fn needs(&self, params: &DmsTask) -> Vec<Need> {
        vec![Need::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &DmsTask) -> Result<Probe, ActionError> {
        let (task, health) = look(cx, params).await?;
        health.passed(&task)?;
        // To be done, or its output would be missing.
        Ok(found(Finding::Todo))
    }

    async fn describe(&self, cx: &Context, params: &DmsTask) -> Result<Description, ActionError> {
        let (task, health) = look(cx, params).await?;
        Ok(Description {
            would_do: vec![format!(
                "look at the task {} and its tables",
                task.identifier
            )],
            obstacles: health.obstacles,
            remarks: health.remarks,
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DmsTask,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let (task, health) = look(cx, params).await?;
        let health = health.passed(&task)?;
        for remark in health.remarks {
            cx.note(remark);
        }
        Ok(Outputs::from([(
            "checkpoint".to_owned(),
            json!(task.checkpoint),
        )]))
    }
}
