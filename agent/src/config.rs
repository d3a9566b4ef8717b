//! The agent's configuration file, `agent.toml`.
//!
//! Everything secret or local lives here and nowhere else: connection
//! settings, files with passwords, what the agent will ever do. The
//! coordinator never sees it.

use lockstep_api::Code;
use lockstep_daemon::{Codes, ConfigFileError, Daemon};
use lockstep_pki::{Role, TlsConfig};
use lockstep_telemetry::TelemetrySection;
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

/// The agent as its configuration, journal and errors name it.
pub const DAEMON: Daemon = Daemon {
    role: Role::Agent,
    codes: Codes {
        config_unreadable: Code::LS3001,
        config_invalid: Code::LS3002,
        certificate_of_another: Code::LS3004,
        journal_failed: Code::LS3101,
        record_unreadable: Code::LS3102,
        state_directory: Code::LS3103,
        unknown_format: Code::LS3105,
    },
};

/// What a running agent can't change: its identity, its journal, its connection, its
/// logs, and the environment of Oracle's client library.
const FIXED: [&str; 6] = [
    "name",
    "coordinator",
    "state_dir",
    "tls",
    "telemetry",
    "oracle",
];

/// `agent.toml`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// The file that it was read from.
    #[serde(skip)]
    pub file: Option<PathBuf>,
    /// The sections of the file that only a restart changes.
    #[serde(skip)]
    fixed: toml::Table,
    /// Name; must be the one in the certificate.
    pub name: String,
    /// `host:port` of the coordinator.
    pub coordinator: String,
    /// Directory of the journal.
    pub state_dir: PathBuf,
    pub tls: TlsConfig,
    /// Labels by which parties choose agents.
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    #[serde(default)]
    pub telemetry: TelemetrySection,
    /// What this agent will ever do; nothing by default.
    #[serde(default)]
    pub policy: PolicyConfig,
    /// Where systemd is reached.
    #[serde(default)]
    pub systemd: SystemdConfig,
    /// Oracle instances on this host, by resource name.
    #[serde(default)]
    pub oracle: BTreeMap<String, OracleConfig>,
    /// PostgreSQL databases, by resource name.
    #[serde(default)]
    pub postgres: BTreeMap<String, PostgresConfig>,
    /// AWS accounts and regions, by resource name.
    #[serde(default)]
    pub aws: BTreeMap<String, AwsConfig>,
}

/// What the agent will ever do. Default deny: what is not named is refused.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyConfig {
    /// Action names; a trailing `*` matches any rest.
    #[serde(default)]
    pub actions: Vec<String>,
    /// Unit names; a trailing `*` matches any rest.
    #[serde(default)]
    pub units: Vec<String>,
    /// Directories in which files may be switched.
    #[serde(default)]
    pub paths: Vec<PathBuf>,
    /// Directories whose files may be copied, besides those of `paths`.
    #[serde(default)]
    pub sources: Vec<PathBuf>,
    /// `host:port` to which checks may connect, besides this host's loopback addresses;
    /// a trailing `*` matches any rest.
    #[serde(default)]
    pub addresses: Vec<String>,
    #[serde(default)]
    pub commands: BTreeMap<String, CommandPolicy>,
    #[serde(default)]
    pub processes: BTreeMap<String, ProcessPolicy>,
}

/// A command that may be run. Never through a shell.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CommandPolicy {
    /// Program and arguments; the program by absolute path.
    pub argv: Vec<String>,
    /// Upper limit, whatever a plan says.
    #[serde(default = "default_command_secs")]
    pub timeout_secs: u64,
}

fn default_command_secs() -> u64 {
    60
}

/// Processes that may be stopped.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ProcessPolicy {
    /// Executable, by absolute path. Links are resolved; of a script, the interpreter
    /// is the executable, and the script an argument.
    pub exe: PathBuf,
    /// Text that one of the arguments must equal; empty: any.
    #[serde(default)]
    pub argument: Option<String>,
}

/// Where systemd is reached.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SystemdConfig {
    /// D-Bus address of its bus; absent: the system bus.
    #[serde(default)]
    pub address: Option<String>,
}

/// What controls the listeners of an Oracle home.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum ListenerControl {
    /// `lsnrctl`.
    #[default]
    Lsnrctl,
    /// `srvctl`, under Clusterware.
    Srvctl,
}

