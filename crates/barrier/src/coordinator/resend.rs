//! Order headers, take-over, and resending of orders when an agent connects.

use super::state::{PhaseStatus, TaskKey, TaskState};
use super::{Effect, Run};
use crate::ids::{AgentName, Header, Millis, PhaseRef, Track};
use crate::message::{AgentState, Order, Verdict};
use crate::record::Record;
use std::collections::BTreeSet;

impl Run {
    /// Header of every order about a phase, with the run's last decision (R1).
    pub(super) fn header(&self, phase: PhaseRef) -> Option<Header> {
        Some(Header {
            run: self.state.begin.run.clone(),
            phase,
            attempt: self.state.phase(phase)?.attempt,
            term: self.state.term,
            decision: self.state.decision,
            digest: self.state.begin.resolved_plan.digest.clone(),
        })
    }

    pub(super) fn connected(
        &mut self,
        now: Millis,
        agent_state: &AgentState,
        effects: &mut Vec<Effect>,
    ) {
        let agent = &agent_state.agent;
        if !self.state.begin.members.contains_key(agent) {
            return;
        }
        if let Some(reason) = self.is_foreign(agent_state) {
            self.live.fenced = Some(reason);
            return;
        }
        let journal = &agent_state.journal;
        if self.state.journal_of(agent) != Some(journal) {
            self.journal_lost(agent, Some(journal.clone()), effects);
        }
        self.live.connected.insert(agent.clone());
        if self.live.fenced.is_some() {
            return;
        }
        if self.is_locked_here(agent_state) {
            self.apply_outage_age(now, agent_state);
            self.apply_release_age(now, agent_state);
        }
        self.record_contact(now, agent);
        if self.is_locked_here(agent_state) {
            self.live.unlocked.remove(agent);
        } else {
            self.live.unlocked.insert(agent.clone());
        }
        self.live.close_sent.remove(agent);
        if self.is_locked_here(agent_state) && self.state.closed_by.contains(agent) {
            // Its journal was restored from before the end. Nobody stays locked to a
            // run that is over (R19).
            self.send(agent, self.close_order(), effects);
            return;
        }
        self.resend_late_undo(now, agent, effects);
        self.send_unanswered(now, agent, effects);
    }

    /// A member has followed another coordinator since the run began: no more
    /// decisions until a take-over (R11). The evidence, in a sentence.
    pub fn fence(&mut self, reason: String) {
        self.live.fenced.get_or_insert(reason);
    }

    /// An operator has confirmed that the other coordinator is stopped permanently.
    /// Decisions are numbered above the highest one that the agent has accepted.
    /// The other coordinator's decisions are not in this journal, so the run can
    /// only be aborted (R11).
    pub(super) fn take_over(&mut self, agent_state: &AgentState, effects: &mut Vec<Effect>) {
        if !self.state.begin.members.contains_key(&agent_state.agent) {
            return;
        }
        let here = self.is_locked_here(agent_state);
        let record = Record::TookOver {
            agent: agent_state.agent.clone(),
            term: agent_state.term,
            decision: if here { agent_state.decision } else { 0 },
        };
        self.persist(record, effects);
        self.live.attesting = None;
        self.live.disarming_since = None;
        // A term that is not lower remains foreign until this coordinator has a
        // higher one, even though it was taken over.
        self.live.fenced = self.is_foreign(agent_state);
    }

    fn is_locked_here(&self, agent_state: &AgentState) -> bool {
        agent_state.run.as_ref() == Some(&self.state.begin.run)
    }

