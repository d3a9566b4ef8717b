//! DBMS_SCHEDULER jobs: the calendar, the job queue, the slaves.
//!
//! A job runs in a session of its own (`oracle@host (J001)`) on a thread of
//! its own. `JOB_QUEUE_PROCESSES=0` keeps jobs from starting and leaves the
//! running ones alone, as in Oracle.

use super::call::Call;
use super::database::Core;
use super::datum::Datum;
use super::dbms_job::{self, Old};
use super::errors::{ora, unsupported};
use super::sessions::{Life, SessionKey, SessionState};
use super::state::State;
use super::{clock, datum};
use crate::api::OraError;
use std::sync::Arc;
use std::time::{Duration, Instant};

/// How often the queue looks for due jobs: a tenth of the shortest interval
/// that a calendar can name.
const LOOK: Duration = Duration::from_millis(100);
/// Most jobs that run at once on an instance, whatever the parameter says.
const MOST_SLAVES: i64 = 50;

/// Procedures of DBMS_SCHEDULER that can be called.
pub const PROCEDURES: [&str; 6] = [
    "DBMS_SCHEDULER.CREATE_JOB",
    "DBMS_SCHEDULER.DROP_JOB",
    "DBMS_SCHEDULER.ENABLE",
    "DBMS_SCHEDULER.DISABLE",
    "DBMS_SCHEDULER.RUN_JOB",
    "DBMS_SCHEDULER.STOP_JOB",
];

#[derive(Debug)]
pub struct Job {
    /// JOB_ACTION: a PL/SQL block.
    pub action: String,
    pub repeat: Option<String>,
    /// The interval it means.
    pub every: Option<Duration>,
    pub enabled: bool,
    /// NEXT_RUN_DATE, milliseconds since 1970.
    pub next_run_ms: i64,
    /// The session it runs in.
    pub running: Option<SessionKey>,
    /// When the run began, milliseconds since 1970.
    pub started_ms: i64,
    pub runs: u64,
    pub failures: u64,
    pub last_error: Option<String>,
    /// What DBMS_JOB knows of it, if it was made there.
    pub old: Option<Old>,
    /// Start at once, whatever the schedule says.
    forced: bool,
}

impl Job {
    /// A job of DBMS_JOB, due at that time.
    pub fn of_old(action: String, next_run_ms: i64, old: Old) -> Self {
        Self {
            action,
            repeat: old.interval.clone(),
            every: None,
            enabled: true,
            next_run_ms,
            running: None,
            started_ms: 0,
            runs: 0,
            failures: 0,
            last_error: None,
            old: Some(old),
            forced: false,
        }
    }

    pub fn state(&self) -> &'static str {
        match (self.running, self.enabled) {
            (Some(_), _) => "RUNNING",
            (None, true) => "SCHEDULED",
            (None, false) if self.every.is_none() && self.runs > 0 => "SUCCEEDED",
            (None, false) => "DISABLED",
        }
    }
}

/// The interval of `FREQ=…;INTERVAL=n`.
fn interval(calendar: &str) -> Option<Duration> {
    let mut unit = None;
    let mut times = 1_u64;
    for part in calendar
        .to_uppercase()
        .split(';')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (name, value) = part.split_once('=')?;
        match (name.trim(), value.trim()) {
            ("FREQ", "SECONDLY") => unit = Some(1),
            ("FREQ", "MINUTELY") => unit = Some(60),
            ("FREQ", "HOURLY") => unit = Some(3_600),
            ("FREQ", "DAILY") => unit = Some(86_400),
            ("INTERVAL", value) => times = value.parse().ok().filter(|times| *times > 0)?,
            _ => return None,
        }
    }
    Some(Duration::from_secs(unit? * times))
}

/// The parameters of CREATE_JOB by position.
const CREATE_JOB: &[&str] = &[
    "JOB_NAME",
    "JOB_TYPE",
    "JOB_ACTION",
    "NUMBER_OF_ARGUMENTS",
    "START_DATE",
    "REPEAT_INTERVAL",
    "END_DATE",
    "JOB_CLASS",
    "ENABLED",
    "AUTO_DROP",
    "COMMENTS",
];

