//! Effect of records on tasks: status, before-images, outputs, and what a breach
//! voids.

use super::state::{
    Breach, PhaseStatus, State, TaskKey, TaskState, TaskStatus, WatchState, all_steps, task_key,
    undone_by,
};
use crate::ids::{AgentName, Decision, PhaseRef, StepId, Term, Track};
use crate::message::{Changes, Outcome, TaskReport};
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
            Record::JournalLost { agent, .. } => self.journal_lost(agent),
            // `TookOver` and `Breached` also change tasks; they are applied together
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
            | Record::LateUndoPreparing { .. }
            | Record::LateUndoReleased { .. }
            | Record::LateUndoLeft { .. }
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
            self.clear_undone(step, agent);
            let rollback = self
                .step(step)
                .is_some_and(|(at, _)| at.track == Track::Rollback);
            self.outstanding_undos
                .retain(|undo| !rollback || undo.step != *step || undo.agent != *agent);
        }
    }

    fn undo_outstanding(&mut self, outstanding_undo: &OutstandingUndo) {
        let task = self
            .tasks
            .get_mut(&task_key(&outstanding_undo.step, &outstanding_undo.agent));
        if let Some(task) = task.filter(|task| !task.is_settled()) {
            task.status = TaskStatus::UndoOutstanding;
        }
        self.remove_from_round(&outstanding_undo.step, &outstanding_undo.agent);
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
                task.still_unknown = false;
                task.breached = false;
                // The before-image of a later vote may include this run's own
                // changes; only that of an untouched host may be restored (R6).
                let voted = before_images.get(&agent).and_then(|c| c.get(&step));
                if let (false, Some(before_image)) = (task.touched || task.suspect, voted) {
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
        if task.is_superseded(report.attempt) {
            task.touched |= report.outcome.may_have_changed();
            task.assumed = None;
            return;
        }
        task.assumed = None;
        task.reported = Some(report.attempt);
        let void = task.breached && report.outcome.is_good();
        task.status = if void {
            TaskStatus::Voided
        } else {
            TaskStatus::Ended {
                report: report.clone(),
            }
        };
        task.resolved = None;
        // If attempts are lost, the failure of a later one to start doesn't rule
        // out the effect of an earlier one.
        if self.decisions_lost.is_empty() || report.outcome.is_good() {
            task.suspect = false;
        }
        task.touched |= report.outcome.may_have_changed();
        if let Some(before_image) = &report.before_image {
            let recorded = self.before_images.entry(agent.clone()).or_default();
            // The agent's own first before-image takes precedence, as long as its
            // journal contains the first intent.
            if !self.journals_lost.contains(agent) || !recorded.contains_key(&report.step) {
                recorded.insert(report.step.clone(), before_image.clone());
            }
        }
        if report.outcome.is_good() {
            if !void {
                self.outputs
                    .entry(report.step.clone())
                    .or_default()
                    .insert(agent.clone(), (report.attempt, report.outputs.clone()));
            }
            self.clear_undone(&report.step, agent);
        }
        self.clear_outstanding(&key, report);
        self.finish_late_undo(agent);
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

    /// Removes the outstanding undo that a report settles: the task changed nothing,
    /// or it was one of the rollback's and succeeded, or it was waived and succeeded
    /// while the run still goes forward. A forward change stays outstanding in a run
    /// that turns back or is aborted, until its undo is reported.
    fn clear_outstanding(&mut self, key: &TaskKey, report: &TaskReport) {
        let turns_back = self.abort.is_some() || self.rollback.is_some();
        let forward = report.phase.track == Track::Forward;
        let in_effect = self.tasks.get(key).is_some_and(TaskState::may_have_changed);
        let nothing_to_undo = forward && !in_effect;
        let settled = match forward {
            true => nothing_to_undo || (report.outcome.is_good() && !turns_back),
            false => report.outcome.is_good(),
        };
        let (step, agent) = key;
        let plan = &self.begin.resolved_plan;
        let undoes = |undo: &StepId| {
            let mut steps = all_steps(plan);
            steps.any(|(_, spec)| spec.id == *undo && undone_by(spec) == Some(step))
        };
        self.outstanding_undos.retain(|outstanding_undo| {
            let own = outstanding_undo.step == *step && settled;
            let of_own = nothing_to_undo && undoes(&outstanding_undo.step);
            outstanding_undo.agent != *agent || !(own || of_own)
        });
    }

    /// A successful undo reverts the forward task's change.
    fn clear_undone(&mut self, undo: &StepId, agent: &AgentName) {
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

    fn remove_from_round(&mut self, step: &StepId, agent: &AgentName) {
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
        let left_out: BTreeSet<TaskKey> = self
            .tasks
            .keys()
            .filter(|key| self.is_left_out(key))
            .cloned()
            .collect();
        for (key, task) in self.tasks.iter_mut().filter(|(_, t)| t.phase == phase) {
            let again = match task.status {
                TaskStatus::Ended { .. } | TaskStatus::Voided => true,
                TaskStatus::Waiting
                | TaskStatus::Released
                | TaskStatus::Lost
                | TaskStatus::Waived
                | TaskStatus::UndoOutstanding => false,
            };
            if again && !task.is_settled() && !left_out.contains(key) {
                task.still_unknown = task.is_unclear();
                task.status = TaskStatus::Waiting;
                task.resolved = None;
            }
        }
    }

    /// Voided tasks are run again, and their phases become due again. Other tasks
    /// of those phases keep their outcomes (R15).
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
        // Its promises are lost as well as the outcomes of what was released.
        self.late_undos.remove(agent);
        let without_outcome: Vec<TaskKey> = self
            .open_tasks()
            .chain(self.unreported_tasks())
            .filter(|((_, owner), _)| owner == agent)
            .map(|(key, _)| key.clone())
            .collect();
        for key in without_outcome {
            self.mark_unknown(&key, lost_with_journal());
        }
    }

    /// Ends an open task for which no outcome of this attempt can arrive.
    fn mark_unknown(&mut self, key: &TaskKey, outcome: Outcome) {
        let Some(task) = self.tasks.get_mut(key) else {
            return;
        };
        task.touched = true;
        task.assumed = Some(task.attempt);
        task.reported = Some(task.attempt);
        task.status = TaskStatus::Ended {
            report: TaskReport {
                run: self.begin.run.clone(),
                phase: task.phase,
                attempt: task.attempt,
                step: key.0.clone(),
                outcome,
                outputs: BTreeMap::new(),
                before_image: None,
                changes: Changes::default(),
                took: 0,
            },
        };
    }

    /// The other coordinator's decisions are not known. Every task that has not
    /// succeeded may have been run since, so it is listed as still in effect
    /// until its agent reports otherwise. No task counts as open, because no
    /// outcome of these attempts can be expected (R11).
    pub(super) fn took_over(&mut self, agent: &AgentName, term: Term, decision: Decision) {
        self.late_undos.clear();
        let last = self.terms.entry(term).or_default();
        *last = decision.max(*last);
        if self.ended.is_some() {
            return;
        }
        self.decisions_lost.push(format!(
            "{agent} has accepted orders of another coordinator of this run (term {}, decision \
             {decision}), whose decisions are not in this journal",
            term.number
        ));
        let open: Vec<TaskKey> = self.open_tasks().map(|(key, _)| key.clone()).collect();
        for key in open {
            self.mark_unknown(&key, lost_with_decisions());
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
        let breach = Breach {
            agent: agent.clone(),
            step: step.clone(),
            detail: detail.to_owned(),
            after_no_return,
        };
        self.breaches.push(breach.clone());
        if let Some(watch) = self.watches.get_mut(&task_key(step, agent)) {
            watch.breaches.push(detail.to_owned());
        }
        if self.rollback.is_some() || self.abort.is_some() {
            return;
        }
        if after_no_return {
            self.held.push(self.held_for(&breach));
            return;
        }
        self.void_proofs_since(&breach);
    }

    fn held_for(&self, breach: &Breach) -> String {
        let Breach {
            agent,
            step,
            detail,
            ..
        } = breach;
        let when = if self.has_opened() {
            "after the point of no return"
        } else {
            "while the point of no return was being passed"
        };
        format!("watch {step} on {agent} detected a breach {when}: {detail}")
    }

    /// A breach that was recorded while the outcome of the point of no return was
    /// not known counts as one before it, once every participant has reported that
    /// it started nothing.
    pub(super) fn reconsider_breaches(&mut self) {
        let deferred = self.breaches.iter().any(|breach| breach.after_no_return);
        let turned_back = self.rollback.is_some() || self.abort.is_some();
        if !deferred || turned_back || self.past_no_return() {
            return;
        }
        let mut breaches = std::mem::take(&mut self.breaches);
        for breach in breaches.iter_mut().filter(|b| b.after_no_return) {
            let sentence = self.held_for(breach);
            self.held.retain(|held| *held != sentence);
            breach.after_no_return = false;
            self.void_proofs_since(breach);
        }
        self.breaches = breaches;
    }

    /// Voids the watch, and the proofs since it was armed: the successful ones now,
    /// and those that are open when they end (R15). Outcomes that are not good
    /// remain: they are run again in any case, and an `unknown` one must remain
    /// visible.
    fn void_proofs_since(&mut self, breach: &Breach) {
        let Breach {
            agent,
            step: watch,
            detail,
            ..
        } = breach;
        self.breach_pending = Some((agent.clone(), watch.clone(), detail.clone()));
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
            if !proofs.contains(step) {
                continue;
            }
            let ended = matches!(task.status, TaskStatus::Ended { .. });
            if ended && task.is_settled() {
                task.status = TaskStatus::Voided;
                self.outputs.remove(step);
            }
            task.breached |= task.is_open();
        }
    }

    /// A forward task may have changed a host. A proof without an undo changes
    /// nothing.
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

/// Outcome of an open task whose agent has lost its journal.
fn lost_with_journal() -> Outcome {
    Outcome::Unknown {
        reason: "the agent came back without the journal that says how far it got".to_owned(),
    }
}

/// Outcome of a task that another coordinator may have released.
fn lost_with_decisions() -> Outcome {
    Outcome::Unknown {
        reason: "another coordinator has led this run since it was released".to_owned(),
    }
}
