//! What the units of a run were before its `service.stop`, for its later
//! `service.start`: that one starts the units that went down with those of its
//! list as well, leaves units that were inactive before alone, and restores enablement
//! link by link.
//!
//! The file has each unit under its Id, because a stop may name it by an alias and
//! the start by another name. What is read is in the names of the step.

use super::States;
use super::transaction::Change;
use crate::action::{ActionError, Context};
use crate::host::state_file::StateFile;
use crate::host::systemd::links::Link;
use lockstep_plan::catalogue::StopService;
use serde::{Deserialize, Serialize};
use std::collections::BTreeMap;

/// A unit before a stop.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Record {
    pub run: String,
    /// It was up, or failed although it should run, or is down only because of this run or
    /// of an earlier one that hasn't started it again. A oneshot that had failed, or that
    /// the stop cut off, isn't to run again at another time than its own.
    pub start: bool,
    /// For a unit that isn't in the list: the one with which it was stopped.
    pub with: Option<String>,
    /// The links of its enablement; absent if the stop left that alone.
    pub links: Option<Vec<Link>>,
}

pub type Records = BTreeMap<String, Record>;

fn file(cx: &Context) -> StateFile {
    StateFile::of(cx, "units", "stopped")
}

/// Puts the names of a step in the place of all other names of its units.
async fn named(
    cx: &Context,
    mut records: Records,
    units: &[String],
) -> Result<Records, ActionError> {
    let systemd = cx.host.systemd().await?;
    for unit in units {
        let facts = systemd.facts(unit).await?;
        let is_other = |name: &String| name != unit && facts.names.contains(name);
        let found = records.iter().find(|(name, _)| is_other(name));
        if let Some(record) = found.map(|(_, record)| record.clone()) {
            records.entry(unit.clone()).or_insert(record);
        }
        records.retain(|name, _| !is_other(name) || units.contains(name));
        for record in records.values_mut() {
            if record.with.as_ref().is_some_and(is_other) {
                record.with = Some(unit.clone());
            }
        }
    }
    Ok(records)
}

/// What stops of all runs have recorded and no start has used, the units of the step by
/// its names.
///
/// # Errors
/// LS2124 where the file can't be read.
pub async fn all(cx: &Context, units: &[String]) -> Result<Records, ActionError> {
    let records = file(cx).read()?.unwrap_or_default();
    named(cx, records, units).await
}

/// What the stops of this run have recorded, the units of the step by its names.
///
/// # Errors
/// LS2124 where the file can't be read.
pub async fn of_run(cx: &Context, units: &[String]) -> Result<Records, ActionError> {
    let mut records = all(cx, units).await?;
    records.retain(|_, record| record.run == cx.tag.run);
    Ok(records)
}

/// Records the states before a stop.
///
/// # Errors
/// LS2124 where the file can't be written.
pub async fn save(
    cx: &Context,
    params: &StopService,
    states: &States,
    stopped_with: &[Change],
) -> Result<(), ActionError> {
    let systemd = cx.host.systemd().await?;
    let before = all(cx, &params.units).await?;
    let mut records = before.clone();
    for (unit, state) in states {
        let old = before.get(unit);
        let with = stopped_with
            .iter()
            .find(|change| change.unit == *unit)
            .map(|change| change.with.clone());
        let of_this_run = old.filter(|old| old.run == cx.tag.run);
        let was_disabled = old.filter(|_| state.links.is_empty());
        let record = Record {
            run: cx.tag.run.clone(),
            start: (state.is_up() && !state.is_running_once())
                || (state.active == "failed" && !state.has_failed_to_run())
                || old.is_some_and(|old| old.start),
            with: match with.filter(|_| !params.units.contains(unit)) {
                Some(with) => Some(systemd.facts(&with).await?.id),
                None => None,
            },
            links: match params.enablement && params.units.contains(unit) {
                true => was_disabled
                    .and_then(|old| old.links.clone())
                    .or_else(|| Some(state.links.clone())),
                false => of_this_run.and_then(|old| old.links.clone()),
            },
        };
        records.remove(unit);
        records.insert(systemd.facts(unit).await?.id, record);
    }
    file(cx).write(&records)
}

/// Forgets units that are as they were before the stop.
///
/// # Errors
/// LS2124 where the file can't be written.
pub async fn forget(cx: &Context, units: &[&String]) -> Result<(), ActionError> {
    let mut records: Records = file(cx).read()?.unwrap_or_default();
    let before = records.len();
    let systemd = cx.host.systemd().await?;
    for unit in units {
        let names = systemd.facts(unit).await?.names;
        records.retain(|name, _| name != *unit && !names.contains(name));
    }
    match records.len() == before {
        true => Ok(()),
        false => file(cx).write(&records),
    }
}

/// Oneshots that have run, by their Ids, and the step that started them: systemd itself forgets a
/// oneshot's last run soon after it (CollectMode=, systemd.unit(5)).
type Runs = BTreeMap<String, String>;

fn runs(cx: &Context) -> StateFile {
    StateFile::of(cx, "units", "oneshots")
}

fn step(cx: &Context) -> String {
    format!("{}/{}", cx.tag.run, cx.tag.origin())
}

/// Whether an earlier attempt of this step has run the oneshot.
///
/// # Errors
/// LS2124 where the file can't be read.
pub fn has_run(cx: &Context, unit: &str) -> Result<bool, ActionError> {
    let runs: Runs = runs(cx).read()?.unwrap_or_default();
    Ok(runs.get(unit) == Some(&step(cx)))
}

/// Records that this step has run the oneshot.
///
/// # Errors
/// LS2124 where the file can't be written.
pub fn ran(cx: &Context, unit: &str) -> Result<(), ActionError> {
    let file = runs(cx);
    let mut runs: Runs = file.read()?.unwrap_or_default();
    runs.insert(unit.to_owned(), step(cx));
    file.write(&runs)
}

/// Forgets the oneshots that this step has run, when it is undone.
///
/// # Errors
/// LS2124 where the file can't be written.
pub fn forget_runs(cx: &Context) -> Result<(), ActionError> {
    let file = runs(cx);
    let Some(mut runs) = file.read::<Runs>()? else {
        return Ok(());
    };
    runs.retain(|_, by| *by != step(cx));
    file.write(&runs)
}
