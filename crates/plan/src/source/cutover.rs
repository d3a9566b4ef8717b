//! `kind: Cutover`: the resources and options of the runbook.

use super::{Budget, Health, Host, Hosts};
use crate::catalogue::{
    Alarm, AlignedSequence, ComparedTable, SwitchConfig, TriggerMode, TriggerSet,
};
use crate::duration::Duration;
use crate::model::Gate;
use crate::source::plan::FailurePolicy;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A cutover from Oracle to PostgreSQL.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Cutover {
    /// `Cutover`.
    pub kind: String,
    /// Name of the plan: small letters, digits and hyphens.
    pub name: String,
    /// Variables, used as `${vars.NAME}`.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// The database that is left.
    pub oracle: Oracle,
    /// The database that is moved to.
    pub postgres: Postgres,
    /// What carries the rows over.
    pub dms: Dms,
    /// What is compared before the switch.
    pub compare: Compare,
    /// Everything that writes to Oracle and is stopped first, scripts on the
    /// Oracle hosts included.
    #[schemars(length(min = 1))]
    pub applications: Vec<Application>,
    /// CloudWatch alarms on the new database and on the reverse task.
    #[serde(default)]
    pub alarms: Vec<Alarm>,
    /// The budget of the write outage.
    pub outage: Budget,
    /// What must happen before a standard phase: none, approval or hold. If
    /// left out, open-postgres asks for approval and no other phase does.
    #[serde(default)]
    pub gates: BTreeMap<String, Gate>,
    /// How long the parts of a standard phase may each take; if left out, as
    /// long as their steps.
    #[serde(default)]
    pub deadlines: BTreeMap<String, Duration>,
    /// How long a promise to start lives; 60s if left out.
    #[serde(default)]
    pub start_by: Option<Duration>,
    /// What a failure before the point of no return leads to; rollback if
    /// left out.
    #[serde(default = "rollback")]
    pub on_failure: FailurePolicy,
}

fn rollback() -> FailurePolicy {
    FailurePolicy::Rollback
}

fn yes() -> bool {
    true
}

/// The Oracle side.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oracle {
    /// All hosts of the database; their listeners are stopped.
    pub hosts: Hosts,
    /// The one among them that speaks to the database for all instances.
    /// Labels that tell it from the others are enough.
    pub lead: Host,
    /// Name of the resource: `[oracle.NAME]` in these hosts' agent.toml.
    pub resource: String,
    /// Owners of the tables, triggers and sequences, as Oracle spells them.
    #[schemars(length(min = 1))]
    pub schemas: Vec<String>,
    /// Accounts that applications log in with; locked during the cutover. No
    /// user of DMS is among them.
    #[schemars(length(min = 1))]
    pub accounts: Vec<String>,
    /// `OWNER.TABLE` of the marker table.
    pub marker_table: String,
    /// `OWNER.TABLE` of the canary table; needed with a reverse task.
    #[serde(default)]
    pub canary_table: Option<String>,
    /// The listener reserved for DMS; it stays up. Needed with a reverse
    /// task.
    #[serde(default)]
    pub dms_listener: Option<String>,
    /// Users of the DMS endpoints; their sessions are never killed.
    #[schemars(length(min = 1))]
    pub dms_users: Vec<String>,
    /// Machines or addresses that DMS comes from, as V$SESSION.MACHINE shows
    /// them. If left out any will do, and an intruder with DMS's password
    /// passes for DMS: the plan gets a warning.
    #[serde(default)]
    pub dms_machines: Vec<String>,
    /// `HOST:PORT` of every listener that must be shut when applications
    /// start again; looked at from the application hosts. Without any the plan
    /// gets a warning.
    #[serde(default)]
    pub closed_addresses: Vec<String>,
    /// Jobs (step 4).
    #[serde(default)]
    pub jobs: Jobs,
    /// AQ_TM_PROCESSES=0 (step 5). Oracle recommends against it.
    #[serde(default)]
    pub queue_monitor: bool,
    /// Restricted sessions on top of locked accounts. DMS then needs the
    /// privilege and a statically registered service.
    #[serde(default)]
    pub restrict_logins: bool,
    /// Killing the sessions that remain (step 2).
    #[serde(default)]
    pub sessions: Sessions,
    /// A transaction older than this is an obstacle; 5m if left out.
    #[serde(default)]
    pub oldest_transaction: Option<Duration>,
    /// How long the checkpoint and the archiving of the current log may take
    /// together; 10m if left out. Measure both on the real database.
    #[serde(default)]
    pub finalize_timeout: Option<Duration>,
}

/// Oracle's jobs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jobs {
    /// JOB_QUEUE_PROCESSES=0 during the cutover and after it.
    #[serde(default = "yes")]
    pub disable: bool,
    /// How long to wait for running jobs; 2m if left out.
    #[serde(default)]
    pub wait: Option<Duration>,
    /// Stop what still runs after that, rather than fail.
    #[serde(default)]
    pub stop_running: bool,
}

impl Default for Jobs {
    fn default() -> Self {
        Self {
            disable: true,
            wait: None,
            stop_running: false,
        }
    }
}

/// How the remaining sessions are ended.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Sessions {
    /// Nobody may come back for that long; 5s if left out. The fence is
    /// verified over the same window.
    #[serde(default)]
    pub stable: Option<Duration>,
    /// Give up after that long; 2m if left out.
    #[serde(default)]
    pub timeout: Option<Duration>,
}

