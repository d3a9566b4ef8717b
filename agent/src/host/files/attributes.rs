//! What a file is besides its content: owner, mode and extended attributes, among
//! them its ACL (`system.posix_acl_access`), its SELinux label (`security.selinux`)
//! and what users attach (`user.*`; xattr(7)).
//!
//! Attributes in `trusted.*` are visible only with CAP_SYS_ADMIN, which the agent's
//! unit doesn't grant. A restored file has them nevertheless, because the original
//! file itself is put back.

use super::place::Node;
use rustix::fs::{
    XattrFlags, getxattr, getxattr_query, listxattr, listxattr_query, removexattr, setxattr,
};
use rustix::io::Errno;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::ffi::{CStr, CString};
use std::fs;
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

/// Signatures over content and inode (the kernel's integrity subsystem, IMA and EVM):
/// on other content they would be wrong, so they are neither copied nor compared.
const BOUND_TO_CONTENT: [&CStr; 2] = [c"security.ima", c"security.evm"];

/// Attributes in this namespace are assigned by the system to every new file.
const ASSIGNED: &str = "security.";

/// Access control list of a file (acl(5)).
const ACL: &CStr = c"system.posix_acl_access";

/// Mode bits of the group: of a file with an ACL they are its mask.
const GROUP: u32 = 0o070;

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
    pub(super) fn of(node: &Node) -> io::Result<Self> {
        Wanted::of_existing(node).map(|wanted| wanted.recorded())
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

/// The attributes that a file is to have.
#[derive(Debug, Clone)]
pub struct Wanted {
    pub(super) mode: u32,
    pub(super) uid: u32,
    pub(super) gid: u32,
    extended: Vec<(CString, Vec<u8>)>,
}

impl Wanted {
    /// Those of a file that is replaced, or of a link.
    pub(super) fn of_existing(node: &Node) -> io::Result<Self> {
        let stat = node.stat_now()?;
        Ok(Self {
            mode: stat.st_mode & 0o7777,
            uid: stat.st_uid,
            gid: stat.st_gid,
            extended: extended(&node.path())?,
        })
    }

    /// Those of a copy of this file where there was none: security labels are assigned
    /// by the system, according to its directory.
    pub(super) fn of_a_copy(of: &Node) -> io::Result<Self> {
        let mut wanted = Self::of_existing(of)?;
        wanted.extended.retain(|(name, _)| !assigned(name));
        Ok(wanted)
    }

    /// Those of a file that is replaced by a copy of another. They are those of the
    /// replaced one if everybody may read the other. If not, whoever may not read the
    /// other file doesn't get to read its copy: the copy has the owner and the group of
    /// the other file and the permissions that both have; and without an access control
    /// list, whose entries can't be compared, the group has none if either has a list.
    pub(super) fn of_a_replacement(replaced: &Node, by: &Node) -> io::Result<Self> {
        let mut wanted = Self::of_existing(replaced)?;
        if by.is_public() {
            return Ok(wanted);
        }
        let other = Self::of_existing(by)?;
        let mut mode = wanted.mode & other.mode;
        if wanted.has_acl() || other.has_acl() {
            mode &= !GROUP;
        }
        wanted.extended.retain(|(name, _)| name.as_c_str() != ACL);
        wanted.mode = mode;
        wanted.uid = other.uid;
        wanted.gid = other.gid;
        Ok(wanted)
    }

    fn has_acl(&self) -> bool {
        self.extended.iter().any(|(name, _)| name.as_c_str() == ACL)
    }

    /// As a before-image records them.
    pub(super) fn recorded(&self) -> Attributes {
        let extended = self.extended.iter().map(|(name, value)| {
            let name = name.to_string_lossy().into_owned();
            (name, hex::encode(Sha256::digest(value)))
        });
        Attributes {
            mode: self.mode,
            uid: self.uid,
            gid: self.gid,
            extended: extended.collect(),
        }
    }

    /// Gives them to a file or link.
    ///
    /// # Errors
    /// The attribute that can't be set, and why.
    pub(super) fn give(&self, to: &Node) -> Result<(), (String, io::Error)> {
        let named = |what: &str| {
            let what = what.to_owned();
            move |e: io::Error| (what, e)
        };
        let now = to.stat_now().map_err(named("mode"))?;
        if (now.st_uid, now.st_gid) != (self.uid, self.gid) {
            to.give(self.uid, self.gid).map_err(named("owner"))?;
        }
        let path = to.path();
        let inherited = extended(&path).map_err(named("extended attributes"))?;
        if to.is_link() {
            return self.attach(&path, &inherited);
        }
        for (name, _) in &inherited {
            // Such as the ACL that the directory gives to new files.
            if !assigned(name) && !self.extended.iter().any(|(other, _)| other == name) {
                removexattr(&path, name.as_c_str())
                    .map_err(|e| named(&name.to_string_lossy())(e.into()))?;
            }
        }
        // After the owner, because a change of owner clears setuid; before the ACL,
        // whose mask a change of mode would alter.
        let mode = fs::Permissions::from_mode(self.mode);
        fs::set_permissions(&path, mode).map_err(named("mode"))?;
        self.attach(&path, &inherited)
    }

    fn attach(
        &self,
        path: &Path,
        inherited: &[(CString, Vec<u8>)],
    ) -> Result<(), (String, io::Error)> {
        for (name, value) in &self.extended {
            if !inherited.contains(&(name.clone(), value.clone())) {
                setxattr(path, name.as_c_str(), value, XattrFlags::empty())
                    .map_err(|e| (name.to_string_lossy().into_owned(), e.into()))?;
            }
        }
        Ok(())
    }
}

fn assigned(name: &CStr) -> bool {
    name.to_bytes().starts_with(ASSIGNED.as_bytes())
}

/// The extended attributes of what this path leads to.
fn extended(path: &Path) -> io::Result<Vec<(CString, Vec<u8>)>> {
    let names = match grown(|| listxattr_query(path), |buffer| listxattr(path, buffer)) {
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
            || getxattr_query(path, name_of()),
            |buffer| getxattr(path, name_of(), buffer),
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
