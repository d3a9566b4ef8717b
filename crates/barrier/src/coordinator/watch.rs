//! Watches: attestation and disarming before a release (R16, R17), and breaches.

use super::state::{TaskKey, task_key};
use super::{ATTESTATION_MAX_AGE, Attesting, Effect, MAX_BREACHES, Run};
use crate::ids::{AgentName, Millis, PhaseRef, StepId, Track};
use crate::message::Order;
use crate::record::{Failure, Record};
use std::collections::{BTreeMap, BTreeSet};

impl Run {
    /// Releases a phase whose votes are ready, after the watches that end with it
    /// are disarmed and the remaining ones have attested.
    pub(super) fn clear_watches_and_release(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let ending = self.watches_ending(phase);
        if !ending.is_empty() {
            self.request_disarming(now, phase, &ending, effects);
            return false;
        }
        let remaining: BTreeSet<TaskKey> = match phase.track {
            Track::Forward => self.state.attesting_watches().cloned().collect(),
            Track::Rollback => BTreeSet::new(),
        };
        if remaining.is_empty() {
            return self.release(now, phase, effects);
        }
        let Some(attesting) = &self.live.attesting else {
            self.request_attestation(now, phase, &remaining, effects);
            return false;
        };
        let fresh = now <= attesting.requested_at.saturating_add(ATTESTATION_MAX_AGE);
        let silent: Vec<TaskKey> = remaining.difference(&attesting.answered).cloned().collect();
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

    /// Watches that end with the release of this phase.
    fn watches_ending(&self, phase: PhaseRef) -> BTreeSet<TaskKey> {
        let ends = |key: &&TaskKey| {
            let until = self.state.step(&key.0).and_then(|(_, s)| s.watch_until);
            phase.track == Track::Forward && until.is_some_and(|until| until <= phase.index)
        };
        self.state.watches.keys().filter(ends).cloned().collect()
    }

    /// Sends the order once; agents that connect later receive it then.
    pub(super) fn request_disarming(
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

    /// The watches that must be disarmed before the run continues.
    pub(super) fn to_disarm(&self) -> BTreeSet<TaskKey> {
        if self.live.disarming_since.is_none() {
            return BTreeSet::new();
        }
        match self.state.current() {
            Some(phase) if self.state.rollback.is_none() => self.watches_ending(phase),
            _ => self.state.watches.keys().cloned().collect(),
        }
    }

    fn request_attestation(
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
            requested_at: now,
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

    /// An attestation is valid only for the latest nonce; a breach is recorded in
    /// any case.
    pub(super) fn receive_attestation(
        &mut self,
        from: AgentName,
        step: StepId,
        nonce: u64,
        breach: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(detail) = breach {
            // A breach that an operator knows doesn't stop the run once access is
            // open: when it was recorded, it held the run until `resume`.
            let listed = self.is_listed(&task_key(&step, &from), &detail);
            self.receive_breach(from.clone(), step.clone(), detail, effects);
            if !listed || !self.state.past_no_return() {
                return;
            }
        }
        if let Some(attesting) = &mut self.live.attesting
            && attesting.nonce == nonce
        {
            attesting.answered.insert((step, from));
        }
    }

    /// The breach is recorded, or there are too many of them to record another one.
    fn is_listed(&self, watch: &TaskKey, detail: &String) -> bool {
        self.state.watches.get(watch).is_some_and(|watch| {
            watch.breaches.len() >= MAX_BREACHES || watch.breaches.contains(detail)
        })
    }

    /// Records a breach, once per watch and detail. A breach of a watch that is no
    /// longer armed is obsolete.
    pub(super) fn receive_breach(
        &mut self,
        agent: AgentName,
        step: StepId,
        detail: String,
        effects: &mut Vec<Effect>,
    ) {
        let key = task_key(&step, &agent);
        let new = self.state.watches.contains_key(&key) && !self.is_listed(&key, &detail);
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

    /// Records which of the armed watches were disarmed.
    pub(super) fn receive_disarmed(
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

    /// Watches that have neither attested nor been disarmed.
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
