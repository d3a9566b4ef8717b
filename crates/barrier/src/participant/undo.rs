//! Undo: restoring the before-image of the forward task (R7).

use super::execute::End;
use super::state::PromiseStatus;
use super::{Effect, Participant, Stage};
use crate::ids::{Millis, RunId, StepId, Track};
use crate::message::{Mode, Outcome, TaskOrder};
use serde_json::Value;

/// What is known about the state that an undo must restore.
enum UndoBasis {
    /// From the forward task's intent, or from the coordinator's journal.
    BeforeImage(Option<Value>),
    /// According to this journal the forward task never started.
    NeverBegan,
    /// Neither journal has a before-image.
    Missing,
}

impl Participant {
    /// Starts an undo task; returns `false` if it ended immediately.
    pub(super) fn start_undo(
        &mut self,
        now: Millis,
        task: TaskOrder,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let (Some(execution), Mode::Undo { of }) = (&self.live.execution, &task.mode) else {
            return true;
        };
        let run = execution.run.clone();
        let at = (execution.phase, execution.attempt);
        let before_image = match self.undo_basis(&run, of) {
            UndoBasis::BeforeImage(before_image) => before_image,
            UndoBasis::NeverBegan => {
                self.end_task(&run, at, &task.step, End::of(Outcome::Unchanged), effects);
                return false;
            }
            UndoBasis::Missing => {
                let reason = format!(
                    "neither this agent's journal nor the coordinator's knows what {of} found \
                     before it changed anything; compare the host by hand"
                );
                let end = End::of(Outcome::Unknown { reason });
                self.end_task(&run, at, &task.step, end, effects);
                if let Some(execution) = &mut self.live.execution {
                    execution.stop = true;
                }
                return false;
            }
        };
        self.declare_intent(&run, at, &task.step, before_image.clone(), effects);
        let inputs = self.current_inputs();
        if let Some(execution) = &mut self.live.execution {
            execution.stage = Stage::Acting(task.step.clone());
            effects.push(Effect::Undo {
                run,
                phase: at.0,
                attempt: at.1,
                inputs,
                before_image,
                deadline: now.saturating_add(task.timeout).min(execution.finish_at),
                task,
            });
        }
        true
    }

    fn undo_basis(&self, run: &RunId, of: &StepId) -> UndoBasis {
        match self.supplied_before_image(of) {
            // The journal that recorded the start of the forward task is lost,
            // so the entries of this one about that task are incomplete.
            Some(Value::Null) => return UndoBasis::Missing,
            Some(before_image) => return UndoBasis::BeforeImage(Some(before_image)),
            None => {}
        }
        let own = self.state.task(run, of);
        if let Some(before_image) = own.and_then(|log| log.before_image.clone()) {
            return UndoBasis::BeforeImage(before_image);
        }
        if own.is_some() || self.promised_forward(run, of) {
            return UndoBasis::NeverBegan;
        }
        UndoBasis::Missing
    }

    /// The promise of a forward task is in this journal, so its intent would be
    /// too.
    fn promised_forward(&self, run: &RunId, of: &StepId) -> bool {
        let phases = self.state.run(run).map(|log| &log.phases);
        phases.into_iter().flatten().any(|(phase, promise)| {
            phase.track == Track::Forward && promise.tasks.iter().any(|task| task.step == *of)
        })
    }

    fn supplied_before_image(&self, of: &StepId) -> Option<Value> {
        let execution = self.live.execution.as_ref()?;
        let promise = self.state.promise(&execution.run, execution.phase)?;
        match &promise.status {
            PromiseStatus::Released { before_images, .. } => before_images.get(of).cloned(),
            PromiseStatus::Live
            | PromiseStatus::Refused { .. }
            | PromiseStatus::Tombstoned { .. } => None,
        }
    }
}
