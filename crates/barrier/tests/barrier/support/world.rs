//! Everything that became durable or changed a host, on any machine, in its order.
//!
//! The transcripts and the property test pass every effect to [`World::observe`],
//! which checks it against the invariants. The product can't check these at run
//! time, because no process has all of this information.

use super::invariants::INVARIANTS;
use super::proofs::Proofs;
use lockstep_barrier::coordinator::{self, State, TaskKey, TaskStatus};
use lockstep_barrier::ids::{AgentName, Decision, Digest, Millis, PhaseRef, StepId, Term, Track};
use lockstep_barrier::message::{Mode, Outcome, TaskReport};
use lockstep_barrier::participant;
use lockstep_barrier::record::{ParticipantRecord, Record};
use std::collections::{BTreeMap, BTreeSet};
use std::hash::{Hash, Hasher};
use std::ops::Deref;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq)]
pub enum WorldEvent {
    /// The coordinator's record is durable.
    Decided(coordinator::Entry),
    /// An agent's record is durable.
    Recorded {
        agent: AgentName,
        entry: participant::Entry,
    },
    /// A driver began to change a host.
    Started {
        agent: AgentName,
        phase: PhaseRef,
        attempt: u32,
        step: StepId,
        mode: Mode,
    },
    /// A host is, or is no longer, as a forward step leaves it.
    Host {
        agent: AgentName,
        step: StepId,
        changed: bool,
    },
    /// The coordinator acknowledged an outcome.
    Acknowledged {
        agent: AgentName,
        phase: PhaseRef,
        attempt: u32,
        step: StepId,
    },
    /// A watch attested without a breach.
    Clean { agent: AgentName, step: StepId },
    /// An agent answered for a watch; `breach` as the coordinator receives it.
    Attested {
        agent: AgentName,
        step: StepId,
        breach: Option<String>,
    },
    /// The coordinator's journal was replaced by an older one. Its later records
    /// are inconsistent with the earlier ones and are not folded.
    CoordinatorRestored,
    /// The coordinator has received what the agent reports at the start of a session.
    Admitted { agent: AgentName },
    /// An agent's disk is lost; its host is not.
    JournalLost { agent: AgentName },
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("invariant {invariant} is broken: {detail}")]
pub struct Violation {
    pub invariant: &'static str,
    pub detail: String,
}

/// The parts of a promise that the invariants need.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(super) struct Promised {
    pub(super) at: Millis,
    pub(super) term: Term,
    pub(super) released: bool,
    pub(super) tombstoned: bool,
}

/// The fold of the coordinator's journal, shared by copies until it changes. It adds
/// nothing to the hash of a simulation, of which the coordinator is a part.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Folded(Arc<State>);

impl Hash for Folded {
    fn hash<H: Hasher>(&self, _hasher: &mut H) {}
}

impl Deref for Folded {
    type Target = State;

    fn deref(&self) -> &State {
        &self.0
    }
}

/// Everything that has become durable or changed a host.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct World {
    /// None once a backup was restored.
    pub(super) state: Option<Folded>,
    pub(super) promises: BTreeMap<(AgentName, PhaseRef, u32), Promised>,
    pub(super) accepted: BTreeMap<AgentName, (Term, Decision)>,
    pub(super) started: BTreeSet<(AgentName, StepId, u32)>,
    /// Started and not ended, by agent.
    pub(super) running: BTreeMap<AgentName, (PhaseRef, StepId)>,
    pub(super) done: BTreeSet<TaskKey>,
    pub(super) ended: BTreeMap<(AgentName, StepId, u32), Outcome>,
    pub(super) armed: BTreeSet<TaskKey>,
    pub(super) clean: BTreeMap<TaskKey, Millis>,
    pub(super) changed: BTreeSet<TaskKey>,
    pub(super) lost: BTreeSet<AgentName>,
    pub(super) proofs: Proofs,
    /// Attempts of tasks that the coordinator released.
    pub(super) released: BTreeSet<(AgentName, StepId, u32)>,
    /// Attempts of tasks whose outcome the coordinator's journal holds.
    pub(super) recorded: BTreeSet<(AgentName, StepId, u32)>,
    /// Released attempts without a recorded outcome whose agent lost its journal.
    pub(super) forgotten: BTreeSet<(AgentName, StepId, u32)>,
    pub(super) intents: BTreeSet<(AgentName, StepId, u32)>,
    /// The time limit of an agent's last promise of a phase.
    pub(super) finish_by: BTreeMap<(AgentName, PhaseRef), Millis>,
    /// When an agent cancels its tasks of a phase.
    pub(super) deadlines: BTreeMap<(AgentName, PhaseRef), Millis>,
}

