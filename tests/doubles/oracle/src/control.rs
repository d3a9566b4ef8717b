//! The control socket, `$ORACLE_HOME/dbs/control.sock`: how the `lsnrctl` and
//! `srvctl` doubles reach the listeners of their host, and how the range
//! observes the database and injects faults.
//!
//! One request a line, one response a line, both JSON, on a Unix socket;
//! any number of requests to a connection. A socket belongs to one host and
//! speaks of that host's listeners.
//!
//! | request | response |
//! |---|---|
//! | `{"op":"listeners"}` | `{"ok":[STATUS, …]}` of this host |
//! | `{"op":"start","name":"LISTENER","by":"lsnrctl"}` | `{"ok":STATUS}` |
//! | `{"op":"stop","name":"LISTENER","by":"srvctl"}` | `{"ok":STATUS}` |
//! | `{"op":"enable","name":"LISTENER"}`, `"disable"` | `{"ok":STATUS}` |
//! | `{"op":"arrange","name":"LISTENER","with":{"registered":[…], …}}` | `{"ok":STATUS}`: what lies around a listener, see [`listener::Arrangement`] |
//! | `{"op":"observe"}` | `{"ok":{…}}`: the engine's observation, and under `listeners` those of all hosts |
//! | `{"op":"commits_after","scn":N}` | `{"ok":{USER:COUNT, …}}` |
//! | `{"op":"commit_at","scn":N}` | `{"ok":MS}`: when the transaction with that commit SCN committed, milliseconds since 1970; null for none |
//! | `{"op":"inject","fault":{"statement_contains":"…","ora_code":N,"times":N}}` | `{"ok":null}` |
//! | `{"op":"clear_faults"}` | `{"ok":null}` |
//! | `{"op":"set_environment","with":{"failover":"SYNCHRONIZED", …}}` | `{"ok":null}`: what lies around the database, see [`crate::engine::Environment`] |
//! | `{"op":"delete_archived","thread":N,"sequence":N}` | `{"ok":null}`: the file of an archived log is gone |
//!
//! STATUS is [`listener::Status`]. A failure is
//! `{"error":{"kind":"not_running","message":"…"}}`; the kinds are those of
//! [`listener::Error::kind`], `request` for a line that is no request and
//! `fault` for a fault that the engine refuses.

use crate::engine::Engine;
use crate::listener::{self, Arrangement, Manager, Requester};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::io::{self, BufRead, BufReader, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// Longest request; faults carry a piece of a statement.
const LINE_MAX: u64 = 1 << 20;
/// Connections at a time; doubles and the range open one each for a moment.
const CONNECTIONS_MAX: usize = 64;
/// Time that a caller waits for a response. Starting and stopping a listener
/// takes milliseconds, an observation of a large history a second or so.
const CALL_TIMEOUT: Duration = Duration::from_secs(30);

/// What the engine lets the range see and do.
pub trait Observed: Send + Sync + 'static {
    /// The state of the database as an independent checker wants it.
    fn observe(&self) -> Value;
    /// Commits per user after an SCN.
    fn commits_after(&self, scn: u64) -> Value;
    /// When the transaction with that commit SCN committed.
    fn commit_at(&self, scn: u64) -> Value;
    /// Plants a fault; the error says what is wrong with its description.
    fn inject(&self, fault: Value) -> Result<(), String>;
    /// Takes every fault away.
    fn clear_faults(&self);
    /// Says what lies around the database; the error says what is wrong with
    /// its description.
    fn set_environment(&self, with: Value) -> Result<(), String>;
    /// Removes the file of an archived log; the error says that there is none.
    fn delete_archived(&self, thread: u32, sequence: u64) -> Result<(), String>;
}

impl Observed for Engine {
    fn observe(&self) -> Value {
        Engine::observe(self)
    }

    fn commits_after(&self, scn: u64) -> Value {
        Engine::commits_after(self, scn)
    }

    fn commit_at(&self, scn: u64) -> Value {
        Engine::commit_at(self, scn)
    }

    fn inject(&self, fault: Value) -> Result<(), String> {
        let fault =
            serde_json::from_value(fault).map_err(|error| format!("not a fault: {error}"))?;
        Engine::inject(self, fault);
        Ok(())
    }

    fn clear_faults(&self) {
        Engine::clear_faults(self);
    }

    fn set_environment(&self, with: Value) -> Result<(), String> {
        let with =
            serde_json::from_value(with).map_err(|error| format!("not environment: {error}"))?;
        Engine::set_environment(self, with);
        Ok(())
    }

