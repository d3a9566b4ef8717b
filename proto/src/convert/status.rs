//! Conversion between the generated types and those of `lockstep-api`.
//!
//! Conversion to the wire cannot fail. From the wire an unknown value is an
//! [`Invalid`]: replacing it silently would mislead an operator.

use super::{Invalid, Result, json, text};
use crate::v1;
use jiff::Timestamp;
use lockstep_api::{
    AgentStatus, Code, Diagnosis, Exit, Finding, Gate, LineKind, PhaseOutcome, PhaseStatus,
    PreflightReport, PreflightTask, RunEvent, RunOutcome, RunStatus, RunUpdate, TaskLine,
    TaskOutcome, TaskStatus, Track, timestamp,
};
use prost::Message;
use serde_json::Value;

/// Metadata key of a rejected request: an encoded `v1.Diagnosis`.
pub const DIAGNOSIS_KEY: &str = "lockstep-diagnosis-bin";

/// A status with the structured diagnosis, and the diagnosis on one line as its
/// message.
pub fn diagnosis_to_status(code: tonic::Code, diagnosis: &Diagnosis) -> tonic::Status {
    let mut status = tonic::Status::new(code, diagnosis.to_string());
    let bytes = v1::Diagnosis::from(diagnosis.clone()).encode_to_vec();
    status.metadata_mut().insert_bin(
        DIAGNOSIS_KEY,
        tonic::metadata::MetadataValue::from_bytes(&bytes),
    );
    status
}

/// The diagnosis that a status carries; none where it carries none or one with
/// a code that this version doesn't know, and its message must do.
pub fn diagnosis_from_status(status: &tonic::Status) -> Option<Diagnosis> {
    let bytes = status.metadata().get_bin(DIAGNOSIS_KEY)?.to_bytes().ok()?;
    v1::Diagnosis::decode(bytes).ok()?.try_into().ok()
}

impl From<Diagnosis> for v1::Diagnosis {
    fn from(diagnosis: Diagnosis) -> Self {
        Self {
            code: diagnosis.code.to_string(),
            what: diagnosis.what,
            causes: diagnosis.causes,
            state_left: diagnosis.state_left.unwrap_or_default(),
            remedy: diagnosis.remedy.unwrap_or_default(),
        }
    }
}

impl TryFrom<v1::Diagnosis> for Diagnosis {
    type Error = Invalid;

    fn try_from(diagnosis: v1::Diagnosis) -> Result<Self> {
        let code = Code::find(&diagnosis.code).ok_or(Invalid::Unknown("code"))?;
        Ok(Self {
            code,
            what: diagnosis.what,
            causes: diagnosis.causes,
            state_left: some(diagnosis.state_left),
            remedy: some(diagnosis.remedy),
        })
    }
}

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

        fn $from_wire(number: i32) -> Result<$name> {
            match v1::$name::try_from(number) {
                $(Ok(v1::$name::$value) => Ok($name::$value),)*
                Ok(v1::$name::Unspecified) | Err(_) => Err(Invalid::Unknown($field)),
            }
        }
    };
}

enumeration!(RunOutcome, run_outcome, "outcome of the run", {
    Running, Waiting, Completed, RolledBack, Failed, Aborted,
});
enumeration!(PhaseOutcome, phase_outcome, "outcome of a phase", {
    Pending, Preparing, Gated, Executing, Done, Failed, Skipped, Undone,
});
enumeration!(TaskOutcome, task_outcome, "outcome of a task", {
    Pending, Ready, Refused, Open, Lost, Waived, Voided, UndoOutstanding, Done, Unchanged, Armed,
    Failed, Unknown, Drifted, Interrupted, NotStarted, Lapsed,
});
enumeration!(Track, track, "track", { Forward, Rollback });

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
            diagnosis: task.diagnosis.map(TryInto::try_into).transpose()?,
            took_ms: task.took_ms,
            attempt: task.attempt,
            outputs: json("outputs", &task.outputs_json)?,
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
        let finding = match task.finding {
            None => v1::Finding::Unspecified,
            Some(Finding::Pending) => v1::Finding::Pending,
            Some(Finding::Satisfied) => v1::Finding::Satisfied,
            Some(Finding::Indeterminate) => v1::Finding::Indeterminate,
        };
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
    Ok(match v1::Finding::try_from(number) {
        Ok(v1::Finding::Unspecified) => None,
        Ok(v1::Finding::Pending) => Some(Finding::Pending),
        Ok(v1::Finding::Satisfied) => Some(Finding::Satisfied),
        Ok(v1::Finding::Indeterminate) => Some(Finding::Indeterminate),
        Err(_) => return Err(Invalid::Unknown("finding")),
    })
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

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
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
            tasks: TaskOutcome::ALL.iter().copied().map(task).collect(),
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

    #[test]
    fn a_status_carries_its_diagnosis_in_parts() {
        let diagnosis = Diagnosis::new(Code::LS4306, "the phase – open – has no gate")
            .state_left("nothing was opened")
            .cause("it is released");
        let status = diagnosis_to_status(tonic::Code::FailedPrecondition, &diagnosis);
        assert_eq!(status.message(), diagnosis.to_string());
        assert_eq!(diagnosis_from_status(&status), Some(diagnosis));
        let bare = tonic::Status::internal("LS4306: in words");
        assert_eq!(diagnosis_from_status(&bare), None);
    }
}
