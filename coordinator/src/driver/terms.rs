//! Other coordinators, as agents report them: which runs they fence, and taking
//! over from them (R11).
//!
//! Only a member fences, and only its own runs. An agent that takes part in no
//! run here may have followed another coordinator for good reasons; it is not
//! chosen for a run as long as it wouldn't obey.

use super::Driver;
use crate::active_run::{Machine, RunEntry};
use crate::plans::RunDocument;
use crate::store::StoreError;
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::coordinator::{Event, Run};
use lockstep_barrier::ids::{RunId, Term};
use lockstep_barrier::message::{AgentState, Order};
use std::sync::Arc;

/// How far the numbers that an agent reports may lie above the coordinator's
/// own. Terms count starts of coordinators and decisions count records, so four
/// billion more is not the work of another coordinator. And after any number of
/// take-overs that an operator lives to see, the counters are not used up.
const PLAUSIBLE_LEAD: u64 = 1 << 32;

impl Driver {
    /// Why what the agent reports can't be true.
    pub(super) fn implausible(&self, state: &AgentState) -> Option<Diagnosis> {
        let run = state.run.as_ref().and_then(|run| self.runs.get(run));
        let decided = run.map(|entry| entry.state().decision);
        let above = |theirs: u64, ours: u64| theirs.saturating_sub(ours) > PLAUSIBLE_LEAD;
        let agent = &state.agent;
        let what = if above(state.term.number, self.term.number) {
            let (theirs, ours) = (state.term.number, self.term.number);
            format!("{agent} reports term {theirs}, and this coordinator leads term {ours}")
        } else if let Some(ours) = decided.filter(|ours| above(state.decision, *ours)) {
            let theirs = state.decision;
            format!("{agent} reports decision {theirs} of its run, which is at {ours} here")
        } else {
            return None;
        };
        let remedy = "examine that host, and revoke its certificate if it can't be trusted";
        Some(Diagnosis::new(Code::LS4211, what).remedy(remedy))
    }

    /// The agent has accepted a term that this coordinator has never led. A
    /// lower number than ours proves nothing: each start makes ours higher.
    pub(super) fn is_foreign(&self, state: &AgentState) -> bool {
        state.term != Term::default() && !self.terms.contains(&state.term)
    }

