//! Watches: attested and disarmed before a release (R16, R17), and what a
//! breach does.

use super::state::{TaskKey, task_key};
use super::{ATTESTATION_MAX_AGE, Attesting, Effect, MAX_BREACHES, Run};
use crate::ids::{AgentName, Millis, PhaseRef, StepId, Track};
use crate::message::Order;
use crate::record::{Failure, Record};
use std::collections::{BTreeMap, BTreeSet};

impl Run {
    /// What stands between ready votes and the release: watches that end here
    /// are disarmed, those that stand on attest.
    pub(super) fn clear_watches_and_release(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let ending = self.watches_ending(phase);
        if !ending.is_empty() {
            self.ask_to_disarm(now, phase, &ending, effects);
            return false;
        }
        let standing: BTreeSet<TaskKey> = match phase.track {
            Track::Forward => self.state.attesting_watches().cloned().collect(),
            Track::Rollback => BTreeSet::new(),
        };
        if standing.is_empty() {
            return self.release(now, phase, effects);
        }
        let Some(attesting) = &self.live.attesting else {
            self.ask_to_attest(now, phase, &standing, effects);
            return false;
        };
        let fresh = now <= attesting.asked.saturating_add(ATTESTATION_MAX_AGE);
        let silent: Vec<TaskKey> = standing.difference(&attesting.answered).cloned().collect();
        match (fresh, silent.is_empty()) {
            (true, true) => self.release(now, phase, effects),
            (true, false) => false,
            (false, true) => {
                self.live.attesting = None;
                true
            }
            (false, false) => self.fail(phase, Failure::Unattested { watches: silent }, effects),
        }
    }

    /// Watches whose end is the release of this phase.
    fn watches_ending(&self, phase: PhaseRef) -> BTreeSet<TaskKey> {
        let ends = |key: &&TaskKey| {
            let until = self.state.step(&key.0).and_then(|(_, s)| s.watch_until);
            phase.track == Track::Forward && until.is_some_and(|until| until <= phase.index)
        };
        self.state.watches.keys().filter(ends).cloned().collect()
    }

    /// Asks once; who connects later is asked then.
    pub(super) fn ask_to_disarm(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        watches: &BTreeSet<TaskKey>,
        effects: &mut Vec<Effect>,
    ) {
        if self.live.disarming_since.is_some() {
            return;
        }
        self.live.disarming_since = Some(now);
        for (agent, steps) in by_agent(watches) {
            if let Some(header) = self.header(phase) {
                self.send(&agent, Order::Disarm { header, steps }, effects);
            }
        }
    }

    /// The watches that must be disarmed before the run goes on.
    pub(super) fn to_disarm(&self) -> BTreeSet<TaskKey> {
        if self.live.disarming_since.is_none() {
            return BTreeSet::new();
        }
        match self.state.current() {
            Some(phase) if self.state.rollback.is_none() => self.watches_ending(phase),
            _ => self.state.watches.keys().cloned().collect(),
        }
    }

    fn ask_to_attest(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        watches: &BTreeSet<TaskKey>,
        effects: &mut Vec<Effect>,
    ) {
        self.live.nonces += 1;
        // Unique over restarts, because no two terms share a number.
        let nonce = (self.state.term.number << 32) | self.live.nonces;
        self.live.attesting = Some(Attesting {
            nonce,
            asked: now,
            answered: BTreeSet::new(),
        });
        for (step, agent) in watches {
            self.send_attest(phase, agent, step, nonce, effects);
        }
    }

    pub(super) fn send_attest(
        &self,
        phase: PhaseRef,
        agent: &AgentName,
        step: &StepId,
        nonce: u64,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(header) = self.header(phase) {
            let order = Order::Attest {
                header,
                step: step.clone(),
                nonce,
            };
            self.send(agent, order, effects);
        }
    }

    /// An attestation came in. Only the answer to the last question counts; a
    /// breach counts whenever it comes.
    pub(super) fn take_attestation(
        &mut self,
        from: AgentName,
        step: StepId,
        nonce: u64,
        breach: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(detail) = breach {
            self.take_breach(from.clone(), step.clone(), detail, effects);
            // Behind the point of no return a breach holds the run once, by
            // its record; after that the watch has said what there is to say.
            if !self.state.past_no_return() {
                return;
            }
        }
        if let Some(attesting) = &mut self.live.attesting
            && attesting.nonce == nonce
        {
            attesting.answered.insert((step, from));
        }
    }

    /// A breach came in; once per watch and finding. One that comes when the
    /// watch no longer stands is stale: whoever disarmed it opens the door.
    pub(super) fn take_breach(
        &mut self,
        agent: AgentName,
        step: StepId,
        detail: String,
        effects: &mut Vec<Effect>,
    ) {
        let key = task_key(&step, &agent);
        let new = self.state.watches.get(&key).is_some_and(|watch| {
            watch.breaches.len() < MAX_BREACHES && !watch.breaches.contains(&detail)
        });
        if new && self.state.ended.is_none() {
            self.persist(
                Record::Breached {
                    agent,
                    step,
                    detail,
                },
                effects,
            );
        }
    }

    /// Watches that were disarmed, as far as they were standing.
    pub(super) fn take_disarmed(
        &mut self,
        agent: AgentName,
        steps: Vec<StepId>,
        effects: &mut Vec<Effect>,
    ) {
        let steps: Vec<StepId> = steps
            .into_iter()
            .filter(|step| self.state.watches.contains_key(&task_key(step, &agent)))
            .collect();
        if !steps.is_empty() {
            self.persist(Record::Disarmed { agent, steps }, effects);
            if self.to_disarm().is_empty() {
                self.live.disarming_since = None;
            }
        }
    }

    /// Watches that have neither attested nor disarmed, for the failure.
    pub(super) fn silent_watches(&self, phase: PhaseRef) -> Vec<TaskKey> {
        let ending = self.watches_ending(phase);
        if !ending.is_empty() {
            return ending.into_iter().collect();
        }
        self.state
            .attesting_watches()
            .filter(|key| {
                let answered = self.live.attesting.as_ref().map(|a| &a.answered);
                !answered.is_some_and(|answered| answered.contains(*key))
            })
            .cloned()
            .collect()
    }
}

pub(super) fn by_agent(watches: &BTreeSet<TaskKey>) -> BTreeMap<AgentName, Vec<StepId>> {
    let mut by: BTreeMap<AgentName, Vec<StepId>> = BTreeMap::new();
    for (step, agent) in watches {
        by.entry(agent.clone()).or_default().push(step.clone());
    }
    by
}
