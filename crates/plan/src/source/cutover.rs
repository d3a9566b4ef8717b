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
    /// Name of the plan: lowercase letters, digits and hyphens.
    pub name: String,
    /// Variables, used as `${vars.NAME}`.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// The source database.
    pub oracle: Oracle,
    /// The target database.
    pub postgres: Postgres,
    /// The replication.
    pub dms: Dms,
    /// Comparison of rows before the switch.
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
    /// Gates of standard phases: none, approval or hold. By default
    /// open-postgres requires approval and no other phase has a gate.
    #[serde(default)]
    pub gates: BTreeMap<String, Gate>,
    /// Deadline for each part of a standard phase; by default the time that its
    /// steps may take.
    #[serde(default)]
    pub deadlines: BTreeMap<String, Duration>,
    /// Lifetime of a promise to start; 60s by default.
    #[serde(default)]
    pub start_by: Option<Duration>,
    /// Reaction to a failure before the point of no return; rollback by default.
    #[serde(default = "rollback")]
    pub on_failure: FailurePolicy,
}

fn rollback() -> FailurePolicy {
    FailurePolicy::Rollback
}

fn enabled() -> bool {
    true
}

/// The Oracle side.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Oracle {
    /// All hosts of the database; their listeners are stopped.
    pub hosts: Hosts,
    /// The one of these hosts that queries the database for all instances.
    /// Labels that distinguish it from the others are sufficient.
    pub lead: Host,
    /// Name of the resource: `[oracle.NAME]` in these hosts' agent.toml.
    pub resource: String,
    /// Owners of the tables, triggers and sequences, as Oracle spells them.
    #[schemars(length(min = 1))]
    pub schemas: Vec<String>,
    /// Accounts that applications log in with; locked during the cutover. They
    /// must not include a DMS user.
    #[schemars(length(min = 1))]
    pub accounts: Vec<String>,
    /// `OWNER.TABLE` of the marker table.
    pub marker_table: String,
    /// `OWNER.TABLE` of the canary table; required with a reverse task.
    #[serde(default)]
    pub canary_table: Option<String>,
    /// The listener reserved for DMS; it stays up. Required with a
    /// reverse task.
    #[serde(default)]
    pub dms_listener: Option<String>,
    /// Instances of other databases that the listeners of these hosts serve too;
    /// `*`: any. Their clients can't log in while the listeners are down. A listener
    /// that serves an instance which isn't listed here is an obstacle.
    #[serde(default)]
    pub also_serves: Vec<String>,
    /// Users of the DMS endpoints; their sessions are never killed.
    #[schemars(length(min = 1))]
    pub dms_users: Vec<String>,
    /// Machines or addresses from which DMS connects, as in V$SESSION.MACHINE.
    /// If empty, sessions of DMS users are exempt from any machine, and the
    /// plan gets a warning.
    #[serde(default)]
    pub dms_machines: Vec<String>,
    /// `HOST:PORT` of every listener that must be down when applications
    /// start again; checked from the application hosts. If empty, the plan gets
    /// a warning.
    #[serde(default)]
    pub closed_addresses: Vec<String>,
    /// Jobs (step 4).
    #[serde(default)]
    pub jobs: Jobs,
    /// AQ_TM_PROCESSES=0 (step 5). Oracle recommends against it.
    #[serde(default)]
    pub queue_monitor: bool,
    /// Restricted session in addition to locked accounts. DMS then needs the
    /// privilege and a statically registered service.
    #[serde(default)]
    pub restrict_logins: bool,
    /// Killing the sessions that remain (step 2).
    #[serde(default)]
    pub sessions: Sessions,
    /// A transaction older than this is an obstacle; 5m by default.
    #[serde(default)]
    pub oldest_transaction: Option<Duration>,
    /// How long the checkpoint and the archiving of the current log may take
    /// together; 10m by default. Measure both on the real database.
    #[serde(default)]
    pub finalize_timeout: Option<Duration>,
}

/// Oracle's jobs.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Jobs {
    /// JOB_QUEUE_PROCESSES=0 during the cutover and after it.
    #[serde(default = "enabled")]
    pub disable: bool,
    /// How long to wait for running jobs; 2m by default.
    #[serde(default)]
    pub wait: Option<Duration>,
    /// Stop jobs that are still running after the wait, instead of failing.
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
    /// Time for which there must be no session; 5s by default. The fence is
    /// verified over the same window.
    #[serde(default)]
    pub stable: Option<Duration>,
    /// Time after which the step fails; 2m by default.
    #[serde(default)]
    pub timeout: Option<Duration>,
}

