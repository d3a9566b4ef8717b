//! One client from its logon to its end.

use super::auth::{Challenge, Pair};
use super::codec::{Reader, Writer};
use super::connect::{self, Service};
use super::cursor::OpenCursors;
use super::link::Link;
use super::reply::{self, Ending};
use super::request::{Call, Logon, Piggyback, Request};
use super::{Gate, TnsError};
use crate::api::{Credentials, Frontend, Login, OraError, Session};
use std::collections::HashMap;
use std::net::TcpStream;

/// Mode bit of a logon: AS SYSDBA.
const MODE_SYSDBA: u64 = 0x20;
/// Mode bits of AS SYSOPER, SYSASM, SYSBACKUP, SYSDG, SYSKM and SYSRAC.
const MODE_OTHERS: u64 = 0x40 | 0x40_0000 | 0x100_0000 | 0x200_0000 | 0x400_0000 | 0x800_0000;
/// Version told to drivers: 19.3.0.0.0.
const VERSION: u32 = 19 << 24 | 3 << 16;
/// Errors after which there is no session any more.
const DEAD: [u32; 4] = [28, 1012, 3113, 3114];

/// Whether the conversation goes on.
#[derive(PartialEq, Eq)]
enum Next {
    Request,
    Close,
}

/// A connection that has been accepted.
struct Connection<'a> {
    link: Link,
    service: Service,
    peer: &'a str,
    /// What the first phase of the logon left for the second.
    challenge: Option<(Challenge, String, HashMap<String, String>)>,
    session: Option<Box<dyn Session>>,
    cursors: OpenCursors,
}

/// Serves a client. See [`super::serve`].
pub fn run(mut stream: TcpStream, gate: &dyn Gate, peer: &str) -> Result<(), TnsError> {
    let accepted = connect::handshake(&mut stream, gate)?;
    let link = Link::start(stream, accepted.frames, accepted.sdu)?;
    let mut connection = Connection {
        link,
        service: accepted.service,
        peer,
        challenge: None,
        session: None,
        cursors: OpenCursors::default(),
    };
    while connection.one_request()? == Next::Request {}
    Ok(())
}

/// ORA-01013, what a call that was broken off ends with.
fn cancelled() -> OraError {
    OraError::new(1013, "user requested cancel of current operation")
}

/// Whether there is no session any more after this error.
pub fn is_fatal(error: &OraError) -> bool {
    DEAD.contains(&error.code)
}

fn not_logged_on() -> OraError {
    OraError::new(1012, "not logged on")
}

