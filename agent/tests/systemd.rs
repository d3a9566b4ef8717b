//! Units under a real `systemd --user` with its own bus: what counts as
//! started and as stopped.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_agent::action::{Context, Description, Progress, WorkId};
use lockstep_agent::actions;
use lockstep_agent::host::Host;
use lockstep_api::Code;
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

const ELSEWHERE: &str =
    "[Service]\nExecStart=/bin/sleep infinity\n[Install]\nWantedBy=default.target\n";

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
        self.context_with(&["*"])
    }

    /// A context of an agent whose policy allows these units.
    fn context_with(&self, units: &[&str]) -> Context {
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

    async fn start_units(&self, units: &[&str]) -> Result<(), String> {
        self.execute("service.start", units).await
    }

    async fn stop_units(&self, units: &[&str]) -> Result<(), String> {
        self.execute("service.stop", units).await
    }

    async fn execute(&self, action: &str, units: &[&str]) -> Result<(), String> {
        self.task(action, units, false).await.map(drop)
    }

    /// Probes and executes as the driver does; returns the before-image.
    async fn task(&self, action: &str, units: &[&str], enablement: bool) -> Result<Value, String> {
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

    async fn undo(&self, action: &str, units: &[&str], enablement: bool, before: &Value) {
        let params = params(action, units, enablement);
        let action = actions::find(action).unwrap();
        let undone = action.undo(&self.context(), &params, before).await;
        undone.unwrap();
    }

    async fn describe(&self, action: &str, units: &[&str]) -> Description {
        let params = params(action, units, false);
        let action = actions::find(action).unwrap();
        action.describe(&self.context(), &params).await.unwrap()
    }

    fn systemctl(&self, args: &[&str]) -> String {
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
    fn active<'a>(&self, units: &[&'a str]) -> Vec<&'a str> {
        let active = |unit: &&&str| self.systemctl(&["is-active", unit]).trim() == "active";
        units.iter().filter(active).copied().collect()
    }

    fn units(&self) -> PathBuf {
        self.dir.path().join("config/systemd/user")
    }

    /// All links of enablement, with where they lead.
    fn links(&self) -> BTreeMap<PathBuf, PathBuf> {
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
async fn until(what: impl Fn() -> bool) {
    for _ in 0..200 {
        if what() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    panic!("the condition did not become true");
}

fn params(action: &str, units: &[&str], enablement: bool) -> Value {
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

/// `Type=simple` is the default, so a batch of a timer need not be a oneshot.
#[tokio::test]
async fn a_stopped_timer_waits_for_whatever_it_started() {
    let manager = Manager::start().await;
    manager.start_units(&["batch.timer"]).await.unwrap();
    let batched = manager.dir.path().join("batched");
    manager.stop_units(&["batch.timer"]).await.unwrap();
    assert!(batched.exists(), "the batch still runs");

    // One that doesn't end by itself is found before the run.
    manager.start_units(&["daemon.timer"]).await.unwrap();
    let seen = manager.describe("service.stop", &["daemon.timer"]).await;
    assert!(mentions(&seen.remarks, "waits for its end"), "{seen:?}");
    let stop = actions::find("service.stop").unwrap();
    let hasty = serde_json::json!({ "units": ["daemon.timer"], "timeout_secs": 1 });
    let seen = stop.describe(&manager.context(), &hasty).await.unwrap();
    assert!(mentions(&seen.obstacles, "daemon.service"), "{seen:?}");
    let stopped = stop.execute(&manager.context(), &hasty, None).await;
    assert_eq!(stopped.unwrap_err().code(), Code::LS2103);
    // A retry, and a later phase that relies on the stop, see that it still runs.
    let probe = stop.probe(&manager.context(), &hasty).await.unwrap();
    assert_eq!(probe.finding, Finding::Pending);
    assert!(!stop.in_effect(&manager.context(), &hasty).await.unwrap());
    let both = ["daemon.timer", "daemon.service"];
    let seen = manager.describe("service.stop", &both).await;
    assert_eq!(seen.obstacles, Vec::<String>::new());
    manager.stop_units(&both).await.unwrap();
}

/// Units that go down with orders.service, by all kinds of dependency.
const FAMILY: &[&str] = &[
    "orders.service",
    "worker.service",
    "pump.service",
    "bound.service",
];

fn mentions(sentences: &[String], words: &str) -> bool {
    sentences.iter().any(|sentence| sentence.contains(words))
}

/// systemd refuses to start a socket whose service is active.
#[tokio::test]
async fn a_socket_is_started_before_its_service() {
    let manager = Manager::start().await;
    let pair = ["echo.socket", "echo.service"];
    manager.systemctl(&["start", "echo.socket", "echo.service"]);
    assert_eq!(manager.active(&pair), pair);
    let before = manager.task("service.stop", &pair, false).await.unwrap();
    assert_eq!(manager.active(&pair), Vec::<&str>::new());
    manager.undo("service.stop", &pair, false, &before).await;
    assert_eq!(manager.active(&pair), pair);
    manager.stop_units(&pair).await.unwrap();
    manager.start_units(&pair).await.unwrap();
    assert_eq!(manager.active(&pair), pair);
}

/// A client that connects while the service stops makes a socket that still listens start
/// it again.
#[tokio::test]
async fn a_socket_is_stopped_before_its_service_whatever_their_order() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "echo.socket", "echo.service"]);
    let pair = ["echo.service", "echo.socket"];
    assert_eq!(manager.active(&pair), pair);
    let _client = std::os::unix::net::UnixStream::connect(manager.dir.path().join("echo")).unwrap();
    manager.stop_units(&pair).await.unwrap();
    assert_eq!(manager.active(&pair), Vec::<&str>::new());
}

