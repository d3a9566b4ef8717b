//! `lsnrctl`: plain listeners of an Oracle home, or of the Grid home.
//!
//! Its messages are recognized by their TNS codes, which don't depend on the
//! language; the exit code alone doesn't distinguish a listener that is down
//! from one that doesn't exist.

use super::command::{Ended, run};
use super::listener_tool::Tool;
use crate::config::OracleConfig;
use crate::error::ActionError;
use crate::host::context::{Context, Progress};
use lockstep_api::Code;
use std::time::Duration;

/// A listener answers in milliseconds; one that takes this long hangs.
const LIMIT: Duration = Duration::from_secs(30);

/// `TNS:no listener`: nothing listens at its address.
const NO_LISTENER: &str = "TNS-12541";
/// No connection gets as far as the listener's address: destination host
/// unreachable (12543), host or object doesn't exist (12545). (Oracle Database
/// Error Messages, TNS.) A virtual address that has moved away or a name that
/// doesn't resolve gives them. They don't prove that the listener is down.
const UNREACHABLE: [&str; 2] = ["TNS-12543", "TNS-12545"];
/// Static services for which no database instance answers a login of DMS:
/// external procedures (Oracle Database Net Services Administrator's Guide,
/// "Default Configuration for External Procedures").
const EXTERNAL_PROCEDURES: [&str; 2] = ["PLSEXTPROC", "CLREXTPROC"];
/// Ends of the names of the broker's services (Oracle Data Guard Broker,
/// "Prerequisites").
const BROKER: [&str; 2] = ["_DGMGRL", "_DGB"];
/// `Listener using listener name … has already been started`.
const ALREADY_STARTED: &str = "TNS-01106";

async fn call(
    cx: &Context,
    oracle: &OracleConfig,
    verb: &str,
    name: &str,
) -> Result<Ended, ActionError> {
    let tool = Tool::of(oracle, "lsnrctl").with("ORACLE_SID", &oracle.sid);
    run(cx, &tool.program(vec![verb, name], LIMIT)).await
}

/// Status is polled; its pages of output are noise among the progress lines.
fn quiet(cx: &Context) -> Context {
    Context {
        progress: Progress::silent(),
        ..cx.clone()
    }
}

fn failed(verb: &str, name: &str, ended: &Ended) -> ActionError {
    let said = ended
        .lines
        .iter()
        .find(|line| line.contains("TNS-") || line.contains("NL-"))
        .map_or_else(|| ended.last_line(), |line| line.trim());
    ActionError::new(
        Code::LS2211,
        format!("`lsnrctl {verb} {name}` failed with {said}"),
    )
    .state_left("the listener is as it was, as far as lsnrctl tells")
    .remedy("run the command by hand as the owner of the listener's home, with the same ORACLE_HOME and \
           TNS_ADMIN, fix what it reports, then retry")
}

/// What `lsnrctl status` shows of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    Up,
    Down,
    /// It may be up or down: nobody can connect from here.
    Unreachable,
}

impl Reach {
    fn read(ended: &Ended) -> Option<Self> {
        let text = ended.text();
        if ended.code == Some(0) {
            Some(Self::Up)
        } else if UNREACHABLE.iter().any(|code| text.contains(code)) {
            // Of several addresses one may answer TNS-12541.
            Some(Self::Unreachable)
        } else if text.contains(NO_LISTENER) {
            Some(Self::Down)
        } else {
            None
        }
    }
}

async fn reach(
    cx: &Context,
    oracle: &OracleConfig,
    name: &str,
) -> Result<(Option<Reach>, Ended), ActionError> {
    let ended = call(&quiet(cx), oracle, "status", name).await?;
    Ok((Reach::read(&ended), ended))
}

/// Whether the listener is up. One that can't be reached is an error, because
/// it can't be said to be closed.
///
/// # Errors
/// Where lsnrctl fails: no such listener, no permission, no way to it.
pub async fn is_up(cx: &Context, oracle: &OracleConfig, name: &str) -> Result<bool, ActionError> {
    match reach(cx, oracle, name).await? {
        (Some(Reach::Up), _) => Ok(true),
        (Some(Reach::Down), _) => Ok(false),
        (Some(Reach::Unreachable) | None, ended) => Err(failed("status", name, &ended)),
    }
}

