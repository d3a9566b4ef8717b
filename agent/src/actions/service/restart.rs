//! `service.restart`: restarts units one after the other.
//!
//! A restart leaves no trace in a unit's state, so there is nothing to
//! restore, and after a crash the probe can't tell whether it happened. Its
//! before-image is for `execute`: which units were active, and are started again.

use super::record::Records;
use super::transaction::{Change, Transaction};
use super::{States, ability, absent, images, required_permissions, settle, states};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, decode_before_image, with_before_image,
};
use crate::host::systemd::{Job, UnitState};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::actions::ActionSpec as _;
use lockstep_plan::catalogue::RestartService;
use serde_json::Value;
use std::time::Duration;

pub struct Restart;

impl Restart {
    /// What a restart stops and starts besides its units: both of a stop and of a start.
    async fn transaction(cx: &Context, units: &[String]) -> Result<Transaction, ActionError> {
        let mut transaction = Transaction::of_start(cx, units).await?;
        let stops = Transaction::of_stop(cx, units).await?;
        transaction.stops.extend(stops.stops);
        transaction.unsettled.extend(stops.unsettled);
        Ok(transaction)
    }

    async fn obstacles(
        cx: &Context,
        units: &[String],
        transaction: &Transaction,
    ) -> Result<Vec<String>, ActionError> {
        let systemd = cx.host.systemd().await?;
        let mut obstacles = Vec::new();
        for unit in units {
            let facts = systemd.facts(unit).await?;
            obstacles.extend(ability::cannot_stop_and_start(unit, &facts));
        }
        obstacles.extend(ability::unsettled(transaction, &Records::new()));
        obstacles.extend(ability::unlisted(cx, RestartService::NAME, transaction));
        Ok(obstacles)
    }
}

#[async_trait]
impl Action for Restart {
    type Params = RestartService;

    fn required_permissions(&self, params: &RestartService) -> Vec<Permission> {
        required_permissions(&params.units)
    }

    async fn probe(&self, cx: &Context, params: &RestartService) -> Result<Probe, ActionError> {
        let restart = || Self::transaction(cx, &params.units);
        let transaction = settle::settled(&Records::new(), restart).await?;
        let states = images(cx, &params.units, &transaction, false).await?;
        ability::refuse(Self::obstacles(cx, &params.units, &transaction).await?)?;
        with_before_image(Finding::Indeterminate, &states)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestartService,
    ) -> Result<Description, ActionError> {
        let states = states(cx, &params.units).await?;
        let mut description = Description {
            obstacles: absent(&states),
            ..Description::default()
        };
        if !description.obstacles.is_empty() {
            return Ok(description);
        }
        let systemd = cx.host.systemd().await?;
        let defaults = systemd.default_timeouts().await?;
        let limit = Duration::from_secs(params.timeout_secs);
        for (unit, state) in &states {
            if is_left(state) {
                let left = format!("{unit} is inactive, so it is not restarted");
                description.remarks.push(left);
                continue;
            }
            let restart = format!("RestartUnit {unit} (now {})", state.active);
            description.would_do.push(restart);
            let facts = systemd.facts(unit).await?;
            ability::compare_timeouts(&mut description, unit, &facts, defaults, limit);
        }
        let transaction = Self::transaction(cx, &params.units).await?;
        for Change { unit, with, .. } in &transaction.stops {
            let also = format!("RestartUnit {with} also stops {unit}, which is started again");
            description.would_do.push(also);
        }
        for Change { unit, with, .. } in &transaction.starts {
            let also = format!("RestartUnit {with} also starts {unit}");
            description.would_do.push(also);
        }
        if let Some(obstacles) =
            description.obstacle(Self::obstacles(cx, &params.units, &transaction).await)
        {
            description.obstacles.extend(obstacles);
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestartService,
        before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let before: States = match before_image {
            Some(before_image) => decode_before_image(before_image)?,
            None => {
                let transaction = Self::transaction(cx, &params.units).await?;
                images(cx, &params.units, &transaction, false).await?
            }
        };
        let limit = Duration::from_secs(params.timeout_secs);
        let mut up = Vec::new();
        for unit in &params.units {
            if before.get(unit).is_some_and(is_left) {
                cx.note(format!("{unit}: not restarted, it was inactive"));
                continue;
            }
            up.push(settle::bring_up(cx, Job::Restart, unit, limit).await?);
            cx.effect(format!("{unit}: restarted"));
        }
        let others = before
            .iter()
            .filter(|(_, was)| was.is_up() && !was.is_running_once())
            .filter(|(unit, _)| !params.units.contains(unit));
        for (unit, _) in others {
            if !cx.host.systemd().await?.facts(unit).await?.is_up() {
                up.push(settle::bring_up(cx, Job::Start, unit, limit).await?);
                cx.effect(format!("{unit}: started again after the restart"));
            }
        }
        settle::stay_up(cx, &up).await?;
        Ok(Outputs::new())
    }
}

/// It was stopped, and isn't started by a restart. A failed unit is: nobody has stopped
/// it.
fn is_left(was: &UnitState) -> bool {
    was.active == "inactive"
}
