//! Actions on a PostgreSQL database.

use super::{ComparedTable, defaults, deref_to_parameters};
use crate::actions::{ActionSpec, Effect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `postgres.ready`: checks the prerequisites of a cutover: wal_level, free slots, primary keys, marker and canary tables,
/// DMS control tables, and what the reverse task can't carry.
///
/// Outputs: `apply_exceptions` (number of rows in awsdms_apply_exceptions),
/// `slots` (names of the replication slots), `tables` (tables of `schemas`
/// except those in `compared`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresReady {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `schema.table` of the marker table.
    pub marker_table: String,
    /// `schema.table` of the canary table; absent without a reverse task.
    #[serde(default)]
    pub canary_table: Option<String>,
    /// Schema of the DMS control tables.
    #[serde(default = "defaults::control_schema")]
    pub control_schema: String,
    /// Schemas whose tables need a primary key for the reverse task.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// `schema.table` of tables that the plan compares individually or excludes.
    #[serde(default)]
    pub compared: Vec<String>,
    /// `schema.table.column` of the sequences listed in the plan.
    #[serde(default)]
    pub sequences: Vec<String>,
    /// The reverse task, to check what it can't carry back to Oracle; used only
    /// together with `canary_table`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reverse: Option<ReverseTask>,
}

/// What `dms.reverse.create` creates, as far as it determines which data arrive
/// in Oracle.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ReverseTask {
    /// Table mappings in the JSON format of DMS; without them every table of the
    /// schemas is checked.
    #[serde(default)]
    pub table_mappings: serde_json::Value,
    /// Task settings in addition to those of a fallback.
    #[serde(default)]
    pub settings: serde_json::Value,
    /// `schema.table` or `schema.table.column` in PostgreSQL whose changes may
    /// arrive in Oracle incomplete, changed or not at all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
}

impl ActionSpec for PostgresReady {
    const NAME: &'static str = "postgres.ready";
    const SUMMARY: &'static str = "check whether PostgreSQL is ready for a cutover";
    const OUTPUTS: &'static [&'static str] = &["apply_exceptions", "slots", "tables"];
    const EFFECT: Effect = Effect::ReadOnly;
}

/// Application roles of a database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresRoles {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Application roles.
    pub roles: Vec<String>,
}

/// `postgres.roles.close`: disables logins and terminates sessions.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloseRoles(pub PostgresRoles);

impl ActionSpec for CloseRoles {
    const NAME: &'static str = "postgres.roles.close";
    const SUMMARY: &'static str = "close application roles";
    const EFFECT: Effect = Effect::Undoable;
}

/// `postgres.roles.verify`: checks that the roles are still closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyRoles(pub PostgresRoles);

impl ActionSpec for VerifyRoles {
    const NAME: &'static str = "postgres.roles.verify";
    const SUMMARY: &'static str = "prove that roles are closed";
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `postgres.roles.open`: enables logins.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenRoles(pub PostgresRoles);

impl ActionSpec for OpenRoles {
    const NAME: &'static str = "postgres.roles.open";
    const SUMMARY: &'static str = "open application roles";
    const EFFECT: Effect = Effect::Undoable;
}

/// `postgres.marker.await`: waits until every marker has arrived; no change may be
/// pending, suspended or recorded as an exception.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresMarker {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `schema.table` of the marker table.
    pub marker_table: String,
    /// Replication tasks whose markers must arrive.
    pub tasks: Vec<String>,
    /// Output `nonce` of `oracle.finalize` or `oracle.marker.write`.
    pub nonce: String,
    /// Output `scn` of the same step.
    pub scn: String,
    /// Wait for the markers only, because applications still write and changes are
    /// always pending.
    #[serde(default)]
    pub trial: bool,
    /// Schema of the DMS control tables.
    #[serde(default = "defaults::control_schema")]
    pub control_schema: String,
    /// Output `apply_exceptions` of `postgres.ready`; the number must not have
    /// grown. Number, or text with a number.
    pub apply_exceptions: serde_json::Value,
    /// Seconds to wait.
    #[serde(default = "defaults::marker_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for PostgresMarker {
    const NAME: &'static str = "postgres.marker.await";
    const SUMMARY: &'static str = "wait for the marker to arrive";
    const EFFECT: Effect = Effect::ReadOnly;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `postgres.drain.check`: checks after the task has stopped that no change is
/// pending, suspended or recorded as an exception.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresDrain {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Schema of the DMS control tables.
    #[serde(default = "defaults::control_schema")]
    pub control_schema: String,
    /// Output `apply_exceptions` of `postgres.ready`; the number must not have
    /// grown. Number, or text with a number.
    pub apply_exceptions: serde_json::Value,
}

impl ActionSpec for PostgresDrain {
    const NAME: &'static str = "postgres.drain.check";
    const SUMMARY: &'static str = "check again that no changes were lost";
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `postgres.rows.verify`: verifies rows, foreign keys, constraints and indexes.
///
/// Outputs: `tables` (map of `schema.table` to {rows, compared}; `compared` is
/// `digest` or `count`).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresRows {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Tables to compare.
    pub tables: Vec<ComparedTable>,
    /// Output `tables` of `oracle.rows.digest`; its tables with a name in
    /// PostgreSQL are also counted.
    pub expected: serde_json::Value,
    /// Schemas whose foreign keys, constraints and indexes are checked.
    #[serde(default)]
    pub schemas: Vec<String>,
}

