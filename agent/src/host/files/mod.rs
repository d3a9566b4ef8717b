//! Files and links: read whole, replaced atomically.
//!
//! Contents never leave the host: captured states hold digests, and the
//! previous file is saved in the same directory under a name of its own: the file
//! itself where the filesystem has hard links, so that what is put back has its
//! times, its labels and its other names, too.

mod access;
mod attributes;

pub use access::{is_free, may_execute, may_rename, may_replace};
pub use attributes::Attributes;

use crate::error::ActionError;
use lockstep_api::Code;
use rustix::fs::{AtFlags, CWD, Timespec, Timestamps, UTIME_NOW, utimensat};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, symlink};
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
        /// SHA-256 of its content, hex.
        digest: String,
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

    /// For the record of changes: the digest of a file, the target of a link.
    pub fn shown(&self) -> String {
        match self {
            Self::Absent => "nothing".to_owned(),
            Self::Link { target, .. } => format!("a link to {}", target.display()),
            Self::File { digest, .. } => format!("SHA-256 {digest}"),
        }
    }
}

/// Reads what is at this path.
///
/// # Errors
/// Where it can't be read, or is neither file nor link.
pub fn inspect(path: &Path) -> Result<FileState, ActionError> {
    let metadata = match fs::symlink_metadata(path) {
        Ok(metadata) => metadata,
        Err(e) if e.kind() == io::ErrorKind::NotFound => return Ok(FileState::Absent),
        Err(e) => return Err(unreadable(path, e)),
    };
    if metadata.is_symlink() {
        let target = fs::read_link(path).map_err(|e| unreadable(path, e))?;
        let attributes = Some(attributes_of(path)?);
        return Ok(FileState::Link { target, attributes });
    }
    if metadata.is_file() {
        return Ok(FileState::File {
            digest: digest(path)?,
            attributes: Some(attributes_of(path)?),
        });
    }
    Err(neither(path))
}

/// Attributes of a file, or of a link itself.
///
/// # Errors
/// Where they can't be read.
pub fn attributes_of(path: &Path) -> Result<Attributes, ActionError> {
    Attributes::of(path).map_err(|e| unreadable(path, e))
}

/// SHA-256 of a file's content, links followed.
///
/// # Errors
/// Where it can't be read, or is no file: a pipe would block the read, a device might
/// never end.
pub fn digest(path: &Path) -> Result<String, ActionError> {
    let metadata = fs::metadata(path).map_err(|e| unreadable(path, e))?;
    if !metadata.is_file() {
        return Err(neither(path));
    }
    let content = fs::read(path).map_err(|e| unreadable(path, e))?;
    Ok(hex::encode(Sha256::digest(content)))
}

/// The number of names that a file has (hard links).
pub fn names(path: &Path) -> u64 {
    fs::symlink_metadata(path).map_or(0, |metadata| metadata.nlink())
}

/// Replaces a link's target, atomically, and retains the owner and the extended
/// attributes of the link.
///
/// # Errors
/// Where the directory can't be written, or an attribute can't be preserved.
pub fn point(path: &Path, target: &Path) -> Result<(), ActionError> {
    let new = aside(path, "new");
    remove_if_there(&new)
        .and_then(|()| symlink(target, &new))
        .map_err(|e| unwritable(path, e))?;
    preserve(path, path, &new, true)?;
    put(&new, path)
}

/// Replaces a file with a copy of another, atomically. The copy has the owner, the
/// mode and the extended attributes, such as the ACL, of the replaced file; where
/// there was none, those of the other file, except for the security label, which the
/// system assigns.
///
/// # Errors
/// Where it can't be read or written, or an attribute can't be preserved.
pub fn replace(path: &Path, with: &Path) -> Result<(), ActionError> {
    let new = aside(path, "new");
    write_copy(&new, with).map_err(|e| unwritable(path, e))?;
    let existing = fs::symlink_metadata(path).is_ok();
    preserve(path, if existing { path } else { with }, &new, existing)?;
    put(&new, path)
}

