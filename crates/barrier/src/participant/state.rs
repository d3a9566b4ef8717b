//! The durable state of an agent: the fold of its records.

use crate::ids::{BootTime, Decision, Digest, Millis, PhaseRef, RunId, StepId, Term};
use crate::message::{Changes, Outcome, Probe, TaskOrder, TaskReport};
use crate::record::Tombstone;
use crate::resolved_plan::Outputs;
use lockstep_api::Diagnosis;
use serde_json::Value;
use std::collections::BTreeMap;

/// Status of the latest attempt of a phase at an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum PromiseStatus {
    Live,
    Refused {
        reasons: Vec<Diagnosis>,
    },
    Released {
        inputs: BTreeMap<StepId, Outputs>,
        /// Before-images from the coordinator's journal, for undo.
        before_images: BTreeMap<StepId, Value>,
        at: BootTime,
    },
    /// It will never be executed here (R3).
    Tombstoned {
        why: Tombstone,
    },
}

/// The latest attempt of a phase.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Promise {
    pub attempt: u32,
    pub status: PromiseStatus,
    /// Its tasks, in order; empty if the agent has not promised it.
    pub tasks: Vec<TaskOrder>,
    /// Time limit for all tasks, from the release.
    pub finish_by: Millis,
    pub probes: BTreeMap<StepId, Probe>,
}

/// A task, over all its attempts.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct TaskLog {
    /// The attempt that last declared intent.
    pub intent: Option<u32>,
    /// State before the first intent (R6); outer `None` before it.
    pub before_image: Option<Option<Value>>,
    /// What the attempt of `intent` has changed.
    pub changes: Changes,
    pub report: Option<TaskReport>,
    /// The coordinator has not acknowledged it yet.
    pub unacknowledged: bool,
}

impl TaskLog {
    /// The outcome of an attempt, if that attempt has ended.
    pub fn ended(&self, attempt: u32) -> Option<&TaskReport> {
        self.report.as_ref().filter(|r| r.attempt == attempt)
    }

    /// An attempt has declared intent and has no outcome.
    pub fn is_pending(&self, attempt: u32) -> bool {
        self.intent == Some(attempt) && self.ended(attempt).is_none()
    }

    /// An intent was declared in some attempt.
    pub fn may_have_changed(&self) -> bool {
        self.intent.is_some()
    }

    pub fn outcome(&self) -> Option<&Outcome> {
        self.report.as_ref().map(|report| &report.outcome)
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct WatchLog {
    pub task: TaskOrder,
    pub inputs: BTreeMap<StepId, Outputs>,
    pub breaches: Vec<String>,
}

/// State of a run at an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct RunLog {
    pub digest: Option<Digest>,
    /// Highest decision accepted (R1).
    pub decision: Decision,
    /// Latest attempt of each phase.
    pub phases: BTreeMap<PhaseRef, Promise>,
    /// When each phase was first released here.
    pub released: BTreeMap<PhaseRef, BootTime>,
    pub tasks: BTreeMap<StepId, TaskLog>,
    pub watches: BTreeMap<StepId, WatchLog>,
    /// A rollback has begun at this agent; no forward phase is accepted.
    pub forward_closed: bool,
}

/// The durable state of an agent.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct State {
    /// Sequence of its last record.
    pub last: u64,
    /// Highest term accepted (R9).
    pub term: Term,
    /// Runs that are not closed. At most one holds a promise (R19).
    pub runs: BTreeMap<RunId, RunLog>,
    /// Runs that are closed, with the sequence of the record; the last
    /// [`MAX_CLOSED`] of them.
    pub closed: BTreeMap<RunId, u64>,
}

/// Closed runs that an agent remembers in order to refuse their orders. An order
/// that arrives later than that many runs is assumed not to exist.
pub const MAX_CLOSED: usize = 1_000;

impl State {
    /// The run this agent is locked to (R19).
    pub fn locked(&self) -> Option<&RunId> {
        self.runs.keys().next()
    }

    pub fn run(&self, run: &RunId) -> Option<&RunLog> {
        self.runs.get(run)
    }

    pub(super) fn close(&mut self, run: RunId) {
        self.runs.remove(&run);
        self.closed.insert(run, self.last);
        if self.closed.len() > MAX_CLOSED
            && let Some(oldest) = self.closed.values().min().copied()
        {
            self.closed.retain(|_, at| *at > oldest);
        }
    }

    /// The latest attempt of a phase.
    pub fn promise(&self, run: &RunId, phase: PhaseRef) -> Option<&Promise> {
        self.runs.get(run)?.phases.get(&phase)
    }

    pub fn task(&self, run: &RunId, step: &StepId) -> Option<&TaskLog> {
        self.runs.get(run)?.tasks.get(step)
    }
}
