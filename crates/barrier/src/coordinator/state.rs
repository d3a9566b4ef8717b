//! The durable state of a run: the fold of its records.

use crate::ids::{AgentName, Decision, PhaseRef, StepId, Term, Track};
use crate::message::{Mode, Outcome, TaskReport};
use crate::record::{
    Begin, Ending, Failure, OperatorRequest, OutstandingUndo, RollbackCause, SkipCause,
};
use crate::resolved_plan::{OnFailure, Outputs, PhaseSpec, StepSpec};
use serde::Serialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// A task: a step at an agent.
pub type TaskKey = (StepId, AgentName);

pub(super) fn task_key(step: &StepId, agent: &AgentName) -> TaskKey {
    (step.clone(), agent.clone())
}

/// How a phase stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum PhaseStatus {
    /// Not begun, or to be tried again.
    Pending,
    /// Votes are collected; the gate may be waited for.
    Preparing,
    /// The release is durable.
    Released,
    Failed {
        failure: Failure,
        leads_to: OnFailure,
    },
    /// Everyone has finished it.
    Completed,
    /// It was left out.
    Skipped { why: SkipCause },
}

impl PhaseStatus {
    /// Nothing of it is left to do.
    pub fn is_over(&self) -> bool {
        match self {
            Self::Completed | Self::Skipped { .. } => true,
            Self::Pending | Self::Preparing | Self::Released | Self::Failed { .. } => false,
        }
    }

    /// It failed, and the rest of the rollback does not wait for it.
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
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PhaseState {
    pub status: PhaseStatus,
    /// Last attempt, from 1; 0 before the first.
    pub attempt: u32,
    /// Who takes part in this attempt, with steps in order.
    pub tasks: BTreeMap<AgentName, Vec<StepId>>,
    /// Prepare rounds since the phase became due; bounded.
    pub rounds: u32,
    /// Times it was retried without an operator; bounded.
    pub automatic_retries: u32,
    /// Who opened the gate. Serves until the phase fails.
    pub gate_opened: Option<OperatorRequest>,
    /// A Revoke went out for this attempt.
    pub revoked: bool,
    /// What the release of this attempt consumed.
    pub consumed: Vec<crate::record::Consumed>,
    /// It was released at least once.
    pub ever_released: bool,
}

/// How a task stands.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "kebab-case", tag = "status")]
pub enum TaskStatus {
    /// Not released in any attempt, or to be tried again.
    Waiting,
    /// Released, no outcome yet: open (R2).
    Released,
    /// Released and not heard of in time: still open (R5).
    Lost,
    Ended {
        /// How, in the latest attempt.
        report: TaskReport,
    },
    /// The operator passed it while it was open; its undo is owed (R5).
    Waived,
    /// A breach voided what it had proved (R15).
    Voided,
    /// Left out of a rollback, as a debt (R18).
    UndoOutstanding,
}

/// A task of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskState {
    pub phase: PhaseRef,
    pub status: TaskStatus,
    /// Attempt of its latest release; 0 before.
    pub attempt: u32,
    /// It may have changed the host and has not been undone. Survives
    /// attempts: a later `not-started` takes nothing back (R7).
    pub touched: bool,
    /// It was lost or waived, so nobody knows; its outcome, or its undo,
    /// clears that.
    pub suspect: bool,
    /// The operator's word on an `unknown` outcome.
    pub resolved: Option<crate::record::Resolution>,
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

    /// Its outcome, if it ended.
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

    /// Nobody knows what became of it, and no operator has said.
    pub fn is_unclear(&self) -> bool {
        self.outcome().is_some_and(Outcome::is_unclear) && self.resolved.is_none()
    }
}

/// A watch that was armed.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct WatchState {
    /// Breaches seen by it.
    pub breaches: Vec<String>,
    /// A retry sets it anew: until then it need not attest, but it still
    /// stands, and must be disarmed before a door is opened.
    pub superseded: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Breach {
    pub agent: AgentName,
    pub step: StepId,
    pub detail: String,
    /// After the point of no return it voids nothing; it is listed (R17).
    pub after_no_return: bool,
}

/// Where a run's rollback stands.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Rollback {
    /// Why it was decided.
    pub cause: RollbackCause,
    /// Nothing forward is open any more and its own phases have begun.
    pub began: bool,
    /// Something forward may have changed a host. Where nothing has, the
    /// rollback's phases have nothing to do.
    pub needed: bool,
}

