//! Conversion between the generated types and those of `lockstep-api`.
//!
//! Conversion to the wire cannot fail. From the wire an unknown value is an
//! [`Invalid`]: replacing it silently would mislead an operator.

use super::{Invalid, Result, json, some, text};
use crate::v1;
use jiff::Timestamp;
use lockstep_api::{
    AgentConnection, AgentStatus, Exit, Finding, Gate, LineKind, PhaseOutcome, PhaseStatus,
    PreflightReport, PreflightTask, Refusal, RunEvent, RunOutcome, RunStatus, RunUpdate, TaskLine,
    TaskOutcome, TaskStatus, Track, timestamp,
};
use serde_json::Value;

/// Converts an enumeration value by value; the wire's unspecified value, and
/// numbers that this version doesn't know, are errors.
macro_rules! enumeration {
    ($name:ident, $from_wire:ident, $field:literal, { $($value:ident),* $(,)? }) => {
        impl From<$name> for v1::$name {
            fn from(value: $name) -> Self {
                match value {
                    $($name::$value => Self::$value),*
                }
            }
        }

        pub(super) fn $from_wire(number: i32) -> Result<$name> {
            match v1::$name::try_from(number) {
                $(Ok(v1::$name::$value) => Ok($name::$value),)*
                Ok(v1::$name::Unspecified) | Err(_) => Err(Invalid::Unknown($field)),
            }
        }
    };
}

enumeration!(RunOutcome, run_outcome, "outcome of the run", {
    Running, Waiting, Completed, CompletedWithSkips, RolledBack, Failed, Aborted,
});
enumeration!(PhaseOutcome, phase_outcome, "outcome of a phase", {
    Pending, Preparing, Gated, Executing, Done, Failed, Skipped, Undone,
});
enumeration!(TaskOutcome, task_outcome, "outcome of a task", {
    Pending, Ready, Refused, Open, Lost, Waived, Voided, UndoOutstanding, Done, Unchanged, Armed,
    Failed, Unknown, Drifted, Interrupted, NotStarted, Lapsed,
});
enumeration!(Track, track, "track", { Forward, Rollback });
enumeration!(Finding, known_finding, "finding", { Pending, Satisfied, Indeterminate });

impl From<RunStatus> for v1::RunStatus {
    fn from(run: RunStatus) -> Self {
        Self {
            run_id: run.id,
            plan_name: run.plan,
            plan_kind: run.kind,
            plan_digest: run.digest,
            started_by: run.started_by,
            started_at_ms: ms(run.started_at),
            ended_at_ms: ms(run.ended_at),
            outcome: v1::RunOutcome::from(run.outcome).into(),
            exit_code: run.exit_code.map_or(0, i32::from),
            trace_id: run.trace_id,
            sequence: run.sequence,
            waits_on: run.waits_on,
            reason: run.reason,
            phases: run.phases.into_iter().map(Into::into).collect(),
            outstanding_undos: run.outstanding_undo,
            still_changed: run.still_changed,
            write_outage_ms: run.write_outage_ms,
            outage_budget_ms: run.outage_budget_ms,
            outage_open: run.outage_open,
            decided: run.decided,
        }
    }
}

impl TryFrom<v1::RunStatus> for RunStatus {
    type Error = Invalid;

    fn try_from(run: v1::RunStatus) -> Result<Self> {
        let outcome = run_outcome(run.outcome)?;
        let exit_code = match outcome {
            RunOutcome::Running => None,
            _ => Some(Exit::try_from(run.exit_code).map_err(|_| Invalid::Unknown("exit code"))?),
        };
        Ok(Self {
            outcome,
            exit_code,
            id: run.run_id,
            plan: run.plan_name,
            kind: run.plan_kind,
            digest: run.plan_digest,
            trace_id: run.trace_id,
            started_by: run.started_by,
            started_at: timestamp(run.started_at_ms),
            ended_at: timestamp(run.ended_at_ms),
            sequence: run.sequence,
            waits_on: run.waits_on,
            reason: run.reason,
            write_outage_ms: run.write_outage_ms,
            outage_budget_ms: run.outage_budget_ms,
            outage_open: run.outage_open,
            decided: run.decided,
            outstanding_undo: run.outstanding_undos,
            still_changed: run.still_changed,
            phases: all(run.phases)?,
        })
    }
}

