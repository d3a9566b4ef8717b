//! Files and links: read whole, replaced atomically.
//!
//! Contents never leave the host: captured states hold digests, and the
//! previous file is saved in the same directory under a name of its own: the file
//! itself where the filesystem has hard links, so that what is put back has its
//! times, its labels and its other names, too.

mod access;
mod attributes;
mod digest;
mod place;

pub use access::{is_free, may_execute, may_rename, may_replace};
pub use attributes::{Attributes, Wanted};
pub use digest::ContentDigest;
pub use place::{Directory, Place};

use crate::error::ActionError;
use lockstep_api::Code;
use place::Node;
use rustix::fs::{
    AtFlags, CWD, Mode, OFlags, RenameFlags, Timespec, Timestamps, UTIME_NOW, linkat, openat,
    renameat, renameat_with, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is")]
pub enum FileState {
    Absent,
    Link {
        /// As stored in the link, not resolved.
        target: PathBuf,
        /// Absent in records of versions that didn't preserve them.
        #[serde(default)]
        attributes: Option<Attributes>,
    },
    File {
        digest: ContentDigest,
        /// Absent in records of versions that didn't preserve them.
        #[serde(default)]
        attributes: Option<Attributes>,
    },
}

impl FileState {
    /// In what the present state differs from this recorded one; `None` where it
    /// doesn't. Attributes are compared where they were recorded.
    pub fn difference(&self, now: &Self) -> Option<String> {
        let (recorded, present) = match (self, now) {
            (Self::Absent, Self::Absent) => return None,
            (
                Self::Link { target, attributes },
                Self::Link {
                    target: to,
                    attributes: present,
                },
            ) if target == to => (attributes, present),
            (
                Self::File { digest, attributes },
                Self::File {
                    digest: content,
                    attributes: present,
                },
            ) if digest == content => (attributes, present),
            (_, Self::Absent) => return Some("it doesn't exist".to_owned()),
            (_, Self::Link { target, .. }) => {
                return Some(format!("it is a link to {}", target.display()));
            }
            (_, Self::File { .. }) => return Some("its content is another one".to_owned()),
        };
        recorded.as_ref()?.difference(present.as_ref()?)
    }

    /// Whether the present state is this recorded one.
    pub fn is(&self, now: &Self) -> bool {
        self.difference(now).is_none()
    }

    /// For the record of changes: the digest of a file that everybody may read, the
    /// target of a link.
    pub fn shown(&self) -> String {
        match self {
            Self::Absent => "nothing".to_owned(),
            Self::Link { target, .. } => format!("a link to {}", target.display()),
            Self::File { digest, .. } => digest.shown(),
        }
    }
}

/// Reads what is at this place.
///
/// # Errors
/// Where it can't be read, or is neither file nor link.
pub fn inspect(place: &Place) -> Result<FileState, ActionError> {
    let unreadable = |e| unreadable(place.path(), e);
    let Some(node) = place.node().map_err(unreadable)? else {
        return Ok(FileState::Absent);
    };
    if !node.is_link() && !node.is_file() {
        return Err(neither(place.path()));
    }
    let attributes = Some(Attributes::of(&node).map_err(unreadable)?);
    if node.is_link() {
        let target = node.target().map_err(unreadable)?;
        return Ok(FileState::Link { target, attributes });
    }
    let digest = ContentDigest::of(&node, !node.is_public()).map_err(unreadable)?;
    Ok(FileState::File { digest, attributes })
}

/// The state of `path` once it is replaced by a copy of the file `with`.
///
/// # Errors
/// Where either can't be read, or `with` is not a file.
pub fn replaced(path: &Place, with: &Place) -> Result<FileState, ActionError> {
    let source = file(with)?;
    let digest =
        ContentDigest::of(&source, !source.is_public()).map_err(|e| unreadable(with.path(), e))?;
    let attributes = Some(wanted(path, &source)?.recorded());
    let digest = match inspect(path)? {
        FileState::File { digest: before, .. } => digest.as_secret_as(&before),
        FileState::Absent | FileState::Link { .. } => digest,
    };
    Ok(FileState::File { digest, attributes })
}

/// The attributes of the file that replaces `path`, which is a copy of `source`.
fn wanted(path: &Place, source: &Node) -> Result<Wanted, ActionError> {
    let wanted = path.node().and_then(|there| match there {
        Some(there) => Wanted::of_a_replacement(&there, source),
        None => Wanted::of_a_copy(source),
    });
    wanted.map_err(|e| unreadable(path.path(), e))
}

/// The file at a place: neither a link nor anything else.
fn file(place: &Place) -> Result<Node, ActionError> {
    let node = place.existing().map_err(|e| unreadable(place.path(), e))?;
    if node.is_file() {
        return Ok(node);
    }
    Err(neither(place.path()))
}

/// The number of names that a file has (hard links); 0 where there is none.
pub fn names(place: &Place) -> u64 {
    let node = place.node().ok().flatten();
    let metadata = node.and_then(|node| fs::metadata(node.path()).ok());
    metadata.map_or(0, |metadata| metadata.nlink())
}

/// What the readers of a file lose when it is replaced by a copy of another that not
/// everybody may read; `None` where owner and mode stay.
///
/// # Errors
/// Where either can't be read.
pub fn restriction(path: &Place, with: &Place) -> Result<Option<String>, ActionError> {
    let Some(there) = path.node().map_err(|e| unreadable(path.path(), e))? else {
        return Ok(None);
    };
    let now = Wanted::of_existing(&there).map_err(|e| unreadable(path.path(), e))?;
    let then = wanted(path, &file(with)?)?;
    let shown = |of: &Wanted| format!("{}:{} {:04o}", of.uid, of.gid, of.mode);
    let same = now.recorded() == then.recorded();
    Ok((!same).then(|| {
        format!(
            "not everybody may read {}, so {} gets the stricter of both owners and modes: {} \
             instead of {}; if its readers need it, give {} the owner and mode of {} before the run",
            with.path().display(),
            path.path().display(),
            shown(&then),
            shown(&now),
            with.path().display(),
            path.path().display(),
        )
    }))
}

/// Replaces a link's target, atomically, and retains the owner and the extended
/// attributes of the link.
///
/// # Errors
/// Where the directory can't be written, or an attribute can't be preserved.
pub fn point(path: &Place, target: &Path) -> Result<(), ActionError> {
    let unwritable = |e| unwritable(path.path(), e);
    let new = path.aside("new");
    let link = remove_if_there(&new)
        .and_then(|()| Ok(symlinkat(target, new.directory(), new.name())?))
        .and_then(|()| new.existing())
        .map_err(unwritable)?;
    let like = path.existing().and_then(|node| Wanted::of_existing(&node));
    preserve(path, &like.map_err(unwritable)?, &new, &link)?;
    put(&new, path, Some(&link))
}

/// Replaces a file with a copy of another, atomically. The copy has the owner, the mode
/// and the extended attributes, such as the ACL, of the replaced file, unless not
/// everybody may read the other one (see [`Wanted`]); where there was none, those of
/// the other file, except for the security label, which the system assigns.
///
/// # Errors
/// Where it can't be read or written, or an attribute can't be preserved.
pub fn replace(path: &Place, with: &Place) -> Result<(), ActionError> {
    let source = file(with)?;
    let wanted = wanted(path, &source)?;
    let new = path.aside("new");
    let copy = write_copy(&new, &source).map_err(|e| unwritable(path.path(), e))?;
    preserve(path, &wanted, &new, &copy)?;
    put(&new, path, Some(&copy))
}

/// Saves a file under another name of the same directory: the file itself gets that
/// name as well. Where the filesystem has no hard links, or the kernel refuses one
/// (`fs.protected_hardlinks`, proc(5)), the saved file is a copy with all attributes.
///
/// # Errors
/// Where it can't be saved.
pub fn save(path: &Place, saved: &Place) -> Result<(), ActionError> {
    let unwritable = |e| unwritable(saved.path(), e);
    let new = saved.aside("new");
    remove_if_there(&new).map_err(unwritable)?;
    let (from, to) = (path.directory(), new.directory());
    let linked = linkat(from, path.name(), to, new.name(), AtFlags::empty()).is_ok();
    if !linked {
        let source = file(path)?;
        let copy = write_copy(&new, &source).map_err(unwritable)?;
        let wanted = Wanted::of_existing(&source).map_err(unwritable)?;
        preserve(saved, &wanted, &new, &copy)?;
    }
    put(&new, saved, None)?;
    // Between two names of one file, rename(2) does nothing and both remain.
    remove_if_there(&new).map_err(unwritable)
}

/// Puts a saved file back in place, atomically: it is no longer saved then.
///
/// # Errors
/// Where it can't be moved.
pub fn put_back(saved: &Place, path: &Place) -> Result<(), ActionError> {
    put(saved, path, None)
}

/// Renames a file, and checks that what is in place then is what was made.
fn put(new: &Place, path: &Place, made: Option<&Node>) -> Result<(), ActionError> {
    let renamed = || -> io::Result<()> {
        renameat(new.directory(), new.name(), path.directory(), path.name())?;
        path.sync_directory()?;
        let Some(made) = made else { return Ok(()) };
        let identity = |node: &Node| (node.stat().st_dev, node.stat().st_ino);
        if identity(&path.existing()?) == identity(made) {
            return Ok(());
        }
        Err(io::Error::other(format!(
            "somebody else replaced {} meanwhile",
            new.path().display()
        )))
    };
    renamed().map_err(|e| unwritable(path.path(), e))
}

/// Writes a copy that nobody else can read yet.
fn write_copy(new: &Place, source: &Node) -> io::Result<Node> {
    remove_if_there(new)?;
    let flags = OFlags::WRONLY | OFlags::CREATE | OFlags::EXCL | OFlags::NOFOLLOW | OFlags::CLOEXEC;
    let fd = openat(
        new.directory(),
        new.name(),
        flags,
        Mode::from_raw_mode(0o600),
    )?;
    let mut file = fs::File::from(fd);
    io::copy(&mut source.open()?, &mut file)?;
    file.sync_all()?;
    Node::of(file.into())
}

/// Gives a new file or link its attributes and verifies them: a filesystem may accept
/// an attribute and not store it. After an error the new file is removed.
fn preserve(path: &Place, wanted: &Wanted, new: &Place, made: &Node) -> Result<(), ActionError> {
    let given = || -> Result<(), ActionError> {
        wanted
            .give(made)
            .map_err(|(what, e)| not_preserved(path.path(), &what, e))?;
        let now = Attributes::of(made).map_err(|e| unreadable(new.path(), e))?;
        match wanted.recorded().difference(&now) {
            None => Ok(()),
            Some(difference) => Err(not_preserved(
                path.path(),
                "attributes",
                io::Error::other(format!("of the new file, {difference}")),
            )),
        }
    };
    let outcome = given().and_then(|()| {
        if made.is_link() {
            return Ok(());
        }
        let synced = made.open().and_then(|file| file.sync_all());
        synced.map_err(|e| unwritable(path.path(), e))
    });
    if outcome.is_err() {
        // The error that matters is the first one; a retry removes what is left.
        let _ = remove_if_there(new);
    }
    outcome
}

/// Moves a file to another name in the same directory; never overwrites an
/// existing file.
///
/// # Errors
/// Where it can't be moved, or the new name exists.
pub fn rename(from: &Place, to: &Place) -> Result<(), ActionError> {
    let renamed = renameat_with(
        from.directory(),
        from.name(),
        to.directory(),
        to.name(),
        RenameFlags::NOREPLACE,
    );
    let renamed = match renamed {
        Err(Errno::EXIST) => return Err(taken(to.path())),
        // A filesystem that doesn't know the flag (rename(2)).
        Err(Errno::INVAL | Errno::NOSYS) => {
            if !is_free(to)? {
                return Err(taken(to.path()));
            }
            renameat(from.directory(), from.name(), to.directory(), to.name())
        }
        renamed => renamed,
    };
    renamed
        .map_err(io::Error::from)
        .and_then(|()| to.sync_directory())
        .map_err(|e| unwritable(from.path(), e))
}

/// LS2121: a file is at the name that another was to get.
pub fn taken(path: &Path) -> ActionError {
    ActionError::new(Code::LS2121, format!("{} is there already", path.display()))
        .state_left("nothing was changed")
        .remedy("compare both files, move one away, then retry")
}

/// The modification time of the directory of a place, in whole seconds since the epoch.
///
/// # Errors
/// Where it can't be read.
pub fn modified_secs(place: &Place) -> Result<i64, ActionError> {
    fs::metadata(place.directory_path())
        .map(|metadata| metadata.mtime())
        .map_err(|e| unreadable(place.parent(), e))
}

/// Sets the modification time of the directory of a place to the present and returns it
/// as [`modified_secs`] does.
///
/// # Errors
/// Where it can't be set.
pub fn touch(place: &Place) -> Result<i64, ActionError> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    utimensat(CWD, place.directory_path(), &times, AtFlags::empty())
        .map_err(|e| unwritable(place.parent(), e.into()))?;
    modified_secs(place)
}

