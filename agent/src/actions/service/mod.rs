//! systemd units: services and timers alike.

pub mod restart;
mod settle;
pub mod start;
pub mod stop;

use crate::action::{ActionError, Context};
use crate::actions::combine_errors;
use crate::host::systemd::{Job, UnitState};
use crate::policy::Permission;
use lockstep_api::Code;
use std::collections::BTreeMap;
use std::time::Duration;

/// States by unit: the before-image of every action here.
type States = BTreeMap<String, UnitState>;

fn required_permissions(units: &[String]) -> Vec<Permission> {
    units.iter().cloned().map(Permission::Unit).collect()
}

async fn states(cx: &Context, units: &[String]) -> Result<States, ActionError> {
    let systemd = cx.host.systemd().await?;
    let mut states = States::new();
    for unit in units {
        states.insert(unit.clone(), systemd.state(unit).await?);
    }
    Ok(states)
}

/// Units that the host doesn't have, a sentence each.
fn absent(states: &States) -> Vec<String> {
    states
        .iter()
        .filter(|(_, state)| state.load == "not-found")
        .map(|(unit, _)| {
            format!("the unit {unit} doesn't exist on this host; correct its name in the plan")
        })
        .collect()
}

/// As [`states`], for a probe: a unit that doesn't exist is an error.
async fn existing(cx: &Context, units: &[String]) -> Result<States, ActionError> {
    let states = states(cx, units).await?;
    match absent(&states).into_iter().next() {
        None => Ok(states),
        Some(absent) => Err(ActionError::new(Code::LS2108, absent).state_left("nothing was done")),
    }
}

/// Restores one unit, enablement first: after a crash in between, the next boot
/// then does the rest.
async fn restore(
    cx: &Context,
    unit: &str,
    was: &UnitState,
    limit: Duration,
) -> Result<bool, ActionError> {
    let systemd = cx.host.systemd().await?;
    let now = systemd.state(unit).await?;
    let mut changed = false;
    if now.is_enabled() != was.is_enabled() {
        systemd.set_enabled(unit, was.is_enabled()).await?;
        changed = true;
    }
    let job = match (was.is_up(), now.is_up()) {
        (true, false) => Some(Job::Start),
        (false, true) => Some(Job::Stop),
        _ => None,
    };
    if let Some(job) = job {
        cx.note(format!("{unit}: restored to {}", was.active));
        match job {
            Job::Start | Job::Restart => {
                let up = settle::bring_up(cx, job, unit, limit).await?;
                settle::stay_up(cx, &[up]).await?;
            }
            Job::Stop => systemd.run(job, unit, limit).await?,
        }
        changed = true;
    }
    Ok(changed)
}

/// Restores every unit in the order given, and continues after a failure, so
/// that one bad unit doesn't keep the others down.
async fn put_all_back<'a>(
    cx: &Context,
    units: impl Iterator<Item = &'a String>,
    states: &States,
    limit: Duration,
) -> Result<bool, ActionError> {
    let (mut changed, mut failures) = (false, Vec::new());
    for unit in units {
        let Some(was) = states.get(unit) else {
            continue;
        };
        match restore(cx, unit, was, limit).await {
            Ok(this) => changed |= this,
            Err(e) => failures.push(e),
        }
    }
    combine_errors(failures, Code::LS2105, "units are not back")?;
    Ok(changed)
}
