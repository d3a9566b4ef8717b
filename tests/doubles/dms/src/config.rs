//! The configuration file `dms.toml`: what exists when the double starts.
//!
//! `dms.example.toml` next to the crate shows all of it.

use serde::{Deserialize, Serialize};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Where the HTTP server listens; loopback only.
    pub listen: SocketAddr,
    /// The region in every ARN.
    #[serde(default = "default_region")]
    pub region: String,
    /// The twelve-digit account in every ARN.
    #[serde(default = "default_account")]
    pub account: String,
    /// The directory that holds Oracle's client library; without it the library
    /// is looked for as ODPI-C does.
    pub oracle_lib_dir: Option<PathBuf>,
    /// The one replication instance.
    #[serde(default)]
    pub instance: InstanceConfig,
    /// Delays and intervals at start; the control interface changes them later.
    #[serde(default)]
    pub timing: Timing,
    #[serde(default, rename = "endpoint")]
    pub endpoints: Vec<EndpointConfig>,
    /// The tasks that exist at start.
    #[serde(default, rename = "task")]
    pub tasks: Vec<TaskConfig>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct InstanceConfig {
    /// `ReplicationInstanceIdentifier`.
    pub identifier: String,
    /// `ReplicationInstanceClass`.
    pub class: String,
    /// `EngineVersion`.
    pub engine_version: String,
}

impl Default for InstanceConfig {
    fn default() -> Self {
        Self {
            identifier: "rehearsal".into(),
            class: "dms.t3.medium".into(),
            engine_version: "3.5.4".into(),
        }
    }
}

/// How long each state lasts and how often the engines look, in milliseconds.
///
/// Real DMS takes minutes where these take fractions of a second; retries of a
/// lost connection go up to 1,800 s there.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct Timing {
    /// `creating` until `ready`.
    pub creating_ms: u64,
    /// `starting` until `running`.
    pub starting_ms: u64,
    /// `stopping` until `stopped`, after the transaction in progress has ended.
    pub stopping_ms: u64,
    /// `modifying` until the state before it.
    pub modifying_ms: u64,
    /// `deleting` until the task is gone.
    pub deleting_ms: u64,
    /// A connection's `testing` before its outcome.
    pub testing_ms: u64,
    /// Between two looks at the redo.
    pub poll_ms: u64,
    /// The first wait after a lost connection; doubled at every failure.
    pub retry_base_ms: u64,
    /// The longest wait between two attempts to connect.
    pub retry_cap_ms: u64,
    /// Between two data points of a metric; a minute with real DMS.
    pub metrics_ms: u64,
    /// From a data point until CloudWatch shows it; a minute or more in AWS.
    pub metrics_late_ms: u64,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            creating_ms: 300,
            starting_ms: 400,
            stopping_ms: 300,
            modifying_ms: 200,
            deleting_ms: 300,
            testing_ms: 300,
            poll_ms: 60,
            retry_base_ms: 250,
            retry_cap_ms: 5_000,
            metrics_ms: 1_000,
            metrics_late_ms: 0,
        }
    }
}

impl Timing {
    /// The wait before attempt `failures + 1` to connect: exponential up to the cap.
    #[must_use]
    pub fn retry_after(&self, failures: u32) -> Duration {
        let factor = 1_u64.checked_shl(failures.min(20)).unwrap_or(u64::MAX);
        Duration::from_millis(
            self.retry_base_ms
                .saturating_mul(factor)
                .min(self.retry_cap_ms),
        )
    }
}

/// Whether a task reads from an endpoint or writes to it (`EndpointType`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum EndpointKind {
    Source,
    Target,
}

/// An endpoint, by engine.
#[derive(Debug, Clone, Deserialize)]
#[serde(tag = "engine", rename_all = "lowercase", deny_unknown_fields)]
pub enum EndpointConfig {
    /// An Oracle database, reached through a listener.
    Oracle(OracleEndpoint),
    /// A PostgreSQL database, always over TLS.
    Postgres(PostgresEndpoint),
}

/// Where an Oracle database is and who logs in.
#[derive(Debug, Clone, Deserialize)]
pub struct OracleEndpoint {
    /// `EndpointIdentifier`.
    pub identifier: String,
    #[serde(rename = "type")]
    pub kind: EndpointKind,
    /// Host of the listener.
    pub host: String,
    /// Port of the listener.
    pub port: u16,
    pub service: String,
    pub user: String,
    pub password: String,
    /// `OracleSettings.UseLogminerReader`, shown only: DMS's default is true.
    pub use_logminer_reader: Option<bool>,
    /// `ExtraConnectionAttributes`, shown only.
    pub extra_connection_attributes: Option<String>,
}

