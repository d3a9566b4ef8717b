//! `dms.connection.test`: the replication instance reaches each endpoint.
//! Leaves nothing behind.

use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::dms::{Dms, Poll};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DmsConnection;
use serde_json::Value;
use std::time::Duration;

pub struct Test;

async fn test(
    cx: &Context,
    dms: &Dms,
    params: &DmsConnection,
    endpoint: &str,
) -> Result<(), ActionError> {
    let limit = Duration::from_secs(params.timeout_secs);
    let mut poll = Poll::begin(cx, limit);
    match dms.test_connection(&params.instance, endpoint).await {
        // It is being tested already; the outcome of that test is as good.
        Err(refused) if refused.is_wrong_state() => {}
        done => done?,
    }
    let failed = |what: String| {
        ActionError::new(Code::LS2419, what)
            .state_left("nothing was changed")
            .remedy("see security groups, listener, user and password of the endpoint, then retry")
    };
    loop {
        let connection = dms.connection(&params.instance, endpoint).await?;
        match connection.as_ref().map(|one| one.status.as_str()) {
            Some("successful") => {
                cx.note(format!("{endpoint}: connected"));
                return Ok(());
            }
            Some("failed") => {
                let why = connection.map(|one| one.last_failure).unwrap_or_default();
                return Err(failed(format!(
                    "the replication instance can't connect to {endpoint}: {why}"
                )));
            }
            _ => {}
        }
        if !poll.again("the test of a connection").await? {
            return Err(failed(format!(
                "the test of {endpoint} has no outcome after {} s",
                limit.as_secs()
            )));
        }
    }
}

#[async_trait]
impl Action for Test {
    type Params = DmsConnection;

    fn required_permissions(&self, params: &DmsConnection) -> Vec<Permission> {
        vec![Permission::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &DmsConnection) -> Result<Probe, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        for endpoint in &params.endpoints {
            dms.endpoint(endpoint).await?;
        }
        // An earlier test proves nothing about now.
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DmsConnection,
    ) -> Result<Description, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let mut would_do = Vec::new();
        for endpoint in &params.endpoints {
            let found = dms.endpoint(endpoint).await?;
            would_do.push(format!("TestConnection {}", found.identifier));
        }
        Ok(Description::of(would_do))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DmsConnection,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        for endpoint in &params.endpoints {
            test(cx, &dms, params, endpoint).await?;
        }
        Ok(Outputs::new())
    }
}