/// The PostgreSQL side.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Postgres {
    /// The host whose agent connects to the database.
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
    /// `schema.table` of the canary table; required with a reverse task.
    #[serde(default)]
    pub canary_table: Option<String>,
    /// Schema of the DMS control tables; `public` by default.
    #[serde(default)]
    pub control_schema: Option<String>,
    /// Triggers (step 9).
    #[serde(default)]
    pub triggers: Triggers,
    /// Sequences and identity columns with the sequences that fed them in
    /// Oracle. DMS does not replicate their values. Others in the schemas are
    /// set past the values of their columns.
    #[serde(default)]
    pub sequences: Vec<AlignedSequence>,
    /// Added to the greatest value; 1000 by default.
    #[serde(default)]
    pub sequence_margin: Option<u64>,
    /// Disable pg_cron and pgAgent jobs until the roles have been opened.
    #[serde(default = "enabled")]
    pub jobs: bool,
    /// Time limit for collecting statistics; 10m by default.
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
    /// The host whose agent calls AWS; the PostgreSQL host by default. With
    /// a reverse task it also needs the PostgreSQL resource, to check the slot.
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
    /// How long to wait for markers and for states of tasks; 5m by default.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// How long to wait, within the outage, for CloudWatch to confirm that
    /// nothing is pending; not at all by default. Data points take up to four
    /// minutes, and the run goes on without them: the marker is the proof.
    #[serde(default)]
    pub confirm: Option<Duration>,
    /// Write a second marker after the first has arrived, and verify the
    /// fence with it. With batch apply a single marker proves nothing.
    #[serde(default = "enabled")]
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
    /// Table mappings in the JSON format of DMS; they must select the canary
    /// table and not the marker table.
    pub table_mappings: Value,
    /// Task settings in addition to those of a fallback: tables are not
    /// prepared and DDL is not repeated. By default LOBs are replicated whole
    /// and the task stops at the first error; preflight shows other choices.
    #[serde(default)]
    pub settings: Option<Value>,
    /// `schema.table` or `schema.table.column` in PostgreSQL whose changes may
    /// arrive in Oracle incomplete, changed or not at all. Preflight names
    /// what the task can't carry (partitioned tables, numeric without a
    /// precision, boolean, LOBs that the settings cut), which is an obstacle
    /// unless it is listed here.
    #[serde(default)]
    pub accept: Vec<String>,
}

/// Comparison of rows before the switch.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Compare {
    /// Tables whose rows are compared, by default with a digest over every value,
    /// and tables whose names differ. All other tables that exist on both sides
    /// are only counted.
    #[schemars(length(min = 1))]
    pub tables: Vec<ComparedTable>,
    /// `schema.table` of tables in PostgreSQL that are not counted: those
    /// that DMS does not replicate, or only in part.
    #[serde(default)]
    pub except: Vec<String>,
    /// Time limit for each side; 5m by default.
    #[serde(default)]
    pub timeout: Option<Duration>,
}

/// An application on its hosts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Application {
    /// Name: lowercase letters, digits and hyphens.
    pub name: String,
    /// Hosts on which it runs.
    pub hosts: Hosts,
    /// The one host that starts first on PostgreSQL and must be healthy
    /// before the others start.
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
    /// Processes that belong to no unit, by their names in the agent's policy.
    /// They are terminated and not started again.
    #[serde(default)]
    pub processes: Vec<String>,
    /// Time limit for stopping or starting one unit; 60s by default.
    #[serde(default)]
    pub unit_timeout: Option<Duration>,
    /// Also disable the units, so that a reboot does not start them meanwhile.
    #[serde(default)]
    pub disable_units: bool,
    /// Files or links that are switched from Oracle to PostgreSQL.
    #[serde(default)]
    pub config: Vec<SwitchConfig>,
    /// Health checks: before the cutover, after the switch and after a rollback.
    #[serde(default)]
    pub health: Health,
    /// Start it on PostgreSQL. `false` for applications that are retired with Oracle.
    #[serde(default = "enabled")]
    pub start: bool,
}
