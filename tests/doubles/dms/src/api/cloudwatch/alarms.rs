//! Alarms on one metric; their state is judged when it is asked for.

use super::{Dimension, Empty, invalid_token, pairs, period, read, statistic};
use crate::api::App;
use crate::api::cbor::{self, Stamp, stamp};
use crate::api::errors::{Code, Fault};
use crate::metrics::{Alarm, Comparison, MetricId, MissingData};
use crate::task::state::now_ms;
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
struct PutMetricAlarm {
    alarm_name: String,
    namespace: Option<String>,
    metric_name: Option<String>,
    #[serde(default)]
    dimensions: Vec<Dimension>,
    statistic: Option<String>,
    period: Option<i64>,
    evaluation_periods: Option<i64>,
    datapoints_to_alarm: Option<i64>,
    threshold: Option<f64>,
    comparison_operator: Option<String>,
    treat_missing_data: Option<String>,
}

pub(super) fn put(app: &App, parameters: &Value) -> Result<Vec<u8>, Fault> {
    let request: PutMetricAlarm = read(parameters)?;
    fn need<T>(value: Option<T>, name: &str) -> Result<T, Fault> {
        value.ok_or_else(|| {
            Fault::missing(format!(
                "{name} is required: alarms on expressions or bands are not supported here"
            ))
        })
    }
    let operator = need(request.comparison_operator, "ComparisonOperator")?;
    let metric = MetricId::new(
        need(request.namespace, "Namespace")?,
        need(request.metric_name, "MetricName")?,
        pairs(&request.dimensions),
    );
    let period_s = need(request.period, "Period")?;
    period(period_s)?;
    let evaluation_periods = need(request.evaluation_periods, "EvaluationPeriods")?;
    if evaluation_periods < 1 {
        return Err(Fault::invalid("EvaluationPeriods must be at least 1"));
    }
    let alarm = Alarm {
        name: request.alarm_name,
        metric,
        statistic: statistic(&need(request.statistic, "Statistic")?)?,
        period_s,
        evaluation_periods,
        datapoints_to_alarm: request.datapoints_to_alarm.unwrap_or(evaluation_periods),
        threshold: need(request.threshold, "Threshold")?,
        comparison: Comparison::parse(&operator).ok_or_else(|| {
            Fault::invalid(format!(
                "ComparisonOperator {operator:?} is not supported here"
            ))
        })?,
        missing: match request.treat_missing_data.as_deref() {
            None | Some("missing" | "ignore") => MissingData::Missing,
            Some("breaching") => MissingData::Breaching,
            Some("notBreaching") => MissingData::NotBreaching,
            Some(other) => {
                return Err(Fault::invalid(format!(
                    "TreatMissingData {other:?} is not valid"
                )));
            }
        },
        request: parameters.as_object().cloned().unwrap_or_default(),
        updated_ms: now_ms(),
    };
    app.metrics.put_alarm(alarm).map_err(Fault::invalid)?;
    cbor::encode(&Empty {})
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DescribeAlarms {
    alarm_names: Option<Vec<String>>,
    alarm_name_prefix: Option<String>,
    state_value: Option<String>,
    max_records: Option<usize>,
    next_token: Option<String>,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AlarmList {
    metric_alarms: Vec<AlarmShape>,
    composite_alarms: [(); 0],
    #[serde(skip_serializing_if = "Option::is_none")]
    next_token: Option<String>,
}

/// `MetricAlarm`: the request's own members, and what CloudWatch adds.
#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct AlarmShape {
    #[serde(flatten)]
    request: serde_json::Map<String, Value>,
    alarm_arn: String,
    alarm_configuration_updated_timestamp: Stamp,
    state_value: &'static str,
    state_reason: String,
    state_updated_timestamp: Stamp,
}

pub(super) fn describe(app: &App, request: &DescribeAlarms) -> Result<Vec<u8>, Fault> {
    let begin = match &request.next_token {
        None => 0,
        Some(token) => token.parse::<usize>().map_err(|_| invalid_token())?,
    };
    let now = now_ms();
    let mut found = Vec::new();
    for alarm in app.metrics.alarms() {
        let named = request
            .alarm_names
            .as_ref()
            .is_none_or(|names| names.contains(&alarm.name));
        let prefixed = request
            .alarm_name_prefix
            .as_ref()
            .is_none_or(|prefix| alarm.name.starts_with(prefix));
        let (state, reason) = app.metrics.alarm_state(&alarm, now);
        if named && prefixed && request.state_value.as_deref().is_none_or(|s| s == state) {
            found.push(alarm_shape(app, alarm, state, reason, now));
        }
    }
    let size = request.max_records.unwrap_or(50).clamp(1, 100);
    let next = begin.saturating_add(size);
    let more = found.len() > next;
    cbor::encode(&AlarmList {
        metric_alarms: found.into_iter().skip(begin).take(size).collect(),
        composite_alarms: [],
        next_token: more.then(|| next.to_string()),
    })
}

fn alarm_shape(
    app: &App,
    alarm: Alarm,
    state: &'static str,
    reason: String,
    now: i64,
) -> AlarmShape {
    let mut members = alarm.request;
    // Tags belong to another operation's answer.
    members.remove("Tags");
    members.retain(|_, v| !v.is_null());
    members.entry("ActionsEnabled").or_insert(Value::Bool(true));
    AlarmShape {
        request: members,
        alarm_arn: app.registry.resources.arns.alarm(&alarm.name),
        alarm_configuration_updated_timestamp: stamp(alarm.updated_ms),
        state_value: state,
        state_reason: reason,
        state_updated_timestamp: stamp(now),
    }
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct DeleteAlarms {
    alarm_names: Vec<String>,
}

pub(super) fn delete(app: &App, request: &DeleteAlarms) -> Result<Vec<u8>, Fault> {
    app.metrics
        .delete_alarms(&request.alarm_names)
        .map_err(|unknown| Fault {
            code: Code::ResourceNotFound,
            message: format!("alarm {unknown} does not exist; none was deleted"),
        })?;
    cbor::encode(&Empty {})
}
