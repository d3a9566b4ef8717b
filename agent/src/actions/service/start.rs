//! `service.start`: starts units, last named first, and enables them where the
//! plan says so.

use super::record::{self, Record, Records};
use super::transaction::{Change, Transaction};
use super::{
    Restoring, States, ability, absent, images, report_links, required_permissions, settle,
    sockets_first, states,
};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::systemd::{Job, UnitState};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::Probe;
use lockstep_plan::actions::ActionSpec as _;
use lockstep_plan::catalogue::StartService;
use serde_json::Value;
use std::time::Duration;

pub struct Start;

impl Start {
    /// What prevents the start or its undo, a sentence each.
    async fn obstacles(
        cx: &Context,
        params: &StartService,
        transaction: &Transaction,
    ) -> Result<Vec<String>, ActionError> {
        let systemd = cx.host.systemd().await?;
        let mut obstacles = Vec::new();
        for unit in &params.units {
            let facts = systemd.facts(unit).await?;
            obstacles.extend(ability::cannot_start_and_stop(unit, &facts));
            let rival = |name: &&str| {
                let other = params.units.iter().find(|other| other == name);
                other.is_some_and(|other| !facts.names.contains(other))
            };
            if let Some(rival) = facts.ends().into_iter().find(rival) {
                obstacles.push(format!(
                    "{unit} and {rival} conflict (Conflicts=), so they can't both be started; name only \
                     one of them in the step"
                ));
            }
        }
        obstacles.extend(ability::unsettled(transaction, &Records::new()));
        obstacles.extend(ability::unlisted(cx, StartService::NAME, transaction));
        Ok(obstacles)
    }

    /// The units to start: not those that were inactive before this run stopped the
    /// others.
    fn wanted<'a>(records: &Records, units: &'a [String]) -> Vec<&'a String> {
        let left = |unit: &&String| records.get(*unit).is_some_and(|record| !record.start);
        units.iter().filter(|unit| !left(unit)).collect()
    }

    /// Units that this run stopped along with those of the step.
    fn stopped_with<'a>(records: &'a Records, units: &[String]) -> Vec<&'a String> {
        let with = |record: &Record| {
            record
                .with
                .as_ref()
                .is_some_and(|with| units.contains(with))
        };
        let due = records
            .iter()
            .filter(|(_, record)| record.start && with(record));
        due.map(|(unit, _)| unit).collect()
    }

    /// Enables a unit, or puts back the links that this run has removed.
    async fn enable(cx: &Context, unit: &str, records: &Records) -> Result<(), ActionError> {
        let systemd = cx.host.systemd().await?;
        let links = match records.get(unit).and_then(|record| record.links.as_ref()) {
            Some(links) => systemd.restore_links(unit, links, false).await?,
            None if systemd.state(unit).await?.is_enabled() => Vec::new(),
            None => systemd.enable(unit).await?,
        };
        report_links(cx, unit, "created", &links);
        Ok(())
    }

    /// Starts a unit, unless it is a oneshot that an earlier attempt has run.
    async fn start(
        cx: &Context,
        unit: &str,
        was: Option<&UnitState>,
        limit: Duration,
    ) -> Result<Option<settle::Started>, ActionError> {
        let now = cx.host.systemd().await?.facts(unit).await?;
        let ran_since = was.is_some_and(|was| {
            now.has_run()
                && now.result == "success"
                && !now.invocation.is_empty()
                && now.invocation != was.invocation
        });
        if ran_since || record::has_run(cx, &now.id)? {
            cx.note(format!(
                "{unit}: an earlier attempt has run it successfully"
            ));
            return Ok(None);
        }
        let up = settle::bring_up(cx, Job::Start, unit, limit).await?;
        if !now.is_active() {
            cx.effect(format!("{unit}: started"));
        }
        Ok(Some(up))
    }
}

#[async_trait]
impl Action for Start {
    type Params = StartService;

    fn required_permissions(&self, params: &StartService) -> Vec<Permission> {
        required_permissions(&params.units)
    }

