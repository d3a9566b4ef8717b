//! The status of a task.

use super::View;
use lockstep_api::{Diagnosis, TaskOutcome};
use lockstep_barrier::coordinator::{TaskState, TaskStatus};
use lockstep_barrier::ids::{AgentName, PhaseRef};
use lockstep_barrier::message::{Mode, Outcome, Verdict};
use lockstep_barrier::resolved_plan::StepSpec;

/// The state that every view shows for an outcome.
pub(super) fn outcome_of(outcome: &Outcome) -> TaskOutcome {
    match outcome {
        Outcome::Done => TaskOutcome::Done,
        Outcome::Unchanged => TaskOutcome::Unchanged,
        Outcome::Armed => TaskOutcome::Armed,
        Outcome::Failed { .. } => TaskOutcome::Failed,
        Outcome::Unknown { .. } => TaskOutcome::Unknown,
        Outcome::Drifted { .. } => TaskOutcome::Drifted,
        Outcome::Interrupted => TaskOutcome::Interrupted,
        Outcome::NotStarted => TaskOutcome::NotStarted,
        Outcome::Lapsed => TaskOutcome::Lapsed,
    }
}

/// Error, reason or detail of an outcome; empty if it has none.
pub(super) fn detail(outcome: &Outcome) -> String {
    match outcome {
        Outcome::Failed { diagnosis } => diagnosis.to_string(),
        Outcome::Unknown { reason } => reason.clone(),
        Outcome::Drifted { detail } => detail.clone(),
        Outcome::Done
        | Outcome::Unchanged
        | Outcome::Armed
        | Outcome::Interrupted
        | Outcome::NotStarted
        | Outcome::Lapsed => String::new(),
    }
}

/// Structured error of a failed task.
fn diagnosis(outcome: &Outcome) -> Option<Diagnosis> {
    match outcome {
        Outcome::Failed { diagnosis } => Some((**diagnosis).clone()),
        Outcome::Done
        | Outcome::Unchanged
        | Outcome::Armed
        | Outcome::Unknown { .. }
        | Outcome::Drifted { .. }
        | Outcome::Interrupted
        | Outcome::NotStarted
        | Outcome::Lapsed => None,
    }
}

pub(super) fn status(
    run: &View<'_>,
    at: PhaseRef,
    step: &StepSpec,
    agent: &AgentName,
    task: &TaskState,
) -> lockstep_api::TaskStatus {
    let outcome = match &task.status {
        TaskStatus::Waiting => vote_of(run, at, agent),
        TaskStatus::Released => TaskOutcome::Open,
        TaskStatus::Lost => TaskOutcome::Lost,
        TaskStatus::Waived => TaskOutcome::Waived,
        TaskStatus::Voided => TaskOutcome::Voided,
        TaskStatus::UndoOutstanding => TaskOutcome::UndoOutstanding,
        TaskStatus::Ended { report } => outcome_of(&report.outcome),
    };
    let mut status = lockstep_api::TaskStatus {
        agent: agent.to_string(),
        step: step.id.to_string(),
        action: step.action.clone(),
        undo_of: match &step.mode {
            Mode::Execute => None,
            Mode::Undo { of } => Some(of.to_string()),
        },
        outcome,
        attempt: task.attempt,
        ..lockstep_api::TaskStatus::default()
    };
    if let TaskStatus::Ended { report } = &task.status {
        status.detail = detail(&report.outcome);
        status.diagnosis = diagnosis(&report.outcome);
        status.took_ms = report.took;
        if !report.outputs.is_empty() {
            status.outputs = serde_json::to_value(&report.outputs).unwrap_or_default();
        }
    }
    status
}

fn vote_of(run: &View<'_>, at: PhaseRef, agent: &AgentName) -> TaskOutcome {
    if run.state().current() != Some(at) {
        return TaskOutcome::Pending;
    }
    let vote = run.votes.and_then(|votes| votes.get(agent));
    match vote.map(|vote| &vote.verdict) {
        Some(Verdict::Ready { .. }) => TaskOutcome::Ready,
        Some(Verdict::Refuse { .. }) => TaskOutcome::Refused,
        Some(Verdict::Lapsed | Verdict::Busy) | None => TaskOutcome::Pending,
    }
}
