//! What an action has put out of effect, kept on this host beyond the run.
//!
//! An undo has the run's own capture. The `…restore` actions belong to another
//! plan, days later, when fallback is wanted after the point of no return:
//! they need the state from before the cutover. It lies in the agent's state
//! directory, a file for each resource and kind, and goes when it has been
//! restored.

use crate::action::{ActionError, Context, Undone};
use crate::host::kept::Kept;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A state, with the run in which it was kept.
#[derive(Serialize, Deserialize)]
struct Before<T> {
    run: String,
    value: T,
}

fn place(cx: &Context, resource: &str, kind: &str) -> Kept {
    Kept::of(cx, &format!("oracle-{kind}"), resource)
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
    let place = place(cx, resource, kind);
    let before: Option<Before<T>> = place.read()?;
    if before.is_some_and(|before| before.run == cx.tag.run) {
        return Ok(());
    }
    place.write(&Before {
        run: cx.tag.run.clone(),
        value,
    })
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
    let before: Option<Before<T>> = place(cx, resource, kind).read()?;
    Ok(before.map(|before| before.value))
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
    place(cx, resource, kind).forget()
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