/// Where a PostgreSQL database is and who logs in.
#[derive(Debug, Clone, Deserialize)]
pub struct PostgresEndpoint {
    /// `EndpointIdentifier`.
    pub identifier: String,
    #[serde(rename = "type")]
    pub kind: EndpointKind,
    /// Host; the server's certificate must name it.
    pub host: String,
    pub port: u16,
    pub dbname: String,
    pub user: String,
    pub password: String,
    /// PEM file with the authority that signed the server's certificate.
    pub ca_file: PathBuf,
    /// `PostgreSQLSettings.SlotName`: a logical slot made by the customer.
    pub slot_name: Option<String>,
    /// `PostgreSQLSettings.AfterConnectScript`, run in every session; the place
    /// for `SET session_replication_role = 'replica'`.
    pub after_connect_script: Option<String>,
    /// `PostgreSQLSettings.CaptureDdls`; DMS's default is true. A task that
    /// captures DDL makes its event trigger in the source, as a superuser.
    pub capture_ddls: Option<bool>,
    /// `ExtraConnectionAttributes`, of which `afterConnectScript`, `slotName` and
    /// `captureDDLs` are heeded.
    pub extra_connection_attributes: Option<String>,
}

impl PostgresEndpoint {
    /// What every session begins with.
    #[must_use]
    pub fn script(&self) -> &str {
        self.after_connect_script
            .as_deref()
            .or_else(|| self.attribute("afterConnectScript"))
            .unwrap_or_default()
    }

    /// The customer's slot, in whichever form the endpoint names it.
    #[must_use]
    pub fn slot(&self) -> Option<&str> {
        self.slot_name
            .as_deref()
            .or_else(|| self.attribute("slotName"))
            .filter(|slot| !slot.is_empty())
    }

    /// Whether tasks capture DDL, in whichever form the endpoint says so.
    #[must_use]
    pub fn captures_ddl(&self) -> bool {
        let off = |value: &str| ["n", "no", "false"].contains(&value.to_lowercase().as_str());
        self.capture_ddls != Some(false) && !self.attribute("captureDDLs").is_some_and(off)
    }

    /// An extra connection attribute: `name=value`, separated by semicolons, the
    /// value in quotes or not.
    fn attribute(&self, wanted: &str) -> Option<&str> {
        let extra = self.extra_connection_attributes.as_deref()?;
        let pairs = extra.split(';').filter_map(|one| one.split_once('='));
        let (_, value) = pairs
            .into_iter()
            .find(|(name, _)| name.trim().eq_ignore_ascii_case(wanted))?;
        let value = value.trim();
        let bare = ['\'', '"']
            .iter()
            .find_map(|quote| value.strip_prefix(*quote)?.strip_suffix(*quote));
        Some(bare.unwrap_or(value))
    }
}

impl EndpointConfig {
    /// `EndpointIdentifier`.
    #[must_use]
    pub fn identifier(&self) -> &str {
        match self {
            Self::Oracle(e) => &e.identifier,
            Self::Postgres(e) => &e.identifier,
        }
    }

    #[must_use]
    pub fn kind(&self) -> EndpointKind {
        match self {
            Self::Oracle(e) => e.kind,
            Self::Postgres(e) => e.kind,
        }
    }

    /// `EngineName`.
    #[must_use]
    pub fn engine_name(&self) -> &'static str {
        match self {
            Self::Oracle(_) => "oracle",
            Self::Postgres(_) => "postgres",
        }
    }
}

/// A task that exists at start.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskConfig {
    /// `ReplicationTaskIdentifier`.
    pub identifier: String,
    /// Identifier of the source endpoint.
    pub source: String,
    /// Identifier of the target endpoint.
    pub target: String,
    /// `full-load`, `cdc` or `full-load-and-cdc`.
    pub migration_type: String,
    /// Table mappings, the JSON document itself.
    pub table_mappings: Option<String>,
    /// Or the file that holds them, relative to the configuration file.
    pub table_mappings_file: Option<PathBuf>,
    /// Task settings, the JSON document itself.
    pub settings: Option<String>,
    /// Where CDC begins (an SCN for Oracle).
    pub cdc_start_position: Option<String>,
    /// Whether the task is started right away.
    #[serde(default)]
    pub running: bool,
}

/// Why the configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file can't be read.
    #[error("cannot read {}; nothing was started", path.display())]
    Read {
        path: PathBuf,
        source: std::io::Error,
    },
    /// Not TOML, or not this schema.
    #[error("{} is not a valid configuration; nothing was started", path.display())]
    Parse {
        path: PathBuf,
        source: Box<toml::de::Error>,
    },
    /// A value makes no sense.
    #[error("{0}; nothing was started")]
    Invalid(String),
}

