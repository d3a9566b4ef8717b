//! The agents this coordinator knows: who is connected, whose journal is
//! whose, who is in quarantine (R10).

use crate::launch::{Candidate, Candidates};
use crate::store::KnownAgent;
use lockstep_barrier::ids::{AgentName, JournalId, RunId};
use lockstep_barrier::message::Standing;
use lockstep_proto::v1;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tonic::Status;

/// Orders that may wait for a slow agent; beyond that its session is ended,
/// and what matters is sent again by the next.
pub const OUTBOX: usize = 256;

/// Where orders to an agent go.
pub type Outbox = mpsc::Sender<Result<v1::SessionResponse, Status>>;

/// An open session.
pub struct Session {
    /// Counts the sessions this process has admitted.
    pub number: u64,
    hello: v1::Hello,
    address: String,
    outbox: Outbox,
}

/// Position and session number that an agent last named.
#[derive(Debug, Clone, Copy, Default)]
struct LastSeen {
    position: u64,
    session: u64,
    at_ms: u64,
}

/// Everything known of agents.
#[derive(Default)]
pub struct Agents {
    known: BTreeMap<String, KnownAgent>,
    sessions: BTreeMap<AgentName, Session>,
    quarantine: BTreeMap<String, String>,
    last: BTreeMap<String, LastSeen>,
    admitted: u64,
}

/// What an admission calls for.
pub struct Admission {
    /// Number of the new session.
    pub session: u64,
    /// To be remembered durably: the agent was never seen before.
    pub first_seen: Option<KnownAgent>,
    /// What the barrier needs to know.
    pub standing: Standing,
}

impl Agents {
    /// With what the journal knows.
    pub fn new(known: BTreeMap<String, KnownAgent>) -> Self {
        Self {
            known,
            ..Self::default()
        }
    }

    /// Admits a session, in place of an older one of the same agent, or says
    /// why not. The certificate's name was compared before.
    ///
    /// # Errors
    /// A sentence with the remedy.
    pub fn admit(
        &mut self,
        hello: v1::Hello,
        address: String,
        outbox: Outbox,
        now_ms: u64,
    ) -> Result<Admission, String> {
        let name = hello.agent.clone();
        self.check_journal(&hello)?;
        self.admitted += 1;
        let number = self.admitted;
        let first_seen = (!self.known.contains_key(&name)).then(|| KnownAgent {
            agent: name.clone(),
            journal: hello.journal_id.clone(),
            accepted_by: None,
            reason: None,
        });
        if let Some(known) = &first_seen {
            self.known.insert(name.clone(), known.clone());
        }
        self.last.insert(
            name.clone(),
            LastSeen {
                position: hello.journal_position,
                session: hello.session_number,
                at_ms: now_ms,
            },
        );
        let standing = standing(&hello);
        // Dropping the older session's outbox ends its stream.
        self.sessions.insert(
            AgentName(name),
            Session {
                number,
                hello,
                address,
                outbox,
            },
        );
        Ok(Admission {
            session: number,
            first_seen,
            standing,
        })
    }

    fn check_journal(&mut self, hello: &v1::Hello) -> Result<(), String> {
        let name = &hello.agent;
        if hello.journal_id.is_empty() {
            return Err("the agent names no journal".to_owned());
        }
        if let Some(known) = self
            .known
            .get(name)
            .filter(|known| known.journal != hello.journal_id)
        {
            let why = format!(
                "LS4201: {name} came with journal {}, but it is known with journal {}: it was \
                 reinstalled, cloned, or its disk was lost; look into it, then `lockstep agents \
                 accept {name} --reason …`",
                hello.journal_id, known.journal
            );
            self.quarantine
                .insert(name.clone(), hello.journal_id.clone());
            return Err(why);
        }
        let last = self.last.get(name).copied().unwrap_or_default();
        // Each session leaves a mark in the agent's journal, so a number that
        // was seen before is another process's. And since each attempt makes
        // a journal longer, one that was refused stays so until accepted.
        let gone_back =
            hello.journal_position < last.position || hello.session_number <= last.session;
        if gone_back || self.quarantine.get(name) == Some(&hello.journal_id) {
            self.quarantine
                .insert(name.clone(), hello.journal_id.clone());
            return Err(format!(
                "LS4202: the journal of {name} has gone back: it came with entry {} in session {} \
                 after entry {} in session {}; it was restored from a backup or runs twice; look \
                 into it, then `lockstep agents accept {name} --reason …`",
                hello.journal_position, hello.session_number, last.position, last.session
            ));
        }
        Ok(())
    }

    /// Ends a quarantine: from now on the agent is known with the journal it
    /// last came with.
    ///
    /// # Errors
    /// Where it isn't in quarantine.
    pub fn accept(&mut self, name: &str, by: &str, reason: &str) -> Result<KnownAgent, String> {
        let journal = self.quarantine.remove(name).ok_or_else(|| {
            format!("LS4203: {name} is not in quarantine; see `lockstep agents list`")
        })?;
        let known = KnownAgent {
            agent: name.to_owned(),
            journal,
            accepted_by: Some(by.to_owned()),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        };
        self.last.remove(name);
        self.known.insert(name.to_owned(), known.clone());
        Ok(known)
    }

    /// Whether this session is the agent's current one.
    pub fn is_current(&self, agent: &AgentName, session: u64) -> bool {
        self.sessions
            .get(agent)
            .is_some_and(|current| current.number == session)
    }

    /// Notes that an agent was heard.
    pub fn heard(&mut self, agent: &AgentName, now_ms: u64) {
        if let Some(last) = self.last.get_mut(&agent.0) {
            last.at_ms = now_ms;
        }
    }

