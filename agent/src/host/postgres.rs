//! A session in a PostgreSQL database.
//!
//! TLS always, and the server's name is checked against its certificate. The
//! session carries the name of its task, ends its statement when the task is
//! cancelled, and its server process notices within seconds when the agent
//! has died (R22). It knows no SQL but its own settings.
//!
//! A login is reused by the next task when the session before it has only run
//! single statements and whole transactions, all of them to their good end
//! ([`super::idle_pool`]). A statement is never repeated on another login.

use crate::config::PostgresConfig;
use crate::error::ActionError;
use crate::host::context::{Context, WorkId};
use crate::host::idle_pool::IdlePool;
use crate::host::secret_file::{self, Unreadable};
use lockstep_api::Code;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::ToSql;
use tokio_postgres::{CancelToken, Client, Row, RowStream};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

/// For the connection and the login together. Longer than a server under
/// load takes; a firewall that drops packets is noticed all the same.
const CONNECT_LIMIT: Duration = Duration::from_secs(10);

/// Limit for an idle login to answer. A server that vanished silently is left
/// alone after that, and the login made anew.
const ALIVE_LIMIT: Duration = Duration::from_secs(2);

/// Limit for one statement that reads the catalogue or changes one row. What may
/// take longer says so with [`Session::without_limit`].
const STATEMENT_LIMIT: Duration = Duration::from_secs(30);

/// For a lock. Applications are stopped by then, so whoever holds one for
/// longer is somebody to be named, not waited for.
const LOCK_LIMIT: Duration = Duration::from_secs(5);

/// PostgreSQL cuts `application_name` here (NAMEDATALEN - 1).
const NAME_LENGTH: usize = 63;

/// What a PostgreSQL error says, in one line: no statement, no values.
#[derive(Debug, thiserror::Error)]
#[error("{text}")]
struct SqlText {
    text: String,
}

/// The message, its detail and its SQLSTATE; or what prevented the client from
/// getting one.
fn sql_text(error: &tokio_postgres::Error) -> SqlText {
    let text = match error.as_db_error() {
        Some(db) => {
            let detail = db.detail().map(|d| format!(" ({d})")).unwrap_or_default();
            format!("{}{detail}, SQLSTATE {}", db.message(), db.code().code())
        }
        None => {
            let mut text = error.to_string();
            let mut source = std::error::Error::source(error);
            while let Some(cause) = source {
                text.push_str(": ");
                text.push_str(&cause.to_string());
                source = cause.source();
            }
            text
        }
    };
    SqlText { text }
}

/// A connection that is logged in.
pub struct Login {
    client: Client,
    cancel: CancelToken,
    tls: MakeRustlsConnect,
}

impl Login {
    async fn make(
        login: &tokio_postgres::Config,
        tls: MakeRustlsConnect,
    ) -> Result<Self, tokio_postgres::Error> {
        let (client, connection) = login.connect(tls.clone()).await?;
        // It ends with the client; its error reaches the client's calls.
        tokio::spawn(connection);
        client
            .batch_execute(&format!("{}; {CHECK_CLIENT}", settings()))
            .await?;
        let cancel = client.cancel_token();
        Ok(Self {
            client,
            cancel,
            tls,
        })
    }

    /// Gives an idle login to a task; `false` where it no longer works.
    async fn hand_over(&self, tag: &WorkId) -> bool {
        if self.client.is_closed() {
            return false;
        }
        let name = literal(&application_name(tag));
        let taken = format!("SET application_name = {name}; {}", settings());
        let answer = self.client.batch_execute(&taken);
        matches!(tokio::time::timeout(ALIVE_LIMIT, answer).await, Ok(Ok(())))
    }
}

pub struct Session {
    login: Arc<Login>,
    cancelled: CancellationToken,
    /// `host:port/database`.
    server: String,
    resource: String,
    pool: Arc<IdlePool<Arc<Login>>>,
    /// Calls that were begun and didn't come to a good end, or not yet.
    unsettled: AtomicUsize,
    /// Nobody has left anything in it that the next one would find.
    clean: AtomicBool,
}

