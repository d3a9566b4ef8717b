//! Logs, traces and error chains of every Lockstep process.
//!
//! [`init`] sets up logs and traces: log lines go to standard error, spans to an OTLP
//! collector if one is configured. Without a collector spans still have
//! valid ids, so that every log line and message can name its trace.
//!
//! A run is one trace: the coordinator creates its [`TraceContext`] once, journals
//! it, and every span of the run in any process has it as an ancestor.

mod chain;
mod config;
mod context;
mod subscriber;

pub use chain::error_chain;
pub use config::TelemetrySection;
pub use context::{ParseTraceparentError, TraceContext, set_parent, traceparent_of};
pub use subscriber::{Guard, InitError, LogFormat, TelemetryConfig, init};
