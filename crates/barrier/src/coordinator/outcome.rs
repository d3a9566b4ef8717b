//! Outcomes: journaled first, acknowledged then, judged last.

use super::state::{TaskKey, TaskStatus, task_key};
use super::{Effect, LOST_GRACE, MAX_AUTOMATIC_RETRIES, Run};
use crate::ids::{AgentName, Millis, PhaseRef, Track};
use crate::message::{Order, Outcome, Reply, TaskReport};
use crate::record::{Failure, JournalPosition, OutstandingUndoCause, Record};

impl Run {
    /// Takes a reply in.
    pub(super) fn reply(
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
                verdict,
                ..
            } => self.take_vote(now, from, phase, attempt, term, verdict),
            Reply::Outcome(report) => self.take_outcome(from, report, position, effects),
            Reply::Attestation {
                step,
                nonce,
                breach,
                ..
            } => self.take_attestation(from, step, nonce, breach, effects),
            Reply::Breach { step, detail, .. } => self.take_breach(from, step, detail, effects),
            Reply::Disarmed { steps, .. } => self.take_disarmed(from, steps, effects),
            Reply::Closed { .. } => {
                if self.state.ended.is_some() && !self.state.closed_by.contains(&from) {
                    self.persist(Record::ClosedBy { agent: from }, effects);
                }
            }
        }
    }

    /// Journals an outcome and acknowledges it. A repeated one is only
    /// acknowledged; one that contradicts what was decided since holds the
    /// run (R5).
    fn take_outcome(
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
        // Of an attempt that was called back before its release, there is
        // nothing to record.
        let released = task.attempt;
        let ack = Order::Ack {
            run: report.run.clone(),
            step: report.step.clone(),
            phase: report.phase,
            attempt: report.attempt,
        };
        // Where decisions are lost, so are attempts: what an agent says of
        // one that is not known here is news all the same (R11).
        let lost = !self.state.decisions_lost.is_empty() && report.attempt >= released;
        let weight = if lost {
            if task.outcome() == Some(&report.outcome) {
                Weight::Repeated
            } else {
                Weight::News
            }
        } else if report.attempt == released {
            self.weigh(&key, &report)
        } else {
            Weight::Repeated
        };
        let agent = from.clone();
        let record = match weight {
            Weight::News => Some(Record::TaskEnded {
                agent,
                report,
                position,
            }),
            Weight::Repeated => None,
            Weight::Contradiction(detail) => Some(Record::Contradicted {
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

    fn weigh(&self, key: &TaskKey, report: &TaskReport) -> Weight {
        let Some(task) = self.state.tasks.get(key) else {
            return Weight::Repeated;
        };
        let (step, agent) = key;
        let said = name_of(&report.outcome);
        match &task.status {
            TaskStatus::Released | TaskStatus::Lost => Weight::News,
            TaskStatus::UndoOutstanding if report.outcome.is_good() => Weight::News,
            TaskStatus::Waived if report.outcome.is_good() || self.state.rollback.is_some() => {
                Weight::News
            }
            TaskStatus::Waived => Weight::Contradiction(format!(
                "{step} on {agent} was waived and the run went on; now it says {said}"
            )),
            TaskStatus::Ended { report: known } if known.outcome != report.outcome => {
                let known = name_of(&known.outcome);
                Weight::Contradiction(format!(
                    "{step} on {agent} was recorded as {known}; now it says {said}"
                ))
            }
            TaskStatus::Ended { .. }
            | TaskStatus::UndoOutstanding
            | TaskStatus::Waiting
            | TaskStatus::Voided => Weight::Repeated,
        }
    }

    /// Looks at a released phase: complete, still running, lost, or failed.
    pub(super) fn judge_outcomes(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let round = self.round_of(phase);
        let with = |run: &Self, wanted: fn(&super::TaskState) -> bool| -> Vec<TaskKey> {
            round
                .iter()
                .filter(|key| run.state.tasks.get(*key).is_some_and(wanted))
                .cloned()
                .collect()
        };
        let open = with(self, super::TaskState::is_open);
        let bad = with(self, |task| !task.is_open() && !task.is_settled());
        let breached = self.state.breach_pending.clone();
        if open.is_empty() && bad.is_empty() && breached.is_none() {
            self.persist(Record::Completed { phase }, effects);
            return true;
        }
        if (!bad.is_empty() || breached.is_some()) && self.revoke(phase, &open, effects) {
            return true;
        }
        if self.lose_overdue(now, phase, effects) {
            return true;
        }
        let lost = with(self, |task| task.status == TaskStatus::Lost);
        if lost.len() < open.len() {
            return false;
        }
        if !lost.is_empty() {
            return self.pass_or_fail_lost(phase, lost, effects);
        }
        if let Some((agent, step, detail)) = breached {
            let failure = Failure::Breach {
                step,
                agent,
                detail,
            };
            return self.fail(phase, failure, effects);
        }
        if self.may_retry_by_itself(phase, &bad) {
            let request = None;
            self.persist(Record::RetryDecided { phase, request }, effects);
            return true;
        }
        self.fail(phase, Failure::Tasks { tasks: bad }, effects)
    }

    fn round_of(&self, phase: PhaseRef) -> Vec<TaskKey> {
        let tasks = self.state.phase(phase).map(|p| &p.tasks);
        tasks
            .into_iter()
            .flatten()
            .flat_map(|(agent, steps)| steps.iter().map(|s| task_key(s, agent)))
            .collect()
    }

    fn may_retry_by_itself(&self, phase: PhaseRef, bad: &[TaskKey]) -> bool {
        let harmless = bad.iter().all(|key| {
            let outcome = self.state.tasks.get(key).and_then(|task| task.outcome());
            outcome.is_some_and(Outcome::is_retried_automatically)
        });
        harmless
            && self
                .state
                .phase(phase)
                .is_some_and(|p| p.automatic_retries < MAX_AUTOMATIC_RETRIES)
    }

    /// Tells everyone with open tasks to start nothing more; once per
    /// attempt. `false` when that was done before or nobody is left to tell.
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

    /// When released tasks of a phase are overdue.
    pub(super) fn lost_at(&self, phase: PhaseRef) -> Millis {
        let finish_by = self.state.spec(phase).map_or(0, |spec| spec.finish_by);
        self.live
            .released_at
            .saturating_add(finish_by)
            .saturating_add(LOST_GRACE)
    }

    /// Marks released tasks as lost once they are overdue. They stay open.
    pub(super) fn lose_overdue(
        &mut self,
        now: Millis,
        phase: PhaseRef,
        effects: &mut Vec<Effect>,
    ) -> bool {
        if self.in_grace(now) || now < self.lost_at(phase) {
            return false;
        }
        let overdue: Vec<TaskKey> = self
            .state
            .tasks_of(phase)
            .filter(|(_, task)| task.status == TaskStatus::Released)
            .map(|(key, _)| key.clone())
            .collect();
        for (step, agent) in &overdue {
            let (step, agent) = task_key(step, agent);
            self.persist(Record::TaskLost { agent, step }, effects);
        }
        self.revoke(phase, &overdue, effects);
        !overdue.is_empty()
    }

    /// A rollback goes on without detachable agents; everything else fails
    /// and waits for the agent or the operator (R5, R18).
    fn pass_or_fail_lost(
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

enum Weight {
    News,
    Repeated,
    Contradiction(String),
}

/// An outcome in a word, as sentences for the operator use it.
fn name_of(outcome: &Outcome) -> &'static str {
    match outcome {
        Outcome::Done => "done",
        Outcome::Unchanged => "already so",
        Outcome::Armed => "standing",
        Outcome::Failed { .. } => "failed",
        Outcome::Unknown { .. } => "unknown",
        Outcome::Drifted { .. } => "drifted",
        Outcome::Interrupted => "interrupted",
        Outcome::NotStarted => "not started",
        Outcome::Lapsed => "lapsed",
    }
}
