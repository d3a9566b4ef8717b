//! The coordinator's configuration file, `coordinator.toml`.
//!
//! It holds no credentials of databases or accounts: the coordinator never
//! connects to them.

use lockstep_api::Code;
use lockstep_daemon::{Codes, ConfigFileError, Daemon};
use lockstep_pki::{Role, TlsConfig};
use lockstep_telemetry::TelemetrySection;
use serde::Deserialize;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};

/// The coordinator as its configuration, journal and errors name it.
pub const DAEMON: Daemon = Daemon {
    role: Role::Coordinator,
    codes: Codes {
        config_unreadable: Code::LS4001,
        config_invalid: Code::LS4002,
        certificate_of_another: Code::LS4004,
        journal_failed: Code::LS4101,
        record_unreadable: Code::LS4102,
        state_directory: Code::LS4103,
        unknown_format: Code::LS4106,
    },
};

/// `coordinator.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Must be the name in the certificate.
    pub name: String,
    /// Address for connections from agents and operators.
    pub listen: SocketAddr,
    /// Directory of the journal.
    pub state_dir: PathBuf,
    pub tls: TlsConfig,
    #[serde(default)]
    pub telemetry: TelemetrySection,
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// [`ConfigFileError`] names the file and the place in it.
    pub fn load(path: &Path) -> Result<Self, ConfigFileError> {
        DAEMON.load_config(path)
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
            matches!(&error, ConfigFileError::Parse { source, .. }
            if source.to_string().contains("lisen")),
            "{error}"
        );
    }
}
