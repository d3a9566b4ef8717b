//! A simulation around the two state machines: disks, hosts, network and clock.
//!
//! It executes effects one by one, as a driver must, can crash either side
//! between any two of them, and passes everything that becomes durable or changes
//! a host to the invariants.

pub mod at_rest;
mod effects;
pub mod fingerprint;
mod invariants;
pub mod journal;
mod lifecycle;
pub mod liveness;
mod order;
pub mod plan;
mod proofs;
mod second;
pub mod show;
pub mod world;

use journal::Journal;
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::coordinator::{self, Run, Verb, VerbAction};
use lockstep_barrier::ids::{
    AgentName, BootId, JournalId, Millis, PhaseRef, RunId, StepId, Term, Track,
};
use lockstep_barrier::message::{
    Change, Changes, Finding, Mode, Order, Outcome, Probe, Reply, TaskOrder,
};
use lockstep_barrier::participant::{self, Participant, Purpose};
use lockstep_barrier::record::{Begin, JournalPosition};
use lockstep_barrier::resolved_plan::Outputs;
use second::Other;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::sync::Arc;
use world::{World, WorldEvent};

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Running {
    pub run: RunId,
    pub phase: PhaseRef,
    pub attempt: u32,
    pub task: TaskOrder,
    pub before_image: Option<Value>,
}

/// A driver's result that has not been passed to its state machine yet.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Chore {
    Probe {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        purpose: Purpose,
        tasks: Vec<TaskOrder>,
    },
    Attest {
        run: RunId,
        step: StepId,
        nonce: u64,
    },
}

/// An agent and its host.
#[derive(Clone)]
pub struct Agent {
    /// Shared by copies of the simulation until it changes.
    pub participant: Option<Arc<Participant>>,
    /// How often its machine was booted.
    pub boots: u32,
    /// How often its journal was lost.
    pub losses: u32,
    pub journal: JournalId,
    pub disk: Journal<participant::Entry>,
    pub connected: bool,
    /// State that each forward step has changed; absent if unchanged.
    pub host: BTreeMap<StepId, Value>,
    pub running: Option<Running>,
    pub chores: VecDeque<Chore>,
    /// Steps whose probes refuse.
    pub refuses: BTreeSet<StepId>,
    pub indeterminate: BTreeSet<StepId>,
    /// Steps whose outputs others consume. Their probes never return `Satisfied`,
    /// because a probe has no outputs.
    pub producers: BTreeSet<StepId>,
    /// What the host's watches see.
    pub breach: Option<String>,
}

#[derive(Clone)]
pub struct Sim {
    pub now: Millis,
    pub begin: Arc<Begin>,
    /// Shared by copies of the simulation until it changes.
    pub run: Option<Arc<Run>>,
    pub term: u64,
    /// Distinguishes coordinators that computed the same term number.
    pub salt: u64,
    pub disk: Journal<coordinator::Entry>,
    pub agents: BTreeMap<AgentName, Agent>,
    pub orders: BTreeMap<AgentName, VecDeque<Order>>,
    pub replies: BTreeMap<AgentName, VecDeque<Reply>>,
    pub world: World,
    pub violations: Vec<String>,
    pub trace: Vec<String>,
    /// Effects are added to the trace, and records pass through their JSON form.
    pub traced: bool,
    /// A session delivers in order, and what it has not delivered is lost with it.
    pub in_order: bool,
    /// Number of effects that are executed before the next crash.
    pub crash_after: Option<usize>,
    /// The coordinator was started with `--take-over`.
    pub take_over: bool,
    /// A second coordinator of the same run.
    pub other: Option<Box<Other>>,
    /// Effects since the last act of an exploration.
    pub effects: usize,
    requests: u64,
}

impl Sim {
    pub fn new(begin: Begin) -> Self {
        let names: Vec<AgentName> = begin.members.keys().cloned().collect();
        let agents = names
            .iter()
            .map(|name| (name.clone(), new_agent(name, &begin)))
            .collect();
        Self {
            now: 1_000,
            run: None,
            term: 0,
            salt: 0,
            disk: Journal::default(),
            agents,
            orders: names.iter().map(|n| (n.clone(), VecDeque::new())).collect(),
            replies: names.into_iter().map(|n| (n, VecDeque::new())).collect(),
            world: World::new(),
            violations: Vec::new(),
            trace: Vec::new(),
            traced: true,
            in_order: false,
            crash_after: None,
            take_over: false,
            other: None,
            effects: 0,
            requests: 0,
            begin: Arc::new(begin),
        }
    }

