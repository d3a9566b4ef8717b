//! Fold of an agent's records into its state, without any decision.

use super::Entry;
use super::state::{Promise, PromiseStatus, RunLog, State, WatchLog};
use crate::ids::{Digest, PhaseRef, RunId, Track};
use crate::message::{Changes, TaskReport};
use crate::record::{ParticipantRecord, Tombstone, UnknownFormat};
use std::collections::BTreeMap;

/// Why an agent's journal can't be folded.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParticipantFoldError {
    /// A record is missing or out of order.
    #[error("found record {found} where record {expected} was expected")]
    Gap { expected: u64, found: u64 },
    /// The first record doesn't open a journal.
    #[error("the agent's journal doesn't begin with its `opened` record")]
    NotOpened,
    #[error("record {seq} opens the journal a second time")]
    OpenedTwice { seq: u64 },
    #[error(transparent)]
    Format(#[from] UnknownFormat),
}

impl State {
    /// Folds an agent's journal.
    ///
    /// # Errors
    /// If the entries are not a complete journal of the current format.
    pub fn fold(entries: impl IntoIterator<Item = Entry>) -> Result<Self, ParticipantFoldError> {
        let mut state = Self::default();
        for entry in entries {
            if entry.seq != state.last + 1 {
                return Err(ParticipantFoldError::Gap {
                    expected: state.last + 1,
                    found: entry.seq,
                });
            }
            match (entry.seq, entry.record.opens()) {
                (1, Some(format)) => format.check()?,
                (1, None) => return Err(ParticipantFoldError::NotOpened),
                (seq, Some(_)) => return Err(ParticipantFoldError::OpenedTwice { seq }),
                (_, None) => {}
            }
            state.apply(entry);
        }
        Ok(state)
    }

    pub(super) fn apply(&mut self, entry: Entry) {
        self.last = entry.seq;
        match entry.record {
            // Checked by the fold; it concerns no run.
            ParticipantRecord::Opened { .. } => {}
            ParticipantRecord::Accepted {
                run,
                term,
                decision,
            } => {
                self.term = term;
                self.runs.entry(run).or_default().decision = decision;
            }
            ParticipantRecord::Closed { run } => self.close(run),
            ParticipantRecord::Promised { .. }
            | ParticipantRecord::Refused { .. }
            | ParticipantRecord::Tombstoned { .. }
            | ParticipantRecord::Released { .. }
            | ParticipantRecord::ForwardClosed { .. } => self.apply_to_promise(entry.record),
            ParticipantRecord::Intent { .. }
            | ParticipantRecord::Changed { .. }
            | ParticipantRecord::Ended { .. }
            | ParticipantRecord::Acked { .. } => self.apply_to_task(entry.record),
            ParticipantRecord::WatchArmed { .. }
            | ParticipantRecord::WatchBroke { .. }
            | ParticipantRecord::Disarmed { .. } => self.apply_to_watch(entry.record),
        }
    }

    fn log_of(&mut self, run: RunId, digest: Digest) -> &mut RunLog {
        let log = self.runs.entry(run).or_default();
        log.digest.get_or_insert(digest);
        log
    }

    fn apply_to_promise(&mut self, record: ParticipantRecord) {
        match record {
            ParticipantRecord::Promised {
                run,
                digest,
                phase,
                attempt,
                tasks,
                finish_by,
                probes,
            } => {
                let promise = Promise {
                    attempt,
                    status: PromiseStatus::Live,
                    tasks,
                    finish_by,
                    probes,
                };
                self.log_of(run, digest).phases.insert(phase, promise);
            }
            ParticipantRecord::Refused {
                run,
                digest,
                phase,
                attempt,
                reasons,
            } => {
                let promise = empty_promise(attempt, PromiseStatus::Refused { reasons });
                self.log_of(run, digest).phases.insert(phase, promise);
            }
            ParticipantRecord::Tombstoned {
                run,
                digest,
                phase,
                attempt,
                why,
            } => self.tombstone(run, digest, phase, attempt, why),
            ParticipantRecord::ForwardClosed { run, digest } => self.close_forward(run, digest),
            ParticipantRecord::Released {
                run,
                phase,
                inputs,
                before_images,
                at,
                ..
            } => {
                let log = self.runs.entry(run).or_default();
                log.released.entry(phase).or_insert_with(|| at.clone());
                if let Some(promise) = log.phases.get_mut(&phase) {
                    promise.status = PromiseStatus::Released {
                        inputs,
                        before_images,
                        at,
                    };
                }
            }
            // [`State::apply`] handles these elsewhere.
            ParticipantRecord::Opened { .. }
            | ParticipantRecord::Accepted { .. }
            | ParticipantRecord::Intent { .. }
            | ParticipantRecord::Changed { .. }
            | ParticipantRecord::Ended { .. }
            | ParticipantRecord::Acked { .. }
            | ParticipantRecord::WatchArmed { .. }
            | ParticipantRecord::WatchBroke { .. }
            | ParticipantRecord::Disarmed { .. }
            | ParticipantRecord::Closed { .. } => {}
        }
    }

