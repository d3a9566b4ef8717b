//! Whether the fence holds now: nothing can write to Oracle except what the
//! plan allows.
//!
//! The watch, its attestation, the finalization and the killing of sessions use
//! the same checks. Every breach is a sentence.
//!
//! Sessions that begin and end between two checks appear in
//! DBA_USERS.LAST_LOGIN, whose values are compared, not read as times. It can't
//! detect logins of SYS and of the exempt users themselves, a second login
//! within one second of another, and a session through a listener on another
//! host that ended before it was seen and was not the user's last. Where Oracle
//! doesn't record every login, [`login_times`] says so.

use super::listeners::Listeners;
use super::login_times;
use super::parameters::{Parameter, shown};
use super::session_class::{self, DbSession, SessionClass};
use crate::action::{ActionError, Context};
use crate::actions::truncate_list;
use crate::host::oracle::{OracleError, Session};
use lockstep_api::Code;
use lockstep_plan::catalogue::{ExemptSessions, OracleFence};
use std::collections::BTreeMap;

/// Transactions with their sessions. One without a session is being rolled
/// back.
const TRANSACTIONS: &str = "SELECT t.INST_ID, s.SID, s.SERIAL#, s.USERNAME, s.MACHINE, s.PROGRAM, \
     s.MODULE, s.STATUS, s.TYPE, s.SERVICE_NAME FROM GV$TRANSACTION t \
     LEFT JOIN GV$SESSION s ON s.INST_ID = t.INST_ID AND s.SADDR = t.SES_ADDR";
/// Distributed transactions that wait for their transaction coordinator.
const IN_DOUBT: &str = "SELECT LOCAL_TRAN_ID, STATE FROM DBA_2PC_PENDING ORDER BY LOCAL_TRAN_ID";
/// Running jobs of the scheduler, on any instance.
const SCHEDULED: &str = "SELECT OWNER, JOB_NAME FROM DBA_SCHEDULER_RUNNING_JOBS";
/// Running jobs of DBMS_JOB.
const OLD_JOBS: &str = "SELECT JOB FROM DBA_JOBS_RUNNING";
const ACCOUNTS: &str = "SELECT USERNAME, ACCOUNT_STATUS FROM DBA_USERS";
/// The last login of each user (since Oracle 12.1), only for comparison.
const LOGINS: &str = "SELECT USERNAME, TO_CHAR(LAST_LOGIN, 'YYYY-MM-DD HH24:MI:SS.FF3') \
     FROM DBA_USERS WHERE LAST_LOGIN IS NOT NULL";

/// The parameter that disables jobs.
pub const JOBS: Parameter = Parameter {
    name: "job_queue_processes",
};

/// A row of [`TRANSACTIONS`].
struct Transaction {
    inst_id: i64,
    session: Option<DbSession>,
}

impl oracle::RowValue for Transaction {
    fn get(row: &oracle::Row) -> oracle::Result<Self> {
        let sid: Option<i64> = row.get(1)?;
        let session = match sid {
            Some(_) => Some(<DbSession as oracle::RowValue>::get(row)?),
            None => None,
        };
        Ok(Self {
            inst_id: row.get(0)?,
            session,
        })
    }
}

/// Open transactions that could be an application's, as sentences.
///
/// Transactions of background processes are internal to Oracle. A transaction
/// of SYS that isn't Lockstep's counts: it is never killed, but the proof
/// requires that it has ended.
///
/// # Errors
/// If the query fails.
pub async fn transactions(
    session: &Session,
    exempt: &ExemptSessions,
) -> Result<Vec<String>, OracleError> {
    let open: Vec<Transaction> = session.rows(TRANSACTIONS, &[]).await?;
    let counts = |transaction: &Transaction| match &transaction.session {
        None => true,
        Some(seen) if seen.kind.as_deref() != Some("USER") => false,
        Some(seen) => matches!(
            seen.role(exempt),
            SessionClass::Application | SessionClass::Internal
        ),
    };
    let sentences = open
        .iter()
        .filter(|open| counts(open))
        .map(|open| match &open.session {
            Some(seen) => format!("a transaction is open in the session {seen}"),
            None => format!(
                "a transaction on instance {} is being rolled back",
                open.inst_id
            ),
        });
    Ok(sentences.collect())
}

/// A distributed transaction that waits for its transaction coordinator.
pub struct InDoubt {
    pub id: String,
    pub state: String,
}

impl InDoubt {
    /// Whether its changes may still be committed here. Once RECO reaches the
    /// coordinator, that happens without any session (Oracle Database
    /// Administrator's Guide, "In-Doubt Transactions"). In the other states the
    /// result is known, and only the entry remains to be removed.
    fn is_open(&self) -> bool {
        let ended = ["committed", "forced commit", "forced rollback"];
        !ended.iter().any(|end| self.state.eq_ignore_ascii_case(end))
    }
}

