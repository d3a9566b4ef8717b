//! `oracle.sessions.drain` and `oracle.sessions.kill`.
//!
//! Both finish when there has been no application session for the stability
//! window: connection pools reconnect as fast as they are killed, and a killed
//! session first rolls back. A single check proves nothing, so the probe is
//! always pending. There is nothing to restore: clients reconnect by themselves
//! once logins are possible.

use super::fence::transactions;
use super::session_class::{self, DbSession};
use super::{POLL_INTERVAL, required_permissions};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::actions::truncate_list;
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use futures_util::future::join_all;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{DrainSessions, KillSessions, OracleSessions};
use serde_json::{Value, json};
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;
use tokio::time::Instant;

/// `ORA-00026: missing or invalid session ID`: it has already ended.
const INVALID_SESSION: i32 = 26;
/// `ORA-00027: cannot kill current session`
const CURRENT_SESSION: i32 = 27;
/// `ORA-00029: session is not a user session`
const NOT_A_USER: i32 = 29;
/// `ORA-00030: User session ID does not exist.`: it has already ended.
const NO_SESSION: i32 = 30;
/// `ORA-00031: session marked for kill`: it ends when its call ends.
const MARKED: i32 = 31;

/// Concurrent kills, each from its own session: killing a busy session takes up
/// to a minute until ORA-00031, and a few busy sessions must not use up the time
/// in which all others could be killed. Far below the limit of concurrent
/// logins.
const KILLERS: usize = 8;

/// `oracle.sessions.drain`
pub struct Drain;

/// `oracle.sessions.kill`
pub struct Kill;

/// IMMEDIATE rolls back and frees locks without waiting for the client (SQL
/// Language Reference, ALTER SYSTEM); `@inst_id` reaches other instances.
fn kill_statement(seen: &DbSession) -> String {
    format!(
        "ALTER SYSTEM KILL SESSION '{},{},@{}' IMMEDIATE",
        seen.sid, seen.serial, seen.inst_id
    )
}

/// Returns whether the session was killed, or marked to be killed.
///
/// # Errors
/// If Oracle rejects it.
pub async fn kill(cx: &Context, session: &Session, seen: &DbSession) -> Result<bool, ActionError> {
    match session.execute(&kill_statement(seen), &[]).await {
        Ok(()) => cx.effect(format!("killed the session {seen}")),
        Err(e) => match e.ora() {
            Some(NO_SESSION | INVALID_SESSION) => {
                cx.note(format!("ended by itself: {seen}"));
                return Ok(false);
            }
            Some(MARKED) => cx.effect(format!("marked the session for kill, in a call: {seen}")),
            Some(CURRENT_SESSION | NOT_A_USER) => return Ok(false),
            _ => return Err(e.into()),
        },
    }
    Ok(true)
}

/// The sessions that run the kills; opened when there is a session to kill.
struct Killers<'a> {
    cx: &'a Context,
    resource: &'a str,
    sessions: Vec<Session>,
    killed: AtomicU64,
}

impl<'a> Killers<'a> {
    fn new(cx: &'a Context, resource: &'a str) -> Self {
        Self {
            cx,
            resource,
            sessions: Vec::new(),
            killed: AtomicU64::new(0),
        }
    }

    /// Kills all of them, several at a time, until the deadline: kills that are
    /// still running then are cancelled, and the next check finds the sessions
    /// that are left.
    async fn kill(&mut self, victims: &[&DbSession], until: Instant) -> Result<(), ActionError> {
        while self.sessions.len() < victims.len().min(KILLERS) {
            self.sessions
                .push(Session::open(self.cx, self.resource).await?);
        }
        let (cx, count) = (self.cx, &self.killed);
        let kill = |session, seen| async move {
            let killed = kill(cx, session, seen).await?;
            count.fetch_add(u64::from(killed), Ordering::Relaxed);
            Ok(())
        };
        share_out(&self.sessions, victims, until, kill).await
    }
}

