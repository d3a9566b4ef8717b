//! The listeners of this host, controlled by `lsnrctl` or by Clusterware.

use crate::action::{ActionError, Context};
use crate::config::{ListenerControl, OracleConfig};
use crate::host::lsnrctl::Reach;
use crate::host::oracle::Session;
use crate::host::srvctl::Listener;
use crate::host::{lsnrctl, srvctl};
use futures_util::{StreamExt as _, TryStreamExt as _, stream};
use lockstep_api::Code;
use lockstep_plan::catalogue::ListenerSelection;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// Clusterware's node name is the instance's host name without its domain.
const HOST_NAME_SQL: &str = "SELECT HOST_NAME FROM V$INSTANCE";

/// The kernel's host name.
const SYSTEM_NAME: &str = "/proc/sys/kernel/hostname";

/// Concurrent queries of listeners' states: each runs a program.
const AT_ONCE: usize = 4;

/// States by name, as an undo restores them.
pub type States = BTreeMap<String, State>;

/// State of a listener.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct State {
    pub up: bool,
    /// Whether Clusterware may start it; `None` without Clusterware.
    pub enabled: Option<bool>,
    /// It can't be reached from here, so it may be up. Only before a start.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub unreachable: bool,
}

impl State {
    /// Down, and not started again by Clusterware.
    pub fn is_closed(self) -> bool {
        !self.up && self.enabled != Some(true)
    }

    /// Up, and restarted by Clusterware if there is one.
    pub fn is_open(self) -> bool {
        self.up && self.enabled != Some(false)
    }
}

/// The listeners in the configuration of a resource.
pub struct Listeners {
    config: OracleConfig,
    node: String,
}

async fn instance_host(cx: &Context, resource: &str) -> Result<String, ActionError> {
    let session = Session::open(cx, resource).await?;
    Ok(session.row(HOST_NAME_SQL, &[]).await?)
}

impl Listeners {
    /// Reads the configuration and, for Clusterware, the node name.
    ///
    /// # Errors
    /// If the resource is not configured, or the node name can't be determined.
    pub async fn of(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        let config = cx.host.oracle(resource)?.clone();
        let node = match config.control {
            ListenerControl::Lsnrctl => String::new(),
            ListenerControl::Srvctl => {
                let host = match instance_host(cx, resource).await {
                    Ok(host) => host,
                    // Without the instance the system's host name is used: a
                    // listener must be startable while the instance is down.
                    Err(e) => std::fs::read_to_string(SYSTEM_NAME).map_err(|_| e)?,
                };
                host.trim().split('.').next().unwrap_or_default().to_owned()
            }
        };
        Ok(Self { config, node })
    }

    pub fn clustered(&self) -> bool {
        self.config.control == ListenerControl::Srvctl
    }

    pub fn config(&self) -> &OracleConfig {
        &self.config
    }

    /// The configured listeners except those in `keep`.
    pub fn except(&self, keep: &[String]) -> Vec<String> {
        let all = self.config.listeners.iter();
        all.chain(&self.config.scan_listeners)
            .filter(|name| !keep.contains(name))
            .cloned()
            .collect()
    }

    /// The listeners that the parameters select.
    ///
    /// # Errors
    /// If one of them is not configured: the agent's configuration determines
    /// what it may stop.
    pub fn meant(&self, params: &ListenerSelection) -> Result<Vec<String>, ActionError> {
        let all = self.except(&params.keep);
        if params.listeners.is_empty() {
            return Ok(all);
        }
        let wanted = params.listeners.iter();
        let wanted: Vec<String> = wanted
            .filter(|name| !params.keep.contains(name))
            .cloned()
            .collect();
        match wanted.iter().find(|name| !all.contains(name)) {
            None => Ok(wanted),
            Some(unknown) => Err(ActionError::new(
                Code::LS2210,
                format!(
                    "this agent knows no listener {unknown} of {}",
                    params.resource
                ),
            )
            .state_left("nothing was done")
            .remedy(format!(
                "name it in oracle.{}.listeners in agent.toml, or correct the plan",
                params.resource
            ))),
        }
    }

    /// # Errors
    /// If the listener control tool reports no state.
    pub async fn state(&self, cx: &Context, name: &str) -> Result<State, ActionError> {
        if self.clustered() {
            let state = srvctl::state(cx, &self.config, self.named(name)).await?;
            return Ok(State {
                up: state.up,
                enabled: Some(state.enabled),
                unreachable: false,
            });
        }
        Ok(State {
            up: lsnrctl::is_up(cx, &self.config, name).await?,
            enabled: None,
            unreachable: false,
        })
    }

