//! Files by an open directory and a name in it.
//!
//! A path is resolved once, component by component, to a descriptor of its directory,
//! and everything else is done relative to that descriptor: whoever may rename a
//! component of the path afterwards doesn't change which file is meant. A symbolic
//! link on the way is followed only if nobody but root or the agent's own user can
//! have put it there; the file itself is never reached through a link.
//!
//! `/proc/self/fd/N` names what a descriptor refers to, for calls that take paths
//! only (open(2) on O_PATH descriptors, the extended attributes; proc(5)).

use rustix::fs::{AtFlags, FileType, Mode, OFlags, Stat, fstat, openat, readlinkat};
use rustix::io::Errno;
use rustix::process::geteuid;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Component, Path, PathBuf};
use std::sync::Arc;

/// Links followed in one path; the kernel's own limit (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// Modes by which others than the owner may add and remove names.
const OTHERS_WRITE: u32 = 0o022;
const STICKY: u32 = 0o1000;

/// A directory that is held open.
#[derive(Debug)]
pub struct Directory {
    fd: OwnedFd,
    /// Its path, in which no link is left.
    real: PathBuf,
}

impl Directory {
    /// Opens the directory at an absolute path.
    ///
    /// # Errors
    /// Where it isn't there or is no directory, or by a link that others could have
    /// put in place.
    pub fn open(path: &Path) -> io::Result<Self> {
        let mut fd = root()?;
        let mut rest: Vec<OsString> = Vec::new();
        queue(path, &mut rest);
        let mut links = 0;
        let mut walked = PathBuf::from("/");
        while let Some(name) = rest.pop() {
            let node = openat(
                &fd,
                &name,
                OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC,
                Mode::empty(),
            )?;
            let stat = fstat(&node)?;
            match FileType::from_raw_mode(stat.st_mode) {
                FileType::Directory => {
                    walked.push(&name);
                    fd = node;
                }
                FileType::Symlink => {
                    let link = walked.join(&name);
                    if !may_be_followed(&fstat(&fd)?, &stat) {
                        return Err(foreign_link(&link));
                    }
                    links += 1;
                    if links > MAX_LINKS {
                        return Err(Errno::LOOP.into());
                    }
                    let target = readlinkat(&node, "", Vec::new())?;
                    let target = PathBuf::from(OsString::from_vec(target.into_bytes()));
                    if target.is_absolute() {
                        fd = root()?;
                        walked = PathBuf::from("/");
                    }
                    queue(&target, &mut rest);
                }
                _ => return Err(Errno::NOTDIR.into()),
            }
        }
        let real = std::fs::read_link(proc_path(fd.as_fd()))?;
        Ok(Self { fd, real })
    }

    /// Its path without links.
    pub fn real(&self) -> &Path {
        &self.real
    }
}

fn root() -> io::Result<OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(openat(rustix::fs::CWD, "/", flags, Mode::empty())?)
}

/// Puts the components of a path in front of those that are left, the next one last.
fn queue(path: &Path, rest: &mut Vec<OsString>) {
    for component in path.components().rev() {
        match component {
            Component::Normal(name) => rest.push(name.to_owned()),
            Component::ParentDir => rest.push(OsString::from("..")),
            Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
        }
    }
}

/// Whether only root or the agent's own user can have put this link into this
/// directory.
fn may_be_followed(directory: &Stat, link: &Stat) -> bool {
    let mine = |stat: &Stat| stat.st_uid == 0 || stat.st_uid == geteuid().as_raw();
    let closed = directory.st_mode & OTHERS_WRITE == 0 || directory.st_mode & STICKY != 0;
    mine(directory) && mine(link) && closed
}

fn foreign_link(link: &Path) -> io::Error {
    io::Error::other(format!(
        "{} is a link in a directory that others than root can change, which is not followed",
        link.display()
    ))
}

fn proc_path(fd: BorrowedFd<'_>) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", fd.as_raw_fd()))
}

/// A name in an open directory. There may be nothing of that name.
#[derive(Debug, Clone)]
pub struct Place {
    directory: Arc<Directory>,
    name: OsString,
    /// The path as the plan names it.
    shown: PathBuf,
}

impl Place {
    /// The place of a name in a directory; `shown` is its path as the plan has it.
    /// `None` where the path has no file name.
    pub fn new(directory: Directory, shown: &Path) -> Option<Self> {
        Some(Self {
            directory: Arc::new(directory),
            name: shown.file_name()?.to_owned(),
            shown: shown.to_owned(),
        })
    }

    /// The place of an absolute path whose directory exists.
    #[cfg(test)]
    pub fn of_test(path: &Path) -> Self {
        let parent = path.parent().unwrap();
        Self::new(Directory::open(parent).unwrap(), path).unwrap()
    }

    /// The path as the plan names it, for messages.
    pub fn path(&self) -> &Path {
        &self.shown
    }

    /// The path without links in its directories.
    pub fn real(&self) -> PathBuf {
        self.directory.real.join(&self.name)
    }

    /// The path of the directory, for messages.
    pub fn parent(&self) -> &Path {
        self.shown.parent().unwrap_or(Path::new("/"))
    }

