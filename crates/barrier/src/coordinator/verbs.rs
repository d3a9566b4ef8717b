//! Operators' requests and their preconditions. A rejected verb changes nothing
//! and returns a remedy.

use super::state::{PhaseStatus, TaskKey, TaskStatus, task_key};
use super::{Effect, Run, Verb, VerbAction};
use crate::ids::{AgentName, Digest, PhaseRef, StepId, Track};
use crate::record::{OperatorRequest, Record, Resolution, RollbackCause, SkipCause};
use crate::resolved_plan::{Gate, StepSpec};
use serde::{Deserialize, Serialize};

/// Machine-readable reason for a rejection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum RejectionCode {
    /// The run has made a decision since the sequence that the operator saw.
    Stale,
    Ended,
    /// Another coordinator leads, or led, this run.
    Fenced,
    /// Another coordinator was taken over, and its decisions are not known.
    DecisionsLost,
    /// A rollback or an abort has been decided.
    AlreadyDecided,
    /// The phase is not the current one, or has no such gate.
    WrongPhase,
    WrongDigest,
    /// Votes are still missing.
    NotReady,
    /// The phase has not failed, or the run is not paused.
    NotNeeded,
    Open,
    /// A task is unclear and must be resolved first.
    Unclear,
    /// A proof or a watch can't be skipped, waived or resolved as done, nor can what
    /// a breach has voided.
    Proof,
    /// Later phases rely on a step, so it can't be skipped or waived.
    Required,
    /// The point of no return is passed.
    NoReturn,
    /// The plan has no rollback.
    NoRollbackPlan,
    /// A reason must be given.
    ReasonMissing,
    /// No such task, or its status doesn't allow the verb.
    NoSuchTask,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, thiserror::Error)]
#[error("{what}; {remedy}")]
pub struct VerbRejected {
    pub code: RejectionCode,
    pub what: String,
    pub remedy: String,
}

fn reject<T>(
    code: RejectionCode,
    what: impl Into<String>,
    remedy: impl Into<String>,
) -> Result<T, VerbRejected> {
    Err(VerbRejected {
        code,
        what: what.into(),
        remedy: remedy.into(),
    })
}

impl Run {
    /// Checks a verb against the state and records it.
    pub(super) fn decide_verb(
        &mut self,
        verb: Verb,
        effects: &mut Vec<Effect>,
    ) -> Result<(), VerbRejected> {
        if self.state.requests.contains_key(&verb.request) {
            return Ok(());
        }
        self.check_any_verb(&verb)?;
        let request = OperatorRequest {
            by: verb.by,
            id: verb.request,
            reason: verb.reason,
        };
        let record = self.record_of(verb.action, request)?;
        if let Record::Skipped { phase, .. } = &record
            && phase.track == Track::Rollback
        {
            self.record_skipped_undos(*phase, effects);
        }
        self.persist(record, effects);
        Ok(())
    }

    /// The record of a request, if the state allows it now.
    fn record_of(
        &self,
        action: VerbAction,
        request: OperatorRequest,
    ) -> Result<Record, VerbRejected> {
        Ok(match action {
            VerbAction::Approve { phase, digest } => {
                self.check_approval(phase, &digest)?;
                Record::GateOpened { phase, request }
            }
            VerbAction::Resume => self.resume_record(request)?,
            VerbAction::Pause => {
                self.check_pause()?;
                Record::Paused { request }
            }
            VerbAction::Retry => Record::RetryDecided {
                phase: self.check_retry()?,
                request: Some(request),
            },
            VerbAction::Skip => Record::Skipped {
                phase: self.check_skip(&request)?,
                why: SkipCause::Operator { request },
            },
            VerbAction::Rollback => {
                self.check_rollback()?;
                Record::RollbackDecided {
                    cause: RollbackCause::Operator { request },
                }
            }
            VerbAction::Abort => Record::AbortDecided { request },
            VerbAction::Waive { agent, step } => {
                self.check_waive(&agent, &step, &request)?;
                Record::Waived {
                    agent,
                    step,
                    request,
                }
            }
            VerbAction::ResolveUnknown {
                agent,
                step,
                resolution,
            } => self.resolve_record(agent, step, resolution, request)?,
        })
    }

    fn check_pause(&self) -> Result<(), VerbRejected> {
        self.check_not_draining()?;
        if self.state.paused.is_some() {
            return reject(
                RejectionCode::NotNeeded,
                "the run is paused",
                "resume ends it",
            );
        }
        Ok(())
    }

