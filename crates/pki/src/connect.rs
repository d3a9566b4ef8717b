//! Connections from an agent or from the command to the coordinator.

use crate::credentials::Credentials;
use crate::identity::{IdentityError, identity_of};
use crate::refusal::Refusal;
use crate::verified::{self, Peer, Reverification, Verified};
use http::Uri;
use hyper_util::rt::TokioIo;
use rustls_pki_types::ServerName;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::time::timeout;
use tokio_rustls::TlsConnector;
use tokio_rustls::client::TlsStream;
use tonic::transport::{Channel, Endpoint};

/// Time limit of the TCP connection and, separately, of the handshake. It tolerates
/// the loss of one or two packets and is short enough to try the next address.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(5);

/// Connects a channel; each later reconnection uses the credentials that are
/// current at that time. The endpoint's address has the form `https://HOST:PORT`; the
/// caller configures its keep-alive and limits.
///
/// # Errors
/// tonic's error, with a [`ConnectError`] among its sources.
pub async fn connect(
    endpoint: &Endpoint,
    credentials: &Credentials,
) -> Result<Channel, tonic::transport::Error> {
    endpoint
        .connect_with_connector(Connector::new(credentials))
        .await
}

/// An open connection to a coordinator.
pub type Stream = Verified<TlsStream<TcpStream>>;

/// Makes connections for a tonic channel: TCP, then mutual TLS.
#[derive(Debug, Clone)]
pub struct Connector {
    credentials: Credentials,
}

impl Connector {
    /// A connector that uses the current credentials for each connection.
    pub fn new(credentials: &Credentials) -> Self {
        Self {
            credentials: credentials.clone(),
        }
    }

    async fn connect(self, uri: Uri) -> Result<TokioIo<Stream>, ConnectError> {
        if uri.scheme_str() != Some("https") {
            return Err(ConnectError::Address {
                address: uri.to_string(),
            });
        }
        let (Some(host), Some(port)) = (uri.host(), uri.port_u16()) else {
            return Err(ConnectError::Address {
                address: uri.to_string(),
            });
        };
        let host = host.trim_start_matches('[').trim_end_matches(']');
        let address = format!("{host}:{port}");
        let name = ServerName::try_from(host.to_owned()).map_err(|_| ConnectError::Address {
            address: uri.to_string(),
        })?;

        let tcp = timeout(CONNECT_TIMEOUT, TcpStream::connect((host, port)))
            .await
            .unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
            .and_then(|tcp| tcp.set_nodelay(true).map(|()| tcp))
            .map_err(|source| ConnectError::Tcp {
                address: address.clone(),
                source,
            })?;
        // Subscribe before the handshake, so that a revocation during it is noticed.
        let (loaded, changes) = verified::current(&self.credentials);
        let tls = TlsConnector::from(loaded.client_config());
        let stream = match timeout(CONNECT_TIMEOUT, tls.connect(name, tcp)).await {
            Ok(Ok(stream)) => stream,
            Ok(Err(error)) => {
                return Err(ConnectError::Tls {
                    address,
                    source: Refusal::of_io(&error),
                });
            }
            Err(_) => {
                let source = Refusal::HandshakeTimeout(CONNECT_TIMEOUT);
                return Err(ConnectError::Tls { address, source });
            }
        };
        if stream.get_ref().1.alpn_protocol() != Some(b"h2") {
            return Err(ConnectError::Tls {
                address,
                source: Refusal::NotHttp2,
            });
        }
        let chain = stream.get_ref().1.peer_certificates().unwrap_or_default();
        let refused = |source| ConnectError::Tls {
            address: address.clone(),
            source,
        };
        let found = chain.first().ok_or(Refusal::NoCertificate);
        let found = found.and_then(|certificate| {
            identity_of(certificate, loaded.trust_domain()).map_err(Refusal::Identity)
        });
        let found = found.map_err(refused)?;
        if let Some(pinned) = self.credentials.coordinator()
            && found.name() != pinned
        {
            return Err(refused(Refusal::Identity(IdentityError::WrongName {
                found,
                expected: pinned.to_owned(),
            })));
        }
        let reverification = Reverification::new(Peer::Coordinator, chain, loaded, changes);
        let who = format!("{found} at {address}");
        Ok(TokioIo::new(Verified::new(stream, reverification, who)))
    }
}

impl tower::Service<Uri> for Connector {
    type Response = TokioIo<Stream>;
    type Error = ConnectError;
    type Future = Pin<Box<dyn Future<Output = Result<Self::Response, ConnectError>> + Send>>;

    fn poll_ready(&mut self, _cx: &mut Context<'_>) -> Poll<Result<(), ConnectError>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        Box::pin(self.clone().connect(uri))
    }
}

/// Why no connection to a coordinator was made.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// The address is not of the form https://HOST:PORT.
    #[error("{address:?} is not a coordinator's address; it has the form https://HOST:PORT")]
    Address { address: String },
    /// The TCP connection failed.
    #[error("can't reach the coordinator at {address}")]
    Tcp { address: String, source: io::Error },
    /// The peer is not a trusted coordinator, or it rejected our certificate.
    #[error("no secure connection to the coordinator at {address}")]
    Tls { address: String, source: Refusal },
}
