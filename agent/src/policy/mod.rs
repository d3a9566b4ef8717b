//! The agent's own policy: deny by default.
//!
//! Whatever the coordinator orders, an action whose name, unit, path,
//! command, process or resource is not listed here is rejected before
//! anything is read. A compromised coordinator can't run a command of its
//! choice.

mod addresses;
mod executed;
mod paths;

use crate::config::{CommandPolicy, Config, ProcessPolicy};
use crate::error::ActionError;
use lockstep_api::{Code, Diagnosis};
use lockstep_daemon::matches_pattern;
use std::path::PathBuf;

/// Something an action needs permission for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Permission {
    Unit(String),
    /// A file or link that it renames within its directory.
    Rename(PathBuf),
    /// A file or link whose content or target it replaces.
    Replace(PathBuf),
    /// A file that it reads, so that others may read its content afterwards.
    Read(PathBuf),
    /// `host:port` to which it connects.
    Address(String),
    /// A command by its name in the policy.
    Command(String),
    /// A process by its name in the policy.
    Process(String),
    Oracle(String),
    Postgres(String),
    Aws(String),
}

impl Permission {
    /// Its name contains a reference to an output, which only the run
    /// resolves.
    pub fn is_open(&self) -> bool {
        match self {
            Self::Rename(path) | Self::Replace(path) | Self::Read(path) => {
                path.to_string_lossy().contains("${")
            }
            Self::Unit(name)
            | Self::Address(name)
            | Self::Command(name)
            | Self::Process(name)
            | Self::Oracle(name)
            | Self::Postgres(name)
            | Self::Aws(name) => name.contains("${"),
        }
    }
}

/// Why the policy rejects an action.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Denied {
    pub what: String,
    /// What to add to the configuration to allow it.
    pub remedy: String,
}

impl Denied {
    pub fn diagnosis(&self) -> Diagnosis {
        let what = format!("the policy of this agent doesn't allow {}", self.what);
        Diagnosis::new(Code::LS2001, what).remedy(&self.remedy)
    }

    fn error(self) -> ActionError {
        let what = format!("the policy of this agent doesn't allow {}", self.what);
        ActionError::new(Code::LS2001, what)
            .state_left("nothing was changed")
            .remedy(self.remedy)
    }
}

/// The policy from the configuration.
#[derive(Debug, Clone)]
pub struct Policy {
    config: Config,
}

impl Policy {
    pub fn new(config: &Config) -> Self {
        Self {
            config: config.clone(),
        }
    }

    /// The patterns of allowed actions, for the coordinator to show.
    pub fn allowed_actions(&self) -> &[String] {
        &self.config.policy.actions
    }

    /// Checks that the action is allowed with these needs.
    ///
    /// # Errors
    /// The first thing that is not allowed, with its remedy.
    pub fn check(&self, action: &str, required_permissions: &[Permission]) -> Result<(), Denied> {
        if !self
            .config
            .policy
            .actions
            .iter()
            .any(|pattern| matches_pattern(pattern, action))
        {
            return Err(Denied {
                what: format!("the action {action}"),
                remedy: format!("add \"{action}\" to policy.actions in agent.toml if it is wanted"),
            });
        }
        required_permissions
            .iter()
            .try_for_each(|need| self.allow(need))
    }

    /// The command of that name.
    pub fn command(&self, name: &str) -> Option<&CommandPolicy> {
        self.config.policy.commands.get(name)
    }

    /// The processes of that name.
    pub fn process(&self, name: &str) -> Option<&ProcessPolicy> {
        self.config.policy.processes.get(name)
    }