/// Distributes jobs: until the deadline, each worker takes the next job when it
/// has finished one, so that a slow job delays no other worker. A failure ends
/// its worker and is returned when the others have finished.
async fn share_out<'a, W, J: Copy, F: Future<Output = Result<(), ActionError>>>(
    workers: &'a [W],
    jobs: &[J],
    until: Instant,
    work: impl Fn(&'a W, J) -> F,
) -> Result<(), ActionError> {
    let next = AtomicUsize::new(0);
    let all = workers.iter().map(|worker| async {
        while let Some(job) = jobs.get(next.fetch_add(1, Ordering::Relaxed)) {
            work(worker, *job).await?;
        }
        Ok(())
    });
    match tokio::time::timeout_at(until, join_all(all)).await {
        Ok(ended) => ended.into_iter().collect(),
        Err(_) => Ok(()),
    }
}

/// The sessions and transactions that are left.
struct Left {
    sessions: Vec<DbSession>,
    /// Killed sessions that are still listed.
    terminated: Vec<DbSession>,
    transactions: Vec<String>,
}

impl Left {
    async fn look(session: &Session, params: &OracleSessions) -> Result<Self, ActionError> {
        let sessions = session_class::counting(session, &params.exempt).await?;
        Ok(Self {
            sessions: sessions.present,
            terminated: sessions.terminated,
            transactions: transactions(session, &params.exempt).await?,
        })
    }

    fn is_nothing(&self) -> bool {
        self.sessions.is_empty() && self.transactions.is_empty()
    }

    fn sentences(&self) -> Vec<String> {
        let sessions = self.sessions.iter().map(|seen| {
            let killed = if seen.is_killed() { " (killed)" } else { "" };
            format!("the session {seen}{killed}")
        });
        sessions.chain(self.transactions.iter().cloned()).collect()
    }
}

