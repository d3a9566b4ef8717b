//! The driver's interface to the services: one method per request.

use crate::agents::{Introduction, Outbox};
use crate::plans::CheckedPlan;
use crate::preflights::{Answers, TaskFinding};
use lockstep_api::{AgentStatus, Code, Diagnosis, LineKind, RunEvent, RunStatus, RunUpdate};
use lockstep_barrier::coordinator::VerbAction;
use lockstep_barrier::ids::{AgentName, PhaseRef, RunId};
use tokio::sync::{broadcast, mpsc, oneshot};

/// Inputs that may wait for the driver; beyond that, senders wait. A thousand
/// agents answer a release at once.
const INPUTS: usize = 4096;

/// Why a request was refused; the caller receives it as a gRPC status.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{diagnosis}")]
pub struct RequestError {
    pub kind: RequestErrorKind,
    pub diagnosis: Diagnosis,
}

/// See [`RequestError`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RequestErrorKind {
    /// The input is wrong.
    Invalid,
    /// There is no such thing.
    NotFound,
    Precondition,
    /// The process is ending, or its journal can't be read.
    Unavailable,
    /// A defect of the coordinator.
    Internal,
}

impl RequestError {
    pub(crate) fn new(kind: RequestErrorKind, diagnosis: Diagnosis) -> Self {
        Self { kind, diagnosis }
    }

    pub(crate) fn invalid(diagnosis: Diagnosis) -> Self {
        Self::new(RequestErrorKind::Invalid, diagnosis)
    }

    pub(crate) fn precondition(diagnosis: Diagnosis) -> Self {
        Self::new(RequestErrorKind::Precondition, diagnosis)
    }
}

pub type Answer<T> = Result<T, RequestError>;

pub(crate) type Reply<T> = oneshot::Sender<Answer<T>>;

/// A verb as an operator submitted it, the phase by name.
#[derive(Debug, Clone)]
pub struct VerbRequest {
    /// The run; empty: the newest.
    pub run: String,
    pub request: String,
    pub by: String,
    pub reason: Option<String>,
    /// The run's sequence as the operator saw it; `None`: don't compare.
    pub expected: Option<u64>,
    pub action: RequestedVerb,
}

/// See [`VerbRequest`].
#[derive(Debug, Clone)]
pub enum RequestedVerb {
    /// Approve the gate of the phase of that name, for the plan of that
    /// digest.
    Approve {
        /// Name of the phase.
        phase: String,
        digest: String,
    },
    Other(VerbAction),
}

/// What the driver's queue holds. Each kind is matched without a wildcard, so
/// that a variant without an answer doesn't compile.
pub(crate) enum Input {
    Command(Command),
    Query(Query),
    Session(SessionEvent),
}

/// What may change something.
pub(crate) enum Command {
    Preflight {
        plan: CheckedPlan,
        answers: Answers,
        reply: Reply<()>,
    },
    StartRun {
        plan: CheckedPlan,
        request: String,
        by: String,
        reply: Reply<String>,
    },
    Verb {
        asked: Box<VerbRequest>,
        reply: Reply<RunStatus>,
    },
    Accept {
        agent: String,
        by: String,
        reason: String,
        reply: Reply<AgentStatus>,
    },
    Stop,
}

pub(crate) enum Query {
    List {
        limit: usize,
        reply: Reply<Vec<RunStatus>>,
    },
    Get {
        run: String,
        reply: Reply<RunStatus>,
    },
    Watch {
        run: String,
        after: u64,
        reply: Reply<Watched>,
    },
    Events {
        run: String,
        after: u64,
        reply: Reply<Vec<RunEvent>>,
    },
    Agents {
        reply: Reply<Vec<AgentStatus>>,
    },
}

/// What happens in agents' sessions.
pub(crate) enum SessionEvent {
    Opened {
        introduction: Box<Introduction>,
        address: String,
        outbox: Outbox,
        reply: Reply<u64>,
    },
    Reported {
        agent: AgentName,
        session: u64,
        report: Box<AgentReport>,
    },
    Closed {
        agent: AgentName,
        session: u64,
    },
}

/// What an agent reports in its session.
#[derive(Debug)]
pub enum AgentReport {
    Reply {
        reply: lockstep_barrier::message::Reply,
        /// Position and hash of the last entry in its journal; sent with
        /// outcomes, otherwise 0 and empty.
        place: (u64, String),
    },
    /// The answer to a ping.
    Alive,
    Progress(Progress),
    Preflight {
        request: String,
        findings: Vec<TaskFinding>,
    },
}

/// A line about a task that is running. It may be lost.
#[derive(Debug)]
pub struct Progress {
    pub run: RunId,
    pub phase: Option<PhaseRef>,
    pub step: String,
    pub kind: LineKind,
    pub line: String,
    /// Lines before this one that were not sent because the link was slow.
    pub omitted: u64,
}

/// What a watcher starts with.
pub struct Watched {
    pub status: RunStatus,
    /// Entries it hasn't seen.
    pub missed: Vec<RunEvent>,
    /// Updates from now on.
    pub updates: broadcast::Receiver<RunUpdate>,
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

    async fn ask<T>(&self, input: impl FnOnce(Reply<T>) -> Input) -> Answer<T> {
        let (reply, answer) = oneshot::channel();
        self.inputs
            .send(input(reply))
            .await
            .map_err(|_| self.unanswered())?;
        answer.await.map_err(|_| self.unanswered())?
    }

