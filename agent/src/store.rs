//! The participant's records in the journal.
//!
//! One stream, one record an entry. The journal's errors end the process
//! (R23): what is on disk is then no longer known, and only a new start reads
//! it again.

use lockstep_barrier::ids::JournalId;
use lockstep_barrier::participant::Entry;
use lockstep_barrier::record::{FormatVersion, UnknownFormat};
use lockstep_clock as clock;
use lockstep_journal::{Journal, NewEntry};
use std::path::Path;

/// The stream of the participant's records.
const STREAM: &str = "participant";
/// The stream in which each session leaves a mark.
const SESSIONS: &str = "sessions";

/// Why the store can't go on.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The journal said no.
    #[error("LS3101: the agent's journal failed; it ends now and reads it again when started")]
    Journal(#[source] lockstep_journal::Error),
    /// A record is not one of ours.
    #[error("LS3102: entry {seq} of the agent's journal can't be read")]
    Record { seq: u64, source: serde_json::Error },
    /// The journal was written in a form that this version doesn't know.
    #[error(
        "LS3105: the agent's journal is in another format; start the version that wrote it, or \
         finish the run there"
    )]
    Format(#[source] UnknownFormat),
    /// The directory can't be made.
    #[error("LS3103: the state directory {path} can't be made")]
    Directory {
        path: std::path::PathBuf,
        source: std::io::Error,
    },
}

pub struct Store {
    journal: Journal,
}

impl Store {
    /// Opens the journal in the state directory, or creates it.
    ///
    /// # Errors
    /// Where it is unusable.
    pub fn open(state_dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(state_dir).map_err(|source| StoreError::Directory {
            path: state_dir.to_owned(),
            source,
        })?;
        let journal =
            Journal::open(&state_dir.join("agent.db"), "agent").map_err(StoreError::Journal)?;
        Ok(Self { journal })
    }

    /// The identity drawn when the journal was created.
    pub fn id(&self) -> JournalId {
        JournalId(self.journal.id().to_owned())
    }

    /// Position and hash of the last entry.
    pub fn head(&self) -> (u64, String) {
        self.journal.head()
    }

    /// Whether this journal has that entry.
    ///
    /// # Errors
    /// Where it can't be read.
    pub fn has(&self, position: u64, hash: &str) -> Result<bool, StoreError> {
        let own = self
            .journal
            .hash_at(position)
            .map_err(StoreError::Journal)?;
        Ok(own.as_deref() == Some(hash))
    }

    /// Every record so far.
    ///
    /// # Errors
    /// Where one can't be read.
    pub fn records(&self) -> Result<Vec<Entry>, StoreError> {
        let entries = self.journal.read(STREAM, 0).map_err(StoreError::Journal)?;
        if let Some(first) = entries.first() {
            FormatVersion::check_first_record(&first.body).map_err(StoreError::Format)?;
        }
        entries
            .into_iter()
            .map(|entry| {
                serde_json::from_str(&entry.body)
                    .map(|record| Entry {
                        seq: entry.seq,
                        record,
                    })
                    .map_err(|source| StoreError::Record {
                        seq: entry.seq,
                        source,
                    })
            })
            .collect()
    }

    /// Makes records durable, all or none.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn persist(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let entries: Vec<NewEntry> = entries.iter().map(to_journal).collect::<Result<_, _>>()?;
        self.append(&entries)
    }

    /// Marks the start of a session and gives its number.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn begin_session(&mut self) -> Result<u64, StoreError> {
        let before = self
            .journal
            .read(SESSIONS, 0)
            .map_err(StoreError::Journal)?;
        let seq = before.last().map_or(0, |entry| entry.seq) + 1;
        let mark = NewEntry {
            stream: SESSIONS.to_owned(),
            seq,
            kind: "session".to_owned(),
            body: "{}".to_owned(),
        };
        self.append(&[mark]).map(|()| seq)
    }

    fn append(&mut self, entries: &[NewEntry]) -> Result<(), StoreError> {
        let began = std::time::Instant::now();
        // fsync blocks; the runtime may use this thread's queue elsewhere.
        tokio::task::block_in_place(|| self.journal.append(entries, clock::wall_time()))
            .map_err(StoreError::Journal)?;
        let took_us = began.elapsed().as_micros();
        tracing::debug!(records = entries.len(), took_us, "written");
        Ok(())
    }
}

fn to_journal(entry: &Entry) -> Result<NewEntry, StoreError> {
    let body = serde_json::to_value(&entry.record).map_err(|source| StoreError::Record {
        seq: entry.seq,
        source,
    })?;
    // Records are tagged enums: the tag is the kind.
    let kind = body
        .get("record")
        .and_then(|kind| kind.as_str())
        .unwrap_or("record")
        .to_owned();
    Ok(NewEntry {
        stream: STREAM.to_owned(),
        seq: entry.seq,
        kind,
        body: body.to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_journal_in_another_format_is_not_decoded() {
        let state = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&state.path().join("agent.db"), "agent").unwrap();
        let first = NewEntry {
            stream: STREAM.to_owned(),
            seq: 1,
            kind: "opened".to_owned(),
            body: r#"{"record":"opened","format":2,"more":true}"#.to_owned(),
        };
        journal.append(&[first], 0).unwrap();
        drop(journal);
        let store = Store::open(state.path()).unwrap();
        let error = store.records().unwrap_err();
        assert!(matches!(error, StoreError::Format(_)), "{error:?}");
    }
}
