//! `dms.reverse.create`: creates the task back to Oracle and waits until it is
//! `ready`.
//!
//! It captures changes only, and its settings are those of a fallback
//! ([`super::reverse_settings`]): the tables are in sync. An
//! existing task of that identifier is used if it is the same and has never
//! run; one that differs is an error that lists the differences. Undo deletes
//! only a task that this run created, by the task's tag: another may have been
//! created between the probe and the work.

use super::reverse_settings::Settings;
use super::{lobs, task_diff, wait};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image,
    with_before_image,
};
use crate::host::dms::{Dms, Documents, NewTask, RUN_TAG, Task};
use crate::host::endpoint::Endpoint;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DmsReverseCreate;
use lockstep_plan::mappings::Mappings;
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};
use std::time::Duration;

pub struct Create;

#[derive(Debug, Serialize, Deserialize)]
struct BeforeImage {
    /// It existed before this run.
    existed: bool,
}

fn mappings(params: &DmsReverseCreate) -> String {
    match &params.table_mappings {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

/// The mappings as JSON; null, which selects nothing, where they are none.
fn rules(params: &DmsReverseCreate) -> Value {
    serde_json::from_str(&mappings(params)).unwrap_or_default()
}

/// Why a task of that identifier is a different one.
fn identity(params: &DmsReverseCreate, task: &Task) -> Vec<String> {
    let pairs = [
        ("migration type", task.migration_type.as_str(), "cdc"),
        ("source endpoint", &task.source, &params.source_endpoint),
        ("target endpoint", &task.target, &params.target_endpoint),
        ("replication instance", &task.instance, &params.instance),
    ];
    pairs
        .iter()
        .filter(|(_, is, wanted)| is != wanted)
        .map(|(what, is, wanted)| format!("its {what} is {is}, not {wanted}"))
        .collect()
}

/// Why an existing task can't be used.
fn differences(
    params: &DmsReverseCreate,
    task: &Task,
    documents: &Documents,
) -> Result<Vec<String>, ActionError> {
    let mut differences = identity(params, task);
    differences.extend(task_diff::mappings(&documents.mappings, &mappings(params)));
    differences.extend(task_diff::settings(
        &documents.settings,
        &Settings::of(&params.settings)?.text(),
    ));
    let usable = matches!(
        task.status.as_str(),
        "creating" | "modifying" | "ready" | "stopped"
    );
    if task.is_up() {
        differences.push("it is running already".to_owned());
    } else if !usable {
        differences.push(format!("it is {}", task.status));
    } else if task.has_run {
        // Resumed, it would replay what it missed, including changes of the
        // forward task; started anew, it would conflict with its old slot.
        differences.push("it has run before".to_owned());
    }
    Ok(differences)
}

/// What of the source endpoint would stop the task, or the steps after its start.
fn source_usable(endpoint: &Endpoint) -> Result<(), ActionError> {
    refuse_slot(endpoint)?;
    refuse_ddl_capture(endpoint)
}

/// A slot that the customer created requires a `CdcStartPosition` not older
/// than its confirmed position, and DMS reports that only when the task is
/// started, during the outage.
///
/// Source: AWS DMS API reference, `PostgreSQLSettings.SlotName`; user guide,
/// "Using native CDC start points to set up a CDC load of a PostgreSQL source".
fn refuse_slot(endpoint: &Endpoint) -> Result<(), ActionError> {
    let Some(slot) = &endpoint.slot else {
        return Ok(());
    };
    Err(ActionError::new(
        Code::LS2426,
        format!(
            "the source endpoint {} names a replication slot of its own, {slot}: a task on it \
             starts only from a CdcStartPosition, which is not known before the outage",
            endpoint.identifier
        ),
    )
    .state_left("nothing was changed")
    .remedy("remove SlotName (slotName) from the endpoint so that DMS makes a slot, then retry"))
}

/// To capture DDL, DMS installs the event trigger `awsdms_intercept_ddl` when the
/// task starts: every ALTER TABLE, such as the ENABLE TRIGGER before PostgreSQL is
/// opened, then writes to `awsdms_ddl_audit` with the rights of its caller, counts
/// as a change of the task, and may be repeated in Oracle. Capturing is the
/// default.
///
/// Source: AWS DMS API reference, `PostgreSQLSettings.CaptureDdls`; user guide,
/// "Migrating an Amazon RDS for PostgreSQL database without using the master
/// user account".
fn refuse_ddl_capture(endpoint: &Endpoint) -> Result<(), ActionError> {
    if !endpoint.captures_ddl {
        return Ok(());
    }
    Err(ActionError::new(
        Code::LS2428,
        format!(
            "the source endpoint {} captures DDL: enabling triggers in PostgreSQL could fail, or \
             count as a change that forbids the rollback, or be repeated in Oracle",
            endpoint.identifier
        ),
    )
    .state_left("nothing was changed")
    .remedy(
        "set CaptureDdls to false on the endpoint (and captureDDLs=N, if its extra connection \
         attributes name it), then retry",
    ))
}

/// The plan's check of the mappings takes every wildcard for one; an Oracle
/// endpoint with `escapeCharacter` may make some of them ordinary characters, so
/// that the task selects other tables than those checked.
///
/// Source: AWS DMS user guide, "Wildcards in table mapping".
fn refuse_escapes(target: &Endpoint, params: &DmsReverseCreate) -> Result<(), ActionError> {
    let rules = rules(params);
    let escape = target.escape;
    let Some(escape) = escape.filter(|sign| Mappings::of(&rules, escape).contain(*sign)) else {
        return Ok(());
    };
    Err(ActionError::new(
        Code::LS2429,
        format!(
            "the target endpoint {} has escapeCharacter={escape}, and a selection rule of the \
             table mappings contains {escape}: which tables it selects was checked without it",
            target.identifier
        ),
    )
    .state_left("nothing was changed")
    .remedy(
        "write [_] for an underscore in dms.reverse.table_mappings, or remove escapeCharacter from \
         the endpoint, then retry",
    ))
}

/// The existing task of that identifier, if it can be used.
async fn usable(dms: &Dms, params: &DmsReverseCreate) -> Result<Option<Task>, ActionError> {
    source_usable(&dms.endpoint(&params.source_endpoint).await?)?;
    refuse_escapes(&dms.endpoint(&params.target_endpoint).await?, params)?;
    let Some((task, documents)) = dms.find_whole(&params.identifier).await? else {
        return Ok(None);
    };
    let differences = differences(params, &task, &documents)?;
    if differences.is_empty() {
        return Ok(Some(task));
    }
    Err(ActionError::new(
        Code::LS2421,
        format!(
            "there is another task {}: {}",
            params.identifier,
            differences.join("; ")
        ),
    )
    .state_left("nothing was changed")
    .remedy("delete it, or choose another identifier in the plan"))
}

#[async_trait]
impl Action for Create {
    type Params = DmsReverseCreate;

    fn required_permissions(&self, params: &DmsReverseCreate) -> Vec<Permission> {
        vec![Permission::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &DmsReverseCreate) -> Result<Probe, ActionError> {
        Settings::of(&params.settings)?;
        let dms = Dms::of(cx, &params.resource).await?;
        let existed = usable(&dms, params).await?.is_some();
        // Always pending, because later steps need the ARN.
        with_before_image(Finding::Pending, &BeforeImage { existed })
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DmsReverseCreate,
    ) -> Result<Description, ActionError> {
        let settings = Settings::of(&params.settings)?;
        let dms = Dms::of(cx, &params.resource).await?;
        let line = match usable(&dms, params).await? {
            Some(task) => format!("use the task {} that is there", task.identifier),
            None => format!(
                "CreateReplicationTask {}, cdc, from {} to {}",
                params.identifier, params.source_endpoint, params.target_endpoint
            ),
        };
        let mut description = Description::of([line, settings.summary()]);
        description.remarks = settings.remarks;
        description.remarks.extend(lobs::of_tables(&rules(params)));
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DmsReverseCreate,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = match usable(&dms, params).await? {
            Some(task) => task,
            None => {
                let new = NewTask {
                    identifier: &params.identifier,
                    instance: &params.instance,
                    source: &params.source_endpoint,
                    target: &params.target_endpoint,
                    mappings: mappings(params),
                    settings: Settings::of(&params.settings)?.text(),
                };
                let task = dms.create(&new).await?;
                cx.effect(format!("the task {}: created", params.identifier));
                task
            }
        };
        // Undo needs this permission; a missing one is better found before the
        // outage.
        dms.is_of_this_run(&task.arn).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        wait(cx, &dms, &task.arn, limit, "ready", |task| {
            task.is_some_and(|task| matches!(task.status.as_str(), "ready" | "stopped"))
        })
        .await?;
        cx.note(format!("the task {}: ready", params.identifier));
        Ok(Outputs::from([("task".to_owned(), json!(task.arn))]))
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DmsReverseCreate,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let BeforeImage { existed } = decode_before_image(before_image)?;
        let dms = Dms::of(cx, &params.resource).await?;
        let found = dms.find_named(&params.identifier).await?;
        let Some(task) = found.filter(|_| !existed) else {
            return Ok(Undone::Unchanged);
        };
        if !dms.is_of_this_run(&task.arn).await? {
            return Ok(Undone::Drifted(format!(
                "the task {} was not created by this run: its tag {RUN_TAG} doesn't name it; it \
                 was left alone",
                params.identifier
            )));
        }
        let differences = identity(params, &task);
        if !differences.is_empty() {
            return Ok(Undone::Drifted(format!(
                "the task {} is another one now: {}",
                params.identifier,
                differences.join("; ")
            )));
        }
        let limit = Duration::from_secs(params.timeout_secs);
        delete_and_wait(cx, &dms, &task, limit).await?;
        Ok(Undone::Restored)
    }
}

/// Deletes a stopped task and waits until it no longer exists.
pub async fn delete_and_wait(
    cx: &Context,
    dms: &Dms,
    task: &Task,
    limit: Duration,
) -> Result<(), ActionError> {
    wait(cx, dms, &task.arn, limit, "stopped", |task| {
        task.is_none_or(|task| task.is_at_rest() || task.is_up() || task.status == "deleting")
    })
    .await?;
    match dms.delete(&task.arn).await {
        Err(refused) if refused.is_not_found() => return Ok(()),
        // Someone else is deleting it; otherwise the wait reports it.
        Err(refused) if refused.is_wrong_state() => {
            let now = dms.find(&task.arn).await?;
            if now.is_some_and(|now| now.status != "deleting") {
                return Err(refused.into());
            }
        }
        done => done?,
    }
    wait(cx, dms, &task.arn, limit, "deleted", |task| task.is_none()).await?;
    cx.effect(format!("the task {}: deleted", task.identifier));
    Ok(())
}
