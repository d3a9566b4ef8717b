//! The listener of the coordinator: accepts TCP and yields mutually authenticated
//! connections.
//!
//! No request reaches a handler before the handshake has proved an identity.
//! Handshakes run concurrently up to a limit; beyond it, new connections wait in
//! the kernel's queue, and silent ones make room for them. Open connections are verified again at each change of the
//! credentials and closed when their certificate is no longer accepted.

use crate::certificate;
use crate::credentials::Credentials;
use crate::identity::{Identity, Role, identity_of};
use crate::pending::{Limits, Pending, Room};
use crate::refusal::Refusal;
use crate::verified::{self, Reverification, Verified};
use std::collections::HashMap;
use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, ReadBuf};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::task::JoinSet;
use tokio::time::Sleep;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;
use tokio_stream::Stream;
use tonic::transport::server::Connected;

/// Listen backlog, sized for a whole fleet that reconnects at once. Linux caps it at
/// `net.core.somaxconn` (4096 by default).
const BACKLOG: u32 = 4096;

/// Pause after a failed accept (out of file descriptors), so that the loop doesn't
/// spin until connections are closed.
const ACCEPT_PAUSE: Duration = Duration::from_millis(50);

/// Pause while all handshakes are in use and none of them is silent yet.
const FULL_PAUSE: Duration = Duration::from_millis(100);

/// Time that a rejected client has to read the alert, and the number of its bytes that
/// are discarded meanwhile: a round trip, and the first frames of HTTP/2.
const LINGER: Duration = Duration::from_secs(1);
const LINGER_BYTES: u64 = 16 * 1024;

/// Limits of a [`Listener`].
#[derive(Debug, Clone)]
pub struct ListenerOptions {
    /// Time limit of a handshake. Two round trips and a signature are a
    /// fraction of a second on any network; a slower peer is stalled or hostile.
    pub handshake_timeout: Duration,
    /// Number of concurrent handshakes; bounds the memory that stalled peers can
    /// occupy. A quarter is kept for addresses from which a party has connected, and
    /// any other address has an eighth at most.
    pub pending_handshakes: usize,
    /// Number of connections per agent: the active one, and one that replaces it
    /// before its loss has been noticed.
    pub connections_per_agent: usize,
}

impl Default for ListenerOptions {
    fn default() -> Self {
        Self {
            handshake_timeout: Duration::from_secs(5),
            pending_handshakes: 256,
            connections_per_agent: 2,
        }
    }
}

/// Accepts connections from agents and operators.
///
/// As a [`Stream`], it is the argument of tonic's `serve_with_incoming`; refused
/// connections are then logged, each with its reason. Handlers find the [`Peer`] in the
/// extensions of a request.
#[derive(Debug)]
pub struct Listener {
    tcp: TcpListener,
    credentials: Credentials,
    options: ListenerOptions,
    handshakes: JoinSet<Result<Connection, Refused>>,
    pending: Pending,
    pause: Option<Pin<Box<Sleep>>>,
    counts: Arc<Mutex<HashMap<Identity, usize>>>,
}

impl Listener {
    /// Listens on an address. Port 0 selects a free port.
    ///
    /// # Errors
    /// The address is in use or does not belong to this host.
    pub fn bind(
        address: SocketAddr,
        credentials: Credentials,
        options: ListenerOptions,
    ) -> io::Result<Self> {
        let socket = match address {
            SocketAddr::V4(_) => TcpSocket::new_v4()?,
            SocketAddr::V6(_) => TcpSocket::new_v6()?,
        };
        // A restarted coordinator must be able to bind its port while connections of the
        // previous one are still in TIME_WAIT.
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        Ok(Self {
            tcp: socket.listen(BACKLOG)?,
            credentials,
            pending: Pending::new(Limits::of(options.pending_handshakes)),
            options,
            handshakes: JoinSet::new(),
            pause: None,
            counts: Arc::default(),
        })
    }

