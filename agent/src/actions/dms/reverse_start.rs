//! `dms.reverse.start`: starts the task back to Oracle and waits until its slot
//! is active.
//!
//! `start-replication` is correct for the first start only; later it would
//! begin at the present and lose the changes in between. Undo stops the task
//! and drops the slot that DMS created. It stops with an error where anything
//! but the canary was applied: Oracle then holds changes that the forward task
//! doesn't know.

use super::health::{Health, full_name, named};
use super::slots::{self, Known};
use super::{stop_and_wait, wait};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image,
    with_before_image,
};
use crate::host::dms::{Dms, Start as How, Task};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use aws_sdk_databasemigration::types::TableStatistics;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DmsReverseStart;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

pub struct Start;

/// The columns of a canary table, by which it is recognised: its name is the
/// plan's choice, and no application's table has exactly these.
const CANARY_COLUMNS: [&str; 4] = ["nonce", "run_id", "task_id", "written_at"];

#[derive(Debug, Serialize, Deserialize)]
struct BeforeImage {
    /// `Status` before.
    status: String,
    slots: Vec<String>,
}

async fn look(dms: &Dms, params: &DmsReverseStart) -> Result<Task, ActionError> {
    let task = dms.task(&params.task).await?;
    if task.migration_type == "cdc" {
        return Ok(task);
    }
    Err(ActionError::new(
        Code::LS2424,
        format!(
            "the task {} is {}, not cdc: starting it would load tables into Oracle",
            task.identifier, task.migration_type
        ),
    )
    .state_left("nothing was changed")
    .remedy("create a task that captures changes only"))
}

async fn start(cx: &Context, dms: &Dms, task: &Task) -> Result<(), ActionError> {
    let (how, done) = if task.has_run {
        (How::Resume, "resumed")
    } else {
        (How::First, "started")
    };
    match dms.start(&task.arn, how).await {
        // Someone else has started it; it is running, which is all that is
        // needed.
        Err(refused) if refused.is_wrong_state() && dms.task(&task.arn).await?.is_up() => {}
        answer => answer?,
    }
    cx.effect(format!("the task {}: {done}", task.identifier));
    Ok(())
}

#[async_trait]
impl Action for Start {
    type Params = DmsReverseStart;

    fn required_permissions(&self, params: &DmsReverseStart) -> Vec<Permission> {
        vec![
            Permission::Aws(params.resource.clone()),
            Permission::Postgres(params.postgres.clone()),
        ]
    }

