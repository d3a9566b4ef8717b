//! Typed records over the journal.
//!
//! The process must exit after an error of the journal (R23): the state on disk is
//! then unknown and is read again at the next start.

use crate::{CrashPoint, Daemon};
use lockstep_barrier::record::{FormatVersion, UnknownFormat};
use lockstep_journal::{Entry, Journal, NewEntry};
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Why the journal can't be used. Fatal for the process.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    #[error(
        "{}: the {daemon}'s journal failed; the {daemon} stops now and reads the journal again at \
         its next start",
        daemon.codes.journal_failed
    )]
    Journal {
        daemon: &'static Daemon,
        source: Box<lockstep_journal::Error>,
    },
    /// Most likely written by a newer version.
    #[error(
        "{}: entry {seq} of {stream} in the {daemon}'s journal can't be read",
        daemon.codes.record_unreadable
    )]
    Record {
        daemon: &'static Daemon,
        stream: String,
        seq: u64,
        source: serde_json::Error,
    },
    #[error(
        "{}: {stream} in the {daemon}'s journal is in another format; start the version that wrote \
         it, or finish the run there",
        daemon.codes.unknown_format
    )]
    Format {
        daemon: &'static Daemon,
        stream: String,
        source: UnknownFormat,
    },
    #[error(
        "{}: the state directory {path} can't be created",
        daemon.codes.state_directory
    )]
    Directory {
        daemon: &'static Daemon,
        path: PathBuf,
        source: std::io::Error,
    },
}

impl StoreError {
    /// The disk is full, and nothing was written.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Journal { source, .. } if source.is_full())
    }
}

/// A daemon's journal, whose entries are records in JSON.
pub struct Store {
    daemon: &'static Daemon,
    journal: Journal,
}

impl Store {
    /// Opens the daemon's journal in the state directory; creates both if they don't
    /// exist.
    ///
    /// # Errors
    /// The directory or the journal is unusable, or another process owns it.
    pub fn open(daemon: &'static Daemon, state_dir: &Path) -> Result<Self, StoreError> {
        std::fs::create_dir_all(state_dir).map_err(|source| StoreError::Directory {
            daemon,
            path: state_dir.to_owned(),
            source,
        })?;
        let path = state_dir.join(format!("{}.db", daemon.name()));
        let journal = Journal::open(&path, daemon.name()).map_err(|e| journal_failed(daemon, e))?;
        Ok(Self { daemon, journal })
    }

    pub fn journal(&self) -> &Journal {
        &self.journal
    }

    /// The journal uses the space that it has reserved: nothing new should begin.
    pub fn is_low_on_space(&mut self) -> bool {
        self.journal.is_low_on_space()
    }

    /// Whether the journal has an entry with this hash at this position.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn has(&self, position: u64, hash: &str) -> Result<bool, StoreError> {
        let own = self.journal.hash_at(position);
        let own = own.map_err(|e| journal_failed(self.daemon, e))?;
        Ok(own.as_deref() == Some(hash))
    }

    /// Names of all streams in the order of their first entry.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn streams(&self) -> Result<Vec<String>, StoreError> {
        let streams = self.journal.streams();
        streams.map_err(|e| journal_failed(self.daemon, e))
    }

    /// A stream's entries after the given number, in order.
    ///
    /// # Errors
    /// The journal can't be read.
    pub fn entries(&self, stream: &str, after: u64) -> Result<Vec<Entry>, StoreError> {
        let entries = self.journal.read(stream, after);
        entries.map_err(|e| journal_failed(self.daemon, e))
    }

    /// As [`Store::entries`], of a stream whose first record names its format.
    ///
    /// # Errors
    /// The journal can't be read, or this program doesn't know the format.
    pub fn versioned_entries(&self, stream: &str, after: u64) -> Result<Vec<Entry>, StoreError> {
        let entries = self.entries(stream, after)?;
        if let Some(first) = entries.first().filter(|entry| entry.seq == 1) {
            FormatVersion::check_first_record(&first.body).map_err(|source| {
                StoreError::Format {
                    daemon: self.daemon,
                    stream: stream.to_owned(),
                    source,
                }
            })?;
        }
        Ok(entries)
    }

    /// All of a stream's records, each with its entry.
    ///
    /// # Errors
    /// The journal can't be read, or an entry is not a record of this type.
    pub fn records<T: DeserializeOwned>(
        &self,
        stream: &str,
    ) -> Result<Vec<(Entry, T)>, StoreError> {
        let entries = self.entries(stream, 0)?.into_iter();
        entries
            .map(|entry| self.decode(&entry).map(|record| (entry, record)))
            .collect()
    }

    /// The record in an entry.
    ///
    /// # Errors
    /// The entry is not a record of this type.
    pub fn decode<T: DeserializeOwned>(&self, entry: &Entry) -> Result<T, StoreError> {
        serde_json::from_str(&entry.body)
            .map_err(|source| self.record_unreadable(&entry.stream, entry.seq, source))
    }

    /// The entry for a record that is an enum with the tag `record`; the tag
    /// becomes the entry's kind.
    ///
    /// # Errors
    /// The record can't be represented as JSON.
    pub fn encode(
        &self,
        stream: &str,
        seq: u64,
        record: &impl Serialize,
    ) -> Result<NewEntry, StoreError> {
        let body = serde_json::to_value(record)
            .map_err(|source| self.record_unreadable(stream, seq, source))?;
        let kind = body.get("record").and_then(|kind| kind.as_str());
        Ok(NewEntry {
            stream: stream.to_owned(),
            seq,
            kind: kind.unwrap_or("record").to_owned(),
            body: body.to_string(),
        })
    }

    /// Appends one record to the end of a stream and returns its number there.
    ///
    /// # Errors
    /// See [`Store::append`].
    pub fn append_record(
        &mut self,
        stream: &str,
        kind: &str,
        record: &impl Serialize,
    ) -> Result<u64, StoreError> {
        let entries = self.next_entries(stream, kind, std::slice::from_ref(record))?;
        let seq = entries.first().map_or(0, |entry| entry.seq);
        self.append(&entries)?;
        Ok(seq)
    }

    /// Entries for records at the end of a stream, to be appended with others.
    ///
    /// # Errors
    /// The journal can't be read, or a record can't be represented as JSON.
    pub fn next_entries(
        &self,
        stream: &str,
        kind: &str,
        records: &[impl Serialize],
    ) -> Result<Vec<NewEntry>, StoreError> {
        let last = self.journal.last_seq(stream);
        let last = last.map_err(|e| journal_failed(self.daemon, e))?;
        let numbered = (last + 1..).zip(records);
        numbered
            .map(|(seq, record)| {
                let body = serde_json::to_string(record)
                    .map_err(|source| self.record_unreadable(stream, seq, source))?;
                let (stream, kind) = (stream.to_owned(), kind.to_owned());
                Ok(NewEntry {
                    stream,
                    seq,
                    kind,
                    body,
                })
            })
            .collect()
    }

    /// Appends entries, all or none. They are on disk when this returns. Must
    /// be called within a multi-threaded tokio runtime.
    ///
    /// # Errors
    /// The process must exit, because the state on disk is no longer known (R23).
    #[expect(clippy::disallowed_methods, reason = "measured only for the log")]
    pub fn append(&mut self, entries: &[NewEntry]) -> Result<Vec<Entry>, StoreError> {
        let began = Instant::now();
        CrashPoint::BeforeAppend.pass();
        // fsync blocks; block_in_place lets other threads run this thread's tasks.
        let written = tokio::task::block_in_place(|| {
            self.journal.append(entries, lockstep_clock::wall_time())
        })
        .map_err(|e| journal_failed(self.daemon, e))?;
        CrashPoint::AfterAppend.pass();
        let took_us = began.elapsed().as_micros();
        tracing::debug!(records = entries.len(), took_us, "written");
        Ok(written)
    }

    fn record_unreadable(&self, stream: &str, seq: u64, source: serde_json::Error) -> StoreError {
        StoreError::Record {
            daemon: self.daemon,
            stream: stream.to_owned(),
            seq,
            source,
        }
    }
}