    fn delete_archived(&self, thread: u32, sequence: u64) -> Result<(), String> {
        if Engine::delete_archived(self, thread, sequence) {
            Ok(())
        } else {
            Err(format!("thread {thread} has no archived log {sequence}"))
        }
    }
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "op", rename_all = "snake_case", deny_unknown_fields)]
pub enum Request {
    /// The listeners of this host.
    Listeners,
    /// Opens a listener's port.
    Start { name: String, by: Requester },
    /// Closes a listener's port.
    Stop { name: String, by: Requester },
    /// Lets Clusterware start it.
    Enable { name: String },
    /// Keeps Clusterware from starting it.
    Disable { name: String },
    /// What lies around a listener.
    Arrange { name: String, with: Arrangement },
    /// The state of the database.
    Observe,
    /// Commits per user after an SCN.
    CommitsAfter { scn: u64 },
    /// When a transaction committed.
    CommitAt { scn: u64 },
    /// Takes every fault away.
    ClearFaults,
    /// What lies around the database.
    Surround {
        /// As the engine describes it.
        with: Value,
    },
    /// Removes the file of an archived log.
    DeleteArchived { thread: u32, sequence: u64 },
    Inject {
        /// As the engine describes it.
        fault: Value,
    },
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Response {
    /// Done; what was asked for.
    Ok(Value),
    Error(Failure),
}

/// Why a request was not carried out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{message}")]
pub struct Failure {
    pub kind: String,
    pub message: String,
}

impl From<listener::Error> for Failure {
    fn from(error: listener::Error) -> Self {
        let cause = std::error::Error::source(&error).map(|source| format!(": {source}"));
        let message = format!("{error}{}", cause.unwrap_or_default());
        Self {
            kind: error.kind().to_owned(),
            message,
        }
    }
}

/// What a control socket serves.
pub struct Control {
    /// The host it belongs to.
    pub host: String,
    pub listeners: Arc<Manager>,
    pub engine: Arc<dyn Observed>,
}

impl Control {
    fn answer(&self, line: &str) -> Response {
        let outcome = serde_json::from_str(line)
            .map_err(|error| Failure {
                kind: "request".to_owned(),
                message: format!("not a request: {error}"),
            })
            .and_then(|request| self.perform(request));
        match outcome {
            Ok(value) => Response::Ok(value),
            Err(failure) => Response::Error(failure),
        }
    }

    fn perform(&self, request: Request) -> Result<Value, Failure> {
        let (host, listeners) = (self.host.as_str(), &self.listeners);
        let status = match request {
            Request::Listeners => return json(&listeners.list(Some(host))),
            Request::Observe => {
                let mut state = self.engine.observe();
                if let Some(fields) = state.as_object_mut() {
                    fields.insert("listeners".to_owned(), json(&listeners.list(None))?);
                }
                return Ok(state);
            }
            Request::Inject { fault } => return planted(self.engine.inject(fault)),
            Request::Surround { with } => return planted(self.engine.set_environment(with)),
            Request::DeleteArchived { thread, sequence } => {
                return planted(self.engine.delete_archived(thread, sequence));
            }
            Request::CommitsAfter { scn } => return Ok(self.engine.commits_after(scn)),
            Request::CommitAt { scn } => return Ok(self.engine.commit_at(scn)),
            Request::ClearFaults => {
                self.engine.clear_faults();
                return Ok(Value::Null);
            }
            Request::Start { name, by } => listeners.start(host, &name, by)?,
            Request::Stop { name, by } => listeners.stop(host, &name, by)?,
            Request::Enable { name } => listeners.enable(host, &name)?,
            Request::Disable { name } => listeners.disable(host, &name)?,
            Request::Arrange { name, with } => listeners.arrange(host, &name, with)?,
        };
        json(&status)
    }
}

fn planted(outcome: Result<(), String>) -> Result<Value, Failure> {
    outcome.map(|()| Value::Null).map_err(|message| Failure {
        kind: "fault".to_owned(),
        message,
    })
}

fn json(value: &impl Serialize) -> Result<Value, Failure> {
    serde_json::to_value(value).map_err(|error| Failure {
        kind: "request".to_owned(),
        message: error.to_string(),
    })
}

/// A control socket that is being served. Dropping it stops that and removes
/// the file.
pub struct Server {
    path: PathBuf,
    stopping: Arc<AtomicBool>,
    acceptor: Option<JoinHandle<()>>,
}

impl Drop for Server {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        // The acceptor wakes up for a connection and sees the flag.
        drop(UnixStream::connect(&self.path));
        if let Some(acceptor) = self.acceptor.take() {
            // A panic of the acceptor has been reported by the panic hook.
            let _ = acceptor.join();
        }
        // Somebody may have removed the file already.
        let _ = std::fs::remove_file(&self.path);
    }
}

