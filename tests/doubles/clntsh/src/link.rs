//! From a call of the client to a call of the server: the connection, the
//! state it is known to be in, and what a failed call means for it.

use crate::error::Fault;
use crate::handles::{self, Service, lock};
use crate::target::Destination;
use oracle_simulator::api::{OraError, Reply, Tags, Value};
use oracle_simulator::wire::{
    Answer, Client, Execute, Outcome, Request, Response, Stream, Target, WireError,
};
use std::io;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering::SeqCst};
use std::sync::{Arc, Mutex};
use std::time::Duration;

/// Cursors that may wait to be closed with the next call before one is made
/// for them alone: the server's own limit of open cursors is near then.
const MAX_WAITING_CURSORS: usize = 200;

/// What is attached to a server handle.
#[derive(Debug)]
pub struct Connection {
    client: Client,
    in_transaction: AtomicBool,
    /// The session was killed or lost: nothing more will come of it.
    dead: AtomicBool,
    closing: Mutex<Vec<u32>>,
}

/// Names that the server has for itself.
#[derive(Debug, Clone, Default)]
pub struct Names {
    pub database: String,
    pub instance: String,
    pub service: String,
}

/// A connection with the settings of the service context it is used through.
#[derive(Debug, Clone)]
pub struct Link {
    pub connection: Arc<Connection>,
    call_timeout: Arc<AtomicU32>,
    tags: Option<Arc<Mutex<Tags>>>,
}