impl Config {
    /// Reads and checks the file, and reads the mapping files it names.
    ///
    /// # Errors
    /// When a file can't be read or parsed, or the address is not loopback.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let text = read(path)?;
        let mut config: Self = toml::from_str(&text).map_err(|source| ConfigError::Parse {
            path: path.into(),
            source: Box::new(source),
        })?;
        let base = path.parent().unwrap_or_else(|| Path::new("."));
        for task in &mut config.tasks {
            task.read_mappings(base)?;
        }
        config.check()?;
        Ok(config)
    }

    fn check(&self) -> Result<(), ConfigError> {
        if !self.listen.ip().is_loopback() {
            return Err(ConfigError::Invalid(format!(
                "listen = {} is not a loopback address, and requests are not authenticated",
                self.listen
            )));
        }
        if self.account.len() != 12 || !self.account.bytes().all(|b| b.is_ascii_digit()) {
            return Err(ConfigError::Invalid(format!(
                "account = {:?} is not twelve digits",
                self.account
            )));
        }
        Ok(())
    }
}

impl TaskConfig {
    fn read_mappings(&mut self, base: &Path) -> Result<(), ConfigError> {
        match (&self.table_mappings, &self.table_mappings_file) {
            (Some(_), None) => Ok(()),
            (None, Some(file)) => {
                self.table_mappings = Some(read(&base.join(file))?);
                Ok(())
            }
            _ => Err(ConfigError::Invalid(format!(
                "task {:?} needs exactly one of table_mappings and table_mappings_file",
                self.identifier
            ))),
        }
    }
}

fn read(path: &Path) -> Result<String, ConfigError> {
    std::fs::read_to_string(path).map_err(|source| ConfigError::Read {
        path: path.into(),
        source,
    })
}

fn default_region() -> String {
    "eu-central-1".into()
}

fn default_account() -> String {
    "123456789012".into()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicate::mapping::TableMapping;
    use crate::task::settings::TaskSettings;

    const EXAMPLE: &str = include_str!("../dms.example.toml");

    fn load(text: &str) -> Result<Config, ConfigError> {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("dms.toml");
        std::fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn reads_the_documented_example() {
        let config = load(EXAMPLE).unwrap();
        assert_eq!(config.endpoints[0].engine_name(), "oracle");
        assert_eq!(config.endpoints[1].kind(), EndpointKind::Target);
        assert_eq!(config.timing.poll_ms, 80);
        let task = &config.tasks[0];
        assert!(task.running);
        let mappings = task.table_mappings.as_deref().unwrap();
        TableMapping::parse(mappings).unwrap();
        TaskSettings::parse(task.settings.as_deref()).unwrap();
    }

    #[test]
    fn refuses_what_it_does_not_know_and_addresses_others_can_reach() {
        assert!(matches!(
            load(&EXAMPLE.replace("poll_ms", "pol_ms")),
            Err(ConfigError::Parse { .. })
        ));
        assert!(matches!(
            load(&EXAMPLE.replace("127.0.0.1:15300", "0.0.0.0:15300")),
            Err(ConfigError::Invalid(_))
        ));
        assert!(matches!(
            load(&EXAMPLE.replace("table_mappings =", "table_mappings_file =")),
            Err(ConfigError::Read { .. })
        ));
    }

    #[test]
    fn a_slot_is_heeded_in_both_forms() {
        let with = |line: &str| {
            let own = "capture_ddls = false\n# slot_name = \"way_back\"";
            let config = load(&EXAMPLE.replace(own, line)).unwrap();
            let EndpointConfig::Postgres(source) = config.endpoints[2].clone() else {
                panic!("the third endpoint is the source of the way back")
            };
            source.slot().map(str::to_owned)
        };
        let slot = Some("way_back".to_owned());
        assert_eq!(with("#"), None);
        assert_eq!(with("slot_name = \"way_back\" #"), slot);
        let extra = "extra_connection_attributes = \"captureDDLs=N; SlotName='way_back';\" #";
        assert_eq!(with(extra), slot);
    }

    #[test]
    fn retries_back_off_to_the_cap() {
        let timing = Timing {
            retry_base_ms: 100,
            retry_cap_ms: 1_000,
            ..Timing::default()
        };
        let waits: Vec<_> = (0..6).map(|n| timing.retry_after(n).as_millis()).collect();
        assert_eq!(waits, [100, 200, 400, 800, 1_000, 1_000]);
    }
}
