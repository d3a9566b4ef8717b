//! The `[tls]` section of the configuration of both daemons.

use crate::credentials::{CredentialFiles, Credentials, CredentialsError};
use crate::identity::Role;
use serde::Deserialize;
use std::path::PathBuf;

/// Certificate files of a daemon; reloaded when they change.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TlsConfig {
    /// The authority's certificate, PEM.
    pub ca: PathBuf,
    /// The daemon's certificate, PEM.
    pub cert: PathBuf,
    pub key: PathBuf,
    /// Revocation lists, PEM; optional.
    #[serde(default)]
    pub crl: Option<PathBuf>,
    /// The trust domain of every identity.
    pub trust_domain: String,
    /// Name of the only coordinator that an agent connects to; without it, any
    /// coordinator of the trust domain.
    #[serde(default)]
    pub coordinator: Option<String>,
}

/// Why the configured files can't be used.
#[derive(Debug, thiserror::Error)]
pub enum TlsConfigError {
    /// The files are invalid or inconsistent.
    #[error("the certificates can't be used")]
    Credentials(#[from] CredentialsError),
    /// The certificate has another identity. Peers would reject it too; this error
    /// reports it at startup.
    #[error(
        "the certificate {cert} belongs to {found}, but this {role} must be {expected}; issue it with \
         `lockstep pki issue {role}/{name}`"
    )]
    IdentityMismatch {
        cert: PathBuf,
        found: String,
        /// The SPIFFE ID that the configuration requires.
        expected: String,
        role: &'static str,
        name: String,
    },
}

impl TlsConfig {
    /// Loads the credentials of the daemon with this role and name, and reloads them
    /// on changes until they are dropped. Must be called within a tokio runtime.
    ///
    /// # Errors
    /// The files are unusable, or the certificate has another identity.
    pub fn follow(&self, role: Role, name: &str) -> Result<Credentials, TlsConfigError> {
        let credentials = Credentials::follow(CredentialFiles {
            ca: self.ca.clone(),
            cert: self.cert.clone(),
            key: self.key.clone(),
            crl: self.crl.clone(),
        })?;
        let loaded = credentials.current();
        let role = role.as_str();
        let expected = format!("spiffe://{}/{role}/{name}", self.trust_domain);
        let found = loaded
            .identity()
            .clone()
            .within(loaded.trust_domain().clone())
            .to_string();
        if found == expected {
            return Ok(credentials.pinned_to(self.coordinator.as_deref()));
        }
        Err(TlsConfigError::IdentityMismatch {
            cert: self.cert.clone(),
            found,
            expected,
            role,
            name: name.to_owned(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{Authority, Identity, TrustDomain};
    use std::time::Duration;

    #[tokio::test]
    async fn another_daemons_certificate_is_refused_with_the_remedy() {
        let dir = tempfile::tempdir().unwrap();
        let domain: TrustDomain = "example.test".parse().unwrap();
        let authority = Authority::create(dir.path(), domain).unwrap();
        let identity = Identity::new(Role::Agent, "app-1").unwrap();
        let day = Duration::from_secs(86_400);
        let files = authority
            .issue(&identity, day, &[])
            .unwrap()
            .write(dir.path())
            .unwrap();
        let config = TlsConfig {
            ca: dir.path().join("ca.pem"),
            cert: files.cert,
            key: files.key,
            crl: None,
            trust_domain: "example.test".to_owned(),
            coordinator: None,
        };
        config.follow(Role::Agent, "app-1").unwrap();
        for (role, name) in [(Role::Agent, "app-2"), (Role::Coordinator, "app-1")] {
            let refused = config.follow(role, name).unwrap_err().to_string();
            let remedy = format!("pki issue {}/{name}", role.as_str());
            assert!(refused.contains(&remedy), "{refused}");
        }
    }
}
