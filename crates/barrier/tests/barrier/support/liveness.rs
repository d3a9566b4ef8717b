//! What must hold in a state, as opposed to after an event; and recovery once the
//! faults have stopped: sessions are replaced, and an operator responds to every
//! wait. Then every run must end.

use super::at_rest::{late_undos_are_settled, nobody_stays_locked};
use super::{Sim, clears};
use lockstep_barrier::coordinator::{PhaseStatus, Run, VerbAction, Wait};
use lockstep_barrier::ids::{AgentName, StepId};
use lockstep_barrier::message::{Mode, Outcome};
use lockstep_barrier::participant;
use lockstep_barrier::record::Resolution;
use lockstep_barrier::resolved_plan::{Outputs, StepSpec};
use std::collections::BTreeMap;

type Check = fn(&Sim) -> Result<(), String>;

/// What must hold in every state between two events, by name. Whether a run waits
/// for something is checked after each event.
const IN_EVERY_STATE: &[(&str, Check)] = &[
    (
        "state_is_the_fold_of_the_journal",
        state_is_the_fold_of_the_journal,
    ),
    ("completed_means_in_effect", completed_means_in_effect),
    ("nobody_is_stuck", nobody_is_stuck),
    ("nobody_stays_locked", nobody_stays_locked_at_rest),
];

/// A run that is not closed always waits for something.
fn every_state_waits_for_something(sim: &Sim) -> Result<(), String> {
    match &sim.run {
        Some(run) if run.waits_on().is_empty() && !run.is_closed() => {
            Err(format!("a dead state: {:?}", run.state().current()))
        }
        _ => Ok(()),
    }
}

/// Nothing that a coordinator decides on is lost when its process ends.
fn state_is_the_fold_of_the_journal(sim: &Sim) -> Result<(), String> {
    let (Some(run), Some(folded)) = (&sim.run, &sim.world.state) else {
        return Ok(());
    };
    if run.state() == &**folded {
        return Ok(());
    }
    Err("the coordinator's state is not the fold of its journal".to_owned())
}

/// The same at the agents. It reads the whole journal, so it is not checked in
/// every state.
pub fn agents_are_the_fold_of_their_journals(sim: &Sim) -> Result<(), String> {
    for (name, agent) in &sim.agents {
        let Some(participant) = &agent.participant else {
            continue;
        };
        let folded = participant::State::fold(agent.disk.clone()).expect("its own journal");
        if participant.state() != &folded {
            return Err(format!(
                "the state of {name} is not the fold of its journal"
            ));
        }
    }
    Ok(())
}

/// If everyone is connected, nothing is under way and no deadline is set, then an
/// operator can do something about it.
fn nobody_is_stuck(sim: &Sim) -> Result<(), String> {
    let Some(run) = sim.run.as_ref().filter(|run| !run.is_closed()) else {
        return Ok(());
    };
    if !sim.in_order || !sim.is_quiet() || sim.next_deadline().is_some() {
        return Ok(());
    }
    let waits = run.waits_on();
    if waits.iter().any(is_for_the_operator) {
        return Ok(());
    }
    Err(format!(
        "nothing is under way, and the run waits on {waits:?}"
    ))
}

fn is_for_the_operator(wait: &Wait) -> bool {
    match wait {
        Wait::Approval { .. }
        | Wait::HoldGate { .. }
        | Wait::Paused { .. }
        | Wait::Held { .. }
        | Wait::Decision { .. }
        | Wait::TakeOver { .. }
        | Wait::GiveUp { .. }
        | Wait::Outcome { lost: true, .. } => true,
        Wait::Vote { .. }
        | Wait::Disarm { .. }
        | Wait::Attestation { .. }
        | Wait::Outcome { lost: false, .. }
        | Wait::Close { .. } => false,
    }
}

/// See [`nobody_stays_locked`]: at rest, an agent can join another run.
fn nobody_stays_locked_at_rest(sim: &Sim) -> Result<(), String> {
    match sim.in_order && sim.is_quiet() {
        true => nobody_stays_locked(sim),
        false => Ok(()),
    }
}