    fn allow(&self, need: &Permission) -> Result<(), Denied> {
        let policy = &self.config.policy;
        let (allowed, what, remedy) = match need {
            Permission::Unit(unit) => (
                policy
                    .units
                    .iter()
                    .any(|pattern| matches_pattern(pattern, unit)),
                format!("the unit {unit}"),
                format!("add \"{unit}\" to policy.units in agent.toml"),
            ),
            Permission::Rename(_) | Permission::Replace(_) => return self.open(need).map(drop),
            Permission::Read(path) => return self.may_read(path, need),
            Permission::Address(address) => (
                addresses::is_allowed(&policy.addresses, address),
                format!("to connect to {address}"),
                format!("add \"{address}\" to policy.addresses in agent.toml"),
            ),
            Permission::Command(name) => (
                policy.commands.contains_key(name),
                format!("the command {name}"),
                format!("define [policy.commands.{name}] in agent.toml"),
            ),
            Permission::Process(name) => (
                policy.processes.contains_key(name),
                format!("to stop the process {name}"),
                format!("define [policy.processes.{name}] in agent.toml"),
            ),
            Permission::Oracle(name) => (
                self.config.oracle.contains_key(name),
                format!("the Oracle resource {name}: it has none of that name"),
                format!("define [oracle.{name}] in agent.toml"),
            ),
            Permission::Postgres(name) => (
                self.config.postgres.contains_key(name),
                format!("the PostgreSQL resource {name}: it has none of that name"),
                format!("define [postgres.{name}] in agent.toml"),
            ),
            Permission::Aws(name) => (
                self.config.aws.contains_key(name),
                format!("the AWS resource {name}: it has none of that name"),
                format!("define [aws.{name}] in agent.toml"),
            ),
        };
        if allowed {
            Ok(())
        } else {
            Err(Denied { what, remedy })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    fn policy(text: &str) -> Policy {
        let least = "name='a'\ncoordinator='c'\nstate_dir='/s'\n[tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n";
        Policy::new(&toml::from_str(&format!("{least}{text}")).unwrap())
    }

    fn check(text: &str, action: &str, need: Option<Permission>, allowed: bool) {
        let required_permissions: Vec<Permission> = need.into_iter().collect();
        let verdict = policy(text).check(action, &required_permissions);
        assert_eq!(
            verdict.is_ok(),
            allowed,
            "{text} {action} {required_permissions:?}: {verdict:?}"
        );
    }

    #[test]
    fn nothing_is_allowed_by_default() {
        check("", "service.stop", None, false);
    }

    #[test]
    fn patterns_end_in_a_star() {
        let units = "[policy]\nactions=['service.*']\nunits=['shop-*', 'nginx.service']";
        let unit = |name: &str| Some(Permission::Unit(name.into()));
        check(units, "service.stop", unit("shop-web.service"), true);
        check(units, "service.stop", unit("nginx.service"), true);
        check(units, "service.stop", unit("nginx.service.d"), false);
        check(units, "service.stop", unit("sshd.service"), false);
        check(units, "oracle.sessions.kill", None, false);
        check(
            "[policy]\nactions=['service.stop']",
            "service.stopp",
            None,
            false,
        );
    }

    #[test]
    fn commands_and_resources_must_be_defined() {
        let text = "[policy]\nactions=['*']\n[policy.commands.ping]\nargv=['/bin/true']";
        check(
            text,
            "command.run",
            Some(Permission::Command("ping".into())),
            true,
        );
        check(
            text,
            "command.run",
            Some(Permission::Command("pong".into())),
            false,
        );
        check(
            text,
            "oracle.finalize",
            Some(Permission::Oracle("orcl".into())),
            false,
        );
    }

    #[test]
    fn a_path_can_not_climb_out() {
        let dir = tempfile::tempdir().unwrap();
        let allowed = dir.path().join("etc");
        let outside = dir.path().join("outside");
        std::fs::create_dir_all(&allowed).unwrap();
        std::fs::create_dir_all(&outside).unwrap();
        std::os::unix::fs::symlink(&outside, allowed.join("way-out")).unwrap();
        let text = format!(
            "[policy]\nactions=['config.switch']\npaths=['{}']",
            allowed.display()
        );
        let path = |tail: &str| Some(Permission::Replace(allowed.join(tail)));
        check(&text, "config.switch", path("db.toml"), true);
        check(&text, "config.switch", path("../outside/db.toml"), false);
        check(&text, "config.switch", path("way-out/db.toml"), false);
        check(
            &text,
            "config.switch",
            Some(Permission::Replace("db.toml".into())),
            false,
        );
    }

    /// Otherwise the policy allows a change that the sandbox then prevents.
    #[test]
    fn the_shipped_unit_allows_the_directories_of_the_shipped_policy() {
        let deploy = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy"));
        let read = |file: &str| std::fs::read_to_string(deploy.join(file)).unwrap();
        let unit = read("systemd/lockstep-agent.service");
        let writable: Vec<&Path> = unit
            .lines()
            .filter_map(|line| line.strip_prefix("ReadWritePaths="))
            .flat_map(str::split_whitespace)
            .map(|path| Path::new(path.trim_start_matches('-')))
            .collect();
        let config: Config = toml::from_str(&read("examples/agent-application.toml")).unwrap();
        assert!(config.policy.paths.len() > 2, "{:?}", config.policy.paths);
        for path in &config.policy.paths {
            let covered = writable.iter().any(|allowed| path.starts_with(allowed));
            assert!(covered, "{} is not among {writable:?}", path.display());
        }
    }

    /// The examples name the files as `lockstep pki issue` does: after the party.
    #[test]
    fn the_examples_name_certificates_as_they_are_issued() {
        let examples = Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../deploy/examples"));
        for entry in std::fs::read_dir(examples).unwrap() {
            let path = entry.unwrap().path();
            let text = std::fs::read_to_string(&path).unwrap();
            let config: toml::Table = text.parse().unwrap();
            let name = config["name"].as_str().unwrap();
            let tls = config["tls"].as_table().unwrap();
            for (field, file) in [
                ("cert", format!("{name}.pem")),
                ("key", format!("{name}-key.pem")),
            ] {
                let given = Path::new(tls[field].as_str().unwrap());
                assert_eq!(
                    given.file_name().unwrap(),
                    file.as_str(),
                    "{}",
                    path.display()
                );
            }
        }
    }
}
