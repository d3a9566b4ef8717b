//! The catalogue of actions: what each one is called, what it takes, what it
//! gives.
//!
//! A plan is checked against these types, the agent decodes into them, and
//! the JSON Schema is made from them: one truth for all three. Durations are
//! whole seconds (`…_secs`) unless a name says otherwise. Text of the form
//! `${step-id.output}` may stand wherever a value is expected in a plan; the
//! release brings the outputs, and the agent puts them in before an action
//! sees its parameters.

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// `service.stop`, `service.start`, `service.restart`: systemd units,
/// services and timers alike.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Service {
    /// Unit names with suffix (`orders.service`, `report.timer`), in the
    /// order of stopping; starting goes the other way round.
    pub units: Vec<String>,
    /// How long one unit may take before the task fails.
    #[serde(default = "defaults::unit_secs")]
    pub timeout_secs: u64,
    /// On stop: also disable the units, so that neither a boot nor a
    /// dependency brings them back. On start: also enable.
    #[serde(default)]
    pub enablement: bool,
}

/// `cron.disable`, `cron.restore`: crontab files such as `/etc/cron.d/x`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cron {
    /// Absolute paths of the crontab files.
    pub files: Vec<String>,
}

/// `process.stop`: processes that the agent's policy names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Process {
    /// Names from the policy's `[policy.processes]`.
    pub processes: Vec<String>,
    /// From SIGTERM to SIGKILL.
    #[serde(default = "defaults::process_secs")]
    pub timeout_secs: u64,
}

/// `config.switch`: atomic swap of a file or of a symbolic link.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ConfigSwitch {
    /// Absolute path that applications read.
    pub path: String,
    /// Absolute path of what shall stand there afterwards: the new target
    /// where `path` is a link, the new content where it is a file.
    pub to: String,
}

/// `check.http`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckHttp {
    /// `http://` URL; the check talks to local health ports, not through TLS.
    pub url: String,
    /// Status that counts as healthy.
    #[serde(default = "defaults::http_ok")]
    pub status: u16,
    /// Text that the body must hold, if given.
    #[serde(default)]
    pub contains: Option<String>,
    /// How long to go on trying.
    #[serde(default = "defaults::check_secs")]
    pub within_secs: u64,
}

/// `check.tcp`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct CheckTcp {
    /// `host:port`.
    pub address: String,
    /// What is wanted.
    #[serde(default)]
    pub expect: PortState,
    /// How long to go on trying.
    #[serde(default = "defaults::check_secs")]
    pub within_secs: u64,
}

/// Whether a port answers.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum PortState {
    /// A connection is accepted.
    #[default]
    Open,
    /// A connection is refused.
    Closed,
}

/// `check.command`, `command.run`: a command that the agent's policy names.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Command {
    /// Name from the policy's `[policy.commands]`.
    pub command: String,
    /// `check.command`: how long to go on trying. `command.run`: its limit.
    #[serde(default = "defaults::command_secs")]
    pub within_secs: u64,
}

/// Sessions that are never killed and never count against the fence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Spare {
    /// Users of the DMS source and target endpoints.
    #[serde(default)]
    pub users: Vec<String>,
    /// Client machines or addresses they must come from; empty: any.
    #[serde(default)]
    pub machines: Vec<String>,
}

/// `oracle.ready`: what the cutover needs of Oracle, looked at without a
/// change: archive log mode, supplemental logging, marker table, canary
/// table, a listener for DMS, no fast-start failover, no old transaction.
///
/// Outputs: `clients` (list of {machine, program, username, service, sessions}).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleReady {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `OWNER.TABLE` of the marker table.
    pub marker_table: String,
    /// `OWNER.TABLE` of the canary table; absent without a reverse task.
    #[serde(default)]
    pub canary_table: Option<String>,
    /// Listener that stays up for DMS; required with a reverse task.
    #[serde(default)]
    pub dms_listener: Option<String>,
    /// Users of the DMS endpoints.
    #[serde(default)]
    pub spare: Spare,
    /// A transaction older than this is an obstacle.
    #[serde(default = "defaults::transaction_secs")]
    pub oldest_transaction_secs: u64,
    /// The plan makes the freeze durable in the end: every instance must run
    /// from a server parameter file.
    #[serde(default = "defaults::durable")]
    pub durable: bool,
    /// The accounts that the plan locks; clients of others are pointed out.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The plan restricts logins: DMS then needs the privilege RESTRICTED
    /// SESSION and a statically registered service.
    #[serde(default)]
    pub restrict_logins: bool,
}

