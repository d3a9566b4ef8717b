//! Reasons for rejecting a connection, the same for both ends.

use crate::certificate::WeakKey;
use crate::identity::{Identity, IdentityError};
use rustls::{AlertDescription, CertificateError, InvalidMessage, OtherError, PeerIncompatible};
use std::error::Error;
use std::io;

/// Why the peer was rejected.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// The peer proved no identity.
    #[error("it presented no certificate")]
    NoCertificate,
    #[error("its certificate has expired; issue a new one, or correct the clock")]
    Expired,
    #[error("its certificate isn't valid yet; compare the clocks of both hosts")]
    NotYetValid,
    /// The issuer is not trusted.
    #[error("its certificate was issued by an untrusted certificate authority")]
    UnknownIssuer,
    /// The certificate was altered or forged, or the peer lacks its key.
    #[error(
        "a signature is invalid: the certificate was altered, or the peer doesn't have its key"
    )]
    BadSignature,
    /// The TLS library would report it as an invalid signature.
    #[error(transparent)]
    WeakKey(#[from] WeakKey),
    /// Wrong extended key usage.
    #[error("its certificate isn't meant for this end of a connection (extended key usage)")]
    WrongUsage,
    #[error("its certificate has been revoked")]
    Revoked,
    /// A revocation list is configured, but none covers this certificate.
    #[error("no revocation list covers its certificate; add the list of the CA that issued it")]
    UnknownRevocation,
    /// A CA certificate instead of a party's.
    #[error("it presented a certificate authority's certificate as its own")]
    AuthorityAsParty,
    /// The issuer is not a CA.
    #[error("the issuer of its certificate isn't a certificate authority")]
    IssuerNotAuthority,
    /// More intermediates than the CA allows.
    #[error("its chain is longer than its certificate authority allows")]
    ChainTooLong,
    /// The chain is valid, but identifies no party of the trust domain.
    #[error(transparent)]
    Identity(IdentityError),
    #[error("it doesn't speak TLS; there is no plaintext mode")]
    NotTls,
    #[error("it doesn't speak TLS 1.3")]
    TlsVersion,
    #[error("it doesn't speak HTTP/2")]
    NotHttp2,
    #[error("the handshake took longer than {} s", .0.as_secs_f32())]
    HandshakeTimeout(std::time::Duration),
    /// Closed before the end of the handshake.
    #[error("it closed the connection during the handshake")]
    Closed,
    /// Limit of connections per identity.
    #[error("{identity} already has {limit} connections")]
    TooManyConnections {
        identity: Identity,
        /// Allowed number of connections.
        limit: usize,
    },
    /// More handshakes than strangers may have in progress.
    #[error("too many connections from unknown addresses are in their handshakes")]
    TooManyHandshakes,
    /// The peer rejected us with an alert.
    #[error("it rejected this connection: {0}")]
    ByPeer(String),
    /// Any other error of the TLS library.
    #[error("{0}")]
    Other(String),
}

