//! Which agents are admitted: whose journal is whose, which machine it is on,
//! and which agents are in quarantine (R10).

use super::Introduction;
use crate::store::{KnownAgent, PersistedAgents, QuarantineEntry};
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::ids::AgentName;
use lockstep_barrier::record::JournalPosition;
use std::collections::{BTreeMap, BTreeSet};

/// Position and session number of an agent's last admitted session.
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
    pub why: Box<Diagnosis>,
    /// To be made durable: from now on the agent waits for an operator.
    pub quarantine: Option<Box<QuarantineEntry>>,
}

/// What an admission has to make durable and to report.
pub struct Admitted {
    /// To be made durable: the agent, or its machine, is new.
    pub first_seen: Option<KnownAgent>,
    /// The entry that its journal must hold, if one is known.
    pub place: Option<JournalPosition>,
}

/// What an operator's acceptance leads to.
pub struct Accepted {
    /// To be made durable.
    pub known: KnownAgent,
    /// The session that was open belongs to the other process and must end.
    pub end_session: bool,
    /// The quarantine that ended.
    pub waited: QuarantineEntry,
}

#[derive(Default)]
pub struct Admissions {
    known: BTreeMap<String, KnownAgent>,
    quarantine: BTreeMap<String, QuarantineEntry>,
    last: BTreeMap<String, LastSeen>,
    /// The furthest entry of each agent's journal that an outcome rests on.
    places: BTreeMap<String, JournalPosition>,
}

impl Admissions {
    pub fn new(remembered: PersistedAgents) -> Self {
        Self {
            known: remembered.known,
            quarantine: remembered.quarantine,
            ..Self::default()
        }
    }

    /// Every agent that is known or in quarantine.
    pub fn names(&self) -> BTreeSet<&String> {
        self.known.keys().chain(self.quarantine.keys()).collect()
    }

    pub fn known(&self, name: &str) -> Option<&KnownAgent> {
        self.known.get(name)
    }

    pub fn quarantined(&self, name: &str) -> Option<&QuarantineEntry> {
        self.quarantine.get(name)
    }

    /// When its last message arrived, milliseconds since the epoch; 0 if this
    /// process has received none.
    pub fn last_seen_ms(&self, name: &str) -> u64 {
        self.last.get(name).map_or(0, |last| last.at_ms)
    }

    /// Records that a message of the agent has arrived.
    pub fn seen(&mut self, name: &str, now_ms: u64) {
        if let Some(last) = self.last.get_mut(name) {
            last.at_ms = now_ms;
        }
    }

    /// Records the last entry of an agent's journal at the time of an outcome.
    pub fn record_position(&mut self, agent: &AgentName, place: &JournalPosition) {
        let known = self.known.get(&agent.0);
        let recorded = self.places.get(&agent.0);
        let further = recorded.is_none_or(|recorded| recorded.position < place.position);
        if further && known.is_some_and(|known| known.journal == place.journal.0) {
            self.places.insert(agent.0.clone(), place.clone());
        }
    }

    /// Records a session that has passed [`Admissions::check`]. The caller has
    /// compared the name with the certificate's.
    pub fn admit(&mut self, introduction: &Introduction, now_ms: u64) -> Admitted {
        let name = introduction.name();
        let first_seen = self.first_seen(introduction);
        if let Some(known) = &first_seen {
            self.known.insert(name.to_owned(), known.clone());
        }
        let last = self.last.entry(name.to_owned()).or_default();
        last.position = introduction.journal_position;
        last.session = introduction.session_number;
        last.at_ms = now_ms;
        last.boots.retain(|boot| *boot != introduction.boot);
        last.boots.push(introduction.boot.clone());
        let place = self.places.get(name).cloned();
        Admitted { first_seen, place }
    }

    /// What is new about an admitted agent.
    fn first_seen(&self, introduction: &Introduction) -> Option<KnownAgent> {
        let name = introduction.name();
        let known = match self.known.get(name) {
            // Only its machine is new: this is not another acceptance.
            Some(known) if known.machine.is_empty() => KnownAgent {
                accepted_by: None,
                reason: None,
                ..known.clone()
            },
            Some(_) => return None,
            None => KnownAgent {
                agent: name.to_owned(),
                journal: introduction.journal().0.clone(),
                accepted_by: None,
                reason: None,
                machine: String::new(),
            },
        };
        let machine = introduction.machine.clone();
        let new = !self.known.contains_key(name) || !machine.is_empty();
        new.then_some(KnownAgent { machine, ..known })
    }

