//! Messages between coordinator and participant.

use crate::ids::{AgentName, Decision, Header, JournalId, Millis, PhaseRef, RunId, StepId, Term};
use lockstep_api::Diagnosis;
pub use lockstep_api::Finding;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a task is to do.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode", deny_unknown_fields)]
pub enum Mode {
    Execute,
    /// Restore the before-image that this forward step captured.
    Undo {
        of: StepId,
    },
}

/// A task in an order. Action and parameters are opaque to the barrier.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskOrder {
    pub step: StepId,
    pub action: String,
    pub mode: Mode,
    /// Parameters, in which references to outputs of earlier steps are not yet
    /// resolved.
    pub params: Value,
    /// How long the action may take, in milliseconds.
    pub timeout: Millis,
    /// The action changes nothing.
    pub read_only: bool,
    /// The task is a watch: it ends as `armed` and keeps running afterwards
    /// (R16).
    pub watch: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Order {
    /// Check and probe the tasks, record a promise, and vote.
    Prepare {
        header: Header,
        /// Tasks in the order in which they run.
        tasks: Vec<TaskOrder>,
        /// Lifetime of the promise, in milliseconds (R12).
        start_by: Millis,
        /// Tasks are cancelled this many milliseconds after the release was
        /// recorded (R12).
        finish_by: Millis,
        /// Sent before the preceding phase is complete: the vote is void if the
        /// next decision is anything but that completion (R8).
        provisional: bool,
    },
    /// Start the tasks. No task starts without a release.
    Release {
        header: Header,
        /// Age of this agent's promise, in milliseconds, when the release was
        /// recorded; never more than it really was. From it and the time of its own
        /// promise the agent knows when the release was recorded, however late this
        /// message arrives, and counts `finish_by` from then (R12).
        promise_age: Millis,
        /// Outputs that the tasks consume, by producing step (R15).
        inputs: BTreeMap<StepId, BTreeMap<String, Value>>,
        /// For undo: before-images from the coordinator's journal, by forward
        /// step. Present only for an agent that has lost its own journal (R6,
        /// R10). They take precedence over that agent's new journal; `null`
        /// where the coordinator has no before-image either.
        before_images: BTreeMap<StepId, Value>,
    },
    /// Start no further task of the phase, and report the outcome of each.
    Revoke {
        header: Header,
        /// The run turns back: also cancel a running task that changes nothing,
        /// such as a wait, because its result has no use any more.
        cancel_read_only: bool,
    },
    /// Attest that the watch has seen no breach up to now (R17).
    Attest {
        header: Header,
        step: StepId,
        /// Returned in the attestation.
        nonce: u64,
    },
    /// Stop watching (R16).
    Disarm { header: Header, steps: Vec<StepId> },
    /// An outcome is durable at the coordinator; the agent need not resend it
    /// (R23).
    Ack {
        run: RunId,
        step: StepId,
        phase: PhaseRef,
        attempt: u32,
    },
    /// The run has ended; the agent may join another one (R19).
    Close {
        run: RunId,
        term: Term,
        decision: Decision,
    },
}

impl Order {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Prepare { .. } => "prepare",
            Self::Release { .. } => "release",
            Self::Revoke { .. } => "revoke",
            Self::Attest { .. } => "attest",
            Self::Disarm { .. } => "disarm",
            Self::Ack { .. } => "ack",
            Self::Close { .. } => "close",
        }
    }
}

