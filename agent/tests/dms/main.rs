//! The actions on DMS and CloudWatch against the double of both, which moves
//! rows between a simulated Oracle and a real PostgreSQL.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_agent::action::Undone;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

mod drain;
mod forward_task;
mod reverse_task;
#[path = "../site/mod.rs"]
mod site;
use site::ports::free_port;
use site::{PASSWORD, Site};

/// A guard against waiting for ever; no test waits for it.
const PATIENCE: Duration = Duration::from_secs(40);

const ORACLE: &str = "
CREATE USER SHOP IDENTIFIED BY secret;
CREATE USER LOCKSTEP IDENTIFIED BY secret;
CREATE USER DMS_USER IDENTIFIED BY secret;
GRANT DBA TO DMS_USER;
CREATE TABLE SHOP.ORDERS (ID NUMBER(18) PRIMARY KEY, CUSTOMER VARCHAR2(60));
CREATE TABLE LOCKSTEP.CANARY (RUN_ID VARCHAR2(36), TASK_ID VARCHAR2(200), NONCE VARCHAR2(64), WRITTEN_AT DATE, CONSTRAINT CANARY_PK PRIMARY KEY (RUN_ID, TASK_ID, NONCE));
INSERT INTO SHOP.ORDERS VALUES (1, 'first');
COMMIT;
";

const POSTGRES: &str = "CREATE SCHEMA shop; CREATE SCHEMA lockstep;
    CREATE TABLE shop.orders (id numeric(18) PRIMARY KEY, customer varchar(60));
    CREATE TABLE lockstep.canary (run_id varchar(36), task_id varchar(200), nonce varchar(64),
        written_at timestamp(0), PRIMARY KEY (run_id, task_id, nonce))";

/// The target's sessions are those of a replica, said in the older form.
const REPLICA: &str = "extra_connection_attributes = \
    \"executeTimeout=90;afterConnectScript=SET session_replication_role='replica'\"\n";

/// A program of the range, ended with the test.
struct Program(Child);

impl Program {
    fn start(name: &str, config: &Path, log: &Path) -> Self {
        let program = programs().join(name);
        assert!(
            program.exists(),
            "{} is missing: cargo build -p dms-double -p oracle-simulator -p clntsh",
            program.display()
        );
        let log = std::fs::File::create(log).unwrap();
        let child = Command::new(program)
            .arg("--config")
            .arg(config)
            .stdout(Stdio::null())
            .stderr(log)
            .spawn();
        Self(child.unwrap())
    }
}

