//! systemd units: services and timers alike.

mod ability;
mod record;
pub mod restart;
mod settle;
pub mod start;
pub mod stop;
mod transaction;

use crate::action::{ActionError, Context};
use crate::actions::combine_errors;
use crate::host::systemd::{Job, UnitState};
use crate::policy::Permission;
use lockstep_api::Code;
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;
use transaction::{Change, Transaction};

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
        .filter(|(_, state)| state.load == "not-found" && !state.is_up())
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

/// The before-image of units and of those that change with them. Of the former, with
/// the links of their enablement if the task changes that.
async fn images(
    cx: &Context,
    units: &[String],
    transaction: &Transaction,
    enablement: bool,
) -> Result<States, ActionError> {
    let mut states = existing(cx, units).await?;
    let systemd = cx.host.systemd().await?;
    if enablement {
        for (unit, state) in &mut states {
            state.links = systemd.links(unit).await?;
        }
    }
    for Change { unit, facts, .. } in transaction.stops.iter().chain(&transaction.starts) {
        states.insert(unit.clone(), systemd.state_of(unit, facts).await?);
    }
    Ok(states)
}

/// An undo of the units of a step.
struct Restoring<'a> {
    cx: &'a Context,
    /// Those of the step, in the order in which they are started.
    units: Vec<&'a String>,
    states: &'a States,
    enablement: bool,
    /// Remove links that weren't there before: the task itself has created them.
    exact_links: bool,
    limit: Duration,
}

impl Restoring<'_> {
    /// Restores every unit, enablement first: after a crash in between, the next boot then
    /// does the rest. What runs now and didn't before is stopped first, because it may
    /// conflict with what ran before. Continues after a failure, so that one bad unit
    /// doesn't keep the others down.
    async fn restore(&self) -> Result<bool, ActionError> {
        let (mut changed, mut failures) = (false, Vec::new());
        if self.enablement {
            for unit in &self.units {
                match self.restore_links(unit).await {
                    Ok(this) => changed |= this,
                    Err(e) => failures.push(e),
                }
            }
        }
        let others = self.states.keys().filter(|unit| !self.units.contains(unit));
        let all: Vec<&String> = self.units.iter().copied().chain(others).collect();
        let (mut down, mut up) = (Vec::new(), Vec::new());
        for unit in sockets_first(all.iter().rev().copied()) {
            match self.stop(unit).await {
                Ok(true) => down.push(unit.clone()),
                Ok(false) => {}
                Err(e) => failures.push(e),
            }
        }
        for unit in sockets_first(all.iter().copied()) {
            match self.start(unit).await {
                Ok(started) => up.extend(started),
                Err(e) => failures.push(e),
            }
        }
        changed |= !down.is_empty() || !up.is_empty();
        failures.extend(settle::stay_up(self.cx, &up).await.err());
        if !down.is_empty() {
            failures.extend(settle::stay_down(self.cx, &down).await.err());
        }
        combine_errors(failures, Code::LS2105, "units are not back")?;
        Ok(changed)
    }

    async fn restore_links(&self, unit: &str) -> Result<bool, ActionError> {
        let Some(was) = self.states.get(unit) else {
            return Ok(false);
        };
        let systemd = self.cx.host.systemd().await?;
        let restoring = systemd.restore_links(unit, &was.links, self.exact_links);
        let links = restoring.await?;
        report_links(self.cx, unit, "restored", &links);
        Ok(!links.is_empty())
    }

    /// Stops a unit that was down. One that only started along with those of the step is
    /// left running if other units have come to depend on it.
    async fn stop(&self, unit: &String) -> Result<bool, ActionError> {
        let Some(was) = self.states.get(unit) else {
            return Ok(false);
        };
        let systemd = self.cx.host.systemd().await?;
        if !was.is_down() || systemd.state(unit).await?.is_down() {
            return Ok(false);
        }
        if !self.units.contains(&unit) {
            let one = std::slice::from_ref(unit);
            let stops = Transaction::of_stop(self.cx, one).await?.stops;
            let needed = |change: &Change| {
                let before = self.states.get(&change.unit);
                before.is_none_or(|before| !before.is_down())
            };
            if let Some(other) = stops.iter().find(|change| needed(change)) {
                self.cx.note(format!(
                    "{unit}: left running, {} depends on it",
                    other.unit
                ));
                return Ok(false);
            }
        }
        systemd.run(Job::Stop, unit, self.limit).await?;
        self.cx.effect(format!("{unit}: stopped, as it was before"));
        Ok(true)
    }

    /// Starts a unit that was up.
    async fn start(&self, unit: &str) -> Result<Option<settle::Started>, ActionError> {
        let Some(was) = self.states.get(unit) else {
            return Ok(None);
        };
        let now = self.cx.host.systemd().await?.facts(unit).await?;
        if !was.is_up() || now.is_up() {
            return Ok(None);
        }
        if was.is_running_once() {
            self.cx.note(format!(
                "{unit}: not started; the job was cut off by the stop, and running it again from its \
                 beginning is left to its own time or to an operator"
            ));
            return Ok(None);
        }
        let started = settle::bring_up(self.cx, Job::Start, unit, self.limit).await?;
        self.cx
            .effect(format!("{unit}: started, as it was {} before", was.active));
        Ok(Some(started))
    }
}

/// One effect for each link that was changed.
/// The units in their order, but sockets before the others: systemd refuses to start a
/// socket whose service is active (socket_start in src/core/socket.c), and a socket that
/// is still up starts a service that has been stopped.
fn sockets_first<'a>(units: impl Iterator<Item = &'a String>) -> Vec<&'a String> {
    let (sockets, others): (Vec<_>, Vec<_>) = units.partition(|unit| unit.ends_with(".socket"));
    sockets.into_iter().chain(others).collect()
}

fn report_links(cx: &Context, unit: &str, verb: &str, links: &[PathBuf]) {
    for link in links {
        cx.effect(format!("{unit}: link {} {verb}", link.display()));
    }
}
