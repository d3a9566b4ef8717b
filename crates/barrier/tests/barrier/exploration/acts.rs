//! What can happen in a state, and what it does.

use super::budget::{Budget, Fault};
use crate::support::{self, Sim};
use lockstep_barrier::coordinator::{VerbAction, Wait};
use lockstep_barrier::ids::{AgentName, StepId, Track};
use lockstep_barrier::message::{Order, Outcome};
use lockstep_barrier::participant;
use lockstep_barrier::record::Resolution;
use lockstep_barrier::resolved_plan::Outputs;
use std::fmt::Write;

#[derive(Debug, Clone)]
pub enum Act {
    /// The oldest order reaches the agent.
    Order(AgentName),
    /// The oldest reply of the agent reaches the coordinator.
    Reply(AgentName),
    DuplicateOrder(AgentName),
    DuplicateReply(AgentName),
    /// The agent's driver answers a probe or an attestation.
    Chore(AgentName),
    Finish(AgentName, End),
    Refuse(AgentName, StepId),
    /// With or without the effect of the running task.
    CrashAgent(AgentName, bool),
    CrashCoordinator,
    RestartAgent(AgentName),
    RestartCoordinator,
    Connect(AgentName),
    Cut(AgentName),
    LoseJournal(AgentName, bool),
    /// The first so many entries of its journal are left.
    RestoreAgent(AgentName, usize),
    RestoreBackup(usize),
    SecondCoordinator(usize),
    /// Something happens to the first coordinator while there are two.
    OfOther(Box<Act>),
    TakeOver,
    Deadline,
    Pause,
    Breach(AgentName, StepId),
    /// The watches of the agent see no breach any more.
    BreachIsOver(AgentName),
    Verb(VerbAction),
    /// A crash after so many effects of an act.
    CrashBetween(Box<Act>, usize),
}

/// How a task ends.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    Good,
    Failed,
    FailedAfterItsEffect,
    Unknown,
    UnknownAfterItsEffect,
}

impl End {
    fn word(self, sim: &Sim, name: &AgentName) -> String {
        let word = match self {
            Self::Good => return success(sim, name),
            Self::Failed => "failed",
            Self::FailedAfterItsEffect => "failed-after-its-effect",
            Self::Unknown => "unknown",
            Self::UnknownAfterItsEffect => "unknown-after-its-effect",
        };
        word.to_owned()
    }
}

fn success(sim: &Sim, name: &AgentName) -> String {
    let Some((outcome, outputs)) = sim.success_of(name) else {
        return String::new();
    };
    let armed = outcome == Outcome::Armed;
    let mut text = if armed { "armed" } else { "done" }.to_owned();
    for (output, value) in outputs {
        let _ = write!(text, " out={output}:{}", value.as_str().unwrap_or_default());
    }
    text
}

/// Every act that is possible in this state, apart from crashes between effects.
pub fn acts(sim: &Sim, left: &Budget) -> Vec<Act> {
    let closed = sim.run.as_ref().is_some_and(|run| run.is_closed());
    let idle = |name: &AgentName| sim.orders[name].is_empty() && sim.agent(name).running.is_none();
    if closed && sim.agents.keys().all(idle) {
        return Vec::new();
    }
    if let Some(act) = forced(sim) {
        return vec![act];
    }
    let mut acts = Vec::new();
    for name in sim.agents.keys() {
        acts_of_agent(sim, left, name, &mut acts);
    }
    if left.allows(Fault::Deadline) && sim.next_deadline().is_some() {
        acts.push(Act::Deadline);
    }
    if left.allows(Fault::Pause) {
        acts.push(Act::Pause);
    }
    if sim.run.is_none() {
        acts.push(Act::RestartCoordinator);
        return acts;
    }
    if left.allows(Fault::CrashCoordinator) {
        acts.push(Act::CrashCoordinator);
    }
    if left.allows(Fault::RestoreBackup) {
        let records = sim.disk.len();
        let shorter = [1, records / 2, records.saturating_sub(2), records - 1];
        let mut shorter: Vec<usize> = shorter.into_iter().filter(|n| *n > 0).collect();
        shorter.dedup();
        acts.extend(shorter.into_iter().map(Act::RestoreBackup));
    }
    if left.allows(Fault::SecondCoordinator) && sim.other.is_none() {
        let records = sim.disk.len();
        let copies = [records / 2, records].into_iter().filter(|n| *n > 0);
        acts.extend(copies.map(Act::SecondCoordinator));
    }
    acts.extend(verbs(sim, left));
    acts.extend(acts_of_other(sim));
    acts
}

