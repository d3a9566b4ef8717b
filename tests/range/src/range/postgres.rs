//! The range's PostgreSQL: a real server, a cluster of its own, TLS and
//! SCRAM for everyone who comes over TCP, `wal_level=logical`.
//!
//! The range itself comes in over the Unix socket, which only it and the
//! server's user can reach; the product never does.

use super::cgroup::Group;
use super::error::Error;
use super::layout::{Layout, ports};
use super::process::{self, Launch, Process};
use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A first start replays nothing and takes a second or two.
const START_LIMIT: Duration = Duration::from_secs(60);

const SCHEMA: &str = include_str!("sql/postgres.sql");

/// Where the cluster goes when its user can't enter the checkout.
const ELSEWHERE: &str = "/var/tmp/lockstep-range-postgres";

/// The newest installed server's programs.
#[must_use]
pub fn programs() -> Option<PathBuf> {
    (14..=18)
        .rev()
        .map(|version| PathBuf::from(format!("/usr/lib/postgresql/{version}/bin")))
        .find(|dir| dir.join("postgres").exists())
}

/// PostgreSQL refuses to run as root.
fn user() -> Option<&'static str> {
    // SAFETY: geteuid(2) takes nothing and always succeeds.
    (unsafe { libc::geteuid() } == 0).then_some("postgres")
}

/// The running server, as the range uses it.
#[derive(Debug, Clone)]
pub struct Postgres {
    socket_dir: PathBuf,
    bin: PathBuf,
    /// PEM of the CA that signed the server's certificate.
    pub ca: PathBuf,
}

impl Postgres {
    /// Makes the cluster, starts the server and creates schema and roles.
    ///
    /// # Errors
    /// When one of PostgreSQL's programs fails; its output is in the error.
    pub fn start(
        layout: &Layout,
        group: &Group,
        passwords: &BTreeMap<&str, String>,
    ) -> Result<(Self, Process), Error> {
        let bin = programs().unwrap_or_default();
        let home = make_home(layout)?;
        let data = home.join("data");
        as_server(&bin.join("initdb"), "create the PostgreSQL cluster")
            .args([
                "--auth=trust",
                "--username=postgres",
                "--encoding=UTF8",
                "--locale=C.UTF-8",
            ])
            .arg("--pgdata")
            .arg(&data)
            .run()?;
        configure(&home, &data)?;
        let ca = layout.root.join("postgres-ca.pem");
        std::fs::copy(home.join("ca.pem"), &ca).map_err(Error::file("write", &ca))?;
        let launch = Launch::new(
            "postgres",
            "pg-1",
            [
                bin.join("postgres").display().to_string(),
                "-D".into(),
                data.display().to_string(),
            ],
            layout.log("postgres"),
        )
        .run_by(user())
        // SIGINT is PostgreSQL's fast shutdown; SIGTERM waits for sessions.
        .stopped_by(libc::SIGINT);
        let mut process = Process::start(&launch, group)?;
        let server = Self {
            socket_dir: home.join("run"),
            bin,
            ca,
        };
        process.wait_ready(START_LIMIT, || server.query("SELECT 1", "postgres").is_ok())?;
        let mut load = server.psql("postgres");
        for (name, value) in passwords {
            load.arg("-v").arg(format!("{name}={value}"));
        }
        let file = layout.root.join("postgres-schema.sql");
        std::fs::write(&file, SCHEMA).map_err(Error::file("write", &file))?;
        process::run(
            "create PostgreSQL's schema and roles",
            load.arg("-f").arg(&file),
        )?;
        Ok((server, process))
    }

    fn psql(&self, database: &str) -> Command {
        let mut command = Command::new(self.bin.join("psql"));
        command
            .env_remove("PGOPTIONS")
            .args([
                "-X",
                "-q",
                "-A",
                "-t",
                "-v",
                "ON_ERROR_STOP=1",
                "-U",
                "postgres",
                "-h",
            ])
            .arg(&self.socket_dir)
            .args(["-p", &ports::POSTGRES.to_string(), "-d", database]);
        command
    }

    /// Runs SQL as the superuser in database `database` and gives what it
    /// printed: rows as lines, columns separated by `|`.
    ///
    /// # Errors
    /// [`Error::Command`] with PostgreSQL's message.
    pub fn query(&self, sql: &str, database: &str) -> Result<String, Error> {
        let text = process::run("query PostgreSQL", self.psql(database).args(["-c", sql]))?;
        Ok(text.trim_end().to_owned())
    }

    /// The rows of a query in database `shop`, as JSON objects.
    ///
    /// # Errors
    /// As [`Postgres::query`].
    pub fn rows(&self, sql: &str) -> Result<serde_json::Value, Error> {
        let wrapped = format!("SELECT coalesce(json_agg(q), '[]') FROM ({sql}) q");
        let text = self.query(&wrapped, "shop")?;
        serde_json::from_str(&text).map_err(|error| Error::Answer {
            from: "psql".into(),
            detail: error.to_string(),
        })
    }

    /// How a client on this machine connects as the superuser, in libpq's
    /// words.
    #[must_use]
    pub fn conninfo(&self) -> String {
        let dir = self.socket_dir.display();
        format!(
            "host={dir} port={} dbname=shop user=postgres",
            ports::POSTGRES
        )
    }
}

/// A command of the server's own programs, run as its user.
struct AsServer {
    purpose: &'static str,
    command: Command,
}

fn as_server(program: &Path, purpose: &'static str) -> AsServer {
    let mut argv = process::as_user(user());
    argv.push(program.display().to_string());
    let mut command = Command::new(&argv[0]);
    command
        .args(&argv[1..])
        .env("LC_ALL", "C.UTF-8")
        .current_dir("/");
    AsServer { purpose, command }
}