/// In a run that goes forward, the hosts are as the completed phases leave them:
/// nothing was reported as done that isn't.
fn completed_means_in_effect(sim: &Sim) -> Result<(), String> {
    let Some(run) = &sim.run else { return Ok(()) };
    let state = run.state();
    if state.rollback.is_some() || state.abort.is_some() || !state.decisions_lost.is_empty() {
        return Ok(());
    }
    let mut expected: BTreeMap<(&AgentName, StepId), bool> = BTreeMap::new();
    for (spec, phase) in state.begin.resolved_plan.forward.iter().zip(&state.forward) {
        let changes =
            |step: &&StepSpec| !step.proof && !step.read_only && step.watch_until.is_none();
        for step in spec.steps.iter().filter(changes) {
            let cleared = clears(&step.params);
            let present = cleared.is_none();
            let what = cleared.unwrap_or_else(|| step.id.clone());
            for agent in &step.agents {
                let task = state.tasks.get(&(step.id.clone(), agent.clone()));
                let good = task.and_then(|t| t.outcome()).is_some_and(Outcome::is_good);
                if good && phase.status == PhaseStatus::Completed {
                    expected.insert((agent, what.clone()), present);
                } else {
                    expected.remove(&(agent, what.clone()));
                }
            }
        }
    }
    for ((agent, step), present) in expected {
        if sim.agent(agent).host.contains_key(&step) != present {
            let not = if present {
                "not in effect"
            } else {
                "in effect"
            };
            return Err(format!(
                "{step} is {not} on {agent} after its phase is complete"
            ));
        }
    }
    Ok(())
}

/// Another coordinator leads, or led, this run.
pub(super) fn is_fenced(run: &Run) -> bool {
    let waits = run.waits_on();
    waits
        .iter()
        .any(|wait| matches!(wait, Wait::TakeOver { .. }))
}

impl Sim {
    /// Checks after the effects of one event whether the run can go on.
    pub(super) fn check_waits(&mut self) {
        if let Err(detail) = every_state_waits_for_something(self) {
            self.violated(&format!(
                "invariant every_state_waits_for_something is broken: {detail}"
            ));
        }
    }

    /// Checks what must hold in every state.
    pub fn check_state(&mut self) {
        for (name, check) in IN_EVERY_STATE {
            if let Err(detail) = check(self) {
                self.violated(&format!("invariant {name} is broken: {detail}"));
            }
        }
    }

    /// Every process runs, every agent is connected, and nothing is under way.
    pub fn is_quiet(&self) -> bool {
        self.run.is_some()
            && self.agents.iter().all(|(name, agent)| {
                agent.participant.is_some()
                    && agent.connected
                    && agent.running.is_none()
                    && agent.chores.is_empty()
                    && self.orders[name].is_empty()
                    && self.replies[name].is_empty()
            })
    }

    /// The faults have stopped: every agent is connected, every action succeeds, and
    /// an operator responds to every wait. Every run must end.
    ///
    /// # Errors
    /// If it doesn't end, or an invariant is broken on the way.
    pub fn heal(&mut self, turns_back: bool) -> Result<(), String> {
        self.crash_after = None;
        self.stop_other();
        for round in 0..80 {
            self.replace_sessions(round);
            self.finish_what_runs();
            self.hold()?;
            if self.run.as_ref().is_some_and(|run| run.is_closed()) {
                return self.everyone_is_free();
            }
            if turns_back && round == 1 {
                // Rejected if the run has moved on, which is correct as well.
                let _ = self.verb(VerbAction::Rollback, Some("enough for tonight"));
            }
            self.operate(round);
            self.settle();
            self.pass(if round % 4 == 3 { 70_000 } else { 100 });
            self.hold()?;
        }
        let waits = self.run.as_ref().map(|run| run.waits_on());
        Err(format!(
            "invariant every_run_ends is broken: it waits on {waits:?}"
        ))
    }

    /// After new sessions no agent is locked to the run, which is closed.
    fn everyone_is_free(&mut self) -> Result<(), String> {
        for name in self.names() {
            self.drop_session(&name);
            self.connect(&name);
        }
        self.settle();
        self.hold()?;
        nobody_stays_locked(self)
            .map_err(|what| format!("invariant nobody_stays_locked is broken: {what}"))?;
        late_undos_are_settled(self)
            .map_err(|what| format!("invariant late_undos_are_settled is broken: {what}"))
    }

    fn hold(&self) -> Result<(), String> {
        self.violations
            .first()
            .map_or(Ok(()), |what| Err(what.clone()))
    }