/// Saves a file under another name of the same directory: the file itself gets that
/// name as well. Where the filesystem has no hard links, or the kernel refuses one
/// (`fs.protected_hardlinks`, proc(5)), the saved file is a copy with all attributes.
///
/// # Errors
/// Where it can't be saved.
pub fn save(path: &Path, saved: &Path) -> Result<(), ActionError> {
    let new = aside(saved, "new");
    remove_if_there(&new).map_err(|e| unwritable(saved, e))?;
    if fs::hard_link(path, &new).is_err() {
        write_copy(&new, path).map_err(|e| unwritable(saved, e))?;
        preserve(saved, path, &new, true)?;
    }
    put(&new, saved)?;
    // Between two names of one file, rename(2) does nothing and both remain.
    remove_if_there(&new).map_err(|e| unwritable(saved, e))
}

/// Puts a saved file back in place, atomically: it is no longer saved then.
///
/// # Errors
/// Where it can't be moved.
pub fn put_back(saved: &Path, path: &Path) -> Result<(), ActionError> {
    put(saved, path)
}

fn put(new: &Path, path: &Path) -> Result<(), ActionError> {
    fs::rename(new, path)
        .and_then(|()| sync_directory(path))
        .map_err(|e| unwritable(path, e))
}

/// Writes a copy that nobody else can read yet.
fn write_copy(new: &Path, with: &Path) -> io::Result<()> {
    remove_if_there(new)?;
    let content = fs::read(with)?;
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(new)?;
    file.write_all(&content)?;
    file.sync_all()
}

/// Gives the new file the attributes of another, with `existing` also its security
/// label, and verifies them: a filesystem may accept an attribute and not store it.
/// After an error the new file is removed.
fn preserve(path: &Path, like: &Path, new: &Path, existing: bool) -> Result<(), ActionError> {
    let copied = || -> Result<(), ActionError> {
        attributes::copy(like, new, existing).map_err(|(what, e)| not_preserved(path, &what, e))?;
        let mut wanted = attributes_of(like)?;
        if !existing {
            wanted = wanted.of_a_new_file();
        }
        match wanted.difference(&attributes_of(new)?) {
            None => Ok(()),
            Some(difference) => Err(not_preserved(
                path,
                "attributes",
                io::Error::other(format!("of the new file, {difference}")),
            )),
        }
    };
    let sync = || fs::File::open(new).and_then(|file| file.sync_all());
    let is_link = fs::symlink_metadata(new).is_ok_and(|metadata| metadata.is_symlink());
    let outcome = copied().and_then(|()| {
        if is_link {
            return Ok(());
        }
        sync().map_err(|e| unwritable(path, e))
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
pub fn rename(from: &Path, to: &Path) -> Result<(), ActionError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(taken(to));
    }
    let swap = || -> io::Result<()> {
        fs::rename(from, to)?;
        sync_directory(to)
    };
    swap().map_err(|e| unwritable(from, e))
}

/// LS2121: a file is at the name that another was to get.
pub fn taken(path: &Path) -> ActionError {
    ActionError::new(Code::LS2121, format!("{} is there already", path.display()))
        .state_left("nothing was changed")
        .remedy("compare both files, move one away, then retry")
}

/// The modification time of a directory in whole seconds since the epoch.
///
/// # Errors
/// Where it can't be read.
pub fn modified_secs(directory: &Path) -> Result<i64, ActionError> {
    fs::metadata(directory)
        .map(|metadata| metadata.mtime())
        .map_err(|e| unreadable(directory, e))
}

/// Sets the modification time of a directory to the present and returns it as
/// [`modified_secs`] does.
///
/// # Errors
/// Where it can't be set.
pub fn touch(directory: &Path) -> Result<i64, ActionError> {
    let now = Timespec {
        tv_sec: 0,
        tv_nsec: UTIME_NOW,
    };
    let times = Timestamps {
        last_access: now,
        last_modification: now,
    };
    utimensat(CWD, directory, &times, AtFlags::empty())
        .map_err(|e| unwritable(directory, e.into()))?;
    modified_secs(directory)
}

/// Removes the file or link at a path.
///
/// # Errors
/// Where it can't be removed.
pub fn remove(path: &Path) -> Result<(), ActionError> {
    remove_if_there(path)
        .and_then(|()| sync_directory(path))
        .map_err(|e| unwritable(path, e))
}

/// Removes the unfinished file that an interrupted [`point`], [`replace`] or [`save`]
/// left next to it; where there is none, nothing is done.
///
/// # Errors
/// Where it can't be removed.
pub fn discard_unfinished(path: &Path) -> Result<(), ActionError> {
    let unfinished = aside(path, "new");
    if is_free(&unfinished)? {
        return Ok(());
    }
    remove(&unfinished)
}

/// The name under which a file is saved in the directory of `path`: hidden,
/// so that neither cron nor a wildcard include reads it.
pub fn aside(path: &Path, purpose: &str) -> PathBuf {
    let name = path
        .file_name()
        .map(|name| name.to_string_lossy().into_owned());
    path.with_file_name(format!(".{}.lockstep-{purpose}", name.unwrap_or_default()))
}

fn remove_if_there(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(e),
        _ => Ok(()),
    }
}

