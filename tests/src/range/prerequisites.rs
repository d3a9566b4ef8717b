//! What the range needs of the machine, looked at before anything starts.
//!
//! Everything that is missing is named at once, each with its remedy, so that
//! nobody fixes one thing only to hear of the next.

use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

use super::cgroup;
use super::error::{Error, Missing};
use super::layout::{Layout, ports};
use super::postgres;

/// Files the range opens at most per process, by far: sockets of sessions.
const FILES: u64 = 1024;
/// Megabytes: the PostgreSQL cluster, logs, journals.
const DISK_MB: u64 = 1024;
/// The kernel's limit on the path of a Unix socket.
const SOCKET_PATH: usize = 107;

const PROGRAMS: [(&str, &str); 8] = [
    ("/lib/systemd/systemd", "systemd"),
    ("/usr/bin/systemctl", "systemd"),
    ("/usr/bin/busctl", "systemd"),
    ("/usr/bin/dbus-daemon", "dbus"),
    ("/usr/bin/unshare", "util-linux"),
    ("/usr/bin/nsenter", "util-linux"),
    ("/usr/bin/setpriv", "util-linux"),
    ("/usr/bin/openssl", "openssl"),
];

/// Checks the machine.
///
/// # Errors
/// [`Error::Missing`] with everything that is missing.
pub fn check(layout: &Layout, binaries: &[&str]) -> Result<(), Error> {
    let mut missing = Vec::new();
    rights(&mut missing);
    packages(layout, &mut missing);
    built(layout, binaries, &mut missing);
    free_ports(&mut missing);
    resources(layout, &mut missing);
    if missing.is_empty() {
        Ok(())
    } else {
        Err(Error::Missing(missing))
    }
}

fn lacks(missing: &mut Vec<Missing>, what: impl Into<String>, remedy: impl Into<String>) {
    missing.push(Missing {
        what: what.into(),
        remedy: remedy.into(),
    });
}

fn rights(missing: &mut Vec<Missing>) {
    let hierarchies = cgroup::hierarchies();
    if hierarchies.is_empty() {
        lacks(
            missing,
            "control groups",
            "mount cgroup v2 (or v1 hybrid) on /sys/fs/cgroup",
        );
    }
    for dir in hierarchies {
        let probe = dir.join(format!("lockstep-probe-{}", std::process::id()));
        match std::fs::create_dir(&probe) {
            Ok(()) => drop(std::fs::remove_dir(&probe)),
            Err(error) => lacks(
                missing,
                format!(
                    "the right to make control groups in {} ({error})",
                    dir.display()
                ),
                "run as root, in a container with --privileged or a writable cgroup of its own",
            ),
        }
    }
    let namespaces = Command::new("/usr/bin/unshare")
        .args(["--mount", "--uts", "--propagation", "private", "true"])
        .stdin(Stdio::null())
        .stderr(Stdio::null())
        .status();
    if !namespaces.is_ok_and(|status| status.success()) {
        lacks(
            missing,
            "the right to make mount and host-name namespaces",
            "run as root, in a container with the capability SYS_ADMIN",
        );
    }
    if std::fs::create_dir_all("/run/systemd/system").is_err() {
        lacks(
            missing,
            "the directory /run/systemd/system",
            "run as root, or create it",
        );
    }
    if !Path::new("/srv").is_dir() {
        lacks(
            missing,
            "the directory /srv, over which each host mounts its own",
            "mkdir /srv",
        );
    }
}

fn packages(layout: &Layout, missing: &mut Vec<Missing>) {
    for (path, package) in PROGRAMS {
        if !Path::new(path).exists() {
            lacks(missing, path, format!("apt-get install {package}"));
        }
    }
    if postgres::programs().is_none() {
        lacks(
            missing,
            "a PostgreSQL server, 14 or newer",
            "apt-get install postgresql-15",
        );
    }
    if !layout.python().exists() {
        lacks(missing, "the Python environment .tools/venv", "make tools");
    }
}

fn built(layout: &Layout, binaries: &[&str], missing: &mut Vec<Missing>) {
    for name in binaries {
        let path = layout.binary(name);
        if !path.exists() {
            lacks(
                missing,
                path.display().to_string(),
                "cargo build --workspace",
            );
        }
    }
}

fn free_ports(missing: &mut Vec<Missing>) {
    for (port, purpose) in ports::SHARED {
        if let Err(error) = TcpListener::bind((Ipv4Addr::LOCALHOST, port)) {
            lacks(
                missing,
                format!("port {port} on 127.0.0.1 for {purpose} ({error})"),
                format!("end what listens there (ss -ltnp 'sport = :{port}')"),
            );
        }
    }
}

fn resources(layout: &Layout, missing: &mut Vec<Missing>) {
    let limits = std::fs::read_to_string("/proc/self/limits").unwrap_or_default();
    let files = limits
        .lines()
        .find_map(|line| line.strip_prefix("Max open files"))
        .and_then(|rest| rest.split_whitespace().next())
        .and_then(|soft| soft.parse::<u64>().ok());
    if files.is_some_and(|soft| soft < FILES) {
        lacks(
            missing,
            format!("{FILES} open files a process"),
            format!("ulimit -n {FILES}"),
        );
    }
    if let Some(free) = free_megabytes(&layout.source)
        && free < DISK_MB
    {
        lacks(
            missing,
            format!(
                "{DISK_MB} MB of disk under {}; {free} MB are free",
                layout.source.display()
            ),
            "free some, or put the checkout on a larger disk",
        );
    }
    let longest = layout.oracle_home("ora-1").join("dbs/bequeath_ORCL1.sock");
    if longest.as_os_str().len() > SOCKET_PATH {
        lacks(
            missing,
            format!(
                "a shorter path: {} is too long for a Unix socket",
                longest.display()
            ),
            "put the checkout nearer to the root of the file system",
        );
    }
    if layout.source.starts_with("/srv") {
        lacks(
            missing,
            "a checkout outside of /srv, over which each host mounts its own",
            "move the checkout",
        );
    }
}

fn free_megabytes(path: &Path) -> Option<u64> {
    let output = Command::new("df")
        .args(["-Pm", "--"])
        .arg(path)
        .output()
        .ok()?;
    let text = String::from_utf8_lossy(&output.stdout).into_owned();
    text.lines().nth(1)?.split_whitespace().nth(3)?.parse().ok()
}
