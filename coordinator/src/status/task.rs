//! The status of a task, and the one spelling of its outcomes.

use super::View;
use lockstep_barrier::coordinator::{TaskState, TaskStatus};
use lockstep_barrier::ids::{AgentName, PhaseRef};
use lockstep_barrier::layout::StepSpec;
use lockstep_barrier::message::{Mode, Outcome, Verdict};
use lockstep_proto::v1;

/// The word for an outcome in every view.
pub(super) fn outcome_name(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Already => "already",
        Outcome::Standing => "standing",
        Outcome::Failed { .. } => "failed",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Drifted { .. } => "drifted",
        Outcome::Interrupted => "interrupted",
        Outcome::NotStarted => "not-started",
        Outcome::Lapsed => "lapsed",
    }
}

/// Error, reason or detail of an outcome; empty if it has none.
pub(super) fn detail(outcome: &Outcome) -> &str {
    match outcome {
        Outcome::Failed { error } => error,
        Outcome::Unknown { reason } => reason,
        Outcome::Drifted { detail } => detail,
        Outcome::Done
        | Outcome::Already
        | Outcome::Standing
        | Outcome::Interrupted
        | Outcome::NotStarted
        | Outcome::Lapsed => "",
    }
}

pub(super) fn status(
    run: &View<'_>,
    at: PhaseRef,
    step: &StepSpec,
    agent: &AgentName,
    task: &TaskState,
) -> v1::TaskStatus {
    let outcome = match &task.status {
        TaskStatus::Waiting => vote_of(run, at, agent),
        TaskStatus::Released => "open",
        TaskStatus::Lost => "lost",
        TaskStatus::Waived => "waived",
        TaskStatus::Voided => "voided",
        TaskStatus::Owed => "owed",
        TaskStatus::Ended { report } => outcome_name(&report.outcome),
    };
    let mut status = v1::TaskStatus {
        agent: agent.to_string(),
        step_id: step.id.to_string(),
        action: step.action.clone(),
        undo_of: match &step.mode {
            Mode::Execute => String::new(),
            Mode::Undo { of } => of.to_string(),
        },
        outcome: outcome.to_owned(),
        attempt: task.attempt,
        ..v1::TaskStatus::default()
    };
    if let TaskStatus::Ended { report } = &task.status {
        status.detail = detail(&report.outcome).to_owned();
        status.took_ms = report.took;
        if !report.outputs.is_empty() {
            status.outputs_json = serde_json::to_string(&report.outputs).unwrap_or_default();
        }
    }
    status
}

fn vote_of(run: &View<'_>, at: PhaseRef, agent: &AgentName) -> &'static str {
    if run.state().current() != Some(at) {
        return "pending";
    }
    let vote = run.votes.and_then(|votes| votes.get(agent));
    match vote.map(|vote| &vote.verdict) {
        Some(Verdict::Ready { .. }) => "ready",
        Some(Verdict::Refuse { .. }) => "refused",
        Some(Verdict::Lapsed | Verdict::Busy) | None => "pending",
    }
}