/// The PostgreSQL side.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// The host whose agent speaks to the database.
    pub host: Host,
    /// Name of the resource: `[postgres.NAME]` in that host's agent.toml.
    pub resource: String,
    /// Schemas of the tables.
    #[schemars(length(min = 1))]
    pub schemas: Vec<String>,
    /// Roles that applications log in with; closed until the point of no
    /// return.
    #[schemars(length(min = 1))]
    pub roles: Vec<String>,
    /// `schema.table` of the marker table.
    pub marker_table: String,
    /// `schema.table` of the canary table; needed with a reverse task.
    #[serde(default)]
    pub canary_table: Option<String>,
    /// Schema of the DMS control tables; `public` if left out.
    #[serde(default)]
    pub control_schema: Option<String>,
    /// Triggers (step 9).
    #[serde(default)]
    pub triggers: Triggers,
    /// Sequences and identity columns with the sequences that fed them in
    /// Oracle. DMS does not carry their values. Those of the schemas that
    /// are not named are set past the values of their columns.
    #[serde(default)]
    pub sequences: Vec<AlignedSequence>,
    /// Added on top of the greatest value; 1000 if left out.
    #[serde(default)]
    pub sequence_margin: Option<u64>,
    /// Keep pg_cron and pgAgent jobs off until the roles have opened.
    #[serde(default = "yes")]
    pub jobs: bool,
    /// How long collecting statistics may take; 10m if left out.
    #[serde(default)]
    pub analyze_timeout: Option<Duration>,
}

/// PostgreSQL's triggers.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Triggers {
    /// `user`, or `all` with a superuser.
    #[serde(default)]
    pub set: TriggerSet,
    /// Modes that differ from `origin`, by `schema.table.trigger`.
    #[serde(default)]
    pub baseline: BTreeMap<String, TriggerMode>,
}

/// AWS DMS.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Dms {
    /// The host whose agent calls AWS; the PostgreSQL host if left out. With
    /// a reverse task it needs the PostgreSQL resource too, to see the slot.
    #[serde(default)]
    pub host: Option<Host>,
    /// Name of the resource: `[aws.NAME]` in that host's agent.toml.
    pub resource: String,
    /// ARN of the replication instance.
    pub instance: String,
    /// ARN of the task from Oracle to PostgreSQL.
    pub task: String,
    /// ARN of its source endpoint (Oracle).
    pub source_endpoint: String,
    /// ARN of its target endpoint (PostgreSQL).
    pub target_endpoint: String,
    /// How long to wait for markers and for states of tasks; 5m if left out.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// Write a second marker after the first has arrived, and verify the
    /// fence with it. With batch apply one marker alone is no proof.
    #[serde(default = "yes")]
    pub second_marker: bool,
    /// The task back to Oracle (step 8). Without it there is no fallback
    /// after the point of no return.
    #[serde(default)]
    pub reverse: Option<Reverse>,
}

/// The task from PostgreSQL back to Oracle.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Reverse {
    /// Identifier of the task to create: a letter, then letters, digits and
    /// single hyphens.
    pub identifier: String,
    /// ARN of its source endpoint (PostgreSQL).
    pub source_endpoint: String,
    /// ARN of its target endpoint (Oracle, through the reserved listener).
    pub target_endpoint: String,
    /// Table mappings as DMS takes them; the canary table is in them, the
    /// marker table is not.
    pub table_mappings: Value,
    /// Task settings on top of `TargetTablePrepMode=DO_NOTHING`.
    #[serde(default)]
    pub settings: Option<Value>,
}

/// What is compared before the switch.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// The tables, as far as their rows are to be compared or their names
    /// differ. All others that both sides have are counted.
    #[schemars(length(min = 1))]
    pub tables: Vec<ComparedTable>,
    /// `schema.table` of tables in PostgreSQL that are not counted: those
    /// that DMS does not carry, or not whole.
    #[serde(default)]
    pub except: Vec<String>,
    /// How long either side may take; 5m if left out.
    #[serde(default)]
    pub timeout: Option<Duration>,
}

/// An application on its hosts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Name: small letters, digits and hyphens.
    pub name: String,
    /// Where it runs.
    pub hosts: Hosts,
    /// The one host that starts first on PostgreSQL and must be well before
    /// the others start.
    #[serde(default)]
    pub canary: Option<Host>,
    /// Timers with suffix (`report.timer`); stopped before services.
    #[serde(default)]
    pub timers: Vec<String>,
    /// Services with suffix (`orders.service`), in the order of stopping.
    #[serde(default)]
    pub services: Vec<String>,
    /// Absolute paths of crontab files.
    #[serde(default)]
    pub cron: Vec<String>,
    /// Processes that no unit owns, by their names in the agent's policy.
    /// They are ended and not started again.
    #[serde(default)]
    pub processes: Vec<String>,
    /// How long one unit may take to stop or start; 60s if left out.
    #[serde(default)]
    pub unit_timeout: Option<Duration>,
    /// Also disable the units, so that no boot brings them back meanwhile.
    #[serde(default)]
    pub disable_units: bool,
    /// Files or links that are switched from Oracle to PostgreSQL.
    #[serde(default)]
    pub config: Vec<SwitchConfig>,
    /// What tells that it is well: before the cutover, after the switch, and
    /// after a rollback.
    #[serde(default)]
    pub health: Health,
    /// Start it on PostgreSQL. `false` for what ends with Oracle.
    #[serde(default = "yes")]
    pub start: bool,
}
