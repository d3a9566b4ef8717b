//! Execution of a released attempt: one task after another, each with a durable
//! intent before the action and a durable outcome before the report.

use super::state::PromiseStatus;
use super::{Effect, Execution, Participant, Purpose, Stage};
use crate::ids::{BootTime, Header, Millis, PhaseRef, RunId, StepId};
use crate::message::{Changes, Finding, Mode, Outcome, Probe, Reply, TaskOrder, TaskReport};
use crate::record::{ParticipantRecord, Tombstone};
use crate::resolved_plan::Outputs;
use lockstep_api::Diagnosis;
use serde_json::Value;
use std::collections::BTreeMap;

/// Result of a task, from which its report is made.
pub(super) struct End {
    pub outcome: Outcome,
    pub outputs: Outputs,
    pub took: Millis,
}

impl End {
    pub(super) fn of(outcome: Outcome) -> Self {
        Self {
            outcome,
            outputs: Outputs::new(),
            took: 0,
        }
    }
}

impl Execution {
    /// Cancels the running task if it changes nothing.
    fn abandon(&mut self, effects: &mut Vec<Effect>) {
        let Stage::Acting(step) = &self.stage else {
            return;
        };
        let task = self.tasks.iter().find(|task| task.step == *step);
        if self.cancelled || !task.is_some_and(|task| task.read_only) {
            return;
        }
        self.cancelled = true;
        self.abandoned = true;
        effects.push(Effect::Cancel {
            run: self.run.clone(),
            step: step.clone(),
            attempt: self.attempt,
        });
    }
}

impl Participant {
    /// Starts a released attempt, if its promise is live (R3).
    pub(super) fn release(
        &mut self,
        now: Millis,
        header: Header,
        promise_age: Millis,
        (inputs, before_images): (BTreeMap<StepId, Outputs>, BTreeMap<StepId, Value>),
        effects: &mut Vec<Effect>,
    ) {
        let promise = self.state.promise(&header.run, header.phase);
        let Some(promise) = promise.filter(|p| p.attempt == header.attempt) else {
            self.release_without_promise(&header, effects);
            return;
        };
        if promise.status != PromiseStatus::Live {
            self.answer_from_records(&header, effects);
            return;
        }
        if self.live.execution.is_some() {
            // Impossible, because nothing is promised while an attempt is open.
            // If it happens, the coordinator's deadline reports the phase.
            return;
        }
        let (tasks, finish_by) = (promise.tasks.clone(), promise.finish_by);
        // The coordinator received the vote after the promise and measured its age
        // from then, so this is not later than the time at which it recorded the
        // release, from which it counts, too. The message may be much later.
        let key = (header.run.clone(), header.phase);
        let promised = self.live.promises.remove(&key).map(|live| live.promised);
        let released_at = promised.map_or(now, |promised| {
            promised.saturating_add(promise_age).min(now)
        });
        self.persist(
            ParticipantRecord::Released {
                run: header.run.clone(),
                phase: header.phase,
                attempt: header.attempt,
                inputs,
                before_images,
                at: BootTime {
                    boot: self.boot.clone(),
                    at: released_at,
                },
            },
            effects,
        );
        self.live.execution = Some(Execution {
            run: header.run,
            phase: header.phase,
            attempt: header.attempt,
            tasks,
            released_at,
            finish_at: released_at.saturating_add(finish_by),
            stage: Stage::Idle,
            stop: false,
            cancelled: false,
            abandoned: false,
            closing: false,
        });
        self.proceed(now, effects);
    }

    /// Tombstones an attempt that was not promised here, so that it never will
    /// be.
    fn release_without_promise(&mut self, header: &Header, effects: &mut Vec<Effect>) {
        let later = self
            .state
            .promise(&header.run, header.phase)
            .is_some_and(|promise| promise.attempt > header.attempt);
        if !later {
            self.drop_probing(header);
            self.tombstone(header, Tombstone::Lapsed, effects);
        }
        self.send_reports_of(header, effects);
    }