    fn check_any_verb(&self, verb: &Verb) -> Result<(), VerbRejected> {
        // A pause only restrains, whoever leads.
        if let Some(reason) = &self.live.fenced
            && verb.action != VerbAction::Pause
        {
            return reject(
                RejectionCode::Fenced,
                reason.clone(),
                "find the other coordinator and stop it, then start this one with --take-over",
            );
        }
        if let Some(ending) = self.state.ended {
            return reject(
                RejectionCode::Ended,
                format!("the run has ended ({ending:?})"),
                "start another run",
            );
        }
        if let (Some(reason), false) = (
            self.state.decisions_lost.first(),
            verb.action == VerbAction::Abort,
        ) {
            return reject(
                RejectionCode::DecisionsLost,
                format!("the run can't go on or back: {reason}"),
                "abort it: that stops what still runs, frees the agents, and lists what may be in \
                 effect; put that right by hand",
            );
        }
        let decided_at = self.state.decided_at();
        if verb.expected.is_some_and(|expected| expected < decided_at) {
            return reject(
                RejectionCode::Stale,
                format!(
                    "the run has moved on: it is at {} and the request was made at {}",
                    decided_at,
                    verb.expected.unwrap_or(0)
                ),
                "check the run again and repeat the request if it still applies",
            );
        }
        if self.state.abort.is_some() && !matches!(verb.action, VerbAction::Waive { .. }) {
            return reject(
                RejectionCode::AlreadyDecided,
                "the run is being aborted",
                "wait until nothing is open, or waive what can't be reached",
            );
        }
        Ok(())
    }

    fn check_not_draining(&self) -> Result<(), VerbRejected> {
        if self.is_draining() {
            return reject(
                RejectionCode::AlreadyDecided,
                "a rollback is decided and waits for open tasks",
                "wait until nothing is open, or waive what can't be reached",
            );
        }
        Ok(())
    }

    fn check_approval(&self, phase: PhaseRef, digest: &Digest) -> Result<(), VerbRejected> {
        self.check_not_draining()?;
        if *digest != self.state.begin.resolved_plan.digest {
            return reject(
                RejectionCode::WrongDigest,
                format!(
                    "the approval is for plan {digest}, this run's plan is {}",
                    self.state.begin.resolved_plan.digest
                ),
                "read this run's plan and approve its digest",
            );
        }
        let gate = self.state.spec(phase).map(|spec| spec.gate);
        if self.state.current() != Some(phase) || gate != Some(Gate::Approval) {
            return reject(
                RejectionCode::WrongPhase,
                format!(
                    "phase {} does not wait for an approval now",
                    self.phase_name(phase)
                ),
                self.waiting_gate(),
            );
        }
        if self.gate_already_open(phase) {
            return reject(
                RejectionCode::NotNeeded,
                "the gate is open; one approval serves once",
                "nothing needs to be done",
            );
        }
        self.check_ready(phase)
    }

    /// Name of a phase in sentences for the operator.
    fn phase_name(&self, phase: PhaseRef) -> String {
        let spec = self.state.spec(phase);
        spec.map_or_else(|| phase.to_string(), |spec| spec.name.clone())
    }

    /// The verb for what the current phase waits for.
    fn waiting_gate(&self) -> String {
        let Some(phase) = self.state.current() else {
            return "see what the run waits for".to_owned();
        };
        let name = self.phase_name(phase);
        let failed = self
            .state
            .phase(phase)
            .is_some_and(|state| match state.status {
                PhaseStatus::Failed { .. } => true,
                PhaseStatus::Pending
                | PhaseStatus::Preparing
                | PhaseStatus::Released
                | PhaseStatus::Completed
                | PhaseStatus::Skipped { .. } => false,
            });
        if failed {
            let rollback = match self.check_rollback() {
                Ok(()) => ", rollback",
                Err(_) => "",
            };
            let skip = match self.check_no_breach(phase) {
                Ok(()) => ", skip",
                Err(_) => "",
            };
            return format!("phase {name} has failed: retry{skip}{rollback} or abort");
        }
        let gate = self.state.spec(phase).map(|spec| spec.gate);
        match gate.filter(|_| !self.gate_already_open(phase)) {
            Some(Gate::Approval) => format!("phase {name} waits for `approve`"),
            Some(Gate::Hold) => format!("phase {name} waits for `resume`"),
            Some(Gate::None) | None => "see what the run waits for".to_owned(),
        }
    }

