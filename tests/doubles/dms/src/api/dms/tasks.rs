//! The operations on replication tasks.

use super::shapes::{DescribeRequest, seconds, without_nulls};
use crate::api::App;
use crate::api::errors::Fault;
use crate::replicate::change::TableName;
use crate::task::definition::{Modification, NewTask, StartRequest};
use crate::task::progress::{Snapshot, TableProgress, TableState};
use crate::task::registry::Task;
use crate::task::state::{StartType, Status, now_ms};
use serde::Deserialize;
use serde_json::{Value, json};

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Describe {
    #[serde(flatten)]
    common: DescribeRequest,
    #[serde(default)]
    without_settings: bool,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Create {
    replication_task_identifier: String,
    source_endpoint_arn: String,
    target_endpoint_arn: String,
    replication_instance_arn: String,
    migration_type: String,
    table_mappings: String,
    replication_task_settings: Option<String>,
    cdc_start_time: Option<f64>,
    cdc_start_position: Option<String>,
    cdc_stop_position: Option<String>,
    task_data: Option<String>,
    #[serde(default)]
    tags: Vec<Tag>,
}

/// One tag of a resource.
#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Tag {
    key: String,
    #[serde(default)]
    value: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Tags {
    resource_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Start {
    replication_task_arn: String,
    start_replication_task_type: String,
    cdc_start_time: Option<f64>,
    cdc_start_position: Option<String>,
    cdc_stop_position: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Modify {
    replication_task_arn: String,
    replication_task_identifier: Option<String>,
    migration_type: Option<String>,
    table_mappings: Option<String>,
    replication_task_settings: Option<String>,
    cdc_start_time: Option<f64>,
    cdc_start_position: Option<String>,
    cdc_stop_position: Option<String>,
    task_data: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct OneTask {
    replication_task_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct Statistics {
    replication_task_arn: String,
    #[serde(flatten)]
    common: DescribeRequest,
}

pub(super) fn describe(app: &App, request: &Describe) -> Result<Value, Fault> {
    const KNOWN: [&str; 5] = [
        "replication-task-arn",
        "replication-task-id",
        "migration-type",
        "endpoint-arn",
        "replication-instance-arn",
    ];
    // An endpoint is one of two of a task, so it is looked for here.
    let (by_endpoint, others): (Vec<_>, Vec<_>) = request
        .common
        .filters
        .iter()
        .partition(|f| f.name == "endpoint-arn");
    let tasks = app.registry.tasks().into_iter().filter(|t| {
        by_endpoint.iter().all(|f| {
            f.values.contains(&t.definition.source_arn)
                || f.values.contains(&t.definition.target_arn)
        })
    });
    let instance = &app.registry.resources.instance_arn;
    let rest = DescribeRequest {
        filters: others.into_iter().cloned().collect(),
        ..DescribeRequest::default()
    };
    let tasks = rest.filter(tasks.collect(), &KNOWN, |task, name| match name {
        "replication-task-arn" => task.definition.arn.clone(),
        "replication-task-id" => task.definition.identifier.clone(),
        "migration-type" => task.definition.migration_type.as_str().into(),
        _ => instance.clone(),
    })?;
    if tasks.is_empty() && !request.common.filters.is_empty() {
        return Err(Fault::not_found("No Tasks found matching given filter"));
    }
    let (page, marker) = request.common.page(tasks, 100)?;
    let shown: Vec<_> = page
        .iter()
        .map(|t| shape(app, t, !request.without_settings))
        .collect();
    Ok(without_nulls(
        json!({"Marker": marker, "ReplicationTasks": shown}),
    ))
}

pub(super) fn create(app: &App, request: Create) -> Result<Value, Fault> {
    refuse_start_time(
        request.cdc_start_time,
        request.cdc_start_position.as_deref(),
    )?;
    let task = app.registry.create(NewTask {
        identifier: request.replication_task_identifier,
        source_arn: request.source_endpoint_arn,
        target_arn: request.target_endpoint_arn,
        instance_arn: request.replication_instance_arn,
        migration_type: request.migration_type,
        table_mappings: request.table_mappings,
        settings: request.replication_task_settings,
        cdc_start_position: request.cdc_start_position,
        cdc_stop_position: request.cdc_stop_position,
        task_data: request.task_data,
        tags: request
            .tags
            .into_iter()
            .map(|tag| (tag.key, tag.value))
            .collect(),
    })?;
    Ok(answer(app, &task))
}

pub(super) fn start(app: &App, request: Start) -> Result<Value, Fault> {
    refuse_start_time(
        request.cdc_start_time,
        request.cdc_start_position.as_deref(),
    )?;
    let kind = &request.start_replication_task_type;
    let start = StartType::parse(kind)
        .ok_or_else(|| Fault::invalid(format!("StartReplicationTaskType {kind:?} is not valid")))?;
    let task = app.registry.start(
        &request.replication_task_arn,
        StartRequest {
            start,
            cdc_start_position: request.cdc_start_position,
            cdc_stop_position: request.cdc_stop_position,
        },
    )?;
    Ok(answer(app, &task))
}

pub(super) fn stop(app: &App, request: &OneTask) -> Result<Value, Fault> {
    Ok(answer(
        app,
        &app.registry.stop(&request.replication_task_arn)?,
    ))
}

pub(super) fn delete(app: &App, request: &OneTask) -> Result<Value, Fault> {
    Ok(answer(
        app,
        &app.registry.delete(&request.replication_task_arn)?,
    ))
}

/// ListTagsForResource, of tasks: nothing else carries tags here.
pub(super) fn tags(app: &App, request: &Tags) -> Result<Value, Fault> {
    let task = app.registry.task(&request.resource_arn)?;
    let tags: Vec<_> = task
        .definition
        .tags
        .iter()
        .map(|(key, value)| json!({"Key": key, "Value": value, "ResourceArn": task.definition.arn}))
        .collect();
    Ok(json!({"TagList": tags}))
}

pub(super) fn modify(app: &App, request: Modify) -> Result<Value, Fault> {
    refuse_start_time(
        request.cdc_start_time,
        request.cdc_start_position.as_deref(),
    )?;
    let change = Modification {
        identifier: request.replication_task_identifier,
        migration_type: request.migration_type,
        table_mappings: request.table_mappings,
        settings: request.replication_task_settings,
        cdc_start_position: request.cdc_start_position,
        cdc_stop_position: request.cdc_stop_position,
        task_data: request.task_data,
    };
    Ok(answer(
        app,
        &app.registry.modify(&request.replication_task_arn, change)?,
    ))
}

pub(super) fn statistics(app: &App, request: &Statistics) -> Result<Value, Fault> {
    let task = app.registry.task(&request.replication_task_arn)?;
    if matches!(task.status, Status::Creating | Status::Deleting) {
        return Err(Fault::wrong_state(format!(
            "Table statistics are not available while the task is {}",
            task.status.as_str()
        )));
    }
    let mut tables: Vec<_> = task.progress.snapshot().tables.into_iter().collect();
    if app.registry.faults.not_loaded(&task.definition.identifier) {
        for (_, table) in &mut tables {
            table.state = TableState::BeforeLoad;
        }
    }
    let known = ["schema-name", "table-name", "table-state"];
    let tables = request
        .common
        .filter(tables, &known, |(name, table), filter| match filter {
            "schema-name" => name.schema.clone(),
            "table-name" => name.table.clone(),
            _ => state_name(table.state),
        })?;
    let (page, marker) = request.common.page(tables, 500)?;
    let shown: Vec<_> = page
        .iter()
        .map(|(name, table)| table_shape(name, table))
        .collect();
    Ok(without_nulls(json!({
        "ReplicationTaskArn": task.definition.arn,
        "TableStatistics": shown,
        "Marker": marker,
    })))
}

/// AWS takes a start time xor a position; a time is not supported here, because
/// the simulated redo carries no commit times and PostgreSQL takes none at all.
fn refuse_start_time(time: Option<f64>, position: Option<&str>) -> Result<(), Fault> {
    match (time, position) {
        (Some(_), Some(_)) => Err(Fault::combination(
            "Specify either CdcStartTime or CdcStartPosition, not both",
        )),
        (Some(_), None) => Err(Fault::invalid(
            "CdcStartTime is not supported here: give CdcStartPosition",
        )),
        _ => Ok(()),
    }
}

fn answer(app: &App, task: &Task) -> Value {
    without_nulls(json!({"ReplicationTask": shape(app, task, true)}))
}

fn shape(app: &App, task: &Task, with_settings: bool) -> Value {
    let definition = &task.definition;
    let snapshot = task.progress.snapshot();
    let remembered = || {
        app.registry
            .faults
            .failure_remembered(&definition.identifier)
    };
    json!({
        "ReplicationTaskIdentifier": definition.identifier,
        "SourceEndpointArn": definition.source_arn,
        "TargetEndpointArn": definition.target_arn,
        "ReplicationInstanceArn": app.registry.resources.instance_arn,
        "MigrationType": definition.migration_type.as_str(),
        "TableMappings": with_settings.then_some(&definition.mappings_text),
        "ReplicationTaskSettings": with_settings.then_some(&definition.settings.text),
        "Status": task.status.as_str(),
        "LastFailureMessage": task.last_failure.clone().or_else(remembered),
        "StopReason": task.stop_reason,
        "ReplicationTaskCreationDate": seconds(task.created_ms),
        "ReplicationTaskStartDate": task.started_ms.map(seconds),
        "CdcStartPosition": definition.cdc_start_position,
        "CdcStopPosition": definition.cdc_stop_position.as_ref().map(|p| &p.text),
        "RecoveryCheckpoint": snapshot.checkpoint.as_ref().map(|c| format!("checkpoint:V1#{c}")),
        "ReplicationTaskArn": definition.arn,
        "TaskData": definition.task_data,
        "ReplicationTaskStats": statistics_shape(task, &snapshot),
    })
}

fn statistics_shape(task: &Task, snapshot: &Snapshot) -> Value {
    let count = |states: &[TableState]| {
        snapshot
            .tables
            .values()
            .filter(|t| states.contains(&t.state))
            .count()
    };
    let (loaded, total) = (count(&[TableState::Completed]), snapshot.tables.len());
    let percent = if !task.definition.migration_type.loads() || total == 0 {
        0
    } else {
        loaded * 100 / total
    };
    let until = task.stopped_ms.unwrap_or_else(now_ms);
    json!({
        "FullLoadProgressPercent": percent,
        "ElapsedTimeMillis": task.started_ms.map_or(0, |s| (until - s).max(0)),
        "TablesLoaded": if task.definition.migration_type.loads() { loaded } else { 0 },
        "TablesLoading": count(&[TableState::FullLoad]),
        "TablesQueued": count(&[TableState::BeforeLoad]),
        "TablesErrored": count(&[TableState::Error]),
        "FreshStartDate": task.fresh_start_ms.map(seconds),
        "StartDate": task.started_ms.map(seconds),
        "StopDate": task.stopped_ms.map(seconds),
        "FullLoadStartDate": snapshot.load_start_ms.map(seconds),
        "FullLoadFinishDate": snapshot.load_end_ms.map(seconds),
    })
}

fn state_name(state: TableState) -> String {
    match serde_json::to_value(state) {
        Ok(Value::String(name)) => name,
        _ => String::new(),
    }
}

fn table_shape(name: &TableName, table: &TableProgress) -> Value {
    json!({
        "SchemaName": name.schema,
        "TableName": name.table,
        "Inserts": table.inserts,
        "Updates": table.updates,
        "Deletes": table.deletes,
        "Ddls": 0,
        "AppliedInserts": table.inserts,
        "AppliedUpdates": table.updates,
        "AppliedDeletes": table.deletes,
        "AppliedDdls": 0,
        "FullLoadRows": table.full_load_rows,
        "FullLoadCondtnlChkFailedRows": 0,
        "FullLoadErrorRows": table.full_load_error_rows,
        "FullLoadStartTime": table.full_load_start_ms.map(seconds),
        "FullLoadEndTime": table.full_load_end_ms.map(seconds),
        "FullLoadReloaded": table.reloaded,
        "LastUpdateTime": seconds(table.last_update_ms),
        "TableState": state_name(table.state),
        "ValidationPendingRecords": 0,
        "ValidationFailedRecords": 0,
        "ValidationSuspendedRecords": 0,
        "ValidationState": "Not enabled",
    })
}
