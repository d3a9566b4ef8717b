//! The product in the range: configuration of the coordinator, of the agent
//! on every host, and of the operator's command.
//!
//! These files are what an administrator would write; nothing here tells the
//! product that it is a rehearsal, but for addresses.

use super::cgroup::Group;
use super::error::Error;
use super::host::{Host, write};
use super::layout::{Layout, ports};
use super::oracle::{self, OracleHost};
use super::postgres::Postgres;
use super::process::{Launch, Process};
use super::secrets::TRUST_DOMAIN;
use std::path::PathBuf;
use std::time::Duration;

/// A daemon that takes longer to bind its port has failed.
const START_LIMIT: Duration = Duration::from_secs(20);

fn tls(layout: &Layout, name: &str) -> String {
    let pki = layout.pki();
    format!(
        "[tls]\nca = {:?}\ncert = {:?}\nkey = {:?}\ntrust_domain = {TRUST_DOMAIN:?}\n",
        pki.join("ca.pem"),
        pki.join(format!("{name}.pem")),
        pki.join(format!("{name}-key.pem")),
    )
}

/// The coordinator, ready to start or to start again.
///
/// # Errors
/// When its configuration can't be written.
pub fn coordinator(layout: &Layout) -> Result<Launch, Error> {
    let dir = layout.root.join("coordinator");
    std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    let config = dir.join("coordinator.toml");
    let text = format!(
        "name = \"coordinator\"\nlisten = \"127.0.0.1:{}\"\nstate_dir = {:?}\n\n{}\n\
         [telemetry]\nlog = \"info\"\n",
        ports::COORDINATOR,
        dir.join("state"),
        tls(layout, "coordinator"),
    );
    write(&config, &text)?;
    Ok(Launch::new(
        "coordinator",
        "coordinator",
        [
            layout.binary("lockstep-coordinator").display().to_string(),
            "--config".into(),
            config.display().to_string(),
        ],
        layout.log("coordinator"),
    ))
}

/// Starts the coordinator and waits for its port.
///
/// # Errors
/// When it does not come up; the end of its log is in the error.
pub fn start_coordinator(layout: &Layout, group: &Group) -> Result<Process, Error> {
    let mut process = Process::start(&coordinator(layout)?, group)?;
    process.wait_ready(START_LIMIT, || {
        std::net::TcpStream::connect(("127.0.0.1", ports::COORDINATOR)).is_ok()
    })?;
    Ok(process)
}

/// The agent of a host, ready to start or to start again.
///
/// # Errors
/// When its configuration can't be written.
pub fn agent(
    layout: &Layout,
    host: &Host,
    postgres: &Postgres,
    linked: bool,
) -> Result<Launch, Error> {
    let dir = layout.host(&host.name).join("agent");
    std::fs::create_dir_all(&dir).map_err(Error::file("create", &dir))?;
    let config = dir.join("agent.toml");
    let coordinator = if linked {
        ports::link(host.address)
    } else {
        ports::COORDINATOR
    };
    write(
        &config,
        &configuration(layout, host, (postgres, coordinator), dir.join("state")),
    )?;
    let argv = [
        layout.binary("lockstep-agent").display().to_string(),
        "--config".into(),
        config.display().to_string(),
    ];
    Ok(host.launch("agent", argv, layout.log(&format!("{}-agent", host.name))))
}

fn configuration(
    layout: &Layout,
    host: &Host,
    (postgres, coordinator): (&Postgres, u16),
    state: PathBuf,
) -> String {
    let mut text = format!(
        "name = {:?}\ncoordinator = \"127.0.0.1:{coordinator}\"\nstate_dir = {state:?}\n\n{}\n\
         [telemetry]\nlog = \"info\"\n\n[systemd]\naddress = {:?}\n\n",
        host.name,
        tls(layout, &host.name),
        host.bus(),
    );
    let oracle_host = oracle::HOSTS.iter().find(|oracle| oracle.host == host.name);
    text += &match (oracle_host, host.name.as_str()) {
        (Some(oracle), _) => oracle_side(layout, oracle),
        (None, "pg-1") => postgres_side(layout, postgres),
        (None, name) => application_side(name),
    };
    text
}

const APPLICATION_ACTIONS: &str =
    r#""service.*", "cron.*", "process.stop", "config.switch", "check.*", "command.run""#;

fn application_policy(more: &str) -> String {
    format!(
        "[policy]\nactions = [{APPLICATION_ACTIONS}{more}]\nunits = [\"shop-*\"]\n\
         paths = [\"/srv/shop\"]\naddresses = [\"this-host:*\"]\n\n"
    )
}

fn application_side(name: &str) -> String {
    format!(
        "[labels]\nrole = \"app\"\nhost = {name:?}\n\n{}",
        application_policy("")
    )
}

fn oracle_side(layout: &Layout, host: &OracleHost) -> String {
    let instance = host.sid.trim_start_matches("ORCL");
    let scan = |name: &str| name.starts_with("LISTENER_SCAN");
    let names = host.listeners.map(|(name, _)| name);
    let (scan, local): (Vec<&str>, Vec<&str>) = names.into_iter().partition(|name| scan(name));
    format!(
        "[labels]\nrole = \"oracle\"\ninstance = {instance:?}\nhost = {:?}\n\n{}\
         [oracle.orcl]\nhome = {:?}\nsid = {:?}\ncontrol = {:?}\nlisteners = {local:?}\n\
         scan_listeners = {scan:?}\n",
        host.host,
        application_policy(", \"oracle.*\""),
        layout.oracle_home(host.host),
        host.sid,
        host.control,
    )
}

fn postgres_side(layout: &Layout, postgres: &Postgres) -> String {
    format!(
        "[labels]\nrole = \"postgres\"\naws = \"true\"\nhost = \"pg-1\"\n\n\
         [policy]\nactions = [\"postgres.*\", \"dms.*\", \"cloudwatch.*\", \"check.*\"]\n\n\
         [postgres.shop]\nhost = \"127.0.0.1\"\nport = {}\ndbname = \"shop\"\nuser = \"lockstep\"\n\
         password_file = {:?}\nca = {:?}\n\n\
         [aws.dms]\nregion = \"eu-central-1\"\nendpoint_url = \"http://127.0.0.1:{}\"\n\
         access_key_id_file = {:?}\nsecret_access_key_file = {:?}\n",
        ports::POSTGRES,
        layout.secret("postgres-lockstep"),
        postgres.ca,
        ports::DMS,
        layout.secret("aws-access-key-id"),
        layout.secret("aws-secret-access-key"),
    )
}

/// What the operator's command is told about the coordinator, as environment.
#[must_use]
pub fn operator(layout: &Layout, name: &str) -> Vec<(&'static str, String)> {
    let pki = layout.pki();
    vec![
        (
            "LOCKSTEP_COORDINATOR",
            format!("https://127.0.0.1:{}", ports::COORDINATOR),
        ),
        ("LOCKSTEP_CA", pki.join("ca.pem").display().to_string()),
        (
            "LOCKSTEP_CERT",
            pki.join(format!("{name}.pem")).display().to_string(),
        ),
        (
            "LOCKSTEP_KEY",
            pki.join(format!("{name}-key.pem")).display().to_string(),
        ),
    ]
}
