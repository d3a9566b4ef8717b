//! The durable state of a run: the fold of its records.

use crate::ids::{AgentName, Decision, JournalId, PhaseRef, StepId, Term, Track};
use crate::message::{Mode, Outcome, TaskReport};
use crate::record::{
    Begin, Ending, Failure, OperatorRequest, OutstandingUndo, OutstandingUndoCause, RollbackCause,
    SkipCause,
};
use crate::resolved_plan::{OnFailure, Outputs, PhaseSpec, StepSpec};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

/// A task: a step at an agent.
pub type TaskKey = (StepId, AgentName);

pub(super) fn task_key(step: &StepId, agent: &AgentName) -> TaskKey {
    (step.clone(), agent.clone())
}

/// Status of a phase.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum PhaseStatus {
    /// Not begun, or to be retried.
    Pending,
    /// Votes are being collected, or the gate is still closed.
    Preparing,
    /// The release is durable.
    Released,
    Failed {
        failure: Failure,
        leads_to: OnFailure,
    },
    Completed,
    Skipped {
        why: SkipCause,
    },
}

impl PhaseStatus {
    /// It is complete or skipped.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Completed | Self::Skipped { .. } => true,
            Self::Pending | Self::Preparing | Self::Released | Self::Failed { .. } => false,
        }
    }

    fn is_skipped_by_operator(&self) -> bool {
        match self {
            Self::Skipped { why } => match why {
                SkipCause::Operator { .. } => true,
                SkipCause::NothingToDo => false,
            },
            Self::Pending
            | Self::Preparing
            | Self::Released
            | Self::Failed { .. }
            | Self::Completed => false,
        }
    }

    /// It failed, and the rest of the rollback continues without it.
    pub fn is_left_behind(&self) -> bool {
        match self {
            Self::Failed { leads_to, .. } => *leads_to == OnFailure::Continue,
            Self::Pending
            | Self::Preparing
            | Self::Released
            | Self::Completed
            | Self::Skipped { .. } => false,
        }
    }
}

/// A phase of a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct PhaseState {
    pub status: PhaseStatus,
    /// Last attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Participants of this attempt, with their steps in order.
    pub tasks: BTreeMap<AgentName, Vec<StepId>>,
    /// Prepare rounds since the phase became due.
    pub rounds: u32,
    /// Times it was retried without an operator; bounded.
    pub automatic_retries: u32,
    /// The request that opened the gate. Valid until the phase fails.
    pub gate_opened: Option<OperatorRequest>,
    /// This attempt was revoked.
    pub revoked: bool,
    /// Outputs that the release of this attempt consumed.
    pub consumed: Vec<crate::record::Consumed>,
    /// Age of each agent's promise when this attempt was released (R12).
    #[serde(skip)]
    pub promise_ages: BTreeMap<AgentName, crate::ids::Millis>,
    /// It was released at least once.
    pub ever_released: bool,
}

/// Status of a task.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum TaskStatus {
    /// Not released in any attempt, or to be retried.
    Waiting,
    /// Released, no outcome yet: open (R2).
    Released,
    /// Released without an outcome in time: still open (R5).
    Lost,
    Ended {
        /// Of the latest attempt.
        report: TaskReport,
    },
    /// The operator waived it while it was open; its undo is outstanding (R5).
    Waived,
    /// A breach voided what it had proved (R15).
    Voided,
    /// Left out of a rollback, and recorded as outstanding (R18).
    UndoOutstanding,
}

