//! The parts of a plan that the barrier uses: phases, steps, their agents, and
//! the failure policy.

use crate::ids::{AgentName, Digest, Millis, StepId};
use crate::message::Mode;
pub use lockstep_api::{Gate, OnFailure};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A plan with its parties resolved to agents. Frozen when the run starts
/// (R21).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ResolvedPlan {
    pub digest: Digest,
    pub forward: Vec<PhaseSpec>,
    /// The rollback plan's phases.
    pub rollback: Vec<PhaseSpec>,
    /// Agents whose absence does not hold a rollback (R18).
    pub detachable: BTreeSet<AgentName>,
    /// The write outage's budget.
    pub outage: Option<Outage>,
}

/// How long applications may be without a writable database.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    pub budget: Millis,
    /// The clock starts with this forward phase's release.
    pub starts_with: u32,
    /// The clock stops with this forward phase's completion.
    pub ends_with: u32,
    /// Part of the budget reserved for the rollback.
    pub rollback_reserve: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PhaseSpec {
    pub name: String,
    pub gate: Gate,
    /// Lifetime of a promise.
    pub start_by: Millis,
    /// How long tasks may run after the release.
    pub finish_by: Millis,
    pub on_failure: OnFailure,
    /// Once its release is durable, the run does not roll back automatically.
    pub point_of_no_return: bool,
    /// Its steps in order.
    pub steps: Vec<StepSpec>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct StepSpec {
    pub id: StepId,
    /// The agents that run it; never empty (R21).
    pub agents: Vec<AgentName>,
    pub action: String,
    pub mode: Mode,
    pub params: Value,
    /// Outputs of earlier steps that it consumes: `(step, output)`.
    pub inputs: Vec<(StepId, String)>,
    /// Limit for the action.
    pub timeout: Millis,
    /// It verifies a precondition and can't be skipped (R20).
    pub proof: bool,
    /// Later phases rely on the state that it reaches, so it can be neither
    /// skipped nor waived (R20). Unlike a proof it isn't repeated after a breach.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub required: bool,
    /// Rollback may undo it.
    pub undoable: bool,
    /// It is a watch, which is disarmed before this forward phase is released.
    pub watch_until: Option<u32>,
    /// It changes nothing, so in the phase of the point of no return it doesn't
    /// count as opening access.
    pub read_only: bool,
}

impl StepSpec {
    /// Only its own success counts: what it proves or watches can't be replaced by
    /// an operator's decision (R20).
    pub fn proves(&self) -> bool {
        self.proof || self.is_watch()
    }

    pub fn is_watch(&self) -> bool {
        self.watch_until.is_some() && self.mode == Mode::Execute
    }
}

impl ResolvedPlan {
    /// Every agent that has a task in either track.
    pub fn agents(&self) -> BTreeSet<AgentName> {
        self.forward
            .iter()
            .chain(&self.rollback)
            .flat_map(|phase| &phase.steps)
            .flat_map(|step| step.agents.iter().cloned())
            .collect()
    }
}

/// Outputs of steps, as releases carry them.
pub type Outputs = BTreeMap<String, Value>;
