//! Preparation of a phase: Prepare rounds, votes and the gate.

use super::state::{PhaseStatus, TaskKey, TaskStatus, task_key, undone_by};
use super::{ATTESTATION_MAX_AGE, Effect, MAX_REFUSALS, MAX_ROUNDS, RELEASE_MARGIN, Run, Vote};
use crate::ids::{AgentName, Millis, PhaseRef, StepId, Term, Track};
use crate::message::{Verdict, json_size};
use crate::record::{
    Failure, OutstandingUndo, OutstandingUndoCause, PrepareReason, Record, SkipCause,
};
use crate::resolved_plan::{Gate, PhaseSpec};
use lockstep_api::Diagnosis;
use std::collections::BTreeMap;

/// Time before Prepare is repeated to an agent that is busy with an earlier
/// attempt.
pub(super) const BUSY_PAUSE: Millis = 1_000;

impl Run {
    /// Begins a phase that is due, or skips it if it has no tasks.
    pub(super) fn begin_phase(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.state.paused.is_some() || !self.state.held.is_empty() {
            return false;
        }
        let due = self.due_tasks(phase);
        if self.exclude_agents_with_outstanding_undo(phase, &due, effects) {
            return true;
        }
        if !due.is_empty() {
            self.start_round(now, phase, PrepareReason::Due, due, effects);
            return true;
        }
        if let Some(failure) = self.pending_breach() {
            return self.fail(phase, failure, effects);
        }
        let was_released = self.state.phase(phase).is_some_and(|p| p.ever_released);
        let record = if was_released {
            Record::Completed { phase }
        } else {
            let why = SkipCause::NothingToDo;
            Record::Skipped { phase, why }
        };
        self.persist(record, effects);
        true
    }

    /// Tasks of a phase that wait for an attempt, by agent, in the plan's order.
    fn due_tasks(&self, phase: PhaseRef) -> BTreeMap<AgentName, Vec<StepId>> {
        let mut due: BTreeMap<AgentName, Vec<StepId>> = BTreeMap::new();
        let steps = self.state.spec(phase).map_or(&[][..], |spec| &spec.steps);
        for step in steps {
            for agent in &step.agents {
                let waiting = self
                    .state
                    .tasks
                    .get(&task_key(&step.id, agent))
                    .is_some_and(|task| task.status == TaskStatus::Waiting);
                if waiting && self.is_needed(phase, step, agent) {
                    due.entry(agent.clone()).or_default().push(step.id.clone());
                }
            }
        }
        due
    }

    /// An undo is needed where the forward task may have changed something (R7).
    /// Other rollback steps run on all their agents, if anything has changed at
    /// all.
    fn is_needed(
        &self,
        phase: PhaseRef,
        step: &crate::resolved_plan::StepSpec,
        agent: &AgentName,
    ) -> bool {
        match undone_by(step) {
            Some(of) => self
                .state
                .tasks
                .get(&task_key(of, agent))
                .is_some_and(super::TaskState::may_have_changed),
            None => {
                phase.track == Track::Forward
                    || self.state.rollback.as_ref().is_some_and(|r| r.needed)
            }
        }
    }

    /// An agent with an outstanding undo gets no later step of the rollback, so
    /// that undos keep the plan's order (R18).
    fn exclude_agents_with_outstanding_undo(
        &mut self,
        phase: PhaseRef,
        due: &BTreeMap<AgentName, Vec<StepId>>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if phase.track == Track::Forward {
            return false;
        }
        let excluded: Vec<AgentName> = due
            .keys()
            .filter(|agent| self.has_outstanding_undo(agent))
            .cloned()
            .collect();
        for agent in &excluded {
            self.record_outstanding_undo(
                agent,
                &due[agent],
                &OutstandingUndoCause::Unreachable,
                effects,
            );
        }
        !excluded.is_empty()
    }

    pub(super) fn has_outstanding_undo(&self, agent: &AgentName) -> bool {
        self.state
            .outstanding_undos
            .iter()
            .filter(|outstanding_undo| outstanding_undo.agent == *agent)
            .any(|outstanding_undo| match outstanding_undo.cause {
                OutstandingUndoCause::Unreachable => true,
                OutstandingUndoCause::Waived { .. }
                | OutstandingUndoCause::Skipped
                | OutstandingUndoCause::Aborted => false,
            })
    }

