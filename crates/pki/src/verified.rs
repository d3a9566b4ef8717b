//! Open connections are verified again: at each change of the credentials, and
//! when the peer's certificate expires. One that is no longer accepted ends.

use crate::certificate;
use crate::credentials::{Credentials, Loaded};
use crate::refusal::Refusal;
use rustls_pki_types::CertificateDer;
use std::future::Future;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::task::{Context, Poll};
use std::time::{Duration, SystemTime};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::Sleep;
use tokio_stream::Stream;
use tokio_stream::wrappers::WatchStream;

/// Longest time between two looks at the wall clock, which may be set; the end of
/// a certificate's validity is noticed no later than this.
const CLOCK_INTERVAL: Duration = Duration::from_secs(60);

/// Which end of the connection the peer is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Peer {
    /// An agent or an operator.
    Party,
    Coordinator,
}

/// Verifies the certificate of a connected peer again.
#[derive(Debug)]
pub(crate) struct Reverification {
    peer: Peer,
    chain: Vec<CertificateDer<'static>>,
    expires: Option<SystemTime>,
    loaded: Arc<Loaded>,
    changes: WatchStream<Arc<Loaded>>,
    clock: Pin<Box<Sleep>>,
}

impl Reverification {
    /// `loaded` is the state with which the peer was verified, `changes` the
    /// receiver from which it was taken.
    pub(crate) fn new(
        peer: Peer,
        chain: &[CertificateDer<'_>],
        loaded: Arc<Loaded>,
        changes: tokio::sync::watch::Receiver<Arc<Loaded>>,
    ) -> Self {
        let chain: Vec<_> = chain.iter().map(|der| der.clone().into_owned()).collect();
        let expires = chain.first().and_then(|der| certificate::not_after(der));
        Self {
            peer,
            clock: Box::pin(tokio::time::sleep(until(expires))),
            chain,
            expires,
            loaded,
            changes: WatchStream::from_changes(changes),
        }
    }

    /// Ready with the reason once the peer is no longer accepted.
    fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Refusal> {
        let mut verify = false;
        while let Poll::Ready(Some(loaded)) = Pin::new(&mut self.changes).poll_next(cx) {
            self.loaded = loaded;
            verify = true;
        }
        while self.clock.as_mut().poll(cx).is_ready() {
            self.clock = Box::pin(tokio::time::sleep(until(self.expires)));
            verify = true;
        }
        if !verify {
            return Poll::Pending;
        }
        let verified = match self.peer {
            Peer::Party => self.loaded.verify_party(&self.chain),
            Peer::Coordinator => self.loaded.verify_coordinator(&self.chain),
        };
        match verified {
            Ok(()) => Poll::Pending,
            Err(reason) => Poll::Ready(reason),
        }
    }
}

/// How long to wait before the wall clock is read again.
fn until(expires: Option<SystemTime>) -> Duration {
    let left = expires.and_then(|at| at.duration_since(now()).ok());
    // Certificates are valid up to and including their last second. An expired
    // one is refused by the verification, not here.
    let left = left.map_or(CLOCK_INTERVAL, |left| left + Duration::from_secs(1));
    left.min(CLOCK_INTERVAL)
}

#[expect(
    clippy::disallowed_methods,
    reason = "a certificate's validity is in terms of the wall clock"
)]
fn now() -> SystemTime {
    SystemTime::now()
}

/// A stream that fails once its peer is no longer accepted.
#[derive(Debug)]
pub struct Verified<S> {
    stream: S,
    reverification: Reverification,
    /// Address and identity of the peer, for the log.
    peer: String,
}

impl<S> Verified<S> {
    pub(crate) fn new(stream: S, reverification: Reverification, peer: String) -> Self {
        Self {
            stream,
            reverification,
            peer,
        }
    }

    fn poll_verify(&mut self, cx: &mut Context<'_>) -> io::Result<()> {
        let Poll::Ready(reason) = self.reverification.poll(cx) else {
            return Ok(());
        };
        tracing::warn!(
            peer = self.peer,
            kind = reason.kind(),
            %reason,
            "connection closed: its certificate is no longer accepted"
        );
        Err(io::Error::new(io::ErrorKind::PermissionDenied, reason))
    }
}

/// The credentials' current state, and its changes from then on.
pub(crate) fn current(
    credentials: &Credentials,
) -> (Arc<Loaded>, tokio::sync::watch::Receiver<Arc<Loaded>>) {
    let mut changes = credentials.subscribe();
    let loaded = changes.borrow_and_update().clone();
    (loaded, changes)
}

impl<S: AsyncRead + Unpin> AsyncRead for Verified<S> {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        // HTTP/2 always has a pending read, so every change is detected here.
        self.poll_verify(cx)?;
        Pin::new(&mut self.stream).poll_read(cx, buf)
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Verified<S> {
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
