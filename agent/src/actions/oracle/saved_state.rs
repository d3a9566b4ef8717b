//! The state before an action's change, saved on this host for later runs.
//!
//! An undo uses the before-image of its own run. The `….restore` actions belong
//! to another plan, days later, for a fallback after the point of no return:
//! they need the state from before the cutover. It is stored in the agent's
//! state directory, in one file per resource and kind, and is removed once it
//! has been restored. Two steps of one plan may disable different objects of
//! one kind, so each step's state is saved separately.

use crate::action::{ActionError, Context, Undone};
use crate::host::state_file::StateFile;
use lockstep_api::Code;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// The states that the steps of one run found, in order.
#[derive(Serialize, Deserialize)]
#[serde(bound(deserialize = "T: DeserializeOwned"))]
struct Before<T> {
    run: String,
    #[serde(default = "Vec::new")]
    steps: Vec<Found<T>>,
    /// One state for all steps: the form of files written before the states of
    /// steps were separated.
    #[serde(default, skip_serializing)]
    value: Option<T>,
}

/// The state that a step found.
#[derive(Serialize, Deserialize)]
struct Found<T> {
    /// Empty if read from a file of the old form.
    step: String,
    value: T,
}

fn place(cx: &Context, resource: &str, kind: &str) -> StateFile {
    StateFile::of(cx, &format!("oracle-{kind}"), resource)
}

fn read<T: DeserializeOwned>(place: &StateFile) -> Result<Option<Before<T>>, ActionError> {
    let mut before: Option<Before<T>> = place.read()?;
    if let Some(before) = &mut before
        && let Some(value) = before.value.take()
    {
        let step = String::new();
        before.steps.insert(0, Found { step, value });
    }
    Ok(before)
}

fn write<T: Serialize>(place: &StateFile, before: &Before<T>) -> Result<(), ActionError> {
    if before.steps.is_empty() {
        place.forget()
    } else {
        place.write(before)
    }
}

/// The states saved by this run. Those of an earlier run are dropped: they no
/// longer describe the state before the latest cutover.
fn of_run<T: DeserializeOwned>(cx: &Context, place: &StateFile) -> Result<Before<T>, ActionError> {
    let own = read(place)?.filter(|before: &Before<T>| before.run == cx.tag.run);
    Ok(own.unwrap_or_else(|| Before {
        run: cx.tag.run.clone(),
        steps: Vec::new(),
        value: None,
    }))
}

/// Saves a state before it is changed. Only the first state of each step of a
/// run is saved: later ones may show a partial change.
///
/// # Errors
/// If it can't be written; the caller must then change nothing.
pub fn save<T: Clone + Serialize + DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
    value: &T,
) -> Result<(), ActionError> {
    let place = place(cx, resource, kind);
    let mut before = of_run(cx, &place)?;
    let step = cx.tag.origin();
    if before.steps.iter().any(|found| found.step == step) {
        return Ok(());
    }
    before.steps.push(Found {
        step: step.to_owned(),
        value: value.clone(),
    });
    write(&place, &before)
}

/// Saves a state, replacing an earlier one of the same step.
///
/// # Errors
/// If it can't be written.
pub fn renew<T: Clone + Serialize + DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
    value: &T,
) -> Result<(), ActionError> {
    let place = place(cx, resource, kind);
    let mut before = of_run(cx, &place)?;
    let step = cx.tag.origin().to_owned();
    before.steps.retain(|found| found.step != step);
    before.steps.push(Found {
        step,
        value: value.clone(),
    });
    write(&place, &before)
}

/// The state saved by this step.
///
/// # Errors
/// If there is none, or it can't be read.
pub fn recall_own<T: DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
) -> Result<T, ActionError> {
    let step = cx.tag.origin();
    let before: Before<T> = of_run(cx, &place(cx, resource, kind))?;
    let own = |found: &Found<T>| found.step == step || found.step.is_empty();
    let found = before.steps.into_iter().find(own);
    found
        .map(|found| found.value)
        .ok_or_else(|| nothing(resource, kind))
}

/// All saved states, the earliest first.
///
/// # Errors
/// If there is none, or the file can't be read.
pub fn recall_all<T: DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
) -> Result<Vec<T>, ActionError> {
    let before = read(&place(cx, resource, kind))?;
    let steps = before.map_or_else(Vec::new, |before: Before<T>| before.steps);
    if steps.is_empty() {
        return Err(nothing(resource, kind));
    }
    Ok(steps.into_iter().map(|found| found.value).collect())
}

/// The error for a missing state.
pub fn nothing(resource: &str, kind: &str) -> ActionError {
    ActionError::new(
        Code::LS2209,
        format!("this agent keeps no earlier state of the {kind} of {resource}"),
    )
    .state_left("nothing was changed")
    .remedy(
        "there is nothing to restore if it has been restored before; otherwise restore it by \
         hand from the events of the run that changed it",
    )
}

/// The earliest saved state, for kinds of which every step saves the whole
/// state: what later steps found may have been changed by earlier ones.
///
/// # Errors
/// If there is none, or it can't be read.
pub fn recall_first<T: DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
) -> Result<T, ActionError> {
    let all = recall_all(cx, resource, kind)?;
    all.into_iter()
        .next()
        .ok_or_else(|| nothing(resource, kind))
}

/// Removes all states, after all of them have been restored.
///
/// # Errors
/// If the file can't be removed.
pub fn forget(cx: &Context, resource: &str, kind: &str) -> Result<(), ActionError> {
    place(cx, resource, kind).forget()
}

/// Removes the part that has been restored; `rest` returns what remains of a
/// state.
///
/// # Errors
/// If the file can't be read or written.
pub fn forget_part<T: Serialize + DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
    rest: impl Fn(T) -> Option<T>,
) -> Result<(), ActionError> {
    let place = place(cx, resource, kind);
    let Some(Before { run, steps, value }) = read::<T>(&place)? else {
        return Ok(());
    };
    let left = steps.into_iter().filter_map(|Found { step, value }| {
        let value = rest(value)?;
        Some(Found { step, value })
    });
    let steps = left.collect();
    write(&place, &Before { run, steps, value })
}

/// After an undo: removes the state that its step had saved, unless the undo
/// found a drift, which an operator has to resolve.
///
/// # Errors
/// If the file can't be read or written.
pub fn done<T: Serialize + DeserializeOwned>(
    cx: &Context,
    resource: &str,
    kind: &str,
    undone: &Undone,
) -> Result<(), ActionError> {
    if matches!(undone, Undone::Drifted(_)) {
        return Ok(());
    }
    let place = place(cx, resource, kind);
    let Some(mut before) = read::<T>(&place)? else {
        return Ok(());
    };
    if before.run == cx.tag.run {
        let step = cx.tag.origin();
        let restored = |found: &Found<T>| found.step == step || found.step.is_empty();
        before.steps.retain(|found| !restored(found));
        write(&place, &before)?;
    }
    Ok(())
}