/// An Oracle instance on this host.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OracleConfig {
    /// `ORACLE_HOME`.
    pub home: PathBuf,
    /// `ORACLE_SID`.
    pub sid: String,
    /// What controls the listeners.
    #[serde(default)]
    pub control: ListenerControl,
    /// Listeners of this host.
    #[serde(default)]
    pub listeners: Vec<String>,
    /// SCAN listeners that this host may stop (`srvctl` only).
    #[serde(default)]
    pub scan_listeners: Vec<String>,
    /// Directory of libclntsh; absent: `lib` in the home.
    #[serde(default)]
    pub client_library: Option<PathBuf>,
    /// `TNS_ADMIN`: the directory of the listeners' `listener.ora`, and of the
    /// agent's own `sqlnet.ora` where there is no Grid home; absent:
    /// `network/admin` in the home whose tool runs.
    #[serde(default)]
    pub tns_admin: Option<PathBuf>,
    /// Home of Grid Infrastructure, from which its listeners run and their
    /// tools have to; absent: `home`.
    #[serde(default)]
    pub grid_home: Option<PathBuf>,
}

impl OracleConfig {
    /// The home from which the listeners run, and their tools.
    pub fn listener_home(&self) -> &Path {
        self.grid_home.as_deref().unwrap_or(&self.home)
    }

    /// `TNS_ADMIN` of the agent's own sessions. With a Grid home the directory
    /// is that home's: the database home's client doesn't read it.
    pub fn client_tns_admin(&self) -> Option<&Path> {
        match self.grid_home {
            None => self.tns_admin.as_deref(),
            Some(_) => None,
        }
    }

    /// Why a directory that the tools are run with can't be used. They run
    /// with this agent's rights, so what was looked at is what is used: a path
    /// by way of a link could lead elsewhere tomorrow.
    fn misplaced(&self) -> Option<String> {
        let (tool, file) = match self.control {
            ListenerControl::Lsnrctl => ("lsnrctl", Some("listener.ora")),
            ListenerControl::Srvctl => ("srvctl", None),
        };
        let tool = format!("bin/{tool}");
        let named = [
            ("tns_admin", &self.tns_admin, file),
            ("grid_home", &self.grid_home, Some(tool.as_str())),
        ];
        named.into_iter().find_map(|(field, path, holds)| {
            let problem = unusable(path.as_deref()?, holds)?;
            Some(format!("{field}: {problem}"))
        })
    }
}

/// What is wrong with a directory that must be there and hold a file.
fn unusable(path: &Path, holds: Option<&str>) -> Option<String> {
    let shown = path.display();
    if !path.is_absolute() {
        return Some(format!("{shown} must be absolute"));
    }
    let real = match path.canonicalize() {
        Ok(real) if real.is_dir() => real,
        Ok(_) => return Some(format!("{shown} is no directory")),
        Err(e) => return Some(format!("{shown} can't be reached ({e}); correct it")),
    };
    // As text: to Path, a slash at the end is none.
    if real.as_os_str() != path.as_os_str() {
        return Some(format!(
            "{shown} is not the directory's own path; write {}",
            real.display()
        ));
    }
    let file = holds?;
    (!path.join(file).is_file())
        .then(|| format!("{shown} has no {file}; name the directory with it"))
}

#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PostgresConfig {
    /// Host name or address; the server's certificate must carry it.
    pub host: String,
    #[serde(default = "default_postgres_port")]
    pub port: u16,
    pub dbname: String,
    pub user: String,
    /// File that holds the password and nothing else.
    pub password_file: PathBuf,
    /// Authority of the server's certificate, PEM.
    pub ca: PathBuf,
}

fn default_postgres_port() -> u16 {
    5432
}

/// An AWS account and region.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AwsConfig {
    pub region: String,
    /// Endpoint to use instead of AWS's own, for DMS and CloudWatch alike.
    #[serde(default)]
    pub endpoint_url: Option<String>,
    /// Files with access key and secret; absent: the SDK's own chain
    /// (instance role, profile, environment).
    #[serde(default)]
    pub access_key_id_file: Option<PathBuf>,
    /// See `access_key_id_file`.
    #[serde(default)]
    pub secret_access_key_file: Option<PathBuf>,
}

/// Why a configuration can't be used.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    #[error(transparent)]
    File(#[from] ConfigFileError),
    #[error("LS3003: {path}: {problem}")]
    Contradiction {
        path: PathBuf,
        /// What, and the remedy.
        problem: String,
    },
    /// It names a directory that this host doesn't have as named.
    #[error("LS3005: {path}: {problem}")]
    Directory {
        path: PathBuf,
        /// Which, and the remedy.
        problem: String,
    },
}

