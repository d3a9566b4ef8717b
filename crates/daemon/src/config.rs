//! The daemon's configuration file.

use crate::Daemon;
use lockstep_api::Code;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};

#[derive(Debug, thiserror::Error)]
pub enum ConfigFileError {
    #[error("{code}: {path} can't be read")]
    Read {
        code: Code,
        path: PathBuf,
        source: std::io::Error,
    },
    /// The source contains line, column and the known fields.
    #[error("{code}: {path} is not a valid configuration of the {daemon}")]
    Parse {
        code: Code,
        path: PathBuf,
        daemon: &'static str,
        source: Box<toml::de::Error>,
    },
}

impl Daemon {
    /// Reads the configuration file, which is TOML.
    ///
    /// # Errors
    /// The file can't be read, or its content is not a valid `T`.
    pub fn load_config<T: DeserializeOwned>(&self, path: &Path) -> Result<T, ConfigFileError> {
        let text = std::fs::read_to_string(path).map_err(|source| ConfigFileError::Read {
            code: self.codes.config_unreadable,
            path: path.to_owned(),
            source,
        })?;
        toml::from_str(&text).map_err(|source| ConfigFileError::Parse {
            code: self.codes.config_invalid,
            path: path.to_owned(),
            daemon: self.name(),
            source: Box::new(source),
        })
    }
}

#[cfg(test)]
mod tests {
    use crate::TEST;
    use lockstep_telemetry::error_chain;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Config {
        name: String,
    }

    #[test]
    fn an_unusable_file_is_reported_with_code_and_location() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("daemon.toml");
        let missing = TEST.load_config::<Config>(&path).unwrap_err();
        let shown = path.display();
        assert_eq!(
            missing.to_string(),
            format!("LS3001: {shown} can't be read")
        );
        std::fs::write(&path, "name = \"a\"\nsurname = \"b\"\n").unwrap();
        let invalid = error_chain(&TEST.load_config::<Config>(&path).unwrap_err());
        assert!(
            invalid.starts_with(&format!("LS3002: {shown} is not")),
            "{invalid}"
        );
        assert!(
            invalid.contains("line 2") && invalid.contains("surname"),
            "{invalid}"
        );
        std::fs::write(&path, "name = \"a\"\n").unwrap();
        assert_eq!(TEST.load_config::<Config>(&path).unwrap().name, "a");
    }
}
