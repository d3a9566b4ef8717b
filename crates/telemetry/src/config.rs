//! The `[telemetry]` section of the configuration of both daemons.

use crate::subscriber::TelemetryConfig;
use serde::Deserialize;

/// Logs and traces of a daemon.
#[derive(Debug, Clone, Default, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TelemetrySection {
    /// OTLP endpoint (`http://host:4317`); empty: no export.
    #[serde(default)]
    pub otlp: String,
    /// Log filter in the syntax of `RUST_LOG`; `info` by default.
    #[serde(default)]
    pub log: Option<String>,
}

impl From<&TelemetrySection> for TelemetryConfig {
    fn from(section: &TelemetrySection) -> Self {
        let otlp = section.otlp.clone();
        let default = Self::default();
        Self {
            otlp_endpoint: Some(otlp).filter(|url| !url.is_empty()),
            log: section.log.clone().unwrap_or(default.log),
            format: default.format,
        }
    }
}
