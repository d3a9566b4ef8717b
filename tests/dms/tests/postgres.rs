//! The replicator's PostgreSQL side against a real server: a private cluster with
//! TLS and SCRAM, made for the test and ended with it.
//!
//! It needs PostgreSQL 15's programs (`LOCKSTEP_PG_BIN`, by default Debian's
//! directory); without them the tests say so and do nothing.

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use dms_double::config::{EndpointConfig, EndpointKind, OracleEndpoint, PostgresEndpoint};
use dms_double::replicate::Job;
use dms_double::replicate::apply::Applier;
use dms_double::replicate::change::{Change, Operation, Row, TableName, Transaction};
use dms_double::replicate::connect;
use dms_double::replicate::decoding::{Decoded, decode};
use dms_double::replicate::mapping::TableMapping;
use dms_double::replicate::stream::{LogicalStream, Message, StreamError};
use dms_double::task::faults::FaultSpec;
use dms_double::task::progress::{Progress, TableState};
use dms_double::task::settings::TaskSettings;
use dms_double::task::state::{Definition, MigrationType, StartType};
use tokio::sync::watch;

/// A guard against waiting for ever; no test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

const PASSWORD: &str = "it's a secret";

/// A cluster of its own; stopped and removed when it is dropped.
struct Cluster {
    bin: PathBuf,
    directory: tempfile::TempDir,
    port: u16,
}

impl Cluster {
    fn start() -> Option<Self> {
        let bin = std::env::var_os("LOCKSTEP_PG_BIN").map_or_else(
            || PathBuf::from("/usr/lib/postgresql/15/bin"),
            PathBuf::from,
        );
        if !bin.join("initdb").exists() {
            eprintln!(
                "skipped: no PostgreSQL programs in {} (set LOCKSTEP_PG_BIN)",
                bin.display()
            );
            return None;
        }
        let _ = rustls::crypto::aws_lc_rs::default_provider().install_default();
        let directory = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let cluster = Self {
            bin,
            directory,
            port,
        };
        cluster.write("password", PASSWORD);
        cluster.make_certificate();
        cluster.give_away();
        let data = cluster.path("data");
        cluster.run(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "dms_user",
                "--pwfile",
                &cluster.path("password"),
                "--auth=scram-sha-256",
                "--no-sync",
            ],
        );
        for file in ["server.crt", "server.key"] {
            std::fs::copy(
                cluster.directory.path().join(file),
                PathBuf::from(&data).join(file),
            )
            .unwrap();
        }
        cluster.give_away();
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c ssl=on -c wal_level=logical -c fsync=off"
        );
        std::fs::write(
            PathBuf::from(&data).join("pg_hba.conf"),
            "hostssl all all 127.0.0.1/32 scram-sha-256\nhostssl replication all 127.0.0.1/32 scram-sha-256\n",
        )
        .unwrap();
        cluster.run(
            "pg_ctl",
            &[
                "-D",
                &data,
                "-w",
                "-l",
                &cluster.path("log"),
                "-o",
                &options,
                "start",
            ],
        );
        Some(cluster)
    }

    fn path(&self, name: &str) -> String {
        self.directory.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        std::fs::write(self.directory.path().join(name), text).unwrap();
    }

    fn make_certificate(&self) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        let server =
            rcgen::CertificateParams::new(vec!["127.0.0.1".into(), "localhost".into()]).unwrap();
        let certificate = server.signed_by(&key, &issuer).unwrap();
        self.write("ca.crt", &ca_certificate.pem());
        self.write("server.crt", &certificate.pem());
        self.write("server.key", &key.serialize_pem());
        use std::os::unix::fs::PermissionsExt;
        let private = std::fs::Permissions::from_mode(0o600);
        std::fs::set_permissions(self.path("server.key"), private).unwrap();
    }

    /// PostgreSQL refuses to run as root: its files then belong to `postgres`.
    fn give_away(&self) {
        if is_root() {
            let done = Command::new("chown")
                .args(["-R", "postgres", &self.path("")])
                .status()
                .unwrap();
            assert!(done.success());
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.bin.join(program);
        let mut command = if is_root() {
            let mut command = Command::new("setpriv");
            command
                .args([
                    "--reuid=postgres",
                    "--regid=postgres",
                    "--clear-groups",
                    "--",
                ])
                .arg(program);
            command
        } else {
            Command::new(program)
        };
        // A file, for the server that pg_ctl leaves behind would hold a pipe open.
        let log = std::fs::File::create(self.directory.path().join("commands")).unwrap();
        let done = command
            .args(arguments)
            .current_dir("/")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        let log = std::fs::read_to_string(self.directory.path().join("commands")).unwrap();
        assert!(done.success(), "{arguments:?}: {log}");
    }

    fn endpoint(&self, kind: EndpointKind) -> PostgresEndpoint {
        PostgresEndpoint {
            identifier: "postgres".into(),
            kind,
            host: "127.0.0.1".into(),
            port: self.port,
            dbname: "postgres".into(),
            user: "dms_user".into(),
            password: PASSWORD.into(),
            ca_file: self.directory.path().join("ca.crt"),
            slot_name: None,
            after_connect_script: None,
        }
    }
}

