//! The durable journal of both daemons.
//!
//! An append-only list of entries in one SQLite file, each entry chained
//! to the previous one by a SHA-256 hash. Entries belong to streams (a run, or the
//! daemon itself); a stream numbers its entries from 1, and an append
//! specifies the expected number (compare-and-append), so two writers can never
//! both succeed with the same number.
//!
//! When [`Journal::append`] returns, the entries are on disk: write-ahead
//! log with `synchronous=FULL`. One process owns a journal at a time (R11).
//! A journal that lacks an entry which was reported as durable isn't opened, and
//! space is reserved so that a full disk doesn't prevent what has begun from being
//! recorded.
//!
//! Bodies are opaque text.

mod acknowledged;
mod reserve;
mod schema;

use acknowledged::Acknowledged;
use reserve::Reserve;
use rusqlite::{Connection, OptionalExtension, Transaction, TransactionBehavior, params};
use sha2::{Digest, Sha256};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

/// Maximum length of an entry's body: 4 MiB, far more than a plan with every
/// before-image; anything longer is a defect.
pub const MAX_BODY: usize = 4 << 20;

/// Shortest interval between attempts to reserve space again.
const RESERVE_PAUSE: Duration = Duration::from_secs(5);

/// Predecessor hash of the first entry.
const GENESIS: [u8; 32] = [0; 32];

/// An entry of the journal.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// Position in the whole journal, from 1.
    pub position: u64,
    /// The stream it belongs to.
    pub stream: String,
    /// Its number in the stream, from 1.
    pub seq: u64,
    /// Time of writing, milliseconds since the epoch; for display only.
    pub at_ms: u64,
    /// Kind of the record, for display and queries.
    pub kind: String,
    pub body: String,
    /// Hash of this entry, chained to the previous entry.
    pub hash: [u8; 32],
}

impl Entry {
    /// The hash in hex.
    pub fn hash_hex(&self) -> String {
        hex::encode(self.hash)
    }
}

/// An entry to be appended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NewEntry {
    pub stream: String,
    /// Expected number in the stream.
    pub seq: u64,
    /// Kind of the record.
    pub kind: String,
    pub body: String,
}

/// Error of a journal.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// SQLite or the file system failed.
    #[error("the journal {path} can't be {doing}")]
    Store {
        path: PathBuf,
        doing: &'static str,
        source: rusqlite::Error,
    },
    /// Another process owns the journal.
    #[error("the journal {path} is in use by another process; stop it first")]
    InUse { path: PathBuf },
    /// Written by a newer program.
    #[error("the journal {path} has format {found}, this program reads up to {known}")]
    Version {
        path: PathBuf,
        /// Format of the file.
        found: i64,
        /// Newest format this program reads.
        known: i64,
    },
    /// The journal of another kind of daemon.
    #[error("the journal {path} belongs to a {found}, not to a {expected}")]
    Role {
        path: PathBuf,
        found: String,
        expected: String,
    },
    /// Another writer appended first, or the caller's state is stale.
    #[error("stream {stream} of the journal is at {found}, not at {expected}")]
    Conflict {
        stream: String,
        /// Number of its last entry.
        found: u64,
        /// Number of the last entry according to the caller.
        expected: u64,
    },
    /// An entry does not match its hash.
    #[error("the journal {path} was altered: entry {position} does not match its hash")]
    Altered {
        path: PathBuf,
        /// Position of the first entry that does not match.
        position: u64,
    },
    /// Entries that were reported as durable are missing.
    #[error(
        "the journal {path} ends at entry {found}, but entry {acknowledged} had been written; \
         it was cut off, or restored without {head}"
    )]
    Shorter {
        path: PathBuf,
        /// Position of its last entry.
        found: u64,
        acknowledged: u64,
        /// The file that names the last entry that was written.
        head: PathBuf,
    },
    /// See [`MAX_BODY`].
    #[error("a record of {bytes} bytes is longer than a journal entry may be ({MAX_BODY})")]
    TooLong { bytes: usize },
}

impl Error {
    /// The disk is full, and nothing was written.
    pub fn is_full(&self) -> bool {
        matches!(self, Self::Store { source, .. }
            if source.sqlite_error_code() == Some(rusqlite::ErrorCode::DiskFull))
    }
}

/// An open journal, owned by this process until it is dropped.
pub struct Journal {
    connection: Connection,
    path: PathBuf,
    id: String,
    head: (u64, [u8; 32]),
    acknowledged: Acknowledged,
    reserve: Reserve,
    /// When the space was last tried to be reserved.
    tried: Instant,
}

