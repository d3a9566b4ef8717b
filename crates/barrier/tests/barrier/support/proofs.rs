//! Invariants about proofs, watches and unknown outcomes. They rely on what was
//! recorded and started, not on what the coordinator considers void.

use super::world::{World, WorldEvent};
use lockstep_barrier::coordinator::{ATTESTATION_MAX_AGE, State, TaskKey};
use lockstep_barrier::ids::{AgentName, Millis, PhaseRef, StepId, Track};
use lockstep_barrier::message::Outcome;
use lockstep_barrier::record::{ParticipantRecord, Record, RollbackCause};
use std::collections::{BTreeMap, BTreeSet};

/// What became durable or was answered, as far as these invariants need it.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct Proofs {
    /// Sequence of the record that last released a task.
    released: BTreeMap<TaskKey, u64>,
    /// Released tasks without an outcome.
    open: BTreeSet<TaskKey>,
    /// Sequence of the latest breach of each watch.
    breached: BTreeMap<StepId, u64>,
    /// A step of the point of no return that changes something has started, or has
    /// found access open.
    opened: bool,
    /// Tasks whose latest outcome is `unknown` or `drifted`, and not resolved.
    unclear: BTreeSet<TaskKey>,
    /// Latest answer for each watch.
    answers: BTreeMap<TaskKey, (Millis, Option<String>)>,
}

impl Proofs {
    pub fn take(&mut self, now: Millis, event: &WorldEvent, state: Option<&State>) {
        match event {
            WorldEvent::Decided(entry) => {
                if let Some(state) = state {
                    self.take_decision(entry.seq, &entry.record, state);
                }
            }
            WorldEvent::Started { step, .. } => {
                self.opened |= state.is_some_and(|s| opens(s, step))
            }
            WorldEvent::Recorded { entry, .. } => {
                if let ParticipantRecord::Ended { report } = &entry.record {
                    let found_open = report.outcome == Outcome::Unchanged;
                    self.opened |= found_open && state.is_some_and(|s| opens(s, &report.step));
                }
            }
            WorldEvent::Attested {
                agent,
                step,
                breach,
            } => {
                let key = (step.clone(), agent.clone());
                self.answers.insert(key, (now, breach.clone()));
            }
            WorldEvent::Host { .. }
            | WorldEvent::Acknowledged { .. }
            | WorldEvent::Admitted { .. }
            | WorldEvent::Clean { .. }
            | WorldEvent::JournalLost { .. } => {}
            // Later records are inconsistent with the earlier ones.
            WorldEvent::CoordinatorRestored => *self = Self::default(),
        }
    }

    fn take_decision(&mut self, seq: u64, record: &Record, state: &State) {
        match record {
            Record::Released { phase, .. } => {
                for key in round(state, *phase) {
                    self.unclear.remove(&key);
                    self.open.insert(key.clone());
                    self.released.insert(key, seq);
                }
            }
            Record::TaskEnded { agent, report, .. }
            | Record::Contradicted { agent, report, .. } => {
                let key = (report.step.clone(), agent.clone());
                self.open.remove(&key);
                if report.outcome.is_unclear() {
                    self.unclear.insert(key);
                } else {
                    self.unclear.remove(&key);
                }
            }
            Record::UnknownResolved { agent, step, .. } | Record::Waived { agent, step, .. } => {
                let key = (step.clone(), agent.clone());
                self.open.remove(&key);
                self.unclear.remove(&key);
            }
            Record::JournalLost { agent, .. } => {
                let lost = self.open.iter().filter(|(_, owner)| owner == agent);
                let lost: Vec<TaskKey> = lost.cloned().collect();
                for key in lost {
                    self.open.remove(&key);
                    self.unclear.insert(key);
                }
            }
            Record::Breached { step, .. } => {
                self.breached.insert(step.clone(), seq);
            }
            _ => {}
        }
    }

    /// Access was opened, or it can't be ruled out: then nothing is proved again.
    fn may_have_opened(&self, state: &State) -> bool {
        let unknown = |key: &TaskKey| {
            let waived = state.outstanding_undos.iter();
            let mut waived = waived.map(|undo| (&undo.step, &undo.agent));
            self.unclear.contains(key)
                || self.open.contains(key)
                || waived.any(|undo| undo == (&key.0, &key.1))
        };
        let mut tasks = state.tasks.keys().filter(|key| opens(state, &key.0));
        self.opened || tasks.any(unknown)
    }
}

fn opens(state: &State, step: &StepId) -> bool {
    state.step(step).is_some_and(|(at, spec)| {
        at.track == Track::Forward
            && !spec.read_only
            && state.spec(at).is_some_and(|phase| phase.point_of_no_return)
    })
}

