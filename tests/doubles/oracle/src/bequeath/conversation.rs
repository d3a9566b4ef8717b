//! One connection's calls: the session behind them, and its cursors.

use super::Caller;
use super::gate::Gate;
use crate::api::{Bind, Credentials, Database, Frontend, Login, OraError, Reply, Session, Value};
use crate::wire::{Answer, Call, Execute, Logon, Request, Response, RowError};
use std::collections::HashMap;

/// Cursors a session keeps rows for: OPEN_CURSORS as installations raise it.
pub const MAX_CURSORS: usize = 300;

/// One connection's session and cursors.
pub struct Conversation<'a> {
    db: &'a dyn Database,
    caller: Caller,
    service: String,
    gate: &'a Gate,
    session: Option<Box<dyn Session>>,
    cursors: HashMap<u32, std::vec::IntoIter<Vec<Value>>>,
    last_cursor: u32,
}

impl<'a> Conversation<'a> {
    pub fn new(db: &'a dyn Database, caller: Caller, service: String, gate: &'a Gate) -> Self {
        Self {
            db,
            caller,
            service,
            gate,
            session: None,
            cursors: HashMap::new(),
            last_cursor: 0,
        }
    }

    pub fn answer(&mut self, call: Call) -> Response {
        for cursor in call.close {
            self.cursors.remove(&cursor);
        }
        if let (Some(tags), Some(session)) = (&call.tags, &mut self.session) {
            session.tag(tags);
        }
        let result = match call.request {
            Request::Logon(logon) => {
                let answer = self.log_on(logon);
                if let (Some(tags), Some(session)) = (&call.tags, &mut self.session) {
                    session.tag(tags);
                }
                answer
            }
            Request::Execute(execute) => self.execute(call.id, &execute),
            Request::Describe { sql } => self
                .session()
                .and_then(|session| session.describe(&sql))
                .map(|columns| Answer::Described { columns }),
            Request::Fetch { cursor, rows } => self.fetch(cursor, rows),
            Request::Commit => self
                .session()
                .and_then(|session| session.commit())
                .map(|()| Answer::Done),
            Request::Rollback => self
                .session()
                .and_then(|session| session.rollback())
                .map(|()| Answer::Done),
            Request::Ping => self
                .session()
                .and_then(|session| session.ping())
                .map(|()| Answer::Done),
            Request::Logoff => {
                self.cursors.clear();
                if let Some(session) = self.session.take() {
                    session.logoff();
                }
                Ok(Answer::Done)
            }
        };
        let in_transaction = self
            .session
            .as_ref()
            .is_some_and(|session| session.in_transaction());
        Response {
            result,
            in_transaction,
        }
    }

    fn session(&mut self) -> Result<&mut Box<dyn Session>, OraError> {
        self.session
            .as_mut()
            .ok_or_else(|| OraError::new(1012, "not logged on"))
    }

    fn log_on(&mut self, logon: Logon) -> Result<Answer, OraError> {
        if self.session.is_some() {
            return Err(OraError::new(
                1032,
                "no such userid: this connection already carries a session",
            ));
        }
        let credentials = match logon.password {
            Some((user, password)) => Credentials::Password { user, password },
            None if self.caller.frontend != Frontend::Bequeath => {
                return Err(OraError::new(
                    1017,
                    "invalid username/password; logon denied",
                ));
            }
            None if !self.caller.trusted => {
                return Err(OraError::new(1031, "insufficient privileges"));
            }
            None => Credentials::OperatingSystem,
        };
        let session = self.db.connect(Login {
            credentials,
            sysdba: logon.sysdba,
            service: self.service.clone(),
            frontend: self.caller.frontend.clone(),
            machine: logon.machine,
            program: logon.program,
            os_user: logon.os_user,
            process: logon.process,
            address: self.caller.address.clone(),
        })?;
        self.gate.arm(session.canceller());
        let answer = Answer::LoggedOn {
            sid: session.sid(),
            serial: session.serial(),
        };
        self.session = Some(session);
        Ok(answer)
    }

    fn execute(&mut self, call: u64, execute: &Execute) -> Result<Answer, OraError> {
        let mut replies = Vec::new();
        let mut failed = Vec::new();
        for (row, binds) in execute.rows.iter().enumerate() {
            match self.execute_once(call, &execute.sql, binds) {
                Ok(reply) => replies.push(reply),
                Err(error) if execute.keep_going && ends_array(&error) => return Err(error),
                Err(error) => {
                    failed.push(RowError {
                        row: u32::try_from(row).unwrap_or(u32::MAX),
                        error,
                    });
                    if !execute.keep_going {
                        break;
                    }
                }
            }
        }
        let cursor = match replies.last_mut() {
            Some(Reply::Rows { rows, .. }) if rows.len() > execute.first_rows as usize => {
                Some(rows.split_off(execute.first_rows as usize))
            }
            _ => None,
        };
        let cursor = cursor.map(|rest| self.keep(rest)).transpose()?;
        if execute.commit && failed.is_empty() {
            self.session()?.commit()?;
        }
        Ok(Answer::Executed {
            replies,
            cursor,
            failed,
        })
    }

    fn execute_once(&mut self, call: u64, sql: &str, binds: &[Bind]) -> Result<Reply, OraError> {
        if self.gate.cancelled(call) {
            return Err(OraError::new(
                1013,
                "user requested cancel of current operation",
            ));
        }
        self.session()?.execute(sql, binds)
    }

    fn keep(&mut self, rows: Vec<Vec<Value>>) -> Result<u32, OraError> {
        if self.cursors.len() >= MAX_CURSORS {
            return Err(OraError::new(1000, "maximum open cursors exceeded"));
        }
        self.last_cursor = self.last_cursor.wrapping_add(1);
        self.cursors.insert(self.last_cursor, rows.into_iter());
        Ok(self.last_cursor)
    }

    /// The rows are here already, but a killed session gets no more of them.
    fn fetch(&mut self, cursor: u32, rows: u32) -> Result<Answer, OraError> {
        self.session()?.ping()?;
        let Some(rest) = self.cursors.get_mut(&cursor) else {
            return Err(OraError::new(1001, "invalid cursor"));
        };
        let rows: Vec<_> = rest.by_ref().take(rows as usize).collect();
        let more = rest.len() > 0;
        if !more {
            self.cursors.remove(&cursor);
        }
        Ok(Answer::Fetched { rows, more })
    }
}

/// Errors of the call as a whole: the rows that follow in an array can't fare
/// better.
fn ends_array(error: &OraError) -> bool {
    matches!(error.code, 28 | 1012 | 1013 | 1092 | 3113 | 3114 | 3136)
}
