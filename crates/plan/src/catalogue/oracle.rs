//! Actions on an Oracle database and its listeners.

use super::{defaults, deref_to_parameters};
use crate::actions::{ActionSpec, Effect, LISTENERS_LIMIT_SECS, PLAIN_LIMIT_SECS};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Sessions that are never killed and never count against the fence.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ExemptSessions {
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
    pub exempt: ExemptSessions,
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

impl ActionSpec for OracleReady {
    const NAME: &'static str = "oracle.ready";
    const SUMMARY: &'static str = "check whether Oracle is ready for a cutover";
    const OUTPUTS: &'static [&'static str] = &["clients"];
    const EFFECT: Effect = Effect::ReadOnly;
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

impl ActionSpec for OracleLogs {
    const NAME: &'static str = "oracle.logs.ready";
    const SUMMARY: &'static str = "check that the redo since the checkpoint is available";
    const EFFECT: Effect = Effect::ReadOnly;
}

/// Listeners of a host.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ListenerSelection {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Listeners by name; empty: all that the configuration names.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Listeners to leave alone (the one reserved for DMS).
    #[serde(default)]
    pub keep: Vec<String>,
}

/// `oracle.listener.stop`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StopListeners(pub ListenerSelection);

impl ActionSpec for StopListeners {
    const NAME: &'static str = "oracle.listener.stop";
    const SUMMARY: &'static str = "stop listeners";
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(LISTENERS_LIMIT_SECS)
    }
}

/// `oracle.listener.start`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct StartListeners(pub ListenerSelection);

impl ActionSpec for StartListeners {
    const NAME: &'static str = "oracle.listener.start";
    const SUMMARY: &'static str = "start listeners";
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(LISTENERS_LIMIT_SECS)
    }
}

/// Application accounts of a database.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleAccounts {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Application accounts, as DBA_USERS spells them.
    pub accounts: Vec<String>,
}

/// `oracle.accounts.lock`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct LockAccounts(pub OracleAccounts);

impl ActionSpec for LockAccounts {
    const NAME: &'static str = "oracle.accounts.lock";
    const SUMMARY: &'static str = "lock application accounts";
    const EFFECT: Effect = Effect::Undoable;
}

/// `oracle.accounts.restore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestoreAccounts(pub OracleAccounts);

impl ActionSpec for RestoreAccounts {
    const NAME: &'static str = "oracle.accounts.restore";
    const SUMMARY: &'static str = "unlock the accounts that were unlocked before";
    const EFFECT: Effect = Effect::Permanent;
}

/// `oracle.logins.restrict`: restricted session on this instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestrictLogins {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for RestrictLogins {
    const NAME: &'static str = "oracle.logins.restrict";
    const SUMMARY: &'static str = "restrict logins";
    const EFFECT: Effect = Effect::Undoable;
}

/// `oracle.logins.open`: no restricted session on this instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenLogins {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for OpenLogins {
    const NAME: &'static str = "oracle.logins.open";
    const SUMMARY: &'static str = "lift the restriction of logins";
    const EFFECT: Effect = Effect::Permanent;
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

/// `oracle.jobs.disable`: JOB_QUEUE_PROCESSES on every instance, and the jobs
/// that run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisableOracleJobs {
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

impl ActionSpec for DisableOracleJobs {
    const NAME: &'static str = "oracle.jobs.disable";
    const SUMMARY: &'static str = "JOB_QUEUE_PROCESSES=0, wait for jobs";
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        // After the wait, running jobs may have to be stopped.
        Some(self.wait_secs.saturating_add(PLAIN_LIMIT_SECS))
    }
}

/// `oracle.jobs.restore`: JOB_QUEUE_PROCESSES as `oracle.jobs.disable` found it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreOracleJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for RestoreOracleJobs {
    const NAME: &'static str = "oracle.jobs.restore";
    const SUMMARY: &'static str = "JOB_QUEUE_PROCESSES as before";
    const EFFECT: Effect = Effect::Permanent;
}

/// `oracle.queue_monitor.disable`: AQ_TM_PROCESSES on every instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisableQueueMonitor {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Where the zero goes.
    #[serde(default)]
    pub scope: Scope,
}

impl ActionSpec for DisableQueueMonitor {
    const NAME: &'static str = "oracle.queue_monitor.disable";
    const SUMMARY: &'static str = "AQ_TM_PROCESSES=0";
    const EFFECT: Effect = Effect::Undoable;
}

/// `oracle.queue_monitor.restore`: AQ_TM_PROCESSES as
/// `oracle.queue_monitor.disable` found it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreQueueMonitor {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for RestoreQueueMonitor {
    const NAME: &'static str = "oracle.queue_monitor.restore";
    const SUMMARY: &'static str = "AQ_TM_PROCESSES as before";
    const EFFECT: Effect = Effect::Permanent;
}

