//! Dashboards: kept and given back.

use crate::api::App;
use crate::api::cbor;
use crate::api::errors::{Code, Fault};
use serde::{Deserialize, Serialize};
use serde_json::Value;

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct PutDashboard {
    dashboard_name: String,
    dashboard_body: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct DashboardMessages {
    dashboard_validation_messages: [(); 0],
}

pub(super) fn put(app: &App, request: PutDashboard) -> Result<Vec<u8>, Fault> {
    let body: Result<Value, _> = serde_json::from_str(&request.dashboard_body);
    if !body.is_ok_and(|b| b.get("widgets").is_some_and(Value::is_array)) {
        return Err(Fault {
            code: Code::DashboardInvalidInputError,
            message:
                "The field DashboardBody must be a valid JSON object with an array \"widgets\""
                    .into(),
        });
    }
    app.metrics
        .put_dashboard(request.dashboard_name, request.dashboard_body)
        .map_err(Fault::invalid)?;
    cbor::encode(&DashboardMessages {
        dashboard_validation_messages: [],
    })
}

#[derive(Deserialize)]
#[serde(rename_all = "PascalCase")]
pub(super) struct GetDashboard {
    dashboard_name: String,
}

#[derive(Serialize)]
#[serde(rename_all = "PascalCase")]
struct Dashboard<'a> {
    dashboard_arn: String,
    dashboard_body: String,
    dashboard_name: &'a str,
}

pub(super) fn get(app: &App, request: &GetDashboard) -> Result<Vec<u8>, Fault> {
    let name = &request.dashboard_name;
    let body = app.metrics.dashboard(name).ok_or_else(|| Fault {
        code: Code::DashboardNotFoundError,
        message: format!("Dashboard {name} does not exist"),
    })?;
    cbor::encode(&Dashboard {
        dashboard_arn: app.registry.resources.arns.dashboard(name),
        dashboard_body: body,
        dashboard_name: name,
    })
}
