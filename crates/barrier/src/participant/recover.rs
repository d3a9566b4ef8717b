//! Recovery of a released attempt after a restart.

use super::execute::End;
use super::state::PromiseStatus;
use super::{Effect, Execution, Participant, Purpose, Stage};
use crate::ids::{Millis, PhaseRef, RunId, StepId};
use crate::message::{Finding, Outcome, Probe};
use lockstep_api::Diagnosis;
use std::collections::BTreeMap;

impl Participant {
    /// Released tasks without an intent end as not started; a task with an intent
    /// and no outcome is probed.
    pub(super) fn recover(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let open = self.state.runs.iter().find_map(|(run, log)| {
            log.phases.iter().find_map(|(phase, promise)| {
                let released = matches!(promise.status, PromiseStatus::Released { .. });
                let unended = promise.tasks.iter().any(|task| {
                    let log = log.tasks.get(&task.step);
                    log.is_none_or(|log| log.ended(promise.attempt).is_none())
                });
                (released && unended).then(|| (run.clone(), *phase, promise.clone()))
            })
        });
        let Some((run, phase, promise)) = open else {
            return;
        };
        let pending = promise.tasks.iter().find(|task| {
            let log = self.state.task(&run, &task.step);
            log.is_some_and(|log| log.is_pending(promise.attempt))
        });
        let pending = pending.cloned();
        let stage = match &pending {
            Some(task) => Stage::Recovering(task.step.clone()),
            None => Stage::Idle,
        };
        // A release of an earlier boot has no known age. The time for the probe, which
        // changes nothing, counts from now.
        let released_at = match &promise.status {
            PromiseStatus::Released { at, .. } if at.boot == self.boot => at.at,
            PromiseStatus::Released { .. }
            | PromiseStatus::Live
            | PromiseStatus::Refused { .. }
            | PromiseStatus::Tombstoned { .. } => now,
        };
        self.live.execution = Some(Execution {
            run: run.clone(),
            phase,
            attempt: promise.attempt,
            tasks: promise.tasks,
            released_at,
            finish_at: now.saturating_add(promise.finish_by),
            stage,
            stop: true,
            cancelled: false,
            abandoned: false,
            closing: false,
        });
        match pending {
            None => self.settle_rest(effects),
            Some(task) => effects.push(Effect::Probe {
                run,
                phase,
                attempt: promise.attempt,
                purpose: Purpose::AfterCrash,
                tasks: vec![task],
                inputs: self.current_inputs(),
            }),
        }
    }

    /// Handles the probe after a crash. An indeterminate finding ends the task as
    /// `unknown`, which is never retried automatically (R4).
    pub(super) fn probed_after_crash(
        &mut self,
        now: Millis,
        run: &RunId,
        phase: PhaseRef,
        attempt: u32,
        mut results: BTreeMap<StepId, Result<Probe, Diagnosis>>,
        effects: &mut Vec<Effect>,
    ) {
        let Some(task) = self.probed_task(run, phase, attempt, Purpose::AfterCrash) else {
            return;
        };
        let outcome = match results.remove(&task.step) {
            Some(Ok(probe)) => match probe.finding {
                // A watch whose arming is durable has been armed again by now;
                // any other did not survive the restart.
                _ if task.watch && self.is_armed(run, &task.step) => Outcome::Armed,
                _ if task.watch => Outcome::Interrupted,
                Finding::Satisfied => Outcome::Done,
                Finding::Pending => Outcome::Interrupted,
                Finding::Indeterminate => Outcome::Unknown {
                    reason: "the agent restarted while it ran, and the probe can't tell".to_owned(),
                },
            },
            Some(Err(diagnosis)) => Outcome::Unknown {
                reason: diagnosis.to_string(),
            },
            None => Outcome::Unknown {
                reason: "the agent restarted while it ran, and it was not probed".to_owned(),
            },
        };
        let end = End::of(outcome);
        self.conclude(now, run, (phase, attempt), &task.step, end, effects);
    }
}
