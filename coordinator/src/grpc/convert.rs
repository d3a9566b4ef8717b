//! Between wire types and the coordinator's own.

use crate::agents::{AgentMessage, Introduction, ToAgent, Welcome};
use crate::handle::{AgentReport, Progress};
use crate::preflights::TaskFinding;
use lockstep_api::{LineKind, printable};
use lockstep_barrier::ids::{AgentName, JournalId, RunId};
use lockstep_barrier::message::{AgentState, ReleaseAge};
use lockstep_proto::convert::{Invalid, foreseen, foreseen_outputs, reply, status};
use lockstep_proto::v1;

pub fn introduction(hello: v1::Hello) -> Introduction {
    Introduction {
        state: AgentState {
            agent: AgentName(hello.agent),
            journal: JournalId(hello.journal_id),
            term: hello.term.unwrap_or_default().into(),
            run: (!hello.run_id.is_empty()).then_some(RunId(hello.run_id)),
            decision: hello.decision,
            release_age: hello.release_age_ms.and_then(|age| {
                Some(ReleaseAge {
                    phase: hello.release_phase?.try_into().ok()?,
                    attempt: hello.release_attempt,
                    age,
                })
            }),
            release_ages: hello
                .release_ages
                .iter()
                .filter_map(|age| Some((age.phase?.try_into().ok()?, age.age_ms)))
                .collect(),
        },
        machine: hello.machine_id,
        boot: hello.boot_id,
        session_number: hello.session_number,
        version: hello.version,
        labels: hello.labels.into_iter().collect(),
        allowed_actions: hello.allowed_actions,
        journal_position: hello.journal_position,
        journal_disowned: hello.journal_disowned,
    }
}

/// # Errors
/// If the message is invalid, or not one that follows a hello.
pub fn report(
    message: v1::session_request::Message,
    place: (u64, String),
) -> Result<AgentReport, Invalid> {
    use v1::session_request::Message as M;
    Ok(match message {
        M::Pong(v1::Pong {}) => AgentReport::Alive,
        M::Progress(line) => AgentReport::Progress(progress(line)),
        M::PreflightReport(report) => AgentReport::Preflight {
            request: report.request_id,
            findings: report.findings.into_iter().map(finding).collect(),
        },
        message @ (M::Hello(_)
        | M::Vote(_)
        | M::TaskReport(_)
        | M::Attestation(_)
        | M::Breach(_)
        | M::Disarmed(_)
        | M::Closed(_)) => AgentReport::Reply {
            reply: reply(message)?,
            place,
        },
    })
}

fn progress(line: v1::Progress) -> Progress {
    Progress {
        kind: match line.kind() {
            v1::ProgressKind::Started => LineKind::Started,
            v1::ProgressKind::Output => LineKind::Output,
            v1::ProgressKind::Note | v1::ProgressKind::Unspecified => LineKind::Note,
        },
        run: RunId(line.run_id),
        phase: line.phase.and_then(|phase| phase.try_into().ok()),
        step: line.step_id,
        line: printable(&line.line).into_owned(),
        omitted: line.omitted,
    }
}

fn finding(finding: v1::PreflightFinding) -> TaskFinding {
    TaskFinding {
        finding: status::finding(finding.finding).ok().flatten(),
        step: finding.step_id,
        would_do: finding.would_do,
        obstacles: finding.obstacles,
        remarks: finding.remarks,
        // Unreadable outputs foresee nothing: the tasks that consume them are then
        // checked in the run.
        foreseen: foreseen_outputs(&finding.outputs_json).unwrap_or_default(),
    }
}

pub fn session_response(to_agent: ToAgent) -> v1::SessionResponse {
    use v1::session_response::Message as M;
    let message = match to_agent.message {
        AgentMessage::Welcome(message) => M::Welcome(welcome(message)),
        AgentMessage::Ping => M::Ping(v1::Ping {}),
        AgentMessage::Order(order) => order.into(),
        AgentMessage::Preflight {
            request,
            tasks,
            inputs,
        } => M::PreflightOrder(v1::PreflightOrder {
            request_id: request,
            tasks: tasks.into_iter().map(Into::into).collect(),
            inputs_json: foreseen(&inputs),
        }),
    };
    v1::SessionResponse {
        traceparent: to_agent.traceparent,
        message: Some(message),
    }
}

fn welcome(welcome: Welcome) -> v1::Welcome {
    let (journal_position, journal_hash) = welcome
        .place
        .map(|place| (place.position, place.hash))
        .unwrap_or_default();
    v1::Welcome {
        coordinator: welcome.coordinator,
        term: Some(welcome.term.into()),
        journal_position,
        journal_hash,
    }
}
