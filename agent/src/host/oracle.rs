//! Sessions with the Oracle instance on this host: `/ as sysdba` over
//! bequeath, which works while every listener is down.
//!
//! The driver blocks, so each call runs on a thread of tokio's blocking pool;
//! a cancelled task breaks its running call. Only queries outside of a
//! transaction are repeated on a new session when the old one has died: what
//! changes something never is.
//!
//! Errors carry Oracle's code and its first line. The texts of errors that
//! the driver wraps (DPI-1067, DPI-1080) can hold stray bytes and are left
//! out.

use crate::action::{ActionError, Context};
use crate::config::{Config, OracleConfig};
use oracle::sql_type::ToSql;
use oracle::{Connection, Connector, ErrorKind, InitParams, Privilege, RowValue};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// V$SESSION.MODULE of every session of this product.
pub const MODULE: &str = "lockstep";

/// A call that takes longer is given up. Checkpoints of a large cache and
/// archiving of all threads take minutes; a task that is out of time breaks
/// its call long before.
const CALL_LIMIT: Duration = Duration::from_secs(300);
/// Between two breaks of a call that doesn't end: the first may have come
/// before the call had begun.
const BREAK_AGAIN: Duration = Duration::from_millis(200);
/// V$SESSION.ACTION holds 64 bytes.
const ACTION_LIMIT: usize = 64;
/// Bytes of a statement shown in an error.
const SHOWN_STATEMENT: usize = 160;

/// ORA codes after which a session is gone: 28 killed, 1012 not logged on,
/// 1041 internal hostdef, 1089 shutdown, 3113, 3114, 3135 connection lost.
const GONE: [i32; 7] = [28, 1012, 1041, 1089, 3113, 3114, 3135];
/// `ORA-01013: user requested cancel of current operation`.
const CANCELLED: i32 = 1013;
/// ODPI-C: the connection is dead; it wraps the codes of [`GONE`].
const DPI_DEAD: i32 = 1080;
/// ODPI-C: not connected.
const DPI_NOT_CONNECTED: i32 = 1010;
/// ODPI-C: the call timeout has struck.
const DPI_TIMEOUT: i32 = 1067;

/// What went wrong in a call.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum OracleError {
    /// The client library can't be used.
    #[error("LS2201: Oracle's client library can't be used from {home}: {line}")]
    Library {
        /// The home.
        home: PathBuf,
        /// First line of the reason.
        line: String,
    },
    /// No session.
    #[error("LS2202: no session with the Oracle instance {sid}: {line}")]
    Connect {
        /// The instance.
        sid: String,
        /// First line of the reason.
        line: String,
    },
    /// Oracle refuses a statement.
    #[error("LS2203: Oracle refuses a statement with {line}: {statement}")]
    Refused {
        /// The number of the ORA error.
        ora: i32,
        /// Its first line, `ORA-00942: table or view does not exist`.
        line: String,
        /// The statement.
        statement: String,
    },
    /// The driver refuses a call: a value is not of the expected type.
    #[error("LS2204: the answer to a statement can't be used ({line}): {statement}")]
    Driver {
        /// What the driver says.
        line: String,
        /// The statement.
        statement: String,
    },
    /// The session is gone; whether the statement took effect is open.
    #[error("LS2205: the session died during a statement: {statement}")]
    Dead {
        /// The statement.
        statement: String,
    },
    /// The call took too long or the task was cancelled.
    #[error("LS2206: a statement was broken off, its time being up: {statement}")]
    Broken {
        /// The statement.
        statement: String,
    },
}

impl OracleError {
    /// The number of the ORA error, where Oracle refused.
    pub fn ora(&self) -> Option<i32> {
        match self {
            Self::Refused { ora, .. } => Some(*ora),
            _ => None,
        }
    }

    fn parts(&self) -> (&'static str, &'static str, &'static str) {
        match self {
            Self::Library { .. } => (
                "LS2201",
                "nothing was done",
                "see that the agent runs with this home and may read its lib directory, or name \
                 client_library in agent.toml",
            ),
            Self::Connect { .. } => (
                "LS2202",
                "nothing was done",
                "see that the instance is open and that the agent's user is in the dba group",
            ),
            Self::Refused { .. } => (
                "LS2203",
                "this statement had no effect; what came before it stands",
                "mend what the ORA code says, then retry",
            ),
            Self::Driver { .. } => (
                "LS2204",
                "what came before stands",
                "compare the versions of Oracle and of the agent",
            ),
            Self::Dead { .. } => (
                "LS2205",
                "the statement may or may not have taken effect; an open transaction is rolled back",
                "see the alert log for who killed the session or whether the instance went down, \
                 then retry",
            ),
            Self::Broken { .. } => (
                "LS2206",
                "what came before the statement stands; the statement may have taken effect",
                "see in V$SESSION what it waited for, then retry",
            ),
        }
    }

