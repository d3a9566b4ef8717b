//! Actions on a PostgreSQL database.

use super::{ComparedTable, defaults, deref_to_parameters};
use crate::actions::{ActionSpec, Effect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `postgres.ready`: what the cutover needs of PostgreSQL, looked at without
/// a change: wal_level, free slots, primary keys, marker and canary tables,
/// DMS control tables.
///
/// Outputs: `apply_exceptions` (number of rows in awsdms_apply_exceptions),
/// `slots` (names of the replication slots), `tables` (the schemas' tables,
/// without those in `compared`).
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
    /// Schemas whose tables need a primary key for the way back.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// `schema.table` of what the plan compares by name or leaves out.
    #[serde(default)]
    pub compared: Vec<String>,
    /// `schema.table.column` of the sequences that the plan names.
    #[serde(default)]
    pub sequences: Vec<String>,
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

/// `postgres.roles.close`: no login, and no session left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct CloseRoles(pub PostgresRoles);

impl ActionSpec for CloseRoles {
    const NAME: &'static str = "postgres.roles.close";
    const SUMMARY: &'static str = "close application roles";
    const EFFECT: Effect = Effect::Undoable;
}

/// `postgres.roles.verify`: still closed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyRoles(pub PostgresRoles);

impl ActionSpec for VerifyRoles {
    const NAME: &'static str = "postgres.roles.verify";
    const SUMMARY: &'static str = "prove that roles are closed";
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `postgres.roles.open`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct OpenRoles(pub PostgresRoles);

impl ActionSpec for OpenRoles {
    const NAME: &'static str = "postgres.roles.open";
    const SUMMARY: &'static str = "open application roles";
    const EFFECT: Effect = Effect::Undoable;
}

/// `postgres.marker.await`: every marker has arrived and nothing is pending,
/// suspended or excepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresMarker {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `schema.table` of the marker table.
    pub marker_table: String,
    /// The tasks that carry markers.
    pub tasks: Vec<String>,
    /// Nonce that `oracle.finalize` gave.
    pub nonce: String,
    /// SCN that `oracle.finalize` gave.
    pub scn: String,
    /// Schema of the DMS control tables.
    #[serde(default = "defaults::control_schema")]
    pub control_schema: String,
    /// `apply_exceptions` that `postgres.ready` gave: no more may have come.
    /// Number, or the text of one.
    pub apply_exceptions: serde_json::Value,
    /// How long to wait.
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

/// `postgres.drain.check`: once more, after the task has stopped, nothing is
/// pending, suspended or excepted.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresDrain {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Schema of the DMS control tables.
    #[serde(default = "defaults::control_schema")]
    pub control_schema: String,
    /// `apply_exceptions` that `postgres.ready` gave: no more may have come.
    /// Number, or the text of one.
    pub apply_exceptions: serde_json::Value,
}

impl ActionSpec for PostgresDrain {
    const NAME: &'static str = "postgres.drain.check";
    const SUMMARY: &'static str = "check once more whether changes were lost";
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `postgres.rows.verify`: rows, foreign keys, constraints and indexes.
///
/// Outputs: `tables` (map of `schema.table` to {rows}).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresRows {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// What to compare.
    pub tables: Vec<ComparedTable>,
    /// `tables` that `oracle.rows.digest` gave; those in it that have a name
    /// in PostgreSQL are counted too.
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

/// How a trigger fires in PostgreSQL (`pg_trigger.tgenabled`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerMode {
    /// `O`: in sessions that are not replicas.
    Origin,
    /// `A`: always.
    Always,
    /// `R`: in replica sessions only.
    Replica,
    /// `D`: never.
    Disabled,
}

/// Which triggers are meant.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum TriggerSet {
    /// User triggers: what a table's owner may switch.
    #[default]
    User,
    /// Foreign-key triggers too: needs a superuser.
    All,
}

/// `postgres.triggers.enable`: every trigger in the mode that the baseline
/// names, or in `origin`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct EnablePostgresTriggers {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Schemas whose triggers are meant.
    pub schemas: Vec<String>,
    /// Which of them.
    #[serde(default)]
    pub set: TriggerSet,
    /// Modes that differ from `origin`, by `schema.table.trigger`.
    #[serde(default)]
    pub baseline: BTreeMap<String, TriggerMode>,
}

impl ActionSpec for EnablePostgresTriggers {
    const NAME: &'static str = "postgres.triggers.enable";
    const SUMMARY: &'static str = "triggers to their baseline";
    const EFFECT: Effect = Effect::Undoable;
}

/// `postgres.triggers.restore`: triggers as `postgres.triggers.enable` found
/// them.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestorePostgresTriggers {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Schemas whose triggers are meant.
    pub schemas: Vec<String>,
    /// Which of them.
    #[serde(default)]
    pub set: TriggerSet,
}

impl ActionSpec for RestorePostgresTriggers {
    const NAME: &'static str = "postgres.triggers.restore";
    const SUMMARY: &'static str = "triggers as before";
    const EFFECT: Effect = Effect::Permanent;
}

/// A sequence or identity column to bring up to its data.
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

/// `postgres.sequences.align`: sequences set past the values in use.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresSequences {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// What to align by name.
    pub sequences: Vec<AlignedSequence>,
    /// Schemas whose other identities, serials and columns with `nextval` as
    /// their default are aligned by the values that they hold.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// `sequences` that `oracle.finalize` gave.
    #[serde(default)]
    pub oracle: serde_json::Value,
    /// Added on top of the greatest value seen.
    #[serde(default = "defaults::sequence_margin")]
    pub margin: u64,
}

impl ActionSpec for PostgresSequences {
    const NAME: &'static str = "postgres.sequences.align";
    const SUMMARY: &'static str = "sequences past their data";
    const EFFECT: Effect = Effect::Permanent;
}

/// `postgres.jobs.disable`: pg_cron and pgAgent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisablePostgresJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for DisablePostgresJobs {
    const NAME: &'static str = "postgres.jobs.disable";
    const SUMMARY: &'static str = "pg_cron and pgAgent jobs off";
    const EFFECT: Effect = Effect::Undoable;
}

/// `postgres.jobs.restore`: pg_cron and pgAgent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestorePostgresJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for RestorePostgresJobs {
    const NAME: &'static str = "postgres.jobs.restore";
    const SUMMARY: &'static str = "pg_cron and pgAgent jobs as before";
    const EFFECT: Effect = Effect::Permanent;
}

/// `postgres.analyze`: statistics for the planner.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresAnalyze {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Schemas whose tables are meant.
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

/// `postgres.canary.write`: a row that must come back in Oracle. Undo
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