/// Sessions of applications on every instance, until none is left.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleSessions {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Sessions to leave alone.
    #[serde(default)]
    pub exempt: ExemptSessions,
    /// Zero must hold that long.
    #[serde(default = "defaults::stable_secs")]
    pub stable_secs: u64,
    /// Give up after that long.
    #[serde(default = "defaults::sessions_secs")]
    pub timeout_secs: u64,
}

/// `oracle.sessions.drain`: waits until they have disconnected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DrainSessions(pub OracleSessions);

impl ActionSpec for DrainSessions {
    const NAME: &'static str = "oracle.sessions.drain";
    const SUMMARY: &'static str = "wait until sessions have disconnected";
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `oracle.sessions.kill`: kills until none is left and none reconnects.
///
/// Outputs: `killed` (number).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct KillSessions(pub OracleSessions);

impl ActionSpec for KillSessions {
    const NAME: &'static str = "oracle.sessions.kill";
    const SUMMARY: &'static str = "kill sessions until none reconnects";
    const OUTPUTS: &'static [&'static str] = &["killed"];
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// What must hold while Oracle is closed to applications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleFence {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Sessions that may be there.
    #[serde(default)]
    pub exempt: ExemptSessions,
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

/// `oracle.fence.watch`: a watch. It is armed once the fence has held for the
/// window, and reports every breach from then on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct WatchFence(pub OracleFence);

impl ActionSpec for WatchFence {
    const NAME: &'static str = "oracle.fence.watch";
    const SUMMARY: &'static str = "watch that nothing can write to Oracle";
    const EFFECT: Effect = Effect::Watch;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.window_secs.saturating_add(PLAIN_LIMIT_SECS))
    }
}

/// `oracle.fence.verify`: the same check once, over the window.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct VerifyFence(pub OracleFence);

impl ActionSpec for VerifyFence {
    const NAME: &'static str = "oracle.fence.verify";
    const SUMMARY: &'static str = "prove that Oracle is not used";
    const EFFECT: Effect = Effect::ReadOnly;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.window_secs.saturating_add(PLAIN_LIMIT_SECS))
    }
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

impl ActionSpec for OracleFinalize {
    const NAME: &'static str = "oracle.finalize";
    const SUMMARY: &'static str = "checkpoint, SCN, marker, log switch";
    const OUTPUTS: &'static [&'static str] = &["scn", "nonce", "sequences"];
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.fence.window_secs.saturating_add(self.timeout_secs))
    }
}

/// Triggers of some owners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleTriggers {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Owners whose triggers are meant.
    pub schemas: Vec<String>,
}

/// `oracle.triggers.disable`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DisableOracleTriggers(pub OracleTriggers);

impl ActionSpec for DisableOracleTriggers {
    const NAME: &'static str = "oracle.triggers.disable";
    const SUMMARY: &'static str = "disable triggers";
    const EFFECT: Effect = Effect::Undoable;
}

/// `oracle.triggers.restore`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct RestoreOracleTriggers(pub OracleTriggers);

impl ActionSpec for RestoreOracleTriggers {
    const NAME: &'static str = "oracle.triggers.restore";
    const SUMMARY: &'static str = "enable the triggers that were enabled before";
    const EFFECT: Effect = Effect::Permanent;
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

impl ActionSpec for OracleRows {
    const NAME: &'static str = "oracle.rows.digest";
    const SUMMARY: &'static str = "count and digest rows at an SCN";
    const OUTPUTS: &'static [&'static str] = &["tables"];
    const EFFECT: Effect = Effect::ReadOnly;
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

impl ActionSpec for OracleCanary {
    const NAME: &'static str = "oracle.canary.await";
    const SUMMARY: &'static str = "wait for the canary to come back";
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `oracle.freeze.persist`: the freeze made durable (server parameter file,
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

impl ActionSpec for OracleKeepClosed {
    const NAME: &'static str = "oracle.freeze.persist";
    const SUMMARY: &'static str = "make the freeze durable";
    const EFFECT: Effect = Effect::Undoable;
}

deref_to_parameters! {
    StopListeners => ListenerSelection,
    StartListeners => ListenerSelection,
    LockAccounts => OracleAccounts,
    RestoreAccounts => OracleAccounts,
    DrainSessions => OracleSessions,
    KillSessions => OracleSessions,
    WatchFence => OracleFence,
    VerifyFence => OracleFence,
    DisableOracleTriggers => OracleTriggers,
    RestoreOracleTriggers => OracleTriggers,
}
