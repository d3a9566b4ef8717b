//! `service.start`: starts units, last named first, and enables them where the
//! plan says so.

use super::{States, absent, existing, put_all_back, required_permissions, settle, states};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::systemd::Job;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::StartService;
use serde_json::Value;
use std::time::Duration;

pub struct Start;

#[async_trait]
impl Action for Start {
    type Params = StartService;

    fn required_permissions(&self, params: &StartService) -> Vec<Permission> {
        required_permissions(&params.units)
    }

    async fn probe(&self, cx: &Context, params: &StartService) -> Result<Probe, ActionError> {
        let states = existing(cx, &params.units).await?;
        let so = states
            .values()
            .all(|state| state.active == "active" && (!params.enablement || state.is_enabled()));
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
        for (unit, state) in &states {
            if params.enablement && !state.is_enabled() {
                description.would_do.push(format!("EnableUnitFiles {unit}"));
            }
            description
                .would_do
                .push(format!("StartUnit {unit} (now {})", state.active));
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StartService,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let systemd = cx.host.systemd().await?;
        let mut up = Vec::new();
        for unit in params.units.iter().rev() {
            if params.enablement && !systemd.state(unit).await?.is_enabled() {
                systemd.set_enabled(unit, true).await?;
                cx.note(format!("{unit}: enabled"));
            }
            let limit = Duration::from_secs(params.timeout_secs);
            up.push(settle::bring_up(cx, Job::Start, unit, limit).await?);
            cx.note(format!("{unit}: started"));
        }
        settle::stay_up(cx, &up).await?;
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &StartService,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let states: States = decode_before_image(before_image)?;
        let changed = put_all_back(
            cx,
            params.units.iter(),
            &states,
            Duration::from_secs(params.timeout_secs),
        )
        .await?;
        Ok(Undone::restored_if(changed))
    }
}
