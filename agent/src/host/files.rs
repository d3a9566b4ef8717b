//! Files and links: read whole, replaced atomically.
//!
//! Contents never leave the host: captured states hold digests, and the
//! previous file is saved in the same directory under a name of its own.

use crate::error::ActionError;
use lockstep_api::Code;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::fs;
use std::io::{self, Write};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

/// What is at a path.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase", tag = "is")]
pub enum FileState {
    Absent,
    Link {
        /// As stored in the link, not resolved.
        target: PathBuf,
    },
    File {
        /// SHA-256 of its content, hex.
        digest: String,
    },
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
        return Ok(FileState::Link { target });
    }
    if metadata.is_file() {
        return Ok(FileState::File {
            digest: digest(path)?,
        });
    }
    Err(ActionError::new(
        Code::LS2120,
        format!("{} is neither a file nor a link", path.display()),
    )
    .state_left("nothing was changed")
    .remedy("correct the path in the plan"))
}

/// SHA-256 of a file's content, links followed.
///
/// # Errors
/// Where it can't be read.
pub fn digest(path: &Path) -> Result<String, ActionError> {
    let content = fs::read(path).map_err(|e| unreadable(path, e))?;
    Ok(hex::encode(Sha256::digest(content)))
}

/// Replaces a link's target, atomically.
///
/// # Errors
/// Where the directory can't be written.
pub fn point(path: &Path, target: &Path) -> Result<(), ActionError> {
    let aside = aside(path, "new");
    let swap = || -> io::Result<()> {
        remove_if_there(&aside)?;
        symlink(target, &aside)?;
        fs::rename(&aside, path)?;
        sync_directory(path)
    };
    swap().map_err(|e| unwritable(path, e))
}

/// Replaces a file with a copy of another, atomically, and retains the mode
/// and owner of the replaced file.
///
/// # Errors
/// Where it can't be read or written.
pub fn replace(path: &Path, with: &Path) -> Result<(), ActionError> {
    let aside = aside(path, "new");
    let swap = || -> io::Result<()> {
        remove_if_there(&aside)?;
        let content = fs::read(with)?;
        let like = fs::metadata(path).or_else(|_| fs::metadata(with))?;
        let mut file = fs::File::create_new(&aside)?;
        file.set_permissions(fs::Permissions::from_mode(like.mode()))?;
        chown(&aside, Some(like.uid()), Some(like.gid()))?;
        file.write_all(&content)?;
        file.sync_all()?;
        fs::rename(&aside, path)?;
        sync_directory(path)
    };
    swap().map_err(|e| unwritable(path, e))
}

/// Moves a file to another name in the same directory; never overwrites an
/// existing file.
///
/// # Errors
/// Where it can't be moved, or the new name exists.
pub fn rename(from: &Path, to: &Path) -> Result<(), ActionError> {
    if fs::symlink_metadata(to).is_ok() {
        return Err(
            ActionError::new(Code::LS2121, format!("{} is there already", to.display()))
                .state_left("nothing was changed")
                .remedy("compare both files, move one away, then retry"),
        );
    }
    let swap = || -> io::Result<()> {
        fs::rename(from, to)?;
        sync_directory(to)
    };
    swap().map_err(|e| unwritable(from, e))
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

/// Removes the replacement of a file that an interrupted [`point`] or [`replace`]
/// left beside it; where there is none, nothing is done.
///
/// # Errors
/// Where it can't be removed.
pub fn discard_unfinished(path: &Path) -> Result<(), ActionError> {
    let unfinished = aside(path, "new");
    if inspect(&unfinished)? == FileState::Absent {
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

    #[test]
    fn a_link_is_pointed_elsewhere() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.toml");
        symlink("oracle.toml", &path).unwrap();
        point(&path, Path::new("postgres.toml")).unwrap();
        assert_eq!(
            inspect(&path).unwrap(),
            FileState::Link {
                target: "postgres.toml".into()
            }
        );
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
