//! Watches at an agent: armed durably, attested on request, and disarmed before
//! what they guard is opened (R16, R17).

use super::{Effect, Participant};
use crate::ids::{RunId, StepId};
use crate::message::{Reply, TaskOrder};
use crate::record::ParticipantRecord;

impl Participant {
    /// Arms the watches again that were armed before a restart. Each decides
    /// whether the gap counts as a breach.
    pub(super) fn rearm_watches(&self, effects: &mut Vec<Effect>) {
        for (run, log) in &self.state.runs {
            for (step, watch) in &log.watches {
                effects.push(Effect::Arm {
                    run: run.clone(),
                    step: step.clone(),
                    task: watch.task.clone(),
                    inputs: watch.inputs.clone(),
                    after_gap: true,
                });
            }
        }
    }

    /// Starts a watch whose task has ended as armed. Before the task is concluded:
    /// if the run was closed meanwhile, that disarms it again.
    pub(super) fn arm(&mut self, run: &RunId, task: TaskOrder, effects: &mut Vec<Effect>) {
        let inputs = self.current_inputs();
        self.persist(
            ParticipantRecord::WatchArmed {
                run: run.clone(),
                task: task.clone(),
                inputs: inputs.clone(),
            },
            effects,
        );
        effects.push(Effect::Arm {
            run: run.clone(),
            step: task.step.clone(),
            task,
            inputs,
            after_gap: false,
        });
    }

    pub(super) fn is_armed(&self, run: &RunId, step: &StepId) -> bool {
        self.state
            .run(run)
            .is_some_and(|log| log.watches.contains_key(step))
    }

    pub(super) fn attest(&self, run: RunId, step: StepId, nonce: u64, effects: &mut Vec<Effect>) {
        if self.is_armed(&run, &step) {
            effects.push(Effect::Attest { run, step, nonce });
            return;
        }
        let breach = Some(format!("watch {step} is not armed on {}", self.agent));
        effects.push(Effect::Send(Reply::Attestation {
            run,
            step,
            nonce,
            breach,
        }));
    }

    /// Answers with the watch's result. A breach that it saw earlier is part of
    /// every later attestation.
    pub(super) fn attested(
        &mut self,
        run: RunId,
        step: StepId,
        nonce: u64,
        breach: Option<String>,
        effects: &mut Vec<Effect>,
    ) {
        if let Some(detail) = &breach {
            self.record_breach(&run, &step, detail.clone(), effects);
        }
        let log = self.state.run(&run).and_then(|log| log.watches.get(&step));
        let Some(watch) = log else {
            return;
        };
        let breach = breach.or_else(|| watch.breaches.first().cloned());
        effects.push(Effect::Send(Reply::Attestation {
            run,
            step,
            nonce,
            breach,
        }));
    }

    pub(super) fn watch_broke(
        &mut self,
        run: &RunId,
        step: &StepId,
        detail: String,
        effects: &mut Vec<Effect>,
    ) {
        if self.record_breach(run, step, detail.clone(), effects) {
            effects.push(Effect::Send(Reply::Breach {
                run: run.clone(),
                step: step.clone(),
                detail,
            }));
        }
    }

    fn record_breach(
        &mut self,
        run: &RunId,
        step: &StepId,
        detail: String,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let log = self.state.run(run).and_then(|log| log.watches.get(step));
        let new = log.is_some_and(|watch| !watch.breaches.contains(&detail));
        if new {
            let (run, step) = (run.clone(), step.clone());
            self.persist(ParticipantRecord::WatchBroke { run, step, detail }, effects);
        }
        new
    }

    /// Stops watches, then confirms. Watches that are not armed are confirmed as
    /// well, because the order may be a repeated one.
    pub(super) fn disarm(&mut self, run: &RunId, steps: &[StepId], effects: &mut Vec<Effect>) {
        self.stop_watches(run, steps, effects);
        effects.push(Effect::Send(Reply::Disarmed {
            run: run.clone(),
            steps: steps.to_vec(),
        }));
    }

    pub(super) fn stop_watches(
        &mut self,
        run: &RunId,
        steps: &[StepId],
        effects: &mut Vec<Effect>,
    ) {
        let armed: Vec<StepId> = steps
            .iter()
            .filter(|step| self.is_armed(run, step))
            .cloned()
            .collect();
        if armed.is_empty() {
            return;
        }
        for step in &armed {
            effects.push(Effect::Disarm {
                run: run.clone(),
                step: step.clone(),
            });
        }
        let run = run.clone();
        let steps = armed;
        self.persist(ParticipantRecord::Disarmed { run, steps }, effects);
    }
}