    /// The state as a start needs it: a listener that can't be reached is started.
    /// For a stop that would be no proof.
    ///
    /// # Errors
    /// If the listener control tool reports no state.
    pub async fn state_for_start(&self, cx: &Context, name: &str) -> Result<State, ActionError> {
        if self.clustered() {
            return self.state(cx, name).await;
        }
        let reach = lsnrctl::reachability(cx, &self.config, name).await?;
        Ok(State {
            up: reach == Reach::Up,
            enabled: None,
            unreachable: reach == Reach::Unreachable,
        })
    }

    /// # Errors
    /// If the listener control tool reports no state for one of them.
    pub async fn states(&self, cx: &Context, names: &[String]) -> Result<States, ActionError> {
        let read_only = names.iter().cloned().map(|name| async move {
            let state = self.state(cx, &name).await?;
            Ok((name, state))
        });
        stream::iter(read_only)
            .buffered(AT_ONCE)
            .try_collect()
            .await
    }

    /// Stops a listener; under Clusterware it is disabled first, otherwise
    /// Clusterware would restart it.
    ///
    /// # Errors
    /// If it can't be stopped, or is up afterwards.
    pub async fn close(&self, cx: &Context, name: &str) -> Result<(), ActionError> {
        let stopped = if self.clustered() {
            self.set_enabled(cx, name, false).await?;
            srvctl::stop(cx, &self.config, self.named(name)).await?
        } else {
            lsnrctl::stop(cx, &self.config, name).await?
        };
        if stopped {
            cx.effect(format!("{name}: stopped"));
        }
        if self.state(cx, name).await?.is_closed() {
            return Ok(());
        }
        Err(ActionError::new(
            Code::LS2213,
            format!("the listener {name} is up again after its stop"),
        )
        .state_left("it accepts connections")
        .remedy("see what started it (Clusterware, a script, a colleague), stop that, then retry"))
    }

    /// Enables (under Clusterware) and starts a listener.
    ///
    /// # Errors
    /// If it can't be started, or is down afterwards.
    pub async fn open(&self, cx: &Context, name: &str) -> Result<(), ActionError> {
        let started = if self.clustered() {
            self.set_enabled(cx, name, true).await?;
            srvctl::start(cx, &self.config, self.named(name)).await?
        } else {
            lsnrctl::start(cx, &self.config, name).await?
        };
        if started {
            cx.effect(format!("{name}: started"));
        }
        let state = self.state_for_start(cx, name).await?;
        if state.is_open() {
            return Ok(());
        }
        if state.unreachable {
            // The tool has said that it was started, or that it was up already.
            cx.note(format!(
                "{name} is started, but can't be reached from this host: check its addresses"
            ));
            return Ok(());
        }
        Err(ActionError::new(
            Code::LS2214,
            format!("the listener {name} is not up after its start"),
        )
        .state_left("it refuses connections")
        .remedy("see its log, then retry"))
    }

    /// Allows Clusterware to start a listener, or prevents it.
    ///
    /// # Errors
    /// If `srvctl` fails.
    pub async fn set_enabled(
        &self,
        cx: &Context,
        name: &str,
        enabled: bool,
    ) -> Result<(), ActionError> {
        if srvctl::set_enabled(cx, &self.config, self.named(name), enabled).await? {
            let verb = if enabled { "enabled" } else { "disabled" };
            cx.effect(format!("{name}: {verb}"));
        }
        Ok(())
    }

    /// The commands of [`Self::close`], for people.
    pub fn closing(&self, name: &str) -> Vec<String> {
        if self.clustered() {
            ["disable", "stop"]
                .map(|verb| format!("srvctl {verb} listener {name} on {}", self.node))
                .into()
        } else {
            vec![format!("lsnrctl stop {name}")]
        }
    }

    /// The commands of [`Self::open`], for people.
    pub fn opening(&self, name: &str) -> Vec<String> {
        if self.clustered() {
            ["enable", "start"]
                .map(|verb| format!("srvctl {verb} listener {name} on {}", self.node))
                .into()
        } else {
            vec![format!("lsnrctl start {name}")]
        }
    }

    fn named<'a>(&'a self, name: &'a str) -> Listener<'a> {
        Listener {
            name,
            node: &self.node,
        }
    }
}
