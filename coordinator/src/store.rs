//! The coordinator's records in the journal.
//!
//! One stream for each run, one for the terms this coordinator has led, one
//! for the agents it knows. The journal's errors end the process (R23).

use lockstep_barrier::coordinator::Entry;
use lockstep_barrier::ids::{RunId, Term};
use lockstep_barrier::record::{FormatVersion, UnknownFormat};
use lockstep_journal::{Journal, NewEntry};
use serde::{Deserialize, Serialize};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

const TERMS: &str = "terms";
const AGENTS: &str = "agents";
const QUARANTINE: &str = "quarantine";
/// Prefix of a run's stream.
const RUN: &str = "run/";

#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "LS4101: the coordinator's journal failed; it ends now and reads it again when started"
    )]
    Journal(#[source] lockstep_journal::Error),
    #[error("LS4102: entry {seq} of {stream} in the coordinator's journal can't be read")]
    Record {
        stream: String,
        seq: u64,
        source: serde_json::Error,
    },
    /// A run was written in a form that this version doesn't know.
    #[error(
        "LS4106: the coordinator's journal has {stream} in another format; start the version that \
         wrote it, or finish the run there"
    )]
    Format {
        stream: String,
        source: UnknownFormat,
    },
    #[error("LS4103: the state directory {path} can't be made")]
    Directory {
        path: PathBuf,
        source: std::io::Error,
    },
}

/// An entry of a run with its metadata in the journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Stored {
    pub entry: Entry,
    /// Its position in the whole journal.
    pub position: u64,
    /// When it was written, milliseconds since the epoch.
    pub at_ms: u64,
    /// Kind of the record.
    pub kind: String,
    pub body: String,
    pub hash: String,
}

/// The journal that an agent had when it was first seen, or when an operator
/// accepted it (R10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct KnownAgent {
    pub agent: String,
    pub journal: String,
    /// The operator who accepted it; `None` on first sight.
    pub accepted_by: Option<String>,
    pub reason: Option<String>,
    /// The machine that its journal is on (/etc/machine-id); empty if unknown.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub machine: String,
}

/// An agent that is not admitted until an operator accepts it (R10).
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Quarantined {
    pub agent: String,
    /// The journal it presented.
    pub journal: String,
    /// The machine it came from.
    pub machine: String,
    /// It is the known journal, but lacks entries that it held before, and with
    /// them the releases since.
    pub gone_back: bool,
}

/// What the coordinator's journal holds about agents.
#[derive(Debug, Default)]
pub struct Remembered {
    /// The latest record of each.
    pub known: BTreeMap<String, KnownAgent>,
    /// Agents that wait for an operator.
    pub quarantine: BTreeMap<String, Quarantined>,
    /// Position, in this coordinator's journal, of each agent's acceptance by
    /// an operator. Reports about its journal from before don't count.
    pub accepted_at: BTreeMap<String, u64>,
}

pub struct Store {
    journal: Journal,
}

