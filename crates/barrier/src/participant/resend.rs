//! Resending on a new session, acknowledgement, and the close of a run.

use super::{Effect, Participant, Stage};
use crate::ids::{Decision, PhaseRef, RunId, StepId, Term};
use crate::message::Reply;
use crate::record::ParticipantRecord;

impl Participant {
    /// Outcomes that the coordinator has not acknowledged, and every breach.
    pub(super) fn resend(&self, effects: &mut Vec<Effect>) {
        for (run, log) in &self.state.runs {
            for task in log.tasks.values().filter(|task| task.unacknowledged) {
                if let Some(report) = &task.report {
                    effects.push(Effect::Send(Reply::Outcome(report.clone())));
                }
            }
            for (step, watch) in &log.watches {
                for detail in &watch.breaches {
                    effects.push(Effect::Send(Reply::Breach {
                        run: run.clone(),
                        step: step.clone(),
                        detail: detail.clone(),
                    }));
                }
            }
        }
    }

    pub(super) fn acknowledged(
        &mut self,
        run: RunId,
        step: StepId,
        phase: PhaseRef,
        attempt: u32,
        effects: &mut Vec<Effect>,
    ) {
        let log = self.state.task(&run, &step);
        let waits = log.is_some_and(|log| {
            let report = log.ended(attempt);
            log.unacknowledged && report.is_some_and(|report| report.phase == phase)
        });
        if waits {
            self.persist(
                ParticipantRecord::Acked {
                    run,
                    step,
                    phase,
                    attempt,
                },
                effects,
            );
        }
    }

    /// Closes an ended run. A task that is still running, because the operator
    /// waived it, is cancelled first.
    pub(super) fn close(
        &mut self,
        run: RunId,
        term: Term,
        decision: Decision,
        effects: &mut Vec<Effect>,
    ) {
        if self.state.run(&run).is_none() {
            if self.is_stale(term) {
                return;
            }
            if !self.state.closed.contains_key(&run) {
                // Recorded, so that an order of this run that arrives later doesn't lock
                // this agent to it.
                self.persist(ParticipantRecord::Closed { run: run.clone() }, effects);
            }
            effects.push(Effect::Send(Reply::Closed { run }));
            return;
        }
        if !self.accept_decision(&run, term, decision, effects) {
            return;
        }
        if let Some(execution) = &mut self.live.execution
            && execution.run == run
        {
            execution.stop = true;
            execution.closing = true;
            if let (Stage::Acting(step), false) = (&execution.stage, execution.cancelled) {
                let step = step.clone();
                execution.cancelled = true;
                effects.push(Effect::Cancel {
                    run,
                    step,
                    attempt: execution.attempt,
                });
            }
            return;
        }
        self.close_now(run, effects);
    }

    pub(super) fn close_now(&mut self, run: RunId, effects: &mut Vec<Effect>) {
        let armed = self.state.run(&run).map(|log| log.watches.keys().cloned());
        let steps: Vec<StepId> = armed.into_iter().flatten().collect();
        self.stop_watches(&run, &steps, effects);
        self.live.promises.retain(|(owner, _), _| *owner != run);
        self.live.probing = None;
        self.persist(ParticipantRecord::Closed { run: run.clone() }, effects);
        effects.push(Effect::Send(Reply::Closed { run }));
    }
}