/// Sessions and messages of the first coordinator while there are two.
fn acts_of_other(sim: &Sim) -> Vec<Act> {
    if sim.other.is_none() {
        return Vec::new();
    }
    let mut there = sim.clone();
    there.switch();
    let mut acts = Vec::new();
    for (name, agent) in &there.agents {
        if agent.participant.is_none() {
            continue;
        }
        if !there.orders[name].is_empty() {
            acts.push(Act::Order(name.clone()));
        }
        if !there.replies[name].is_empty() {
            acts.push(Act::Reply(name.clone()));
        }
        if !agent.connected && !sim.agent(name).connected {
            acts.push(Act::Connect(name.clone()));
        }
    }
    acts.into_iter()
        .map(|act| Act::OfOther(Box::new(act)))
        .collect()
}

/// A probe is answered, and an acknowledgement arrives, before anything else
/// happens: neither depends on the order of other events, and the number of states
/// is several times smaller.
fn forced(sim: &Sim) -> Option<Act> {
    let up = |name: &&AgentName| sim.agent(name).participant.is_some();
    let probes = |name: &&AgentName| !sim.agent(name).chores.is_empty();
    let acked = |name: &&AgentName| matches!(sim.orders[*name].front(), Some(Order::Ack { .. }));
    let mut names = sim.agents.keys().filter(up);
    if let Some(name) = names.clone().find(probes) {
        return Some(Act::Chore(name.clone()));
    }
    names.find(acked).map(|name| Act::Order(name.clone()))
}

fn acts_of_agent(sim: &Sim, left: &Budget, name: &AgentName, acts: &mut Vec<Act>) {
    let agent = sim.agent(name);
    let Some(participant) = &agent.participant else {
        return acts.push(Act::RestartAgent(name.clone()));
    };
    if !sim.orders[name].is_empty() {
        acts.push(Act::Order(name.clone()));
        if left.allows(Fault::Duplicate) {
            acts.push(Act::DuplicateOrder(name.clone()));
        }
    }
    if !sim.replies[name].is_empty() && sim.run.is_some() {
        acts.push(Act::Reply(name.clone()));
        if left.allows(Fault::Duplicate) {
            acts.push(Act::DuplicateReply(name.clone()));
        }
    }
    acts.extend(ends(sim, left, name));
    let crashes = [true, false]
        .into_iter()
        .filter(|e| !*e || agent.running.is_some());
    for effect in crashes {
        if left.allows(Fault::CrashAgent) {
            acts.push(Act::CrashAgent(name.clone(), effect));
        }
        if left.allows(Fault::LoseJournal) {
            acts.push(Act::LoseJournal(name.clone(), effect));
        }
    }
    if left.allows(Fault::RestoreAgent) && agent.disk.len() > 1 {
        acts.push(Act::RestoreAgent(name.clone(), agent.disk.len() / 2));
    }
    if !agent.connected {
        if sim.run.is_some() {
            acts.push(Act::Connect(name.clone()));
        }
    } else if left.allows(Fault::Cut) {
        acts.push(Act::Cut(name.clone()));
    }
    if agent.breach.is_some() {
        acts.push(Act::BreachIsOver(name.clone()));
    } else if left.allows(Fault::Breach) {
        let log = participant.state().run(&sim.begin.run);
        let watches = log.into_iter().flat_map(|log| log.watches.keys());
        acts.extend(watches.map(|step| Act::Breach(name.clone(), step.clone())));
    }
    if left.allows(Fault::Refuse) && agent.refuses.is_empty() {
        acts.extend(steps_of(sim, name).map(|step| Act::Refuse(name.clone(), step)));
    }
}

