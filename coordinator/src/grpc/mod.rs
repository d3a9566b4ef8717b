//! The coordinator's gRPC services, on its own mTLS listener.

mod agent;
mod authorize;
mod convert;
mod operator;

use crate::handle::{Handle, RequestError, RequestErrorKind};
use lockstep_api::{Code, Diagnosis};
use lockstep_pki::Listener;
use lockstep_proto::convert::diagnosis::diagnosis_to_status;
use lockstep_proto::limits::{MAX_ANSWER, MAX_MESSAGE};
use lockstep_proto::v1::agent_service_server::AgentServiceServer;
use lockstep_proto::v1::operator_service_server::OperatorServiceServer;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Server;

/// Bytes of a diagnosis on one line. Clients accept headers of 16 KiB (hyper).
/// A status carries it twice: as its message, in which each byte that is a space
/// or not ASCII takes three, and in parts, in base64.
const DIAGNOSIS_LIMIT: usize = 3_500;
/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 64;
/// Interval of pings, so that a dead link is detected within seconds.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long the answer to a ping may take.
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(5);

/// Serves until `stop` completes.
///
/// # Errors
/// When the transport fails.
pub async fn serve(
    listener: Listener,
    handle: Handle,
    stop: impl Future<Output = ()>,
) -> Result<(), tonic::transport::Error> {
    let agents = AgentServiceServer::new(agent::Service::new(handle.clone()))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE);
    let operators = OperatorServiceServer::new(operator::Service::new(handle))
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_ANSWER);
    Server::builder()
        .max_concurrent_streams(MAX_STREAMS)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_LIMIT))
        .layer(authorize::Layer)
        .add_service(agents)
        .add_service(operators)
        .serve_with_incoming_shutdown(listener, stop)
        .await
}

impl From<RequestError> for Status {
    fn from(error: RequestError) -> Self {
        let code = match error.kind {
            RequestErrorKind::Invalid => tonic::Code::InvalidArgument,
            RequestErrorKind::NotFound => tonic::Code::NotFound,
            RequestErrorKind::Precondition => tonic::Code::FailedPrecondition,
            RequestErrorKind::Unavailable => tonic::Code::Unavailable,
            RequestErrorKind::Internal => tonic::Code::Internal,
        };
        refused(code, error.diagnosis)
    }
}

/// The status of a refused request.
fn refused(code: tonic::Code, diagnosis: Diagnosis) -> Status {
    diagnosis_to_status(code, &within_a_header(diagnosis))
}

/// The listener accepts no connection without one.
fn no_certificate() -> Status {
    let diagnosis = Diagnosis::new(Code::LS4206, "the request came without a certificate");
    refused(tonic::Code::Unauthenticated, diagnosis)
}

/// Truncates a diagnosis to what fits into a header: causes first, then what
/// happened. The state that things were left in and the remedy are short.
pub(crate) fn within_a_header(mut diagnosis: Diagnosis) -> Diagnosis {
    let mut excess = diagnosis.to_string().len().saturating_sub(DIAGNOSIS_LIMIT);
    let causes = diagnosis.causes.iter_mut().rev();
    for text in causes.chain([&mut diagnosis.what]) {
        if excess == 0 {
            break;
        }
        let before = text.len();
        text.truncate(text.floor_char_boundary(before.saturating_sub(excess)));
        excess = excess.saturating_sub(before - text.len());
        text.push('…');
    }
    diagnosis
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_proto::convert::diagnosis::diagnosis_from_status;

    #[test]
    fn a_diagnosis_that_no_header_could_hold_is_truncated() {
        let long = Diagnosis::new(Code::LS4302, "ä".repeat(DIAGNOSIS_LIMIT))
            .cause("ö".repeat(DIAGNOSIS_LIMIT))
            .remedy("shorten it");
        let status = Status::from(RequestError::invalid(long));
        let message = status.message();
        assert!(message.len() <= DIAGNOSIS_LIMIT + 2 * '…'.len_utf8());
        assert!(message.ends_with("ä…: …; shorten it"), "{message}");
        let headers = status
            .into_http::<tonic::body::Body>()
            .into_parts()
            .0
            .headers;
        let bytes: usize = headers
            .iter()
            .map(|(name, value)| name.as_str().len() + value.len() + 32)
            .sum();
        assert!(bytes < 16 << 10, "{bytes}");
    }

    #[test]
    fn a_refused_request_carries_its_diagnosis_in_parts() {
        let diagnosis = Diagnosis::new(Code::LS4309, "several runs begin with 01")
            .remedy("give more of the id");
        let status = Status::from(RequestError::invalid(diagnosis.clone()));
        assert_eq!(status.code(), tonic::Code::InvalidArgument);
        assert_eq!(status.message(), diagnosis.to_string());
        assert_eq!(diagnosis_from_status(&status), Some(diagnosis));
    }
}
