//! Sets up the logs and traces of a process.

use opentelemetry::trace::TracerProvider;
use opentelemetry_otlp::{SpanExporter, WithExportConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::SdkTracerProvider;
use serde::Deserialize;
use std::fmt;
use std::io;
use std::time::Duration;
use tracing::{Level, Subscriber};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::{EnvFilter, FilterExt, ParseError, filter_fn};
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;
use tracing_subscriber::util::{SubscriberInitExt, TryInitError};

/// Time limit for exporting the last spans at exit, so that an unreachable collector
/// doesn't delay the stop of the service.
const FLUSH_TIMEOUT: Duration = Duration::from_secs(3);

/// Time limit for the export of one batch.
const EXPORT_TIMEOUT: Duration = Duration::from_secs(5);

/// Filter for spans, independent of the log filter, so that a quieter log leaves no
/// gaps in traces. It excludes the exporter's libraries, whose spans would cause
/// further exports. Targets match by prefix, so it covers all Lockstep crates.
const TRACE_FILTER: &str = "off,lockstep=info";

/// Libraries whose debug lines contain what must not be in a log: AWS's the access key
/// id and signed requests, that of PostgreSQL statements with their values. Targets
/// begin with these names.
const CONFIDENTIAL: [&str; 2] = ["aws_", "tokio_postgres"];

/// Whether a line may be logged, whatever the configuration says.
fn may_be_logged(target: &str, level: Level) -> bool {
    level <= Level::INFO || !CONFIDENTIAL.iter().any(|name| target.starts_with(name))
}

/// A process's logs and traces, as a section of its configuration.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TelemetryConfig {
    /// The collector's OTLP address over gRPC, such as `http://127.0.0.1:4317`.
    /// Only plain HTTP is supported, because the collector should run on the same
    /// host. Without an address nothing is exported.
    pub otlp_endpoint: Option<String>,
    /// Log filter, such as `info` or `info,lockstep_agent=debug`.
    pub log: String,
    pub format: LogFormat,
}

impl Default for TelemetryConfig {
    fn default() -> Self {
        Self {
            otlp_endpoint: None,
            log: "info".to_owned(),
            format: LogFormat::Text,
        }
    }
}

/// Format of log lines.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Readable lines, for a terminal and journald.
    #[default]
    Text,
    /// One JSON object per line, for log collectors.
    Json,
}

/// Exports the remaining spans when dropped, within 3 seconds. Hold it until the end
/// of `main`, inside the tokio runtime.
#[must_use = "dropping the guard ends the export of spans"]
pub struct Guard {
    provider: SdkTracerProvider,
}

impl fmt::Debug for Guard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Guard").finish_non_exhaustive()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        if let Err(error) = self.provider.shutdown_with_timeout(FLUSH_TIMEOUT) {
            tracing::warn!(%error, "the last spans did not reach the collector");
        }
    }
}

/// Sets up logs and traces for the whole process. With a collector it must be
/// called within a multi-threaded tokio runtime.
///
/// # Errors
/// The filter or the collector's address is invalid, or logs and traces are already
/// set up.
pub fn init(service_name: &'static str, config: &TelemetryConfig) -> Result<Guard, InitError> {
    let filter = EnvFilter::try_new(&config.log).map_err(|source| InitError::Filter {
        filter: config.log.clone(),
        source,
    })?;
    let filter = filter.and(filter_fn(|line| {
        may_be_logged(line.target(), *line.level())
    }));
    let provider = provider(service_name, config.otlp_endpoint.as_deref())?;
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(io::stderr)
        .with_target(true);
    let lines = match config.format {
        LogFormat::Text => lines.with_ansi(false).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).boxed(),
    };
    tracing_subscriber::registry()
        .with(lines.with_filter(filter))
        .with(spans(&provider, service_name))
        .try_init()
        .map_err(InitError::Twice)?;
    Ok(Guard { provider })
}

fn provider(
    service_name: &'static str,
    endpoint: Option<&str>,
) -> Result<SdkTracerProvider, InitError> {
    let resource = Resource::builder().with_service_name(service_name).build();
    let builder = SdkTracerProvider::builder().with_resource(resource);
    let Some(endpoint) = endpoint else {
        return Ok(builder.build());
    };
    if !endpoint.starts_with("http://") {
        return Err(InitError::Endpoint {
            endpoint: endpoint.to_owned(),
        });
    }
    let exporter = SpanExporter::builder()
        .with_tonic()
        .with_endpoint(endpoint)
        .with_timeout(EXPORT_TIMEOUT)
        .build()
        .map_err(|source| InitError::Exporter {
            endpoint: endpoint.to_owned(),
            source,
        })?;
    Ok(builder.with_batch_exporter(exporter).build())
}

fn spans<S>(provider: &SdkTracerProvider, service_name: &'static str) -> impl Layer<S> + use<S>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    tracing_opentelemetry::layer()
        .with_tracer(provider.tracer(service_name))
        .with_filter(EnvFilter::new(TRACE_FILTER))
}

/// A subscriber with traces and without an exporter, for tests.
#[cfg(test)]
pub(crate) fn unexported(
    service_name: &'static str,
) -> (SdkTracerProvider, impl Subscriber + Send + Sync) {
    let provider = SdkTracerProvider::builder().build();
    let subscriber = tracing_subscriber::Registry::default().with(spans(&provider, service_name));
    (provider, subscriber)
}

/// Why logs and traces could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum InitError {
    /// The log filter is invalid.
    #[error("{filter:?} is not a log filter, such as info or info,lockstep_agent=debug")]
    Filter { filter: String, source: ParseError },
    /// The address of the collector has the wrong form.
    #[error("{endpoint:?} is not a collector's address of the form http://HOST:PORT")]
    Endpoint { endpoint: String },
    /// The exporter rejects its configuration.
    #[error("can't export spans to {endpoint}")]
    Exporter {
        endpoint: String,
        source: opentelemetry_otlp::ExporterBuildError,
    },
    /// A process can have only one subscriber.
    #[error("logs and traces are already set up")]
    Twice(#[source] TryInitError),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn libraries_do_not_log_their_secrets() {
        assert!(may_be_logged("aws_sigv4::http_request", Level::INFO));
        assert!(!may_be_logged("aws_sigv4::http_request", Level::DEBUG));
        assert!(!may_be_logged("aws_runtime::auth", Level::TRACE));
        assert!(!may_be_logged("tokio_postgres::prepare", Level::DEBUG));
        assert!(may_be_logged("lockstep_agent::worker", Level::TRACE));
    }
}
