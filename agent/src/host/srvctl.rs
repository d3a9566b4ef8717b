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

/// `Invalid command line option`: under Oracle Restart srvctl has no `-node`
/// ("SRVCTL does not accept the -node parameter when run from a noncluster
/// database home", Oracle Real Application Clusters Administration and
/// Deployment Guide, "SRVCTL Command Reference"). The command line is checked
/// before anything is done.
const INVALID_OPTION: &str = "PRKO-2002";

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
    /// The number of a SCAN listener.
    ///
    /// # Errors
    /// If more than a number follows, as in LISTENER_SCAN1_NET2: SCAN listeners
    /// of a further network are numbered anew, and whether `-netnum` and
    /// `-scannumber` may be combined differs by verb and release.
    fn scan_number(&self) -> Result<Option<&'a str>, ActionError> {
        let Some((prefix, number)) = self.name.split_at_checked(SCAN.len()) else {
            return Ok(None);
        };
        if !prefix.eq_ignore_ascii_case(SCAN) {
            return Ok(None);
        }
        if !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()) {
            return Ok(Some(number));
        }
        Err(ActionError::new(
            Code::LS2210,
            format!(
                "{} is not the name of a SCAN listener of the first network",
                self.name
            ),
        )
        .state_left("nothing was done")
        .remedy(format!(
            "name SCAN listeners as {SCAN}1 in agent.toml; the agent can't control those of a \
             further network (…_NET2): remove them there and stop them by hand"
        )))
    }

    fn arguments(&self, verb: &'a str) -> Result<Vec<&'a str>, ActionError> {
        Ok(match self.scan_number()? {
            Some(number) => vec![verb, "scan_listener", "-scannumber", number],
            None => vec![verb, "listener", "-listener", self.name, "-node", self.node],
        })
    }
}

/// Whether srvctl refused the command line for its option `-node`. A cluster's
/// never does, so that the command without it can't apply to other nodes.
fn refuses_node(ended: &Ended) -> bool {
    ended.code != Some(0)
        && ended.lines.iter().any(|line| {
            line.contains(INVALID_OPTION) && line.split_whitespace().any(|word| word == "-node")
        })
}

async fn call(
    cx: &Context,
    oracle: &OracleConfig,
    listener: Listener<'_>,
    verb: &str,
) -> Result<Ended, ActionError> {
    let mut arguments = listener.arguments(verb)?;
    let tool = Tool::of(oracle, "srvctl");
    let mut ended = run(cx, &tool.program(arguments.clone(), LIMIT)).await?;
    if refuses_node(&ended)
        && let Some(at) = arguments.iter().position(|argument| *argument == "-node")
    {
        arguments.truncate(at);
        ended = run(cx, &tool.program(arguments.clone(), LIMIT)).await?;
    }
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
    let ended = call(&quiet, oracle, listener, "status").await?;
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
            listener
                .name
                .get(..SCAN.len())
                .is_some_and(|prefix| prefix.eq_ignore_ascii_case(SCAN))
                || running
                    .rsplit(':')
                    .next()
                    .unwrap_or("")
                    .split(',')
                    .any(|node| node.trim().eq_ignore_ascii_case(listener.node))
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

/// Whether the command found the resource in another state.
fn changed(ended: Ended) -> bool {
    ended.code == Some(0)
}

/// Stops the listener. Gives whether it was up.
///
/// # Errors
/// Where it doesn't stop.
pub async fn stop(
    cx: &Context,
    oracle: &OracleConfig,
    listener: Listener<'_>,
) -> Result<bool, ActionError> {
    call(cx, oracle, listener, "stop").await.map(changed)
}

/// Starts the listener. Gives whether it was down.
///
/// # Errors
/// Where it doesn't start.
pub async fn start(
    cx: &Context,
    oracle: &OracleConfig,
    listener: Listener<'_>,
) -> Result<bool, ActionError> {
    call(cx, oracle, listener, "start").await.map(changed)
}

/// Allows Clusterware to start the listener, or forbids it. Gives whether that
/// is a change.
///
/// # Errors
/// Where that can't be set.
pub async fn set_enabled(
    cx: &Context,
    oracle: &OracleConfig,
    listener: Listener<'_>,
    enabled: bool,
) -> Result<bool, ActionError> {
    let verb = if enabled { "enable" } else { "disable" };
    call(cx, oracle, listener, verb).await.map(changed)
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
        // Node names are lower case, whatever the system's host name.
        let capitals = Listener {
            node: "ORA-2",
            ..LOCAL
        };
        assert_eq!(read_state(up, capitals), state(true, true));
        assert_eq!(read_state("PRCR-1001 : no such resource", LOCAL), None);
    }

    #[test]
    fn scan_listeners_go_by_number_and_local_ones_by_node() {
        let scan = Listener {
            name: "LISTENER_SCAN2",
            node: "ora-2",
        };
        assert_eq!(
            scan.arguments("stop").unwrap(),
            ["stop", "scan_listener", "-scannumber", "2"]
        );
        assert_eq!(
            LOCAL.arguments("stop").unwrap(),
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

    #[test]
    fn a_scan_listener_of_another_network_is_refused() {
        for name in [
            "LISTENER_SCAN1_NET2",
            "LISTENER_SCAN",
            "listener_scan1_net2",
        ] {
            let scan = Listener { name, ..LOCAL };
            let error = scan.arguments("stop").unwrap_err();
            assert_eq!(error.code(), Code::LS2210, "{name}");
        }
        let lower = Listener {
            name: "listener_scan3",
            ..LOCAL
        };
        assert_eq!(lower.scan_number().unwrap(), Some("3"));
    }

    #[test]
    fn only_the_refusal_of_node_lets_it_be_left_out() {
        let ended = |code, line: &str| Ended {
            code: Some(code),
            lines: vec![line.to_owned()],
        };
        let refusal = "PRKO-2002 : Invalid command line option: -node";
        assert!(refuses_node(&ended(1, refusal)));
        for (code, line) in [
            (0, refusal),
            (1, "PRKO-2002 : Invalid command line option: -nodes"),
            (1, "PRKO-2001 : Invalid command line syntax"),
            (
                1,
                "Usage: srvctl stop listener [-listener NAME] [-node NODE]",
            ),
            (1, "PRKC-1056 : Failed to get the hostname for node -node"),
        ] {
            assert!(!refuses_node(&ended(code, line)), "{line}");
        }
    }
}
