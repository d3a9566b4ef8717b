//! The agents this coordinator knows: the open sessions, and with `admission`
//! which agents may open one.

mod admission;
mod introduction;

use crate::party_resolution::{Candidate, Candidates};
use crate::store::PersistedAgents;
use admission::Admissions;
pub use admission::{Accepted, Admitted, NotAdmitted};
pub use introduction::Introduction;
use lockstep_api::{AgentStatus, Diagnosis, timestamp};
use lockstep_barrier::ids::{AgentName, RunId, StepId, Term};
use lockstep_barrier::message::{AgentState, Order, TaskOrder};
use lockstep_barrier::record::JournalPosition;
use lockstep_barrier::resolved_plan::Outputs;
use std::collections::BTreeMap;
use tokio::sync::mpsc;

/// Messages that may wait for a slow agent, its Welcome included. Beyond that
/// its session is ended, and the next session receives the orders that matter
/// again.
pub const OUTBOX: usize = 256;

/// Where messages to an agent go. Dropping it ends the session.
pub type Outbox = mpsc::Sender<ToAgent>;

#[derive(Debug)]
pub struct ToAgent {
    /// W3C trace context of the phase; empty if there is none.
    pub traceparent: String,
    pub message: AgentMessage,
}

#[derive(Debug)]
pub enum AgentMessage {
    /// The first message of each session.
    Welcome(Welcome),
    /// Asks whether the session is alive; answered at once.
    Ping,
    Order(Order),
    Preflight {
        /// Comes back in the report.
        request: String,
        tasks: Vec<TaskOrder>,
        /// Foreseen outputs that the tasks consume.
        inputs: BTreeMap<StepId, Outputs>,
    },
}

/// The session is accepted.
#[derive(Debug)]
pub struct Welcome {
    pub coordinator: String,
    pub term: Term,
    /// An entry that the agent's journal must hold.
    pub place: Option<JournalPosition>,
}

impl From<AgentMessage> for ToAgent {
    fn from(message: AgentMessage) -> Self {
        Self {
            traceparent: String::new(),
            message,
        }
    }
}

struct Session {
    /// Counts the sessions this process has admitted.
    number: u64,
    introduction: Introduction,
    address: String,
    outbox: Outbox,
}

/// Everything known about agents.
#[derive(Default)]
pub struct Agents {
    admissions: Admissions,
    sessions: BTreeMap<AgentName, Session>,
    admitted: u64,
}

impl Agents {
    /// With what the journal knows.
    pub fn new(remembered: PersistedAgents) -> Self {
        Self {
            admissions: Admissions::new(remembered),
            ..Self::default()
        }
    }

    /// Records the last entry of an agent's journal at the time of an outcome.
    pub fn record_position(&mut self, agent: &AgentName, place: &JournalPosition) {
        self.admissions.record_position(agent, place);
    }

    /// A place in the journal of the agent's current session.
    pub fn place(&self, agent: &AgentName, place: (u64, String)) -> Option<JournalPosition> {
        let session = self.sessions.get(agent)?;
        (place.0 > 0).then(|| JournalPosition {
            journal: session.introduction.journal().clone(),
            position: place.0,
            hash: place.1,
        })
    }

