//! What a file is besides its content: owner, mode and extended attributes, among
//! them its ACL (`system.posix_acl_access`), its SELinux label (`security.selinux`)
//! and what users attach (`user.*`; xattr(7)).
//!
//! Attributes in `trusted.*` are visible only with CAP_SYS_ADMIN, which the agent's
//! unit doesn't grant. A restored file has them nevertheless, because the original
//! file itself is put back.

use rustix::fs::{
    AtFlags, CWD, Gid, Uid, XattrFlags, chownat, lgetxattr, lgetxattr_query, llistxattr,
    llistxattr_query, lremovexattr, lsetxattr,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::Path;

/// Signatures over content and inode (the kernel's integrity subsystem, IMA and EVM):
/// on other content they would be wrong, so they are neither copied nor compared.
const BOUND_TO_CONTENT: [&CStr; 2] = [c"security.ima", c"security.evm"];

/// Attributes in this namespace are assigned by the system to every new file.
const ASSIGNED: &str = "security.";

/// An attribute that changes while it is read is read again this often.
const READS: u32 = 5;

/// Attributes of a file or link, as recorded in a before-image.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Attributes {
    /// Permission bits, with setuid, setgid and sticky.
    pub mode: u32,
    pub uid: u32,
    pub gid: u32,
    /// SHA-256 of each extended attribute, hex, by its name.
    pub extended: BTreeMap<String, String>,
}

impl Attributes {
    /// Reads the attributes of a file or of a link itself.
    ///
    /// # Errors
    /// Where they can't be read. A filesystem without extended attributes has none.
    pub fn of(path: &Path) -> io::Result<Self> {
        let metadata = fs::symlink_metadata(path)?;
        let extended = extended(path)?
            .into_iter()
            .map(|(name, value)| {
                let name = name.to_string_lossy().into_owned();
                (name, hex::encode(Sha256::digest(value)))
            })
            .collect();
        Ok(Self {
            mode: metadata.mode() & 0o7777,
            uid: metadata.uid(),
            gid: metadata.gid(),
            extended,
        })
    }

    /// The attributes that a new file gets that is made like this one: security labels
    /// are assigned by the system, according to its directory.
    #[must_use]
    pub fn of_a_new_file(mut self) -> Self {
        self.extended.retain(|name, _| !name.starts_with(ASSIGNED));
        self
    }

    /// In what a file differs from these recorded attributes. A security label that
    /// wasn't recorded is not compared.
    pub fn difference(&self, now: &Self) -> Option<String> {
        if (self.uid, self.gid) != (now.uid, now.gid) {
            return Some(format!(
                "its owner is {}:{} instead of {}:{}",
                now.uid, now.gid, self.uid, self.gid
            ));
        }
        // With an ACL, the group bits of the mode are the ACL's mask, so the ACL is
        // named first.
        let names = self.extended.keys().chain(now.extended.keys());
        for name in names {
            let (before, after) = (self.extended.get(name), now.extended.get(name));
            if before == after || (before.is_none() && name.starts_with(ASSIGNED)) {
                continue;
            }
            return Some(match after {
                Some(_) => format!("its attribute {name} is another one"),
                None => format!("it has lost its attribute {name}"),
            });
        }
        (self.mode != now.mode)
            .then(|| format!("its mode is {:04o} instead of {:04o}", now.mode, self.mode))
    }
}

/// Gives a file or link the owner, mode and extended attributes of another. With
/// `existing`, the other is the file that is replaced, whose security label is copied,
/// too; a new file keeps the label that the system has given it.
///
/// # Errors
/// The attribute that can't be set, and why.
pub fn copy(from: &Path, to: &Path, existing: bool) -> Result<(), (String, io::Error)> {
    let named = |what: &str| {
        let what = what.to_owned();
        move |e: io::Error| (what, e)
    };
    let metadata = fs::symlink_metadata(from).map_err(named("mode"))?;
    let (uid, gid) = (metadata.uid(), metadata.gid());
    let now = fs::symlink_metadata(to).map_err(named("mode"))?;
    if (now.uid(), now.gid()) != (uid, gid) {
        chownat(
            CWD,
            to,
            Some(Uid::from_raw(uid)),
            Some(Gid::from_raw(gid)),
            AtFlags::SYMLINK_NOFOLLOW,
        )
        .map_err(|e| named("owner")(e.into()))?;
    }
    let wanted: Vec<_> = extended(from)
        .map_err(named("extended attributes"))?
        .into_iter()
        .filter(|(name, _)| existing || !assigned(name))
        .collect();
    let inherited = extended(to).map_err(named("extended attributes"))?;
    for (name, _) in &inherited {
        // Such as the ACL that the directory gives to new files.
        if !assigned(name) && !wanted.iter().any(|(other, _)| other == name) {
            lremovexattr(to, name.as_c_str())
                .map_err(|e| named(&name.to_string_lossy())(e.into()))?;
        }
    }
    // After the owner, because a change of owner clears setuid; before the ACL, whose
    // mask a change of mode would alter.
    if !metadata.is_symlink() {
        let mode = fs::Permissions::from_mode(metadata.mode() & 0o7777);
        fs::set_permissions(to, mode).map_err(named("mode"))?;
    }
    for (name, value) in &wanted {
        if !inherited.contains(&(name.clone(), value.clone())) {
            lsetxattr(to, name.as_c_str(), value, XattrFlags::empty())
                .map_err(|e| named(&name.to_string_lossy())(e.into()))?;
        }
    }
    Ok(())
}

fn assigned(name: &CStr) -> bool {
    name.to_bytes().starts_with(ASSIGNED.as_bytes())
}

/// The extended attributes of a file, or of a link itself.
fn extended(path: &Path) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let names = match grown(|| llistxattr_query(path), |buffer| llistxattr(path, buffer)) {
        Ok(names) => names,
        Err(Errno::NOTSUP) => return Ok(Vec::new()),
        Err(e) => return Err(e.into()),
    };
    let mut all = Vec::new();
    for name in names
        .split(|byte| *byte == 0)
        .filter(|name| !name.is_empty())
    {
        let name = CString::new(name)?;
        if BOUND_TO_CONTENT.contains(&name.as_c_str()) {
            continue;
        }
        let name_of = || name.as_c_str();
        let value = grown(
            || lgetxattr_query(path, name_of()),
            |buffer| lgetxattr(path, name_of(), buffer),
        );
        match value {
            Ok(value) => all.push((name, value)),
            // Removed since the list was read.
            Err(Errno::NODATA) => {}
            Err(e) => return Err(e.into()),
        }
    }
    Ok(all)
}

/// Reads into a buffer of the size that the kernel states, again if it grew since.
fn grown(
    size: impl Fn() -> rustix::io::Result<usize>,
    read: impl Fn(&mut [u8]) -> rustix::io::Result<usize>,
) -> rustix::io::Result<Vec<u8>> {
    for _ in 0..READS {
        let mut buffer = vec![0; size()?];
        if buffer.is_empty() {
            return Ok(buffer);
        }
        match read(&mut buffer) {
            Ok(length) => {
                buffer.truncate(length);
                return Ok(buffer);
            }
            Err(Errno::RANGE) => {}
            Err(e) => return Err(e),
        }
    }
    Err(Errno::RANGE)
}