impl Journal {
    /// Opens the journal, or creates it with a new identity. `role` is the
    /// kind of daemon; a journal is never shared between kinds.
    ///
    /// # Errors
    /// The file can't be opened, is owned by another process, was written by a newer
    /// program or by another role, or was altered.
    pub fn open(path: &Path, role: &str) -> Result<Self, Error> {
        let store = |doing| move |source| failed(path, doing, source);
        let mut connection = Connection::open(path).map_err(store("opened"))?;
        schema::configure(&connection).map_err(store("configured"))?;
        let id = schema::adopt(&mut connection, path, role)?;
        let (acknowledged, named) = Acknowledged::open(path);
        let mut journal = Self {
            connection,
            path: path.to_owned(),
            id,
            head: (0, GENESIS),
            acknowledged,
            reserve: Reserve::open(path),
            tried: now(),
        };
        journal.head = journal.verify()?;
        if let Some((position, hash)) = named {
            journal.check_acknowledged(position, &hash)?;
        }
        Ok(journal)
    }

    /// The journal holds the last entry that was reported as durable.
    fn check_acknowledged(&self, position: u64, hash: &str) -> Result<(), Error> {
        if position > self.head.0 {
            return Err(Error::Shorter {
                path: self.path.clone(),
                found: self.head.0,
                acknowledged: position,
                head: self.acknowledged.path().to_owned(),
            });
        }
        if self.hash_at(position)?.as_deref() != Some(hash) {
            return Err(Error::Altered {
                path: self.path.clone(),
                position,
            });
        }
        Ok(())
    }

    /// The disk is full or nearly so: entries are written into space that was
    /// reserved, and nothing new should begin. Tries now and then to reserve it
    /// again.
    pub fn is_low_on_space(&mut self) -> bool {
        if !self.reserve.is_held() && self.tried.elapsed() >= RESERVE_PAUSE {
            self.tried = now();
            self.reserve.take();
        }
        !self.reserve.is_held()
    }

    /// The identity assigned when the journal was created.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// Position and hash (hex) of the last entry; position 0 if there is none.
    pub fn head(&self) -> (u64, String) {
        (self.head.0, hex::encode(self.head.1))
    }

    /// Hash (hex) of the entry at a position, if there is one.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn hash_at(&self, position: u64) -> Result<Option<String>, Error> {
        let read = || -> rusqlite::Result<Option<[u8; 32]>> {
            self.connection
                .prepare_cached("SELECT hash FROM entry WHERE position = ?1")?
                .query_row([position], |row| row.get(0))
                .optional()
        };
        let hash = read().map_err(|source| failed(&self.path, "read", source))?;
        Ok(hash.map(hex::encode))
    }

    /// Appends entries, all or none. When it returns they are on disk. If the disk
    /// is full, the reserved space is used.
    ///
    /// # Errors
    /// [`Error::Conflict`] if an entry's number is not the next of its stream. After
    /// any [`Error::Store`] the process must exit (R23), because the state on disk is
    /// no longer known.
    pub fn append(&mut self, entries: &[NewEntry], at_ms: u64) -> Result<Vec<Entry>, Error> {
        let mut written = self.write(entries, at_ms);
        // SQLite has not committed what it found no space for, and overwrites what
        // it wrote of it.
        if written.as_ref().is_err_and(Error::is_full) && self.reserve.release() {
            self.tried = now();
            written = self.write(entries, at_ms);
        }
        if written.is_ok() {
            let (position, hash) = self.head();
            self.acknowledged.record(position, &hash);
        }
        written
    }

    fn write(&mut self, entries: &[NewEntry], at_ms: u64) -> Result<Vec<Entry>, Error> {
        let path = self.path.clone();
        let store = |doing| {
            let path = path.clone();
            move |source| failed(&path, doing, source)
        };
        let transaction = self
            .connection
            .transaction_with_behavior(TransactionBehavior::Immediate)
            .map_err(store("written to"))?;
        let mut head = self.head;
        let mut written = Vec::with_capacity(entries.len());
        for entry in entries {
            expect_next(&transaction, entry, &path)?;
            let entry = chained(head, entry, at_ms)?;
            insert(&transaction, &entry).map_err(store("written to"))?;
            head = (entry.position, entry.hash);
            written.push(entry);
        }
        transaction.commit().map_err(store("written to"))?;
        self.head = head;
        Ok(written)
    }

    /// The entries of a stream after the given number, in order.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn read(&self, stream: &str, after: u64) -> Result<Vec<Entry>, Error> {
        self.query("SELECT position, stream, seq, at_ms, kind, body, hash FROM entry WHERE stream = ?1 AND seq > ?2 ORDER BY seq", params![stream, after])
    }

    /// Number of a stream's last entry; 0 for a stream without entries.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn last_seq(&self, stream: &str) -> Result<u64, Error> {
        last_seq(&self.connection, stream).map_err(|source| failed(&self.path, "read", source))
    }

    /// Names of all streams in the order of their first entry.
    ///
    /// # Errors
    /// The file can't be read.
    pub fn streams(&self) -> Result<Vec<String>, Error> {
        let read = || -> rusqlite::Result<Vec<String>> {
            let mut statement = self
                .connection
                .prepare_cached("SELECT stream FROM entry WHERE seq = 1 ORDER BY position")?;
            statement.query_map([], |row| row.get(0))?.collect()
        };
        read().map_err(|source| failed(&self.path, "read", source))
    }

    /// Verifies the whole chain, one entry in memory at a time; returns position and
    /// hash of the last entry.
    fn verify(&self) -> Result<(u64, [u8; 32]), Error> {
        let store = |source| failed(&self.path, "read", source);
        let mut statement = self
            .connection
            .prepare(
                "SELECT position, stream, seq, at_ms, kind, body, hash FROM entry ORDER BY position",
            )
            .map_err(store)?;
        let mut head = (0, GENESIS);
        for entry in statement.query_map([], entry_of).map_err(store)? {
            let entry = entry.map_err(store)?;
            let fits = entry.position == head.0 + 1 && hash(&head.1, &entry) == entry.hash;
            if !fits {
                return Err(Error::Altered {
                    path: self.path.clone(),
                    position: entry.position,
                });
            }
            head = (entry.position, entry.hash);
        }
        Ok(head)
    }

    fn query(&self, sql: &str, params: impl rusqlite::Params) -> Result<Vec<Entry>, Error> {
        let read = || -> rusqlite::Result<Vec<Entry>> {
            let mut statement = self.connection.prepare_cached(sql)?;
            statement.query_map(params, entry_of)?.collect()
        };
        read().map_err(|source| failed(&self.path, "read", source))
    }
}

