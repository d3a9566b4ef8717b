//! The invariants of the protocol, as named functions
//! (`docs/protocol.md`, "The invariants"). Each receives the world before an event,
//! and the event.

use super::order::{releases_are_permitted, steps_in_order};
use super::proofs::{
    attested_without_a_breach, guards_are_armed, no_automatic_rollback_while_unknown,
    proofs_are_later_than_breaches,
};
use super::world::{World, WorldEvent};
use lockstep_barrier::coordinator::{ATTESTATION_MAX_AGE, State, TaskKey, TaskStatus};
use lockstep_barrier::ids::{AgentName, Millis, PhaseRef, Track};
use lockstep_barrier::message::Mode;
use lockstep_barrier::record::{
    Ending, OutstandingUndoCause, ParticipantRecord, Record, RollbackCause,
};

pub(super) type Check = fn(&World, Millis, &WorldEvent) -> Result<(), String>;

/// The invariants by name.
pub const INVARIANTS: &[(&str, Check)] = &[
    ("phases_in_order", phases_in_order),
    ("steps_in_order", steps_in_order),
    ("releases_are_permitted", releases_are_permitted),
    ("release_needs_every_vote", release_needs_every_vote),
    ("at_most_once", at_most_once),
    ("nothing_stale_is_accepted", nothing_stale_is_accepted),
    (
        "no_automatic_rollback_after_opening",
        no_automatic_rollback_after_opening,
    ),
    ("one_direction_at_a_time", one_direction_at_a_time),
    ("rolled_back_means_restored", rolled_back_means_restored),
    ("journals_agree", journals_agree),
    (
        "release_needs_a_current_proof",
        release_needs_a_current_proof,
    ),
    (
        "guard_disarmed_before_opening",
        guard_disarmed_before_opening,
    ),
    (
        "proofs_are_later_than_breaches",
        proofs_are_later_than_breaches,
    ),
    ("guards_are_armed", guards_are_armed),
    ("attested_without_a_breach", attested_without_a_breach),
    (
        "no_automatic_rollback_while_unknown",
        no_automatic_rollback_while_unknown,
    ),
    ("start_needs_a_durable_intent", start_needs_a_durable_intent),
    ("acknowledged_means_recorded", acknowledged_means_recorded),
    ("lost_only_past_the_deadline", lost_only_past_the_deadline),
    (
        "lost_journal_leaves_nothing_open",
        lost_journal_leaves_nothing_open,
    ),
    ("undos_keep_the_order", undos_keep_the_order),
];

/// 1. A task of a phase starts only when the completion of every phase before
///    it is durable and nothing in them is open. In a rollback, a phase that
///    failed and may be deferred counts as over.
pub fn phases_in_order(world: &World, _now: Millis, event: &WorldEvent) -> Result<(), String> {
    let (WorldEvent::Started { phase, step, .. }, Some(state)) = (event, &world.state) else {
        return Ok(());
    };
    let before = state.phases(phase.track).iter().take(phase.index as usize);
    for (index, earlier) in before.enumerate() {
        let over = earlier.status.is_over() || earlier.status.is_left_behind();
        let at = PhaseRef {
            track: phase.track,
            index: index as u32,
        };
        let open = state.tasks_of(at).any(|(_, task)| task.is_open());
        if !over || open {
            return Err(format!("{step} of {phase} started while {at} is not over"));
        }
    }
    Ok(())
}

