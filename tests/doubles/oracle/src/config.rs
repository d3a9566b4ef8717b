//! The simulator's configuration file (`simulator.toml`).
//!
//! It names the one database, its instances and their listeners, and the
//! script that fills it. The database itself lives in memory and is gone when
//! the process ends.

use serde::Deserialize;
use std::path::{Path, PathBuf};

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// `DB_NAME`, also the default service.
    pub database: String,
    /// Directory for the alert log.
    pub data_dir: PathBuf,
    /// Script run as SYS before any frontend opens.
    #[serde(default)]
    pub init_sql: Option<PathBuf>,
    /// Password of SYS; without it SYS comes in through the bequeath frontend only.
    #[serde(default)]
    pub sys_password: Option<String>,
    /// The instances, `inst_id` 1 first.
    #[serde(rename = "instance")]
    pub instances: Vec<Instance>,
}

/// One instance of the database.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Instance {
    /// `INSTANCE_NAME`, which is also the `ORACLE_SID`.
    pub name: String,
    /// `V$INSTANCE.HOST_NAME`.
    pub host: String,
    /// The instance's `ORACLE_HOME`.
    pub home: PathBuf,
    /// Whether it was started with a server parameter file.
    #[serde(default = "with_spfile")]
    pub spfile: bool,
    #[serde(default, rename = "listener")]
    pub listeners: Vec<Listener>,
}

fn with_spfile() -> bool {
    true
}

impl Instance {
    /// The socket of the bequeath frontend.
    #[must_use]
    pub fn bequeath_socket(&self) -> PathBuf {
        self.home
            .join("dbs")
            .join(format!("bequeath_{}.sock", self.name))
    }

    /// The socket on which `lsnrctl`, `srvctl` and the range speak to the
    /// simulator.
    #[must_use]
    pub fn control_socket(&self) -> PathBuf {
        self.home.join("dbs").join("control.sock")
    }
}

/// One listener of an instance.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Listener {
    /// Name as `lsnrctl` knows it.
    pub name: String,
    /// TCP port on 127.0.0.1.
    pub port: u16,
    /// Who looks after it.
    #[serde(default)]
    pub managed_by: ManagedBy,
    /// Whom it is kept for: `dms`.
    #[serde(default)]
    pub reserved_for: Option<String>,
    /// Services it offers; the database's name when empty.
    #[serde(default)]
    pub services: Vec<String>,
    /// Registered statically: restricted session does not close it.
    #[serde(default, rename = "static")]
    pub is_static: bool,
}

/// Who starts and stops a listener.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ManagedBy {
    /// A plain listener, by `lsnrctl`.
    #[default]
    Lsnrctl,
    /// A listener under Clusterware, by `srvctl`.
    Srvctl,
}

/// Why a configuration could not be used.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The file could not be read.
    #[error("cannot read the simulator's configuration {path}")]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// The file is not what it should be.
    #[error("the simulator's configuration {path} is wrong")]
    Parse {
        path: PathBuf,
        source: toml::de::Error,
    },
    /// There is no instance in it.
    #[error("the simulator's configuration {path} names no [[instance]]")]
    NoInstance { path: PathBuf },
}

impl Config {
    /// Reads the file.
    ///
    /// # Errors
    /// When the file is missing, is not valid TOML of this shape, or names no
    /// instance.
    pub fn load(path: &Path) -> Result<Self, Error> {
        let text = std::fs::read_to_string(path).map_err(|source| Error::Read {
            path: path.to_owned(),
            source,
        })?;
        let config: Self = toml::from_str(&text).map_err(|source| Error::Parse {
            path: path.to_owned(),
            source,
        })?;
        if config.instances.is_empty() {
            return Err(Error::NoInstance {
                path: path.to_owned(),
            });
        }
        Ok(config)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_whole_file_is_read() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("simulator.toml");
        std::fs::write(
            &path,
            r#"
database = "ORCL"
data_dir = "/tmp/data"
[[instance]]
name = "ORCL1"
host = "ora-1"
home = "/tmp/home"
[[instance.listener]]
name = "LISTENER_DMS"
port = 15212
managed_by = "lsnrctl"
reserved_for = "dms"
services = ["ORCL"]
static = true
"#,
        )
        .unwrap();
        let config = Config::load(&path).unwrap();
        let instance = &config.instances[0];
        assert!(instance.listeners[0].is_static);
        assert_eq!(
            instance.bequeath_socket(),
            Path::new("/tmp/home/dbs/bequeath_ORCL1.sock")
        );
    }
}
