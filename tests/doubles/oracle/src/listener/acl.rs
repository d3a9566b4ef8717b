//! Access control lists of Clusterware's resources, as `crsctl setperm` sets
//! them: `owner:grid:rwx,pgrp:oinstall:r-x,other::r--,user:oracle:rwx`.
//!
//! Source: Oracle Clusterware Administration and Deployment Guide, "Configuring
//! Horizontal Role Separation" and the resource attribute ACL. Which entry
//! counts where several match isn't documented; here it is the first of owner,
//! user, group and other, as for files.

use std::ffi::CStr;

/// Who runs a command.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Caller {
    pub user: String,
    pub groups: Vec<String>,
}

impl Caller {
    /// From `USER:GROUP,GROUP`.
    #[must_use]
    pub fn named(text: &str) -> Self {
        let (user, groups) = text.split_once(':').unwrap_or((text, ""));
        Self {
            user: user.to_owned(),
            groups: groups.split(',').map(str::to_owned).collect(),
        }
    }

    /// By the names of the process's effective user and groups.
    #[must_use]
    pub fn of_this_process() -> Self {
        let mut ids = [0; 256];
        // SAFETY: the buffer has that length; the names are copied before the
        // next call of their functions, and this program has one thread.
        unsafe {
            let count = libc::getgroups(256, ids.as_mut_ptr());
            let count = usize::try_from(count).unwrap_or(0);
            let own = libc::getegid();
            let groups = ids.iter().take(count).chain([&own]).filter_map(|id| {
                let entry = libc::getgrgid(*id);
                (!entry.is_null()).then(|| text((*entry).gr_name))
            });
            let groups = groups.collect();
            let entry = libc::getpwuid(libc::geteuid());
            let user = if entry.is_null() {
                libc::geteuid().to_string()
            } else {
                text((*entry).pw_name)
            };
            Self { user, groups }
        }
    }

    /// Whether the list grants the permission; root needs none.
    #[must_use]
    pub fn may(&self, acl: &str, permission: char) -> bool {
        if self.user == "root" {
            return true;
        }
        let entries: Vec<(&str, &str, &str)> = acl
            .split(',')
            .filter_map(|entry| {
                let mut parts = entry.splitn(3, ':');
                Some((parts.next()?, parts.next()?, parts.next()?))
            })
            .collect();
        let of = |kind: &str, is_meant: &dyn Fn(&str) -> bool| {
            let mut meant = entries
                .iter()
                .filter(|(k, name, _)| *k == kind && is_meant(name));
            meant
                .next()
                .map(|(.., permissions)| permissions.contains(permission))
        };
        let user = |name: &str| name == self.user;
        let group = |name: &str| self.groups.iter().any(|own| own == name);
        of("owner", &user)
            .or_else(|| of("user", &user))
            .or_else(|| of("pgrp", &group))
            .or_else(|| of("group", &group))
            .or_else(|| of("other", &|_| true))
            .unwrap_or(false)
    }
}

/// # Safety
/// The pointer is to a text that ends with NUL.
unsafe fn text(name: *const libc::c_char) -> String {
    // SAFETY: the caller's promise.
    unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_group_of_the_home_may_stop_but_not_disable() {
        let acl = "owner:grid:rwx,pgrp:oinstall:r-x,other::r--";
        let oracle = Caller::named("oracle:oinstall,dba");
        assert!(oracle.may(acl, 'x') && !oracle.may(acl, 'w'));
        assert!(oracle.may(&format!("{acl},user:oracle:rwx"), 'w'));
        let stranger = Caller::named("app:app");
        assert!(stranger.may(acl, 'r') && !stranger.may(acl, 'x'));
        assert!(Caller::named("grid:oinstall").may(acl, 'w'));
        assert!(Caller::named("root:root").may(acl, 'w'));
    }
}
