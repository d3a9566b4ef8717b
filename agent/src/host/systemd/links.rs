//! Enablement of units: the symbolic links that make it up.
//!
//! `systemctl disable` removes every link to a unit from one directory, those
//! that `systemctl enable` wouldn't create again included: links of further
//! targets, aliases, a unit file linked from elsewhere, units named in `Also=`
//! (systemctl(1), "enable", "disable", "link"). So enablement is saved and
//! restored link by link.

use super::Systemd;
use super::bus::limited;
use super::unit::Facts;
use crate::error::ActionError;
use lockstep_api::Code;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeSet, HashSet};
use std::ffi::OsStr;
use std::fs;
use std::io;
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};

/// A symbolic link in a directory of unit files.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Link {
    pub path: PathBuf,
    /// Where it leads, as it is written in the link.
    pub target: PathBuf,
}

impl Link {
    fn name(&self) -> &str {
        name(&self.path)
    }

    /// `default.target` and `Wants` of a link in `default.target.wants`.
    fn dependency(&self) -> Option<(&str, &'static str)> {
        let directory = name(self.path.parent()?);
        let kinds = [
            (".wants", "Wants"),
            (".requires", "Requires"),
            (".upholds", "Upholds"),
        ];
        kinds
            .into_iter()
            .find_map(|(end, kind)| Some((directory.strip_suffix(end)?, kind)))
    }

    /// In the directory itself under another name than the file.
    fn is_alias(&self) -> bool {
        self.dependency().is_none() && self.name() != name(&self.target)
    }

    fn is_there(&self) -> bool {
        fs::read_link(&self.path).is_ok_and(|target| target == self.target)
    }

    /// Puts the link there, in place of another one.
    fn write(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::create_dir_all(directory)?;
        let temporary = directory.join(format!(".#lockstep-{}", self.name()));
        let _ = fs::remove_file(&temporary);
        symlink(&self.target, &temporary)?;
        fs::rename(&temporary, &self.path)
    }
}

fn name(path: &Path) -> &str {
    path.file_name().and_then(OsStr::to_str).unwrap_or_default()
}

/// The links of one directory of unit files, those of dependencies included.
fn links_in(directory: &Path) -> Vec<Link> {
    let mut found = Vec::new();
    let Ok(entries) = fs::read_dir(directory) else {
        return found;
    };
    for path in entries.filter_map(Result::ok).map(|entry| entry.path()) {
        let dependencies = [".wants", ".requires", ".upholds"];
        if let Ok(target) = fs::read_link(&path) {
            found.push(Link { path, target });
        } else if dependencies.iter().any(|end| name(&path).ends_with(end)) {
            found.extend(links_in(&path));
        }
    }
    found
}

/// Those of the links that disabling these units removes: links of their names, and
/// links that lead to them.
fn links_of(all: &[Link], mut names: HashSet<String>) -> Vec<Link> {
    let mut found = BTreeSet::new();
    loop {
        let before = found.len();
        for link in all {
            let leads_there = names.contains(name(&link.target));
            if leads_there && link.dependency().is_none() {
                names.insert(link.name().to_owned());
            }
            if leads_there || names.contains(link.name()) {
                found.insert(link.clone());
            }
        }
        if found.len() == before {
            return found.into_iter().collect();
        }
    }
}

/// The words of one setting in the `[Install]` section of a unit file.
fn install_words(text: &str, setting: &str) -> Vec<String> {
    let mut section = "";
    let mut words = Vec::new();
    for line in text.lines().map(str::trim) {
        if line.starts_with('[') {
            section = line;
        } else if section == "[Install]"
            && let Some((key, value)) = line.split_once('=')
            && key.trim() == setting
        {
            words.extend(value.split_whitespace().map(str::to_owned));
        }
    }
    words
}

fn installs(facts: &Facts, setting: &str) -> Vec<String> {
    std::iter::once(&facts.fragment)
        .chain(&facts.drop_ins)
        .filter_map(|path| fs::read_to_string(path).ok())
        .flat_map(|text| install_words(&text, setting))
        .collect()
}

