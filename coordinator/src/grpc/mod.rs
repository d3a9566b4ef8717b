//! The coordinator's gRPC services, on its own mTLS listener.

mod agent;
mod authorize;
mod convert;
mod operator;

use crate::handle::{Handle, Refusal, RefusalKind};
use lockstep_pki::Listener;
use lockstep_proto::limits::{MAX_ANSWER, MAX_MESSAGE};
use lockstep_proto::v1::agent_service_server::AgentServiceServer;
use lockstep_proto::v1::operator_service_server::OperatorServiceServer;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Server;

/// Bytes of a refusal's message. Clients accept headers of 16 KiB (hyper), in
/// which each byte that is not ASCII takes three.
const MESSAGE_LIMIT: usize = 4_000;
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

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        let message = within_a_header(refusal.message);
        match refusal.kind {
            RefusalKind::Invalid => Self::invalid_argument(message),
            RefusalKind::NotFound => Self::not_found(message),
            RefusalKind::Precondition => Self::failed_precondition(message),
            RefusalKind::Unavailable => Self::unavailable(message),
            RefusalKind::Internal => Self::internal(message),
        }
    }
}

/// Truncates a message to what fits into a header.
fn within_a_header(mut message: String) -> String {
    if message.len() > MESSAGE_LIMIT {
        message.truncate(message.floor_char_boundary(MESSAGE_LIMIT));
        message.push('…');
    }
    message
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_that_no_header_could_hold_is_truncated() {
        let long = Refusal::new(RefusalKind::Invalid, "ä".repeat(MESSAGE_LIMIT));
        let status = Status::from(long);
        assert!(status.message().len() <= MESSAGE_LIMIT + '…'.len_utf8());
        assert!(status.message().ends_with("ä…"));
        let short = Refusal::new(RefusalKind::Invalid, "LS4305: there is no run yet");
        assert_eq!(Status::from(short).message(), "LS4305: there is no run yet");
    }
}
