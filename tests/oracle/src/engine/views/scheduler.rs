//! Jobs in the dictionary. DBMS_JOB does not exist here: its views are empty.

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
        "SCHEDULER_JOBS" => (JOBS, all(st, &visible)),
        "SCHEDULER_RUNNING_JOBS" => (RUNNING, running(st, &visible)),
        "JOBS" => (OLD_JOBS, Vec::new()),
        "JOBS_RUNNING" => (OLD_RUNNING, Vec::new()),
        _ => return None,
    };
    Some(View { cols, rows })
}

fn all(st: &State, visible: &dyn Fn(&str) -> bool) -> Vec<Vec<Datum>> {
    st.jobs
        .iter()
        .filter(|((owner, _), _)| visible(owner))
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
        .filter(|((owner, _), _)| visible(owner))
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
