//! A run in sentences: why it holds, what it waits for, what happened.

use super::outcome;
use lockstep_api::TaskOutcome;
use lockstep_barrier::coordinator::{PhaseStatus, State, TaskState, Wait};
use lockstep_barrier::ids::{AgentName, PhaseRef, StepId, Track};
use lockstep_barrier::record::{Ending, Failure, Resolution, RollbackCause};
use lockstep_proto::convert;

pub(super) fn reason(state: &State) -> String {
    let failed = state
        .forward
        .iter()
        .chain(&state.backward)
        .rev()
        .find_map(|phase| match &phase.status {
            PhaseStatus::Failed { failure, .. } => Some(failure_text(state, failure)),
            _ => None,
        });
    let why_back = state
        .rollback
        .as_ref()
        .map(|rollback| match &rollback.cause {
            RollbackCause::Policy { phase } => {
                format!(
                    "phase {} failed and the plan says to roll back",
                    name(state, *phase)
                )
            }
            RollbackCause::Budget { elapsed } => format!(
                "LS4410: the write outage's budget was used up after {} s, the rollback's own time \
             reserved",
                elapsed / 1000
            ),
            RollbackCause::Operator { signed } => {
                let reason = signed.reason.as_deref().unwrap_or("no reason given");
                format!("{} asked for the rollback: {reason}", signed.by)
            }
        });
    let aborted = state.abort.as_ref().map(|signed| {
        let reason = signed.reason.as_deref().unwrap_or("no reason given");
        format!("{} aborted the run: {reason}", signed.by)
    });
    let parts: Vec<String> = [aborted, why_back, failed]
        .into_iter()
        .flatten()
        .chain(state.held.clone())
        .collect();
    parts.join("; ")
}

fn failure_text(state: &State, failure: &Failure) -> String {
    let tasks = |tasks: &[(StepId, AgentName)]| -> String {
        let each: Vec<String> = tasks
            .iter()
            .map(|(step, agent)| {
                let detail = state
                    .tasks
                    .get(&(step.clone(), agent.clone()))
                    .and_then(TaskState::outcome)
                    .map(|outcome| convert::outcome_to_wire(outcome.clone()).1)
                    .filter(|detail| !detail.is_empty());
                match detail {
                    Some(detail) => format!("{step} on {agent}: {detail}"),
                    None => format!("{step} on {agent}"),
                }
            })
            .collect();
        each.join("; ")
    };
    match failure {
        Failure::Refused { reasons } => {
            let each: Vec<String> = reasons
                .iter()
                .map(|(agent, reasons)| format!("{agent} refused: {}", reasons.join("; ")))
                .collect();
            format!("LS4401: {}", each.join("; "))
        }
        Failure::Silent { agents } => {
            let agents: Vec<&str> = agents.iter().map(|agent| agent.0.as_str()).collect();
            format!("LS4402: no vote in time from {}", agents.join(", "))
        }
        Failure::NoPromise { rounds } => {
            format!("LS4403: promises lapsed in {rounds} rounds; the phase's start_by is too short")
        }
        Failure::MissingInput { step, detail } => {
            format!("LS4404: {step} lacks an input: {detail}")
        }
        Failure::Tasks { tasks: failed } => format!("LS4405: {}", tasks(failed)),
        Failure::Lost { tasks: lost } => {
            format!(
                "LS4406: not heard of in time and still open: {}",
                tasks(lost)
            )
        }
        Failure::Breach {
            step,
            agent,
            detail,
        } => {
            format!("LS4407: {step} on {agent} saw a breach: {detail}")
        }
        Failure::Unattested { watches } => {
            format!("LS4408: no attestation from {}", tasks(watches))
        }
        Failure::TooLarge { detail } => format!(
            "LS4409: {detail}; nothing was released; spread these steps over several phases"
        ),
    }
}

fn name(state: &State, phase: PhaseRef) -> String {
    state
        .spec(phase)
        .map_or_else(|| phase.to_string(), |spec| spec.name.clone())
}

/// What an operator may decide on a failed phase: a rollback can't be rolled
/// back, and what is unclear must be resolved before it is tried again.
fn decision_text(state: &State, phase: PhaseRef) -> String {
    let unclear = state.tasks_of(phase).any(|(_, task)| task.is_unclear());
    let verbs = match (phase.track, unclear) {
        (Track::Forward, false) => "retry, skip, rollback or abort",
        (Track::Forward, true) => {
            "resolve what is unclear, then retry or skip; or rollback or abort"
        }
        (Track::Rollback, false) => "retry, skip or abort",
        (Track::Rollback, true) => "resolve what is unclear, then retry or skip; or abort",
    };
    format!(
        "an operator's decision on phase {}: {verbs}",
        name(state, phase)
    )
}

