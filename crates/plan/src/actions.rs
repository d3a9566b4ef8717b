//! The table of actions: for each name its parameter type, its outputs, and
//! whether an undo exists.
//!
//! [`crate::catalogue`] says what the parameters are; this says which belong
//! to which name. The table is closed: an agent implements exactly these.

use crate::catalogue as c;
use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::de::DeserializeOwned;
use serde_json::Value;

/// One kind of local work.
#[derive(Debug)]
pub struct Action {
    /// Name as in a plan, `oracle.listener.stop`.
    pub name: &'static str,
    /// One line that says what it does.
    pub summary: &'static str,
    /// Names of its outputs.
    pub outputs: &'static [&'static str],
    /// It changes something that its undo restores.
    pub undoable: bool,
    /// It is a watch: its task arrives as standing.
    pub watch: bool,
    /// It looks whether something is so and changes nothing.
    pub looks: bool,
    schema: fn(&mut SchemaGenerator) -> Schema,
    decode: fn(&Value) -> Result<(), serde_json::Error>,
}

impl Action {
    /// The action of that name.
    pub fn find(name: &str) -> Option<&'static Self> {
        ACTIONS.iter().find(|action| action.name == name)
    }

    /// Schema of its parameters; definitions go into `generator`.
    pub fn schema(&self, generator: &mut SchemaGenerator) -> Schema {
        (self.schema)(generator)
    }

    /// Whether `params` are this action's parameters.
    ///
    /// # Errors
    /// What the parameter type says about them.
    pub fn decode(&self, params: &Value) -> Result<(), serde_json::Error> {
        (self.decode)(params)
    }
}

const fn action<P: JsonSchema + DeserializeOwned>(
    name: &'static str,
    summary: &'static str,
) -> Action {
    Action {
        name,
        summary,
        outputs: &[],
        undoable: false,
        watch: false,
        looks: false,
        schema: |generator| generator.subschema_for::<P>(),
        decode: |params| serde_json::from_value::<P>(params.clone()).map(drop),
    }
}

impl Action {
    const fn undoable(mut self) -> Self {
        self.undoable = true;
        self
    }

    const fn watch(mut self) -> Self {
        self.watch = true;
        self
    }

    const fn looks(mut self) -> Self {
        self.looks = true;
        self
    }

    const fn gives(mut self, outputs: &'static [&'static str]) -> Self {
        self.outputs = outputs;
        self
    }
}