impl Drop for Session {
    fn drop(&mut self) {
        let settled = *self.unsettled.get_mut() == 0 && *self.clean.get_mut();
        if settled && !self.cancelled.is_cancelled() {
            self.pool.put(&self.resource, self.login.clone());
        }
    }
}

impl Session {
    /// Opens a session of this task in a resource of the configuration, on a
    /// idle login if there is one that is alive.
    ///
    /// # Errors
    /// LS2301 where the server can't be reached, refuses, or isn't the one
    /// that its certificate should prove.
    pub async fn open(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        let config = cx.host.postgres(resource)?;
        while let Some(idle) = cx.host.postgres_logins.take(resource) {
            let alive = tokio::select! {
                alive = idle.hand_over(&cx.tag) => alive,
                () = cx.cancel.cancelled() => {
                    return Err(out_of_time(&server(config, &config.dbname)));
                }
            };
            if alive {
                return Ok(Self::on(cx, resource, server(config, &config.dbname), idle));
            }
        }
        Self::anew(cx, resource).await
    }

    /// Opens a session on a login of its own: proof that one can log in.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn anew(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        let database = cx.host.postgres(resource)?.dbname.clone();
        Self::log_in(cx, resource, &database).await
    }

    /// As [`Session::anew`], in another database of the resource's server.
    /// Such a login is not reused.
    ///
    /// # Errors
    /// As [`Session::open`].
    pub async fn open_in(
        cx: &Context,
        resource: &str,
        database: &str,
    ) -> Result<Self, ActionError> {
        let session = Self::log_in(cx, resource, database).await?;
        session.clean.store(false, Ordering::Relaxed);
        Ok(session)
    }

    async fn log_in(cx: &Context, resource: &str, database: &str) -> Result<Self, ActionError> {
        let config = cx.host.postgres(resource)?;
        let server = server(config, database);
        let tls = MakeRustlsConnect::new(tls(&config.ca)?);
        let mut login = login(config, &cx.tag)?;
        login.dbname(database);
        let unreachable = || {
            ActionError::new(
                Code::LS2301,
                format!("no session at PostgreSQL {server} as {}", config.user),
            )
            .state_left("nothing was done")
            .remedy(format!(
                "see [postgres.{resource}] in agent.toml, pg_hba.conf and the server's log"
            ))
        };
        let connected = tokio::select! {
            connected = tokio::time::timeout(CONNECT_LIMIT, Login::make(&login, tls)) => connected,
            () = cx.cancel.cancelled() => return Err(out_of_time(&server)),
        };
        let login = match connected {
            Ok(Ok(login)) => login,
            Ok(Err(e)) => return Err(unreachable().source(sql_text(&e))),
            Err(_) => {
                let text = format!("no answer within {} s", CONNECT_LIMIT.as_secs());
                return Err(unreachable().source(SqlText { text }));
            }
        };
        Ok(Self::on(cx, resource, server, Arc::new(login)))
    }

    fn on(cx: &Context, resource: &str, server: String, login: Arc<Login>) -> Self {
        Self {
            login,
            cancelled: cx.cancel.clone(),
            server,
            resource: resource.to_owned(),
            pool: cx.host.postgres_logins.clone(),
            unsettled: AtomicUsize::new(0),
            clean: AtomicBool::new(true),
        }
    }

    /// `host:port/database`, for sentences.
    pub fn server(&self) -> &str {
        &self.server
    }

    /// The session's statements may take as long as their task.
    ///
    /// # Errors
    /// As [`Session::run`].
    pub async fn without_limit(&self) -> Result<(), ActionError> {
        // Whoever takes the login next sets it again.
        self.guarded(self.login.client.batch_execute("SET statement_timeout = 0"))
            .await
    }

    /// Rows of a query.
    ///
    /// # Errors
    /// LS2302 with what PostgreSQL says; LS2304 where a lock was not to be
    /// had; LS2303 where a privilege is missing.
    pub async fn rows(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<Vec<Row>, ActionError> {
        self.guarded(self.login.client.query(sql, params)).await
    }

    /// The one row of a query.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn row(&self, sql: &str, params: &[&(dyn ToSql + Sync)]) -> Result<Row, ActionError> {
        self.guarded(self.login.client.query_one(sql, params)).await
    }

    /// Runs a statement; the number of rows it changed.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn change(
        &self,
        sql: &str,
        params: &[&(dyn ToSql + Sync)],
    ) -> Result<u64, ActionError> {
        self.guarded(self.login.client.execute(sql, params)).await
    }

    /// Runs statements without parameters. They may leave anything behind, a
    /// transaction or a setting: the login is not reused.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn run(&self, sql: &str) -> Result<(), ActionError> {
        self.clean.store(false, Ordering::Relaxed);
        self.guarded(self.login.client.batch_execute(sql)).await
    }

    /// Runs statements as one transaction: all of them, or none.
    ///
    /// # Errors
    /// As [`Session::rows`]; then nothing was changed, unless the connection
    /// broke during the commit.
    pub async fn transaction(&self, statements: &[String]) -> Result<(), ActionError> {
        if statements.is_empty() {
            return Ok(());
        }
        let whole = format!("BEGIN; {}; COMMIT", statements.join("; "));
        let done = self.guarded(self.login.client.batch_execute(&whole)).await;
        if done.is_err() {
            // If the session no longer exists, there is nothing to roll back.
            let _ = self.login.client.batch_execute("ROLLBACK").await;
        }
        done
    }

    /// The rows of a query one by one, for more than fit into memory. The
    /// rows themselves are taken with [`Session::next`]. The login is not
    /// reused, because it is not known whether all of them were read.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn stream(&self, sql: &str) -> Result<RowStream, ActionError> {
        self.clean.store(false, Ordering::Relaxed);
        let none: [&(dyn ToSql + Sync); 0] = [];
        self.guarded(self.login.client.query_raw(sql, none)).await
    }

    /// The next row of a stream.
    ///
    /// # Errors
    /// As [`Session::rows`].
    pub async fn next(
        &self,
        stream: &mut std::pin::Pin<Box<RowStream>>,
    ) -> Result<Option<Row>, ActionError> {
        use tokio_stream::StreamExt as _;
        self.guarded(async { stream.next().await.transpose() })
            .await
    }

    /// Waits; comes back early and with an error when the task is cancelled.
    ///
    /// # Errors
    /// LS2305.
    pub async fn pause(&self, time: Duration) -> Result<(), ActionError> {
        tokio::select! {
            () = tokio::time::sleep(time) => Ok(()),
            () = self.cancelled.cancelled() => Err(out_of_time(&self.server)),
        }
    }

    async fn guarded<T>(
        &self,
        work: impl Future<Output = Result<T, tokio_postgres::Error>>,
    ) -> Result<T, ActionError> {
        tokio::pin!(work);
        self.unsettled.fetch_add(1, Ordering::Relaxed);
        let done = tokio::select! {
            biased;
            done = &mut work => done,
            () = self.cancelled.cancelled() => {
                // If this fails, the server is unreachable, which ends the work as well.
                let _ = self.login.cancel.cancel_query(self.login.tls.clone()).await;
                let _ = work.await;
                return Err(out_of_time(&self.server));
            }
        };
        if done.is_ok() {
            self.unsettled.fetch_sub(1, Ordering::Relaxed);
        }
        done.map_err(|e| self.refusal(&e))
    }

    fn refusal(&self, error: &tokio_postgres::Error) -> ActionError {
        let server = &self.server;
        let state = error.code().map(|code| code.code().to_owned());
        let (code, what, next) = match state.as_deref() {
            Some("42501") => (
                Code::LS2303,
                format!("PostgreSQL {server} does not let the agent's role do this"),
                "grant what the message names to the agent's role, then retry",
            ),
            Some("55P03" | "40P01") => (
                Code::LS2304,
                format!("a lock in PostgreSQL {server} was not to be had"),
                "see pg_locks and pg_stat_activity for who holds it, end that session, then retry",
            ),
            _ => (
                Code::LS2302,
                format!("PostgreSQL {server} refused a statement"),
                "see the server's log, remove the cause, then retry",
            ),
        };
        ActionError::new(code, what)
            .state_left("this statement changed nothing")
            .remedy(next)
            .source(sql_text(error))
    }
}

