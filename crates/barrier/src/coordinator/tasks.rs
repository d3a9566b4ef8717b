//! What records do to tasks: how they stand, what they captured and gave,
//! what a breach voids.

use super::state::{
    Breach, PhaseStatus, State, TaskKey, TaskStatus, WatchState, all_steps, task_key, undone_by,
};
use crate::ids::{AgentName, Decision, PhaseRef, StepId, Term, Track};
use crate::message::{Outcome, TaskReport};
use crate::record::{OperatorRequest, OutstandingUndo, OutstandingUndoCause, Record, Resolution};
use std::collections::{BTreeMap, BTreeSet};

impl State {
    pub(super) fn apply_to_tasks(&mut self, record: &Record) {
        match record {
            Record::Released {
                phase,
                before_images,
                ..
            } => self.released(*phase, before_images),
            Record::TaskEnded { agent, report, .. }
            | Record::Contradicted { agent, report, .. } => {
                self.task_ended(agent, report);
            }
            Record::TaskLost { agent, step } => {
                if let Some(task) = self.tasks.get_mut(&task_key(step, agent)) {
                    task.status = TaskStatus::Lost;
                    task.suspect = true;
                }
            }
            Record::RetryDecided { phase, request } => {
                if request.is_some() {
                    self.retry_voided();
                }
                self.retry_unsettled(*phase);
            }
            Record::Waived {
                agent,
                step,
                request,
            } => self.waived(agent, step, request),
            Record::UnknownResolved {
                agent,
                step,
                resolution,
                ..
            } => {
                self.resolved(agent, step, *resolution);
            }
            Record::Disarmed { agent, steps } => {
                for step in steps {
                    self.watches.remove(&task_key(step, agent));
                }
            }
            Record::UndoOutstanding { outstanding_undo } => self.undo_outstanding(outstanding_undo),
            Record::JournalLost { agent } => self.journal_lost(agent),
            // `TookOver` and `Breached` change tasks too; they are applied
            // with the run's state, before this. The others change no task.
            Record::Began { .. }
            | Record::TermBegan { .. }
            | Record::TookOver { .. }
            | Record::Preparing { .. }
            | Record::GateOpened { .. }
            | Record::Revoked { .. }
            | Record::Failed { .. }
            | Record::Completed { .. }
            | Record::Skipped { .. }
            | Record::Paused { .. }
            | Record::Resumed { .. }
            | Record::RollbackDecided { .. }
            | Record::RollbackBegan {}
            | Record::AbortDecided { .. }
            | Record::Breached { .. }
            | Record::Ended { .. }
            | Record::ClosedBy { .. } => {}
        }
    }

    fn resolved(&mut self, agent: &AgentName, step: &StepId, resolution: Resolution) {
        if let Some(task) = self.tasks.get_mut(&task_key(step, agent)) {
            task.resolved = Some(resolution);
        }
        if resolution == Resolution::Done {
            self.untouch_undone(step, agent);
        }
    }

    fn undo_outstanding(&mut self, outstanding_undo: &OutstandingUndo) {
        let task = self
            .tasks
            .get_mut(&task_key(&outstanding_undo.step, &outstanding_undo.agent));
        if let Some(task) = task.filter(|task| !task.is_settled()) {
            task.status = TaskStatus::UndoOutstanding;
        }
        self.leave_round(&outstanding_undo.step, &outstanding_undo.agent);
    }

    fn released(
        &mut self,
        phase: PhaseRef,
        before_images: &BTreeMap<AgentName, BTreeMap<StepId, serde_json::Value>>,
    ) {
        let Some(state) = self.phase(phase) else {
            return;
        };
        let attempt = state.attempt;
        for (agent, steps) in state.tasks.clone() {
            for step in steps {
                let Some(task) = self.tasks.get_mut(&task_key(&step, &agent)) else {
                    continue;
                };
                task.status = TaskStatus::Released;
                task.attempt = attempt;
                task.resolved = None;
                // A vote of a later attempt sees the host as this run has
                // left it; only an untouched host shows what to restore (R6).
                let seen = before_images.get(&agent).and_then(|c| c.get(&step));
                if let (false, Some(before_image)) = (task.touched || task.suspect, seen) {
                    self.before_images
                        .entry(agent.clone())
                        .or_default()
                        .insert(step, before_image.clone());
                }
            }
        }
    }

