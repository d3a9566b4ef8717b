//! Which files a policy allows to be renamed, replaced and read.
//!
//! A path is judged by the directory that it leads to, held open, and what is done to
//! the file afterwards is done in that directory ([`Place`]). So nobody can pass the
//! check with one directory and have another one changed.

use super::executed::is_executed;
use super::{Denied, Permission, Policy};
use crate::error::ActionError;
use crate::host::files::{Directory, Place};
use std::io;
use std::path::{Component, Path, PathBuf};

impl Policy {
    /// The place of a file that the policy allows to be used so; `need` is one of the
    /// permissions that name a path.
    ///
    /// # Errors
    /// LS2001 with what to add to the configuration.
    pub fn place(&self, need: &Permission) -> Result<Place, ActionError> {
        self.open(need).map_err(Denied::error)
    }

    /// Whether the policy allows a file to be read. One whose directory doesn't exist (any
    /// more) is judged by its path: it can't be read, and the undo of a task that has
    /// read it must not fail for that.
    pub(super) fn may_read(&self, path: &Path, need: &Permission) -> Result<(), Denied> {
        let Err(denied) = self.open(need) else {
            return Ok(());
        };
        let policy = &self.config.policy;
        let mut directories = policy.paths.iter().chain(&policy.sources);
        let plain = !path.components().any(|part| part == Component::ParentDir);
        let is_missing = path.parent().is_some_and(|parent| !parent.exists());
        if is_missing && plain && directories.any(|allowed| path.starts_with(allowed)) {
            return Ok(());
        }
        Err(denied)
    }

    pub(super) fn open(&self, need: &Permission) -> Result<Place, Denied> {
        let policy = &self.config.policy;
        let (Permission::Rename(path) | Permission::Replace(path) | Permission::Read(path)) = need
        else {
            return Err(Denied {
                what: "a file without a name".to_owned(),
                remedy: "correct the plan".to_owned(),
            });
        };
        let reads = matches!(need, Permission::Read(_));
        let verb = if reads { "to read" } else { "to change" };
        let what = format!("{verb} {}", path.display());
        let denied = |what: String, remedy: &str| Denied {
            what,
            remedy: remedy.to_owned(),
        };
        let place = match self.resolve(path) {
            Ok(place) => place,
            Err(e) => {
                let what = format!("{what}: its directory can't be used: {e}");
                return Err(denied(what, "correct the path, or name it without links"));
            }
        };
        let sources: &[PathBuf] = if reads { &policy.sources } else { &[] };
        let directories = policy.paths.iter().chain(sources);
        if !directories
            .into_iter()
            .any(|allowed| holds(allowed, &place))
        {
            let remedy = if reads {
                "add its directory to policy.sources in agent.toml"
            } else {
                "add its directory to policy.paths in agent.toml and to ReadWritePaths= of the \
                 agent's unit"
            };
            return Err(denied(what, remedy));
        }
        let real = place.real();
        if self.is_own(&real) {
            let what = format!("{what}: the agent itself depends on {}", real.display());
            return Err(denied(what, "correct the path"));
        }
        let replaces = matches!(need, Permission::Replace(_));
        if replaces && (is_executed(&real) || self.is_program(&real)) {
            let what = format!(
                "{what}: a file at {} is executed, or decides what is, because it is there",
                real.display()
            );
            let remedy = "no policy allows another content there; disable and restore crontabs \
                          with cron.*, units with service.*";
            return Err(denied(what, remedy));
        }
        Ok(place)
    }

    /// Opens the directory of an absolute path without `..`.
    fn resolve(&self, path: &Path) -> io::Result<Place> {
        if !path.is_absolute() {
            return Err(io::Error::other("the path is not absolute"));
        }
        if path.components().any(|part| part == Component::ParentDir) {
            return Err(io::Error::other("the path contains .."));
        }
        let parent = path.parent().unwrap_or(Path::new("/"));
        let directory = Directory::open(parent)?;
        Place::new(directory, path).ok_or_else(|| io::Error::other("the path has no file name"))
    }

    /// Whether this path, without links, is the agent's configuration, journal,
    /// certificate, or a secret that the configuration points at.
    fn is_own(&self, path: &Path) -> bool {
        let (config, tls) = (&self.config, &self.config.tls);
        let mut own = vec![&config.state_dir, &tls.ca, &tls.cert, &tls.key];
        own.extend(tls.crl.iter().chain(&config.file));
        own.extend(
            config
                .postgres
                .values()
                .map(|postgres| &postgres.password_file),
        );
        own.extend(config.aws.values().flat_map(|aws| {
            aws.access_key_id_file
                .iter()
                .chain(&aws.secret_access_key_file)
        }));
        own.into_iter().any(|place| {
            let real = place.canonicalize();
            path.starts_with(place) || real.is_ok_and(|real| path.starts_with(real))
        })
    }

