//! Outcomes: persisted, then acknowledged, then evaluated.

use super::state::{TaskKey, TaskStatus, task_key};
use super::{Effect, LOST_GRACE, MAX_AUTOMATIC_RETRIES, Run};
use crate::ids::{AgentName, Millis, PhaseRef, Track};
use crate::message::{Order, Outcome, Reply, TaskReport};
use crate::record::{Failure, JournalPosition, OutstandingUndoCause, Record};

impl Run {
    pub(super) fn receive_reply(
        &mut self,
        now: Millis,
        from: AgentName,
        reply: Reply,
        position: Option<JournalPosition>,
        effects: &mut Vec<Effect>,
    ) {
        match reply {
            Reply::Vote {
                phase,
                attempt,
                term,
                promise_age,
                verdict,
                ..
            } => {
                let counts_in = (term, promise_age);
                self.receive_late_vote(now, &from, (phase, attempt), counts_in, &verdict);
                self.receive_vote(now, from, phase, attempt, counts_in, verdict);
            }
            Reply::Outcome(report) => self.receive_outcome(from, report, position, effects),
            Reply::Attestation {
                step,
                nonce,
                breach,
                ..
            } => self.receive_attestation(from, step, nonce, breach, effects),
            Reply::Breach { step, detail, .. } => self.receive_breach(from, step, detail, effects),
            Reply::Disarmed { steps, .. } => self.receive_disarmed(from, steps, effects),
            Reply::Closed { .. } => {
                if self.state.ended.is_some() && !self.state.closed_by.contains(&from) {
                    self.persist(Record::ClosedBy { agent: from }, effects);
                }
            }
        }
    }

    /// Persists an outcome and acknowledges it. A repeated outcome is only
    /// acknowledged; one that contradicts a later decision holds the run (R5).
    fn receive_outcome(
        &mut self,
        from: AgentName,
        report: TaskReport,
        position: Option<JournalPosition>,
        effects: &mut Vec<Effect>,
    ) {
        let key = task_key(&report.step, &from);
        let Some(task) = self.state.tasks.get(&key) else {
            return;
        };
        if task.phase != report.phase {
            return;
        }
        // An attempt that was revoked before its release has no outcome to record.
        let released = task.attempt;
        let ack = Order::Ack {
            run: report.run.clone(),
            step: report.step.clone(),
            phase: report.phase,
            attempt: report.attempt,
        };
        // If decisions are lost, so may be later attempts: an outcome of an attempt
        // that is not in this journal is new (R11).
        let lost = !self.state.decisions_lost.is_empty() && report.attempt >= released;
        let classification = if lost {
            if task.outcome() == Some(&report.outcome) {
                Classification::Repeated
            } else {
                Classification::New
            }
        } else if task.is_superseded(report.attempt) {
            let said = report.outcome.name();
            Classification::Contradiction(format!(
                "{} on {from} was resolved and retried after its agent's journal was lost; now \
                 it says that attempt {} ended as {said}",
                report.step, report.attempt
            ))
        } else if report.attempt == released {
            self.classify(&key, &report)
        } else {
            Classification::Repeated
        };
        let agent = from.clone();
        let record = match classification {
            Classification::New => Some(Record::TaskEnded {
                agent,
                report,
                position,
            }),
            Classification::Repeated => None,
            Classification::Contradiction(detail) => Some(Record::Contradicted {
                agent,
                report,
                detail,
                position,
            }),
        };
        if let Some(record) = record {
            self.persist(record, effects);
        }
        self.send(&from, ack, effects);
    }

    fn classify(&self, key: &TaskKey, report: &TaskReport) -> Classification {
        let Some(task) = self.state.tasks.get(key) else {
            return Classification::Repeated;
        };
        let (step, agent) = key;
        let said = report.outcome.name();
        match &task.status {
            TaskStatus::Released | TaskStatus::Lost => Classification::New,
            // The run relies on nothing about a task that it left out, so no outcome
            // contradicts it; but each is recorded before it is acknowledged.
            TaskStatus::UndoOutstanding
                if report.outcome.is_good()
                    || task.reported != Some(report.attempt)
                    || task.assumed == Some(report.attempt) =>
            {
                Classification::New
            }
            // The operator has accepted that a waived task may not have run.
            TaskStatus::Waived
                if report.outcome.is_good()
                    || !report.outcome.may_have_changed()
                    || self.state.rollback.is_some() =>
            {
                Classification::New
            }
            TaskStatus::Waived => Classification::Contradiction(format!(
                "{step} on {agent} was waived and the run went on; now it says {said}"
            )),
            TaskStatus::Ended { report: known } if !known.outcome.agrees_with(&report.outcome) => {
                let known = known.outcome.name();
                Classification::Contradiction(format!(
                    "{step} on {agent} was recorded as {known}; now it says {said}"
                ))
            }
            TaskStatus::Ended { .. }
            | TaskStatus::UndoOutstanding
            | TaskStatus::Waiting
            | TaskStatus::Voided => Classification::Repeated,
        }
    }