    fn task_ended(&mut self, agent: &AgentName, report: &TaskReport) {
        let key = task_key(&report.step, agent);
        let Some(task) = self.tasks.get_mut(&key) else {
            return;
        };
        task.status = TaskStatus::Ended {
            report: report.clone(),
        };
        task.resolved = None;
        // Where attempts are lost, a later one that never began says nothing
        // of an earlier one.
        if self.decisions_lost.is_empty() || report.outcome.is_good() {
            task.suspect = false;
        }
        task.touched |= report.outcome.may_have_changed();
        if let Some(before_image) = &report.before_image {
            let kept = self.before_images.entry(agent.clone()).or_default();
            // An agent's own first before-image is the truest, as long as its
            // journal reaches back to the first intent.
            if !self.journals_lost.contains(agent) || !kept.contains_key(&report.step) {
                kept.insert(report.step.clone(), before_image.clone());
            }
        }
        if report.outcome.is_good() {
            self.outputs
                .entry(report.step.clone())
                .or_default()
                .insert(agent.clone(), (report.attempt, report.outputs.clone()));
            self.untouch_undone(&report.step, agent);
            // Of a run that was given up, what went forward stays in effect.
            let stays = self.abort.is_some() && report.phase.track == Track::Forward;
            self.outstanding_undos.retain(|outstanding_undo| {
                let other =
                    outstanding_undo.step != report.step || outstanding_undo.agent != *agent;
                other || stays
            });
        }
        if report.outcome == Outcome::Armed {
            self.watches.insert(
                key,
                WatchState {
                    breaches: Vec::new(),
                    superseded: false,
                },
            );
        }
    }

    /// An undo that ended well takes the forward task's change back.
    fn untouch_undone(&mut self, undo: &StepId, agent: &AgentName) {
        let Some(of) = self
            .step(undo)
            .and_then(|(_, spec)| undone_by(spec).cloned())
        else {
            return;
        };
        if let Some(task) = self.tasks.get_mut(&task_key(&of, agent)) {
            task.touched = false;
            task.suspect = false;
        }
        self.outstanding_undos.retain(|outstanding_undo| {
            outstanding_undo.step != of || outstanding_undo.agent != *agent
        });
    }

    fn leave_round(&mut self, step: &StepId, agent: &AgentName) {
        let Some(phase) = self.step(step).map(|(at, _)| at) else {
            return;
        };
        if let Some(phase) = self.phase_mut(phase)
            && phase.status == PhaseStatus::Preparing
            && let Some(steps) = phase.tasks.get_mut(agent)
        {
            steps.retain(|s| s != step);
            if steps.is_empty() {
                phase.tasks.remove(agent);
            }
        }
    }

    fn retry_unsettled(&mut self, phase: PhaseRef) {
        for task in self.tasks.values_mut().filter(|t| t.phase == phase) {
            let again = match task.status {
                TaskStatus::Ended { .. } | TaskStatus::Voided => true,
                TaskStatus::Waiting
                | TaskStatus::Released
                | TaskStatus::Lost
                | TaskStatus::Waived
                | TaskStatus::UndoOutstanding => false,
            };
            if again && !task.is_settled() {
                task.status = TaskStatus::Waiting;
                task.resolved = None;
            }
        }
    }

    /// What a breach voided is proved anew, and the phases it stood in become
    /// due again; what else was done in them carries forward (R15).
    fn retry_voided(&mut self) {
        let voided: BTreeSet<PhaseRef> = self
            .tasks
            .values()
            .filter(|task| task.status == TaskStatus::Voided)
            .map(|task| task.phase)
            .collect();
        for (key, watch) in &mut self.watches {
            let task = self.tasks.get(key);
            watch.superseded |= task.is_some_and(|task| task.status == TaskStatus::Voided);
        }
        for phase in voided {
            self.retry_unsettled(phase);
            if let Some(state) = self.phase_mut(phase) {
                state.status = PhaseStatus::Pending;
                state.rounds = 0;
                state.gate_opened = None;
            }
        }
    }

    fn waived(&mut self, agent: &AgentName, step: &StepId, request: &OperatorRequest) {
        self.watches.remove(&task_key(step, agent));
        let Some(task) = self.tasks.get_mut(&task_key(step, agent)) else {
            return;
        };
        if task.is_open() {
            task.status = TaskStatus::Waived;
            task.suspect = true;
        }
        self.outstanding_undos.push(OutstandingUndo {
            agent: agent.clone(),
            step: step.clone(),
            cause: OutstandingUndoCause::Waived {
                request: request.clone(),
            },
        });
    }

