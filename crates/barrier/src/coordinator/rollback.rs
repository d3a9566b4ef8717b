//! The start of a rollback, and the end of a run. Before a run reverses or is
//! aborted, no task is open and no watch is armed (R2).

use super::state::{PhaseStatus, TaskKey, TaskStatus, task_key};
use super::{Effect, Run};
use crate::ids::{Millis, PhaseRef, Track};
use crate::record::{Ending, OutstandingUndoCause, Record};
use std::collections::BTreeSet;

impl Run {
    /// Closes open tasks and watches between the decision to roll back or abort
    /// and its execution.
    pub(super) fn drain(&mut self, now: Millis, effects: &mut Vec<Effect>) -> bool {
        let Some(phase) = self.state.current() else {
            return self.drained(now, effects);
        };
        if self.revoke_current(phase, effects) || self.mark_overdue_lost(now, phase, effects) {
            return true;
        }
        let open: Vec<TaskKey> = self
            .state
            .open_tasks()
            .map(|(key, _)| key.clone())
            .collect();
        if open.is_empty() {
            return self.drained(now, effects);
        }
        let detachable = self.state.abort.is_none()
            && open.iter().all(|(step, agent)| {
                self.is_detachable(agent)
                    && self.state.tasks[&task_key(step, agent)].status == TaskStatus::Lost
            });
        if detachable {
            for (step, agent) in open {
                self.record_outstanding_undo(
                    &agent,
                    &[step],
                    &OutstandingUndoCause::Unreachable,
                    effects,
                );
            }
        }
        detachable
    }

    /// Revokes the current phase, if it is promised or released.
    fn revoke_current(&mut self, phase: PhaseRef, effects: &mut Vec<Effect>) -> bool {
        let Some(state) = self.state.phase(phase) else {
            return false;
        };
        // A phase that failed before its release has been revoked.
        let revocable = match state.status {
            PhaseStatus::Preparing | PhaseStatus::Released => true,
            PhaseStatus::Failed { .. } => self.state.open_tasks().next().is_some(),
            PhaseStatus::Pending | PhaseStatus::Completed | PhaseStatus::Skipped { .. } => false,
        };
        if !revocable {
            return false;
        }
        if state.revoked {
            // It was revoked before the run turned back: repeated, because only now
            // are tasks that change nothing cancelled.
            if self.live.revoke_repeated != Some(phase) {
                self.live.revoke_repeated = Some(phase);
                self.send_revoke(phase, effects);
            }
            return false;
        }
        self.live.revoke_repeated = Some(phase);
        let attempt = state.attempt;
        self.persist(Record::Revoked { phase, attempt }, effects);
        self.send_revoke(phase, effects);
        true
    }

    /// No task is open any more.
    fn drained(&mut self, now: Millis, effects: &mut Vec<Effect>) -> bool {
        if self.state.abort.is_some() {
            let changed: Vec<TaskKey> = self.state.still_changed().cloned().collect();
            for (step, agent) in changed {
                self.record_outstanding_undo_once(
                    &(step, agent),
                    &OutstandingUndoCause::Aborted,
                    effects,
                );
            }
            self.end(Ending::Aborted, effects);
            return true;
        }
        let watches: BTreeSet<TaskKey> = self.state.watches.keys().cloned().collect();
        if watches.is_empty() {
            self.live.disarming_since = None;
            self.persist(Record::RollbackBegan {}, effects);
            return true;
        }
        let track = Track::Forward;
        let index = self.state.current().map_or(0, |phase| phase.index);
        self.request_disarming(now, PhaseRef { track, index }, &watches, effects);
        false
    }

    fn record_outstanding_undo_once(
        &mut self,
        key: &TaskKey,
        cause: &OutstandingUndoCause,
        effects: &mut Vec<Effect>,
    ) {
        let (step, agent) = key;
        let known = self.state.outstanding_undos.iter().any(|outstanding_undo| {
            outstanding_undo.step == *step && outstanding_undo.agent == *agent
        });
        if !known {
            self.record_outstanding_undo(agent, std::slice::from_ref(step), cause, effects);
        }
    }

    /// Records the undos that a skipped rollback phase leaves outstanding.
    pub(super) fn record_skipped_undos(&mut self, phase: PhaseRef, effects: &mut Vec<Effect>) {
        let undone: Vec<TaskKey> = self
            .state
            .tasks_of(phase)
            .filter(|(_, task)| task.attempt > 0 || task.status != TaskStatus::Waiting)
            .filter(|(_, task)| !task.is_settled())
            .map(|(key, _)| key.clone())
            .collect();
        let refused: Vec<TaskKey> = self
            .state
            .phase(phase)
            .into_iter()
            .flat_map(|p| &p.tasks)
            .flat_map(|(agent, steps)| steps.iter().map(|s| task_key(s, agent)))
            .filter(|key| {
                !self
                    .state
                    .tasks
                    .get(key)
                    .is_some_and(super::TaskState::is_settled)
            })
            .collect();
        for key in undone.into_iter().chain(refused).collect::<BTreeSet<_>>() {
            self.record_outstanding_undo_once(&key, &OutstandingUndoCause::Skipped, effects);
        }
    }

    /// Ends the run after the last phase of its track.
    pub(super) fn end_of_track(&mut self, now: Millis, effects: &mut Vec<Effect>) -> bool {
        let ending = match self.state.track() {
            Track::Forward => Ending::Completed,
            Track::Rollback if self.end_waits_for_late_undos(now) => return false,
            Track::Rollback => Ending::RolledBack,
        };
        self.end(ending, effects);
        true
    }

    /// Close follows to every agent that has nothing left to do.
    fn end(&mut self, ending: Ending, effects: &mut Vec<Effect>) {
        self.persist(Record::Ended { ending }, effects);
    }
}