/// 2. A release exists only with a promise of this attempt and term from
///    everyone; a task starts only when its release is durable and its
///    promise was kept.
pub fn release_needs_every_vote(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let Some(state) = &world.state else {
        return Ok(());
    };
    match event {
        WorldEvent::Decided(entry) => {
            let (phase, attempt, agents) = match &entry.record {
                Record::Released { phase, attempt, .. } => {
                    let round = state.phase(*phase).map(|p| &p.tasks);
                    let agents = round.into_iter().flat_map(|tasks| tasks.keys()).collect();
                    (phase, attempt, agents)
                }
                Record::LateUndoReleased {
                    agent,
                    phase,
                    attempt,
                    ..
                } => (phase, attempt, vec![agent]),
                _ => return Ok(()),
            };
            for agent in agents {
                let promise = world.promises.get(&(agent.clone(), *phase, *attempt));
                if promise.is_none_or(|promise| promise.term != state.term) {
                    return Err(format!(
                        "{phase} attempt {attempt} was released without {agent}'s promise in term {}",
                        state.term.number
                    ));
                }
            }
        }
        WorldEvent::Started {
            agent,
            phase,
            attempt,
            step,
            ..
        } => {
            // The attempt of a task is that of its last release.
            let released = state
                .tasks
                .get(&(step.clone(), agent.clone()))
                .is_some_and(|task| task.attempt >= *attempt);
            let promise = world.promises.get(&(agent.clone(), *phase, *attempt));
            if !released || promise.is_none_or(|p| p.tombstoned || !p.released) {
                return Err(format!(
                    "{step} on {agent} started in {phase} attempt {attempt} without a release of a live promise"
                ));
            }
        }
        _ => {}
    }
    Ok(())
}

/// 3. Per attempt a task is run at most once, and never again after
///    `done` unless a breach voided it.
pub fn at_most_once(world: &World, _now: Millis, event: &WorldEvent) -> Result<(), String> {
    let WorldEvent::Started {
        agent,
        attempt,
        step,
        ..
    } = event
    else {
        return Ok(());
    };
    let attempted = (agent.clone(), step.clone(), *attempt);
    if world.started.contains(&attempted) && !world.lost.contains(agent) {
        return Err(format!(
            "{step} on {agent} started twice in attempt {attempt}"
        ));
    }
    if world.done.contains(&(step.clone(), agent.clone())) {
        return Err(format!("{step} on {agent} started again after it was done"));
    }
    if let Some((_, running)) = world.running.get(agent) {
        return Err(format!("{step} started on {agent} beside {running}"));
    }
    Ok(())
}

/// 4. No agent accepts a lower decision, a stale term or another plan, and none
///    executes a release after its promise has lapsed. A run with lost decisions
///    decides nothing but its end.
pub fn nothing_stale_is_accepted(
    world: &World,
    now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    if let WorldEvent::Decided(entry) = event {
        return only_ends_where_decisions_are_lost(world, &entry.record);
    }
    let WorldEvent::Recorded { agent, entry } = event else {
        return Ok(());
    };
    match &entry.record {
        ParticipantRecord::Accepted { term, decision, .. } => {
            let known = world.accepted.get(agent).copied();
            if let Some((t, d)) = known.filter(|_| !world.lost.contains(agent)) {
                let forked = term.number == t.number && term.incarnation != t.incarnation;
                if term.number < t.number || forked || *decision < d {
                    return Err(format!(
                        "{agent} went back from {t:?}/{d} to {term:?}/{decision}"
                    ));
                }
            }
        }
        ParticipantRecord::Promised { digest, .. }
            if world.digest().is_some_and(|plan| plan != digest) =>
        {
            return Err(format!("{agent} promised for plan {digest}"));
        }
        ParticipantRecord::Released { phase, attempt, .. } => {
            let promise = world.promises.get(&(agent.clone(), *phase, *attempt));
            let start_by = match &world.state {
                Some(state) => state.spec(*phase).map_or(0, |spec| spec.start_by),
                None => Millis::MAX,
            };
            let live =
                promise.is_some_and(|p| !p.tombstoned && now < p.at.saturating_add(start_by));
            if !live {
                return Err(format!(
                    "{agent} took the release of {phase} attempt {attempt} on no live promise"
                ));
            }
        }
        _ => {}
    }
    Ok(())
}

