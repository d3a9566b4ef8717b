//! An Oracle to act on: the simulator in a process of its own, with an Oracle
//! home whose library the driver loads, and a host configured for it.
//!
//! The driver takes its home from the process's environment, once. Where tests
//! share a process they take turns, each with a fresh database in that home.

use crate::ports::free_port;
use lockstep_agent::action::{
    ActionError, AnyAction, Context, Line, Outputs, Progress, Undone, WorkId,
};
use lockstep_agent::actions;
use lockstep_agent::config::Config;
use lockstep_agent::host::{Host, oracle as session};
use lockstep_barrier::message::{Finding, Probe};
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex, OnceLock};
use std::time::{Duration, Instant};
use tokio_util::sync::CancellationToken;

/// How long a test waits for something that is sure to come.
pub const PATIENCE: Duration = Duration::from_secs(60);

/// The database of every test.
const SCHEMA: &str = r#"
CREATE USER SHOP IDENTIFIED BY shop;
GRANT CONNECT, RESOURCE TO SHOP;
CREATE USER BATCH IDENTIFIED BY batch ACCOUNT LOCK;
GRANT CREATE SESSION TO BATCH;
CREATE USER DMS_USER IDENTIFIED BY dms;
GRANT CREATE SESSION TO DMS_USER;
CREATE USER LOCKSTEP IDENTIFIED BY lockstep;
CREATE SEQUENCE SHOP.ORDERS_SEQ START WITH 1000 INCREMENT BY 1 CACHE 20;
CREATE TABLE SHOP.ORDERS (ID NUMBER(18) PRIMARY KEY, CUSTOMER VARCHAR2(60), AMOUNT NUMBER(12,2),
  CODE CHAR(4), PLACED_AT DATE, SEEN_AT TIMESTAMP(6), TAG RAW(8));
CREATE TABLE SHOP.ORDER_AUDIT (ID NUMBER(18), WHAT VARCHAR2(60));
CREATE TRIGGER SHOP.ORDERS_AUDIT_TRG AFTER INSERT ON SHOP.ORDERS FOR EACH ROW
BEGIN
  INSERT INTO SHOP.ORDER_AUDIT (ID, WHAT) VALUES (:NEW.ID, 'insert');
END;
/
CREATE TRIGGER SHOP."orders upper" BEFORE INSERT ON SHOP.ORDERS FOR EACH ROW
BEGIN
  :NEW.CUSTOMER := UPPER(:NEW.CUSTOMER);
END;
/
CREATE TRIGGER SHOP.ORDERS_OLD_TRG AFTER INSERT ON SHOP.ORDERS FOR EACH ROW
BEGIN
  NULL;
END;
/
ALTER TRIGGER SHOP.ORDERS_OLD_TRG DISABLE;
CREATE TABLE LOCKSTEP.LOCKSTEP_MARKER (RUN_ID VARCHAR2(36), TASK_ID VARCHAR2(200),
  NONCE VARCHAR2(64), SCN NUMBER, WRITTEN_AT DATE, PRIMARY KEY (RUN_ID, TASK_ID, NONCE));
CREATE TABLE LOCKSTEP.LOCKSTEP_CANARY (RUN_ID VARCHAR2(36), TASK_ID VARCHAR2(200),
  NONCE VARCHAR2(64), WRITTEN_AT DATE, PRIMARY KEY (RUN_ID, TASK_ID, NONCE));
ALTER DATABASE ADD SUPPLEMENTAL LOG DATA;
ALTER TABLE LOCKSTEP.LOCKSTEP_MARKER ADD SUPPLEMENTAL LOG DATA (ALL) COLUMNS;
"#;

/// A job that keeps coming back and takes half a minute.
pub const TICKER: &str = r#"
CREATE TABLE SHOP.TICKS (AT TIMESTAMP);
BEGIN
  DBMS_SCHEDULER.CREATE_JOB(job_name => 'SHOP.TICKER', job_type => 'PLSQL_BLOCK',
    job_action => 'BEGIN INSERT INTO SHOP.TICKS VALUES (SYSTIMESTAMP); COMMIT; DBMS_SESSION.SLEEP(30); END;',
    repeat_interval => 'FREQ=SECONDLY;INTERVAL=1', enabled => TRUE);
END;
/
"#;

