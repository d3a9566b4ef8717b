//! Files that hold a password or a key, as the configuration names them.

use crate::error::ActionError;
use lockstep_api::Code;
use rustix::process::geteuid;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::MetadataExt as _;
use std::path::Path;

/// Why a secret can't be read.
pub enum Unreadable {
    /// LS2019: others may read or change it.
    Open(ActionError),
    Failed(io::Error),
}

/// Reads the file. `what` names it in the message: `password file`. The file must belong to the agent's user or to root, and
/// nobody else may read or change it, as ssh demands of its keys.
///
/// # Errors
/// LS2019 where others may read or change it; else what the system says.
pub fn read(file: &Path, what: &str) -> Result<String, Unreadable> {
    let mut opened = File::open(file).map_err(Unreadable::Failed)?;
    let metadata = opened.metadata().map_err(Unreadable::Failed)?;
    let (mode, owner) = (metadata.mode() & 0o777, metadata.uid());
    let shown = file.display();
    let open = |found: String, remedy: String| {
        let error = ActionError::new(Code::LS2019, format!("the {what} {shown} {found}"))
            .state_left("nothing was done")
            .remedy(remedy);
        Err(Unreadable::Open(error))
    };
    let again = "and set a new one if others may have read it";
    if owner != 0 && owner != geteuid().as_raw() {
        return open(
            format!("belongs to user {owner}"),
            format!("run `chown {} {shown}`, {again}", geteuid().as_raw()),
        );
    }
    if mode & 0o077 != 0 {
        return open(
            format!("has mode {mode:04o}"),
            format!("run `chmod 0600 {shown}`, {again}"),
        );
    }
    let mut text = String::new();
    opened
        .read_to_string(&mut text)
        .map_err(Unreadable::Failed)?;
    Ok(text)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn a_secret_that_others_may_read_is_not_used() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("password");
        fs::write(&file, "canary\n").unwrap();
        for (mode, allowed) in [
            (0o600, true),
            (0o400, true),
            (0o640, false),
            (0o604, false),
            (0o620, false),
        ] {
            fs::set_permissions(&file, fs::Permissions::from_mode(mode)).unwrap();
            match read(&file, "password file") {
                Ok(text) => assert!(allowed && text == "canary\n", "{mode:o}"),
                Err(Unreadable::Open(error)) => {
                    assert!(!allowed, "{mode:o}");
                    assert_eq!(error.code(), Code::LS2019);
                    let report = error.report();
                    assert!(report.contains("chmod 0600"), "{report}");
                    assert!(!report.contains("canary"), "{report}");
                }
                // Without root, its owner may not read it either.
                Err(Unreadable::Failed(e)) => unreachable!("{e}"),
            }
        }
        fs::set_permissions(&file, fs::Permissions::from_mode(0o600)).unwrap();
        if std::os::unix::fs::chown(&file, Some(12345), None).is_ok() {
            let refused = read(&file, "password file");
            assert!(matches!(refused, Err(Unreadable::Open(_))));
        }
    }
}
