//! From the wire to the status types: the only place that knows the generated ones.
//!
//! What a newer coordinator says and this version doesn't know becomes the
//! nearest thing that it knows; a view is no place to fail.

use crate::exit::Exit;
use crate::status::{
    Agent, Event, Happening, Line, Phase, PhaseOutcome, Preflight, PreflightTask, Run, RunOutcome,
    Task,
};
use jiff::Timestamp;
use lockstep_proto::v1;
use serde_json::Value;

impl From<v1::RunStatus> for Run {
    fn from(run: v1::RunStatus) -> Self {
        let outcome = run.outcome().into();
        // Only the coordinator knows whether a run waits at a gate or after a failure.
        let exit = match outcome {
            RunOutcome::Running => None,
            _ => Some(Exit::of_code(run.exit_code).unwrap_or(Exit::Failed)),
        };
        Self {
            outcome,
            exit_code: exit.map(Exit::code),
            id: run.run_id,
            plan: run.plan_name,
            kind: run.plan_kind,
            digest: run.plan_digest,
            trace_id: run.trace_id,
            started_by: run.started_by,
            started_at: time(run.started_at_ms),
            ended_at: time(run.ended_at_ms),
            sequence: run.sequence,
            waits_on: run.waits_on,
            reason: run.reason,
            write_outage_ms: run.write_outage_ms,
            outage_budget_ms: run.outage_budget_ms,
            debts: run.debts,
            still_changed: run.still_changed,
            phases: run.phases.into_iter().map(Phase::from).collect(),
        }
    }
}

impl From<v1::RunOutcome> for RunOutcome {
    fn from(outcome: v1::RunOutcome) -> Self {
        match outcome {
            v1::RunOutcome::Unspecified | v1::RunOutcome::Running => Self::Running,
            v1::RunOutcome::Waiting => Self::Waiting,
            v1::RunOutcome::Completed => Self::Completed,
            v1::RunOutcome::RolledBack => Self::RolledBack,
            v1::RunOutcome::Failed => Self::Failed,
            v1::RunOutcome::Aborted => Self::Aborted,
        }
    }
}

impl From<v1::PhaseStatus> for Phase {
    fn from(phase: v1::PhaseStatus) -> Self {
        Self {
            outcome: phase.outcome().into(),
            track: match phase.track() {
                v1::Track::Rollback => "rollback",
                v1::Track::Forward | v1::Track::Unspecified => "forward",
            },
            name: phase.name,
            standard: phase.standard,
            seed_steps: phase.seed_steps,
            attempt: phase.attempt,
            gate: phase.gate,
            barrier_ms: phase.barrier_ms,
            took_ms: phase.took_ms,
            prepared_at: time(phase.prepared_at_ms),
            released_at: time(phase.released_at_ms),
            completed_at: time(phase.completed_at_ms),
            tasks: phase.tasks.into_iter().map(Task::from).collect(),
        }
    }
}

impl From<v1::PhaseOutcome> for PhaseOutcome {
    fn from(outcome: v1::PhaseOutcome) -> Self {
        match outcome {
            v1::PhaseOutcome::Unspecified | v1::PhaseOutcome::Pending => Self::Pending,
            v1::PhaseOutcome::Preparing => Self::Preparing,
            v1::PhaseOutcome::Gated => Self::Gated,
            v1::PhaseOutcome::Executing => Self::Executing,
            v1::PhaseOutcome::Done => Self::Done,
            v1::PhaseOutcome::Failed => Self::Failed,
            v1::PhaseOutcome::Skipped => Self::Skipped,
            v1::PhaseOutcome::Undone => Self::Undone,
        }
    }
}

impl From<v1::TaskStatus> for Task {
    fn from(task: v1::TaskStatus) -> Self {
        Self {
            agent: task.agent,
            step: task.step_id,
            action: task.action,
            undo_of: some(task.undo_of),
            outcome: task.outcome,
            detail: task.detail,
            ms: task.took_ms,
            attempt: task.attempt,
            outputs: json(&task.outputs_json),
        }
    }
}

impl From<v1::RunEvent> for Event {
    fn from(event: v1::RunEvent) -> Self {
        Self {
            sequence: event.sequence,
            at: time(event.at_ms),
            kind: event.kind,
            summary: event.summary,
            record: json(&event.record_json),
            hash: event.hash,
        }
    }
}

impl Happening {
    /// Reads a message of the watch; none where this version doesn't know it.
    pub fn of_wire(message: v1::WatchRunResponse) -> Option<Self> {
        use v1::watch_run_response::Happening as Wire;
        Some(match message.happening? {
            Wire::Status(run) => Self::Status {
                run: Box::new(run.into()),
            },
            Wire::Event(event) => Self::Event {
                event: event.into(),
            },
            Wire::Line(line) => Self::Line {
                line: Line {
                    agent: line.agent,
                    phase: line.phase,
                    step: line.step_id,
                    kind: line.kind,
                    line: line.line,
                    at: time(line.at_ms),
                },
            },
        })
    }
}

impl From<v1::AgentStatus> for Agent {
    fn from(agent: v1::AgentStatus) -> Self {
        Self {
            name: agent.name,
            connected: agent.connected,
            quarantine: some(agent.quarantine),
            labels: agent.labels.into_iter().collect(),
            version: agent.version,
            journal_id: agent.journal_id,
            address: agent.address,
            last_heard: time(agent.last_heard_ms),
            run: some(agent.run_id),
            allowed_actions: agent.allowed_actions,
        }
    }
}

impl From<v1::PreflightResponse> for Preflight {
    fn from(part: v1::PreflightResponse) -> Self {
        let task = |task: v1::PreflightTask| PreflightTask {
            finding: match task.finding() {
                v1::Finding::Unspecified => None,
                v1::Finding::Todo => Some("todo"),
                v1::Finding::Already => Some("already"),
                v1::Finding::Unclear => Some("unclear"),
            },
            phase: task.phase,
            step: task.step_id,
            action: task.action,
            would_do: task.would_do,
            obstacles: task.obstacles,
            remarks: task.remarks,
        };
        Self {
            agent: some(part.agent),
            obstacles: part.obstacles,
            tasks: part.tasks.into_iter().map(task).collect(),
        }
    }
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

/// Zero stands for never.
fn time(ms: u64) -> Option<Timestamp> {
    let ms = i64::try_from(ms).ok().filter(|ms| *ms != 0)?;
    Timestamp::from_millisecond(ms).ok()
}

fn json(text: &str) -> Value {
    match serde_json::from_str(text) {
        Ok(value) => value,
        Err(_) if text.is_empty() => Value::Null,
        Err(_) => Value::String(text.to_owned()),
    }
}