    async fn probe(&self, cx: &Context, params: &StartService) -> Result<Probe, ActionError> {
        let start = || Transaction::of_start(cx, &params.units);
        let transaction = settle::settled(&Records::new(), start).await?;
        let states = images(cx, &params.units, &transaction, params.enablement).await?;
        ability::refuse(Self::obstacles(cx, params, &transaction).await?)?;
        let records = record::of_run(cx, &params.units).await?;
        let wanted = Self::wanted(&records, &params.units);
        let so = wanted.iter().all(|unit| {
            states.get(*unit).is_some_and(|state| {
                let enabled = !params.enablement || state.is_enabled();
                state.active == "active" && enabled && !records.contains_key(*unit)
            })
        });
        with_before_image(satisfied_if(so), &states)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &StartService,
    ) -> Result<Description, ActionError> {
        let states = states(cx, &params.units).await?;
        let mut description = Description {
            obstacles: absent(&states),
            ..Description::default()
        };
        if !description.obstacles.is_empty() {
            return Ok(description);
        }
        for (unit, state) in &states {
            if params.enablement && !state.is_enabled() {
                description.would_do.push(format!("EnableUnitFiles {unit}"));
            }
            description
                .would_do
                .push(format!("StartUnit {unit} (now {})", state.active));
        }
        let transaction = Transaction::of_start(cx, &params.units).await?;
        for Change { unit, with, facts } in &transaction.starts {
            description.would_do.push(format!(
                "StartUnit {with} also starts {unit} (now {})",
                facts.active
            ));
        }
        for Change { unit, with, .. } in &transaction.stops {
            description.would_do.push(format!(
                "StartUnit {with} also stops {unit} (Conflicts=), which undo starts again"
            ));
        }
        if let Some(obstacles) =
            description.obstacle(Self::obstacles(cx, params, &transaction).await)
        {
            description.obstacles.extend(obstacles);
        }
        let systemd = cx.host.systemd().await?;
        let defaults = systemd.default_timeouts().await?;
        let limit = Duration::from_secs(params.timeout_secs);
        for unit in &params.units {
            let facts = systemd.facts(unit).await?;
            ability::compare_timeouts(&mut description, unit, &facts, defaults, limit);
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StartService,
        before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let before: States = match before_image {
            Some(before_image) => decode_before_image(before_image)?,
            None => States::new(),
        };
        let records = record::of_run(cx, &params.units).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let wanted = Self::wanted(&records, &params.units);
        let ended = Transaction::of_start(cx, &params.units).await?.stops;
        let mut up = Vec::new();
        for unit in sockets_first(params.units.iter().rev()) {
            if params.enablement {
                Self::enable(cx, unit, &records).await?;
            }
            if !wanted.contains(&unit) {
                cx.note(format!(
                    "{unit}: not started, it was inactive before this run, or a oneshot that its stop \
                     cut off"
                ));
                continue;
            }
            up.extend(Self::start(cx, unit, before.get(unit), limit).await?);
        }
        for Change { unit, with, .. } in &ended {
            if cx.host.systemd().await?.state(unit).await?.is_down() {
                cx.effect(format!("{unit}: stopped by the start of {with}"));
            }
        }
        for unit in Self::stopped_with(&records, &params.units) {
            if !cx.host.systemd().await?.facts(unit).await?.is_active() {
                up.push(settle::bring_up(cx, Job::Start, unit, limit).await?);
                cx.effect(format!(
                    "{unit}: started, it was stopped with others of the step"
                ));
            }
        }
        settle::stay_up(cx, &up).await?;
        let others = Self::stopped_with(&records, &params.units);
        let due: Vec<&String> = wanted.into_iter().chain(others).collect();
        record::forget(cx, &due).await?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &StartService,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let states: States = decode_before_image(before_image)?;
        let restoring = Restoring {
            cx,
            units: params.units.iter().rev().collect(),
            states: &states,
            enablement: params.enablement,
            exact_links: true,
            limit: Duration::from_secs(params.timeout_secs),
        };
        let changed = restoring.restore().await?;
        record::forget_runs(cx)?;
        Ok(Undone::restored_if(changed))
    }
}