fn ends(sim: &Sim, left: &Budget, name: &AgentName) -> Vec<Act> {
    if sim.agent(name).running.is_none() {
        return Vec::new();
    }
    let mut ends = vec![End::Good];
    if left.allows(Fault::Fail) {
        ends.extend([End::Failed, End::FailedAfterItsEffect]);
    }
    if left.allows(Fault::Unknown) {
        ends.extend([End::Unknown, End::UnknownAfterItsEffect]);
    }
    ends.into_iter()
        .map(|end| Act::Finish(name.clone(), end))
        .collect()
}

/// Steps of the current phase at this agent.
fn steps_of(sim: &Sim, name: &AgentName) -> impl Iterator<Item = StepId> {
    let state = sim.run.as_ref().map(|run| run.state());
    let spec = state.and_then(|state| state.spec(state.current()?));
    let steps = spec.into_iter().flat_map(|spec| &spec.steps);
    let own: Vec<StepId> = steps
        .filter(|step| step.agents.contains(name))
        .map(|step| step.id.clone())
        .collect();
    own.into_iter()
}

/// Verbs for which the run waits, and, within the budget, all others.
fn verbs(sim: &Sim, left: &Budget) -> Vec<Act> {
    let Some(run) = sim.run.as_ref() else {
        return Vec::new();
    };
    let state = run.state();
    if state.ended.is_some() {
        return Vec::new();
    }
    let mut verbs = sim.resolutions();
    for wait in run.waits_on() {
        match wait {
            Wait::Approval { phase } => verbs.push(VerbAction::Approve {
                phase,
                digest: state.begin.resolved_plan.digest.clone(),
            }),
            Wait::Paused { .. } | Wait::Held { .. } | Wait::HoldGate { .. } => {
                verbs.push(VerbAction::Resume);
            }
            Wait::GiveUp { .. } => verbs.push(VerbAction::Abort),
            Wait::TakeOver { .. } => return vec![Act::TakeOver],
            Wait::Vote { .. }
            | Wait::Decision { .. }
            | Wait::Disarm { .. }
            | Wait::Attestation { .. }
            | Wait::Outcome { .. }
            | Wait::Close { .. } => {}
        }
    }
    if left.allows(Fault::Verb) {
        verbs.extend([
            VerbAction::Retry,
            VerbAction::Skip,
            VerbAction::Rollback,
            VerbAction::Abort,
            VerbAction::Pause,
        ]);
        for (key, task) in &state.tasks {
            if task.is_open() || state.watches.contains_key(key) {
                let (step, agent) = key.clone();
                verbs.push(VerbAction::Waive { agent, step });
            }
        }
    }
    verbs.into_iter().map(Act::Verb).collect()
}

impl Act {
    /// Does it; `false` if it is not possible.
    pub fn apply(&self, sim: &mut Sim, left: &mut Budget) -> bool {
        match self {
            Self::Order(name) => return sim.deliver_order(name, 0),
            Self::Reply(name) => return sim.deliver_reply(name, 0),
            Self::DuplicateOrder(name) => {
                left.spend(Fault::Duplicate);
                return repeat(sim.orders.get_mut(name));
            }
            Self::DuplicateReply(name) => {
                left.spend(Fault::Duplicate);
                return repeat(sim.replies.get_mut(name));
            }
            Self::Chore(name) => return sim.do_chore(name),
            Self::Finish(name, end) => return finish(sim, left, name, *end),
            Self::Connect(name) => sim.connect(name),
            Self::Cut(name) => {
                left.spend(Fault::Cut);
                sim.cut_session(name);
            }
            Self::RestartAgent(name) => sim.restart_agent(name),
            Self::RestartCoordinator => sim.restart_coordinator(),
            Self::Deadline => {
                left.spend(Fault::Deadline);
                return sim.pass_to_deadline();
            }
            Self::Pause => {
                left.spend(Fault::Pause);
                sim.pass(7_000);
            }
            Self::Verb(action) => return verb(sim, left, action),
            Self::OfOther(act) => {
                sim.switch();
                let possible = act.apply(sim, left);
                sim.switch();
                return possible;
            }
            Self::CrashBetween(act, effects) => {
                left.spend(Fault::CrashBetween);
                sim.crash_after = Some(*effects);
                return act.apply(sim, left) && sim.crash_after.is_none();
            }
            Self::Refuse(..)
            | Self::CrashAgent(..)
            | Self::CrashCoordinator
            | Self::LoseJournal(..)
            | Self::RestoreAgent(..)
            | Self::RestoreBackup(_)
            | Self::SecondCoordinator(_)
            | Self::TakeOver
            | Self::Breach(..)
            | Self::BreachIsOver(_) => self.strike(sim, left),
        }
        true
    }

