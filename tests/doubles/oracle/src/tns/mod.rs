//! The listener frontend: Oracle Net (TNS) and two-task common (TTC), as far as
//! unmodified thin drivers need it to log in and work.
//!
//! It stays small by negotiating down: protocol version 318 without fast
//! authentication, out-of-band breaks or end-of-response marks, TTC field
//! version 12 (19c), O5LOGON with the 12c verifier. The layout follows
//! python-oracledb's thin implementation, whose source is public.
//!
//! What it deliberately doesn't do: encryption, redirects, dead connection
//! detection, LOBs, objects, REF CURSORs, scrollable cursors, PL/SQL tables,
//! two-phase commit, advanced queueing and password changes. A driver that
//! asks for one of these gets an ORA error; where the request can't even be
//! read to its end, the connection closes after that error.
//!
//! A session that was killed answers ORA-00028 to its next call; the
//! connection closes after the answer. There are two threads to a
//! connection: one reads packets, so that an interrupt reaches a call that is
//! under way, the other executes.

mod auth;
mod codec;
mod connect;
mod cursor;
mod execute;
mod link;
mod oac;
mod packet;
mod reply;
mod request;
mod scalar;
mod session;
mod text;

pub use connect::{Gate, Refusal, Service, Wanted};
use std::net::TcpStream;

/// Why a connection ended.
#[derive(Debug, thiserror::Error)]
pub(crate) enum TnsError {
    /// The client closed the connection, in order or not.
    #[error("the client closed the connection")]
    Closed,
    /// The client broke off the request it was sending.
    #[error("the client broke off a request")]
    Broken,
    /// The listener turned the client away.
    #[error("refused with TNS-{0:05}")]
    Refused(u32),
    /// What came is not TNS or TTC as agreed.
    #[error("the client sent {0}")]
    Malformed(&'static str),
    /// The client asked for something this frontend doesn't do.
    #[error("the client asked for {0}, which the simulator does not do")]
    Unsupported(String),
    /// A cryptographic primitive failed, which means a wrong length.
    #[error("the logon's cryptography failed")]
    Crypto,
    #[error("the connection failed")]
    Io(#[source] std::io::Error),
}

/// Serves one client from its CONNECT packet to the end. The gate is the
/// listener: it turns the wanted service into a database or refuses.
///
/// Returns when the connection is closed; how it ended goes to the trace.
pub fn serve(stream: TcpStream, gate: &dyn Gate) {
    let peer = stream
        .peer_addr()
        .map(|address| address.ip().to_string())
        .unwrap_or_default();
    match session::run(stream, gate, &peer) {
        Ok(()) | Err(TnsError::Closed) => tracing::debug!(peer, "connection closed"),
        Err(error) => {
            tracing::warn!(
                peer,
                error = &error as &dyn std::error::Error,
                "connection ended"
            );
        }
    }
}
