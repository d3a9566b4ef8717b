//! The participant's side: one machine per agent, for all runs; at most one
//! of them is locked (R19).
//!
//! It promises, and keeps its promises by its own clock: nothing starts
//! without a live promise and a release that names it. Every refusal that is
//! for ever is a durable tombstone (R3); every intent is durable before the
//! driver is told to act, every outcome before it is reported (R23).
//!
//! Not in here: whether an action is allowed (the driver's policy answers in
//! the probes), and what an action does.

use crate::ids::{AgentName, BootId, Header, JournalId, Millis, PhaseRef, RunId, StepId};
use crate::message::{AgentState, Order, Outcome, Probe, Reply, TaskOrder};
use crate::record::{FormatVersion, ParticipantRecord};
use crate::resolved_plan::Outputs;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

mod execute;
mod fold;
mod prepare;
mod recover;
mod resend;
mod state;
mod undo;
mod watch;

pub use fold::ParticipantFoldError;
pub use state::{Promise, PromiseStatus, RunLog, State, TaskLog, WatchLog};

/// One record with its place. `seq` counts per agent, from 1, without a gap.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub seq: u64,
    /// What was promised, done or learnt.
    pub record: ParticipantRecord,
}

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// To vote: every task, policy and resources included.
    Vote,
    /// To start one task: what it finds settles `unchanged` and the before-image (R8).
    Start,
    /// To learn what became of an intent without an outcome.
    AfterCrash,
}

/// What happens to an agent.
#[derive(Debug, Clone, PartialEq)]
pub enum Event {
    /// The coordinator said something.
    Order(Order),
    Probed {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        /// What they were for.
        purpose: Purpose,
        /// What they found; `Err` is a sentence saying why it can't be done.
        results: BTreeMap<StepId, Result<Probe, String>>,
    },
    /// An action came to an end.
    Finished {
        run: RunId,
        step: StepId,
        phase: PhaseRef,
        attempt: u32,
        outcome: Outcome,
        /// What it gives to later steps.
        outputs: Outputs,
        /// How long it took.
        took: Millis,
    },
    /// A watch has looked.
    Attested {
        run: RunId,
        step: StepId,
        nonce: u64,
        /// What it saw, if anything.
        breach: Option<String>,
    },
    /// A watch saw a breach by itself.
    WatchBroke {
        run: RunId,
        step: StepId,
        detail: String,
    },
    /// The session to the coordinator stands.
    Connected,
    /// It is gone. What was released goes on.
    Disconnected,
    /// Time passed; at the latest at [`Participant::next_deadline`].
    Tick,
}

/// What the driver must do, in this order.
#[derive(Debug, Clone, PartialEq)]
pub enum Effect {
    /// Make it durable before anything that follows. A failure ends the
    /// process (R23).
    Persist(Entry),
    /// Give it to the session; dropped if there is none. What matters is sent
    /// again on [`Event::Connected`].
    Send(Reply),
    /// Probe, then [`Event::Probed`] with the same names.
    Probe {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        purpose: Purpose,
        tasks: Vec<TaskOrder>,
        /// What they consume; empty for a vote, which comes before the
        /// release that settles inputs.
        inputs: BTreeMap<StepId, Outputs>,
    },
    /// Carry out, then [`Event::Finished`].
    Execute {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        task: TaskOrder,
        inputs: BTreeMap<StepId, Outputs>,
        /// The first before-image (R6).
        before_image: Option<Value>,
        /// Absolute limit on the boot-time clock.
        deadline: Millis,
    },
    /// Restore by compare-and-set (R7), then [`Event::Finished`].
    Undo {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        task: TaskOrder,
        inputs: BTreeMap<StepId, Outputs>,
        /// The first before-image of the forward task.
        before_image: Option<Value>,
        /// Absolute limit on the boot-time clock.
        deadline: Millis,
    },
    /// Stop a running action as soon as that is safe; `Finished` says how it
    /// ended.
    Cancel {
        run: RunId,
        step: StepId,
        attempt: u32,
    },
    /// Ask a watch to look now, then [`Event::Attested`].
    Attest {
        run: RunId,
        step: StepId,
        nonce: u64,
    },
    /// Stop a watch. It has stopped when the driver goes on to the next
    /// effect.
    Disarm { run: RunId, step: StepId },
    /// Start a watch again that stood before a restart (R16).
    Arm {
        run: RunId,
        step: StepId,
        task: TaskOrder,
        inputs: BTreeMap<StepId, Outputs>,
        /// Nobody watched for a while: the gap is a breach unless the watched
        /// system itself disproves it.
        after_gap: bool,
    },
}

