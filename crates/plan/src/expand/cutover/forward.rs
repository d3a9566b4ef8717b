//! The forward phases, in the order of the runbook.

use super::super::step;
use super::params::{
    analyze, canary, connections, control_schema, dms_secs, exempt, fence, mapped_schemas, roles,
    stable_secs,
};
use super::{AWS, Draft, LEAD, ORACLE, POSTGRES, applications, opening};
use crate::catalogue as c;
use crate::duration::Duration;
use crate::model::Step;
use crate::source::cutover::Cutover;
use serde_json::Value;

/// Default limit for comparing rows; it counts towards the outage, so bulk
/// comparison should take place before it.
pub(super) const COMPARE: Duration = Duration::from_secs(300);

/// Default limit for collecting statistics before the outage.
const ANALYZE: Duration = Duration::from_secs(600);

/// Limit for collecting missing statistics during the outage.
const ANALYZE_MISSING: Duration = Duration::from_secs(120);

/// Limit for finding the maximum of every column that a sequence feeds.
pub(super) const SEQUENCES: Duration = Duration::from_secs(120);

/// Number of apply exceptions of the forward task before the run.
const APPLY_EXCEPTIONS: &str = "${postgres-ready.apply_exceptions}";

pub(super) fn phases(draft: &mut Draft<'_>) {
    preflight(draft);
    prepare(draft);
    draft.add("stop-applications", "", &["1"], applications::stop(draft));
    close_oracle(draft);
    final_changes(draft);
    verify_rows(draft);
    stop_dms(draft);
    if draft.source.dms.reverse.is_some() {
        reverse_task(draft);
    }
    prepare_postgres(draft);
    monitoring(draft);
    opening::open_postgres(draft);
    let switched = applications::switch(draft);
    draft.add("start-applications", "", &["10", "10.1"], switched);
    let started = applications::start(draft);
    draft.add("start-applications", "everywhere", &["10", "10.1"], started);
    let mut verified = applications::verify(draft);
    verified.extend(opening::unused(draft));
    draft.add("start-applications", "verified", &["10.1"], verified);
    opening::keep_closed(draft);
}

fn preflight(draft: &mut Draft<'_>) {
    let source = draft.source;
    let oracle = c::OracleReady {
        resource: source.oracle.resource.clone(),
        marker_table: source.oracle.marker_table.clone(),
        canary_table: canary(source, &source.oracle.canary_table),
        dms_listener: source.oracle.dms_listener.clone(),
        exempt: exempt(source),
        oldest_transaction_secs: source
            .oracle
            .oldest_transaction
            .map_or(c::defaults::transaction_secs(), Duration::secs),
        durable: source.oracle.jobs.disable,
        accounts: source.oracle.accounts.clone(),
        restrict_logins: source.oracle.restrict_logins,
    };
    let postgres = c::PostgresReady {
        resource: source.postgres.resource.clone(),
        marker_table: source.postgres.marker_table.clone(),
        canary_table: canary(source, &source.postgres.canary_table),
        control_schema: control_schema(source),
        schemas: source.postgres.schemas.clone(),
        compared: compared(source),
        sequences: source
            .postgres
            .sequences
            .iter()
            .map(|sequence| sequence.column.clone())
            .collect(),
        reverse: source.dms.reverse.as_ref().map(|reverse| c::ReverseTask {
            table_mappings: reverse.table_mappings.clone(),
            settings: reverse.settings.clone().unwrap_or(Value::Null),
            accept: reverse.accept.clone(),
        }),
    };
    let endpoints = [&source.dms.source_endpoint, &source.dms.target_endpoint];
    let task = c::DmsTaskReady {
        resource: source.dms.resource.clone(),
        task: source.dms.task.clone(),
        marker_table: Some(source.oracle.marker_table.clone()),
        canary_table: canary(source, &source.oracle.canary_table),
        control_schema: Some(control_schema(source)),
    };
    let mut steps = vec![
        step("oracle-ready", LEAD, &oracle),
        step("postgres-ready", POSTGRES, &postgres),
        step("forward-ready", AWS, &task),
        step("forward-connections", AWS, &connections(source, &endpoints)),
    ];
    steps.extend(applications::health(draft));
    // These steps change nothing, so after a failure there is nothing to roll back.
    let steps = steps.into_iter().map(Step::proof).collect();
    draft.add("preflight", "", &[], steps);
    // A rollback resumes the forward task from its checkpoint, which the
    // Oracle host doesn't know by itself.
    let logs = c::OracleLogs {
        resource: source.oracle.resource.clone(),
        checkpoint: Some("${forward-ready.checkpoint}".to_owned()),
    };
    let logs = step("oracle-logs", LEAD, &logs).proof();
    let (described, verified) = columns(source);
    draft.add("preflight", "logs", &[], vec![logs, described]);
    draft.add("preflight", "columns", &[], vec![verified]);
}