    /// Records steps of an agent as outstanding.
    pub(super) fn record_outstanding_undo(
        &mut self,
        agent: &AgentName,
        steps: &[StepId],
        cause: &OutstandingUndoCause,
        effects: &mut Vec<Effect>,
    ) {
        for step in steps {
            let outstanding_undo = OutstandingUndo {
                agent: agent.clone(),
                step: step.clone(),
                cause: cause.clone(),
            };
            self.persist(Record::UndoOutstanding { outstanding_undo }, effects);
        }
    }

    /// Begins a prepare round: a new attempt, which voids every earlier vote.
    pub(super) fn start_round(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        reason: PrepareReason,
        tasks: BTreeMap<AgentName, Vec<StepId>>,
        effects: &mut Vec<Effect>,
    ) {
        let attempt = self.state.phase(phase).map_or(1, |p| p.attempt + 1);
        let outage = self.outage_elapsed(now);
        let agents: Vec<AgentName> = tasks.keys().cloned().collect();
        self.persist(
            Record::Preparing {
                phase,
                attempt,
                reason,
                tasks,
                outage,
            },
            effects,
        );
        self.live.votes.clear();
        self.live.sent.clear();
        self.live.round_began = now;
        self.live.rounds = match reason {
            PrepareReason::Due => 1,
            PrepareReason::Lapsed | PrepareReason::Margin | PrepareReason::Term => {
                self.live.rounds + 1
            }
        };
        self.live.attesting = None;
        self.live.disarming_since = None;
        for agent in agents {
            self.send_prepare(now, phase, &agent, effects);
        }
    }

    /// Votes are valid in their own term only: after a restart a phase that was
    /// being prepared is prepared again (R9).
    pub(super) fn prepare_in_new_term(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let inapplicable = self.state.ended.is_some()
            || self.is_draining()
            || !self.state.decisions_lost.is_empty();
        let Some(phase) = self.state.current().filter(|_| !inapplicable) else {
            return;
        };
        let Some(state) = self.state.phase(phase) else {
            return;
        };
        if state.status == PhaseStatus::Preparing && !state.tasks.is_empty() {
            let tasks = state.tasks.clone();
            self.start_round(now, phase, PrepareReason::Term, tasks, effects);
        }
    }

    /// A vote is valid in its own term and attempt only (R9).
    pub(super) fn receive_vote(
        &mut self,
        now: Millis,
        from: AgentName,
        phase: PhaseRef,
        attempt: u32,
        (term, promise_age): (Term, Millis),
        verdict: Verdict,
    ) {
        let Some(state) = self.state.phase(phase) else {
            return;
        };
        let asked = self.state.current() == Some(phase)
            && state.status == PhaseStatus::Preparing
            && state.attempt == attempt
            && !state.revoked
            && term == self.state.term
            && state.tasks.contains_key(&from);
        let (true, Some(spec)) = (asked, self.state.spec(phase)) else {
            return;
        };
        let sent = self.live.sent.get(&from).copied().unwrap_or(now);
        let lapses = sent.saturating_add(spec.start_by);
        let age = match &verdict {
            Verdict::Ready { .. } => {
                self.live.unlocked.remove(&from);
                promise_age
            }
            Verdict::Refuse { .. } | Verdict::Lapsed | Verdict::Busy => 0,
        };
        let vote = Vote {
            verdict,
            lapses,
            promised: now.saturating_sub(age),
        };
        self.live.votes.insert(from, vote);
    }

    /// Evaluates a round: it fails, is repeated, waits, or is released.
    pub(super) fn evaluate_round(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if let Some(failure) = self.pending_breach() {
            return self.fail(phase, failure, effects);
        }
        if let Some(done) = self.evaluate_votes(now, phase, effects) {
            return done;
        }
        let Some(spec) = self.state.spec(phase) else {
            return false;
        };
        if !self.gate_is_open(phase, spec)
            || self.state.paused.is_some()
            || !self.state.held.is_empty()
        {
            self.wait_for_operator(now, phase);
            return false;
        }
        if self.margin_is_used_up(now, spec) {
            if let Some(watches) = self.watches_out_of_time(now, phase) {
                return self.fail(phase, Failure::Unattested { watches }, effects);
            }
            return self.repeat_round(now, phase, PrepareReason::Margin, effects);
        }
        self.clear_watches_and_release(now, phase, effects)
    }

    /// The breach for which the current phase has not failed yet. There is none in a
    /// rollback.
    pub(super) fn pending_breach(&self) -> Option<Failure> {
        let (agent, step, detail) = self.state.breach_pending.clone()?;
        Some(Failure::Breach {
            step,
            agent,
            detail,
        })
    }