impl Refusal {
    /// Short name of the kind, for counters and log fields.
    pub fn kind(&self) -> &'static str {
        match self {
            Self::NoCertificate => "no_certificate",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::UnknownIssuer => "unknown_issuer",
            Self::BadSignature => "bad_signature",
            Self::WrongUsage => "wrong_usage",
            Self::Revoked => "revoked",
            Self::UnknownRevocation => "unknown_revocation",
            Self::AuthorityAsParty => "authority_as_party",
            Self::IssuerNotAuthority => "issuer_not_authority",
            Self::ChainTooLong => "chain_too_long",
            Self::Identity(_) => "identity",
            Self::NotTls => "not_tls",
            Self::TlsVersion => "tls_version",
            Self::NotHttp2 => "not_http2",
            Self::HandshakeTimeout(_) => "handshake_timeout",
            Self::Closed => "closed",
            Self::TooManyConnections { .. } => "too_many_connections",
            Self::TooManyHandshakes => "too_many_handshakes",
            Self::WeakKey(_) => "weak_key",
            Self::ByPeer(_) => "by_peer",
            Self::Other(_) => "other",
        }
    }

    /// Finds the refusal among an error's sources. A TLS 1.3 server rejects a client
    /// after the client has finished its handshake, so the client gets the alert
    /// from its next operation, wrapped by every library in between.
    pub fn among(error: &(dyn Error + 'static)) -> Option<Self> {
        let mut next = Some(error);
        while let Some(error) = next {
            if let Some(refusal) = error.downcast_ref::<Self>() {
                return Some(refusal.clone());
            }
            // `source` of an I/O error skips the wrapped error itself.
            let inner = error
                .downcast_ref::<io::Error>()
                .and_then(|error| error.get_ref()?.downcast_ref::<rustls::Error>());
            if let Some(tls) = inner.or_else(|| error.downcast_ref::<rustls::Error>()) {
                return Some(Self::of_tls(tls));
            }
            // The HTTP/2 library retains only the text of the error.
            if let Some(alert) = error.to_string().strip_prefix("received fatal alert: ") {
                return Some(Self::ByPeer(alert.to_owned()));
            }
            next = error.source();
        }
        None
    }

    /// Converts the I/O error of a handshake.
    pub(crate) fn of_io(error: &io::Error) -> Self {
        let inner = error
            .get_ref()
            .and_then(|inner| inner.downcast_ref::<rustls::Error>());
        match inner {
            Some(tls) => Self::of_tls(tls),
            None => match error.kind() {
                io::ErrorKind::UnexpectedEof
                | io::ErrorKind::ConnectionReset
                | io::ErrorKind::ConnectionAborted
                | io::ErrorKind::BrokenPipe => Self::Closed,
                _ => Self::Other(error.to_string()),
            },
        }
    }

    /// Converts an error of the TLS library.
    pub(crate) fn of_tls(error: &rustls::Error) -> Self {
        use rustls::Error;
        match error {
            Error::NoCertificatesPresented => Self::NoCertificate,
            Error::InvalidCertificate(error) => Self::of_certificate(error),
            Error::NoApplicationProtocol => Self::NotHttp2,
            Error::PeerIncompatible(
                // The errors for a ClientHello of TLS 1.0 or 1.1.
                PeerIncompatible::SignatureAlgorithmsExtensionRequired
                | PeerIncompatible::SupportedVersionsExtensionRequired
                | PeerIncompatible::Tls13RequiredForQuic
                | PeerIncompatible::Tls12NotOffered
                | PeerIncompatible::Tls12NotOfferedOrEnabled
                | PeerIncompatible::ServerDoesNotSupportTls12Or13
                | PeerIncompatible::ServerTlsVersionIsDisabledByOurConfig,
            ) => Self::TlsVersion,
            Error::InvalidMessage(
                InvalidMessage::InvalidContentType
                | InvalidMessage::UnknownProtocolVersion
                | InvalidMessage::MessageTooLarge
                | InvalidMessage::InvalidEmptyPayload,
            ) => Self::NotTls,
            Error::AlertReceived(AlertDescription::ProtocolVersion) => Self::TlsVersion,
            Error::AlertReceived(AlertDescription::NoApplicationProtocol) => Self::NotHttp2,
            Error::AlertReceived(alert) => Self::ByPeer(format!("{alert:?}")),
            other => Self::Other(other.to_string()),
        }
    }

    fn of_certificate(error: &CertificateError) -> Self {
        match error {
            CertificateError::Expired | CertificateError::ExpiredContext { .. } => Self::Expired,
            CertificateError::NotValidYet | CertificateError::NotValidYetContext { .. } => {
                Self::NotYetValid
            }
            CertificateError::UnknownIssuer => Self::UnknownIssuer,
            CertificateError::BadSignature => Self::BadSignature,
            CertificateError::InvalidPurpose | CertificateError::InvalidPurposeContext { .. } => {
                Self::WrongUsage
            }
            CertificateError::Revoked => Self::Revoked,
            CertificateError::UnknownRevocationStatus => Self::UnknownRevocation,
            CertificateError::Other(OtherError(inner)) => {
                if let Some(weak) = inner.downcast_ref::<WeakKey>() {
                    Self::WeakKey(weak.clone())
                } else if let Some(identity) = inner.downcast_ref::<IdentityError>() {
                    Self::Identity(identity.clone())
                } else if let Some(chain) = inner.downcast_ref::<webpki::Error>() {
                    Self::of_chain(chain)
                } else {
                    Self::Other(inner.to_string())
                }
            }
            other => Self::Other(format!("{other:?}")),
        }
    }

    fn of_chain(error: &webpki::Error) -> Self {
        match error {
            webpki::Error::CaUsedAsEndEntity => Self::AuthorityAsParty,
            webpki::Error::EndEntityUsedAsCa => Self::IssuerNotAuthority,
            webpki::Error::PathLenConstraintViolated => Self::ChainTooLong,
            other => Self::Other(format!("its certificate chain is invalid: {other:?}")),
        }
    }
}