#[tokio::test]
async fn a_stop_is_undone_for_every_unit_of_its_transaction() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "orders.service", "worker.service", "bound.service"]);
    manager.systemctl(&["start", "helped.service"]);
    let stop = ["orders.service", "helped.service"];
    let seen = manager.describe("service.stop", &stop).await;
    assert!(
        mentions(&seen.would_do, "also stops worker.service"),
        "{seen:?}"
    );
    assert!(
        mentions(&seen.would_do, "also stops bound.service"),
        "{seen:?}"
    );
    assert!(
        mentions(&seen.would_do, "also stops helper.service"),
        "{seen:?}"
    );
    // pump.service was inactive before: it is no part of the change.
    assert!(!mentions(&seen.would_do, "pump.service"), "{seen:?}");
    let before = manager.task("service.stop", &stop, false).await.unwrap();
    let all = [FAMILY, &["helped.service", "helper.service"]].concat();
    assert_eq!(manager.active(&all), Vec::<&str>::new());
    manager.undo("service.stop", &stop, false, &before).await;
    let expected = [
        "orders.service",
        "worker.service",
        "bound.service",
        "helped.service",
        "helper.service",
    ];
    assert_eq!(manager.active(&all), expected);
}

#[tokio::test]
async fn a_start_brings_back_what_the_stop_of_the_same_run_took_down() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "orders.service", "worker.service", "pump.service"]);
    // steady.service was stopped on purpose.
    let units = ["orders.service", "steady.service"];
    manager.stop_units(&units).await.unwrap();
    assert_eq!(manager.active(FAMILY), Vec::<&str>::new());
    manager.start_units(&units).await.unwrap();
    let expected = ["orders.service", "worker.service", "pump.service"];
    assert_eq!(manager.active(FAMILY), expected);
    assert_eq!(manager.active(&["steady.service"]), Vec::<&str>::new());
}

