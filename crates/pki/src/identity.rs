//! SPIFFE IDs of the three kinds of parties, parsed strictly.
//!
//! Each identity has exactly one spelling, so that policies can compare text. Sources
//! of the format: the SPIFFE-ID standard (section 2) and its X.509-SVID profile
//! (section 2: exactly one URI name).

use std::fmt;
use std::str::FromStr;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

/// Maximum length of a party's name in bytes, so that a file name can consist of it
/// and a suffix.
const MAX_NAME: usize = 128;

/// Maximum length of a trust domain in bytes (SPIFFE-ID standard, section 2.1).
const MAX_TRUST_DOMAIN: usize = 255;

/// Role of a party; together with the RPC it determines authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Role {
    /// Runs tasks on one host.
    Agent,
    Coordinator,
    /// A person, or a program that acts for one.
    Operator,
}

impl Role {
    /// The path segment of the role.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Agent => "agent",
            Self::Coordinator => "coordinator",
            Self::Operator => "operator",
        }
    }
}

impl fmt::Display for Role {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Role {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text {
            "agent" => Ok(Self::Agent),
            "coordinator" => Ok(Self::Coordinator),
            "operator" => Ok(Self::Operator),
            other => Err(IdentityError::UnknownRole {
                found: other.to_owned(),
            }),
        }
    }
}

/// The organisation's part of every identity, such as `example.org`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct TrustDomain(String);

impl TrustDomain {
    /// The domain as written in identities.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for TrustDomain {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TrustDomain {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        if text.is_empty() || text.len() > MAX_TRUST_DOMAIN || !text.bytes().all(plain) {
            return Err(IdentityError::BadTrustDomain {
                found: text.to_owned(),
            });
        }
        Ok(Self(text.to_owned()))
    }
}

/// One party within a trust domain; displayed as `agent/db-1`.
#[derive(Debug, Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Identity {
    role: Role,
    name: String,
}

impl Identity {
    /// Creates an identity. A name has 1 to 128 lowercase letters, digits, `.`, `-`
    /// and `_`, and begins and ends with a letter or digit.
    ///
    /// # Errors
    /// [`IdentityError::BadName`] for anything else.
    pub fn new(role: Role, name: &str) -> Result<Self, IdentityError> {
        let ends = |byte: Option<&u8>| {
            byte.is_some_and(|byte| byte.is_ascii_lowercase() || byte.is_ascii_digit())
        };
        let bytes = name.as_bytes();
        let good = bytes.len() <= MAX_NAME
            && ends(bytes.first())
            && ends(bytes.last())
            && bytes.iter().copied().all(plain);
        if !good {
            return Err(IdentityError::BadName {
                found: name.to_owned(),
            });
        }
        Ok(Self {
            role,
            name: name.to_owned(),
        })
    }

    pub fn role(&self) -> Role {
        self.role
    }

    /// The party's own name, without its role.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The identity within its trust domain.
    pub fn within(self, trust_domain: TrustDomain) -> SpiffeId {
        SpiffeId {
            trust_domain,
            identity: self,
        }
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.role, self.name)
    }
}

impl FromStr for Identity {
    type Err = IdentityError;

    fn from_str(text: &str) -> Result<Self, IdentityError> {
        match text.split('/').collect::<Vec<_>>()[..] {
            [role, name] => Self::new(role.parse()?, name),
            _ => Err(IdentityError::WrongPath {
                found: text.to_owned(),
            }),
        }
    }
}

/// A whole SPIFFE id: `spiffe://DOMAIN/ROLE/NAME`.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct SpiffeId {
    pub trust_domain: TrustDomain,
    pub identity: Identity,
}

impl SpiffeId {
    /// Parses the only URI of a certificate.
    ///
    /// # Errors
    /// The certificate does not identify a party.
    pub fn of_certificate(der: &[u8]) -> Result<Self, IdentityError> {
        let (rest, certificate) =
            X509Certificate::from_der(der).map_err(|_| IdentityError::Unreadable)?;
        if !rest.is_empty() {
            return Err(IdentityError::Unreadable);
        }
        if certificate.is_ca() {
            return Err(IdentityError::AuthorityAsParty);
        }
        let names = certificate
            .subject_alternative_name()
            .map_err(|_| IdentityError::Unreadable)?
            .map(|extension| extension.value.general_names.clone())
            .unwrap_or_default();
        let uris: Vec<&str> = names
            .iter()
            .filter_map(|name| match name {
                GeneralName::URI(uri) => Some(*uri),
                _ => None,
            })
            .collect();
        match uris[..] {
            [] => Err(IdentityError::NoUri),
            [uri] => uri.parse(),
            _ => Err(IdentityError::SeveralUris { count: uris.len() }),
        }
    }
}

impl fmt::Display for SpiffeId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "spiffe://{}/{}", self.trust_domain, self.identity)
    }
}

impl FromStr for SpiffeId {
    type Err = IdentityError;