impl Connection {
    /// Connects to the first address that answers.
    ///
    /// # Errors
    /// ORA-12541 and its kin for a listener, ORA-01034 for an instance that
    /// isn't there, and whatever the server refuses with.
    pub fn open(destination: &Destination) -> Result<Self, OraError> {
        let mut last = OraError::new(
            12154,
            "TNS:could not resolve the connect identifier specified",
        );
        for target in &destination.targets {
            match attach(target, &destination.service) {
                Ok(client) => {
                    return Ok(Self {
                        client,
                        in_transaction: AtomicBool::new(false),
                        dead: AtomicBool::new(false),
                        closing: Mutex::default(),
                    });
                }
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    pub fn client(&self) -> &Client {
        &self.client
    }

    /// OCI_ATTR_SERVER_STATUS: as far as is known without asking.
    pub fn usable(&self) -> bool {
        self.client.alive() && !self.dead.load(SeqCst)
    }

    /// Whether a transaction was open after the last call.
    pub fn in_transaction(&self) -> bool {
        self.in_transaction.load(SeqCst)
    }

    /// Lets go of a cursor; the server hears of it with the next call.
    pub fn close_cursor(&self, cursor: u32) {
        lock(&self.closing).push(cursor);
    }

    fn note(&self, error: &OraError) {
        if matches!(error.code, 28 | 1012 | 1092 | 3113 | 3114 | 3135) {
            self.dead.store(true, SeqCst);
        }
    }
}

fn attach(target: &Target, service: &str) -> Result<Client, OraError> {
    let stream = Stream::connect(target).map_err(|error| unreachable_target(target, &error))?;
    Client::attach(stream, service).map_err(|error| match error {
        WireError::Refused(error) => error,
        WireError::TimedOut(_) => OraError::new(12170, "TNS:Connect timeout occurred"),
        _ => OraError::new(12537, "TNS:connection closed"),
    })
}

fn unreachable_target(target: &Target, error: &io::Error) -> OraError {
    match (target, error.kind()) {
        (Target::Unix(_), _) => OraError::new(1034, "ORACLE not available"),
        (_, io::ErrorKind::ConnectionRefused) => OraError::new(12541, "TNS:no listener"),
        (_, io::ErrorKind::TimedOut) => OraError::new(12170, "TNS:Connect timeout occurred"),
        (_, io::ErrorKind::HostUnreachable | io::ErrorKind::NetworkUnreachable) => {
            OraError::new(12543, "TNS:destination host unreachable")
        }
        _ => OraError::new(
            12545,
            "Connect failed because target host or object does not exist",
        ),
    }
}

impl Service {
    /// The way to the server that this service context names.
    ///
    /// # Errors
    /// ORA-03114 where its server is not attached.
    pub fn link(&self) -> Result<Link, Fault> {
        let (server, session) = (self.server.load(SeqCst), self.session.load(SeqCst));
        // SAFETY: OCI's contract: a service context is used only as long as
        // the handles it names live.
        let server = unsafe { handles::server(server) }?;
        let tags = if session.is_null() {
            None
        } else {
            // SAFETY: as above.
            Some(Arc::clone(&unsafe { handles::session(session) }?.tags))
        };
        let connection = lock(&server.connection).clone().ok_or_else(not_connected)?;
        Ok(Link {
            connection,
            call_timeout: Arc::clone(&self.call_timeout),
            tags,
        })
    }
}

fn not_connected() -> OraError {
    OraError::new(3114, "not connected to ORACLE")
}

impl Link {
    /// A link without a service context, for the library's own questions.
    pub fn bare(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            call_timeout: Arc::default(),
            tags: None,
        }
    }

    /// Makes a call under the call timeout.
    ///
    /// # Errors
    /// What the server says; ORA-03136 after the timeout, ORA-03113 where the
    /// connection breaks and ORA-03114 where it is broken already.
    pub fn call(&self, request: Request) -> Result<Answer, OraError> {
        if !self.connection.client.alive() {
            return Err(not_connected());
        }
        let close = std::mem::take(&mut *lock(&self.connection.closing));
        let timeout = match self.call_timeout.load(SeqCst) {
            0 => None,
            millis => Some(Duration::from_millis(millis.into())),
        };
        let result = match self
            .connection
            .client
            .call(request, close, self.take_tags(), timeout)
        {
            Ok(Outcome::Answered(response)) => self.settle(response),
            Ok(Outcome::TimedOut(response)) => self.settle(late(response)),
            Err(WireError::TooLong(size)) => Err(OraError::new(
                1460,
                format!(
                    "unimplemented or unreasonable conversion requested: {size} bytes in one call"
                ),
            )),
            Err(_) => Err(OraError::new(3113, "end-of-file on communication channel")),
        };
        result.inspect_err(|error| self.connection.note(error))
    }

    /// Executes one statement that has no binds.
    pub fn execute(&self, sql: &str) -> Result<Vec<Reply>, OraError> {
        let rows = vec![Vec::new()];
        let execute = Execute {
            sql: sql.to_owned(),
            rows,
            commit: false,
            keep_going: false,
            first_rows: 1,
        };
        match self.call(Request::Execute(execute))? {
            Answer::Executed { mut failed, .. } if !failed.is_empty() => {
                Err(failed.swap_remove(0).error)
            }
            Answer::Executed {
                replies, cursor, ..
            } => {
                if let Some(cursor) = cursor {
                    self.connection.close_cursor(cursor);
                }
                Ok(replies)
            }
            _ => Err(protocol_error()),
        }
    }

    /// Asks the server for its names.
    pub fn names(&self) -> Result<Names, OraError> {
        let replies = self.execute(
            "SELECT SYS_CONTEXT('USERENV','DB_NAME'), SYS_CONTEXT('USERENV','INSTANCE_NAME'), \
             SYS_CONTEXT('USERENV','SERVICE_NAME') FROM DUAL",
        )?;
        let Some(Reply::Rows { rows, .. }) = replies.into_iter().next() else {
            return Err(protocol_error());
        };
        let mut names = rows.into_iter().flatten().map(|value| match value {
            Value::Text(text) => text,
            _ => String::new(),
        });
        Ok(Names {
            database: names.next().unwrap_or_default(),
            instance: names.next().unwrap_or_default(),
            service: names.next().unwrap_or_default(),
        })
    }

    /// Lets go of a cursor, and makes a call for it where many wait.
    pub fn close_cursor(&self, cursor: u32) {
        self.connection.close_cursor(cursor);
        if lock(&self.connection.closing).len() >= MAX_WAITING_CURSORS {
            // Its failure shows in the next call, where somebody waits for it.
            let _ = self.call(Request::Ping);
        }
    }

    fn take_tags(&self) -> Option<Tags> {
        let tags = std::mem::take(&mut *lock(self.tags.as_ref()?));
        (tags != Tags::default()).then_some(tags)
    }

    fn settle(&self, response: Response) -> Result<Answer, OraError> {
        self.connection
            .in_transaction
            .store(response.in_transaction, SeqCst);
        if let Ok(Answer::Executed { failed, .. }) = &response.result {
            failed
                .iter()
                .for_each(|row| self.connection.note(&row.error));
        }
        response.result
    }
}

/// An answer that has nothing to do with the question.
pub fn protocol_error() -> OraError {
    OraError::new(3106, "fatal two-task communication protocol error")
}

/// The answer to a call that was cancelled because its time was up. A call
/// that ended by itself in the meantime keeps its own result.
fn late(mut response: Response) -> Response {
    let timed_out = |error: &mut OraError| {
        if error.code == 1013 {
            *error = OraError::new(3136, "inbound connection timed out");
        }
    };
    match &mut response.result {
        Err(error) => timed_out(error),
        Ok(Answer::Executed { failed, .. }) => {
            failed.iter_mut().for_each(|row| timed_out(&mut row.error))
        }
        Ok(_) => {}
    }
    response
}
