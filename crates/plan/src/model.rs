//! The expanded plan: what is digested, approved, sent and run.
//!
//! Its canonical form is JSON. Every kind of plan file ends up as this one
//! type, so the coordinator and the agents know no other. The model says
//! what shall happen and in which order; it holds no credentials, no SQL and
//! no commands, only names of actions and of resources.
//!
//! Nothing here checks that a plan makes sense: that is the check.

use crate::reference::{self, AgentFacts, Reference, ReferenceError};
use schemars::JsonSchema;
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;

/// Version of the expanded plan's format. A reader refuses any it does not
/// know, so an old daemon never runs half of a new plan.
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
                "plan format {number} is not known here; this version reads format {}",
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
    /// A fleet restart.
    Restart,
    /// Phases and steps written out.
    Plan,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Cutover => "Cutover",
            Self::Restart => "Restart",
            Self::Plan => "Plan",
        })
    }
}

/// A checked plan with everything written out.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Plan {
    /// Version of this format.
    pub format: FormatVersion,
    /// Name that people give the plan.
    pub name: String,
    /// What it was made from.
    pub kind: Kind,
    /// Who takes part, by name of the party.
    pub parties: BTreeMap<String, Party>,
    /// The way forward, in order. Nobody starts a phase before everyone has
    /// finished the one before.
    pub phases: Vec<Phase>,
    /// The way back, in the order of running. Phases of the way forward that
    /// were never released have nothing to undo; their tasks find it so.
    pub rollback: Vec<Phase>,
    /// The budget of the write outage, if the plan has one.
    #[serde(default)]
    pub outage: Option<Outage>,
}

/// A set of agents chosen by labels.
///
/// An agent may belong to several parties (the Oracle host that leads is one
/// of all Oracle hosts). Its tasks in a phase still run in the order of the
/// phase's steps.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Party {
    /// Labels that an agent must all carry.
    pub labels: BTreeMap<String, String>,
    /// How many agents must match, at least 1. More or fewer is refused at
    /// the start of a run.
    pub expected: u32,
    /// A rollback may go on without a lost agent of this party; the agent
    /// then owes its undo.
    pub detachable: bool,
}

/// How long applications may be unable to write.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Outage {
    /// The whole budget in milliseconds, rollback included.
    pub budget_ms: u64,
    /// The outage begins with the release of this phase.
    pub starts_with: String,
    /// It ends with the completion of this phase.
    pub ends_with: String,
    /// What a rollback would need, in milliseconds. When `budget_ms` less
    /// this has passed before the point of no return, the run rolls back.
    pub rollback_reserve_ms: u64,
}

/// What lies between two barriers.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Phase {
    /// Name, unique in the plan (way forward and way back together).
    pub name: String,
    /// The standard phase that this one is a part of: `final-changes` for
    /// `final-changes.arrived`. Otherwise its own name.
    pub standard: String,
    /// Steps of the runbook that it carries out, `1` to `10.2`.
    #[serde(default)]
    pub runbook_steps: Vec<String>,
    /// What must happen before the phase is prepared.
    #[serde(default)]
    pub gate: Gate,
    /// How long a promise lives, in milliseconds: a task must start within
    /// that after Prepare.
    pub start_by_ms: u64,
    /// How long the tasks may take, in milliseconds after Prepare.
    pub finish_by_ms: u64,
    /// What a failure leads to.
    pub on_failure: OnFailure,
    /// With the durable release of this phase the point of no return is
    /// passed.
    #[serde(default)]
    pub point_of_no_return: bool,
    /// What is done, in order for each agent, agents side by side.
    pub steps: Vec<Step>,
}

/// What must happen before a phase is prepared.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum Gate {
    /// Nothing.
    #[default]
    None,
    /// An operator approves, naming the plan's digest.
    Approval,
    /// The run stops here until an operator resumes it.
    Hold,
}

/// What the failure of a phase leads to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
pub enum OnFailure {
    /// Wait for the operator.
    Hold,
    /// Roll back at once.
    Rollback,
    /// Go on with the next phase, and hold after the last one with the
    /// failure named. Only in a rollback: a DMS failure must not keep
    /// applications from Oracle.
    Continue,
}

/// One action for one party.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Step {
    /// Name, unique in the plan (way forward and way back together).
    pub id: String,
    /// Party whose agents each do it.
    pub party: String,
    /// Name of the action, as in [`crate::catalogue`].
    pub action: String,
    /// Forward, or back from what another step changed.
    #[serde(default)]
    pub mode: Mode,
    /// The action's parameters; text in them may hold `${step.output}`,
    /// `${agent.name}` and `${agent.labels.KEY}`.
    pub params: Value,
    /// How long one agent's task may take, in milliseconds.
    pub timeout_ms: u64,
    /// The step proves something that later phases rest on: it cannot be
    /// skipped.
    #[serde(default)]
    pub proof: bool,
    /// The action changes something that its undo restores.
    #[serde(default)]
    pub undoable: bool,
    /// The step is a watch: its task arrives as armed, and is disarmed
    /// when the phase named here is released. A rollback disarms every watch
    /// before its first release.
    #[serde(default)]
    pub watch_until: Option<String>,
}

/// Whether a step goes forward or back.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
pub enum Mode {
    /// Do it.
    #[default]
    Execute,
    /// Restore what a step of the way forward captured.
    Undo {
        /// Id of that step.
        of: String,
    },
}

impl Plan {
    /// The phase of that name, on the way forward or back.
    pub fn phase(&self, name: &str) -> Option<&Phase> {
        self.phases
            .iter()
            .chain(&self.rollback)
            .find(|phase| phase.name == name)
    }

    /// The step of that id, on the way forward or back.
    pub fn step(&self, id: &str) -> Option<&Step> {
        self.phases
            .iter()
            .chain(&self.rollback)
            .flat_map(|phase| &phase.steps)
            .find(|step| step.id == id)
    }

    /// The step that `undo` restores the state of; nothing for a step that
    /// goes forward.
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
    /// The outputs of other steps that this one consumes, each once, in
    /// order of appearance.
    pub fn inputs(&self) -> Vec<Reference> {
        reference::outputs_in(&self.params)
    }

    /// The parameters for one agent with every `${…}` replaced.
    ///
    /// Text that is one reference and nothing else becomes the value itself,
    /// whatever its type; a reference inside longer text must be text or a
    /// number.
    ///
    /// # Errors
    /// An output that `outputs` does not hold, a label that the agent lacks,
    /// a list or an object inside text.
    pub fn resolve(
        &self,
        outputs: &BTreeMap<Reference, Value>,
        agent: AgentFacts<'_>,
    ) -> Result<Value, ReferenceError> {
        reference::resolve(&self.params, outputs, agent)
    }
}
