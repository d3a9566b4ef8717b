//! Logins to the instance, and reuse of idle ones.
//!
//! A login can't be broken and has no time-out of its own, so it runs on a
//! thread that is nobody else's and is left behind when its time is up.

use super::MODULE;
use super::error::{OracleError, first_line};
use crate::config::OracleConfig;
use oracle::{Connection, Connector, InitParams, Privilege};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, OnceLock};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// A login that takes longer is given up. It takes a second, ten under load;
/// a probe may take 30 s, and this error says more than that one's.
const LOGIN_LIMIT: Duration = Duration::from_secs(20);
/// Logins under way at a time, those included that nobody waits for any more:
/// each holds a thread until it ends. A handful is under way in a busy moment;
/// more only pile up on an instance that answers nobody.
const LOGINS_LIMIT: usize = 16;
/// An idle login whose server doesn't answer within this time is discarded.
const ALIVE_LIMIT: Duration = Duration::from_secs(2);
/// A call that takes longer is given up. Checkpoints of a large cache and
/// archiving of all threads take minutes; a task that is out of time breaks
/// its call long before.
const CALL_LIMIT: Duration = Duration::from_secs(300);

const SET_MODULE: &str = "BEGIN DBMS_APPLICATION_INFO.SET_MODULE(:1, :2); END;";
/// Oracle shows some times in the session's zone (DBA_USERS.LAST_LOGIN). Two
/// sessions, one before and one after a change of the clocks, must see the same.
const SET_ZONE: &str = "ALTER SESSION SET TIME_ZONE = '+00:00'";

/// A connection that is logged in. It logs off when it is dropped.
pub struct Login(Option<Arc<Connection>>);

impl Login {
    pub(super) fn of(connection: Arc<Connection>) -> Self {
        Self(Some(connection))
    }

    /// Rolls back what a statement may have left open; whether that was done.
    /// Blocks.
    pub(super) fn rolls_back(&self) -> bool {
        self.0
            .as_ref()
            .is_some_and(|login| login.rollback().is_ok())
    }
}

impl Drop for Login {
    fn drop(&mut self) {
        // Logging off is a round trip: not on a thread that others wait for.
        if let (Some(connection), Ok(runtime)) =
            (self.0.take(), tokio::runtime::Handle::try_current())
        {
            runtime.spawn_blocking(move || drop(connection));
        }
    }
}

/// Gives an idle login to a task; none where it no longer works, or
/// where its server is silent: that is then the new login's to find out.
pub(super) async fn hand_over(
    mut idle: Login,
    action: String,
    cancel: &CancellationToken,
) -> Option<Arc<Connection>> {
    let connection = idle.0.take()?;
    let named = tokio::task::spawn_blocking(move || {
        connection.set_call_timeout(Some(ALIVE_LIMIT)).ok()?;
        connection.execute(SET_MODULE, &[&MODULE, &action]).ok()?;
        connection.set_call_timeout(Some(CALL_LIMIT)).ok()?;
        Some(connection)
    });
    tokio::select! {
        named = named => named.ok().flatten(),
        // The client library may not notice the time-out of a silent server.
        () = tokio::time::sleep(2 * ALIVE_LIMIT) => None,
        () = cancel.cancelled() => None,
    }
}

/// Counts logins under way.
struct UnderWay;

impl UnderWay {
    fn count() -> &'static AtomicUsize {
        static COUNT: AtomicUsize = AtomicUsize::new(0);
        &COUNT
    }

    fn begin() -> Option<Self> {
        let one_more = |count| (count < LOGINS_LIMIT).then_some(count + 1);
        let begun = Self::count().fetch_update(Ordering::SeqCst, Ordering::SeqCst, one_more);
        begun.is_ok().then_some(Self)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        Self::count().fetch_sub(1, Ordering::SeqCst);
    }
}

/// Logs in, on a thread of its own.
pub(super) async fn connect(
    config: OracleConfig,
    action: String,
    cancel: &CancellationToken,
) -> Result<Connection, OracleError> {
    let sid = config.sid.clone();
    let hung = |line: String| OracleError::Hung {
        sid: sid.clone(),
        line,
    };
    let Some(under_way) = UnderWay::begin() else {
        return Err(hung(format!(
            "was not tried: {LOGINS_LIMIT} earlier ones have not ended"
        )));
    };
    let (sender, outcome) = tokio::sync::oneshot::channel();
    let login = move || {
        // A session for which nobody waits any more is closed here.
        drop(sender.send(log_in(&config, &action)));
        drop(under_way);
    };
    let thread = std::thread::Builder::new().name("oracle-login".to_owned());
    if let Err(e) = thread.spawn(login) {
        return Err(hung(format!(
            "was not tried: there is no thread for it ({e})"
        )));
    }
    tokio::select! {
        outcome = outcome => outcome.unwrap_or_else(|_| Err(hung("ended without an answer".to_owned()))),
        () = tokio::time::sleep(LOGIN_LIMIT) => Err(hung(format!(
            "has not come to an end within {} s",
            LOGIN_LIMIT.as_secs()
        ))),
        () = cancel.cancelled() => Err(OracleError::Broken {
            statement: "the login".to_owned(),
        }),
    }
}

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
    connection
        .execute(SET_ZONE, &[])
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