impl From<PhaseStatus> for v1::PhaseStatus {
    fn from(phase: PhaseStatus) -> Self {
        Self {
            name: phase.name,
            standard: phase.standard,
            track: v1::Track::from(phase.track).into(),
            index: phase.index,
            runbook_steps: phase.runbook_steps,
            outcome: v1::PhaseOutcome::from(phase.outcome).into(),
            attempt: phase.attempt,
            barrier_ms: phase.barrier_ms,
            took_ms: phase.took_ms,
            prepared_at_ms: ms(phase.prepared_at),
            released_at_ms: ms(phase.released_at),
            completed_at_ms: ms(phase.completed_at),
            gate: phase.gate.to_string(),
            tasks: phase.tasks.into_iter().map(Into::into).collect(),
            failure: phase.failure.map(Into::into),
            refusals: phase.refusals.into_iter().map(Into::into).collect(),
            abort_leaves: phase.abort_leaves,
        }
    }
}

impl TryFrom<v1::PhaseStatus> for PhaseStatus {
    type Error = Invalid;

    fn try_from(phase: v1::PhaseStatus) -> Result<Self> {
        Ok(Self {
            outcome: phase_outcome(phase.outcome)?,
            track: track(phase.track)?,
            gate: word(Gate::ALL, Gate::as_str, &phase.gate, "gate")?,
            name: phase.name,
            standard: phase.standard,
            index: phase.index,
            runbook_steps: phase.runbook_steps,
            attempt: phase.attempt,
            barrier_ms: phase.barrier_ms,
            took_ms: phase.took_ms,
            prepared_at: timestamp(phase.prepared_at_ms),
            released_at: timestamp(phase.released_at_ms),
            completed_at: timestamp(phase.completed_at_ms),
            tasks: all(phase.tasks)?,
            failure: phase.failure.map(Into::into),
            refusals: all(phase.refusals)?,
            abort_leaves: phase.abort_leaves,
        })
    }
}

impl From<Refusal> for v1::Refusal {
    fn from(refusal: Refusal) -> Self {
        Self {
            agent: refusal.agent,
            diagnosis: Some(refusal.diagnosis.into()),
        }
    }
}

impl TryFrom<v1::Refusal> for Refusal {
    type Error = Invalid;

    fn try_from(refusal: v1::Refusal) -> Result<Self> {
        let diagnosis = refusal.diagnosis.ok_or(Invalid::Missing("diagnosis"))?;
        Ok(Self {
            agent: refusal.agent,
            diagnosis: diagnosis.into(),
        })
    }
}

impl From<TaskStatus> for v1::TaskStatus {
    fn from(task: TaskStatus) -> Self {
        Self {
            agent: task.agent,
            step_id: task.step,
            action: task.action,
            undo_of: task.undo_of.unwrap_or_default(),
            outcome: v1::TaskOutcome::from(task.outcome).into(),
            detail: task.detail,
            diagnosis: task.diagnosis.map(Into::into),
            took_ms: task.took_ms,
            outputs_json: json_text(&task.outputs),
            attempt: task.attempt,
            started_at_ms: ms(task.started_at),
            ended_at_ms: ms(task.ended_at),
            deadline_at_ms: ms(task.deadline_at),
            progress: task.progress,
            disconnected_since_ms: ms(task.disconnected_since),
        }
    }
}

impl TryFrom<v1::TaskStatus> for TaskStatus {
    type Error = Invalid;

    fn try_from(task: v1::TaskStatus) -> Result<Self> {
        Ok(Self {
            agent: task.agent,
            step: task.step_id,
            action: task.action,
            undo_of: some(task.undo_of),
            outcome: task_outcome(task.outcome)?,
            detail: task.detail,
            diagnosis: task.diagnosis.map(Into::into),
            took_ms: task.took_ms,
            attempt: task.attempt,
            outputs: json("outputs", &task.outputs_json)?,
            started_at: timestamp(task.started_at_ms),
            ended_at: timestamp(task.ended_at_ms),
            deadline_at: timestamp(task.deadline_at_ms),
            progress: task.progress,
            disconnected_since: timestamp(task.disconnected_since_ms),
        })
    }
}

impl From<RunEvent> for v1::RunEvent {
    fn from(event: RunEvent) -> Self {
        Self {
            sequence: event.sequence,
            at_ms: ms(event.at),
            kind: event.kind,
            summary: event.summary,
            record_json: json_text(&event.record),
            hash: event.hash,
        }
    }
}

