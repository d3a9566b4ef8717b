//! DBMS_JOB, the jobs of before DBMS_SCHEDULER.
//!
//! As since release 19c such a job is a scheduler job (`DBMS_JOB$_n`) and runs
//! from the same queue. Unlike one it belongs to the transaction that has
//! submitted it: it runs once that commits, and is gone if it rolls back.
//! (PL/SQL Packages and Types Reference, DBMS_JOB.) Of its procedures SUBMIT,
//! ISUBMIT, REMOVE and BROKEN are here; the last two work at once.

use super::call::Call;
use super::clock;
use super::datum::Datum;
use super::errors::{Stop, ora};
use super::jobs::Job;
use super::plsql::Argument;
use super::sessions::SessionKey;
use super::state::State;
use super::txn::TxnId;
use crate::api::{OraError, Reply};
use sqlparser::ast::{Expr, Value};

/// The procedure with an OUT parameter.
pub const SUBMIT: &str = "DBMS_JOB.SUBMIT";

/// Procedures of DBMS_JOB that can be called.
pub const PROCEDURES: [&str; 4] = [
    SUBMIT,
    "DBMS_JOB.ISUBMIT",
    "DBMS_JOB.REMOVE",
    "DBMS_JOB.BROKEN",
];

/// After so many failures in a row a job is broken.
const MOST_FAILURES: u64 = 16;
/// A failed job is tried again after this, then after twice as long each time.
const RETRY_MS: i64 = 60_000;

/// What DBMS_JOB knows of a job besides.
#[derive(Debug)]
pub struct Old {
    pub number: i64,
    pub what: String,
    /// INTERVAL: the expression that gives the next date.
    pub interval: Option<String>,
    /// BROKEN: never run.
    pub broken: bool,
    /// FAILURES since the last success.
    pub failures: u64,
    /// The transaction that submitted it.
    submitted_in: TxnId,
}

type Values = [(Option<String>, Datum)];

fn value<'v>(values: &'v Values, order: &[&str], wanted: &str) -> Option<&'v Datum> {
    let mut all = values.iter().enumerate();
    let found = all.find(|(at, (name, _))| match name {
        Some(name) => name == wanted,
        None => order.get(*at) == Some(&wanted),
    });
    found.map(|(_, (_, value))| value)
}

/// The variable that SUBMIT's first parameter is.
///
/// # Errors
/// PLS-00363 where it is none.
pub fn target(arguments: &[Argument]) -> Result<String, OraError> {
    let named = |argument: &&Argument| argument.name.as_deref() == Some("JOB");
    let argument = arguments.iter().find(named).or(arguments.first());
    match argument.map(|argument| &argument.value) {
        Some(Expr::Identifier(name)) => Ok(super::exec::upper(name)),
        Some(Expr::Value(literal)) => match &literal.value {
            Value::Placeholder(name) => Ok(name.clone()),
            _ => Err(no_target()),
        },
        _ => Err(no_target()),
    }
}

fn no_target() -> OraError {
    ora(
        6550,
        "PLS-00363: expression cannot be used as an assignment target",
    )
}

/// DBMS_JOB.SUBMIT: the new job's number.
pub fn submit(call: &mut Call<'_>, values: &Values) -> Result<i64, OraError> {
    let numbers = call.st.jobs.values().filter_map(|job| job.old.as_ref());
    let number = numbers.map(|old| old.number).max().unwrap_or(0) + 1;
    add(call, number, values)?;
    Ok(number)
}

pub fn procedure(call: &mut Call<'_>, name: &str, values: &Values) -> Result<(), OraError> {
    let order = ["JOB", "BROKEN", "NEXT_DATE"];
    let number = value(values, &order, "JOB").ok_or_else(|| unknown(0))?;
    let number = number.integer().map_err(plain)?;
    if name == "DBMS_JOB.ISUBMIT" {
        if find(&call.st, number).is_some() {
            let text = "unique constraint (SYS.I_JOB_JOB) violated";
            return Err(ora(1, text));
        }
        return add(call, number, values);
    }
    let user = call.st.acting_user(call.key);
    let key = find(&call.st, number).filter(|(owner, _)| *owner == user);
    let key = key.ok_or_else(|| unknown(number))?;
    if name == "DBMS_JOB.REMOVE" {
        call.st.jobs.remove(&key);
        return Ok(());
    }
    let broken = value(values, &order, "BROKEN").and_then(Datum::string);
    let broken = broken.is_some_and(|text| text == "TRUE");
    let next = date(value(values, &order, "NEXT_DATE"))?;
    if let Some(job) = call.st.jobs.get_mut(&key)
        && let Some(old) = &mut job.old
    {
        old.broken = broken;
        old.failures = 0;
        job.enabled = !broken;
        job.next_run_ms = next.unwrap_or_else(clock::epoch_ms);
    }
    Ok(())
}

