//! `service.stop`: stops units, and disables them where the plan says so.

use super::{States, absent, existing, put_all_back, required_permissions, settle, states};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::systemd::Job;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::StopService;
use serde_json::Value;
use std::time::Duration;

pub struct Stop;

impl Stop {
    fn is_so(states: &States, params: &StopService) -> bool {
        states
            .values()
            .all(|state| state.is_down() && !(params.enablement && state.is_enabled()))
    }
}

#[async_trait]
impl Action for Stop {
    type Params = StopService;

    fn required_permissions(&self, params: &StopService) -> Vec<Permission> {
        required_permissions(&params.units)
    }

    async fn probe(&self, cx: &Context, params: &StopService) -> Result<Probe, ActionError> {
        let states = existing(cx, &params.units).await?;
        let finding = satisfied_if(Self::is_so(&states, params));
        with_before_image(finding, &states)
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
        if let Some(unheld) = description.obstacle(settle::unheld_triggers(cx, &params.units).await)
        {
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
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StopService,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let systemd = cx.host.systemd().await?;
        if let Some(unheld) = settle::unheld_triggers(cx, &params.units)
            .await?
            .into_iter()
            .next()
        {
            return Err(ActionError::new(Code::LS2106, unheld).state_left("nothing was stopped"));
        }
        for unit in &params.units {
            if params.enablement && systemd.state(unit).await?.is_enabled() {
                systemd.set_enabled(unit, false).await?;
                cx.note(format!("{unit}: disabled"));
            }
            let limit = Duration::from_secs(params.timeout_secs);
            systemd.run(Job::Stop, unit, limit).await?;
            settle::wait_for_triggered(cx, unit, limit).await?;
            cx.note(format!("{unit}: stopped"));
        }
        settle::stay_down(cx, &params.units).await?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &StopService,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let states: States = decode_before_image(before_image)?;
        let changed = put_all_back(
            cx,
            params.units.iter().rev(),
            &states,
            Duration::from_secs(params.timeout_secs),
        )
        .await?;
        Ok(Undone::restored_if(changed))
    }
}
