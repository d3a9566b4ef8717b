//! DMS over awsJson1.1: `POST /` with `X-Amz-Target: AmazonDMSv20160101.OPERATION`.
//!
//! Source: AWS DMS API reference and botocore's `dms/2016-01-01/service-2.json`.

mod describe;
mod shapes;
mod tasks;

use super::App;
use super::errors::Fault;
use axum::extract::State;
use axum::http::{HeaderMap, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde_json::Value;

const TARGET_PREFIX: &str = "AmazonDMSv20160101.";

pub async fn handle(
    State(app): State<App>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let operation = headers
        .get("x-amz-target")
        .and_then(|t| t.to_str().ok())
        .and_then(|t| t.strip_prefix(TARGET_PREFIX))
        .unwrap_or_default()
        .to_owned();
    let parameters = if body.is_empty() {
        Ok(Value::Object(serde_json::Map::new()))
    } else {
        serde_json::from_slice(&body)
    };
    let outcome = match parameters {
        Ok(parameters) => app.call("dms", &operation, parameters, |p| {
            dispatch(&app, &operation, p)
        }),
        Err(e) => Err(Fault::serialization(format!("the body is not JSON: {e}"))),
    };
    match outcome {
        Ok(answer) => respond(StatusCode::OK, &answer),
        Err(fault) => respond(
            fault.code.status(),
            &serde_json::json!({"__type": fault.code.name(), "message": fault.message}),
        ),
    }
}

fn dispatch(app: &App, operation: &str, parameters: &Value) -> Result<Value, Fault> {
    match operation {
        "DescribeReplicationTasks" => tasks::describe(app, &read(parameters)?),
        "CreateReplicationTask" => tasks::create(app, read(parameters)?),
        "StartReplicationTask" => tasks::start(app, read(parameters)?),
        "StopReplicationTask" => tasks::stop(app, &read(parameters)?),
        "ModifyReplicationTask" => tasks::modify(app, read(parameters)?),
        "DeleteReplicationTask" => tasks::delete(app, &read(parameters)?),
        "DescribeTableStatistics" => tasks::statistics(app, &read(parameters)?),
        "DescribeReplicationInstances" => describe::instances(app, &read(parameters)?),
        "DescribeEndpoints" => describe::endpoints(app, &read(parameters)?),
        "DescribeConnections" => describe::connections(app, &read(parameters)?),
        "TestConnection" => describe::test_connection(app, &read(parameters)?),
        "ListTagsForResource" => tasks::tags(app, &read(parameters)?),
        "DescribeEvents" => describe::events(app, &read(parameters)?),
        other => Err(Fault::unknown_operation(format!(
            "{other:?} is not an operation of this double of DMS"
        ))),
    }
}

fn read<T: DeserializeOwned>(parameters: &Value) -> Result<T, Fault> {
    T::deserialize(parameters).map_err(|e| {
        let text = e.to_string();
        if text.starts_with("missing field") {
            Fault::invalid(format!("The request is incomplete: {text}"))
        } else {
            Fault::serialization(text)
        }
    })
}

fn respond(status: StatusCode, answer: &Value) -> Response {
    (
        status,
        [
            (
                header::CONTENT_TYPE.as_str(),
                "application/x-amz-json-1.1".to_owned(),
            ),
            ("x-amzn-requestid", uuid::Uuid::now_v7().to_string()),
        ],
        answer.to_string(),
    )
        .into_response()
}