impl Config {
    /// Reads and checks the file.
    ///
    /// # Errors
    /// [`ConfigError`] names the file, the place and the remedy.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let mut config: Self = DAEMON.load_config(path)?;
        let path = path.to_owned();
        config.file = Some(path.clone());
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        config.fixed = text.parse().unwrap_or_default();
        config.fixed.retain(|section, _| FIXED.contains(&section));
        if let Some(problem) = config.contradiction() {
            return Err(ConfigError::Contradiction { path, problem });
        }
        match config.misplaced() {
            Some(problem) => Err(ConfigError::Directory { path, problem }),
            None => Ok(config),
        }
    }

    /// The sections in which this configuration differs from another, and that only a
    /// restart changes.
    pub fn needs_restart(&self, other: &Self) -> Vec<&'static str> {
        let changed = |section: &&str| self.fixed.get(*section) != other.fixed.get(*section);
        FIXED.into_iter().filter(changed).collect()
    }

    fn misplaced(&self) -> Option<String> {
        self.oracle.iter().find_map(|(name, oracle)| {
            let problem = oracle.misplaced()?;
            Some(format!("oracle.{name}.{problem}"))
        })
    }

    fn contradiction(&self) -> Option<String> {
        for (name, command) in &self.policy.commands {
            let absolute = command
                .argv
                .first()
                .is_some_and(|program| program.starts_with('/'));
            if !absolute {
                return Some(format!(
                    "policy.commands.{name}: argv must begin with the absolute path of a program"
                ));
            }
        }
        let (paths, sources) = (&self.policy.paths, &self.policy.sources);
        for (field, directories) in [("paths", paths), ("sources", sources)] {
            if let Some(path) = directories.iter().find(|path| !path.is_absolute()) {
                let shown = path.display();
                return Some(format!("policy.{field}: {shown} must be absolute"));
            }
        }
        for (name, oracle) in &self.oracle {
            let lsnrctl = oracle.control == ListenerControl::Lsnrctl;
            if lsnrctl && !oracle.scan_listeners.is_empty() {
                return Some(format!(
                    "oracle.{name}: scan_listeners need control = \"srvctl\"; lsnrctl knows none"
                ));
            }
        }
        let homes: BTreeSet<_> = self
            .oracle
            .values()
            .map(|oracle| (&oracle.home, &oracle.sid, &oracle.client_library))
            .collect();
        if homes.len() > 1 {
            return Some(
                "[oracle]: Oracle's client library serves one home and one instance in a process; \
                 run an agent of its own for each instance"
                    .to_owned(),
            );
        }
        let client = self.oracle.values().map(OracleConfig::client_tns_admin);
        if client.flatten().collect::<BTreeSet<_>>().len() > 1 {
            return Some(
                "[oracle]: Oracle's client library reads one tns_admin in a process; name the same \
                 everywhere"
                    .to_owned(),
            );
        }
        for (name, aws) in &self.aws {
            if aws.access_key_id_file.is_some() != aws.secret_access_key_file.is_some() {
                return Some(format!(
                    "aws.{name}: name both access_key_id_file and secret_access_key_file, or neither"
                ));
            }
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const LEAST: &str = r#"
        name = "ora-1"
        coordinator = "127.0.0.1:7443"
        state_dir = "/var/lib/lockstep-agent"
        [tls]
        ca = "ca.pem"
        cert = "ora-1.pem"
        key = "ora-1-key.pem"
        trust_domain = "example.test"
    "#;

    fn load(extra: &str) -> Result<Config, ConfigError> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("agent.toml");
        std::fs::write(&path, format!("{LEAST}{extra}")).unwrap();
        Config::load(&path)
    }

    #[test]
    fn the_least_configuration_allows_nothing() {
        let config = load("").unwrap();
        assert!(config.policy.actions.is_empty());
        assert!(config.policy.commands.is_empty());
    }

    #[test]
    fn what_is_wrong_is_named() {
        for (extra, named) in [
            (
                "[policy.commands.x]\nargv = [\"true\"]",
                "policy.commands.x",
            ),
            ("[policy]\npaths = [\"etc\"]", "policy.paths"),
            ("[policy]\nsources = [\"etc\"]", "policy.sources"),
            (
                "[oracle.o]\nhome=\"/o\"\nsid=\"O\"\nscan_listeners=[\"S\"]",
                "oracle.o",
            ),
            (
                "[oracle.a]\nhome=\"/o\"\nsid=\"A\"\n[oracle.b]\nhome=\"/o\"\nsid=\"B\"",
                "one instance in a process",
            ),
            (
                "[oracle.a]\nhome=\"/o\"\nsid=\"A\"\ntns_admin=\"/a\"\n[oracle.b]\nhome=\"/o\"\nsid=\"A\"\ntns_admin=\"/b\"",
                "one tns_admin in a process",
            ),
            (
                "[aws.a]\nregion=\"eu-central-1\"\naccess_key_id_file=\"/k\"",
                "aws.a",
            ),
        ] {
            let error = load(extra).unwrap_err().to_string();
            assert!(error.contains(named), "{extra}: {error}");
        }
        assert!(matches!(
            load("[labls]\na=\"b\""),
            Err(ConfigError::File(ConfigFileError::Parse { .. }))
        ));
    }

    #[test]
    fn the_tools_directories_are_looked_at_before_anything_else() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name).display().to_string();
        for made in ["admin", "bare", "grid/bin"] {
            std::fs::create_dir_all(at(made)).unwrap();
        }
        for file in ["admin/listener.ora", "grid/bin/srvctl", "file"] {
            std::fs::write(at(file), "").unwrap();
        }
        std::os::unix::fs::symlink(at("admin"), at("link")).unwrap();
        let oracle = |lines: &str| load(&format!("[oracle.o]\nhome=\"/o\"\nsid=\"O\"\n{lines}"));
        let tns_admin = |path: &str| oracle(&format!("tns_admin={path:?}"));
        let refused = |outcome: Result<Config, ConfigError>, named: &str| {
            let error = outcome.unwrap_err().to_string();
            assert!(error.starts_with("LS3005: "), "{error}");
            assert!(error.contains(named), "{named}: {error}");
        };
        refused(tns_admin("admin"), "tns_admin: admin must be absolute");
        refused(tns_admin(&at("none")), "can't be reached");
        refused(tns_admin(&at("file")), "is no directory");
        refused(tns_admin(&at("link")), &format!("write {}", at("admin")));
        refused(tns_admin(&format!("{}/", at("admin"))), "write ");
        refused(tns_admin(&at("bare")), "has no listener.ora");
        let grid = format!("grid_home={:?}", at("grid"));
        refused(oracle(&grid), "oracle.o.grid_home");
        refused(oracle(&grid), "has no bin/lsnrctl");
        let with = oracle(&format!(
            "{grid}\ncontrol=\"srvctl\"\ntns_admin={:?}",
            at("bare")
        ));
        let oracle = &with.unwrap().oracle["o"];
        assert_eq!(oracle.listener_home(), dir.path().join("grid"));
        assert_eq!(oracle.client_tns_admin(), None, "it is the Grid home's");
        let plain = tns_admin(&at("admin")).unwrap();
        let plain = &plain.oracle["o"];
        assert_eq!(plain.listener_home(), Path::new("/o"));
        assert_eq!(plain.client_tns_admin(), Some(&*dir.path().join("admin")));
    }

    #[test]
    fn the_shipped_examples_are_configurations() {
        let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/examples");
        for kind in ["oracle", "postgres", "application"] {
            let config = Config::load(&directory.join(format!("agent-{kind}.toml"))).unwrap();
            assert!(!config.policy.actions.is_empty(), "{kind}");
        }
    }

    /// Every host of the example plan has an example whose policy lets it do
    /// its part: whoever copies both gets no refusal.
    #[test]
    fn the_examples_allow_what_the_example_plan_asks_for() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy");
        let text = std::fs::read_to_string(root.join("plans/cutover.yaml")).unwrap();
        let plan = lockstep_plan::load("cutover.yaml", &text, &Default::default()).unwrap();
        let mut parties = std::collections::BTreeSet::new();
        for kind in ["oracle", "postgres", "application"] {
            let config = Config::load(&root.join(format!("examples/agent-{kind}.toml"))).unwrap();
            let policy = crate::policy::Policy::new(&config);
            for step in plan
                .phases
                .iter()
                .chain(&plan.rollback)
                .flat_map(|p| &p.steps)
            {
                if plan.parties[&step.party].matches(&config.labels) {
                    parties.insert(&step.party);
                    policy.check(&step.action, &[]).unwrap();
                }
            }
        }
        for party in [
            "oracle",
            "oracle-lead",
            "postgres",
            "aws",
            "shop-orders",
            "shop-local",
        ] {
            assert!(parties.iter().any(|found| *found == party), "{party}");
        }
    }
}