/// A task of a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct TaskState {
    pub phase: PhaseRef,
    pub status: TaskStatus,
    /// Attempt of its latest release; 0 before.
    pub attempt: u32,
    /// It may have changed the host and has not been undone. Retained across
    /// attempts: a later `not-started` doesn't undo anything (R7).
    pub touched: bool,
    /// It was lost or waived, so its effect is unknown until its outcome or its
    /// undo is reported.
    pub suspect: bool,
    /// The last attempt whose outcome is recorded.
    pub reported: Option<u32>,
    /// The attempt that ended as `unknown` because its agent's journal, or this
    /// coordinator's decisions, were lost, and not because the agent reported it.
    pub assumed: Option<u32>,
    /// The operator's resolution of an `unknown` or `drifted` outcome.
    pub resolved: Option<crate::record::Resolution>,
    /// It waits to be run again although the effect of its last attempt is unknown:
    /// a proof or a watch, which need no resolution.
    pub still_unknown: bool,
    /// A breach occurred while this attempt was open, and voids its success (R15).
    pub breached: bool,
}

impl TaskState {
    /// Released, with neither outcome nor tombstone (R2).
    pub fn is_open(&self) -> bool {
        match self.status {
            TaskStatus::Released | TaskStatus::Lost => true,
            TaskStatus::Waiting
            | TaskStatus::Ended { .. }
            | TaskStatus::Waived
            | TaskStatus::Voided
            | TaskStatus::UndoOutstanding => false,
        }
    }

    /// The host may still be changed by it: undo covers it (R7).
    pub fn may_have_changed(&self) -> bool {
        self.touched || self.suspect || self.is_open()
    }

    pub fn outcome(&self) -> Option<&Outcome> {
        match &self.status {
            TaskStatus::Ended { report } => Some(&report.outcome),
            TaskStatus::Waiting
            | TaskStatus::Released
            | TaskStatus::Lost
            | TaskStatus::Waived
            | TaskStatus::Voided
            | TaskStatus::UndoOutstanding => None,
        }
    }

    /// It needs no further attempt: its phase may complete.
    pub fn is_settled(&self) -> bool {
        match &self.status {
            TaskStatus::Ended { report } => {
                report.outcome.is_good() || self.resolved == Some(crate::record::Resolution::Done)
            }
            TaskStatus::Waived | TaskStatus::UndoOutstanding => true,
            TaskStatus::Waiting | TaskStatus::Released | TaskStatus::Lost | TaskStatus::Voided => {
                false
            }
        }
    }

    /// The outcome of this attempt was assumed, and the task has been retried since.
    pub(super) fn is_superseded(&self, attempt: u32) -> bool {
        let retried = self.attempt > attempt || self.status == TaskStatus::Waiting;
        retried && self.assumed == Some(attempt)
    }

    /// Its effect is unknown, and no operator has resolved it.
    pub fn is_unclear(&self) -> bool {
        self.outcome().is_some_and(Outcome::is_unclear) && self.resolved.is_none()
    }
}

/// A watch that was armed.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct WatchState {
    pub breaches: Vec<String>,
    /// A retry will arm it again. Until then it need not attest, but it is still
    /// armed and must be disarmed before the release that ends it.
    pub superseded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Breach {
    pub agent: AgentName,
    pub step: StepId,
    pub detail: String,
    /// After the point of no return it voids nothing; it is listed (R17). While
    /// the outcome of that release is not known, it counts as after it.
    pub after_no_return: bool,
}

/// Undos of one phase that are executed by an agent that the rollback had continued
/// without (R18).
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct LateUndo {
    pub phase: PhaseRef,
    pub attempt: u32,
    pub steps: Vec<StepId>,
    /// Its release is durable.
    pub released: bool,
    /// Age of the agent's promise at the release (R12).
    pub promise_age: crate::ids::Millis,
}

/// Progress of a run's rollback.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
pub struct Rollback {
    /// Why it was decided.
    pub cause: RollbackCause,
    /// No forward task is open, and the rollback's phases have begun.
    pub began: bool,
    /// A forward task may have changed a host. Otherwise the rollback's phases
    /// are skipped.
    pub needed: bool,
}

