//! Whether the agent will be able to replace a file, asked without changing anything.
//!
//! access(2) answers for the mount as well as for the mode: EROFS in a directory that
//! the sandbox of the agent's unit makes read-only. It doesn't know of the sticky bit,
//! of flags of the file itself, of mount points and of a full disk, so those are asked
//! one by one.

use super::place::Place;
use super::{FileState, Wanted, file, inspect, wanted};
use crate::error::ActionError;
use lockstep_api::Code;
use rustix::fs::{Access, AtFlags, CWD, StatxAttributes, StatxFlags, accessat, statvfs, statx};
use rustix::process::{getegid, geteuid, getgroups};
use rustix::thread::{CapabilitySet, capabilities};
use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Room beyond the content itself, in bytes: the directory may grow by a block.
const MARGIN: u64 = 64 * 1024;

/// Whether the name of a file can be removed or given to another file: what a rename
/// needs, for which the directory counts and not the file's own mode.
///
/// # Errors
/// LS2123 with the reason; LS2120, LS2122 where a name of [`Place::aside`] can't be used.
pub fn may_rename(path: &Place, purposes: &[&str]) -> Result<(), ActionError> {
    accessat(
        CWD,
        path.directory_path(),
        Access::WRITE_OK | Access::EXEC_OK,
        AtFlags::EACCESS,
    )
    .map_err(|e| {
        let shown = path.parent().display();
        let remedy = match e {
            rustix::io::Errno::ROFS => format!(
                "add {shown} to ReadWritePaths= of the agent's unit, in a drop-in, or mount the \
                 filesystem read-write"
            ),
            _ => format!("see that the agent may write the directory {shown}"),
        };
        refused(path, remedy).source(io::Error::from(e))
    })?;
    if let Some((what, remedy)) = flagged(path) {
        return Err(refused(path, remedy).source(io::Error::other(what)));
    }
    if let Some(what) = sticky(path) {
        let remedy = "run the agent as root, or as the owner of the file";
        return Err(refused(path, remedy).source(io::Error::other(what)));
    }
    for purpose in purposes {
        inspect(&path.aside(purpose))?;
    }
    Ok(())
}

/// Whether `path` can be replaced: by a copy of the file `with`, or, without one, by
/// another link.
///
/// # Errors
/// As [`may_rename`]; LS2125 where the owner can't be preserved.
pub fn may_replace(
    path: &Place,
    with: Option<&Place>,
    purposes: &[&str],
) -> Result<(), ActionError> {
    may_rename(path, purposes)?;
    let (wanted, bytes) = match with {
        Some(with) => {
            let source = file(with)?;
            let bytes = u64::try_from(source.stat().st_size).unwrap_or(0);
            (Some(wanted(path, &source)?), bytes)
        }
        None => {
            let link = path.node().ok().flatten();
            (link.and_then(|link| Wanted::of_existing(&link).ok()), 0)
        }
    };
    if wanted.is_some_and(|wanted| !may_give(&wanted)) {
        return Err(super::not_preserved(
            path.path(),
            "owner",
            io::Error::from(rustix::io::Errno::PERM),
        ));
    }
    match room(path, bytes) {
        None => Ok(()),
        Some(what) => {
            let remedy = "free space on this filesystem";
            Err(refused(path, remedy).source(io::Error::other(what)))
        }
    }
}

/// Whether this process may execute a file.
///
/// # Errors
/// Why it may not.
pub fn may_execute(path: &Path) -> io::Result<()> {
    if !fs::metadata(path)?.is_file() {
        return Err(io::Error::other("it is not a file"));
    }
    Ok(accessat(CWD, path, Access::EXEC_OK, AtFlags::EACCESS)?)
}

fn refused(path: &Place, remedy: impl Into<String>) -> ActionError {
    let what = format!("{} can't be changed", path.path().display());
    ActionError::new(Code::LS2123, what)
        .state_left("it is as it was")
        .remedy(remedy)
}

fn attributes(path: &Path) -> StatxAttributes {
    let flags = AtFlags::empty();
    statx(CWD, path, flags, StatxFlags::BASIC_STATS)
        .map_or(StatxAttributes::empty(), |found| found.stx_attributes)
}

/// A flag that forbids the rename even to root (chattr(1)), or a mount.
fn flagged(path: &Place) -> Option<(String, String)> {
    let node = path.node().ok().flatten();
    let file = node.map_or(StatxAttributes::empty(), |node| attributes(&node.path()));
    let places = [
        (path.path(), file),
        (path.parent(), attributes(&path.directory_path())),
    ];
    for (place, flags) in places {
        let shown = place.display();
        let flag = if flags.contains(StatxAttributes::IMMUTABLE) {
            ("immutable", "i")
        } else if flags.contains(StatxAttributes::APPEND) {
            ("append-only", "a")
        } else {
            continue;
        };
        return Some((
            format!("{shown} is {}", flag.0),
            format!("remove the flag with `chattr -{} {shown}`", flag.1),
        ));
    }
    // A file that is itself a mount, as containers have them: rename(2) gives EBUSY.
    file.contains(StatxAttributes::MOUNT_ROOT).then(|| {
        (
            format!("{} is a mount point", path.path().display()),
            "switch the file that is mounted there, by its own path".to_owned(),
        )
    })
}

