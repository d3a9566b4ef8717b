//! What an action has put out of effect, kept on this host beyond the run.
//!
//! An undo has the run's own capture. The `…restore` actions belong to another
//! plan, days later, when fallback is wanted after the point of no return:
//! they need the state from before the cutover. It lies in the agent's state
//! directory, a file for each resource and kind, and goes when it has been
//! restored.

use crate::action::{ActionError, Context, Undone};
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

#[derive(Serialize, Deserialize)]
struct Kept<T> {
    run: String,
    value: T,
}

fn path(cx: &Context, resource: &str, kind: &str) -> PathBuf {
    let safe: String = resource
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() || c == '-' {
                c
            } else {
                '_'
            }
        })
        .collect();
    let directory = cx.host.config.state_dir.join("oracle");
    directory.join(format!("{safe}.{kind}.json"))
}

fn failed(path: &Path, error: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> ActionError {
    let text = format!("the state kept in {} can't be used", path.display());
    ActionError::new("LS2208", text)
        .left("nothing more was changed")
        .next("see that the agent's state directory is writable and has room, then retry")
        .source(error)
}

/// Keeps a state before it is changed. Within a run the first one stays:
/// later ones may show a change half done.
///
/// # Errors
/// Where it can't be written: nothing must be changed then.
pub fn keep<T: Serialize + DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
    value: &T,
) -> Result<(), ActionError> {
    let path = path(cx, resource, kind);
    if let Some(kept) = read::<T>(&path)?
        && kept.run == cx.tag.run
    {
        return Ok(());
    }
    let kept = Kept {
        run: cx.tag.run.clone(),
        value,
    };
    let text = serde_json::to_vec_pretty(&kept).map_err(|e| failed(&path, e))?;
    write(&path, &text).map_err(|e| failed(&path, e))
}

/// The state kept, if there is one.
///
/// # Errors
/// Where the file is there and can't be read.
pub fn recall<T: DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
) -> Result<Option<T>, ActionError> {
    Ok(read::<T>(&path(cx, resource, kind))?.map(|kept| kept.value))
}

/// The state kept; without one nothing can be restored.
///
/// # Errors
/// Where there is none, or it can't be read.
pub fn recall_all<T: DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
) -> Result<T, ActionError> {
    recall(cx, resource, kind)?.ok_or_else(|| {
        ActionError::new(
            "LS2209",
            format!("this agent keeps no earlier state of the {kind} of {resource}"),
        )
        .left("nothing was changed")
        .next(
            "there is nothing to restore if it has been restored before; otherwise restore it by \
             hand from the events of the run that changed it",
        )
    })
}

/// Forgets a state that has been restored.
///
/// # Errors
/// Where the file can't be removed.
pub fn forget(cx: &Context, resource: &str, kind: &str) -> Result<(), ActionError> {
    let path = path(cx, resource, kind);
    match std::fs::remove_file(&path) {
        Err(e) if e.kind() != io::ErrorKind::NotFound => Err(failed(&path, e)),
        _ => Ok(()),
    }
}

/// After an undo: forgets the state, unless somebody has to decide about it.
///
/// # Errors
/// Where the file can't be removed.
pub fn done(cx: &Context, resource: &str, kind: &str, undone: &Undone) -> Result<(), ActionError> {
    match undone {
        Undone::Drifted(_) => Ok(()),
        Undone::Restored | Undone::Nothing => forget(cx, resource, kind),
    }
}

fn read<T: DeserializeOwned>(path: &Path) -> Result<Option<Kept<T>>, ActionError> {
    match std::fs::read(path) {
        Err(e) if e.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(e) => Err(failed(path, e)),
        Ok(text) => serde_json::from_slice(&text)
            .map(Some)
            .map_err(|e| failed(path, e)),
    }
}

/// Written beside and renamed, so that a crash leaves the old or the new.
fn write(path: &Path, text: &[u8]) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    std::fs::create_dir_all(directory)?;
    let new = path.with_extension("new");
    let mut file = std::fs::File::create(&new)?;
    file.write_all(text)?;
    file.sync_all()?;
    std::fs::rename(&new, path)?;
    std::fs::File::open(directory)?.sync_all()
}