/// One test at a time in a process.
static TURN: tokio::sync::Mutex<()> = tokio::sync::Mutex::const_new(());

fn home() -> &'static Path {
    static HOME: OnceLock<tempfile::TempDir> = OnceLock::new();
    let made = || {
        let dir = tempfile::tempdir().unwrap();
        for part in ["bin", "lib", "dbs"] {
            std::fs::create_dir(dir.path().join(part)).unwrap();
        }
        let link = |from: PathBuf, to: &str| {
            std::os::unix::fs::symlink(from, dir.path().join(to)).unwrap();
        };
        link(built("libclntsh.so"), "lib/libclntsh.so");
        link(built("lsnrctl"), "bin/lsnrctl");
        link(built("srvctl"), "bin/srvctl");
        link(built("crsctl"), "bin/crsctl");
        dir
    };
    HOME.get_or_init(made).path()
}

/// Something that `cargo build --workspace` makes.
fn built(name: &str) -> PathBuf {
    let tests = std::env::current_exe().unwrap();
    let path = tests.ancestors().nth(2).unwrap().join(name);
    assert!(
        path.exists(),
        "{} is missing: cargo build -p oracle-simulator -p clntsh makes it",
        path.display()
    );
    path
}

/// A database and the host that acts on it.
pub struct Range {
    simulator: Child,
    port: u16,
    /// The second instance's listener.
    pub second_port: u16,
    host: Arc<Host>,
    lines: Arc<Mutex<Vec<Line>>>,
    state: tempfile::TempDir,
    _turn: tokio::sync::MutexGuard<'static, ()>,
}

impl Drop for Range {
    fn drop(&mut self) {
        // It may have died by itself; there is nothing more to do then.
        let _ = self.simulator.kill();
        let _ = self.simulator.wait();
    }
}

impl Range {
    /// A fresh database, with more statements than those of every test.
    pub async fn start(more: &str) -> Self {
        Self::start_as(more, "").await
    }

    /// The same with further lines about the first instance.
    pub async fn start_as(more: &str, instance: &str) -> Self {
        let turn = TURN.lock().await;
        let state = tempfile::tempdir().unwrap();
        let (port, second_port) = (free_port(), free_port());
        let simulator = simulator(state.path(), &[port, second_port], more, instance);
        let config = agent_config(state.path());
        // SAFETY: tests take turns, and nobody else reads the environment.
        unsafe { session::set_environment(&config) };
        Self {
            simulator,
            port,
            second_port,
            host: Arc::new(Host::new(config)),
            lines: Arc::default(),
            state,
            _turn: turn,
        }
    }

    /// A context for one attempt at a step.
    pub fn context(&self) -> Context {
        self.context_of("6f0c3c1e-0000-7000-8000-000000000001")
    }

    /// A context of a step, or of the undo of one.
    pub fn context_at(&self, step: &str, of: Option<&str>) -> Context {
        let mut cx = self.context();
        step.clone_into(&mut cx.tag.step);
        cx.tag.of = of.map(str::to_owned);
        cx
    }

    /// A context in a certain run.
    pub fn context_of(&self, run: &str) -> Context {
        let lines = self.lines.clone();
        Context {
            host: self.host.clone(),
            tag: WorkId {
                run: run.to_owned(),
                step: "step".to_owned(),
                attempt: 1,
                of: None,
            },
            cancel: CancellationToken::new(),
            progress: Progress::to(move |line| lines.lock().unwrap().push(line)),
        }
    }

    /// What actions have said so far.
    pub fn said(&self) -> Vec<String> {
        let lines = self.lines.lock().unwrap();
        lines
            .iter()
            .filter_map(|line| match line {
                Line::Note(line) | Line::Effect(line) => Some(line.clone()),
                Line::Started | Line::Output(_) => None,
            })
            .collect()
    }

    pub async fn probe(&self, name: &str, params: &Value) -> Result<Probe, ActionError> {
        action(name).probe(&self.context(), params).await
    }

    pub async fn finding(&self, name: &str, params: &Value) -> Finding {
        self.probe(name, params).await.unwrap().finding
    }

    pub async fn execute(&self, name: &str, params: &Value) -> Result<Outputs, ActionError> {
        action(name).execute(&self.context(), params, None).await
    }

    pub async fn undo(
        &self,
        name: &str,
        params: &Value,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        action(name)
            .undo(&self.context(), params, before_image)
            .await
    }