    /// The name under which a file is saved in the same directory: hidden, so that
    /// neither cron nor a wildcard include reads it.
    #[must_use]
    pub fn aside(&self, purpose: &str) -> Self {
        let shown = super::aside(&self.shown, purpose);
        Self {
            directory: self.directory.clone(),
            name: shown.file_name().map(OsStr::to_owned).unwrap_or_default(),
            shown,
        }
    }

    pub(super) fn name(&self) -> &OsStr {
        &self.name
    }

    pub(super) fn directory(&self) -> BorrowedFd<'_> {
        self.directory.fd.as_fd()
    }

    /// What calls by path reach the directory with.
    pub(super) fn directory_path(&self) -> PathBuf {
        proc_path(self.directory())
    }

    /// What is at this place; `None` if nothing is.
    pub(super) fn node(&self) -> io::Result<Option<Node>> {
        let flags = OFlags::PATH | OFlags::NOFOLLOW | OFlags::CLOEXEC;
        match openat(self.directory(), &self.name, flags, Mode::empty()) {
            Ok(fd) => Ok(Some(Node {
                stat: fstat(&fd)?,
                fd,
            })),
            Err(Errno::NOENT) => Ok(None),
            Err(e) => Err(e.into()),
        }
    }

    /// What must be at this place.
    pub(super) fn existing(&self) -> io::Result<Node> {
        self.node()?.ok_or_else(|| Errno::NOENT.into())
    }

    /// Makes a change of the directory durable.
    pub(super) fn sync_directory(&self) -> io::Result<()> {
        let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
        let directory = openat(self.directory(), ".", flags, Mode::empty())?;
        Ok(rustix::fs::fsync(directory)?)
    }
}

/// A file, link or anything else, whatever becomes of its name.
#[derive(Debug)]
pub(super) struct Node {
    fd: OwnedFd,
    stat: Stat,
}

impl Node {
    /// A file that was just created through this descriptor.
    pub(super) fn of(fd: OwnedFd) -> io::Result<Self> {
        Ok(Self {
            stat: fstat(&fd)?,
            fd,
        })
    }

    /// As it was when it was opened.
    pub(super) fn stat(&self) -> &Stat {
        &self.stat
    }

    /// As it is now.
    pub(super) fn stat_now(&self) -> io::Result<Stat> {
        Ok(fstat(&self.fd)?)
    }

    pub(super) fn is_link(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::Symlink
    }

    pub(super) fn is_file(&self) -> bool {
        FileType::from_raw_mode(self.stat.st_mode) == FileType::RegularFile
    }

    /// Everybody may read it.
    pub(super) fn is_public(&self) -> bool {
        self.stat.st_mode & 0o004 != 0
    }

    /// The target as stored in the link.
    pub(super) fn target(&self) -> io::Result<PathBuf> {
        let target = readlinkat(&self.fd, "", Vec::new())?;
        Ok(PathBuf::from(OsStr::from_bytes(target.to_bytes())))
    }

    /// Opens a file for reading. Nothing else is opened: a pipe would block, a device
    /// might never end.
    pub(super) fn open(&self) -> io::Result<File> {
        if !self.is_file() {
            return Err(io::Error::other("it is not a file"));
        }
        File::open(self.path())
    }

    /// A path to this very node, which is followed like a link that can't be changed.
    pub(super) fn path(&self) -> PathBuf {
        proc_path(self.fd.as_fd())
    }

    pub(super) fn give(&self, uid: u32, gid: u32) -> io::Result<()> {
        let (uid, gid) = (
            Some(rustix::fs::Uid::from_raw(uid)),
            Some(rustix::fs::Gid::from_raw(gid)),
        );
        Ok(rustix::fs::chownat(
            &self.fd,
            "",
            uid,
            gid,
            AtFlags::EMPTY_PATH,
        )?)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    fn refused(path: &Path) -> String {
        Directory::open(path).unwrap_err().to_string()
    }

    #[test]
    fn a_link_is_followed_only_where_nobody_else_can_have_put_it() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("v2/etc")).unwrap();
        symlink("v2", at("current")).unwrap();
        symlink(at("current"), at("absolute")).unwrap();
        for path in ["current/etc", "absolute/etc", "v2/../current/etc"] {
            let found = Directory::open(&at(path)).unwrap();
            assert_eq!(found.real(), at("v2/etc").canonicalize().unwrap(), "{path}");
        }
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o775)).unwrap();
        let why = refused(&at("current/etc"));
        assert!(why.contains("current is a link"), "{why}");
        Directory::open(&at("v2/etc")).unwrap();
    }

    #[test]
    fn a_link_of_another_user_is_not_followed() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        fs::create_dir_all(at("app/etc")).unwrap();
        symlink("/etc", at("app/link")).unwrap();
        if std::os::unix::fs::chown(at("app"), Some(12345), None).is_err() {
            eprintln!("SKIPPED: only root can give a directory away");
            return;
        }
        let why = refused(&at("app/link"));
        assert!(why.contains("app/link is a link"), "{why}");
        Directory::open(&at("app/etc")).unwrap();
    }

    #[test]
    fn links_in_a_circle_and_files_are_no_directories() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        symlink("b", at("a")).unwrap();
        symlink("a", at("b")).unwrap();
        fs::write(at("file"), "").unwrap();
        refused(&at("a"));
        refused(&at("file"));
        refused(&at("none"));
    }
}