    /// The address it listens on, with the port that was selected.
    ///
    /// # Errors
    /// The operating system's error.
    pub fn local_addr(&self) -> io::Result<SocketAddr> {
        self.tcp.local_addr()
    }

    /// The next accepted or rejected connection. Never ends.
    ///
    /// # Errors
    /// A rejected connection and the reason; the listener continues.
    pub async fn accept(&mut self) -> Result<Connection, Refused> {
        std::future::poll_fn(|cx| self.poll_accept(cx)).await
    }

    fn poll_accept(&mut self, cx: &mut Context<'_>) -> Poll<Result<Connection, Refused>> {
        loop {
            match self.handshakes.poll_join_next_with_id(cx) {
                Poll::Ready(Some(Ok((id, outcome)))) => {
                    self.pending.ended(id, outcome.is_ok());
                    return Poll::Ready(outcome);
                }
                Poll::Ready(Some(Err(error))) => {
                    self.pending.ended(error.id(), false);
                    if !error.is_cancelled() {
                        tracing::error!(%error, "a handshake ended abnormally");
                    }
                    continue;
                }
                Poll::Ready(None) | Poll::Pending => {}
            }
            if self.pending.is_full() && self.pause.is_none() {
                self.pause = Some(Box::pin(tokio::time::sleep(FULL_PAUSE)));
            }
            if let Some(pause) = &mut self.pause {
                std::task::ready!(pause.as_mut().poll(cx));
                self.pause = None;
                continue;
            }
            match std::task::ready!(self.tcp.poll_accept(cx)) {
                Ok((tcp, address)) => match self.pending.room_for(address.ip()) {
                    Room::Free => self.begin(tcp, address),
                    Room::InsteadOf(silent) => {
                        let ended = self.pending.end(silent);
                        tracing::debug!(peer = ?ended, "a silent connection made room");
                        self.begin(tcp, address);
                    }
                    Room::None => {
                        let reason = Refusal::TooManyHandshakes;
                        return Poll::Ready(Err(Refused { address, reason }));
                    }
                },
                Err(error) => {
                    tracing::warn!(%error, "can't accept a connection; trying again shortly");
                    self.pause = Some(Box::pin(tokio::time::sleep(ACCEPT_PAUSE)));
                }
            }
        }
    }

    fn begin(&mut self, tcp: TcpStream, address: SocketAddr) {
        let credentials = self.credentials.clone();
        let options = self.options.clone();
        let counts = self.counts.clone();
        let spoke = Arc::new(AtomicBool::new(false));
        let speaks = spoke.clone();
        let task = self.handshakes.spawn(async move {
            let heard = async {
                // Readiness may be reported in error, so the first byte is awaited. An
                // error shows in the handshake.
                let _ = tcp.peek(&mut [0]).await;
                speaks.store(true, Ordering::Relaxed);
            };
            let limit = options.handshake_timeout;
            if tokio::time::timeout(limit, heard).await.is_err() {
                let reason = Refusal::HandshakeTimeout(limit);
                return Err(Refused { address, reason });
            }
            handshake(tcp, address, &credentials, &options, counts)
                .await
                .map_err(|reason| Refused { address, reason })
        });
        self.pending.began(address.ip(), spoke, task);
    }
}

impl Stream for Listener {
    type Item = io::Result<Connection>;

    fn poll_next(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        loop {
            match std::task::ready!(self.poll_accept(cx)) {
                Ok(connection) => return Poll::Ready(Some(Ok(connection))),
                Err(refused) => refused.log(),
            }
        }
    }
}