impl Store {
    /// Opens the journal in the state directory, or creates it.
    ///
    /// # Errors
    /// If it is unusable or owned by another process.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(state_dir).map_err(|source| StoreError::Directory {
            path: state_dir.to_owned(),
            source,
        })?;
        let path = state_dir.join("coordinator.db");
        let journal = Journal::open(&path, "coordinator").map_err(StoreError::Journal)?;
        Ok(Self { journal })
    }

    /// Begins a term above every one before.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn begin_term(&mut self) -> Result<Term, StoreError> {
        let before: Vec<(u64, Term)> = self.typed(TERMS)?;
        let seq = before.last().map_or(0, |(seq, _)| *seq);
        let numbers = before.iter().map(|(_, term)| term.number);
        let number = numbers.max().unwrap_or(0).saturating_add(1);
        let incarnation = uuid::Uuid::new_v4().as_u64_pair().0;
        let term = Term {
            number,
            incarnation,
        };
        self.append_typed(TERMS, seq + 1, "term-began", &term)?;
        Ok(term)
    }

    /// Every term that this coordinator has led, or has taken over.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn terms(&self) -> Result<BTreeSet<Term>, StoreError> {
        let terms: Vec<(u64, Term)> = self.typed(TERMS)?;
        Ok(terms.into_iter().map(|(_, term)| term).collect())
    }

    /// Takes over another coordinator's term and begins one above it (R11).
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn take_over(&mut self, other: &Term) -> Result<Term, StoreError> {
        let before: Vec<(u64, Term)> = self.typed(TERMS)?;
        let seq = before.last().map_or(0, |(seq, _)| *seq);
        self.append_typed(TERMS, seq + 1, "term-taken-over", other)?;
        self.begin_term()
    }

    /// Every agent that was ever seen.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn agents(&self) -> Result<Remembered, StoreError> {
        let mut remembered = Remembered::default();
        for (position, known) in self.placed::<KnownAgent>(AGENTS)? {
            if known.accepted_by.is_some() {
                let agent = known.agent.clone();
                remembered.accepted_at.insert(agent, position);
            }
            remembered.known.insert(known.agent.clone(), known);
        }
        for (position, waits) in self.placed::<Quarantined>(QUARANTINE)? {
            let accepted = remembered.accepted_at.get(&waits.agent);
            if accepted.is_none_or(|accepted| *accepted < position) {
                remembered.quarantine.insert(waits.agent.clone(), waits);
            }
        }
        Ok(remembered)
    }

    /// Records that an agent waits for an operator.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn quarantine(&mut self, waits: &Quarantined) -> Result<(), StoreError> {
        let last = self.journal.read(QUARANTINE, 0);
        let last = last.map_err(StoreError::Journal)?;
        let seq = last.last().map_or(0, |entry| entry.seq) + 1;
        self.append_typed(QUARANTINE, seq, "agent-quarantined", waits)
    }

    /// Records an agent.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn remember(&mut self, known: &KnownAgent) -> Result<(), StoreError> {
        let last = self.journal.read(AGENTS, 0).map_err(StoreError::Journal)?;
        let seq = last.last().map_or(0, |entry| entry.seq) + 1;
        self.append_typed(AGENTS, seq, "agent-known", known)
    }

    /// Every run, oldest first.
    ///
    /// # Errors
    /// If the journal can't be read.
    pub fn runs(&self) -> Result<Vec<RunId>, StoreError> {
        let streams = self.journal.streams().map_err(StoreError::Journal)?;
        Ok(streams
            .iter()
            .filter_map(|s| s.strip_prefix(RUN))
            .map(RunId::from)
            .collect())
    }

    /// A run's entries after the given sequence.
    ///
    /// # Errors
    /// If one can't be read.
    pub fn entries(&self, run: &RunId, after: u64) -> Result<Vec<Stored>, StoreError> {
        let stream = format!("{RUN}{run}");
        let entries = self
            .journal
            .read(&stream, after)
            .map_err(StoreError::Journal)?;
        if let Some(first) = entries.first().filter(|entry| entry.seq == 1) {
            FormatVersion::check_first_record(&first.body)
                .map_err(|source| StoreError::Format { stream, source })?;
        }
        entries.into_iter().map(stored).collect()
    }

    /// Makes entries of runs durable, all or none.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn persist(&mut self, entries: &[(RunId, Entry)]) -> Result<Vec<Stored>, StoreError> {
        if entries.is_empty() {
            return Ok(Vec::new());
        }
        let new: Vec<NewEntry> = entries
            .iter()
            .map(|(run, entry)| to_journal(run, entry))
            .collect::<Result<_, _>>()?;
        self.append(&new)?.into_iter().map(stored).collect()
    }

    fn typed<T: for<'a> Deserialize<'a>>(&self, stream: &str) -> Result<Vec<(u64, T)>, StoreError> {
        let placed = self.placed(stream)?.into_iter();
        Ok(placed
            .zip(1..)
            .map(|((_, value), seq)| (seq, value))
            .collect())
    }

    /// A stream's values, each with its position in the whole journal.
    fn placed<T: for<'a> Deserialize<'a>>(
        &self,
        stream: &str,
    ) -> Result<Vec<(u64, T)>, StoreError> {
        let entries = self.journal.read(stream, 0).map_err(StoreError::Journal)?;
        entries
            .into_iter()
            .map(|entry| {
                let value =
                    serde_json::from_str(&entry.body).map_err(|source| StoreError::Record {
                        stream: stream.to_owned(),
                        seq: entry.seq,
                        source,
                    })?;
                Ok((entry.position, value))
            })
            .collect()
    }

    fn append_typed(
        &mut self,
        stream: &str,
        seq: u64,
        kind: &str,
        value: &impl Serialize,
    ) -> Result<(), StoreError> {
        let body = serde_json::to_string(value).map_err(|source| StoreError::Record {
            stream: stream.to_owned(),
            seq,
            source,
        })?;
        let (stream, kind) = (stream.to_owned(), kind.to_owned());
        self.append(&[NewEntry {
            stream,
            seq,
            kind,
            body,
        }])
        .map(drop)
    }

    fn append(&mut self, new: &[NewEntry]) -> Result<Vec<lockstep_journal::Entry>, StoreError> {
        // fsync blocks: lets the runtime move this thread's other tasks.
        tokio::task::block_in_place(|| self.journal.append(new, lockstep_clock::wall_time()))
            .map_err(StoreError::Journal)
    }
}

fn to_journal(run: &RunId, entry: &Entry) -> Result<NewEntry, StoreError> {
    let stream = format!("{RUN}{run}");
    let body = serde_json::to_value(&entry.record).map_err(|source| StoreError::Record {
        stream: stream.clone(),
        seq: entry.seq,
        source,
    })?;
    // Records are tagged with their kind.
    let kind = body
        .get("record")
        .and_then(|kind| kind.as_str())
        .unwrap_or("record")
        .to_owned();
    Ok(NewEntry {
        stream,
        seq: entry.seq,
        kind,
        body: body.to_string(),
    })
}

fn stored(entry: lockstep_journal::Entry) -> Result<Stored, StoreError> {
    let record = serde_json::from_str(&entry.body).map_err(|source| StoreError::Record {
        stream: entry.stream.clone(),
        seq: entry.seq,
        source,
    })?;
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

#[cfg(test)]
mod tests {
    use super::*;

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
