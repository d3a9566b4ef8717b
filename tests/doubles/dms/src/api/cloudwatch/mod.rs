//! CloudWatch over rpc-v2-cbor: `POST /service/GraniteServiceVersion20100801/operation/X`.
//!
//! Source: CloudWatch API reference and botocore's
//! `cloudwatch/2010-08-01/service-2.json`. Metric math, anomaly bands and
//! composite alarms are refused.

mod alarms;
mod dashboards;

use super::App;
use super::cbor::{self, Stamp, stamp};
use super::errors::{Code, Fault};
use crate::metrics::{MetricId, Statistic};
use crate::task::state::now_ms;
use axum::extract::{Path, State};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;

/// Data points in one answer of GetMetricData (CloudWatch: 100,800).
const DATAPOINT_BOUND: usize = 100_800;

pub(super) async fn handle(
    State(app): State<App>,
    Path(operation): Path<String>,
    headers: HeaderMap,
    body: axum::body::Bytes,
) -> Response {
    let header = |name: &str| {
        headers
            .get(name)
            .and_then(|h| h.to_str().ok())
            .unwrap_or_default()
    };
    let outcome = if header("smithy-protocol") == "rpc-v2-cbor" {
        cbor::decode(&body, header("content-encoding") == "gzip").and_then(|p| {
            app.call("cloudwatch", &operation, p, |p| {
                dispatch(&app, &operation, p)
            })
        })
    } else {
        Err(Fault::serialization(
            "the header smithy-protocol is not rpc-v2-cbor",
        ))
    };
    match outcome {
        Ok(body) => respond(StatusCode::OK, body, None),
        Err(fault) => {
            let shape = ErrorShape {
                kind: format!("com.amazonaws.cloudwatch#{}", fault.code.name()),
                message: &fault.message,
            };
            let body = cbor::encode(&shape).unwrap_or_default();
            respond(fault.code.status(), body, Some(fault.code.query_name()))
        }
    }
}

#[derive(Serialize)]
struct ErrorShape<'a> {
    #[serde(rename = "__type")]
    kind: String,
    message: &'a str,
}

fn respond(status: StatusCode, body: Vec<u8>, error: Option<&str>) -> Response {
    let mut response = (
        status,
        [
            ("content-type", "application/cbor".to_owned()),
            ("smithy-protocol", "rpc-v2-cbor".to_owned()),
            ("x-amzn-requestid", uuid::Uuid::now_v7().to_string()),
        ],
        body,
    )
        .into_response();
    // The service is awsQueryCompatible: older clients read the code from here.
    if let Some(value) = error.and_then(|code| format!("{code};Sender").parse().ok()) {
        response.headers_mut().insert("x-amzn-query-error", value);
    }
    response
}

fn dispatch(app: &App, operation: &str, parameters: &Value) -> Result<Vec<u8>, Fault> {
    match operation {
        "PutMetricData" => put_metric_data(app, &read(parameters)?),
        "GetMetricData" => get_metric_data(app, &read(parameters)?),
        "ListMetrics" => list_metrics(app, &read(parameters)?),
        "PutMetricAlarm" => alarms::put(app, parameters),
        "DescribeAlarms" => alarms::describe(app, &read(parameters)?),
        "DeleteAlarms" => alarms::delete(app, &read(parameters)?),
        "PutDashboard" => dashboards::put(app, read(parameters)?),
        "GetDashboard" => dashboards::get(app, &read(parameters)?),
        other => Err(Fault::unknown_operation(format!(
            "{other:?} is not an operation of this double of CloudWatch"
        ))),
    }
}

fn read<T: DeserializeOwned>(parameters: &Value) -> Result<T, Fault> {
    T::deserialize(parameters).map_err(|e| {
        let text = e.to_string();
        if text.starts_with("missing field") {
            Fault::missing(text)
        } else {
            Fault::serialization(text)
        }
    })
}

/// The answer of operations that answer nothing.
#[derive(Serialize)]
struct Empty {}

#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Dimension {
    name: String,
    value: String,
}

fn pairs(dimensions: &[Dimension]) -> Vec<(String, String)> {
    dimensions
        .iter()
        .map(|d| (d.name.clone(), d.value.clone()))
        .collect()
}

#[derive(Serialize, Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Metric {
    namespace: String,
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
}

