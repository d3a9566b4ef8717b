//! The coordinator's records in the journal: one stream for each run, one for
//! the terms it has led, one for known agents and one for quarantined agents.

use crate::config::DAEMON;
use lockstep_barrier::coordinator::Entry;
use lockstep_barrier::ids::{RunId, Term};
pub use lockstep_daemon::StoreError;
use lockstep_journal::NewEntry;
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

const TERMS: &str = "terms";
const AGENTS: &str = "agents";
const QUARANTINE: &str = "quarantine";
/// Prefix of a run's stream.
const RUN: &str = "run/";

/// A run's record with its journal entry's data.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub entry: Entry,
    /// Position in the whole journal, from 1.
    pub position: u64,
    /// When it was written, milliseconds since the epoch.
    pub at_ms: u64,
    pub kind: String,
    pub body: String,
    pub hash: String,
}

/// The journal with which an agent first connected, or with which an operator
/// accepted it (R10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownAgent {
    pub agent: String,
    pub journal: String,
    /// The operator who accepted it; `None` on first sight.
    pub accepted_by: Option<String>,
    pub reason: Option<String>,
    /// `/etc/machine-id` of the machine that holds the journal; empty if
    /// unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
}

/// An agent that takes part in no run until an operator accepts it (R10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QuarantineEntry {
    pub agent: String,
    /// The journal with which it connected.
    pub journal: String,
    /// See [`KnownAgent::machine`].
    pub machine: String,
    /// The journal is the known one but lacks entries that the agent had
    /// reported: an older copy was restored, so releases may be missing from
    /// it.
    pub gone_back: bool,
    /// Boot of its machine.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot: String,
    /// Boot of the machine whose session with the known journal was open when
    /// this one connected; empty if none was.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub original_boot: String,
}

impl QuarantineEntry {
    /// Whether a session from this boot belongs to the process that was connected
    /// when another one with a copy of its journal was quarantined.
    pub fn is_original(&self, boot: &str) -> bool {
        !self.original_boot.is_empty() && self.original_boot == boot && self.boot != boot
    }
}

/// Agents as recorded in the journal.
#[derive(Debug, Default)]
pub struct PersistedAgents {
    /// The latest record of each.
    pub known: BTreeMap<String, KnownAgent>,
    pub quarantine: BTreeMap<String, QuarantineEntry>,
    /// Position, in this coordinator's journal, of each agent's latest
    /// acceptance by an operator. Journal positions that the agent reported
    /// before it don't count.
    pub accepted_at: BTreeMap<String, u64>,
}

pub struct Store(lockstep_daemon::Store);