#[expect(clippy::disallowed_methods, reason = "an interval of this process")]
fn now() -> Instant {
    Instant::now()
}

fn entry_of(row: &rusqlite::Row<'_>) -> rusqlite::Result<Entry> {
    Ok(Entry {
        position: row.get(0)?,
        stream: row.get(1)?,
        seq: row.get(2)?,
        at_ms: row.get(3)?,
        kind: row.get(4)?,
        body: row.get(5)?,
        hash: row.get(6)?,
    })
}

fn failed(path: &Path, doing: &'static str, source: rusqlite::Error) -> Error {
    match source.sqlite_error_code() {
        Some(rusqlite::ErrorCode::DatabaseBusy | rusqlite::ErrorCode::DatabaseLocked) => {
            Error::InUse {
                path: path.to_owned(),
            }
        }
        _ => Error::Store {
            path: path.to_owned(),
            doing,
            source,
        },
    }
}

fn last_seq(connection: &Connection, stream: &str) -> rusqlite::Result<u64> {
    let last: Option<u64> = connection
        .prepare_cached("SELECT max(seq) FROM entry WHERE stream = ?1")?
        .query_row([stream], |row| row.get(0))?;
    Ok(last.unwrap_or(0))
}

fn expect_next(transaction: &Transaction<'_>, entry: &NewEntry, path: &Path) -> Result<(), Error> {
    let found =
        last_seq(transaction, &entry.stream).map_err(|source| failed(path, "read", source))?;
    if found + 1 == entry.seq {
        return Ok(());
    }
    let expected = entry.seq.saturating_sub(1);
    Err(Error::Conflict {
        stream: entry.stream.clone(),
        found,
        expected,
    })
}

fn chained(head: (u64, [u8; 32]), entry: &NewEntry, at_ms: u64) -> Result<Entry, Error> {
    if entry.body.len() > MAX_BODY {
        return Err(Error::TooLong {
            bytes: entry.body.len(),
        });
    }
    let mut chained = Entry {
        position: head.0 + 1,
        stream: entry.stream.clone(),
        seq: entry.seq,
        at_ms,
        kind: entry.kind.clone(),
        body: entry.body.clone(),
        hash: GENESIS,
    };
    chained.hash = hash(&head.1, &chained);
    Ok(chained)
}

fn insert(transaction: &Transaction<'_>, entry: &Entry) -> rusqlite::Result<()> {
    transaction
        .prepare_cached(
            "INSERT INTO entry (position, stream, seq, at_ms, kind, body, hash) \
             VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
        )?
        .execute(params![
            entry.position,
            entry.stream,
            entry.seq,
            entry.at_ms,
            entry.kind,
            entry.body,
            entry.hash
        ])?;
    Ok(())
}

