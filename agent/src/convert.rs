//! Conversions between the agent's own types and the wire. Together with
//! [`crate::session`] the only place that knows the generated types.

#![deny(clippy::wildcard_enum_match_arm)]

use crate::handle::{Introduction, JournalEntry, Outgoing, TaskProgress};
use crate::host::context::Line;
use crate::preflight::{PreflightFinding, PreflightOrder, PreflightReport};
use lockstep_barrier::ids::{Millis, PhaseRef};
use lockstep_proto::convert::{foreseen, foreseen_inputs, tasks};
use lockstep_proto::v1;
use lockstep_proto::v1::session_request::Message;

pub fn hello(introduction: Introduction) -> v1::SessionRequest {
    let state = introduction.state;
    let hello = v1::Hello {
        agent: state.agent.0,
        journal_id: state.journal.0,
        machine_id: introduction.machine_id,
        boot_id: introduction.boot_id.0,
        session_number: introduction.session_number,
        version: introduction.version,
        labels: introduction.labels.into_iter().collect(),
        journal_position: introduction.journal_head.position,
        journal_hash: introduction.journal_head.hash,
        term: Some(state.term.into()),
        run_id: state.run.map(|run| run.0).unwrap_or_default(),
        decision: state.decision,
        release_age_ms: state.release_age.map(|release| release.age),
        release_phase: state.release_age.map(|release| release.phase.into()),
        release_attempt: state.release_age.map_or(0, |release| release.attempt),
        allowed_actions: introduction.allowed_actions,
        release_ages: state.release_ages.into_iter().map(release_age).collect(),
        journal_disowned: introduction.journal_mismatch,
    };
    request(Message::Hello(hello))
}

fn release_age((phase, age_ms): (PhaseRef, Millis)) -> v1::ReleaseAge {
    v1::ReleaseAge {
        phase: Some(phase.into()),
        age_ms,
    }
}

pub fn outgoing(message: Outgoing) -> v1::SessionRequest {
    match message {
        Outgoing::Reply {
            reply,
            traceparent,
            journal_head,
        } => {
            let JournalEntry { position, hash } = journal_head.unwrap_or_default();
            v1::SessionRequest {
                traceparent,
                message: Some(reply.into()),
                journal_position: position,
                journal_hash: hash,
            }
        }
        Outgoing::Progress(progress) => request(Message::Progress(to_wire(progress))),
        Outgoing::Pong => request(Message::Pong(v1::Pong {})),
        Outgoing::Preflight(report) => request(Message::PreflightReport(report.into())),
    }
}

fn request(message: Message) -> v1::SessionRequest {
    v1::SessionRequest {
        message: Some(message),
        ..v1::SessionRequest::default()
    }
}

fn to_wire(progress: TaskProgress) -> v1::Progress {
    let (kind, line) = match progress.line {
        Line::Started => (v1::ProgressKind::Started, String::new()),
        Line::Note(line) | Line::Effect(line) => (v1::ProgressKind::Note, line),
        Line::Output(line) => (v1::ProgressKind::Output, line),
    };
    v1::Progress {
        run_id: progress.run.0,
        phase: Some(progress.phase.into()),
        step_id: progress.step.0,
        kind: kind.into(),
        line,
        omitted: progress.omitted,
    }
}

pub fn preflight_order(order: v1::PreflightOrder) -> PreflightOrder {
    PreflightOrder {
        request_id: order.request_id,
        tasks: foreseen_inputs(&order.inputs_json)
            .and_then(|inputs| Ok((tasks(order.tasks)?, inputs)))
            .map_err(|invalid| invalid.to_string()),
    }
}

impl From<PreflightReport> for v1::PreflightReport {
    fn from(report: PreflightReport) -> Self {
        Self {
            request_id: report.request_id,
            findings: report.findings.into_iter().map(Into::into).collect(),
        }
    }
}

impl From<PreflightFinding> for v1::PreflightFinding {
    fn from(found: PreflightFinding) -> Self {
        let finding = found
            .finding
            .map_or(v1::Finding::Unspecified, v1::Finding::from);
        Self {
            step_id: found.step.map(|step| step.0).unwrap_or_default(),
            would_do: found.would_do,
            obstacles: found.obstacles,
            remarks: found.remarks,
            finding: finding.into(),
            outputs_json: foreseen(&found.foreseen),
        }
    }
}
