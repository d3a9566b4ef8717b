//! Failure policy, and the budget of the write outage.

use super::state::{PhaseStatus, TaskState};
use super::{Effect, Run};
use crate::ids::{AgentName, JournalId, Millis, PhaseRef, Track};
use crate::message::Outcome;
use crate::record::{Failure, Record, RollbackCause};
use crate::resolved_plan::{OnFailure, Outage};

impl Run {
    /// Fails a phase. If it was not released, its promises are revoked.
    pub(super) fn fail(
        &mut self,
        phase: PhaseRef,
        failure: Failure,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(state) = self.state.phase(phase) else {
            return false;
        };
        let attempt = state.attempt;
        let only_promised = state.status == PhaseStatus::Preparing;
        self.live.attesting = None;
        self.live.disarming_since = None;
        self.persist(
            Record::Failed {
                phase,
                attempt,
                failure,
                leads_to: self.leads_to(phase),
            },
            effects,
        );
        if only_promised {
            self.send_revoke(phase, effects);
        }
        true
    }

    /// The plan's policy, if it may be applied: not after the point of no return,
    /// and not while a task is `unknown` or `drifted`. In a rollback a failed
    /// phase holds, or is deferred if nothing has drifted.
    fn leads_to(&self, phase: PhaseRef) -> OnFailure {
        let policy = self
            .state
            .spec(phase)
            .map_or(OnFailure::Hold, |spec| spec.on_failure);
        match (phase.track, policy) {
            (Track::Rollback, OnFailure::Continue) if !self.has_drifted(phase) => policy,
            (Track::Forward, OnFailure::Rollback) if self.may_roll_back_by_itself() => policy,
            (
                Track::Forward | Track::Rollback,
                OnFailure::Hold | OnFailure::Continue | OnFailure::Rollback,
            ) => OnFailure::Hold,
        }
    }

    /// An undo has found somebody else's change. Unlike the failure of a service,
    /// it can't be deferred: continuing might overwrite the change (R7).
    fn has_drifted(&self, phase: PhaseRef) -> bool {
        self.state.tasks_of(phase).any(|(_, task)| {
            matches!(task.outcome(), Some(Outcome::Drifted { .. })) && task.is_unclear()
        })
    }

    fn may_roll_back_by_itself(&self) -> bool {
        let unknown = |task: &TaskState| task.is_unclear() || task.still_unknown;
        self.state.rollback.is_none()
            && self.state.abort.is_none()
            && !self.state.no_return_is_decided()
            && !self.state.begin.resolved_plan.rollback.is_empty()
            && !self.state.tasks.values().any(unknown)
    }

    /// A failed phase holds for the operator, or rolls back by policy.
    pub(super) fn after_failure(
        &mut self,
        phase: PhaseRef,
        leads_to: OnFailure,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if leads_to == OnFailure::Rollback && self.may_roll_back_by_itself() {
            let cause = RollbackCause::Policy { phase };
            self.persist(Record::RollbackDecided { cause }, effects);
            return true;
        }
        false
    }

    /// Write outage so far; `None` before its clock has started.
    pub fn outage_elapsed(&self, now: Millis) -> Option<Millis> {
        self.live
            .outage_began
            .map(|began| now.saturating_sub(began))
            .max(self.state.outage)
    }

    /// The outage began with the release of its first phase, or with the skip of that
    /// phase: whatever it stops was then stopped by hand.
    pub(super) fn outage_has_begun(&self) -> bool {
        let outage = self.state.begin.resolved_plan.outage.as_ref();
        let first = outage.and_then(|o| self.state.forward.get(o.starts_with as usize));
        first.is_some_and(|phase| phase.ever_released || phase.status.is_over())
    }

    /// The release starts the clock itself, so that its record includes it.
    pub(super) fn start_outage_clock(&mut self, now: Millis) {
        if self.live.outage_began.is_none() && self.outage_has_begun() {
            self.live.outage_began = Some(now);
        }
    }

    /// When the budget, less the rollback's reserve, is used up; `None` if that
    /// would have no effect.
    pub(super) fn outage_limit(&self) -> Option<Millis> {
        let Outage {
            budget,
            rollback_reserve,
            ends_with,
            ..
        } = self.state.begin.resolved_plan.outage.as_ref()?;
        let last = self.state.forward.get(*ends_with as usize)?;
        if last.status.is_over() || !self.may_roll_back_by_itself() {
            return None;
        }
        let began = self.live.outage_began?;
        Some(began.saturating_add(budget.saturating_sub(*rollback_reserve)))
    }

    /// Rolls back early enough that the rollback itself still ends within the
    /// budget.
    pub(super) fn watch_outage(&mut self, now: Millis, effects: &mut Vec<Effect>) -> bool {
        let Some(limit) = self.outage_limit() else {
            return false;
        };
        if now < limit || self.in_grace(now) {
            return false;
        }
        let elapsed = self.outage_elapsed(now).unwrap_or(0);
        let cause = RollbackCause::Budget { elapsed };
        self.persist(Record::RollbackDecided { cause }, effects);
        true
    }

    /// An agent came back without its journal, or with an older one (R10): its open
    /// tasks become `unknown`, each time.
    pub(super) fn journal_lost(
        &mut self,
        agent: &AgentName,
        journal: Option<JournalId>,
        effects: &mut Vec<Effect>,
    ) {
        // After the end it matters as long as the agent has something left to report.
        let closed = self.state.closed_by.contains(agent);
        if self.state.begin.members.contains_key(agent) && !closed {
            let agent = agent.clone();
            // The promise behind its vote is lost as well (R10).
            self.live.votes.remove(&agent);
            self.persist(Record::JournalLost { agent, journal }, effects);
        }
    }
}
