//! The private protocol between the client library double and the simulator.
//!
//! A connection opens with [`MAGIC`] and [`VERSION`] and then carries frames:
//! a length of four bytes, big-endian, and that many bytes of JSON. The client
//! says [`Hello`], hears [`Welcome`], and from then on sends one [`Call`] at a
//! time and waits for its [`Response`]. The only thing it may send while a
//! call runs is [`Message::Cancel`], on the same connection: a session whose
//! listener has been closed can still be interrupted, and no second socket has
//! to find its way to the first one's session. The server therefore reads on a
//! thread of its own.
//!
//! A call timeout is the client's affair: it waits so long, sends a cancel and
//! waits [`CANCEL_GRACE`] for the answer, after which the connection is given
//! up, as the real library gives it up when a break goes unanswered.
//!
//! The protocol is not Oracle Net and does no encryption; it lives on
//! loopback and Unix sockets inside a rehearsal.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream, ToSocketAddrs};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

use crate::api::{Bind, Column, OraError, Reply, Tags, Value};

/// The first bytes of a connection. A TNS connect packet has zero bytes at
/// offsets 2 and 3 (its checksum), so the listener can tell the two apart.
pub const MAGIC: [u8; 4] = *b"LKSO";

/// Version of the protocol, the byte after [`MAGIC`].
pub const VERSION: u8 = 1;

/// Longest frame: room for an array of 1,000 rows of the widest VARCHAR2 with
/// every byte escaped, and a bound on what a broken peer can make us allocate.
pub const MAX_FRAME: usize = 64 << 20;

/// How long a connection may take to be made; the real client's default for
/// TCP connects is a minute, too long for a rehearsal on one machine.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// How long the peer may take to say [`Welcome`].
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(20);

/// How long a cancelled call may take to end before the connection is given up.
pub const CANCEL_GRACE: Duration = Duration::from_secs(30);

/// What the client asks for when it connects.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// Service name; empty for bequeath.
    pub service: String,
}

/// The server's answer to [`Hello`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Welcome {
    /// The release banner that OCIServerRelease gives.
    pub banner: String,
    /// The release as OCI packs it: major version in the top byte.
    pub release: u32,
}

/// Who logs in, and what the client says about its process.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Logon {
    /// User and password; `None` asks the operating system to vouch.
    pub password: Option<(String, String)>,
    /// AS SYSDBA.
    pub sysdba: bool,
    /// V$SESSION.MACHINE.
    pub machine: String,
    /// V$SESSION.PROGRAM.
    pub program: String,
    /// V$SESSION.OSUSER.
    pub os_user: String,
    /// V$SESSION.PROCESS.
    pub process: String,
}

/// One statement with the bind rows it is to be executed with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execute {
    /// The statement.
    pub sql: String,
    /// One entry per execution; a statement without binds has one empty row.
    pub rows: Vec<Vec<Bind>>,
    /// Commit after the last row, if none failed.
    pub commit: bool,
    /// Go on after a row that failed and report each failure.
    pub keep_going: bool,
    /// How many rows of a query come with the answer.
    pub first_rows: u32,
}

/// What a call asks for.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Request {
    /// Opens the session; one per connection.
    Logon(Logon),
    /// Executes.
    Execute(Execute),
    /// Describes a query without executing it.
    Describe {
        /// The query.
        sql: String,
    },
    /// The next rows of a query.
    Fetch {
        /// From [`Answer::Executed`].
        cursor: u32,
        /// At most so many.
        rows: u32,
    },
    /// COMMIT.
    Commit,
    /// ROLLBACK.
    Rollback,
    /// A round trip.
    Ping,
    /// Ends the session in good order.
    Logoff,
}

/// A request with what rides along on it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Call {
    /// Counts up from 1; a cancel names the call it means.
    pub id: u64,
    /// Cursors the client no longer needs.
    pub close: Vec<u32>,
    /// End-to-end attributes set since the last call.
    pub tags: Option<Tags>,
    /// What is asked.
    pub request: Request,
}

/// Everything a client sends after [`Hello`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Message {
    /// Asks; answered by one [`Response`].
    Call(Box<Call>),
    /// Interrupts the call of that id if it still runs; not answered.
    Cancel {
        /// [`Call::id`].
        call: u64,
    },
}

/// A failed row of an array execution.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct RowError {
    /// Index of the row, from 0.
    pub row: u32,
    /// Why.
    pub error: OraError,
}