impl Drop for Cluster {
    fn drop(&mut self) {
        self.run(
            "pg_ctl",
            &["-D", &self.path("data"), "-w", "-m", "immediate", "stop"],
        );
    }
}

fn is_root() -> bool {
    let status = std::fs::read_to_string("/proc/self/status").unwrap();
    status.lines().any(|l| l.starts_with("Uid:\t0\t0"))
}

const MAPPINGS: &str = r#"{"rules":[
    {"rule-type":"selection","rule-id":"1","rule-action":"include","object-locator":{"schema-name":"SHOP","table-name":"%"}},
    {"rule-type":"transformation","rule-id":"2","rule-action":"convert-lowercase","rule-target":"schema","object-locator":{"schema-name":"%"}},
    {"rule-type":"transformation","rule-id":"3","rule-action":"convert-lowercase","rule-target":"table","object-locator":{"schema-name":"%","table-name":"%"}},
    {"rule-type":"transformation","rule-id":"4","rule-action":"convert-lowercase","rule-target":"column","object-locator":{"schema-name":"%","table-name":"%","column-name":"%"}}]}"#;

const SCHEMA: &str = "CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id bigint PRIMARY KEY, order_no bigint NOT NULL, note text, raw bytea, placed_at timestamp);
    CREATE TABLE shop.lines (id bigint GENERATED BY DEFAULT AS IDENTITY PRIMARY KEY, order_id bigint REFERENCES shop.orders);
    CREATE TABLE shop.log (text text);";

/// A run of the forward task, without its Oracle side.
struct Forward {
    job: Job,
    applier: Applier,
    _stop: watch::Sender<bool>,
}

impl Forward {
    async fn begin(cluster: &Cluster) -> Self {
        let target = cluster.endpoint(EndpointKind::Target);
        let task = Definition {
            identifier: "forward".into(),
            arn: "arn:aws:dms:eu-central-1:123456789012:task:FORWARD".into(),
            source_arn: String::new(),
            target_arn: String::new(),
            migration_type: MigrationType::Cdc,
            mappings_text: MAPPINGS.into(),
            mappings: TableMapping::parse(MAPPINGS).unwrap(),
            settings: TaskSettings::parse(Some(
                r#"{"ControlTablesSettings":{"StatusTableEnabled":true,"SuspendedTablesTableEnabled":true}}"#,
            ))
            .unwrap(),
            cdc_start_position: None,
            cdc_stop_position: None,
            task_data: None,
        };
        let source = OracleEndpoint {
            identifier: "oracle".into(),
            kind: EndpointKind::Source,
            host: "127.0.0.1".into(),
            port: 1,
            service: "ORCL".into(),
            user: "u".into(),
            password: "p".into(),
        };
        let (stop, asked) = watch::channel(false);
        let job = Job {
            task: Arc::new(task),
            source: Arc::new(EndpointConfig::Oracle(source)),
            target: Arc::new(EndpointConfig::Postgres(target.clone())),
            start: StartType::StartReplication,
            has_run: false,
            progress: Arc::new(Progress::default()),
            stop: asked,
            faults: Arc::default(),
            timing: Arc::default(),
        };
        let client = connect::postgres(&target).await.unwrap();
        client.batch_execute(SCHEMA).await.unwrap();
        let applier = Applier::new(client, Arc::clone(&job.task));
        applier.control().ensure(applier.client()).await.unwrap();
        applier.control().ensure(applier.client()).await.unwrap();
        applier
            .client()
            .batch_execute(&applier.control().begin(100))
            .await
            .unwrap();
        Self {
            job,
            applier,
            _stop: stop,
        }
    }