    /// Crashes, losses, and what happens on hosts by itself.
    fn strike(&self, sim: &mut Sim, left: &mut Budget) {
        match self {
            Self::Refuse(name, step) => {
                left.spend(Fault::Refuse);
                sim.agent_mut(name).refuses.insert(step.clone());
            }
            Self::CrashAgent(name, effect) => {
                left.spend(Fault::CrashAgent);
                if *effect {
                    sim.take_effect(name);
                }
                sim.crash_agent(name);
            }
            Self::CrashCoordinator => {
                left.spend(Fault::CrashCoordinator);
                sim.crash_coordinator();
            }
            Self::LoseJournal(name, effect) => {
                left.spend(Fault::LoseJournal);
                if *effect {
                    sim.take_effect(name);
                }
                sim.lose_journal(name);
            }
            Self::RestoreAgent(name, entries) => {
                left.spend(Fault::RestoreAgent);
                sim.restore_agent(name, *entries);
            }
            Self::RestoreBackup(records) => {
                left.spend(Fault::RestoreBackup);
                sim.crash_coordinator();
                sim.restore_backup(*records);
            }
            Self::SecondCoordinator(records) => {
                left.spend(Fault::SecondCoordinator);
                sim.second_coordinator(*records);
            }
            Self::TakeOver => {
                sim.stop_other();
                sim.crash_coordinator();
                sim.take_over = true;
            }
            Self::Breach(name, step) => {
                left.spend(Fault::Breach);
                breach(sim, name, step);
            }
            Self::BreachIsOver(name) => sim.agent_mut(name).breach = None,
            other => panic!("{other:?} is applied elsewhere"),
        }
    }

    /// The act as commands of a scenario, in the state in which it happens.
    pub fn command(&self, sim: &Sim) -> String {
        let running = |name: &AgentName| sim.agent(name).running.as_ref().map(|r| &r.task.step);
        let effect = |name: &AgentName, effect: &bool| match effect {
            true => format!("effect {name}\n"),
            false => String::new(),
        };
        match self {
            Self::Order(name) => format!("deliver C->{name}"),
            Self::Reply(name) => format!("deliver {name}->C"),
            Self::DuplicateOrder(name) => format!("duplicate C->{name}"),
            Self::DuplicateReply(name) => format!("duplicate {name}->C"),
            Self::Chore(name) => format!("chore {name}"),
            Self::Finish(name, end) => {
                let step = running(name).map_or("?", |step| step.0.as_str());
                format!("finish {name} {step} {}", end.word(sim, name))
            }
            Self::Refuse(name, step) => format!("refuses {name} {step}"),
            Self::CrashAgent(name, e) => format!("{}crash {name}", effect(name, e)),
            Self::CrashCoordinator => "crash coordinator".to_owned(),
            Self::RestartAgent(name) => format!("restart {name}"),
            Self::RestartCoordinator => "restart coordinator".to_owned(),
            Self::Connect(name) => format!("connect {name}"),
            Self::Cut(name) => format!("disconnect {name}"),
            Self::LoseJournal(name, e) => format!("{}lose-journal {name}", effect(name, e)),
            Self::RestoreAgent(name, entries) => format!("restore-agent {name} {entries}"),
            Self::RestoreBackup(records) => {
                format!("crash coordinator\nrestore-backup {records}")
            }
            Self::SecondCoordinator(records) => format!("second-coordinator {records}"),
            Self::OfOther(act) => format!("other {}", act.command(sim)),
            Self::TakeOver => "crash coordinator\ntake-over".to_owned(),
            Self::Deadline => "tick next".to_owned(),
            Self::Pause => "tick 7s".to_owned(),
            Self::Breach(name, step) => format!("breach {name} {step} a session"),
            Self::BreachIsOver(name) => format!("breach {name} - gone"),
            Self::Verb(action) => format!("verb {}", verb_words(action)),
            Self::CrashBetween(act, effects) => {
                format!("crash-after {effects}\n{}", act.command(sim))
            }
        }
    }
}

