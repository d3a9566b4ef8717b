//! A run in sentences: why it holds, what it waits for, what happened.

use super::outcome::waived_tasks;
use super::{failure, task};
use lockstep_barrier::coordinator::{PhaseStatus, State, Wait};
use lockstep_barrier::ids::{AgentName, JournalId, PhaseRef, StepId, Track};
use lockstep_barrier::message::TaskReport;
use lockstep_barrier::record::{
    Ending, OperatorRequest, OutstandingUndo, Record, Resolution, RollbackCause, SkipCause,
};

pub(super) fn reason(state: &State) -> String {
    let failed = state
        .forward
        .iter()
        .chain(&state.backward)
        .rev()
        .find_map(|phase| failure::of_phase(&phase.status))
        .map(|failure| failure::sentence(state, failure));
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
            RollbackCause::Operator { request } => {
                let reason = request.reason.as_deref().unwrap_or("no reason given");
                format!("{} asked for the rollback: {reason}", request.by)
            }
        });
    let aborted = state.abort.as_ref().map(|request| {
        let reason = request.reason.as_deref().unwrap_or("no reason given");
        format!("{} aborted the run: {reason}", request.by)
    });
    let parts: Vec<String> = [aborted, why_back, failed]
        .into_iter()
        .flatten()
        .chain(left_out(state))
        .chain(state.held.clone())
        .collect();
    parts.join("; ")
}

/// An abort or a rollback that is decided and waits for open tasks.
pub(super) fn decided(state: &State) -> String {
    if state.ended.is_some() {
        return String::new();
    }
    let what = match (&state.abort, &state.rollback) {
        (Some(request), _) => format!("abort requested by {}", request.by),
        (None, Some(rollback)) if !rollback.began => match &rollback.cause {
            RollbackCause::Policy { phase } => {
                format!("rollback decided after {} failed", name(state, *phase))
            }
            RollbackCause::Budget { .. } => "rollback decided by the outage budget".to_owned(),
            RollbackCause::Operator { request } => format!("rollback requested by {}", request.by),
        },
        (None, Some(_) | None) => return String::new(),
    };
    match state.open_tasks().count() {
        0 => what,
        1 => format!("{what}, waits for 1 open task"),
        open => format!("{what}, waits for {open} open tasks"),
    }
}

/// What operators have left out of the forward phases, a sentence each.
fn left_out(state: &State) -> Vec<String> {
    let mut sentences = Vec::new();
    let specs = &state.begin.resolved_plan.forward;
    for (phase, spec) in state.forward.iter().zip(specs) {
        if let PhaseStatus::Skipped {
            why: SkipCause::Operator { request },
        } = &phase.status
        {
            let reason = request.reason.as_deref().unwrap_or("no reason given");
            sentences.push(format!(
                "phase {} was skipped by {}: {reason}",
                spec.name, request.by
            ));
        }
    }
    let waived = waived_tasks(state);
    sentences.extend(waived.map(|(step, agent)| format!("{step} on {agent} was waived")));
    sentences
}

fn name(state: &State, phase: PhaseRef) -> String {
    state
        .spec(phase)
        .map_or_else(|| phase.to_string(), |spec| spec.name.clone())
}

/// What an operator may decide on a failed phase: neither a rollback nor what passed
/// the point of no return can be rolled back, what is unclear must be resolved before
/// it is tried again, and a breach can't be skipped.
fn decision_text(state: &State, phase: PhaseRef) -> String {
    // A proof or a watch is run again in any case.
    let proves = |step| state.step(step).is_some_and(|(_, spec)| spec.proves());
    let unclear = state
        .tasks_of(phase)
        .any(|((step, _), task)| task.is_unclear() && !proves(step));
    let skip = !state.failed_over_a_breach(phase);
    let rollback = phase.track == Track::Forward && !state.past_no_return();
    let forward = match (unclear, skip) {
        (true, true) => "resolve what is unclear, then retry or skip; or ",
        (true, false) => "resolve what is unclear, then retry; or ",
        (false, true) => "retry, skip",
        (false, false) => "retry",
    };
    let back = match (unclear, rollback) {
        (true, true) => "rollback or abort",
        (true, false) => "abort",
        (false, true) => ", rollback or abort",
        (false, false) => " or abort",
    };
    let verbs = format!("{forward}{back}");
    format!(
        "an operator's decision on phase {}: {verbs}",
        name(state, phase)
    )
}

