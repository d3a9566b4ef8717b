//! What the coordinator serves, on its own mTLS listener.

mod agent;
mod authorize;
mod look;
mod operator;

use crate::handle::{Handle, Refusal, RefusalKind};
use lockstep_pki::Listener;
use lockstep_proto::limits::{MAX_ANSWER, MAX_MESSAGE};
use lockstep_proto::v1::agent_service_server::AgentServiceServer;
use lockstep_proto::v1::operator_service_server::OperatorServiceServer;
use std::time::Duration;
use tonic::Status;
use tonic::transport::Server;

/// Streams that one connection may have open.
const MAX_STREAMS: u32 = 64;
/// A ping that often, so that a dead link is noticed in seconds.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// And the answer within that time.
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
        match refusal.kind {
            RefusalKind::Invalid => Self::invalid_argument(refusal.message),
            RefusalKind::NotFound => Self::not_found(refusal.message),
            RefusalKind::Precondition => Self::failed_precondition(refusal.message),
            RefusalKind::Unavailable => Self::unavailable(refusal.message),
        }
    }
}