/// What a call gives back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Request::Logon`].
    LoggedOn {
        /// V$SESSION.SID.
        sid: u32,
        /// V$SESSION.SERIAL#.
        serial: u32,
    },
    /// To [`Request::Execute`].
    Executed {
        /// One reply per row that succeeded, in order; a query's holds the
        /// first rows only.
        replies: Vec<Reply>,
        /// Where a query has more rows, the cursor to fetch them from.
        cursor: Option<u32>,
        /// The rows that failed.
        failed: Vec<RowError>,
    },
    /// To [`Request::Describe`].
    Described {
        /// The columns.
        columns: Vec<Column>,
    },
    /// To [`Request::Fetch`].
    Fetched {
        /// The rows.
        rows: Vec<Vec<Value>>,
        /// Whether there are more; if not, the cursor is closed.
        more: bool,
    },
    /// To everything else.
    Done,
}

/// The server's answer to a [`Call`].
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Response {
    /// What came of it.
    pub result: Result<Answer, OraError>,
    /// Whether a transaction is open now.
    pub in_transaction: bool,
}

/// Why a connection could not be made or used any longer.
#[derive(Debug, thiserror::Error)]
pub enum WireError {
    /// The peer ended the connection or the operating system did.
    #[error("the connection was lost")]
    Lost(#[source] io::Error),
    /// The answer did not come in time.
    #[error("no answer within {0:?}")]
    TimedOut(Duration),
    /// A frame longer than [`MAX_FRAME`].
    #[error("a frame of {0} bytes is longer than the protocol allows ({MAX_FRAME})")]
    TooLong(usize),
    /// Bytes that are not this protocol.
    #[error("the peer does not speak the protocol")]
    Malformed(#[source] serde_json::Error),
    /// A peer of another version.
    #[error("the peer speaks version {theirs} of the protocol, not {VERSION}")]
    Version {
        /// Its version.
        theirs: u8,
    },
    /// The peer refused.
    #[error("refused")]
    Refused(#[source] OraError),
}

/// Where a server listens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    /// A Unix socket of an instance.
    Unix(PathBuf),
    /// A listener.
    Tcp {
        /// Host name or address.
        host: String,
        /// Port.
        port: u16,
    },
}

/// A byte stream of either kind.
#[derive(Debug)]
pub enum Stream {
    /// Over a Unix socket.
    Unix(UnixStream),
    /// Over TCP.
    Tcp(TcpStream),
}

impl Stream {
    /// Connects, bounded by [`CONNECT_TIMEOUT`].
    pub fn connect(target: &Target) -> io::Result<Self> {
        match target {
            Target::Unix(path) => UnixStream::connect(path).map(Self::Unix),
            Target::Tcp { host, port } => {
                let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
                for address in (host.as_str(), *port).to_socket_addrs()? {
                    match TcpStream::connect_timeout(&address, CONNECT_TIMEOUT) {
                        Ok(stream) => {
                            stream.set_nodelay(true)?;
                            return Ok(Self::Tcp(stream));
                        }
                        Err(error) => last = error,
                    }
                }
                Err(last)
            }
        }
    }

    /// Another handle to the same stream.
    pub fn try_clone(&self) -> io::Result<Self> {
        match self {
            Self::Unix(stream) => stream.try_clone().map(Self::Unix),
            Self::Tcp(stream) => stream.try_clone().map(Self::Tcp),
        }
    }

    /// Bounds every later read; `None` waits for ever.
    pub fn set_read_timeout(&self, timeout: Option<Duration>) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.set_read_timeout(timeout),
            Self::Tcp(stream) => stream.set_read_timeout(timeout),
        }
    }

    /// Ends the connection for every handle to it.
    pub fn close(&self) {
        // A peer that has already gone makes this fail; it is gone either way.
        let _ = match self {
            Self::Unix(stream) => stream.shutdown(Shutdown::Both),
            Self::Tcp(stream) => stream.shutdown(Shutdown::Both),
        };
    }
}

impl Read for Stream {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.read(buffer),
            Self::Tcp(stream) => stream.read(buffer),
        }
    }
}

impl Write for Stream {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Self::Unix(stream) => stream.write(bytes),
            Self::Tcp(stream) => stream.write(bytes),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        match self {
            Self::Unix(stream) => stream.flush(),
            Self::Tcp(stream) => stream.flush(),
        }
    }
}

