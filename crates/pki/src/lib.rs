//! Identities, a private CA, and mutual TLS with credentials that are reloaded when
//! their files change.
//!
//! A trust domain has three kinds of parties, and each certificate identifies
//! exactly one of them by its only URI: `spiffe://DOMAIN/agent/NAME`,
//! `/coordinator/NAME` or `/operator/NAME`. Host names are not used for
//! authentication, so an address may change without a new certificate.
//!
//! - [`Authority`] issues certificates where there is no other CA.
//! - [`Credentials`] holds the certificate of this process and watches its files, so
//!   that rotation and revocation need no restart.
//! - [`Listener`] accepts mutually authenticated connections for the coordinator.
//! - [`connect`] connects an agent or the command to a coordinator.
//!
//! There is deliberately no plaintext mode, no session resumption (a resumed session
//! would bypass the revocation check) and no authorization, which is the task of the
//! coordinator.

mod authority;
mod certificate;
mod config;
mod connect;
mod credentials;
mod identity;
mod listener;
mod pending;
mod refusal;
mod revocation;
mod verified;
mod verifier;

pub use authority::{Authority, AuthorityError, Issued, IssuedFiles};
pub use certificate::WeakKey;
pub use config::{TlsConfig, TlsConfigError};
pub use connect::{ConnectError, Connector, Stream, connect};
pub use credentials::{CredentialFiles, Credentials, CredentialsError, Loaded};
pub use identity::{Identity, IdentityError, Role, SpiffeId, TrustDomain, identity_of};
pub use listener::{Connection, Listener, ListenerOptions, Peer, Refused};
pub use refusal::Refusal;
pub use revocation::RevocationListError;
use rustls::crypto::CryptoProvider;
use std::sync::Arc;
pub use verified::Verified;

/// The cryptography provider that all of Lockstep uses.
pub(crate) fn provider() -> Arc<CryptoProvider> {
    Arc::new(rustls::crypto::aws_lc_rs::default_provider())
}

/// Makes aws-lc-rs the process's default provider, for libraries that use the
/// default (PostgreSQL's and the AWS SDK's TLS). Call it first in `main`;
/// calling it again changes nothing.
pub fn install_provider() {
    // An error means that a default is already installed, which is sufficient.
    let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
}