/// Whether the rows can be compared at all is found before anything is stopped.
fn columns(source: &Cutover) -> (Step, Step) {
    let reverse = source.dms.reverse.as_ref();
    let oracle = c::OracleColumns {
        resource: source.oracle.resource.clone(),
        tables: source.compare.tables.clone(),
        reverse: reverse.is_some(),
        schemas: reverse.map_or_else(Vec::new, |_| mapped_schemas(source)),
        table_mappings: reverse.map_or(Value::Null, |reverse| reverse.table_mappings.clone()),
        accept: reverse.map_or_else(Vec::new, |reverse| reverse.accept.clone()),
    };
    let postgres = c::PostgresColumns {
        resource: source.postgres.resource.clone(),
        tables: source.compare.tables.clone(),
        expected: "${oracle-columns.columns}".into(),
    };
    (
        step("oracle-columns", LEAD, &oracle).proof(),
        step("postgres-columns", POSTGRES, &postgres).proof(),
    )
}

/// Tables excluded from the count of all remaining tables.
fn compared(source: &Cutover) -> Vec<String> {
    let tables = source.compare.tables.iter();
    tables
        .map(|table| &table.postgres)
        .chain(&source.compare.except)
        .cloned()
        .collect()
}

/// Work that can be done before applications are stopped.
fn prepare(draft: &mut Draft<'_>) {
    let source = draft.source;
    // A rollback leaves the roles closed: PostgreSQL must not accept writes while
    // applications write to Oracle.
    let mut steps = vec![
        step(
            "postgres-roles-close",
            POSTGRES,
            &c::CloseRoles(roles(source)),
        )
        .without_undo()
        .required(),
    ];
    if source.postgres.jobs {
        let jobs = c::DisablePostgresJobs {
            resource: source.postgres.resource.clone(),
        };
        steps.push(step("postgres-jobs-disable", POSTGRES, &jobs).required());
    }
    let analyze = analyze(source, false);
    let limit = source.postgres.analyze_timeout.unwrap_or(ANALYZE).ms();
    steps.push(step("statistics", POSTGRES, &analyze).with_timeout(limit));
    let mut runbook_steps: &[&str] = &[];
    if let Some(reverse) = &source.dms.reverse {
        runbook_steps = &["8", "8.2"];
        let endpoints = [&reverse.source_endpoint, &reverse.target_endpoint];
        steps.push(step(
            "reverse-connections",
            AWS,
            &connections(source, &endpoints),
        ));
        let create = c::DmsReverseCreate {
            resource: source.dms.resource.clone(),
            identifier: reverse.identifier.clone(),
            instance: source.dms.instance.clone(),
            source_endpoint: reverse.source_endpoint.clone(),
            target_endpoint: reverse.target_endpoint.clone(),
            table_mappings: reverse.table_mappings.clone(),
            settings: reverse.settings.clone().unwrap_or(Value::Null),
            timeout_secs: dms_secs(source),
        };
        steps.push(step("reverse-create", AWS, &create).required());
    }
    draft.add("prepare", "", runbook_steps, steps);
    trial_marker(draft);
}

