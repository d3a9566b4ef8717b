//! The operations on instances, endpoints, connections and events.

use super::shapes::{DescribeRequest, seconds, without_nulls};
use crate::api::App;
use crate::api::errors::Fault;
use crate::config::{EndpointConfig, EndpointKind};
use crate::task::registry::Connection;
use serde::Deserialize;
use serde_json::{Value, json};
use std::sync::Arc;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct TestConnection {
    replication_instance_arn: String,
    endpoint_arn: String,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeEvents {
    source_identifier: Option<String>,
    start_time: Option<f64>,
    end_time: Option<f64>,
    #[serde(default)]
    event_categories: Vec<String>,
    #[serde(flatten)]
    common: DescribeRequest,
}

pub(super) fn instances(app: &App, request: &DescribeRequest) -> Result<Value, Fault> {
    let resources = &app.registry.resources;
    let known = [
        "replication-instance-arn",
        "replication-instance-id",
        "replication-instance-class",
        "engine-version",
    ];
    let found = request.filter(vec![resources], &known, |r, name| {
        match name {
            "replication-instance-arn" => &r.instance_arn,
            "replication-instance-id" => &r.instance_identifier,
            "replication-instance-class" => &r.instance_class,
            _ => &r.engine_version,
        }
        .clone()
    })?;
    if found.is_empty() {
        return Err(Fault::not_found(
            "No replication instances found matching given filter",
        ));
    }
    let (page, marker) = request.page(found, 100)?;
    let shown: Vec<_> = page
        .iter()
        .map(|r| {
            json!({
                "ReplicationInstanceIdentifier": r.instance_identifier,
                "ReplicationInstanceClass": r.instance_class,
                "ReplicationInstanceStatus": "available",
                "AllocatedStorage": 50,
                "InstanceCreateTime": seconds(r.created_ms),
                "MultiAZ": false,
                "EngineVersion": r.engine_version,
                "AutoMinorVersionUpgrade": false,
                "ReplicationInstanceArn": r.instance_arn,
                "ReplicationInstancePrivateIpAddress": "127.0.0.1",
                "ReplicationInstancePrivateIpAddresses": ["127.0.0.1"],
                "PubliclyAccessible": false,
                "NetworkType": "IPV4",
            })
        })
        .collect();
    Ok(without_nulls(
        json!({"Marker": marker, "ReplicationInstances": shown}),
    ))
}

pub(super) fn endpoints(app: &App, request: &DescribeRequest) -> Result<Value, Fault> {
    let all: Vec<_> = app.registry.resources.endpoints.iter().collect();
    let known = [
        "endpoint-arn",
        "endpoint-type",
        "endpoint-id",
        "engine-name",
    ];
    let found = request.filter(all, &known, |(arn, endpoint), name| match name {
        "endpoint-arn" => (*arn).clone(),
        "endpoint-type" => kind_name(endpoint.kind()).into(),
        "endpoint-id" => endpoint.identifier().into(),
        _ => endpoint.engine_name().into(),
    })?;
    if found.is_empty() && !request.filters.is_empty() {
        return Err(Fault::not_found("No Endpoints found matching given filter"));
    }
    let (page, marker) = request.page(found, 100)?;
    let shown: Vec<_> = page
        .into_iter()
        .map(|(arn, e)| endpoint_shape(arn, e))
        .collect();
    Ok(without_nulls(json!({"Marker": marker, "Endpoints": shown})))
}

fn kind_name(kind: EndpointKind) -> &'static str {
    match kind {
        EndpointKind::Source => "source",
        EndpointKind::Target => "target",
    }
}