/// Makes a rename durable, which is a change of the directory.
fn sync_directory(path: &Path) -> io::Result<()> {
    match path.parent() {
        Some(directory) => fs::File::open(directory)?.sync_all(),
        None => Ok(()),
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
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    #[test]
    fn a_file_is_replaced_with_its_mode_kept() {
        let dir = tempfile::tempdir().unwrap();
        let (path, with) = (dir.path().join("db.toml"), dir.path().join("postgres.toml"));
        fs::write(&path, "oracle").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        fs::write(&with, "postgres").unwrap();
        replace(&path, &with).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "postgres");
        assert_eq!(fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
    }

    /// Sets an extended attribute; `false`, and says so, where the filesystem of the
    /// test has none.
    fn set(path: &Path, name: &str, value: &[u8]) -> bool {
        match rustix::fs::lsetxattr(path, name, value, rustix::fs::XattrFlags::empty()) {
            Ok(()) => true,
            Err(e) => {
                eprintln!("SKIPPED: {name} can't be set on {}: {e}", path.display());
                false
            }
        }
    }

    fn get(path: &Path, name: &str) -> Option<Vec<u8>> {
        let mut value = vec![0; 256];
        let length = rustix::fs::lgetxattr(path, name, value.as_mut_slice()).ok()?;
        value.truncate(length);
        Some(value)
    }

    /// An ACL in the kernel's format (`linux/posix_acl_xattr.h`): version 2, then tag,
    /// permissions and id of each entry. User 12345 may read.
    fn acl() -> Vec<u8> {
        const NOBODY: u32 = u32::MAX;
        let entries: [(u16, u16, u32); 5] = [
            (0x01, 6, NOBODY),
            (0x02, 4, 12345),
            (0x04, 0, NOBODY),
            (0x10, 4, NOBODY),
            (0x20, 0, NOBODY),
        ];
        let mut acl = 2_u32.to_le_bytes().to_vec();
        for (tag, permissions, id) in entries {
            acl.extend(tag.to_le_bytes());
            acl.extend(permissions.to_le_bytes());
            acl.extend(id.to_le_bytes());
        }
        acl
    }

    const ACL: &str = "system.posix_acl_access";

    #[test]
    fn a_replaced_file_retains_acl_and_attributes_and_gets_none_of_its_directory() {
        let dir = tempfile::tempdir().unwrap();
        let (path, with) = (dir.path().join("db.toml"), dir.path().join("postgres.toml"));
        let plain = dir.path().join("plain.toml");
        for file in [&path, &with, &plain] {
            fs::write(file, "oracle").unwrap();
        }
        fs::set_permissions(&plain, fs::Permissions::from_mode(0o640)).unwrap();
        fs::write(&with, "postgres").unwrap();
        if !set(&path, "user.origin", b"ansible") || !set(&path, ACL, &acl()) {
            return;
        }
        assert!(set(&with, "user.other", b"x"));
        assert!(set(dir.path(), "system.posix_acl_default", &acl()));
        let before = attributes_of(&path).unwrap();
        replace(&path, &with).unwrap();
        assert_eq!(fs::read_to_string(&path).unwrap(), "postgres");
        assert_eq!(get(&path, ACL), Some(acl()));
        assert_eq!(get(&path, "user.origin").as_deref(), Some(&b"ansible"[..]));
        assert_eq!(attributes_of(&path).unwrap(), before);

        let before = attributes_of(&plain).unwrap();
        replace(&plain, &with).unwrap();
        assert_eq!(get(&plain, ACL), None, "inherited from the directory");
        assert_eq!(attributes_of(&plain).unwrap(), before);
    }

    #[test]
    fn a_lost_or_changed_attribute_is_a_difference() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.toml");
        fs::write(&path, "oracle").unwrap();
        if !set(&path, "user.origin", b"ansible") || !set(&path, ACL, &acl()) {
            return;
        }
        let before = inspect(&path).unwrap();
        assert_eq!(before.difference(&inspect(&path).unwrap()), None);
        assert!(set(&path, "user.origin", b"by hand"));
        let difference = before.difference(&inspect(&path).unwrap()).unwrap();
        assert!(difference.contains("user.origin"), "{difference}");
        assert!(set(&path, "user.origin", b"ansible"));
        rustix::fs::lremovexattr(&path, ACL).unwrap();
        let difference = before.difference(&inspect(&path).unwrap()).unwrap();
        assert!(difference.contains("lost"), "{difference}");
        fs::set_permissions(&path, fs::Permissions::from_mode(0o666)).unwrap();
        let old: FileState = serde_json::from_str(&format!(
            r#"{{"is":"file","digest":"{}"}}"#,
            digest(&path).unwrap()
        ))
        .unwrap();
        assert_eq!(
            old.difference(&inspect(&path).unwrap()),
            None,
            "a record without attributes compares contents"
        );
    }

    /// Also where an earlier attempt ended between the two steps.
    #[test]
    fn a_saved_file_comes_back_as_the_file_that_it_was() {
        let dir = tempfile::tempdir().unwrap();
        let (path, with) = (dir.path().join("db.toml"), dir.path().join("postgres.toml"));
        let (saved, other) = (dir.path().join("saved"), dir.path().join("other-name"));
        fs::write(&path, "oracle").unwrap();
        fs::hard_link(&path, &other).unwrap();
        fs::write(&with, "postgres").unwrap();
        let before = fs::metadata(&path).unwrap();
        save(&path, &saved).unwrap();
        save(&path, &saved).unwrap();
        replace(&path, &with).unwrap();
        assert_eq!(fs::read_to_string(&other).unwrap(), "oracle");
        put_back(&saved, &path).unwrap();
        let after = fs::metadata(&path).unwrap();
        assert_eq!(after.ino(), before.ino());
        assert_eq!(after.modified().unwrap(), before.modified().unwrap());
        assert_eq!(after.nlink(), 2);
        let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
        assert_eq!(left.len(), 3, "{left:?}");
    }

    #[test]
    fn a_link_is_pointed_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.toml");
        symlink("oracle.toml", &path).unwrap();
        point(&path, Path::new("postgres.toml")).unwrap();
        let now = inspect(&path).unwrap();
        assert_eq!(now.shown(), "a link to postgres.toml");
    }

    #[test]
    fn a_rename_overwrites_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let (from, to) = (dir.path().join("a"), dir.path().join("b"));
        fs::write(&from, "1").unwrap();
        fs::write(&to, "2").unwrap();
        assert_eq!(rename(&from, &to).unwrap_err().code(), Code::LS2121);
        assert_eq!(fs::read_to_string(&to).unwrap(), "2");
    }
}