    fn next_term(&mut self) -> Term {
        self.term += 1;
        Term {
            number: self.term,
            incarnation: self.term * 7919 + self.salt,
        }
    }

    pub fn start(&mut self) {
        let term = self.next_term();
        let begin = Begin::clone(&self.begin);
        let (run, effects) = Run::start(self.now, begin, term).expect("a valid plan");
        self.run = Some(Arc::new(run));
        self.execute_coordinator_effects(effects);
    }

    pub fn names(&self) -> Vec<AgentName> {
        self.agents.keys().cloned().collect()
    }

    pub fn agent(&self, name: &AgentName) -> &Agent {
        &self.agents[name]
    }

    pub fn agent_mut(&mut self, name: &AgentName) -> &mut Agent {
        self.agents.get_mut(name).expect("an agent of the plan")
    }

    /// Connects an agent as the coordinator's driver would.
    pub fn connect(&mut self, name: &AgentName) {
        if self.run.is_some() {
            self.leave_other(name);
        }
        let agent = self.agent(name);
        let Some(participant) = agent.participant.as_ref().filter(|_| !agent.connected) else {
            return;
        };
        let agent_state = participant.agent_state(self.now);
        let Some(run) = &self.run else { return };
        if self.take_over && run.is_foreign(&agent_state).is_some() {
            if agent_state.term.number >= run.state().term.number {
                self.lead_above(agent_state.term);
            }
            self.coordinator(coordinator::Event::TakenOver(agent_state.clone()));
        }
        if self.run.is_none() {
            return;
        }
        self.agent_mut(name).connected = true;
        self.participant(name, participant::Event::Connected);
        if self.agent(name).connected {
            self.coordinator(coordinator::Event::Connected(agent_state));
        }
        if self.run.is_some() && self.agent(name).connected {
            self.observe(&WorldEvent::Admitted {
                agent: name.clone(),
            });
        }
    }

    pub fn drop_session(&mut self, name: &AgentName) {
        self.agent_mut(name).connected = false;
        if self.in_order {
            self.lose_messages(name);
        }
        self.participant(name, participant::Event::Disconnected);
        self.coordinator(coordinator::Event::Disconnected(name.clone()));
    }

    /// Loses every message that is on its way to or from the agent.
    fn lose_messages(&mut self, name: &AgentName) {
        self.orders.get_mut(name).expect("a member").clear();
        self.replies.get_mut(name).expect("a member").clear();
    }

    pub fn coordinator(&mut self, event: coordinator::Event) {
        let now = self.now;
        if let Some(run) = &mut self.run {
            let takes_over = matches!(event, coordinator::Event::TakenOver(_));
            let effects = Arc::make_mut(run).handle(now, event);
            self.check_fence(!takes_over && effects.iter().any(decides));
            self.execute_coordinator_effects(effects);
        }
    }

    pub fn participant(&mut self, name: &AgentName, event: participant::Event) {
        let now = self.now;
        if let Some(participant) = &mut self.agent_mut(name).participant {
            let effects = Arc::make_mut(participant).handle(now, event);
            self.execute_agent_effects(name, effects);
        }
    }

    pub fn verb(&mut self, action: VerbAction, reason: Option<&str>) -> Result<(), String> {
        self.requests += 1;
        let verb = Verb {
            request: format!("request-{}", self.requests),
            by: "operator".to_owned(),
            reason: reason.map(str::to_owned),
            expected: None,
            action,
        };
        let now = self.now;
        let Some(run) = &mut self.run else {
            return Err("no coordinator".to_owned());
        };
        let effects = Arc::make_mut(run)
            .verb(now, verb)
            .map_err(|refused| format!("{:?}: {refused}", refused.code))?;
        self.execute_coordinator_effects(effects);
        Ok(())
    }

    pub fn observe(&mut self, update: &WorldEvent) {
        if let Err(violation) = self.world.observe(self.now, update) {
            self.violated(&violation.to_string());
        }
    }

    pub fn violated(&mut self, violation: &str) {
        self.trace.push(format!("VIOLATION {violation}"));
        self.violations.push(violation.to_owned());
    }