    /// Every agent is ready, and the release waits for an operator: this round was
    /// successful, and watches are asked again when the operator has decided.
    fn wait_for_operator(&mut self, now: Millis, phase: PhaseRef) {
        let spec = self.state.spec(phase);
        if spec.is_some_and(|spec| !self.margin_is_used_up(now, spec)) {
            self.live.rounds = 0;
        }
        self.live.attesting = None;
        self.live.disarming_since = None;
    }

    /// The watches that have not answered, although they had the time for it before
    /// the votes became too old, in this round or in every one that is allowed.
    fn watches_out_of_time(&self, now: Millis, phase: PhaseRef) -> Option<Vec<TaskKey>> {
        let requested = self.live.attesting.as_ref().map(|a| a.requested_at);
        let asked = requested.or(self.live.disarming_since)?;
        let spec = self.state.spec(phase)?;
        let lifetime = spec.start_by.saturating_sub(release_margin(spec));
        let time = ATTESTATION_MAX_AGE.min(lifetime / 2);
        let had_time = now.saturating_sub(asked) >= time || self.live.rounds >= MAX_ROUNDS;
        let silent = self.silent_watches(phase);
        (had_time && !silent.is_empty()).then_some(silent)
    }

    /// `None` when every vote is ready.
    fn evaluate_votes(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> Option<bool> {
        let reasons: BTreeMap<AgentName, Vec<Diagnosis>> = self
            .live
            .votes
            .iter()
            .filter_map(|(agent, vote)| match &vote.verdict {
                Verdict::Refuse { reasons } => Some((agent.clone(), reasons.clone())),
                Verdict::Ready { .. } | Verdict::Lapsed | Verdict::Busy => None,
            })
            .collect();
        if !reasons.is_empty() {
            let reasons = bounded(reasons);
            return Some(self.fail(phase, Failure::Refused { reasons }, effects));
        }
        let voted = |verdict: &Verdict| self.live.votes.values().any(|v| v.verdict == *verdict);
        if voted(&Verdict::Lapsed) {
            return Some(self.repeat_round(now, phase, PrepareReason::Lapsed, effects));
        }
        let missing = self.missing_votes(phase);
        let busy = self.busy_agents();
        if missing.is_empty() && busy.is_empty() {
            // Every agent was removed from the round for an outstanding undo.
            let empty = self.state.phase(phase).is_none_or(|p| p.tasks.is_empty());
            if empty {
                self.persist(Record::Completed { phase }, effects);
                return Some(true);
            }
            return None;
        }
        let limit = self.state.spec(phase).map_or(0, |spec| spec.start_by);
        if now < self.live.round_began.saturating_add(limit) || self.in_grace(now) {
            return Some(self.ask_busy_again(now, phase, effects));
        }
        let late: Vec<AgentName> = missing.iter().chain(busy.keys()).cloned().collect();
        if phase.track == Track::Rollback && late.iter().all(|a| self.is_detachable(a)) {
            for agent in late {
                let steps = self.state.phase(phase)?.tasks.get(&agent)?.clone();
                self.record_outstanding_undo(
                    &agent,
                    &steps,
                    &OutstandingUndoCause::Unreachable,
                    effects,
                );
            }
            return Some(true);
        }
        if missing.is_empty() {
            let rounds = self.state.phase(phase)?.rounds;
            return Some(self.fail(phase, Failure::NoPromise { rounds }, effects));
        }
        Some(self.fail(phase, Failure::Silent { agents: missing }, effects))
    }

    /// Agents that have voted busy, with the time at which they are asked again.
    pub(super) fn busy_agents(&self) -> BTreeMap<AgentName, Millis> {
        let votes = self.live.votes.iter();
        votes
            .filter(|(_, vote)| vote.verdict == Verdict::Busy)
            .map(|(agent, vote)| (agent.clone(), vote.promised.saturating_add(BUSY_PAUSE)))
            .collect()
    }

    /// Repeats Prepare to agents that were busy with an earlier attempt. It is the same
    /// attempt for everybody: waiting for them doesn't use up the phase's rounds.
    fn ask_busy_again(&mut self, now: Millis, phase: PhaseRef, effects: &mut Vec<Effect>) -> bool {
        let due = self.busy_agents().into_iter().filter(|(_, at)| now >= *at);
        let due: Vec<AgentName> = due.map(|(agent, _)| agent).collect();
        for agent in &due {
            self.live.votes.remove(agent);
            self.send_prepare(now, phase, agent, effects);
        }
        !due.is_empty()
    }

    /// Agents of the round that have not voted.
    pub(super) fn missing_votes(&self, phase: PhaseRef) -> Vec<AgentName> {
        let tasks = self.state.phase(phase).map(|p| &p.tasks);
        tasks
            .into_iter()
            .flat_map(|tasks| tasks.keys())
            .filter(|agent| !self.live.votes.contains_key(*agent))
            .cloned()
            .collect()
    }

    /// Every agent of the round has voted ready.
    pub(super) fn all_ready(&self, phase: PhaseRef) -> bool {
        self.missing_votes(phase).is_empty()
            && self
                .live
                .votes
                .values()
                .all(|vote| matches!(vote.verdict, Verdict::Ready { .. }))
    }

    pub(super) fn is_detachable(&self, agent: &AgentName) -> bool {
        self.state.begin.resolved_plan.detachable.contains(agent)
    }

    pub(super) fn gate_is_open(&self, phase: PhaseRef, spec: &PhaseSpec) -> bool {
        spec.gate == Gate::None
            || self
                .state
                .phase(phase)
                .is_some_and(|p| p.gate_opened.is_some())
    }

    /// When the promises no longer last long enough for a release to arrive.
    pub(super) fn margin_ends(&self, spec: &PhaseSpec) -> Millis {
        let margin = release_margin(spec);
        self.live
            .votes
            .values()
            .map(|vote| vote.lapses.saturating_sub(margin))
            .min()
            .unwrap_or(Millis::MAX)
    }

    pub(super) fn margin_is_used_up(&self, now: Millis, spec: &PhaseSpec) -> bool {
        now >= self.margin_ends(spec)
    }

    fn repeat_round(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        reason: PrepareReason,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(state) = self.state.phase(phase) else {
            return false;
        };
        let (rounds, tasks) = (self.live.rounds, state.tasks.clone());
        if rounds >= MAX_ROUNDS {
            return self.fail(phase, Failure::NoPromise { rounds }, effects);
        }
        self.start_round(now, phase, reason, tasks, effects);
        true
    }

    /// The order for one task, as the plan has it.
    pub(super) fn task_order(&self, step: &StepId) -> Option<crate::message::TaskOrder> {
        let (_, spec) = self.state.step(step)?;
        Some(crate::message::TaskOrder {
            step: spec.id.clone(),
            action: spec.action.clone(),
            mode: spec.mode.clone(),
            params: spec.params.clone(),
            timeout: spec.timeout,
            read_only: spec.read_only,
            watch: spec.is_watch(),
        })
    }
}

fn release_margin(spec: &PhaseSpec) -> Millis {
    RELEASE_MARGIN.min(spec.start_by / 5)
}

/// Refusals within [`MAX_REFUSALS`]: an agent may send 1 MiB of them, and all of a
/// phase's agents are in one record.
fn bounded(
    mut reasons: BTreeMap<AgentName, Vec<Diagnosis>>,
) -> BTreeMap<AgentName, Vec<Diagnosis>> {
    /// Bytes of a description when the room is used up.
    const SHORT: usize = 100;
    let mut room = MAX_REFUSALS;
    for of_agent in reasons.values_mut() {
        let size = json_size(of_agent);
        if size <= room {
            room -= size;
            continue;
        }
        of_agent.truncate(1);
        for reason in of_agent {
            let end = reason.what.floor_char_boundary(SHORT);
            let what = format!("{}…", &reason.what[..end]);
            *reason = Diagnosis::new(reason.code, what);
        }
    }
    reasons
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::Code;

    #[test]
    fn refusals_of_a_large_fleet_fit_into_a_journal_entry() {
        let long = Diagnosis::new(Code::LS2103, "é".repeat(1 << 10)).remedy("x".repeat(900));
        let reasons = (0..10_000)
            .map(|number| (AgentName(format!("app-{number}")), vec![long.clone(); 4]))
            .collect();
        let reasons = bounded(reasons);
        assert_eq!(reasons.len(), 10_000);
        assert_eq!(reasons[&AgentName::from("app-0")][0], long, "in full");
        assert_eq!(reasons[&AgentName::from("app-9999")].len(), 1);
        let failure = Failure::Refused { reasons };
        let size = json_size(&failure);
        assert!(size < 7 << 19, "{size} bytes, and an entry holds 4 MiB");
    }
}