/// Serves a control socket at `path`, replacing a stale file.
///
/// # Errors
/// When the directory can't be made or the socket can't be bound.
pub fn serve(path: &Path, control: Control) -> io::Result<Server> {
    if let Some(directory) = path.parent() {
        std::fs::create_dir_all(directory)?;
    }
    match std::fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
        _ => {}
    }
    let socket = UnixListener::bind(path)?;
    let stopping = Arc::new(AtomicBool::new(false));
    let flag = Arc::clone(&stopping);
    let acceptor = std::thread::Builder::new()
        .name("control".to_owned())
        .spawn(move || accept(&socket, &Arc::new(control), &flag))?;
    Ok(Server {
        path: path.to_owned(),
        stopping,
        acceptor: Some(acceptor),
    })
}

fn accept(socket: &UnixListener, control: &Arc<Control>, stopping: &AtomicBool) {
    let open = Arc::new(AtomicUsize::new(0));
    for stream in socket.incoming() {
        if stopping.load(Ordering::SeqCst) {
            return;
        }
        let Ok(stream) = stream else { continue };
        if open.fetch_add(1, Ordering::SeqCst) >= CONNECTIONS_MAX {
            open.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(CONNECTIONS_MAX, "control: too many connections");
            continue;
        }
        let (control, count) = (Arc::clone(control), Arc::clone(&open));
        let spawned = std::thread::Builder::new()
            .name("control-call".to_owned())
            .spawn(move || {
                if let Err(error) = converse(&stream, &control) {
                    tracing::debug!(%error, "control: connection ended");
                }
                count.fetch_sub(1, Ordering::SeqCst);
            });
        if let Err(error) = spawned {
            open.fetch_sub(1, Ordering::SeqCst);
            tracing::warn!(%error, "control: no thread for a connection");
        }
    }
}

fn converse(stream: &UnixStream, control: &Control) -> io::Result<()> {
    let mut reader = BufReader::new(stream);
    loop {
        let mut line = String::new();
        if reader.by_ref().take(LINE_MAX).read_line(&mut line)? == 0 {
            return Ok(());
        }
        let mut response = serde_json::to_vec(&control.answer(&line))?;
        response.push(b'\n');
        let mut writer = stream;
        writer.write_all(&response)?;
    }
}

/// Why a call got no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// Nothing listens at the control socket, or it went away.
    #[error("the simulator does not answer at {path}")]
    Unreachable { path: PathBuf, source: io::Error },
    /// The answer can't be understood.
    #[error("the simulator at {path} gave an answer that is none")]
    Garbled {
        path: PathBuf,
        source: serde_json::Error,
    },
    /// The request was refused.
    #[error(transparent)]
    Refused(Failure),
}

/// Makes one request.
///
/// # Errors
/// When nobody answers within 30 seconds, or the request is refused.
pub fn call<T: serde::de::DeserializeOwned>(
    path: &Path,
    request: &Request,
) -> Result<T, CallError> {
    let garbled = |source| CallError::Garbled {
        path: path.to_owned(),
        source,
    };
    let mut line = serde_json::to_vec(request).map_err(garbled)?;
    line.push(b'\n');
    let response = exchange(path, &line).map_err(|source| CallError::Unreachable {
        path: path.to_owned(),
        source,
    })?;
    match serde_json::from_str(&response).map_err(garbled)? {
        Response::Ok(value) => serde_json::from_value(value).map_err(garbled),
        Response::Error(failure) => Err(CallError::Refused(failure)),
    }
}

fn exchange(path: &Path, line: &[u8]) -> io::Result<String> {
    let mut stream = UnixStream::connect(path)?;
    stream.set_read_timeout(Some(CALL_TIMEOUT))?;
    stream.set_write_timeout(Some(CALL_TIMEOUT))?;
    stream.write_all(line)?;
    let mut response = String::new();
    match BufReader::new(stream).read_line(&mut response)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        _ => Ok(response),
    }
}