    fn gate_already_open(&self, phase: PhaseRef) -> bool {
        self.state
            .phase(phase)
            .is_some_and(|p| p.gate_opened.is_some())
    }

    fn check_ready(&self, phase: PhaseRef) -> Result<(), VerbRejected> {
        let preparing = self.state.phase(phase).map(|p| &p.status) == Some(&PhaseStatus::Preparing);
        if preparing && self.all_ready(phase) {
            return Ok(());
        }
        let missing: Vec<String> = self
            .missing_votes(phase)
            .iter()
            .map(ToString::to_string)
            .collect();
        reject(
            RejectionCode::NotReady,
            format!(
                "phase {} is not ready; missing: {}",
                self.phase_name(phase),
                missing.join(", ")
            ),
            "open the gate when every agent has voted ready",
        )
    }

    /// `resume` ends the nearest of: a pause, a hold, a hold gate.
    fn resume_record(&self, request: OperatorRequest) -> Result<Record, VerbRejected> {
        self.check_not_draining()?;
        if self.state.paused.is_some() || !self.state.held.is_empty() {
            return Ok(Record::Resumed { request });
        }
        let at_gate = self.state.current().filter(|phase| {
            self.state.spec(*phase).map(|spec| spec.gate) == Some(Gate::Hold)
                && !self.gate_already_open(*phase)
        });
        let Some(phase) = at_gate else {
            return reject(
                RejectionCode::NotNeeded,
                "the run is neither paused nor held",
                self.waiting_gate(),
            );
        };
        self.check_ready(phase)?;
        Ok(Record::GateOpened { phase, request })
    }

    fn failed_phase(&self) -> Result<PhaseRef, VerbRejected> {
        self.check_not_draining()?;
        let failed = self.state.current().filter(|phase| {
            let status = self.state.phase(*phase).map(|p| &p.status);
            matches!(status, Some(PhaseStatus::Failed { .. }))
        });
        let Some(phase) = failed else {
            return reject(
                RejectionCode::NotNeeded,
                "no phase has failed",
                "see what the run waits for",
            );
        };
        if let Some(((step, agent), _)) = self.state.open_tasks().next() {
            return reject(
                RejectionCode::Open,
                format!("{step} on {agent} is still open: it may be running"),
                format!("wait until {agent} reports, or waive that task"),
            );
        }
        Ok(phase)
    }

    fn check_retry(&self) -> Result<PhaseRef, VerbRejected> {
        let phase = self.failed_phase()?;
        // A proof or a watch is run again whatever it has effected.
        let unclear = self
            .state
            .tasks_of(phase)
            .find(|((step, _), task)| task.is_unclear() && !self.proves(step));
        match unclear {
            Some(((step, agent), _)) => reject(
                RejectionCode::Unclear,
                format!("it is unknown whether {step} on {agent} has taken effect"),
                "check the host, then resolve it as done or failed",
            ),
            None => Ok(phase),
        }
    }

    fn check_skip(&self, request: &OperatorRequest) -> Result<PhaseRef, VerbRejected> {
        let phase = self.failed_phase()?;
        require_reason(request)?;
        self.check_no_breach(phase)?;
        let unsettled = self.state.tasks_of(phase).filter(|(_, t)| !t.is_settled());
        for ((step, agent), _) in unsettled {
            let Some((_, spec)) = self.state.step(step) else {
                continue;
            };
            if spec.proves() {
                return reject(
                    RejectionCode::Proof,
                    format!("{step} on {agent} is {}can't be skipped", kind_of(spec)),
                    "retry, roll back or abort",
                );
            }
            if spec.required {
                return reject(
                    RejectionCode::Required,
                    format!("later phases rely on {step} on {agent}, so it can't be skipped"),
                    "remove the cause and retry; or reach by hand the state that the step would \
                     reach and retry, which then finds it; or roll back or abort",
                );
            }
        }
        Ok(phase)
    }

    fn check_no_breach(&self, phase: PhaseRef) -> Result<(), VerbRejected> {
        if !self.state.failed_over_a_breach(phase) {
            return Ok(());
        }
        reject(
            RejectionCode::Proof,
            "a watch has detected a breach, and what it voided can't be skipped",
            "retry, which runs the watch and the proofs since it was armed again; or roll back or \
             abort",
        )
    }