/// Checks until nothing has been left for the whole window, killing sessions if
/// `killing`. Returns the number killed.
async fn until_stable(
    cx: &Context,
    session: &Session,
    params: &OracleSessions,
    killing: bool,
) -> Result<u64, ActionError> {
    let stable = Duration::from_secs(params.stable_secs);
    let until = Instant::now() + Duration::from_secs(params.timeout_secs);
    let (mut quiet_since, mut last_reported) = (None, usize::MAX);
    let mut killers = Killers::new(cx, &params.resource);
    loop {
        let left = Left::look(session, params).await?;
        if left.is_nothing() {
            let since = *quiet_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= stable {
                cx.note(format!(
                    "no session has been left for {} s",
                    params.stable_secs
                ));
                report_terminated(cx, &left.terminated);
                return Ok(killers.killed.into_inner());
            }
        } else {
            quiet_since = None;
        }
        if Instant::now() >= until {
            return Err(remain(params, &left, killing));
        }
        if killing {
            let victims = left.sessions.iter().filter(|seen| !seen.is_killed());
            killers.kill(&victims.collect::<Vec<_>>(), until).await?;
        } else if left.sessions.len() != last_reported {
            last_reported = left.sessions.len();
            cx.note(format!("{last_reported} sessions are left"));
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Names the killed sessions that Oracle still lists.
fn report_terminated(cx: &Context, terminated: &[DbSession]) {
    if terminated.is_empty() {
        return;
    }
    let names = terminated.iter().map(ToString::to_string).collect();
    cx.note(format!(
        "killed and without a transaction, but listed until their clients use them: {}",
        truncate_list(names).join("; ")
    ));
}

fn remain(params: &OracleSessions, left: &Left, killing: bool) -> ActionError {
    let what = match (left.is_nothing(), left.sessions.is_empty()) {
        (true, _) => format!(
            "new sessions kept connecting: there was no stretch of {} s without any",
            params.stable_secs
        ),
        (false, true) => format!(
            "transactions are still open: {}",
            truncate_list(left.transactions.clone()).join("; ")
        ),
        (false, false) => format!(
            "sessions are still there: {}",
            truncate_list(left.sentences()).join("; ")
        ),
    };
    let next = if killing {
        "find by machine and program which client connects, and through which listener: a listener on another \
         host, an account that is not locked, a local script; close it, then retry"
    } else {
        "stop the named clients, then retry; or let the plan kill what is left"
    };
    ActionError::new(Code::LS2240, what)
        .state_left(format!(
            "nothing was changed except that sessions were killed, within {} s",
            params.timeout_secs
        ))
        .remedy(next)
}

async fn describe(cx: &Context, params: &OracleSessions) -> Result<Description, ActionError> {
    let session = Session::open(cx, &params.resource).await?;
    let mut description = Description::default();
    for seen in session_class::all(&session).await?.present {
        match seen.role(&params.exempt) {
            session_class::SessionClass::Application => {
                description.remarks.push(format!("now there: {seen}"))
            }
            session_class::SessionClass::Exempt => {
                description.remarks.push(format!("exempt: {seen}"))
            }
            session_class::SessionClass::Lockstep | session_class::SessionClass::Internal => {}
        }
    }
    description.remarks = truncate_list(description.remarks);
    Ok(description)
}

#[async_trait]
impl Action for Drain {
    type Params = DrainSessions;

    fn required_permissions(&self, params: &DrainSessions) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &DrainSessions) -> Result<Probe, ActionError> {
        Session::open(cx, &params.resource).await?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DrainSessions,
    ) -> Result<Description, ActionError> {
        let mut description = describe(cx, params).await?;
        description.would_do.push(format!(
            "wait up to {} s until no session that counts is left for {} s",
            params.timeout_secs, params.stable_secs
        ));
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DrainSessions,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        until_stable(cx, &session, params, false).await?;
        Ok(Outputs::new())
    }
}

#[async_trait]
impl Action for Kill {
    type Params = KillSessions;

    fn required_permissions(&self, params: &KillSessions) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &KillSessions) -> Result<Probe, ActionError> {
        Session::open(cx, &params.resource).await?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &KillSessions,
    ) -> Result<Description, ActionError> {
        let mut description = describe(cx, params).await?;
        let statement = "ALTER SYSTEM KILL SESSION 'sid,serial#,@inst_id' IMMEDIATE";
        description.would_do.push(format!(
            "{statement} for every session that counts, until none is left and none comes back \
             for {} s",
            params.stable_secs
        ));
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &KillSessions,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let killed = until_stable(cx, &session, params, true).await?;
        Ok(Outputs::from([("killed".to_owned(), json!(killed))]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Mutex;

    /// Durations of the jobs: a few long ones, then many short ones.
    fn jobs() -> Vec<Duration> {
        let secs = [60, 60, 60, 60].into_iter().chain([0; 40]);
        secs.map(Duration::from_secs).collect()
    }

    #[tokio::test(start_paused = true)]
    async fn busy_sessions_hold_up_no_other() {
        let began = Instant::now();
        let done = Mutex::new(Vec::new());
        let work = |_: &(), job: Duration| {
            let done = &done;
            async move {
                tokio::time::sleep(job).await;
                done.lock().unwrap().push(began.elapsed());
                Ok(())
            }
        };
        let until = began + Duration::from_secs(120);
        share_out(&[(); KILLERS], &jobs(), until, work)
            .await
            .unwrap();
        let done = done.lock().unwrap();
        assert_eq!(done.len(), jobs().len());
        assert!(done[39] < Duration::from_secs(1), "{:?}", done[39]);
        assert!(began.elapsed() < Duration::from_secs(61), "side by side");
    }

    #[tokio::test(start_paused = true)]
    async fn the_limit_ends_what_is_under_way() {
        let began = Instant::now();
        let until = began + Duration::from_secs(10);
        let work = |_: &(), job| async move {
            tokio::time::sleep(job).await;
            Ok(())
        };
        share_out(&[()], &jobs(), until, work).await.unwrap();
        assert_eq!(began.elapsed(), Duration::from_secs(10));
    }

    #[tokio::test]
    async fn a_failure_is_told_and_the_others_go_on() {
        let done = AtomicUsize::new(0);
        let work = |_: &(), fails| {
            done.fetch_add(1, Ordering::Relaxed);
            async move {
                if fails {
                    return Err(ActionError::new(Code::LS2203, "refused"));
                }
                Ok(())
            }
        };
        let until = Instant::now() + Duration::from_secs(10);
        let jobs = [true, false, false, false];
        let ended = share_out(&[(); 2], &jobs, until, work).await;
        assert_eq!(ended.unwrap_err().code(), Code::LS2203);
        assert_eq!(done.into_inner(), jobs.len());
    }
}