fn round(state: &State, phase: PhaseRef) -> BTreeSet<TaskKey> {
    let tasks = state.phase(phase).map(|phase| &phase.tasks);
    let tasks = tasks.into_iter().flatten();
    tasks
        .flat_map(|(agent, steps)| steps.iter().map(|step| (step.clone(), agent.clone())))
        .collect()
}

/// A forward release, with the state before it.
fn forward_release<'a>(world: &'a World, event: &WorldEvent) -> Option<(&'a State, PhaseRef)> {
    let (WorldEvent::Decided(entry), Some(state)) = (event, &world.state) else {
        return None;
    };
    match &entry.record {
        Record::Released { phase, .. } if phase.track == Track::Forward => Some((state, *phase)),
        _ => None,
    }
}

/// Nothing is released on a proof that began before a breach, whether it ended
/// before the breach or after it, until access is open.
pub fn proofs_are_later_than_breaches(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let Some((state, phase)) = forward_release(world, event) else {
        return Ok(());
    };
    if world.proofs.may_have_opened(state) {
        return Ok(());
    }
    let again = round(state, phase);
    for (watch, breach) in &world.proofs.breached {
        let since = state.step(watch).map_or(0, |(at, _)| at.index);
        for (key, task) in &state.tasks {
            let spec = state.step(&key.0).map(|(_, spec)| spec);
            let proves = spec.is_some_and(|spec| spec.proof) || key.0 == *watch;
            let relied_on = task.phase.track == Track::Forward
                && (since..=phase.index).contains(&task.phase.index)
                && !again.contains(key);
            let began = world.proofs.released.get(key);
            if proves && relied_on && began.is_some_and(|began| began < breach) {
                return Err(format!(
                    "{phase} was released on {} of {}, which began before a breach of {watch}",
                    key.0, key.1
                ));
            }
        }
    }
    Ok(())
}

/// Between the phase that arms a watch and the one that ends it, nothing is released
/// unless the watch is armed, until access is open.
pub fn guards_are_armed(world: &World, _now: Millis, event: &WorldEvent) -> Result<(), String> {
    let Some((state, phase)) = forward_release(world, event) else {
        return Ok(());
    };
    if world.proofs.may_have_opened(state) {
        return Ok(());
    }
    for (key, task) in &state.tasks {
        let spec = state.step(&key.0).map(|(_, spec)| spec);
        let until = spec
            .filter(|spec| spec.is_watch())
            .and_then(|spec| spec.watch_until);
        let due = until.is_some_and(|until| (task.phase.index + 1..until).contains(&phase.index));
        if due && !world.armed.contains(key) {
            return Err(format!(
                "{phase} was released while {} on {} was not armed",
                key.0, key.1
            ));
        }
    }
    Ok(())
}

/// Nothing is released over an attestation that is missing, old, or carries a
/// breach. Once access is open, a breach that is listed has held the run before.
pub fn attested_without_a_breach(
    world: &World,
    now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let Some((state, phase)) = forward_release(world, event) else {
        return Ok(());
    };
    let opened = world.proofs.may_have_opened(state);
    for (step, agent) in state.attesting_watches() {
        let answer = world.proofs.answers.get(&(step.clone(), agent.clone()));
        let listed = |detail: &String| opened && is_listed(state, step, agent, detail);
        let good = answer.is_some_and(|(at, breach)| {
            at.saturating_add(ATTESTATION_MAX_AGE) >= now && breach.as_ref().is_none_or(listed)
        });
        if !good {
            return Err(format!(
                "{phase} was released on this answer of {step} on {agent}: {answer:?}"
            ));
        }
    }
    Ok(())
}

fn is_listed(state: &State, step: &StepId, agent: &AgentName, detail: &str) -> bool {
    let mut breaches = state.breaches.iter();
    breaches.any(|known| known.step == *step && known.agent == *agent && known.detail == detail)
}

/// Nothing rolls back by itself while it is unknown what a task has done.
pub fn no_automatic_rollback_while_unknown(
    world: &World,
    _now: Millis,
    event: &WorldEvent,
) -> Result<(), String> {
    let WorldEvent::Decided(entry) = event else {
        return Ok(());
    };
    let automatic = match &entry.record {
        Record::RollbackDecided { cause } => match cause {
            RollbackCause::Policy { .. } | RollbackCause::Budget { .. } => true,
            RollbackCause::Operator { .. } => false,
        },
        _ => false,
    };
    match world.proofs.unclear.iter().next() {
        Some((step, agent)) if automatic => Err(format!(
            "rolls back by itself while {step} on {agent} is unknown"
        )),
        _ => Ok(()),
    }
}