/// All entries of distributed transactions, with and without a result.
///
/// # Errors
/// If the query fails.
pub async fn in_doubt(session: &Session) -> Result<Vec<InDoubt>, OracleError> {
    let all: Vec<(String, String)> = session.rows(IN_DOUBT, &[]).await?;
    let one = |(id, state)| InDoubt { id, state };
    Ok(all.into_iter().map(one).collect())
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Job {
    /// Of the scheduler: owner and name.
    Scheduled(String, String),
    /// Of DBMS_JOB: its number.
    Numbered(i64),
}

impl std::fmt::Display for Job {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Scheduled(owner, name) => write!(f, "{owner}.{name}"),
            Self::Numbered(job) => write!(f, "number {job} of DBMS_JOB"),
        }
    }
}

/// Running jobs of both kinds.
///
/// # Errors
/// If a query fails.
pub async fn running_jobs(session: &Session) -> Result<Vec<Job>, OracleError> {
    let scheduled: Vec<(String, String)> = session.rows(SCHEDULED, &[]).await?;
    let numbered: Vec<i64> = session.rows(OLD_JOBS, &[]).await?;
    let scheduled = scheduled
        .into_iter()
        .map(|(owner, name)| Job::Scheduled(owner, name));
    Ok(scheduled
        .chain(numbered.into_iter().map(Job::Numbered))
        .collect())
}

/// Whether an account with that status is locked permanently. `LOCKED(TIMED)`
/// unlocks itself after PASSWORD_LOCK_TIME.
pub fn is_locked(status: &str) -> bool {
    status.contains("LOCKED") && !status.contains("LOCKED(TIMED)")
}

/// Status of every account.
///
/// # Errors
/// If the query fails.
pub async fn accounts(session: &Session) -> Result<BTreeMap<String, String>, OracleError> {
    let all: Vec<(String, String)> = session.rows(ACCOUNTS, &[]).await?;
    Ok(all.into_iter().collect())
}

/// Last logins by user.
pub type Logins = BTreeMap<String, String>;

/// Empty where Oracle doesn't record them, which [`login_times`] reports.
///
/// # Errors
/// If the query fails.
pub async fn logins(session: &Session) -> Result<Logins, OracleError> {
    match session.rows::<(String, String)>(LOGINS, &[]).await {
        Ok(all) => Ok(all.into_iter().collect()),
        Err(e) if e.ora() == Some(login_times::NO_COLUMN) => Ok(Logins::new()),
        Err(e) => Err(e),
    }
}

/// Users that are not exempt and have logged in since `before`.
pub fn came_since(before: &Logins, now: &Logins, exempt: &ExemptSessions) -> Vec<String> {
    now.iter()
        .filter(|(user, login)| before.get(*user) != Some(login))
        .filter(|(user, _)| *user != "SYS" && !session_class::is_exempt_user(user, exempt))
        .map(|(user, login)| format!("{user} has logged in at {login}"))
        .collect()
}

/// Sessions, transactions, in-doubt transactions and jobs that breach the
/// fence.
///
/// # Errors
/// If a query fails.
pub async fn inside(session: &Session, rules: &OracleFence) -> Result<Vec<String>, OracleError> {
    let mut breaches: Vec<String> = session_class::counting(session, &rules.exempt)
        .await?
        .present
        .iter()
        .map(|seen| format!("a session is there that may not be: {seen}"))
        .collect();
    breaches.extend(transactions(session, &rules.exempt).await?);
    let in_doubt = in_doubt(session).await?;
    breaches.extend(
        in_doubt
            .iter()
            .filter(|one| one.is_open())
            .map(|InDoubt { id, state }| {
                format!("the distributed transaction {id} is in doubt ({state}) and may yet commit")
            }),
    );
    if rules.jobs_off {
        let running = running_jobs(session).await?;
        breaches.extend(
            running
                .iter()
                .map(|job| format!("the job {job} is running")),
        );
    }
    Ok(breaches)
}

/// Accounts that are unlocked and a job queue that is enabled although the plan
/// closes them.
///
/// # Errors
/// If a query fails.
pub async fn open_access(
    session: &Session,
    rules: &OracleFence,
) -> Result<Vec<String>, OracleError> {
    let mut breaches = Vec::new();
    if !rules.accounts.is_empty() {
        let status = accounts(session).await?;
        for account in &rules.accounts {
            match status.get(account) {
                Some(status) if is_locked(status) => {}
                Some(status) => breaches.push(format!("the account {account} is {status}")),
                // The application then logs in by another name than the plan's.
                None => breaches.push(format!("there is no account {account} in Oracle")),
            }
        }
    }
    if rules.jobs_off {
        let values = JOBS.values(session).await?;
        if !values.is_off_in_memory() {
            breaches.push(shown(JOBS, &values));
        }
    }
    Ok(breaches)
}