/// The durable state of a run.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct State {
    /// Shared by the copies of a state.
    pub begin: Arc<Begin>,
    pub term: Term,
    /// Every term in this journal, including those taken over, with its last known
    /// decision.
    pub terms: BTreeMap<Term, Decision>,
    /// Decisions are numbered above this: the highest known one of a coordinator
    /// that was taken over (R11).
    pub decisions_above: Decision,
    /// Sequence of its last record.
    pub last: u64,
    /// Number of the last decision (R1): its sequence plus
    /// [`Self::decisions_above`].
    pub decision: Decision,
    /// Forward phases, by index.
    pub forward: Vec<PhaseState>,
    /// Rollback phases, by index.
    pub backward: Vec<PhaseState>,
    pub tasks: BTreeMap<TaskKey, TaskState>,
    /// Outputs, by step and agent, with the attempt they belong to (R15).
    pub outputs: BTreeMap<StepId, BTreeMap<AgentName, (u32, Outputs)>>,
    /// First before-images, by agent and step (R6).
    pub before_images: BTreeMap<AgentName, BTreeMap<StepId, Value>>,
    pub watches: BTreeMap<TaskKey, WatchState>,
    pub breaches: Vec<Breach>,
    /// A breach for which the current phase has not failed yet: agent, watch and
    /// detail.
    pub breach_pending: Option<(AgentName, StepId, String)>,
    pub outstanding_undos: Vec<OutstandingUndo>,
    /// Outstanding undos that are being executed, because their agent is back.
    pub late_undos: BTreeMap<AgentName, LateUndo>,
    /// Why undos of these agents were not executed when they came back, and the phase.
    pub late_undos_left: BTreeMap<AgentName, (PhaseRef, String)>,
    pub paused: Option<OperatorRequest>,
    /// Reasons to hold other than a failed phase: contradictions, and breaches
    /// after the point of no return. Sentences for the operator.
    pub held: Vec<String>,
    pub rollback: Option<Rollback>,
    pub abort: Option<OperatorRequest>,
    /// Another coordinator has led this run, and its decisions are not in this
    /// journal, so the run can only be aborted (R11). The evidence, in sentences
    /// for the operator.
    pub decisions_lost: Vec<String>,
    /// Agents that reconnected without their journal.
    pub journals_lost: BTreeSet<AgentName>,
    /// The journals with which they reconnected, the last one of each.
    pub later_journals: BTreeMap<AgentName, JournalId>,
    /// Ids of executed requests, with the sequence of their record (R20).
    pub requests: BTreeMap<String, u64>,
    /// Largest write outage in any record, in milliseconds.
    pub outage: Option<crate::ids::Millis>,
    pub ended: Option<Ending>,
    /// Agents that have confirmed its end.
    pub closed_by: BTreeSet<AgentName>,
}

impl State {
    /// Sequence of the last record that decided something.
    pub fn decided_at(&self) -> u64 {
        self.decision.saturating_sub(self.decisions_above)
    }

    pub fn track(&self) -> Track {
        match &self.rollback {
            Some(rollback) if rollback.began => Track::Rollback,
            _ => Track::Forward,
        }
    }

    pub fn phases(&self, track: Track) -> &[PhaseState] {
        match track {
            Track::Forward => &self.forward,
            Track::Rollback => &self.backward,
        }
    }

    pub fn phase(&self, phase: PhaseRef) -> Option<&PhaseState> {
        self.phases(phase.track).get(phase.index as usize)
    }

    pub fn spec(&self, phase: PhaseRef) -> Option<&PhaseSpec> {
        match phase.track {
            Track::Forward => &self.begin.resolved_plan.forward,
            Track::Rollback => &self.begin.resolved_plan.rollback,
        }
        .get(phase.index as usize)
    }

    pub fn step(&self, id: &StepId) -> Option<(PhaseRef, &StepSpec)> {
        all_steps(&self.begin.resolved_plan).find(|(_, step)| step.id == *id)
    }