#[derive(Debug, Clone, PartialEq)]
pub struct Participant {
    agent: AgentName,
    journal: JournalId,
    boot: BootId,
    state: State,
    live: Live,
}

/// A Prepare whose probes are running.
#[derive(Debug, Clone, PartialEq)]
struct Probing {
    header: Header,
    tasks: Vec<TaskOrder>,
    finish_by: Millis,
    lapses: Millis,
}

/// What a released attempt is at.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Stage {
    Idle,
    /// Probing a task before its start.
    Probing(StepId),
    /// The driver carries a task out.
    Acting(StepId),
    /// Learning what became of a task after a crash.
    Recovering(StepId),
}

/// The released attempt that is being carried out; at most one.
#[derive(Debug, Clone, PartialEq)]
struct Execution {
    run: RunId,
    phase: PhaseRef,
    attempt: u32,
    tasks: Vec<TaskOrder>,
    released_at: Millis,
    finish_at: Millis,
    stage: Stage,
    /// Nothing more starts: revoked, out of time, or a task ended badly.
    stop: bool,
    /// The driver was told to cancel.
    cancelled: bool,
    /// Close came while a task was running.
    closing: bool,
}

/// What a restart forgets.
#[derive(Debug, Clone, Default, PartialEq)]
struct Live {
    connected: bool,
    /// When live promises lapse.
    lapses: BTreeMap<(RunId, PhaseRef), Millis>,
    probing: Option<Probing>,
    execution: Option<Execution>,
}

impl Participant {
    /// An agent with an empty journal.
    pub fn new(agent: AgentName, journal: JournalId, boot: BootId) -> Self {
        Self {
            agent,
            journal,
            boot,
            state: State::default(),
            live: Live::default(),
        }
    }

    /// Takes an agent up from its journal: promises are void (R12), what was
    /// released and not begun never will be, what was begun is probed, and
    /// watches stand again.
    ///
    /// # Errors
    /// When the entries are not a complete journal.
    pub fn resume(
        now: Millis,
        agent: AgentName,
        journal: JournalId,
        boot: BootId,
        entries: impl IntoIterator<Item = Entry>,
    ) -> Result<(Self, Vec<Effect>), ParticipantFoldError> {
        let mut participant = Self {
            agent,
            journal,
            boot,
            state: State::fold(entries)?,
            live: Live::default(),
        };
        let mut effects = Vec::new();
        participant.void_promises(&mut effects);
        participant.arm_again(&mut effects);
        participant.recover(now, &mut effects);
        Ok((participant, effects))
    }

    /// Takes an event in.
    pub fn handle(&mut self, now: Millis, event: Event) -> Vec<Effect> {
        let mut effects = Vec::new();
        self.lapse_overdue(now, &mut effects);
        match event {
            Event::Order(order) => self.order(now, order, &mut effects),
            Event::Probed {
                run,
                phase,
                attempt,
                purpose,
                results,
            } => match purpose {
                Purpose::Vote => self.probed_vote(&run, phase, attempt, results, &mut effects),
                Purpose::Start => {
                    self.probed_start(now, &run, phase, attempt, results, &mut effects);
                }
                Purpose::AfterCrash => {
                    self.probed_after_crash(now, &run, phase, attempt, results, &mut effects);
                }
            },
            Event::Finished {
                run,
                step,
                phase,
                attempt,
                outcome,
                outputs,
                took,
            } => {
                let end = execute::End {
                    outcome,
                    outputs,
                    took,
                };
                self.finished(now, &run, &step, (phase, attempt), end, &mut effects);
            }
            Event::Attested {
                run,
                step,
                nonce,
                breach,
            } => self.attested(run, step, nonce, breach, &mut effects),
            Event::WatchBroke { run, step, detail } => {
                self.watch_broke(&run, &step, detail, &mut effects);
            }
            Event::Connected => {
                self.live.connected = true;
                self.send_again(&mut effects);
            }
            Event::Disconnected => self.live.connected = false,
            Event::Tick => {}
        }
        self.stop_overdue(now, &mut effects);
        effects
    }