impl Drop for Program {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Where the workspace's programs are built.
fn programs() -> PathBuf {
    let here = PathBuf::from(env!("CARGO_BIN_EXE_lockstep-agent"));
    here.parent().unwrap().to_owned()
}

async fn eventually<T>(what: &str, mut look: impl AsyncFnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look().await {
            return found;
        }
        assert!(begun.elapsed() < PATIENCE, "{what} never came");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Both databases, the double between them, and the agent's host.
struct Range {
    site: Site,
    port: u16,
    arns: Value,
    _programs: [Program; 2],
    _dir: tempfile::TempDir,
}

impl Range {
    async fn start(name: &str) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let (port, oracle_port) = (free_port(), free_port());
        for (file, text) in [("id", "test"), ("secret", "test")] {
            use std::os::unix::fs::PermissionsExt;
            let path = dir.path().join(file);
            std::fs::write(&path, text).unwrap();
            std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        }
        let more = format!(
            "[aws.dms]\nregion='eu-central-1'\nendpoint_url='http://127.0.0.1:{port}'\n\
             access_key_id_file={:?}\nsecret_access_key_file={:?}\n",
            dir.path().join("id"),
            dir.path().join("secret"),
        );
        let site = Site::new(name, POSTGRES, &more).await;
        site.sql
            .run(&format!("ALTER ROLE {name}_app SUPERUSER REPLICATION"))
            .await;
        let oracle = oracle(dir.path(), oracle_port);
        let double = double(&site, dir.path(), port, oracle_port);
        let mut range = Self {
            site,
            port,
            arns: Value::Null,
            _programs: [oracle, double],
            _dir: dir,
        };
        let arns = eventually("the double", async || {
            range.try_control("GET", "/control/endpoints", "").ok()
        });
        range.arns = arns.await;
        let (ready, forward) = (range.ready(), range.forward(30));
        eventually("a healthy forward task", async || {
            range.site.try_probe("dms.task.ready", &ready).await.ok()?;
            let obstacles = range.site.obstacles("dms.task.drain", &forward).await;
            obstacles.is_empty().then_some(())
        })
        .await;
        range
    }

    fn try_control(&self, method: &str, path: &str, body: &str) -> Result<Value, String> {
        let mut stream =
            TcpStream::connect((Ipv4Addr::LOCALHOST, self.port)).map_err(|e| e.to_string())?;
        let request = format!(
            "{method} {path} HTTP/1.0\r\nHost: x\r\nContent-Type: application/json\r\n\
             Content-Length: {}\r\n\r\n{body}",
            body.len()
        );
        stream
            .write_all(request.as_bytes())
            .map_err(|e| e.to_string())?;
        let mut answer = String::new();
        stream
            .read_to_string(&mut answer)
            .map_err(|e| e.to_string())?;
        let (head, text) = answer.split_once("\r\n\r\n").ok_or("no HTTP answer")?;
        if !head.contains(" 2") {
            return Err(answer);
        }
        Ok(serde_json::from_str(text).unwrap_or(Value::Null))
    }

    fn control(&self, method: &str, path: &str, body: &Value) -> Value {
        let body = if body.is_null() {
            String::new()
        } else {
            body.to_string()
        };
        self.try_control(method, path, &body).unwrap()
    }

    fn fault(&self, fault: Value) {
        self.control("POST", "/control/faults", &fault);
    }

    fn tasks(&self) -> Vec<Value> {
        let tasks = self.control("GET", "/control/tasks", &Value::Null);
        tasks.as_array().unwrap().clone()
    }

    fn task(&self, identifier: &str) -> Option<Value> {
        self.tasks()
            .into_iter()
            .find(|task| task["identifier"] == identifier)
    }

    /// How often an operation was called.
    fn calls(&self, operation: &str) -> usize {
        let log = self.control("GET", "/control/calls", &Value::Null);
        let calls = log["calls"].as_array().unwrap().iter();
        calls.filter(|call| call["operation"] == operation).count()
    }

    fn starts(&self) -> Vec<Value> {
        let log = self.control("GET", "/control/calls", &Value::Null);
        let calls = log["calls"].as_array().unwrap().iter();
        calls
            .filter(|call| call["operation"] == "StartReplicationTask")
            .map(|call| call["parameters"]["StartReplicationTaskType"].clone())
            .collect()
    }

    fn endpoint(&self, name: &str) -> Value {
        self.arns["endpoints"][name].clone()
    }

    /// Parameters of `dms.task.ready`.
    fn ready(&self) -> Value {
        let arn = self.task("forward").unwrap()["arn"].clone();
        json!({"resource": "dms", "task": arn})
    }

    /// Parameters of `dms.task.drain` and `dms.task.stop`.
    fn forward(&self, timeout_secs: u64) -> Value {
        let mut params = self.ready();
        params["timeout_secs"] = json!(timeout_secs);
        params
    }

    /// Parameters of `dms.task.resume`.
    fn resume(&self) -> Value {
        let mut params = self.forward(30);
        params["reverse"] = json!("reverse");
        params
    }

    fn reverse(&self) -> Value {
        let select = |id: u32, schema: &str, table: &str| {
            json!({"rule-type": "selection", "rule-id": id.to_string(), "rule-name": id.to_string(),
                "rule-action": "include", "filters": [],
                "object-locator": {"schema-name": schema, "table-name": table}})
        };
        let upper = |id: u32, target: &str| {
            json!({"rule-type": "transformation", "rule-id": id.to_string(),
                "rule-name": id.to_string(), "rule-target": target,
                "rule-action": "convert-uppercase", "object-locator":
                {"schema-name": "%", "table-name": "%", "column-name": "%"}})
        };
        json!({"resource": "dms", "identifier": "reverse", "instance": self.arns["instance_arn"],
            "source_endpoint": self.endpoint("postgres-source"),
            "target_endpoint": self.endpoint("oracle-target"), "timeout_secs": 30,
            "table_mappings": {"rules": [select(1, "shop", "%"), select(2, "lockstep", "canary"),
                upper(3, "schema"), upper(4, "table"), upper(5, "column")]}})
    }
}

fn oracle(dir: &Path, port: u16) -> Program {
    let home = dir.join("home");
    std::fs::create_dir_all(home.join("dbs")).unwrap();
    std::fs::create_dir_all(dir.join("data")).unwrap();
    std::fs::write(dir.join("init.sql"), ORACLE).unwrap();
    let config = dir.join("simulator.toml");
    let text = format!(
        "database = \"ORCL\"\ndata_dir = {:?}\ninit_sql = {:?}\n[[instance]]\nname = \"ORCL1\"\n\
         host = \"ora-1\"\nhome = {home:?}\n[[instance.listener]]\nname = \"LISTENER_DMS\"\n\
         port = {port}\nreserved_for = \"dms\"\nservices = [\"ORCL\"]\nstatic = true\n",
        dir.join("data"),
        dir.join("init.sql"),
    );
    std::fs::write(&config, text).unwrap();
    Program::start("oracle-simulator", &config, &dir.join("oracle.log"))
}

fn double(site: &Site, dir: &Path, port: u16, oracle_port: u16) -> Program {
    let mut text = format!(
        "listen = \"127.0.0.1:{port}\"\noracle_lib_dir = {:?}\n",
        programs()
    );
    text += "[timing]\ncreating_ms = 50\nstarting_ms = 50\nstopping_ms = 50\ndeleting_ms = 50\n\
             testing_ms = 50\nmetrics_ms = 200\n";
    // Kind, name, and settings of the Oracle and of the PostgreSQL endpoint.
    let none = "capture_ddls = false\n";
    for (kind, name, oracle, postgres) in [
        (
            "source",
            "source",
            "",
            "extra_connection_attributes = \"captureDDLs=N\"\n",
        ),
        ("target", "target", "", REPLICA),
        // A slot of the customer's own, in both forms.
        (
            "source",
            "slot",
            "",
            "capture_ddls = false\nslot_name = \"way_back\"\n",
        ),
        (
            "source",
            "attribute",
            "use_logminer_reader = false\n",
            "extra_connection_attributes = \"captureddls = n; SLOTNAME='way_back';\"\n",
        ),
        (
            "source",
            "ddl",
            "",
            "extra_connection_attributes = \"captureDDLs=Y\"\n",
        ),
        ("source", "silent", "", ""),
        (
            "target",
            "escape",
            "extra_connection_attributes = \"escapeCharacter=#\"\n",
            none,
        ),
    ] {
        text += &format!(
            "[[endpoint]]\nengine = \"oracle\"\nidentifier = \"oracle-{name}\"\ntype = {kind:?}\n\
             host = \"127.0.0.1\"\nport = {oracle_port}\nservice = \"ORCL\"\nuser = \"DMS_USER\"\n\
             password = \"secret\"\n{oracle}\
             [[endpoint]]\nengine = \"postgres\"\nidentifier = \"postgres-{name}\"\n\
             type = {kind:?}\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"{}\"\n\
             user = \"{}_app\"\npassword = {PASSWORD:?}\nca_file = {:?}\n{postgres}",
            site.cluster.port,
            site.name,
            site.name,
            site.cluster.path("ca.crt"),
        );
    }
    let mappings = r#"{"rules":[{"rule-type":"selection","rule-id":"1","rule-name":"1","rule-action":"include","object-locator":{"schema-name":"SHOP","table-name":"%"}},
        {"rule-type":"transformation","rule-id":"2","rule-name":"2","rule-action":"convert-lowercase","rule-target":"schema","object-locator":{"schema-name":"%"}},
        {"rule-type":"transformation","rule-id":"3","rule-name":"3","rule-action":"convert-lowercase","rule-target":"table","object-locator":{"schema-name":"%","table-name":"%"}},
        {"rule-type":"transformation","rule-id":"4","rule-name":"4","rule-action":"convert-lowercase","rule-target":"column","object-locator":{"schema-name":"%","table-name":"%","column-name":"%"}}]}"#;
    text += &format!(
        "[[task]]\nidentifier = \"forward\"\nsource = \"oracle-source\"\n\
         target = \"postgres-target\"\nmigration_type = \"full-load-and-cdc\"\n\
         table_mappings = '''{mappings}'''\nrunning = true\n"
    );
    let config = dir.join("dms.toml");
    std::fs::write(&config, text).unwrap();
    Program::start("dms-double", &config, &dir.join("dms.log"))
}

