//! `oracle.canary.await`: waits until the row written in PostgreSQL has arrived
//! in Oracle, which proves that the reverse replication works. Undo removes the
//! row.

use super::names::Qualified;
use super::{POLL_INTERVAL, required_permissions};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, with_before_image,
};
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::OracleCanary;
use serde_json::{Value, json};
use std::time::Duration;
use tokio::time::Instant;

pub struct Await;

async fn arrived(session: &Session, params: &OracleCanary) -> Result<bool, ActionError> {
    let table = Qualified::read(&params.canary_table)?;
    let sql = format!("SELECT COUNT(*) FROM {} WHERE NONCE = :1", table.sql());
    let rows: i64 = session.row(&sql, &[params.nonce.as_str().into()]).await?;
    Ok(rows > 0)
}

#[async_trait]
impl Action for Await {
    type Params = OracleCanary;

    fn required_permissions(&self, params: &OracleCanary) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleCanary) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        // The table must exist. It is pending even if the row exists: the row
        // is this run's own, and this task's undo removes it.
        arrived(&session, params).await?;
        with_before_image(Finding::Pending, &json!({"nonce": params.nonce}))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &OracleCanary,
    ) -> Result<Description, ActionError> {
        Ok(Description::of([format!(
            "wait up to {} s for the row {} in {}",
            params.timeout_secs, params.nonce, params.canary_table
        )]))
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &OracleCanary,
    ) -> Result<Description, ActionError> {
        let mut foreseen = self.describe(cx, params).await?;
        let session = Session::open(cx, &params.resource).await?;
        // No row has that nonce yet; the query checks the privileges.
        foreseen.obstacle(arrived(&session, params).await);
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OracleCanary,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let began = Instant::now();
        let limit = Duration::from_secs(params.timeout_secs);
        while !arrived(&session, params).await? {
            if began.elapsed() >= limit {
                return Err(ActionError::new(
                    Code::LS2280,
                    format!(
                        "the canary {} has not come back to {} within {} s",
                        params.nonce, params.canary_table, params.timeout_secs
                    ),
                )
                .state_left("the rollback path to Oracle is not proved")
                .remedy(
                    "see the reverse task's log and latency, and that it maps the canary table; \
                     then retry",
                ));
            }
            tokio::time::sleep(POLL_INTERVAL).await;
        }
        cx.note(format!("returned after {} ms", began.elapsed().as_millis()));
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &OracleCanary,
        _before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let table = Qualified::read(&params.canary_table)?;
        let session = Session::open(cx, &params.resource).await?;
        let delete = format!("DELETE FROM {} WHERE NONCE = :1", table.sql());
        let binds = vec![params.nonce.as_str().into()];
        let removed = session.transaction(vec![(delete, binds)]).await?;
        if removed > 0 {
            cx.effect(format!(
                "deleted the canary {} from {}",
                params.nonce, params.canary_table
            ));
        }
        Ok(Undone::restored_if(removed > 0))
    }
}