impl From<&MetricId> for Metric {
    fn from(id: &MetricId) -> Self {
        let dimension = |(name, value): &(String, String)| Dimension {
            name: name.clone(),
            value: value.clone(),
        };
        Self {
            namespace: id.namespace.clone(),
            metric_name: id.name.clone(),
            dimensions: id.dimensions.iter().map(dimension).collect(),
        }
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutMetricData {
    namespace: String,
    #[serde(default)]
    metric_data: Vec<Datum>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Datum {
    metric_name: String,
    #[serde(default)]
    dimensions: Vec<Dimension>,
    timestamp: Option<f64>,
    value: Option<f64>,
    #[serde(default)]
    values: Vec<f64>,
}

fn put_metric_data(app: &App, request: &PutMetricData) -> Result<Vec<u8>, Fault> {
    if request.namespace.starts_with("AWS/") {
        return Err(Fault::invalid(
            "The value AWS/ for parameter Namespace is invalid.",
        ));
    }
    for datum in &request.metric_data {
        let id = MetricId::new(
            &request.namespace,
            &datum.metric_name,
            pairs(&datum.dimensions),
        );
        let at = datum.timestamp.map_or_else(now_ms, epoch_ms);
        if datum.value.is_none() && datum.values.is_empty() {
            return Err(Fault::invalid(
                "a datum needs Value or Values; StatisticValues is not supported here",
            ));
        }
        for value in datum.value.iter().chain(&datum.values) {
            app.metrics
                .put(id.clone(), at, *value)
                .map_err(Fault::invalid)?;
        }
    }
    cbor::encode(&Empty {})
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "an epoch in milliseconds fits 64 bits"
)]
fn epoch_ms(seconds: f64) -> i64 {
    (seconds * 1_000.0).round() as i64
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct GetMetricData {
    metric_data_queries: Vec<Query>,
    start_time: f64,
    end_time: f64,
    scan_by: Option<String>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct Query {
    id: String,
    metric_stat: Option<MetricStat>,
    label: Option<String>,
    return_data: Option<bool>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct MetricStat {
    metric: Metric,
    period: i64,
    stat: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetricDataResults {
    metric_data_results: Vec<MetricDataResult>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetricDataResult {
    id: String,
    label: String,
    timestamps: Vec<Stamp>,
    values: Vec<f64>,
    status_code: &'static str,
}

fn get_metric_data(app: &App, request: &GetMetricData) -> Result<Vec<u8>, Fault> {
    if request.next_token.is_some() {
        return Err(invalid_token());
    }
    if request.start_time >= request.end_time {
        return Err(Fault::invalid(
            "The parameter StartTime must be less than the parameter EndTime.",
        ));
    }
    let mut results = Vec::new();
    let mut count = 0;
    for query in request
        .metric_data_queries
        .iter()
        .filter(|q| q.return_data != Some(false))
    {
        let Some(stat) = &query.metric_stat else {
            return Err(Fault::invalid(format!(
                "query {}: only MetricStat is supported here, no Expression",
                query.id
            )));
        };
        let statistic = statistic(&stat.stat)?;
        period(stat.period)?;
        let id = MetricId::new(
            &stat.metric.namespace,
            &stat.metric.metric_name,
            pairs(&stat.metric.dimensions),
        );
        let (from, to) = (epoch_ms(request.start_time), epoch_ms(request.end_time));
        let late = i64::try_from(app.registry.timing().metrics_late_ms).unwrap_or(i64::MAX);
        let to = to.min(now_ms().saturating_sub(late).saturating_add(1));
        let mut values = app.metrics.values(&id, statistic, stat.period, from, to);
        if request.scan_by.as_deref() != Some("TimestampAscending") {
            values.reverse();
        }
        count += values.len();
        results.push(MetricDataResult {
            id: query.id.clone(),
            label: query.label.clone().unwrap_or_else(|| id.name.clone()),
            timestamps: values.iter().map(|(at, _)| stamp(*at)).collect(),
            values: values.into_iter().map(|(_, v)| v).collect(),
            status_code: "Complete",
        });
    }
    if count > DATAPOINT_BOUND {
        return Err(Fault::invalid(format!(
            "more than {DATAPOINT_BOUND} data points; ask for a longer period"
        )));
    }
    cbor::encode(&MetricDataResults {
        metric_data_results: results,
    })
}

fn statistic(text: &str) -> Result<Statistic, Fault> {
    Statistic::parse(text)
        .ok_or_else(|| Fault::invalid(format!("the statistic {text:?} is not supported here")))
}

/// CloudWatch: 1, 5, 10, 20, 30 or a multiple of 60 seconds.
fn period(seconds: i64) -> Result<(), Fault> {
    if [1, 5, 10, 20, 30].contains(&seconds) || (seconds > 0 && seconds % 60 == 0) {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "The parameter Period must be 1, 5, 10, 20, 30 or a multiple of 60: {seconds}"
    )))
}

fn invalid_token() -> Fault {
    Fault {
        code: Code::InvalidNextToken,
        message: "the token was not handed out".into(),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct ListMetrics {
    namespace: Option<String>,
    metric_name: Option<String>,
    #[serde(default)]
    dimensions: Vec<DimensionFilter>,
    next_token: Option<String>,
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct DimensionFilter {
    name: String,
    value: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct MetricList {
    metrics: Vec<Metric>,
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// Metrics in one answer of ListMetrics (CloudWatch: 500).
const LIST_PAGE: usize = 500;

fn list_metrics(app: &App, request: &ListMetrics) -> Result<Vec<u8>, Fault> {
    let begin = match &request.next_token {
        None => 0,
        Some(token) => token.parse::<usize>().map_err(|_| invalid_token())?,
    };
    let fits = |id: &MetricId| {
        request
            .namespace
            .as_ref()
            .is_none_or(|n| *n == id.namespace)
            && request.metric_name.as_ref().is_none_or(|n| *n == id.name)
            && request.dimensions.iter().all(|filter| {
                id.dimensions.iter().any(|(name, value)| {
                    *name == filter.name && filter.value.as_ref().is_none_or(|v| v == value)
                })
            })
    };
    let found: Vec<_> = app.metrics.list().into_iter().filter(fits).collect();
    let next = begin.saturating_add(LIST_PAGE);
    cbor::encode(&MetricList {
        metrics: found
            .iter()
            .skip(begin)
            .take(LIST_PAGE)
            .map(Metric::from)
            .collect(),
        next_token: (found.len() > next).then(|| next.to_string()),
    })
}