    /// The current phase: the first one of the track that is neither complete nor
    /// skipped. A failed phase with the policy `continue` comes last, unless a
    /// task in it is still open (R2).
    pub fn current(&self) -> Option<PhaseRef> {
        let track = self.track();
        let left: Vec<PhaseRef> = self
            .phases(track)
            .iter()
            .enumerate()
            .filter(|(_, phase)| !phase.status.is_over())
            .map(|(index, _)| PhaseRef {
                track,
                index: index as u32,
            })
            .collect();
        let due = left.iter().find(|phase| !self.is_left_behind(**phase));
        due.or(left.first()).copied()
    }

    /// The phase failed with the policy `continue`, and no task in it is open.
    fn is_left_behind(&self, phase: PhaseRef) -> bool {
        let behind = self
            .phase(phase)
            .is_some_and(|state| state.status.is_left_behind());
        behind && self.tasks_of(phase).all(|(_, task)| !task.is_open())
    }

    pub fn tasks_of(&self, phase: PhaseRef) -> impl Iterator<Item = (&TaskKey, &TaskState)> {
        self.tasks
            .iter()
            .filter(move |(_, task)| task.phase == phase)
    }

    /// Tasks that are released and have neither outcome nor tombstone.
    pub fn open_tasks(&self) -> impl Iterator<Item = (&TaskKey, &TaskState)> {
        self.tasks.iter().filter(|(_, task)| task.is_open())
    }

    /// The rollback continues without this task of an unreachable agent (R18).
    pub fn is_left_out(&self, (step, agent): &TaskKey) -> bool {
        self.outstanding_undos.iter().any(|outstanding_undo| {
            outstanding_undo.step == *step
                && outstanding_undo.agent == *agent
                && outstanding_undo.cause == OutstandingUndoCause::Unreachable
        })
    }

    /// The journal that an agent had when it was last in this run.
    pub fn journal_of(&self, agent: &AgentName) -> Option<&JournalId> {
        let later = self.later_journals.get(agent);
        later.or_else(|| self.begin.members.get(agent))
    }

    /// Tasks that were released and that the run continued without, although no
    /// outcome of them is recorded: their agents may still be running them.
    pub fn unreported_tasks(&self) -> impl Iterator<Item = (&TaskKey, &TaskState)> {
        self.tasks.iter().filter(|(key, task)| {
            let passed = match task.status {
                TaskStatus::Waived | TaskStatus::UndoOutstanding => true,
                TaskStatus::Waiting
                | TaskStatus::Released
                | TaskStatus::Lost
                | TaskStatus::Ended { .. }
                | TaskStatus::Voided => false,
            };
            let released_late = self.late_undos.get(&key.1).is_some_and(|late| {
                late.released && late.phase == task.phase && late.steps.contains(&key.0)
            });
            let reported = task.reported == Some(task.attempt);
            passed && task.attempt > 0 && !reported && !released_late
        })
    }

    /// Why an outstanding undo was not executed when its agent came back; `None` if
    /// it has not come back, or if others come first.
    pub fn why_outstanding(&self, outstanding_undo: &OutstandingUndo) -> Option<String> {
        let key = task_key(&outstanding_undo.step, &outstanding_undo.agent);
        let task = self.tasks.get(&key)?;
        if task.phase.track == Track::Forward {
            return None;
        }
        let outcome = task.outcome().filter(|outcome| !outcome.is_good());
        if let Some(outcome) = outcome {
            return Some(format!("it ended as {}", outcome.name()));
        }
        let left = self.late_undos_left.get(&outstanding_undo.agent);
        left.filter(|(phase, _)| *phase == task.phase)
            .map(|(_, reason)| reason.clone())
    }

    /// Watches that must attest before a release (R17).
    pub fn attesting_watches(&self) -> impl Iterator<Item = &TaskKey> {
        let armed = self.watches.iter();
        armed
            .filter(|(_, watch)| !watch.superseded)
            .map(|(key, _)| key)
    }

