//! What a run is waiting for, and its next deadline.

use super::state::{PhaseStatus, TaskStatus, task_key};
use super::{ATTESTATION_MAX_AGE, Run};
use crate::ids::{AgentName, Millis, PhaseRef, StepId};
use crate::message::Verdict;
use crate::resolved_plan::Gate;
use serde::Serialize;

/// Something that a run is waiting for.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "kebab-case", tag = "for")]
pub enum Wait {
    Vote {
        agent: AgentName,
        connected: bool,
        /// It is busy with an earlier attempt.
        busy: bool,
    },
    Approval {
        phase: PhaseRef,
    },
    /// An operator's `resume`, at a hold gate.
    HoldGate {
        phase: PhaseRef,
    },
    /// The end of a pause.
    Paused {
        by: String,
    },
    /// An operator's `resume`, after a contradiction or a late breach.
    Held {
        reasons: Vec<String>,
    },
    /// An operator's decision on a failed phase.
    Decision {
        phase: PhaseRef,
    },
    /// A watch to be disarmed.
    Disarm {
        agent: AgentName,
        step: StepId,
    },
    Attestation {
        agent: AgentName,
        step: StepId,
    },
    Outcome {
        agent: AgentName,
        step: StepId,
        /// It is overdue (R5): only an outcome from the agent or an operator's
        /// waiver ends the wait.
        lost: bool,
    },
    /// An operator to take over with `--take-over`: another coordinator has led
    /// this run (R11).
    TakeOver {
        reason: String,
    },
    /// An operator's `abort`: another coordinator was taken over, whose decisions
    /// are not known (R11).
    GiveUp {
        reasons: Vec<String>,
    },
    /// An agent to confirm the end of the run.
    Close {
        agent: AgentName,
    },
}

impl Run {
    /// What the run is waiting for; empty only if it is closed.
    pub fn waits_on(&self) -> Vec<Wait> {
        if let Some(reason) = &self.live.fenced {
            return vec![Wait::TakeOver {
                reason: reason.clone(),
            }];
        }
        if self.state.ended.is_some() {
            let mut waits = self.waits_to_close();
            waits.extend(self.late_waits());
            return waits;
        }
        if !self.state.decisions_lost.is_empty() && self.state.abort.is_none() {
            return vec![Wait::GiveUp {
                reasons: self.state.decisions_lost.clone(),
            }];
        }
        let mut waits = self.waits_for_outcomes();
        if self.is_draining() {
            if waits.is_empty() {
                waits.extend(self.waits_for_disarming());
            }
            return waits;
        }
        if !self.state.held.is_empty() {
            waits.push(Wait::Held {
                reasons: self.state.held.clone(),
            });
        }
        if let Some(request) = &self.state.paused {
            waits.push(Wait::Paused {
                by: request.by.clone(),
            });
        }
        waits.extend(self.late_waits());
        let Some(phase) = self.state.current() else {
            return waits;
        };
        match self.state.phase(phase).map(|p| &p.status) {
            Some(PhaseStatus::Preparing) => waits.extend(self.waits_before_release(phase)),
            Some(PhaseStatus::Failed { .. }) => waits.push(Wait::Decision { phase }),
            // A released phase waits for the outcomes listed above; the others are
            // left immediately.
            Some(
                PhaseStatus::Pending
                | PhaseStatus::Released
                | PhaseStatus::Completed
                | PhaseStatus::Skipped { .. },
            )
            | None => {}
        }
        waits
    }

    /// A rollback or an abort is decided and waits for open tasks and watches.
    pub(super) fn is_draining(&self) -> bool {
        self.state.abort.is_some() || self.state.rollback.as_ref().is_some_and(|r| !r.began)
    }

    fn waits_to_close(&self) -> Vec<Wait> {
        let members = self.state.begin.members.keys();
        members
            .filter(|agent| !self.state.closed_by.contains(*agent))
            .map(|agent| Wait::Close {
                agent: agent.clone(),
            })
            .collect()
    }

    fn waits_for_outcomes(&self) -> Vec<Wait> {
        self.state
            .open_tasks()
            .map(|((step, agent), task)| Wait::Outcome {
                agent: agent.clone(),
                step: step.clone(),
                lost: task.status == TaskStatus::Lost,
            })
            .collect()
    }

    fn waits_for_disarming(&self) -> Vec<Wait> {
        self.to_disarm()
            .into_iter()
            .map(|(step, agent)| Wait::Disarm { agent, step })
            .collect()
    }

    fn waits_before_release(&self, phase: PhaseRef) -> Vec<Wait> {
        let mut waits = Vec::new();
        for agent in self
            .state
            .phase(phase)
            .into_iter()
            .flat_map(|p| p.tasks.keys())
        {
            let busy = match self.live.votes.get(agent).map(|vote| &vote.verdict) {
                None => false,
                Some(Verdict::Busy) => true,
                Some(Verdict::Ready { .. } | Verdict::Refuse { .. } | Verdict::Lapsed) => continue,
            };
            waits.push(Wait::Vote {
                agent: agent.clone(),
                connected: self.live.connected.contains(agent),
                busy,
            });
        }
        let Some(spec) = self.state.spec(phase).filter(|_| waits.is_empty()) else {
            return waits;
        };
        if !self.gate_is_open(phase, spec) {
            waits.push(match spec.gate {
                Gate::Hold => Wait::HoldGate { phase },
                Gate::Approval | Gate::None => Wait::Approval { phase },
            });
            return waits;
        }
        waits.extend(self.waits_for_disarming());
        if let Some(attesting) = &self.live.attesting {
            for (step, agent) in self.silent_watches(phase) {
                if !attesting.answered.contains(&task_key(&step, &agent)) {
                    waits.push(Wait::Attestation { agent, step });
                }
            }
        }
        waits
    }

    /// When [`Run::handle`] must be given a `Tick` at the latest; `None` if time
    /// alone changes nothing.
    pub fn next_deadline(&self) -> Option<Millis> {
        let stopped = self.live.fenced.is_some() || !self.state.decisions_lost.is_empty();
        if stopped {
            return None;
        }
        let late = self.late_deadline();
        if self.state.ended.is_some() {
            return late;
        }
        let phase = self.state.current();
        let own = phase.and_then(|phase| self.phase_deadline(phase));
        let deadlines = [own, self.outage_limit(), late];
        let next = deadlines.into_iter().flatten().min()?;
        // No deadline is enforced during the grace after a restart (R11).
        Some(next.max(self.live.grace_until.unwrap_or(0)))
    }

    fn phase_deadline(&self, phase: PhaseRef) -> Option<Millis> {
        let state = self.state.phase(phase)?;
        let overdue = self
            .state
            .tasks_of(phase)
            .filter(|(_, task)| task.status == TaskStatus::Released)
            .map(|((_, agent), _)| self.lost_at(phase, agent))
            .min();
        if self.is_draining() || state.status != PhaseStatus::Preparing {
            return overdue;
        }
        let spec = self.state.spec(phase)?;
        if !self.all_ready(phase) {
            let limit = self.live.round_began.saturating_add(spec.start_by);
            return self.busy_agents().into_values().chain([limit]).min();
        }
        let waits = !self.gate_is_open(phase, spec)
            || self.state.paused.is_some()
            || !self.state.held.is_empty();
        if waits {
            return None;
        }
        let attested = self
            .live
            .attesting
            .as_ref()
            .map(|a| a.requested_at.saturating_add(ATTESTATION_MAX_AGE + 1));
        Some(self.margin_ends(spec).min(attested.unwrap_or(Millis::MAX)))
    }
}
