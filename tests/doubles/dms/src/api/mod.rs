//! The HTTP interface: DMS at `/` (awsJson1.1), CloudWatch under `/service/…`
//! (Smithy rpc-v2-cbor), and `/control/…` for the range.
//!
//! Signatures are not checked: the server listens on loopback only.

pub mod cbor;
pub mod cloudwatch;
pub mod control;
pub mod dms;
pub mod errors;

use crate::metrics::Metrics;
use crate::task::faults::{Call, CallFault};
use crate::task::registry::Registry;
use crate::task::state::now_ms;
use axum::Router;
use axum::routing::{get, post};
use errors::{Code, Fault};
use std::sync::Arc;

/// What every handler needs.
#[derive(Clone)]
pub struct App {
    /// Tasks, endpoints, faults, timing.
    pub registry: Arc<Registry>,
    pub metrics: Arc<Metrics>,
}

pub fn router(app: App) -> Router {
    Router::new()
        .route("/", post(dms::handle))
        .route(
            "/service/GraniteServiceVersion20100801/operation/{operation}",
            post(cloudwatch::handle),
        )
        .route("/control/health", get(control::health))
        .route(
            "/control/calls",
            get(control::calls).delete(control::forget_calls),
        )
        .route("/control/tasks", get(control::tasks))
        .route("/control/alarms", get(control::alarms))
        .route("/control/endpoints", get(control::endpoints))
        .route("/control/metrics", post(control::publish))
        .route(
            "/control/timing",
            get(control::timing).put(control::set_timing),
        )
        .route(
            "/control/faults",
            get(control::faults)
                .post(control::arm)
                .delete(control::disarm),
        )
        .with_state(app)
}

impl App {
    /// Applies the range's faults to a call, carries it out and logs it.
    fn call<T>(
        &self,
        service: &'static str,
        operation: &str,
        parameters: serde_json::Value,
        carry_out: impl FnOnce(&serde_json::Value) -> Result<T, Fault>,
    ) -> Result<T, Fault> {
        let outcome = match self.registry.faults.for_call(operation) {
            Some(CallFault::Denied) => Err(denied(operation)),
            Some(CallFault::Throttled) => Err(Fault {
                code: Code::ThrottlingException,
                message: "Rate exceeded".into(),
            }),
            None => carry_out(&parameters),
        };
        self.registry.faults.record(Call {
            epoch_ms: now_ms(),
            service,
            operation: operation.into(),
            parameters,
            error: outcome.as_ref().err().map(|f| f.code.name().into()),
        });
        outcome
    }
}

/// A denial is modelled for some operations only; elsewhere it is the general one.
fn denied(operation: &str) -> Fault {
    const MODELLED: [&str; 4] = [
        "CreateReplicationTask",
        "StartReplicationTask",
        "DescribeTableStatistics",
        "TestConnection",
    ];
    Fault {
        code: if MODELLED.contains(&operation) {
            Code::AccessDeniedFault
        } else {
            Code::AccessDeniedException
        },
        message: format!("User: arn:aws:iam::rehearsal is not authorized to perform: {operation}"),
    }
}
