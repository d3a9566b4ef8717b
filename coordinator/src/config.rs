//! The coordinator's configuration file, `coordinator.toml`.
//!
//! It names no database, no account and no password, because the coordinator
//! uses none.

use lockstep_pki::TlsSection;
use lockstep_telemetry::TelemetrySection;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// `coordinator.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Name; must be the one in the certificate.
    pub name: String,
    /// Address on which agents and operators are served.
    pub listen: SocketAddr,
    /// Directory of the journal.
    pub state_dir: PathBuf,
    pub tls: TlsSection,
    #[serde(default)]
    pub telemetry: TelemetrySection,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file can't be read.
    #[error("LS4001: {path} can't be read")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file is not a valid configuration.
    #[error("LS4002: {path} is not a configuration of a coordinator")]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file and the location.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.to_owned(),
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_example_is_a_configuration() {
        let path =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples/coordinator.toml");
        let config = Config::load(&path).unwrap();
        assert!(config.tls.crl.is_some());
    }

    #[test]
    fn a_fault_is_reported_with_its_location() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("coordinator.toml");
        std::fs::write(&path, "name = \"main\"\nlisen = \"127.0.0.1:7443\"\n").unwrap();
        let error = Config::load(&path).unwrap_err();
        assert!(
            matches!(&error, ConfigError::Parse { source, .. }
            if source.to_string().contains("lisen")),
            "{error}"
        );
    }
}