/// Whether the listener is up, down, or can't be reached.
///
/// # Errors
/// Where lsnrctl fails: no such listener, no permission.
pub async fn reachability(
    cx: &Context,
    oracle: &OracleConfig,
    name: &str,
) -> Result<Reach, ActionError> {
    match reach(cx, oracle, name).await? {
        (Some(found), _) => Ok(found),
        (None, ended) => Err(failed("status", name, &ended)),
    }
}

/// The quoted name at the beginning of a line, after `label`.
fn named<'a>(line: &'a str, label: &str) -> Option<&'a str> {
    let rest = line.trim().strip_prefix(label)?.trim_start();
    rest.strip_prefix('"')?.split('"').next()
}

/// A service that a listener offers, and the instance behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Served {
    pub service: String,
    pub instance: String,
}

/// The services of the summary, except those for external procedures: they
/// belong to no instance.
fn served(summary: &str) -> Vec<Served> {
    let (mut service, mut all) = ("", Vec::new());
    for line in summary.lines() {
        if let Some(name) = named(line, "Service ") {
            service = name;
        } else if let Some(instance) = named(line, "Instance ")
            && !is_for_external_procedures(service)
        {
            all.push(Served {
                service: service.to_owned(),
                instance: instance.to_owned(),
            });
        }
    }
    all
}

/// Every service of the listener, whoever has registered it.
///
/// # Errors
/// Where lsnrctl fails.
pub async fn services(
    cx: &Context,
    oracle: &OracleConfig,
    name: &str,
) -> Result<Vec<Served>, ActionError> {
    let ended = call(&quiet(cx), oracle, "services", name).await?;
    if ended.code == Some(0) {
        Ok(served(&ended.text()))
    } else {
        Err(failed("services", name, &ended))
    }
}

fn undomained(service: &str) -> String {
    service.split('.').next().unwrap_or(service).to_uppercase()
}

fn is_for_external_procedures(service: &str) -> bool {
    EXTERNAL_PROCEDURES.contains(&undomained(service).as_str())
}

/// Whether a service without its domain is one that DMS can log in to.
fn is_of_database(service: &str) -> bool {
    let name = undomained(service);
    !is_for_external_procedures(service) && !BROKER.iter().any(|end| name.ends_with(end))
}

/// Whether a database service of the instance is registered statically, which
/// the summary shows as status UNKNOWN (Oracle Database Net Services
/// Administrator's Guide, "Monitoring Services of a Listener").
fn offers_statically(summary: &str, instance: &str) -> bool {
    let mut service = "";
    summary.lines().any(|line| {
        if let Some(name) = named(line, "Service ") {
            service = name;
        }
        named(line, "Instance ").is_some_and(|name| name.eq_ignore_ascii_case(instance))
            && line.contains("status UNKNOWN")
            && is_of_database(service)
    })
}

/// Whether the listener offers a service of this instance's database that is
/// registered statically: a restricted session closes dynamic ones (ORA-12526).
///
/// # Errors
/// Where lsnrctl fails.
pub async fn has_static_service(
    cx: &Context,
    oracle: &OracleConfig,
    name: &str,
) -> Result<bool, ActionError> {
    let ended = call(&quiet(cx), oracle, "status", name).await?;
    if ended.code == Some(0) {
        Ok(offers_statically(&ended.text(), &oracle.sid))
    } else {
        Err(failed("status", name, &ended))
    }
}

/// Stops the listener; established sessions stay open. Gives whether it was up.
///
/// # Errors
/// Where it doesn't stop.
pub async fn stop(cx: &Context, oracle: &OracleConfig, name: &str) -> Result<bool, ActionError> {
    let ended = call(cx, oracle, "stop", name).await?;
    if ended.code == Some(0) {
        Ok(true)
    } else if ended.text().contains(NO_LISTENER) {
        Ok(false)
    } else {
        Err(failed("stop", name, &ended))
    }
}

