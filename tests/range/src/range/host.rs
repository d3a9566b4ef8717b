//! A host: its own name, its own `/srv`, its own address, its own systemd.
//!
//! A host is a mount and host-name namespace held open by a sleeping process,
//! and a `systemd --user` in a control group of its own, which starts the
//! host's D-Bus daemon: a service manager appears on the bus only if it runs
//! the bus itself. It is a real one; what it is not is process 1. Each host
//! has a loopback address, known inside it as `this-host`, so that one plan
//! can name a page that every host serves.

use super::cgroup::Group;
use super::error::Error;
use super::layout::Layout;
use super::process::{self, Launch, Process};
use std::net::Ipv4Addr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// systemd is up in a fraction of a second; a busy machine may need more.
const START_LIMIT: Duration = Duration::from_secs(30);

/// Gives itself its name, its `/srv` and its `/etc/hosts`, then holds the
/// namespaces open.
const INIT: &str = r#"hostname "$1" && mount --bind "$2" /srv && mount --bind "$3" /etc/hosts && : >"$4" && exec sleep infinity"#;

/// Where distributions list units that start by themselves in every user's
/// service manager; none of them belongs on a rehearsal's host.
const WANTED: [&str; 2] = ["/usr/lib/systemd/user", "/etc/systemd/user"];

/// A host of the range.
#[derive(Debug, Clone)]
pub struct Host {
    /// Its name: `ora-1`, `app-2`.
    pub name: String,
    pub address: Ipv4Addr,
    /// The process that holds its namespaces.
    pub namespace: u32,
    dir: PathBuf,
}

/// What a host is made from.
#[derive(Debug, Clone)]
pub struct Sketch {
    pub name: String,
    pub address: Ipv4Addr,
}

impl Host {
    /// Makes the host's directories; units and files may then be put there.
    ///
    /// # Errors
    /// When a directory can't be made.
    pub fn lay_out(layout: &Layout, sketch: &Sketch, all: &[Sketch]) -> Result<(), Error> {
        let dir = layout.host(&sketch.name);
        for sub in [
            "run",
            "config/systemd/user",
            "srv/shop/etc",
            "srv/shop/log",
            "srv/shop/cron.d",
        ] {
            let path = dir.join(sub);
            std::fs::create_dir_all(&path).map_err(Error::file("create", &path))?;
        }
        let run = dir.join("run");
        std::fs::set_permissions(&run, std::fs::Permissions::from_mode(0o700))
            .map_err(Error::file("protect", &run))?;
        let mut hosts = format!("127.0.0.1 localhost\n{} this-host\n", sketch.address);
        for other in all {
            hosts.push_str(&format!("{} {}\n", other.address, other.name));
        }
        write(&dir.join("hosts"), &hosts)?;
        write(
            &dir.join("config/systemd/user.conf"),
            "[Manager]\nDefaultTimeoutStopSec=15s\nDefaultTimeoutStartSec=30s\n",
        )?;
        let units = dir.join("config/systemd/user");
        mask_distribution_units(&units)?;
        lay_out_bus(&units)
    }

    /// Starts the host. `daemons` is the group for what is not systemd's.
    ///
    /// # Errors
    /// When one of its processes does not come up.
    pub fn start(
        layout: &Layout,
        sketch: &Sketch,
        daemons: &Group,
    ) -> Result<(Self, Vec<Process>), Error> {
        let dir = layout.host(&sketch.name);
        let ready = dir.join("ready");
        let text = |path: &Path| path.display().to_string();
        let argv = [
            "unshare",
            "--mount",
            "--uts",
            "--propagation",
            "private",
            "/bin/sh",
            "-c",
            INIT,
            "host",
            &sketch.name,
            &text(&dir.join("srv")),
            &text(&dir.join("hosts")),
            &text(&ready),
        ];
        let launch = Launch::new("host", &sketch.name, argv, layout.log(&sketch.name));
        let mut init = Process::start(&launch, daemons)?;
        init.wait_ready(START_LIMIT, || ready.exists())?;
        let host = Self {
            name: sketch.name.clone(),
            address: sketch.address,
            namespace: init.listed.pid,
            dir,
        };

        let group = Group::create(&host.name)?;
        let argv = ["/lib/systemd/systemd", "--user", "--log-target=console"];
        let launch = host.launch(
            "systemd",
            argv,
            layout.log(&format!("{}-systemd", host.name)),
        );
        let mut systemd = Process::start(&launch, &group)?;
        systemd.wait_ready(START_LIMIT, || host.is_up())?;
        Ok((host, vec![init, systemd]))
    }

