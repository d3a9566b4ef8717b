//! What the journal does when the disk fails, is full, or loses its tail: it
//! reports nothing as durable that a later start doesn't find.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

use faulty_disk::{Fault, FaultyDisk};
use lockstep_journal::{Entry, Error, Journal, NewEntry};
use std::fs;
use std::path::{Path, PathBuf};

/// A page of the file with the header that it has in the log.
const PAGE: u64 = 4_096 + 24;

fn entry(seq: u64, length: usize) -> NewEntry {
    NewEntry {
        stream: "run/1".to_owned(),
        seq,
        kind: "test".to_owned(),
        body: "x".repeat(length),
    }
}

fn fresh() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().canonicalize().unwrap().join("agent.db");
    (directory, path)
}

fn beside(path: &Path, suffix: &str) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(suffix);
    name.into()
}

/// Copies the journal's files as they are while it is open: what `kill -9`
/// leaves.
fn copy(from: &Path, to: &Path) {
    for suffix in ["", "-wal", ".head"] {
        let file = beside(from, suffix);
        if file.exists() {
            fs::copy(file, beside(to, suffix)).unwrap();
        }
    }
}

fn cut_to(path: &Path, length: u64) {
    let file = fs::OpenOptions::new().write(true).open(path);
    file.unwrap().set_len(length).unwrap();
}

fn entries(path: &Path) -> Vec<Entry> {
    let journal = Journal::open(path, "agent").unwrap();
    journal.read("run/1", 0).unwrap()
}

/// Appends until the disk fails; gives the entries that were reported as
/// durable.
fn append_until_failure(path: &Path) -> (Vec<Entry>, Option<Error>) {
    let mut acknowledged = Vec::new();
    let mut journal = match Journal::open(path, "agent") {
        Ok(journal) => journal,
        Err(error) => return (acknowledged, Some(error)),
    };
    for seq in 1..=6 {
        // Some fill several pages.
        match journal.append(&[entry(seq, 3_000 * usize::try_from(seq).unwrap())], seq) {
            Ok(written) => acknowledged.extend(written),
            Err(error) => return (acknowledged, Some(error)),
        }
    }
    (acknowledged, None)
}

#[test]
fn whichever_write_fails_what_was_reported_as_durable_is_found() {
    for fault in [Fault::InputOutput, Fault::NoSpace] {
        let mut failed = 0;
        for nth in 1.. {
            let (directory, path) = fresh();
            let disk = FaultyDisk::new(directory.path());
            disk.fail_from(nth, fault);
            let (acknowledged, error) = append_until_failure(&path);
            failed += u64::from(error.is_some());
            if let Some(error) = &error {
                let expected = fault == Fault::NoSpace;
                assert_eq!(error.is_full(), expected, "write {nth}: {error:?}");
            }
            disk.repair();
            let found = entries(&path);
            assert!(
                found.starts_with(&acknowledged),
                "write {nth}: {} of {} entries found",
                found.len(),
                acknowledged.len()
            );
            if error.is_none() {
                break;
            }
        }
        assert!(failed > 10, "only {failed} writes failed");
    }
}

#[test]
fn a_full_disk_takes_the_reserve_and_then_refuses() {
    let (directory, path) = fresh();
    let disk = FaultyDisk::new(directory.path());
    let mut journal = Journal::open(&path, "agent").unwrap();
    journal.append(&[entry(1, 10)], 0).unwrap();
    assert!(!journal.is_low_on_space());
    disk.fill(&beside(&path, ".reserve"));
    let mut seq = 2;
    let refused = loop {
        match journal.append(&[entry(seq, 100_000)], 0) {
            Ok(_) => seq += 1,
            Err(error) => break error,
        }
        assert!(journal.is_low_on_space(), "nothing new should begin");
    };
    assert!(refused.is_full(), "{refused:?}");
    assert!(seq > 30, "the reserve holds {seq} entries");
    let read = journal.read("run/1", 0).unwrap();
    assert_eq!(read.len() as u64, seq - 1, "reading works");
    drop(journal);
    assert_eq!(entries(&path).len() as u64, seq - 1);
    disk.repair();
    let mut journal = Journal::open(&path, "agent").unwrap();
    assert!(!journal.is_low_on_space(), "the space is reserved again");
    journal.append(&[entry(seq, 10)], 0).unwrap();
}

/// A directory for many copies of a journal: in memory, where there is such a file
/// system, because each copy is synchronised.
fn for_copies() -> (tempfile::TempDir, PathBuf) {
    let directory = tempfile::tempdir_in("/dev/shm").or_else(|_| tempfile::tempdir());
    let directory = directory.unwrap();
    let path = directory.path().join("agent.db");
    (directory, path)
}

#[test]
fn a_journal_whose_tail_is_cut_off_is_never_silently_shorter() {
    let (_directory, path) = for_copies();
    let mut journal = Journal::open(&path, "agent").unwrap();
    for seq in 1..=4 {
        journal.append(&[entry(seq, 1_000)], seq).unwrap();
    }
    let (_copies, copied) = for_copies();
    copy(&path, &copied);
    assert_eq!(entries(&copied).len(), 4, "the copy is complete");
    let length = fs::metadata(beside(&path, "-wal")).unwrap().len();
    // Each byte of the last page of the log, and some of the one before it.
    let mut shorter = 0;
    for cut in (1..=PAGE).chain((PAGE..2 * PAGE).step_by(37)) {
        copy(&path, &copied);
        cut_to(&beside(&copied, "-wal"), length - cut);
        match Journal::open(&copied, "agent") {
            Err(Error::Shorter {
                acknowledged: 4, ..
            }) => shorter += 1,
            Err(error) => panic!("{cut} bytes were cut off: {error}"),
            Ok(journal) => assert_eq!(journal.head().0, 4, "{cut} bytes were cut off"),
        }
    }
    assert!(shorter > 1_000, "refused {shorter} times");
}

#[test]
fn a_file_that_is_cut_off_is_not_taken_for_a_journal() {
    let (_directory, path) = for_copies();
    let mut journal = Journal::open(&path, "agent").unwrap();
    for seq in 1..=4 {
        journal.append(&[entry(seq, 1_000)], seq).unwrap();
    }
    // Closed in good order: the log is part of the file.
    drop(journal);
    let length = fs::metadata(&path).unwrap().len();
    let (_copies, copied) = for_copies();
    for cut in (1..200).chain((200..2 * PAGE).step_by(37)) {
        copy(&path, &copied);
        cut_to(&copied, length - cut);
        if let Ok(journal) = Journal::open(&copied, "agent") {
            let found = journal.read("run/1", 0).map(|entries| entries.len());
            assert!(matches!(found, Ok(4) | Err(_)), "{cut} bytes: {found:?}");
        }
    }
}

#[test]
fn a_journal_of_an_earlier_version_is_opened() {
    // Which had neither a reserve nor the file that names the last entry.
    let (_directory, path) = fresh();
    let mut journal = Journal::open(&path, "agent").unwrap();
    journal.append(&[entry(1, 10), entry(2, 10)], 0).unwrap();
    drop(journal);
    fs::remove_file(beside(&path, ".head")).unwrap();
    fs::remove_file(beside(&path, ".reserve")).unwrap();
    let mut journal = Journal::open(&path, "agent").unwrap();
    assert!(!journal.is_low_on_space());
    journal.append(&[entry(3, 10)], 0).unwrap();
    drop(journal);
    assert_eq!(entries(&path).len(), 3);
}
