//! The range's Oracle: the simulator's process, a home on each Oracle host,
//! and the control socket by which the range looks at it from outside.

use super::cgroup::Group;
use super::error::Error;
use super::host::write;
use super::layout::{Layout, ports};
use super::process::{Launch, Process};
use super::secrets::Passwords;
use serde_json::{Value, json};
use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(30);

/// A look at the state takes milliseconds; a minute means that it hangs.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

const SCHEMA: &str = include_str!("sql/oracle.sql");

/// An Oracle host: its name, instance, listeners, and what manages them.
#[derive(Debug, Clone, Copy)]
pub struct OracleHost {
    /// Name of the host.
    pub host: &'static str,
    /// `ORACLE_SID`.
    pub sid: &'static str,
    /// `lsnrctl` or `srvctl`.
    pub control: &'static str,
    /// Its listeners and their ports.
    pub listeners: [(&'static str, u16); 2],
}

/// The two Oracle hosts.
pub const HOSTS: [OracleHost; 2] = [
    OracleHost {
        host: "ora-1",
        sid: "ORCL1",
        control: "lsnrctl",
        listeners: [
            ("LISTENER", ports::ORA1_LISTENER),
            (DMS_LISTENER, ports::ORA1_LISTENER_DMS),
        ],
    },
    OracleHost {
        host: "ora-2",
        sid: "ORCL2",
        control: "srvctl",
        listeners: [
            ("LISTENER", ports::ORA2_LISTENER),
            ("LISTENER_SCAN1", ports::ORA2_SCAN),
        ],
    },
];

/// The listener that stays up for DMS.
pub const DMS_LISTENER: &str = "LISTENER_DMS";

#[derive(Debug, Clone)]
pub struct Oracle {
    control: PathBuf,
}

impl Oracle {
    /// Lays out the homes, writes the configuration and starts the simulator.
    ///
    /// # Errors
    /// When a file can't be written or the simulator does not come up; the
    /// end of its log is in the error.
    pub fn start(
        layout: &Layout,
        group: &Group,
        passwords: &Passwords,
    ) -> Result<(Self, Process), Error> {
        let dir = layout.root.join("oracle");
        for host in &HOSTS {
            lay_out_home(layout, host)?;
        }
        let mut sql = SCHEMA.to_owned();
        for (account, password) in &passwords.oracle {
            sql = sql.replace(&format!("{{{{{account}}}}}"), password);
        }
        write(&dir.join("init.sql"), &sql)?;
        let config = dir.join("simulator.toml");
        write(&config, &configuration(layout, &dir))?;
        let program = layout.binary("oracle-simulator");
        let launch = Launch::new(
            "oracle",
            "ORCL",
            [
                program.display().to_string(),
                "--config".into(),
                config.display().to_string(),
            ],
            layout.log("oracle"),
        );
        let mut process = Process::start(&launch, group)?;
        let oracle = Self {
            control: layout.oracle_home("ora-1").join("dbs/control.sock"),
        };
        process.wait_ready(START_LIMIT, || oracle.observe().is_ok())?;
        Ok((oracle, process))
    }

    /// What the simulator itself has seen: sessions killed, listeners,
    /// parameters, accounts, triggers, commits.
    ///
    /// # Errors
    /// When it does not answer, or answers with an error.
    pub fn observe(&self) -> Result<Value, Error> {
        self.request(&json!({"op": "observe"}))
    }

    /// When the transaction with that commit SCN committed, milliseconds since
    /// 1970.
    ///
    /// # Errors
    /// As [`Oracle::observe`].
    pub fn commit_at(&self, scn: u64) -> Result<Option<i64>, Error> {
        let at = self.request(&json!({"op": "commit_at", "scn": scn}))?;
        Ok(at.as_i64())
    }

    /// Commits per user after an SCN.
    ///
    /// # Errors
    /// As [`Oracle::observe`].
    pub fn commits_after(&self, scn: u64) -> Result<Value, Error> {
        self.request(&json!({"op": "commits_after", "scn": scn}))
    }

    /// Makes the simulator answer `times` statements that contain `text` with
    /// that ORA error.
    ///
    /// # Errors
    /// As [`Oracle::observe`].
    pub fn inject(&self, text: &str, ora_code: u32, times: u32) -> Result<Value, Error> {
        self.request(&json!({
            "op": "inject",
            "fault": {"statement_contains": text, "ora_code": ora_code, "times": times},
        }))
    }

    /// Sends one request to the control socket.
    ///
    /// # Errors
    /// When it does not answer, or answers with an error.
    pub fn request(&self, request: &Value) -> Result<Value, Error> {
        let failed = |source| Error::File {
            what: "talk to",
            path: self.control.clone(),
            source,
        };
        let mut stream = UnixStream::connect(&self.control).map_err(failed)?;
        stream
            .set_read_timeout(Some(ANSWER_LIMIT))
            .map_err(failed)?;
        stream
            .write_all(format!("{request}\n").as_bytes())
            .map_err(failed)?;
        let mut line = String::new();
        BufReader::new(stream)
            .read_line(&mut line)
            .map_err(failed)?;
        let unusable = |detail: String| Error::Answer {
            from: "the Oracle simulator".into(),
            detail,
        };
        let answer: Value =
            serde_json::from_str(&line).map_err(|error| unusable(error.to_string()))?;
        match answer.get("ok") {
            Some(value) => Ok(value.clone()),
            None => Err(unusable(answer.to_string())),
        }
    }
}

fn lay_out_home(layout: &Layout, host: &OracleHost) -> Result<(), Error> {
    let home = layout.oracle_home(host.host);
    for sub in ["bin", "lib", "dbs", "network/admin"] {
        let dir = home.join(sub);
        std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    }
    let copy = |from: &str, to: &str| {
        let to = home.join(to);
        std::fs::copy(layout.binary(from), &to)
            .map_err(Error::file("write", &to))
            .map(drop)
    };
    copy("lsnrctl", "bin/lsnrctl")?;
    copy("libclntsh.so", "lib/libclntsh.so")?;
    if host.control == "srvctl" {
        copy("srvctl", "bin/srvctl")?;
        copy("crsctl", "bin/crsctl")?;
    }
    let listeners: String = host
        .listeners
        .iter()
        .map(|(name, port)| {
            format!("{name} = (ADDRESS = (PROTOCOL = TCP)(HOST = 127.0.0.1)(PORT = {port}))\n")
        })
        .collect();
    write(&home.join("network/admin/listener.ora"), &listeners)
}

fn configuration(layout: &Layout, dir: &Path) -> String {
    let mut text = format!(
        "database = \"ORCL\"\ndata_dir = {:?}\ninit_sql = {:?}\n",
        dir.join("data"),
        dir.join("init.sql"),
    );
    for host in &HOSTS {
        text += &format!(
            "\n[[instance]]\nname = {:?}\nhost = {:?}\nhome = {:?}\n",
            host.sid,
            host.host,
            layout.oracle_home(host.host),
        );
        for (name, port) in host.listeners {
            text += &format!(
                "[[instance.listener]]\nname = {name:?}\nport = {port}\nmanaged_by = {:?}\n",
                host.control,
            );
            if name == DMS_LISTENER {
                text += "reserved_for = \"dms\"\nservices = [\"ORCL\"]\nstatic = true\n";
            }
        }
    }
    text
}
