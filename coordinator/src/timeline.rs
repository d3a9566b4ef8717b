//! When a run and its phases reached which state. The times are the journal's
//! wall-clock times, so they survive restarts; no decision depends on them.

use lockstep_barrier::coordinator::Entry;
use lockstep_barrier::ids::{AgentName, PhaseRef, StepId};
use lockstep_barrier::record::Record;
use std::collections::BTreeMap;

/// Milliseconds since the epoch; 0: not reached.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhaseTimes {
    pub prepared: u64,
    /// Start of the latest Prepare round.
    pub round: u64,
    /// Its gate was opened, if it has one.
    pub gate_opened: u64,
    pub released: u64,
    /// Completed, failed or skipped.
    pub ended: u64,
}

#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timeline {
    pub began: u64,
    /// 0 while it has not ended.
    pub ended: u64,
    pub phases: BTreeMap<PhaseRef, PhaseTimes>,
    /// When the last outcome of each task was received.
    outcomes: BTreeMap<(StepId, AgentName), u64>,
    /// Time spent in actions, by phase and agent, in milliseconds.
    actions: BTreeMap<(PhaseRef, AgentName), u64>,
}

impl Timeline {
    pub fn note(&mut self, entry: &Entry, at_ms: u64) {
        match &entry.record {
            Record::Began { .. } => self.began = at_ms,
            Record::Ended { .. } => self.ended = at_ms,
            Record::Preparing { phase, .. } => {
                let times = self.phases.entry(*phase).or_default();
                if times.prepared == 0 {
                    times.prepared = at_ms;
                }
                times.round = at_ms;
                // The time of an earlier attempt doesn't count for this one.
                self.actions.retain(|(of, _), _| of != phase);
            }
            Record::GateOpened { phase, .. } => self.times(*phase).gate_opened = at_ms,
            Record::Released { phase, .. } => self.times(*phase).released = at_ms,
            Record::Completed { phase } | Record::Failed { phase, .. } => {
                self.times(*phase).ended = at_ms;
            }
            Record::Skipped { phase, .. } => self.times(*phase).ended = at_ms,
            Record::TaskEnded { agent, report, .. } => {
                self.outcomes
                    .insert((report.step.clone(), agent.clone()), at_ms);
                *self
                    .actions
                    .entry((report.phase, agent.clone()))
                    .or_default() += report.took;
            }
            Record::TermBegan { .. }
            | Record::TookOver { .. }
            | Record::TaskLost { .. }
            | Record::Revoked { .. }
            | Record::RetryDecided { .. }
            | Record::Waived { .. }
            | Record::UnknownResolved { .. }
            | Record::Paused { .. }
            | Record::Resumed { .. }
            | Record::RollbackDecided { .. }
            | Record::RollbackBegan {}
            | Record::AbortDecided { .. }
            | Record::Breached { .. }
            | Record::Disarmed { .. }
            | Record::Contradicted { .. }
            | Record::UndoOutstanding { .. }
            | Record::LateUndoPreparing { .. }
            | Record::LateUndoReleased { .. }
            | Record::LateUndoLeft { .. }
            | Record::JournalLost { .. }
            | Record::ClosedBy { .. } => {}
        }
    }

    fn times(&mut self, phase: PhaseRef) -> &mut PhaseTimes {
        self.phases.entry(phase).or_default()
    }

    /// When the last outcome of a task was received; 0 if none was.
    pub fn outcome(&self, step: &StepId, agent: &AgentName) -> u64 {
        let key = (step.clone(), agent.clone());
        self.outcomes.get(&key).copied().unwrap_or(0)
    }

    /// The longest chain of actions of one agent in a phase: its critical
    /// path.
    pub fn critical_path(&self, phase: PhaseRef) -> u64 {
        self.actions
            .iter()
            .filter(|((of, _), _)| *of == phase)
            .map(|(_, took)| *took)
            .max()
            .unwrap_or(0)
    }

    /// The overhead of the barrier in a phase: from its last Prepare to its end,
    /// less its critical path and less the wait at its gate.
    pub fn barrier(&self, phase: PhaseRef) -> u64 {
        let Some(times) = self.phases.get(&phase).filter(|times| times.released != 0) else {
            return 0;
        };
        let from = times.round.max(times.gate_opened);
        times
            .ended
            .saturating_sub(from)
            .saturating_sub(self.critical_path(phase))
    }

    /// Whether one phase was released, and the other has not ended.
    pub fn is_between(&self, from: PhaseRef, to: PhaseRef) -> bool {
        let released = self.phases.get(&from).map_or(0, |times| times.released);
        let ended = self.phases.get(&to).map_or(0, |times| times.ended);
        released != 0 && ended == 0 && self.ended == 0
    }

    /// Milliseconds from one phase's release to another's end, or until now.
    pub fn between(&self, from: PhaseRef, to: PhaseRef, now: u64) -> u64 {
        let began = self.phases.get(&from).map_or(0, |times| times.released);
        if began == 0 {
            return 0;
        }
        let ended = self.phases.get(&to).map_or(0, |times| times.ended);
        let until = [ended, self.ended, now]
            .into_iter()
            .find(|at| *at != 0)
            .unwrap_or(now);
        until.saturating_sub(began)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_barrier::ids::Track;

    #[test]
    fn the_barriers_overhead_excludes_actions_and_gate() {
        let phase = PhaseRef {
            track: Track::Forward,
            index: 0,
        };
        let mut timeline = Timeline::default();
        let times = PhaseTimes {
            prepared: 100,
            round: 100,
            gate_opened: 5000,
            released: 5010,
            ended: 5100,
        };
        timeline.phases.insert(phase, times);
        timeline.actions.insert((phase, "a".into()), 30);
        timeline.actions.insert((phase, "b".into()), 80);
        assert_eq!(timeline.critical_path(phase), 80);
        assert_eq!(timeline.barrier(phase), 20);
    }

    #[test]
    fn a_skipped_phase_has_no_overhead() {
        let phase = PhaseRef {
            track: Track::Rollback,
            index: 0,
        };
        let mut timeline = Timeline::default();
        let skipped = PhaseTimes {
            ended: 1_790_000_000_000,
            ..PhaseTimes::default()
        };
        timeline.phases.insert(phase, skipped);
        assert_eq!(timeline.barrier(phase), 0);
    }
}