/// What a run waits for, in a sentence.
pub(super) fn wait_text(state: &State, wait: &Wait) -> String {
    let phase = |phase: &PhaseRef| name(state, *phase);
    match wait {
        Wait::Vote {
            agent,
            connected: false,
            ..
        } => {
            format!("the vote of {agent}, which is not connected")
        }
        Wait::Vote {
            agent, busy: true, ..
        } => {
            format!("the vote of {agent}, which is busy with an earlier attempt")
        }
        Wait::Vote { agent, .. } => format!("the vote of {agent}"),
        Wait::Approval { phase: at } => format!("approval of phase {}", phase(at)),
        Wait::HoldGate { phase: at } => format!("`resume` at the hold before {}", phase(at)),
        Wait::Paused { by } => format!("the end of the pause by {by}"),
        Wait::Held { reasons } => format!("an operator's decision: {}", reasons.join("; ")),
        Wait::Decision { phase: at } => decision_text(state, *at),
        Wait::Disarm { agent, step } => format!("{agent} to disarm {step}"),
        Wait::Attestation { agent, step } => format!("{agent} to attest {step}"),
        Wait::Outcome {
            agent,
            step,
            lost: false,
        } => format!("{step} on {agent}"),
        Wait::Outcome {
            agent,
            step,
            lost: true,
        } => {
            format!("{step} on {agent}, which is overdue: its agent, or `waive`")
        }
        Wait::TakeOver { reason } => format!("a take-over: {reason}"),
        Wait::GiveUp { reasons } => format!("an operator's `abort`: {}", reasons.join("; ")),
        Wait::Close { agent } => format!("{agent} to hear that the run is over"),
    }
}

/// One line for people about a journal entry.
pub fn summary(state: &State, record: &lockstep_barrier::record::Record) -> String {
    use lockstep_barrier::record::Record as R;
    let phase = |at: &PhaseRef| name(state, *at);
    let by = |signed: &lockstep_barrier::record::Signed| match &signed.reason {
        Some(reason) => format!("by {}: {reason}", signed.by),
        None => format!("by {}", signed.by),
    };
    match record {
        R::Began { begin, .. } => format!("run began, started by {}", begin.by),
        R::TermBegan { term } => format!("coordinator took the run up under term {}", term.number),
        R::TookOver {
            agent,
            term,
            decision,
        } => format!(
            "took over from another coordinator, of which {agent} has obeyed term {}, decision \
             {decision}; the run can only be aborted",
            term.number
        ),
        R::Preparing {
            phase: at, attempt, ..
        } => format!("{}: preparing, attempt {attempt}", phase(at)),
        R::GateOpened { phase: at, signed } => format!("{}: gate opened {}", phase(at), by(signed)),
        R::Released {
            phase: at, attempt, ..
        } => format!("{}: released, attempt {attempt}", phase(at)),
        R::TaskEnded { agent, report, .. } => {
            let (_, detail) = convert::outcome_to_wire(report.outcome.clone());
            let outcome = outcome::of_task(&report.outcome);
            let detail = if detail.is_empty() {
                detail
            } else {
                format!(": {detail}")
            };
            format!(
                "{} on {agent}: {outcome} in {} ms{detail}",
                report.step, report.took
            )
        }
        R::TaskLost { agent, step } => {
            format!("{step} on {agent}: not heard of in time, still open")
        }
        R::Revoked { phase: at, attempt } => format!("{}: attempt {attempt} revoked", phase(at)),
        R::Failed {
            phase: at, failure, ..
        } => {
            format!("{}: failed: {}", phase(at), failure_text(state, failure))
        }
        R::Completed { phase: at } => format!("{}: complete", phase(at)),
        R::Skipped { phase: at, .. } => format!("{}: skipped", phase(at)),
        R::RetryDecided { phase: at, .. } => format!("{}: to be tried again", phase(at)),
        R::Waived {
            agent,
            step,
            signed,
        } => format!("{step} on {agent}: waived {}", by(signed)),
        R::UnknownResolved {
            agent,
            step,
            resolution,
            signed,
        } => {
            let outcome = match resolution {
                Resolution::Done => TaskOutcome::Done,
                Resolution::Failed => TaskOutcome::Failed,
            };
            format!("{step} on {agent}: resolved as {outcome} {}", by(signed))
        }
        R::Paused { signed } => format!("paused {}", by(signed)),
        R::Resumed { signed } => format!("resumed {}", by(signed)),
        R::RollbackDecided { .. } => format!("rollback decided: {}", reason(state)),
        R::RollbackBegan {} => "nothing forward is open any more; rollback begins".to_owned(),
        R::AbortDecided { signed } => format!("abort decided {}", by(signed)),
        R::Breached {
            agent,
            step,
            detail,
        } => format!("{step} on {agent} saw a breach: {detail}"),
        R::Disarmed { agent, steps } => {
            let steps: Vec<&str> = steps.iter().map(|step| step.0.as_str()).collect();
            format!("{agent} disarmed {}", steps.join(", "))
        }
        R::Contradicted { agent, detail, .. } => {
            format!("{agent} contradicts what was recorded: {detail}")
        }
        R::Owed { debt } => format!("{} owes the undo of {}", debt.agent, debt.step),
        R::JournalLost { agent } => format!("{agent} came back without its journal"),
        R::Ended { ending } => match ending {
            Ending::Completed => "run completed".to_owned(),
            Ending::RolledBack => "run rolled back".to_owned(),
            Ending::Aborted => "run aborted".to_owned(),
        },
        R::ClosedBy { agent } => format!("{agent} is free of the run"),
    }
}
