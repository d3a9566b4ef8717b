//! The participant: one state machine per agent, for all runs. The agent is
//! locked to at most one run at a time (R19).
//!
//! A task starts only on a live promise and a release of the same attempt;
//! promises lapse by the agent's own clock. An attempt that will never be
//! executed has a durable tombstone (R3). An intent is durable before the driver
//! runs the action, an outcome before it is reported (R23).
//!
//! The driver decides whether an action is allowed (its policy is part of the
//! probes), and runs it.

use crate::ids::{AgentName, BootId, Header, JournalId, Millis, PhaseRef, RunId, StepId};
use crate::message::{AgentState, Changes, Order, Outcome, Probe, ReleaseAge, Reply, TaskOrder};
use crate::record::{FormatVersion, ParticipantRecord};
use crate::resolved_plan::Outputs;
use lockstep_api::Diagnosis;
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

/// One record with its position. `seq` counts per agent, from 1, without gaps.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Entry {
    pub seq: u64,
    pub record: ParticipantRecord,
}

/// What a probe is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Purpose {
    /// For a vote: all tasks, including policy and resources.
    Vote,
    /// Before the start of one task: its finding decides on `unchanged` and
    /// provides the before-image (R8).
    Start,
    /// After a restart, for a task with an intent and no outcome.
    AfterCrash,
}

/// An input of the agent's state machine.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Event {
    Order(Order),
    Probed {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        purpose: Purpose,
        /// By step; `Err` is a sentence saying why the task can't run.
        results: BTreeMap<StepId, Result<Probe, Diagnosis>>,
    },
    /// A running action has changed the host.
    Changed {
        run: RunId,
        step: StepId,
        phase: PhaseRef,
        attempt: u32,
        changes: Changes,
    },
    /// An action has finished.
    Finished {
        run: RunId,
        step: StepId,
        phase: PhaseRef,
        attempt: u32,
        outcome: Outcome,
        outputs: Outputs,
        took: Millis,
    },
    /// A watch has answered [`Effect::Attest`].
    Attested {
        run: RunId,
        step: StepId,
        nonce: u64,
        breach: Option<String>,
    },
    /// A watch reports a breach without being asked.
    WatchBroke {
        run: RunId,
        step: StepId,
        detail: String,
    },
    /// The session to the coordinator is established.
    Connected,
    /// The session has ended. Released tasks continue.
    Disconnected,
    /// Time passed; at the latest at [`Participant::next_deadline`].
    Tick,
}

/// The driver must execute effects in the order of their list.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Make it durable before anything that follows. A failure ends the
    /// process (R23).
    Persist(Entry),
    /// Pass it to the session; dropped if there is none. Unacknowledged outcomes
    /// and breaches are resent on [`Event::Connected`].
    Send(Reply),
    /// Probe the tasks, then report [`Event::Probed`] with the same attempt.
    Probe {
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        purpose: Purpose,
        tasks: Vec<TaskOrder>,
        /// Inputs of the tasks; empty for a vote, because only the release
        /// provides them.
        inputs: BTreeMap<StepId, Outputs>,
    },
    /// Run the action, then report [`Event::Finished`].
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
    /// Restore by compare-and-set (R7), then report [`Event::Finished`].
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
    /// Stop a running action as soon as that is safe; `Finished` reports its
    /// outcome.
    Cancel {
        run: RunId,
        step: StepId,
        attempt: u32,
    },
    /// Have a watch check now, then report [`Event::Attested`].
    Attest {
        run: RunId,
        step: StepId,
        nonce: u64,
    },
    /// Stop a watch. It must have stopped before the driver executes the next
    /// effect.
    Disarm { run: RunId, step: StepId },
    /// Start a watch: its task has ended as `armed`, or it was armed before a
    /// restart (R16).
    Arm {
        run: RunId,
        step: StepId,
        task: TaskOrder,
        inputs: BTreeMap<StepId, Outputs>,
        /// The watch was not running for a while. The gap is a breach unless the
        /// watched system shows that nothing happened in it.
        after_gap: bool,
    },
}

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct Participant {
    agent: AgentName,
    journal: JournalId,
    boot: BootId,
    state: State,
    live: Live,
}

/// A Prepare whose probes are running.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Probing {
    header: Header,
    tasks: Vec<TaskOrder>,
    finish_by: Millis,
    lapses: Millis,
}