    /// Why a request has no answer: the driver has closed its queue, or it has
    /// dropped the reply.
    fn unanswered(&self) -> RequestError {
        if self.inputs.is_closed() {
            return RequestError::new(
                RequestErrorKind::Unavailable,
                Diagnosis::new(Code::LS5001, "the coordinator is ending").remedy("try again"),
            );
        }
        tracing::error!("a request was dropped without an answer");
        RequestError::new(
            RequestErrorKind::Internal,
            Diagnosis::new(
                Code::LS5009,
                "the coordinator dropped the request without an answer, which is a defect of it",
            )
            .state_left("whether the request took effect is not known")
            .remedy("check with `lockstep run show`"),
        )
    }

    async fn command<T>(&self, command: impl FnOnce(Reply<T>) -> Command) -> Answer<T> {
        self.ask(|reply| Input::Command(command(reply))).await
    }

    async fn query<T>(&self, query: impl FnOnce(Reply<T>) -> Query) -> Answer<T> {
        self.ask(|reply| Input::Query(query(reply))).await
    }

    /// Opens an agent's session and returns its number. The outbox's first
    /// message is the Welcome.
    ///
    /// # Errors
    /// If the agent is not admitted.
    pub async fn open_session(
        &self,
        introduction: Introduction,
        address: String,
        outbox: Outbox,
    ) -> Answer<u64> {
        let introduction = Box::new(introduction);
        self.ask(|reply| {
            Input::Session(SessionEvent::Opened {
                introduction,
                address,
                outbox,
                reply,
            })
        })
        .await
    }

    /// Passes an agent's report on. After the driver has stopped, it is
    /// dropped; the agent repeats what matters in its next session.
    pub async fn report(&self, agent: AgentName, session: u64, report: AgentReport) {
        let report = Box::new(report);
        let event = SessionEvent::Reported {
            agent,
            session,
            report,
        };
        let _ = self.inputs.send(Input::Session(event)).await;
    }

    pub async fn close_session(&self, agent: AgentName, session: u64) {
        let event = SessionEvent::Closed { agent, session };
        let _ = self.inputs.send(Input::Session(event)).await;
    }

    /// Asks every agent of a plan to probe its tasks; the parts go to
    /// `answers`.
    ///
    /// # Errors
    /// If the process ends.
    pub async fn preflight(&self, plan: CheckedPlan, answers: Answers) -> Answer<()> {
        self.command(|reply| Command::Preflight {
            plan,
            answers,
            reply,
        })
        .await
    }

    /// Starts a run and returns its id; for a cutover, after a preflight
    /// without obstacles. The same request id again returns the same run.
    ///
    /// # Errors
    /// If the plan has obstacles, or its parties can't be resolved.
    pub async fn start_run(
        &self,
        plan: CheckedPlan,
        request: String,
        by: String,
    ) -> Answer<String> {
        self.command(|reply| Command::StartRun {
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
    /// If the process ends.
    pub async fn list(&self, limit: usize) -> Answer<Vec<RunStatus>> {
        self.query(|reply| Query::List { limit, reply }).await
    }

    /// # Errors
    /// If there is no run of that id.
    pub async fn get(&self, run: String) -> Answer<RunStatus> {
        self.query(|reply| Query::Get { run, reply }).await
    }

    /// A run's status and its updates from then on.
    ///
    /// # Errors
    /// If there is no run of that id.
    pub async fn watch(&self, run: String, after: u64) -> Answer<Watched> {
        self.query(|reply| Query::Watch { run, after, reply }).await
    }

    /// A run's journal entries after the given sequence.
    ///
    /// # Errors
    /// If there is no run of that id.
    pub async fn events(&self, run: String, after: u64) -> Answer<Vec<RunEvent>> {
        self.query(|reply| Query::Events { run, after, reply })
            .await
    }

    /// Executes an operator's verb.
    ///
    /// # Errors
    /// If it is not possible now.
    pub async fn verb(&self, asked: VerbRequest) -> Answer<RunStatus> {
        let asked = Box::new(asked);
        self.command(|reply| Command::Verb { asked, reply }).await
    }

    /// Every known agent.
    ///
    /// # Errors
    /// If the process ends.
    pub async fn agents(&self) -> Answer<Vec<AgentStatus>> {
        self.query(|reply| Query::Agents { reply }).await
    }

    /// Ends an agent's quarantine.
    ///
    /// # Errors
    /// If it isn't in quarantine.
    pub async fn accept(&self, agent: String, by: String, reason: String) -> Answer<AgentStatus> {
        self.command(|reply| Command::Accept {
            agent,
            by,
            reason,
            reply,
        })
        .await
    }

    pub async fn stop(&self) {
        let _ = self.inputs.send(Input::Command(Command::Stop)).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn a_dropped_reply_is_not_reported_as_the_coordinators_end() {
        let (handle, mut queue) = Handle::new();
        let asking = tokio::spawn({
            let handle = handle.clone();
            async move { handle.agents().await }
        });
        drop(queue.recv().await.expect("a query"));
        let error = asking.await.unwrap().unwrap_err();
        assert_eq!(error.kind, RequestErrorKind::Internal);
        drop(queue);
        let error = handle.agents().await.unwrap_err();
        assert_eq!(error.kind, RequestErrorKind::Unavailable);
    }
}