impl ActionSpec for PostgresRows {
    const NAME: &'static str = "postgres.rows.verify";
    const SUMMARY: &'static str = "compare rows, keys and indexes";
    const OUTPUTS: &'static [&'static str] = &["tables"];
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `postgres.columns.verify`: checks that the columns of the compared tables
/// correspond to those in Oracle, and that their types can be compared.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresColumns {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Tables to compare.
    pub tables: Vec<ComparedTable>,
    /// Output `columns` of `oracle.columns.describe`.
    pub expected: serde_json::Value,
}

impl ActionSpec for PostgresColumns {
    const NAME: &'static str = "postgres.columns.verify";
    const SUMMARY: &'static str = "compare the columns of tables with those in Oracle";
    const EFFECT: Effect = Effect::ReadOnly;
}

/// How a trigger fires in PostgreSQL (`pg_trigger.tgenabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerMode {
    /// `O`: in sessions that are not replica sessions.
    Origin,
    /// `A`: always.
    Always,
    /// `R`: in replica sessions only.
    Replica,
    /// `D`: never.
    Disabled,
}

/// Set of triggers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerSet {
    /// User triggers, which the owner of a table may enable and disable.
    #[default]
    User,
    /// Also foreign-key triggers; requires a superuser.
    All,
}

/// `postgres.triggers.enable`: sets every trigger to its mode in the baseline, or to
/// `origin`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnablePostgresTriggers {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Schemas of the triggers.
    pub schemas: Vec<String>,
    /// Which triggers of these schemas.
    #[serde(default)]
    pub set: TriggerSet,
    /// Modes that differ from `origin`, by `schema.table.trigger`.
    #[serde(default)]
    pub baseline: BTreeMap<String, TriggerMode>,
}

impl ActionSpec for EnablePostgresTriggers {
    const NAME: &'static str = "postgres.triggers.enable";
    const SUMMARY: &'static str = "set triggers to their baseline";
    const EFFECT: Effect = Effect::Undoable;
}

/// `postgres.triggers.restore`: restores the trigger modes from before
/// `postgres.triggers.enable`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestorePostgresTriggers {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Schemas of the triggers.
    pub schemas: Vec<String>,
    /// Which triggers of these schemas.
    #[serde(default)]
    pub set: TriggerSet,
}

impl ActionSpec for RestorePostgresTriggers {
    const NAME: &'static str = "postgres.triggers.restore";
    const SUMMARY: &'static str = "restore trigger modes";
    const EFFECT: Effect = Effect::Permanent;
}

/// A sequence or identity column to advance past its data.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct AlignedSequence {
    /// `schema.table.column` that it feeds in PostgreSQL. The sequence is
    /// found with `pg_get_serial_sequence`.
    pub column: String,
    /// `OWNER.SEQUENCE` in Oracle, if one fed the column there.
    #[serde(default)]
    pub oracle: Option<String>,
}

/// `postgres.sequences.align`: advances sequences past the values in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSequences {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Sequences to align individually.
    pub sequences: Vec<AlignedSequence>,
    /// Schemas whose other identity and serial columns, and columns with a
    /// `nextval` default, are aligned by their current values.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Output `sequences` of `oracle.finalize`.
    #[serde(default)]
    pub oracle: serde_json::Value,
    /// Added to the greatest value found.
    #[serde(default = "defaults::sequence_margin")]
    pub margin: u64,
}

impl ActionSpec for PostgresSequences {
    const NAME: &'static str = "postgres.sequences.align";
    const SUMMARY: &'static str = "advance sequences past their data";
    const EFFECT: Effect = Effect::Permanent;
}

/// `postgres.jobs.disable`: disables pg_cron and pgAgent jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisablePostgresJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for DisablePostgresJobs {
    const NAME: &'static str = "postgres.jobs.disable";
    const SUMMARY: &'static str = "disable pg_cron and pgAgent jobs";
    const EFFECT: Effect = Effect::Undoable;
}

/// `postgres.jobs.restore`: enables the pg_cron and pgAgent jobs that were enabled
/// before.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestorePostgresJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for RestorePostgresJobs {
    const NAME: &'static str = "postgres.jobs.restore";
    const SUMMARY: &'static str = "restore pg_cron and pgAgent jobs";
    const EFFECT: Effect = Effect::Permanent;
}

/// `postgres.analyze`: collects planner statistics.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresAnalyze {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Schemas of the tables.
    pub schemas: Vec<String>,
    /// Only tables that lack statistics.
    #[serde(default)]
    pub missing_only: bool,
}

impl ActionSpec for PostgresAnalyze {
    const NAME: &'static str = "postgres.analyze";
    const SUMMARY: &'static str = "collect statistics";
    const EFFECT: Effect = Effect::Permanent;
}

/// `postgres.canary.write`: writes a row that must be replicated to Oracle. Undo
/// removes it.
///
/// Outputs: `nonce` (text).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresCanary {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `schema.table` of the canary table.
    pub canary_table: String,
}

impl ActionSpec for PostgresCanary {
    const NAME: &'static str = "postgres.canary.write";
    const SUMMARY: &'static str = "write the canary row";
    const OUTPUTS: &'static [&'static str] = &["nonce"];
    const EFFECT: Effect = Effect::Undoable;
}

deref_to_parameters! {
    CloseRoles => PostgresRoles,
    VerifyRoles => PostgresRoles,
    OpenRoles => PostgresRoles,
}
