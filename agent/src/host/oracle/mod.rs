//! Sessions with the Oracle instance on this host: `/ as sysdba` over
//! bequeath, which works while every listener is down.
//!
//! The driver blocks, so each call runs on a thread of tokio's blocking pool;
//! a cancelled task breaks its running call. Only queries outside of a
//! transaction are repeated on a new session when the old one has died: what
//! changes something never is.
//!
//! A login is reused by the next task when every call of the session before it
//! came to a good end ([`super::idle_pool`]); what a statement may have left open
//! is rolled back first.
//!
//! Errors carry Oracle's code and its first line. The texts of errors that
//! the driver wraps (DPI-1067, DPI-1080) can hold stray bytes and are left
//! out.

mod error;
mod login;

use crate::config::{Config, OracleConfig};
use crate::error::ActionError;
use crate::host::context::Context;
use crate::host::idle_pool::IdlePool;
pub use error::OracleError;
use error::{first_line, shown};
pub use login::Login;
use login::{connect, hand_over};
use oracle::sql_type::ToSql;
use oracle::{Connection, RowValue};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// V$SESSION.MODULE of every session of this product.
pub const MODULE: &str = "lockstep";

/// Between two breaks of a call that doesn't end: the first may have come
/// before the call had begun.
const BREAK_AGAIN: Duration = Duration::from_millis(200);
/// V$SESSION.ACTION holds 64 bytes.
const ACTION_LIMIT: usize = 64;

/// A value for a placeholder.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Bind {
    Text(String),
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
/// library finds the instance, and `TNS_ADMIN`, by which it finds the
/// `sqlnet.ora` that says whether the operating system's word counts. One
/// agent serves one instance, which [`Config::load`] has checked.
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
    let directories = config.oracle.values();
    if let Some(directory) = directories
        .filter_map(OracleConfig::client_tns_admin)
        .next()
    {
        // SAFETY: the caller's promise.
        unsafe { std::env::set_var("TNS_ADMIN", directory) };
    }
}

/// A session of a task.
pub struct Session {
    connection: Mutex<Arc<Connection>>,
    config: OracleConfig,
    action: String,
    cancel: CancellationToken,
    resource: String,
    pool: Arc<IdlePool<Login>>,
    /// Calls that were begun and didn't come to a good end, or not yet.
    unsettled: AtomicUsize,
    /// A statement may have left a transaction open.
    changed: AtomicBool,
    /// Nobody has done anything that the next one would find.
    clean: AtomicBool,
}

impl Session {
    /// Opens a session for a task's work, under its tag, on an idle login if
    /// there is one that is alive.
    ///
    /// # Errors
    /// Where the resource is not configured, or Oracle can't be reached.
    pub async fn open(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        while let Some(idle) = cx.host.oracle_logins.take(resource) {
            if let Some(connection) = hand_over(idle, name_of(cx), &cx.cancel).await {
                return Self::on(cx, resource, connection);
            }
        }
        Self::anew(cx, resource).await
    }

    /// Opens a session on a login of its own: proof that one can log in.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn anew(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        let config = cx.host.oracle(resource)?.clone();
        let connection = connect(config, name_of(cx), &cx.cancel).await?;
        Self::on(cx, resource, Arc::new(connection))
    }

    fn on(cx: &Context, resource: &str, connection: Arc<Connection>) -> Result<Self, ActionError> {
        Ok(Self {
            connection: Mutex::new(connection),
            config: cx.host.oracle(resource)?.clone(),
            action: name_of(cx),
            cancel: cx.cancel.clone(),
            resource: resource.to_owned(),
            pool: cx.host.oracle_logins.clone(),
            unsettled: AtomicUsize::new(0),
            changed: AtomicBool::new(false),
            clean: AtomicBool::new(true),
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
            self.call(sql, move |connection| {
                let values: Vec<&dyn ToSql> = binds.iter().map(Bind::value).collect();
                connection.query_as::<T>(&text, &values)?.collect()
            })
        };
        match ask().await {
            Err(OracleError::Dead { .. }) => {
                let (config, action) = (self.config.clone(), self.action.clone());
                let again = connect(config, action, &self.cancel).await?;
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
        self.changed.store(true, Ordering::Relaxed);
        self.call(sql, move |connection| {
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
        self.changed.store(true, Ordering::Relaxed);
        self.call(&what, move |connection| {
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
    /// is cancelled. `what` names the work in errors. The work may leave
    /// anything behind: the login is not reused.
    ///
    /// # Errors
    /// [`OracleError`]
    pub async fn with<T, W>(&self, what: &str, work: W) -> Result<T, OracleError>
    where
        T: Send + 'static,
        W: FnOnce(&Connection) -> oracle::Result<T> + Send + 'static,
    {
        self.clean.store(false, Ordering::Relaxed);
        self.call(what, work).await
    }

    async fn call<T, W>(&self, what: &str, work: W) -> Result<T, OracleError>
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
        self.unsettled.fetch_add(1, Ordering::Relaxed);
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
        if matches!(ended, Ok(Ok(_))) && running.breaks == 0 {
            self.unsettled.fetch_sub(1, Ordering::Relaxed);
        }
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
        let login = Login::of(self.slot().clone());
        let settled = *self.unsettled.get_mut() == 0 && *self.clean.get_mut();
        if !settled || self.cancel.is_cancelled() {
            return;
        }
        if !*self.changed.get_mut() {
            self.pool.put(&self.resource, login);
        } else if let Ok(runtime) = tokio::runtime::Handle::try_current() {
            let (pool, resource) = (self.pool.clone(), self.resource.clone());
            runtime.spawn_blocking(move || {
                if login.rolls_back() {
                    pool.put(&resource, login);
                }
            });
        }
    }
}

fn name_of(cx: &Context) -> String {
    cx.tag.to_string().chars().take(ACTION_LIMIT).collect()
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