async fn handshake(
    tcp: TcpStream,
    address: SocketAddr,
    credentials: &Credentials,
    options: &ListenerOptions,
    counts: Arc<Mutex<HashMap<Identity, usize>>>,
) -> Result<Connection, Refusal> {
    // Barrier messages are small and latency-sensitive.
    tcp.set_nodelay(true)
        .map_err(|error| Refusal::of_io(&error))?;
    // Subscribe before the handshake, so that a revocation during it is noticed.
    let (loaded, changes) = verified::current(credentials);
    let accept = TlsAcceptor::from(loaded.server_config())
        .accept(tcp)
        .into_fallible();
    let accepted = tokio::time::timeout(options.handshake_timeout, accept)
        .await
        .map_err(|_| Refusal::HandshakeTimeout(options.handshake_timeout))?;
    let stream = match accepted {
        Ok(stream) => stream,
        Err((error, tcp)) => {
            linger(tcp).await;
            return Err(Refusal::of_io(&error));
        }
    };

    let (_, session) = stream.get_ref();
    if session.alpn_protocol() != Some(b"h2") {
        return Err(Refusal::NotHttp2);
    }
    let chain = session.peer_certificates().unwrap_or_default();
    let certificate = chain.first().ok_or(Refusal::NoCertificate)?;
    let identity = identity_of(certificate, loaded.trust_domain()).map_err(Refusal::Identity)?;
    let peer = Peer {
        fingerprint: certificate::fingerprint(certificate).into(),
        address,
        identity: identity.clone(),
    };
    let slot = match identity.role() {
        Role::Agent => Some(Slot::take(counts, identity, options.connections_per_agent)?),
        Role::Coordinator | Role::Operator => None,
    };
    let reverification = Reverification::new(verified::Peer::Party, chain, loaded, changes);
    let who = format!("{} at {address}", peer.identity);
    Ok(Connection {
        stream: Verified::new(stream, reverification, who),
        peer,
        _slot: slot,
    })
}

/// Closes a rejected connection so that the peer can read the alert with the
/// reason. By then a TLS 1.3 client has sent its first request; closing the socket with
/// that data unread would reset the connection and discard the alert.
async fn linger(mut tcp: TcpStream) {
    let drain = async {
        tcp.shutdown().await?;
        tokio::io::copy(&mut tcp.take(LINGER_BYTES), &mut tokio::io::sink()).await
    };
    // Whatever the outcome, the connection is closed.
    let _ = tokio::time::timeout(LINGER, drain).await;
}

/// The authenticated peer, in the extensions of each request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    pub identity: Identity,
    pub address: SocketAddr,
    /// SHA-256 of the certificate, in hexadecimal.
    pub fingerprint: Arc<str>,
}

/// One mutually authenticated connection.
#[derive(Debug)]
pub struct Connection {
    stream: Verified<TlsStream<TcpStream>>,
    peer: Peer,
    _slot: Option<Slot>,
}

impl Connection {
    pub fn peer(&self) -> &Peer {
        &self.peer
    }
}

impl Connected for Connection {
    type ConnectInfo = Peer;

    fn connect_info(&self) -> Peer {
        self.peer.clone()
    }
}

impl AsyncRead for Connection {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl AsyncWrite for Connection {
    fn poll_write(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, buf)
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }
}

/// A connection slot of an agent, released when dropped.
#[derive(Debug)]
struct Slot {
    counts: Arc<Mutex<HashMap<Identity, usize>>>,
    identity: Identity,
}

impl Slot {
    fn take(
        counts: Arc<Mutex<HashMap<Identity, usize>>>,
        identity: Identity,
        limit: usize,
    ) -> Result<Self, Refusal> {
        {
            let mut counts = counts.lock().unwrap_or_else(PoisonError::into_inner);
            let count = counts.entry(identity.clone()).or_default();
            if *count >= limit {
                return Err(Refusal::TooManyConnections { identity, limit });
            }
            *count += 1;
        }
        Ok(Self { counts, identity })
    }
}

impl Drop for Slot {
    fn drop(&mut self) {
        let mut counts = self.counts.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = counts.get_mut(&self.identity) {
            *count -= 1;
            if *count == 0 {
                counts.remove(&self.identity);
            }
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("connection from {address} refused")]
pub struct Refused {
    pub address: SocketAddr,
    #[source]
    pub reason: Refusal,
}

impl Refused {
    pub fn log(&self) {
        tracing::warn!(
            peer = %self.address,
            kind = self.reason.kind(),
            reason = %self.reason,
            "connection refused"
        );
    }
}