/// Runs a DBMS_SCHEDULER procedure.
pub fn procedure(
    call: &mut Call<'_>,
    name: &str,
    values: &[(Option<String>, Datum)],
) -> Result<(), OraError> {
    // These procedures commit, like DDL.
    call.commit();
    let order: &[&str] = if name.ends_with("CREATE_JOB") {
        CREATE_JOB
    } else {
        &["JOB_NAME", "FORCE"]
    };
    known_arguments(name, order, values)?;
    let get = |wanted: &str| {
        values
            .iter()
            .enumerate()
            .find(|(at, (name, _))| match name {
                Some(name) if name == "NAME" => wanted == "JOB_NAME",
                Some(name) => name == wanted,
                None => order.get(*at) == Some(&wanted),
            })
            .and_then(|(_, (_, value))| value.string())
    };
    let full = get("JOB_NAME").ok_or_else(|| ora(27451, "JOB_NAME cannot be NULL"))?;
    let user = call.st.acting_user(call.key);
    let key = split(&full, &user);
    if name.ends_with("CREATE_JOB") {
        return create(call, key, &get);
    }
    if key.0 != user {
        call.st.require(call.key, "MANAGE SCHEDULER")?;
    }
    let force = get("FORCE").is_some_and(|force| force == "TRUE");
    let unknown = || ora(27475, format!("unknown job \"{}\".\"{}\"", key.0, key.1));
    let running = || ora(27478, format!("job \"{}\".\"{}\" is running", key.0, key.1));
    let now = clock::epoch_ms();
    let apart = call.st.environment.old_jobs_apart;
    let job = call.st.jobs.get_mut(&key);
    let job = job
        .filter(|job| job.old.is_none() || !apart)
        .ok_or_else(unknown)?;
    match name {
        "DBMS_SCHEDULER.ENABLE" => {
            job.enabled = true;
            job.next_run_ms = now;
        }
        "DBMS_SCHEDULER.DISABLE" => {
            if job.running.is_some() && !force {
                return Err(running());
            }
            job.enabled = false;
        }
        "DBMS_SCHEDULER.RUN_JOB" => job.forced = true,
        "DBMS_SCHEDULER.STOP_JOB" => return stop_job(call, &key),
        _ => {
            if job.running.is_some() && !force {
                return Err(running());
            }
            if job.running.is_some() {
                stop_job(call, &key)?;
            }
            call.st.jobs.remove(&key);
        }
    }
    Ok(())
}

/// PLS-00306 for an argument that the procedure does not have; what the queue
/// would not heed is refused.
fn known_arguments(
    procedure: &str,
    order: &[&str],
    values: &[(Option<String>, Datum)],
) -> Result<(), OraError> {
    for (at, (name, value)) in values.iter().enumerate() {
        let name = match name.as_deref() {
            Some("NAME") => "JOB_NAME",
            Some(name) => name,
            None => order.get(at).copied().unwrap_or_default(),
        };
        if !order.contains(&name) {
            let text =
                format!("PLS-00306: wrong number or types of arguments in call to '{procedure}'");
            return Err(ora(6550, text));
        }
        let idle = match name {
            "START_DATE" | "END_DATE" => value.is_null(),
            "NUMBER_OF_ARGUMENTS" => value.is_null() || value.string().as_deref() == Some("0"),
            "JOB_CLASS" => value
                .string()
                .is_none_or(|class| class == "DEFAULT_JOB_CLASS"),
            _ => true,
        };
        if !idle {
            return Err(unsupported(format!("{name} of {procedure}")));
        }
    }
    Ok(())
}

fn split(full: &str, user: &str) -> (String, String) {
    let upper = full.replace('"', "").to_uppercase();
    match upper.split_once('.') {
        Some((owner, name)) => (owner.to_owned(), name.to_owned()),
        None => (user.to_owned(), upper),
    }
}

fn create(
    call: &mut Call<'_>,
    key: (String, String),
    get: &dyn Fn(&str) -> Option<String>,
) -> Result<(), OraError> {
    call.st.require(call.key, "CREATE JOB")?;
    if key.0 != call.st.acting_user(call.key) {
        call.st.require(call.key, "CREATE ANY JOB")?;
    }
    if call.st.jobs.contains_key(&key) {
        return Err(ora(
            27477,
            format!("\"{}\".\"{}\" already exists", key.0, key.1),
        ));
    }
    if get("JOB_TYPE").is_none_or(|kind| !kind.eq_ignore_ascii_case("PLSQL_BLOCK")) {
        return Err(ora(27452, "job type must be PLSQL_BLOCK in this simulator"));
    }
    let action = get("JOB_ACTION").ok_or_else(|| ora(27451, "JOB_ACTION cannot be NULL"))?;
    let repeat = get("REPEAT_INTERVAL");
    let every = match &repeat {
        Some(calendar) => Some(interval(calendar).ok_or_else(|| {
            ora(
                27412,
                format!("repeat interval or calendar contains invalid identifier: {calendar}"),
            )
        })?),
        None => None,
    };
    // The block is checked when the job is made: a job that never runs helps nobody.
    call.st.prepared(&action)?;
    let job = Job {
        action,
        repeat,
        every,
        enabled: get("ENABLED").is_some_and(|enabled| enabled == "TRUE"),
        next_run_ms: clock::epoch_ms(),
        running: None,
        started_ms: 0,
        runs: 0,
        failures: 0,
        last_error: None,
        old: None,
        forced: false,
    };
    call.st.jobs.insert(key, job);
    Ok(())
}

