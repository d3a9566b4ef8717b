//! `service.restart`: restarts units one after the other.
//!
//! A restart leaves no trace in a unit's state, so there is nothing to
//! restore, and after a crash the probe can't tell whether it happened.

use super::{absent, existing, required_permissions, settle, states};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::systemd::Job;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::RestartService;
use serde_json::Value;
use std::time::Duration;

pub struct Restart;

#[async_trait]
impl Action for Restart {
    type Params = RestartService;

    fn required_permissions(&self, params: &RestartService) -> Vec<Permission> {
        required_permissions(&params.units)
    }

    async fn probe(&self, cx: &Context, params: &RestartService) -> Result<Probe, ActionError> {
        existing(cx, &params.units).await?;
        Ok(found(Finding::Indeterminate))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestartService,
    ) -> Result<Description, ActionError> {
        let states = states(cx, &params.units).await?;
        let would_do = states
            .iter()
            .map(|(unit, state)| format!("RestartUnit {unit} (now {})", state.active))
            .collect();
        Ok(Description {
            would_do,
            obstacles: absent(&states),
            ..Description::default()
        })
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestartService,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let mut up = Vec::new();
        for unit in &params.units {
            let limit = Duration::from_secs(params.timeout_secs);
            up.push(settle::bring_up(cx, Job::Restart, unit, limit).await?);
            cx.note(format!("{unit}: restarted"));
        }
        settle::stay_up(cx, &up).await?;
        Ok(Outputs::new())
    }
}