/// Listeners of this host that are up although the plan stops them.
///
/// # Errors
/// If the listener control tool reports no state.
pub async fn listeners(
    cx: &Context,
    listeners: &Listeners,
    keep: &[String],
) -> Result<Vec<String>, ActionError> {
    let states = listeners.states(cx, &listeners.except(keep)).await?;
    let up = states.iter().filter(|(_, state)| state.up);
    Ok(up
        .map(|(name, _)| format!("the listener {name} is up"))
        .collect())
}

/// All checks, once. Accounts, jobs and listeners first: a session that was
/// opened before they were found closed is then found by the checks that
/// follow.
///
/// # Errors
/// If a query or the listener control tool fails.
pub async fn breaches(
    cx: &Context,
    session: &Session,
    host: &Listeners,
    rules: &OracleFence,
) -> Result<Vec<String>, ActionError> {
    let (inner, outer) = tokio::join!(
        open_access(session, rules),
        listeners(cx, host, &rules.keep)
    );
    let mut breaches = inner?;
    breaches.extend(outer?);
    breaches.extend(inside(session, rules).await?);
    Ok(breaches)
}

/// The error for a fence that doesn't hold.
pub fn broken(breaches: &[String]) -> ActionError {
    ActionError::new(
        Code::LS2250,
        format!(
            "the fence doesn't hold: {}",
            truncate_list(breaches.to_vec()).join("; ")
        ),
    )
    .state_left("an application may be able to write to Oracle")
    .remedy("close what is named, then retry; or roll back")
}

/// Repeats all checks for the whole window. Returns the logins at its beginning,
/// for comparison with later ones.
///
/// # Errors
/// At the first breach, or if a check fails.
pub async fn hold(
    cx: &Context,
    session: &Session,
    host: &Listeners,
    rules: &OracleFence,
) -> Result<Logins, ActionError> {
    let before = logins(session).await?;
    let window = std::time::Duration::from_secs(rules.window_secs);
    let until = tokio::time::Instant::now() + window;
    let first = breaches(cx, session, host, rules).await?;
    if !first.is_empty() {
        return Err(broken(&first));
    }
    while tokio::time::Instant::now() < until {
        tokio::time::sleep(super::POLL_INTERVAL).await;
        let seen = inside(session, rules).await?;
        if !seen.is_empty() {
            return Err(broken(&seen));
        }
    }
    verify(cx, session, host, rules, &before).await?;
    for limit in login_times::limits(session).await? {
        cx.note(format!("not seen by the fence: {limit}"));
    }
    Ok(before)
}

/// All checks once, and logins since the given ones.
///
/// # Errors
/// If there is a breach, or a check fails.
pub async fn verify(
    cx: &Context,
    session: &Session,
    host: &Listeners,
    rules: &OracleFence,
    since: &Logins,
) -> Result<(), ActionError> {
    let mut seen = breaches(cx, session, host, rules).await?;
    seen.extend(came_since(since, &logins(session).await?, &rules.exempt));
    if seen.is_empty() {
        Ok(())
    } else {
        Err(broken(&seen))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_timed_lock_is_no_lock() {
        for locked in ["LOCKED", "EXPIRED & LOCKED", "EXPIRED(GRACE) & LOCKED"] {
            assert!(is_locked(locked), "{locked}");
        }
        for open in [
            "OPEN",
            "EXPIRED",
            "LOCKED(TIMED)",
            "EXPIRED & LOCKED(TIMED)",
        ] {
            assert!(!is_locked(open), "{open}");
        }
    }

    #[test]
    fn a_login_that_came_and_went_is_seen() {
        let logins = |pairs: &[(&str, &str)]| -> Logins {
            pairs
                .iter()
                .map(|(user, login)| ((*user).to_owned(), (*login).to_owned()))
                .collect()
        };
        let exempt = ExemptSessions {
            users: vec!["DMS_USER".to_owned()],
            machines: vec![],
        };
        let before = logins(&[("SHOP", "10:00"), ("DMS_USER", "10:00")]);
        let now = logins(&[("BATCH", "10:01"), ("SHOP", "10:00"), ("DMS_USER", "10:02")]);
        assert_eq!(
            came_since(&before, &now, &exempt),
            ["BATCH has logged in at 10:01"]
        );
    }
}