    fn from_str(uri: &str) -> Result<Self, IdentityError> {
        let rest = uri
            .strip_prefix("spiffe://")
            .ok_or_else(|| IdentityError::NotSpiffe {
                found: uri.to_owned(),
            })?;
        let (domain, path) = rest
            .split_once('/')
            .ok_or_else(|| IdentityError::WrongPath {
                found: String::new(),
            })?;
        Ok(Self {
            trust_domain: domain.parse()?,
            identity: path.parse()?,
        })
    }
}

/// Identity in a certificate, which must belong to `trust_domain`. The chain must
/// have been verified before.
///
/// # Errors
/// The certificate does not identify a party.
pub fn identity_of(der: &[u8], trust_domain: &TrustDomain) -> Result<Identity, IdentityError> {
    let id = SpiffeId::of_certificate(der)?;
    if id.trust_domain != *trust_domain {
        return Err(IdentityError::WrongTrustDomain {
            found: id.trust_domain,
            expected: trust_domain.clone(),
        });
    }
    Ok(id.identity)
}

/// Why a name or a certificate does not identify a party.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not X.509, or with repeated extensions.
    #[error("the certificate can't be read")]
    Unreadable,
    /// A CA certificate instead of a party's.
    #[error("the certificate is a certificate authority's, not a party's")]
    AuthorityAsParty,
    /// There is no URI.
    #[error("the certificate has no URI among its names; it needs spiffe://DOMAIN/ROLE/NAME")]
    NoUri,
    /// More than one URI would make the identity ambiguous.
    #[error("the certificate has {count} URIs among its names; it must have exactly one")]
    SeveralUris {
        /// Number of URIs.
        count: usize,
    },
    /// A URI of another scheme.
    #[error("{found:?} is not a SPIFFE id (spiffe://DOMAIN/ROLE/NAME)")]
    NotSpiffe { found: String },
    #[error(
        "{found:?} is not a trust domain: 1 to 255 lowercase letters, digits, dots, dashes and underscores"
    )]
    BadTrustDomain { found: String },
    #[error("the identity belongs to trust domain {found}, not to {expected}")]
    WrongTrustDomain {
        found: TrustDomain,
        expected: TrustDomain,
    },
    #[error("the identity {found:?} isn't of the form ROLE/NAME")]
    WrongPath { found: String },
    /// Neither agent, coordinator nor operator.
    #[error("{found:?} is none of agent, coordinator, operator")]
    UnknownRole { found: String },
    #[error(
        "{found:?} is not a name: 1 to 128 lowercase letters, digits, dots, dashes and underscores, with a letter or digit at both ends"
    )]
    BadName { found: String },
    /// A valid party with the wrong role for this end of the connection.
    #[error("{found} answered where a {expected} was expected")]
    WrongRole { found: Identity, expected: Role },
    /// A coordinator other than the configured one.
    #[error("{found} answered where coordinator/{expected} was expected")]
    WrongName { found: Identity, expected: String },
}

/// The bytes that trust domains and names consist of. Without `%`, `/` or
/// capitals there is only one spelling of each name.
fn plain(byte: u8) -> bool {
    byte.is_ascii_lowercase() || byte.is_ascii_digit() || matches!(byte, b'.' | b'-' | b'_')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_identity_is_parsed_from_its_own_text() {
        for text in ["agent/db-1.example.org", "coordinator/main", "operator/a_b"] {
            let identity: Identity = text.parse().unwrap();
            assert_eq!(identity.to_string(), text);
            let id = identity.within("example.org".parse().unwrap());
            assert_eq!(id.to_string().parse::<SpiffeId>().unwrap(), id);
        }
    }

    #[test]
    fn every_other_spelling_is_refused() {
        let text = |found: &str| found.to_owned();
        let cases = [
            ("https://example.org/agent/a", "is not a SPIFFE id"),
            ("SPIFFE://example.org/agent/a", "is not a SPIFFE id"),
            ("spiffe://example.org", "isn't of the form"),
            ("spiffe:///agent/a", "is not a trust domain"),
            ("spiffe://Example.org/agent/a", "is not a trust domain"),
            ("spiffe://user@example.org/agent/a", "is not a trust domain"),
            ("spiffe://example.org:443/agent/a", "is not a trust domain"),
            ("spiffe://example.org/agent", "isn't of the form"),
            ("spiffe://example.org/agent/a/b", "isn't of the form"),
            ("spiffe://example.org/agent/a/", "isn't of the form"),
            ("spiffe://example.org/agent/", "is not a name"),
            ("spiffe://example.org/agent/..", "is not a name"),
            ("spiffe://example.org/agent/-a", "is not a name"),
            ("spiffe://example.org/agent/A", "is not a name"),
            ("spiffe://example.org/agent/a%2fb", "is not a name"),
            ("spiffe://example.org/agent/a?b", "is not a name"),
            ("spiffe://example.org/Agent/a", "is none of"),
            ("spiffe://example.org/root/a", "is none of"),
        ];
        for (uri, expected) in cases {
            let error = uri.parse::<SpiffeId>().unwrap_err().to_string();
            assert!(error.contains(expected), "{}: {error}", text(uri));
        }
        let long = format!("agent/{}", "a".repeat(MAX_NAME + 1));
        assert!(matches!(
            long.parse::<Identity>(),
            Err(IdentityError::BadName { .. })
        ));
    }
}