    /// Starts no further task of the phase.
    pub(super) fn revoke(
        &mut self,
        header: &Header,
        cancel_read_only: bool,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(execution) = &mut self.live.execution
            && execution.run == header.run
            && execution.phase == header.phase
        {
            execution.stop = true;
            if cancel_read_only {
                execution.abandon(effects);
            }
            self.send_reports_of(header, effects);
            if self.between_tasks() {
                self.settle_rest(effects);
            }
            return;
        }
        self.drop_probing(header);
        let known = self.state.promise(&header.run, header.phase);
        let closed = known.is_some_and(|promise| match promise.attempt.cmp(&header.attempt) {
            std::cmp::Ordering::Greater => true,
            std::cmp::Ordering::Equal => promise.status != PromiseStatus::Live,
            std::cmp::Ordering::Less => false,
        });
        if !closed {
            self.tombstone(header, Tombstone::Revoked, effects);
        }
        self.answer_from_records(header, effects);
    }

    fn drop_probing(&mut self, header: &Header) {
        let same = self.live.probing.as_ref().is_some_and(|probing| {
            probing.header.run == header.run
                && probing.header.phase == header.phase
                && probing.header.attempt <= header.attempt
        });
        if same {
            self.live.probing = None;
        }
    }

    fn between_tasks(&self) -> bool {
        self.live
            .execution
            .as_ref()
            .is_some_and(|execution| execution.stage == Stage::Idle)
    }

    /// Reports the outcome of each task of an attempt. If the attempt is
    /// tombstoned, tasks without an outcome end now.
    fn answer_from_records(&mut self, header: &Header, effects: &mut Vec<Effect>) {
        let promise = self.state.promise(&header.run, header.phase);
        let closed = promise
            .filter(|p| p.attempt == header.attempt)
            .and_then(|p| match p.status {
                PromiseStatus::Tombstoned { why } => Some((why, p.tasks.clone())),
                PromiseStatus::Live
                | PromiseStatus::Refused { .. }
                | PromiseStatus::Released { .. } => None,
            });
        let Some((why, tasks)) = closed else {
            self.send_reports_of(header, effects);
            return;
        };
        for task in tasks {
            let outcome = match why {
                Tombstone::Lapsed | Tombstone::Restarted => Outcome::Lapsed,
                Tombstone::Revoked | Tombstone::Undone => Outcome::NotStarted,
            };
            let log = self.state.task(&header.run, &task.step);
            if let Some(report) = log.and_then(|log| log.ended(header.attempt)) {
                effects.push(Effect::Send(Reply::Outcome(report.clone())));
            } else {
                let at = (header.phase, header.attempt);
                self.end_task(&header.run, at, &task.step, End::of(outcome), effects);
            }
        }
    }

    fn send_reports_of(&self, header: &Header, effects: &mut Vec<Effect>) {
        let tasks = self.state.run(&header.run).map(|log| &log.tasks);
        for task in tasks.into_iter().flat_map(|tasks| tasks.values()) {
            let report = task.ended(header.attempt);
            if let Some(report) = report.filter(|report| report.phase == header.phase) {
                effects.push(Effect::Send(Reply::Outcome(report.clone())));
            }
        }
    }

    /// Starts the next task, or ends the attempt.
    fn proceed(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        loop {
            let Some(execution) = &mut self.live.execution else {
                return;
            };
            execution.stage = Stage::Idle;
            if execution.stop || now >= execution.finish_at {
                self.settle_rest(effects);
                return;
            }
            let (run, attempt) = (execution.run.clone(), execution.attempt);
            let next = execution.tasks.iter().find(|task| {
                let log = self
                    .state
                    .runs
                    .get(&run)
                    .and_then(|r| r.tasks.get(&task.step));
                log.is_none_or(|log| log.ended(attempt).is_none())
            });
            let Some(task) = next.cloned() else {
                self.settle_rest(effects);
                return;
            };
            let waits = match &task.mode {
                Mode::Execute => self.probe_before_start(task, effects),
                Mode::Undo { .. } => self.start_undo(now, task, effects),
            };
            if waits {
                return;
            }
        }
    }

    fn probe_before_start(&mut self, task: TaskOrder, effects: &mut Vec<Effect>) -> bool {
        let inputs = self.current_inputs();
        if let Some(execution) = &mut self.live.execution {
            execution.stage = Stage::Probing(task.step.clone());
            effects.push(Effect::Probe {
                run: execution.run.clone(),
                phase: execution.phase,
                attempt: execution.attempt,
                purpose: Purpose::Start,
                tasks: vec![task],
                inputs,
            });
        }
        true
    }

    /// Inputs of the release that is being executed.
    pub(super) fn current_inputs(&self) -> BTreeMap<StepId, Outputs> {
        let promise = self
            .live
            .execution
            .as_ref()
            .and_then(|e| self.state.promise(&e.run, e.phase));
        match promise.map(|promise| &promise.status) {
            Some(PromiseStatus::Released { inputs, .. }) => inputs.clone(),
            Some(
                PromiseStatus::Live
                | PromiseStatus::Refused { .. }
                | PromiseStatus::Tombstoned { .. },
            )
            | None => BTreeMap::new(),
        }
    }