#[tokio::test]
async fn the_forward_task_is_drained_stopped_and_resumed_never_reloaded() {
    let range = Range::start("forward").await;
    let (site, task) = (&range.site, range.forward(30));
    let (_, outputs) = site.perform("dms.task.ready", &range.ready()).await;
    let checkpoint = outputs["checkpoint"].as_str().unwrap();
    assert!(checkpoint.starts_with("checkpoint:V1#"), "{checkpoint}");
    site.perform("dms.task.drain", &task).await;
    let (_, outputs) = site.perform("dms.task.stop", &task).await;
    assert_eq!(outputs["stop_reason"], "Stop Reason NORMAL");
    assert_eq!(
        site.probe("dms.task.stop", &task).await.finding,
        Finding::Satisfied
    );
    let error = site.try_probe("dms.task.drain", &task).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2413, "{}", error.report());
    site.perform_once("dms.task.resume", &range.resume()).await;
    site.try_execute("dms.task.stop", &task).await.unwrap();
    site.perform_once("dms.task.resume", &range.resume()).await;
    let starts = range.starts();
    assert_eq!(starts, ["resume-processing", "resume-processing"]);
}

#[tokio::test]
async fn the_way_back_is_started_proved_and_taken_back() {
    let range = Range::start("way").await;
    let (site, forward, create) = (&range.site, range.forward(30), range.reverse());
    site.perform("dms.task.stop", &forward).await;
    let (created, outputs) = site.perform("dms.reverse.create", &create).await;
    let start = json!({"resource": "dms", "postgres": "shop", "task": outputs["task"],
        "timeout_secs": 30});
    let (started, outputs) = site.perform("dms.reverse.start", &start).await;
    let slots = "SELECT count(*) FILTER (WHERE active) || ' of ' || count(*) FROM pg_replication_slots \
                 WHERE database = current_database()";
    assert_eq!(site.sql.text(slots).await, "1 of 1");
    assert!(
        outputs["slot"].as_str().unwrap().starts_with("reverse_"),
        "{outputs:?}"
    );

    let canary = json!({"resource": "shop", "canary_table": "lockstep.canary"});
    site.perform("postgres.canary.write", &canary).await;
    eventually("the canary", async || {
        let task = range.task("reverse")?;
        task["progress"]["counters"]["transactions_applied"]
            .as_u64()
            .filter(|n| *n > 0)
    })
    .await;

    // Both ways at once would be a circle.
    let circle = site
        .try_execute("dms.task.resume", &range.resume())
        .await
        .unwrap_err();
    assert_eq!(circle.code(), Code::LS2418, "{}", circle.report());
    assert_eq!(range.task("forward").unwrap()["status"], "stopped");

    // The canary alone doesn't stand in the way back.
    site.undo_once("dms.reverse.start", &start, started).await;
    assert_eq!(site.sql.text(slots).await, "0 of 0");
    site.undo_once("dms.reverse.create", &create, created).await;
    assert!(range.task("reverse").is_none());
    site.perform_once("dms.task.resume", &range.resume()).await;
}

