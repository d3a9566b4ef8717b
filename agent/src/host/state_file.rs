//! State that an action saves on this host for a later action: a `disable`
//! records what it has switched off, so that its `restore`, another task of
//! the same or of a later run, switches on exactly that.
//!
//! One file each under the agent's state directory, replaced atomically. Undo
//! doesn't read it: that uses the state captured in the journal.

use crate::error::ActionError;
use crate::host::context::Context;
use lockstep_api::Code;
use serde::Serialize;
use serde::de::DeserializeOwned;
use std::fs;
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

pub struct StateFile {
    path: PathBuf,
}

impl StateFile {
    /// The file for this purpose and resource.
    pub fn of(cx: &Context, purpose: &str, resource: &str) -> Self {
        let resource: String = resource
            .bytes()
            .map(|byte| match byte {
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'_' => char::from(byte).into(),
                other => format!("%{other:02x}"),
            })
            .collect();
        let directory = cx.host.config.state_dir.join("kept");
        Self {
            path: directory.join(format!("{purpose}.{resource}.json")),
        }
    }

    /// The saved state, if there is any.
    ///
    /// # Errors
    /// LS2124 where the file can't be read.
    pub fn read<T: DeserializeOwned>(&self) -> Result<Option<T>, ActionError> {
        match fs::read(&self.path) {
            Ok(bytes) => serde_json::from_slice(&bytes)
                .map(Some)
                .map_err(|e| self.unusable("read", e)),
            Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(e) => Err(self.unusable("read", e)),
        }
    }

    /// Saves the state; it is on disk when this returns.
    ///
    /// # Errors
    /// LS2124 where it can't be written.
    pub fn write(&self, what: &impl Serialize) -> Result<(), ActionError> {
        let write = || -> io::Result<()> {
            let directory = self.path.parent().unwrap_or(Path::new("/"));
            fs::create_dir_all(directory)?;
            let temporary = self.path.with_extension("new");
            let mut file = fs::File::create(&temporary)?;
            file.write_all(&serde_json::to_vec(what)?)?;
            file.sync_all()?;
            fs::rename(&temporary, &self.path)?;
            fs::File::open(directory)?.sync_all()
        };
        write().map_err(|e| self.unusable("written", e))
    }

    /// Removes the file, if there is one.
    ///
    /// # Errors
    /// LS2124 where it can't be removed.
    pub fn forget(&self) -> Result<(), ActionError> {
        match fs::remove_file(&self.path) {
            Err(e) if e.kind() != io::ErrorKind::NotFound => Err(self.unusable("removed", e)),
            _ => Ok(()),
        }
    }

    fn unusable(
        &self,
        verb: &str,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> ActionError {
        ActionError::new(
            Code::LS2124,
            format!("{} can't be {verb}", self.path.display()),
        )
        .state_left("what the action would switch next is as it was")
        .remedy("see to the agent's state directory, then retry")
        .source(source)
    }
}
