//! A coordinator that takes over with an old journal.

use super::{PLAN, a_move, config, failed, hold, make};
use crate::support::{Sim, plan};
use lockstep_barrier::coordinator::{State, VerbAction};
use lockstep_barrier::message::Order;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::VecDeque;

proptest! {
    #![proptest_config(config())]

    /// A coordinator that takes over with any prefix of its journal orders nothing
    /// but the end, every agent accepts that, no task keeps running, and whatever
    /// is in effect on a host is an outstanding undo. No agent loses its journal
    /// here, because then the state of its host is unknown.
    #[test]
    fn taking_over_with_an_old_journal_only_ends_the_run(
        moves in prop::collection::vec(a_move(), 0..160),
        records_left in any::<prop::sample::Index>(),
        restarts in 1..12_u8,
    ) {
        let text = PLAN.replace("{policy}", "rollback").replace("{open}", "no-return").replace("{until}", "3");
        let mut sim = Sim::new(plan::begin(&text));
        sim.start();
        for name in sim.names() {
            sim.connect(&name);
        }
        for one in moves {
            make(&mut sim, one);
        }
        let decided = State::fold(sim.disk.clone()).expect("its own journal");
        if decided.ended.is_some() {
            return Ok(());
        }
        sim.crash_coordinator();
        sim.restore_backup(1 + records_left.index(sim.disk.len()));
        let restored = State::fold(sim.disk.clone()).expect("a beginning is a journal");
        for _ in 0..restarts {
            sim.restart_coordinator();
            sim.crash_coordinator();
        }
        take_over(&mut sim, &restored)?;
    }
}

/// What a coordinator may send in a run of which it has lost decisions.
fn only_ends(order: &Order) -> bool {
    matches!(
        order,
        Order::Revoke { .. } | Order::Ack { .. } | Order::Close { .. }
    )
}

fn take_over(sim: &mut Sim, restored: &State) -> Result<(), TestCaseError> {
    sim.take_over = true;
    for _ in 0..20 {
        sim.restart_coordinator();
        for name in sim.names() {
            sim.restart_agent(&name);
            sim.connect(&name);
        }
        let Some(state) = sim.run.as_ref().map(|run| run.state()) else {
            return Err(failed(sim, "no coordinator"));
        };
        let (lost, ended) = (!state.decisions_lost.is_empty(), state.ended.is_some());
        if lost && !ended {
            order_the_end(sim)?;
        } else if !ended {
            // There is nothing to take over if no agent has accepted a decision
            // that this journal lacks.
            return if accepted_since(sim, restored.decided_at()) {
                Err(failed(sim, "it is not fenced"))
            } else {
                Ok(())
            };
        }
        sim.finish_what_runs();
        hold(sim)?;
        if sim.run.as_ref().is_some_and(|run| run.is_closed()) {
            break;
        }
    }
    everyone_is_free(sim)
}

/// An agent has accepted a decision above this one.
fn accepted_since(sim: &Sim, decision: u64) -> bool {
    let participants = sim.agents.values().filter_map(|a| a.participant.as_ref());
    let mut logs = participants.filter_map(|p| p.state().run(&sim.begin.run));
    logs.any(|log| log.decision > decision)
}

fn order_the_end(sim: &mut Sim) -> Result<(), TestCaseError> {
    sim.orders.values_mut().for_each(VecDeque::clear);
    prop_assert!(sim.verb(VerbAction::Rollback, Some("go back")).is_err());
    prop_assert!(sim.verb(VerbAction::Retry, Some("again")).is_err());
    sim.verb(VerbAction::Abort, Some("its journal is old"))
        .map_err(TestCaseError::fail)?;
    if sim.orders.values().flatten().all(only_ends) {
        Ok(())
    } else {
        Err(failed(sim, "it orders more than the end"))
    }
}

/// No agent is locked to the run, and whatever is in effect is an outstanding undo.
fn everyone_is_free(sim: &Sim) -> Result<(), TestCaseError> {
    let Some(state) = sim.run.as_ref().map(|run| run.state()) else {
        return Err(failed(sim, "no coordinator"));
    };
    for (name, agent) in &sim.agents {
        let participant = agent.participant.as_ref();
        let free = participant.is_some_and(|p| p.state().locked().is_none());
        if !free || agent.running.is_some() || !state.closed_by.contains(name) {
            return Err(failed(sim, &format!("{name} is not free")));
        }
    }
    for (step, agent) in sim.world.changed() {
        let undoable = state.step(step).is_some_and(|(_, spec)| spec.undoable);
        let mut outstanding_undos = state.outstanding_undos.iter();
        let listed = outstanding_undos.any(|outstanding_undo| {
            outstanding_undo.step == *step && outstanding_undo.agent == *agent
        });
        if undoable && !listed {
            let what = format!("{step} is in effect on {agent} without an outstanding undo");
            return Err(failed(sim, &what));
        }
    }
    Ok(())
}
