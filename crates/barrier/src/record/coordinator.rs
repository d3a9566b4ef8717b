//! The records of one run in the coordinator's journal.

use super::FormatVersion;
use crate::ids::{AgentName, Decision, JournalId, Millis, PhaseRef, RunId, StepId, Term};
use crate::message::TaskReport;
use crate::resolved_plan::{OnFailure, ResolvedPlan};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// What a run begins with. Frozen from then on (R21).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Begin {
    pub run: RunId,
    /// Its plan, parties resolved.
    pub resolved_plan: ResolvedPlan,
    /// Every agent of the layout with the journal it had at the start.
    pub members: BTreeMap<AgentName, JournalId>,
    /// The operator who started it.
    pub by: String,
    pub trace: String,
    /// What the driver keeps with the run (plan document, names); opaque.
    pub rest: Value,
}

/// Who asked for something, under which request id (R20), and why.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OperatorRequest {
    pub by: String,
    /// Request id: the same request is carried out once.
    pub id: String,
    pub reason: Option<String>,
}

/// What an agent's journal had come to: whoever has written this entry has it
/// still, or is not the same journal any more (R10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JournalPosition {
    pub journal: JournalId,
    /// Position of its last entry.
    pub position: u64,
    /// Hash of that entry and all before it, in hex.
    pub hash: String,
}

/// An output that a release consumed, and whose it was (R15).
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Consumed {
    pub step: StepId,
    /// The agent that produced it.
    pub agent: AgentName,
    pub attempt: u32,
    /// Name of the output.
    pub output: String,
}

/// Why a prepare round began.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum PrepareReason {
    /// The phase before is complete, or a retry was decided.
    Due,
    /// A promise had lapsed or an agent was busy.
    Lapsed,
    /// The gate opened, or an attestation came, too late for the votes (R13).
    Margin,
    /// A new term began; votes count in their own (R9).
    Term,
}

/// Why a phase failed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "why", deny_unknown_fields)]
pub enum Failure {
    /// An agent refused to promise.
    Refused {
        /// Who, with its reasons.
        reasons: BTreeMap<AgentName, Vec<String>>,
    },
    /// Agents did not vote in time. Unreachable is a failure, always.
    Silent { agents: Vec<AgentName> },
    /// Promises lapsed again and again, or agents stayed busy.
    NoPromise {
        /// How many rounds were tried.
        rounds: u32,
    },
    /// An output that a step consumes does not exist, is ambiguous, or was
    /// voided by a breach.
    MissingInput {
        step: StepId,
        /// Which output, and why it isn't there.
        detail: String,
    },
    Tasks {
        /// Step and agent of each.
        tasks: Vec<(StepId, AgentName)>,
    },
    /// Released tasks were not heard of in time; they are still open (R5).
    Lost {
        /// Step and agent of each.
        tasks: Vec<(StepId, AgentName)>,
    },
    /// A watch saw a breach.
    Breach {
        step: StepId,
        agent: AgentName,
        detail: String,
    },
    /// A watch did not attest (R17), or did not disarm, in time.
    Unattested {
        /// The watches that stayed silent.
        watches: Vec<(StepId, AgentName)>,
    },
    /// What the release would record or carry is more than a journal's entry
    /// and a message hold. Nothing was released.
    TooLarge {
        /// What, and how much.
        detail: String,
    },
}

/// Why a rollback was decided.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause", deny_unknown_fields)]
pub enum RollbackCause {
    /// A phase failed whose policy says so.
    Policy {
        phase: PhaseRef,
    },
    /// The write outage would have exceeded its budget.
    Budget {
        /// Elapsed, in milliseconds, when it was decided.
        elapsed: Millis,
    },
    Operator {
        request: OperatorRequest,
    },
}

/// Why a phase was left out.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause", deny_unknown_fields)]
pub enum SkipCause {
    /// It has no tasks: its forward counterparts changed nothing.
    NothingToDo,
    Operator {
        request: OperatorRequest,
    },
}

/// Why something is owed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "cause", deny_unknown_fields)]
pub enum OutstandingUndoCause {
    /// The agent was out of reach and the rollback went on without it (R18).
    Unreachable,
    /// The operator waived it (R5).
    Waived { request: OperatorRequest },
    /// The operator skipped the phase that would have undone it.
    Skipped,
    /// The run was aborted.
    Aborted,
}

/// A change that this run made and did not take back. The agent owes its
/// undo (R5, R18).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct OutstandingUndo {
    pub agent: AgentName,
    /// The forward step that may still be in effect, or the rollback step
    /// that was not carried out.
    pub step: StepId,
    /// Why it is owed.
    pub cause: OutstandingUndoCause,
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Ending {
    /// Every phase is complete or was skipped.
    Completed,
    /// Rolled back, but for its debts.
    RolledBack,
    /// Given up where it stood.
    Aborted,
}

