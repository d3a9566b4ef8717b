//! Control groups: what the range started is found and ended by them.
//!
//! Each host has a group of its own, because a systemd that shares its group
//! with another one ends the other's units. On a machine with the v1 hybrid
//! layout a group is a directory in the `systemd` hierarchy and one in the
//! `unified` hierarchy; on v2 it is one directory.

use super::error::Error;
use super::wait;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// The group that holds all groups of the range.
const TOP: &str = "lockstep-range";

/// How long processes may take to vanish after SIGKILL: the kernel has only
/// to reap them, so more means that something is stuck in a system call.
const KILL_LIMIT: Duration = Duration::from_secs(10);

/// The mount points in which systemd keeps its groups.
#[must_use]
pub fn hierarchies() -> Vec<PathBuf> {
    let base = Path::new("/sys/fs/cgroup");
    if base.join("cgroup.controllers").exists() {
        return vec![base.to_path_buf()];
    }
    ["systemd", "unified"]
        .iter()
        .map(|name| base.join(name))
        .filter(|dir| dir.join("cgroup.procs").exists())
        .collect()
}

#[derive(Debug, Clone)]
pub struct Group {
    dirs: Vec<PathBuf>,
}

impl Group {
    /// Makes the group `name` of the range, or takes it if it is there.
    ///
    /// # Errors
    /// When a directory can't be made, for want of rights most likely.
    pub fn create(name: &str) -> Result<Self, Error> {
        let group = Self::named(name);
        for dir in &group.dirs {
            std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        }
        Ok(group)
    }

    /// The group that holds all others; it may not exist.
    #[must_use]
    pub fn top() -> Self {
        Self {
            dirs: hierarchies().into_iter().map(|h| h.join(TOP)).collect(),
        }
    }

    fn named(name: &str) -> Self {
        Self {
            dirs: hierarchies()
                .into_iter()
                .map(|h| h.join(TOP).join(name))
                .collect(),
        }
    }

    /// The files to which a process writes its id to enter.
    #[must_use]
    pub fn entrances(&self) -> Vec<PathBuf> {
        self.dirs
            .iter()
            .map(|dir| dir.join("cgroup.procs"))
            .collect()
    }

    /// The processes in it and below it.
    #[must_use]
    pub fn processes(&self) -> Vec<i32> {
        let mut found = Vec::new();
        for dir in &self.dirs {
            collect(dir, &mut found);
        }
        found.sort_unstable();
        found.dedup();
        found
    }

    /// Ends everything in it and below it, then removes it. Nothing outside
    /// it is touched; a group that isn't there is fine.
    ///
    /// # Errors
    /// When processes survive SIGKILL, or a directory can't be removed.
    pub fn end(&self) -> Result<(), Error> {
        wait::until_even_if_interrupted("the range's processes to vanish", KILL_LIMIT, || {
            let alive = self.processes();
            for pid in &alive {
                super::process::signal(*pid, libc::SIGKILL);
            }
            Ok(alive.is_empty().then_some(()))
        })?;
        for dir in &self.dirs {
            if dir.exists() {
                remove(dir)?;
            }
        }
        Ok(())
    }
}

fn subgroups(dir: &Path) -> Vec<PathBuf> {
    std::fs::read_dir(dir)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn collect(dir: &Path, found: &mut Vec<i32>) {
    if let Ok(text) = std::fs::read_to_string(dir.join("cgroup.procs")) {
        found.extend(text.lines().filter_map(|line| line.parse::<i32>().ok()));
    }
    for below in subgroups(dir) {
        collect(&below, found);
    }
}

fn remove(dir: &Path) -> Result<(), Error> {
    for below in subgroups(dir) {
        remove(&below)?;
    }
    std::fs::remove_dir(dir).map_err(Error::file("remove", dir))
}
