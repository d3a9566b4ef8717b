//! Jobs in the dictionary. Those of DBMS_JOB are in their own views and, as
//! since release 19c, in the scheduler's, unless the range is older.

use super::super::clock;
use super::super::datum::Datum;
use super::super::jobs;
use super::super::sessions::SessionKey;
use super::super::state::State;
use super::{D, N, T, View, v};
use crate::api::Kind;

const JOBS: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("JOB_NAME", v(128)),
    ("JOB_STYLE", v(17)),
    ("JOB_TYPE", v(16)),
    ("JOB_ACTION", v(4000)),
    ("SCHEDULE_TYPE", v(12)),
    ("REPEAT_INTERVAL", v(4000)),
    ("ENABLED", v(5)),
    ("STATE", v(20)),
    ("RUN_COUNT", N),
    ("FAILURE_COUNT", N),
    ("LAST_START_DATE", T),
    ("NEXT_RUN_DATE", T),
    ("INSTANCE_ID", N),
];
const RUNNING: &[(&str, Kind)] = &[
    ("OWNER", v(128)),
    ("JOB_NAME", v(128)),
    ("JOB_SUBNAME", v(128)),
    ("JOB_STYLE", v(17)),
    ("DETACHED", v(5)),
    ("SESSION_ID", N),
    ("SLAVE_PROCESS_ID", N),
    ("SLAVE_OS_PROCESS_ID", v(12)),
    ("RUNNING_INSTANCE", N),
    ("ELAPSED_TIME", v(30)),
];
const OLD_JOBS: &[(&str, Kind)] = &[
    ("JOB", N),
    ("LOG_USER", v(128)),
    ("SCHEMA_USER", v(128)),
    ("NEXT_DATE", D),
    ("BROKEN", v(1)),
    ("INTERVAL", v(200)),
    ("FAILURES", N),
    ("WHAT", v(4000)),
    ("INSTANCE", N),
];
const OLD_RUNNING: &[(&str, Kind)] = &[
    ("SID", N),
    ("JOB", N),
    ("FAILURES", N),
    ("LAST_DATE", D),
    ("THIS_DATE", D),
    ("INSTANCE", N),
];

/// The view of that name.
pub fn make(st: &State, key: SessionKey, name: &str) -> Option<View> {
    let user = st.acting_user(key);
    let visible = |owner: &str| name.starts_with("DBA_") || owner == user;
    let rest = ["DBA_", "ALL_", "USER_"]
        .iter()
        .find_map(|prefix| name.strip_prefix(prefix))?;
    let (cols, rows) = match rest {
        "SCHEDULER_JOBS" => (JOBS, all(st, key, &visible)),
        "SCHEDULER_RUNNING_JOBS" => (RUNNING, running(st, &visible)),
        "JOBS" => (OLD_JOBS, old(st, key, &visible)),
        "JOBS_RUNNING" => (OLD_RUNNING, old_running(st, &visible)),
        _ => return None,
    };
    Some(View { cols, rows })
}

fn seconds(ms: i64) -> Datum {
    match jobs::at(ms) {
        Datum::Timestamp(at) => Datum::Date(at.with().subsec_nanosecond(0).build().unwrap_or(at)),
        other => other,
    }
}

fn old(st: &State, key: SessionKey, visible: &dyn Fn(&str) -> bool) -> Vec<Vec<Datum>> {
    let mut rows = Vec::new();
    for ((owner, _), job) in st.jobs.iter().filter(|((owner, _), _)| visible(owner)) {
        let Some(old) = job.old.as_ref().filter(|_| st.has_job(Some(key), job)) else {
            continue;
        };
        rows.push(vec![
            Datum::int(old.number),
            Datum::text(owner.as_str()),
            Datum::text(owner.as_str()),
            seconds(job.next_run_ms),
            Datum::text(if old.broken { "Y" } else { "N" }),
            Datum::text(old.interval.as_deref().unwrap_or("null")),
            Datum::int(old.failures),
            Datum::text(old.what.as_str()),
            Datum::int(0),
        ]);
    }
    rows
}

fn old_running(st: &State, visible: &dyn Fn(&str) -> bool) -> Vec<Vec<Datum>> {
    let all = st.jobs.iter().filter(|((owner, _), _)| visible(owner));
    let running = all.filter_map(|(_, job)| {
        let (old, key) = (job.old.as_ref()?, job.running?);
        Some(vec![
            Datum::int(key.sid),
            Datum::int(old.number),
            Datum::int(old.failures),
            Datum::Null,
            seconds(job.started_ms),
            Datum::int(key.inst),
        ])
    });
    running.collect()
}

fn all(st: &State, key: SessionKey, visible: &dyn Fn(&str) -> bool) -> Vec<Vec<Datum>> {
    st.jobs
        .iter()
        .filter(|((owner, _), job)| visible(owner) && st.has_job(Some(key), job))
        .filter(|(_, job)| st.is_scheduled(job))
        .map(|((owner, name), job)| {
            vec![
                Datum::text(owner.as_str()),
                Datum::text(name.as_str()),
                Datum::text("REGULAR"),
                Datum::text("PLSQL_BLOCK"),
                Datum::text(job.action.as_str()),
                Datum::text(if job.every.is_some() {
                    "CALENDAR"
                } else {
                    "ONCE"
                }),
                Datum::opt(job.repeat.as_deref()),
                Datum::text(if job.enabled { "TRUE" } else { "FALSE" }),
                Datum::text(job.state()),
                Datum::int(job.runs),
                Datum::int(job.failures),
                if job.started_ms > 0 {
                    jobs::at(job.started_ms)
                } else {
                    Datum::Null
                },
                if job.enabled {
                    jobs::at(job.next_run_ms)
                } else {
                    Datum::Null
                },
                Datum::Null,
            ]
        })
        .collect()
}

fn running(st: &State, visible: &dyn Fn(&str) -> bool) -> Vec<Vec<Datum>> {
    let now = clock::epoch_ms();
    st.jobs
        .iter()
        .filter(|((owner, _), job)| visible(owner) && st.is_scheduled(job))
        .filter_map(|((owner, name), job)| {
            let key = job.running?;
            let pid = st.session(key).map_or(0, |session| session.pid);
            Some(vec![
                Datum::text(owner.as_str()),
                Datum::text(name.as_str()),
                Datum::Null,
                Datum::text("REGULAR"),
                Datum::text("FALSE"),
                Datum::int(key.sid),
                Datum::int(pid),
                Datum::text(pid.to_string()),
                Datum::int(key.inst),
                Datum::opt(Datum::Interval((now - job.started_ms) * 1_000_000).string()),
            ])
        })
        .collect()
}
