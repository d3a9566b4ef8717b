//! The participant's records in the journal, one record per entry.

use crate::config::DAEMON;
use lockstep_barrier::ids::JournalId;
use lockstep_barrier::participant::Entry;
pub use lockstep_daemon::StoreError;
use lockstep_journal::NewEntry;
use serde_json::json;
use std::path::Path;

const PARTICIPANT: &str = "participant";
/// One entry per session; their count is the session number.
const SESSIONS: &str = "sessions";

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

    /// The identity drawn when the journal was created.
    pub fn id(&self) -> JournalId {
        JournalId(self.0.journal().id().to_owned())
    }

    /// Position and hash (hex) of the last entry; position 0 if there is none.
    pub fn head(&self) -> (u64, String) {
        self.0.journal().head()
    }

    /// Whether the journal holds an entry with this hash at this position.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn has(&self, position: u64, hash: &str) -> Result<bool, StoreError> {
        self.0.has(position, hash)
    }

    /// All records, oldest first.
    ///
    /// # Errors
    /// The journal can't be read, or an entry is not a participant's record.
    pub fn records(&self) -> Result<Vec<Entry>, StoreError> {
        let entries = self.0.versioned_entries(PARTICIPANT, 0)?.into_iter();
        entries
            .map(|entry| {
                Ok(Entry {
                    seq: entry.seq,
                    record: self.0.decode(&entry)?,
                })
            })
            .collect()
    }

    /// Makes records durable, all or none.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn persist(&mut self, entries: &[Entry]) -> Result<(), StoreError> {
        let new = entries
            .iter()
            .map(|entry| self.0.encode(PARTICIPANT, entry.seq, &entry.record));
        let new: Vec<NewEntry> = new.collect::<Result<_, _>>()?;
        self.0.append(&new).map(drop)
    }

    /// Records the start of a session and returns its number.
    ///
    /// # Errors
    /// Fatal for the process.
    pub fn begin_session(&mut self) -> Result<u64, StoreError> {
        self.0.append_record(SESSIONS, "session", &json!({}))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_journal::Journal;

    #[test]
    fn a_journal_in_another_format_is_not_decoded() {
        let state = tempfile::tempdir().unwrap();
        let mut journal = Journal::open(&state.path().join("agent.db"), "agent").unwrap();
        let first = NewEntry {
            stream: PARTICIPANT.to_owned(),
            seq: 1,
            kind: "opened".to_owned(),
            body: r#"{"record":"opened","format":2,"more":true}"#.to_owned(),
        };
        journal.append(&[first], 0).unwrap();
        drop(journal);
        let store = Store::open(state.path()).unwrap();
        let error = store.records().unwrap_err();
        assert!(matches!(error, StoreError::Format { .. }), "{error:?}");
    }
}
