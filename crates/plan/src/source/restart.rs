//! `kind: Restart`: stop a fleet everywhere, then start it everywhere.

use super::{Health, Host, Hosts};
use crate::duration::Duration;
use crate::source::plan::FailurePolicy;
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A restart of the same units on many hosts.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Restart {
    /// `Restart`.
    pub kind: String,
    /// Name of the plan: lowercase letters, digits and hyphens.
    pub name: String,
    /// Variables, used as `${vars.NAME}`.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// The hosts to restart.
    pub hosts: Hosts,
    /// One of these hosts, which starts first and must be healthy before the
    /// others start.
    #[serde(default)]
    pub canary: Option<Host>,
    /// systemd units with suffix, in the order of stopping.
    #[schemars(length(min = 1))]
    pub units: Vec<String>,
    /// Order in which hosts are restarted.
    #[serde(default)]
    pub strategy: Strategy,
    /// Time limit for stopping or starting one unit; 60s by default.
    #[serde(default)]
    pub unit_timeout: Option<Duration>,
    /// Health checks of a host, run before anything is stopped and after the
    /// start.
    #[serde(default)]
    pub health: Health,
    /// Require approval by an operator before stopping.
    #[serde(default)]
    pub approval: bool,
    /// Reaction to a failure; hold by default.
    #[serde(default)]
    pub on_failure: FailurePolicy,
}

/// How a fleet is restarted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Stop everywhere, then, after a barrier, start everywhere.
    #[default]
    AllAtOnce,
    /// In batches; not supported by this version.
    Rolling,
}