/// Sends a first marker on its way while there is no outage, so that a broken path
/// (the mapping, supplemental logging, a log that isn't archived) isn't found by the
/// marker that ends the night.
fn trial_marker(draft: &mut Draft<'_>) {
    let source = draft.source;
    let write = c::OracleMarker {
        resource: source.oracle.resource.clone(),
        marker_table: source.oracle.marker_table.clone(),
        tasks: vec![source.dms.task.clone()],
        timeout_secs: finalize_secs(source),
    };
    let written = step("trial-marker", LEAD, &write).proof();
    draft.add("prepare", "marker", &[], vec![written]);
    let mut marker = marker(source, "trial-marker");
    marker.trial = true;
    let arrived = step("trial-marker-await", POSTGRES, &marker).proof();
    draft.add("prepare", "arrived", &[], vec![arrived]);
}

/// Awaits the marker that the step `by` has written.
fn marker(source: &Cutover, by: &str) -> c::PostgresMarker {
    c::PostgresMarker {
        resource: source.postgres.resource.clone(),
        marker_table: source.postgres.marker_table.clone(),
        tasks: vec![source.dms.task.clone()],
        nonce: format!("${{{by}.nonce}}"),
        scn: format!("${{{by}.scn}}"),
        trial: false,
        control_schema: control_schema(source),
        apply_exceptions: APPLY_EXCEPTIONS.into(),
        timeout_secs: dms_secs(source),
    }
}

/// Limit for the checkpoint and the archiving of the log.
fn finalize_secs(source: &Cutover) -> u64 {
    source
        .oracle
        .finalize_timeout
        .map_or(c::defaults::finalize_secs(), Duration::secs)
}

/// Blocks new connections before sessions are killed; otherwise connection pools
/// reconnect as fast as their sessions are killed.
fn close_oracle(draft: &mut Draft<'_>) {
    let oracle = &draft.source.oracle;
    let optional = [(oracle.jobs.disable, "4"), (oracle.queue_monitor, "5")];
    let mut runbook_steps = vec!["3"];
    runbook_steps.extend(optional.iter().filter(|(on, _)| *on).map(|(_, step)| step));
    draft.add(
        "close-oracle",
        "",
        &runbook_steps,
        block_connections(draft.source),
    );
    let sessions = end_sessions(draft);
    draft.add("close-oracle", "sessions", &["1", "2"], sessions);
}

fn block_connections(source: &Cutover) -> Vec<Step> {
    let oracle = &source.oracle;
    let resource = || oracle.resource.clone();
    let listener = c::StopListeners(c::ListenerSelection {
        resource: resource(),
        listeners: Vec::new(),
        keep: oracle.dms_listener.iter().cloned().collect(),
        also_serves: oracle.also_serves.clone(),
    });
    let accounts = c::LockAccounts(c::OracleAccounts {
        resource: resource(),
        accounts: oracle.accounts.clone(),
    });
    let mut steps = vec![
        step("oracle-listeners-stop", ORACLE, &listener),
        step("oracle-accounts-lock", LEAD, &accounts),
    ];
    if oracle.restrict_logins {
        let logins = c::RestrictLogins {
            resource: resource(),
        };
        // A restricted session is set for each instance.
        let id = "oracle-logins-restrict";
        steps.push(step(id, ORACLE, &logins));
    }
    if oracle.queue_monitor {
        let monitor = c::DisableQueueMonitor {
            resource: resource(),
            scope: c::Scope::Memory,
        };
        let id = "oracle-queue-monitor-disable";
        steps.push(step(id, LEAD, &monitor));
    }
    // Last, because it waits for running jobs.
    if oracle.jobs.disable {
        let jobs = c::DisableOracleJobs {
            resource: resource(),
            wait_secs: oracle
                .jobs
                .wait
                .map_or(c::defaults::jobs_secs(), Duration::secs),
            stop_running: oracle.jobs.stop_running,
            scope: c::Scope::Memory,
        };
        steps.push(step("oracle-jobs-disable", LEAD, &jobs));
    }
    steps.into_iter().map(Step::required).collect()
}