/// What an operator says of an `unknown` task (R4).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Resolution {
    /// It is in effect.
    Done,
    /// It is not; it may be tried again.
    Failed,
}

/// The coordinator's records, of one run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "record", deny_unknown_fields)]
pub enum Record {
    /// The run began. Always the first.
    Began {
        /// Of this record and all that follow.
        format: FormatVersion,
        begin: Box<Begin>,
        term: Term,
    },
    /// A coordinator took the run up again.
    TermBegan {
        term: Term,
    },
    /// An operator had this coordinator take over from another one that has
    /// led this run, or from itself before its journal was restored. What the
    /// other one decided is not in this journal; the run can only be given up
    /// (R11).
    TookOver {
        /// Who has obeyed the other one.
        agent: AgentName,
        /// The other one's term.
        term: Term,
        /// Highest decision that this agent has obeyed; 0 where it has left
        /// the run. From here on decisions count above it (R1).
        decision: Decision,
    },
    /// A prepare round began.
    Preparing {
        phase: PhaseRef,
        attempt: u32,
        reason: PrepareReason,
        /// Who is asked for which steps, in order.
        tasks: BTreeMap<AgentName, Vec<StepId>>,
        /// Write outage so far, where its clock runs (R13).
        outage: Option<Millis>,
    },
    /// The operator opened the gate.
    GateOpened {
        phase: PhaseRef,
        request: OperatorRequest,
    },
    Released {
        phase: PhaseRef,
        attempt: u32,
        /// Captures that the votes carried (R6).
        before_images: BTreeMap<AgentName, BTreeMap<StepId, Value>>,
        /// Outputs that the tasks consume (R15).
        consumed: Vec<Consumed>,
        /// Write outage so far, where its clock runs (R13).
        outage: Option<Millis>,
    },
    TaskEnded {
        agent: AgentName,
        report: TaskReport,
        /// What its journal had come to when it said so. Absent in older
        /// journals, and where an older agent says it.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<JournalPosition>,
    },
    /// A released task was not heard of in time. It stays open (R5).
    TaskLost {
        agent: AgentName,
        step: StepId,
    },
    /// Nothing that hasn't started in this attempt shall start any more (R2).
    Revoked {
        phase: PhaseRef,
        attempt: u32,
    },
    Failed {
        phase: PhaseRef,
        attempt: u32,
        failure: Failure,
        leads_to: OnFailure,
    },
    /// The phase is complete; nothing in it is open.
    Completed {
        phase: PhaseRef,
    },
    /// The phase was left out.
    Skipped {
        phase: PhaseRef,
        why: SkipCause,
    },
    /// What did not end well is to be tried again (R4).
    RetryDecided {
        phase: PhaseRef,
        /// Who asked; `None` when the protocol retried by itself.
        request: Option<OperatorRequest>,
    },
    /// The operator passed an open task (R5).
    Waived {
        agent: AgentName,
        step: StepId,
        request: OperatorRequest,
    },
    /// The operator said what became of an `unknown` or `drifted` task.
    UnknownResolved {
        agent: AgentName,
        step: StepId,
        resolution: Resolution,
        request: OperatorRequest,
    },
    /// The operator asked to go no further.
    Paused {
        request: OperatorRequest,
    },
    /// The operator ended a pause or a hold.
    Resumed {
        request: OperatorRequest,
    },
    /// The run is to be rolled back. From here on nothing goes forward.
    RollbackDecided {
        cause: RollbackCause,
    },
    /// Nothing forward is open and no watch stands: the rollback's phases
    /// begin.
    RollbackBegan {},
    /// The operator gave the run up. It ends as soon as nothing is open.
    AbortDecided {
        request: OperatorRequest,
    },
    /// A watch saw a breach.
    Breached {
        agent: AgentName,
        step: StepId,
        detail: String,
    },
    /// Watches no longer stand.
    Disarmed {
        agent: AgentName,
        steps: Vec<StepId>,
    },
    /// An outcome contradicts what has been decided since; the run holds.
    Contradicted {
        agent: AgentName,
        /// What it says now.
        report: TaskReport,
        /// What was recorded, and what rests on it.
        detail: String,
        /// What its journal had come to when it said so.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        position: Option<JournalPosition>,
    },
    UndoOutstanding {
        outstanding_undo: OutstandingUndo,
    },
    /// An agent came back without the journal it had (R10); its open tasks
    /// are `unknown`.
    JournalLost {
        agent: AgentName,
    },
    /// The run ended. What is owed is in the state.
    Ended {
        ending: Ending,
    },
    /// An agent is free of this run.
    ClosedBy {
        agent: AgentName,
    },
}

