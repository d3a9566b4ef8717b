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
    /// Client machines or addresses from which they must connect; empty: any.
    #[serde(default)]
    pub machines: Vec<String>,
}

/// `oracle.ready`: checks the prerequisites of a cutover: archive log mode, supplemental logging, marker table, canary
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
    /// An open transaction older than this, in seconds, is an obstacle.
    #[serde(default = "defaults::transaction_secs")]
    pub oldest_transaction_secs: u64,
    /// The plan persists the freeze, so every instance must use a server
    /// parameter file.
    #[serde(default = "defaults::durable")]
    pub durable: bool,
    /// Accounts that the plan locks; clients with other accounts are reported.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// The plan restricts logins, so DMS needs the privilege RESTRICTED SESSION
    /// and a statically registered service.
    #[serde(default)]
    pub restrict_logins: bool,
}

impl ActionSpec for OracleReady {
    const NAME: &'static str = "oracle.ready";
    const SUMMARY: &'static str = "check whether Oracle is ready for a cutover";
    const OUTPUTS: &'static [&'static str] = &["clients"];
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `oracle.logs.ready`: checks that the redo since the checkpoint of the forward
/// task is available.
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
    /// Names of the listeners; empty: all in the agent's configuration.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// Listeners to exclude (the one reserved for DMS).
    #[serde(default)]
    pub keep: Vec<String>,
    /// Instances of other databases that these listeners may serve too, and whose clients then can't log
    /// in; `*`: any. A stop refuses a listener that serves others.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub also_serves: Vec<String>,
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

/// `oracle.logins.restrict`: enables restricted session on this instance.
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

/// `oracle.logins.open`: disables restricted session on this instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OpenLogins {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for OpenLogins {
    const NAME: &'static str = "oracle.logins.open";
    const SUMMARY: &'static str = "allow logins again";
    const EFFECT: Effect = Effect::Permanent;
}

/// Where a parameter is changed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
pub enum Scope {
    /// Only in the running instance: a restart restores the old value.
    #[default]
    Memory,
    /// In the running instance and in the server parameter file.
    Both,
}

/// `oracle.jobs.disable`: sets JOB_QUEUE_PROCESSES to 0 on every instance and
/// waits for running jobs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisableOracleJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Seconds to wait for running jobs.
    #[serde(default = "defaults::jobs_secs")]
    pub wait_secs: u64,
    /// After the wait, stop jobs that are still running instead of failing.
    #[serde(default)]
    pub stop_running: bool,
    /// Where the parameter is set to 0.
    #[serde(default)]
    pub scope: Scope,
}

impl ActionSpec for DisableOracleJobs {
    const NAME: &'static str = "oracle.jobs.disable";
    const SUMMARY: &'static str = "set JOB_QUEUE_PROCESSES=0, wait for jobs";
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        // After the wait, running jobs may have to be stopped.
        Some(self.wait_secs.saturating_add(PLAIN_LIMIT_SECS))
    }
}

/// `oracle.jobs.restore`: restores JOB_QUEUE_PROCESSES to its value before
/// `oracle.jobs.disable`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreOracleJobs {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for RestoreOracleJobs {
    const NAME: &'static str = "oracle.jobs.restore";
    const SUMMARY: &'static str = "restore JOB_QUEUE_PROCESSES";
    const EFFECT: Effect = Effect::Permanent;
}

/// `oracle.queue_monitor.disable`: sets AQ_TM_PROCESSES to 0 on every instance.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct DisableQueueMonitor {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Where the parameter is set to 0.
    #[serde(default)]
    pub scope: Scope,
}

impl ActionSpec for DisableQueueMonitor {
    const NAME: &'static str = "oracle.queue_monitor.disable";
    const SUMMARY: &'static str = "set AQ_TM_PROCESSES=0";
    const EFFECT: Effect = Effect::Undoable;
}

/// `oracle.queue_monitor.restore`: restores AQ_TM_PROCESSES to its value before
/// `oracle.queue_monitor.disable`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct RestoreQueueMonitor {
    /// Resource of the agent's configuration.
    pub resource: String,
}

impl ActionSpec for RestoreQueueMonitor {
    const NAME: &'static str = "oracle.queue_monitor.restore";
    const SUMMARY: &'static str = "restore AQ_TM_PROCESSES";
    const EFFECT: Effect = Effect::Permanent;
}