/// Result of a probe.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Probe {
    pub finding: Finding,
    /// State before any change, for undo. `None` if the action changes nothing.
    pub before_image: Option<Value>,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Verdict {
    /// Every task can run, and the promise is durable.
    Ready { probes: BTreeMap<StepId, Probe> },
    /// A task can't run; nothing is promised.
    Refuse { reasons: Vec<Diagnosis> },
    /// The promise of this attempt has lapsed, was voided by a restart, or was
    /// revoked.
    Lapsed,
    /// An earlier attempt is still open at this agent (R4).
    Busy,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome", deny_unknown_fields)]
pub enum Outcome {
    /// The action ran; for undo: the before-image is restored.
    Done,
    /// The desired state was found before the start; nothing was run.
    Unchanged,
    /// The watch is active.
    Armed,
    /// The action ran and failed.
    Failed { diagnosis: Box<Diagnosis> },
    /// The journal holds an intent without an outcome, and the probe after the
    /// crash is indeterminate.
    Unknown { reason: String },
    /// Undo found a state other than the one the forward task left: somebody
    /// else has changed it since (R7).
    Drifted {
        /// What was expected and what was found.
        detail: String,
    },
    /// The agent was interrupted, and the probe has established that the action
    /// is neither complete nor running. Retried automatically.
    Interrupted,
    /// The task did not start and can no longer start in this attempt. Retried
    /// automatically.
    NotStarted,
    /// The promise had lapsed when the release arrived. Retried automatically.
    Lapsed,
}

impl Outcome {
    pub fn failed(diagnosis: Diagnosis) -> Self {
        Self::Failed {
            diagnosis: Box::new(diagnosis),
        }
    }

    /// The task succeeded: its phase may complete.
    pub fn is_good(&self) -> bool {
        match self {
            Self::Done | Self::Unchanged | Self::Armed => true,
            Self::Failed { .. }
            | Self::Unknown { .. }
            | Self::Drifted { .. }
            | Self::Interrupted
            | Self::NotStarted
            | Self::Lapsed => false,
        }
    }

    /// Its name in sentences for the operator, as the journal spells it.
    pub fn name(&self) -> &'static str {
        match self {
            Self::Done => "done",
            Self::Unchanged => "unchanged",
            Self::Armed => "armed",
            Self::Failed { .. } => "failed",
            Self::Unknown { .. } => "unknown",
            Self::Drifted { .. } => "drifted",
            Self::Interrupted => "interrupted",
            Self::NotStarted => "not-started",
            Self::Lapsed => "lapsed",
        }
    }

    /// Whether both report the same end. The diagnosis of a failure is not compared:
    /// the same error may be worded differently after an upgrade.
    pub fn agrees_with(&self, other: &Self) -> bool {
        match (self, other) {
            (Self::Failed { .. }, Self::Failed { .. }) => true,
            (one, other) => one == other,
        }
    }

    /// May be retried without an operator (R4).
    pub fn is_retried_automatically(&self) -> bool {
        match self {
            Self::Interrupted | Self::NotStarted | Self::Lapsed => true,
            Self::Done
            | Self::Unchanged
            | Self::Armed
            | Self::Failed { .. }
            | Self::Unknown { .. }
            | Self::Drifted { .. } => false,
        }
    }

    /// May have changed the host: undo covers it (R7).
    pub fn may_have_changed(&self) -> bool {
        match self {
            Self::Unchanged | Self::NotStarted | Self::Lapsed => false,
            Self::Done
            | Self::Armed
            | Self::Failed { .. }
            | Self::Unknown { .. }
            | Self::Drifted { .. }
            | Self::Interrupted => true,
        }
    }

    /// The state of the host is not known: an operator must check it and resolve
    /// the task (R4, R7).
    pub fn is_unclear(&self) -> bool {
        match self {
            Self::Unknown { .. } | Self::Drifted { .. } => true,
            Self::Done
            | Self::Unchanged
            | Self::Armed
            | Self::Failed { .. }
            | Self::Interrupted
            | Self::NotStarted
            | Self::Lapsed => false,
        }
    }
}

/// A change that a task made to its host, for the record of the run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Change {
    /// When it was made, by the agent's wall clock, in milliseconds since 1970.
    pub at: Millis,
    /// What was changed, in a sentence without secrets.
    pub what: String,
}

/// The changes of one attempt of a task, in the order in which they were made.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Changes {
    pub made: Vec<Change>,
    /// Changes beyond [`Changes::MAX`], which are only counted.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub omitted: u64,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference to it"
)]
fn is_zero(number: &u64) -> bool {
    *number == 0
}

impl Changes {
    /// Changes of one attempt that are recorded: a report and its journal entry
    /// must hold them next to outputs and before-image.
    pub const MAX: usize = 1_000;

    pub fn is_empty(&self) -> bool {
        self.made.is_empty() && self.omitted == 0
    }