#[tokio::test]
async fn a_unit_outside_of_the_policy_does_not_go_down_with_another() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "worker.service"]);
    let cx = manager.context_with(&["orders.service"]);
    let params = params("service.stop", &["orders.service"], false);
    let stop = actions::find("service.stop").unwrap();
    let seen = stop.describe(&cx, &params).await.unwrap();
    assert!(mentions(&seen.obstacles, "worker.service"), "{seen:?}");
    let error = stop.probe(&cx, &params).await.unwrap_err().report();
    assert!(error.starts_with("LS2109"), "{error}");
}

#[tokio::test]
async fn a_start_is_undone_for_what_conflicts_and_what_it_pulled_in() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "green.service"]);
    let seen = manager.describe("service.start", &["blue.service"]).await;
    assert!(
        mentions(&seen.would_do, "also stops green.service"),
        "{seen:?}"
    );
    assert!(
        mentions(&seen.would_do, "also starts store.service"),
        "{seen:?}"
    );
    let before = manager
        .task("service.start", &["blue.service"], false)
        .await
        .unwrap();
    let all = ["blue.service", "green.service", "store.service"];
    assert_eq!(manager.active(&all), ["blue.service", "store.service"]);
    manager
        .undo("service.start", &["blue.service"], false, &before)
        .await;
    assert_eq!(manager.active(&all), ["green.service"]);
    let both = ["blue.service", "green.service"];
    let seen = manager.describe("service.start", &both).await;
    assert!(mentions(&seen.obstacles, "conflict"), "{seen:?}");
}

#[tokio::test]
async fn a_restart_leaves_every_unit_as_active_as_it_was() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "orders.service", "worker.service"]);
    let units = ["orders.service", "steady.service"];
    let seen = manager.describe("service.restart", &units).await;
    assert!(mentions(&seen.would_do, "worker.service"), "{seen:?}");
    assert!(mentions(&seen.remarks, "steady.service"), "{seen:?}");
    manager.execute("service.restart", &units).await.unwrap();
    let all = [FAMILY, &["steady.service"]].concat();
    assert_eq!(manager.active(&all), ["orders.service", "worker.service"]);
}

#[tokio::test]
async fn a_retry_does_not_run_a_oneshot_again() {
    let manager = Manager::start().await;
    // Started in reverse: the oneshot runs, then the other fails.
    let units = ["bad.service", "twice.service"];
    let params = params("service.start", &units, false);
    let start = actions::find("service.start").unwrap();
    let cx = manager.context();
    let before = start
        .probe(&cx, &params)
        .await
        .unwrap()
        .before_image
        .unwrap();
    for _ in 0..2 {
        let error = start
            .execute(&cx, &params, Some(&before))
            .await
            .unwrap_err();
        assert!(error.report().contains("bad.service"), "{}", error.report());
    }
    let ran = std::fs::read_to_string(manager.dir.path().join("twice")).unwrap();
    assert_eq!(ran, "ran\n");
}

/// systemd starts an upheld unit again as soon as it is down.
#[tokio::test]
async fn what_starts_a_unit_again_is_named_before_the_stop() {
    let manager = Manager::start().await;
    manager.systemctl(&["enable", "vendors.service"]);
    manager.systemctl(&["start", "keeper.service"]);
    let seen = manager.describe("service.stop", &["kept.service"]).await;
    assert!(
        mentions(
            &seen.remarks,
            "keeper.service is active and starts kept.service again"
        ),
        "{seen:?}"
    );
    let stop = actions::find("service.stop").unwrap();
    let disabling = params("service.stop", &["vendors.service"], true);
    let seen = stop.describe(&manager.context(), &disabling).await.unwrap();
    assert!(
        mentions(
            &seen.remarks,
            "disabling vendors.service leaves keeper.service"
        ),
        "{seen:?}"
    );

    let error = manager.stop_units(&["kept.service"]).await.unwrap_err();
    assert!(error.contains("nothing was stopped"), "{error}");
    manager
        .stop_units(&["keeper.service", "kept.service"])
        .await
        .unwrap();
}

