//! When things happened, for people: taken from the journal's wall-clock
//! times, so it survives restarts. No decision rests on it.

use lockstep_barrier::coordinator::Entry;
use lockstep_barrier::ids::{AgentName, PhaseRef};
use lockstep_barrier::record::Record;
use std::collections::BTreeMap;

/// When a phase reached what.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PhaseTimes {
    pub prepared: u64,
    /// Latest Prepare round began.
    pub round: u64,
    /// Its gate was opened, if it has one.
    pub gate_opened: u64,
    pub released: u64,
    /// Completed, failed or skipped.
    pub ended: u64,
}

/// When a run reached what.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Timeline {
    pub began: u64,
    /// Ended; 0 while it goes on.
    pub ended: u64,
    pub phases: BTreeMap<PhaseRef, PhaseTimes>,
    /// Actions' own time by phase and agent, all of that agent's tasks.
    actions: BTreeMap<(PhaseRef, AgentName), u64>,
}

impl Timeline {
    /// Takes an entry in.
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
                // What an earlier attempt took is not this one's.
                self.actions.retain(|(of, _), _| of != phase);
            }
            Record::GateOpened { phase, .. } => self.times(*phase).gate_opened = at_ms,
            Record::Released { phase, .. } => self.times(*phase).released = at_ms,
            Record::Completed { phase } | Record::Failed { phase, .. } => {
                self.times(*phase).ended = at_ms;
            }
            Record::Skipped { phase, .. } => self.times(*phase).ended = at_ms,
            Record::TaskEnded { agent, report, .. } => {
                *self
                    .actions
                    .entry((report.phase, agent.clone()))
                    .or_default() += report.took;
            }
            _ => {}
        }
    }

    fn times(&mut self, phase: PhaseRef) -> &mut PhaseTimes {
        self.phases.entry(phase).or_default()
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

    /// What the barrier itself cost a phase: from its (last) Prepare to its
    /// end, less its critical path and less the wait at its gate.
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
    fn the_barriers_cost_leaves_out_actions_and_gate() {
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
    fn a_phase_that_was_left_out_cost_nothing() {
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