impl TryFrom<v1::RunEvent> for RunEvent {
    type Error = Invalid;

    fn try_from(event: v1::RunEvent) -> Result<Self> {
        Ok(Self {
            sequence: event.sequence,
            at: timestamp(event.at_ms),
            kind: event.kind,
            summary: event.summary,
            record: json("record", &event.record_json)?,
            hash: event.hash,
        })
    }
}

impl From<TaskLine> for v1::TaskLine {
    fn from(line: TaskLine) -> Self {
        Self {
            agent: line.agent,
            phase: line.phase,
            step_id: line.step,
            kind: line.kind.to_string(),
            line: line.line,
            at_ms: ms(line.at),
        }
    }
}

impl TryFrom<v1::TaskLine> for TaskLine {
    type Error = Invalid;

    fn try_from(line: v1::TaskLine) -> Result<Self> {
        Ok(Self {
            kind: word(LineKind::ALL, LineKind::as_str, &line.kind, "kind of line")?,
            agent: line.agent,
            phase: line.phase,
            step: line.step_id,
            line: line.line,
            at: timestamp(line.at_ms),
        })
    }
}

impl From<RunUpdate> for v1::WatchRunResponse {
    fn from(update: RunUpdate) -> Self {
        use v1::watch_run_response::Update as Wire;
        let wire = match update {
            RunUpdate::Status { run } => Wire::Status((*run).into()),
            RunUpdate::Event { event } => Wire::Event(event.into()),
            RunUpdate::Line { line } => Wire::Line(line.into()),
            RunUpdate::Connection { connection } => Wire::Connection(v1::AgentConnection {
                agent: connection.agent,
                connected: connection.connected,
                at_ms: ms(connection.at),
            }),
        };
        Self { update: Some(wire) }
    }
}

impl TryFrom<v1::WatchRunResponse> for RunUpdate {
    type Error = Invalid;

    fn try_from(message: v1::WatchRunResponse) -> Result<Self> {
        use v1::watch_run_response::Update as Wire;
        Ok(match message.update.ok_or(Invalid::Missing("update"))? {
            Wire::Status(run) => Self::Status {
                run: Box::new(run.try_into()?),
            },
            Wire::Event(event) => Self::Event {
                event: event.try_into()?,
            },
            Wire::Line(line) => Self::Line {
                line: line.try_into()?,
            },
            Wire::Connection(connection) => Self::Connection {
                connection: AgentConnection {
                    agent: connection.agent,
                    connected: connection.connected,
                    at: timestamp(connection.at_ms),
                },
            },
        })
    }
}

impl From<AgentStatus> for v1::AgentStatus {
    fn from(agent: AgentStatus) -> Self {
        Self {
            name: agent.name,
            connected: agent.connected,
            quarantine: agent.quarantine.unwrap_or_default(),
            labels: agent.labels.into_iter().collect(),
            version: agent.version,
            journal_id: agent.journal_id,
            address: agent.address,
            last_heard_ms: ms(agent.last_seen),
            run_id: agent.run.unwrap_or_default(),
            allowed_actions: agent.allowed_actions,
        }
    }
}

impl From<v1::AgentStatus> for AgentStatus {
    fn from(agent: v1::AgentStatus) -> Self {
        Self {
            name: agent.name,
            connected: agent.connected,
            quarantine: some(agent.quarantine),
            labels: agent.labels.into_iter().collect(),
            version: agent.version,
            journal_id: agent.journal_id,
            address: agent.address,
            last_seen: timestamp(agent.last_heard_ms),
            run: some(agent.run_id),
            allowed_actions: agent.allowed_actions,
        }
    }
}

impl From<PreflightReport> for v1::PreflightResponse {
    fn from(report: PreflightReport) -> Self {
        Self {
            agent: report.agent.unwrap_or_default(),
            tasks: report.tasks.into_iter().map(Into::into).collect(),
            obstacles: report.obstacles,
        }
    }
}

impl TryFrom<v1::PreflightResponse> for PreflightReport {
    type Error = Invalid;

    fn try_from(report: v1::PreflightResponse) -> Result<Self> {
        Ok(Self {
            agent: some(report.agent),
            obstacles: report.obstacles,
            tasks: all(report.tasks)?,
        })
    }
}