impl Default for World {
    fn default() -> Self {
        Self::new()
    }
}

impl World {
    pub fn new() -> Self {
        Self {
            state: None,
            promises: BTreeMap::new(),
            accepted: BTreeMap::new(),
            started: BTreeSet::new(),
            running: BTreeMap::new(),
            done: BTreeSet::new(),
            ended: BTreeMap::new(),
            armed: BTreeSet::new(),
            clean: BTreeMap::new(),
            changed: BTreeSet::new(),
            lost: BTreeSet::new(),
            proofs: Proofs::default(),
            released: BTreeSet::new(),
            recorded: BTreeSet::new(),
            forgotten: BTreeSet::new(),
            intents: BTreeSet::new(),
            finish_by: BTreeMap::new(),
            deadlines: BTreeMap::new(),
        }
    }

    /// Checks an event against every invariant, then folds it.
    ///
    /// # Errors
    /// The first invariant that it violates.
    pub fn observe(&mut self, now: Millis, event: &WorldEvent) -> Result<(), Violation> {
        for &(invariant, check) in INVARIANTS {
            check(self, now, event).map_err(|detail| Violation { invariant, detail })?;
        }
        self.proofs.take(now, event, self.state.as_deref());
        self.take(now, event);
        Ok(())
    }

    /// Forward steps that are in effect, according to the hosts.
    pub fn changed(&self) -> &BTreeSet<TaskKey> {
        &self.changed
    }

    fn take(&mut self, now: Millis, event: &WorldEvent) {
        match event {
            WorldEvent::Decided(entry) => self.take_decision(entry),
            WorldEvent::Recorded { agent, entry } => self.take_record(now, agent, &entry.record),
            WorldEvent::Started {
                agent,
                phase,
                attempt,
                step,
                ..
            } => {
                self.started.insert((agent.clone(), step.clone(), *attempt));
                self.running.insert(agent.clone(), (*phase, step.clone()));
            }
            WorldEvent::Host {
                agent,
                step,
                changed,
            } => {
                let key = (step.clone(), agent.clone());
                if *changed {
                    self.changed.insert(key);
                } else {
                    self.changed.remove(&key);
                }
            }
            // No invariant depends on an earlier one.
            WorldEvent::Acknowledged { .. } | WorldEvent::Admitted { .. } => {}
            WorldEvent::Clean { agent, step } => {
                self.clean.insert((step.clone(), agent.clone()), now);
            }
            WorldEvent::Attested { .. } => {}
            WorldEvent::CoordinatorRestored => self.state = None,
            WorldEvent::JournalLost { agent } => {
                let released = self.released.iter();
                let forgotten = released
                    .filter(|key| key.0 == *agent && !self.recorded.contains(*key))
                    .cloned();
                self.forgotten.extend(forgotten);
                self.lost.insert(agent.clone());
                self.running.remove(agent);
                self.armed.retain(|(_, whose)| whose != agent);
                // What it had proved or watched, and not reported, is run again.
                let state = self.state.as_ref();
                let proves = |step: &StepId| {
                    let spec = state.and_then(|state| state.step(step));
                    spec.is_some_and(|(_, spec)| spec.proves())
                };
                self.done
                    .retain(|(step, owner)| owner != agent || !proves(step));
            }
        }
    }

    fn take_decision(&mut self, entry: &coordinator::Entry) {
        match &entry.record {
            Record::Released { phase, attempt, .. } => {
                let tasks = self.state.as_ref().and_then(|state| state.phase(*phase));
                for (agent, steps) in tasks.into_iter().flat_map(|phase| &phase.tasks) {
                    let keys = steps.iter().map(|s| (agent.clone(), s.clone(), *attempt));
                    self.released.extend(keys);
                }
            }
            Record::LateUndoReleased { agent, attempt, .. } => {
                let late = self.state.as_ref().and_then(|s| s.late_undos.get(agent));
                for step in late.into_iter().flat_map(|late| &late.steps) {
                    self.released
                        .insert((agent.clone(), step.clone(), *attempt));
                }
            }
            Record::TaskEnded { agent, report, .. }
            | Record::Contradicted { agent, report, .. } => {
                let key = (agent.clone(), report.step.clone(), report.attempt);
                self.recorded.insert(key);
            }
            _ => {}
        }
        match &mut self.state {
            Some(state) => Arc::make_mut(&mut state.0).apply(entry),
            // After a restored backup the entries don't begin a journal, and
            // the run is not folded any more.
            None => {
                self.state = State::fold([entry.clone()])
                    .ok()
                    .map(|s| Folded(Arc::new(s)))
            }
        }
        if let Some(state) = &self.state {
            let voided = |key: &TaskKey| {
                state
                    .tasks
                    .get(key)
                    .is_some_and(|task| task.status == TaskStatus::Voided)
            };
            self.done.retain(|key| !voided(key));
        }
    }

