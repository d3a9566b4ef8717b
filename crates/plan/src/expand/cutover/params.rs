//! Parameters that several steps of a cutover share.

use crate::catalogue as c;
use crate::duration::Duration;
use crate::source::cutover::Cutover;
use std::collections::BTreeSet;

/// Default wait for markers and for states of DMS tasks. Starting or resuming a
/// task takes minutes on a small replication instance.
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

pub(super) fn exempt(source: &Cutover) -> c::ExemptSessions {
    c::ExemptSessions {
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
        exempt: exempt(source),
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

/// Pairs of schemas with the same tables: those of compared tables, those with
/// equal names, or the only schema on each side.
pub(super) fn mapped_schemas(source: &Cutover) -> Vec<c::MappedSchema> {
    let (theirs, ours) = (&source.oracle.schemas, &source.postgres.schemas);
    let mut mapped = BTreeSet::new();
    for schema in ours {
        let named = source.compare.tables.iter().filter_map(|table| {
            let (owner, _) = table.oracle.split_once('.')?;
            let (of, _) = table.postgres.split_once('.')?;
            (of == schema).then_some(owner)
        });
        let alike = theirs
            .iter()
            .map(String::as_str)
            .filter(|owner| *owner == schema || owner.to_lowercase() == *schema);
        let before = mapped.len();
        mapped.extend(named.chain(alike).map(|owner| (owner, schema.as_str())));
        if let ([only], true) = (theirs.as_slice(), ours.len() == 1 && mapped.len() == before) {
            mapped.insert((only.as_str(), schema.as_str()));
        }
    }
    let pair = |(oracle, postgres): (&str, &str)| c::MappedSchema {
        oracle: oracle.to_owned(),
        postgres: postgres.to_owned(),
    };
    mapped.into_iter().map(pair).collect()
}

pub(super) fn roles(source: &Cutover) -> c::PostgresRoles {
    c::PostgresRoles {
        resource: source.postgres.resource.clone(),
        roles: source.postgres.roles.clone(),
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
