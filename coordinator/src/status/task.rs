//! The status of a task.

use super::View;
use crate::timeline::Timeline;
use lockstep_api::{Diagnosis, TaskOutcome, timestamp};
use lockstep_barrier::coordinator::{TaskState, TaskStatus};
use lockstep_barrier::ids::{AgentName, Millis, PhaseRef};
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

/// Adds the times of a task and, while it is open, its activity.
pub(super) fn times(
    status: &mut lockstep_api::TaskStatus,
    run: &View<'_>,
    (at, finish_by): (PhaseRef, Millis),
    timeline: &Timeline,
    (step, agent): (&StepSpec, &AgentName),
) {
    let activity = run.activity.and_then(|known| known.task(&step.id, agent));
    match status.outcome {
        TaskOutcome::Open | TaskOutcome::Lost => {
            // From the release, as agent and coordinator count (R12): a gate may have
            // kept it waiting.
            let released = timeline.phases.get(&at).map_or(0, |times| times.released);
            status.deadline_at = timestamp(released.saturating_add(finish_by));
            status.started_at = timestamp(activity.map_or(0, |known| known.started));
            status.progress = activity.map_or_else(String::new, |known| known.line.clone());
            let disconnected = run.activity.map_or(0, |all| all.disconnected_since(agent));
            status.disconnected_since = timestamp(disconnected);
        }
        TaskOutcome::Done
        | TaskOutcome::Unchanged
        | TaskOutcome::Armed
        | TaskOutcome::Failed
        | TaskOutcome::Unknown
        | TaskOutcome::Drifted
        | TaskOutcome::Interrupted
        | TaskOutcome::NotStarted
        | TaskOutcome::Lapsed => {
            let ended = timeline.outcome(&step.id, agent);
            status.ended_at = timestamp(ended);
            // The report gives the duration, in the agent's monotonic time.
            if status.took_ms > 0 {
                status.started_at = timestamp(ended.saturating_sub(status.took_ms));
            }
        }
        TaskOutcome::Pending
        | TaskOutcome::Ready
        | TaskOutcome::Refused
        | TaskOutcome::Waived
        | TaskOutcome::Voided
        | TaskOutcome::UndoOutstanding => {}
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::outcome::tests::{at, executed, folded};
    use lockstep_barrier::coordinator::Entry;
    use lockstep_barrier::ids::Track;

    #[test]
    fn a_deadline_counts_from_the_release_and_not_from_the_wait_at_a_gate() {
        let phase = at(Track::Forward, 0);
        let mut records = executed(phase, "proof", Outcome::Done);
        records.truncate(2);
        let mut timeline = Timeline::default();
        // Prepared at 1,000 ms, released at 61,000 ms.
        for (record, (seq, at_ms)) in records.iter().zip([(2, 1_000), (3, 61_000)]) {
            let record = record.clone();
            timeline.note(&Entry { seq, record }, at_ms);
        }
        let state = folded(records);
        let step = state.step(&"proof".into()).unwrap().1;
        let mut open = lockstep_api::TaskStatus {
            outcome: TaskOutcome::Open,
            ..lockstep_api::TaskStatus::default()
        };
        let view = View::closed(&state);
        let agent = AgentName::from("a");
        times(&mut open, &view, (phase, 30_000), &timeline, (step, &agent));
        assert_eq!(open.deadline_at, timestamp(91_000));
    }
}