/// Every action there is, hosts first, then Oracle, PostgreSQL, AWS.
pub static ACTIONS: &[Action] = &[
    action::<c::Service>("service.stop", "stop systemd units").undoable(),
    action::<c::Service>("service.start", "start systemd units").undoable(),
    action::<c::Service>("service.restart", "restart systemd units"),
    action::<c::Cron>("cron.disable", "put crontab files out of effect").undoable(),
    action::<c::Cron>("cron.restore", "put crontab files back"),
    action::<c::Process>("process.stop", "end processes that no unit owns"),
    action::<c::ConfigSwitch>("config.switch", "swap a configuration file or link").undoable(),
    action::<c::CheckHttp>("check.http", "ask a health endpoint").looks(),
    action::<c::CheckTcp>("check.tcp", "look whether a port answers").looks(),
    action::<c::Command>("check.command", "run a named check command"),
    action::<c::Command>("command.run", "run a named command"),
    action::<c::OracleReady>("oracle.ready", "look whether Oracle is ready")
        .gives(&["clients"])
        .looks(),
    action::<c::OracleLogs>(
        "oracle.logs.ready",
        "look whether redo since the checkpoint is there",
    )
    .looks(),
    action::<c::OracleListener>("oracle.listener.stop", "stop listeners").undoable(),
    action::<c::OracleListener>("oracle.listener.start", "start listeners").undoable(),
    action::<c::OracleAccounts>("oracle.accounts.lock", "lock application accounts").undoable(),
    action::<c::OracleAccounts>("oracle.accounts.restore", "unlock what was unlocked"),
    action::<c::OracleLogins>("oracle.logins.restrict", "restrict logins").undoable(),
    action::<c::OracleLogins>("oracle.logins.open", "lift the restriction"),
    action::<c::OracleJobs>(
        "oracle.jobs.disable",
        "JOB_QUEUE_PROCESSES=0, wait for jobs",
    )
    .undoable(),
    action::<c::OracleJobs>("oracle.jobs.restore", "JOB_QUEUE_PROCESSES as before"),
    action::<c::OracleQueueMonitor>("oracle.queue_monitor.disable", "AQ_TM_PROCESSES=0").undoable(),
    action::<c::OracleQueueMonitor>("oracle.queue_monitor.restore", "AQ_TM_PROCESSES as before"),
    action::<c::OracleSessions>("oracle.sessions.drain", "wait for sessions to leave"),
    action::<c::OracleSessions>(
        "oracle.sessions.kill",
        "kill sessions until none comes back",
    )
    .gives(&["killed"]),
    action::<c::OracleFence>("oracle.fence.watch", "watch that no one can write").watch(),
    action::<c::OracleFence>("oracle.fence.verify", "prove that Oracle is not used").looks(),
    action::<c::OracleFinalize>("oracle.finalize", "checkpoint, SCN, marker, log switch").gives(&[
        "scn",
        "nonce",
        "sequences",
    ]),
    action::<c::OracleTriggers>("oracle.triggers.disable", "disable triggers").undoable(),
    action::<c::OracleTriggers>("oracle.triggers.restore", "enable what was enabled"),
    action::<c::OracleRows>("oracle.rows.digest", "count and digest rows at an SCN")
        .gives(&["tables"])
        .looks(),
    action::<c::OracleCanary>("oracle.canary.await", "wait for the canary to come back").undoable(),
    action::<c::OracleKeepClosed>("oracle.closed.keep", "make the freeze durable").undoable(),
    action::<c::PostgresReady>("postgres.ready", "look whether PostgreSQL is ready")
        .gives(&["apply_exceptions", "slots", "tables"])
        .looks(),
    action::<c::PostgresRoles>("postgres.roles.close", "close application roles").undoable(),
    action::<c::PostgresRoles>("postgres.roles.verify", "prove that roles are closed").looks(),
    action::<c::PostgresRoles>("postgres.roles.open", "open application roles").undoable(),
    action::<c::PostgresMarker>("postgres.marker.await", "wait for the marker to arrive").looks(),
    action::<c::PostgresDrain>(
        "postgres.drain.check",
        "look once more whether changes were lost",
    )
    .looks(),
    action::<c::PostgresRows>("postgres.rows.verify", "compare rows, keys and indexes")
        .gives(&["tables"])
        .looks(),
    action::<c::PostgresTriggers>("postgres.triggers.enable", "triggers to their baseline")
        .undoable(),
    action::<c::PostgresTriggers>("postgres.triggers.restore", "triggers as before"),
    action::<c::PostgresSequences>("postgres.sequences.align", "sequences past their data"),
    action::<c::PostgresJobs>("postgres.jobs.disable", "pg_cron and pgAgent jobs off").undoable(),
    action::<c::PostgresJobs>(
        "postgres.jobs.restore",
        "pg_cron and pgAgent jobs as before",
    ),
    action::<c::PostgresAnalyze>("postgres.analyze", "collect statistics"),
    action::<c::PostgresCanary>("postgres.canary.write", "write the canary row")
        .undoable()
        .gives(&["nonce"]),
    action::<c::DmsTask>("dms.task.ready", "look whether the DMS task is healthy")
        .gives(&["checkpoint", "last_failure"])
        .looks(),
    action::<c::DmsTask>(
        "dms.task.drain",
        "wait until nothing is pending in the DMS task",
    )
    .looks(),
    action::<c::DmsTask>("dms.task.stop", "stop the DMS task")
        .gives(&["stop_reason", "checkpoint"]),
    action::<c::DmsTask>("dms.task.resume", "resume the DMS task"),
    action::<c::DmsConnection>("dms.connection.test", "test connections from the instance"),
    action::<c::DmsReverseCreate>("dms.reverse.create", "create the task back to Oracle")
        .undoable()
        .gives(&["task"]),
    action::<c::DmsReverseStart>("dms.reverse.start", "start the task back to Oracle")
        .undoable()
        .gives(&["slot"]),
    action::<c::DmsReverseDelete>("dms.reverse.delete", "delete the task back to Oracle"),
    action::<c::CloudwatchAlarms>("cloudwatch.alarms.put", "put CloudWatch alarms").undoable(),
];

/// What a task needs beyond the limits in its own parameters: the session,
/// the probe, the report.
const SLACK_SECS: u64 = 15;

/// For an action whose parameters name no limit.
const PLAIN_LIMIT_SECS: u64 = 60;