fn unknown(number: i64) -> OraError {
    ora(
        23421,
        format!("job number {number} is not a job in the job queue"),
    )
}

fn plain(stop: Stop) -> OraError {
    match stop {
        Stop::Ora(error) => error,
        Stop::Blocked(_) => ora(600, "internal error code"),
    }
}

fn find(st: &State, number: i64) -> Option<(String, String)> {
    let mut all = st.jobs.iter();
    let found = all.find(|(_, job)| job.old.as_ref().is_some_and(|old| old.number == number));
    found.map(|(key, _)| key.clone())
}

fn date(value: Option<&Datum>) -> Result<Option<i64>, OraError> {
    match value.filter(|value| !value.is_null()) {
        Some(value) => Ok(clock::civil_ms(value.datetime().map_err(plain)?)),
        None => Ok(None),
    }
}

fn add(call: &mut Call<'_>, number: i64, values: &Values) -> Result<(), OraError> {
    let order = ["JOB", "WHAT", "NEXT_DATE", "INTERVAL", "NO_PARSE"];
    let known = |(at, (name, _)): (usize, &(Option<String>, Datum))| match name {
        Some(name) => order.contains(&name.as_str()),
        None => at < order.len(),
    };
    if !values.iter().enumerate().all(known) {
        let text = "PLS-00306: wrong number or types of arguments in call to 'SUBMIT'";
        return Err(ora(6550, text));
    }
    let what = value(values, &order, "WHAT").and_then(Datum::string);
    let what = what.ok_or_else(|| ora(6550, "PLS-00306: WHAT is missing"))?;
    let next = date(value(values, &order, "NEXT_DATE"))?;
    let interval = value(values, &order, "INTERVAL").and_then(Datum::string);
    let interval = interval.filter(|text| !text.eq_ignore_ascii_case("null"));
    let action = format!("BEGIN {what} END;");
    call.st.prepared(&action)?;
    if let Some(text) = &interval
        && evaluated(call, text)?.is_none_or(|at| at <= clock::epoch_ms())
    {
        let text = "interval must evaluate to a time in the future";
        return Err(ora(23420, text));
    }
    let key = call.key;
    let old = Old {
        number,
        what,
        interval,
        broken: false,
        failures: 0,
        submitted_in: call.st.transaction(key),
    };
    let name = (call.st.acting_user(key), format!("DBMS_JOB$_{number}"));
    let job = Job::of_old(action, next.unwrap_or_else(clock::epoch_ms), old);
    call.st.jobs.insert(name, job);
    Ok(())
}

/// The date that an interval gives now, milliseconds since 1970.
fn evaluated(call: &mut Call<'_>, interval: &str) -> Result<Option<i64>, OraError> {
    let prepared = call.st.prepared(&format!("SELECT {interval} FROM DUAL"))?;
    let Reply::Rows { columns, rows } = call.run(&prepared, Default::default())? else {
        return Ok(None);
    };
    let (Some(column), Some(value)) = (columns.first(), rows.first().and_then(|r| r.first()))
    else {
        return Ok(None);
    };
    date(Some(&Datum::from_value(value, column.kind).map_err(plain)?))
}

/// When a job that begins now is due again; none where it is done then.
pub fn next_date(call: &mut Call<'_>, name: &(String, String)) -> Option<i64> {
    let old = call.st.jobs.get(name)?.old.as_ref()?;
    let interval = old.interval.clone()?;
    evaluated(call, &interval).ok().flatten()
}

/// What becomes of a job after a run; false where it is done.
pub fn goes_on(job: &mut Job, failed: bool, next: Option<i64>) -> bool {
    let Some(old) = &mut job.old else {
        return true;
    };
    if failed {
        old.failures += 1;
        old.broken = old.failures >= MOST_FAILURES;
        job.enabled = !old.broken;
        job.next_run_ms = clock::epoch_ms() + (RETRY_MS << old.failures.min(20));
        return true;
    }
    old.failures = 0;
    job.next_run_ms = next.unwrap_or_default();
    next.is_some()
}

impl State {
    /// Whether it is a job of the scheduler.
    pub fn is_scheduled(&self, job: &Job) -> bool {
        job.old.is_none() || !self.environment.old_jobs_apart
    }

    /// Whether a session sees a job: its transaction has committed, or is the
    /// session's own.
    pub fn has_job(&self, key: Option<SessionKey>, job: &Job) -> bool {
        let Some(old) = &job.old else {
            return true;
        };
        let own = key.and_then(|key| self.session(key)).and_then(|s| s.txn);
        own == Some(old.submitted_in) || !self.transactions.open.contains_key(&old.submitted_in)
    }

    /// Forgets what a transaction that rolls back had submitted.
    pub fn forget_jobs_of(&mut self, id: TxnId) {
        let of = |job: &Job| job.old.as_ref().map(|old| old.submitted_in);
        self.jobs.retain(|_, job| of(job) != Some(id));
    }
}
