//! Connections to the two databases.
//!
//! Oracle's driver blocks and lives on threads of its own; PostgreSQL's is
//! asynchronous, over TLS that checks the server against the endpoint's CA file.

use crate::config::{EndpointConfig, OracleEndpoint, PostgresEndpoint};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, RootCertStore};
use std::path::Path;
use std::time::Duration;
use tokio_postgres::config::SslMode;
use tokio_postgres_rustls::MakeRustlsConnect;

/// For connecting: the servers are on this machine.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(10);

/// For one statement at Oracle; a session that hangs is given up and replaced.
const CALL_TIMEOUT: Duration = Duration::from_secs(60);

/// Why an endpoint can't be reached.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Oracle refused, or no listener answered.
    #[error("cannot connect to Oracle at {dsn} as {user}: {}", oracle_text(source))]
    Oracle {
        /// `host:port/service`.
        dsn: String,
        user: String,
        source: Box<oracle::Error>,
    },
    /// PostgreSQL refused, or nobody answered.
    #[error(
        "cannot connect to PostgreSQL at {server} as {user}: {}",
        postgres_text(source)
    )]
    Postgres {
        /// `host:port/database`.
        server: String,
        user: String,
        source: tokio_postgres::Error,
    },
    /// Nobody answered in time.
    #[error("{server} did not answer within {} s", CONNECT_TIMEOUT.as_secs())]
    Timeout {
        /// `host:port/database`.
        server: String,
    },
    /// The CA file is of no use.
    #[error("cannot use the CA file {file}: {why}")]
    Authority { file: String, why: String },
    /// The connecting thread ended early.
    #[error("the thread that was to connect has ended")]
    Thread,
}

/// The text of an Oracle error: its code and message. Errors that ODPI-C wraps
/// (DPI-1067, DPI-1080) can carry stray bytes in their text, so of those only the
/// code is given.
#[must_use]
pub fn oracle_text(error: &oracle::Error) -> String {
    match error.dpi_code() {
        Some(code @ (1067 | 1080)) => format!("DPI-{code} (the session is lost)"),
        _ => error.to_string(),
    }
}

/// The text of a PostgreSQL error with its cause.
#[must_use]
pub fn postgres_text(error: &tokio_postgres::Error) -> String {
    match (error.as_db_error(), std::error::Error::source(error)) {
        (Some(db), _) => format!("{} (SQLSTATE {})", db.message(), db.code().code()),
        (None, Some(cause)) => format!("{error}: {cause}"),
        (None, None) => error.to_string(),
    }
}

/// Whether an Oracle session is of no further use after an error: it was killed,
/// or the connection is gone.
#[must_use]
pub fn oracle_session_lost(error: &oracle::Error) -> bool {
    const LOST: [i32; 9] = [28, 1012, 1033, 1089, 2396, 3113, 3114, 3135, 12_541];
    matches!(error.dpi_code(), Some(1080 | 1010 | 1067))
        || error.oci_code().is_some_and(|c| LOST.contains(&c))
}

/// Connects to Oracle. Blocks.
///
/// # Errors
/// [`ConnectError::Oracle`].
pub fn oracle_blocking(endpoint: &OracleEndpoint) -> Result<oracle::Connection, ConnectError> {
    let dsn = format!("{}:{}/{}", endpoint.host, endpoint.port, endpoint.service);
    let connect = || {
        let connection = oracle::Connection::connect(&endpoint.user, &endpoint.password, &dsn)?;
        connection.set_call_timeout(Some(CALL_TIMEOUT))?;
        Ok(connection)
    };
    connect().map_err(|source| ConnectError::Oracle {
        dsn: dsn.clone(),
        user: endpoint.user.clone(),
        source: Box::new(source),
    })
}

/// Connects to PostgreSQL and runs the endpoint's AfterConnectScript.
///
/// # Errors
/// When the CA file can't be used, or the server refuses or doesn't answer.
pub async fn postgres(endpoint: &PostgresEndpoint) -> Result<tokio_postgres::Client, ConnectError> {
    let server = format!("{}:{}/{}", endpoint.host, endpoint.port, endpoint.dbname);
    let refused = |source| ConnectError::Postgres {
        server: server.clone(),
        user: endpoint.user.clone(),
        source,
    };
    let tls = MakeRustlsConnect::new(tls_client(&endpoint.ca_file)?);
    let mut config = tokio_postgres::Config::new();
    config
        .host(&endpoint.host)
        .port(endpoint.port)
        .dbname(&endpoint.dbname)
        .user(&endpoint.user)
        .password(&endpoint.password)
        .application_name("dms-double")
        .ssl_mode(SslMode::Require)
        .connect_timeout(CONNECT_TIMEOUT);
    let connected = tokio::time::timeout(CONNECT_TIMEOUT, config.connect(tls)).await;
    let (client, connection) = connected
        .map_err(|_| ConnectError::Timeout {
            server: server.clone(),
        })?
        .map_err(refused)?;
    // Ends by itself when the client is dropped; its error reaches the client's calls.
    tokio::spawn(connection);
    let setup = format!(
        "SET standard_conforming_strings = on; SET datestyle = 'ISO, YMD'; {}",
        endpoint.script()
    );
    client.batch_execute(&setup).await.map_err(refused)?;
    Ok(client)
}

/// TLS for a client that trusts one CA file.
///
/// # Errors
/// [`ConnectError::Authority`].
pub fn tls_client(ca_file: &Path) -> Result<ClientConfig, ConnectError> {
    let unusable = |why: String| ConnectError::Authority {
        file: ca_file.display().to_string(),
        why,
    };
    let mut roots = RootCertStore::empty();
    for certificate in
        CertificateDer::pem_file_iter(ca_file).map_err(|e| unusable(e.to_string()))?
    {
        let certificate = certificate.map_err(|e| unusable(e.to_string()))?;
        roots
            .add(certificate)
            .map_err(|e| unusable(e.to_string()))?;
    }
    if roots.is_empty() {
        return Err(unusable("it holds no certificate".into()));
    }
    Ok(ClientConfig::builder()
        .with_root_certificates(roots)
        .with_no_client_auth())
}

/// Connects and asks something, as TestConnection does.
///
/// # Errors
/// The LastFailureMessage.
pub async fn test(endpoint: &EndpointConfig) -> Result<(), String> {
    match endpoint {
        EndpointConfig::Oracle(e) => {
            let e = e.clone();
            let probe = tokio::task::spawn_blocking(move || {
                let connection = oracle_blocking(&e)?;
                connection
                    .query_row_as::<i64>("SELECT 1 FROM DUAL", &[])
                    .map_err(|source| ConnectError::Oracle {
                        dsn: format!("{}:{}/{}", e.host, e.port, e.service),
                        user: e.user.clone(),
                        source: Box::new(source),
                    })
            });
            probe
                .await
                .unwrap_or(Err(ConnectError::Thread))
                .map(drop)
                .map_err(|e| format!("Test Endpoint failed: {e}"))
        }
        EndpointConfig::Postgres(e) => postgres(e)
            .await
            .map(drop)
            .map_err(|e| format!("Test Endpoint failed: {e}")),
    }
}