    fn of(error: &oracle::Error, statement: &str) -> Self {
        let statement = shown(statement);
        let ora = error.oci_code();
        match (ora, error.dpi_code()) {
            (_, Some(DPI_TIMEOUT)) | (Some(CANCELLED), _) => Self::Broken { statement },
            (_, Some(DPI_DEAD | DPI_NOT_CONNECTED)) => Self::Dead { statement },
            (Some(code), _) if GONE.contains(&code) => Self::Dead { statement },
            (Some(ora), _) => Self::Refused {
                ora,
                line: first_line(error),
                statement,
            },
            (None, _) => Self::Driver {
                line: first_line(error),
                statement,
            },
        }
    }
}

impl From<OracleError> for ActionError {
    fn from(error: OracleError) -> Self {
        let (code, left, next) = error.parts();
        let text = error.to_string();
        let what = text.split_once(": ").map_or("", |(_, what)| what);
        Self::new(code, what).left(left).next(next)
    }
}

/// The first line of what Oracle says; of a wrapped error the code alone.
fn first_line(error: &oracle::Error) -> String {
    if error.kind() == ErrorKind::DpiError {
        return match error.dpi_code() {
            Some(code) => format!("DPI-{code:04}"),
            None => "an error of the driver".to_owned(),
        };
    }
    let text = match error.db_error() {
        Some(db) => db.message().to_owned(),
        None => error.to_string(),
    };
    text.lines().next().unwrap_or_default().trim().to_owned()
}

fn shown(statement: &str) -> String {
    let one_line = statement.split_whitespace().collect::<Vec<_>>().join(" ");
    match one_line.char_indices().nth(SHOWN_STATEMENT) {
        Some((at, _)) => format!("{}…", &one_line[..at]),
        None => one_line,
    }
}

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    /// Text.
    Text(String),
    /// A whole number.
    Integer(i64),
}

impl Bind {
    fn value(&self) -> &dyn ToSql {
        match self {
            Self::Text(text) => text,
            Self::Integer(number) => number,
        }
    }
}

impl From<&str> for Bind {
    fn from(text: &str) -> Self {
        Self::Text(text.to_owned())
    }
}

impl From<i64> for Bind {
    fn from(number: i64) -> Self {
        Self::Integer(number)
    }
}

/// Sets `ORACLE_HOME` and `ORACLE_SID` for this process, by which the client
/// library finds the instance. One agent serves one instance, which
/// [`Config::load`] has checked.
///
/// # Safety
/// No other thread may run yet: the environment belongs to all of them.
pub unsafe fn set_environment(config: &Config) {
    if let Some(oracle) = config.oracle.values().next() {
        // SAFETY: the caller's promise.
        unsafe {
            std::env::set_var("ORACLE_HOME", &oracle.home);
            std::env::set_var("ORACLE_SID", &oracle.sid);
        }
    }
}

/// A session. It ends when it is dropped.
pub struct Session {
    connection: Mutex<Arc<Connection>>,
    config: OracleConfig,
    action: String,
    cancel: CancellationToken,
}

impl Session {
    /// Opens a session for a task's work, under its tag.
    ///
    /// # Errors
    /// Where the resource is not configured, or Oracle can't be reached.
    pub async fn open(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        let config = cx.host.oracle(resource)?.clone();
        let action: String = cx.tag.to_string().chars().take(ACTION_LIMIT).collect();
        let connection = connect(config.clone(), action.clone()).await?;
        Ok(Self {
            connection: Mutex::new(Arc::new(connection)),
            config,
            action,
            cancel: cx.cancel.clone(),
        })
    }