impl AsServer {
    fn args<const N: usize>(mut self, args: [&str; N]) -> Self {
        self.command.args(args);
        self
    }

    fn arg(mut self, arg: impl AsRef<std::ffi::OsStr>) -> Self {
        self.command.arg(arg);
        self
    }

    fn run(mut self) -> Result<String, Error> {
        process::run(self.purpose, &mut self.command)
    }
}

/// Makes an empty directory that the server's user owns.
fn make_home(layout: &Layout) -> Result<PathBuf, Error> {
    let inside = layout.postgres();
    let parent = inside.parent().unwrap_or(Path::new("/"));
    std::fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
    let reachable = as_server(
        Path::new("/usr/bin/test"),
        "reach the checkout as PostgreSQL's user",
    )
    .arg("-x")
    .arg(parent)
    .run()
    .is_ok();
    let home = if reachable {
        inside.clone()
    } else {
        PathBuf::from(ELSEWHERE)
    };
    if !reachable {
        if home.exists() {
            std::fs::remove_dir_all(&home).map_err(Error::file("remove", &home))?;
        }
        std::os::unix::fs::symlink(&home, &inside).map_err(Error::file("link", &inside))?;
    }
    let run = home.join("run");
    std::fs::create_dir_all(&run).map_err(Error::file("create", &run))?;
    if let Some(user) = user() {
        process::run(
            "give PostgreSQL its directory",
            Command::new("chown").arg("-R").arg(user).arg(&home),
        )?;
    }
    process::run(
        "close PostgreSQL's directory",
        Command::new("chmod").arg("-R").arg("0700").arg(&home),
    )?;
    Ok(home)
}

fn configure(home: &Path, data: &Path) -> Result<(), Error> {
    certify(home)?;
    let settings = format!(
        "listen_addresses = '127.0.0.1'\nport = {port}\nunix_socket_directories = '{run}'\n\
         ssl = on\nssl_cert_file = '{home}/server.pem'\nssl_key_file = '{home}/server-key.pem'\n\
         password_encryption = 'scram-sha-256'\nwal_level = logical\n\
         track_commit_timestamp = on\nmax_wal_senders = 10\n\
         max_replication_slots = 10\nmax_connections = 100\nshared_buffers = 64MB\n\
         log_line_prefix = '%m [%p] %u@%d '\nlog_statement = 'ddl'\n",
        port = ports::POSTGRES,
        run = home.join("run").display(),
        home = home.display(),
    );
    let access = "local all all trust\n\
                  hostssl all all 127.0.0.1/32 scram-sha-256\n\
                  hostssl replication all 127.0.0.1/32 scram-sha-256\n";
    append(&data.join("postgresql.conf"), &settings)?;
    let hba = data.join("pg_hba.conf");
    std::fs::write(&hba, access).map_err(Error::file("write", &hba))
}

fn append(path: &Path, text: &str) -> Result<(), Error> {
    let before = std::fs::read_to_string(path).map_err(Error::file("read", path))?;
    std::fs::write(path, before + text).map_err(Error::file("write", path))
}

/// A CA of PostgreSQL's own, apart from the product's: clients must be told
/// which one to trust for which connection.
fn certify(home: &Path) -> Result<(), Error> {
    let openssl = |args: &str| {
        let purpose = "make PostgreSQL's certificate";
        let mut command = as_server(Path::new("/usr/bin/openssl"), purpose);
        command.command.current_dir(home).args(args.split(' '));
        command.run()
    };
    let ext = home.join("server.ext");
    std::fs::write(
        &ext,
        "basicConstraints=CA:FALSE\nkeyUsage=digitalSignature\nextendedKeyUsage=serverAuth\n\
         subjectAltName=DNS:localhost,DNS:pg-1,IP:127.0.0.1\n",
    )
    .map_err(Error::file("write", &ext))?;
    openssl(
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
         -subj /CN=rehearsal-postgres-ca -keyout ca-key.pem -out ca.pem \
         -addext keyUsage=critical,keyCertSign,cRLSign",
    )?;
    openssl(
        "req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=pg-1 \
         -keyout server-key.pem -out server.csr",
    )?;
    openssl(
        "x509 -req -in server.csr -CA ca.pem -CAkey ca-key.pem -CAcreateserial -days 30 \
         -extfile server.ext -out server.pem",
    )
    .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_server_comes_up_with_its_schema_and_its_triggers_off() {
        let (layout, _lock) = crate::range::for_test("postgres");
        let group = Group::create("daemons").unwrap();
        let passwords = ["shop_app", "batch_app", "dms_user", "lockstep"]
            .into_iter()
            .map(|role| (role, "it's secret".to_owned()))
            .collect();
        let (server, mut process) = Postgres::start(&layout, &group, &passwords).unwrap();
        let triggers = server
            .rows("SELECT tgname, tgenabled FROM pg_trigger WHERE NOT tgisinternal ORDER BY 1")
            .unwrap();
        let names: Vec<_> = triggers
            .as_array()
            .unwrap()
            .iter()
            .map(|t| &t["tgname"])
            .collect();
        let expected = [
            "order_lines_check_trg",
            "orders_audit_trg",
            "orders_note_trg",
            "orders_replica_trg",
        ];
        assert_eq!(names, expected);
        assert!(
            triggers
                .as_array()
                .unwrap()
                .iter()
                .all(|t| t["tgenabled"] == "D")
        );
        process.stop();
        assert!(!process.is_running());
        Group::top().end().unwrap();
    }
}
