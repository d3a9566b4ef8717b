//! Recovery once the faults have stopped: sessions are replaced, and an operator
//! responds to every wait.

use super::{failed, good, hold};
use crate::support::Sim;
use crate::support::at_rest::{late_undos_are_settled, nobody_stays_locked};
use lockstep_barrier::coordinator::{VerbAction, Wait};
use lockstep_barrier::message::Mode;
use lockstep_barrier::record::Resolution;
use proptest::test_runner::TestCaseError;

/// The operator checks the hosts and resolves each unclear task.
pub(super) fn resolve_all(sim: &mut Sim) {
    let Some(run) = &sim.run else { return };
    let unclear: Vec<_> = run
        .state()
        .tasks
        .iter()
        .filter(|(_, task)| task.is_unclear())
        .map(|(key, _)| key.clone())
        .collect();
    for (step, agent) in unclear {
        let Some(run) = &sim.run else { return };
        let mode = run.state().step(&step).map(|(_, spec)| spec.mode.clone());
        let host = &sim.agent(&agent).host;
        let in_effect = match mode {
            Some(Mode::Undo { of }) => !host.contains_key(&of),
            _ => host.contains_key(&step),
        };
        let resolution = if in_effect {
            Resolution::Done
        } else {
            Resolution::Failed
        };
        let action = VerbAction::ResolveUnknown {
            agent,
            step,
            resolution,
        };
        let _ = sim.verb(action, Some("looked at the host"));
    }
}

/// The faults have stopped: every agent is connected, every action succeeds, and an
/// operator responds to every wait. Every run must end.
pub(super) fn heal(sim: &mut Sim, turns_back: bool) -> Result<(), TestCaseError> {
    sim.crash_after = None;
    for round in 0..80 {
        sim.restart_coordinator();
        for name in sim.names() {
            sim.restart_agent(&name);
            if round % 20 == 0 && sim.agent(&name).connected {
                // A session that has lost a message is replaced.
                sim.drop_session(&name);
            }
            sim.connect(&name);
        }
        finish_what_runs(sim);
        hold(sim)?;
        if sim.run.as_ref().is_some_and(|run| run.is_closed()) {
            return everyone_is_free(sim);
        }
        if turns_back && round == 1 {
            // Rejected if the run has moved on, which is correct as well.
            let _ = sim.verb(VerbAction::Rollback, Some("enough for tonight"));
        }
        operate(sim, round);
        sim.settle();
        sim.pass(if round % 4 == 3 { 70_000 } else { 100 });
        hold(sim)?;
    }
    let waits = sim.run.as_ref().map(|run| run.waits_on());
    Err(failed(sim, &format!("no end; waits on {waits:?}")))
}

/// After new sessions no agent is locked to the run, which is closed.
fn everyone_is_free(sim: &mut Sim) -> Result<(), TestCaseError> {
    for name in sim.names() {
        sim.drop_session(&name);
        sim.connect(&name);
    }
    sim.settle();
    hold(sim)?;
    let settled = nobody_stays_locked(sim).and_then(|()| late_undos_are_settled(sim));
    settled.map_err(|what| failed(sim, &what))
}

fn operate(sim: &mut Sim, round: usize) {
    resolve_all(sim);
    let Some(run) = &sim.run else { return };
    let state = run.state().clone();
    for wait in run.waits_on() {
        let reason = Some("the night is short");
        let _ = match wait {
            Wait::Approval { phase } => {
                let digest = state.begin.resolved_plan.digest.clone();
                sim.verb(VerbAction::Approve { phase, digest }, reason)
            }
            Wait::Paused { .. } | Wait::Held { .. } | Wait::HoldGate { .. } => {
                sim.verb(VerbAction::Resume, reason)
            }
            Wait::Outcome {
                agent,
                step,
                lost: true,
            } => sim.verb(VerbAction::Waive { agent, step }, reason),
            Wait::Disarm { agent, step } if state.journals_lost.contains(&agent) => {
                sim.verb(VerbAction::Waive { agent, step }, reason)
            }
            Wait::Decision { .. } if round < 30 => sim.verb(VerbAction::Retry, reason),
            Wait::Decision { .. } => sim
                .verb(VerbAction::Skip, reason)
                .or_else(|_| sim.verb(VerbAction::Rollback, reason))
                .or_else(|_| sim.verb(VerbAction::Abort, reason)),
            _ => Ok(()),
        };
    }
}

/// Delivers messages, and finishes running tasks successfully.
pub(super) fn finish_what_runs(sim: &mut Sim) {
    sim.settle();
    for name in sim.names() {
        if let Some((outcome, outputs)) = good(sim, &name) {
            sim.finish(&name, outcome, outputs);
        }
    }
    sim.settle();
}