/// A batch that failed last night is not run anew when the applications start.
#[tokio::test]
async fn a_oneshot_that_had_failed_is_not_started_after_a_stop() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "steady.service", "bad.service"]);
    let units = ["steady.service", "bad.service"];
    manager.stop_units(&units).await.unwrap();
    manager.start_units(&units).await.unwrap();
    assert_eq!(manager.active(&units), ["steady.service"]);
}

#[tokio::test]
async fn the_links_of_enablement_are_restored_one_by_one() {
    let manager = Manager::start().await;
    let elsewhere = manager.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let file = elsewhere.join("aw.service");
    std::fs::write(&file, ELSEWHERE).unwrap();
    manager.systemctl(&[
        "enable",
        "al.service",
        "maria.service",
        file.to_str().unwrap(),
    ]);
    manager.systemctl(&["enable", "--runtime", "rt.service"]);
    // Links that `enable` would not create: another target, another alias, relative.
    manager.systemctl(&["add-requires", "timers.target", "maria.service"]);
    std::os::unix::fs::symlink("maria.service", manager.units().join("odd.service")).unwrap();
    manager.systemctl(&["disable", "al2.service"]);
    let wants = manager.units().join("timers.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("../al2.service", wants.join("al2.service")).unwrap();
    manager.systemctl(&["daemon-reload"]);
    let units = ["al.service", "maria.service", "aw.service", "rt.service"];
    manager.systemctl(&[&["start"], &units[..]].concat());
    let links = manager.links();

    let before = manager.task("service.stop", &units, true).await.unwrap();
    let enabled = |unit: &&&str| {
        manager
            .systemctl(&["is-enabled", unit])
            .starts_with("enabled")
    };
    assert_eq!(units.iter().filter(enabled).count(), 0);
    manager.undo("service.stop", &units, true, &before).await;
    assert_eq!(manager.links(), links);
    assert_eq!(manager.active(&units), units);

    // A start of the same run restores the same links.
    manager.task("service.stop", &units, true).await.unwrap();
    assert_ne!(manager.links(), links);
    manager.task("service.start", &units, true).await.unwrap();
    assert_eq!(manager.links(), links);
    assert_eq!(manager.active(&units), units);
}

#[tokio::test]
async fn an_undone_start_removes_the_links_it_created() {
    let manager = Manager::start().await;
    let links = manager.links();
    let units = ["al.service", "maria.service"];
    let before = manager.task("service.start", &units, true).await.unwrap();
    assert_eq!(manager.links().len(), links.len() + 4);
    manager.undo("service.start", &units, true, &before).await;
    assert_eq!(manager.links(), links);
}

#[tokio::test]
async fn preflight_names_what_would_fail_during_the_outage() {
    let manager = Manager::start().await;
    manager.systemctl(&[
        "start",
        "slow.service",
        "manual.service",
        "lost.service",
        "nightly.timer",
    ]);
    let file = manager.units().join("dark.service");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/null", &file).unwrap();
    std::fs::remove_file(manager.units().join("lost.service")).unwrap();
    let seen = manager.describe("service.stop", &["lost.service"]).await;
    assert!(
        mentions(&seen.obstacles, "missing"),
        "before a reload: {seen:?}"
    );
    manager.systemctl(&["daemon-reload"]);
    let seen = manager.describe("service.stop", &["lost.service"]).await;
    assert!(
        mentions(&seen.obstacles, "missing"),
        "after a reload: {seen:?}"
    );

    let seen = manager.describe("service.stop", &["slow.service"]).await;
    assert!(
        mentions(&seen.obstacles, "61 s to stop, the step 20 s"),
        "{seen:?}"
    );
    // A default that no unit has set is no reason to refuse.
    manager.systemctl(&["start", "steady.service"]);
    let seen = manager.describe("service.stop", &["steady.service"]).await;
    assert_eq!(seen.obstacles, Vec::<String>::new());
    assert!(
        mentions(&seen.remarks, "90 s to stop, the step 20 s"),
        "{seen:?}"
    );

    let seen = manager.describe("service.stop", &["manual.service"]).await;
    assert!(mentions(&seen.obstacles, "RefuseManualStop"), "{seen:?}");
    let seen = manager.describe("service.start", &["dark.service"]).await;
    assert!(mentions(&seen.obstacles, "masked"), "{seen:?}");
    manager.start_units(&["dark.service"]).await.unwrap_err();
    let seen = manager.describe("service.stop", &["nightly.timer"]).await;
    assert!(mentions(&seen.remarks, "Persistent="), "{seen:?}");
}

#[tokio::test]
async fn a_restarted_bus_is_connected_to_again() {
    let manager = Manager::start().await;
    let cx = manager.context();
    let params = params("service.start", &["steady.service"], false);
    let start = actions::find("service.start").unwrap();
    let before = start
        .probe(&cx, &params)
        .await
        .unwrap()
        .before_image
        .unwrap();
    start.execute(&cx, &params, Some(&before)).await.unwrap();
    let pid = manager.systemctl(&["show", "-P", "MainPID", "dbus.service"]);
    let killed = Command::new("kill").args(["-KILL", pid.trim()]).status();
    assert!(killed.unwrap().success());
    // systemd itself needs some time to come back to the new bus.
    let mut undone = start.undo(&cx, &params, &before).await;
    for _ in 0..50 {
        if undone.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        undone = start.undo(&cx, &params, &before).await;
    }
    undone.unwrap();
    assert_eq!(manager.active(&["steady.service"]), Vec::<&str>::new());
}

/// A unit between two states is neither up nor down: taken for inactive, it would stay
/// down after an undo.
#[tokio::test]
async fn a_unit_that_is_being_restarted_is_up_again_after_an_undo() {
    let manager = Manager::start().await;
    let unit = ["redeployed.service"];
    manager.systemctl(&["start", "redeployed.service"]);
    manager.systemctl(&["restart", "--no-block", "redeployed.service"]);
    let state = || manager.systemctl(&["is-active", "redeployed.service"]);
    until(|| state().trim() == "deactivating").await;
    let before = manager.task("service.stop", &unit, false).await.unwrap();
    assert_eq!(manager.active(&unit), Vec::<&str>::new());
    manager.undo("service.stop", &unit, false, &before).await;
    assert_eq!(manager.active(&unit), unit);
    // A later start of the same run as well.
    manager.systemctl(&["restart", "--no-block", "redeployed.service"]);
    until(|| state().trim() == "deactivating").await;
    manager.stop_units(&unit).await.unwrap();
    manager.start_units(&unit).await.unwrap();
    assert_eq!(manager.active(&unit), unit);
}

#[tokio::test]
async fn a_unit_that_does_not_settle_is_refused() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "closing.service"]);
    manager.systemctl(&["stop", "--no-block", "closing.service"]);
    let state = || manager.systemctl(&["is-active", "closing.service"]);
    until(|| state().trim() == "deactivating").await;
    for action in ["service.stop", "service.start", "service.restart"] {
        let seen = manager.describe(action, &["closing.service"]).await;
        let settle = "closing.service is deactivating";
        assert!(mentions(&seen.obstacles, settle), "{action}: {seen:?}");
    }
    let error = manager.stop_units(&["closing.service"]).await.unwrap_err();
    assert!(error.starts_with("LS2109"), "{error}");
    assert!(error.contains("wait until it has settled"), "{error}");
    std::fs::write(manager.dir.path().join("closed"), "").unwrap();
    until(|| state().trim() == "inactive").await;
    manager.stop_units(&["closing.service"]).await.unwrap();

    manager.systemctl(&["start", "--no-block", "loop.service"]);
    let sub = || manager.systemctl(&["show", "-P", "SubState", "loop.service"]);
    until(|| sub().trim() == "auto-restart").await;
    let seen = manager.describe("service.stop", &["loop.service"]).await;
    assert!(mentions(&seen.obstacles, "auto-restart"), "{seen:?}");
}

