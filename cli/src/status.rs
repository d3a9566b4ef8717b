//! How a run and the agents stand: the one form that every output renders.
//!
//! The JSON of these types is an interface; fields are only added.

use crate::exit::Exit;
use jiff::Timestamp;
use serde::Serialize;
use serde_json::Value;
use std::collections::BTreeMap;

/// How a run stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Run {
    /// Its id, UUIDv7.
    pub id: String,
    /// Name of its plan.
    pub plan: String,
    /// Kind of its plan.
    pub kind: String,
    /// Digest of its plan.
    pub digest: String,
    pub outcome: RunOutcome,
    /// The exit code that belongs to the outcome; none while it goes on.
    pub exit_code: Option<u8>,
    pub trace_id: String,
    pub started_by: String,
    pub started_at: Option<Timestamp>,
    pub ended_at: Option<Timestamp>,
    /// Sequence of its last journal entry.
    pub sequence: u64,
    /// What it waits for.
    pub waits_on: Vec<String>,
    /// Why it holds, failed or rolled back.
    pub reason: String,
    /// How long applications couldn't write.
    pub write_outage_ms: u64,
    /// How long they may be unable to; 0 without a budget.
    pub outage_budget_ms: u64,
    /// What waived agents still owe.
    pub debts: Vec<String>,
    /// What is still changed.
    pub still_changed: Vec<String>,
    pub phases: Vec<Phase>,
}

/// A run as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum RunOutcome {
    #[default]
    Running,
    /// It waits for an operator.
    Waiting,
    /// Every phase is done.
    Completed,
    RolledBack,
    /// Failed with nothing to roll back.
    Failed,
    /// Ended by an operator as it stood.
    Aborted,
}

impl RunOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Running => "running",
            Self::Waiting => "waiting",
            Self::Completed => "completed",
            Self::RolledBack => "rolled back",
            Self::Failed => "failed",
            Self::Aborted => "aborted",
        }
    }

    /// Whether nothing more will happen.
    pub fn is_end(self) -> bool {
        !matches!(self, Self::Running | Self::Waiting)
    }
}

/// How a phase stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Phase {
    pub name: String,
    /// The standard phase it belongs to.
    pub standard: String,
    /// `forward` or `rollback`.
    pub track: &'static str,
    /// Steps of the procedure that it carries out.
    pub seed_steps: Vec<String>,
    pub outcome: PhaseOutcome,
    pub attempt: u32,
    /// `none`, `approval` or `hold`.
    pub gate: String,
    /// What the barrier itself cost.
    pub barrier_ms: u64,
    /// From release to completion.
    pub took_ms: u64,
    /// When it was first prepared.
    pub prepared_at: Option<Timestamp>,
    /// When it was released.
    pub released_at: Option<Timestamp>,
    /// When it was complete.
    pub completed_at: Option<Timestamp>,
    pub tasks: Vec<Task>,
}

/// A phase as a whole.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum PhaseOutcome {
    #[default]
    Pending,
    Preparing,
    /// Waits at its gate.
    Gated,
    Executing,
    Done,
    Failed,
    /// Passed over, or without tasks.
    Skipped,
    Undone,
}

impl PhaseOutcome {
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Preparing => "preparing",
            Self::Gated => "at its gate",
            Self::Executing => "executing",
            Self::Done => "done",
            Self::Failed => "failed",
            Self::Skipped => "skipped",
            Self::Undone => "undone",
        }
    }
}

/// How one agent's task stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Task {
    pub agent: String,
    pub step: String,
    pub action: String,
    /// The forward step that it undoes.
    pub undo_of: Option<String>,
    /// `pending`, `ready`, `refused`, `open`, `lost`, `waived` or how it ended.
    pub outcome: String,
    /// Error, reason or detail.
    pub detail: String,
    /// How long the action took.
    pub ms: u64,
    /// Attempt of the outcome.
    pub attempt: u32,
    /// What it gave to later steps.
    pub outputs: Value,
}

impl Task {
    /// Whether it went wrong, or nobody knows.
    pub fn is_bad(&self) -> bool {
        matches!(
            self.outcome.as_str(),
            "failed" | "unknown" | "drifted" | "interrupted" | "lapsed" | "lost" | "refused"
        )
    }
}

impl Run {
    /// How a command that waited for this state ends; none while the run goes on.
    pub fn exit(&self) -> Option<Exit> {
        self.exit_code.and_then(|code| Exit::of_code(code.into()))
    }

    /// The phase that is being worked on, if any.
    pub fn current(&self) -> Option<&Phase> {
        let busy = |phase: &&Phase| {
            matches!(
                phase.outcome,
                PhaseOutcome::Preparing
                    | PhaseOutcome::Gated
                    | PhaseOutcome::Executing
                    | PhaseOutcome::Failed
            )
        };
        // A rollback comes after the phase that failed.
        self.phases.iter().rev().find(busy)
    }
}

#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Event {
    pub sequence: u64,
    /// When it was written.
    pub at: Option<Timestamp>,
    pub kind: String,
    /// One line for people.
    pub summary: String,
    pub record: Value,
    /// Hash over this entry and the one before.
    pub hash: String,
}

/// A line of a task that is at work.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Line {
    pub agent: String,
    /// Name of the phase.
    pub phase: String,
    pub step: String,
    /// `started`, `note` or `output`.
    pub kind: String,
    pub line: String,
    pub at: Option<Timestamp>,
}

/// Something that happened while watching.
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(tag = "type", rename_all = "snake_case")]
pub enum Happening {
    /// How the run stands now.
    Status {
        run: Box<Run>,
    },
    Event {
        event: Event,
    },
    /// A line of a task.
    Line {
        line: Line,
    },
}

/// How an agent stands.
#[derive(Debug, Clone, Default, PartialEq, Serialize)]
pub struct Agent {
    pub name: String,
    /// Whether its session is open.
    pub connected: bool,
    /// Why it is in quarantine.
    pub quarantine: Option<String>,
    /// What parties choose it by.
    pub labels: BTreeMap<String, String>,
    pub version: String,
    pub journal_id: String,
    /// Where it connects from.
    pub address: String,
    /// When it was last heard.
    pub last_heard: Option<Timestamp>,
    /// The run it is locked to.
    pub run: Option<String>,
    /// Actions that its policy allows.
    pub allowed_actions: Vec<String>,
}

impl Agent {
    pub fn state(&self) -> &'static str {
        match (&self.quarantine, self.connected) {
            // Another one that goes by its name was refused.
            (Some(_), true) => "connected, a copy quarantined",
            (Some(_), false) => "quarantined",
            (None, true) => "connected",
            (None, false) => "away",
        }
    }
}

/// One agent's part of a plan as its probes see it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Preflight {
    /// The agent; none where it concerns the plan as a whole.
    pub agent: Option<String>,
    /// What stands in the way as a whole.
    pub obstacles: Vec<String>,
    pub tasks: Vec<PreflightTask>,
}

/// A task as its probe sees it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PreflightTask {
    /// Name of the phase.
    pub phase: String,
    pub step: String,
    pub action: String,
    /// `todo`, `already` or `unclear`; none where the probe couldn't run.
    pub finding: Option<&'static str>,
    /// What would be done.
    pub would_do: Vec<String>,
    /// What stands in the way.
    pub obstacles: Vec<String>,
    pub remarks: Vec<String>,
}
