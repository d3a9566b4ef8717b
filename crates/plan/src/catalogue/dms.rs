//! Actions on AWS DMS and CloudWatch.

use super::defaults;
use crate::actions::{ActionSpec, Effect, each};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `dms.task.ready`: checks that the forward task is running, has no failed table,
/// maps the marker table and does not map the canary table, and has its control tables
/// where they are read.
///
/// Outputs: `checkpoint`, `last_failure` (text; empty if there is none).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsTaskReady {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// `OWNER.TABLE` of the marker table, which the task must map so that the
    /// marker can arrive.
    #[serde(default)]
    pub marker_table: Option<String>,
    /// `OWNER.TABLE` of the canary table, which the task must not map:
    /// after a resume it would replicate the canary back again.
    #[serde(default)]
    pub canary_table: Option<String>,
    /// Schema of the DMS control tables that the actions on PostgreSQL read, which must
    /// be the `ControlSchema` of the task; absent: not checked.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub control_schema: Option<String>,
}

impl ActionSpec for DmsTaskReady {
    const NAME: &'static str = "dms.task.ready";
    const SUMMARY: &'static str = "check whether the DMS task is healthy";
    const OUTPUTS: &'static [&'static str] = &["checkpoint", "last_failure"];
    const EFFECT: Effect = Effect::ReadOnly;

    fn limit_secs(&self) -> Option<u64> {
        Some(defaults::dms_secs())
    }
}

/// `dms.task.drain`: checks that nothing is pending in the task: it runs, no row
/// waits for validation, and CloudWatch doesn't contradict. The marker's arrival
/// is the proof; data points come too late to be one.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainDmsTask {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// Seconds to wait, within the outage, until CloudWatch confirms with a data
    /// point of 0; after that the action goes on without it. Not at all by
    /// default: a point takes up to four minutes.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub confirm_secs: Option<u64>,
    /// Seconds to wait for validation, and for changes that CloudWatch reports as
    /// waiting.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DrainDmsTask {
    const NAME: &'static str = "dms.task.drain";
    const SUMMARY: &'static str = "check that nothing is pending in the DMS task";
    const EFFECT: Effect = Effect::ReadOnly;

    fn limit_secs(&self) -> Option<u64> {
        Some(
            self.timeout_secs
                .saturating_add(self.confirm_secs.unwrap_or_default()),
        )
    }
}

/// `dms.task.stop`: stops the task; fails if it stopped because of a failure.
///
/// Outputs: `stop_reason`, `checkpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopDmsTask {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// Output `last_failure` of `dms.task.ready`. DMS may retain the message of
    /// an earlier failure; only a different one counts.
    #[serde(default)]
    pub known_failure: Option<String>,
    /// Seconds to wait for the state.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for StopDmsTask {
    const NAME: &'static str = "dms.task.stop";
    const SUMMARY: &'static str = "stop the DMS task";
    const OUTPUTS: &'static [&'static str] = &["stop_reason", "checkpoint"];
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `dms.task.resume`: resumes the task from where it was stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeDmsTask {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// Identifier of the reverse task. The action fails while that task
    /// exists and is not stopped, because changes would circulate.
    #[serde(default)]
    pub reverse: Option<String>,
    /// Seconds to wait until DMS accepts the request. The action does not wait
    /// for `running`, so that Oracle can open.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for ResumeDmsTask {
    const NAME: &'static str = "dms.task.resume";
    const SUMMARY: &'static str = "resume the DMS task";
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `dms.connection.test`: tests endpoints from the replication instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsConnection {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// ARN of the replication instance.
    pub instance: String,
    /// ARNs of the endpoints to test from it.
    pub endpoints: Vec<String>,
    /// Seconds that each test may take.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DmsConnection {
    const NAME: &'static str = "dms.connection.test";
    const SUMMARY: &'static str = "test connections from the instance";
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(each(&self.endpoints, self.timeout_secs))
    }
}

/// `dms.reverse.create`: creates the CDC-only reverse task, which replicates to
/// Oracle, and waits until it is `ready`. Undo deletes it.
///
/// Outputs: `task` (ARN).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsReverseCreate {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Identifier of the new task: letters, digits, hyphens.
    pub identifier: String,
    /// ARN of the replication instance.
    pub instance: String,
    /// ARN of the PostgreSQL source endpoint.
    pub source_endpoint: String,
    /// ARN of the Oracle target endpoint.
    pub target_endpoint: String,
    /// Table mappings in the JSON format of DMS.
    pub table_mappings: serde_json::Value,
    /// Task settings in addition to those that a fallback needs: no prepared
    /// tables, no repeated DDL (both can't be changed), full LOB mode,
    /// `STOP_TASK` for errors of rows and tables.
    #[serde(default)]
    pub settings: serde_json::Value,
    /// Seconds to wait for `ready`.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DmsReverseCreate {
    const NAME: &'static str = "dms.reverse.create";
    const SUMMARY: &'static str = "create the reverse task";
    const OUTPUTS: &'static [&'static str] = &["task"];
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `dms.reverse.start`: starts the reverse task for the first time and waits until
/// it is running and its slot is active. Undo stops the task and drops its slot;
/// undo fails, listing the tables, if the task has applied anything but the canary.
///
/// Outputs: `slot` (name).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsReverseStart {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Output `task` of `dms.reverse.create`.
    pub task: String,
    /// PostgreSQL resource of the same agent, to check the slot.
    pub postgres: String,
    /// Seconds to wait.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DmsReverseStart {
    const NAME: &'static str = "dms.reverse.start";
    const SUMMARY: &'static str = "start the reverse task";
    const OUTPUTS: &'static [&'static str] = &["slot"];
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `dms.reverse.delete`: stops and deletes the reverse task and drops its slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsReverseDelete {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// ARN of the task.
    pub task: String,
    /// PostgreSQL resource of the same agent, to drop the slot.
    pub postgres: String,
    /// Seconds to wait.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DmsReverseDelete {
    const NAME: &'static str = "dms.reverse.delete";
    const SUMMARY: &'static str = "delete the reverse task";
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// One CloudWatch alarm.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Alarm {
    /// Name, unique in the account and region.
    pub name: String,
    /// Namespace (`AWS/DMS`, `AWS/RDS`).
    pub namespace: String,
    /// Name of the metric.
    pub metric: String,
    /// Dimensions of the metric, by name.
    #[serde(default)]
    pub dimensions: BTreeMap<String, String>,
    /// `Average`, `Maximum`, `Minimum`, `Sum` or `SampleCount`.
    pub statistic: String,
    /// Length of one period in seconds.
    pub period_secs: u32,
    /// Number of periods that are evaluated.
    pub periods: u32,
    /// Comparison operator, such as `GreaterThanThreshold`.
    pub comparison: String,
    /// Threshold, in the unit of the metric.
    pub threshold: f64,
    /// ARNs notified in the ALARM state.
    #[serde(default)]
    pub actions: Vec<String>,
    /// Treatment of missing data; `breaching` by default, so that absent data
    /// raises the alarm.
    #[serde(default = "defaults::missing_data")]
    pub missing_data: String,
}

/// `cloudwatch.alarms.put`: creates or replaces the alarms. Undo deletes new ones
/// and restores replaced ones.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudwatchAlarms {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Alarms to create or replace.
    pub alarms: Vec<Alarm>,
}

impl ActionSpec for CloudwatchAlarms {
    const NAME: &'static str = "cloudwatch.alarms.put";
    const SUMMARY: &'static str = "put CloudWatch alarms";
    const EFFECT: Effect = Effect::Undoable;
}