/// What the agent is doing for a released attempt.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
enum Stage {
    Idle,
    /// Probing a task before its start.
    Probing(StepId),
    /// The driver is running a task.
    Acting(StepId),
    /// Probing a task after a crash.
    Recovering(StepId),
}

/// The released attempt that is being executed; at most one.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Execution {
    run: RunId,
    phase: PhaseRef,
    attempt: u32,
    tasks: Vec<TaskOrder>,
    released_at: Millis,
    finish_at: Millis,
    stage: Stage,
    /// No further task starts: the attempt is revoked or out of time, or a task
    /// did not succeed.
    stop: bool,
    /// [`Effect::Cancel`] was emitted.
    cancelled: bool,
    /// It was emitted because the run turns back, for a task that changes nothing.
    abandoned: bool,
    /// `Close` arrived while a task was running.
    closing: bool,
}

/// Times of a live promise, by this agent's clock.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
struct LivePromise {
    lapses: Millis,
    promised: Millis,
}

/// State that is lost in a restart.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
struct Live {
    connected: bool,
    promises: BTreeMap<(RunId, PhaseRef), LivePromise>,
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

    /// Resumes an agent from its journal. Promises are void (R12), released tasks
    /// without an intent end as not started, a task with an intent and no outcome
    /// is probed, and watches are armed again.
    ///
    /// # Errors
    /// If the entries are not a complete journal.
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
        participant.rearm_watches(&mut effects);
        participant.recover(now, &mut effects);
        Ok((participant, effects))
    }

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
                Purpose::Vote => {
                    self.probed_vote(now, &run, (phase, attempt), results, &mut effects);
                }
                Purpose::Start => {
                    self.probed_start(now, &run, phase, attempt, results, &mut effects);
                }
                Purpose::AfterCrash => {
                    self.probed_after_crash(now, &run, phase, attempt, results, &mut effects);
                }
            },
            Event::Changed {
                run,
                step,
                phase,
                attempt,
                changes,
            } => self.changed(&run, &step, (phase, attempt), changes, &mut effects),
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
                self.resend(&mut effects);
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
        let lapses = self.live.promises.values().map(|promise| promise.lapses);
        lapses.chain(finish).min()
    }

    /// The state that the agent reports when it connects (R10).
    pub fn agent_state(&self, now: Millis) -> AgentState {
        let run = self.state.locked().cloned();
        let log = run.as_ref().and_then(|run| self.state.run(run));
        AgentState {
            agent: self.agent.clone(),
            journal: self.journal.clone(),
            term: self.state.term,
            decision: log.map_or(0, |log| log.decision),
            run,
            release_age: self.live.execution.as_ref().map(|execution| ReleaseAge {
                phase: execution.phase,
                attempt: execution.attempt,
                age: now.saturating_sub(execution.released_at),
            }),
            release_ages: self.release_ages(now),
        }
    }

    /// A release received in an earlier boot has no known age.
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

    /// The task that the driver is running, if any.
    pub fn acting(&self) -> Option<(&RunId, PhaseRef, u32, &StepId)> {
        let execution = self.live.execution.as_ref()?;
        match &execution.stage {
            Stage::Acting(step) => Some((&execution.run, execution.phase, execution.attempt, step)),
            Stage::Idle | Stage::Probing(_) | Stage::Recovering(_) => None,
        }
    }

    /// Applies a record to the state, and has it written before the effects
    /// that follow in the list.
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
                if self.accept_prepare(&header, effects) {
                    let lapses = now.saturating_add(start_by);
                    self.prepare(now, header, tasks, (lapses, finish_by), effects);
                }
            }
            Order::Release {
                header,
                promise_age,
                inputs,
                before_images,
            } => {
                if self.accept_order(&header, effects) {
                    let given = (inputs, before_images);
                    self.release(now, header, promise_age, given, effects);
                }
            }
            Order::Revoke {
                header,
                cancel_read_only,
            } => {
                if self.accept_order(&header, effects) {
                    self.revoke(&header, cancel_read_only, effects);
                }
            }
            Order::Attest {
                header,
                step,
                nonce,
            } => {
                if self.accept_order(&header, effects) {
                    self.attest(header.run, step, nonce, effects);
                }
            }
            Order::Disarm { header, steps } => {
                if self.accept_order(&header, effects) {
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