/// Removes the file or link at a place.
///
/// # Errors
/// Where it can't be removed.
pub fn remove(place: &Place) -> Result<(), ActionError> {
    remove_if_there(place)
        .and_then(|()| place.sync_directory())
        .map_err(|e| unwritable(place.path(), e))
}

/// Removes the unfinished file that an interrupted [`point`], [`replace`] or [`save`]
/// left next to it; where there is none, nothing is done.
///
/// # Errors
/// Where it can't be removed.
pub fn discard_unfinished(place: &Place) -> Result<(), ActionError> {
    let unfinished = place.aside("new");
    if is_free(&unfinished)? {
        return Ok(());
    }
    remove(&unfinished)
}

/// See [`Place::aside`].
pub fn aside(path: &Path, purpose: &str) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    path.with_file_name(format!(".{}.lockstep-{purpose}", name.unwrap_or_default()))
}

fn remove_if_there(place: &Place) -> io::Result<()> {
    match unlinkat(place.directory(), place.name(), AtFlags::empty()) {
        Ok(()) | Err(Errno::NOENT) => Ok(()),
        Err(e) => Err(e.into()),
    }
}

fn neither(path: &Path) -> ActionError {
    ActionError::new(
        Code::LS2120,
        format!("{} is neither a file nor a link", path.display()),
    )
    .state_left("nothing was changed")
    .remedy("correct the path in the plan")
}

fn not_preserved(path: &Path, what: &str, source: io::Error) -> ActionError {
    ActionError::new(
        Code::LS2125,
        format!("{what} of {} can't be preserved", path.display()),
    )
    .state_left("it is as it was")
    .remedy(
        "see that the agent may set it (its user, its capabilities, SELinux) and that the \
         filesystem supports it; or remove it from the file",
    )
    .source(source)
}

fn unreadable(path: &Path, source: io::Error) -> ActionError {
    ActionError::new(Code::LS2122, format!("{} can't be read", path.display()))
        .state_left("nothing was changed")
        .remedy("see that it exists and that the agent may read it")
        .source(source)
}

fn unwritable(path: &Path, source: io::Error) -> ActionError {
    ActionError::new(Code::LS2123, format!("{} can't be changed", path.display()))
        .state_left("it is as it was")
        .remedy("see that the agent may write its directory and that the disk has room")
        .source(source)
}

#[cfg(test)]
mod tests;