    /// Whether the agent may be admitted; one that may not is in quarantine
    /// from then on. `open` is the introduction of its open session.
    ///
    /// # Errors
    /// [`NotAdmitted`].
    pub fn check(
        &mut self,
        introduction: &Introduction,
        open: Option<&Introduction>,
    ) -> Result<(), NotAdmitted> {
        match self.fault(introduction) {
            None => Ok(()),
            Some((why, gone_back)) => Err(self.refuse(introduction, open, why, gone_back)),
        }
    }

    /// Refuses a session with a copy of the journal of the open one, which is
    /// alive.
    pub fn refuse_second(
        &mut self,
        introduction: &Introduction,
        open: Option<&Introduction>,
    ) -> NotAdmitted {
        let name = introduction.name();
        let what = format!(
            "{name} connected again, from boot {}, while its session answers: its machine or its \
             state directory was copied",
            introduction.boot
        );
        let remedy =
            format!("stop the other one for good, then `lockstep agents accept {name} --reason …`");
        let why = Diagnosis::new(Code::LS4209, what).remedy(remedy);
        self.refuse(introduction, open, why, false)
    }

    fn refuse(
        &mut self,
        introduction: &Introduction,
        open: Option<&Introduction>,
        why: Diagnosis,
        gone_back: bool,
    ) -> NotAdmitted {
        let name = introduction.name();
        let before = self.quarantine.get(name);
        let same_journal = |open: &&Introduction| open.journal() == introduction.journal();
        let original = open.filter(same_journal).map(|open| open.boot.clone());
        let waits = QuarantineEntry {
            agent: name.to_owned(),
            journal: introduction.journal().0.clone(),
            machine: introduction.machine.clone(),
            gone_back: gone_back || before.is_some_and(|b| b.gone_back),
            boot: introduction.boot.clone(),
            original_boot: original
                .or_else(|| before.map(|b| b.original_boot.clone()))
                .unwrap_or_default(),
        };
        let why = Box::new(why);
        if waits.journal.is_empty() {
            let quarantine = None;
            return NotAdmitted { why, quarantine };
        }
        // A change of the machine or its boot alone is not worth a journal entry
        // for each attempt.
        let new = before.is_none_or(|b| {
            b.journal != waits.journal
                || b.gone_back != waits.gone_back
                || b.original_boot != waits.original_boot
        });
        self.quarantine.insert(name.to_owned(), waits.clone());
        let quarantine = new.then(|| Box::new(waits));
        NotAdmitted { why, quarantine }
    }

    /// What prevents the admission, and whether the journal has gone back.
    fn fault(&self, introduction: &Introduction) -> Option<(Diagnosis, bool)> {
        let name = introduction.name();
        let journal = introduction.journal();
        if journal.0.is_empty() {
            let why = Diagnosis::new(Code::LS4205, "the agent's hello names no journal");
            return Some((why, false));
        }
        let other = |known: &&KnownAgent| known.journal != journal.0;
        if let Some(known) = self.known.get(name).filter(other) {
            let what = format!(
                "{name} came with journal {journal}, but it is known with journal {}: it was \
                 reinstalled, cloned, or its disk was lost",
                known.journal
            );
            return Some((until_accepted(Code::LS4201, what, name), false));
        }
        // The journal of another machine proves nothing about the known one's,
        // so the machine is checked first.
        self.runs_twice(introduction)
            .map(|why| (why, false))
            .or_else(|| self.went_back(introduction).map(|why| (why, true)))
            .or_else(|| self.still_waits(introduction).map(|why| (why, false)))
    }

    fn went_back(&self, introduction: &Introduction) -> Option<Diagnosis> {
        let name = introduction.name();
        let last = self.last.get(name).cloned().unwrap_or_default();
        let place = self.places.get(name);
        let position = last.position.max(place.map_or(0, |place| place.position));
        // Each session adds an entry to the agent's journal, so a number that
        // was seen before is another process's. And since each attempt makes
        // a journal longer, a refused one stays refused until accepted.
        let gone_back = introduction.journal_position < position
            || introduction.session_number <= last.session
            || introduction.journal_disowned;
        let expected = if introduction.journal_disowned {
            format!("where it should hold another entry {position}")
        } else {
            format!("after entry {position} in session {}", last.session)
        };
        gone_back.then(|| {
            let what = format!(
                "the journal of {name} has gone back: it came with entry {} in session {} \
                 {expected}; it was restored from a backup or runs twice",
                introduction.journal_position, introduction.session_number
            );
            until_accepted(Code::LS4202, what, name)
        })
    }