/// What a run waits for, as a phrase.
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
            format!("{step} on {agent}, which is overdue: its report, or `waive`")
        }
        Wait::TakeOver { reason } => format!("a take-over: {reason}"),
        Wait::GiveUp { reasons } => format!("an operator's `abort`: {}", reasons.join("; ")),
        Wait::Close { agent } => format!("{agent} to close the run"),
    }
}

/// One line for people about a journal entry.
pub fn summary(state: &State, record: &Record) -> String {
    let of = |phase: &PhaseRef, text: &str| format!("{}: {text}", name(state, *phase));
    let task = |step: &StepId, agent: &AgentName, text: &str| format!("{step} on {agent}{text}");
    match record {
        Record::Began { begin, .. } => format!("run began, started by {}", begin.by),
        Record::TermBegan { term } => {
            format!("coordinator continues the run under term {}", term.number)
        }
        Record::TookOver {
            agent,
            term,
            decision,
        } => took_over(agent, term.number, *decision),
        Record::Preparing { phase, attempt, .. } => {
            of(phase, &format!("preparing, attempt {attempt}"))
        }
        Record::GateOpened { phase, request } => of(phase, &format!("gate opened {}", by(request))),
        Record::Released { phase, attempt, .. } => {
            of(phase, &format!("released, attempt {attempt}"))
        }
        Record::TaskEnded { agent, report, .. } => task_ended(agent, report),
        Record::TaskLost { agent, step } => task(step, agent, ": no outcome in time, still open"),
        Record::Revoked { phase, attempt } => of(phase, &format!("attempt {attempt} revoked")),
        Record::Failed { phase, failure, .. } => of(
            phase,
            &format!("failed: {}", failure::sentence(state, failure)),
        ),
        Record::Completed { phase } => of(phase, "complete"),
        Record::Skipped { phase, .. } => of(phase, "skipped"),
        Record::RetryDecided { phase, .. } => of(phase, "retry decided"),
        Record::Waived {
            agent,
            step,
            request,
        } => task(step, agent, &format!(": waived {}", by(request))),
        Record::UnknownResolved {
            agent,
            step,
            resolution,
            request,
        } => task(step, agent, &resolved(*resolution, request)),
        Record::Paused { request } => format!("paused {}", by(request)),
        Record::Resumed { request } => format!("resumed {}", by(request)),
        Record::RollbackDecided { .. } => format!("rollback decided: {}", reason(state)),
        Record::RollbackBegan {} => "no forward task is open; the rollback begins".to_owned(),
        Record::AbortDecided { request } => format!("abort decided {}", by(request)),
        Record::Breached {
            agent,
            step,
            detail,
        } => task(step, agent, &format!(" detected a breach: {detail}")),
        Record::Disarmed { agent, steps } => disarmed(agent, steps),
        Record::Contradicted { agent, detail, .. } => {
            format!("{agent} contradicts a recorded outcome: {detail}")
        }
        Record::UndoOutstanding { outstanding_undo } => undo_outstanding(outstanding_undo),
        Record::LateUndoPreparing { agent, phase, .. } => {
            of(phase, &format!("{agent} is back, its undos are prepared"))
        }
        Record::LateUndoReleased { agent, phase, .. } => {
            of(phase, &format!("the undos of {agent} are released"))
        }
        Record::LateUndoLeft {
            agent,
            phase,
            reason,
        } => of(phase, &left_outstanding(agent, reason)),
        Record::JournalLost { agent, journal } => journal_lost(agent, journal.as_ref()),
        Record::Ended { ending } => ended(*ending).to_owned(),
        Record::ClosedBy { agent } => format!("{agent} closed the run"),
    }
}

fn left_outstanding(agent: &AgentName, reason: &str) -> String {
    format!("the undos of {agent} stay outstanding: {reason}")
}

fn journal_lost(agent: &AgentName, journal: Option<&JournalId>) -> String {
    match journal {
        Some(journal) => format!("{agent} reconnected without its journal: it now has {journal}"),
        None => format!("{agent} came back without its journal, or with an older one"),
    }
}

