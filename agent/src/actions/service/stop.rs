//! `service.stop`: stops units, and disables them where the plan says so.

use super::transaction::{Change, Transaction};
use super::{
    Restoring, States, ability, absent, images, record, report_links, required_permissions, settle,
    states,
};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::systemd::{Job, UnitState};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::actions::ActionSpec as _;
use lockstep_plan::catalogue::StopService;
use serde_json::Value;
use std::collections::BTreeMap;
use std::time::Duration;

pub struct Stop;

impl Stop {
    async fn is_so(
        cx: &Context,
        params: &StopService,
        states: &States,
        transaction: &Transaction,
    ) -> Result<bool, ActionError> {
        let recorded = record::of_run(cx, &params.units).await?;
        Ok(transaction.stops.is_empty()
            && states.iter().all(|(unit, state)| {
                let disabled = !(params.enablement && state.is_enabled());
                state.is_down() && disabled && recorded.contains_key(unit)
            }))
    }

    /// What prevents the stop or its undo, a sentence each.
    async fn obstacles(
        cx: &Context,
        params: &StopService,
        transaction: &Transaction,
    ) -> Result<Vec<String>, ActionError> {
        let systemd = cx.host.systemd().await?;
        let mut obstacles = Vec::new();
        for unit in &params.units {
            let facts = systemd.facts(unit).await?;
            obstacles.extend(ability::cannot_stop_and_start(unit, &facts));
            obstacles.extend(ability::keeps_ending(unit, &facts));
            if params.enablement {
                let links = systemd.links(unit).await?;
                obstacles.extend(systemd.lost_when_disabled(unit, &links).await?);
            }
        }
        obstacles.extend(ability::unsettled(
            transaction,
            &record::of_run(cx, &params.units).await?,
        ));
        obstacles.extend(ability::unlisted(cx, StopService::NAME, transaction));
        Ok(obstacles)
    }

    async fn disable(cx: &Context, units: &[String]) -> Result<(), ActionError> {
        for unit in units {
            let systemd = cx.host.systemd().await?;
            if systemd.state(unit).await?.is_enabled() {
                let links = systemd.links(unit).await?;
                let removed = systemd.disable(unit, &links).await?;
                report_links(cx, unit, "removed", &removed);
            }
        }
        Ok(())
    }

    /// Adds what an operator should know before the run.
    async fn remark(
        cx: &Context,
        params: &StopService,
        description: &mut Description,
    ) -> Result<(), ActionError> {
        let systemd = cx.host.systemd().await?;
        let defaults = systemd.default_timeouts().await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let records = record::all(cx, &params.units).await?;
        for unit in &params.units {
            let facts = systemd.facts(unit).await?;
            if facts.is_running_once() {
                description.remarks.push(format!(
                    "{unit} is a oneshot and runs now: the stop cuts it off, and neither undo nor a \
                     later service.start of this run runs it again; wait until it has ended, or run it \
                     by hand afterwards"
                ));
            }
            if facts.is_up() {
                ability::compare_timeouts(description, unit, &facts, defaults, limit);
            } else if let Some(record) = records.get(unit).filter(|record| record.start) {
                description.remarks.push(format!(
                    "{unit} is {}: the run {} stopped it and didn't start it again, so a later \
                     service.start of this run starts it",
                    facts.active, record.run
                ));
            } else if facts.service_type == "oneshot" && facts.active == "failed" {
                description.remarks.push(format!(
                    "{unit} is a oneshot and failed when it ran last: a later service.start of this \
                     run doesn't run it again"
                ));
            } else if facts.active == "inactive" {
                description.remarks.push(format!(
                    "{unit} is inactive now, so a later service.start of this run leaves it so; if it \
                     should run, start it before"
                ));
            }
            if params.enablement {
                let links = systemd.links(unit).await?;
                let started = systemd.started_although_disabled(unit, &links).await?;
                description.remarks.extend(started);
            }
            for triggered in &facts.triggers {
                let triggered = systemd.facts(triggered).await?;
                ability::compare_triggered(description, &facts, &triggered, &params.units, limit);
            }
            if facts.persistent && facts.is_up() {
                description.remarks.push(format!(
                    "{unit} has Persistent=: if its time passes while it is stopped, {} runs at once \
                     when {unit} is started again, also by undo",
                    facts.triggers.join(", ")
                ));
            }
        }
        Ok(())
    }
}