    /// Forward tasks whose change, or possible change, has not been undone: the
    /// list that an operator needs when an undo fails.
    pub fn still_changed(&self) -> impl Iterator<Item = &TaskKey> {
        self.tasks
            .iter()
            .filter(|(_, task)| task.phase.track == Track::Forward && task.may_have_changed())
            .filter(|((step, _), _)| self.step(step).is_some_and(|(_, spec)| spec.undoable))
            .map(|(key, _)| key)
    }

    /// What a breach has voided must be run again; skipping the phase that failed
    /// would continue without it (R15).
    pub fn failed_over_a_breach(&self, phase: PhaseRef) -> bool {
        let failed_for_it = self.phase(phase).is_some_and(|state| {
            let breach = |failure: &Failure| matches!(failure, Failure::Breach { .. });
            matches!(&state.status, PhaseStatus::Failed { failure, .. } if breach(failure))
        });
        let voided = |task: &TaskState| task.status == TaskStatus::Voided;
        phase.track == Track::Forward
            && (failed_for_it || self.breach_pending.is_some() || self.tasks.values().any(voided))
    }

    /// A point of no return may have been passed: it was released, and not every
    /// participant has reported that it started nothing (R14).
    pub fn past_no_return(&self) -> bool {
        self.no_return_phases().any(|phase| phase.ever_released) && !self.no_return_is_tombstoned()
    }

    /// The release of a point of no return is durable, whatever came of it, or an
    /// operator has skipped its phase and may have opened access by hand. Only an
    /// operator may decide on a rollback from then on.
    pub fn no_return_is_decided(&self) -> bool {
        self.no_return_phases()
            .any(|phase| phase.ever_released || phase.status.is_skipped_by_operator())
    }

    fn no_return_phases(&self) -> impl Iterator<Item = &PhaseState> {
        let phases = self.begin.resolved_plan.forward.iter().zip(&self.forward);
        phases
            .filter(|(spec, _)| spec.point_of_no_return)
            .map(|(_, phase)| phase)
    }

    /// Every participant of the point of no return has reported that it did not
    /// start: rollback is possible again (R14). Read-only steps don't count.
    pub fn no_return_is_tombstoned(&self) -> bool {
        self.opening_tasks()
            .all(|task| !opened(task) && !task.may_have_changed())
    }

    /// A participant of the point of no return has reported that it started.
    pub(super) fn has_opened(&self) -> bool {
        self.opening_tasks().any(opened)
    }

    /// Tasks that open access at the point of no return.
    fn opening_tasks(&self) -> impl Iterator<Item = &TaskState> {
        let opens = |step| self.step(step).is_some_and(|(_, spec)| !spec.read_only);
        self.tasks
            .iter()
            .filter(move |((step, _), task)| {
                task.phase.track == Track::Forward
                    && self.spec(task.phase).is_some_and(|s| s.point_of_no_return)
                    && opens(step)
            })
            .map(|(_, task)| task)
    }
}

/// `unchanged` means that access was open before the step.
fn opened(task: &TaskState) -> bool {
    task.touched || task.outcome() == Some(&Outcome::Unchanged)
}

/// Every step of both tracks with its phase.
pub(crate) fn all_steps(
    resolved_plan: &crate::resolved_plan::ResolvedPlan,
) -> impl Iterator<Item = (PhaseRef, &StepSpec)> {
    let tracks = [
        (Track::Forward, &resolved_plan.forward),
        (Track::Rollback, &resolved_plan.rollback),
    ];
    tracks.into_iter().flat_map(|(track, phases)| {
        phases.iter().enumerate().flat_map(move |(index, phase)| {
            let at = PhaseRef {
                track,
                index: index as u32,
            };
            phase.steps.iter().map(move |step| (at, step))
        })
    })
}

/// The forward step that an undo step restores.
pub(crate) fn undone_by(step: &StepSpec) -> Option<&StepId> {
    match &step.mode {
        Mode::Undo { of } => Some(of),
        Mode::Execute => None,
    }
}
