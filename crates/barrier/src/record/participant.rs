//! The records in an agent's journal, of all runs.

use super::FormatVersion;
use crate::ids::{BootTime, Decision, Digest, Millis, PhaseRef, RunId, StepId, Term};
use crate::message::{Probe, TaskOrder, TaskReport};
use crate::resolved_plan::Outputs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

/// Why an attempt is closed for ever at an agent (R3).
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Tombstone {
    /// The coordinator revoked it.
    Revoked,
    /// Its promise lapsed by the clock.
    Lapsed,
    /// The agent restarted, and a restart voids promises (R12).
    Restarted,
    /// A rollback began here.
    Undone,
}

/// A participant's records, of all runs.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case", tag = "record", deny_unknown_fields)]
pub enum ParticipantRecord {
    /// The journal was begun. Always the first, and written together with the
    /// first record that says something.
    Opened {
        /// Of this record and all that follow.
        format: FormatVersion,
    },
    /// An order with a higher term or decision than any before was accepted.
    /// Stands before the first reply to it (R1, R9).
    Accepted {
        run: RunId,
        term: Term,
        decision: Decision,
    },
    /// A promise was made. The first one locks the agent to the run (R19).
    Promised {
        run: RunId,
        digest: Digest,
        phase: PhaseRef,
        attempt: u32,
        /// The tasks, in order.
        tasks: Vec<TaskOrder>,
        /// Limit for all of them, from the release's receipt.
        finish_by: Millis,
        /// What the probes found.
        probes: BTreeMap<StepId, Probe>,
    },
    /// A promise was refused.
    Refused {
        run: RunId,
        digest: Digest,
        phase: PhaseRef,
        attempt: u32,
        reasons: Vec<String>,
    },
    /// An attempt is closed for ever.
    Tombstoned {
        run: RunId,
        digest: Digest,
        phase: PhaseRef,
        attempt: u32,
        why: Tombstone,
    },
    /// A rollback has reached this agent; nothing goes forward any more.
    ForwardClosed {
        run: RunId,
        digest: Digest,
    },
    Released {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        /// What the tasks consume.
        inputs: BTreeMap<StepId, Outputs>,
        /// Captures that the coordinator kept, for undo.
        before_images: BTreeMap<StepId, Value>,
        /// When, so that its age survives this process (R13). Absent in older
        /// journals.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        at: Option<BootTime>,
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
    Ended {
        report: TaskReport,
    },
    /// The coordinator has the outcome.
    Acked {
        run: RunId,
        step: StepId,
        phase: PhaseRef,
        attempt: u32,
    },
    /// A watch stands; it is armed again after a restart (R16).
    WatchArmed {
        run: RunId,
        task: TaskOrder,
        inputs: BTreeMap<StepId, Outputs>,
    },
    /// A watch saw a breach.
    WatchBroke {
        run: RunId,
        step: StepId,
        detail: String,
    },
    /// Watches no longer stand.
    Disarmed {
        run: RunId,
        steps: Vec<StepId>,
    },
    /// The run is over; the agent is free (R19).
    Closed {
        run: RunId,
    },
}