    /// One request to the simulator's control socket.
    pub fn control(&self, request: &Value) -> Value {
        let mut stream = UnixStream::connect(home().join("dbs/control.sock")).unwrap();
        writeln!(stream, "{request}").unwrap();
        let mut line = String::new();
        BufReader::new(stream).read_line(&mut line).unwrap();
        let answer: Value = serde_json::from_str(&line).unwrap();
        assert!(answer.get("error").is_none(), "{request}: {answer}");
        answer["ok"].clone()
    }

    /// The state of the database as the simulator sees it.
    pub fn observe(&self) -> Value {
        self.control(&json!({"op": "observe"}))
    }

    /// The part of the state that a cutover changes and a rollback restores.
    pub fn world(&self) -> Value {
        let seen = self.observe();
        let listeners: Vec<Value> = seen["listeners"]
            .as_array()
            .unwrap()
            .iter()
            .map(|one| json!([one["name"], one["running"], one["enabled"]]))
            .collect();
        json!({
            "listeners": listeners,
            "instances": seen["instances"],
            "parameters": seen["parameters"],
            "spfile": seen["spfile"],
            "accounts": seen["accounts"],
            "triggers": seen["triggers"],
        })
    }

    /// Arranges what lies around a listener of the first host.
    pub fn arrange(&self, name: &str, with: &Value) {
        self.control(&json!({"op": "arrange", "name": name, "with": with}));
    }

    /// Makes statements fail that hold a text.
    pub fn inject(&self, statement_contains: &str, ora_code: u32, times: u32) {
        self.control(&json!({"op": "inject", "fault": {
            "statement_contains": statement_contains, "ora_code": ora_code, "times": times,
        }}));
    }

    /// How the tools of the Grid home were run: name, ORACLE_HOME, TNS_ADMIN,
    /// arguments.
    pub fn grid_ran(&self) -> Vec<String> {
        let ran = std::fs::read_to_string(self.state.path().join("grid/ran"));
        ran.unwrap_or_default().lines().map(str::to_owned).collect()
    }

    /// The agent's state directory, in which all else of this test lies, too.
    pub fn directory(&self) -> &Path {
        self.state.path()
    }

    /// Stops the simulator's process, or lets it go on. A stop is in effect on return:
    /// until each of its threads has stopped, one may still answer a login.
    pub fn signal(&self, signal: i32) {
        let pid = i32::try_from(self.simulator.id()).unwrap();
        // SAFETY: a plain system call on a child that isn't waited for yet.
        assert_eq!(unsafe { libc::kill(pid, signal) }, 0);
        let began = Instant::now();
        while signal == libc::SIGSTOP && !has_stopped(pid) {
            assert!(began.elapsed() < PATIENCE, "the simulator doesn't stop");
            std::thread::sleep(Duration::from_millis(1));
        }
    }

    /// Connect string of the first instance's listener.
    pub fn listener(&self) -> String {
        format!("127.0.0.1:{}/ORCL", self.port)
    }

    /// Connect string of the second instance's listener.
    pub fn second_listener(&self) -> String {
        format!("127.0.0.1:{}/ORCL", self.second_port)
    }

    /// SYS by a login of its own, not one that was idle.
    pub async fn fresh_sys(&self) -> session::Session {
        session::Session::anew(&self.context(), "orcl")
            .await
            .unwrap()
    }

    /// SYS, beside the product.
    pub async fn sys(&self) -> session::Session {
        session::Session::open(&self.context(), "orcl")
            .await
            .unwrap()
    }
}

/// The action of that name.
pub fn action(name: &str) -> &'static dyn AnyAction {
    actions::find(name).unwrap()
}

pub fn shop(connect_string: &str) -> oracle::Result<oracle::Connection> {
    oracle::Connection::connect("shop", "shop", connect_string)
}

