//! What must hold when a run has ended and nothing moves any more, as named
//! functions (`docs/protocol.md`, "The invariants").

use super::Sim;
use lockstep_barrier::ids::Track;
use lockstep_barrier::record::{Ending, OutstandingUndoCause};

/// No connected agent is locked to a run that has ended and
/// that it has closed, or will never be asked to close.
pub fn nobody_stays_locked(sim: &Sim) -> Result<(), String> {
    let Some(run) = sim.run.as_ref().filter(|run| run.is_closed()) else {
        return Ok(());
    };
    for (name, agent) in &sim.agents {
        let locked = agent.participant.as_ref().and_then(|p| p.state().locked());
        if agent.connected && locked == Some(run.id()) {
            return Err(format!("{name} stays locked to a closed run"));
        }
    }
    Ok(())
}

/// Of an agent that has closed a run that was rolled back, the
/// first outstanding undo has a reason. The others wait behind it.
pub fn late_undos_are_settled(sim: &Sim) -> Result<(), String> {
    let Some(state) = sim.run.as_ref().map(|run| run.state()) else {
        return Ok(());
    };
    if state.ended != Some(Ending::RolledBack) {
        return Ok(());
    }
    for agent in &state.closed_by {
        let left_out = state.outstanding_undos.iter().filter(|undo| {
            let at = state.step(&undo.step).map(|(at, _)| at.track);
            undo.agent == *agent
                && undo.cause == OutstandingUndoCause::Unreachable
                && at == Some(Track::Rollback)
        });
        let mut left_out = left_out.peekable();
        let owes = left_out.peek().is_some();
        if owes && !left_out.any(|undo| state.why_outstanding(undo).is_some()) {
            return Err(format!(
                "{agent} has closed the run and nobody knows why it owes"
            ));
        }
    }
    Ok(())
}
