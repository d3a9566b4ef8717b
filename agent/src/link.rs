//! What the session and the loop say to each other.

use lockstep_barrier::message::Order;
use lockstep_barrier::participant::Event;
use lockstep_proto::v1;
use lockstep_proto::v1::SessionRequest;
use tokio::sync::{mpsc, oneshot};

/// Replies that may wait for the link. An agent has a few tasks at a time;
/// the rest is room for their live lines.
const OUTBOX: usize = 1024;

/// What the loop hears.
pub enum Input {
    /// The session wants to introduce this agent.
    Hello(oneshot::Sender<v1::Hello>),
    /// The coordinator has heard of this entry of this agent's journal:
    /// whether it is there.
    Remembered {
        position: u64,
        /// Its hash, in hex.
        hash: String,
        answer: oneshot::Sender<bool>,
    },
    Connected(Outbox),
    Disconnected,
    Order {
        order: Order,
        traceparent: String,
    },
    /// The coordinator wants to know how things stand.
    Preflight(v1::PreflightOrder),
    /// Something that work beside the loop came to.
    Happened(Event),
    /// The process was told to end.
    Stop,
}

/// How inputs reach the loop.
pub type Inputs = mpsc::Sender<Input>;

/// Where replies go. Dropping it ends the session.
#[derive(Clone)]
pub struct Outbox(mpsc::Sender<SessionRequest>);

impl Outbox {
    /// An outbox and what comes out of it.
    pub fn new() -> (Self, mpsc::Receiver<SessionRequest>) {
        let (sender, queue) = mpsc::channel(OUTBOX);
        (Self(sender), queue)
    }

    /// Queues a reply; `false` where the queue is full or the session over.
    #[must_use]
    pub fn send(&self, request: SessionRequest) -> bool {
        self.0.try_send(request).is_ok()
    }

    /// Queues a live line if there is plenty of room: lines must never crowd
    /// out outcomes.
    #[must_use]
    pub fn send_line(&self, request: SessionRequest) -> bool {
        self.0.capacity() > OUTBOX / 2 && self.send(request)
    }
}