    fn tombstone(
        &mut self,
        run: RunId,
        digest: Digest,
        phase: PhaseRef,
        attempt: u32,
        why: Tombstone,
    ) {
        let status = PromiseStatus::Tombstoned { why };
        let phases = &mut self.log_of(run, digest).phases;
        match phases.get_mut(&phase) {
            Some(promise) if promise.attempt == attempt => promise.status = status,
            _ => {
                phases.insert(phase, empty_promise(attempt, status));
            }
        }
    }

    fn close_forward(&mut self, run: RunId, digest: Digest) {
        let log = self.log_of(run, digest);
        log.forward_closed = true;
        for (phase, promise) in &mut log.phases {
            if phase.track == Track::Forward && promise.status == PromiseStatus::Live {
                promise.status = PromiseStatus::Tombstoned {
                    why: Tombstone::Undone,
                };
            }
        }
    }

    fn apply_to_task(&mut self, record: ParticipantRecord) {
        match record {
            ParticipantRecord::Intent {
                run,
                attempt,
                step,
                before_image,
                ..
            } => {
                let log = self.runs.entry(run).or_default();
                let task = log.tasks.entry(step).or_default();
                if task.intent != Some(attempt) {
                    task.changes = Changes::default();
                }
                task.intent = Some(attempt);
                task.before_image.get_or_insert(before_image);
            }
            ParticipantRecord::Changed {
                run, step, changes, ..
            } => {
                let log = self.runs.entry(run).or_default();
                log.tasks.entry(step).or_default().changes.extend(changes);
            }
            ParticipantRecord::Ended { report } => self.ended(report),
            ParticipantRecord::Acked {
                run, step, attempt, ..
            } => {
                let log = self.runs.get_mut(&run);
                let task = log.and_then(|log| log.tasks.get_mut(&step));
                if let Some(task) = task.filter(|task| task.ended(attempt).is_some()) {
                    task.unacknowledged = false;
                }
            }
            // [`State::apply`] handles these elsewhere.
            ParticipantRecord::Opened { .. }
            | ParticipantRecord::Accepted { .. }
            | ParticipantRecord::Promised { .. }
            | ParticipantRecord::Refused { .. }
            | ParticipantRecord::Tombstoned { .. }
            | ParticipantRecord::ForwardClosed { .. }
            | ParticipantRecord::Released { .. }
            | ParticipantRecord::WatchArmed { .. }
            | ParticipantRecord::WatchBroke { .. }
            | ParticipantRecord::Disarmed { .. }
            | ParticipantRecord::Closed { .. } => {}
        }
    }

    fn ended(&mut self, report: TaskReport) {
        let log = self.runs.entry(report.run.clone()).or_default();
        let task = log.tasks.entry(report.step.clone()).or_default();
        task.report = Some(report);
        task.unacknowledged = true;
    }

    fn apply_to_watch(&mut self, record: ParticipantRecord) {
        match record {
            ParticipantRecord::WatchArmed { run, task, inputs } => {
                let log = self.runs.entry(run).or_default();
                let step = task.step.clone();
                let watch = WatchLog {
                    task,
                    inputs,
                    breaches: Vec::new(),
                };
                log.watches.insert(step, watch);
            }
            ParticipantRecord::WatchBroke { run, step, detail } => {
                let log = self.runs.get_mut(&run);
                if let Some(watch) = log.and_then(|log| log.watches.get_mut(&step)) {
                    watch.breaches.push(detail);
                }
            }
            ParticipantRecord::Disarmed { run, steps } => {
                if let Some(log) = self.runs.get_mut(&run) {
                    log.watches.retain(|step, _| !steps.contains(step));
                }
            }
            // [`State::apply`] handles these elsewhere.
            ParticipantRecord::Opened { .. }
            | ParticipantRecord::Accepted { .. }
            | ParticipantRecord::Promised { .. }
            | ParticipantRecord::Refused { .. }
            | ParticipantRecord::Tombstoned { .. }
            | ParticipantRecord::ForwardClosed { .. }
            | ParticipantRecord::Released { .. }
            | ParticipantRecord::Intent { .. }
            | ParticipantRecord::Changed { .. }
            | ParticipantRecord::Ended { .. }
            | ParticipantRecord::Acked { .. }
            | ParticipantRecord::Closed { .. } => {}
        }
    }
}

fn empty_promise(attempt: u32, status: PromiseStatus) -> Promise {
    Promise {
        attempt,
        status,
        tasks: Vec::new(),
        finish_by: 0,
        probes: BTreeMap::new(),
    }
}
