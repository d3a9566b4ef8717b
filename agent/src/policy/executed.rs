//! Where a file takes effect with the rights of root, or of another user, because of
//! where it is: the system runs it, or reads from it what to run or whom to admit.
//!
//! To allow files to be replaced in `/etc` must not mean to allow any file to become a
//! crontab. A file of these directories is therefore never given another content,
//! whatever `policy.paths` says; crontabs can be renamed (`cron.*`), which gives back
//! only what was there. The list names what systemd, cron, PAM, sudo, udev, the dynamic
//! loader and login shells read on Debian and Red Hat systems (file-hierarchy(7),
//! systemd.unit(5), cron(8), ld.so(8)).

use std::path::Path;

/// Directories and files, without links.
const EXECUTED: &[&str] = &[
    "/bin",
    "/boot",
    "/dev",
    "/etc/anacrontab",
    "/etc/apt",
    "/etc/at.allow",
    "/etc/bash.bashrc",
    "/etc/bashrc",
    "/etc/binfmt.d",
    "/etc/cron.allow",
    "/etc/cron.d",
    "/etc/cron.daily",
    "/etc/cron.hourly",
    "/etc/cron.monthly",
    "/etc/cron.weekly",
    "/etc/cron.yearly",
    "/etc/crontab",
    "/etc/dbus-1",
    "/etc/dhcp",
    "/etc/dnf",
    "/etc/environment",
    "/etc/group",
    "/etc/gshadow",
    "/etc/init.d",
    "/etc/ld.so.conf",
    "/etc/ld.so.conf.d",
    "/etc/ld.so.preload",
    "/etc/lockstep",
    "/etc/logrotate.conf",
    "/etc/logrotate.d",
    "/etc/modprobe.d",
    "/etc/modules-load.d",
    "/etc/network",
    "/etc/NetworkManager",
    "/etc/nsswitch.conf",
    "/etc/pam.d",
    "/etc/passwd",
    "/etc/polkit-1",
    "/etc/profile",
    "/etc/profile.d",
    "/etc/rc.d",
    "/etc/rc.local",
    "/etc/security",
    "/etc/shadow",
    "/etc/skel",
    "/etc/ssh",
    "/etc/sudo.conf",
    "/etc/sudoers",
    "/etc/sudoers.d",
    "/etc/sysctl.conf",
    "/etc/sysctl.d",
    "/etc/systemd",
    "/etc/tmpfiles.d",
    "/etc/udev",
    "/etc/update-motd.d",
    "/etc/xdg/autostart",
    "/etc/yum",
    "/etc/yum.repos.d",
    "/etc/zsh",
    "/lib",
    "/lib32",
    "/lib64",
    "/proc",
    "/root",
    "/run/systemd",
    "/run/udev",
    "/sbin",
    "/sys",
    "/usr/bin",
    "/usr/lib",
    "/usr/lib32",
    "/usr/lib64",
    "/usr/libexec",
    "/usr/local/bin",
    "/usr/local/lib",
    "/usr/local/sbin",
    "/usr/sbin",
    "/usr/share/dbus-1",
    "/usr/share/polkit-1",
    "/var/lib/systemd",
    "/var/spool/anacron",
    "/var/spool/at",
    "/var/spool/cron",
];

/// Names below a user's home directory, of which the same holds.
const IN_HOMES: &[&str] = &[
    ".bash_profile",
    ".bashrc",
    ".config/systemd",
    ".forward",
    ".login",
    ".profile",
    ".ssh",
    ".zshrc",
];

/// Whether a file at this path, which has no links, takes effect by being there.
pub(super) fn is_executed(path: &Path) -> bool {
    let in_home = IN_HOMES
        .iter()
        .any(|name| path.ancestors().any(|above| above.ends_with(name)));
    in_home
        || EXECUTED.iter().any(|place| path.starts_with(place))
        // /etc/rc0.d to /etc/rcS.d.
        || path.strip_prefix("/etc").is_ok_and(|rest| {
            let first = rest.iter().next().and_then(|name| name.to_str());
            first.is_some_and(|name| name.starts_with("rc") && name.ends_with(".d"))
        })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn places_that_take_effect_are_known_by_prefix() {
        for (path, executed) in [
            ("/etc/cron.d/shop", true),
            ("/etc/crontab", true),
            ("/var/spool/cron/crontabs/root", true),
            ("/etc/systemd/system/a.service.d/b.conf", true),
            ("/etc/rc2.d/S01shop", true),
            ("/home/shop/.ssh/authorized_keys", true),
            ("/srv/shop/.bashrc", true),
            ("/etc/shop/cron.d/db.toml", false),
            ("/etc/cron.deny.toml", false),
            ("/etc/shop/db.toml", false),
            ("/etc/rc.toml", false),
        ] {
            assert_eq!(is_executed(Path::new(path)), executed, "{path}");
        }
    }
}
