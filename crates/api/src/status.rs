//! The status of runs, phases, tasks and agents: produced by the
//! coordinator and rendered by every output format.

use crate::diagnosis::Diagnosis;
use crate::exit::Exit;
use crate::words::{Finding, Gate, Track, words};
use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

words! {
    /// A run as a whole.
    #[derive(Default)]
    RunOutcome {
        #[default]
        Running = "running",
        /// It waits for an operator.
        Waiting = "waiting",
        /// Every phase is done.
        Completed = "completed",
        /// It is over, but an operator skipped a phase or waived a task of it.
        CompletedWithSkips = "completed-with-skips",
        RolledBack = "rolled-back",
        /// Failed with nothing to roll back.
        Failed = "failed",
        /// Ended by an operator; what was changed stays changed.
        Aborted = "aborted",
    }
}

impl RunOutcome {
    /// Whether the run is over.
    pub const fn is_final(self) -> bool {
        !matches!(self, Self::Running | Self::Waiting)
    }
}

words! {
    /// A phase as a whole.
    #[derive(Default)]
    PhaseOutcome {
        #[default]
        Pending = "pending",
        Preparing = "preparing",
        /// It waits at its gate.
        Gated = "gated",
        Executing = "executing",
        Done = "done",
        Failed = "failed",
        /// Skipped by an operator, or without tasks.
        Skipped = "skipped",
        /// Was done and has been rolled back.
        Undone = "undone",
    }
}

words! {
    /// State or outcome of a task.
    #[derive(Default)]
    TaskOutcome {
        #[default]
        Pending = "pending",
        /// The agent voted to execute it.
        Ready = "ready",
        /// The agent voted against the phase.
        Refused = "refused",
        /// Released; no outcome yet.
        Open = "open",
        /// Released; its agent did not report in time.
        Lost = "lost",
        /// An operator stopped waiting for it.
        Waived = "waived",
        /// The release is no longer valid.
        Voided = "voided",
        /// A waived agent has yet to undo it.
        UndoOutstanding = "undo-outstanding",
        Done = "done",
        /// The desired state was already in effect; nothing was changed.
        Unchanged = "unchanged",
        /// A watch is in effect.
        Armed = "armed",
        Failed = "failed",
        /// Neither the agent nor its probe could determine the outcome.
        Unknown = "unknown",
        /// The undo found a change made by someone else.
        Drifted = "drifted",
        /// The agent was interrupted before the action took full effect.
        Interrupted = "interrupted",
        /// Not started and not going to start in this attempt.
        NotStarted = "not-started",
        /// The promise had lapsed when the release arrived.
        Lapsed = "lapsed",
    }
}

impl TaskOutcome {
    /// Whether the task failed or its outcome is uncertain.
    pub const fn is_bad(self) -> bool {
        match self {
            Self::Failed
            | Self::Unknown
            | Self::Drifted
            | Self::Interrupted
            | Self::Lapsed
            | Self::Lost
            | Self::Refused => true,
            Self::Pending
            | Self::Ready
            | Self::Open
            | Self::Waived
            | Self::Voided
            | Self::UndoOutstanding
            | Self::Done
            | Self::Unchanged
            | Self::Armed
            | Self::NotStarted => false,
        }
    }
}

words! {
    LineKind {
        Started = "started",
        /// A message of the action.
        Note = "note",
        /// Output of a program.
        Output = "output",
    }
}

/// The time of a status from milliseconds since the epoch; 0 stands for never.
pub fn timestamp(ms: u64) -> Option<Timestamp> {
    let ms = i64::try_from(ms).ok().filter(|ms| *ms != 0)?;
    Timestamp::from_millisecond(ms).ok()
}

