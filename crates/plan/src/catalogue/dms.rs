//! Actions on AWS DMS and CloudWatch.

use super::defaults;
use crate::actions::{ActionSpec, Effect, each};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `dms.task.ready`: the forward task runs, has no failed table, and maps the
/// marker table and not the canary table.
///
/// Outputs: `checkpoint`, `last_failure` (text, empty where there is none).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsTaskReady {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// `OWNER.TABLE` of the marker table, which the task must map, or no
    /// marker ever arrives.
    #[serde(default)]
    pub marker_table: Option<String>,
    /// `OWNER.TABLE` of the canary table, which the task must not map:
    /// resumed, it would carry the canary back once more.
    #[serde(default)]
    pub canary_table: Option<String>,
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

/// `dms.task.drain`: nothing is pending in the task.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DrainDmsTask {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// How long to wait for the state.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DrainDmsTask {
    const NAME: &'static str = "dms.task.drain";
    const SUMMARY: &'static str = "wait until nothing is pending in the DMS task";
    const EFFECT: Effect = Effect::ReadOnly;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `dms.task.stop`: stopped, and not by a failure.
///
/// Outputs: `stop_reason`, `checkpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StopDmsTask {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// `last_failure` that `dms.task.ready` gave. DMS may keep the message of
    /// an earlier failure; only another one counts.
    #[serde(default)]
    pub known_failure: Option<String>,
    /// How long to wait for the state.
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

/// `dms.task.resume`: goes on from where the task was stopped.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ResumeDmsTask {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// Identifier of the reverse task. Resuming is refused while that task
    /// exists and is not stopped, or changes would go round in a circle.
    #[serde(default)]
    pub reverse: Option<String>,
    /// How long to wait until DMS accepts the order, not for `running`: Oracle
    /// must not stay closed for it.
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

/// `dms.connection.test`: endpoints reached from the replication instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsConnection {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// ARN of the replication instance.
    pub instance: String,
    /// ARNs of the endpoints to test from it.
    pub endpoints: Vec<String>,
    /// How long a test may take.
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

/// `dms.reverse.create`: the CDC-only task back to Oracle, created and
/// `ready`. Undo deletes it.
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
    /// Table mappings, as DMS takes them.
    pub table_mappings: serde_json::Value,
    /// Task settings on top of what a cutover needs
    /// (`TargetTablePrepMode=DO_NOTHING`).
    #[serde(default)]
    pub settings: serde_json::Value,
    /// How long to wait for `ready`.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DmsReverseCreate {
    const NAME: &'static str = "dms.reverse.create";
    const SUMMARY: &'static str = "create the task back to Oracle";
    const OUTPUTS: &'static [&'static str] = &["task"];
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `dms.reverse.start`: first start of that task, until it runs and its slot
/// is active. Undo stops it and drops its slot; it refuses, and names the
/// tables, when the task has applied anything but the canary.
///
/// Outputs: `slot` (name).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsReverseStart {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// ARN that `dms.reverse.create` gave.
    pub task: String,
    /// PostgreSQL resource of the same agent, to see the slot.
    pub postgres: String,
    /// How long to wait.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DmsReverseStart {
    const NAME: &'static str = "dms.reverse.start";
    const SUMMARY: &'static str = "start the task back to Oracle";
    const OUTPUTS: &'static [&'static str] = &["slot"];
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `dms.reverse.delete`: stops and deletes the task, drops its slot.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsReverseDelete {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// ARN of the task.
    pub task: String,
    /// PostgreSQL resource of the same agent, to drop the slot.
    pub postgres: String,
    /// How long to wait.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for DmsReverseDelete {
    const NAME: &'static str = "dms.reverse.delete";
    const SUMMARY: &'static str = "delete the task back to Oracle";
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
    /// Metric.
    pub metric: String,
    /// Dimensions.
    #[serde(default)]
    pub dimensions: BTreeMap<String, String>,
    /// `Average`, `Maximum`, `Minimum`, `Sum` or `SampleCount`.
    pub statistic: String,
    /// Seconds of one period.
    pub period_secs: u32,
    /// How many periods.
    pub periods: u32,
    /// `GreaterThanThreshold` and the like.
    pub comparison: String,
    /// The threshold.
    pub threshold: f64,
    /// ARNs told when it goes off.
    #[serde(default)]
    pub actions: Vec<String>,
    /// `breaching` by default: no data is no comfort.
    #[serde(default = "defaults::missing_data")]
    pub missing_data: String,
}

/// `cloudwatch.alarms.put`. Undo deletes those that were not there before
/// and puts back those that were.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CloudwatchAlarms {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// The alarms.
    pub alarms: Vec<Alarm>,
}

impl ActionSpec for CloudwatchAlarms {
    const NAME: &'static str = "cloudwatch.alarms.put";
    const SUMMARY: &'static str = "put CloudWatch alarms";
    const EFFECT: Effect = Effect::Undoable;
}
