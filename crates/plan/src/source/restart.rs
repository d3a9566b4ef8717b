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
    /// Name of the plan: small letters, digits and hyphens.
    pub name: String,
    /// Variables, used as `${vars.NAME}`.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// The fleet.
    pub hosts: Hosts,
    /// One of them that starts first and must be well before the others
    /// start.
    #[serde(default)]
    pub canary: Option<Host>,
    /// systemd units with suffix, in the order of stopping.
    #[schemars(length(min = 1))]
    pub units: Vec<String>,
    /// How.
    #[serde(default)]
    pub strategy: Strategy,
    /// How long one unit may take to stop or start; 60s if left out.
    #[serde(default)]
    pub unit_timeout: Option<Duration>,
    /// What tells that a host is well; asked before anything is stopped and
    /// after the start.
    #[serde(default)]
    pub health: Health,
    /// Ask an operator before stopping.
    #[serde(default)]
    pub approval: bool,
    /// What a failure leads to; hold if left out.
    #[serde(default)]
    pub on_failure: FailurePolicy,
}

/// How a fleet is restarted.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Strategy {
    /// Stop everywhere; behind a barrier, start everywhere.
    #[default]
    AllAtOnce,
    /// In batches. Not in this version.
    Rolling,
}