    /// One journal on two machines, or on a machine that is in two boots at
    /// once.
    fn runs_twice(&self, introduction: &Introduction) -> Option<Diagnosis> {
        let name = introduction.name();
        let machine = &introduction.machine;
        let boot = &introduction.boot;
        let known = self.known.get(name).map_or("", |known| &known.machine);
        let moved = !known.is_empty() && !machine.is_empty() && known != machine;
        let boots = self.last.get(name).map_or(&[][..], |last| &last.boots);
        let earlier = boots.split_last().map_or(&[][..], |(_, earlier)| earlier);
        let twice = !boot.is_empty() && earlier.contains(boot);
        let what = match (moved, twice) {
            (true, _) => format!("machine {machine} with the journal of machine {known}"),
            (false, true) => format!("boot {boot}, which another has followed"),
            (false, false) => return None,
        };
        let what =
            format!("{name} came from {what}: its machine was cloned, or its disk was moved");
        let remedy =
            format!("stop the other one for good, then `lockstep agents accept {name} --reason …`");
        Some(Diagnosis::new(Code::LS4209, what).remedy(remedy))
    }

    fn still_waits(&self, introduction: &Introduction) -> Option<Diagnosis> {
        let name = introduction.name();
        let waits = self.quarantine.get(name)?;
        let same = waits.journal == introduction.journal().0;
        (same && !waits.is_original(&introduction.boot)).then(|| {
            let what = format!(
                "{name} waits for an operator since its journal had gone back, or was in two places"
            );
            until_accepted(Code::LS4202, what, name)
        })
    }

    /// Ends a quarantine: from now on the agent is known with the journal it
    /// last came with. `connected` is the introduction of its open session, if
    /// any: unless that one is the rightful owner of the journal, it is the
    /// other process's and must end.
    ///
    /// # Errors
    /// If the agent isn't in quarantine.
    pub fn accept(
        &mut self,
        name: &str,
        by: &str,
        reason: &str,
        connected: Option<&Introduction>,
    ) -> Result<Accepted, Diagnosis> {
        let waited = self.quarantine.remove(name).ok_or_else(|| {
            Diagnosis::new(Code::LS4203, format!("{name} is not in quarantine"))
                .remedy("see `lockstep agents list`")
        })?;
        let accepted_by = Some(by.to_owned());
        let reason = Some(reason.to_owned()).filter(|reason| !reason.is_empty());
        if let Some(known) = self.rightful(name, &waited, connected) {
            return Ok(Accepted {
                known: KnownAgent {
                    accepted_by,
                    reason,
                    ..known
                },
                end_session: false,
                waited: QuarantineEntry {
                    gone_back: false,
                    ..waited
                },
            });
        }
        let known = KnownAgent {
            agent: name.to_owned(),
            journal: waited.journal.clone(),
            machine: waited.machine.clone(),
            accepted_by,
            reason,
        };
        self.last.remove(name);
        self.places.remove(name);
        self.known.insert(name.to_owned(), known.clone());
        Ok(Accepted {
            known,
            end_session: connected.is_some(),
            waited,
        })
    }

    /// The known agent, if it is connected and the refused attempt came from
    /// another machine, or while this session was open, with a copy of its journal:
    /// the connected one is the original.
    fn rightful(
        &self,
        name: &str,
        waited: &QuarantineEntry,
        connected: Option<&Introduction>,
    ) -> Option<KnownAgent> {
        let known = self.known.get(name)?;
        let connected = connected?;
        let original = connected.journal().0 == known.journal && connected.machine == known.machine;
        let second = !waited.original_boot.is_empty() && waited.original_boot == connected.boot;
        let elsewhere = waited.machine != known.machine || second;
        let copied = waited.journal == known.journal && elsewhere;
        (original && copied).then(|| known.clone())
    }
}

/// The diagnosis of an agent that an operator must accept.
fn until_accepted(code: Code, what: String, name: &str) -> Diagnosis {
    Diagnosis::new(code, what).remedy(format!(
        "find the cause, then `lockstep agents accept {name} --reason …`"
    ))
}
