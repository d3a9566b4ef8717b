//! The way to the driver for everything that serves: methods, no channels.

use crate::agents::Outbox;
use crate::preflights::Answers;
use crate::runs::Happening;
use lockstep_barrier::coordinator::VerbAction;
use lockstep_barrier::ids::AgentName;
use lockstep_proto::v1;
use tokio::sync::{broadcast, mpsc, oneshot};

/// Questions and messages that may wait for the driver; senders wait beyond
/// it. A thousand agents answer a release at once.
const INPUTS: usize = 4096;

/// Why something was refused: what the caller gets as a gRPC status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    pub kind: RefusalKind,
    /// What, why, and the remedy.
    pub message: String,
}

/// See [`Refusal`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RefusalKind {
    /// The input is wrong.
    Invalid,
    /// There is no such thing.
    NotFound,
    Precondition,
    /// The process is ending.
    Unavailable,
}

impl Refusal {
    pub(crate) fn new(kind: RefusalKind, message: impl Into<String>) -> Self {
        Self {
            kind,
            message: message.into(),
        }
    }
}

pub type Answer<T> = Result<T, Refusal>;

pub(crate) type Reply<T> = oneshot::Sender<Answer<T>>;

/// A verb as an operator asked for it, the phase still by name.
#[derive(Debug, Clone)]
pub struct Asked {
    /// The run; empty: the newest.
    pub run: String,
    pub request: String,
    pub by: String,
    pub reason: Option<String>,
    /// Sequence as the operator saw it.
    pub expected: Option<u64>,
    pub action: AskedAction,
}

/// See [`Asked`].
#[derive(Debug, Clone)]
pub enum AskedAction {
    /// Approve the gate of the phase of that name, for the plan of that
    /// digest.
    Approve {
        /// Name of the phase.
        phase: String,
        digest: String,
    },
    Other(VerbAction),
}

pub(crate) enum Input {
    Hello {
        hello: Box<v1::Hello>,
        address: String,
        outbox: Outbox,
        reply: Reply<(u64, v1::Welcome)>,
    },
    Agent {
        agent: AgentName,
        session: u64,
        message: Box<v1::session_request::Message>,
        /// Position and hash of its journal's last entry, with outcomes.
        place: (u64, String),
    },
    Gone {
        agent: AgentName,
        session: u64,
    },
    Preflight {
        plan: v1::PlanDocument,
        answers: Answers,
        reply: Reply<()>,
    },
    Started {
        request: String,
        reply: Reply<Option<String>>,
    },
    Start {
        plan: v1::PlanDocument,
        request: String,
        by: String,
        reply: Reply<String>,
    },
    List {
        limit: usize,
        reply: Reply<Vec<v1::RunStatus>>,
    },
    Get {
        run: String,
        reply: Reply<v1::RunStatus>,
    },
    Watch {
        run: String,
        after: u64,
        reply: Reply<Watched>,
    },
    Events {
        run: String,
        after: u64,
        reply: Reply<Vec<v1::RunEvent>>,
    },
    Verb {
        asked: Box<Asked>,
        reply: Reply<v1::RunStatus>,
    },
    Agents {
        reply: Reply<Vec<v1::AgentStatus>>,
    },
    Accept {
        agent: String,
        by: String,
        reason: String,
        reply: Reply<v1::AgentStatus>,
    },
    Stop,
}

/// What a watcher begins with.
pub struct Watched {
    /// How the run stands.
    pub status: v1::RunStatus,
    /// Entries it hasn't seen.
    pub missed: Vec<v1::RunEvent>,
    /// What happens from now on.
    pub happenings: broadcast::Receiver<Happening>,
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

    async fn ask<T>(&self, question: impl FnOnce(Reply<T>) -> Input) -> Answer<T> {
        let ending = || {
            Refusal::new(
                RefusalKind::Unavailable,
                "the coordinator is ending; try again",
            )
        };
        let (reply, answer) = oneshot::channel();
        self.inputs
            .send(question(reply))
            .await
            .map_err(|_| ending())?;
        answer.await.map_err(|_| ending())?
    }