    fn take_record(&mut self, now: Millis, agent: &AgentName, record: &ParticipantRecord) {
        match record {
            ParticipantRecord::Accepted { term, decision, .. } => {
                self.accepted.insert(agent.clone(), (*term, *decision));
            }
            ParticipantRecord::Promised {
                phase,
                attempt,
                finish_by,
                ..
            } => {
                self.finish_by.insert((agent.clone(), *phase), *finish_by);
                let term = self
                    .accepted
                    .get(agent)
                    .map_or(Term::default(), |(t, _)| *t);
                let promised = Promised {
                    at: now,
                    term,
                    released: false,
                    tombstoned: false,
                };
                self.promises
                    .insert((agent.clone(), *phase, *attempt), promised);
            }
            ParticipantRecord::Tombstoned { phase, attempt, .. } => {
                if let Some(promise) = self.promises.get_mut(&(agent.clone(), *phase, *attempt)) {
                    promise.tombstoned = true;
                }
            }
            ParticipantRecord::ForwardClosed { .. } => {
                for ((whose, phase, _), promise) in &mut self.promises {
                    if whose == agent && phase.track == Track::Forward && !promise.released {
                        promise.tombstoned = true;
                    }
                }
            }
            ParticipantRecord::Released {
                phase, attempt, at, ..
            } => {
                let finish_by = self.finish_by.get(&(agent.clone(), *phase));
                let deadline = finish_by.map_or(Millis::MAX, |finish_by| at.at + finish_by);
                self.deadlines.insert((agent.clone(), *phase), deadline);
                if let Some(promise) = self.promises.get_mut(&(agent.clone(), *phase, *attempt)) {
                    promise.released = true;
                }
            }
            ParticipantRecord::Ended { report } => self.take_end(agent, report),
            ParticipantRecord::Intent { attempt, step, .. } => {
                self.intents.insert((agent.clone(), step.clone(), *attempt));
            }
            ParticipantRecord::WatchArmed { task, .. } => {
                self.armed.insert((task.step.clone(), agent.clone()));
            }
            ParticipantRecord::Disarmed { steps, .. } => {
                for step in steps {
                    self.armed.remove(&(step.clone(), agent.clone()));
                }
            }
            ParticipantRecord::Closed { .. } => {
                self.armed.retain(|(_, whose)| whose != agent);
            }
            // No invariant depends on these.
            ParticipantRecord::Opened { .. }
            | ParticipantRecord::Refused { .. }
            | ParticipantRecord::Changed { .. }
            | ParticipantRecord::Acked { .. }
            | ParticipantRecord::WatchBroke { .. } => {}
        }
    }

    fn take_end(&mut self, agent: &AgentName, report: &TaskReport) {
        if report.outcome.is_good() {
            self.done.insert((report.step.clone(), agent.clone()));
        }
        let running = self.running.get(agent);
        if running.is_some_and(|(_, step)| *step == report.step) {
            self.running.remove(agent);
        }
        let key = (agent.clone(), report.step.clone(), report.attempt);
        self.ended.insert(key, report.outcome.clone());
    }

    pub(super) fn digest(&self) -> Option<&Digest> {
        self.state
            .as_ref()
            .map(|state| &state.begin.resolved_plan.digest)
    }

    /// The run continues although the task's effect is unknown, and records that.
    pub(super) fn is_passed(&self, key: &TaskKey) -> bool {
        let Some(state) = &self.state else {
            return false;
        };
        let status = state.tasks.get(key).map(|task| &task.status);
        matches!(
            status,
            Some(TaskStatus::Waived | TaskStatus::UndoOutstanding)
        ) || state.journals_lost.contains(&key.1)
            || self.lost.contains(&key.1)
    }
}