    /// Ends the attempt; tasks without an outcome end as not started.
    pub(super) fn settle_rest(&mut self, effects: &mut Vec<Effect>) {
        let Some(execution) = self.live.execution.take() else {
            return;
        };
        let at = (execution.phase, execution.attempt);
        for task in &execution.tasks {
            let log = self.state.task(&execution.run, &task.step);
            if log.is_none_or(|log| log.ended(execution.attempt).is_none()) {
                let end = End::of(Outcome::NotStarted);
                self.end_task(&execution.run, at, &task.step, end, effects);
            }
        }
        if execution.closing {
            self.close_now(execution.run, effects);
        }
    }

    /// Handles the probe before a start, which decides on `unchanged` and provides
    /// the before-image (R8).
    pub(super) fn probed_start(
        &mut self,
        now: Millis,
        run: &RunId,
        phase: PhaseRef,
        attempt: u32,
        mut results: BTreeMap<StepId, Result<Probe, Diagnosis>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.probed_task(run, phase, attempt, Purpose::Start) else {
            return;
        };
        let over = self
            .live
            .execution
            .as_ref()
            .is_none_or(|e| e.stop || now >= e.finish_at);
        if over {
            if let Some(execution) = &mut self.live.execution {
                execution.stop = true;
            }
            self.proceed(now, effects);
            return;
        }
        let probe = match results.remove(&task.step) {
            Some(Ok(probe)) => probe,
            Some(Err(diagnosis)) => {
                let end = End::of(Outcome::failed(diagnosis));
                self.conclude(now, run, (phase, attempt), &task.step, end, effects);
                return;
            }
            None => return,
        };
        if probe.finding == Finding::Satisfied && !task.watch {
            let end = self.found_satisfied(run, &task.step);
            self.conclude(now, run, (phase, attempt), &task.step, end, effects);
            return;
        }
        // A watch that is armed again after a breach must not keep its breaches.
        self.stop_watches(run, std::slice::from_ref(&task.step), effects);
        let before_image = self.declare_intent(
            run,
            (phase, attempt),
            &task.step,
            probe.before_image,
            effects,
        );
        let inputs = self.current_inputs();
        if let Some(execution) = &mut self.live.execution {
            execution.stage = Stage::Acting(task.step.clone());
            effects.push(Effect::Execute {
                run: run.clone(),
                phase,
                attempt,
                inputs,
                before_image,
                deadline: now.saturating_add(task.timeout).min(execution.finish_at),
                task,
            });
        }
    }

    /// The probe found the desired state. The outcome is `done`, with the earlier
    /// outputs, if an earlier attempt of this run has declared intent (R6).
    fn found_satisfied(&self, run: &RunId, step: &StepId) -> End {
        let log = self.state.task(run, step);
        if !log.is_some_and(super::TaskLog::may_have_changed) {
            return End::of(Outcome::Unchanged);
        }
        let outputs = log.and_then(|log| log.report.as_ref().map(|r| r.outputs.clone()));
        End {
            outputs: outputs.unwrap_or_default(),
            ..End::of(Outcome::Done)
        }
    }

    /// Persists the intent. The first before-image is retained across attempts
    /// (R6).
    pub(super) fn declare_intent(
        &mut self,
        run: &RunId,
        (phase, attempt): (PhaseRef, u32),
        step: &StepId,
        before_image: Option<Value>,
        effects: &mut Vec<Effect>,
    ) -> Option<Value> {
        let first = self
            .state
            .task(run, step)
            .and_then(|log| log.before_image.clone());
        let before_image = first.unwrap_or(before_image);
        self.persist(
            ParticipantRecord::Intent {
                run: run.clone(),
                phase,
                attempt,
                step: step.clone(),
                before_image: before_image.clone(),
            },
            effects,
        );
        before_image
    }

