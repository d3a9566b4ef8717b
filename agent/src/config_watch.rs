//! Notices that the configuration file has changed: by SIGHUP, and by itself.

use crate::handle::Handle;
use std::io;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;
use tokio::signal::unix::{SignalKind, signal};

/// Interval between two checks of the file; an idle agent wakes up as often for the
/// session with its coordinator.
const CHECK_INTERVAL: Duration = Duration::from_secs(5);

/// What distinguishes one version of a file from another.
type Version = Option<(u64, u64, i64, i64)>;

fn version(file: &Path) -> Version {
    let metadata = std::fs::metadata(file).ok()?;
    let (secs, nanos) = (metadata.mtime(), metadata.mtime_nsec());
    Some((metadata.ino(), metadata.size(), secs, nanos))
}

/// Reports each change to the loop until that ends. Handles SIGHUP, which would end the
/// process otherwise, from now on.
///
/// # Errors
/// Where the signal can't be handled.
pub fn watch(file: PathBuf, handle: Handle) -> io::Result<impl Future<Output = ()> + Send> {
    let mut hangup = signal(SignalKind::hangup())?;
    let mut seen = version(&file);
    Ok(async move {
        loop {
            let asked = tokio::select! {
                received = hangup.recv() => received.is_some(),
                () = tokio::time::sleep(CHECK_INTERVAL) => false,
            };
            let now = version(&file);
            // A file that is missing is about to be replaced.
            if !asked && (now == seen || now.is_none()) {
                continue;
            }
            seen = now;
            if handle.config_changed().await.is_err() {
                return;
            }
        }
    })
}
