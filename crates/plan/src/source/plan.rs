//! `kind: Plan`: explicit parties, phases and steps.

use crate::duration::Duration;
use crate::model::{Gate, Party};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A plan of phases and steps. Its rollback is derived: the undo of every
/// undoable step, in reverse order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// `Plan`.
    pub kind: String,
    /// Name of the plan: lowercase letters, digits and hyphens.
    pub name: String,
    /// Variables, used as `${vars.NAME}`. One without a value must be given
    /// with --var.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// The parties, by name.
    pub parties: BTreeMap<String, PartySource>,
    /// The phases, in order, separated by barriers.
    #[schemars(length(min = 1))]
    pub phases: Vec<PhaseSource>,
    /// The budget of the outage, if the plan causes one.
    #[serde(default)]
    pub outage: Option<OutageSource>,
}

/// Agents selected by labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartySource {
    /// Labels that an agent must have, all of them.
    pub labels: BTreeMap<String, String>,
    /// Number of agents that must match.
    pub expected: u32,
    /// A rollback may continue without a lost agent of this party.
    #[serde(default)]
    pub detachable: bool,
}

impl From<&PartySource> for Party {
    fn from(source: &PartySource) -> Self {
        Self {
            labels: source.labels.clone(),
            expected: source.expected,
            detachable: source.detachable,
        }
    }
}

/// The work between two barriers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhaseSource {
    /// Name, unique in the plan.
    pub name: String,
    /// Runbook steps that the phase implements.
    #[serde(default)]
    pub runbook_steps: Vec<String>,
    /// Condition that must be met before the phase is prepared.
    #[serde(default)]
    pub gate: Gate,
    /// Lifetime of a promise to start; 60s by default.
    #[serde(default)]
    pub start_by: Option<Duration>,
    /// Deadline of the phase; by default the time that its steps may take.
    #[serde(default)]
    pub finish_by: Option<Duration>,
    /// Reaction to a failure; hold by default.
    #[serde(default)]
    pub on_failure: FailurePolicy,
    /// No rollback is possible after the release of this phase.
    #[serde(default)]
    pub point_of_no_return: bool,
    /// The steps; each agent runs its own in this order, agents run concurrently.
    #[schemars(length(min = 1))]
    pub steps: Vec<StepSource>,
}

/// Reaction to the failure of a phase.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailurePolicy {
    /// Wait for the operator.
    #[default]
    Hold,
    /// Roll back immediately.
    Rollback,
}

/// One action for one party.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSource {
    /// Name, unique in the plan.
    pub id: String,
    /// Party whose agents each run the step.
    pub party: String,
    /// Name of the action.
    pub action: String,
    /// The action's parameters.
    #[serde(default)]
    pub params: Option<Value>,
    /// Time limit for one agent; by default derived from the limits in the
    /// parameters.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// It proves something that later phases rely on: it cannot be skipped or
    /// waived, and a breach of a watch makes it be repeated.
    #[serde(default)]
    pub proof: bool,
    /// Later phases rely on the state that it reaches, so it cannot be skipped or
    /// waived.
    #[serde(default)]
    pub required: bool,
    /// Whether a rollback undoes the step; by default if the action has an undo.
    #[serde(default)]
    pub undo: Option<bool>,
    /// For a watch: the phase whose release ends it.
    #[serde(default)]
    pub watch_until: Option<String>,
}

/// The budget of an outage, and the phases that start and end it.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutageSource {
    /// Longest duration of the outage, including a rollback.
    pub budget: Duration,
    /// The part of it that a rollback needs.
    pub rollback_reserve: Duration,
    /// The outage begins with the release of this phase.
    pub starts_with: String,
    /// It ends with the completion of this phase.
    pub ends_with: String,
}