    /// Whether the agent has accepted a term or decision that is not from this
    /// coordinator, so that another one leads, or led, this run (R11). Returns
    /// the evidence.
    pub fn is_foreign(&self, agent_state: &AgentState) -> Option<String> {
        let (theirs, ours) = (agent_state.term, self.state.term);
        let foreign_term = theirs.number > ours.number
            || (theirs.number == ours.number && theirs.incarnation != ours.incarnation);
        if foreign_term {
            return Some(format!(
                "agent {} has accepted term {} ({:x}), which is not lower than ours, {} ({:x})",
                agent_state.agent, theirs.number, theirs.incarnation, ours.number, ours.incarnation
            ));
        }
        if !self.is_locked_here(agent_state) || agent_state.decision == 0 {
            return None;
        }
        // An agent that is locked to a run has its term and decision from one
        // order of that run. Restarts raise both here, so the test is whether
        // this journal contains that decision of that term.
        let known = self.state.terms.get(&theirs).copied();
        (known.is_none_or(|last| agent_state.decision > last)).then(|| {
            let known = known.map_or("nothing".to_owned(), |last| format!("up to {last}"));
            format!(
                "agent {} has accepted decision {} of term {} ({:x}) in this run; of that term its \
                 journal here knows {known}",
                agent_state.agent, agent_state.decision, theirs.number, theirs.incarnation
            )
        })
    }

    /// After a restart, the time of an agent's tasks counts from its own report of the
    /// release's age (R13). The report may be about an attempt or a phase that the
    /// run continued without, which says nothing about the current release.
    fn apply_release_age(&mut self, now: Millis, agent_state: &AgentState) {
        let Some(release) = agent_state.release_age else {
            return;
        };
        let current = self.state.current() == Some(release.phase)
            && self.state.phase(release.phase).is_some_and(|phase| {
                phase.status == PhaseStatus::Released && phase.attempt == release.attempt
            });
        if !current {
            return;
        }
        let began = now.saturating_sub(release.age);
        self.live
            .reported_releases
            .insert(agent_state.agent.clone(), began);
    }

    /// The write outage is at least as old as any release that an agent received
    /// during it. So the time at gates, in holds and while this coordinator was
    /// down counts, as long as one of those agents' machines has not been
    /// rebooted since (R13).
    fn apply_outage_age(&mut self, now: Millis, agent_state: &AgentState) {
        let Some(outage) = &self.state.begin.resolved_plan.outage else {
            return;
        };
        let inside =
            |phase: &PhaseRef| phase.track == Track::Forward && phase.index >= outage.starts_with;
        let ages = agent_state.release_ages.iter();
        let oldest = ages
            .filter(|(phase, _)| inside(phase))
            .map(|(_, age)| age)
            .max();
        let (true, Some(age)) = (self.outage_has_begun(), oldest) else {
            return;
        };
        let began = now.saturating_sub(*age);
        let known = self.live.outage_began;
        self.live.outage_began = Some(known.map_or(began, |since| since.min(began)));
    }

    fn send_unanswered(&mut self, now: Millis, agent: &AgentName, effects: &mut Vec<Effect>) {
        if !self.state.decisions_lost.is_empty() {
            return;
        }
        if self.state.ended.is_some() {
            // Close follows when the agent has nothing left to do.
            if self.is_owed_by(agent) && !self.state.closed_by.contains(agent) {
                self.send_open(agent, effects);
            }
            return;
        }
        self.send_open(agent, effects);
        let disarm: BTreeSet<TaskKey> = self.to_disarm();
        let Some(phase) = self.state.current() else {
            return;
        };
        let own = disarm.into_iter().filter(|(_, owner)| owner == agent);
        let steps: Vec<_> = own.map(|(step, _)| step).collect();
        if let (false, Some(header)) = (steps.is_empty(), self.header(phase)) {
            self.send(agent, Order::Disarm { header, steps }, effects);
        }
        let Some(state) = self.state.phase(phase) else {
            return;
        };
        if state.status != PhaseStatus::Preparing || state.revoked {
            return;
        }
        if state.tasks.contains_key(agent) && !self.vote_is_too_old(now, phase, agent) {
            // It may have restarted, which voids its promise. Its vote is valid
            // again once repeated, within the time of a new round.
            if self.live.votes.remove(agent).is_some() {
                self.live.round_began = self.live.round_began.max(now);
            }
            self.send_prepare(now, phase, agent, effects);
        }
        if let Some(attesting) = &self.live.attesting {
            let nonce = attesting.nonce;
            let watches = self.state.watches.keys();
            let own: Vec<_> = watches.filter(|(_, owner)| owner == agent).collect();
            for (step, _) in own {
                self.send_attest(phase, agent, step, nonce, effects);
            }
        }
    }

