//! One call of a session: it holds the lock, and gives it up while it waits.

use super::database::Core;
use super::errors::{Outcome, Stop, ora};
use super::exec::{Exec, Relation, Variables, bind_variables};
use super::prepare::{Body, Prepared};
use super::sessions::{Life, SessionKey};
use super::state::State;
use super::txn::TxnId;
use super::{commands, ddl, interpret, kinds};
use crate::api::{Bind, Column, Kind, OraError, Reply};
use parking_lot::MutexGuard;
use std::time::{Duration, Instant};

/// A statement waits so long for another transaction's row lock, then it is
/// ORA-00060. Oracle waits for ever; a rehearsal must end.
const LOCK_WAIT: Duration = Duration::from_secs(120);

pub struct Call<'c> {
    pub core: &'c Core,
    pub st: MutexGuard<'c, State>,
    /// Whose call it is.
    pub key: SessionKey,
}

impl<'c> Call<'c> {
    /// A call of a session that is marked as being in one.
    pub fn new(core: &'c Core, st: MutexGuard<'c, State>, key: SessionKey) -> Self {
        Self { core, st, key }
    }

    /// Ends the call; true if the session was killed meanwhile.
    pub fn finish(mut self) -> bool {
        let killed = self
            .st
            .session(self.key)
            .is_none_or(|session| session.life != Life::Alive);
        if killed {
            self.st.rollback_to(self.key, None);
            self.st.sessions.remove(&self.key);
        } else if let Some(session) = self.st.sessions.get_mut(&self.key) {
            session.in_call = false;
            session.waits_for = None;
            session.last_call = super::clock::now();
        }
        self.core.flush_alerts(&mut self.st);
        self.core.changed.notify_all();
        killed
    }

    /// Runs a statement's text.
    pub fn execute(&mut self, sql: &str, binds: &[Bind]) -> Result<Reply, OraError> {
        if let Some(session) = self.st.sessions.get_mut(&self.key) {
            session.sql = Some(sql.to_owned());
        }
        self.st.fault_at(sql)?;
        let prepared = self.st.prepared(sql)?;
        let vars = match bind_variables(&prepared.binds, binds) {
            Ok(vars) => vars,
            Err(Stop::Ora(error)) => return Err(error),
            Err(Stop::Blocked(_)) => return Err(ora(600, "internal error code")),
        };
        self.run(&prepared, vars)
    }

    /// Runs a statement with its variables.
    pub fn run(&mut self, prepared: &Prepared, vars: Variables) -> Result<Reply, OraError> {
        match &prepared.body {
            Body::Block(block) => interpret::run(self, block, vars),
            Body::Command => commands::run(self, &prepared.lexed),
            Body::CreateTable(table) => {
                self.commit();
                let key = self.key;
                let text = prepared.lexed.text.clone();
                self.attempt(|st| ddl::create_table(st, key, table))?;
                self.st.log_statement(key, &text);
                Ok(Reply::Done)
            }
            body => self.sql(body, &vars),
        }
    }

    /// Runs a query or DML statement.
    pub fn sql(&mut self, body: &Body, vars: &Variables) -> Result<Reply, OraError> {
        let key = self.key;
        self.attempt(|st| {
            let mut exec = Exec::new(st, key, vars);
            match body {
                Body::Query(query) => {
                    let relation = exec.query(query, None)?;
                    rows(&relation)
                }
                Body::Insert(insert, returning) => exec.insert(insert, returning.as_ref()),
                Body::Update(update, returning) => exec.update(update, returning.as_ref()),
                Body::Delete(delete, returning) => exec.delete(delete, returning.as_ref()),
                _ => super::errors::stop(900, "invalid SQL statement"),
            }
        })
    }