/// The status of a run.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct RunStatus {
    /// UUIDv7.
    pub id: String,
    /// Name of the plan.
    pub plan: String,
    /// Kind of the plan.
    pub kind: String,
    /// Digest of the plan, hex.
    pub digest: String,
    pub outcome: RunOutcome,
    /// Exit code of a command that waits for this outcome; none while the run is in
    /// progress. Only the coordinator knows whether a waiting run has failed.
    pub exit_code: Option<Exit>,
    pub trace_id: String,
    pub started_by: String,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Sequence of the last journal entry.
    pub sequence: u64,
    /// What the run waits for, one sentence each; empty after its end.
    pub waits_on: Vec<String>,
    /// Reason for the hold, failure or rollback; empty if there was none.
    pub reason: String,
    /// Duration of the write outage so far.
    pub write_outage_ms: u64,
    /// Budget of the write outage; 0 if the plan has none.
    pub outage_budget_ms: u64,
    /// The write outage has begun and has not ended.
    pub outage_open: bool,
    /// An abort or a rollback that is decided and waits for open tasks, one sentence;
    /// empty otherwise.
    pub decided: String,
    /// Undos that agents of waived tasks have yet to run, one sentence each.
    pub outstanding_undo: Vec<String>,
    /// Changes that remain after an abort or a failed undo, one sentence each.
    pub still_changed: Vec<String>,
    /// Both tracks, forward first; empty in lists.
    pub phases: Vec<PhaseStatus>,
}

impl RunStatus {
    /// The phase that is being worked on, if any.
    pub fn current(&self) -> Option<&PhaseStatus> {
        let active = |phase: &&PhaseStatus| {
            matches!(
                phase.outcome,
                PhaseOutcome::Preparing
                    | PhaseOutcome::Gated
                    | PhaseOutcome::Executing
                    | PhaseOutcome::Failed
            )
        };
        // The rollback track comes after the phase that failed.
        self.phases.iter().rev().find(active)
    }
}

/// The status of a phase.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PhaseStatus {
    /// Unique in the run.
    pub name: String,
    /// The standard phase it belongs to; equals the name in plans of kind Plan.
    pub standard: String,
    pub track: Track,
    /// Position in the track.
    pub index: u32,
    /// Steps of the runbook that this phase performs.
    pub runbook_steps: Vec<String>,
    pub outcome: PhaseOutcome,
    pub attempt: u32,
    pub gate: Gate,
    /// Cost of the barrier: time from the first Prepare to completion, less the
    /// longest sequence of actions of one agent.
    pub barrier_ms: u64,
    /// From release to completion.
    pub took_ms: u64,
    /// When it was first prepared.
    pub prepared_at: Option<Timestamp>,
    pub released_at: Option<Timestamp>,
    pub completed_at: Option<Timestamp>,
    pub tasks: Vec<TaskStatus>,
    /// Why the phase failed, if it did. It names the tasks; their errors are in `tasks`.
    pub failure: Option<Diagnosis>,
    /// Why agents refused the phase, if it failed for that.
    pub refusals: Vec<Refusal>,
    /// What an abort would leave changed of this phase now; empty if nothing, and after
    /// the run's end.
    pub abort_leaves: String,
}

/// A reason for which an agent refused a phase.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Refusal {
    pub agent: String,
    pub diagnosis: Diagnosis,
}

/// The status of one agent's task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct TaskStatus {
    pub agent: String,
    pub step: String,
    pub action: String,
    /// The forward step that it undoes.
    pub undo_of: Option<String>,
    pub outcome: TaskOutcome,
    /// Detail of the outcome, such as what drifted; for a failed task the diagnosis
    /// on one line.
    pub detail: String,
    /// Structured reason for a failure.
    pub diagnosis: Option<Diagnosis>,
    /// Duration of the action.
    pub took_ms: u64,
    /// Attempt of the outcome.
    pub attempt: u32,
    /// Values for later steps: an object, or null.
    pub outputs: Value,
    /// When its action started; none if that is not known.
    pub started_at: Option<Timestamp>,
    /// When its outcome was received; none before.
    pub ended_at: Option<Timestamp>,
    /// While it is open: when it is considered lost.
    pub deadline_at: Option<Timestamp>,
    /// While it is open: its last note or line of output; empty if there is none.
    pub progress: String,
    /// While it is open: since when its agent has been disconnected.
    pub disconnected_since: Option<Timestamp>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct RunEvent {
    pub sequence: u64,
    pub at: Option<Timestamp>,
    /// The record's kind, such as `released` or `task-ended`.
    pub kind: String,
    /// Summary in one line.
    pub summary: String,
    pub record: Value,
    /// Hash of this entry, chained to the previous entry, hex.
    pub hash: String,
}

/// A line of a task that is executing.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TaskLine {
    pub agent: String,
    /// Name of the phase.
    pub phase: String,
    pub step: String,
    pub kind: LineKind,
    pub line: String,
    pub at: Option<Timestamp>,
}

/// An agent of a run lost or opened its session.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AgentConnection {
    pub agent: String,
    pub connected: bool,
    pub at: Option<Timestamp>,
}