    /// Forgets a session if it is still the current one.
    pub fn gone(&mut self, agent: &AgentName, session: u64) -> bool {
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
    /// `false` where it could not be queued.
    pub fn send(&mut self, agent: &AgentName, response: v1::SessionResponse) -> bool {
        let Some(session) = self.sessions.get(agent) else {
            return false;
        };
        if session.outbox.try_send(Ok(response)).is_ok() {
            return true;
        }
        tracing::warn!(%agent, "the session is too slow or gone; the agent will open another");
        self.sessions.remove(agent);
        false
    }

    /// Who may be chosen for a run.
    pub fn candidates(&self, runs: &BTreeMap<AgentName, RunId>) -> Candidates {
        self.sessions
            .iter()
            .map(|(agent, session)| {
                let hello = &session.hello;
                let candidate = Candidate {
                    journal: JournalId(hello.journal_id.clone()),
                    labels: hello.labels.clone().into_iter().collect(),
                    allowed_actions: hello.allowed_actions.clone(),
                    busy_with: runs.get(agent).map(ToString::to_string),
                };
                (agent.clone(), candidate)
            })
            .collect()
    }

    /// What the barrier must be told of everyone connected, when a run is
    /// taken up while sessions stand.
    pub fn standings(&self) -> Vec<Standing> {
        self.sessions
            .values()
            .map(|session| standing(&session.hello))
            .collect()
    }

    /// How every known agent stands.
    pub fn status(&self, runs: &BTreeMap<AgentName, RunId>) -> Vec<v1::AgentStatus> {
        let names = self.known.keys().chain(self.quarantine.keys());
        let names: std::collections::BTreeSet<&String> = names.collect();
        names
            .into_iter()
            .map(|name| self.status_of(name, runs))
            .collect()
    }

    /// How one agent stands.
    pub fn status_of(&self, name: &str, runs: &BTreeMap<AgentName, RunId>) -> v1::AgentStatus {
        let agent = AgentName(name.to_owned());
        let session = self.sessions.get(&agent);
        let hello = session
            .map(|session| session.hello.clone())
            .unwrap_or_default();
        let quarantine = match self.quarantine.get(name) {
            Some(journal) => format!("came with journal {journal}; waits for `agents accept`"),
            None => String::new(),
        };
        v1::AgentStatus {
            name: name.to_owned(),
            connected: session.is_some(),
            quarantine,
            labels: hello.labels,
            version: hello.version,
            journal_id: self
                .known
                .get(name)
                .map(|k| k.journal.clone())
                .unwrap_or_default(),
            address: session
                .map(|session| session.address.clone())
                .unwrap_or_default(),
            last_heard_ms: self.last.get(name).map_or(0, |last| last.at_ms),
            run_id: runs
                .get(&agent)
                .map(ToString::to_string)
                .unwrap_or_default(),
            allowed_actions: hello.allowed_actions,
        }
    }
}

fn standing(hello: &v1::Hello) -> Standing {
    Standing {
        agent: AgentName(hello.agent.clone()),
        journal: JournalId(hello.journal_id.clone()),
        term: hello.term.unwrap_or_default().into(),
        run: Some(hello.run_id.as_str())
            .filter(|id| !id.is_empty())
            .map(RunId::from),
        decision: hello.decision,
        release_age: hello.release_age_ms,
        release_ages: hello
            .release_ages
            .iter()
            .filter_map(|age| Some((age.phase?.try_into().ok()?, age.age_ms)))
            .collect(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hello(journal: &str, session_number: u64, journal_position: u64) -> v1::Hello {
        v1::Hello {
            agent: "app-1".into(),
            journal_id: journal.into(),
            session_number,
            journal_position,
            ..v1::Hello::default()
        }
    }

    fn admit(agents: &mut Agents, hello: v1::Hello) -> Result<u64, String> {
        let (outbox, _) = mpsc::channel(1);
        agents
            .admit(hello, "127.0.0.1:1".into(), outbox, 0)
            .map(|admission| admission.session)
    }

    #[test]
    fn the_same_journal_replaces_its_half_open_session() {
        let mut agents = Agents::default();
        let first = admit(&mut agents, hello("j1", 1, 5)).unwrap();
        let second = admit(&mut agents, hello("j1", 2, 6)).unwrap();
        let agent = AgentName::from("app-1");
        assert!(
            !agents.gone(&agent, first),
            "the old session's end must not remove the new one"
        );
        assert!(agents.is_current(&agent, second));
    }

    #[test]
    fn another_journal_under_the_same_name_waits_for_an_operator() {
        let mut agents = Agents::default();
        admit(&mut agents, hello("j1", 1, 5)).unwrap();
        let refused = admit(&mut agents, hello("j2", 1, 0)).unwrap_err();
        assert!(
            refused.contains("LS4201") && refused.contains("agents accept"),
            "{refused}"
        );
        agents.accept("app-1", "ana", "new disk").unwrap();
        admit(&mut agents, hello("j2", 1, 0)).unwrap();
    }

    #[test]
    fn a_journal_that_went_back_waits_for_an_operator() {
        let mut agents = Agents::default();
        admit(&mut agents, hello("j1", 3, 50)).unwrap();
        let refused = admit(&mut agents, hello("j1", 4, 20)).unwrap_err();
        assert!(refused.contains("LS4202"), "{refused}");
        // Its attempts make it longer, which must not help it.
        admit(&mut agents, hello("j1", 5, 51)).unwrap_err();
        agents
            .accept("app-1", "ana", "restored on purpose")
            .unwrap();
        admit(&mut agents, hello("j1", 6, 52)).unwrap();
    }

    #[test]
    fn a_copy_that_runs_beside_its_original_is_refused() {
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