    /// Runs something on the state as one statement: undone where it fails,
    /// started over where it meets a row lock.
    pub fn attempt<T>(
        &mut self,
        mut work: impl FnMut(&mut State) -> Outcome<T>,
    ) -> Result<T, OraError> {
        let deadline = Instant::now() + LOCK_WAIT;
        loop {
            let before = self.st.session(self.key).and_then(|session| session.txn);
            let mark = self.st.transactions.mark(before);
            let result = work(&mut self.st);
            if result.is_err() {
                // A transaction that this statement began ends with it.
                self.st.rollback_to(self.key, before.map(|_| mark));
            }
            match result {
                Ok(value) => return Ok(value),
                Err(Stop::Ora(error)) => return Err(error),
                Err(Stop::Blocked(holder)) => self.wait_for(holder, deadline)?,
            }
        }
    }

    fn wait_for(&mut self, holder: TxnId, deadline: Instant) -> Result<(), OraError> {
        if self.st.would_deadlock(self.key, holder) {
            return Err(ora(60, "deadlock detected while waiting for resource"));
        }
        self.waits(Some(holder));
        let mut result = Ok(());
        while self.st.transactions.open.contains_key(&holder) {
            if Instant::now() >= deadline {
                result = Err(ora(60, "deadlock detected while waiting for resource"));
                break;
            }
            result = self.pause(deadline);
            if result.is_err() {
                break;
            }
        }
        self.waits(None);
        result
    }

    fn waits(&mut self, holder: Option<TxnId>) {
        if let Some(session) = self.st.sessions.get_mut(&self.key) {
            session.waits_for = holder;
        }
    }

    /// Gives the lock up until something changes or the time has come.
    ///
    /// # Errors
    /// ORA-01013 where the call was cancelled, ORA-00028 where the session
    /// was killed.
    pub fn pause(&mut self, until: Instant) -> Result<(), OraError> {
        self.interrupted()?;
        self.core.changed.wait_until(&mut self.st, until);
        self.interrupted()
    }

    fn interrupted(&mut self) -> Result<(), OraError> {
        match self.st.sessions.get_mut(&self.key) {
            Some(session) if session.life == Life::Alive => {
                if std::mem::take(&mut session.cancelled) {
                    return Err(ora(1013, "user requested cancel of current operation"));
                }
                Ok(())
            }
            _ => Err(ora(28, "your session has been killed")),
        }
    }

    /// DBMS_SESSION.SLEEP: the lock is free meanwhile.
    pub fn sleep(&mut self, seconds: f64) -> Result<(), OraError> {
        let until = Instant::now() + Duration::from_secs_f64(seconds.max(0.0));
        while Instant::now() < until {
            self.pause(until)?;
        }
        Ok(())
    }

    pub fn commit(&mut self) {
        self.st.commit(self.key);
        self.core.changed.notify_all();
    }

    pub fn rollback(&mut self) {
        self.st.rollback_to(self.key, None);
        self.core.changed.notify_all();
    }
}

impl State {
    /// Whether waiting for that transaction closes a circle.
    fn would_deadlock(&self, key: SessionKey, holder: TxnId) -> bool {
        let mut next = Some(holder);
        // Each session waits for at most one transaction, so the chain ends.
        for _ in 0..=self.sessions.len() {
            let Some(owner) = next.and_then(|id| self.transactions.open.get(&id)) else {
                return false;
            };
            if owner.session == key {
                return true;
            }
            next = self
                .session(owner.session)
                .and_then(|session| session.waits_for);
        }
        false
    }
}

/// A result's columns as frontends describe them.
pub fn columns(relation: &Relation) -> Vec<Column> {
    relation
        .cols
        .iter()
        .map(|col| Column {
            name: col.name.to_string(),
            // A client allocates by this: a bare NULL is as wide as it can be narrow.
            kind: if col.kind == kinds::UNTYPED {
                Kind::Varchar2(1)
            } else {
                col.kind
            },
            nullable: col.nullable,
        })
        .collect()
}

/// A result as frontends hand it out.
fn rows(relation: &Relation) -> Outcome<Reply> {
    let mut rows = Vec::with_capacity(relation.rows.len());
    for row in &relation.rows {
        let mut values = Vec::with_capacity(row.len());
        for (datum, col) in row.iter().zip(&relation.cols) {
            values.push(datum.to_value(col.kind)?);
        }
        rows.push(values);
    }
    Ok(Reply::Rows {
        columns: columns(relation),
        rows,
    })
}