    /// Checks whether a session would be admitted.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn check(&mut self, introduction: &Introduction) -> Result<(), NotAdmitted> {
        let open = self.sessions.get(&introduction.state.agent);
        let open = open.map(|session| &session.introduction);
        self.admissions.check(introduction, open)
    }

    /// Refuses a session whose agent has another one, which is alive: two
    /// processes use copies of one journal.
    pub fn refuse_second(&mut self, introduction: &Introduction) -> NotAdmitted {
        let open = self.sessions.get(&introduction.state.agent);
        let open = open.map(|session| &session.introduction);
        self.admissions.refuse_second(introduction, open)
    }

    /// Number of the agent's open session.
    pub fn session_of(&self, agent: &AgentName) -> Option<u64> {
        self.sessions.get(agent).map(|session| session.number)
    }

    /// Admits a session in place of an older one of the same agent and returns
    /// its number.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn admit(
        &mut self,
        introduction: Introduction,
        address: String,
        outbox: Outbox,
        now_ms: u64,
    ) -> Result<(u64, Admitted), NotAdmitted> {
        self.check(&introduction)?;
        let admitted = self.admissions.admit(&introduction, now_ms);
        self.admitted += 1;
        let number = self.admitted;
        // Dropping the older session's outbox ends its stream.
        self.sessions.insert(
            introduction.state.agent.clone(),
            Session {
                number,
                introduction,
                address,
                outbox,
            },
        );
        Ok((number, admitted))
    }

    /// Ends a quarantine; see [`Admissions::accept`].
    ///
    /// # Errors
    /// If the agent isn't in quarantine.
    pub fn accept(&mut self, name: &str, by: &str, reason: &str) -> Result<Accepted, Diagnosis> {
        let agent = AgentName(name.to_owned());
        let session = self.sessions.get(&agent);
        let connected = session.map(|session| &session.introduction);
        let accepted = self.admissions.accept(name, by, reason, connected)?;
        if accepted.end_session {
            self.sessions.remove(&agent);
        }
        Ok(accepted)
    }

    /// Whether this session is the agent's current one.
    pub fn is_current(&self, agent: &AgentName, session: u64) -> bool {
        self.sessions
            .get(agent)
            .is_some_and(|current| current.number == session)
    }

    /// Records that a message of the agent has arrived.
    pub fn seen(&mut self, agent: &AgentName, now_ms: u64) {
        self.admissions.seen(&agent.0, now_ms);
    }

    /// Records that the agent has closed a run, to which its introduction may
    /// have said that it is locked.
    pub fn closed(&mut self, agent: &AgentName, run: &RunId) {
        if let Some(session) = self.sessions.get_mut(agent) {
            let locked = &mut session.introduction.state.run;
            locked.take_if(|locked| locked == run);
        }
    }

    /// Removes a session if it is still the current one.
    pub fn disconnect(&mut self, agent: &AgentName, session: u64) -> bool {
        let current = self.is_current(agent, session);
        if current {
            self.sessions.remove(agent);
        }
        current
    }

    /// Ends every session; the agents open new ones.
    pub fn end_sessions(&mut self) {
        self.sessions.clear();
    }

    /// Queues a message for an agent; a session that is too slow is ended.
    /// Returns `false` if the message could not be queued.
    pub fn send(&mut self, agent: &AgentName, message: ToAgent) -> bool {
        let Some(session) = self.sessions.get(agent) else {
            return false;
        };
        if session.outbox.try_send(message).is_ok() {
            return true;
        }
        tracing::warn!(
            %agent,
            "the session is too slow or disconnected; the agent will open another"
        );
        self.sessions.remove(agent);
        false
    }

    /// The connected agents, as candidates for a run.
    pub fn candidates(&self, runs: &BTreeMap<AgentName, RunId>) -> Candidates {
        self.sessions
            .iter()
            .map(|(agent, session)| {
                let introduction = &session.introduction;
                let candidate = Candidate {
                    journal: introduction.journal().clone(),
                    labels: introduction.labels.clone(),
                    allowed_actions: introduction.allowed_actions.clone(),
                    busy_with: runs.get(agent).map(ToString::to_string),
                    follows_another: None,
                };
                (agent.clone(), candidate)
            })
            .collect()
    }

    /// The state of every connected agent, for a run that starts while they
    /// are connected.
    pub fn states(&self) -> Vec<AgentState> {
        self.sessions
            .values()
            .map(|session| session.introduction.state.clone())
            .collect()
    }

    pub fn status(&self, runs: &BTreeMap<AgentName, RunId>) -> Vec<AgentStatus> {
        let names = self.admissions.names().into_iter();
        names.map(|name| self.status_of(name, runs)).collect()
    }

    pub fn status_of(&self, name: &str, runs: &BTreeMap<AgentName, RunId>) -> AgentStatus {
        let agent = AgentName(name.to_owned());
        let session = self.sessions.get(&agent);
        let introduction = session.map(|session| &session.introduction);
        let quarantine = self.admissions.quarantined(name).map(|waits| {
            format!(
                "came with journal {}; waits for `agents accept`",
                waits.journal
            )
        });
        let known = self.admissions.known(name);
        // An idle agent sends no messages. Keepalive pings end its session once it
        // doesn't answer, so an agent with a session is there now.
        let last_seen = match session {
            Some(_) => lockstep_clock::wall_time(),
            None => self.admissions.last_seen_ms(name),
        };
        AgentStatus {
            name: name.to_owned(),
            connected: session.is_some(),
            quarantine,
            labels: introduction.map(|i| i.labels.clone()).unwrap_or_default(),
            version: introduction.map(|i| i.version.clone()).unwrap_or_default(),
            journal_id: known.map(|k| k.journal.clone()).unwrap_or_default(),
            address: session.map(|s| s.address.clone()).unwrap_or_default(),
            last_seen: timestamp(last_seen),
            // A journal that was restored may hold the lock of a run that is over
            // here, or of one that this coordinator doesn't know.
            run: runs
                .get(&agent)
                .or_else(|| introduction?.state.run.as_ref())
                .map(ToString::to_string),
            allowed_actions: introduction
                .map(|i| i.allowed_actions.clone())
                .unwrap_or_default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::store::KnownAgent;
    use lockstep_barrier::ids::JournalId;

    fn hello(journal: &str, session_number: u64, journal_position: u64) -> Introduction {
        Introduction {
            state: AgentState {
                agent: AgentName::from("app-1"),
                journal: JournalId::from(journal),
                term: Term::default(),
                run: None,
                decision: 0,
                release_age: None,
                release_ages: BTreeMap::new(),
            },
            machine: String::new(),
            boot: String::new(),
            session_number,
            version: String::new(),
            labels: BTreeMap::new(),
            allowed_actions: Vec::new(),
            journal_position,
            journal_disowned: false,
        }
    }

    fn admit(agents: &mut Agents, hello: Introduction) -> Result<u64, String> {
        let (outbox, _) = mpsc::channel(1);
        agents
            .admit(hello, "127.0.0.1:1".into(), outbox, 0)
            .map(|(session, _)| session)
            .map_err(|refused| refused.why.to_string())
    }

    fn from(machine: &str, boot: &str, session_number: u64) -> Introduction {
        Introduction {
            machine: machine.into(),
            boot: boot.into(),
            ..hello("j1", session_number, 10 + session_number)
        }
    }

    fn known(agents: &Agents) -> BTreeMap<String, KnownAgent> {
        let known = agents.admissions.known("app-1").unwrap().clone();
        BTreeMap::from([("app-1".to_owned(), known)])
    }

    /// What a restarted coordinator knows.
    fn known_as(journal: &str) -> Agents {
        let mut agents = Agents::default();
        admit(&mut agents, hello(journal, 1, 5)).unwrap();
        Agents::new(PersistedAgents {
            known: known(&agents),
            ..PersistedAgents::default()
        })
    }

    #[test]
    fn a_connected_agent_is_seen_now() {
        let mut agents = Agents::default();
        let session = admit(&mut agents, hello("j1", 1, 5)).unwrap();
        let seen = |agents: &Agents| agents.status_of("app-1", &BTreeMap::new()).last_seen;
        assert!(
            seen(&agents).is_some(),
            "it was admitted at 0 and is silent"
        );
        assert!(agents.disconnect(&AgentName::from("app-1"), session));
        assert_eq!(seen(&agents), None);
    }

    #[test]
    fn an_older_journal_is_noticed_by_a_restarted_coordinator() {
        let agent = AgentName::from("app-1");
        let place = JournalPosition {
            journal: JournalId::from("j1"),
            position: 90,
            hash: "h90".into(),
        };
        let mut agents = known_as("j1");
        agents.record_position(&agent, &place);
        let refused = admit(&mut agents, hello("j1", 10, 61)).unwrap_err();
        assert!(
            refused.contains("LS4202") && refused.contains("entry 90"),
            "{refused}"
        );

        // A journal that has grown past it meanwhile is admitted with that entry
        // in its Welcome; the agent itself reports that it lacks the entry.
        let mut agents = known_as("j1");
        agents.record_position(&agent, &place);
        let (outbox, _) = mpsc::channel(1);
        let admitted = agents.admit(hello("j1", 10, 91), "127.0.0.1:1".into(), outbox, 0);
        assert_eq!(admitted.unwrap().1.place, Some(place));
        let disowned = Introduction {
            journal_disowned: true,
            ..hello("j1", 11, 92)
        };
        let refused = admit(&mut agents, disowned).unwrap_err();
        assert!(refused.contains("LS4202"), "{refused}");
        let accepted = agents.accept("app-1", "ana", "restored").unwrap();
        assert!(accepted.known.journal == "j1" && accepted.waited.gone_back);
        admit(&mut agents, hello("j1", 12, 93)).unwrap();
    }

    #[test]
    fn a_quarantine_outlasts_the_coordinator() {
        let mut agents = known_as("j1");
        let (outbox, _) = mpsc::channel(1);
        let moved = |session| from("m2", "b1", session);
        admit(&mut agents, from("m1", "b1", 2)).unwrap();
        let refused = agents
            .admit(moved(3), "127.0.0.1:1".into(), outbox, 0)
            .err()
            .unwrap();
        let waits = refused.quarantine.expect("must be made durable");
        let mut again = Agents::new(PersistedAgents {
            known: known(&agents),
            quarantine: BTreeMap::from([("app-1".to_owned(), *waits)]),
            ..PersistedAgents::default()
        });
        // Not even the original machine is admitted before an operator accepts.
        admit(&mut again, from("m1", "b1", 4)).unwrap_err();
        again.accept("app-1", "ana", "the clone is gone").unwrap();
        admit(&mut again, from("m1", "b1", 5)).unwrap();
    }

    #[test]
    fn one_journal_on_two_machines_is_a_clone() {
        let mut agents = Agents::default();
        admit(&mut agents, from("m1", "b1", 1)).unwrap();
        let refused = admit(&mut agents, from("m2", "b9", 2)).unwrap_err();
        assert!(
            refused.contains("LS4209") && refused.contains("machine m1"),
            "{refused}"
        );

        let mut agents = Agents::default();
        admit(&mut agents, from("m1", "b1", 1)).unwrap();
        admit(&mut agents, from("m1", "b2", 2)).expect("it was booted");
        admit(&mut agents, from("m1", "b2", 3)).unwrap();
        let refused = admit(&mut agents, from("m1", "b1", 4)).unwrap_err();
        assert!(refused.contains("LS4209"), "{refused}");
    }

    #[test]
    fn accepting_after_a_refused_clone_keeps_the_connected_original() {
        let mut agents = Agents::default();
        admit(&mut agents, from("m1", "b1", 3)).unwrap();
        let original = agents.admitted;
        admit(&mut agents, from("m2", "b9", 3)).unwrap_err();
        let accepted = agents.accept("app-1", "ana", "the clone is gone").unwrap();
        assert_eq!(accepted.known.machine, "m1");
        assert!(!accepted.end_session && !accepted.waited.gone_back);
        assert!(agents.is_current(&AgentName::from("app-1"), original));
        admit(&mut agents, from("m1", "b1", 4)).unwrap();
    }

    #[test]
    fn the_same_journal_replaces_its_half_open_session() {
        let mut agents = Agents::default();
        let first = admit(&mut agents, hello("j1", 1, 5)).unwrap();
        let second = admit(&mut agents, hello("j1", 2, 6)).unwrap();
        let agent = AgentName::from("app-1");
        assert!(
            !agents.disconnect(&agent, first),
            "the old session's end must not remove the new one"
        );
        assert!(agents.is_current(&agent, second));
    }

    #[test]
    fn another_journal_under_the_same_name_waits_for_an_operator() {
        let mut agents = Agents::default();
        let old = admit(&mut agents, hello("j1", 1, 5)).unwrap();
        let refused = admit(&mut agents, hello("j2", 1, 0)).unwrap_err();
        assert!(
            refused.contains("LS4201") && refused.contains("agents accept"),
            "{refused}"
        );
        let agent = AgentName::from("app-1");
        assert!(
            agents.is_current(&agent, old),
            "no operator has decided yet"
        );
        agents.accept("app-1", "ana", "new disk").unwrap();
        assert!(
            !agents.is_current(&agent, old),
            "the session of the other journal lives on"
        );
        admit(&mut agents, hello("j2", 1, 0)).unwrap();
    }

    #[test]
    fn a_journal_that_went_back_waits_for_an_operator() {
        let mut agents = Agents::default();
        admit(&mut agents, hello("j1", 3, 50)).unwrap();
        let refused = admit(&mut agents, hello("j1", 4, 20)).unwrap_err();
        assert!(refused.contains("LS4202"), "{refused}");
        // Its attempts make the journal longer, which must not admit it.
        admit(&mut agents, hello("j1", 5, 51)).unwrap_err();
        agents
            .accept("app-1", "ana", "restored on purpose")
            .unwrap();
        admit(&mut agents, hello("j1", 6, 52)).unwrap();
    }

    #[test]
    fn a_copy_that_runs_concurrently_with_its_original_is_refused() {
        let mut agents = Agents::default();
        let original = admit(&mut agents, hello("j1", 3, 50)).unwrap();
        let refused = admit(&mut agents, hello("j1", 3, 50)).unwrap_err();
        assert!(refused.contains("LS4202"), "{refused}");
        assert!(agents.is_current(&AgentName::from("app-1"), original));
    }

    #[test]
    fn accepting_an_agent_that_is_not_waiting_is_refused() {
        assert!(Agents::default().accept("app-1", "ana", "").is_err());
    }
}
