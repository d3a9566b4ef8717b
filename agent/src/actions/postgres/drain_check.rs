//! `postgres.drain.check`: after the task has stopped, nothing is pending,
//! suspended or excepted.
//!
//! The markers arrived while the task was still running. It went on until it
//! was stopped, and failures in between are recorded only in its control
//! tables. Nothing changes any more, so one check is enough.

use super::control;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::PostgresDrain;
use serde_json::Value;

pub struct Check;

#[async_trait]
impl Action for Check {
    type Params = PostgresDrain;

    fn required_permissions(&self, params: &PostgresDrain) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresDrain) -> Result<Probe, ActionError> {
        control::exceptions_before(&params.apply_exceptions)?;
        Session::open(cx, &params.resource).await?;
        // Only a check after the release counts.
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &PostgresDrain,
    ) -> Result<Description, ActionError> {
        Ok(Description::of([format!(
            "query DMS's control tables in {}",
            params.control_schema
        )]))
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &PostgresDrain,
    ) -> Result<Description, ActionError> {
        let mut foreseen = self.describe(cx, params).await?;
        let session = Session::open(cx, &params.resource).await?;
        foreseen.obstacle(control::pending(&session, &params.control_schema).await);
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresDrain,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let schema = &params.control_schema;
        let before = control::exceptions_before(&params.apply_exceptions)?;
        let session = Session::open(cx, &params.resource).await?;
        control::unharmed(&session, schema, before).await?;
        let pending = control::pending(&session, schema).await?;
        if pending > 0 {
            return Err(ActionError::new(
                Code::LS2326,
                format!("the task has stopped with {pending} changes pending"),
            )
            .state_left("nothing was changed; PostgreSQL may lack these changes")
            .remedy(format!(
                "see {schema}.{} and the task's log, then roll back",
                control::STATUS
            )));
        }
        cx.note(format!(
            "no new exception, no suspended table and nothing pending in {schema}"
        ));
        Ok(Outputs::new())
    }
}