    /// A process that runs on this host, with its service manager's bus.
    pub fn launch<S: Into<String>>(
        &self,
        role: &'static str,
        argv: impl IntoIterator<Item = S>,
        log: PathBuf,
    ) -> Launch {
        Launch::new(role, &self.name, argv, log)
            .inside(self.namespace)
            .env("HOME", &self.dir)
            .env("XDG_RUNTIME_DIR", self.dir.join("run"))
            .env("XDG_CONFIG_HOME", self.dir.join("config"))
            .env("DBUS_SESSION_BUS_ADDRESS", self.bus())
    }

    fn bus_socket(&self) -> PathBuf {
        self.dir.join("run/bus")
    }

    /// The address of the service manager's bus.
    #[must_use]
    pub fn bus(&self) -> String {
        format!("unix:path={}", self.bus_socket().display())
    }

    /// Where its unit files lie.
    #[must_use]
    pub fn units(&self) -> PathBuf {
        self.dir.join("config/systemd/user")
    }

    fn is_up(&self) -> bool {
        // `is-system-running` ends with 1 for `degraded`, which is up too.
        let output = self.systemctl_command(&["is-system-running"]).output();
        output.is_ok_and(|o| matches!(o.stdout.as_slice(), b"running\n" | b"degraded\n"))
            && self.is_on_bus()
    }

    /// Whether the service manager answers on the bus, where the product
    /// speaks to it; systemctl takes a private way.
    fn is_on_bus(&self) -> bool {
        let bus = "org.freedesktop.DBus";
        let output = Command::new("busctl")
            .arg(format!("--address={}", self.bus()))
            .args([
                "call",
                bus,
                "/org/freedesktop/DBus",
                bus,
                "NameHasOwner",
                "s",
            ])
            .arg("org.freedesktop.systemd1")
            .output();
        output.is_ok_and(|o| o.stdout == b"b true\n")
    }

    fn systemctl_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new("systemctl");
        command
            .arg("--user")
            .args(args)
            .env("XDG_RUNTIME_DIR", self.dir.join("run"))
            .env("DBUS_SESSION_BUS_ADDRESS", self.bus());
        command
    }

    /// Runs `systemctl --user` against this host.
    ///
    /// # Errors
    /// [`Error::Command`] with what systemctl said.
    pub fn systemctl(&self, args: &[&str]) -> Result<String, Error> {
        let purpose = format!("systemctl {} on {}", args.join(" "), self.name);
        process::run(&purpose, &mut self.systemctl_command(args))
    }

    /// Properties of a unit, by name.
    ///
    /// # Errors
    /// As [`Host::systemctl`].
    pub fn unit(&self, unit: &str) -> Result<serde_json::Map<String, serde_json::Value>, Error> {
        let names = "ActiveState,SubState,UnitFileState,MainPID,NRestarts,InactiveEnterTimestamp";
        let text = self.systemctl(&["show", "--timestamp=us+utc", "--property", names, unit])?;
        Ok(text
            .lines()
            .filter_map(|line| line.split_once('='))
            .map(|(name, value)| (name.to_owned(), value.into()))
            .collect())
    }
}

/// Writes a file of the range.
///
/// # Errors
/// [`Error::File`].
pub(super) fn write(path: &Path, text: &str) -> Result<(), Error> {
    std::fs::write(path, text).map_err(Error::file("write", path))
}