/// Sends one frame.
pub fn send<T: Serialize>(stream: &mut impl Write, message: &T) -> Result<(), WireError> {
    let mut frame = vec![0; 4];
    serde_json::to_writer(&mut frame, message).map_err(WireError::Malformed)?;
    let length = frame.len() - 4;
    if length > MAX_FRAME {
        return Err(WireError::TooLong(length));
    }
    let prefix = u32::try_from(length).map_err(|_| WireError::TooLong(length))?;
    frame[..4].copy_from_slice(&prefix.to_be_bytes());
    stream.write_all(&frame).map_err(WireError::Lost)
}

/// Receives frames. A read that times out in the middle of a frame loses
/// nothing: the next call goes on where it stood.
#[derive(Debug)]
pub struct Receiver {
    stream: Stream,
    pending: Vec<u8>,
}

impl Receiver {
    /// Reads from that stream.
    pub fn new(stream: Stream) -> Self {
        Self {
            stream,
            pending: Vec::new(),
        }
    }

    /// The next frame, by `deadline` if there is one.
    pub fn receive<T: DeserializeOwned>(
        &mut self,
        deadline: Option<Instant>,
    ) -> Result<T, WireError> {
        self.fill(4, deadline)?;
        let mut prefix = [0; 4];
        prefix.copy_from_slice(&self.pending[..4]);
        let length = u32::from_be_bytes(prefix) as usize;
        if length > MAX_FRAME {
            return Err(WireError::TooLong(length));
        }
        self.fill(4 + length, deadline)?;
        let message = serde_json::from_slice(&self.pending[4..4 + length]);
        self.pending.drain(..4 + length);
        message.map_err(WireError::Malformed)
    }

    /// Checks the opening bytes of a connection: [`MAGIC`] and [`VERSION`].
    pub fn expect_magic(&mut self, deadline: Option<Instant>) -> Result<(), WireError> {
        self.fill(MAGIC.len() + 1, deadline)?;
        if self.pending[..MAGIC.len()] != MAGIC {
            return Err(WireError::Lost(io::ErrorKind::InvalidData.into()));
        }
        let theirs = self.pending[MAGIC.len()];
        self.pending.drain(..=MAGIC.len());
        if theirs == VERSION {
            Ok(())
        } else {
            Err(WireError::Version { theirs })
        }
    }

    fn fill(&mut self, wanted: usize, deadline: Option<Instant>) -> Result<(), WireError> {
        let started = Instant::now();
        let mut chunk = [0; 64 * 1024];
        while self.pending.len() < wanted {
            let left = deadline.map(|deadline| deadline.saturating_duration_since(Instant::now()));
            if left.is_some_and(|left| left.is_zero()) {
                return Err(WireError::TimedOut(started.elapsed()));
            }
            self.stream
                .set_read_timeout(left)
                .map_err(WireError::Lost)?;
            match self.stream.read(&mut chunk) {
                Ok(0) => return Err(WireError::Lost(io::ErrorKind::UnexpectedEof.into())),
                Ok(read) => self.pending.extend_from_slice(&chunk[..read]),
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error)
                    if matches!(
                        error.kind(),
                        io::ErrorKind::WouldBlock | io::ErrorKind::TimedOut
                    ) => {}
                Err(error) => return Err(WireError::Lost(error)),
            }
        }
        Ok(())
    }
}

/// How a call ended on the client's side.
#[derive(Debug)]
pub enum Outcome {
    /// The server answered.
    Answered(Response),
    /// The call's own timeout ran out and the server confirmed the cancel; the
    /// session can be used again.
    TimedOut(Response),
}

/// The client's end of a connection. Calls are made one at a time; a cancel
/// may come from any thread.
#[derive(Debug)]
pub struct Client {
    welcome: Welcome,
    stream: Stream,
    writer: Mutex<Stream>,
    receiver: Mutex<Receiver>,
    calls: AtomicU64,
    running: AtomicU64,
    alive: AtomicBool,
}

impl Client {
    /// Greets the server over a fresh stream.
    pub fn attach(stream: Stream, service: &str) -> Result<Self, WireError> {
        let deadline = Some(Instant::now() + HANDSHAKE_TIMEOUT);
        let mut writer = stream.try_clone().map_err(WireError::Lost)?;
        let mut receiver = Receiver::new(stream.try_clone().map_err(WireError::Lost)?);
        let mut opening = MAGIC.to_vec();
        opening.push(VERSION);
        writer.write_all(&opening).map_err(WireError::Lost)?;
        send(
            &mut writer,
            &Hello {
                service: service.to_owned(),
            },
        )?;
        let answer: Result<Welcome, OraError> = receiver.receive(deadline)?;
        Ok(Self {
            welcome: answer.map_err(WireError::Refused)?,
            stream,
            writer: Mutex::new(writer),
            receiver: Mutex::new(receiver),
            calls: AtomicU64::new(0),
            running: AtomicU64::new(0),
            alive: AtomicBool::new(true),
        })
    }