fn is_writable(directory: &Path) -> bool {
    let Ok(path) = std::ffi::CString::new(directory.as_os_str().as_bytes()) else {
        return false;
    };
    // std has no access(2), which also knows of read-only mounts.
    // SAFETY: the path is a terminated string that outlives the call.
    let denied = unsafe { libc::access(path.as_ptr(), libc::W_OK) };
    denied == 0
}

fn failed(unit: &str, what: &str, e: zbus::Error) -> ActionError {
    ActionError::new(Code::LS2104, format!("{unit} can't be {what}"))
        .state_left("its enablement is as it was, or half changed")
        .remedy(format!("see `systemctl is-enabled {unit}`, then retry"))
        .source(e)
}

impl Systemd {
    /// The directories where enablement is recorded, the runtime one marked. systemd has
    /// a `.control` directory next to each of the two (systemd.unit(5), "Unit File Load Path").
    async fn link_directories(&self) -> zbus::Result<Vec<(PathBuf, bool)>> {
        let all = limited(self.manager.unit_path()).await?;
        let directories = all.iter().filter_map(|path| path.strip_suffix(".control"));
        Ok(directories
            .enumerate()
            .map(|(at, path)| (PathBuf::from(path), at > 0))
            .collect())
    }

    /// The links that make up a unit's enablement, those of units named in its `Also=`
    /// included, since they are enabled and disabled with it.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn links(&self, unit: &str) -> Result<Vec<Link>, ActionError> {
        let mut names = HashSet::new();
        let mut open = vec![unit.to_owned()];
        while let Some(one) = open.pop() {
            if !names.insert(one.clone()) || one.contains('%') {
                continue;
            }
            let facts = self.facts(&one).await?;
            open.extend(installs(&facts, "Also"));
            names.extend(facts.names);
        }
        let directories = self
            .link_directories()
            .await
            .map_err(|e| failed(unit, "checked for its enablement", e))?;
        let all: Vec<Link> = directories
            .iter()
            .flat_map(|(directory, _)| links_in(directory))
            .collect();
        Ok(links_of(&all, names))
    }

    /// Links that couldn't be created again, a sentence each: an alias that isn't in the
    /// unit's file has no call in systemd's interface, and needs write access.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn lost_when_disabled(
        &self,
        unit: &str,
        links: &[Link],
    ) -> Result<Vec<String>, ActionError> {
        let aliases = installs(&self.facts(unit).await?, "Alias");
        let lost = links.iter().filter(|link| {
            link.is_alias()
                && !aliases.iter().any(|alias| alias == link.name())
                && !is_writable(link.path.parent().unwrap_or(Path::new("/")))
        });
        Ok(lost
            .map(|link| {
                format!(
                    "disabling {unit} removes {}, which undo can't create again: it isn't an Alias= of \
                     the unit, and the agent can't write to its directory; add the directory to \
                     ReadWritePaths= of the agent's unit, or add the alias to the unit's [Install]",
                    link.path.display()
                )
            })
            .collect())
    }

    /// What starts the unit even if these links of its enablement are removed, a sentence
    /// each: a generated unit has no links, and the vendor's links and the files of other
    /// units aren't changed.
    ///
    /// # Errors
    /// Where systemd doesn't answer.
    pub async fn started_although_disabled(
        &self,
        unit: &str,
        links: &[Link],
    ) -> Result<Vec<String>, ActionError> {
        let facts = self.facts(unit).await?;
        let state = self.state_of(unit, &facts).await?;
        let mut sentences = Vec::new();
        if state.file == "generated" {
            sentences.push(format!(
                "{unit} is generated (of an init script, for example), so systemd can't disable it: a \
                 boot starts it again"
            ));
        }
        let removed = |by: &&str| {
            let mut of = links.iter().filter_map(Link::dependency);
            of.any(|(dependent, _)| dependent == *by)
        };
        let started_by = facts.started_by().into_iter();
        let others: Vec<&str> = started_by.filter(|by| !removed(by)).collect();
        if !others.is_empty() {
            sentences.push(format!(
                "disabling {unit} leaves {}, which starts it by its own file or a link of the vendor, \
                 at the next boot as well",
                others.join(", ")
            ));
        }
        Ok(sentences)
    }

    /// Enables a unit as its file says. Returns the links that were created.
    ///
    /// # Errors
    /// Where systemd rejects it.
    pub async fn enable(&self, unit: &str) -> Result<Vec<PathBuf>, ActionError> {
        let change = async {
            let (_, changes) = self.manager.enable_unit_files(&[unit], false, true).await?;
            self.manager.reload().await?;
            Ok(changes)
        };
        let changes = limited(change)
            .await
            .map_err(|e| failed(unit, "enabled", e))?;
        Ok(changes
            .into_iter()
            .map(|(_, path, _)| path.into())
            .collect())
    }

    /// Removes the links of a unit, so that neither a boot nor a dependency starts it. A unit
    /// file that was linked from elsewhere stays linked: without that link there would be no unit
    /// to start. `links` are those that exist; any other that systemd removes is created again.
    /// Returns the links that were removed.
    ///
    /// # Errors
    /// Where systemd rejects it.
    pub async fn disable(&self, unit: &str, links: &[Link]) -> Result<Vec<PathBuf>, ActionError> {
        let failed = |e| failed(unit, "disabled", e);
        let directories = self.link_directories().await.map_err(failed)?;
        let everything: Vec<Link> = directories
            .iter()
            .flat_map(|(directory, _)| links_in(directory))
            .collect();
        let mut removed: Vec<PathBuf> = Vec::new();
        for (directory, runtime) in &directories {
            if links.iter().any(|link| link.path.starts_with(directory)) {
                let names = [unit];
                let changes = limited(self.manager.disable_unit_files(&names, *runtime)).await;
                removed.extend(
                    changes
                        .map_err(failed)?
                        .into_iter()
                        .map(|(_, path, _)| path.into()),
                );
            }
        }
        let back: Vec<Link> = everything
            .into_iter()
            .filter(|link| removed.contains(&link.path))
            .filter(|link| {
                let is_unit_file = link.dependency().is_none() && !link.is_alias();
                is_unit_file || !links.contains(link)
            })
            .collect();
        self.create_links(unit, &back).await?;
        limited(self.manager.reload()).await.map_err(failed)?;
        removed.retain(|path| !back.iter().any(|link| link.path == *path));
        Ok(removed)
    }

    /// Creates those of the links that don't exist. With `exact`, also removes the unit's
    /// other links. Returns the links that were changed.
    ///
    /// # Errors
    /// Where a link can't be created or removed.
    pub async fn restore_links(
        &self,
        unit: &str,
        links: &[Link],
        exact: bool,
    ) -> Result<Vec<PathBuf>, ActionError> {
        let mut changed = Vec::new();
        let now = self.links(unit).await?;
        let surplus: Vec<&Link> = now.iter().filter(|link| !links.contains(link)).collect();
        if exact && !surplus.is_empty() {
            let unremovable = surplus
                .iter()
                .any(|link| fs::remove_file(&link.path).is_err());
            if unremovable {
                self.disable(unit, &now).await?;
            }
            changed.extend(surplus.iter().map(|link| link.path.clone()));
        }
        changed.extend(self.create_links(unit, links).await?);
        if !changed.is_empty() {
            let reloaded = limited(self.manager.reload()).await;
            reloaded.map_err(|e| failed(unit, "put back to its enablement", e))?;
        }
        Ok(changed)
    }

    /// Creates those of the links that don't exist: in the directory, or by systemd where the
    /// agent may not write there. Unit files come before what refers to them.
    async fn create_links(&self, unit: &str, links: &[Link]) -> Result<Vec<PathBuf>, ActionError> {
        let directories = self
            .link_directories()
            .await
            .map_err(|e| failed(unit, "checked for its enablement", e))?;
        let mut missing: Vec<&Link> = links.iter().filter(|link| !link.is_there()).collect();
        missing.sort_by_key(|link| (link.dependency().is_some(), link.is_alias()));
        for link in &missing {
            let Err(denied) = link.write() else {
                continue;
            };
            let runtime = directories
                .iter()
                .any(|(directory, runtime)| *runtime && link.path.starts_with(directory));
            if let Err(e) = self.create_by_call(unit, link, runtime).await {
                tracing::debug!("systemd does not create {}: {e}", link.path.display());
            }
            let created = fs::canonicalize(&link.path).ok();
            if created.is_none() || created != link.file() {
                return Err(ActionError::new(
                    Code::LS2104,
                    format!("{} can't be created again", link.path.display()),
                )
                .state_left(format!(
                    "the other links of {unit} are as they were, or not yet created"
                ))
                .remedy(format!(
                    "run `ln -s {} {}` and `systemctl daemon-reload`, then retry",
                    link.target.display(),
                    link.path.display()
                ))
                .source(denied));
            }
        }
        Ok(missing.into_iter().map(|link| link.path.clone()).collect())
    }

    async fn create_by_call(&self, unit: &str, link: &Link, runtime: bool) -> zbus::Result<()> {
        let target = link.target.to_string_lossy();
        let manager = &self.manager;
        let create = async {
            if let Some((of, kind)) = link.dependency() {
                let names = [link.name()];
                let adding = manager.add_dependency_unit_files(&names, of, kind, runtime, true);
                adding.await.map(drop)
            } else if link.is_alias() {
                let names = [unit];
                let enabling = manager.enable_unit_files(&names, runtime, true);
                enabling.await.map(drop)
            } else {
                let files = [target.as_ref()];
                let linking = manager.link_unit_files(&files, runtime, true);
                linking.await.map(drop)
            }
        };
        limited(create).await
    }
}

