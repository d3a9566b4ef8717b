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

/// Where a check connects to.
struct Endpoint {
    uri: http::Uri,
    /// `host:port`
    address: String,
}

/// Port of a URL that names none.
const HTTP_PORT: u16 = 80;

/// Reads the URL. It is shown in messages, so it may contain no password, and none of
/// it is shown if it does.
fn endpoint(params: &CheckHttp) -> Result<Endpoint, ActionError> {
    let unusable = |what: String, remedy: &str| {
        ActionError::new(Code::LS2161, what)
            .state_left("nothing was done")
            .remedy(remedy)
    };
    let uri: Option<http::Uri> = params.url.parse().ok();
    if params.url.contains('@') {
        let what = "the URL contains a user or a password, or another @".to_owned();
        let remedy = "leave it out; where the endpoint demands a login, use check.command";
        return Err(unusable(what, remedy));
    }
    let http = uri.filter(|uri| uri.scheme_str() == Some("http"));
    let Some((uri, host)) = http.and_then(|uri| {
        let host = uri.host()?.to_owned();
        Some((uri, host))
    }) else {
        let what = format!("{} is not an http:// address", params.url);
        let remedy = "name the local, unencrypted health port, or use check.command";
        return Err(unusable(what, remedy));
    };
    let address = format!("{host}:{}", uri.port_u16().unwrap_or(HTTP_PORT));
    Ok(Endpoint { uri, address })
}

async fn look(params: &CheckHttp) -> Result<(), String> {
    let uri = endpoint(params).map_err(|e| e.to_string())?.uri;
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

    /// A URL without an address needs no permission: it is refused.
    fn required_permissions(&self, params: &CheckHttp) -> Vec<Permission> {
        if params.url.contains("${") {
            return vec![Permission::Address(params.url.clone())];
        }
        let endpoint = endpoint(params).ok();
        endpoint
            .map(|endpoint| Permission::Address(endpoint.address))
            .into_iter()
            .collect()
    }

    async fn probe(&self, _cx: &Context, params: &CheckHttp) -> Result<Probe, ActionError> {
        endpoint(params).map(|_| found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &CheckHttp,
    ) -> Result<Description, ActionError> {
        endpoint(params)?;
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
        endpoint(params)?;
        persist(cx, &params.url, params.within_secs, || look(params)).await?;
        Ok(Outputs::new())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::action::AnyAction;
    use serde_json::json;

    fn params(url: &str) -> CheckHttp {
        serde_json::from_value(json!({"url": url, "within_secs": 1})).unwrap()
    }

    #[test]
    fn the_address_of_a_url_needs_permission() {
        for (url, address) in [
            ("http://127.0.0.1:8080/health", "127.0.0.1:8080"),
            ("http://app-1/health", "app-1:80"),
            ("http://[::1]:8080", "[::1]:8080"),
            ("HTTP://App-1:8080/", "App-1:8080"),
        ] {
            let needs = Action::required_permissions(&Http, &params(url));
            assert_eq!(needs, [Permission::Address(address.to_owned())], "{url}");
        }
        let open = Action::required_permissions(&Http, &params("http://${a.host}:1/"));
        assert!(open[0].is_open());
    }

    #[tokio::test]
    async fn a_password_in_a_url_is_refused_and_not_shown() {
        let cx = Context::of_test("");
        for url in [
            "http://user:canary@127.0.0.1:1/",
            "http://user:canary@127.0.0.1 :1/",
            "https://user:canary@127.0.0.1/",
            "http://127.0.0.1#:canary@169.254.169.254/",
        ] {
            let params = json!({"url": url, "within_secs": 1});
            let refused = [
                AnyAction::describe(&Http, &cx, &params).await.unwrap_err(),
                AnyAction::probe(&Http, &cx, &params).await.unwrap_err(),
                AnyAction::execute(&Http, &cx, &params, None)
                    .await
                    .unwrap_err(),
            ];
            for error in refused {
                assert_eq!(error.code(), Code::LS2161);
                assert!(!error.report().contains("canary"), "{}", error.report());
            }
        }
    }
}