#[tokio::test]
async fn what_was_applied_to_oracle_is_not_taken_back_but_named() {
    let range = Range::start("applied").await;
    let (site, create) = (&range.site, range.reverse());
    site.perform("dms.task.stop", &range.forward(30)).await;
    let (_, outputs) = site.perform("dms.reverse.create", &create).await;
    let start = json!({"resource": "dms", "postgres": "shop", "task": outputs["task"],
        "timeout_secs": 30});
    let (before_image, _) = site.perform("dms.reverse.start", &start).await;
    site.sql
        .run("INSERT INTO shop.orders VALUES (2, 'second')")
        .await;
    let drifted = eventually("the foreign change", async || {
        let applied = range.task("reverse")?["progress"]["counters"]["transactions_applied"]
            .as_u64()
            .filter(|n| *n > 0)?;
        Some(applied)
    });
    drifted.await;
    let undone = site
        .undo("dms.reverse.start", &start, &before_image.unwrap())
        .await;
    let Undone::Drifted(why) = undone else {
        panic!("{undone:?}")
    };
    assert!(why.contains("shop.orders"), "{why}");
    assert_eq!(range.task("reverse").unwrap()["status"], "running");

    let delete = json!({"resource": "dms", "postgres": "shop", "task": start["task"],
        "timeout_secs": 30});
    site.perform_once("dms.reverse.delete", &delete).await;
    assert!(range.task("reverse").is_none());
}

#[tokio::test]
async fn connections_are_tested_from_the_instance() {
    let range = Range::start("connections").await;
    let test = json!({"resource": "dms", "instance": range.arns["instance_arn"], "timeout_secs": 20,
        "endpoints": [range.endpoint("oracle-source"), range.endpoint("postgres-target")]});
    range.site.perform("dms.connection.test", &test).await;
    range.fault(
        json!({"kind": "connection_refused", "endpoint": "postgres-target",
        "message": "no route"}),
    );
    let error = range
        .site
        .try_execute("dms.connection.test", &test)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2419);
    assert!(error.report().contains("no route"), "{}", error.report());
}

