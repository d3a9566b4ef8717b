//! A PostgreSQL cluster of the test's own (TLS, SCRAM, `wal_level=logical`),
//! and an agent's host that has it as a resource.

#![allow(dead_code, reason = "each test program uses its part")]

use lockstep_agent::action::{
    ActionError, AnyAction, Context, Line, Outputs, Progress, Undone, WorkId,
};
use lockstep_agent::actions;
use lockstep_agent::host::Host;
use lockstep_barrier::message::{Finding, Probe};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use serde_json::Value;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::{Arc, Mutex, OnceLock};
use tokio_postgres::config::{ChannelBinding, SslMode};
use tokio_postgres_rustls::MakeRustlsConnect;
use tokio_util::sync::CancellationToken;

pub mod ports;

/// The password of every role; what is special in it must do no harm.
pub const PASSWORD: &str = r"it's \ secret";

/// The run of every test.
pub const RUN: &str = "0190c0de-0000-7000-8000-000000000001";

/// A cluster of the test program's own.
pub struct Cluster {
    bin: PathBuf,
    dir: tempfile::TempDir,
    pub port: u16,
}

fn as_root() -> bool {
    // SAFETY: geteuid(2) takes nothing and always succeeds.
    unsafe { libc::geteuid() == 0 }
}

impl Cluster {
    /// Makes and starts it.
    pub fn start() -> Self {
        let bin = std::env::var_os("LOCKSTEP_PG_BIN").map_or_else(
            || PathBuf::from("/usr/lib/postgresql/15/bin"),
            PathBuf::from,
        );
        assert!(
            bin.join("initdb").exists(),
            "no PostgreSQL programs in {}; install postgresql or set LOCKSTEP_PG_BIN",
            bin.display()
        );
        let dir = tempfile::tempdir().unwrap();
        let port = std::net::TcpListener::bind("127.0.0.1:0")
            .unwrap()
            .local_addr()
            .unwrap()
            .port();
        let cluster = Self { bin, dir, port };
        cluster.write("password", PASSWORD);
        cluster.certify();
        cluster.give_away();
        let (data, password) = (cluster.path("data"), cluster.path("password"));
        cluster.run(
            "initdb",
            &[
                "-D",
                &data,
                "-U",
                "postgres",
                "--pwfile",
                &password,
                "-A",
                "scram-sha-256",
                "-N",
            ],
        );
        for file in ["server.crt", "server.key"] {
            let to = PathBuf::from(&data).join(file);
            cluster.copy(file, &to);
        }
        let hba = "hostssl all all 127.0.0.1/32 scram-sha-256\n";
        std::fs::write(PathBuf::from(&data).join("pg_hba.conf"), hba).unwrap();
        cluster.give_away();
        let options = format!(
            "-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c ssl=on \
             -c wal_level=logical -c fsync=off -c max_prepared_transactions=4 \
             -c max_replication_slots=4 -c autovacuum=off"
        );
        let log = cluster.path("log");
        cluster.run(
            "pg_ctl",
            &["-D", &data, "-w", "-l", &log, "-o", &options, "start"],
        );
        // The server's user must not own the agent's file.
        cluster.write("agent-password", PASSWORD);
        cluster
    }

    /// A file of it.
    pub fn path(&self, name: &str) -> String {
        self.dir.path().join(name).display().to_string()
    }

    fn write(&self, name: &str, text: &str) {
        use std::os::unix::fs::PermissionsExt;
        let path = self.dir.path().join(name);
        std::fs::write(&path, text).unwrap();
        // The agent refuses a password that others may read.
        let mode = if name.ends_with("password") {
            0o600
        } else {
            0o644
        };
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
    }