/// One message of a watched run.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "type", rename_all = "kebab-case")]
pub enum RunUpdate {
    /// Sent first, and after every journal entry.
    Status {
        run: Box<RunStatus>,
    },
    Event {
        event: RunEvent,
    },
    Line {
        line: TaskLine,
    },
    Connection {
        connection: AgentConnection,
    },
}

/// The status of an agent.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct AgentStatus {
    pub name: String,
    /// Whether its session is open.
    pub connected: bool,
    /// Why it is in quarantine.
    pub quarantine: Option<String>,
    /// Labels by which parties choose it.
    pub labels: BTreeMap<String, String>,
    pub version: String,
    pub journal_id: String,
    /// Remote address of its last session.
    pub address: String,
    pub last_seen: Option<Timestamp>,
    /// The run it is locked to.
    pub run: Option<String>,
    /// Actions that its policy allows.
    pub allowed_actions: Vec<String>,
}

impl AgentStatus {
    /// Connection and quarantine as text.
    pub fn state(&self) -> &'static str {
        match (&self.quarantine, self.connected) {
            // A second agent of the same name was refused.
            (Some(_), true) => "connected, a copy quarantined",
            (Some(_), false) => "quarantined",
            (None, true) => "connected",
            (None, false) => "disconnected",
        }
    }
}

/// One agent's part of a preflight.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PreflightReport {
    /// The agent; none for the plan as a whole.
    pub agent: Option<String>,
    /// Obstacles that belong to no task.
    pub obstacles: Vec<String>,
    pub tasks: Vec<PreflightTask>,
}

impl PreflightReport {
    /// Number of obstacles, those of tasks included.
    pub fn obstacle_count(&self) -> usize {
        let of_tasks = self.tasks.iter().map(|task| task.obstacles.len());
        self.obstacles.len() + of_tasks.sum::<usize>()
    }
}

/// Result of a preflight for one task.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct PreflightTask {
    /// Name of the phase.
    pub phase: String,
    pub step: String,
    pub action: String,
    /// None where the probe could not run.
    pub finding: Option<Finding>,
    /// The SQL, commands or API calls that would be executed, one per line.
    pub would_do: Vec<String>,
    pub obstacles: Vec<String>,
    pub remarks: Vec<String>,
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fmt;

    fn one_spelling<T>(all: &[T])
    where
        T: fmt::Display + Serialize + for<'de> Deserialize<'de> + PartialEq + fmt::Debug,
    {
        let kebab = |word: &str| word.bytes().all(|b| b.is_ascii_lowercase() || b == b'-');
        for value in all {
            let word = value.to_string();
            assert!(kebab(&word), "{word}");
            let json = serde_json::to_value(value).unwrap();
            assert_eq!(json, Value::String(word));
            assert_eq!(&serde_json::from_value::<T>(json).unwrap(), value);
        }
    }

    #[test]
    fn text_and_json_spell_every_value_alike() {
        one_spelling(RunOutcome::ALL);
        one_spelling(PhaseOutcome::ALL);
        one_spelling(TaskOutcome::ALL);
        one_spelling(Track::ALL);
        one_spelling(Gate::ALL);
        one_spelling(Finding::ALL);
        one_spelling(LineKind::ALL);
    }

    #[test]
    fn the_rollback_is_current_after_the_phase_that_failed() {
        let phase = |track, outcome| PhaseStatus {
            track,
            outcome,
            ..PhaseStatus::default()
        };
        let mut run = RunStatus {
            phases: vec![
                phase(Track::Forward, PhaseOutcome::Done),
                phase(Track::Forward, PhaseOutcome::Failed),
                phase(Track::Rollback, PhaseOutcome::Executing),
            ],
            ..RunStatus::default()
        };
        assert_eq!(run.current().unwrap().track, Track::Rollback);
        run.phases.truncate(1);
        assert_eq!(run.current(), None);
    }

    #[test]
    fn an_exit_code_is_a_number_in_json() {
        let run = RunStatus {
            outcome: RunOutcome::RolledBack,
            exit_code: Some(Exit::RolledBack),
            ..RunStatus::default()
        };
        let json = serde_json::to_value(&run).unwrap();
        assert_eq!(json["exit_code"], 5);
        assert_eq!(json["outcome"], "rolled-back");
        assert_eq!(serde_json::from_value::<RunStatus>(json).unwrap(), run);
    }
}
