//! The expanded plan: what is digested, approved, sent and run.
//!
//! Its canonical form is JSON. Every kind of plan file ends up as this one
//! type, the only one that the coordinator and the agents use. It contains no
//! credentials, no SQL and no commands, only names of actions and of resources.
//!
//! The consistency of a plan is verified in [`crate::check`].

use crate::reference::{self, AgentFacts, Reference, ReferenceError};
pub use lockstep_api::{Gate, OnFailure};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Version of the expanded plan's format. A reader rejects unknown versions, so
/// an old daemon never runs part of a new plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, JsonSchema)]
#[serde(transparent)]
pub struct FormatVersion(u32);

impl FormatVersion {
    /// The version that this crate writes.
    pub const CURRENT: Self = Self(1);

    /// The number.
    pub fn number(self) -> u32 {
        self.0
    }
}

impl<'de> Deserialize<'de> for FormatVersion {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let number = u32::deserialize(deserializer)?;
        if number == Self::CURRENT.0 {
            Ok(Self(number))
        } else {
            Err(serde::de::Error::custom(format_args!(
                "unknown plan format {number}; this version reads format {}",
                Self::CURRENT.0
            )))
        }
    }
}

/// The kind of file that a plan was made from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
pub enum Kind {
    /// Oracle to PostgreSQL, by the standard phases.
    Cutover,
    /// Restart of a fleet.
    Restart,
    /// Explicit phases and steps.
    Plan,
}

impl Kind {
    pub(crate) const ALL: [Self; 3] = [Self::Cutover, Self::Restart, Self::Plan];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Cutover => "Cutover",
            Self::Restart => "Restart",
            Self::Plan => "Plan",
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A checked plan with all defaults filled in.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this format.
    pub format: FormatVersion,
    /// Name of the plan.
    pub name: String,
    /// Kind of the file it was expanded from.
    pub kind: Kind,
    /// The parties, by name.
    pub parties: BTreeMap<String, Party>,
    /// The forward phases, in order. No agent starts a phase before all agents
    /// have finished the previous one.
    pub phases: Vec<Phase>,
    /// The rollback phases, in execution order. An undo whose forward step was
    /// never released finds nothing to undo.
    pub rollback: Vec<Phase>,
    /// The budget of the write outage, if the plan has one.
    #[serde(default)]
    pub outage: Option<Outage>,
}

/// A set of agents chosen by labels.
///
/// An agent may belong to several parties (the lead Oracle host is also one of
/// the Oracle hosts). Its tasks in a phase still run in the order of the phase's
/// steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Labels that an agent must have, all of them.
    pub labels: BTreeMap<String, String>,
    /// Number of agents that must match, at least 1. A run with any other
    /// number is rejected at its start.
    pub expected: u32,
    /// A rollback may continue without a lost agent of this party; the agent's
    /// undo is then outstanding.
    pub detachable: bool,
}

/// Limit on the time during which applications cannot write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// The whole budget in milliseconds, including a rollback.
    pub budget_ms: u64,
    /// The outage begins with the release of this phase.
    pub starts_with: String,
    /// It ends with the completion of this phase.
    pub ends_with: String,
    /// The part reserved for a rollback, in milliseconds. The run rolls back
    /// when `budget_ms` less this reserve has passed before the point of no
    /// return.
    pub rollback_reserve_ms: u64,
}

/// The work between two barriers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Name, unique among the forward and rollback phases.
    pub name: String,
    /// The standard phase that this one is a part of: `final-changes` for
    /// `final-changes.arrived`. Otherwise its own name.
    pub standard: String,
    /// Runbook steps that the phase implements, `1` to `10.2`.
    #[serde(default)]
    pub runbook_steps: Vec<String>,
    /// Condition that must be met before the phase is prepared.
    #[serde(default)]
    pub gate: Gate,
    /// Lifetime of a promise: a task must start within this time after Prepare,
    /// in milliseconds.
    pub start_by_ms: u64,
    /// Deadline for the tasks, in milliseconds after the release.
    pub finish_by_ms: u64,
    /// Reaction to a failure.
    pub on_failure: OnFailure,
    /// The durable release of this phase passes the point of no return.
    #[serde(default)]
    pub point_of_no_return: bool,
    /// The steps; each agent runs its own in this order, agents run concurrently.
    pub steps: Vec<Step>,
}

/// One action for one party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name, unique among the forward and rollback phases.
    pub id: String,
    /// Party whose agents each run the step.
    pub party: String,
    /// Name of the action, as in [`crate::catalogue`].
    pub action: String,
    /// Whether the step executes its action or undoes another step.
    #[serde(default)]
    pub mode: Mode,
    /// The action's parameters; text in them may hold `${step.output}`,
    /// `${agent.name}` and `${agent.labels.KEY}`.
    pub params: Value,
    /// Time limit of one agent's task, in milliseconds.
    pub timeout_ms: u64,
    /// It proves something that later phases rely on: it cannot be skipped or
    /// waived, and a breach of a watch makes it be repeated.
    #[serde(default)]
    pub proof: bool,
    /// Later phases rely on the state that it reaches, so it cannot be skipped or
    /// waived.
    #[serde(default)]
    pub required: bool,
    /// The action changes something that its undo restores.
    #[serde(default)]
    pub undoable: bool,
    /// For a watch: the phase whose release disarms it. A rollback disarms
    /// every watch before its first release.
    #[serde(default)]
    pub watch_until: Option<String>,
}

/// Whether a step executes its action or undoes another step.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mode {
    /// Execute the action.
    #[default]
    Execute,
    /// Restore the before-image of a forward step.
    Undo {
        /// Id of that step.
        of: String,
    },
}

impl Plan {
    /// The forward or rollback phase with this name.
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases
            .iter()
            .chain(&self.rollback)
            .find(|phase| phase.name == name)
    }

    /// The forward or rollback step with this id.
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.phases
            .iter()
            .chain(&self.rollback)
            .flat_map(|phase| &phase.steps)
            .find(|step| step.id == id)
    }

    /// The forward step that `undo` undoes; none if it executes its action.
    pub fn undone_by(&self, undo: &Step) -> Option<&Step> {
        match &undo.mode {
            Mode::Execute => None,
            Mode::Undo { of } => self.step(of),
        }
    }

    /// The phase whose durable release passes the point of no return.
    pub fn point_of_no_return(&self) -> Option<&Phase> {
        self.phases.iter().find(|phase| phase.point_of_no_return)
    }
}

impl Party {
    /// Whether an agent with these labels belongs to the party.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.labels
            .iter()
            .all(|(key, value)| labels.get(key) == Some(value))
    }
}

impl Step {
    /// The outputs of other steps that this one consumes, without duplicates,
    /// in order of appearance.
    pub fn inputs(&self) -> Vec<Reference> {
        reference::outputs_in(&self.params)
    }

    /// The parameters for one agent with every `${…}` replaced.
    ///
    /// Text that consists of a single reference becomes the value itself, of any
    /// type; inside longer text the value must be text or a number.
    ///
    /// # Errors
    /// An output missing from `outputs`, a label that the agent lacks, or a
    /// list or object inside text.
    pub fn resolve(
        &self,
        outputs: &BTreeMap<Reference, Value>,
        agent: AgentFacts<'_>,
    ) -> Result<Value, ReferenceError> {
        reference::resolve(&self.params, outputs, agent)
    }
}
