//! The DMS and CloudWatch double: its configuration, and the range's look at
//! what was asked of it.

use super::cgroup::Group;
use super::error::Error;
use super::host::write;
use super::layout::{Layout, ports};
use super::postgres::Postgres;
use super::process::{Launch, Process};
use super::secrets::Passwords;
use serde_json::{Value, json};
use std::io::{Read, Write};
use std::net::{Ipv4Addr, TcpStream};
use std::time::Duration;

const START_LIMIT: Duration = Duration::from_secs(30);
/// Control requests are answered from memory.
const ANSWER_LIMIT: Duration = Duration::from_secs(30);

/// What V$SESSION.MACHINE shows of the double: a name of its own, so that the
/// plan can tell DMS from others that use its password.
const MACHINE: &str = "dms-1";
const AS_MACHINE: &str = r#"hostname "$1" && shift && exec "$@""#;

/// Identifier of the forward task.
pub const FORWARD: &str = "forward";

#[derive(Debug, Clone, Copy)]
pub struct Dms;

impl Dms {
    /// Writes the configuration and starts the double, its forward task
    /// running. `timing`: the configuration's section of that name, or nothing.
    ///
    /// # Errors
    /// When a file can't be written or the double does not come up.
    pub fn start(
        layout: &Layout,
        group: &Group,
        passwords: &Passwords,
        (postgres, timing): (&Postgres, &str),
    ) -> Result<(Self, Process), Error> {
        let dir = layout.root.join("dms");
        std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
        write(
            &dir.join("forward-mappings.json"),
            &forward_mappings().to_string(),
        )?;
        let config = dir.join("dms.toml");
        write(
            &config,
            &(configuration(layout, passwords, postgres) + timing),
        )?;
        let launch = Launch::new(
            "dms",
            "dms",
            [
                "unshare".into(),
                "--uts".into(),
                "/bin/sh".into(),
                "-c".into(),
                AS_MACHINE.into(),
                "machine".into(),
                MACHINE.into(),
                layout.binary("dms-double").display().to_string(),
                "--config".into(),
                config.display().to_string(),
            ],
            layout.log("dms"),
        );
        let mut process = Process::start(&launch, group)?;
        process.wait_ready(START_LIMIT, || Self.get("/control/health").is_ok())?;
        Ok((Self, process))
    }

    /// Asks the control interface.
    ///
    /// # Errors
    /// When it does not answer, or not with JSON.
    pub fn get(&self, path: &str) -> Result<Value, Error> {
        exchange("GET", path, None)
    }

    /// Tells the control interface.
    ///
    /// # Errors
    /// As [`Dms::get`].
    pub fn post(&self, path: &str, body: &Value) -> Result<Value, Error> {
        exchange("POST", path, Some(body))
    }

    /// Takes something back at the control interface.
    ///
    /// # Errors
    /// As [`Dms::get`].
    pub fn delete(&self, path: &str) -> Result<Value, Error> {
        exchange("DELETE", path, None)
    }
}

/// One request over a connection of its own; the double is on loopback and
/// the answers are small, so a client library would be more than is needed.
fn exchange(method: &str, path: &str, body: Option<&Value>) -> Result<Value, Error> {
    let unusable = |detail: String| Error::Answer {
        from: format!("the DMS double ({path})"),
        detail,
    };
    let body = body.map(Value::to_string).unwrap_or_default();
    let request = format!(
        "{method} {path} HTTP/1.0\r\nHost: 127.0.0.1\r\nContent-Type: application/json\r\n\
         Content-Length: {}\r\n\r\n{body}",
        body.len()
    );
    let talk = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, ports::DMS))?;
        stream.set_read_timeout(Some(ANSWER_LIMIT))?;
        stream.write_all(request.as_bytes())?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = talk().map_err(|error| unusable(error.to_string()))?;
    let (head, text) = answer
        .split_once("\r\n\r\n")
        .ok_or_else(|| unusable("no HTTP answer".into()))?;
    let status = head.split(' ').nth(1).unwrap_or_default();
    if !status.starts_with('2') {
        return Err(unusable(format!("status {status}: {text}")));
    }
    if text.is_empty() {
        return Ok(Value::Null);
    }
    serde_json::from_str(text).map_err(|error| unusable(error.to_string()))
}

/// Everything of the shop and the marker go forward; the canary does not.
fn forward_mappings() -> Value {
    let select = |id: u32, schema: &str, table: &str| {
        json!({
            "rule-type": "selection", "rule-id": id.to_string(), "rule-name": id.to_string(),
            "object-locator": {"schema-name": schema, "table-name": table},
            "rule-action": "include", "filters": [],
        })
    };
    let lower = |id: u32, target: &str, locator: Value| {
        json!({
            "rule-type": "transformation", "rule-id": id.to_string(), "rule-name": id.to_string(),
            "rule-target": target, "object-locator": locator, "rule-action": "convert-lowercase",
        })
    };
    json!({"rules": [
        select(1, "SHOP", "%"),
        select(2, "LOCKSTEP", "LOCKSTEP_MARKER"),
        lower(3, "schema", json!({"schema-name": "%"})),
        lower(4, "table", json!({"schema-name": "%", "table-name": "%"})),
        lower(5, "column", json!({"schema-name": "%", "table-name": "%", "column-name": "%"})),
    ]})
}

fn configuration(layout: &Layout, passwords: &Passwords, postgres: &Postgres) -> String {
    let mut text = format!(
        "listen = \"127.0.0.1:{}\"\noracle_lib_dir = {:?}\n",
        ports::DMS,
        layout.oracle_home("ora-1").join("lib"),
    );
    for kind in ["source", "target"] {
        text += &format!(
            "\n[[endpoint]]\nengine = \"oracle\"\nidentifier = \"oracle-{kind}\"\ntype = {kind:?}\n\
             host = \"127.0.0.1\"\nport = {}\nservice = \"ORCL\"\nuser = \"DMS_USER\"\n\
             password = {:?}\n",
            ports::ORA1_LISTENER_DMS,
            passwords.oracle["dms_user"],
        );
        text += &format!(
            "\n[[endpoint]]\nengine = \"postgres\"\nidentifier = \"postgres-{kind}\"\n\
             type = {kind:?}\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"shop\"\n\
             user = \"dms_user\"\npassword = {:?}\nca_file = {:?}\ncapture_ddls = false\n",
            ports::POSTGRES,
            passwords.postgres["dms_user"],
            postgres.ca,
        );
    }
    text + &format!(
        "\n[[task]]\nidentifier = {FORWARD:?}\nsource = \"oracle-source\"\n\
         target = \"postgres-target\"\nmigration_type = \"full-load-and-cdc\"\n\
         table_mappings_file = \"forward-mappings.json\"\nrunning = true\n"
    )
}
