//! Units under a real `systemd --user` with its own bus: what counts as
//! started and as stopped.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_agent::action::{Context, Progress, WorkId};
use lockstep_agent::actions;
use lockstep_agent::host::Host;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::sync::Arc;
use std::time::Duration;
use tokio_util::sync::CancellationToken;

/// Enters a control group of its own, since a systemd that shares its group
/// ends the other processes in it, and becomes systemd.
const MANAGER: &str = r#"
for d in /sys/fs/cgroup /sys/fs/cgroup/systemd /sys/fs/cgroup/unified; do
  [ -e $d/cgroup.procs ] || continue
  [ $d = /sys/fs/cgroup ] && [ ! -e $d/cgroup.controllers ] && continue
  mkdir -p $d/lockstep-agent-$$ && echo $$ > $d/lockstep-agent-$$/cgroup.procs
done
mkdir -p /run/systemd/system
exec /lib/systemd/systemd --user --log-target=null
"#;

const UNITS: &[(&str, &str)] = &[
    ("dbus.socket", "[Socket]\nListenStream=%t/bus\n"),
    (
        "dbus.service",
        "[Unit]\nRequires=dbus.socket\n[Service]\nType=notify\nNotifyAccess=main\n\
         ExecStart=/usr/bin/dbus-daemon --session --address=systemd: --nofork --nopidfile \
         --systemd-activation\n",
    ),
    (
        "steady.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "loop.service",
        "[Service]\nExecStart=/bin/false\nRestart=always\nRestartSec=5\n",
    ),
    ("short.service", "[Service]\nExecStart=/bin/sleep 1\n"),
    (
        "once.service",
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    ),
    (
        "bad.service",
        "[Service]\nType=oneshot\nExecStart=/bin/false\n",
    ),
    ("echo.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
    ("echo.socket", "[Socket]\nListenStream=%t/echo\n"),
    (
        "report.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'sleep 6; touch %t/reported'\n",
    ),
    ("report.timer", "[Timer]\nOnActiveSec=0\nAccuracySec=1ms\n"),
];

struct Manager {
    dir: tempfile::TempDir,
    process: Child,
}

impl Manager {
    async fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let units = dir.path().join("config/systemd/user");
        let wants = units.join("default.target.wants");
        std::fs::create_dir_all(&wants).unwrap();
        for (name, text) in UNITS {
            std::fs::write(units.join(name), text).unwrap();
        }
        std::os::unix::fs::symlink(units.join("dbus.service"), wants.join("dbus.service")).unwrap();
        let process = Command::new("/bin/sh")
            .args(["-c", MANAGER])
            .env("HOME", dir.path())
            .env("XDG_RUNTIME_DIR", dir.path())
            .env("XDG_CONFIG_HOME", dir.path().join("config"))
            .env("DBUS_SESSION_BUS_ADDRESS", bus(dir.path()))
            .stderr(Stdio::null())
            .spawn()
            .unwrap();
        let manager = Self { dir, process };
        for _ in 0..200 {
            if manager.context().host.systemd().await.is_ok() {
                return manager;
            }
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        panic!("systemd did not come up on its bus");
    }

    fn context(&self) -> Context {
        let config = format!(
            "name='a'\ncoordinator='c'\nstate_dir='/s'\n\
             [tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n\
             [systemd]\naddress='{}'\n",
            bus(self.dir.path())
        );
        Context {
            host: Arc::new(Host::new(toml::from_str(&config).unwrap())),
            tag: WorkId {
                run: "r".into(),
                step: "s".into(),
                attempt: 1,
                of: None,
            },
            cancel: CancellationToken::new(),
            progress: Progress::silent(),
        }
    }

    async fn start_units(&self, units: &[&str]) -> Result<(), String> {
        self.execute("service.start", units).await
    }

    async fn stop_units(&self, units: &[&str]) -> Result<(), String> {
        self.execute("service.stop", units).await
    }

    async fn execute(&self, action: &str, units: &[&str]) -> Result<(), String> {
        let params = serde_json::json!({ "units": units, "timeout_secs": 20 });
        let action = actions::find(action).unwrap();
        let done = action.execute(&self.context(), &params, None).await;
        done.map(drop).map_err(|e| e.report())
    }
}

impl Drop for Manager {
    /// SIGKILL would leave its units running: it stops them at SIGTERM.
    fn drop(&mut self) {
        let pid = self.process.id().to_string();
        let _ = Command::new("kill").args(["-s", "TERM", &pid]).status();
        let _ = self.process.wait();
    }
}

fn bus(dir: &Path) -> String {
    format!("unix:path={}", dir.join("bus").display())
}

#[tokio::test]
async fn a_unit_is_started_once_it_stays_up() {
    let manager = Manager::start().await;
    manager.start_units(&["steady.service"]).await.unwrap();
    for unit in ["loop.service", "short.service"] {
        let error = manager.start_units(&[unit]).await.unwrap_err();
        assert!(error.contains("did not stay up"), "{error}");
    }
}

#[tokio::test]
async fn a_oneshot_is_started_once_it_succeeded() {
    let manager = Manager::start().await;
    manager.start_units(&["once.service"]).await.unwrap();
    manager.start_units(&["bad.service"]).await.unwrap_err();
}

#[tokio::test]
async fn a_stop_holds_what_starts_the_unit_again() {
    let manager = Manager::start().await;
    let pair = ["echo.socket", "echo.service"];
    manager
        .start_units(&["echo.service", "echo.socket"])
        .await
        .unwrap();
    // An earlier step may stop the socket, so it is no obstacle before the run.
    let stop = actions::find("service.stop").unwrap();
    let params = serde_json::json!({ "units": ["echo.service"] });
    let seen = stop.describe(&manager.context(), &params).await.unwrap();
    assert_eq!(seen.obstacles, Vec::<String>::new());
    assert!(seen.remarks[0].starts_with("echo.socket"), "{seen:?}");
    let error = manager.stop_units(&["echo.service"]).await.unwrap_err();
    assert!(error.contains("echo.socket"), "{error}");
    manager.stop_units(&pair).await.unwrap();
}

#[tokio::test]
async fn a_stopped_timer_waits_for_the_oneshot_it_started() {
    let manager = Manager::start().await;
    manager.start_units(&["report.timer"]).await.unwrap();
    let reported = manager.dir.path().join("reported");
    manager.stop_units(&["report.timer"]).await.unwrap();
    assert!(reported.exists(), "the oneshot still runs");
}
