//! How far the journal has been acknowledged, in a file of its own.
//!
//! SQLite recovers from a write-ahead log that was cut off by forgetting its
//! last transactions, without an error. This file names the last entry that was
//! reported as durable, so that a journal without it is refused.
//!
//! It is written after the entry is on disk and is not synchronised itself.
//! After a power failure it may therefore name an earlier entry, never one that
//! was not durable.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};

pub(crate) struct Acknowledged {
    path: PathBuf,
    /// `None` if it can't be written, which costs only the check.
    file: Option<File>,
}

impl Acknowledged {
    /// Opens the file of a journal, with the entry that it names.
    pub(crate) fn open(journal: &Path) -> (Self, Option<(u64, String)>) {
        let mut path = journal.as_os_str().to_owned();
        path.push(".head");
        let path = PathBuf::from(path);
        let named = fs::read_to_string(&path).ok().and_then(|text| parse(&text));
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false);
        let file = options.open(&path).ok();
        (Self { path, file }, named)
    }

    pub(crate) fn path(&self) -> &Path {
        &self.path
    }

    /// Names the last durable entry.
    pub(crate) fn record(&self, position: u64, hash: &str) {
        // Of constant length: it is overwritten in place, also on a full disk.
        let text = format!("{position:020} {hash}\n");
        if let Some(file) = &self.file {
            // An earlier entry stays named, which is weaker but not wrong.
            let _ = file.write_all_at(text.as_bytes(), 0);
        }
    }
}

/// A file that was damaged names nothing.
fn parse(text: &str) -> Option<(u64, String)> {
    let (position, hash) = text.strip_suffix('\n')?.split_once(' ')?;
    let whole = position.len() == 20 && hash.len() == 64;
    let position = position.parse().ok().filter(|_| whole)?;
    Some((position, hash.to_owned()))
}