fn only_ends_where_decisions_are_lost(world: &World, record: &Record) -> Result<(), String> {
    let lost = world
        .state
        .as_ref()
        .is_some_and(|state| !state.decisions_lost.is_empty());
    let goes_on = match record {
        Record::Preparing { .. }
        | Record::GateOpened { .. }
        | Record::Released { .. }
        | Record::Completed { .. }
        | Record::RollbackDecided { .. }
        | Record::RollbackBegan {} => true,
        Record::Began { .. }
        | Record::TermBegan { .. }
        | Record::TookOver { .. }
        | Record::TaskEnded { .. }
        | Record::TaskLost { .. }
        | Record::Revoked { .. }
        | Record::Failed { .. }
        | Record::Skipped { .. }
        | Record::RetryDecided { .. }
        | Record::Waived { .. }
        | Record::UnknownResolved { .. }
        | Record::Paused { .. }
        | Record::Resumed { .. }
        | Record::AbortDecided { .. }
        | Record::Breached { .. }
        | Record::Disarmed { .. }
        | Record::Contradicted { .. }
        | Record::UndoOutstanding { .. }
        | Record::LateUndoPreparing { .. }
        | Record::LateUndoReleased { .. }
        | Record::LateUndoLeft { .. }
        | Record::JournalLost { .. }
        | Record::Ended { .. }
        | Record::ClosedBy { .. } => false,
    };
    if lost && goes_on {
        return Err(format!("{record:?} while decisions of the run are lost"));
    }
    Ok(())
}

/// 5. After the point of no return nothing rolls back automatically, and by
///    request only if it has not started.
pub fn no_automatic_rollback_after_opening(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let (WorldEvent::Decided(entry), Some(state)) = (event, &world.state) else {
        return Ok(());
    };
    match &entry.record {
        Record::RollbackDecided { cause } => match cause {
            RollbackCause::Operator { .. } if state.no_return_is_tombstoned() => Ok(()),
            RollbackCause::Policy { .. } | RollbackCause::Budget { .. }
                if !no_return_was_released(state) =>
            {
                Ok(())
            }
            RollbackCause::Operator { .. }
            | RollbackCause::Policy { .. }
            | RollbackCause::Budget { .. } => {
                Err(format!("{cause:?} behind the point of no return"))
            }
        },
        _ => Ok(()),
    }
}

fn no_return_was_released(state: &State) -> bool {
    let specs = state.begin.resolved_plan.forward.iter();
    let mut phases = specs.zip(&state.forward);
    phases.any(|(spec, phase)| spec.point_of_no_return && phase.ever_released)
}

/// 6. Nothing starts forward when a rollback has begun; nothing is undone
///    while forward work is open, and open work becomes an outstanding undo only
///    if it is lost and its agent detachable (R18).
pub fn one_direction_at_a_time(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let Some(state) = &world.state else {
        return Ok(());
    };
    if let WorldEvent::Decided(entry) = event {
        return may_be_outstanding(state, &entry.record);
    }
    let WorldEvent::Started {
        phase, step, agent, ..
    } = event
    else {
        return Ok(());
    };
    let began = state.rollback.as_ref().is_some_and(|r| r.began);
    let passed = world.is_passed(&(step.clone(), agent.clone()));
    if phase.track == Track::Forward {
        return if began && !passed {
            Err(format!("{step} on {agent} started forward in a rollback"))
        } else {
            Ok(())
        };
    }
    let forward_open = state
        .open_tasks()
        .any(|(_, task)| task.phase.track == Track::Forward);
    let forward_runs = world.running.iter().any(|(whose, (at, running))| {
        at.track == Track::Forward && !world.is_passed(&(running.clone(), whose.clone()))
    });
    if !began || forward_open || forward_runs {
        return Err(format!(
            "{step} on {agent} undoes while forward work is open"
        ));
    }
    Ok(())
}

fn may_be_outstanding(state: &State, record: &Record) -> Result<(), String> {
    let Record::UndoOutstanding { outstanding_undo } = record else {
        return Ok(());
    };
    let task = state.tasks.get(&(
        outstanding_undo.step.clone(),
        outstanding_undo.agent.clone(),
    ));
    let open = task.filter(|task| task.is_open());
    let detachable = state
        .begin
        .resolved_plan
        .detachable
        .contains(&outstanding_undo.agent);
    match open {
        Some(task) if task.status != TaskStatus::Lost || !detachable => Err(format!(
            "{} on {} is open and was recorded as an outstanding undo",
            outstanding_undo.step, outstanding_undo.agent
        )),
        _ => Ok(()),
    }
}