    /// What the server said of itself.
    pub fn welcome(&self) -> &Welcome {
        &self.welcome
    }

    /// Whether the connection can still be used, as far as is known without
    /// asking.
    pub fn alive(&self) -> bool {
        self.alive.load(Ordering::SeqCst)
    }

    /// Ends the connection.
    pub fn close(&self) {
        self.alive.store(false, Ordering::SeqCst);
        self.stream.close();
    }

    /// Makes a call and waits for its answer; after `timeout` it is cancelled.
    /// After an error the connection is of no more use.
    pub fn call(
        &self,
        request: Request,
        close: Vec<u32>,
        tags: Option<Tags>,
        timeout: Option<Duration>,
    ) -> Result<Outcome, WireError> {
        let mut receiver = lock(&self.receiver);
        let id = self.calls.fetch_add(1, Ordering::SeqCst) + 1;
        let call = Call {
            id,
            close,
            tags,
            request,
        };
        let deadline = timeout.map(|timeout| Instant::now() + timeout);
        self.running.store(id, Ordering::SeqCst);
        let result = self.exchange(&mut receiver, call, deadline);
        self.running.store(0, Ordering::SeqCst);
        // A frame that was refused before a byte of it left does no harm.
        if result
            .as_ref()
            .is_err_and(|error| !matches!(error, WireError::TooLong(_)))
        {
            self.close();
        }
        result
    }

    /// Interrupts the running call, if any.
    pub fn cancel(&self) -> Result<(), WireError> {
        match self.running.load(Ordering::SeqCst) {
            0 => Ok(()),
            call => send(&mut *lock(&self.writer), &Message::Cancel { call }),
        }
    }

    fn exchange(
        &self,
        receiver: &mut Receiver,
        call: Call,
        deadline: Option<Instant>,
    ) -> Result<Outcome, WireError> {
        send(&mut *lock(&self.writer), &Message::Call(Box::new(call)))?;
        match receiver.receive(deadline) {
            Ok(response) => Ok(Outcome::Answered(response)),
            Err(WireError::TimedOut(_)) => {
                self.cancel()?;
                let grace = Some(Instant::now() + CANCEL_GRACE);
                receiver.receive(grace).map(Outcome::TimedOut)
            }
            Err(error) => Err(error),
        }
    }
}

/// A poisoned lock is taken all the same: nothing here is left half-written.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pair() -> (Stream, Stream) {
        let (a, b) = UnixStream::pair().unwrap();
        (Stream::Unix(a), Stream::Unix(b))
    }

    #[test]
    fn a_frame_survives_being_torn_anywhere() {
        let mut whole = Vec::new();
        send(
            &mut whole,
            &Hello {
                service: "ORCL".into(),
            },
        )
        .unwrap();
        for cut in 0..whole.len() {
            let (mut near, far) = pair();
            let mut receiver = Receiver::new(far);
            near.write_all(&whole[..cut]).unwrap();
            let soon = Some(Instant::now() + Duration::from_millis(1));
            let early: Result<Hello, _> = receiver.receive(soon);
            assert!(
                matches!(early, Err(WireError::TimedOut(_))),
                "cut at {cut}: {early:?}"
            );
            near.write_all(&whole[cut..]).unwrap();
            let hello: Hello = receiver.receive(None).unwrap();
            assert_eq!(hello.service, "ORCL");
        }
    }

    #[test]
    fn a_frame_that_claims_too_much_is_refused_before_it_is_read() {
        let (mut near, far) = pair();
        near.write_all(&u32::MAX.to_be_bytes()).unwrap();
        let refused: Result<Hello, _> = Receiver::new(far).receive(None);
        assert!(matches!(refused, Err(WireError::TooLong(length)) if length == u32::MAX as usize));
    }

    #[test]
    fn a_peer_of_another_version_is_named() {
        let (mut near, far) = pair();
        near.write_all(b"LKSO\x09").unwrap();
        let refused = Receiver::new(far).expect_magic(None);
        assert!(matches!(refused, Err(WireError::Version { theirs: 9 })));
    }
}