impl From<PreflightTask> for v1::PreflightTask {
    fn from(task: PreflightTask) -> Self {
        let finding = task.finding.map_or(v1::Finding::Unspecified, Into::into);
        Self {
            phase: task.phase,
            step_id: task.step,
            action: task.action,
            would_do: task.would_do,
            obstacles: task.obstacles,
            remarks: task.remarks,
            finding: finding.into(),
        }
    }
}

impl TryFrom<v1::PreflightTask> for PreflightTask {
    type Error = Invalid;

    fn try_from(task: v1::PreflightTask) -> Result<Self> {
        Ok(Self {
            finding: finding(task.finding)?,
            phase: task.phase,
            step: task.step_id,
            action: task.action,
            would_do: task.would_do,
            obstacles: task.obstacles,
            remarks: task.remarks,
        })
    }
}

/// A finding from the wire; none for a task that was not probed.
///
/// # Errors
/// [`Invalid::Unknown`].
pub fn finding(number: i32) -> Result<Option<Finding>> {
    match v1::Finding::try_from(number) {
        Ok(v1::Finding::Unspecified) => Ok(None),
        Ok(_) | Err(_) => known_finding(number).map(Some),
    }
}

fn all<W, T: TryFrom<W, Error = Invalid>>(wire: Vec<W>) -> Result<Vec<T>> {
    wire.into_iter().map(T::try_from).collect()
}

fn word<T: Copy>(
    known: &[T],
    spelled: fn(T) -> &'static str,
    word: &str,
    field: &'static str,
) -> Result<T> {
    known
        .iter()
        .copied()
        .find(|value| spelled(*value) == word)
        .ok_or(Invalid::Unknown(field))
}

/// Null is an absent text.
fn json_text(value: &Value) -> String {
    if value.is_null() {
        String::new()
    } else {
        text(value)
    }
}

/// Milliseconds since the epoch; 0 stands for never.
fn ms(at: Option<Timestamp>) -> u64 {
    at.and_then(|at| u64::try_from(at.as_millisecond()).ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::{Code, Diagnosis};

    fn run() -> RunStatus {
        let task = |outcome: TaskOutcome| TaskStatus {
            agent: "app-1".to_owned(),
            step: outcome.to_string(),
            outcome,
            outputs: serde_json::json!({"scn": 7}),
            diagnosis: (outcome == TaskOutcome::Failed)
                .then(|| Diagnosis::new(Code::LS2103, "it did not stop").remedy("stop it")),
            ..TaskStatus::default()
        };
        let phase = |outcome: PhaseOutcome| PhaseStatus {
            name: outcome.to_string(),
            track: Track::Rollback,
            gate: Gate::Hold,
            outcome,
            released_at: timestamp(7),
            abort_leaves: "web on app-1".to_owned(),
            tasks: TaskOutcome::ALL.iter().copied().map(task).collect(),
            failure: Some(Diagnosis::new(Code::LS4401, "app-1 refused")),
            refusals: vec![Refusal {
                agent: "app-1".to_owned(),
                diagnosis: Diagnosis::new(Code::LS2001, "not allowed"),
            }],
            ..PhaseStatus::default()
        };
        RunStatus {
            id: "r-1".to_owned(),
            outcome: RunOutcome::Waiting,
            exit_code: Some(Exit::Waiting),
            started_at: timestamp(5),
            phases: PhaseOutcome::ALL.iter().copied().map(phase).collect(),
            ..RunStatus::default()
        }
    }

    #[test]
    fn a_run_survives_the_wire() {
        let wire = v1::RunStatus::from(run());
        assert_eq!(RunStatus::try_from(wire), Ok(run()));
    }

    #[test]
    fn a_value_of_a_newer_version_is_an_error_and_not_another_value() {
        let mut wire = v1::RunStatus::from(run());
        wire.phases[0].tasks[0].outcome = 99;
        assert_eq!(
            RunStatus::try_from(wire),
            Err(Invalid::Unknown("outcome of a task"))
        );
        let wire = v1::RunStatus::from(RunStatus::default());
        let unspecified = v1::RunStatus { outcome: 0, ..wire };
        assert_eq!(
            RunStatus::try_from(unspecified),
            Err(Invalid::Unknown("outcome of the run"))
        );
    }
}