fn out_of_time(server: &str) -> ActionError {
    ActionError::new(
        Code::LS2305,
        format!("the task's time was up; its statement in PostgreSQL {server} was cancelled"),
    )
    .state_left("what was committed before is in effect")
    .remedy("see the task's last lines for what it waited for, then retry with more time")
}

fn server(config: &PostgresConfig, database: &str) -> String {
    format!("{}:{}/{database}", config.host, config.port)
}

/// Lets the server notice a client that died in the middle of a statement,
/// from PostgreSQL 14 on.
const CHECK_CLIENT: &str = "SELECT set_config(name, '5s', false) FROM pg_settings \
     WHERE name = 'client_connection_check_interval'";

/// What a task may rely on. With `row_security` off, a query from which a policy would
/// hide rows is an error instead of a wrong answer.
fn settings() -> String {
    let (statement, lock) = (STATEMENT_LIMIT.as_millis(), LOCK_LIMIT.as_millis());
    format!(
        "SET statement_timeout = {statement}; SET lock_timeout = {lock}; \
         SET search_path = pg_catalog; SET datestyle = 'ISO, YMD'; SET timezone = 'UTC'; \
         SET extra_float_digits = 1; SET bytea_output = 'hex'; SET row_security = off"
    )
}

fn login(config: &PostgresConfig, tag: &WorkId) -> Result<tokio_postgres::Config, ActionError> {
    let file = &config.password_file;
    let password =
        secret_file::read(file, "password file").map_err(|unreadable| match unreadable {
            Unreadable::Open(error) => error,
            Unreadable::Failed(e) => ActionError::new(
                Code::LS2306,
                format!("the password file {} can't be read", file.display()),
            )
            .state_left("nothing was done")
            .remedy("see that the agent may read it")
            .source(e),
        })?;
    let mut login = tokio_postgres::Config::new();
    login
        .host(&config.host)
        .port(config.port)
        .user(&config.user)
        .password(password.trim_end_matches(['\r', '\n']))
        .application_name(application_name(tag))
        .ssl_mode(SslMode::Require)
        .connect_timeout(CONNECT_LIMIT)
        // A peer that is silent for this long is unreachable.
        .keepalives_idle(Duration::from_secs(15));
    Ok(login)
}

