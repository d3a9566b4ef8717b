//! A `systemd --user` with its own bus, and the units that the tests use.

use lockstep_agent::action::{Context, Description, Progress, WorkId};
use lockstep_agent::actions;
use lockstep_agent::host::Host;
use lockstep_barrier::message::Finding;
use serde_json::Value;
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
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
    (
        "batch.service",
        "[Service]\nExecStart=/bin/sh -c 'sleep 10; touch %t/batched'\n",
    ),
    ("batch.timer", "[Timer]\nOnActiveSec=0\nAccuracySec=1ms\n"),
    (
        "daemon.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    ("daemon.timer", "[Timer]\nOnActiveSec=0\nAccuracySec=1ms\n"),
    (
        "keeper.service",
        "[Unit]\nUpholds=kept.service\nWants=vendors.service\n\
         [Service]\nExecStart=/bin/sleep infinity\n",
    ),
    ("kept.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
    (
        "vendors.service",
        "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\n",
    ),
    (
        "nightly.service",
        "[Service]\nType=oneshot\nExecStart=/bin/true\n",
    ),
    (
        "nightly.timer",
        "[Timer]\nOnCalendar=daily\nPersistent=true\n",
    ),
    (
        "orders.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "worker.service",
        "[Unit]\nRequires=orders.service\nAfter=orders.service\n\
         [Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "pump.service",
        "[Unit]\nPartOf=orders.service\n[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "bound.service",
        "[Unit]\nBindsTo=worker.service\nAfter=worker.service\n\
         [Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "helper.service",
        "[Unit]\nStopWhenUnneeded=yes\n[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "helped.service",
        "[Unit]\nWants=helper.service\n[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "blue.service",
        "[Unit]\nConflicts=green.service\nRequires=store.service\n\
         [Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "green.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "store.service",
        "[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    (
        "twice.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran >> %t/twice'\n",
    ),
    (
        "slow.service",
        "[Service]\nExecStart=/bin/sleep infinity\nTimeoutStopSec=61\n",
    ),
    (
        "manual.service",
        "[Unit]\nRefuseManualStop=yes\n[Service]\nExecStart=/bin/sleep infinity\n",
    ),
    ("dark.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
    ("lost.service", "[Service]\nExecStart=/bin/sleep infinity\n"),
    (
        "al.service",
        "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\nAlso=al2.service\n",
    ),
    (
        "al2.service",
        "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\n",
    ),
    (
        "maria.service",
        "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\nAlias=my.service\n",
    ),
    (
        "closing.service",
        "[Service]\nExecStart=/bin/sleep infinity\n\
         ExecStopPost=/bin/sh -c 'until [ -e %t/closed ]; do sleep 0.1; done'\n",
    ),
    (
        "redeployed.service",
        "[Service]\nExecStart=/bin/sleep infinity\nExecStopPost=/bin/sleep 2\n",
    ),
    (
        "night.service",
        "[Service]\nType=oneshot\nExecStart=/bin/sh -c 'echo ran >> %t/night; sleep 15'\n",
    ),
    (
        "lines.socket",
        "[Socket]\nListenStream=%t/lines\nAccept=yes\n",
    ),
    (
        "lines@.service",
        "[Service]\nExecStart=/bin/cat\nStandardInput=socket\n",
    ),
    (
        "rt.service",
        "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\n",
    ),
];

pub const ELSEWHERE: &str =
    "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\n";

pub struct Manager {
    pub dir: tempfile::TempDir,
    pub process: Child,
}

impl Manager {
    pub async fn start() -> Self {
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

    pub fn context(&self) -> Context {
        self.context_with(&["*"])
    }

    /// A context of an agent whose policy allows these units.
    pub fn context_with(&self, units: &[&str]) -> Context {
        let config = format!(
            "name='a'\ncoordinator='c'\nstate_dir='{}/state'\n\
             [tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n\
             [systemd]\naddress='{}'\n\
             [policy]\nactions=['service.*']\nunits={units:?}\n",
            self.dir.path().display(),
            bus(self.dir.path()),
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

    pub async fn start_units(&self, units: &[&str]) -> Result<(), String> {
        self.execute("service.start", units).await
    }

    pub async fn stop_units(&self, units: &[&str]) -> Result<(), String> {
        self.execute("service.stop", units).await
    }

    pub async fn execute(&self, action: &str, units: &[&str]) -> Result<(), String> {
        self.task(action, units, false).await.map(drop)
    }

    /// Probes and executes as the driver does; returns the before-image.
    pub async fn task(
        &self,
        action: &str,
        units: &[&str],
        enablement: bool,
    ) -> Result<Value, String> {
        let params = params(action, units, enablement);
        let action = actions::find(action).unwrap();
        let cx = self.context();
        let probe = action.probe(&cx, &params).await.map_err(|e| e.report())?;
        let before = probe.before_image.unwrap();
        if probe.finding != Finding::Satisfied {
            let done = action.execute(&cx, &params, Some(&before)).await;
            done.map_err(|e| e.report())?;
        }
        Ok(before)
    }

    pub async fn undo(&self, action: &str, units: &[&str], enablement: bool, before: &Value) {
        let params = params(action, units, enablement);
        let action = actions::find(action).unwrap();
        let undone = action.undo(&self.context(), &params, before).await;
        undone.unwrap();
    }

    pub async fn describe(&self, action: &str, units: &[&str]) -> Description {
        let params = params(action, units, false);
        let action = actions::find(action).unwrap();
        action.describe(&self.context(), &params).await.unwrap()
    }

    pub fn systemctl(&self, args: &[&str]) -> String {
        let output = Command::new("systemctl")
            .arg("--user")
            .args(args)
            .env("XDG_RUNTIME_DIR", self.dir.path())
            .env("XDG_CONFIG_HOME", self.dir.path().join("config"))
            .env("DBUS_SESSION_BUS_ADDRESS", bus(self.dir.path()))
            .output()
            .unwrap();
        String::from_utf8(output.stdout).unwrap()
    }

    /// Those of the units that are active.
    pub fn active<'a>(&self, units: &[&'a str]) -> Vec<&'a str> {
        let active = |unit: &&&str| self.systemctl(&["is-active", unit]).trim() == "active";
        units.iter().filter(active).copied().collect()
    }

    pub fn units(&self) -> PathBuf {
        self.dir.path().join("config/systemd/user")
    }

    /// All links of enablement, with where they lead.
    pub fn links(&self) -> BTreeMap<PathBuf, PathBuf> {
        let mut links = BTreeMap::new();
        for directory in [self.units(), self.dir.path().join("systemd/user")] {
            let Ok(entries) = std::fs::read_dir(directory) else {
                continue;
            };
            let mut open: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
            while let Some(path) = open.pop() {
                if let Ok(target) = std::fs::read_link(&path) {
                    links.insert(path, target);
                } else if path.is_dir() {
                    let entries = std::fs::read_dir(path).unwrap();
                    open.extend(entries.map(|entry| entry.unwrap().path()));
                }
            }
        }
        links
    }
}

/// Waits for a condition; the bound is only a guard.
pub async fn until(what: impl Fn() -> bool) {
    for _ in 0..200 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the condition did not become true");
}

pub fn params(action: &str, units: &[&str], enablement: bool) -> Value {
    let mut params = serde_json::json!({ "units": units, "timeout_secs": 20 });
    if action != "service.restart" {
        params["enablement"] = enablement.into();
    }
    params
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

/// Units that go down with orders.service, by all kinds of dependency.
pub const FAMILY: &[&str] = &[
    "orders.service",
    "worker.service",
    "pump.service",
    "bound.service",
];

pub fn mentions(sentences: &[String], words: &str) -> bool {
    sentences.iter().any(|sentence| sentence.contains(words))
}