/// A batch that was cut off begins at its own time again, not when an undo or a start
/// comes to it.
#[tokio::test]
async fn a_oneshot_that_was_stopped_while_it_ran_is_not_run_again() {
    let manager = Manager::start().await;
    let units = ["steady.service", "night.service"];
    manager.systemctl(&["start", "steady.service"]);
    let night = manager.dir.path().join("night");
    let runs = || std::fs::read_to_string(&night).unwrap_or_default();
    manager.systemctl(&["start", "--no-block", "night.service"]);
    until(|| runs() == "ran\n").await;
    let seen = manager.describe("service.stop", &units).await;
    let cut = "night.service is a oneshot and runs now";
    assert!(mentions(&seen.remarks, cut), "{seen:?}");
    let before = manager.task("service.stop", &units, false).await.unwrap();
    manager.undo("service.stop", &units, false, &before).await;
    assert_eq!(manager.active(&units), ["steady.service"]);
    assert_eq!(runs(), "ran\n");

    manager.systemctl(&["start", "--no-block", "night.service"]);
    until(|| runs() == "ran\nran\n").await;
    manager.stop_units(&units).await.unwrap();
    manager.start_units(&units).await.unwrap();
    assert_eq!(manager.active(&units), ["steady.service"]);
    assert_eq!(runs(), "ran\nran\n");
}

