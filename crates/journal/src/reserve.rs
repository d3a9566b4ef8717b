//! Space that is kept for the journal while the disk is filled by others.
//!
//! A file next to the journal holds blocks of the file system. When an append
//! finds no space, the file is deleted and the append repeated: what has begun
//! can still be recorded and ended, and the owner has to begin nothing new
//! until the file is there again.

use rustix::fs::{FallocateFlags, fallocate, statvfs};
use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// Bytes of the reserve: two of the longest entries, or some ten thousand of an
/// ordinary length.
pub(crate) const BYTES: u64 = 8 << 20;
/// The file system must have this many times the reserve free before it is made
/// again, so that it doesn't take the last space from the journal.
const MARGIN: u64 = 2;

pub(crate) struct Reserve {
    path: PathBuf,
    held: bool,
}

impl Reserve {
    /// Takes the space, unless the disk is full.
    pub(crate) fn open(journal: &Path) -> Self {
        let mut path = journal.as_os_str().to_owned();
        path.push(".reserve");
        let mut reserve = Self {
            path: path.into(),
            held: false,
        };
        reserve.held = reserve.is_complete() || reserve.take();
        reserve
    }

    pub(crate) fn is_held(&self) -> bool {
        self.held
    }

    /// Frees the space for the journal; `false` if there was none.
    pub(crate) fn release(&mut self) -> bool {
        self.held = false;
        fs::remove_file(&self.path).is_ok()
    }

    /// Takes the space again, once there is enough.
    pub(crate) fn take(&mut self) -> bool {
        self.held = self.make().is_ok() && self.is_complete();
        if !self.held {
            // What was written of it is space that the journal needs. It may
            // not exist.
            let _ = fs::remove_file(&self.path);
        }
        self.held
    }

    /// It has its length, and the file system has given it the blocks.
    fn is_complete(&self) -> bool {
        fs::metadata(&self.path)
            .is_ok_and(|meta| meta.len() == BYTES && meta.blocks() * 512 >= BYTES)
    }

    fn make(&self) -> io::Result<()> {
        let directory = self.path.parent().unwrap_or(Path::new("."));
        let space = statvfs(directory)?;
        if space.f_bavail.saturating_mul(space.f_frsize) < MARGIN * BYTES {
            return Err(io::ErrorKind::StorageFull.into());
        }
        let mut file = OpenOptions::new()
            .write(true)
            .create(true)
            .truncate(true)
            .open(&self.path)?;
        match fallocate(&file, FallocateFlags::empty(), 0, BYTES) {
            Ok(()) => Ok(()),
            // File systems that can't allocate ahead.
            Err(rustix::io::Errno::OPNOTSUPP) => fill(&mut file),
            Err(error) => Err(error.into()),
        }
    }
}

fn fill(file: &mut File) -> io::Result<()> {
    let zeros = vec![0; 1 << 16];
    for _ in 0..BYTES / zeros.len() as u64 {
        file.write_all(&zeros)?;
    }
    file.sync_all()
}