/// For all listeners of a host: Clusterware takes its time for each.
const LISTENERS_LIMIT_SECS: u64 = 300;

/// Seconds that one agent's task may take, with room for the probe and the
/// report around the action's own limit.
pub fn task_limit_secs(action: &str, params: &Value) -> u64 {
    stated_limit_secs(action, params)
        .unwrap_or(PLAIN_LIMIT_SECS)
        .saturating_add(SLACK_SECS)
}

/// Seconds that the parameters themselves allow the action; nothing for an
/// action whose parameters name no limit. Limits that are still references
/// count as their defaults.
pub fn stated_limit_secs(action: &str, params: &Value) -> Option<u64> {
    let number =
        |field: &str, default: u64| params.get(field).and_then(Value::as_u64).unwrap_or(default);
    let each = |field: &str, secs: u64| {
        let count = params
            .get(field)
            .and_then(Value::as_array)
            .map_or(1, Vec::len);
        secs.saturating_mul(count.max(1) as u64)
    };
    use c::defaults as d;
    Some(match action {
        "service.stop" | "service.start" | "service.restart" => {
            each("units", number("timeout_secs", d::unit_secs()))
        }
        "process.stop" => each("processes", number("timeout_secs", d::process_secs())),
        "check.http" | "check.tcp" => number("within_secs", d::check_secs()),
        "check.command" | "command.run" => number("within_secs", d::command_secs()),
        // Beyond the wait the running jobs may have to be stopped.
        "oracle.jobs.disable" => {
            number("wait_secs", d::jobs_secs()).saturating_add(PLAIN_LIMIT_SECS)
        }
        "oracle.sessions.drain" | "oracle.sessions.kill" => {
            number("timeout_secs", d::sessions_secs())
        }
        "oracle.fence.watch" | "oracle.fence.verify" => {
            number("window_secs", d::stable_secs()).saturating_add(PLAIN_LIMIT_SECS)
        }
        "oracle.finalize" => params
            .pointer("/fence/window_secs")
            .and_then(Value::as_u64)
            .unwrap_or(d::stable_secs())
            .saturating_add(number("timeout_secs", d::finalize_secs())),
        "oracle.listener.stop" | "oracle.listener.start" => LISTENERS_LIMIT_SECS,
        "oracle.canary.await" | "postgres.marker.await" => number("timeout_secs", d::marker_secs()),
        "dms.connection.test" => each("endpoints", number("timeout_secs", d::dms_secs())),
        other if other.starts_with("dms.") => number("timeout_secs", d::dms_secs()),
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn names_are_unique_and_findable() {
        for (index, action) in ACTIONS.iter().enumerate() {
            assert!(
                ACTIONS[..index]
                    .iter()
                    .all(|other| other.name != action.name),
                "{} twice",
                action.name
            );
            assert_eq!(Action::find(action.name).unwrap().name, action.name);
        }
        assert!(Action::find("oracle.shutdown").is_none());
    }

    #[test]
    fn parameters_decode_into_the_type_of_their_action() {
        let stop = Action::find("oracle.listener.stop").unwrap();
        assert!(
            stop.decode(&json!({"resource": "orcl", "keep": ["LISTENER_DMS"]}))
                .is_ok()
        );
        assert!(stop.decode(&json!({"resource": 5})).is_err());
        assert!(
            stop.decode(&json!({"resource": "orcl", "units": []}))
                .is_err()
        );
    }

    #[test]
    fn what_looks_has_nothing_to_undo() {
        let looking = |action: &&Action| action.looks;
        let undone = ACTIONS
            .iter()
            .filter(looking)
            .find(|a| a.undoable || a.watch);
        assert!(undone.is_none(), "{undone:?}");
        assert!(Action::find("postgres.roles.verify").unwrap().looks);
        assert!(!Action::find("postgres.roles.open").unwrap().looks);
    }

    #[test]
    fn a_limit_counts_every_unit() {
        let params = json!({"units": ["a.service", "b.service"], "timeout_secs": 20});
        assert_eq!(
            task_limit_secs("service.stop", &params),
            2 * 20 + SLACK_SECS
        );
        let params = json!({"fence": {"window_secs": 5}, "timeout_secs": 900});
        assert_eq!(stated_limit_secs("oracle.finalize", &params), Some(905));
        assert_eq!(stated_limit_secs("config.switch", &json!({})), None);
        assert_eq!(task_limit_secs("config.switch", &json!({})), 75);
    }
}
