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

mod client;
mod frame;

use crate::api::{Bind, Column, OraError, Reply, Tags, Value};
pub use client::{Client, Outcome};
pub use frame::{Receiver, Stream, Target, WireError, send};
use serde::{Deserialize, Serialize};
use std::time::Duration;

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

/// How long the peer may take to say [`Welcome`]. The real client waits a
/// minute over TCP and without a bound over bequeath: who wants less has to
/// see to it himself.
pub const HANDSHAKE_TIMEOUT: Duration = Duration::from_secs(60);

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
    pub sysdba: bool,
    pub machine: String,
    pub program: String,
    pub os_user: String,
    pub process: String,
}

/// One statement with the bind rows it is to be executed with.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Execute {
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
    Execute(Execute),
    /// Describes a query without executing it.
    Describe {
        sql: String,
    },
    /// The next rows of a query.
    Fetch {
        /// From [`Answer::Executed`].
        cursor: u32,
        /// At most so many.
        rows: u32,
    },
    Commit,
    Rollback,
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
    pub error: OraError,
}

/// What a call gives back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Answer {
    /// To [`Request::Logon`].
    LoggedOn {
        sid: u32,
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
        columns: Vec<Column>,
    },
    /// To [`Request::Fetch`].
    Fetched {
        rows: Vec<Vec<Value>>,
        /// Whether there are more; if not, the cursor is closed.
        more: bool,
    },
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