fn stop_job(call: &mut Call<'_>, key: &(String, String)) -> Result<(), OraError> {
    let running = call.st.jobs.get(key).and_then(|job| job.running);
    let Some(slave) = running else {
        return Err(ora(
            27366,
            format!("job \"{}\".\"{}\" is not running", key.0, key.1),
        ));
    };
    if let Some(session) = call.st.sessions.get_mut(&slave) {
        session.life = Life::Killed;
    }
    call.core.changed.notify_all();
    let until = Instant::now() + super::kill::PATIENCE;
    while call.st.sessions.contains_key(&slave) && Instant::now() < until {
        call.pause(until)?;
    }
    Ok(())
}

/// Starts the job queue; it ends with the engine.
pub fn start_queue(core: &Arc<Core>) {
    let weak = Arc::downgrade(core);
    std::thread::spawn(move || {
        while let Some(core) = weak.upgrade() {
            start_due(&core);
            drop(core);
            std::thread::sleep(LOOK);
        }
    });
}

fn start_due(core: &Arc<Core>) {
    let mut state = core.state.lock();
    let now = clock::epoch_ms();
    let due: Vec<(String, String)> = state
        .jobs
        .iter()
        .filter(|(_, job)| {
            job.running.is_none()
                && (job.forced || job.enabled && job.next_run_ms <= now)
                && state.has_job(None, job)
        })
        .map(|(key, _)| key.clone())
        .collect();
    for key in due {
        // Each job has its home instance, so that both have slaves.
        let Some(inst) = state.free_queue() else {
            return;
        };
        start(core, &mut state, inst, key);
    }
}

impl State {
    /// An instance whose job queue may start another slave.
    fn free_queue(&self) -> Option<u32> {
        (1..=self.instances.len() as u32)
            .filter(|inst| {
                let allowed = self
                    .parameters
                    .integer(*inst, "job_queue_processes")
                    .min(MOST_SLAVES);
                self.slaves(*inst) < allowed
            })
            .min_by_key(|inst| self.slaves(*inst))
    }

    fn slaves(&self, inst: u32) -> i64 {
        let slaves = self
            .sessions
            .iter()
            .filter(|(key, s)| key.inst == inst && s.job.is_some());
        slaves.count() as i64
    }
}

fn start(core: &Arc<Core>, state: &mut State, inst: u32, name: (String, String)) {
    let number = state.slaves(inst);
    let host = state.instance(inst).host.clone();
    let mut session =
        SessionState::of_server(&host, &format!("J{number:03}"), Some(name.0.as_str()));
    session.module = Some("DBMS_SCHEDULER".to_owned());
    session.action = Some(name.1.clone());
    session.job = Some(name.clone());
    session.in_call = true;
    let key = state.add_session(inst, session);
    let Some(job) = state.jobs.get_mut(&name) else {
        return;
    };
    job.running = Some(key);
    job.forced = false;
    job.started_ms = clock::epoch_ms();
    let action = job.action.clone();
    let core = Arc::clone(core);
    std::thread::spawn(move || {
        let state = core.state.lock();
        let mut call = Call::new(&core, state, key);
        let next = dbms_job::next_date(&mut call, &name);
        let result = call.execute(&action, &[]);
        if result.is_ok() {
            call.commit();
        } else {
            call.rollback();
        }
        finished(&mut call.st, &name, key, result.err(), next);
        call.finish();
    });
}

fn finished(
    state: &mut State,
    name: &(String, String),
    key: SessionKey,
    error: Option<OraError>,
    next: Option<i64>,
) {
    let mut goes_on = true;
    if let Some(job) = state.jobs.get_mut(name) {
        job.running = None;
        job.runs += 1;
        job.failures += u64::from(error.is_some());
        match job.every {
            Some(every) => {
                let every = i64::try_from(every.as_millis()).unwrap_or(i64::MAX / 2);
                job.next_run_ms = (job.started_ms + every).max(clock::epoch_ms());
            }
            None if job.old.is_some() => {
                goes_on = dbms_job::goes_on(job, error.is_some(), next);
            }
            None => job.enabled = false,
        }
        if let Some(error) = error {
            let line = format!("Job {}.{} failed: {error}", name.0, name.1);
            job.last_error = Some(error.to_string());
            state.alert(line);
        }
    }
    if !goes_on {
        state.jobs.remove(name);
    }
    // The slave's session ends with its run.
    state.rollback_to(key, None);
    state.sessions.remove(&key);
}

/// Milliseconds since 1970 as a timestamp.
pub fn at(ms: i64) -> Datum {
    datum::from_nanos(i128::from(ms) * 1_000_000).map_or(Datum::Null, Datum::Timestamp)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn calendars_become_intervals() {
        let cases = [
            ("FREQ=SECONDLY;INTERVAL=2", Some(2)),
            ("freq=minutely", Some(60)),
            ("FREQ=YEARLY", None),
            ("FREQ=SECONDLY;BYHOUR=3", None),
            ("FREQ=SECONDLY;INTERVAL=0", None),
        ];
        for (calendar, seconds) in cases {
            assert_eq!(
                interval(calendar),
                seconds.map(Duration::from_secs),
                "{calendar}"
            );
        }
    }
}
