//! The agents this coordinator knows: who is connected, whose journal is
//! whose, who is in quarantine (R10).

use crate::launch::{Candidate, Candidates};
use crate::store::{KnownAgent, Quarantined, Remembered};
use lockstep_barrier::ids::{AgentName, JournalId, RunId};
use lockstep_barrier::message::Standing;
use lockstep_barrier::record::JournalPlace;
use lockstep_proto::v1;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tonic::Status;

/// Orders that may wait for a slow agent; beyond that its session is ended,
/// and what matters is sent again by the next.
pub const OUTBOX: usize = 256;

/// Where orders to an agent go.
pub type Outbox = mpsc::Sender<Result<v1::SessionResponse, Status>>;

pub struct Session {
    /// Counts the sessions this process has admitted.
    pub number: u64,
    hello: v1::Hello,
    address: String,
    outbox: Outbox,
}

/// Position and session number that an agent last named.
#[derive(Debug, Clone, Default)]
struct LastSeen {
    position: u64,
    session: u64,
    at_ms: u64,
    /// Boots of its machine, the current one last.
    boots: Vec<String>,
}

/// Why a session is not admitted.
#[derive(Debug)]
pub struct NotAdmitted {
    /// A sentence with the remedy.
    pub why: String,
    /// To be remembered durably: the agent waits for an operator from now on.
    pub quarantine: Option<Quarantined>,
}

/// Everything known of agents.
#[derive(Default)]
pub struct Agents {
    known: BTreeMap<String, KnownAgent>,
    sessions: BTreeMap<AgentName, Session>,
    quarantine: BTreeMap<String, Quarantined>,
    last: BTreeMap<String, LastSeen>,
    /// The furthest entry of each agent's journal that an outcome rests on.
    places: BTreeMap<String, JournalPlace>,
    admitted: u64,
}

/// What an admission calls for.
pub struct Admission {
    /// Number of the new session.
    pub session: u64,
    /// To be remembered durably: the agent, or its machine, was never seen
    /// before.
    pub first_seen: Option<KnownAgent>,
    /// What its journal must hold, if it was heard of before.
    pub place: Option<JournalPlace>,
    /// What the barrier needs to know.
    pub standing: Standing,
}

/// What an acceptance calls for.
pub struct Accepted {
    /// To be remembered durably.
    pub known: KnownAgent,
    /// A session of the other process stood and was ended.
    pub ended: bool,
    /// How it came, and what with.
    pub waited: Quarantined,
}

impl Agents {
    /// With what the journal knows.
    pub fn new(remembered: Remembered) -> Self {
        Self {
            known: remembered.known,
            quarantine: remembered.quarantine,
            ..Self::default()
        }
    }

    /// Notes what an agent's journal had come to when it reported an outcome.
    pub fn came_to(&mut self, agent: &AgentName, place: &JournalPlace) {
        let known = self.known.get(&agent.0);
        let kept = self.places.get(&agent.0);
        let further = kept.is_none_or(|kept| kept.position < place.position);
        if further && known.is_some_and(|known| known.journal == place.journal.0) {
            self.places.insert(agent.0.clone(), place.clone());
        }
    }

    /// A place in the journal of the agent's current session.
    pub fn place(&self, agent: &AgentName, place: (u64, String)) -> Option<JournalPlace> {
        let session = self.sessions.get(agent)?;
        (place.0 > 0).then(|| JournalPlace {
            journal: JournalId(session.hello.journal_id.clone()),
            position: place.0,
            hash: place.1,
        })
    }