    /// The run the agent is locked to, if this journal doesn't hold it: the
    /// journal is older than the run, or another coordinator leads it.
    fn unknown_run<'a>(&self, state: &'a AgentState) -> Option<&'a RunId> {
        let run = state.run.as_ref();
        run.filter(|run| !self.runs.contains_key(run))
    }

    /// Informs the agent's runs of its new session.
    pub(super) fn connected(&mut self, state: &AgentState, foreign: bool) {
        let agent = &state.agent;
        if let Some(why) = self.follows_another(state) {
            tracing::warn!("{why}");
        }
        for run in self.runs_of(agent) {
            let later = self.order.last().filter(|later| **later != run).cloned();
            if let Some(by) = later {
                self.happen(&run, Event::Superseded { by });
            }
            if self.take_over {
                self.take_over_run(&run, state, foreign);
            } else {
                self.fence(&run, state);
            }
            if let Some(cell) = self.runs.get_mut(&run) {
                cell.connection(agent, true);
            }
            self.happen(&run, Event::Connected(state.clone()));
        }
    }

    /// Fences a run whose member has followed another coordinator since the run
    /// began.
    fn fence(&mut self, run: &RunId, state: &AgentState) {
        let Some(why) = self.another_leads(state) else {
            return;
        };
        let Some(cell) = self.runs.get_mut(run) else {
            return;
        };
        if cell.state().ended.is_some() || followed_before(cell, state) {
            return;
        }
        if let Some(machine) = cell.run() {
            tracing::error!(%run, "{why}");
            machine.fence(why.what);
        }
    }

    /// The evidence in an agent's hello that another coordinator leads, or that
    /// this journal is older than what the agent was ordered.
    fn another_leads(&self, state: &AgentState) -> Option<Diagnosis> {
        let agent = &state.agent;
        if self.is_foreign(state) {
            let what = format!(
                "{agent} has accepted term {} of another coordinator, and this one leads term {}",
                state.term.number, self.term.number
            );
            let remedy = "find the other one and stop it, then start this one with --take-over";
            return Some(Diagnosis::new(Code::LS4204, what).remedy(remedy));
        }
        // With --take-over it is closed instead.
        let run = self.unknown_run(state).filter(|_| !self.take_over)?;
        let what = format!(
            "{agent} is in run {run}, of which this coordinator's journal holds nothing: it was \
             restored from a backup, or another one leads"
        );
        let remedy = "find that one and stop it, then start this one with --take-over, which ends \
                      the run";
        Some(Diagnosis::new(Code::LS4204, what).remedy(remedy))
    }

    /// Why the agent would not obey this coordinator in a new run: the term that
    /// it has accepted is not lower, or it is locked to a run that isn't here.
    pub(super) fn follows_another(&self, state: &AgentState) -> Option<Diagnosis> {
        let obeys = state.term.number < self.term.number && self.unknown_run(state).is_none();
        self.another_leads(state).filter(|_| !obeys)
    }

    /// The order that frees an agent of a run that it will not be ordered
    /// anything else in: one that ended here and that the agent had closed
    /// before its journal was restored, or, after a take-over, one of which
    /// this journal holds nothing, which nobody can continue.
    pub(super) fn close_ended(&self, state: &AgentState) -> Option<Order> {
        let run = state.run.as_ref()?;
        let agent = &state.agent;
        let decision = if let Some(cell) = self.runs.get(run) {
            let own = cell.state();
            if own.ended.is_none() || !own.closed_by.contains(agent) {
                return None;
            }
            tracing::warn!(%agent, %run, "the agent is back in a run that it had closed");
            own.decision.max(state.decision)
        } else if self.take_over {
            tracing::warn!(
                %agent,
                %run,
                "closing a run of which this coordinator's journal holds nothing"
            );
            state.decision.saturating_add(1)
        } else {
            return None;
        };
        Some(Order::Close {
            run: run.clone(),
            term: self.term,
            decision,
        })
    }

    /// With `--take-over`, leads above the term of another coordinator, if
    /// an agent must obey this one in spite of it. An agent without a run obeys
    /// any higher term.
    pub(super) fn take_over_from(&mut self, state: &AgentState) -> Result<(), StoreError> {
        if !self.take_over || !self.is_foreign(state) {
            return Ok(());
        }
        let in_a_run = state.run.is_some() || !self.runs_of(&state.agent).is_empty();
        if in_a_run || state.term.number >= self.term.number {
            self.take_over_term(state.term)?;
        }
        Ok(())
    }

    /// Informs a run that another coordinator's decisions in it are lost: that
    /// one led this member, or this member has accepted more decisions than the
    /// run's journal holds (R11).
    fn take_over_run(&mut self, run: &RunId, state: &AgentState, foreign: bool) {
        let Some(cell) = self.runs.get(run) else {
            return;
        };
        let lacks = cell
            .live()
            .is_some_and(|run| run.is_foreign(state).is_some());
        if lacks || (foreign && !followed_before(cell, state)) {
            self.happen(run, Event::TakenOver(state.clone()));
        }
    }

    /// Resumes every run above another coordinator's term. Every session is
    /// ended, because the state machines that knew of them are replaced.
    fn take_over_term(&mut self, other: Term) -> Result<(), StoreError> {
        self.flush()?;
        self.agents.end_sessions();
        let Some(term) = self.store.take_over(&other)? else {
            return Ok(());
        };
        self.term = term;
        self.terms = self.store.terms()?;
        tracing::warn!(
            term = self.term.number,
            "taking over above another coordinator's term"
        );
        let live: Vec<(RunId, Arc<lockstep_plan::Plan>)> = self
            .runs
            .iter()
            .filter(|(_, cell)| cell.live().is_some())
            .map(|(run, cell)| (run.clone(), cell.plan().clone()))
            .collect();
        for (run, plan) in live {
            let stored = self.store.entries(&run, 0)?;
            let entries = stored.iter().map(|stored| stored.entry.clone());
            match Run::resume(lockstep_clock::boot_time(), entries, self.term) {
                Ok((machine, effects)) => {
                    let machine = Machine::Active(Box::new(machine));
                    let cell = RunEntry::new(machine, plan, &stored);
                    self.runs.insert(run.clone(), cell);
                    self.effects
                        .extend(effects.into_iter().map(|effect| (run.clone(), effect)));
                }
                Err(e) => tracing::error!(%run, error = %e, "the run can't be taken over"),
            }
        }
        Ok(())
    }
}

/// All that the member has ever accepted from another coordinator was before the
/// run began.
fn followed_before(cell: &RunEntry, state: &AgentState) -> bool {
    let before = RunDocument::foreign_term_at_start(&cell.state().begin, &state.agent);
    before == Some(state.term) && state.run.is_none()
}