/// `oracle.logs.ready`: redo since the forward task's checkpoint is there.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleLogs {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `RecoveryCheckpoint` of the forward task, or an SCN.
    #[serde(default)]
    pub checkpoint: Option<String>,
}

/// `oracle.listener.stop`, `oracle.listener.start`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleListener {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Listeners by name; empty: all that the configuration names.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Listeners to leave alone (the one reserved for DMS).
    #[serde(default)]
    pub keep: Vec<String>,
}

/// `oracle.accounts.lock`, `oracle.accounts.restore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleAccounts {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Application accounts, as DBA_USERS spells them.
    pub accounts: Vec<String>,
}

/// `oracle.logins.restrict`, `oracle.logins.open`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleLogins {
    /// Resource of the agent's configuration.
    pub resource: String,
}

/// Where a parameter change goes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// The running instance only: a bounce brings the old value back.
    #[default]
    Memory,
    /// The running instance and the server parameter file.
    Both,
}

/// `oracle.jobs.disable`, `oracle.jobs.restore`: JOB_QUEUE_PROCESSES on every
/// instance, and the jobs that run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// How long to wait for running jobs.
    #[serde(default = "defaults::jobs_secs")]
    pub wait_secs: u64,
    /// After the wait: stop what still runs, or fail.
    #[serde(default)]
    pub stop_running: bool,
    /// Where the zero goes.
    #[serde(default)]
    pub scope: Scope,
}

/// `oracle.queue_monitor.disable`, `oracle.queue_monitor.restore`:
/// AQ_TM_PROCESSES on every instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleQueueMonitor {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Where the zero goes.
    #[serde(default)]
    pub scope: Scope,
}

/// `oracle.sessions.drain` (wait for them to leave), `oracle.sessions.kill`
/// (kill until none is left and none comes back). Both look at every
/// instance.
///
/// Outputs of kill: `killed` (number).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleSessions {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Sessions to leave alone.
    #[serde(default)]
    pub spare: Spare,
    /// Zero must hold that long.
    #[serde(default = "defaults::stable_secs")]
    pub stable_secs: u64,
    /// Give up after that long.
    #[serde(default = "defaults::sessions_secs")]
    pub timeout_secs: u64,
}

/// `oracle.fence.watch`: a watch; arrives as `standing` once the fence has
/// held for the window, and tells every breach from then on.
/// `oracle.fence.verify`: the same judgement once, over the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleFence {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Sessions that may be there.
    #[serde(default)]
    pub spare: Spare,
    /// Listeners that may be up.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Accounts that must stay locked.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// No running job, and JOB_QUEUE_PROCESSES 0.
    #[serde(default)]
    pub jobs_off: bool,
    /// The fence must hold that long before it counts.
    #[serde(default = "defaults::stable_secs")]
    pub window_secs: u64,
}

/// `oracle.finalize`: fence verified, checkpoint, SCN, marker, commit, log
/// switch.
///
/// Outputs: `scn` (text), `nonce` (text), `sequences` (map of
/// `OWNER.SEQUENCE` to {last_number, increment_by, cycle}).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleFinalize {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `OWNER.TABLE` of the marker table.
    pub marker_table: String,
    /// Replication tasks that must each carry a marker over.
    pub tasks: Vec<String>,
    /// The fence to verify first.
    pub fence: OracleFence,
    /// Schemas whose sequences are read.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// How long the checkpoint and the archiving of the log may take together,
    /// in seconds.
    #[serde(default = "defaults::finalize_secs")]
    pub timeout_secs: u64,
}

/// `oracle.triggers.disable`, `oracle.triggers.restore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleTriggers {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Owners whose triggers are meant.
    pub schemas: Vec<String>,
}

/// A table to compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedTable {
    /// `OWNER.TABLE` in Oracle.
    pub oracle: String,
    /// `schema.table` in PostgreSQL.
    pub postgres: String,
    /// Also compare a digest over every row, not only the count.
    #[serde(default)]
    pub digest: bool,
}

/// A schema on both sides. A table is the same one where its name is, in
/// upper case in Oracle, or spelled alike.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MappedSchema {
    /// Owner in Oracle.
    pub oracle: String,
    /// Schema in PostgreSQL.
    pub postgres: String,
}

