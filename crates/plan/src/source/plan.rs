//! `kind: Plan`: parties, phases and steps written out.

use crate::duration::Duration;
use crate::model::{Gate, Party};
use schemars::JsonSchema;
use serde::Deserialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// A plan of phases and steps. The way back is made from it: the undo of
/// every undoable step, in reverse order.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PlanFile {
    /// `Plan`.
    pub kind: String,
    /// Name of the plan: small letters, digits and hyphens.
    pub name: String,
    /// Variables, used as `${vars.NAME}`. One without a value must be given
    /// with --var.
    #[serde(default)]
    pub vars: BTreeMap<String, Value>,
    /// Who takes part.
    pub parties: BTreeMap<String, PartySource>,
    /// What happens, in order; a barrier stands between one phase and the
    /// next.
    #[schemars(length(min = 1))]
    pub phases: Vec<PhaseSource>,
    /// The budget of an outage, if the plan makes one.
    #[serde(default)]
    pub outage: Option<OutageSource>,
}

/// Agents chosen by their labels.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PartySource {
    /// Labels that an agent must all carry.
    pub labels: BTreeMap<String, String>,
    /// How many agents must match.
    pub expected: u32,
    /// A rollback may go on without a lost agent of this party.
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

/// What lies between two barriers.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct PhaseSource {
    /// Name, unique in the plan.
    pub name: String,
    /// Steps of the runbook that the phase carries out.
    #[serde(default)]
    pub runbook_steps: Vec<String>,
    /// What must happen before the phase is prepared.
    #[serde(default)]
    pub gate: Gate,
    /// How long a promise to start lives; 60s if left out.
    #[serde(default)]
    pub start_by: Option<Duration>,
    /// How long the phase may take; if left out, as long as its steps.
    #[serde(default)]
    pub finish_by: Option<Duration>,
    /// What a failure leads to; hold if left out.
    #[serde(default)]
    pub on_failure: FailurePolicy,
    /// With this phase's release the way back ends.
    #[serde(default)]
    pub point_of_no_return: bool,
    /// What is done: in order for each agent, agents side by side.
    #[schemars(length(min = 1))]
    pub steps: Vec<StepSource>,
}

/// What the failure of a phase leads to.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum FailurePolicy {
    /// Wait for the operator.
    #[default]
    Hold,
    /// Roll back at once.
    Rollback,
}

/// One action for one party.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StepSource {
    /// Name, unique in the plan.
    pub id: String,
    /// Party whose agents each do it.
    pub party: String,
    /// Name of the action.
    pub action: String,
    /// The action's parameters.
    #[serde(default)]
    pub params: Option<Value>,
    /// How long one agent may take; if left out, as long as the limits in
    /// its parameters.
    #[serde(default)]
    pub timeout: Option<Duration>,
    /// The step proves something that later phases rest on: it cannot be
    /// skipped.
    #[serde(default)]
    pub proof: bool,
    /// Whether a rollback undoes the step; if left out, whenever the action
    /// has an undo.
    #[serde(default)]
    pub undo: Option<bool>,
    /// For a watch: the phase with whose release it ends.
    #[serde(default)]
    pub watch_until: Option<String>,
}

/// The budget of an outage, and where it begins and ends.
#[derive(Debug, Clone, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OutageSource {
    /// How long the outage may last, a rollback included.
    pub budget: Duration,
    /// The part of it that a rollback needs.
    pub rollback_reserve: Duration,
    /// The outage begins with the release of this phase.
    pub starts_with: String,
    /// It ends with the completion of this phase.
    pub ends_with: String,
}