impl Link {
    /// The file that it leads to, if that exists.
    fn file(&self) -> Option<PathBuf> {
        let directory = self.path.parent().unwrap_or(Path::new("/"));
        fs::canonicalize(directory.join(&self.target)).ok()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn link(path: &str, target: &str) -> Link {
        Link {
            path: path.into(),
            target: target.into(),
        }
    }

    #[test]
    fn the_links_of_a_unit_are_those_of_its_names_and_those_that_lead_to_them() {
        let its = [
            link("/e/b.service", "/e/a.service"),
            link("/e/c.service", "b.service"),
            link("/e/x.target.wants/a.service", "../a.service"),
            link("/e/x.target.wants/c.service", "../c.service"),
        ];
        let others = [
            link("/e/x.target.wants/d.service", "/e/d.service"),
            link("/e/d.service", "/srv/d.service"),
        ];
        let all = [&others[..], &its[..]].concat();
        assert_eq!(links_of(&all, HashSet::from(["a.service".to_owned()])), its);
    }

    #[test]
    fn only_the_install_section_is_read() {
        let text =
            "[Unit]\nAlso=no\n[Install]\nAlso=a.service b.socket\n# Also=no\nAlso = c.timer\n";
        assert_eq!(
            install_words(text, "Also"),
            ["a.service", "b.socket", "c.timer"]
        );
    }

    #[test]
    fn a_link_says_what_it_stands_for() {
        let wants = link("/e/x.target.wants/a.service", "/e/a.service");
        assert_eq!(wants.dependency(), Some(("x.target", "Wants")));
        assert!(!wants.is_alias());
        assert!(link("/e/b.service", "/e/a.service").is_alias());
        assert!(!link("/e/a.service", "/srv/a.service").is_alias());
        let upholds = link("/e/x.target.upholds/a.service", "/e/a.service");
        assert_eq!(upholds.dependency(), Some(("x.target", "Upholds")));
    }
}