#[async_trait]
impl Action for Stop {
    type Params = StopService;

    fn required_permissions(&self, params: &StopService) -> Vec<Permission> {
        required_permissions(&params.units)
    }

    async fn probe(&self, cx: &Context, params: &StopService) -> Result<Probe, ActionError> {
        let stopping = record::of_run(cx, &params.units).await?;
        let stop = || Transaction::of_stop(cx, &params.units);
        let transaction = settle::settled(&stopping, stop).await?;
        let states = images(cx, &params.units, &transaction, params.enablement).await?;
        ability::refuse(Self::obstacles(cx, params, &transaction).await?)?;
        let so = Self::is_so(cx, params, &states, &transaction).await?
            && !settle::triggered_runs(cx, &params.units).await?;
        with_before_image(satisfied_if(so), &states)
    }

    /// Without the record that a later start needs: that doesn't matter here.
    async fn in_effect(&self, cx: &Context, params: &StopService) -> Result<bool, ActionError> {
        let states = states(cx, &params.units).await?;
        let down =
            |state: &UnitState| state.is_down() && !(params.enablement && state.is_enabled());
        Ok(states.values().all(down) && !settle::triggered_runs(cx, &params.units).await?)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &StopService,
    ) -> Result<Description, ActionError> {
        let states = states(cx, &params.units).await?;
        let mut description = Description {
            obstacles: absent(&states),
            ..Description::default()
        };
        if !description.obstacles.is_empty() {
            return Ok(description);
        }
        let transaction = Transaction::of_stop(cx, &params.units).await?;
        let all = affected(&params.units, &transaction);
        if let Some(unheld) = description.obstacle(settle::unheld_triggers(cx, &all).await) {
            // An earlier step may stop them, as a cutover's timers are.
            description.remarks.extend(unheld);
        }
        for (unit, state) in &states {
            description
                .would_do
                .push(format!("StopUnit {unit} (now {})", state.active));
            if params.enablement && state.is_enabled() {
                description
                    .would_do
                    .push(format!("DisableUnitFiles {unit}"));
            }
        }
        for Change { unit, with, facts } in &transaction.stops {
            let again = match facts.is_running_once() {
                true => "is a oneshot that is cut off and not run again".to_owned(),
                false => format!("undo and a later service.start of {with} start again"),
            };
            description.would_do.push(format!(
                "StopUnit {with} also stops {unit} (now {}), which {again}",
                facts.active
            ));
        }
        if let Some(obstacles) =
            description.obstacle(Self::obstacles(cx, params, &transaction).await)
        {
            description.obstacles.extend(obstacles);
        }
        let remarked = Self::remark(cx, params, &mut description).await;
        description.obstacle(remarked);
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StopService,
        before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let transaction = Transaction::of_stop(cx, &params.units).await?;
        let all = affected(&params.units, &transaction);
        let unheld = settle::unheld_triggers(cx, &all).await?.into_iter().next();
        if let Some(unheld) = unheld {
            return Err(ActionError::new(Code::LS2106, unheld).state_left("nothing was stopped"));
        }
        let states: States = match before_image {
            Some(before_image) => decode_before_image(before_image)?,
            None => images(cx, &params.units, &transaction, params.enablement).await?,
        };
        record::save(cx, params, &states, &transaction.stops).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        if params.enablement {
            Self::disable(cx, &params.units).await?;
        }
        // Without the removed links, fewer units may go down.
        let transaction = Transaction::of_stop(cx, &params.units).await?;
        for unit in triggers_first(cx, &params.units, &transaction).await? {
            let systemd = cx.host.systemd().await?;
            let was_down = systemd.state(unit).await?.is_down();
            systemd.run(Job::Stop, unit, limit).await?;
            if !was_down {
                cx.effect(format!("{unit}: stopped"));
            }
            settle::wait_for_triggered(cx, unit, &params.units, limit).await?;
        }
        settle::wait_for_stopped(cx, &transaction.stops, limit).await?;
        settle::stay_down(cx, &affected(&params.units, &transaction)).await?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &StopService,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let states: States = decode_before_image(before_image)?;
        let restoring = Restoring {
            cx,
            units: params.units.iter().rev().collect(),
            states: &states,
            enablement: params.enablement,
            exact_links: false,
            limit: Duration::from_secs(params.timeout_secs),
        };
        let changed = restoring.restore().await?;
        record::forget(cx, &states.keys().collect::<Vec<_>>()).await?;
        Ok(Undone::restored_if(changed))
    }
}

