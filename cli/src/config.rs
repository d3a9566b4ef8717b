//! The coordinator's address and the operator's credentials. Flags take precedence
//! over environment variables, and these over the configuration file.

use crate::failure::{CONFIGURATION, Failure};
use lockstep_api::Exit;
use lockstep_pki::CredentialFiles;
use serde::Deserialize;
use std::path::{Path, PathBuf};

/// Options of the commands that connect to the coordinator; clap reads the
/// environment variables. `global` allows the options after a subcommand, too.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Connection {
    /// The coordinator's address, https://HOST:PORT.
    #[arg(long, env = "LOCKSTEP_COORDINATOR", global = true, value_name = "URL")]
    pub coordinator: Option<String>,
    /// Trusted certificate authorities, PEM.
    #[arg(long, env = "LOCKSTEP_CA", global = true, value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// The operator's certificate, PEM.
    #[arg(long, env = "LOCKSTEP_CERT", global = true, value_name = "FILE")]
    pub cert: Option<PathBuf>,
    /// The certificate's private key, PEM.
    #[arg(long, env = "LOCKSTEP_KEY", global = true, value_name = "FILE")]
    pub key: Option<PathBuf>,
    /// Revocation lists, PEM.
    #[arg(long, env = "LOCKSTEP_CRL", global = true, value_name = "FILE")]
    pub crl: Option<PathBuf>,
    /// Configuration file to use instead of ~/.config/lockstep/cli.toml.
    #[arg(long, env = "LOCKSTEP_CONFIG", global = true, value_name = "FILE")]
    pub config: Option<PathBuf>,
}

/// Content of the configuration file. Paths in it are relative to its directory.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    coordinator: Option<String>,
    ca: Option<PathBuf>,
    cert: Option<PathBuf>,
    key: Option<PathBuf>,
    crl: Option<PathBuf>,
}

/// The settings in effect, from all sources.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Config {
    pub coordinator: String,
    pub files: CredentialFiles,
}

impl Connection {
    /// Completes the options with the values of the configuration file.
    ///
    /// # Errors
    /// The file is unreadable or invalid, or a required value is missing.
    pub fn resolve(&self) -> Result<Config, Failure> {
        let (path, file) = match &self.config {
            Some(path) => (Some(path.clone()), read(path)?),
            None => match default_path().filter(|path| path.exists()) {
                Some(path) => {
                    let file = read(&path)?;
                    (Some(path), file)
                }
                None => (None, File::default()),
            },
        };
        let dir = path
            .as_deref()
            .and_then(Path::parent)
            .unwrap_or(Path::new(""));
        let choose = |flag: &Option<PathBuf>, file: Option<PathBuf>| {
            flag.clone().or_else(|| file.map(|path| dir.join(path)))
        };
        let need = |given: Option<PathBuf>, name| given.ok_or_else(|| missing(name));
        Ok(Config {
            coordinator: self
                .coordinator
                .clone()
                .or(file.coordinator)
                .ok_or_else(|| missing("coordinator"))?,
            files: CredentialFiles {
                ca: need(choose(&self.ca, file.ca), "ca")?,
                cert: need(choose(&self.cert, file.cert), "cert")?,
                key: need(choose(&self.key, file.key), "key")?,
                crl: choose(&self.crl, file.crl),
            },
        })
    }
}

fn missing(name: &str) -> Failure {
    Failure::refused(CONFIGURATION, format!("no {name} is configured")).remedy(format!(
        "give --{name}, set LOCKSTEP_{}, or write {name} = \"…\" into ~/.config/lockstep/cli.toml",
        name.to_uppercase()
    ))
}

fn default_path() -> Option<PathBuf> {
    let base = std::env::var_os("XDG_CONFIG_HOME")
        .map(PathBuf::from)
        .filter(|path| path.is_absolute())
        .or_else(|| std::env::home_dir().map(|home| home.join(".config")))?;
    Some(base.join("lockstep/cli.toml"))
}

fn read(path: &Path) -> Result<File, Failure> {
    let text = std::fs::read_to_string(path).map_err(|error| {
        let what = format!("can't read the configuration {}", path.display());
        Failure::refused(CONFIGURATION, what).because(&error)
    })?;
    toml::from_str(&text).map_err(|error| {
        let what = format!("the configuration {} is invalid", path.display());
        Failure::new(CONFIGURATION, Exit::Refused, what)
            .because(&error)
            .remedy("its keys are coordinator, ca, cert, key and crl, each with a quoted string")
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flag_takes_precedence_over_the_file() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cli.toml");
        std::fs::write(
            &path,
            "coordinator = \"https://a:1\"\nca = \"ca.pem\"\ncert = \"/c.pem\"\nkey = \"k.pem\"\n",
        )
        .unwrap();
        let flags = Connection {
            coordinator: Some("https://b:2".to_owned()),
            config: Some(path),
            ..Connection::default()
        };
        let config = flags.resolve().unwrap();
        assert_eq!(config.coordinator, "https://b:2");
        assert_eq!(config.files.ca, dir.path().join("ca.pem"));
        assert_eq!(config.files.cert, Path::new("/c.pem"));
        assert_eq!(config.files.crl, None);
    }

    #[test]
    fn missing_values_and_unknown_keys_are_named() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cli.toml");
        let resolve = |text: &str| {
            std::fs::write(&path, text).unwrap();
            let flags = Connection {
                config: Some(path.clone()),
                ..Connection::default()
            };
            flags.resolve().unwrap_err().text()
        };
        assert!(resolve("ca = \"ca.pem\"").contains("no coordinator is configured"));
        assert!(resolve("coordinater = \"x\"").contains("unknown field `coordinater`"));
    }
}