fn undo_outstanding(undo: &OutstandingUndo) -> String {
    format!("undo of {} is outstanding on {}", undo.step, undo.agent)
}

fn by(request: &OperatorRequest) -> String {
    match &request.reason {
        Some(reason) => format!("by {}: {reason}", request.by),
        None => format!("by {}", request.by),
    }
}

fn took_over(agent: &AgentName, term: u64, decision: u64) -> String {
    format!(
        "took over from another coordinator, of which {agent} has accepted term {term}, decision \
         {decision}; the run can only be aborted"
    )
}

fn task_ended(agent: &AgentName, report: &TaskReport) -> String {
    let TaskReport {
        step,
        outcome,
        took,
        ..
    } = report;
    let mut detail = task::detail(outcome);
    if !detail.is_empty() {
        detail.insert_str(0, ": ");
    }
    let outcome = task::outcome_of(outcome);
    format!("{step} on {agent}: {outcome} in {took} ms{detail}")
}

fn resolved(resolution: Resolution, request: &OperatorRequest) -> String {
    let resolution = match resolution {
        Resolution::Done => "done",
        Resolution::Failed => "failed",
    };
    format!(": resolved as {resolution} {}", by(request))
}

fn disarmed(agent: &AgentName, steps: &[StepId]) -> String {
    let steps: Vec<&str> = steps.iter().map(|step| step.0.as_str()).collect();
    format!("{agent} disarmed {}", steps.join(", "))
}

fn ended(ending: Ending) -> &'static str {
    match ending {
        Ending::Completed => "run completed",
        Ending::RolledBack => "run rolled back",
        Ending::Aborted => "run aborted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::outcome::tests::{AGENT, at, executed, folded};
    use lockstep_barrier::message::{Changes, Outcome};
    use std::collections::BTreeMap;

    #[test]
    fn the_reason_of_a_resolution_is_quoted_unaltered() {
        let record = Record::UnknownResolved {
            agent: "App-1".into(),
            step: "stop".into(),
            resolution: Resolution::Done,
            request: OperatorRequest {
                by: "ana".to_owned(),
                id: "r1".to_owned(),
                reason: Some("Checked with Ana in SHOPP".to_owned()),
            },
        };
        assert_eq!(
            summary(&folded(Vec::new()), &record),
            "stop on App-1: resolved as done by ana: Checked with Ana in SHOPP"
        );
    }

    #[test]
    fn a_rollback_is_not_offered_past_the_point_of_no_return() {
        let forward = at(Track::Forward, 0);
        let error = lockstep_api::Diagnosis::new(lockstep_api::Code::LS2103, "no");
        let failed = executed(forward, "proof", Outcome::failed(error));
        let mut state = folded(failed);
        let text = decision_text(&state, forward);
        assert!(text.ends_with("retry, skip, rollback or abort"), "{text}");
        let begin = std::sync::Arc::make_mut(&mut state.begin);
        begin.resolved_plan.forward[0].point_of_no_return = true;
        let text = decision_text(&state, forward);
        assert!(text.ends_with("retry, skip or abort"), "{text}");
    }

    #[test]
    fn a_skip_is_not_offered_over_a_breach() {
        let forward = at(Track::Forward, 0);
        let error = lockstep_api::Diagnosis::new(lockstep_api::Code::LS2103, "no");
        let mut state = folded(executed(forward, "proof", Outcome::failed(error)));
        state.breach_pending = Some((AGENT.into(), "fence".into(), "a session".to_owned()));
        let text = decision_text(&state, forward);
        assert!(text.ends_with("retry, rollback or abort"), "{text}");
    }

    #[test]
    fn an_outcome_is_spelled_as_in_the_status() {
        let record = Record::TaskEnded {
            agent: AGENT.into(),
            position: None,
            report: TaskReport {
                run: "run".into(),
                phase: at(Track::Forward, 0),
                attempt: 1,
                step: "stop".into(),
                outcome: Outcome::NotStarted,
                outputs: BTreeMap::new(),
                before_image: None,
                changes: Changes::default(),
                took: 5,
            },
        };
        assert_eq!(
            summary(&folded(Vec::new()), &record),
            "stop on a: not-started in 5 ms"
        );
    }
}