/// Kills sessions until none reconnects, then arms the watch.
fn end_sessions(draft: &Draft<'_>) -> Vec<Step> {
    let source = draft.source;
    let timeout = source.oracle.sessions.timeout;
    let sessions = c::KillSessions(c::OracleSessions {
        resource: source.oracle.resource.clone(),
        exempt: exempt(source),
        stable_secs: stable_secs(source),
        timeout_secs: timeout.map_or(c::defaults::sessions_secs(), Duration::secs),
    });
    let until = if applications::any_after_open(draft) {
        "start-applications"
    } else {
        "keep-closed"
    };
    let kill = step("oracle-sessions-kill", LEAD, &sessions);
    let watch = step("fence", LEAD, &c::WatchFence(fence(source)));
    vec![kill.proof(), watch.proof().watching_until(until)]
}

/// Proves that all changes have arrived: write a marker, await it, check that
/// nothing is pending. The second marker repeats this and verifies the fence again.
fn final_changes(draft: &mut Draft<'_>) {
    let source = draft.source;
    let finalize = c::OracleFinalize {
        resource: source.oracle.resource.clone(),
        marker_table: source.oracle.marker_table.clone(),
        tasks: vec![source.dms.task.clone()],
        fence: fence(source),
        schemas: source.oracle.schemas.clone(),
        timeout_secs: finalize_secs(source),
    };
    let arrive = |id: &str, by: &str| step(id, POSTGRES, &marker(source, by)).proof();
    let runbook = &["6"];
    let first = step("finalize", LEAD, &finalize).proof();
    draft.add("final-changes", "", runbook, vec![first]);
    let arrived = arrive("marker-await", "finalize");
    draft.add("final-changes", "arrived", runbook, vec![arrived]);
    let mut verified = vec![
        step(
            "forward-drain",
            AWS,
            &c::DrainDmsTask {
                resource: source.dms.resource.clone(),
                task: source.dms.task.clone(),
                confirm_secs: source.dms.confirm.map(Duration::secs),
                timeout_secs: dms_secs(source),
            },
        )
        .proof(),
    ];
    if source.dms.second_marker {
        verified.push(step("finalize-again", LEAD, &finalize).proof());
    }
    draft.add("final-changes", "verified", runbook, verified);
    if source.dms.second_marker {
        let confirmed = arrive("marker-await-again", "finalize-again");
        draft.add("final-changes", "confirmed", runbook, vec![confirmed]);
    }
}

/// The step whose SCN marks the last change in Oracle.
pub(super) fn last_finalize(source: &Cutover) -> &'static str {
    if source.dms.second_marker {
        "finalize-again"
    } else {
        "finalize"
    }
}

fn verify_rows(draft: &mut Draft<'_>) {
    let source = draft.source;
    let limit = source.compare.timeout.unwrap_or(COMPARE).ms();
    let oracle = c::OracleRows {
        resource: source.oracle.resource.clone(),
        scn: format!("${{{}.scn}}", last_finalize(source)),
        tables: source.compare.tables.clone(),
        counted: "${postgres-ready.tables}".into(),
        schemas: mapped_schemas(source),
    };
    let postgres = c::PostgresRows {
        resource: source.postgres.resource.clone(),
        tables: source.compare.tables.clone(),
        expected: "${oracle-rows.tables}".into(),
        schemas: source.postgres.schemas.clone(),
    };
    let counted = step("oracle-rows", LEAD, &oracle).proof();
    let compared = step("postgres-rows", POSTGRES, &postgres).proof();
    draft.add("verify-rows", "", &["6"], vec![counted.with_timeout(limit)]);
    draft.add(
        "verify-rows",
        "compared",
        &["6"],
        vec![compared.with_timeout(limit)],
    );
}