impl Connection<'_> {
    fn one_request(&mut self) -> Result<Next, TnsError> {
        match self.request() {
            Err(TnsError::Broken) => {
                let message = self.failure(&cancelled(), 0);
                self.link.answer_break(&message.into_bytes())?;
                Ok(Next::Request)
            }
            Err(error @ (TnsError::Unsupported(_) | TnsError::Malformed(_))) => {
                // What is left of the request can't be told from the next
                // one, so this is the last answer.
                let code = if matches!(error, TnsError::Malformed(_)) {
                    3120
                } else {
                    3115
                };
                let message = self.failure(&OraError::new(code, error.to_string()), 0);
                self.link.send(&message.into_bytes())?;
                Err(error)
            }
            other => other,
        }
    }

    fn request(&mut self) -> Result<Next, TnsError> {
        let payload = self.link.next_request()?;
        let mut reader = Reader::new(&mut self.link, payload);
        let request = Request::read(&mut reader, &self.cursors)?;
        // All of them, even where one fails: cursors are only closed once.
        let outcomes: Vec<_> = request
            .piggybacks
            .into_iter()
            .map(|piggyback| self.piggyback(piggyback))
            .collect();
        if let Err(error) = outcomes.into_iter().collect::<Result<(), _>>() {
            return self.fail(&error);
        }
        match request.call {
            Call::Protocol => self.answer(reply::protocol()),
            Call::DataTypes => self.answer(reply::data_types()),
            Call::Logon(logon) => self.logon(logon),
            Call::Execute(execute) => {
                if self.link.is_broken() {
                    return self.fail(&cancelled());
                }
                let Some(session) = self.session.as_mut() else {
                    return self.fail(&not_logged_on());
                };
                let outcome = execute.run(session.as_mut(), &mut self.cursors);
                self.settle(outcome)
            }
            Call::Fetch(cursor, count) => {
                let in_transaction = self.in_transaction();
                let mut writer = Writer::new();
                let fetched = super::execute::fetch(
                    &mut self.cursors,
                    cursor,
                    count,
                    in_transaction,
                    &mut writer,
                );
                let outcome = fetched.map(|()| (writer, None));
                self.settle(outcome.map_err(|error| (error, cursor)))
            }
            Call::Commit => self.simple(|session| session.commit()),
            Call::Rollback => self.simple(|session| session.rollback()),
            Call::Ping => self.simple(|session| session.ping()),
            Call::Logoff => {
                if let Some(session) = self.session.take() {
                    session.logoff();
                }
                self.answer(reply::done(false))
            }
            Call::Release => Ok(Next::Request),
        }
    }

    fn piggyback(&mut self, piggyback: Piggyback) -> Result<(), OraError> {
        match piggyback {
            Piggyback::CloseCursors(numbers) => {
                numbers
                    .into_iter()
                    .for_each(|number| self.cursors.close(number));
            }
            Piggyback::Tags(tags) => {
                self.session.as_mut().ok_or_else(not_logged_on)?.tag(&tags);
            }
            Piggyback::Schema(schema) => {
                let session = self.session.as_mut().ok_or_else(not_logged_on)?;
                let quoted = schema.replace('"', "");
                session.execute(
                    &format!("ALTER SESSION SET CURRENT_SCHEMA = \"{quoted}\""),
                    &[],
                )?;
            }
        }
        Ok(())
    }

    fn simple(
        &mut self,
        call: impl FnOnce(&mut dyn Session) -> Result<(), OraError>,
    ) -> Result<Next, TnsError> {
        let Some(session) = self.session.as_mut() else {
            return self.fail(&not_logged_on());
        };
        match call(session.as_mut()) {
            Ok(()) => {
                let done = reply::done(session.in_transaction());
                self.answer(done)
            }
            Err(error) => self.fail(&error),
        }
    }

    fn in_transaction(&self) -> bool {
        self.session
            .as_ref()
            .is_some_and(|session| session.in_transaction())
    }

    fn failure(&self, error: &OraError, cursor: u32) -> Writer {
        let mut writer = Writer::new();
        let in_transaction = self.in_transaction();
        Ending {
            in_transaction,
            cursor,
            error: Some(error),
            ..Ending::default()
        }
        .write(&mut writer);
        writer
    }

    fn fail(&mut self, error: &OraError) -> Result<Next, TnsError> {
        self.settle(Err((error.clone(), 0)))
    }

    fn answer(&mut self, writer: Writer) -> Result<Next, TnsError> {
        self.settle(Ok((writer, None)))
    }

    /// Sends the outcome of a call. Where a break came while it ran, the
    /// break is answered instead: with the call's own error or, where the
    /// call had succeeded, with ORA-01013; the client has stopped waiting for
    /// the result either way, so a cursor that was opened for it is closed.
    fn settle(
        &mut self,
        outcome: Result<(Writer, Option<u32>), (OraError, u32)>,
    ) -> Result<Next, TnsError> {
        let next = match &outcome {
            Err((error, _)) if is_fatal(error) => Next::Close,
            _ => Next::Request,
        };
        let broken = self.link.is_broken();
        let message = match outcome {
            Ok((_, opened)) if broken => {
                opened
                    .into_iter()
                    .for_each(|number| self.cursors.close(number));
                self.failure(&cancelled(), 0)
            }
            Ok((writer, _)) => writer,
            Err((error, cursor)) => self.failure(&error, cursor),
        };
        let message = message.into_bytes();
        if broken {
            self.link.answer_break(&message)?;
        } else {
            self.link.send(&message)?;
        }
        Ok(next)
    }

    fn logon(&mut self, logon: Logon) -> Result<Next, TnsError> {
        if self.session.is_some() {
            return Err(TnsError::Unsupported("a password change".to_owned()));
        }
        if !logon.answers {
            let user = user_name(&logon.user);
            let challenge = Challenge::new(&user, self.service.db.password_of(&user));
            let pairs = challenge.pairs()?;
            self.challenge = Some((challenge, user, logon.pairs));
            return self.answer(reply::logon(&pairs));
        }
        match self.second_phase(&logon)? {
            Ok(pairs) => self.answer(reply::logon(&pairs)),
            Err(error) => {
                self.fail(&error)?;
                Ok(Next::Close)
            }
        }
    }

    fn second_phase(&mut self, logon: &Logon) -> Result<Result<Vec<Pair>, OraError>, TnsError> {
        let refused = || OraError::new(1017, "invalid username/password; logon denied");
        let (Some((challenge, user, about)), Some(key), Some(password)) = (
            self.challenge.take(),
            logon.pairs.get("AUTH_SESSKEY"),
            logon.pairs.get("AUTH_PASSWORD"),
        ) else {
            // Without a password this is external authentication, which
            // needs the operating system's word.
            return Ok(Err(refused()));
        };
        if logon.pairs.contains_key("AUTH_NEWPASSWORD") {
            return Err(TnsError::Unsupported("a password change".to_owned()));
        }
        if logon.pairs.contains_key("PROXY_CLIENT_NAME") || logon.mode & MODE_OTHERS != 0 {
            return Ok(Err(OraError::new(1031, "insufficient privileges")));
        }
        let Some(proof) = challenge.verify(key, password)? else {
            return Ok(Err(refused()));
        };
        let login = self.login(user, logon.mode & MODE_SYSDBA != 0, about);
        Ok(self.service.db.connect(login).map(|session| {
            self.link.breaks_go_to(session.canceller());
            let pairs = self.introduction(session.as_ref(), proof);
            self.session = Some(session);
            pairs
        }))
    }

    fn login(&self, user: String, sysdba: bool, mut about: HashMap<String, String>) -> Login {
        let mut take = |key: &str| about.remove(key).unwrap_or_default();
        Login {
            credentials: Credentials::Verified { user },
            sysdba,
            service: self.service.service.clone(),
            frontend: Frontend::Listener(self.service.listener.clone()),
            machine: take("AUTH_MACHINE"),
            program: take("AUTH_PROGRAM_NM"),
            os_user: take("AUTH_SID"),
            process: take("AUTH_PID"),
            address: self.peer.to_owned(),
        }
    }

    fn introduction(&self, session: &dyn Session, proof: String) -> Vec<Pair> {
        let service = if self.service.service.is_empty() {
            &self.service.instance
        } else {
            &self.service.service
        };
        vec![
            ("AUTH_VERSION_NO", VERSION.to_string(), 0),
            ("AUTH_SESSION_ID", session.sid().to_string(), 0),
            ("AUTH_SERIAL_NUM", session.serial().to_string(), 0),
            ("AUTH_INSTANCENAME", self.service.instance.clone(), 0),
            ("AUTH_SC_DBUNIQUE_NAME", self.service.database.clone(), 0),
            ("AUTH_SC_DB_DOMAIN", String::new(), 0),
            ("AUTH_SC_SERVICE_NAME", service.clone(), 0),
            ("AUTH_MAX_OPEN_CURSORS", "300".to_owned(), 0),
            ("AUTH_MAX_IDEN_LENGTH", "128".to_owned(), 0),
            ("AUTH_SVR_RESPONSE", proof, 0),
        ]
    }
}

/// A user name as the dictionary holds it: upper case unless quoted.
fn user_name(given: &str) -> String {
    match given
        .strip_prefix('"')
        .and_then(|rest| rest.strip_suffix('"'))
    {
        Some(quoted) => quoted.to_owned(),
        None => given.to_uppercase(),
    }
}

#[cfg(test)]
mod tests {
    use super::user_name;

    #[test]
    fn tns_user_names_fold_like_identifiers() {
        for (given, kept) in [("shop", "SHOP"), ("\"Shop\"", "Shop"), ("\"x", "\"X")] {
            assert_eq!(user_name(given), kept);
        }
    }
}