/// Passwords are never shown, as with DMS.
fn endpoint_shape(arn: &str, endpoint: &Arc<EndpointConfig>) -> Value {
    let common = json!({
        "EndpointArn": arn,
        "EndpointIdentifier": endpoint.identifier(),
        "EndpointType": kind_name(endpoint.kind()),
        "EngineName": endpoint.engine_name(),
        "Status": "active",
    });
    let special = match &**endpoint {
        EndpointConfig::Oracle(e) => json!({
            "EngineDisplayName": "Oracle",
            "Username": e.user,
            "ServerName": e.host,
            "Port": e.port,
            "DatabaseName": e.service,
            "SslMode": "none",
            "OracleSettings": {"Username": e.user, "ServerName": e.host, "Port": e.port,
                "DatabaseName": e.service, "ArchivedLogsOnly": false, "UseLogminerReader": e.use_logminer_reader},
            "ExtraConnectionAttributes": e.extra_connection_attributes,
        }),
        EndpointConfig::Postgres(e) => json!({
            "EngineDisplayName": "PostgreSQL",
            "Username": e.user,
            "ServerName": e.host,
            "Port": e.port,
            "DatabaseName": e.dbname,
            "SslMode": "verify-full",
            "ExtraConnectionAttributes": e.extra_connection_attributes,
            "PostgreSQLSettings": {"Username": e.user, "ServerName": e.host, "Port": e.port,
                "DatabaseName": e.dbname, "SlotName": e.slot_name, "PluginName": "test-decoding",
                "AfterConnectScript": e.after_connect_script, "CaptureDdls": e.capture_ddls},
        }),
    };
    match (common, special) {
        (Value::Object(mut common), Value::Object(special)) => {
            common.extend(special);
            Value::Object(common)
        }
        (common, _) => common,
    }
}

pub(super) fn connections(app: &App, request: &DescribeRequest) -> Result<Value, Fault> {
    let instance = &app.registry.resources.instance_arn;
    let all: Vec<_> = app.registry.connections().into_iter().collect();
    let found = request.filter(
        all,
        &["endpoint-arn", "replication-instance-arn"],
        |(arn, _), name| {
            if name == "endpoint-arn" {
                arn.clone()
            } else {
                instance.clone()
            }
        },
    )?;
    if found.is_empty() && !request.filters.is_empty() {
        return Err(Fault::not_found(
            "No connections found matching given filter",
        ));
    }
    let (page, marker) = request.page(found, 100)?;
    let shown: Vec<_> = page
        .iter()
        .map(|(arn, c)| connection_shape(app, arn, c))
        .collect();
    Ok(without_nulls(
        json!({"Marker": marker, "Connections": shown}),
    ))
}

fn connection_shape(app: &App, endpoint_arn: &str, connection: &Connection) -> Value {
    let resources = &app.registry.resources;
    json!({
        "ReplicationInstanceArn": resources.instance_arn,
        "ReplicationInstanceIdentifier": resources.instance_identifier,
        "EndpointArn": endpoint_arn,
        "EndpointIdentifier": resources.endpoints.get(endpoint_arn).map(|e| e.identifier()),
        "Status": connection.status,
        "LastFailureMessage": connection.last_failure,
    })
}

pub(super) fn test_connection(app: &App, request: &TestConnection) -> Result<Value, Fault> {
    let connection = app
        .registry
        .test_connection(&request.replication_instance_arn, &request.endpoint_arn)?;
    Ok(without_nulls(json!({
        "Connection": connection_shape(app, &request.endpoint_arn, &connection)
    })))
}

pub(super) fn events(app: &App, request: &DescribeEvents) -> Result<Value, Fault> {
    let found: Vec<_> = app
        .registry
        .events()
        .into_iter()
        .filter(|e| {
            let at = seconds(e.epoch_ms);
            request
                .source_identifier
                .as_ref()
                .is_none_or(|s| *s == e.source)
                && request.start_time.is_none_or(|t| at >= t)
                && request.end_time.is_none_or(|t| at <= t)
                && (request.event_categories.is_empty()
                    || request.event_categories.iter().any(|c| c == e.category))
        })
        .collect();
    let (page, marker) = request.common.page(found, 100)?;
    let shown: Vec<_> = page
        .iter()
        .map(|e| {
            json!({
                "SourceIdentifier": e.source,
                "SourceType": "replication-task",
                "Message": e.message,
                "EventCategories": [e.category],
                "Date": seconds(e.epoch_ms),
            })
        })
        .collect();
    Ok(without_nulls(json!({"Marker": marker, "Events": shown})))
}