fn repeat<T: Clone>(queue: Option<&mut std::collections::VecDeque<T>>) -> bool {
    let Some(queue) = queue else { return false };
    let Some(first) = queue.front().cloned() else {
        return false;
    };
    queue.push_back(first);
    true
}

fn finish(sim: &mut Sim, left: &mut Budget, name: &AgentName, end: End) -> bool {
    let failed = || support::failed("it went wrong");
    let unknown = || Outcome::Unknown {
        reason: "no answer".to_owned(),
    };
    let (fault, outcome, takes_effect) = match end {
        End::Good => {
            let Some((outcome, outputs)) = sim.success_of(name) else {
                return false;
            };
            return sim.finish(name, outcome, outputs);
        }
        End::Failed => (Fault::Fail, failed(), false),
        End::FailedAfterItsEffect => (Fault::Fail, failed(), true),
        End::Unknown => (Fault::Unknown, unknown(), false),
        End::UnknownAfterItsEffect => (Fault::Unknown, unknown(), true),
    };
    left.spend(fault);
    if takes_effect {
        sim.take_effect(name);
    }
    sim.finish(name, outcome, Outputs::new())
}

fn breach(sim: &mut Sim, name: &AgentName, step: &StepId) {
    let detail = "a session".to_owned();
    sim.agent_mut(name).breach = Some(detail.clone());
    let (run, step) = (sim.begin.run.clone(), step.clone());
    sim.participant(name, participant::Event::WatchBroke { run, step, detail });
}

fn verb(sim: &mut Sim, left: &mut Budget, action: &VerbAction) -> bool {
    let is_awaited = match action {
        VerbAction::Approve { .. } | VerbAction::Resume | VerbAction::ResolveUnknown { .. } => true,
        VerbAction::Abort => gives_up(sim),
        VerbAction::Pause
        | VerbAction::Retry
        | VerbAction::Skip
        | VerbAction::Rollback
        | VerbAction::Waive { .. } => false,
    };
    if !is_awaited {
        left.spend(Fault::Verb);
    }
    sim.verb(action.clone(), Some("because")).is_ok()
}

fn gives_up(sim: &Sim) -> bool {
    let waits = sim.run.as_ref().map(|run| run.waits_on());
    let mut waits = waits.into_iter().flatten();
    waits.any(|wait| matches!(wait, Wait::GiveUp { .. }))
}

fn verb_words(action: &VerbAction) -> String {
    let words = match action {
        VerbAction::Approve { phase, .. } => {
            let track = match phase.track {
                Track::Forward => 'p',
                Track::Rollback => 'r',
            };
            return format!("approve {track}{}", phase.index);
        }
        VerbAction::Resume => "resume".to_owned(),
        VerbAction::Pause => "pause".to_owned(),
        VerbAction::Retry => "retry".to_owned(),
        VerbAction::Skip => "skip".to_owned(),
        VerbAction::Rollback => "rollback".to_owned(),
        VerbAction::Abort => "abort".to_owned(),
        VerbAction::Waive { agent, step } => format!("waive {agent} {step}"),
        VerbAction::ResolveUnknown {
            agent,
            step,
            resolution,
        } => {
            let resolution = match resolution {
                Resolution::Done => "done",
                Resolution::Failed => "failed",
            };
            format!("resolve {agent} {step} {resolution}")
        }
    };
    format!("{words} reason because")
}
