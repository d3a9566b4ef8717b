//! Parameters that several steps of a cutover share.

use crate::catalogue as c;
use crate::duration::Duration;
use crate::source::cutover::Cutover;

/// Waiting for markers and for states of DMS tasks. A resumed or started
/// task needs minutes on a small replication instance.
const DMS: Duration = Duration::from_secs(300);

pub(super) fn canary(source: &Cutover, table: &Option<String>) -> Option<String> {
    source.dms.reverse.as_ref().and(table.clone())
}

pub(super) fn control_schema(source: &Cutover) -> String {
    source
        .postgres
        .control_schema
        .clone()
        .unwrap_or_else(c::defaults::control_schema)
}

pub(super) fn spare(source: &Cutover) -> c::Spare {
    c::Spare {
        users: source.oracle.dms_users.clone(),
        machines: source.oracle.dms_machines.clone(),
    }
}

pub(super) fn stable_secs(source: &Cutover) -> u64 {
    source
        .oracle
        .sessions
        .stable
        .map_or(c::defaults::stable_secs(), Duration::secs)
}

pub(super) fn fence(source: &Cutover) -> c::OracleFence {
    c::OracleFence {
        resource: source.oracle.resource.clone(),
        spare: spare(source),
        keep: source.oracle.dms_listener.iter().cloned().collect(),
        accounts: source.oracle.accounts.clone(),
        jobs_off: source.oracle.jobs.disable,
        window_secs: stable_secs(source),
    }
}

pub(super) fn dms_secs(source: &Cutover) -> u64 {
    source.dms.timeout.unwrap_or(DMS).secs()
}

pub(super) fn analyze(source: &Cutover, missing_only: bool) -> c::PostgresAnalyze {
    c::PostgresAnalyze {
        resource: source.postgres.resource.clone(),
        schemas: source.postgres.schemas.clone(),
        missing_only,
    }
}

pub(super) fn postgres_jobs(source: &Cutover) -> c::PostgresJobs {
    c::PostgresJobs {
        resource: source.postgres.resource.clone(),
    }
}

pub(super) fn roles(source: &Cutover) -> c::PostgresRoles {
    c::PostgresRoles {
        resource: source.postgres.resource.clone(),
        roles: source.postgres.roles.clone(),
    }
}

pub(super) fn forward_task(source: &Cutover) -> c::DmsTask {
    c::DmsTask {
        resource: source.dms.resource.clone(),
        task: source.dms.task.clone(),
        reverse: None,
        timeout_secs: dms_secs(source),
    }
}

pub(super) fn connections(source: &Cutover, endpoints: &[&String]) -> c::DmsConnection {
    c::DmsConnection {
        resource: source.dms.resource.clone(),
        instance: source.dms.instance.clone(),
        endpoints: endpoints.iter().map(|&arn| arn.clone()).collect(),
        timeout_secs: dms_secs(source),
    }
}
