//! `oracle.sessions.drain` and `oracle.sessions.kill`.
//!
//! Both end when nobody who counts is there any more and has stayed away for
//! the stability window: pools come back as fast as they are killed, and a
//! killed session first rolls back. A single look proves nothing, so the
//! probe never says that it is so already. There is nothing to restore:
//! clients connect again by themselves once the doors are open.

use super::fence::transactions;
use super::spare::{self, Seen};
use super::{LOOK, few, needs};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::oracle::Session;
use crate::policy::Need;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::OracleSessions;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

/// `ORA-00026: missing or invalid session ID`: it has gone meanwhile.
const INVALID_SESSION: i32 = 26;
/// `ORA-00027: cannot kill current session`
const CURRENT_SESSION: i32 = 27;
/// `ORA-00029: session is not a user session`
const NOT_A_USER: i32 = 29;
/// `ORA-00030: User session ID does not exist.`: it has gone meanwhile.
const NO_SESSION: i32 = 30;
/// `ORA-00031: session marked for kill`: it goes when its call ends.
const MARKED: i32 = 31;

/// `oracle.sessions.drain`
pub struct Drain;

/// `oracle.sessions.kill`
pub struct Kill;

/// IMMEDIATE rolls back and frees locks without waiting for the client (SQL
/// Language Reference, ALTER SYSTEM); `@inst_id` reaches other instances.
fn kill_statement(seen: &Seen) -> String {
    format!(
        "ALTER SYSTEM KILL SESSION '{},{},@{}' IMMEDIATE",
        seen.sid, seen.serial, seen.inst_id
    )
}

/// Whether it was killed by this very statement.
async fn kill(cx: &Context, session: &Session, seen: &Seen) -> Result<bool, ActionError> {
    match session.execute(&kill_statement(seen), &[]).await {
        Ok(()) => cx.note(format!("killed {seen}")),
        Err(e) => match e.ora() {
            Some(NO_SESSION | INVALID_SESSION) => {
                cx.note(format!("gone by itself: {seen}"));
                return Ok(false);
            }
            Some(MARKED) => cx.note(format!("marked for kill, in a call: {seen}")),
            Some(CURRENT_SESSION | NOT_A_USER) => return Ok(false),
            _ => return Err(e.into()),
        },
    }
    Ok(true)
}

/// Who and what is left.
struct Left {
    sessions: Vec<Seen>,
    transactions: Vec<String>,
}

impl Left {
    async fn look(session: &Session, params: &OracleSessions) -> Result<Self, ActionError> {
        Ok(Self {
            sessions: spare::counting(session, &params.spare).await?,
            transactions: transactions(session, &params.spare).await?,
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

/// Looks until nothing has been left for the whole window; `each` is called
/// with what is left. Gives what is left when time is up.
async fn until_stable(
    cx: &Context,
    session: &Session,
    params: &OracleSessions,
    killing: bool,
) -> Result<u64, ActionError> {
    let stable = Duration::from_secs(params.stable_secs);
    let until = Instant::now() + Duration::from_secs(params.timeout_secs);
    let (mut quiet_since, mut killed, mut told) = (None, 0, usize::MAX);
    loop {
        let left = Left::look(session, params).await?;
        if left.is_nothing() {
            let since = *quiet_since.get_or_insert_with(Instant::now);
            if since.elapsed() >= stable {
                cx.note(format!("nobody is left, for {} s", params.stable_secs));
                return Ok(killed);
            }
        } else {
            quiet_since = None;
        }
        if Instant::now() >= until {
            return Err(remain(params, &left, killing));
        }
        if killing {
            for seen in left.sessions.iter().filter(|seen| !seen.is_killed()) {
                killed += u64::from(kill(cx, session, seen).await?);
            }
        } else if left.sessions.len() != told {
            told = left.sessions.len();
            cx.note(format!("{told} sessions are left"));
        }
        tokio::time::sleep(LOOK).await;
    }
}

fn remain(params: &OracleSessions, left: &Left, killing: bool) -> ActionError {
    let what = match (left.is_nothing(), left.sessions.is_empty()) {
        (true, _) => format!(
            "sessions kept coming: there was no stretch of {} s without any",
            params.stable_secs
        ),
        (false, true) => format!(
            "transactions are still open: {}",
            few(left.transactions.clone()).join("; ")
        ),
        (false, false) => format!(
            "sessions are still there: {}",
            few(left.sentences()).join("; ")
        ),
    };
    let next = if killing {
        "find by machine and program who connects, and through which door: a listener on another \
         host, an account that is not locked, a local script; close it, then retry"
    } else {
        "stop the named clients, then retry; or let the plan kill what is left"
    };
    ActionError::new("LS2240", what)
        .left(format!(
            "nothing was changed but the sessions that are gone, within {} s",
            params.timeout_secs
        ))
        .next(next)
}

async fn describe(cx: &Context, params: &OracleSessions) -> Result<Description, ActionError> {
    let session = Session::open(cx, &params.resource).await?;
    let mut description = Description::default();
    for seen in spare::all(&session).await? {
        match seen.role(&params.spare) {
            spare::Role::Counts => description.remarks.push(format!("now there: {seen}")),
            spare::Role::Spared => description.remarks.push(format!("spared: {seen}")),
            spare::Role::Own | spare::Role::Aside => {}
        }
    }
    description.remarks = few(description.remarks);
    Ok(description)
}

#[async_trait]
impl Action for Drain {
    type Params = OracleSessions;

    fn needs(&self, params: &OracleSessions) -> Vec<Need> {
        needs(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleSessions) -> Result<Probe, ActionError> {
        Session::open(cx, &params.resource).await?;
        Ok(found(Finding::Todo))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &OracleSessions,
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
        params: &OracleSessions,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        until_stable(cx, &session, params, false).await?;
        Ok(Outputs::new())
    }
}

#[async_trait]
impl Action for Kill {
    type Params = OracleSessions;

    fn needs(&self, params: &OracleSessions) -> Vec<Need> {
        needs(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleSessions) -> Result<Probe, ActionError> {
        Session::open(cx, &params.resource).await?;
        Ok(found(Finding::Todo))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &OracleSessions,
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
        params: &OracleSessions,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let killed = until_stable(cx, &session, params, true).await?;
        Ok(Outputs::from([("killed".to_owned(), json!(killed))]))
    }
}
