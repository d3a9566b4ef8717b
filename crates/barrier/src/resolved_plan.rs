//! What the barrier knows of a plan: who does what in which phase, and what
//! a failure leads to.

use crate::ids::{AgentName, Digest, Millis, StepId};
use crate::message::Mode;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A plan with its parties resolved to agents. Frozen when the run starts
/// (R21).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Outage {
    pub budget: Millis,
    /// The clock starts with this forward phase's release.
    pub starts_with: u32,
    /// And stops with this forward phase's completion.
    pub ends_with: u32,
    /// Kept free inside the budget for the rollback itself.
    pub rollback_reserve: Millis,
}

/// What stands before a release, besides the votes.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Gate {
    #[default]
    None,
    /// An operator's approval, bound to the plan's digest.
    Approval,
    /// A pause that any operator may end.
    Hold,
}

/// What a failed phase leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum OnFailure {
    /// The run waits for the operator.
    #[default]
    Hold,
    /// The run rolls back by itself, unless a task is `unknown` or the point
    /// of no return is passed: then it holds.
    Rollback,
    /// In a rollback only: the next phase is begun all the same, and the run
    /// holds at its end with the failure named. A DMS failure must not keep
    /// applications from Oracle.
    Continue,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct PhaseSpec {
    pub name: String,
    pub gate: Gate,
    /// How long a promise lives.
    pub start_by: Millis,
    /// How long tasks may run after the release.
    pub finish_by: Millis,
    /// What a failure leads to.
    pub on_failure: OnFailure,
    /// Once its release is durable there is no automatic way back.
    pub point_of_no_return: bool,
    /// Its steps in order.
    pub steps: Vec<StepSpec>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct StepSpec {
    pub id: StepId,
    /// Who carries it out; never empty (R21).
    pub agents: Vec<AgentName>,
    /// Name of the action.
    pub action: String,
    pub mode: Mode,
    pub params: Value,
    /// Outputs of earlier steps that it consumes: `(step, output)`.
    pub inputs: Vec<(StepId, String)>,
    /// Limit for the action.
    pub timeout: Millis,
    /// It proves something; it can't be skipped (R20).
    pub proof: bool,
    /// Rollback may undo it.
    pub undoable: bool,
    /// It is a watch; disarmed before this forward phase is released.
    pub watch_until: Option<u32>,
    /// It looks and changes nothing: in the phase of the point of no return
    /// it opens no door. A layout of before this was told has no such step.
    #[serde(default)]
    pub read_only: bool,
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