    fn journal_lost(&mut self, agent: &AgentName) {
        let open: Vec<TaskKey> = self
            .open_tasks()
            .filter(|((_, whose), _)| whose == agent)
            .map(|(key, _)| key.clone())
            .collect();
        for key in open {
            self.is_unknown(&key, lost_with_journal());
        }
    }

    /// An open task of which nothing will be heard in this attempt.
    fn is_unknown(&mut self, key: &TaskKey, outcome: Outcome) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        task.touched = true;
        task.status = TaskStatus::Ended {
            report: TaskReport {
                run: self.begin.run.clone(),
                phase: task.phase,
                attempt: task.attempt,
                step: key.0.clone(),
                outcome,
                outputs: BTreeMap::new(),
                before_image: None,
                took: 0,
            },
        };
    }

    /// What the other coordinator decided is not known. Whatever is not known
    /// to have ended well may have been carried out since, so it is listed as
    /// still in effect until its agent says otherwise; and nothing counts as
    /// open, for nobody will say anything about these attempts (R11).
    pub(super) fn took_over(&mut self, agent: &AgentName, term: Term, decision: Decision) {
        let last = self.terms.entry(term).or_default();
        *last = decision.max(*last);
        if self.ended.is_some() {
            return;
        }
        self.decisions_lost.push(format!(
            "{agent} has obeyed another coordinator of this run (term {}, decision {decision}), \
             and what that one decided is not in this journal",
            term.number
        ));
        let open: Vec<TaskKey> = self.open_tasks().map(|(key, _)| key.clone()).collect();
        for key in open {
            self.is_unknown(&key, lost_with_decisions());
        }
        if self.rollback.as_ref().is_some_and(|r| r.began) {
            return;
        }
        for task in self.tasks.values_mut() {
            task.suspect |= task.phase.track == Track::Forward && !task.is_settled();
        }
    }

    pub(super) fn breached(&mut self, agent: &AgentName, step: &StepId, detail: &str) {
        let after_no_return = self.past_no_return();
        self.breaches.push(Breach {
            agent: agent.clone(),
            step: step.clone(),
            detail: detail.to_owned(),
            after_no_return,
        });
        if let Some(watch) = self.watches.get_mut(&task_key(step, agent)) {
            watch.breaches.push(detail.to_owned());
        }
        if self.rollback.is_some() || self.abort.is_some() {
            return;
        }
        if after_no_return {
            self.held.push(format!(
                "watch {step} on {agent} saw a breach after the point of no return: {detail}"
            ));
            return;
        }
        self.breach_pending = Some((agent.clone(), step.clone(), detail.to_owned()));
        self.void_proofs_since(step);
    }

    /// What was proved since the watch was set no longer holds (R15).
    fn void_proofs_since(&mut self, watch: &StepId) {
        let Some((since, _)) = self.step(watch) else {
            return;
        };
        let proofs: BTreeSet<StepId> = all_steps(&self.begin.resolved_plan)
            .filter(|(phase, step)| {
                phase.track == Track::Forward
                    && phase.index >= since.index
                    && (step.proof || step.id == *watch)
            })
            .map(|(_, step)| step.id.clone())
            .collect();
        for ((step, _), task) in &mut self.tasks {
            if proofs.contains(step) && matches!(task.status, TaskStatus::Ended { .. }) {
                task.status = TaskStatus::Voided;
                self.outputs.remove(step);
            }
        }
    }

    /// Something forward may have changed a host. A proof that can't be
    /// undone changes nothing.
    pub(super) fn anything_changed(&self) -> bool {
        self.tasks.iter().any(|((step, _), task)| {
            task.phase.track == Track::Forward
                && task.may_have_changed()
                && self
                    .step(step)
                    .is_some_and(|(_, spec)| spec.undoable || !spec.proof)
        })
    }
}

/// What becomes of an open task when its agent's journal is lost.
fn lost_with_journal() -> Outcome {
    Outcome::Unknown {
        reason: "the agent came back without the journal that says how far it got".to_owned(),
    }
}

/// What becomes of a task that another coordinator may have released.
fn lost_with_decisions() -> Outcome {
    Outcome::Unknown {
        reason: "another coordinator has led this run since it was released".to_owned(),
    }
}