    fn proves(&self, step: &StepId) -> bool {
        self.state.step(step).is_some_and(|(_, spec)| spec.proves())
    }

    fn check_rollback(&self) -> Result<(), VerbRejected> {
        if self.state.rollback.is_some() {
            return reject(
                RejectionCode::AlreadyDecided,
                "the run is being rolled back",
                "see what it waits for",
            );
        }
        if self.state.begin.resolved_plan.rollback.is_empty() {
            return reject(
                RejectionCode::NoRollbackPlan,
                "the plan has no rollback",
                "retry, skip or abort",
            );
        }
        if self.state.past_no_return() {
            return reject(
                RejectionCode::NoReturn,
                "the point of no return is passed: PostgreSQL may have taken writes",
                "go forward, or fall back as the operating guide describes",
            );
        }
        Ok(())
    }

    fn check_waive(
        &self,
        agent: &AgentName,
        step: &StepId,
        request: &OperatorRequest,
    ) -> Result<(), VerbRejected> {
        require_reason(request)?;
        let key: TaskKey = task_key(step, agent);
        let watch = self.state.watches.contains_key(&key);
        // After the point of no return a watch protects nothing any more, so one
        // whose host is disconnected must not keep the applications down.
        let obsolete = self.state.past_no_return() && !self.live.connected.contains(agent);
        if watch && (self.is_draining() || obsolete) {
            return Ok(());
        }
        let Some(task) = self.state.tasks.get(&key).filter(|task| task.is_open()) else {
            return reject(
                RejectionCode::NoSuchTask,
                format!("{step} on {agent} is not open"),
                "only a task that was released and has no outcome can be waived",
            );
        };
        if task.status == TaskStatus::Released && self.live.connected.contains(agent) {
            return reject(
                RejectionCode::Open,
                format!("{agent} is connected and {step} is not overdue"),
                "wait for its outcome or its deadline",
            );
        }
        if self.is_draining() || task.phase.track == Track::Rollback {
            return Ok(());
        }
        match self.state.step(step) {
            Some((_, spec)) if spec.proves() => reject(
                RejectionCode::Proof,
                format!("{step} on {agent} is {}can't be passed", kind_of(spec)),
                "wait for the agent, roll back or abort",
            ),
            Some((_, spec)) if spec.required => reject(
                RejectionCode::Required,
                format!("later phases rely on {step} on {agent}, so it can't be waived"),
                "wait for the agent, which reports when it is connected again; or roll back or abort",
            ),
            Some(_) | None => Ok(()),
        }
    }

    fn resolve_record(
        &self,
        agent: AgentName,
        step: StepId,
        resolution: Resolution,
        request: OperatorRequest,
    ) -> Result<Record, VerbRejected> {
        require_reason(&request)?;
        let task = self.state.tasks.get(&task_key(&step, &agent));
        if !task.is_some_and(super::TaskState::is_unclear) {
            return reject(
                RejectionCode::NoSuchTask,
                format!("{step} on {agent} is neither unknown nor drifted"),
                "only such a task needs an operator's word",
            );
        }
        // After a watch has been resolved as done nothing would be armed.
        let proving = self.state.step(&step).map(|(_, spec)| spec);
        if let (Some(spec), Resolution::Done) = (proving.filter(|s| s.proves()), resolution) {
            return reject(
                RejectionCode::Proof,
                format!(
                    "{step} on {agent} is {}can't be resolved as done",
                    kind_of(spec)
                ),
                "only its own success counts: remove the cause and retry, which runs it again; or roll \
                 back or abort",
            );
        }
        Ok(Record::UnknownResolved {
            agent,
            step,
            resolution,
            request,
        })
    }
}

/// The beginning of a sentence about a step whose success no operator can replace.
fn kind_of(spec: &StepSpec) -> &'static str {
    if spec.is_watch() {
        "a watch, and watches "
    } else {
        "a proof, and proofs "
    }
}

fn require_reason(request: &OperatorRequest) -> Result<(), VerbRejected> {
    match &request.reason {
        Some(reason) if !reason.trim().is_empty() => Ok(()),
        _ => reject(
            RejectionCode::ReasonMissing,
            "a reason is required; the run's report includes it",
            "repeat the request with a reason",
        ),
    }
}
