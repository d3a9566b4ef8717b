//! Who is who: identities, a private CA, and mutual TLS that follows its files.
//!
//! One trust domain holds three kinds of parties, and each certificate names
//! exactly one of them in its only URI: `spiffe://DOMAIN/agent/NAME`,
//! `/coordinator/NAME` or `/operator/NAME`. Host names play no part in who is
//! trusted, so an address may change without a new certificate.
//!
//! - [`Authority`] makes certificates for those who have no CA of their own.
//! - [`Credentials`] holds this process's certificate and follows its files, so
//!   that rotation and revocation need no restart.
//! - [`Listener`] accepts mutually authenticated connections for the coordinator.
//! - [`connect`] reaches a coordinator from an agent or from the command.
//!
//! What is deliberately absent: plaintext, session resumption (a resumed session
//! would skip the check for revocation) and any decision about what an identity
//! may do. That is the authorization matrix's.

mod authority;
mod certificate;
mod config;
mod connect;
mod credentials;
mod identity;
mod listener;
mod refusal;
mod verifier;

pub use authority::{Authority, AuthorityError, Issued, IssuedFiles};
pub use config::{TlsConfig, TlsConfigError};
pub use connect::{ConnectError, Connector, connect};
pub use credentials::{CredentialFiles, Credentials, CredentialsError, Loaded};
pub use identity::{Identity, IdentityError, Role, SpiffeId, TrustDomain, identity_of};
pub use listener::{Connection, Listener, ListenerOptions, Peer, Refused};
pub use refusal::Refusal;
use rustls::crypto::CryptoProvider;
use std::sync::Arc;

/// The one provider of cryptography in every part of Lockstep.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Makes aws-lc-rs the process's default provider, for the libraries that take
/// the default (PostgreSQL's and the AWS SDK's TLS). Call it first in `main`;
/// calling it again changes nothing.
pub fn install_provider() {
    // An error only says that a default is already installed, which is the aim.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