#[tokio::test]
async fn a_stop_by_alias_and_a_start_by_name_are_of_the_same_unit() {
    let manager = Manager::start().await;
    for (alias, unit) in [
        ("o.service", "orders.service"),
        ("s.service", "steady.service"),
    ] {
        std::os::unix::fs::symlink(unit, manager.units().join(alias)).unwrap();
    }
    manager.systemctl(&["daemon-reload"]);
    let aliases = ["o.service", "s.service"];
    let names = ["orders.service", "steady.service"];
    for (stopped, started) in [(aliases, names), (names, aliases)] {
        manager.systemctl(&["start", "orders.service", "worker.service"]);
        manager.stop_units(&stopped).await.unwrap();
        manager.start_units(&started).await.unwrap();
        // steady.service was inactive before the stop.
        let all = ["orders.service", "worker.service", "steady.service"];
        assert_eq!(manager.active(&all), all[..2]);
    }
}

/// systemd stops a socket with Accept=yes and leaves the service of each connection.
#[tokio::test]
async fn a_stopped_socket_waits_for_the_services_of_its_connections() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "lines.socket"]);
    let client = std::os::unix::net::UnixStream::connect(manager.dir.path().join("lines"));
    let client = client.unwrap();
    let served = || manager.systemctl(&["list-units", "--plain", "--no-legend", "lines@*"]);
    until(|| served().contains("running")).await;
    let seen = manager.describe("service.stop", &["lines.socket"]).await;
    assert!(mentions(&seen.remarks, "lines@"), "{seen:?}");
    let stop = actions::find("service.stop").unwrap();
    let hasty = serde_json::json!({ "units": ["lines.socket"], "timeout_secs": 1 });
    let stopped = stop.execute(&manager.context(), &hasty, None).await;
    let error = stopped.unwrap_err();
    assert_eq!(error.code(), Code::LS2103);
    assert!(error.report().contains("lines@"), "{}", error.report());
    assert!(!stop.in_effect(&manager.context(), &hasty).await.unwrap());
    drop(client);
    manager.stop_units(&["lines.socket"]).await.unwrap();
    assert!(!served().contains("running"));
}

#[tokio::test]
async fn what_upholds_a_unit_is_stopped_before_it_whatever_their_order() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "keeper.service"]);
    let units = ["kept.service", "keeper.service"];
    until(|| manager.active(&units) == units).await;
    manager.stop_units(&units).await.unwrap();
    assert_eq!(manager.active(&units), Vec::<&str>::new());
}