/// Waits for an event, with a guard.
pub async fn until(what: &str, mut so: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !so() {
        assert!(Instant::now() < deadline, "{what}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Whether every thread of a process is stopped (proc_pid_stat(5), `state`).
fn has_stopped(pid: i32) -> bool {
    let threads = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    threads.flatten().all(|thread| {
        let stat = std::fs::read_to_string(thread.path().join("stat")).unwrap_or_default();
        // The name in parentheses may hold anything.
        let state = stat.rsplit(") ").next().unwrap_or_default();
        state.starts_with('T')
    })
}

/// A Grid home whose tools say how they were run, and a directory with the
/// `listener.ora` of its listeners.
fn grid(state: &Path) -> (PathBuf, PathBuf) {
    let (grid, net) = (state.join("grid"), state.join("net"));
    std::fs::create_dir_all(grid.join("bin")).unwrap();
    std::fs::create_dir_all(&net).unwrap();
    std::fs::write(net.join("listener.ora"), "LISTENER =\n  (ADDRESS = …)\n").unwrap();
    std::os::unix::fs::symlink(home().join("dbs"), grid.join("dbs")).unwrap();
    for tool in ["lsnrctl", "srvctl", "crsctl"] {
        let script = format!(
            "#!/bin/sh\necho {tool} \"$ORACLE_HOME\" \"$TNS_ADMIN\" \"$@\" >> {ran:?}\nexec {double:?} \"$@\"\n",
            ran = grid.join("ran"),
            double = built(tool),
        );
        let path = grid.join("bin").join(tool);
        std::fs::write(&path, script).unwrap();
        let executable = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        std::fs::set_permissions(&path, executable).unwrap();
    }
    (grid, net)
}

fn simulator(state: &Path, ports: &[u16; 2], more: &str, instance: &str) -> Child {
    let home = home();
    // Instance 2 has a home of its own, which no agent of the test uses.
    let other = state.join("ora-2");
    std::fs::create_dir_all(other.join("dbs")).unwrap();
    let init = state.join("init.sql");
    std::fs::write(&init, format!("{SCHEMA}{more}")).unwrap();
    let config = format!(
        r#"
database = "ORCL"
data_dir = {data:?}
init_sql = {init:?}
[[instance]]
name = "ORCL1"
host = "ora-1"
home = {home:?}
{instance}
[[instance.listener]]
name = "LISTENER"
port = {port}
[[instance.listener]]
name = "LISTENER_DMS"
port = {dms}
reserved_for = "dms"
services = ["ORCL"]
static = true
[[instance.listener]]
name = "LISTENER_CRS"
port = {crs}
managed_by = "srvctl"
[[instance.listener]]
name = "LISTENER_SCAN1"
port = {scan}
managed_by = "srvctl"
[[instance]]
name = "ORCL2"
host = "ora-2"
home = {other:?}
[[instance.listener]]
name = "LISTENER"
port = {second}
"#,
        data = state.join("data"),
        port = ports[0],
        dms = free_port(),
        crs = free_port(),
        scan = free_port(),
        second = ports[1],
    );
    let path = state.join("simulator.toml");
    std::fs::write(&path, config).unwrap();
    let mut child = Command::new(built("oracle-simulator"))
        .arg("--config")
        .arg(&path)
        .stdout(Stdio::piped())
        .spawn()
        .unwrap();
    let mut line = String::new();
    BufReader::new(child.stdout.take().unwrap())
        .read_line(&mut line)
        .unwrap();
    assert_eq!(
        line, "oracle-simulator ready\n",
        "the simulator did not start"
    );
    child
}

fn agent_config(state: &Path) -> Config {
    let (grid, net) = grid(state);
    let text = format!(
        r#"
name = "ora-1"
coordinator = "127.0.0.1:1"
state_dir = {state:?}
[tls]
ca = "ca.pem"
cert = "cert.pem"
key = "key.pem"
trust_domain = "example.test"
[policy]
actions = ["oracle.*"]
[oracle.orcl]
home = {home:?}
sid = "ORCL1"
listeners = ["LISTENER", "LISTENER_DMS"]
[oracle.clustered]
home = {home:?}
sid = "ORCL1"
control = "srvctl"
listeners = ["LISTENER_CRS"]
scan_listeners = ["LISTENER_SCAN1"]
[oracle.grid]
home = {home:?}
sid = "ORCL1"
grid_home = {grid:?}
tns_admin = {net:?}
listeners = ["LISTENER", "LISTENER_DMS"]
[oracle.grid_clustered]
home = {home:?}
sid = "ORCL1"
control = "srvctl"
grid_home = {grid:?}
listeners = ["LISTENER_CRS"]
"#,
        home = home(),
    );
    let path = state.join("agent.toml");
    std::fs::write(&path, text).unwrap();
    Config::load(&path).unwrap()
}