    /// The rows of a query, each as a tuple or a single value.
    ///
    /// # Errors
    /// [`OracleError`]
    pub async fn rows<T>(&self, sql: &str, binds: &[Bind]) -> Result<Vec<T>, OracleError>
    where
        T: RowValue + Send + 'static,
    {
        let ask = || {
            let (text, binds) = (sql.to_owned(), binds.to_vec());
            self.with(sql, move |connection| {
                let values: Vec<&dyn ToSql> = binds.iter().map(Bind::value).collect();
                connection.query_as::<T>(&text, &values)?.collect()
            })
        };
        match ask().await {
            Err(OracleError::Dead { .. }) => {
                let again = connect(self.config.clone(), self.action.clone()).await?;
                *self.slot() = Arc::new(again);
                ask().await
            }
            answer => answer,
        }
    }

    /// The one row of a query.
    ///
    /// # Errors
    /// [`OracleError`]; also where there is none.
    pub async fn row<T>(&self, sql: &str, binds: &[Bind]) -> Result<T, OracleError>
    where
        T: RowValue + Send + 'static,
    {
        let first = self.rows(sql, binds).await?.into_iter().next();
        first.ok_or_else(|| OracleError::Driver {
            line: "no row".to_owned(),
            statement: shown(sql),
        })
    }

    /// Carries out a statement that commits by itself (ALTER and the like),
    /// or a block.
    ///
    /// # Errors
    /// [`OracleError`]
    pub async fn execute(&self, sql: &str, binds: &[Bind]) -> Result<(), OracleError> {
        let (text, binds) = (sql.to_owned(), binds.to_vec());
        self.with(sql, move |connection| {
            let values: Vec<&dyn ToSql> = binds.iter().map(Bind::value).collect();
            connection.execute(&text, &values).map(drop)
        })
        .await
    }

    /// Carries out changes of rows and commits them together, on one
    /// connection; gives the number of rows changed.
    ///
    /// # Errors
    /// [`OracleError`]; nothing is committed then, except that a session that
    /// died during the commit itself leaves that open.
    pub async fn transaction(
        &self,
        statements: Vec<(String, Vec<Bind>)>,
    ) -> Result<u64, OracleError> {
        let what = statements
            .first()
            .map(|(sql, _)| sql.clone())
            .unwrap_or_default();
        self.with(&what, move |connection| {
            let changed = change(connection, &statements);
            match changed {
                Ok(_) => connection.commit()?,
                // A session that died has rolled back by itself.
                Err(_) => drop(connection.rollback()),
            }
            changed
        })
        .await
    }

    /// Runs blocking work on the connection, breaking its call when the task
    /// is cancelled. `what` names the work in errors.
    ///
    /// # Errors
    /// [`OracleError`]
    pub async fn with<T, W>(&self, what: &str, work: W) -> Result<T, OracleError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> oracle::Result<T> + Send + 'static,
    {
        let broken = || OracleError::Broken {
            statement: shown(what),
        };
        if self.cancel.is_cancelled() {
            return Err(broken());
        }
        let connection = self.slot().clone();
        let mut running = Running::on(connection.clone());
        let mut call = tokio::task::spawn_blocking(move || work(&connection));
        let ended = loop {
            tokio::select! {
                ended = &mut call => break ended,
                () = stop(&self.cancel, running.breaks) => running.break_call(),
            }
        };
        running.over = true;
        match ended {
            Ok(answer) => answer.map_err(|error| OracleError::of(&error, what)),
            // The pool only drops work when the process ends.
            Err(_) => Err(broken()),
        }
    }

    /// Lets the calls of this session take that long. For scans of large
    /// tables, which the task's own limit ends.
    ///
    /// # Errors
    /// [`OracleError`]
    pub async fn allow(&self, limit: Duration) -> Result<(), OracleError> {
        self.with("the call timeout", move |connection| {
            connection.set_call_timeout(Some(limit))
        })
        .await
    }

    fn slot(&self) -> std::sync::MutexGuard<'_, Arc<Connection>> {
        // The slot is only ever replaced as a whole.
        self.connection
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Session {
    fn drop(&mut self) {
        // Logging off is a round trip: not on a thread that others wait for.
        if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let connection = self.slot().clone();
            runtime.spawn_blocking(move || drop(connection));
        }
    }
}

async fn stop(cancel: &CancellationToken, breaks: u32) {
    cancel.cancelled().await;
    if breaks > 0 {
        tokio::time::sleep(BREAK_AGAIN).await;
    }
}