    /// Introduces an agent's session.
    ///
    /// # Errors
    /// When it is not admitted.
    pub async fn hello(
        &self,
        hello: v1::Hello,
        address: String,
        outbox: Outbox,
    ) -> Answer<(u64, v1::Welcome)> {
        let hello = Box::new(hello);
        self.ask(|reply| Input::Hello {
            hello,
            address,
            outbox,
            reply,
        })
        .await
    }

    /// Passes on what an agent says, with position and hash of its journal's
    /// last entry.
    pub async fn agent_says(
        &self,
        agent: AgentName,
        session: u64,
        message: v1::session_request::Message,
        place: (u64, String),
    ) {
        let message = Box::new(message);
        // A driver that is gone needs no messages.
        let _ = self
            .inputs
            .send(Input::Agent {
                agent,
                session,
                message,
                place,
            })
            .await;
    }

    /// Says that a session ended.
    pub async fn agent_gone(&self, agent: AgentName, session: u64) {
        let _ = self.inputs.send(Input::Gone { agent, session }).await;
    }

    /// Asks every agent of a plan to look.
    ///
    /// # Errors
    /// When the plan isn't one.
    pub async fn preflight(&self, plan: v1::PlanDocument, answers: Answers) -> Answer<()> {
        self.ask(|reply| Input::Preflight {
            plan,
            answers,
            reply,
        })
        .await
    }

    /// The run that this request has started before, if it has.
    ///
    /// # Errors
    /// When the process ends.
    pub async fn started(&self, request: String) -> Answer<Option<String>> {
        self.ask(|reply| Input::Started { request, reply }).await
    }

    /// Starts a run and gives its id.
    ///
    /// # Errors
    /// When the plan isn't one, or its parties aren't there.
    pub async fn start(
        &self,
        plan: v1::PlanDocument,
        request: String,
        by: String,
    ) -> Answer<String> {
        self.ask(|reply| Input::Start {
            plan,
            request,
            by,
            reply,
        })
        .await
    }

    /// Runs, newest first.
    ///
    /// # Errors
    /// When the process ends.
    pub async fn list(&self, limit: usize) -> Answer<Vec<v1::RunStatus>> {
        self.ask(|reply| Input::List { limit, reply }).await
    }

    /// How a run stands.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn get(&self, run: String) -> Answer<v1::RunStatus> {
        self.ask(|reply| Input::Get { run, reply }).await
    }

    /// How a run stands and what happens from then on.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn watch(&self, run: String, after: u64) -> Answer<Watched> {
        self.ask(|reply| Input::Watch { run, after, reply }).await
    }

    /// A run's journal.
    ///
    /// # Errors
    /// When there is none of that id.
    pub async fn events(&self, run: String, after: u64) -> Answer<Vec<v1::RunEvent>> {
        self.ask(|reply| Input::Events { run, after, reply }).await
    }

    /// Carries out what an operator asks for.
    ///
    /// # Errors
    /// When it can't be done now.
    pub async fn verb(&self, asked: Asked) -> Answer<v1::RunStatus> {
        let asked = Box::new(asked);
        self.ask(|reply| Input::Verb { asked, reply }).await
    }

    /// Every known agent.
    ///
    /// # Errors
    /// When the process ends.
    pub async fn agents(&self) -> Answer<Vec<v1::AgentStatus>> {
        self.ask(|reply| Input::Agents { reply }).await
    }

    /// Ends an agent's quarantine.
    ///
    /// # Errors
    /// When it isn't in quarantine.
    pub async fn accept(
        &self,
        agent: String,
        by: String,
        reason: String,
    ) -> Answer<v1::AgentStatus> {
        self.ask(|reply| Input::Accept {
            agent,
            by,
            reason,
            reply,
        })
        .await
    }

    pub async fn stop(&self) {
        let _ = self.inputs.send(Input::Stop).await;
    }
}