    /// The task that is being probed, if it is the one that a result is for.
    pub(super) fn probed_task(
        &self,
        run: &RunId,
        phase: PhaseRef,
        attempt: u32,
        purpose: Purpose,
    ) -> Option<TaskOrder> {
        let execution = self.live.execution.as_ref()?;
        let step = match (&execution.stage, purpose) {
            (Stage::Probing(step), Purpose::Start) => step,
            (Stage::Recovering(step), Purpose::AfterCrash) => step,
            (
                Stage::Idle | Stage::Probing(_) | Stage::Acting(_) | Stage::Recovering(_),
                Purpose::Vote | Purpose::Start | Purpose::AfterCrash,
            ) => return None,
        };
        let same =
            execution.run == *run && execution.phase == phase && execution.attempt == attempt;
        let mut tasks = execution.tasks.iter();
        tasks.find(|task| same && task.step == *step).cloned()
    }

    pub(super) fn finished(
        &mut self,
        now: Millis,
        run: &RunId,
        step: &StepId,
        (phase, attempt): (PhaseRef, u32),
        mut end: End,
        effects: &mut Vec<Effect>,
    ) {
        if self.acting() != Some((run, phase, attempt, step)) {
            return;
        }
        let abandoned = self.live.execution.as_ref().is_some_and(|e| e.abandoned);
        if abandoned && !end.outcome.is_good() {
            // It changed nothing, and its error is only that it was cancelled.
            end.outcome = Outcome::Interrupted;
        }
        if end.outcome == Outcome::Armed {
            let task = self
                .live
                .execution
                .as_ref()
                .and_then(|e| e.tasks.iter().find(|task| task.step == *step).cloned());
            if let Some(task) = task {
                self.arm(run, task, effects);
            }
        }
        self.conclude(now, run, (phase, attempt), step, end, effects);
    }

    /// Persists what the running action has changed, so that a crash doesn't lose it.
    pub(super) fn changed(
        &mut self,
        run: &RunId,
        step: &StepId,
        (phase, attempt): (PhaseRef, u32),
        changes: Changes,
        effects: &mut Vec<Effect>,
    ) {
        if self.acting() != Some((run, phase, attempt, step)) || changes.is_empty() {
            return;
        }
        let record = ParticipantRecord::Changed {
            run: run.clone(),
            phase,
            attempt,
            step: step.clone(),
            changes,
        };
        self.persist(record, effects);
    }

    /// Ends a task and proceeds; if it did not succeed, no further task starts.
    pub(super) fn conclude(
        &mut self,
        now: Millis,
        run: &RunId,
        at: (PhaseRef, u32),
        step: &StepId,
        end: End,
        effects: &mut Vec<Effect>,
    ) {
        let good = end.outcome.is_good();
        self.end_task(run, at, step, end, effects);
        if let Some(execution) = &mut self.live.execution {
            execution.stop |= !good;
        }
        self.proceed(now, effects);
    }

    /// Persists an outcome, then reports it (R23).
    pub(super) fn end_task(
        &mut self,
        run: &RunId,
        (phase, attempt): (PhaseRef, u32),
        step: &StepId,
        end: End,
        effects: &mut Vec<Effect>,
    ) {
        let log = self.state.task(run, step);
        let changes = log
            .filter(|log| log.intent == Some(attempt))
            .map(|log| log.changes.clone());
        let report = TaskReport {
            run: run.clone(),
            phase,
            attempt,
            step: step.clone(),
            outcome: end.outcome,
            outputs: end.outputs,
            before_image: log.and_then(|log| log.before_image.clone()).flatten(),
            changes: changes.unwrap_or_default(),
            took: end.took,
        };
        let record = ParticipantRecord::Ended {
            report: report.clone(),
        };
        self.persist(record, effects);
        effects.push(Effect::Send(Reply::Outcome(report)));
    }

    /// At `finish_by`, cancels the running task and starts no further one (R12).
    /// A running probe is abandoned: it changes nothing, and one that never
    /// returns would block the agent.
    pub(super) fn stop_overdue(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let Some(execution) = &mut self.live.execution else {
            return;
        };
        if now < execution.finish_at || execution.cancelled {
            return;
        }
        execution.stop = true;
        execution.cancelled = true;
        let (run, at) = (execution.run.clone(), (execution.phase, execution.attempt));
        match execution.stage.clone() {
            Stage::Idle => {}
            Stage::Probing(_) => self.settle_rest(effects),
            Stage::Recovering(step) => {
                let reason = "the agent restarted while it ran, and the probe gave no answer";
                let end = End::of(Outcome::Unknown {
                    reason: reason.to_owned(),
                });
                self.conclude(now, &run, at, &step, end, effects);
            }
            Stage::Acting(step) => effects.push(Effect::Cancel {
                run,
                step,
                attempt: at.1,
            }),
        }
    }
}
