//! W3C trace context: the `traceparent` of every message.
//!
//! Source of the format: W3C Trace Context, section 3.2.2. `tracestate` is not
//! propagated, because it is not used.

use opentelemetry::trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState};
use std::fmt;
use std::str::FromStr;
use tracing::Span;
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Trace id and span id of a parent span.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct TraceContext {
    trace_id: TraceId,
    span_id: SpanId,
}

impl TraceContext {
    /// Context of a new trace.
    pub fn generate() -> Self {
        // Zero is the one invalid value of both ids.
        let trace_id = rand::random::<u128>().max(1);
        let span_id = rand::random::<u64>().max(1);
        Self {
            trace_id: TraceId::from(trace_id),
            span_id: SpanId::from(span_id),
        }
    }

    /// Context of a span; `None` if the span is not recorded.
    pub fn of_span(span: &Span) -> Option<Self> {
        let context = span.context();
        let span = context.span();
        let found = span.span_context();
        found.is_valid().then(|| Self {
            trace_id: found.trace_id(),
            span_id: found.span_id(),
        })
    }

    /// The trace's id, 32 hexadecimal digits, as in the search of a trace viewer.
    pub fn trace_id(&self) -> String {
        self.trace_id.to_string()
    }

    /// The span's id, 16 hexadecimal digits.
    pub fn span_id(&self) -> String {
        self.span_id.to_string()
    }

    /// Makes this context the parent of a span that has not been entered yet.
    /// This has no effect if traces aren't recorded.
    pub fn adopt(&self, span: &Span) {
        let remote = SpanContext::new(
            self.trace_id,
            self.span_id,
            TraceFlags::SAMPLED,
            true,
            TraceState::default(),
        );
        let parent = opentelemetry::Context::new().with_remote_span_context(remote);
        // An already entered span is a bug of the caller; the other errors mean that the
        // span isn't recorded.
        if let Err(tracing_opentelemetry::SetParentError::AlreadyStarted) = span.set_parent(parent)
        {
            tracing::debug!(traceparent = %self, "the span was entered before its parent was set");
        }
    }
}

impl fmt::Display for TraceContext {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "00-{}-{}-01", self.trace_id, self.span_id)
    }
}

impl FromStr for TraceContext {
    type Err = ParseTraceparentError;

    fn from_str(text: &str) -> Result<Self, ParseTraceparentError> {
        let bad = || ParseTraceparentError {
            found: text.chars().take(80).collect(),
        };
        let parts: Vec<&str> = text.split('-').collect();
        let (version, trace_id, span_id, flags) = match parts[..] {
            // Version 00 has exactly four parts; later ones may add more.
            ["00", trace_id, span_id, flags] => ("00", trace_id, span_id, flags),
            [version, trace_id, span_id, flags, ..] if version != "00" => {
                (version, trace_id, span_id, flags)
            }
            _ => return Err(bad()),
        };
        let hex = |part: &str, length: usize| {
            part.len() == length
                && part
                    .bytes()
                    .all(|byte| byte.is_ascii_digit() || (b'a'..=b'f').contains(&byte))
        };
        let well_formed = hex(version, 2)
            && version != "ff"
            && hex(trace_id, 32)
            && hex(span_id, 16)
            && hex(flags, 2);
        if !well_formed {
            return Err(bad());
        }
        let context = Self {
            trace_id: TraceId::from_hex(trace_id).map_err(|_| bad())?,
            span_id: SpanId::from_hex(span_id).map_err(|_| bad())?,
        };
        if context.trace_id == TraceId::INVALID || context.span_id == SpanId::INVALID {
            return Err(bad());
        }
        Ok(context)
    }
}

/// The `traceparent` of a message that is sent within a span. If the span isn't
/// recorded, it is that of a new trace, so that a message always has one.
pub fn traceparent_of(span: &Span) -> String {
    TraceContext::of_span(span)
        .unwrap_or_else(TraceContext::generate)
        .to_string()
}

/// Makes a received `traceparent` the parent of a span that has not been entered
/// yet.
///
/// # Errors
/// The text isn't a traceparent; the span then starts a new trace.
pub fn set_parent(span: &Span, traceparent: &str) -> Result<(), ParseTraceparentError> {
    traceparent.parse::<TraceContext>()?.adopt(span);
    Ok(())
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{found:?} is not a traceparent (00-TRACE-SPAN-FLAGS in lowercase hexadecimal)")]
pub struct ParseTraceparentError {
    /// The text, truncated to 80 characters.
    pub found: String,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_traceparent_is_parsed_from_its_own_text() {
        let context = TraceContext::generate();
        assert_eq!(context.to_string().parse(), Ok(context));
        assert_eq!(
            (context.trace_id().len(), context.span_id().len()),
            (32, 16)
        );
        let later = "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more";
        assert!(later.parse::<TraceContext>().is_ok());
    }

    #[test]
    fn malformed_traceparents_are_refused() {
        for text in [
            "",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-more",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "ff-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0af7651916cd43dd-b7ad6b7169203331-01",
        ] {
            assert!(text.parse::<TraceContext>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_span_joins_the_trace_of_its_parent_without_a_collector() {
        let (_provider, subscriber) = crate::subscriber::unexported("test");
        tracing::subscriber::with_default(subscriber, || {
            let run = TraceContext::generate();
            let phase = tracing::info_span!("phase");
            set_parent(&phase, &run.to_string()).unwrap();
            let phase = TraceContext::of_span(&phase).unwrap();
            assert_eq!(phase.trace_id(), run.trace_id());
            assert_ne!(phase.span_id(), run.span_id());
        });
    }
}
