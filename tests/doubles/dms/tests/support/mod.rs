//! A PostgreSQL cluster of a test's own, with TLS and SCRAM.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]
#![allow(dead_code, reason = "each test program uses its part")]

use dms_double::config::{EndpointKind, PostgresEndpoint};
use std::path::PathBuf;
use std::process::Command;

/// The password of `dms_user`; a quote in it must do no harm.
pub const PASSWORD: &str = "it's a secret";

/// A cluster of its own; stopped and removed when it is dropped.
pub struct Cluster {
    bin: PathBuf,
    directory: tempfile::TempDir,
    pub port: u16,
}

impl Cluster {
    /// Makes and starts it; nothing when PostgreSQL's programs are missing.
    pub fn start() -> Option<Self> {
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

    pub fn path(&self, name: &str) -> String {
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

    pub fn endpoint(&self, kind: EndpointKind) -> PostgresEndpoint {
        PostgresEndpoint {
            identifier: "postgres".into(),
            kind,
            host: "127.0.0.1".into(),
            port: self.port,
            dbname: "postgres".into(),
            user: "dms_user".into(),
            password: PASSWORD.into(),
            ca_file: self.directory.path().join("ca.crt"),
            capture_ddls: Some(false),
            slot_name: None,
            after_connect_script: None,
            extra_connection_attributes: None,
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