    /// When [`Participant::handle`] must be given a `Tick` at the latest.
    pub fn next_deadline(&self) -> Option<Millis> {
        let finish = self
            .live
            .execution
            .as_ref()
            .filter(|execution| !execution.cancelled)
            .map(|execution| execution.finish_at);
        self.live.lapses.values().copied().chain(finish).min()
    }

    /// What the agent says about itself when it connects (R10).
    pub fn standing(&self, now: Millis) -> AgentState {
        let run = self.state.locked().cloned();
        let log = run.as_ref().and_then(|run| self.state.run(run));
        AgentState {
            agent: self.agent.clone(),
            journal: self.journal.clone(),
            term: self.state.term,
            decision: log.map_or(0, |log| log.decision),
            run,
            release_age: self
                .live
                .execution
                .as_ref()
                .map(|execution| now.saturating_sub(execution.released_at)),
            release_ages: self.release_ages(now),
        }
    }

    /// Points in time of an earlier boot say nothing about ages.
    fn release_ages(&self, now: Millis) -> BTreeMap<PhaseRef, Millis> {
        let log = self.state.locked().and_then(|run| self.state.run(run));
        log.into_iter()
            .flat_map(|log| &log.released)
            .filter(|(_, released)| released.boot == self.boot && !self.boot.0.is_empty())
            .map(|(phase, released)| (*phase, now.saturating_sub(released.at)))
            .collect()
    }

    pub fn state(&self) -> &State {
        &self.state
    }

    pub fn agent(&self) -> &AgentName {
        &self.agent
    }

    /// The task that the driver is carrying out, if any.
    pub fn acting(&self) -> Option<(&RunId, PhaseRef, u32, &StepId)> {
        let execution = self.live.execution.as_ref()?;
        match &execution.stage {
            Stage::Acting(step) => Some((&execution.run, execution.phase, execution.attempt, step)),
            Stage::Idle | Stage::Probing(_) | Stage::Recovering(_) => None,
        }
    }

    /// Records something: in the state at once, on disk before whatever
    /// follows in the list.
    fn persist(&mut self, record: ParticipantRecord, effects: &mut Vec<Effect>) {
        if self.state.last == 0 {
            let format = FormatVersion::CURRENT;
            self.append(ParticipantRecord::Opened { format }, effects);
        }
        self.append(record, effects);
    }

    fn append(&mut self, record: ParticipantRecord, effects: &mut Vec<Effect>) {
        let entry = Entry {
            seq: self.state.last + 1,
            record,
        };
        self.state.apply(entry.clone());
        effects.push(Effect::Persist(entry));
    }

    fn order(&mut self, now: Millis, order: Order, effects: &mut Vec<Effect>) {
        match order {
            Order::Prepare {
                header,
                tasks,
                start_by,
                finish_by,
                ..
            } => {
                if self.obey_prepare(&header, effects) {
                    let lapses = now.saturating_add(start_by);
                    self.prepare(header, tasks, lapses, finish_by, effects);
                }
            }
            Order::Release {
                header,
                inputs,
                before_images,
            } => {
                if self.obey(&header, effects) {
                    self.release(now, &header, inputs, before_images, effects);
                }
            }
            Order::Revoke { header } => {
                if self.obey(&header, effects) {
                    self.revoke(&header, effects);
                }
            }
            Order::Attest {
                header,
                step,
                nonce,
            } => {
                if self.obey(&header, effects) {
                    self.attest(header.run, step, nonce, effects);
                }
            }
            Order::Disarm { header, steps } => {
                if self.obey(&header, effects) {
                    self.disarm(&header.run, &steps, effects);
                }
            }
            Order::Ack {
                run,
                step,
                phase,
                attempt,
            } => self.acknowledged(run, step, phase, attempt, effects),
            Order::Close {
                run,
                term,
                decision,
            } => self.close(run, term, decision, effects),
        }
    }
}
