//! A double of Oracle's listener control utility: `lsnrctl
//! start|stop|status|services [NAME]`.
//!
//! It finds the simulator through `$ORACLE_HOME/dbs/control.sock`. Output and
//! exit codes follow the utility of Oracle Database 19c: 0 when the command
//! completed, 1 when it did not. The interactive mode and every other command
//! are missing and said to be.
//!
//! Like the utility it knows the listeners that its `listener.ora` names, in
//! `$TNS_ADMIN` or else in `network/admin` of its home. Where that home has
//! none, the simulator's own configuration stands for it.

use jiff::{Timestamp, Zoned, tz::TimeZone};
use oracle_simulator::control::{self, CallError, Request};
use oracle_simulator::listener::{Requester, Status};
use std::path::PathBuf;
use std::process::ExitCode;

const RELEASE: &str = "Version 19.0.0.0.0 - Production";

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    println!(
        "\nLSNRCTL for Linux: {RELEASE} on {}\n",
        clock(&Zoned::now())
    );
    println!("Copyright (c) 1991, 2019, Oracle.  All rights reserved.");
    println!("(double of the rehearsal range)\n");
    let name = arguments.get(1).map_or("LISTENER", String::as_str);
    let outcome = match arguments.first().map(|verb| verb.to_lowercase()).as_deref() {
        Some("start") => start(name),
        Some("stop") => stop(name),
        Some("status") => status(name, summary),
        Some("services") => status(name, services),
        Some(other) => Err(format!(
            "NL-00853: undefined command \"{other}\".  Try \"help\"\n"
        )),
        None => Err("the interactive mode is not part of this double; \
                     use lsnrctl start|stop|status|services [NAME]\n"
            .to_owned()),
    };
    match outcome {
        Ok(text) => {
            print!("{text}");
            ExitCode::SUCCESS
        }
        Err(text) => {
            print!("{text}");
            ExitCode::FAILURE
        }
    }
}

fn start(name: &str) -> Result<String, String> {
    let known = find(name).map_err(|error| match error {
        Missing::Listener => format!(
            "TNS-01151: Missing listener name, {name}, in LISTENER.ORA\n\n\
             Listener failed to start. See the error message(s) above...\n"
        ),
        Missing::Simulator(text) => text,
    })?;
    let binary = home().join("bin").join("tnslsnr");
    let opening = format!("Starting {}: please wait...\n\n", binary.display());
    let request = Request::Start {
        name: known.name,
        by: Requester::Lsnrctl,
    };
    match control::call::<Status>(&socket(), &request) {
        Ok(status) => Ok(format!(
            "{opening}TNSLSNR for Linux: {RELEASE}\nListening on: {}\n\nConnecting to {}\n{}",
            address(&status),
            address(&status),
            summary(&status)
        )),
        Err(CallError::Refused(failure)) if failure.kind == "already_running" => Err(format!(
            "TNS-01106: Listener using listener name {} has already been started\n",
            name.to_uppercase()
        )),
        Err(CallError::Refused(failure)) if failure.kind == "bind" => Err(format!(
            "{opening}TNS-12542: TNS:address already in use\n \
             TNS-12560: TNS:protocol adapter error\n  \
             TNS-00512: Address already in use\n   {failure}\n\n\
             Listener failed to start. See the error message(s) above...\n"
        )),
        Err(error) => Err(unreachable(error)),
    }
}

fn stop(name: &str) -> Result<String, String> {
    let known = running(name)?;
    let opening = format!("Connecting to {}\n", address(&known));
    let request = Request::Stop {
        name: known.name.clone(),
        by: Requester::Lsnrctl,
    };
    match control::call::<Status>(&socket(), &request) {
        Ok(_) => Ok(format!("{opening}The command completed successfully\n")),
        // Somebody else was faster.
        Err(CallError::Refused(_)) => Err(no_listener(&known)),
        Err(error) => Err(unreachable(error)),
    }
}

fn status(name: &str, render: impl Fn(&Status) -> String) -> Result<String, String> {
    let known = running(name)?;
    Ok(format!(
        "Connecting to {}\n{}",
        address(&known),
        render(&known)
    ))
}

/// Why there is nothing to talk to.
enum Missing {
    Listener,
    Simulator(String),
}

fn find(name: &str) -> Result<Status, Missing> {
    if !is_named(name) {
        return Err(Missing::Listener);
    }
    let listeners = control::call::<Vec<Status>>(&socket(), &Request::Listeners)
        .map_err(|error| Missing::Simulator(unreachable(error)))?;
    let found = listeners
        .into_iter()
        .find(|status| status.name.eq_ignore_ascii_case(name));
    found.ok_or(Missing::Listener)
}

fn parameters() -> PathBuf {
    let directory = std::env::var_os("TNS_ADMIN").map(PathBuf::from);
    let directory = directory.unwrap_or_else(|| home().join("network").join("admin"));
    directory.join("listener.ora")
}

/// Whether `listener.ora` has an entry `NAME = …` at the beginning of a line.
fn is_named(name: &str) -> bool {
    match std::fs::read_to_string(parameters()) {
        Ok(text) => text.lines().any(|line| {
            line.split_once('=')
                .is_some_and(|(entry, _)| entry.trim_end().eq_ignore_ascii_case(name))
        }),
        Err(_) => std::env::var_os("TNS_ADMIN").is_none(),
    }
}