/// A call under way. Dropped before its end, it breaks the call: nobody waits
/// for it any more.
struct Running {
    connection: Arc<Connection>,
    over: bool,
    breaks: u32,
}

impl Running {
    fn on(connection: Arc<Connection>) -> Self {
        Self {
            connection,
            over: false,
            breaks: 0,
        }
    }

    fn break_call(&mut self) {
        self.breaks += 1;
        if let Err(error) = self.connection.break_execution() {
            tracing::debug!(
                error = first_line(&error),
                "a call could not be broken; its time-out ends it"
            );
        }
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        if !self.over {
            self.break_call();
        }
    }
}

fn change(connection: &Connection, statements: &[(String, Vec<Bind>)]) -> oracle::Result<u64> {
    let mut changed = 0;
    for (sql, binds) in statements {
        let values: Vec<&dyn ToSql> = binds.iter().map(Bind::value).collect();
        changed += connection.execute(sql, &values)?.row_count()?;
    }
    Ok(changed)
}

async fn connect(config: OracleConfig, action: String) -> Result<Connection, OracleError> {
    let sid = config.sid.clone();
    let opened = tokio::task::spawn_blocking(move || log_in(&config, &action)).await;
    opened.unwrap_or_else(|_| {
        Err(OracleError::Connect {
            sid,
            line: "the process is ending".to_owned(),
        })
    })
}

const SET_MODULE: &str = "BEGIN DBMS_APPLICATION_INFO.SET_MODULE(:1, :2); END;";

fn log_in(config: &OracleConfig, action: &str) -> Result<Connection, OracleError> {
    prepare_library(config)?;
    let failed = |error: &oracle::Error| OracleError::Connect {
        sid: config.sid.clone(),
        line: first_line(error),
    };
    let connection = Connector::new("", "", "")
        .external_auth(true)
        .privilege(Privilege::Sysdba)
        .connect()
        .map_err(|error| failed(&error))?;
    connection
        .set_call_timeout(Some(CALL_LIMIT))
        .map_err(|error| failed(&error))?;
    connection
        .execute(SET_MODULE, &[&MODULE, &action])
        .map_err(|error| failed(&error))?;
    Ok(connection)
}

/// Loads the client library, once in a process.
fn prepare_library(config: &OracleConfig) -> Result<(), OracleError> {
    static LOADED: OnceLock<Result<(), String>> = OnceLock::new();
    let failed = |line: String| OracleError::Library {
        home: config.home.clone(),
        line,
    };
    for (name, wanted) in [
        ("ORACLE_HOME", config.home.as_os_str()),
        ("ORACLE_SID", config.sid.as_ref()),
    ] {
        if std::env::var_os(name).as_deref() != Some(wanted) {
            let text = format!(
                "the agent's process doesn't have {name}={}",
                wanted.display()
            );
            return Err(failed(text));
        }
    }
    let loaded = LOADED.get_or_init(|| load(&library(config)));
    loaded.clone().map_err(failed)
}

fn library(config: &OracleConfig) -> PathBuf {
    config
        .client_library
        .clone()
        .unwrap_or_else(|| config.home.join("lib"))
}

fn load(directory: &Path) -> Result<(), String> {
    // The text of DPI-1047 is the loader's own and names the missing file.
    let text = |error: oracle::Error| {
        let text = error.to_string();
        text.lines().next().unwrap_or_default().to_owned()
    };
    InitParams::new()
        .oracle_client_lib_dir(directory)
        .map_err(text)?
        .init()
        .map(drop)
        .map_err(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn long_statements_are_shown_on_one_line_and_cut() {
        assert_eq!(shown("SELECT\n   1"), "SELECT 1");
        assert_eq!(shown(&"x".repeat(500)).chars().count(), SHOWN_STATEMENT + 1);
    }

    #[test]
    fn an_error_tells_code_state_and_remedy() {
        let error = OracleError::Refused {
            ora: 942,
            line: "ORA-00942: table or view does not exist".into(),
            statement: "SELECT 1 FROM t".into(),
        };
        assert_eq!(error.ora(), Some(942));
        let story = ActionError::from(error).story();
        assert!(
            story.starts_with("LS2203: Oracle refuses a statement with ORA-00942:"),
            "{story}"
        );
        assert!(story.ends_with("then retry"), "{story}");
    }
}
