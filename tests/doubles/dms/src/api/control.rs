//! `/control/…`: what the range sees and makes happen. JSON; no part of AWS.
//!
//! | request | what |
//! |---|---|
//! | `GET /control/health` | `{"status":"ok"}` once the server answers |
//! | `GET /control/calls`, `DELETE` | the call log: epoch_ms, service, operation, parameters, error |
//! | `GET /control/tasks` | every task: arn, status, and all its numbers |
//! | `GET /control/alarms` | the names of the alarms that stand |
//! | `POST /control/metrics` | a data point of DMS: metric, dimensions, value, age_ms |
//! | `GET /control/endpoints` | ARNs of the instance and of the endpoints |
//! | `GET /control/timing`, `PUT` | delays and intervals ([`Timing`]; a partial document keeps the rest) |
//! | `GET /control/faults`, `POST`, `DELETE` | list, arm one ([`FaultSpec`]), disarm all |

use super::App;
use crate::config::Timing;
use crate::metrics::{DMS_NAMESPACE, MetricId};
use crate::task::faults::{CallLog, FaultSpec};
use crate::task::state::now_ms;
use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;
use serde::Deserialize;
use serde_json::{Value, json};
use std::collections::BTreeMap;

type Refusal = (StatusCode, String);

pub(super) async fn health() -> Json<Value> {
    Json(json!({"status": "ok"}))
}

pub(super) async fn calls(State(app): State<App>) -> Json<CallLog> {
    Json(app.registry.faults.calls())
}

pub(super) async fn forget_calls(State(app): State<App>) -> StatusCode {
    app.registry.faults.forget_calls();
    StatusCode::NO_CONTENT
}

pub(super) async fn tasks(State(app): State<App>) -> Json<Value> {
    let tasks: Vec<_> = app
        .registry
        .tasks()
        .iter()
        .map(|task| {
            json!({
                "identifier": task.definition.identifier,
                "arn": task.definition.arn,
                "resource_id": task.definition.resource_id(),
                "status": task.status.as_str(),
                "stop_reason": task.stop_reason,
                "last_failure": task.last_failure,
                "has_run": task.has_run,
                "progress": task.progress.snapshot(),
            })
        })
        .collect();
    Json(Value::Array(tasks))
}

pub(super) async fn alarms(State(app): State<App>) -> Json<Vec<String>> {
    let alarms = app.metrics.alarms();
    Json(alarms.into_iter().map(|alarm| alarm.name).collect())
}

/// A data point as DMS would have published it some time ago.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Published {
    metric: String,
    dimensions: BTreeMap<String, String>,
    value: f64,
    age_ms: i64,
}

pub(super) async fn publish(
    State(app): State<App>,
    Json(point): Json<Published>,
) -> Result<StatusCode, Refusal> {
    let dimensions = point.dimensions.into_iter().collect();
    let id = MetricId::new(DMS_NAMESPACE, point.metric, dimensions);
    app.metrics
        .put(id, now_ms().saturating_sub(point.age_ms), point.value)
        .map_err(|why| (StatusCode::CONFLICT, why))?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn endpoints(State(app): State<App>) -> Json<Value> {
    let resources = &app.registry.resources;
    let endpoints: BTreeMap<_, _> = resources
        .endpoints
        .iter()
        .map(|(arn, e)| (e.identifier().to_owned(), arn.clone()))
        .collect();
    Json(json!({
        "instance_identifier": resources.instance_identifier,
        "instance_arn": resources.instance_arn,
        "endpoints": endpoints,
    }))
}

pub(super) async fn timing(State(app): State<App>) -> Json<Timing> {
    Json(app.registry.timing())
}

pub(super) async fn set_timing(
    State(app): State<App>,
    Json(change): Json<Value>,
) -> Result<Json<Timing>, Refusal> {
    let bad = |e: serde_json::Error| (StatusCode::BAD_REQUEST, e.to_string());
    let mut document = serde_json::to_value(app.registry.timing()).map_err(bad)?;
    if let (Value::Object(document), Value::Object(change)) = (&mut document, change) {
        document.extend(change);
    }
    let timing: Timing = serde_json::from_value(document).map_err(bad)?;
    app.registry.set_timing(timing);
    Ok(Json(timing))
}

pub(super) async fn faults(State(app): State<App>) -> Json<Vec<FaultSpec>> {
    Json(app.registry.faults.list())
}

pub(super) async fn arm(
    State(app): State<App>,
    Json(fault): Json<FaultSpec>,
) -> Result<StatusCode, Refusal> {
    app.registry
        .faults
        .arm(fault)
        .map_err(|why| (StatusCode::CONFLICT, why))?;
    Ok(StatusCode::CREATED)
}

pub(super) async fn disarm(State(app): State<App>) -> StatusCode {
    app.registry.faults.clear();
    StatusCode::NO_CONTENT
}
