//! `check.tcp`: whether a port answers, or no longer does.

use super::persist;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{CheckTcp, PortState};
use serde_json::Value;
use std::time::Duration;
use tokio::net::TcpStream;

/// A port that hasn't answered by then is filtered, which proves neither open
/// nor closed.
const CONNECT_LIMIT: Duration = Duration::from_secs(3);

pub struct Tcp;

async fn look(params: &CheckTcp) -> Result<(), String> {
    let connected = tokio::time::timeout(CONNECT_LIMIT, TcpStream::connect(&params.address)).await;
    match (params.expect, connected) {
        (PortState::Open, Ok(Ok(_))) => Ok(()),
        (PortState::Open, Ok(Err(e))) => Err(format!("{} doesn't answer: {e}", params.address)),
        (PortState::Closed, Ok(Err(e))) if e.kind() == std::io::ErrorKind::ConnectionRefused => {
            Ok(())
        }
        (PortState::Closed, Ok(Ok(_))) => Err(format!("{} still answers", params.address)),
        (PortState::Closed, Ok(Err(e))) => Err(format!(
            "{} can't be said to be closed: {e}",
            params.address
        )),
        (_, Err(_)) => Err(format!(
            "{} doesn't answer within {} s",
            params.address,
            CONNECT_LIMIT.as_secs()
        )),
    }
}

#[async_trait]
impl Action for Tcp {
    type Params = CheckTcp;

    fn required_permissions(&self, params: &CheckTcp) -> Vec<Permission> {
        vec![Permission::Address(params.address.clone())]
    }

    async fn probe(&self, _cx: &Context, _params: &CheckTcp) -> Result<Probe, ActionError> {
        Ok(found(Finding::Pending))
    }

    async fn describe(&self, _cx: &Context, params: &CheckTcp) -> Result<Description, ActionError> {
        let state = match params.expect {
            PortState::Open => "open",
            PortState::Closed => "closed",
        };
        Ok(Description::of([format!(
            "connect to {}, expect it {state}",
            params.address
        )]))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &CheckTcp,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        persist(cx, &params.address, params.within_secs, || look(params)).await?;
        Ok(Outputs::new())
    }
}