#[tokio::test]
async fn what_aws_refuses_is_told_and_throttling_is_ridden_out() {
    let range = Range::start("refusals").await;
    let (site, task) = (&range.site, range.forward(2));
    range.fault(json!({"kind": "throttling", "operation": "DescribeReplicationTasks", "times": 2}));
    site.probe("dms.task.ready", &range.ready()).await;
    range.fault(json!({"kind": "access_denied", "operation": "StopReplicationTask", "times": 1}));
    let denied = site.try_execute("dms.task.stop", &task).await.unwrap_err();
    assert_eq!(denied.code(), Code::LS2402);
    assert!(
        denied.report().contains("allow dms:StopReplicationTask"),
        "{}",
        denied.report()
    );

    range.fault(json!({"kind": "stop_hangs", "task": "forward"}));
    let hangs = site.try_execute("dms.task.stop", &task).await.unwrap_err();
    assert_eq!(hangs.code(), Code::LS2412, "{}", hangs.report());
    range.control("DELETE", "/control/faults", &Value::Null);
    site.try_execute("dms.task.stop", &range.forward(30))
        .await
        .unwrap();

    let unknown =
        json!({"resource": "dms", "task": "arn:aws:dms:eu-central-1:123456789012:task:NONE"});
    let error = site
        .try_probe("dms.task.ready", &unknown)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2405, "{}", error.report());
    let other = json!({"resource": "dms", "task": "arn:aws:dms:x:1:replication-config:A"});
    assert_eq!(
        site.try_probe("dms.task.ready", &other)
            .await
            .unwrap_err()
            .code(),
        Code::LS2410
    );
}

#[tokio::test]
async fn a_task_that_has_failed_is_neither_ready_nor_well_stopped() {
    let range = Range::start("failed").await;
    let (site, task) = (&range.site, range.forward(30));
    range.fault(json!({"kind": "task_failed", "task": "forward", "message": "disk full"}));
    eventually("the failure", async || {
        (range.task("forward")?["status"] == "failed").then_some(())
    })
    .await;
    let error = site
        .try_probe("dms.task.ready", &range.ready())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2415);
    assert!(error.report().contains("disk full"), "{}", error.report());
    assert_eq!(
        site.try_probe("dms.task.stop", &task)
            .await
            .unwrap_err()
            .code(),
        Code::LS2417
    );
}

#[tokio::test]
async fn alarms_are_put_and_put_back() {
    let range = Range::start("alarms").await;
    let site = &range.site;
    let alarms = |thresholds: [(&str, f64); 2]| {
        let alarms: Vec<Value> = thresholds
            .iter()
            .map(|(name, threshold)| {
                json!({"name": name, "namespace": "AWS/RDS", "metric": "TransactionLogsDiskUsage",
                    "dimensions": {"DBInstanceIdentifier": "shop"}, "statistic": "Maximum",
                    "period_secs": 60, "periods": 5, "comparison": "GreaterThanThreshold",
                    "threshold": threshold, "actions": [], "missing_data": "breaching"})
            })
            .collect();
        json!({"resource": "dms", "alarms": alarms})
    };
    let old = alarms([("wal", 1.0), ("lag", 1.0)]);
    let one = json!({"resource": "dms", "alarms": [old["alarms"][0]]});
    site.perform_once("cloudwatch.alarms.put", &one).await;
    let new = alarms([("wal", 2.0), ("lag", 2.0)]);
    let before_image = site.perform_once("cloudwatch.alarms.put", &new).await;
    site.undo_once("cloudwatch.alarms.put", &new, before_image)
        .await;
    assert_eq!(
        site.probe("cloudwatch.alarms.put", &one).await.finding,
        Finding::Satisfied
    );
    assert_eq!(
        site.probe("cloudwatch.alarms.put", &old).await.finding,
        Finding::Pending
    );

    let before_image = site
        .perform_once("cloudwatch.alarms.put", &new)
        .await
        .unwrap();
    site.perform_once(
        "cloudwatch.alarms.put",
        &alarms([("wal", 3.0), ("lag", 2.0)]),
    )
    .await;
    let undone = site
        .undo("cloudwatch.alarms.put", &new, &before_image)
        .await;
    assert!(matches!(undone, Undone::Drifted(_)), "{undone:?}");
}
