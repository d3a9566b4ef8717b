//! The interface to the agent's event loop: a [`Handle`] with a method for
//! each input, and the [`Outbox`] through which the loop answers.

use crate::driver::Recorder;
use crate::host::context::Line;
use crate::preflight::{PreflightOrder, PreflightReport};
use lockstep_barrier::ids::{BootId, PhaseRef, RunId, StepId};
use lockstep_barrier::message::{AgentState, Order, Reply};
use lockstep_barrier::participant::Event;
use std::collections::BTreeMap;
use std::sync::Arc;
use tokio::sync::{mpsc, oneshot};

/// Inputs that may wait for the loop: a burst of orders and of tasks that
/// finish at the same time. Senders wait beyond it.
const INPUTS: usize = 256;

/// Messages that may wait for the connection. An agent has a few tasks at a
/// time; the rest is room for their progress lines.
const OUTBOX: usize = 1024;

/// The loop has ended, and with it the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the agent is stopping")]
pub struct Stopped;

/// Position and hash (hex) of a journal entry.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct JournalEntry {
    pub position: u64,
    pub hash: String,
}

/// What an agent reports about itself when a session opens.
#[derive(Debug, Clone)]
pub struct Introduction {
    pub state: AgentState,
    pub machine_id: String,
    pub boot_id: BootId,
    /// Counts the sessions since the journal was created.
    pub session_number: u64,
    pub version: String,
    pub labels: BTreeMap<String, String>,
    pub journal_head: JournalEntry,
    pub allowed_actions: Vec<String>,
    /// The coordinator's last Welcome named an entry that this agent's
    /// journal doesn't have.
    pub journal_mismatch: bool,
}

/// A line about a running task. May be lost.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TaskProgress {
    pub run: RunId,
    pub phase: PhaseRef,
    pub step: StepId,
    pub line: Line,
    /// Lines of this task that were dropped since the last one that was sent.
    pub omitted: u64,
}

/// What the loop sends to the coordinator.
#[derive(Debug)]
pub enum Outgoing {
    Reply {
        reply: Reply,
        /// Trace context of the run's last order; may be empty.
        traceparent: String,
        /// The last journal entry, with outcomes only: the coordinator saves
        /// it, so that a journal restored to before it is detected (R10).
        journal_head: Option<JournalEntry>,
    },
    Progress(TaskProgress),
    Preflight(PreflightReport),
    /// The session is alive.
    Pong,
}

/// What the loop handles.
#[derive(Debug)]
pub(crate) enum Input {
    Introduce {
        reply: oneshot::Sender<Introduction>,
    },
    HasEntry {
        entry: JournalEntry,
        reply: oneshot::Sender<bool>,
    },
    Connected(Outbox),
    Disconnected,
    Order {
        order: Order,
        traceparent: String,
    },
    Preflight(PreflightOrder),
    /// From a probe, a task or a watch, or the passing of time.
    Event(Event),
    /// A running task has changed the host.
    Changed(Arc<Recorder>),
    /// The configuration file has changed.
    ConfigChanged,
    Stop,
}

#[derive(Clone)]
pub struct Handle {
    inputs: mpsc::Sender<Input>,
}

impl Handle {
    pub(crate) fn new() -> (Self, mpsc::Receiver<Input>) {
        let (inputs, queue) = mpsc::channel(INPUTS);
        (Self { inputs }, queue)
    }

    async fn send(&self, input: Input) -> Result<(), Stopped> {
        self.inputs.send(input).await.map_err(|_| Stopped)
    }

    async fn ask<T>(
        &self,
        question: impl FnOnce(oneshot::Sender<T>) -> Input,
    ) -> Result<T, Stopped> {
        let (reply, answer) = oneshot::channel();
        self.send(question(reply)).await?;
        answer.await.map_err(|_| Stopped)
    }

    /// Starts a session: counts it in the journal and describes this agent.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn introduce(&self) -> Result<Introduction, Stopped> {
        self.ask(|reply| Input::Introduce { reply }).await
    }

    /// Whether this agent's journal has that entry.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn has_entry(&self, entry: JournalEntry) -> Result<bool, Stopped> {
        self.ask(|reply| Input::HasEntry { entry, reply }).await
    }

    /// Reports an open session; replies go to this outbox from now on.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn connected(&self, outbox: Outbox) -> Result<(), Stopped> {
        self.send(Input::Connected(outbox)).await
    }

    /// # Errors
    /// When the agent is stopping.
    pub async fn disconnected(&self) -> Result<(), Stopped> {
        self.send(Input::Disconnected).await
    }

    /// # Errors
    /// When the agent is stopping.
    pub async fn order(&self, order: Order, traceparent: String) -> Result<(), Stopped> {
        self.send(Input::Order { order, traceparent }).await
    }

    /// # Errors
    /// When the agent is stopping.
    pub async fn preflight(&self, order: PreflightOrder) -> Result<(), Stopped> {
        self.send(Input::Preflight(order)).await
    }

    /// Reports the result of work that the loop has started. A loop that has
    /// ended doesn't need it: the next process recovers from the journal.
    pub(crate) async fn event(&self, event: Event) {
        let _ = self.send(Input::Event(event)).await;
    }

    /// Queues an input without waiting; `false` if there is no room.
    pub(crate) fn offer(&self, input: Input) -> bool {
        self.inputs.try_send(input).is_ok()
    }

    /// Reports that the configuration file has changed.
    ///
    /// # Errors
    /// When the agent is stopping.
    pub async fn config_changed(&self) -> Result<(), Stopped> {
        self.send(Input::ConfigChanged).await
    }

    /// Ends the loop once the inputs before this one are handled.
    pub async fn stop(&self) {
        let _ = self.send(Input::Stop).await;
    }
}

/// Sends to the coordinator while a session is open. Dropping the last clone
/// ends the session.
#[derive(Debug, Clone)]
pub struct Outbox(mpsc::Sender<Outgoing>);

impl Outbox {
    pub fn new() -> (Self, mpsc::Receiver<Outgoing>) {
        let (sender, queue) = mpsc::channel(OUTBOX);
        (Self(sender), queue)
    }

    /// Queues a message; `false` where the queue is full or the session ended.
    #[must_use]
    pub fn send(&self, message: Outgoing) -> bool {
        self.0.try_send(message).is_ok()
    }

    /// For the session itself, which answers pings: it must not keep the outbox
    /// open.
    pub fn downgrade(&self) -> WeakOutbox {
        WeakOutbox(self.0.downgrade())
    }

    /// Queues a progress line if at least half of the queue is free, so that
    /// lines never crowd out outcomes.
    #[must_use]
    pub fn send_progress(&self, progress: TaskProgress) -> bool {
        self.0.capacity() > OUTBOX / 2 && self.send(Outgoing::Progress(progress))
    }
}

/// An [`Outbox`] that doesn't keep the session open.
#[derive(Debug, Clone)]
pub struct WeakOutbox(mpsc::WeakSender<Outgoing>);

impl WeakOutbox {
    /// Queues a message, if the outbox is open and has room.
    pub fn offer(&self, message: Outgoing) {
        if let Some(sender) = self.0.upgrade() {
            // A session whose queue is full is ended by the loop.
            let _ = sender.try_send(message);
        }
    }
}
