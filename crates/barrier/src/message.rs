//! What coordinator and participant say to each other.

use crate::ids::{AgentName, Decision, Header, JournalId, Millis, PhaseRef, RunId, StepId, Term};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a task is to do.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "mode")]
pub enum Mode {
    /// Carry the action out.
    Execute,
    /// Restore what that step captured before it changed anything.
    Undo { of: StepId },
}

/// A task as it is ordered. To the barrier, action and parameters are opaque.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskOrder {
    /// The step; with the agent it names the task.
    pub step: StepId,
    /// Name of the action.
    pub action: String,
    pub mode: Mode,
    /// Parameters; references to outputs of earlier steps still unresolved.
    pub params: Value,
    /// How long the action may take, in milliseconds.
    pub timeout: Millis,
    /// The task is a watch: it arrives as `armed` and lives on (R16).
    pub watch: bool,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Order {
    /// Check, probe, promise, vote.
    Prepare {
        header: Header,
        /// Tasks in the order in which they run.
        tasks: Vec<TaskOrder>,
        /// The promise lapses after that (R12).
        start_by: Millis,
        /// Tasks are cancelled after that, counted from the release's
        /// receipt (R12).
        finish_by: Millis,
        /// Sent before the phase before is complete: the vote doesn't count
        /// if anything but that completion is decided (R8).
        provisional: bool,
    },
    /// Start. No task starts without it.
    Release {
        header: Header,
        /// Outputs that the tasks consume, by producing step (R15).
        inputs: BTreeMap<StepId, BTreeMap<String, Value>>,
        /// For undo: before-images from the coordinator's journal, by forward
        /// step, for an agent that has lost its own (R6, R10), and for no
        /// other. They go before whatever the new journal says; `null` where
        /// the coordinator has none either.
        before_images: BTreeMap<StepId, Value>,
    },
    /// Don't start what hasn't started; say how each task stands.
    Revoke { header: Header },
    /// Attest that the watch has seen no breach, now (R17).
    Attest {
        header: Header,
        step: StepId,
        /// Comes back in the answer.
        nonce: u64,
    },
    /// Stop watching (R16).
    Disarm { header: Header, steps: Vec<StepId> },
    /// An outcome is durable at the coordinator; it need not be kept for
    /// sending any more (R23).
    Ack {
        run: RunId,
        step: StepId,
        /// The phase it ran in.
        phase: PhaseRef,
        attempt: u32,
    },
    /// The run is over; the agent is free for another (R19).
    Close {
        run: RunId,
        term: Term,
        decision: Decision,
    },
}

impl Order {
    /// What it is called in logs.
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

/// What a probe found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Probe {
    pub finding: Finding,
    /// State before any change, to restore. `None` where the action changes
    /// nothing.
    pub before_image: Option<Value>,
}

/// See [`Probe`].
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Finding {
    /// There is something to do.
    Pending,
    /// It is so already; nothing will be done. An action whose outputs a
    /// later step may consume never answers this: it is carried out again,
    /// because a probe gives no outputs and a proof must be fresh.
    Satisfied,
    /// The probe can't tell.
    Indeterminate,
}

/// What a participant votes.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Verdict {
    /// Every task can be done; a promise is durable.
    Ready {
        /// What the probes found, by step.
        probes: BTreeMap<StepId, Probe>,
    },
    /// It can't; nothing is promised.
    Refuse {
        /// Why, a sentence each, with remedy.
        reasons: Vec<String>,
    },
    /// This attempt's promise lapsed, was voided by a restart, or revoked.
    Lapsed,
    /// An earlier attempt of it is still open here (R4).
    Busy,
}

/// How a task ended.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "outcome")]
pub enum Outcome {
    /// Done; for undo: restored.
    Done,
    /// Was so before; nothing was done.
    Unchanged,
    Armed,
    /// It was tried and failed.
    Failed {
        /// Code, what, where, state left, remedy.
        error: String,
    },
    /// Intent without outcome after a crash, and the probe can't tell.
    Unknown {
        /// What is not known.
        reason: String,
    },
    /// Undo found that someone else had changed it since (R7).
    Drifted {
        /// What was expected and what was found.
        detail: String,
    },
    /// The agent was interrupted and the probe is sure that the work has had
    /// no complete effect and is not running. Retried by itself.
    Interrupted,
    /// Never started, and now never will in this attempt. Retried by itself.
    NotStarted,
    /// The promise had lapsed when the release came. Retried by itself.
    Lapsed,
}

impl Outcome {
    /// The task counts as carried out: its phase may complete.
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

    /// The state of the host is not known: an operator must check it and say
    /// what is so (R4, R7).
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

/// A task's end, as reported.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskReport {
    pub run: RunId,
    pub phase: PhaseRef,
    pub attempt: u32,
    pub step: StepId,
    pub outcome: Outcome,
    /// What it gives to later steps.
    pub outputs: BTreeMap<String, Value>,
    /// The first before-image (R6), so that the coordinator holds it too.
    pub before_image: Option<Value>,
    /// How long the action took, in milliseconds.
    pub took: Millis,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub enum Reply {
    Vote {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        /// Votes count in their own term (R9).
        term: Term,
        verdict: Verdict,
    },
    /// A task ended. Counts in any term (R9).
    Outcome(TaskReport),
    Attestation {
        run: RunId,
        step: StepId,
        nonce: u64,
        /// `None`: no breach. Otherwise what was seen.
        breach: Option<String>,
    },
    /// A watch saw a breach.
    Breach {
        run: RunId,
        step: StepId,
        /// What was seen: sessions, transactions, when.
        detail: String,
    },
    Disarmed {
        run: RunId,
        /// The watches that no longer stand.
        steps: Vec<StepId>,
    },
    Closed {
        run: RunId,
    },
}

impl Reply {
    /// What it is called in logs.
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

/// Bytes of a value as JSON, in which messages and records are measured. A
/// value without a JSON form counts as more than any limit, and two such sizes
/// can be added.
pub fn json_size(value: &impl Serialize) -> usize {
    serde_json::to_vec(value).map_or(usize::MAX / 2, |json| json.len())
}

/// What an agent says about itself when it connects (R10), as far as the
/// barrier needs it.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgentState {
    pub agent: AgentName,
    pub journal: JournalId,
    /// Highest term it has obeyed.
    pub term: Term,
    /// The run it is locked to.
    pub run: Option<RunId>,
    /// Highest decision it has obeyed in that run.
    pub decision: Decision,
    /// Age of the release it is working on, in milliseconds by its own
    /// boot-time clock (R13).
    pub release_age: Option<Millis>,
    /// For each phase of that run which was released here since this machine
    /// was booted, the age of its first release, in milliseconds (R13).
    pub release_ages: BTreeMap<PhaseRef, Millis>,
}
