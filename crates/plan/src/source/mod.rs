//! The kinds of plan files.
//!
//! These types define the published JSON Schema. Their meaning is defined in
//! [`crate::expand`], their consistency checked in [`crate::check`].

pub mod cutover;
pub mod plan;
pub mod restart;

use crate::catalogue::{CheckCommand, CheckHttp, CheckTcp};
use crate::duration::Duration;
use crate::model::Party;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Agents selected by labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// Labels that an agent must have, all of them, as in `[labels]` of its
    /// agent.toml.
    #[schemars(extend("minProperties" = 1))]
    pub labels: BTreeMap<String, String>,
    /// Number of agents that must match; a run starts only with exactly this
    /// number.
    #[schemars(range(min = 1))]
    pub expected: u32,
}

impl Hosts {
    pub(crate) fn party(&self, detachable: bool) -> Party {
        Party {
            labels: self.labels.clone(),
            expected: self.expected,
            detachable,
        }
    }
}

/// One agent selected by labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Labels that exactly one agent has.
    #[schemars(extend("minProperties" = 1))]
    pub labels: BTreeMap<String, String>,
}

impl Host {
    pub(crate) fn party(&self, detachable: bool) -> Party {
        Party {
            labels: self.labels.clone(),
            expected: 1,
            detachable,
        }
    }
}

/// Health checks of an application. All that are given must pass.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A health endpoint on the host.
    #[serde(default)]
    pub http: Option<CheckHttp>,
    /// A port that must accept connections.
    #[serde(default)]
    pub tcp: Option<CheckTcp>,
    /// A command defined in the agent's policy.
    #[serde(default)]
    pub command: Option<CheckCommand>,
}

/// The budget of the write outage.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// Longest time during which applications cannot write, including a rollback.
    pub budget: Duration,
    /// The part of it that a rollback needs. Measure it in a rehearsal.
    pub rollback_reserve: Duration,
}