/// Texts are prefixed with their length, so that different entries never produce
/// the same input.
fn hash(before: &[u8; 32], entry: &Entry) -> [u8; 32] {
    let mut hasher = Sha256::new();
    hasher.update(before);
    for number in [entry.position, entry.seq, entry.at_ms] {
        hasher.update(number.to_be_bytes());
    }
    for text in [&entry.stream, &entry.kind, &entry.body] {
        hasher.update((text.len() as u64).to_be_bytes());
        hasher.update(text.as_bytes());
    }
    hasher.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(stream: &str, seq: u64) -> NewEntry {
        let body = format!("{{\"n\":{seq}}}");
        NewEntry {
            stream: stream.into(),
            seq,
            kind: "test".into(),
            body,
        }
    }

    fn fresh() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("journal.db");
        (dir, path)
    }

    #[test]
    fn appended_entries_survive_reopening() {
        let (_dir, path) = fresh();
        let mut journal = Journal::open(&path, "agent").unwrap();
        let id = journal.id().to_owned();
        journal
            .append(&[entry("a", 1), entry("b", 1), entry("a", 2)], 7)
            .unwrap();
        let head = journal.head();
        drop(journal);
        let journal = Journal::open(&path, "agent").unwrap();
        assert_eq!(journal.id(), id);
        assert_eq!(journal.head(), head);
        assert_eq!(journal.hash_at(head.0).unwrap(), Some(head.1));
        assert_eq!(journal.hash_at(head.0 + 1).unwrap(), None);
        assert_eq!(journal.streams().unwrap(), ["a", "b"]);
        let seqs: Vec<u64> = journal
            .read("a", 0)
            .unwrap()
            .iter()
            .map(|e| e.seq)
            .collect();
        assert_eq!(seqs, [1, 2]);
        let last = ["a", "b", "c"].map(|stream| journal.last_seq(stream).unwrap());
        assert_eq!(last, [2, 1, 0]);
    }

    #[test]
    fn an_append_that_expects_another_number_changes_nothing() {
        let (_dir, path) = fresh();
        let mut journal = Journal::open(&path, "agent").unwrap();
        journal.append(&[entry("a", 1)], 0).unwrap();
        let head = journal.head();
        for wrong in [1, 3] {
            let refused = journal.append(&[entry("b", 1), entry("a", wrong)], 0);
            assert!(
                matches!(refused, Err(Error::Conflict { found: 1, .. })),
                "{refused:?}"
            );
        }
        assert_eq!(journal.head(), head);
        assert!(journal.read("b", 0).unwrap().is_empty());
    }

    #[test]
    fn a_second_owner_is_refused() {
        let (_dir, path) = fresh();
        let first = Journal::open(&path, "agent").unwrap();
        assert!(matches!(
            Journal::open(&path, "agent"),
            Err(Error::InUse { .. })
        ));
        drop(first);
        Journal::open(&path, "agent").unwrap();
    }

    #[test]
    fn another_role_is_refused() {
        let (_dir, path) = fresh();
        drop(Journal::open(&path, "agent").unwrap());
        assert!(matches!(
            Journal::open(&path, "coordinator"),
            Err(Error::Role { .. })
        ));
    }

    #[test]
    fn an_edit_a_deletion_and_a_swap_are_detected() {
        for tampering in [
            "UPDATE entry SET body = '{}' WHERE position = 2",
            "DELETE FROM entry WHERE position = 2",
            "UPDATE entry SET at_ms = at_ms + 1 WHERE position = 1",
            "UPDATE entry SET seq = 9 WHERE position = 3",
        ] {
            let (_dir, path) = fresh();
            let mut journal = Journal::open(&path, "agent").unwrap();
            journal
                .append(&[entry("a", 1), entry("a", 2), entry("a", 3)], 0)
                .unwrap();
            drop(journal);
            Connection::open(&path)
                .unwrap()
                .execute_batch(tampering)
                .unwrap();
            let reopened = Journal::open(&path, "agent");
            assert!(
                matches!(reopened, Err(Error::Altered { .. })),
                "{tampering}"
            );
        }
    }

    #[test]
    fn a_newer_format_is_refused() {
        let (_dir, path) = fresh();
        drop(Journal::open(&path, "agent").unwrap());
        Connection::open(&path)
            .unwrap()
            .pragma_update(None, "user_version", 99)
            .unwrap();
        assert!(matches!(
            Journal::open(&path, "agent"),
            Err(Error::Version { found: 99, .. })
        ));
    }
}