impl Record {
    /// Whether orders rely on it. The sequence of the last such record is the
    /// decision that orders carry (R1).
    pub fn decides(&self) -> bool {
        match self {
            Self::TaskEnded { .. }
            | Self::TaskLost { .. }
            | Self::Disarmed { .. }
            | Self::Breached { .. }
            | Self::ClosedBy { .. } => false,
            Self::Began { .. }
            | Self::TermBegan { .. }
            | Self::TookOver { .. }
            | Self::Preparing { .. }
            | Self::GateOpened { .. }
            | Self::Released { .. }
            | Self::Revoked { .. }
            | Self::Failed { .. }
            | Self::Completed { .. }
            | Self::Skipped { .. }
            | Self::RetryDecided { .. }
            | Self::Waived { .. }
            | Self::UnknownResolved { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::RollbackDecided { .. }
            | Self::RollbackBegan {}
            | Self::AbortDecided { .. }
            | Self::Contradicted { .. }
            | Self::UndoOutstanding { .. }
            | Self::JournalLost { .. }
            | Self::Ended { .. } => true,
        }
    }

    /// The operator's request that led to it, if one did.
    pub fn operator_request(&self) -> Option<&OperatorRequest> {
        match self {
            Self::GateOpened { request, .. }
            | Self::Waived { request, .. }
            | Self::UnknownResolved { request, .. }
            | Self::Paused { request }
            | Self::Resumed { request }
            | Self::AbortDecided { request } => Some(request),
            Self::RetryDecided { request, .. } => request.as_ref(),
            Self::Skipped { why, .. } => match why {
                SkipCause::Operator { request } => Some(request),
                SkipCause::NothingToDo => None,
            },
            Self::RollbackDecided { cause } => match cause {
                RollbackCause::Operator { request } => Some(request),
                RollbackCause::Policy { .. } | RollbackCause::Budget { .. } => None,
            },
            // Decided by the protocol, or reported by an agent. The request
            // that started the run is not one of those made to the run.
            Self::Began { .. }
            | Self::TermBegan { .. }
            | Self::TookOver { .. }
            | Self::Preparing { .. }
            | Self::Released { .. }
            | Self::TaskEnded { .. }
            | Self::TaskLost { .. }
            | Self::Revoked { .. }
            | Self::Failed { .. }
            | Self::Completed { .. }
            | Self::RollbackBegan {}
            | Self::Breached { .. }
            | Self::Disarmed { .. }
            | Self::Contradicted { .. }
            | Self::UndoOutstanding { .. }
            | Self::JournalLost { .. }
            | Self::Ended { .. }
            | Self::ClosedBy { .. } => None,
        }
    }

    /// The position that an agent's journal had reached, and the agent (R10).
    pub fn position(&self) -> Option<(&AgentName, &JournalPosition)> {
        match self {
            Self::TaskEnded {
                agent, position, ..
            }
            | Self::Contradicted {
                agent, position, ..
            } => Some((agent, position.as_ref()?)),
            // Only outcomes carry a position.
            Self::Began { .. }
            | Self::TermBegan { .. }
            | Self::TookOver { .. }
            | Self::Preparing { .. }
            | Self::GateOpened { .. }
            | Self::Released { .. }
            | Self::TaskLost { .. }
            | Self::Revoked { .. }
            | Self::Failed { .. }
            | Self::Completed { .. }
            | Self::Skipped { .. }
            | Self::RetryDecided { .. }
            | Self::Waived { .. }
            | Self::UnknownResolved { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::RollbackDecided { .. }
            | Self::RollbackBegan {}
            | Self::AbortDecided { .. }
            | Self::Breached { .. }
            | Self::Disarmed { .. }
            | Self::UndoOutstanding { .. }
            | Self::JournalLost { .. }
            | Self::Ended { .. }
            | Self::ClosedBy { .. } => None,
        }
    }

    /// The phase whose progress it records; `None` where it is about the run
    /// or about tasks.
    pub fn phase(&self) -> Option<PhaseRef> {
        match self {
            Self::Preparing { phase, .. }
            | Self::GateOpened { phase, .. }
            | Self::Released { phase, .. }
            | Self::Revoked { phase, .. }
            | Self::Failed { phase, .. }
            | Self::Completed { phase }
            | Self::Skipped { phase, .. }
            | Self::RetryDecided { phase, .. } => Some(*phase),
            Self::Began { .. }
            | Self::TermBegan { .. }
            | Self::TookOver { .. }
            | Self::TaskEnded { .. }
            | Self::TaskLost { .. }
            | Self::Waived { .. }
            | Self::UnknownResolved { .. }
            | Self::Paused { .. }
            | Self::Resumed { .. }
            | Self::RollbackDecided { .. }
            | Self::RollbackBegan {}
            | Self::AbortDecided { .. }
            | Self::Breached { .. }
            | Self::Disarmed { .. }
            | Self::Contradicted { .. }
            | Self::UndoOutstanding { .. }
            | Self::JournalLost { .. }
            | Self::Ended { .. }
            | Self::ClosedBy { .. } => None,
        }
    }
}
