//! Every interleaving of two runs that need the same agent: it takes part in one
//! run at a time (R19).

use crate::support::fingerprint::Mixer;
use crate::support::plan;
use lockstep_barrier::coordinator::{self, Run, Verb, VerbAction};
use lockstep_barrier::ids::{AgentName, BootId, JournalId, PhaseRef, RunId, Term};
use lockstep_barrier::message::{Finding, Order, Outcome, Probe, Reply, TaskOrder};
use lockstep_barrier::participant::{self, Effect, Event, Participant, Purpose};
use lockstep_barrier::resolved_plan::Outputs;
use std::collections::{HashSet, VecDeque};
use std::hash::Hash;

const PLAN: &str = "
phase stop
  stop a
rollback
phase restart
  un-stop a undo=stop
";

const NOW: u64 = 1_000;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Work {
    run: RunId,
    phase: PhaseRef,
    attempt: u32,
    /// Of a probe; `None` for the running action.
    purpose: Option<Purpose>,
    tasks: Vec<TaskOrder>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Act {
    Order(usize),
    Reply(usize),
    Work,
    /// The agent crashes, starts again and connects.
    Crash,
    Retry(usize),
    Rollback(usize),
}

#[derive(Clone, Hash)]
struct TwoRuns {
    runs: [Run; 2],
    agent: Participant,
    orders: [VecDeque<Order>; 2],
    replies: VecDeque<Reply>,
    work: VecDeque<Work>,
    crashes: u8,
    verbs: u8,
}

/// The journal of the agent, which is its state when it is hashed.
type Disk = Vec<participant::Entry>;

impl TwoRuns {
    fn start(disk: &mut Disk) -> Self {
        let begin = |number: usize| {
            let mut begin = plan::begin(PLAN);
            begin.run = RunId(format!("run-{number}"));
            let term = Term {
                number: 1,
                incarnation: 7,
            };
            Run::start(NOW, begin, term).expect("a valid plan").0
        };
        let (name, journal) = (AgentName::from("a"), JournalId::from("a-1"));
        let mut two = Self {
            runs: [begin(1), begin(2)],
            agent: Participant::new(name, journal, BootId::from("boot")),
            orders: [VecDeque::new(), VecDeque::new()],
            replies: VecDeque::new(),
            work: VecDeque::new(),
            crashes: 1,
            verbs: 2,
        };
        two.connect(disk).expect("nothing has started");
        two
    }

    fn connect(&mut self, disk: &mut Disk) -> Result<(), String> {
        self.orders = [VecDeque::new(), VecDeque::new()];
        self.replies.clear();
        let state = self.agent.agent_state(NOW);
        for index in 0..2 {
            let gone = coordinator::Event::Disconnected(AgentName::from("a"));
            self.decide(index, gone);
            self.decide(index, coordinator::Event::Connected(state.clone()));
        }
        self.tell(Event::Connected, disk)
    }

    fn decide(&mut self, index: usize, event: coordinator::Event) {
        let effects = self.runs[index].handle(NOW, event);
        self.send(index, effects);
    }

    fn send(&mut self, index: usize, effects: Vec<coordinator::Effect>) {
        for effect in effects {
            if let coordinator::Effect::Send { order, .. } = effect {
                self.orders[index].push_back(order);
            }
        }
    }

    fn tell(&mut self, event: Event, disk: &mut Disk) -> Result<(), String> {
        let effects = self.agent.handle(NOW, event);
        self.act(effects, disk)
    }

    fn act(&mut self, effects: Vec<Effect>, disk: &mut Disk) -> Result<(), String> {
        for effect in effects {
            match effect {
                Effect::Persist(entry) => disk.push(entry),
                Effect::Send(reply) => self.replies.push_back(reply),
                Effect::Probe {
                    run,
                    phase,
                    attempt,
                    purpose,
                    tasks,
                    ..
                } => self.work.push_back(Work {
                    run,
                    phase,
                    attempt,
                    purpose: Some(purpose),
                    tasks,
                }),
                Effect::Execute {
                    run,
                    phase,
                    attempt,
                    task,
                    ..
                }
                | Effect::Undo {
                    run,
                    phase,
                    attempt,
                    task,
                    ..
                } => {
                    if let Some(other) = self.work.iter().find(|work| work.purpose.is_none()) {
                        return Err(format!("{run} starts while {} runs a task", other.run));
                    }
                    self.work.push_back(Work {
                        run,
                        phase,
                        attempt,
                        purpose: None,
                        tasks: vec![task],
                    });
                }
                Effect::Cancel { .. }
                | Effect::Attest { .. }
                | Effect::Disarm { .. }
                | Effect::Arm { .. } => {}
            }
        }
        one_run_at_a_time(&self.agent)
    }

    fn acts(&self) -> Vec<Act> {
        let mut acts = Vec::new();
        for index in 0..2 {
            if !self.orders[index].is_empty() {
                acts.push(Act::Order(index));
            }
            if self.verbs > 0 && self.runs[index].state().ended.is_none() {
                acts.extend([Act::Retry(index), Act::Rollback(index)]);
            }
        }
        if let Some(reply) = self.replies.front() {
            let of_first = *reply.run() == *self.runs[0].id();
            acts.push(Act::Reply(usize::from(!of_first)));
        }
        if !self.work.is_empty() {
            acts.push(Act::Work);
        }
        if self.crashes > 0 {
            acts.push(Act::Crash);
        }
        acts
    }

    fn apply(&mut self, act: Act, disk: &mut Disk) -> Result<(), String> {
        match act {
            Act::Order(index) => match self.orders[index].pop_front() {
                Some(order) => self.tell(Event::Order(order), disk),
                None => Ok(()),
            },
            Act::Reply(index) => {
                if let Some(reply) = self.replies.pop_front() {
                    let (from, position) = (AgentName::from("a"), None);
                    let event = coordinator::Event::Reply {
                        from,
                        reply,
                        position,
                    };
                    self.decide(index, event);
                }
                Ok(())
            }
            Act::Work => match self.work.pop_front() {
                Some(work) => self.tell(done(work), disk),
                None => Ok(()),
            },
            Act::Crash => {
                self.crashes -= 1;
                self.work.clear();
                let (name, journal) = (AgentName::from("a"), JournalId::from("a-1"));
                let boot = BootId::from("boot");
                let resumed = Participant::resume(NOW, name, journal, boot, disk.clone());
                let (agent, effects) = resumed.expect("its own journal");
                self.agent = agent;
                self.act(effects, disk)?;
                self.connect(disk)
            }
            Act::Retry(index) => self.verb(index, VerbAction::Retry),
            Act::Rollback(index) => self.verb(index, VerbAction::Rollback),
        }
    }

    fn verb(&mut self, index: usize, action: VerbAction) -> Result<(), String> {
        self.verbs -= 1;
        let verb = Verb {
            request: format!("request-{}", self.verbs),
            by: "operator".to_owned(),
            reason: None,
            expected: None,
            action,
        };
        if let Ok(effects) = self.runs[index].verb(NOW, verb) {
            self.send(index, effects);
        }
        Ok(())
    }

    fn fingerprint(&self) -> u128 {
        let mut mixer = Mixer::new();
        self.hash(&mut mixer);
        mixer.fingerprint()
    }
}

/// A probe finds work to do, and an action succeeds.
fn done(work: Work) -> Event {
    let Work {
        run,
        phase,
        attempt,
        purpose,
        mut tasks,
    } = work;
    match purpose {
        Some(purpose) => {
            let probe = Probe {
                finding: Finding::Pending,
                before_image: Some("before".into()),
            };
            let results = tasks.into_iter().map(|task| (task.step, Ok(probe.clone())));
            Event::Probed {
                run,
                phase,
                attempt,
                purpose,
                results: results.collect(),
            }
        }
        None => Event::Finished {
            run,
            step: tasks.remove(0).step,
            phase,
            attempt,
            outcome: Outcome::Done,
            outputs: Outputs::new(),
            took: 1,
        },
    }
}

/// An agent has accepted orders of at most one run that is not closed, and executes
/// no other.
fn one_run_at_a_time(agent: &Participant) -> Result<(), String> {
    let runs: Vec<&RunId> = agent.state().runs.keys().collect();
    if runs.len() > 1 {
        return Err(format!("it takes part in {runs:?} at once"));
    }
    match agent.acting() {
        Some((run, ..)) if agent.state().locked() != Some(run) => {
            Err(format!("it executes {run}, to which it isn't locked"))
        }
        _ => Ok(()),
    }
}

#[test]
fn an_agent_takes_part_in_one_run_at_a_time() {
    let mut disk = Disk::new();
    let first = TwoRuns::start(&mut disk);
    let mut visited = HashSet::from([first.fingerprint()]);
    let mut stack = vec![(first, disk)];
    let (mut both_ended, mut transitions) = (0, 0);
    while let Some((state, disk)) = stack.pop() {
        both_ended += usize::from(state.runs.iter().all(Run::is_closed));
        for act in state.acts() {
            let (mut next, mut disk) = (state.clone(), disk.clone());
            transitions += 1;
            let result = next.apply(act, &mut disk);
            assert_eq!(
                result,
                Ok(()),
                "invariant one_run_at_a_time is broken: {act:?}"
            );
            if visited.insert(next.fingerprint()) {
                stack.push((next, disk));
            }
        }
    }
    println!(
        "two runs: {} states, {transitions} transitions",
        visited.len()
    );
    assert!(both_ended > 0, "one of the runs never ends");
}