    /// The agent has voted ready, and so long ago that no release can rest on
    /// it: the round waits for a gate or a pause, behind which everyone is
    /// asked again (R13). Coming back meanwhile changes nothing.
    fn vote_is_too_old(&self, now: Millis, phase: PhaseRef, agent: &AgentName) -> bool {
        let ready = self
            .live
            .votes
            .get(agent)
            .is_some_and(|vote| matches!(vote.verdict, Verdict::Ready { .. }));
        let spec = self.state.spec(phase);
        ready && spec.is_some_and(|spec| self.margin_is_used_up(now, spec))
    }

    /// Releases without outcomes; revoked ones as a Revoke, which the agent
    /// answers with what it has. So are attempts that the run continued without:
    /// the agent may be working on them, and must start nothing more (R2, R18).
    fn send_open(&self, agent: &AgentName, effects: &mut Vec<Effect>) {
        let own = |((_, owner), _): &(&TaskKey, &TaskState)| owner == agent;
        let attempt = |(_, task): (&TaskKey, &TaskState)| (task.phase, task.attempt);
        let open: BTreeSet<(PhaseRef, u32)> =
            self.state.open_tasks().filter(own).map(attempt).collect();
        let passed: BTreeSet<(PhaseRef, u32)> = self
            .state
            .unreported_tasks()
            .filter(own)
            .map(attempt)
            .collect();
        for (phase, attempt) in &passed {
            if let Some(order) = self.revoke_order(*phase, *attempt) {
                self.send(agent, order, effects);
            }
        }
        for (phase, attempt) in open.difference(&passed) {
            let revoked = self.state.phase(*phase).is_some_and(|p| p.revoked);
            let order = if revoked {
                self.revoke_order(*phase, *attempt)
            } else {
                self.release_order(*phase, agent)
            };
            if let Some(order) = order {
                self.send(agent, order, effects);
            }
        }
    }

    pub(super) fn send_prepare(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        agent: &AgentName,
        effects: &mut Vec<Effect>,
    ) {
        let (Some(header), Some(spec), Some(state)) = (
            self.header(phase),
            self.state.spec(phase),
            self.state.phase(phase),
        ) else {
            return;
        };
        let steps = state.tasks.get(agent).map_or(&[][..], Vec::as_slice);
        let order = Order::Prepare {
            header,
            tasks: steps.iter().filter_map(|s| self.task_order(s)).collect(),
            start_by: spec.start_by,
            finish_by: spec.finish_by,
            provisional: false,
        };
        if self.live.connected.contains(agent) {
            // From before sending, and from the first time: what the agent
            // counts from can only be later (R12).
            self.live.sent.entry(agent.clone()).or_insert(now);
        }
        self.send(agent, order, effects);
    }

    /// Revokes the current attempt of a phase at everyone who takes part.
    pub(super) fn send_revoke(&self, phase: PhaseRef, effects: &mut Vec<Effect>) {
        let Some(state) = self.state.phase(phase) else {
            return;
        };
        for agent in state.tasks.keys() {
            if let Some(order) = self.revoke_order(phase, state.attempt) {
                self.send(agent, order, effects);
            }
        }
    }

    fn revoke_order(&self, phase: PhaseRef, attempt: u32) -> Option<Order> {
        let header = self.header(phase)?;
        Some(Order::Revoke {
            header: Header { attempt, ..header },
            cancel_read_only: self.state.rollback.is_some() || self.state.abort.is_some(),
        })
    }

    pub(super) fn close_order(&self) -> Order {
        Order::Close {
            run: self.state.begin.run.clone(),
            term: self.state.term,
            decision: self.state.decision,
        }
    }
}
