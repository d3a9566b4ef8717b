//! What the range needs of the machine, looked at before anything starts.
//!
//! Everything that is missing is named at once, each with its remedy, so that
//! nobody fixes one thing only to hear of the next.

use super::error::{Error, Missing};
use super::host::Sketch;
use super::layout::{Layout, ports};
use super::{Options, applications, cgroup, postgres};
use std::net::{Ipv4Addr, TcpListener};
use std::path::Path;
use std::process::{Command, Stdio};

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

/// What is simulated, and what the range copies into the Oracle homes.
const DOUBLES: [&str; 6] = [
    "oracle-simulator",
    "dms-double",
    "lsnrctl",
    "srvctl",
    "crsctl",
    "libclntsh.so",
];
const PRODUCT: [&str; 3] = ["lockstep", "lockstep-coordinator", "lockstep-agent"];

/// Everything that the machine lacks for a range with these options.
#[must_use]
pub fn missing(layout: &Layout, options: Options) -> Vec<Missing> {
    let mut missing = Vec::new();
    rights(&mut missing);
    packages(layout, &mut missing);
    built(layout, &DOUBLES, &mut missing);
    if options.product {
        built(layout, &PRODUCT, &mut missing);
    }
    free_ports(&mut missing);
    health_port(&super::sketches(options.apps), &mut missing);
    resources(layout, &mut missing);
    missing
}

/// Whoever may not even open the range's lock lacks more than that: all of it
/// is named with it. Any other error stays what it is.
pub fn with_all(error: Error, missing: impl FnOnce() -> Vec<Missing>) -> Error {
    let Error::File { what, path, source } = error else {
        return error;
    };
    let mut all = vec![Missing {
        what: format!("the right to {what} {} ({source})", path.display()),
        remedy: "run as root".into(),
    }];
    all.extend(missing());
    Error::Missing(all)
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
                listener_remedy(port),
            );
        }
    }
}

/// Each host serves its health page at its own address. Where one is taken the
/// others most often are too, by the same program: the first one is told.
fn health_port(hosts: &[Sketch], missing: &mut Vec<Missing>) {
    let port = ports::HEALTH;
    let taken = hosts
        .iter()
        .filter(|host| applications::writer_of(&host.name).is_some())
        .find_map(|host| Some((host, TcpListener::bind((host.address, port)).err()?)));
    if let Some((host, error)) = taken {
        lacks(
            missing,
            format!(
                "port {port} on {} for the health page of {} ({error})",
                host.address, host.name
            ),
            listener_remedy(port),
        );
    }
}

fn listener_remedy(port: u16) -> String {
    format!("end what listens there (ss -ltnp 'sport = :{port}')")
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

#[cfg(test)]
mod tests {
    use super::*;

    fn lack(what: &str) -> Vec<Missing> {
        vec![Missing {
            what: what.into(),
            remedy: "get it".into(),
        }]
    }

    #[test]
    fn who_may_not_open_the_lock_hears_of_everything_that_is_missing() {
        let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
        let error = Error::file("open", "/run/range.lock")(denied);
        let text = with_all(error, || lack("control groups")).to_string();
        assert!(
            text.contains("/run/range.lock (permission denied): run as root"),
            "{text}"
        );
        assert!(text.contains("control groups: get it"), "{text}");
    }

    #[test]
    fn another_rehearsal_is_the_only_thing_in_the_way() {
        let error = with_all(Error::Missing(lack("the machine")), || lack("a port"));
        assert!(!error.to_string().contains("a port"), "{error}");
    }

    #[test]
    fn a_taken_health_port_is_told_once() {
        // Not an address of the range, which may be up beside this test.
        let address = Ipv4Addr::new(127, 0, 12, 1);
        let host = |name: &str| Sketch {
            name: name.into(),
            address,
        };
        let hosts = [host("pg-1"), host("app-1"), host("app-2")];
        let mut missing = Vec::new();
        health_port(&hosts, &mut missing);
        assert_eq!(missing, Vec::new());
        let _taken = TcpListener::bind((address, ports::HEALTH)).unwrap();
        health_port(&hosts, &mut missing);
        let [one] = missing.as_slice() else {
            panic!("{missing:?}");
        };
        assert!(one.what.contains("health page of app-1"), "{}", one.what);
        health_port(&hosts[..1], &mut missing);
        assert_eq!(missing.len(), 1, "pg-1 has no page");
    }
}
