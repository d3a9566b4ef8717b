//! `srvctl`: listeners under Clusterware.
//!
//! Clusterware restarts a stopped listener that is still enabled, so
//! enablement is part of a listener's state. Commands for a local listener
//! name one node; without `-node` they would apply to all. SCAN listeners
//! belong to the cluster and are identified by their number.

use super::command::{Ended, run};
use super::listener_tool::Tool;
use crate::config::OracleConfig;
use crate::error::ActionError;
use crate::host::context::{Context, Progress};
use lockstep_api::Code;
use std::time::Duration;

/// Clusterware checks a resource on all nodes; one that takes minutes hangs.
const LIMIT: Duration = Duration::from_secs(120);

/// Exit code where the resource was in the requested state already (PRCR-1002
/// to 1005).
const WAS_SO: i32 = 2;

/// Beginning of the names of SCAN listeners; a number follows.
const SCAN: &str = "LISTENER_SCAN";

/// State of a listener in Clusterware.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct State {
    /// It runs, on the given node.
    pub up: bool,
    /// Clusterware may start it.
    pub enabled: bool,
}

/// A listener on a node.
#[derive(Debug, Clone, Copy)]
pub struct Listener<'a> {
    pub name: &'a str,
    /// Ignored for a SCAN listener.
    pub node: &'a str,
}

impl<'a> Listener<'a> {
    fn arguments(&self, verb: &'a str) -> Vec<&'a str> {
        match self.name.strip_prefix(SCAN) {
            Some(number) => vec![verb, "scan_listener", "-scannumber", number],
            None => vec![verb, "listener", "-listener", self.name, "-node", self.node],
        }
    }
}

async fn call(
    cx: &Context,
    oracle: &OracleConfig,
    arguments: &[&str],
) -> Result<Ended, ActionError> {
    let tool = Tool::of(oracle, "srvctl");
    let ended = run(cx, &tool.program(arguments.to_vec(), LIMIT)).await?;
    if matches!(ended.code, Some(0 | WAS_SO)) {
        return Ok(ended);
    }
    let said = ended
        .lines
        .iter()
        .map(|line| line.trim())
        .find(|line| !line.is_empty())
        .unwrap_or("no message");
    Err(ActionError::new(
        Code::LS2211,
        format!("`srvctl {}` failed with {said}", arguments.join(" ")),
    )
    .state_left("the listener is as it was, as far as srvctl tells")
    .remedy(
        "run the command by hand as the owner of the listener's home, fix what it reports, then retry",
    ))
}

/// State of the listener.
///
/// # Errors
/// Where srvctl fails or its output isn't understood.
pub async fn state(
    cx: &Context,
    oracle: &OracleConfig,
    listener: Listener<'_>,
) -> Result<State, ActionError> {
    // Status is polled; its output is noise among the progress lines.
    let quiet = Context {
        progress: Progress::silent(),
        ..cx.clone()
    };
    let ended = call(&quiet, oracle, &listener.arguments("status")).await?;
    read_state(&ended.text(), listener).ok_or_else(|| {
        ActionError::new(
            Code::LS2212,
            format!("what srvctl says of {} is not understood", listener.name),
        )
        .state_left("nothing was changed")
        .remedy("compare `srvctl status listener` with what the documentation of the agent expects")
    })
}

fn read_state(text: &str, listener: Listener<'_>) -> Option<State> {
    let line = |what: &str| text.lines().find(|line| line.contains(what));
    let up = match (line("is running"), line("is not running")) {
        // A local listener may run on other nodes only.
        (Some(running), _) => {
            listener.name.starts_with(SCAN)
                || running
                    .rsplit(':')
                    .next()
                    .unwrap_or("")
                    .split(',')
                    .any(|node| node.trim() == listener.node)
        }
        (None, Some(_)) => false,
        (None, None) => return None,
    };
    let enabled = match (line("is enabled"), line("is disabled")) {
        (_, Some(_)) => false,
        (Some(_), None) => true,
        (None, None) => return None,
    };
    Some(State { up, enabled })
}

/// Stops the listener.
///
/// # Errors
/// Where it doesn't stop.
pub async fn stop(
    cx: &Context,
    oracle: &OracleConfig,
    listener: Listener<'_>,
) -> Result<(), ActionError> {
    call(cx, oracle, &listener.arguments("stop"))
        .await
        .map(drop)
}

/// Starts the listener.
///
/// # Errors
/// Where it doesn't start.
pub async fn start(
    cx: &Context,
    oracle: &OracleConfig,
    listener: Listener<'_>,
) -> Result<(), ActionError> {
    call(cx, oracle, &listener.arguments("start"))
        .await
        .map(drop)
}

/// Allows Clusterware to start the listener, or forbids it.
///
/// # Errors
/// Where that can't be set.
pub async fn set_enabled(
    cx: &Context,
    oracle: &OracleConfig,
    listener: Listener<'_>,
    enabled: bool,
) -> Result<(), ActionError> {
    let verb = if enabled { "enable" } else { "disable" };
    call(cx, oracle, &listener.arguments(verb)).await.map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    const LOCAL: Listener<'_> = Listener {
        name: "LISTENER",
        node: "ora-2",
    };

    #[test]
    fn states_are_read_for_the_node_meant() {
        let up =
            "Listener LISTENER is enabled\nListener LISTENER is running on node(s): ora-1,ora-2\n";
        let elsewhere =
            "Listener LISTENER is enabled\nListener LISTENER is running on node(s): ora-1\n";
        let down = "Listener LISTENER is disabled\nListener LISTENER is not running\n";
        let state = |up, enabled| Some(State { up, enabled });
        assert_eq!(read_state(up, LOCAL), state(true, true));
        assert_eq!(read_state(elsewhere, LOCAL), state(false, true));
        assert_eq!(read_state(down, LOCAL), state(false, false));
        assert_eq!(read_state("PRCR-1001 : no such resource", LOCAL), None);
    }

    #[test]
    fn scan_listeners_go_by_number_and_local_ones_by_node() {
        let scan = Listener {
            name: "LISTENER_SCAN2",
            node: "ora-2",
        };
        assert_eq!(
            scan.arguments("stop"),
            ["stop", "scan_listener", "-scannumber", "2"]
        );
        assert_eq!(
            LOCAL.arguments("stop"),
            [
                "stop",
                "listener",
                "-listener",
                "LISTENER",
                "-node",
                "ora-2"
            ]
        );
        let text = "SCAN Listener LISTENER_SCAN2 is enabled\nSCAN listener LISTENER_SCAN2 is running on node ora-1\n";
        assert_eq!(
            read_state(text, scan),
            Some(State {
                up: true,
                enabled: true
            })
        );
    }
}
