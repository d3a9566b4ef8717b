//! The records in an agent's journal, of all runs.

use super::FormatVersion;
use crate::ids::{BootTime, Decision, Digest, Millis, PhaseRef, RunId, StepId, Term};
use crate::message::{Changes, Probe, TaskOrder, TaskReport};
use crate::resolved_plan::Outputs;
use lockstep_api::Diagnosis;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why an agent will never execute an attempt (R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tombstone {
    /// The coordinator revoked it.
    Revoked,
    /// Its promise lapsed by the agent's clock.
    Lapsed,
    /// The agent restarted, and a restart voids promises (R12).
    Restarted,
    /// A rollback has begun at this agent.
    Undone,
}

/// A record in an agent's journal.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "record", deny_unknown_fields)]
pub enum ParticipantRecord {
    /// Always the first record, written together with the second one.
    Opened {
        /// Format of the whole journal.
        format: FormatVersion,
    },
    /// An order with a higher term or decision than any before was accepted.
    /// Durable before the first reply to it (R1, R9).
    Accepted {
        run: RunId,
        term: Term,
        decision: Decision,
    },
    /// The agent voted ready. The first promise locks it to the run (R19).
    Promised {
        run: RunId,
        digest: Digest,
        phase: PhaseRef,
        attempt: u32,
        tasks: Vec<TaskOrder>,
        /// Time limit for all tasks, from the release.
        finish_by: Millis,
        probes: BTreeMap<StepId, Probe>,
    },
    /// The agent refused to promise.
    Refused {
        run: RunId,
        digest: Digest,
        phase: PhaseRef,
        attempt: u32,
        reasons: Vec<Diagnosis>,
    },
    /// The agent will never execute this attempt (R3).
    Tombstoned {
        run: RunId,
        digest: Digest,
        phase: PhaseRef,
        attempt: u32,
        why: Tombstone,
    },
    /// A rollback has begun at this agent; it accepts no forward phase any more.
    ForwardClosed {
        run: RunId,
        digest: Digest,
    },
    Released {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        inputs: BTreeMap<StepId, Outputs>,
        /// Before-images from the coordinator's journal, for undo.
        before_images: BTreeMap<StepId, Value>,
        /// When the coordinator recorded it, by this agent's clock, so that its age
        /// is known after a restart (R12, R13).
        at: BootTime,
    },
    /// A task is about to change the host.
    Intent {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        step: StepId,
        /// State before the first intent of this task (R6).
        before_image: Option<Value>,
    },
    /// A running task has changed its host.
    Changed {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        step: StepId,
        changes: Changes,
    },
    Ended {
        report: TaskReport,
    },
    /// The outcome is durable at the coordinator.
    Acked {
        run: RunId,
        step: StepId,
        phase: PhaseRef,
        attempt: u32,
    },
    /// A watch is armed; it is armed again after a restart (R16).
    WatchArmed {
        run: RunId,
        task: TaskOrder,
        inputs: BTreeMap<StepId, Outputs>,
    },
    /// A watch detected a breach.
    WatchBroke {
        run: RunId,
        step: StepId,
        detail: String,
    },
    Disarmed {
        run: RunId,
        steps: Vec<StepId>,
    },
    /// The run has ended; the agent is not locked to it any more (R19).
    Closed {
        run: RunId,
    },
}

impl ParticipantRecord {
    /// The format that the record states, if it is the first record of a journal.
    pub fn opens(&self) -> Option<FormatVersion> {
        match self {
            Self::Opened { format } => Some(*format),
            Self::Accepted { .. }
            | Self::Promised { .. }
            | Self::Refused { .. }
            | Self::Tombstoned { .. }
            | Self::ForwardClosed { .. }
            | Self::Released { .. }
            | Self::Intent { .. }
            | Self::Changed { .. }
            | Self::Ended { .. }
            | Self::Acked { .. }
            | Self::WatchArmed { .. }
            | Self::WatchBroke { .. }
            | Self::Disarmed { .. }
            | Self::Closed { .. } => None,
        }
    }
}