/// Starts the listener. Gives whether it was down.
///
/// # Errors
/// Where it doesn't start.
pub async fn start(cx: &Context, oracle: &OracleConfig, name: &str) -> Result<bool, ActionError> {
    let ended = call(cx, oracle, "start", name).await?;
    if ended.code == Some(0) {
        Ok(true)
    } else if ended.text().contains(ALREADY_STARTED) {
        Ok(false)
    } else {
        Err(failed("start", name, &ended))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ended(code: i32, text: &str) -> Ended {
        Ended {
            code: Some(code),
            lines: text.lines().map(str::to_owned).collect(),
        }
    }

    #[test]
    fn only_a_refused_connection_proves_that_a_listener_is_down() {
        let read = |text: &str| Reach::read(&ended(1, text));
        let tail = "\n TNS-12560: TNS:protocol adapter error\n  TNS-00511: No listener";
        assert_eq!(
            read(&format!("TNS-12541: TNS:no listener{tail}")),
            Some(Reach::Down)
        );
        for code in [
            "TNS-12543: TNS:destination host",
            "TNS-12545: Connect failed",
        ] {
            assert_eq!(read(&format!("{code}{tail}")), Some(Reach::Unreachable));
        }
        let both = "TNS-12541: TNS:no listener\nTNS-12545: Connect failed";
        assert_eq!(read(both), Some(Reach::Unreachable));
        // It is up and admits other nodes, or it belongs to somebody else.
        for up in [
            "TNS-12537: TNS:connection closed",
            "TNS-01190: not authorized",
        ] {
            assert_eq!(read(up), None, "{up}");
        }
        assert_eq!(Reach::read(&ended(0, "")), Some(Reach::Up));
    }

    /// Oracle Database Net Services Administrator's Guide, "Monitoring Services of
    /// a Listener", with a second instance of one service.
    #[test]
    fn every_instance_of_every_service_is_read() {
        let summary = "Services Summary...\n\
            Service \"PLSExtProc\" has 1 instance(s).\n\
            \x20 Instance \"PLSExtProc\", status UNKNOWN, has 1 handler(s) for this service...\n\
            Service \"sales.us.example.com\" has 2 instance(s).\n\
            \x20 Instance \"sales1\", status READY, has 3 handler(s) for this service...\n\
            \x20   Handler(s):\n\
            \x20     \"DEDICATED\" established:0 refused:0 state:ready\n\
            \x20        REMOTE SERVER\n\
            \x20 Instance \"sales2\", status BLOCKED, has 1 handler(s) for this service...\n\
            Service \"hr.us.example.com\" has 1 instance(s).\n\
            \x20 Instance \"hr\", status READY, has 3 handler(s) for this service...\n";
        let served = |service: &str, instance: &str| Served {
            service: service.into(),
            instance: instance.into(),
        };
        assert_eq!(
            super::served(summary),
            [
                served("sales.us.example.com", "sales1"),
                served("sales.us.example.com", "sales2"),
                served("hr.us.example.com", "hr"),
            ]
        );
    }

    #[test]
    fn a_static_service_of_the_instance_is_needed() {
        let summary = |service: &str, instance: &str, status: &str| {
            format!(
                "Services Summary...\nService \"{service}\" has 1 instance(s).\n  Instance \
                 \"{instance}\", status {status}, has 1 handler(s) for this service...\n"
            )
        };
        let offers = |service, instance| {
            let other = summary("SHOPXDB", "ORCL1", "READY");
            offers_statically(&(summary(service, instance, "UNKNOWN") + &other), "orcl1")
        };
        assert!(offers("SHOP", "ORCL1") && offers("shop.example.com", "orcl1"));
        for (service, instance) in [
            ("PLSExtProc", "PLSExtProc"),
            ("CLRExtProc", "ORCL1"),
            ("SHOP_DGMGRL", "ORCL1"),
            ("shop_DGMGRL.example.com", "orcl1"),
            ("SHOP", "CRM1"),
        ] {
            assert!(!offers(service, instance), "{service} of {instance}");
        }
        assert!(!offers_statically(
            &summary("SHOP", "ORCL1", "READY"),
            "ORCL1"
        ));
    }
}