/// In a directory with the sticky bit, only the owner of the file or of the directory
/// may remove or rename a file (inode(7)).
fn sticky(path: &Place) -> Option<String> {
    const STICKY: u32 = 0o1000;
    let file = path.node().ok().flatten()?;
    let directory = fs::metadata(path.directory_path()).ok()?;
    let me = geteuid().as_raw();
    let owner = file.stat().st_uid;
    let mine = [owner, directory.uid()].contains(&me);
    (directory.mode() & STICKY != 0 && !mine && !has(CapabilitySet::FOWNER))
        .then(|| format!("its directory is sticky, and the file belongs to user {owner}"))
}

fn has(capability: CapabilitySet) -> bool {
    capabilities(None).is_ok_and(|sets| sets.effective.contains(capability))
}

/// Whether this process may make a file with this owner and group.
fn may_give(wanted: &Wanted) -> bool {
    let groups = getgroups().unwrap_or_default();
    let mut groups = groups.into_iter().chain([getegid()]);
    has(CapabilitySet::CHOWN)
        || (wanted.uid == geteuid().as_raw() && groups.any(|group| group.as_raw() == wanted.gid))
}

/// Why a file of so many bytes has no room; `None` if it has, or where the filesystem
/// doesn't state it.
fn room(path: &Place, bytes: u64) -> Option<String> {
    let space = statvfs(path.directory_path()).ok()?;
    let (free, wanted) = (
        space.f_bavail.saturating_mul(space.f_frsize),
        bytes + MARGIN,
    );
    if free < wanted {
        return Some(format!("{free} bytes are free, {wanted} are needed"));
    }
    // Some filesystems, such as Btrfs, don't count inodes: the total is 0.
    (space.f_files > 0 && space.f_favail < 1).then(|| "no inode is free".to_owned())
}

/// Whether nothing is at a place.
///
/// # Errors
/// As [`inspect`].
pub fn is_free(path: &Place) -> Result<bool, ActionError> {
    Ok(inspect(path)? == FileState::Absent)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::ffi::OsStrExt;

    #[test]
    fn what_a_rename_would_meet_is_an_error_beforehand() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.toml");
        fs::write(&path, "oracle").unwrap();
        let place = Place::of_test(&path);
        may_replace(&place, Some(&place), &["new"]).unwrap();
        let huge = Place::of_test(&dir.path().join("huge"));
        let sparse = fs::File::create(huge.path()).unwrap();
        if sparse.set_len(u64::MAX / 4).is_ok() || sparse.set_len(1 << 43).is_ok() {
            let full = may_replace(&place, Some(&huge), &["new"]).unwrap_err();
            let report = full.report();
            assert!(report.contains("bytes are free"), "{report}");
        }
        let mounted = read_only(dir.path(), || may_rename(&Place::of_test(&path), &["new"]));
        if let Some(mounted) = mounted {
            let error = mounted.unwrap_err();
            assert_eq!(error.code(), Code::LS2123);
            let report = error.report();
            assert!(report.contains("ReadWritePaths"), "{report}");
        }
        fs::create_dir(place.aside("new").path()).unwrap();
        let taken = may_rename(&place, &["new"]).unwrap_err();
        assert_eq!(taken.code(), Code::LS2120, "{}", taken.report());
        let long = dir.path().join("x".repeat(250));
        fs::write(&long, "oracle").unwrap();
        let long = may_rename(&Place::of_test(&long), &["new"]).unwrap_err();
        assert_eq!(long.code(), Code::LS2122, "{}", long.report());
    }

    /// Runs the work while the directory is mounted read-only, as the sandbox of a unit
    /// has it, in a mount namespace of one thread. `None`, and says so, without root.
    fn read_only<T: Send>(directory: &Path, work: impl FnOnce() -> T + Send) -> Option<T> {
        let directory = std::ffi::CString::new(directory.as_os_str().as_bytes()).unwrap();
        let mount = |path: &std::ffi::CStr, flags: libc::c_ulong| {
            // SAFETY: the pointers are valid for the call, and this thread has a mount
            // namespace of its own.
            let done = unsafe {
                let none = std::ptr::null();
                libc::mount(path.as_ptr(), path.as_ptr(), none, flags, none.cast())
            };
            (done == 0).then_some(())
        };
        let isolated = move || {
            // SAFETY: affects this thread only, which ends with the closure.
            let unshared = unsafe { libc::unshare(libc::CLONE_NEWNS) } == 0;
            let (bind, again) = (libc::MS_BIND, libc::MS_REMOUNT | libc::MS_RDONLY);
            unshared.then_some(())?;
            mount(c"/", libc::MS_REC | libc::MS_PRIVATE)?;
            mount(&directory, bind)?;
            mount(&directory, bind | again)?;
            Some(work())
        };
        let outcome = std::thread::scope(|scope| scope.spawn(isolated).join().unwrap());
        if outcome.is_none() {
            eprintln!("SKIPPED: a directory can't be mounted read-only here");
        }
        outcome
    }

    #[test]
    fn an_immutable_file_can_not_be_renamed() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("db.toml");
        fs::write(&path, "oracle").unwrap();
        let file = fs::File::open(&path).unwrap();
        let (set, clear) = (rustix::fs::IFlags::IMMUTABLE, rustix::fs::IFlags::empty());
        if let Err(e) = rustix::fs::ioctl_setflags(&file, set) {
            eprintln!("SKIPPED: the immutable flag can't be set: {e}");
            return;
        }
        let refused = may_rename(&Place::of_test(&path), &[]);
        rustix::fs::ioctl_setflags(&file, clear).unwrap();
        let report = refused.unwrap_err().report();
        assert!(report.contains("chattr -i"), "{report}");
    }
}