    /// Completes the oldest chore of an agent's driver.
    pub fn do_chore(&mut self, name: &AgentName) -> bool {
        let Some(chore) = self.agent_mut(name).chores.pop_front() else {
            return false;
        };
        match chore {
            Chore::Probe {
                run,
                phase,
                attempt,
                purpose,
                tasks,
            } => {
                let agent = self.agent(name);
                let results = tasks
                    .iter()
                    .map(|task| (task.step.clone(), probe(agent, task)))
                    .collect();
                let event = participant::Event::Probed {
                    run,
                    phase,
                    attempt,
                    purpose,
                    results,
                };
                self.participant(name, event);
            }
            Chore::Attest { run, step, nonce } => {
                let breach = self.agent(name).breach.clone();
                if breach.is_none() {
                    self.observe(&WorldEvent::Clean {
                        agent: name.clone(),
                        step: step.clone(),
                    });
                }
                let event = participant::Event::Attested {
                    run,
                    step,
                    nonce,
                    breach,
                };
                self.participant(name, event);
            }
        }
        true
    }

    /// Applies the running task's effect to the host.
    pub fn take_effect(&mut self, name: &AgentName) {
        let Some(running) = self.agent(name).running.clone() else {
            return;
        };
        let (step, changed) = match (&running.task.mode, clears(&running.task.params)) {
            (Mode::Execute, None) => (running.task.step.clone(), true),
            (Mode::Execute, Some(step)) => (step, false),
            (Mode::Undo { of }, _) => (of.clone(), false),
        };
        let host = &mut self.agent_mut(name).host;
        if changed {
            host.insert(step.clone(), after());
        } else {
            host.remove(&step);
        }
        if running.task.mode != Mode::Execute {
            let restored = running.before_image.unwrap_or_default();
            if restored != before() {
                let what = format!(
                    "invariant undo_restores_the_first_before_image is broken: {step} on {name} \
                     was restored to {restored}, which is not its state before the run"
                );
                self.violated(&what);
            }
        }
        let during_rollback = changed && running.phase.track == Track::Rollback;
        if !running.task.watch && !during_rollback {
            self.observe(&WorldEvent::Host {
                agent: name.clone(),
                step,
                changed,
            });
        }
    }

    /// The operator reverts what a forward step has changed.
    pub fn undone_by_hand(&mut self, name: &AgentName, step: &StepId) {
        self.agent_mut(name).host.remove(step);
        self.observe(&WorldEvent::Host {
            agent: name.clone(),
            step: step.clone(),
            changed: false,
        });
    }

    /// The running task reports that it has changed its host.
    pub fn changes(&mut self, name: &AgentName, what: &str) {
        let Some(running) = self.agent(name).running.clone() else {
            return;
        };
        let change = Change {
            at: self.now,
            what: what.to_owned(),
        };
        let event = participant::Event::Changed {
            run: running.run,
            step: running.task.step,
            phase: running.phase,
            attempt: running.attempt,
            changes: Changes {
                made: vec![change],
                omitted: 0,
            },
        };
        self.participant(name, event);
    }

    /// Finishes the running task; a successful one takes effect.
    pub fn finish(&mut self, name: &AgentName, outcome: Outcome, outputs: Outputs) -> bool {
        if self.agent(name).running.is_none() {
            return false;
        }
        if outcome.is_good() {
            self.take_effect(name);
        }
        let Some(running) = self.agent_mut(name).running.take() else {
            return false;
        };
        let event = participant::Event::Finished {
            run: running.run,
            step: running.task.step,
            phase: running.phase,
            attempt: running.attempt,
            outcome,
            outputs,
            took: 5,
        };
        self.participant(name, event);
        true
    }

    pub fn deliver_order(&mut self, name: &AgentName, index: usize) -> bool {
        let Some(order) = self.orders.get_mut(name).and_then(|q| q.remove(index)) else {
            return false;
        };
        self.participant(name, participant::Event::Order(order));
        true
    }

    pub fn deliver_reply(&mut self, name: &AgentName, index: usize) -> bool {
        let Some(reply) = self.replies.get_mut(name).and_then(|q| q.remove(index)) else {
            return false;
        };
        let from = name.clone();
        let agent = self.agent(name);
        let position = Some(JournalPosition {
            journal: agent.journal.clone(),
            position: agent.disk.len() as u64,
            hash: format!("hash-{}", agent.disk.len()),
        });
        self.coordinator(coordinator::Event::Reply {
            from,
            reply,
            position,
        });
        true
    }