const BUS_SOCKET: &str = "[Unit]\nDescription=D-Bus\n\n[Socket]\nListenStream=%t/bus\n";
const BUS_SERVICE: &str = "[Unit]\nDescription=D-Bus\nRequires=dbus.socket\n\n[Service]\nType=notify\n\
    NotifyAccess=main\nExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork \
    --nopidfile --systemd-activation\n";

/// The host's bus, whether or not the distribution has units for one.
fn lay_out_bus(units: &Path) -> Result<(), Error> {
    for (name, text, target) in [
        ("dbus.socket", BUS_SOCKET, "sockets.target.wants"),
        ("dbus.service", BUS_SERVICE, "default.target.wants"),
    ] {
        let unit = units.join(name);
        write(&unit, text)?;
        let wants = units.join(target);
        std::fs::create_dir_all(&wants).map_err(Error::file("create", &wants))?;
        let link = wants.join(name);
        std::os::unix::fs::symlink(&unit, &link).map_err(Error::file("link", &link))?;
    }
    Ok(())
}

/// Masks what the distribution's packages start in every service manager:
/// nothing of it belongs on a host of the range.
fn mask_distribution_units(units: &Path) -> Result<(), Error> {
    let mut names = Vec::new();
    for place in WANTED {
        for target in ["sockets", "default", "timers", "basic", "graphical-session"] {
            let dir = Path::new(place).join(format!("{target}.target.wants"));
            for entry in std::fs::read_dir(dir).into_iter().flatten().flatten() {
                names.push(entry.file_name());
            }
        }
    }
    names.sort();
    names.dedup();
    // The bus has units of the host's own.
    names.retain(|name: &std::ffi::OsString| !name.to_string_lossy().starts_with("dbus."));
    for name in names {
        let link = units.join(&name);
        std::os::unix::fs::symlink("/dev/null", &link).map_err(Error::file("link", &link))?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Stopping a unit on one host must leave the same unit on the other one
    /// alone, which fails when two service managers share a control group.
    #[test]
    fn hosts_have_their_own_units_names_and_files() {
        let (layout, _lock) = crate::range::for_test("hosts");
        let daemons = Group::create("daemons").unwrap();
        let sketches = ["left", "right"].map(|name| Sketch {
            name: name.into(),
            address: Ipv4Addr::new(127, 0, 11, 99),
        });
        let mut processes = Vec::new();
        let mut hosts = Vec::new();
        for sketch in &sketches {
            Host::lay_out(&layout, sketch, &sketches).unwrap();
            let unit = "[Service]\nExecStart=/bin/sh -c 'hostname >/srv/shop/log/name; exec sleep infinity'\n\
                        [Install]\nWantedBy=default.target\n";
            write(
                &layout
                    .host(&sketch.name)
                    .join("config/systemd/user/shop-x.service"),
                unit,
            )
            .unwrap();
            let (host, started) = Host::start(&layout, sketch, &daemons).unwrap();
            host.systemctl(&["enable", "--now", "shop-x.service"])
                .unwrap();
            processes.extend(started);
            hosts.push(host);
        }
        hosts[0].systemctl(&["stop", "shop-x.service"]).unwrap();
        assert_eq!(
            hosts[0].unit("shop-x.service").unwrap()["ActiveState"],
            "inactive"
        );
        assert_eq!(
            hosts[1].unit("shop-x.service").unwrap()["ActiveState"],
            "active"
        );
        for host in &hosts {
            let name = layout.shop(&host.name).join("log/name");
            wait_for_text(&name, &format!("{}\n", host.name));
        }
        for process in processes.iter_mut().rev() {
            process.stop();
        }
        assert_eq!(Group::top().processes(), Vec::<i32>::new());
        Group::top().end().unwrap();
    }

    fn wait_for_text(path: &Path, text: &str) {
        crate::range::wait::until("the file", START_LIMIT, || {
            Ok((std::fs::read_to_string(path).unwrap_or_default() == text).then_some(()))
        })
        .unwrap();
    }
}
