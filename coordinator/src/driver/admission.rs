//! Admission of agents' sessions. What an agent reports about itself has no
//! effect on any run before its session is admitted.

use super::Driver;
use crate::agents::{AgentMessage, Introduction, NotAdmitted, Outbox, ToAgent, Welcome};
use crate::handle::{Answer, Reply, RequestError};
use crate::store::StoreError;
use lockstep_barrier::ids::{AgentName, Millis};

/// How long the open session of an agent may take to answer before another one
/// with the same journal replaces it, in milliseconds: as long as a keepalive
/// ping may take.
const ANSWER_LIMIT: Millis = if cfg!(test) { 300 } else { 5_000 };

/// A session to be admitted.
pub(super) struct Opening {
    pub introduction: Introduction,
    pub address: String,
    pub outbox: Outbox,
    pub reply: Reply<u64>,
}

/// A session whose agent has another one open, which has been asked whether it
/// is alive (R10). The listener bounds their number: each is a connection.
struct Waiting {
    opening: Opening,
    /// Number of the open session.
    open: u64,
    /// When it counts as dead.
    deadline: Millis,
}

#[derive(Default)]
pub(super) struct WaitingSessions(Vec<Waiting>);

impl WaitingSessions {
    pub(super) fn next_deadline(&self) -> Option<Millis> {
        self.0.iter().map(|waiting| waiting.deadline).min()
    }
}

impl Driver {
    /// Admits a session or refuses it. If the agent has a session open, that
    /// one is asked first whether it is alive: one that answers is never
    /// replaced.
    pub(super) fn open_session(&mut self, opening: Opening) -> Result<(), StoreError> {
        if let Some(why) = self.no_space().filter(|_| self.stalled.is_some()) {
            drop(opening.reply.send(Err(RequestError::precondition(why))));
            return Ok(());
        }
        if let Some(why) = self.implausible(&opening.introduction.state) {
            tracing::error!("{why}");
            drop(opening.reply.send(Err(RequestError::precondition(why))));
            return Ok(());
        }
        if let Err(refused) = self.agents.check(&opening.introduction) {
            return self.refuse(opening.reply, refused);
        }
        let agent = opening.introduction.state.agent.clone();
        if let Some(open) = self.agents.session_of(&agent) {
            if self.agents.send(&agent, ToAgent::from(AgentMessage::Ping)) {
                let deadline = lockstep_clock::boot_time().saturating_add(ANSWER_LIMIT);
                self.waiting.0.push(Waiting {
                    opening,
                    open,
                    deadline,
                });
                return Ok(());
            }
            self.disconnected(&agent);
        }
        self.admit(opening)
    }

    /// The agent's session is alive, so another one with its journal belongs to
    /// another process.
    pub(super) fn session_answers(
        &mut self,
        agent: &AgentName,
        session: u64,
    ) -> Result<(), StoreError> {
        let second = |waiting: &mut Waiting| {
            waiting.open == session && waiting.opening.introduction.state.agent == *agent
        };
        let refused: Vec<Waiting> = self.waiting.0.extract_if(.., second).collect();
        for waiting in refused {
            let refused = self.agents.refuse_second(&waiting.opening.introduction);
            self.refuse(waiting.opening.reply, refused)?;
        }
        Ok(())
    }

    /// Admits the sessions that waited for one that has ended or has not
    /// answered.
    pub(super) fn settle_sessions(&mut self) -> Result<(), StoreError> {
        if self.waiting.0.is_empty() {
            return Ok(());
        }
        let now = lockstep_clock::boot_time();
        let agents = &self.agents;
        let replaces = |waiting: &mut Waiting| {
            let agent = &waiting.opening.introduction.state.agent;
            !agents.is_current(agent, waiting.open) || waiting.deadline <= now
        };
        let due: Vec<Waiting> = self.waiting.0.extract_if(.., replaces).collect();
        for waiting in due {
            // One that has given up meanwhile must not end a later session.
            if waiting.opening.reply.is_closed() {
                continue;
            }
            let agent = waiting.opening.introduction.state.agent.clone();
            if self.agents.disconnect(&agent, waiting.open) {
                tracing::warn!(%agent, "the earlier session doesn't answer");
                self.disconnected(&agent);
            }
            self.admit(waiting.opening)?;
        }
        Ok(())
    }

    fn refuse(&mut self, reply: Reply<u64>, refused: NotAdmitted) -> Result<(), StoreError> {
        let NotAdmitted { why, quarantine } = refused;
        tracing::error!("{why}");
        if let Some(waits) = &quarantine {
            self.store.quarantine(waits)?;
        }
        drop(reply.send(Err(RequestError::precondition(*why))));
        Ok(())
    }

    fn admit(&mut self, opening: Opening) -> Result<(), StoreError> {
        let Opening {
            introduction,
            address,
            outbox,
            reply,
        } = opening;
        // Before terms: a session that isn't admitted has no effect on them.
        if let Err(refused) = self.agents.check(&introduction) {
            return self.refuse(reply, refused);
        }
        let answer = self.admitted(introduction, address, outbox)?;
        self.post_commit(|_| drop(reply.send(answer)));
        Ok(())
    }

    fn admitted(
        &mut self,
        introduction: Introduction,
        address: String,
        outbox: Outbox,
    ) -> Result<Answer<u64>, StoreError> {
        let state = introduction.state.clone();
        let agent = state.agent.clone();
        let foreign = self.is_foreign(&state);
        self.take_over_from(&state)?;
        let close = self.close_ended(&state);
        let now = lockstep_clock::wall_time();
        let welcoming = outbox.clone();
        let (session, admitted) = match self.agents.admit(introduction, address, outbox, now) {
            Ok(admitted) => admitted,
            Err(NotAdmitted { why, .. }) => return Ok(Err(RequestError::precondition(*why))),
        };
        if let Some(known) = &admitted.first_seen {
            self.store.remember(known)?;
        }
        let welcome = AgentMessage::Welcome(Welcome {
            coordinator: self.name.clone(),
            term: self.term,
            place: admitted.place,
        });
        // Before any order. It can't fail: the outbox is empty, and its reader
        // waits for this session's number. A failure would show at the first
        // order, which ends the session.
        let _ = welcoming.try_send(welcome.into());
        tracing::info!(%agent, session, "agent connected");
        self.connected(&state, foreign);
        if let Some(order) = close {
            self.agents
                .send(&agent, ToAgent::from(AgentMessage::Order(order)));
        }
        // Nobody answers what the agent's earlier session was asked.
        self.lost_by_preflights(&agent);
        Ok(Ok(session))
    }
}
