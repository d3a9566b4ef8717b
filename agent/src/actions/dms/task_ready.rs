//! `dms.task.ready`: the forward task runs, every table of it is well, it maps the
//! marker table but not the canary's, and its control tables are those that are read.
//!
//! Outputs `checkpoint`: the `RecoveryCheckpoint`, from which a rollback would
//! resume it; null where DMS names none. And `last_failure`: what DMS keeps of
//! an earlier failure, so that only another one counts when the task is stopped.

use super::forward_settings;
use super::health::Health;
use super::lobs::{self, Lobs};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::dms::{Dms, Task};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DmsTaskReady;
use lockstep_plan::mappings::Mappings;
use serde_json::{Value, json};

pub struct Ready;

/// The task, its health and its mappings.
struct Seen {
    task: Task,
    health: Health,
    /// Whether it maps the tables that it must, and none that it must not.
    mapped: Result<(), ActionError>,
}

impl Seen {
    async fn of(cx: &Context, params: &DmsTaskReady) -> Result<Self, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = dms.task(&params.task).await?;
        let mut health = Health::of(&dms, &task).await?;
        state(&task, &mut health);
        if dms.endpoint(&task.target).await?.sets_replication_role {
            health.remarks.push(
                "its sessions set session_replication_role: triggers of mode origin don't fire \
                 for what it applies"
                    .to_owned(),
            );
        }
        let documents = dms.documents(&task.arn).await?;
        let rules: Value = serde_json::from_str(&documents.mappings).unwrap_or_default();
        let settings: Value = serde_json::from_str(&documents.settings).unwrap_or_default();
        let planned = params.control_schema.as_deref();
        let other =
            planned.and_then(|schema| forward_settings::other_control_schema(&settings, schema));
        health.obstacles.extend(other);
        health.remarks.push(forward_settings::summary(&settings));
        let source = dms.endpoint(&task.source).await?;
        health.remarks.push(source.log_reader.limits());
        health
            .remarks
            .extend(Lobs::of(&settings).remark("it cuts LOBs"));
        health.remarks.extend(lobs::of_tables(&rules));
        let mapped = mapped(&task, &Mappings::of(&rules, source.escape), params);
        Ok(Self {
            task,
            health,
            mapped,
        })
    }

    /// The obstacles as an error.
    fn passed(self) -> Result<(Task, Health), ActionError> {
        let health = self.health.passed(&self.task)?;
        self.mapped?;
        Ok((self.task, health))
    }
}

fn state(task: &Task, health: &mut Health) {
    if task.status != "running" {
        health.obstacles.push(format!(
            "it is {}, not running ({}{})",
            task.status, task.stop_reason, task.last_failure
        ));
    } else if !task.last_failure.is_empty() {
        health.remarks.push(format!(
            "it runs, and DMS still keeps the message of an earlier failure ({}); only another \
             one will count when it is stopped",
            task.last_failure
        ));
    }
    if task.migration_type == "full-load" {
        health
            .obstacles
            .push("it loads only and captures no changes".to_owned());
    }
}

/// The forward task carries the marker and the reverse task the canary: the
/// rows of a table that both tasks map would be replicated in a loop.
fn mapped(task: &Task, mappings: &Mappings<'_>, params: &DmsTaskReady) -> Result<(), ActionError> {
    let error = |what: String, remedy: String| {
        Err(ActionError::new(Code::LS2427, what)
            .state_left("nothing was changed")
            .remedy(remedy))
    };
    let name = &task.identifier;
    if let Some(marker) = &params.marker_table
        && !mappings.selects(marker)
    {
        return error(
            format!(
                "no selection rule of the task {name} takes the marker table {marker}, so no \
                 marker would ever arrive"
            ),
            format!(
                "stop the task, add a rule that includes {marker} to its table mappings, resume \
                 it, then retry"
            ),
        );
    }
    if let Some(canary) = &params.canary_table
        && mappings.selects(canary)
    {
        return error(
            format!(
                "the task {name} maps the canary table {canary}, which is the reverse task's: \
                 resumed, it would carry the canary back to PostgreSQL"
            ),
            format!("stop the task, exclude {canary} in its table mappings, resume it, then retry"),
        );
    }
    Ok(())
}

#[async_trait]
impl Action for Ready {
    type Params = DmsTaskReady;

    fn required_permissions(&self, params: &DmsTaskReady) -> Vec<Permission> {
        vec![Permission::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &DmsTaskReady) -> Result<Probe, ActionError> {
        Seen::of(cx, params).await?.passed()?;
        // Always pending, because later steps need its output.
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DmsTaskReady,
    ) -> Result<Description, ActionError> {
        let seen = Seen::of(cx, params).await?;
        let mut description = Description {
            would_do: vec![format!(
                "read the state of the task {} and its tables",
                seen.task.identifier
            )],
            obstacles: seen.health.obstacles,
            remarks: seen.health.remarks,
            ..Description::default()
        };
        description.obstacle(seen.mapped);
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DmsTaskReady,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let (task, health) = Seen::of(cx, params).await?.passed()?;
        for remark in health.remarks {
            cx.note(remark);
        }
        Ok(Outputs::from([
            ("checkpoint".to_owned(), json!(task.checkpoint)),
            ("last_failure".to_owned(), json!(task.last_failure)),
        ]))
    }
}