fn running(name: &str) -> Result<Status, String> {
    let known = find(name).map_err(|error| match error {
        Missing::Listener => format!("TNS-01101: Could not find service name {name}\n"),
        Missing::Simulator(text) => text,
    })?;
    if let Some(code) = known.arranged.unreachable {
        Err(unreached(&known, code))
    } else if known.running {
        Ok(known)
    } else {
        Err(no_listener(&known))
    }
}

fn no_listener(status: &Status) -> String {
    format!(
        "Connecting to {}\nTNS-12541: TNS:no listener\n TNS-12560: TNS:protocol adapter error\n  \
         TNS-00511: No listener\n   Linux Error: 111: Connection refused\n",
        address(status)
    )
}

/// No connection gets as far as the listener, so nothing is known of it.
fn unreached(status: &Status, code: u32) -> String {
    let text = match code {
        12_543 => "TNS:destination host unreachable",
        12_545 => "Connect failed because target host or object does not exist",
        _ => "TNS:operation timed out",
    };
    format!(
        "Connecting to {}\nTNS-{code:05}: {text}\n TNS-12560: TNS:protocol adapter error\n",
        address(status)
    )
}

fn unreachable(error: CallError) -> String {
    let cause = std::error::Error::source(&error).map(|source| format!(": {source}"));
    format!(
        "TNS-12560: TNS:protocol adapter error\n {error}{}\n",
        cause.unwrap_or_default()
    )
}

fn home() -> PathBuf {
    std::env::var_os("ORACLE_HOME")
        .map(PathBuf::from)
        .unwrap_or_default()
}

fn socket() -> PathBuf {
    home().join("dbs").join("control.sock")
}

fn address(status: &Status) -> String {
    format!(
        "(DESCRIPTION=(ADDRESS=(PROTOCOL=tcp)(HOST={})(PORT={})))",
        status.host, status.port
    )
}

fn clock(time: &Zoned) -> String {
    time.strftime("%d-%b-%Y %H:%M:%S")
        .to_string()
        .to_uppercase()
}

fn summary(status: &Status) -> String {
    let since = status
        .started_at_ms
        .and_then(|ms| Timestamp::from_millisecond(i64::try_from(ms).ok()?).ok())
        .unwrap_or_else(Timestamp::now);
    let seconds = Timestamp::now().duration_since(since).as_secs().max(0);
    let parameters = parameters();
    let mut text = format!("STATUS of the LISTENER\n{}\n", "-".repeat(24));
    let uptime = format!(
        "{} days {} hr. {} min. {} sec",
        seconds / 86_400,
        seconds / 3_600 % 24,
        seconds / 60 % 60,
        seconds % 60
    );
    for (label, value) in [
        ("Alias", status.name.clone()),
        ("Version", format!("TNSLSNR for Linux: {RELEASE}")),
        ("Start Date", clock(&since.to_zoned(TimeZone::system()))),
        ("Uptime", uptime),
        ("Trace Level", "off".to_owned()),
        ("Security", "ON: Local OS Authentication".to_owned()),
        ("SNMP", "OFF".to_owned()),
        ("Listener Parameter File", parameters.display().to_string()),
    ] {
        text.push_str(&format!("{label:<26}{value}\n"));
    }
    text.push_str(&format!(
        "Listening Endpoints Summary...\n  {}\n",
        address(status)
    ));
    text.push_str(&offered(status, ""));
    text
}

fn services(status: &Status) -> String {
    let blocked = if status.blocked {
        "restricted"
    } else {
        "ready"
    };
    let handlers = format!(
        "    Handler(s):\n      \"DEDICATED\" established:{} refused:{} state:{blocked}\n         LOCAL SERVER\n",
        status.established, status.refused
    );
    offered(status, &handlers)
}

fn offered(status: &Status, handlers: &str) -> String {
    let state = match (status.is_static, status.blocked) {
        (true, _) => "UNKNOWN",
        (false, true) => "RESTRICTED",
        (false, false) => "READY",
    };
    let own = status.services.iter();
    let mut offers: Vec<(&str, &str, &str)> = own
        .map(|service| (service.as_str(), status.instance.as_str(), state))
        .collect();
    offers.extend(status.arranged.registered.iter().map(|other| {
        let state = if other.is_static { "UNKNOWN" } else { "READY" };
        (other.service.as_str(), other.instance.as_str(), state)
    }));
    let mut text = "Services Summary...\n".to_owned();
    let mut shown = Vec::new();
    for (service, ..) in &offers {
        if shown.contains(service) {
            continue;
        }
        shown.push(service);
        let of_service = offers.iter().filter(|(name, ..)| name == service);
        text.push_str(&format!(
            "Service \"{service}\" has {} instance(s).\n",
            of_service.clone().count()
        ));
        for (_, instance, state) in of_service {
            text.push_str(&format!(
                "  Instance \"{instance}\", status {state}, has 1 handler(s) for this service...\n{handlers}"
            ));
        }
    }
    text.push_str("The command completed successfully\n");
    text
}