    async fn probe(&self, cx: &Context, params: &DmsReverseStart) -> Result<Probe, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = look(&dms, params).await?;
        let session = Session::open(cx, &params.postgres).await?;
        let slots = slots::all(&session).await?.into_keys().collect();
        let status = task.status;
        // Always pending, because later steps need the slot's name.
        with_before_image(Finding::Pending, &BeforeImage { status, slots })
    }

    /// The probe is always pending; here the task must run, and DMS must not have
    /// given up a table of it.
    async fn in_effect(&self, cx: &Context, params: &DmsReverseStart) -> Result<bool, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = look(&dms, params).await?;
        if task.status != "running" {
            return Ok(false);
        }
        Health::of(&dms, &task).await?.passed(&task)?;
        Ok(true)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DmsReverseStart,
    ) -> Result<Description, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = look(&dms, params).await?;
        Ok(Description::of([format!(
            "StartReplicationTask {} (now {}), wait until its slot is active",
            task.identifier, task.status
        )]))
    }

    /// The task doesn't exist yet; the connection that checks its slot must
    /// work.
    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &DmsReverseStart,
    ) -> Result<Description, ActionError> {
        let mut foreseen = Description::of([format!(
            "StartReplicationTask {}, wait until its slot is active",
            params.task
        )]);
        foreseen.obstacle(Dms::of(cx, &params.resource).await);
        let session = Session::open(cx, &params.postgres).await?;
        foreseen.obstacle(slots::all(&session).await);
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DmsReverseStart,
        before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let session = Session::open(cx, &params.postgres).await?;
        let task = look(&dms, params).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let begun = Instant::now();
        // A task that had run before this step has its slot from then.
        let before = match before_image
            .map(decode_before_image::<BeforeImage>)
            .transpose()?
        {
            Some(before_image) if before_image.status == "ready" => Some(before_image.slots),
            _ => None,
        };
        let known = Known::of(&dms, &task).await?;
        if !task.is_up() {
            start(cx, &dms, &task).await?;
        }
        wait(cx, &dms, &task.arn, limit, "running", |task| {
            task.is_some_and(|task| task.status == "running")
        })
        .await?;
        let limit = limit.saturating_sub(begun.elapsed());
        let slot = slots::active(&session, &known, before.as_deref(), limit).await?;
        cx.note(format!("the slot {slot} is active"));
        Ok(Outputs::from([("slot".to_owned(), json!(slot))]))
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DmsReverseStart,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: BeforeImage = decode_before_image(before_image)?;
        let dms = Dms::of(cx, &params.resource).await?;
        let Some(task) = dms.find(&params.task).await? else {
            return Ok(Undone::Unchanged);
        };
        let session = Session::open(cx, &params.postgres).await?;
        // Checked before the stop as well: where an undo is impossible, the
        // task is better left running.
        if let Some(applied) = applied(&dms, &session, &task).await? {
            return Ok(Undone::Drifted(applied));
        }
        let limit = Duration::from_secs(params.timeout_secs);
        let was_up = !task.is_at_rest();
        if was_up {
            stop_and_wait(cx, &dms, &task.arn, limit).await?;
            cx.effect(format!("the task {}: stopped", task.identifier));
        }
        if let Some(applied) = applied(&dms, &session, &task).await? {
            return Ok(Undone::Drifted(applied));
        }
        let dropped = drop_own(cx, &dms, &session, &task, &before.slots, limit).await?;
        Ok(Undone::restored_if(was_up || dropped))
    }
}

/// Drops the slot that DMS has created for the task since the probe.
async fn drop_own(
    cx: &Context,
    dms: &Dms,
    session: &Session,
    task: &Task,
    before: &[String],
    limit: Duration,
) -> Result<bool, ActionError> {
    let known = Known::of(dms, task).await?;
    if known.is_customers() {
        cx.note("the slot is the endpoint's own and stays; drop it if nobody needs it".to_owned());
        return Ok(false);
    }
    let slots = slots::all(session).await?;
    let Some(slot) = known.choose(&slots, Some(before))? else {
        return Ok(false);
    };
    let dropped = slots::drop_slot(session, &slot, limit).await?;
    if dropped {
        cx.effect(format!("the slot {slot}: dropped"));
    }
    Ok(dropped)
}

/// Tables besides the canary into which the task has applied anything.
async fn applied(dms: &Dms, session: &Session, task: &Task) -> Result<Option<String>, ActionError> {
    if !task.has_run {
        return Ok(None);
    }
    let tables = dms.statistics(&task.arn).await?;
    let sql = "SELECT n.nspname || '.' || c.relname FROM pg_attribute a \
               JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') \
               JOIN pg_namespace n ON n.oid = c.relnamespace \
               WHERE a.attnum > 0 AND NOT a.attisdropped GROUP BY n.nspname, c.relname \
               HAVING array_agg(a.attname::text ORDER BY a.attname::text COLLATE \"C\") = $1";
    let rows = session.rows(sql, &[&&CANARY_COLUMNS[..]]).await?;
    let canaries: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
    let names = named(&tables, |table| {
        has_applied(table) && !canaries.contains(&full_name(table))
    });
    Ok((!names.is_empty()).then(|| {
        format!(
            "the reverse task {} has applied changes of {names} to Oracle; there is no automatic \
             rollback: compare these tables, then continue forward or repair Oracle by hand",
            task.identifier
        )
    }))
}

/// Captured changes count too: they have been applied or are about to be.
fn has_applied(table: &TableStatistics) -> bool {
    let applied = [
        Some(table.inserts()),
        Some(table.updates()),
        Some(table.deletes()),
        Some(table.ddls()),
        table.applied_inserts(),
        table.applied_updates(),
        table.applied_deletes(),
        table.applied_ddls(),
    ];
    applied.into_iter().flatten().any(|count| count > 0)
}
