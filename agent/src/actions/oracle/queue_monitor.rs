//! `oracle.queue_monitor.disable` and `oracle.queue_monitor.restore`:
//! AQ_TM_PROCESSES.
//!
//! Oracle strongly recommends against 0, which disables time management of
//! queues, and against setting the parameter at all. If nothing had set it
//! before, it is therefore restored by RESET (Oracle Database Advanced Queuing
//! User's Guide, "AQ_TM_PROCESSES Parameter").

use super::parameters::{Parameter, Values, restore, shown};
use super::{required_permissions, saved_state};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::{DisableQueueMonitor, RestoreQueueMonitor, Scope};
use serde_json::Value;

const KIND: &str = "queue-monitor";

const MONITOR: Parameter = Parameter {
    name: "aq_tm_processes",
};

/// `oracle.queue_monitor.disable`
pub struct Disable;

/// `oracle.queue_monitor.restore`
pub struct Restore;

#[async_trait]
impl Action for Disable {
    type Params = DisableQueueMonitor;

    fn required_permissions(&self, params: &DisableQueueMonitor) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(
        &self,
        cx: &Context,
        params: &DisableQueueMonitor,
    ) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let values = MONITOR.values(&session).await?;
        let so =
            values.is_off_in_memory() && (params.scope == Scope::Memory || values.is_off_in_file());
        with_before_image(satisfied_if(so), &values)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DisableQueueMonitor,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let values = MONITOR.values(&session).await?;
        let mut description = Description::of([MONITOR.off_in_memory()]);
        if params.scope == Scope::Both {
            description.would_do.extend(MONITOR.off_in_file(&values));
        }
        description.remarks.push(shown(MONITOR, &values));
        description.remarks.push(
            "Oracle recommends against 0: delayed and expired messages wait until it is put back"
                .to_owned(),
        );
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DisableQueueMonitor,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let values = MONITOR.values(&session).await?;
        saved_state::save(cx, &params.resource, KIND, &values)?;
        let mut statements = vec![MONITOR.off_in_memory()];
        if params.scope == Scope::Both {
            statements.extend(MONITOR.off_in_file(&values));
        }
        for statement in statements {
            session.execute(&statement, &[]).await?;
            cx.effect(statement);
        }
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DisableQueueMonitor,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Values = decode_before_image(before_image)?;
        let session = Session::open(cx, &params.resource).await?;
        let file = params.scope == Scope::Both;
        let undone = MONITOR.restore(cx, &session, &before, file).await?;
        saved_state::done::<Values>(cx, &params.resource, KIND, &undone)?;
        Ok(undone)
    }
}

#[async_trait]
impl Action for Restore {
    type Params = RestoreQueueMonitor;

    fn required_permissions(&self, params: &RestoreQueueMonitor) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(
        &self,
        cx: &Context,
        params: &RestoreQueueMonitor,
    ) -> Result<Probe, ActionError> {
        let before: Values = saved_state::recall_first(cx, &params.resource, KIND)?;
        let session = Session::open(cx, &params.resource).await?;
        let so = MONITOR.values(&session).await? == before;
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestoreQueueMonitor,
    ) -> Result<Description, ActionError> {
        let before: Values = saved_state::recall_first(cx, &params.resource, KIND)?;
        Ok(Description::of([format!(
            "ALTER SYSTEM until {}",
            shown(MONITOR, &before)
        )]))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestoreQueueMonitor,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let before: Values = saved_state::recall_first(cx, &params.resource, KIND)?;
        let session = Session::open(cx, &params.resource).await?;
        restore(cx, &session, MONITOR, &before).await?;
        saved_state::forget(cx, &params.resource, KIND)?;
        Ok(Outputs::new())
    }
}
