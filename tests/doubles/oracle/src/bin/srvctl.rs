//! A double of Oracle's server control utility, for listeners alone: `srvctl
//! status|config|start|stop|enable|disable listener|scan_listener`.
//!
//! It finds the simulator through `$ORACLE_HOME/dbs/control.sock` and knows
//! the listeners of that host's node. Messages and exit codes follow Oracle
//! Grid Infrastructure 19c: 0 done, 1 failed, 2 for a warning (it was so
//! already). The access control list of a resource decides who may start and
//! stop it (execute) and who may enable and disable it (write). Options: `-listener NAME`, `-scannumber N`, `-node NODE`, their
//! short forms `-l`, `-i`, `-n`, and `-force`, which changes nothing here.

use oracle_simulator::control::{self, CallError, Failure, Request};
use oracle_simulator::listener::acl::Caller;
use oracle_simulator::listener::{Requester, Status};
use std::path::PathBuf;
use std::process::ExitCode;

/// Exit code of a command that found things as they should be.
const WARNING: u8 = 2;

/// What the command line says.
struct Command {
    verb: Verb,
    scan: bool,
    name: Option<String>,
    node: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Verb {
    Status,
    Config,
    Start,
    Stop,
    Enable,
    Disable,
}

/// What a command came to, with its output.
enum Outcome {
    Done(String),
    Warned(String),
    Failed(String),
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let outcomes = match Command::parse(&arguments) {
        Ok(command) => command.run(),
        Err(message) => vec![Outcome::Failed(message)],
    };
    let mut code = 0;
    for outcome in outcomes {
        let (text, this) = match outcome {
            Outcome::Done(text) => (text, 0),
            Outcome::Warned(text) => (text, WARNING),
            Outcome::Failed(text) => (text, 1),
        };
        print!("{text}");
        // A failure outweighs a warning.
        code = if code == 1 || this == 1 {
            1
        } else {
            code.max(this)
        };
    }
    ExitCode::from(code)
}

impl Command {
    fn parse(arguments: &[String]) -> Result<Self, String> {
        let [verb, object, options @ ..] = arguments else {
            return Err(usage("a command and an object are needed"));
        };
        let verb = match verb.as_str() {
            "status" => Verb::Status,
            "config" => Verb::Config,
            "start" => Verb::Start,
            "stop" => Verb::Stop,
            "enable" => Verb::Enable,
            "disable" => Verb::Disable,
            other => return Err(usage(&format!("invalid command {other}"))),
        };
        let scan = match object.as_str() {
            "listener" => false,
            "scan_listener" => true,
            other => return Err(usage(&format!("object {other} is not part of this double"))),
        };
        let mut command = Self {
            verb,
            scan,
            name: None,
            node: None,
        };
        let mut options = options.iter();
        while let Some(option) = options.next() {
            let mut value = || {
                options
                    .next()
                    .cloned()
                    .ok_or_else(|| usage(&format!("{option} needs a value")))
            };
            match option.as_str() {
                "-listener" | "-l" if !scan => command.name = Some(value()?.to_uppercase()),
                "-scannumber" | "-i" if scan => {
                    command.name = Some(format!("LISTENER_SCAN{}", value()?));
                }
                "-node" | "-n" => command.node = Some(value()?),
                "-force" | "-f" => {}
                other => return Err(usage(&format!("invalid option {other}"))),
            }
        }
        Ok(command)
    }

    fn run(&self) -> Vec<Outcome> {
        let all = match control::call::<Vec<Status>>(&socket(), &Request::Listeners) {
            Ok(all) => all,
            Err(error) => return vec![Outcome::Failed(unreachable(&error))],
        };
        if self.node.is_some() && all.iter().any(|status| status.arranged.oracle_restart) {
            let message = "PRKO-2002 : Invalid command line option: -node\n".to_owned();
            return vec![Outcome::Failed(message)];
        }
        if let Some(node) = &self.node
            && !all.iter().any(|status| status.host == *node)
        {
            let message = format!("PRKC-1056 : Failed to get the hostname for node {node}\n");
            return vec![Outcome::Failed(message)];
        }
        let is_scan = |status: &Status| status.name.starts_with("LISTENER_SCAN");
        let meant: Vec<&Status> = all
            .iter()
            .filter(|status| status.clustered && is_scan(status) == self.scan)
            .filter(|status| match &self.name {
                Some(name) => status.name.eq_ignore_ascii_case(name),
                None => self.scan || status.name == "LISTENER",
            })
            .collect();
        if meant.is_empty() {
            let name = self.name.as_deref().unwrap_or("LISTENER");
            let message = format!("PRCR-1001 : Resource {} does not exist\n", resource(name));
            return vec![Outcome::Failed(message)];
        }
        meant.into_iter().map(|status| self.one(status)).collect()
    }