    fn replace_sessions(&mut self, round: usize) {
        self.restart_coordinator();
        let fenced = self.run.as_ref().is_some_and(|run| is_fenced(run));
        if fenced && !self.take_over {
            self.take_over = true;
            self.crash_coordinator();
            self.restart_coordinator();
        }
        for name in self.names() {
            let agent = self.agent_mut(&name);
            agent.breach = None;
            agent.refuses.clear();
            self.restart_agent(&name);
            if round.is_multiple_of(20) && self.agent(&name).connected {
                // A session that has lost a message is replaced.
                self.drop_session(&name);
            }
            self.connect(&name);
        }
    }

    /// Delivers messages, and finishes running tasks successfully.
    pub fn finish_what_runs(&mut self) {
        self.settle();
        for name in self.names() {
            if let Some((outcome, outputs)) = self.success_of(&name) {
                self.finish(&name, outcome, outputs);
            }
        }
        self.settle();
    }

    /// How the running task of an agent ends if it succeeds.
    pub fn success_of(&self, name: &AgentName) -> Option<(Outcome, Outputs)> {
        let agent = self.agent(name);
        let running = agent.running.as_ref()?;
        let mut outputs = Outputs::new();
        for output in self.outputs_of(&running.task.step) {
            outputs.insert(output.clone(), running.attempt.to_string().into());
        }
        let outcome = if running.task.watch {
            Outcome::Armed
        } else {
            Outcome::Done
        };
        Some((outcome, outputs))
    }

    /// Outputs of a step that other steps consume.
    fn outputs_of(&self, step: &StepId) -> impl Iterator<Item = &String> {
        let plan = &self.begin.resolved_plan;
        let phases = plan.forward.iter().chain(&plan.rollback);
        let inputs = phases.flat_map(|p| &p.steps).flat_map(|s| &s.inputs);
        inputs
            .filter(move |(from, _)| from == step)
            .map(|(_, output)| output)
    }

    /// The operator checks the hosts and resolves each unclear task.
    pub fn resolve_all(&mut self) {
        for action in self.resolutions() {
            let _ = self.verb(action, Some("the host was checked"));
        }
    }

    /// The correct resolution of each unclear task.
    pub fn resolutions(&self) -> Vec<VerbAction> {
        let Some(run) = &self.run else {
            return Vec::new();
        };
        let tasks = run.state().tasks.iter();
        let unclear = tasks.filter(|(_, task)| task.is_unclear());
        unclear
            .map(|((step, agent), _)| {
                let mode = run.state().step(step).map(|(_, spec)| &spec.mode);
                let host = &self.agent(agent).host;
                let in_effect = match mode {
                    Some(Mode::Undo { of }) => !host.contains_key(of),
                    _ => host.contains_key(step),
                };
                let resolution = if in_effect {
                    Resolution::Done
                } else {
                    Resolution::Failed
                };
                VerbAction::ResolveUnknown {
                    agent: agent.clone(),
                    step: step.clone(),
                    resolution,
                }
            })
            .collect()
    }

    fn operate(&mut self, round: usize) {
        self.resolve_all();
        let Some(run) = self.run.clone() else { return };
        let state = run.state();
        for wait in run.waits_on() {
            let reason = Some("the night is short");
            let _ = match wait {
                Wait::Approval { phase } => {
                    let digest = state.begin.resolved_plan.digest.clone();
                    self.verb(VerbAction::Approve { phase, digest }, reason)
                }
                Wait::Paused { .. } | Wait::Held { .. } | Wait::HoldGate { .. } => {
                    self.verb(VerbAction::Resume, reason)
                }
                Wait::Outcome {
                    agent,
                    step,
                    lost: true,
                } => self.verb(VerbAction::Waive { agent, step }, reason),
                Wait::Disarm { agent, step } if state.journals_lost.contains(&agent) => {
                    self.verb(VerbAction::Waive { agent, step }, reason)
                }
                Wait::GiveUp { .. } => self.verb(VerbAction::Abort, reason),
                Wait::Decision { .. } if round < 30 => self.verb(VerbAction::Retry, reason),
                Wait::Decision { .. } => self
                    .verb(VerbAction::Skip, reason)
                    .or_else(|_| self.verb(VerbAction::Rollback, reason))
                    .or_else(|_| self.verb(VerbAction::Abort, reason)),
                Wait::Vote { .. }
                | Wait::Disarm { .. }
                | Wait::Attestation { .. }
                | Wait::Outcome { lost: false, .. }
                | Wait::TakeOver { .. }
                | Wait::Close { .. } => Ok(()),
            };
        }
    }
}
