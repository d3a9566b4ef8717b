//! Why a phase failed, as a structured error.

use super::task;
use lockstep_api::{Code, Diagnosis, Refusal};
use lockstep_barrier::coordinator::{PhaseStatus, State, TaskKey, TaskState};
use lockstep_barrier::ids::AgentName;
use lockstep_barrier::record::Failure;

/// The failure as an error. It names agents and tasks; their own errors are in the
/// refusals and in the status of the tasks.
pub(super) fn diagnosis(state: &State, failure: &Failure) -> Diagnosis {
    let joined = |tasks: &[TaskKey]| -> String {
        let names: Vec<String> = tasks.iter().map(name_of).collect();
        names.join(", ")
    };
    match failure {
        Failure::Refused { reasons } => {
            let agents: Vec<&str> = reasons.keys().map(|agent| agent.0.as_str()).collect();
            Diagnosis::new(Code::LS4401, format!("refused by {}", agents.join(", ")))
        }
        Failure::Silent { agents } => {
            let agents: Vec<&str> = agents.iter().map(|agent| agent.0.as_str()).collect();
            let what = format!("no vote in time from {}", agents.join(", "));
            Diagnosis::new(Code::LS4402, what)
        }
        Failure::NoPromise { rounds } => {
            Diagnosis::new(Code::LS4403, format!("promises lapsed in {rounds} rounds"))
                .remedy("raise the phase's start_by")
        }
        Failure::MissingInput { step, detail } => {
            Diagnosis::new(Code::LS4404, format!("{step} lacks an input: {detail}"))
        }
        Failure::Tasks { tasks } => {
            Diagnosis::new(Code::LS4405, joined(&worst_first(state, tasks)))
        }
        Failure::Lost { tasks } => Diagnosis::new(
            Code::LS4406,
            format!("no outcome in time, and still open: {}", joined(tasks)),
        ),
        Failure::Breach {
            step,
            agent,
            detail,
        } => Diagnosis::new(
            Code::LS4407,
            format!("{step} on {agent} detected a breach: {detail}"),
        ),
        Failure::Unattested { watches } => Diagnosis::new(
            Code::LS4408,
            format!("no attestation from {}", joined(watches)),
        ),
        Failure::TooLarge { detail } => Diagnosis::new(Code::LS4409, detail.clone())
            .state_left("nothing was released")
            .remedy("spread these steps over several phases"),
    }
}

/// The failure as a sentence, with the errors of its tasks or agents.
pub(super) fn sentence(state: &State, failure: &Failure) -> String {
    let details: Vec<String> = match failure {
        Failure::Refused { reasons } => reasons
            .iter()
            .map(|(agent, reasons)| {
                let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                format!("{agent} refused: {}", reasons.join("; "))
            })
            .collect(),
        Failure::Tasks { tasks } => worst_first(state, tasks)
            .iter()
            .map(|key| with_detail(state, key))
            .collect(),
        Failure::Lost { .. }
        | Failure::Silent { .. }
        | Failure::NoPromise { .. }
        | Failure::MissingInput { .. }
        | Failure::Breach { .. }
        | Failure::Unattested { .. }
        | Failure::TooLarge { .. } => return diagnosis(state, failure).to_string(),
    };
    format!("{}: {}", diagnosis(state, failure).code, details.join("; "))
}

/// The failure of a phase that failed.
pub(super) fn of_phase(status: &PhaseStatus) -> Option<&Failure> {
    match status {
        PhaseStatus::Failed { failure, .. } => Some(failure),
        PhaseStatus::Pending
        | PhaseStatus::Preparing
        | PhaseStatus::Released
        | PhaseStatus::Completed
        | PhaseStatus::Skipped { .. } => None,
    }
}

/// The reasons of the agents that refused the phase.
pub(super) fn refusals(failure: &Failure) -> Vec<Refusal> {
    let reasons = match failure {
        Failure::Refused { reasons } => reasons,
        Failure::Silent { .. }
        | Failure::NoPromise { .. }
        | Failure::MissingInput { .. }
        | Failure::Tasks { .. }
        | Failure::Lost { .. }
        | Failure::Breach { .. }
        | Failure::Unattested { .. }
        | Failure::TooLarge { .. } => return Vec::new(),
    };
    let refusal = |agent: &AgentName, reason: &Diagnosis| Refusal {
        agent: agent.to_string(),
        diagnosis: reason.clone(),
    };
    reasons
        .iter()
        .flat_map(|(agent, reasons)| reasons.iter().map(|reason| refusal(agent, reason)))
        .collect()
}

/// The tasks that went wrong before those that only did not start because of them.
fn worst_first(state: &State, tasks: &[TaskKey]) -> Vec<TaskKey> {
    let went_wrong = |key: &TaskKey| {
        let outcome = state.tasks.get(key).and_then(TaskState::outcome);
        outcome.is_some_and(|outcome| task::outcome_of(outcome).is_bad())
    };
    let mut tasks = tasks.to_vec();
    // The order is stable otherwise.
    tasks.sort_by_key(|key| !went_wrong(key));
    tasks
}

fn name_of((step, agent): &TaskKey) -> String {
    format!("{step} on {agent}")
}

/// A task with the detail of its outcome, if it has one.
fn with_detail(state: &State, key: &TaskKey) -> String {
    let outcome = state.tasks.get(key).and_then(TaskState::outcome);
    match outcome.map(task::detail) {
        Some(detail) if !detail.is_empty() => format!("{}: {detail}", name_of(key)),
        Some(_) | None => name_of(key),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::status::outcome::tests::{at, executed, folded};
    use lockstep_barrier::ids::Track;
    use lockstep_barrier::message::Outcome;
    use std::collections::BTreeMap;

    #[test]
    fn a_task_that_failed_is_named_before_one_that_did_not_start() {
        let error = Outcome::failed(Diagnosis::new(Code::LS2103, "it did not stop"));
        let state = folded(executed(at(Track::Forward, 0), "proof", error));
        let key = |step: &str| (step.into(), AgentName::from("a"));
        let failure = Failure::Tasks {
            tasks: vec![key("one"), key("proof")],
        };
        assert_eq!(diagnosis(&state, &failure).what, "proof on a, one on a");
    }

    #[test]
    fn every_refusal_is_listed_with_its_agent() {
        let no = |what: &str| Diagnosis::new(Code::LS2103, what).remedy("start it");
        let failure = Failure::Refused {
            reasons: BTreeMap::from([
                (AgentName::from("app-1"), vec![no("a"), no("b")]),
                (AgentName::from("app-2"), vec![no("c")]),
            ]),
        };
        let listed: Vec<(String, String)> = refusals(&failure)
            .into_iter()
            .map(|refusal| (refusal.agent, refusal.diagnosis.what))
            .collect();
        let pair = |agent: &str, what: &str| (agent.to_owned(), what.to_owned());
        assert_eq!(
            listed,
            [pair("app-1", "a"), pair("app-1", "b"), pair("app-2", "c")]
        );
    }
}