    fn copy(&self, file: &str, to: &Path) {
        use std::os::unix::fs::PermissionsExt;
        std::fs::copy(self.dir.path().join(file), to).unwrap();
        std::fs::set_permissions(to, std::fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn certify(&self) {
        let ca_key = rcgen::KeyPair::generate().unwrap();
        let mut ca = rcgen::CertificateParams::new(vec![]).unwrap();
        ca.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        let ca_certificate = ca.self_signed(&ca_key).unwrap();
        let issuer = rcgen::Issuer::new(ca, ca_key);
        let key = rcgen::KeyPair::generate().unwrap();
        // No other name: `localhost` must be refused.
        let server = rcgen::CertificateParams::new(vec!["127.0.0.1".into()]).unwrap();
        let certificate = server.signed_by(&key, &issuer).unwrap();
        self.write("ca.crt", &ca_certificate.pem());
        self.write("server.crt", &certificate.pem());
        self.write("server.key", &key.serialize_pem());
    }

    /// PostgreSQL refuses to run as root: its files then belong to `postgres`.
    fn give_away(&self) {
        if as_root() {
            let dir = self.path("");
            let done = Command::new("chown")
                .args(["-R", "postgres", &dir])
                .status();
            assert!(done.unwrap().success());
        }
    }

    fn run(&self, program: &str, arguments: &[&str]) {
        let program = self.bin.join(program);
        let mut command = if as_root() {
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
        // A file, for the server that pg_ctl leaves behind would hold a pipe.
        let log = std::fs::File::create(self.dir.path().join("commands")).unwrap();
        let done = command
            .args(arguments)
            .current_dir("/")
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .status()
            .unwrap();
        let said = std::fs::read_to_string(self.dir.path().join("commands")).unwrap();
        assert!(done.success(), "{arguments:?}: {said}");
    }

    /// A session of a role, with channel binding: the server is who it is.
    pub async fn login(&self, user: &str, database: &str) -> Result<Sql, tokio_postgres::Error> {
        let mut roots = rustls::RootCertStore::empty();
        let ca = CertificateDer::from_pem_file(self.path("ca.crt")).unwrap();
        roots.add(ca).unwrap();
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let tls = rustls::ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .unwrap()
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut config = tokio_postgres::Config::new();
        config
            .host("127.0.0.1")
            .port(self.port)
            .user(user)
            .password(PASSWORD)
            .dbname(database)
            .ssl_mode(SslMode::Require)
            .channel_binding(ChannelBinding::Require);
        let (client, connection) = config.connect(MakeRustlsConnect::new(tls)).await?;
        tokio::spawn(connection);
        Ok(Sql(client))
    }
}

/// A session of the test.
pub struct Sql(pub tokio_postgres::Client);

impl Sql {
    pub async fn run(&self, sql: &str) {
        self.0
            .batch_execute(sql)
            .await
            .unwrap_or_else(|e| panic!("{sql}: {e:?}"));
    }

    /// The first column of the first row, as text.
    pub async fn text(&self, sql: &str) -> String {
        use tokio_postgres::SimpleQueryMessage::Row;
        let answer = self.0.simple_query(sql).await;
        let answer = answer.unwrap_or_else(|e| panic!("{sql}: {e:?}"));
        let first = answer.iter().find_map(|message| match message {
            Row(row) => Some(row.get(0).unwrap_or("").to_owned()),
            _ => None,
        });
        first.unwrap_or_default()
    }
}

/// One cluster for a test program; each test has a database of its own.
fn cluster() -> &'static Cluster {
    static CLUSTER: OnceLock<Cluster> = OnceLock::new();
    static END: std::sync::Once = std::sync::Once::new();
    extern "C" fn stop() {
        let cluster = cluster();
        let data = cluster.path("data");
        cluster.run("pg_ctl", &["-D", &data, "-m", "immediate", "stop"]);
        let _ = std::fs::remove_dir_all(cluster.dir.path());
    }
    let cluster = CLUSTER.get_or_init(Cluster::start);
    // Statics are never dropped; the server must not outlive the tests.
    // SAFETY: the function takes nothing and lives as long as the program.
    END.call_once(|| assert_eq!(unsafe { libc::atexit(stop) }, 0));
    cluster
}

/// A database, the agent's role in it, and the agent's host.
pub struct Site {
    pub cluster: &'static Cluster,
    pub name: String,
    /// The superuser's session in it.
    pub sql: Sql,
    host: Arc<Host>,
    pub notes: Arc<Mutex<Vec<String>>>,
    _state: tempfile::TempDir,
}

impl Site {
    /// A database of that name; `schema` is run in it by its owner, of whose
    /// role the agent's, `NAME_agent`, is a member. `more` goes into
    /// `agent.toml`.
    pub async fn new(name: &str, schema: &str, more: &str) -> Self {
        let cluster = cluster();
        let sql = cluster.login("postgres", "postgres").await.unwrap();
        let password = PASSWORD.replace('\'', "''");
        for statement in [
            format!("CREATE ROLE {name}_owner"),
            format!("CREATE ROLE {name}_agent LOGIN CREATEROLE REPLICATION PASSWORD '{password}'"),
            format!(
                "GRANT {name}_owner, pg_monitor, pg_signal_backend, pg_read_all_data TO {name}_agent"
            ),
            format!("CREATE ROLE {name}_app LOGIN PASSWORD '{password}'"),
            format!("CREATE DATABASE {name} OWNER {name}_owner"),
        ] {
            sql.run(&statement).await;
        }
        let sql = cluster.login("postgres", name).await.unwrap();
        sql.run(&format!("SET ROLE {name}_owner; {schema}; RESET ROLE"))
            .await;
        let state = tempfile::tempdir().unwrap();
        let config = format!(
            "name='pg-1'\ncoordinator='c'\nstate_dir={:?}\n\
             [tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n\
             [postgres.shop]\nhost='127.0.0.1'\nport={}\ndbname='{name}'\nuser='{name}_agent'\n\
             password_file={:?}\nca={:?}\n\
             [postgres.misnamed]\nhost='localhost'\nport={}\ndbname='{name}'\n\
             user='{name}_agent'\npassword_file={:?}\nca={:?}\n{more}",
            state.path(),
            cluster.port,
            cluster.path("agent-password"),
            cluster.path("ca.crt"),
            cluster.port,
            cluster.path("agent-password"),
            cluster.path("ca.crt"),
        );
        Self {
            cluster,
            name: name.to_owned(),
            sql,
            host: Arc::new(Host::new(toml::from_str(&config).unwrap())),
            notes: Arc::default(),
            _state: state,
        }
    }

    pub fn context(&self) -> Context {
        self.context_of(RUN)
    }

    fn context_of(&self, run: &str) -> Context {
        let notes = self.notes.clone();
        Context {
            host: self.host.clone(),
            tag: WorkId {
                run: run.to_owned(),
                step: "step".to_owned(),
                attempt: 1,
                of: None,
            },
            cancel: CancellationToken::new(),
            progress: Progress::to(move |line| {
                if let Line::Note(note) | Line::Effect(note) = line {
                    notes.lock().unwrap().push(note);
                }
            }),
        }
    }

    fn action(name: &str) -> &'static dyn AnyAction {
        actions::find(name).unwrap_or_else(|| panic!("no action {name}"))
    }

    pub async fn try_probe(&self, name: &str, params: &Value) -> Result<Probe, ActionError> {
        Self::action(name).probe(&self.context(), params).await
    }

    pub async fn probe(&self, name: &str, params: &Value) -> Probe {
        self.try_probe(name, params)
            .await
            .unwrap_or_else(|e| panic!("{}", e.report()))
    }

    /// What stands in the way, as a preflight shows it.
    pub async fn obstacles(&self, name: &str, params: &Value) -> Vec<String> {
        let described = Self::action(name).describe(&self.context(), params).await;
        described.map_or_else(|e| vec![e.report()], |description| description.obstacles)
    }

    /// What stands in the way of a task that lacks values of the run.
    pub async fn foreseen(&self, name: &str, params: &Value) -> Vec<String> {
        let foreseen = Self::action(name)
            .describe_unresolved(&self.context(), params)
            .await;
        foreseen.map_or_else(|e| vec![e.report()], |description| description.obstacles)
    }

    /// What a preflight tells without its being an obstacle.
    pub async fn remarks(&self, name: &str, params: &Value) -> Vec<String> {
        let described = Self::action(name).describe(&self.context(), params).await;
        let described = described.unwrap_or_else(|e| panic!("{}", e.report()));
        described.remarks
    }

    pub async fn try_execute(&self, name: &str, params: &Value) -> Result<Outputs, ActionError> {
        Self::action(name)
            .execute(&self.context(), params, None)
            .await
    }

    /// As [`Site::try_execute`], as another run does it.
    pub async fn execute_as(&self, run: &str, name: &str, params: &Value) -> Outputs {
        let done = Self::action(name)
            .execute(&self.context_of(run), params, None)
            .await;
        done.unwrap_or_else(|e| panic!("{}", e.report()))
    }

    /// Probe, execute: what the driver does. The before-image and the outputs.
    pub async fn perform(&self, name: &str, params: &Value) -> (Option<Value>, Outputs) {
        let described = Self::action(name).describe(&self.context(), params).await;
        let described = described.unwrap_or_else(|e| panic!("{}", e.report()));
        assert_eq!(described.obstacles, Vec::<String>::new());
        let probe = self.probe(name, params).await;
        assert_eq!(probe.finding, Finding::Pending, "{name}");
        let done = Self::action(name)
            .execute(&self.context(), params, probe.before_image.as_ref())
            .await;
        let outputs = done.unwrap_or_else(|e| panic!("{}", e.report()));
        (probe.before_image, outputs)
    }

    /// As [`Site::perform`], for an action that finds its own work done.
    pub async fn perform_once(&self, name: &str, params: &Value) -> Option<Value> {
        let (before_image, _) = self.perform(name, params).await;
        let again = self.probe(name, params).await;
        assert_eq!(again.finding, Finding::Satisfied, "{name}");
        before_image
    }

    pub async fn undo(&self, name: &str, params: &Value, before_image: &Value) -> Undone {
        let undone = Self::action(name)
            .undo(&self.context(), params, before_image)
            .await;
        undone.unwrap_or_else(|e| panic!("{}", e.report()))
    }

    /// Undo restores, and a second one finds nothing to do.
    pub async fn undo_once(&self, name: &str, params: &Value, before_image: Option<Value>) {
        let before_image = before_image.unwrap();
        assert_eq!(
            self.undo(name, params, &before_image).await,
            Undone::Restored,
            "{name}"
        );
        assert_eq!(
            self.undo(name, params, &before_image).await,
            Undone::Unchanged,
            "{name}"
        );
    }
}