    async fn apply(&mut self, round: &[Transaction]) {
        for transaction in round {
            self.job
                .progress
                .transaction_read(transaction.changes.len());
        }
        self.applier.apply(&self.job, round).await.unwrap();
    }

    async fn text(&self, query: &str) -> String {
        let row = self.applier.client().query_one(query, &[]).await.unwrap();
        row.get::<_, Option<String>>(0).unwrap_or_default()
    }
}

fn row(values: &[(&str, Option<&str>)]) -> Row {
    values
        .iter()
        .map(|(c, v)| ((*c).to_owned(), v.map(str::to_owned)))
        .collect()
}

fn insert(table: &str, values: &[(&str, Option<&str>)]) -> Change {
    Change {
        table: TableName::new("SHOP", table),
        operation: Operation::Insert,
        before: Row::new(),
        after: row(values),
    }
}

fn transaction(position: u64, changes: Vec<Change>) -> Transaction {
    Transaction {
        position,
        xid: format!("1.2.{position}"),
        changes,
    }
}

#[tokio::test]
async fn transactions_arrive_in_order_with_their_checkpoint() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mut forward = Forward::begin(&cluster).await;
    let order = [
        ("ID", Some("1")),
        ("ORDER_NO", Some("1001")),
        ("NOTE", Some("it's\na \\ note")),
        ("RAW", Some("00FF")),
        ("PLACED_AT", Some("2026-11-23 01:02:03")),
    ];
    let update = Change {
        operation: Operation::Update,
        before: row(&order),
        after: row(&[
            ("ID", Some("1")),
            ("ORDER_NO", Some("1001")),
            ("NOTE", None),
        ]),
        ..insert("ORDERS", &[])
    };
    forward
        .apply(&[
            transaction(
                101,
                vec![
                    insert("ORDERS", &order),
                    insert("LINES", &[("ID", Some("7")), ("ORDER_ID", Some("1"))]),
                ],
            ),
            transaction(
                105,
                vec![insert(
                    "ORDERS",
                    &[("ID", Some("2")), ("ORDER_NO", Some("1002"))],
                )],
            ),
        ])
        .await;
    let raw = "SELECT note || '|' || encode(raw, 'hex') || '|' || placed_at FROM shop.orders WHERE id = 1";
    assert_eq!(
        forward.text(raw).await,
        "it's\na \\ note|00ff|2026-11-23 01:02:03"
    );
    forward.apply(&[transaction(110, vec![update])]).await;
    assert_eq!(
        forward
            .text("SELECT note FROM shop.orders WHERE id = 1")
            .await,
        ""
    );
    assert_eq!(
        forward
            .applier
            .control()
            .read(forward.applier.client())
            .await
            .unwrap(),
        Some(110)
    );
    let snapshot = forward.job.progress.snapshot();
    let orders = &snapshot.tables[&TableName::new("SHOP", "ORDERS")];
    assert_eq!((orders.inserts, orders.updates, orders.deletes), (2, 1, 0));
    assert_eq!(snapshot.pending(), 0);
    let status = forward
        .applier
        .control()
        .status("RUNNING", &snapshot)
        .unwrap();
    forward
        .applier
        .client()
        .batch_execute(&status)
        .await
        .unwrap();
    forward
        .applier
        .client()
        .batch_execute(&status)
        .await
        .unwrap();
    assert_eq!(
        forward
            .text(r#"SELECT "PENDING_CHANGES"::text FROM awsdms_status"#)
            .await,
        "0"
    );
}