fn journal_failed(daemon: &'static Daemon, source: lockstep_journal::Error) -> StoreError {
    let source = Box::new(source);
    StoreError::Journal { daemon, source }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::TEST;
    use serde::Deserialize;

    #[derive(Debug, PartialEq, Serialize, Deserialize)]
    #[serde(tag = "record", rename_all = "kebab-case")]
    enum Record {
        PhaseBegan { number: u32 },
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn records_are_read_back_with_their_kind() {
        let dir = tempfile::tempdir().unwrap();
        let state_dir = dir.path().join("state");
        let mut store = Store::open(&TEST, &state_dir).unwrap();
        let record = Record::PhaseBegan { number: 7 };
        let entry = store.encode("run/a", 1, &record).unwrap();
        store.append(&[entry]).unwrap();
        assert_eq!(store.append_record("run/a", "again", &record).unwrap(), 2);
        drop(store);

        let store = Store::open(&TEST, &state_dir).unwrap();
        let found = store.records::<Record>("run/a").unwrap();
        let kinds: Vec<&str> = found.iter().map(|(entry, _)| &*entry.kind).collect();
        assert_eq!(kinds, ["phase-began", "again"]);
        assert!(found.iter().all(|(_, found)| *found == record));
        assert_eq!(store.entries("run/a", 1).unwrap().len(), 1);
        let (position, hash) = store.journal().head();
        assert!(store.has(position, &hash).unwrap());
        assert!(!store.has(position, "").unwrap());
        assert!(!store.has(position + 1, &hash).unwrap());
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn an_error_has_the_daemons_code_and_the_location() {
        let dir = tempfile::tempdir().unwrap();
        let mut store = Store::open(&TEST, dir.path()).unwrap();
        store.append_record("run/a", "other", &"text").unwrap();
        let unreadable = store.records::<Record>("run/a").unwrap_err().to_string();
        assert_eq!(
            unreadable,
            "LS3102: entry 1 of run/a in the agent's journal can't be read"
        );
        let in_use = Store::open(&TEST, dir.path()).err().unwrap().to_string();
        assert!(
            in_use.starts_with("LS3101: the agent's journal"),
            "{in_use}"
        );
        let unknown = r#"{"record":"opened","format":2,"more":true}"#;
        let unknown: serde_json::Value = serde_json::from_str(unknown).unwrap();
        store.append_record("run/b", "opened", &unknown).unwrap();
        let unknown = store.versioned_entries("run/b", 0).unwrap_err().to_string();
        assert!(
            unknown.starts_with("LS3105: run/b in the agent's"),
            "{unknown}"
        );
        assert_eq!(store.versioned_entries("run/b", 1).unwrap(), []);
        let under_file = dir.path().join("agent.db/state");
        let refused = Store::open(&TEST, &under_file).err().unwrap().to_string();
        assert!(refused.starts_with("LS3103: "), "{refused}");
    }
}
