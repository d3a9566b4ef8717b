//! `check.http`: whether a health endpoint reports that the application is
//! healthy.

use super::persist;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::policy::Permission;
use async_trait::async_trait;
use http_body_util::{BodyExt, Empty, Limited};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::CheckHttp;
use serde_json::Value;
use std::time::Duration;

/// An endpoint that takes longer is not healthy.
const ANSWER_LIMIT: Duration = Duration::from_secs(5);
/// How much of the body is searched for the expected text.
const BODY_LIMIT: usize = 64 * 1024;

pub struct Http;

async fn look(params: &CheckHttp) -> Result<(), String> {
    let uri: http::Uri = params.url.parse().map_err(|e| format!("not a URL: {e}"))?;
    let client: Client<HttpConnector, Empty<&'static [u8]>> =
        Client::builder(TokioExecutor::new()).build_http();
    let ask = async {
        let response = client
            .get(uri)
            .await
            .map_err(|e| format!("no answer: {}", lockstep_telemetry::error_chain(&e)))?;
        let status = response.status().as_u16();
        if status != params.status {
            return Err(format!("status {status} instead of {}", params.status));
        }
        let Some(wanted) = &params.contains else {
            return Ok(());
        };
        let body = Limited::new(response.into_body(), BODY_LIMIT)
            .collect()
            .await
            .map_err(|e| format!("the body can't be read: {e}"))?
            .to_bytes();
        let text = String::from_utf8_lossy(&body);
        if text.contains(wanted.as_str()) {
            Ok(())
        } else {
            Err(format!("the body lacks {wanted:?}"))
        }
    };
    tokio::time::timeout(ANSWER_LIMIT, ask)
        .await
        .unwrap_or_else(|_| Err(format!("no answer within {} s", ANSWER_LIMIT.as_secs())))
}

#[async_trait]
impl Action for Http {
    type Params = CheckHttp;

    fn required_permissions(&self, _params: &CheckHttp) -> Vec<Permission> {
        Vec::new()
    }

    async fn probe(&self, _cx: &Context, params: &CheckHttp) -> Result<Probe, ActionError> {
        if params.url.starts_with("http://") {
            return Ok(found(Finding::Pending));
        }
        Err(ActionError::new(
            Code::LS2161,
            format!("{} is not an http:// address", params.url),
        )
        .state_left("nothing was done")
        .remedy("name the local, unencrypted health port, or use check.command"))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &CheckHttp,
    ) -> Result<Description, ActionError> {
        let line = format!("GET {}, expect {}", params.url, params.status);
        let mut description = Description::of([line]);
        if let Err(problem) = look(params).await {
            description.remarks.push(format!("now: {problem}"));
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &CheckHttp,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        persist(cx, &params.url, params.within_secs, || look(params)).await?;
        Ok(Outputs::new())
    }
}