#[tokio::test]
async fn what_cannot_be_applied_is_logged_and_the_rest_arrives() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mut forward = Forward::begin(&cluster).await;
    let order = |id| insert("ORDERS", &[("ID", Some(id)), ("ORDER_NO", Some("1"))]);
    forward.apply(&[transaction(101, vec![order("1")])]).await;
    let missing = Change {
        operation: Operation::Update,
        before: row(&[("ID", Some("99")), ("NOTE", None)]),
        after: row(&[("ID", Some("99")), ("NOTE", Some("x"))]),
        ..order("99")
    };
    forward
        .apply(&[
            // A duplicate key, and a row that fits.
            transaction(102, vec![order("1"), order("2")]),
            // An update that meets no row fails nothing.
            transaction(103, vec![missing, order("3")]),
            // A table that does not exist is suspended.
            transaction(
                104,
                vec![insert("NOWHERE", &[("ID", Some("1"))]), order("4")],
            ),
        ])
        .await;
    assert_eq!(
        forward
            .text("SELECT string_agg(id::text, ',' ORDER BY id) FROM shop.orders")
            .await,
        "1,2,3,4"
    );
    let errors = forward
        .text(r#"SELECT string_agg("ERROR", ';' ORDER BY "ERROR") FROM awsdms_apply_exceptions"#)
        .await;
    assert!(
        errors.starts_with("0 rows affected;duplicate key value"),
        "{errors}"
    );
    let snapshot = forward.job.progress.snapshot();
    assert_eq!(snapshot.counters.exceptions, 2);
    assert_eq!(
        snapshot.tables[&TableName::new("SHOP", "NOWHERE")].state,
        TableState::Error
    );
    assert_eq!(
        forward
            .text(r#"SELECT "TABLE_NAME"::text FROM awsdms_suspended_tables"#)
            .await,
        "nowhere"
    );
    assert_eq!(
        forward
            .applier
            .control()
            .read(forward.applier.client())
            .await
            .unwrap(),
        Some(104)
    );
}

#[tokio::test]
async fn faults_hit_single_changes() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mut forward = Forward::begin(&cluster).await;
    let arm = |job: &Job, text: &str| {
        let fault: FaultSpec = serde_json::from_str(text).unwrap();
        job.faults.arm(fault).unwrap();
    };
    let order = |id| insert("ORDERS", &[("ID", Some(id)), ("ORDER_NO", Some("1"))]);
    arm(
        &forward.job,
        r#"{"kind":"apply_error","task":"forward","schema":"SHOP","table":"ORDERS","message":"LOB too large","times":1}"#,
    );
    forward
        .apply(&[transaction(101, vec![order("1"), order("2")])])
        .await;
    assert_eq!(
        forward
            .text(r#"SELECT "ERROR" FROM awsdms_apply_exceptions"#)
            .await,
        "LOB too large"
    );
    arm(
        &forward.job,
        r#"{"kind":"table_suspended","task":"forward","schema":"SHOP","table":"ORDERS","message":"by the range"}"#,
    );
    forward
        .apply(&[
            transaction(102, vec![order("3")]),
            transaction(103, vec![order("4")]),
        ])
        .await;
    assert_eq!(
        forward.text("SELECT count(*)::text FROM shop.orders").await,
        "1"
    );
    let table = &forward.job.progress.snapshot().tables[&TableName::new("SHOP", "ORDERS")];
    assert_eq!(
        (table.skipped, table.suspended_because.as_deref()),
        (2, Some("by the range"))
    );
}

/// The rows of the next committed transaction, and the position after it.
async fn next_transaction(stream: &mut LogicalStream) -> (u64, Vec<Change>) {
    let mut changes = Vec::new();
    let reading = async {
        loop {
            if let Message::Data { lsn, text } = stream.next().await.unwrap() {
                match decode(&text).unwrap() {
                    Decoded::Change(change) => changes.push(change),
                    Decoded::Commit => return (lsn, changes),
                    _ => {}
                }
            }
        }
    };
    tokio::time::timeout(PATIENCE, reading).await.unwrap()
}

#[tokio::test]
async fn the_stream_holds_its_slot_and_confirms_only_what_is_told() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let endpoint = cluster.endpoint(EndpointKind::Source);
    let client = connect::postgres(&endpoint).await.unwrap();
    client.batch_execute(SCHEMA).await.unwrap();
    client
        .query_one(
            "SELECT pg_create_logical_replication_slot('way_back', 'test_decoding')::text",
            &[],
        )
        .await
        .unwrap();
    let mut stream = LogicalStream::start(&endpoint, "way_back", 0)
        .await
        .unwrap();
    let active = "SELECT active FROM pg_replication_slots WHERE slot_name = 'way_back'";
    assert!(
        client
            .query_one(active, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
    );

    client
        .batch_execute(
            "BEGIN; INSERT INTO shop.orders VALUES (1, 1001, E'it''s\nnew', '\\x00ff', '2026-11-23 01:02:03');
             UPDATE shop.orders SET id = 2; DELETE FROM shop.orders; INSERT INTO shop.log VALUES ('x'); COMMIT;
             INSERT INTO shop.orders VALUES (3, 1003)",
        )
        .await
        .unwrap();
    let (first, changes) = next_transaction(&mut stream).await;
    let operations: Vec<_> = changes.iter().map(|c| c.operation).collect();
    assert_eq!(
        operations,
        [
            Operation::Insert,
            Operation::Update,
            Operation::Delete,
            Operation::Insert
        ]
    );
    let expected: BTreeMap<_, _> = row(&[
        ("id", Some("1")),
        ("order_no", Some("1001")),
        ("note", Some("it's\nnew")),
        ("raw", Some("\\x00ff")),
        ("placed_at", Some("2026-11-23 01:02:03")),
    ]);
    assert_eq!(changes[0].after, expected);
    let (second, _) = next_transaction(&mut stream).await;
    assert!(second > first);

    // Confirmed to the first only: a new stream begins with the second.
    stream.confirm(first).await.unwrap();
    stream.close().await;
    let free = async {
        while client
            .query_one(active, &[])
            .await
            .unwrap()
            .get::<_, bool>(0)
        {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(PATIENCE, free).await.unwrap();
    let mut stream = LogicalStream::start(&endpoint, "way_back", 0)
        .await
        .unwrap();
    let (again, changes) = next_transaction(&mut stream).await;
    assert_eq!(again, second);
    assert_eq!(changes[0].after["id"].as_deref(), Some("3"));
    stream.close().await;
}

#[tokio::test]
async fn a_stream_that_cannot_be_had_says_why() {
    let Some(cluster) = Cluster::start() else {
        return;
    };
    let mut endpoint = cluster.endpoint(EndpointKind::Source);
    let missing = LogicalStream::start(&endpoint, "nowhere", 0)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&missing, StreamError::Refused { code, .. } if code == "42704"),
        "{missing}"
    );
    assert!(missing.is_fatal());
    endpoint.password = "wrong".into();
    let denied = LogicalStream::start(&endpoint, "nowhere", 0)
        .await
        .err()
        .unwrap();
    assert!(
        matches!(&denied, StreamError::Refused { code, .. } if code == "28P01"),
        "{denied}"
    );
    let tested = connect::test(&EndpointConfig::Postgres(endpoint.clone()))
        .await
        .unwrap_err();
    assert!(
        tested.contains("28P01") && !tested.contains("wrong"),
        "{tested}"
    );
    endpoint.password = PASSWORD.into();
    connect::test(&EndpointConfig::Postgres(endpoint))
        .await
        .unwrap();
}