    /// Whether a command of the policy runs the file at this path, which has no links.
    fn is_program(&self, path: &Path) -> bool {
        let commands = self.config.policy.commands.values();
        let mut programs = commands.flat_map(|command| &command.argv).map(Path::new);
        programs
            .any(|program| program == path || program.canonicalize().is_ok_and(|real| real == path))
    }
}

/// Whether a directory of the policy holds this place.
fn holds(allowed: &Path, place: &Place) -> bool {
    let real = place.real();
    let Some(parent) = real.parent() else {
        return false;
    };
    Directory::open(allowed).is_ok_and(|allowed| parent.starts_with(allowed.real()))
}

#[cfg(test)]
mod tests {
    use crate::host::context::Context;
    use crate::policy::Permission;
    use std::fs;
    use std::path::Path;

    fn allowed(policy: &str, need: &Permission) -> bool {
        let cx = Context::of_test(policy);
        let place = cx.host.policy.place(need);
        assert_eq!(place.is_ok(), cx.host.policy.open(need).is_ok());
        place.is_ok()
    }

    #[test]
    fn sources_are_read_and_never_changed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        for made in ["etc", "releases", "secrets"] {
            fs::create_dir(at(made)).unwrap();
        }
        let policy = format!(
            "[policy]\npaths=['{}']\nsources=['{}']\n",
            at("etc").display(),
            at("releases").display()
        );
        for (path, read, replace) in [
            ("etc/db.toml", true, true),
            ("releases/db.toml", true, false),
            ("secrets/password", false, false),
        ] {
            let path = at(path);
            assert_eq!(allowed(&policy, &Permission::Read(path.clone())), read);
            assert_eq!(allowed(&policy, &Permission::Replace(path)), replace);
        }
    }

    #[test]
    fn a_source_whose_directory_was_removed_does_not_prevent_the_undo() {
        let dir = tempfile::tempdir().unwrap();
        let shown = dir.path().display();
        let cx = Context::of_test(&format!(
            "[policy]\nactions=['*']\nsources=['{shown}/releases']\n"
        ));
        for (path, allowed) in [
            ("releases/1/db.toml", true),
            ("releases/../etc/db.toml", false),
            ("elsewhere/db.toml", false),
        ] {
            let need = Permission::Read(dir.path().join(path));
            let checked = cx
                .host
                .policy
                .check("config.switch", std::slice::from_ref(&need));
            assert_eq!(checked.is_ok(), allowed, "{path}");
            assert!(cx.host.policy.place(&need).is_err(), "{path}");
        }
    }

    #[test]
    fn a_crontab_is_renamed_but_never_written() {
        if !Path::new("/etc/cron.d").is_dir() {
            eprintln!("SKIPPED: there is no /etc/cron.d here");
            return;
        }
        for paths in ["/etc", "/etc/cron.d"] {
            let policy = format!("[policy]\npaths=['{paths}']\n");
            let crontab = || Path::new("/etc/cron.d/shop").to_owned();
            assert!(allowed(&policy, &Permission::Rename(crontab())));
            assert!(!allowed(&policy, &Permission::Replace(crontab())));
            let hidden = Path::new("/etc/cron.d/.shop.lockstep-disabled").to_owned();
            assert!(!allowed(&policy, &Permission::Replace(hidden)));
        }
    }

    #[test]
    fn programs_of_the_policy_and_files_of_the_agent_are_not_replaced() {
        let dir = tempfile::tempdir().unwrap();
        let shown = dir.path().display();
        let policy = format!(
            "[policy]\npaths=['{shown}']\n[policy.commands.warm]\n\
             argv=['/bin/sh', '{shown}/warm.sh']\n[postgres.shop]\nhost='h'\ndbname='d'\n\
             user='u'\npassword_file='{shown}/password'\nca='/ca.pem'\n"
        );
        let replace = |name: &str| Permission::Replace(dir.path().join(name));
        assert!(allowed(&policy, &replace("db.toml")));
        assert!(!allowed(&policy, &replace("warm.sh")));
        assert!(!allowed(&policy, &replace("password")));
        let password = dir.path().join("password");
        assert!(!allowed(&policy, &Permission::Read(password.clone())));
        assert!(!allowed(&policy, &Permission::Rename(password)));
    }
}