    fn one(&self, status: &Status) -> Outcome {
        let name = status.name.clone();
        let by = Requester::Srvctl;
        let request = match self.verb {
            Verb::Status => return Outcome::Done(self.status(status)),
            Verb::Config => return Outcome::Done(config(status)),
            Verb::Start => Request::Start { name, by },
            Verb::Stop => Request::Stop { name, by },
            Verb::Enable => Request::Enable { name },
            Verb::Disable => Request::Disable { name },
        };
        if let Some(refusal) = self.refused(status) {
            return Outcome::Failed(refusal);
        }
        match control::call::<Status>(&socket(), &request) {
            Ok(_) => Outcome::Done(String::new()),
            Err(CallError::Refused(failure)) => explain(status, &failure),
            Err(error) => Outcome::Failed(unreachable(&error)),
        }
    }

    /// What Clusterware says to a caller whom the resource's ACL doesn't allow
    /// this.
    fn refused(&self, status: &Status) -> Option<String> {
        let (needed, what) = match self.verb {
            Verb::Status | Verb::Config => return None,
            Verb::Start => ('x', "PRCR-1013 : Failed to start resource"),
            Verb::Stop => ('x', "PRCR-1014 : Failed to stop resource"),
            Verb::Enable => ('w', "PRCR-1011 : Failed to enable resource"),
            Verb::Disable => ('w', "PRCR-1012 : Failed to disable resource"),
        };
        let arranged = &status.arranged;
        let caller = match &arranged.caller {
            Some(caller) => Caller::named(caller),
            None => Caller::of_this_process(),
        };
        let acl = arranged.acl.as_ref()?;
        (!caller.may(acl, needed)).then(|| {
            format!(
                "{what} {}\nCRS-0245:  User doesn't have enough privilege to perform the operation\n",
                resource(&status.name)
            )
        })
    }

    fn status(&self, status: &Status) -> String {
        let name = &status.name;
        let enabled = if status.enabled {
            "enabled"
        } else {
            "disabled"
        };
        match (self.scan, status.running) {
            (true, true) => format!(
                "SCAN Listener {name} is {enabled}\nSCAN listener {name} is running on node {}\n",
                status.host
            ),
            (true, false) => {
                format!("SCAN Listener {name} is {enabled}\nSCAN listener {name} is not running\n")
            }
            (false, true) => format!(
                "Listener {name} is {enabled}\nListener {name} is running on node(s): {}\n",
                status.host
            ),
            (false, false) => {
                format!("Listener {name} is {enabled}\nListener {name} is not running\n")
            }
        }
    }
}

fn config(status: &Status) -> String {
    let enabled = if status.enabled {
        "enabled"
    } else {
        "disabled"
    };
    format!(
        "Name: {}\nType: Database Listener\nNetwork: 1, Owner: grid\nHome: <CRS home>\n\
         End points: TCP:{}\nListener is {enabled}.\n\
         Listener is individually enabled on nodes: {}\n\
         Listener is individually disabled on nodes: {}\n",
        status.name,
        status.port,
        if status.enabled { &status.host } else { "" },
        if status.enabled { "" } else { &status.host },
    )
}

fn explain(status: &Status, failure: &Failure) -> Outcome {
    let (name, node, resource) = (&status.name, &status.host, resource(&status.name));
    let warned = |cluster: &str, code: &str, state: &str| {
        Outcome::Warned(format!(
            "{cluster}\n{code} : Resource {resource} is already {state}\n"
        ))
    };
    match failure.kind.as_str() {
        "already_running" => warned(
            &format!("PRCC-1014 : {name} was already running"),
            "PRCR-1004",
            "running",
        ),
        "not_running" => {
            let cluster = format!("PRCC-1017 : {name} was already stopped on {node}");
            warned(&cluster, "PRCR-1005", "stopped")
        }
        "already_enabled" => warned(
            &format!("PRCC-1010 : {name} was already enabled"),
            "PRCR-1002",
            "enabled",
        ),
        "already_disabled" => warned(
            &format!("PRCC-1009 : {name} was already disabled"),
            "PRCR-1003",
            "disabled",
        ),
        "disabled" => Outcome::Failed(format!(
            "PRCR-1079 : Failed to start resource {resource}\nCRS-2501: Resource '{resource}' is disabled\n"
        )),
        _ => Outcome::Failed(format!(
            "PRCR-1079 : Failed to start resource {resource}\nCRS-2674: Start of '{resource}' on '{node}' failed: {failure}\n"
        )),
    }
}

fn resource(name: &str) -> String {
    format!("ora.{}.lsnr", name.to_uppercase())
}

fn usage(problem: &str) -> String {
    format!(
        "PRKO-2001 : Invalid command line syntax: {problem}\n\
         Usage: srvctl status|config|start|stop|enable|disable listener [-listener NAME] [-node NODE]\n\
         \x20      srvctl status|config|start|stop|enable|disable scan_listener [-scannumber N] [-node NODE]\n"
    )
}

fn unreachable(error: &CallError) -> String {
    let cause = std::error::Error::source(error).map(|source| format!(": {source}"));
    format!(
        "PRCR-1070 : Failed to check if the resource is registered\n{error}{}\n",
        cause.unwrap_or_default()
    )
}

fn socket() -> PathBuf {
    let home = std::env::var_os("ORACLE_HOME")
        .map(PathBuf::from)
        .unwrap_or_default();
    home.join("dbs").join("control.sock")
}