/// 7. `rolled back` means that every host is as before, except for outstanding
///    undos; an aborted run lists whatever is still in effect.
pub fn rolled_back_means_restored(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let (WorldEvent::Decided(entry), Some(state)) = (event, &world.state) else {
        return Ok(());
    };
    let (Record::Ended {
        ending: Ending::RolledBack,
    }
    | Record::Ended {
        ending: Ending::Aborted,
    }) = &entry.record
    else {
        return Ok(());
    };
    for (step, agent) in &world.changed {
        let listed = state.outstanding_undos.iter().any(|outstanding_undo| {
            let undoes = state
                .step(&outstanding_undo.step)
                .map(|(_, spec)| &spec.mode);
            outstanding_undo.agent == *agent
                && (outstanding_undo.step == *step
                    || undoes == Some(&Mode::Undo { of: step.clone() }))
        });
        let undoable = state.step(step).is_some_and(|(_, spec)| spec.undoable);
        if undoable && !listed {
            return Err(format!(
                "{step} is still in effect on {agent} without an outstanding undo"
            ));
        }
    }
    Ok(())
}

/// 8. The coordinator records only outcomes that the agent's journal holds,
///    and a run ends with no task open.
pub fn journals_agree(world: &World, _now: Millis, event: &WorldEvent) -> Result<(), String> {
    let (WorldEvent::Decided(entry), Some(state)) = (event, &world.state) else {
        return Ok(());
    };
    match &entry.record {
        Record::TaskEnded { agent, report, .. } => {
            let key = (agent.clone(), report.step.clone(), report.attempt);
            if world.ended.get(&key) != Some(&report.outcome) && !world.lost.contains(agent) {
                return Err(format!(
                    "{} on {agent} is recorded as {:?}, its own journal says {:?}",
                    report.step,
                    report.outcome,
                    world.ended.get(&key)
                ));
            }
        }
        Record::Ended { .. } => {
            if let Some(((step, agent), _)) = state.open_tasks().next() {
                return Err(format!("the run ends while {step} on {agent} is open"));
            }
        }
        _ => {}
    }
    Ok(())
}

/// 9. A forward release, the point of no return's above all, needs a current
///    attestation of every armed watch, and no proof may be void.
pub fn release_needs_a_current_proof(
    world: &World,
    now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let (WorldEvent::Decided(entry), Some(state)) = (event, &world.state) else {
        return Ok(());
    };
    let Record::Released { phase, .. } = &entry.record else {
        return Ok(());
    };
    if phase.track != Track::Forward {
        return Ok(());
    }
    if state.breach_pending.is_some() {
        return Err(format!("{phase} was released over a breach"));
    }
    for key in state.attesting_watches() {
        let fresh = world
            .clean
            .get(key)
            .is_some_and(|at| at.saturating_add(ATTESTATION_MAX_AGE) >= now);
        if !fresh {
            return Err(format!(
                "{phase} was released without a fresh attestation of {} on {}",
                key.0, key.1
            ));
        }
    }
    let void = state
        .tasks
        .iter()
        .find(|(_, task)| task.phase.index < phase.index && task.status == TaskStatus::Voided);
    match void {
        Some(((step, _), _)) => Err(format!(
            "{phase} was released with the proof of {step} void"
        )),
        None => Ok(()),
    }
}

/// 10. A watch is disarmed before the access that it guards is opened.
pub fn guard_disarmed_before_opening(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let (WorldEvent::Decided(entry), Some(state)) = (event, &world.state) else {
        return Ok(());
    };
    let still_up = |wanted: &dyn Fn(&TaskKey) -> bool| {
        let waived = |key: &TaskKey| {
            let mut outstanding_undos = state.outstanding_undos.iter();
            outstanding_undos.any(|outstanding_undo| {
                outstanding_undo.step == key.0 && outstanding_undo.agent == key.1
            })
        };
        let up = world.armed.iter().find(|key| wanted(key) && !waived(key));
        match up {
            Some((step, agent)) => Err(format!("{step} on {agent} still stands")),
            None => Ok(()),
        }
    };
    match &entry.record {
        Record::RollbackBegan {} => still_up(&|_| true),
        Record::Released { phase, .. } if phase.track == Track::Forward => still_up(&|key| {
            let until = state.step(&key.0).and_then(|(_, spec)| spec.watch_until);
            until.is_some_and(|until| until <= phase.index)
        }),
        _ => Ok(()),
    }
}

