//! Invariants about the order of steps, and about what a release waits for besides
//! its votes.

use super::Sim;
use super::world::{World, WorldEvent};
use lockstep_barrier::coordinator::{RELEASE_MARGIN, Vote};
use lockstep_barrier::ids::{AgentName, Millis, PhaseRef};
use lockstep_barrier::message::Verdict;
use lockstep_barrier::record::Record;
use lockstep_barrier::resolved_plan::Gate;

/// A step starts only when every earlier step of its phase at the same agent has
/// succeeded, or the run continues without it.
pub fn steps_in_order(world: &World, _now: Millis, event: &WorldEvent) -> Result<(), String> {
    let (
        WorldEvent::Started {
            agent, phase, step, ..
        },
        Some(state),
    ) = (event, &world.state)
    else {
        return Ok(());
    };
    let steps = state.spec(*phase).map_or(&[][..], |spec| &spec.steps);
    let earlier = steps.iter().take_while(|earlier| earlier.id != *step);
    for before in earlier.filter(|before| before.agents.contains(agent)) {
        let task = state.tasks.get(&(before.id.clone(), agent.clone()));
        let in_this_round = state
            .phase(*phase)
            .and_then(|phase| phase.tasks.get(agent))
            .is_some_and(|steps| steps.contains(&before.id));
        let attempts = world
            .ended
            .iter()
            .filter(|((whose, what, _), _)| (whose, what) == (agent, &before.id));
        let latest = attempts.max_by_key(|((_, _, attempt), _)| *attempt);
        let good = latest.is_some_and(|(_, outcome)| outcome.is_good());
        let settled = task.is_some_and(|task| task.is_settled());
        if in_this_round && !good && !settled && !world.lost.contains(agent) {
            let outcome = latest.map(|(_, outcome)| outcome);
            return Err(format!(
                "{step} started on {agent} after {} ended as {outcome:?}",
                before.id
            ));
        }
    }
    Ok(())
}

/// A phase with a gate is released only when the gate is open, and nothing is
/// released while the run is paused or held.
pub fn releases_are_permitted(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let (WorldEvent::Decided(entry), Some(state)) = (event, &world.state) else {
        return Ok(());
    };
    let Record::Released { phase, .. } = &entry.record else {
        return Ok(());
    };
    let gate = state.spec(*phase).map_or(Gate::None, |spec| spec.gate);
    let opened = state
        .phase(*phase)
        .is_some_and(|phase| phase.gate_opened.is_some());
    if gate != Gate::None && !opened {
        return Err(format!("{phase} was released through a closed gate"));
    }
    if state.paused.is_some() || !state.held.is_empty() {
        return Err(format!("{phase} was released while the run was held"));
    }
    Ok(())
}

impl Sim {
    /// A release rests on the latest votes: each is ready, and leaves time for the
    /// release to arrive.
    pub(super) fn check_votes(&mut self, phase: PhaseRef) {
        let Some(run) = &self.run else { return };
        let start_by = run.state().spec(phase).map_or(0, |spec| spec.start_by);
        let margin = RELEASE_MARGIN.min(start_by / 5);
        let good = |vote: &Vote| {
            matches!(vote.verdict, Verdict::Ready { .. })
                && self.now < vote.lapses.saturating_sub(margin)
        };
        let votes = run.votes();
        let tasks = run.state().phase(phase).map(|phase| &phase.tasks);
        let agents: Vec<&AgentName> = tasks.into_iter().flat_map(|tasks| tasks.keys()).collect();
        let bad = agents
            .into_iter()
            .find(|agent| !votes.get(*agent).is_some_and(good))
            .cloned();
        if let Some(agent) = bad {
            self.violated(&format!(
                "invariant release_rests_on_votes is broken: {phase} was released on {agent}'s \
                 vote, which is missing, not ready, or about to lapse"
            ));
        }
    }

    /// A coordinator that has learned of another one decides nothing (R11).
    pub(super) fn check_fence(&mut self, decided: bool) {
        let Some(run) = &self.run else { return };
        if decided && super::liveness::is_fenced(run) {
            self.violated(
                "invariant fenced_means_no_decision is broken: a fenced coordinator has decided",
            );
        }
    }
}