    /// Adds later changes; those beyond the limit are counted.
    pub fn extend(&mut self, later: Self) {
        self.omitted += later.omitted;
        for change in later.made {
            if self.made.len() < Self::MAX {
                self.made.push(change);
            } else {
                self.omitted += 1;
            }
        }
    }
}

/// An agent's report that a task has ended.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TaskReport {
    pub run: RunId,
    pub phase: PhaseRef,
    pub attempt: u32,
    pub step: StepId,
    pub outcome: Outcome,
    /// Values that later steps may consume.
    pub outputs: BTreeMap<String, Value>,
    /// The first before-image (R6), so that the coordinator's journal has it
    /// too.
    pub before_image: Option<Value>,
    /// What this attempt has changed on the host.
    #[serde(default, skip_serializing_if = "Changes::is_empty")]
    pub changes: Changes,
    /// How long the action took, in milliseconds.
    pub took: Millis,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Reply {
    Vote {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        /// A vote is valid only in the term of the Prepare that it answers (R9).
        term: Term,
        /// Age in milliseconds of the promise that this vote reports; 0 unless it is
        /// repeated.
        promise_age: Millis,
        verdict: Verdict,
    },
    /// A task ended. Valid in any term (R9).
    Outcome(TaskReport),
    Attestation {
        run: RunId,
        step: StepId,
        nonce: u64,
        /// `None` if there was no breach; otherwise what the watch saw.
        breach: Option<String>,
    },
    /// A watch detected a breach.
    Breach {
        run: RunId,
        step: StepId,
        /// The sessions and transactions seen, and when.
        detail: String,
    },
    Disarmed {
        run: RunId,
        /// The watches that are disarmed.
        steps: Vec<StepId>,
    },
    Closed {
        run: RunId,
    },
}

impl Reply {
    pub fn name(&self) -> &'static str {
        match self {
            Self::Vote { .. } => "vote",
            Self::Outcome(_) => "outcome",
            Self::Attestation { .. } => "attestation",
            Self::Breach { .. } => "breach",
            Self::Disarmed { .. } => "disarmed",
            Self::Closed { .. } => "closed",
        }
    }

    pub fn run(&self) -> &RunId {
        match self {
            Self::Vote { run, .. }
            | Self::Attestation { run, .. }
            | Self::Breach { run, .. }
            | Self::Disarmed { run, .. }
            | Self::Closed { run } => run,
            Self::Outcome(report) => &report.run,
        }
    }
}

/// Size of a value as JSON, in bytes; limits of messages and records are given
/// in it. A value that can't be serialised exceeds every limit, by a size small
/// enough that two of them can be added.
pub fn json_size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX / 2, |json| json.len())
}

/// The release that an agent is executing, and how old it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct ReleaseAge {
    pub phase: PhaseRef,
    pub attempt: u32,
    /// In milliseconds, on the agent's boot-time clock.
    pub age: Millis,
}

/// The state that an agent reports when it connects (R10), as far as the barrier
/// needs it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AgentState {
    pub agent: AgentName,
    pub journal: JournalId,
    /// Highest term it has accepted.
    pub term: Term,
    /// The run it is locked to.
    pub run: Option<RunId>,
    /// Highest decision it has accepted in that run.
    pub decision: Decision,
    /// The release that it is executing (R13).
    pub release_age: Option<ReleaseAge>,
    /// Age in milliseconds of the first release of each phase of that run that
    /// this agent received since its machine was booted (R13).
    pub release_ages: BTreeMap<PhaseRef, Millis>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::Code;

    #[test]
    fn operators_read_an_outcome_as_the_journal_spells_it() {
        let text = || "why".to_owned();
        for outcome in [
            Outcome::Done,
            Outcome::Unchanged,
            Outcome::Armed,
            Outcome::failed(Diagnosis::new(Code::LS2103, "why")),
            Outcome::Unknown { reason: text() },
            Outcome::Drifted { detail: text() },
            Outcome::Interrupted,
            Outcome::NotStarted,
            Outcome::Lapsed,
        ] {
            let journaled = serde_json::to_value(&outcome).unwrap();
            assert_eq!(journaled["outcome"], outcome.name());
        }
    }
}