/// 11. Before a driver changes a host, the agent's journal holds the intent.
pub fn start_needs_a_durable_intent(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let WorldEvent::Started {
        agent,
        attempt,
        step,
        ..
    } = event
    else {
        return Ok(());
    };
    if world
        .intents
        .contains(&(agent.clone(), step.clone(), *attempt))
    {
        return Ok(());
    }
    Err(format!(
        "{step} on {agent} started in attempt {attempt} without an intent in its journal"
    ))
}

/// 12. An outcome is acknowledged only when the coordinator's journal holds it. An
///     attempt that was never released has no outcome to record.
pub fn acknowledged_means_recorded(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let WorldEvent::Acknowledged {
        agent,
        attempt,
        step,
        ..
    } = event
    else {
        return Ok(());
    };
    let key = (agent.clone(), step.clone(), *attempt);
    let never_released = !world.released.contains(&key)
        && world
            .ended
            .get(&key)
            .is_some_and(|outcome| !outcome.may_have_changed());
    if world.recorded.contains(&key) || never_released || world.state.is_none() {
        return Ok(());
    }
    Err(format!(
        "the outcome of {step} on {agent} in attempt {attempt} was acknowledged and is not recorded"
    ))
}

/// 13. A task is counted lost only when its agent has cancelled it, or never received
///     its release; and no task starts after its deadline.
pub fn lost_only_past_the_deadline(
    world: &World,
    now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let deadline = |agent: &AgentName, phase: PhaseRef| {
        let deadline = world.deadlines.get(&(agent.clone(), phase)).copied();
        deadline.unwrap_or(0)
    };
    match event {
        WorldEvent::Started {
            agent, phase, step, ..
        } if now >= deadline(agent, *phase) => {
            Err(format!("{step} on {agent} started after its deadline"))
        }
        WorldEvent::Decided(entry) => {
            let Record::TaskLost { agent, step } = &entry.record else {
                return Ok(());
            };
            match world.running.get(agent) {
                Some((phase, running)) if running == step && now < deadline(agent, *phase) => {
                    Err(format!("{step} on {agent} is lost within its time"))
                }
                _ => Ok(()),
            }
        }
        _ => Ok(()),
    }
}

/// 14. A task that was released to an agent before it lost its journal isn't open any
///     more once the agent has connected: no outcome of it can arrive.
pub fn lost_journal_leaves_nothing_open(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let (WorldEvent::Admitted { agent }, Some(state)) = (event, &world.state) else {
        return Ok(());
    };
    let forgotten = state.open_tasks().find(|((step, owner), task)| {
        let key = (owner.clone(), step.clone(), task.attempt);
        owner == agent && world.forgotten.contains(&key)
    });
    match forgotten {
        Some(((step, _), _)) => Err(format!(
            "{step} on {agent} is open, although the agent has lost the journal of it"
        )),
        None => Ok(()),
    }
}

/// 15. An agent executes a rollback's step only when it has no outstanding undo of an
///     earlier phase: what it owes keeps the plan's order (R18).
pub fn undos_keep_the_order(world: &World, _now: Millis, event: &WorldEvent) -> Result<(), String> {
    let (
        WorldEvent::Started {
            agent, phase, step, ..
        },
        Some(state),
    ) = (event, &world.state)
    else {
        return Ok(());
    };
    let earlier = state.outstanding_undos.iter().find(|undo| {
        let at = state.step(&undo.step).map(|(at, _)| at);
        undo.agent == *agent
            && undo.cause == OutstandingUndoCause::Unreachable
            && at.is_some_and(|at| at.track == Track::Rollback && at.index < phase.index)
    });
    match earlier {
        Some(undo) if phase.track == Track::Rollback => Err(format!(
            "{step} started on {agent} before its outstanding {}",
            undo.step
        )),
        _ => Ok(()),
    }
}