/// The units in their order, but those that start others first: a client that connects to
/// a socket while its service stops would start that again, and so would a unit that
/// upholds it. One that isn't in the list but stops with a unit of it counts as that one.
async fn triggers_first<'a>(
    cx: &Context,
    units: &'a [String],
    transaction: &Transaction,
) -> Result<Vec<&'a String>, ActionError> {
    let systemd = cx.host.systemd().await?;
    let mut starters = BTreeMap::new();
    for unit in units {
        let facts = systemd.facts(unit).await?;
        let mut before = Vec::new();
        let upholding = facts.upheld_by().into_iter().map(str::to_owned);
        for starter in facts.triggered_by.iter().cloned().chain(upholding) {
            let with = transaction.stops.iter().find(|stop| stop.unit == starter);
            let names = match with {
                Some(stop) => vec![stop.with.clone()],
                None => systemd.facts(&starter).await?.names,
            };
            before.extend(units.iter().filter(|other| names.contains(other)));
        }
        starters.insert(unit, before);
    }
    let kinds = [".socket", ".timer", ".path"];
    let is_trigger = |unit: &&String| kinds.iter().any(|kind| unit.ends_with(kind));
    let (triggers, others): (Vec<_>, Vec<_>) = units.iter().partition(is_trigger);
    Ok(after_their_starters(
        triggers.into_iter().chain(others),
        &starters,
    ))
}

/// The units in their order, but each behind those that start it. A circle is
/// cut somewhere.
fn after_their_starters<'a>(
    units: impl Iterator<Item = &'a String>,
    starters: &BTreeMap<&'a String, Vec<&'a String>>,
) -> Vec<&'a String> {
    let mut order: Vec<&String> = Vec::new();
    for unit in units {
        let (mut open, mut seen) = (vec![unit], Vec::new());
        while let Some(&one) = open.last() {
            seen.push(one);
            let mut before = starters.get(one).into_iter().flatten();
            match before.find(|other| !seen.contains(other) && !order.contains(other)) {
                Some(other) => open.push(other),
                None => {
                    open.pop();
                    if !order.contains(&one) {
                        order.push(one);
                    }
                }
            }
        }
    }
    order
}

/// The units of the step and those that are stopped with them.
fn affected(units: &[String], transaction: &Transaction) -> Vec<String> {
    let others = transaction.stops.iter().map(|change| change.unit.clone());
    units.iter().cloned().chain(others).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_behind_what_starts_it() {
        let [a, b, c, d] = ["a", "b", "c", "d"].map(str::to_owned);
        let starters = BTreeMap::from([(&a, vec![&b]), (&b, vec![&c]), (&d, vec![&a])]);
        let order = |starters| after_their_starters([&a, &b, &c, &d].into_iter(), starters);
        assert_eq!(order(&starters), [&c, &b, &a, &d]);
        let circle = BTreeMap::from([(&a, vec![&b]), (&b, vec![&a])]);
        assert_eq!(order(&circle), [&b, &a, &c, &d]);
        assert_eq!(order(&BTreeMap::new()), [&a, &b, &c, &d]);
    }
}
