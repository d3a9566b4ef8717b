//! Why a phase failed, as a structured error.

use super::task;
use lockstep_api::{Code, Diagnosis, Refusal};
use lockstep_barrier::coordinator::{PhaseStatus, State, TaskState};
use lockstep_barrier::ids::{AgentName, StepId};
use lockstep_barrier::record::Failure;

pub(super) fn diagnosis(state: &State, failure: &Failure) -> Diagnosis {
    match failure {
        Failure::Refused { reasons } => {
            let refusals: Vec<String> = reasons
                .iter()
                .map(|(agent, reasons)| format!("{agent} refused: {}", joined(reasons)))
                .collect();
            Diagnosis::new(Code::LS4401, refusals.join("; "))
        }
        Failure::Silent { agents } => {
            let what = format!("no vote in time from {}", joined_with(agents, ", "));
            Diagnosis::new(Code::LS4402, what)
        }
        Failure::NoPromise { rounds } => Diagnosis::new(
            Code::LS4403,
            format!("promises lapsed in {rounds} rounds; the phase's start_by is too short"),
        ),
        Failure::MissingInput { step, detail } => {
            Diagnosis::new(Code::LS4404, format!("{step} lacks an input: {detail}"))
        }
        Failure::Tasks { tasks } => Diagnosis::new(Code::LS4405, with_details(state, tasks)),
        Failure::Lost { tasks } => Diagnosis::new(
            Code::LS4406,
            format!(
                "no outcome in time, and still open: {}",
                with_details(state, tasks)
            ),
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
            format!("no attestation from {}", with_details(state, watches)),
        ),
        Failure::TooLarge { detail } => Diagnosis::new(Code::LS4409, detail.clone())
            .state_left("nothing was released")
            .remedy("spread these steps over several phases"),
    }
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

/// Each task with the detail of its outcome, if it has one.
fn with_details(state: &State, tasks: &[(StepId, AgentName)]) -> String {
    let each: Vec<String> = tasks
        .iter()
        .map(|key| {
            let (step, agent) = key;
            let outcome = state.tasks.get(key).and_then(TaskState::outcome);
            match outcome.map(task::detail) {
                Some(detail) if !detail.is_empty() => format!("{step} on {agent}: {detail}"),
                Some(_) | None => format!("{step} on {agent}"),
            }
        })
        .collect();
    each.join("; ")
}

fn joined(reasons: &[Diagnosis]) -> String {
    joined_with(reasons, "; ")
}

fn joined_with<T: ToString>(items: &[T], separator: &str) -> String {
    let texts: Vec<String> = items.iter().map(ToString::to_string).collect();
    texts.join(separator)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

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