/// The durable state of a run.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct State {
    /// What it began with.
    pub begin: Begin,
    /// The term it is led under.
    pub term: Term,
    /// Every term that it was led under, as far as this journal says, and
    /// those that were taken over; each with the last decision of it that is
    /// known.
    #[serde(skip)]
    pub terms: BTreeMap<Term, Decision>,
    /// Decisions are counted above this: the highest one of another
    /// coordinator that was taken over (R11).
    pub decisions_above: Decision,
    /// Sequence of its last record.
    pub last: u64,
    /// The last record that decided something (R1): its sequence, above
    /// [`Self::decisions_above`].
    pub decision: Decision,
    /// Forward phases, by index.
    pub forward: Vec<PhaseState>,
    /// Rollback phases, by index.
    pub backward: Vec<PhaseState>,
    /// Every task of both tracks.
    #[serde(skip)]
    pub tasks: BTreeMap<TaskKey, TaskState>,
    /// Outputs, by step and agent, with the attempt they belong to (R15).
    pub outputs: BTreeMap<StepId, BTreeMap<AgentName, (u32, Outputs)>>,
    /// First before-images, by agent and step (R6).
    pub before_images: BTreeMap<AgentName, BTreeMap<StepId, Value>>,
    #[serde(skip)]
    pub watches: BTreeMap<TaskKey, WatchState>,
    pub breaches: Vec<Breach>,
    /// A breach that the current phase has not failed for yet: whose watch,
    /// which, what.
    pub breach_pending: Option<(AgentName, StepId, String)>,
    pub outstanding_undos: Vec<OutstandingUndo>,
    /// Paused by an operator.
    pub paused: Option<OperatorRequest>,
    /// Held by something that no phase's failure says: contradictions, a
    /// breach after the point of no return. Sentences for the operator.
    pub held: Vec<String>,
    pub rollback: Option<Rollback>,
    pub abort: Option<OperatorRequest>,
    /// Another coordinator has led this run, and what it decided is not in
    /// this journal: who has obeyed it, in sentences for the operator. Then
    /// the run can only be given up (R11).
    pub decisions_lost: Vec<String>,
    /// Agents that came back without their journal.
    pub journals_lost: BTreeSet<AgentName>,
    /// Request ids that were carried out, with the sequence they led to (R20).
    pub requests: BTreeMap<String, u64>,
    /// Largest write outage that a record has named, in milliseconds.
    pub outage: Option<crate::ids::Millis>,
    pub ended: Option<Ending>,
    /// Who is free of it.
    pub closed_by: BTreeSet<AgentName>,
}

impl State {
    /// Sequence of the last record that decided something.
    pub fn decided_at(&self) -> u64 {
        self.decision.saturating_sub(self.decisions_above)
    }

    /// Which way the run goes.
    pub fn track(&self) -> Track {
        match &self.rollback {
            Some(rollback) if rollback.began => Track::Rollback,
            _ => Track::Forward,
        }
    }

    /// Phases of a track.
    pub fn phases(&self, track: Track) -> &[PhaseState] {
        match track {
            Track::Forward => &self.forward,
            Track::Rollback => &self.backward,
        }
    }

    /// A phase, if the plan has it.
    pub fn phase(&self, phase: PhaseRef) -> Option<&PhaseState> {
        self.phases(phase.track).get(phase.index as usize)
    }

    /// A phase's part of the plan.
    pub fn spec(&self, phase: PhaseRef) -> Option<&PhaseSpec> {
        match phase.track {
            Track::Forward => &self.begin.resolved_plan.forward,
            Track::Rollback => &self.begin.resolved_plan.rollback,
        }
        .get(phase.index as usize)
    }

    /// A step's part of the plan, with its phase.
    pub fn step(&self, id: &StepId) -> Option<(PhaseRef, &StepSpec)> {
        all_steps(&self.begin.resolved_plan).find(|(_, step)| step.id == *id)
    }

    /// The phase the run is in: the first one of its track that is neither
    /// complete nor skipped. One that failed and was left behind comes last,
    /// unless something in it is still open (R2).
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

    /// The phase failed, nothing in it is open, and the plan says that the
    /// rest of the rollback goes on without it.
    fn is_left_behind(&self, phase: PhaseRef) -> bool {
        let behind = self
            .phase(phase)
            .is_some_and(|state| state.status.is_left_behind());
        behind && self.tasks_of(phase).all(|(_, task)| !task.is_open())
    }

    /// Tasks of a phase.
    pub fn tasks_of(&self, phase: PhaseRef) -> impl Iterator<Item = (&TaskKey, &TaskState)> {
        self.tasks
            .iter()
            .filter(move |(_, task)| task.phase == phase)
    }

    /// Tasks that are released and have neither outcome nor tombstone.
    pub fn open_tasks(&self) -> impl Iterator<Item = (&TaskKey, &TaskState)> {
        self.tasks.iter().filter(|(_, task)| task.is_open())
    }

    /// Watches whose word a release needs (R17).
    pub fn attesting_watches(&self) -> impl Iterator<Item = &TaskKey> {
        let standing = self.watches.iter();
        standing
            .filter(|(_, watch)| !watch.superseded)
            .map(|(key, _)| key)
    }

    /// Forward tasks whose change, or possible change, has not been taken
    /// back: the exact list an operator needs when an undo fails.
    pub fn still_changed(&self) -> impl Iterator<Item = &TaskKey> {
        self.tasks
            .iter()
            .filter(|(_, task)| task.phase.track == Track::Forward && task.may_have_changed())
            .filter(|((step, _), _)| self.step(step).is_some_and(|(_, spec)| spec.undoable))
            .map(|(key, _)| key)
    }

    /// The release of a phase behind which there is no automatic way back is
    /// durable.
    pub fn past_no_return(&self) -> bool {
        self.begin
            .resolved_plan
            .forward
            .iter()
            .zip(&self.forward)
            .any(|(spec, phase)| spec.point_of_no_return && phase.ever_released)
    }

    /// The point of no return was released, and every participant of it has
    /// said that it never started: the way back is open again (R14). What only
    /// looks opens nothing.
    pub fn no_return_is_tombstoned(&self) -> bool {
        let opens = |step| self.step(step).is_some_and(|(_, spec)| !spec.read_only);
        self.tasks
            .iter()
            .filter(|((step, _), task)| {
                task.phase.track == Track::Forward
                    && self.spec(task.phase).is_some_and(|s| s.point_of_no_return)
                    && opens(step)
            })
            .all(|(_, task)| {
                // A door that was found open never needed to be opened.
                let found_open = task.outcome() == Some(&Outcome::Unchanged);
                !found_open && !task.may_have_changed()
            })
    }
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