/// `oracle.rows.digest`: counts and digests as of an SCN.
///
/// Outputs: `tables` (map of `OWNER.TABLE` to {rows, digest or null}; to
/// {rows, postgres} where the table is one of `counted`, by its name there).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleRows {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// The SCN, as text.
    pub scn: String,
    /// What to compare.
    pub tables: Vec<ComparedTable>,
    /// `tables` that `postgres.ready` gave: a list of `schema.table`. Each of
    /// them that Oracle has as well is counted too.
    #[serde(default)]
    pub counted: serde_json::Value,
    /// Where Oracle has the tables of `counted`.
    #[serde(default)]
    pub schemas: Vec<MappedSchema>,
}

/// `oracle.canary.await`: the canary written in PostgreSQL has come back.
/// Undo removes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleCanary {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `OWNER.TABLE` of the canary table.
    pub canary_table: String,
    /// Nonce that `postgres.canary.write` gave.
    pub nonce: String,
    /// How long to wait.
    #[serde(default = "defaults::marker_secs")]
    pub timeout_secs: u64,
}

/// `oracle.closed.keep`: the freeze made durable (server parameter file,
/// listeners disabled, accounts locked) until fallback is given up.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleKeepClosed {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Listeners that stay enabled (DMS).
    #[serde(default)]
    pub keep: Vec<String>,
    /// JOB_QUEUE_PROCESSES=0 also in the server parameter file.
    #[serde(default)]
    pub jobs: bool,
    /// Accounts that must be locked; who has been unlocked since is locked.
    #[serde(default)]
    pub accounts: Vec<String>,
}

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

/// `postgres.roles.close`, `postgres.roles.verify`, `postgres.roles.open`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresRoles {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Application roles.
    pub roles: Vec<String>,
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

/// `postgres.rows.verify`.
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

/// `postgres.triggers.enable`, `postgres.triggers.restore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresTriggers {
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

/// `postgres.sequences.align`.
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

/// `postgres.jobs.disable`, `postgres.jobs.restore`: pg_cron and pgAgent.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PostgresJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
}

/// `postgres.analyze`.
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

/// `dms.task.ready`, `dms.task.drain`, `dms.task.stop`, `dms.task.resume`.
///
/// Outputs of ready: `checkpoint`, `last_failure` (text, empty where there is
/// none); of stop: `stop_reason`, `checkpoint`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DmsTask {
    /// Resource of the agent's configuration (region, credentials).
    pub resource: String,
    /// ARN of the replication task.
    pub task: String,
    /// `dms.task.resume`: identifier of the reverse task. Resuming is refused
    /// while that task exists and is not stopped, or changes would go round
    /// in a circle.
    #[serde(default)]
    pub reverse: Option<String>,
    /// `dms.task.ready`: `OWNER.TABLE` of the marker table, which the task
    /// must map, or no marker ever arrives.
    #[serde(default)]
    pub marker_table: Option<String>,
    /// `dms.task.ready`: `OWNER.TABLE` of the canary table, which the task
    /// must not map: resumed, it would carry the canary back once more.
    #[serde(default)]
    pub canary_table: Option<String>,
    /// `dms.task.stop`: `last_failure` that `dms.task.ready` gave. DMS may
    /// keep the message of a failure that is long over; only another one
    /// counts.
    #[serde(default)]
    pub known_failure: Option<String>,
    /// How long to wait for the state. `dms.task.resume` waits for DMS to
    /// take the order, not for `running`: Oracle must not stay closed for it.
    #[serde(default = "defaults::dms_secs")]
    pub timeout_secs: u64,
}

/// `dms.connection.test`.
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

pub(crate) mod defaults {
    pub fn durable() -> bool {
        true
    }
    pub fn unit_secs() -> u64 {
        60
    }
    pub fn process_secs() -> u64 {
        30
    }
    pub fn http_ok() -> u16 {
        200
    }
    pub fn check_secs() -> u64 {
        60
    }
    pub fn command_secs() -> u64 {
        60
    }
    pub fn transaction_secs() -> u64 {
        300
    }
    pub fn finalize_secs() -> u64 {
        600
    }
    pub fn jobs_secs() -> u64 {
        120
    }
    pub fn stable_secs() -> u64 {
        5
    }
    pub fn sessions_secs() -> u64 {
        120
    }
    pub fn marker_secs() -> u64 {
        300
    }
    pub fn control_schema() -> String {
        "public".to_owned()
    }
    pub fn sequence_margin() -> u64 {
        1000
    }
    pub fn dms_secs() -> u64 {
        300
    }
    pub fn missing_data() -> String {
        "breaching".to_owned()
    }
}