/// `lockstep RUN/STEP/ATTEMPT`. Where it is too long the step is cut, never
/// run or attempt.
fn application_name(tag: &WorkId) -> String {
    let frame = format!("lockstep {}//{}", tag.run, tag.attempt).len();
    let step: String = tag
        .step
        .chars()
        .filter(char::is_ascii)
        .take(NAME_LENGTH.saturating_sub(frame))
        .collect();
    format!("lockstep {}/{step}/{}", tag.run, tag.attempt)
}

fn tls(ca: &Path) -> Result<ClientConfig, ActionError> {
    let unusable = || {
        ActionError::new(
            Code::LS2306,
            format!("the authority file {} is of no use", ca.display()),
        )
        .state_left("nothing was done")
        .remedy("put the PEM of the authority that signed the server's certificate there")
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|e| unusable().source(e))? {
        let certificate = certificate.map_err(|e| unusable().source(e))?;
        roots.add(certificate).map_err(|e| unusable().source(e))?;
    }
    if roots.is_empty() {
        return Err(unusable());
    }
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .map_err(|e| unusable().source(e))?
        .with_root_certificates(roots)
        .with_no_client_auth();
    Ok(config)
}

/// An identifier in SQL, always quoted.
pub fn quoted(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// A literal in SQL. `standard_conforming_strings` is on by default since
/// PostgreSQL 9.1; the escape form is right under either setting.
pub fn literal(text: &str) -> String {
    format!("E'{}'", text.replace('\\', "\\\\").replace('\'', "''"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_and_literals_can_hold_anything() {
        assert_eq!(quoted("order\"s"), "\"order\"\"s\"");
        assert_eq!(literal("it's \\"), "E'it''s \\\\'");
    }

    #[test]
    fn a_long_step_does_not_hide_run_or_attempt() {
        let tag = WorkId {
            run: "0".repeat(36),
            step: "x".repeat(100),
            attempt: 12,
            of: None,
        };
        let name = application_name(&tag);
        assert_eq!(name.len(), NAME_LENGTH);
        assert!(name.ends_with("/12"), "{name}");
    }
}
