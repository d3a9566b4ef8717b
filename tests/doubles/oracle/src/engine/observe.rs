//! What the range asks the simulator about, independent of the product.

use super::clock;
use super::sessions::{SessionKey, SessionState};
use super::state::State;
use super::txn::Scn;
use serde_json::{Value, json};
use std::collections::BTreeMap;

/// Statements kept in the log of DDL and ALTER SYSTEM. A rehearsal makes some
/// hundred; the oldest go first.
const LOGGED_STATEMENTS: usize = 10_000;

/// Things that have happened.
#[derive(Debug, Default)]
pub struct Observed {
    commits: BTreeMap<String, Commits>,
    statements: Vec<Value>,
    killed: Vec<Value>,
    checkpoints: Vec<Value>,
}

#[derive(Debug, Default)]
struct Commits {
    count: u64,
    last_scn: Scn,
    last_at_ms: i64,
    last_program: String,
}

impl Observed {
    /// A commit with changes.
    pub fn commit(&mut self, user: &str, scn: Scn, session: Option<&SessionState>) {
        let commits = self.commits.entry(user.to_owned()).or_default();
        commits.count += 1;
        commits.last_scn = scn;
        commits.last_at_ms = clock::epoch_ms();
        commits.last_program = session.map(|s| s.program.clone()).unwrap_or_default();
    }

    /// A session that another one killed.
    pub fn kill(&mut self, key: SessionKey, session: &SessionState) {
        self.killed.push(json!({
            "inst_id": key.inst, "sid": key.sid, "serial": session.serial,
            "user": session.user, "machine": session.machine, "program": session.program,
            "at_ms": clock::epoch_ms(),
        }));
    }

    pub fn checkpoint(&mut self, inst: u32, scn: Scn) {
        self.checkpoints
            .push(json!({ "inst_id": inst, "scn": scn, "at_ms": clock::epoch_ms() }));
    }
}

impl State {
    /// Keeps a DDL or ALTER statement in the log.
    pub fn log_statement(&mut self, key: SessionKey, sql: &str) {
        let user = self.session(key).and_then(|session| session.user.clone());
        let entry = json!({
            "at_ms": clock::epoch_ms(), "inst_id": key.inst, "sid": key.sid, "user": user,
            "sql": hide_password(sql), "scn": self.scn,
        });
        if self.observed.statements.len() >= LOGGED_STATEMENTS {
            self.observed.statements.remove(0);
        }
        self.observed.statements.push(entry);
    }

    /// Everything, as [`super::Engine::observe`] documents it.
    pub fn observe(&self) -> Value {
        let instances: Vec<Value> = self
            .instances
            .iter()
            .enumerate()
            .map(|(at, instance)| {
                json!({ "inst_id": at + 1, "name": instance.name, "host": instance.host,
                        "restricted": instance.restricted })
            })
            .collect();
        let accounts: BTreeMap<&String, &str> = self
            .users
            .iter()
            .map(|(name, user)| {
                (
                    name,
                    if user.locked.is_some() {
                        "LOCKED"
                    } else {
                        "OPEN"
                    },
                )
            })
            .collect();
        let jobs: Vec<Value> = self
            .jobs
            .iter()
            .map(|((owner, name), job)| {
                json!({ "owner": owner, "name": name, "enabled": job.enabled,
                        "state": job.state(), "runs": job.runs })
            })
            .collect();
        json!({
            "scn": self.scn,
            "instances": instances,
            "sessions": self.observe_sessions(),
            "sessions_killed": self.observed.killed,
            "parameters": self.parameters.observe_memory(),
            "spfile": self.parameters.observe_spfile(),
            "accounts": accounts,
            "triggers": self.observe_triggers(),
            "jobs": jobs,
            "sequences": self.observe_sequences(),
            "commits": self.observe_commits(),
            "archived": self.logs.observe(),
            "checkpoints": self.observed.checkpoints,
            "statements": self.observed.statements,
        })
    }

    fn observe_sessions(&self) -> Vec<Value> {
        self.sessions
            .iter()
            .filter(|(_, session)| !session.is_background())
            .map(|(key, session)| {
                json!({ "inst_id": key.inst, "sid": key.sid, "serial": session.serial,
                        "user": session.user, "machine": session.machine,
                        "program": session.program, "listener": session.listener,
                        "status": super::views::session_status(session),
                        "module": session.module })
            })
            .collect()
    }

    fn observe_triggers(&self) -> BTreeMap<String, &str> {
        self.triggers
            .iter()
            .map(|((owner, name), trigger)| {
                let status = if trigger.enabled {
                    "ENABLED"
                } else {
                    "DISABLED"
                };
                (format!("{owner}.{name}"), status)
            })
            .collect()
    }

    fn observe_sequences(&self) -> BTreeMap<String, i64> {
        self.sequences
            .iter()
            .map(|((owner, name), sequence)| {
                (
                    format!("{owner}.{name}"),
                    i64::try_from(sequence.next).unwrap_or(i64::MAX),
                )
            })
            .collect()
    }

    fn observe_commits(&self) -> Value {
        let commits: BTreeMap<&String, Value> = self
            .observed
            .commits
            .iter()
            .map(|(user, commits)| {
                (
                    user,
                    json!({ "count": commits.count, "last_scn": commits.last_scn,
                            "last_at_ms": commits.last_at_ms,
                            "last_program": commits.last_program }),
                )
            })
            .collect();
        json!(commits)
    }

    /// Commits per user after an SCN.
    pub fn commits_after(&self, scn: Scn) -> Value {
        let mut counts: BTreeMap<&str, u64> = BTreeMap::new();
        for committed in self.transactions.redo_after(scn) {
            *counts.entry(committed.user.as_str()).or_default() += 1;
        }
        json!(counts)
    }

    /// When the transaction with that commit SCN committed.
    pub fn commit_at(&self, scn: Scn) -> Value {
        let after = self.transactions.redo_after(scn.saturating_sub(1));
        let found = after.first().filter(|txn| txn.commit_scn == scn);
        json!(found.and_then(|txn| clock::civil_ms(txn.at)))
    }
}

/// A statement without the password in it.
fn hide_password(sql: &str) -> String {
    let upper = sql.to_uppercase();
    match upper.find("IDENTIFIED BY") {
        Some(at) if sql.is_char_boundary(at + 13) => format!("{}IDENTIFIED BY ***", &sql[..at]),
        _ => sql.to_owned(),
    }
}