/// Sessions of applications on all instances.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleSessions {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Sessions to exclude.
    #[serde(default)]
    pub exempt: ExemptSessions,
    /// Seconds for which there must be no session.
    #[serde(default = "defaults::stable_secs")]
    pub stable_secs: u64,
    /// Seconds after which the action fails.
    #[serde(default = "defaults::sessions_secs")]
    pub timeout_secs: u64,
}

/// `oracle.sessions.drain`: waits until the sessions have disconnected.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
pub struct DrainSessions(pub OracleSessions);

impl ActionSpec for DrainSessions {
    const NAME: &'static str = "oracle.sessions.drain";
    const SUMMARY: &'static str = "wait until sessions have disconnected";
    const EFFECT: Effect = Effect::ReadOnly;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `oracle.sessions.kill`: kills sessions until none is left and none reconnects.
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

/// Conditions that must hold while Oracle is closed to applications.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleFence {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Sessions that are allowed.
    #[serde(default)]
    pub exempt: ExemptSessions,
    /// Listeners that are allowed to be up.
    #[serde(default)]
    pub keep: Vec<String>,
    /// Accounts that must stay locked.
    #[serde(default)]
    pub accounts: Vec<String>,
    /// Also require that no job is running and JOB_QUEUE_PROCESSES is 0.
    #[serde(default)]
    pub jobs_off: bool,
    /// Seconds for which the conditions must hold continuously.
    #[serde(default = "defaults::stable_secs")]
    pub window_secs: u64,
}

/// `oracle.fence.watch`: a watch that is armed once the conditions have held for
/// the window, and reports every later breach.
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

/// `oracle.fence.verify`: checks once that the conditions hold for the window.
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

/// `oracle.finalize`: verifies the fence, takes a checkpoint, reads the SCN, writes
/// and commits the marker, switches the log.
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
    /// Replication tasks, each of which must replicate a marker.
    pub tasks: Vec<String>,
    /// The fence to verify first.
    pub fence: OracleFence,
    /// Schemas whose sequences are read for the output `sequences`.
    #[serde(default)]
    pub schemas: Vec<String>,
    /// Seconds that the checkpoint and the archiving of the log may take together.
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

/// `oracle.marker.write`: commits a marker while applications still write, and
/// switches the log, so that the path of the marker is tried before the outage.
///
/// Outputs: `scn` (text), `nonce` (text).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleMarker {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `OWNER.TABLE` of the marker table.
    pub marker_table: String,
    /// Replication tasks, each of which must replicate a marker.
    pub tasks: Vec<String>,
    /// Seconds that the archiving of the log may take.
    #[serde(default = "defaults::finalize_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for OracleMarker {
    const NAME: &'static str = "oracle.marker.write";
    const SUMMARY: &'static str = "write a trial marker";
    const OUTPUTS: &'static [&'static str] = &["scn", "nonce"];
    const EFFECT: Effect = Effect::Permanent;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// Triggers of the listed owners.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleTriggers {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Owners of the triggers.
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

/// `oracle.canary.await`: waits until the canary written in PostgreSQL arrives in
/// Oracle. Undo removes it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleCanary {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// `OWNER.TABLE` of the canary table.
    pub canary_table: String,
    /// Output `nonce` of `postgres.canary.write`.
    pub nonce: String,
    /// Seconds to wait.
    #[serde(default = "defaults::marker_secs")]
    pub timeout_secs: u64,
}

impl ActionSpec for OracleCanary {
    const NAME: &'static str = "oracle.canary.await";
    const SUMMARY: &'static str = "wait for the canary to arrive in Oracle";
    const EFFECT: Effect = Effect::Undoable;

    fn limit_secs(&self) -> Option<u64> {
        Some(self.timeout_secs)
    }
}

/// `oracle.freeze.persist`: makes the freeze survive restarts (server parameter
/// file, listeners disabled, accounts locked) as long as a fallback is possible.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PersistFreeze {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Listeners that stay enabled (DMS).
    #[serde(default)]
    pub keep: Vec<String>,
    /// Also set JOB_QUEUE_PROCESSES=0 in the server parameter file.
    #[serde(default)]
    pub jobs: bool,
    /// Accounts that must be locked; any that were unlocked are locked again.
    #[serde(default)]
    pub accounts: Vec<String>,
}

impl ActionSpec for PersistFreeze {
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