    /// Delivers messages and completes chores until none are left.
    pub fn settle(&mut self) {
        // Far above the messages of any scenario; stops a livelock.
        for _ in 0..10_000 {
            let mut moved = false;
            for name in self.names() {
                moved |= self.do_chore(&name);
                moved |= self.deliver_order(&name, 0);
                moved |= self.deliver_reply(&name, 0);
            }
            if !moved {
                return;
            }
        }
        panic!("messages never stop");
    }

    /// Advances time, deadline by deadline.
    pub fn pass(&mut self, by: Millis) {
        let until = self.now + by;
        for _ in 0..1_000 {
            let next = self.next_deadline().filter(|at| *at <= until);
            self.now = next.unwrap_or(until).max(self.now);
            self.tick();
            if next.is_none() {
                return;
            }
        }
        panic!("a deadline without progress");
    }

    pub fn next_deadline(&self) -> Option<Millis> {
        let run = self.run.as_ref().and_then(|run| run.next_deadline());
        let agents = self
            .agents
            .values()
            .filter_map(|agent| agent.participant.as_ref()?.next_deadline());
        agents.chain(run).min()
    }

    /// Advances time to the next deadline; `false` if there is none.
    pub fn pass_to_deadline(&mut self) -> bool {
        let Some(deadline) = self.next_deadline() else {
            return false;
        };
        self.now = self.now.max(deadline);
        self.tick();
        true
    }

    pub fn tick(&mut self) {
        self.coordinator(coordinator::Event::Tick);
        for name in self.names() {
            self.participant(&name, participant::Event::Tick);
        }
    }
}

pub fn before() -> Value {
    json!("before")
}

pub fn after() -> Value {
    json!("after")
}

fn new_agent(name: &AgentName, begin: &Begin) -> Agent {
    let journal = begin.members[name].clone();
    let phases = begin
        .resolved_plan
        .forward
        .iter()
        .chain(&begin.resolved_plan.rollback);
    let inputs = phases.flat_map(|p| &p.steps).flat_map(|s| &s.inputs);
    Agent {
        participant: Some(Arc::new(Participant::new(
            name.clone(),
            journal.clone(),
            BootId::from("boot-0"),
        ))),
        boots: 0,
        losses: 0,
        journal,
        disk: Journal::default(),
        connected: false,
        host: BTreeMap::new(),
        running: None,
        chores: VecDeque::new(),
        refuses: BTreeSet::new(),
        indeterminate: BTreeSet::new(),
        producers: inputs.map(|(step, _)| step.clone()).collect(),
        breach: None,
    }
}

fn decides(effect: &coordinator::Effect) -> bool {
    match effect {
        coordinator::Effect::Persist(entry) => entry.record.decides(),
        coordinator::Effect::Send { .. } => false,
    }
}

/// An action's failure with this description.
pub fn failed(what: &str) -> Outcome {
    Outcome::failed(Diagnosis::new(Code::LS2103, what))
}

/// The step whose effect a step with these parameters reverts.
pub fn clears(params: &Value) -> Option<StepId> {
    params.get("clears")?.as_str().map(StepId::from)
}

/// What a probe finds on a host.
fn probe(agent: &Agent, task: &TaskOrder) -> Result<Probe, Diagnosis> {
    if agent.refuses.contains(&task.step) {
        let what = format!("{} can't be done here", task.step);
        return Err(Diagnosis::new(Code::LS2103, what));
    }
    let (step, wanted) = match (&task.mode, clears(&task.params)) {
        (Mode::Execute, None) => (task.step.clone(), after()),
        (Mode::Execute, Some(step)) => (step, before()),
        (Mode::Undo { of }, _) => (of.clone(), before()),
    };
    let found = agent.host.get(&step).cloned().unwrap_or_else(before);
    let finding = if agent.indeterminate.contains(&task.step) {
        Finding::Indeterminate
    } else if found == wanted && !agent.producers.contains(&task.step) {
        Finding::Satisfied
    } else {
        Finding::Pending
    };
    Ok(Probe {
        finding,
        before_image: Some(found),
    })
}