    /// Evaluates a released phase: complete, running, lost or failed.
    pub(super) fn evaluate_outcomes(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let mut round = self.round_of(phase);
        // A late report of an agent that the rollback continued without neither
        // fails the phase nor delays it (R18).
        round.retain(|key| !self.state.is_left_out(key));
        let tasks_where = |run: &Self, wanted: fn(&super::TaskState) -> bool| -> Vec<TaskKey> {
            round
                .iter()
                .filter(|key| run.state.tasks.get(*key).is_some_and(wanted))
                .cloned()
                .collect()
        };
        let open = tasks_where(self, super::TaskState::is_open);
        let unsettled = tasks_where(self, |task| !task.is_open() && !task.is_settled());
        let breached = self.pending_breach();
        if open.is_empty() && unsettled.is_empty() && breached.is_none() {
            self.persist(Record::Completed { phase }, effects);
            return true;
        }
        if (!unsettled.is_empty() || breached.is_some()) && self.revoke(phase, &open, effects) {
            return true;
        }
        if self.mark_overdue_lost(now, phase, effects) {
            return true;
        }
        let lost = tasks_where(self, |task| task.status == TaskStatus::Lost);
        if lost.len() < open.len() {
            return false;
        }
        if !lost.is_empty() {
            return self.exclude_or_fail_lost(phase, lost, effects);
        }
        if let Some(failure) = breached {
            return self.fail(phase, failure, effects);
        }
        if self.may_retry_by_itself(phase, &unsettled) {
            let request = None;
            self.persist(Record::RetryDecided { phase, request }, effects);
            return true;
        }
        self.fail(phase, Failure::Tasks { tasks: unsettled }, effects)
    }

    fn round_of(&self, phase: PhaseRef) -> Vec<TaskKey> {
        let tasks = self.state.phase(phase).map(|p| &p.tasks);
        tasks
            .into_iter()
            .flatten()
            .flat_map(|(agent, steps)| steps.iter().map(|s| task_key(s, agent)))
            .collect()
    }

    fn may_retry_by_itself(&self, phase: PhaseRef, unsettled: &[TaskKey]) -> bool {
        let harmless = unsettled.iter().all(|key| {
            let outcome = self.state.tasks.get(key).and_then(|task| task.outcome());
            outcome.is_some_and(Outcome::is_retried_automatically)
        });
        harmless
            && self
                .state
                .phase(phase)
                .is_some_and(|p| p.automatic_retries < MAX_AUTOMATIC_RETRIES)
    }

    /// Revokes the attempt, once; `false` if that was done before or no task is
    /// open.
    pub(super) fn revoke(
        &mut self,
        phase: PhaseRef,
        open: &[TaskKey],
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(state) = self.state.phase(phase) else {
            return false;
        };
        if state.revoked || open.is_empty() {
            return false;
        }
        let attempt = state.attempt;
        self.persist(Record::Revoked { phase, attempt }, effects);
        self.send_revoke(phase, effects);
        true
    }

    /// When an agent's released tasks of a phase are overdue. By then the agent has
    /// cancelled them: it counts `finish_by` from a time that is not later than the
    /// release here (R12).
    pub(super) fn lost_at(&self, phase: PhaseRef, agent: &AgentName) -> Millis {
        let finish_by = self.state.spec(phase).map_or(0, |spec| spec.finish_by);
        let reported = self.live.reported_releases.get(agent).copied();
        self.live
            .released_at
            .min(reported.unwrap_or(Millis::MAX))
            .saturating_add(finish_by)
            .saturating_add(LOST_GRACE)
    }

    /// Marks released tasks as lost once they are overdue. They stay open.
    pub(super) fn mark_overdue_lost(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.in_grace(now) {
            return false;
        }
        let overdue: Vec<TaskKey> = self
            .state
            .tasks_of(phase)
            .filter(|((_, agent), task)| {
                task.status == TaskStatus::Released && now >= self.lost_at(phase, agent)
            })
            .map(|(key, _)| key.clone())
            .collect();
        for (step, agent) in &overdue {
            let (step, agent) = task_key(step, agent);
            self.persist(Record::TaskLost { agent, step }, effects);
        }
        self.revoke(phase, &overdue, effects);
        !overdue.is_empty()
    }

    /// A rollback continues without detachable agents. Otherwise the phase fails
    /// and waits for the agent or the operator (R5, R18).
    fn exclude_or_fail_lost(
        &mut self,
        phase: PhaseRef,
        lost: Vec<TaskKey>,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let all_detachable = lost.iter().all(|(_, agent)| self.is_detachable(agent));
        if phase.track == Track::Rollback && all_detachable {
            for (step, agent) in lost {
                self.record_outstanding_undo(
                    &agent,
                    &[step],
                    &OutstandingUndoCause::Unreachable,
                    effects,
                );
            }
            return true;
        }
        self.fail(phase, Failure::Lost { tasks: lost }, effects)
    }
}

enum Classification {
    New,
    Repeated,
    Contradiction(String),
}