    /// Admits a session, in place of an older one of the same agent, or says
    /// why not. The certificate's name was compared before.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn admit(
        &mut self,
        hello: v1::Hello,
        address: String,
        outbox: Outbox,
        now_ms: u64,
    ) -> Result<Admission, NotAdmitted> {
        let name = hello.agent.clone();
        self.check(&hello)?;
        self.admitted += 1;
        let number = self.admitted;
        let first_seen = self.first_seen(&hello);
        if let Some(known) = &first_seen {
            self.known.insert(name.clone(), known.clone());
        }
        let last = self.last.entry(name.clone()).or_default();
        last.position = hello.journal_position;
        last.session = hello.session_number;
        last.at_ms = now_ms;
        last.boots.retain(|boot| *boot != hello.boot_id);
        last.boots.push(hello.boot_id.clone());
        let place = self.places.get(&name).cloned();
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
            place,
            standing,
        })
    }

    /// What is news of an agent that is let in.
    fn first_seen(&self, hello: &v1::Hello) -> Option<KnownAgent> {
        let known = match self.known.get(&hello.agent) {
            // Not a second acceptance: only its machine is news.
            Some(known) if known.machine.is_empty() => KnownAgent {
                accepted_by: None,
                reason: None,
                ..known.clone()
            },
            Some(_) => return None,
            None => KnownAgent {
                agent: hello.agent.clone(),
                journal: hello.journal_id.clone(),
                accepted_by: None,
                reason: None,
                machine: String::new(),
            },
        };
        let machine = hello.machine_id.clone();
        let new = !self.known.contains_key(&hello.agent) || !machine.is_empty();
        new.then_some(KnownAgent { machine, ..known })
    }

    /// Whether the agent may be let in; one that may not waits for an operator
    /// from then on.
    fn check(&mut self, hello: &v1::Hello) -> Result<(), NotAdmitted> {
        let (why, gone_back) = match self.what_is_wrong(hello) {
            None => return Ok(()),
            Some(wrong) => wrong,
        };
        let before = self.quarantine.get(&hello.agent);
        let waits = Quarantined {
            agent: hello.agent.clone(),
            journal: hello.journal_id.clone(),
            machine: hello.machine_id.clone(),
            gone_back: gone_back || before.is_some_and(|b| b.gone_back),
        };
        if hello.journal_id.is_empty() {
            let quarantine = None;
            return Err(NotAdmitted { why, quarantine });
        }
        // Which machine knocked last is not worth an entry each time.
        let news =
            before.is_none_or(|b| b.journal != waits.journal || b.gone_back != waits.gone_back);
        self.quarantine.insert(hello.agent.clone(), waits.clone());
        Err(NotAdmitted {
            why,
            quarantine: news.then_some(waits),
        })
    }

    /// What keeps an agent out, and whether its journal has gone back.
    fn what_is_wrong(&self, hello: &v1::Hello) -> Option<(String, bool)> {
        let name = &hello.agent;
        if hello.journal_id.is_empty() {
            return Some(("the agent names no journal".to_owned(), false));
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
            return Some((why, false));
        }
        // Another machine's journal says nothing of the known one's.
        self.runs_twice(hello)
            .map(|why| (why, false))
            .or_else(|| self.went_back(hello).map(|why| (why, true)))
            .or_else(|| self.still_waits(hello).map(|why| (why, false)))
    }

    fn went_back(&self, hello: &v1::Hello) -> Option<String> {
        let name = &hello.agent;
        let last = self.last.get(name).cloned().unwrap_or_default();
        let place = self.places.get(name);
        let position = last.position.max(place.map_or(0, |place| place.position));
        // Each session leaves a mark in the agent's journal, so a number that
        // was seen before is another process's. And since each attempt makes
        // a journal longer, one that was refused stays so until accepted.
        let gone_back = hello.journal_position < position
            || hello.session_number <= last.session
            || hello.journal_disowned;
        let heard = if hello.journal_disowned {
            format!("where it should hold another entry {position}")
        } else {
            format!("after entry {position} in session {}", last.session)
        };
        gone_back.then(|| {
            format!(
                "LS4202: the journal of {name} has gone back: it came with entry {} in session {} \
                 {heard}; it was restored from a backup or runs twice; look into it, then \
                 `lockstep agents accept {name} --reason …`",
                hello.journal_position, hello.session_number
            )
        })
    }

    /// One journal on two machines, or on a machine that is in two boots at
    /// once.
    fn runs_twice(&self, hello: &v1::Hello) -> Option<String> {
        let name = &hello.agent;
        let known = self.known.get(name).map_or("", |known| &known.machine);
        let moved = !known.is_empty() && !hello.machine_id.is_empty() && known != hello.machine_id;
        let boots = self.last.get(name).map_or(&[][..], |last| &last.boots);
        let earlier = boots.split_last().map_or(&[][..], |(_, earlier)| earlier);
        let twice = !hello.boot_id.is_empty() && earlier.contains(&hello.boot_id);
        let what = match (moved, twice) {
            (true, _) => format!(
                "machine {} with the journal of machine {known}",
                hello.machine_id
            ),
            (false, true) => format!("boot {}, which another has followed", hello.boot_id),
            (false, false) => return None,
        };
        Some(format!(
            "LS4209: {name} came from {what}: its machine was cloned, or its disk was moved; stop \
             the other one for good, then `lockstep agents accept {name} --reason …`"
        ))
    }

    fn still_waits(&self, hello: &v1::Hello) -> Option<String> {
        let name = &hello.agent;
        let waits = self.quarantine.get(name)?;
        (waits.journal == hello.journal_id).then(|| {
            format!(
                "LS4202: {name} waits for an operator since its journal had gone back, or was in \
                 two places; look into it, then `lockstep agents accept {name} --reason …`"
            )
        })
    }

    /// Ends a quarantine: from now on the agent is known with the journal it
    /// last came with. A session that stands is the other process's: it is
    /// ended, and its agent isn't let in again.
    ///
    /// # Errors
    /// Where it isn't in quarantine.
    pub fn accept(&mut self, name: &str, by: &str, reason: &str) -> Result<Accepted, String> {
        let waited = self.quarantine.remove(name).ok_or_else(|| {
            format!("LS4203: {name} is not in quarantine; see `lockstep agents list`")
        })?;
        if let Some(known) = self.rightful(name, &waited) {
            return Ok(Accepted {
                known: KnownAgent {
                    accepted_by: Some(by.to_owned()),
                    reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
                    ..known
                },
                ended: false,
                waited: Quarantined {
                    gone_back: false,
                    ..waited
                },
            });
        }
        let known = KnownAgent {
            agent: name.to_owned(),
            journal: waited.journal.clone(),
            machine: waited.machine.clone(),
            accepted_by: Some(by.to_owned()),
            reason: Some(reason.to_owned()).filter(|reason| !reason.is_empty()),
        };
        self.last.remove(name);
        self.places.remove(name);
        // Dropping its outbox ends its stream.
        let ended = self.sessions.remove(&AgentName(name.to_owned()));
        self.known.insert(name.to_owned(), known.clone());
        Ok(Accepted {
            known,
            ended: ended.is_some(),
            waited,
        })
    }

    /// Who is known, where its session stands and it was another machine with
    /// a copy of its journal that has knocked: the one that stands is right.
    fn rightful(&self, name: &str, waited: &Quarantined) -> Option<KnownAgent> {
        let known = self.known.get(name)?;
        let hello = &self.sessions.get(&AgentName(name.to_owned()))?.hello;
        let stands = hello.journal_id == known.journal && hello.machine_id == known.machine;
        let copied = waited.journal == known.journal && waited.machine != known.machine;
        (stands && copied).then(|| known.clone())
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
            Some(waits) => format!(
                "came with journal {}; waits for `agents accept`",
                waits.journal
            ),
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
            .map_err(|refused| refused.why)
    }

    fn from(machine: &str, boot: &str, session_number: u64) -> v1::Hello {
        v1::Hello {
            machine_id: machine.into(),
            boot_id: boot.into(),
            ..hello("j1", session_number, 10 + session_number)
        }
    }

    /// What a coordinator that was started again knows.
    fn known_as(journal: &str) -> Agents {
        let mut agents = Agents::default();
        admit(&mut agents, hello(journal, 1, 5)).unwrap();
        Agents::new(Remembered {
            known: agents.known,
            ..Remembered::default()
        })
    }

    #[test]
    fn an_older_journal_is_noticed_by_a_coordinator_that_was_started_again() {
        let agent = AgentName::from("app-1");
        let place = JournalPlace {
            journal: JournalId::from("j1"),
            position: 90,
            hash: "h90".into(),
        };
        let mut agents = known_as("j1");
        agents.came_to(&agent, &place);
        let refused = admit(&mut agents, hello("j1", 10, 61)).unwrap_err();
        assert!(
            refused.contains("LS4202") && refused.contains("entry 90"),
            "{refused}"
        );

        // One that has grown past it meanwhile is asked for that entry, and
        // says itself that it doesn't have it.
        let mut agents = known_as("j1");
        agents.came_to(&agent, &place);
        let (outbox, _) = mpsc::channel(1);
        let admitted = agents.admit(hello("j1", 10, 91), "127.0.0.1:1".into(), outbox, 0);
        assert_eq!(admitted.unwrap().place, Some(place));
        let disowned = v1::Hello {
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
        let waits = refused.quarantine.expect("to be remembered");
        let mut again = Agents::new(Remembered {
            known: agents.known,
            quarantine: BTreeMap::from([("app-1".to_owned(), waits)]),
            ..Remembered::default()
        });
        // Not even the right machine gets in before somebody has looked.
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
    fn a_clone_that_has_knocked_does_not_take_the_place_of_the_one_that_stands() {
        let mut agents = Agents::default();
        admit(&mut agents, from("m1", "b1", 3)).unwrap();
        let original = agents.admitted;
        admit(&mut agents, from("m2", "b9", 3)).unwrap_err();
        let accepted = agents.accept("app-1", "ana", "the clone is gone").unwrap();
        assert_eq!(accepted.known.machine, "m1");
        assert!(!accepted.ended && !accepted.waited.gone_back);
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
            !agents.gone(&agent, first),
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
        assert!(agents.is_current(&agent, old), "nothing is decided yet");
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
