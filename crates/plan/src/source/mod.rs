//! The kinds of plan files, as people write them.
//!
//! These types are the published JSON Schema and nothing else: they say what
//! may be written. What it means is in [`crate::expand`], whether it makes
//! sense in [`crate::check`].

pub mod cutover;
pub mod plan;
pub mod restart;

use crate::catalogue::{CheckCommand, CheckHttp, CheckTcp};
use crate::duration::Duration;
use crate::model::Party;
use schemars::JsonSchema;
use serde::Deserialize;
use std::collections::BTreeMap;

/// Agents chosen by their labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Hosts {
    /// Labels that an agent must all carry, as in `[labels]` of its
    /// agent.toml.
    #[schemars(extend("minProperties" = 1))]
    pub labels: BTreeMap<String, String>,
    /// How many agents must match. A run starts with exactly that many.
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

/// One agent chosen by its labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Host {
    /// Labels that exactly one agent carries.
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

/// What tells that an application is well. All that is given must hold.
#[derive(Debug, Clone, Default, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Health {
    /// A health endpoint on the host.
    #[serde(default)]
    pub http: Option<CheckHttp>,
    /// A port that must answer.
    #[serde(default)]
    pub tcp: Option<CheckTcp>,
    /// A command that the agent's policy names.
    #[serde(default)]
    pub command: Option<CheckCommand>,
}

/// The budget of the write outage.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Budget {
    /// How long applications may be unable to write, a rollback included.
    pub budget: Duration,
    /// The part of it that a rollback needs. Measure it in a rehearsal.
    pub rollback_reserve: Duration,
}