/// The task kept running between the proof and its stop, so its failures are
/// checked once more.
fn stop_dms(draft: &mut Draft<'_>) {
    let source = draft.source;
    let task = c::StopDmsTask {
        resource: source.dms.resource.clone(),
        task: source.dms.task.clone(),
        known_failure: Some("${forward-ready.last_failure}".to_owned()),
        timeout_secs: dms_secs(source),
    };
    let stop = step("forward-stop", AWS, &task).required();
    draft.add("stop-dms", "", &["7"], vec![stop]);
    let drain = c::PostgresDrain {
        resource: source.postgres.resource.clone(),
        control_schema: control_schema(source),
        apply_exceptions: APPLY_EXCEPTIONS.into(),
    };
    let checked = step("drain-check", POSTGRES, &drain).proof();
    draft.add("stop-dms", "checked", &["7"], vec![checked]);
}

/// Disables Oracle's triggers before a replicated row can fire one; then proves
/// the reverse replication with a canary row.
fn reverse_task(draft: &mut Draft<'_>) {
    let source = draft.source;
    let triggers = c::DisableOracleTriggers(c::OracleTriggers {
        resource: source.oracle.resource.clone(),
        schemas: source.oracle.schemas.clone(),
    });
    let off = step("oracle-triggers-disable", LEAD, &triggers).required();
    draft.add("reverse-task", "", &["8", "8.1"], vec![off]);
    let start = c::DmsReverseStart {
        resource: source.dms.resource.clone(),
        task: "${reverse-create.task}".to_owned(),
        postgres: source.postgres.resource.clone(),
        timeout_secs: dms_secs(source),
    };
    let started = step("reverse-start", AWS, &start).required();
    draft.add("reverse-task", "started", &["8", "8.3"], vec![started]);
    let write = c::PostgresCanary {
        resource: source.postgres.resource.clone(),
        canary_table: source.postgres.canary_table.clone().unwrap_or_default(),
    };
    let written = step("canary-write", POSTGRES, &write).required();
    draft.add("reverse-task", "canary", &["8", "8.3"], vec![written]);
    let returned = c::OracleCanary {
        resource: source.oracle.resource.clone(),
        canary_table: source.oracle.canary_table.clone().unwrap_or_default(),
        nonce: "${canary-write.nonce}".to_owned(),
        timeout_secs: dms_secs(source),
    };
    let back = step("canary-await", LEAD, &returned).proof();
    draft.add("reverse-task", "returned", &["8", "8.3"], vec![back]);
}

fn prepare_postgres(draft: &mut Draft<'_>) {
    let source = draft.source;
    let triggers = c::EnablePostgresTriggers {
        resource: source.postgres.resource.clone(),
        schemas: source.postgres.schemas.clone(),
        set: source.postgres.triggers.set,
        baseline: source.postgres.triggers.baseline.clone(),
    };
    let enable = step("postgres-triggers-enable", POSTGRES, &triggers);
    let sequences = c::PostgresSequences {
        resource: source.postgres.resource.clone(),
        sequences: source.postgres.sequences.clone(),
        schemas: source.postgres.schemas.clone(),
        oracle: format!("${{{}.sequences}}", last_finalize(source)).into(),
        margin: source
            .postgres
            .sequence_margin
            .unwrap_or(c::defaults::sequence_margin()),
    };
    let align = step("sequences", POSTGRES, &sequences);
    let missing = step("missing-statistics", POSTGRES, &analyze(source, true));
    let steps = vec![
        enable.required(),
        align.required().with_timeout(SEQUENCES.ms()),
        missing.with_timeout(ANALYZE_MISSING.ms()),
    ];
    draft.add("prepare-postgres", "", &["9"], steps);
}

fn monitoring(draft: &mut Draft<'_>) {
    let alarms = c::CloudwatchAlarms {
        resource: draft.source.dms.resource.clone(),
        alarms: draft.source.alarms.clone(),
    };
    let steps: Vec<Step> = (!alarms.alarms.is_empty())
        .then(|| step("alarms", AWS, &alarms))
        .into_iter()
        .collect();
    draft.add("monitoring", "", &["10", "10.2"], steps);
}
