//! The interface between frontends and engine: values, errors, logins, sessions.
//!
//! Both frontends (bequeath for the client library, TNS for thin drivers) speak
//! to the engine through this file alone, so that a statement means the same
//! whichever frontend it uses. The types serialise: the bequeath frontend sends
//! them over its Unix socket as they are.

use serde::{Deserialize, Serialize};

/// A value as Oracle would hold it. An empty string is NULL, as in Oracle.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Value {
    /// NULL, the empty string included.
    Null,
    /// VARCHAR2, CHAR (already padded), CLOB text.
    Text(String),
    /// NUMBER, as plain decimal text such as `-12.5`; never in exponent form.
    Number(String),
    /// DATE (`nanos` = 0) and TIMESTAMP.
    DateTime(DateTime),
    Raw(Vec<u8>),
}

/// A point in time without a zone, as DATE and TIMESTAMP hold it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct DateTime {
    /// Year, 1 to 9999.
    pub year: i16,
    /// Month, 1 to 12.
    pub month: u8,
    /// Day of the month, 1 to 31.
    pub day: u8,
    /// Hour, 0 to 23.
    pub hour: u8,
    /// Minute, 0 to 59.
    pub minute: u8,
    /// Second, 0 to 59.
    pub second: u8,
    /// Nanoseconds; 0 for DATE.
    pub nanos: u32,
}

/// The type of a result column or of a bind variable.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// VARCHAR2 of that many bytes.
    Varchar2(u32),
    /// CHAR of that many bytes, blank-padded.
    Char(u32),
    /// NUMBER(precision, scale); plain NUMBER is (0, -127).
    Number(u8, i8),
    Date,
    /// TIMESTAMP with that many fractional digits.
    Timestamp(u8),
    /// RAW of that many bytes.
    Raw(u32),
}

/// A column of a query's result.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    /// Name as Oracle reports it: upper case unless quoted or aliased so.
    pub name: String,
    pub kind: Kind,
    /// Whether NULL can occur.
    pub nullable: bool,
}

/// A bind variable of one execution.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Bind {
    /// Name without the colon, upper case; the position as text (`1`) where
    /// the client binds by position. The engine matches names first, then
    /// positions in the order of first appearance.
    pub name: String,
    /// Value that goes in; `Null` for a pure OUT variable.
    pub value: Value,
    /// Declared type: what an OUT value is converted to.
    pub kind: Kind,
}

/// What a statement gives back.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    /// A query: every row at once. Frontends cut them into fetches.
    Rows {
        columns: Vec<Column>,
        /// The rows, each as long as `columns`.
        rows: Vec<Vec<Value>>,
    },
    /// INSERT, UPDATE, DELETE, MERGE: rows touched, and the values of a
    /// `RETURNING … INTO` in the order of its variables.
    Affected {
        rows: u64,
        /// `(bind name, value)` for RETURNING INTO.
        returned: Vec<(String, Value)>,
    },
    /// PL/SQL block or CALL: the OUT variables `(bind name, value)`.
    Block {
        /// `(bind name, value)` of every variable that was assigned.
        out: Vec<(String, Value)>,
    },
    /// DDL, ALTER SYSTEM and the like.
    Done,
}

/// What kind of statement a text is: OCI asks before it executes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub enum StatementKind {
    Query,
    Insert,
    Update,
    Delete,
    Merge,
    /// BEGIN, DECLARE or CALL.
    Block,
    Create,
    Drop,
    /// ALTER, and every other statement.
    Other,
}

/// An error with Oracle's own number and text.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("ORA-{code:05}: {message}")]
pub struct OraError {
    /// The number: 942 for ORA-00942.
    pub code: u32,
    /// The text without `ORA-nnnnn: ` and without a line end.
    pub message: String,
    /// Byte offset in the statement that the error points at.
    pub offset: u32,
}

impl OraError {
    /// An error that points at no place in the statement.
    pub fn new(code: u32, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            offset: 0,
        }
    }

    /// The same error pointing at a byte of the statement.
    #[must_use]
    pub fn at(mut self, offset: u32) -> Self {
        self.offset = offset;
        self
    }
}

/// Who proves to be whom.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Credentials {
    /// `/ as sysdba`: the operating system vouches. Bequeath only.
    OperatingSystem,
    /// The frontend compared the password (O5LOGON) and found it right.
    Verified {
        /// User name, upper case.
        user: String,
    },
    /// The engine compares the password.
    Password {
        /// User name as given.
        user: String,
        password: String,
    },
}

/// How a session was opened.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub enum Frontend {
    /// The Unix socket of the instance.
    Bequeath,
    /// A listener, by its name (`LISTENER`, `LISTENER_DMS`).
    Listener(String),
}

/// A login's own data, which fill a row of V$SESSION.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Login {
    pub credentials: Credentials,
    pub sysdba: bool,
    /// Service asked for; empty for bequeath.
    pub service: String,
    pub frontend: Frontend,
    pub machine: String,
    pub program: String,
    pub os_user: String,
    /// V$SESSION.PROCESS, the client's process id.
    pub process: String,
    /// The client's address (`127.0.0.1`); empty for bequeath.
    pub address: String,
}

/// What a frontend may do with the engine. The engine implements it; frontends hold
/// `Arc<dyn Database>`.
pub trait Database: Send + Sync + 'static {
    /// The password of a user, for the verifier of O5LOGON; `None` where
    /// there is no such user. The name is upper case.
    fn password_of(&self, user: &str) -> Option<String>;

    /// Logs in. ORA-01017, ORA-28000 (locked), ORA-01035 (restricted) and so
    /// on come as errors.
    fn connect(&self, login: Login) -> Result<Box<dyn Session>, OraError>;

    /// Classifies a statement and lists its bind names in order of
    /// appearance, repeats included, upper case, without colons.
    fn prepare(&self, sql: &str) -> (StatementKind, Vec<String>);
}

/// One session. Dropping it without `logoff` is a client that vanished: its
/// transaction rolls back.
pub trait Session: Send {
    fn sid(&self) -> u32;
    fn serial(&self) -> u32;
    /// Executes. A killed session answers ORA-00028 once, then ORA-01012.
    fn execute(&mut self, sql: &str, binds: &[Bind]) -> Result<Reply, OraError>;
    /// Describes a query without executing it (OCI describes after
    /// execution, python-oracledb `parse` before).
    fn describe(&mut self, sql: &str) -> Result<Vec<Column>, OraError>;
    fn commit(&mut self) -> Result<(), OraError>;
    fn rollback(&mut self) -> Result<(), OraError>;
    /// A round trip that only asks whether the session lives.
    fn ping(&mut self) -> Result<(), OraError>;
    /// Sets MODULE, ACTION, CLIENT_IDENTIFIER, CLIENT_INFO; `None` leaves it.
    fn tag(&mut self, tags: &Tags);
    /// Whether a transaction is open.
    fn in_transaction(&self) -> bool;
    /// A handle with which another thread interrupts a call (ORA-01013).
    fn canceller(&self) -> Box<dyn Canceller>;
    /// Ends the session in good order: commits nothing, rolls back.
    fn logoff(self: Box<Self>);
}

/// Interrupts a running call of the session it came from.
pub trait Canceller: Send + Sync {
    /// The running call, if any, ends with ORA-01013; otherwise nothing.
    fn cancel(&self);
}

/// End-to-end attributes of a session.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Tags {
    pub module: Option<String>,
    pub action: Option<String>,
    pub client_identifier: Option<String>,
    pub client_info: Option<String>,
}