impl Store {
    /// Opens the journal in the state directory; creates what is missing.
    ///
    /// # Errors
    /// The directory or the journal is unusable, or another process owns it.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        lockstep_daemon::Store::open(&DAEMON, state_dir).map(Self)
    }

    /// The journal uses the space that it has reserved: nothing new should begin.
    pub fn is_low_on_space(&mut self) -> bool {
        self.0.is_low_on_space()
    }

    /// Begins a term above every one before; `None`, with nothing recorded, if
    /// there is none.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn begin_term(&mut self) -> Result<Option<Term>, StoreError> {
        let highest = self.terms()?.into_iter().map(|term| term.number).max();
        let Some(number) = highest.unwrap_or(0).checked_add(1) else {
            return Ok(None);
        };
        let term = Term {
            number,
            incarnation: uuid::Uuid::new_v4().as_u64_pair().0,
        };
        self.0.append_record(TERMS, "term-began", &term)?;
        Ok(Some(term))
    }

    /// Every term that this coordinator has led or taken over.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn terms(&self) -> Result<BTreeSet<Term>, StoreError> {
        let terms = self.0.records(TERMS)?;
        Ok(terms.into_iter().map(|(_, term)| term).collect())
    }

    /// Takes over another coordinator's term and begins one above it (R11).
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn take_over(&mut self, other: &Term) -> Result<Option<Term>, StoreError> {
        self.0.append_record(TERMS, "term-taken-over", other)?;
        self.begin_term()
    }

    /// Every agent that has ever connected.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn agents(&self) -> Result<PersistedAgents, StoreError> {
        let mut remembered = PersistedAgents::default();
        for (entry, known) in self.0.records::<KnownAgent>(AGENTS)? {
            if known.accepted_by.is_some() {
                let agent = known.agent.clone();
                remembered.accepted_at.insert(agent, entry.position);
            }
            remembered.known.insert(known.agent.clone(), known);
        }
        for (entry, waits) in self.0.records::<QuarantineEntry>(QUARANTINE)? {
            let accepted = remembered.accepted_at.get(&waits.agent);
            if accepted.is_none_or(|accepted| *accepted < entry.position) {
                remembered.quarantine.insert(waits.agent.clone(), waits);
            }
        }
        Ok(remembered)
    }

    /// Records that an agent waits for an operator's acceptance.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn quarantine(&mut self, waits: &QuarantineEntry) -> Result<(), StoreError> {
        self.0
            .append_record(QUARANTINE, "agent-quarantined", waits)
            .map(drop)
    }

    /// Records an agent on first contact.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn remember(&mut self, known: &KnownAgent) -> Result<(), StoreError> {
        self.0.append_record(AGENTS, "agent-known", known).map(drop)
    }

    /// Every run, oldest first.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn runs(&self) -> Result<Vec<RunId>, StoreError> {
        let streams = self.0.streams()?;
        let runs = streams.iter().filter_map(|name| name.strip_prefix(RUN));
        Ok(runs.map(RunId::from).collect())
    }

    /// A run's entries after the given sequence number.
    ///
    /// # Errors
    /// The journal can't be read, or an entry is not a run's record.
    pub fn entries(&self, run: &RunId, after: u64) -> Result<Vec<Stored>, StoreError> {
        let entries = self.0.versioned_entries(&stream_of(run), after)?;
        entries
            .into_iter()
            .map(|entry| self.stored(entry))
            .collect()
    }

    /// Makes entries of runs and acceptances of agents durable, all or none;
    /// gives the entries.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn persist(
        &mut self,
        entries: &[(RunId, Entry)],
        accepted: &[KnownAgent],
    ) -> Result<Vec<Stored>, StoreError> {
        if entries.is_empty() && accepted.is_empty() {
            return Ok(Vec::new());
        }
        let new = entries
            .iter()
            .map(|(run, entry)| self.0.encode(&stream_of(run), entry.seq, &entry.record));
        let mut new: Vec<NewEntry> = new.collect::<Result<_, _>>()?;
        new.extend(self.0.next_entries(AGENTS, "agent-known", accepted)?);
        let written = self.0.append(&new)?;
        written
            .into_iter()
            .take(entries.len())
            .map(|entry| self.stored(entry))
            .collect()
    }

    fn stored(&self, entry: lockstep_journal::Entry) -> Result<Stored, StoreError> {
        let record = self.0.decode(&entry)?;
        Ok(Stored {
            hash: entry.hash_hex(),
            entry: Entry {
                seq: entry.seq,
                record,
            },
            position: entry.position,
            at_ms: entry.at_ms,
            kind: entry.kind,
            body: entry.body,
        })
    }
}

fn stream_of(run: &RunId) -> String {
    format!("{RUN}{run}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_journal::Journal;

    #[test]
    fn a_run_in_another_format_is_not_decoded() {
        let state = tempfile::tempdir().unwrap();
        let path = state.path().join("coordinator.db");
        let mut journal = Journal::open(&path, "coordinator").unwrap();
        let first = NewEntry {
            stream: format!("{RUN}run-1"),
            seq: 1,
            kind: "began".to_owned(),
            body: r#"{"record":"began","format":2,"more":true}"#.to_owned(),
        };
        journal.append(&[first], 0).unwrap();
        drop(journal);
        let store = Store::open(state.path()).unwrap();
        let error = store.entries(&RunId::from("run-1"), 0).unwrap_err();
        assert!(matches!(error, StoreError::Format { .. }), "{error:?}");
    }
}
