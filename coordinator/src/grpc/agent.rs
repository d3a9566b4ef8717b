//! Agents' sessions.

use super::convert::{introduction, report, session_response};
use super::{no_certificate, refused};
use crate::agents::OUTBOX;
use crate::handle::Handle;
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::ids::AgentName;
use lockstep_pki::Peer;
use lockstep_proto::v1::agent_service_server::AgentService;
use lockstep_proto::v1::session_request::Message;
use lockstep_proto::v1::{Hello, SessionRequest, SessionResponse};
use std::pin::Pin;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status, Streaming};

/// How long an agent may take to introduce itself.
const HELLO_LIMIT: Duration = Duration::from_secs(5);

pub struct Service {
    handle: Handle,
}

impl Service {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }
}

#[tonic::async_trait]
impl AgentService for Service {
    type SessionStream = Pin<Box<dyn Stream<Item = Result<SessionResponse, Status>> + Send>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .ok_or_else(no_certificate)?;
        let mut requests = request.into_inner();
        let hello = hello(&mut requests, &peer).await?;
        let agent = AgentName(hello.agent.clone());
        // The driver queues the Welcome before it queues orders.
        let (outbox, messages) = mpsc::channel(OUTBOX);
        let session = self
            .handle
            .open_session(introduction(hello), peer.address.to_string(), outbox)
            .await?;
        tokio::spawn(listen(self.handle.clone(), agent, session, requests));
        // The stream, and with it the session, ends when the driver drops the
        // outbox.
        let responses = ReceiverStream::new(messages).map(session_response);
        Ok(Response::new(Box::pin(responses.map(Ok))))
    }
}

async fn listen(
    handle: Handle,
    agent: AgentName,
    session: u64,
    mut requests: Streaming<SessionRequest>,
) {
    loop {
        match requests.message().await {
            Ok(Some(SessionRequest {
                message: Some(message),
                journal_position,
                journal_hash,
                ..
            })) => {
                let place = (journal_position, journal_hash);
                match report(message, place) {
                    Ok(report) => handle.report(agent.clone(), session, report).await,
                    Err(invalid) => {
                        tracing::error!(%agent, %invalid, "LS4205: the agent sent an invalid message");
                    }
                }
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%agent, %status, "the session broke");
                break;
            }
        }
    }
    handle.close_session(agent, session).await;
}

async fn hello(requests: &mut Streaming<SessionRequest>, peer: &Peer) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_LIMIT, requests.message())
        .await
        .map_err(|_| {
            let what = format!("no hello within {} s", HELLO_LIMIT.as_secs());
            refused(
                tonic::Code::DeadlineExceeded,
                Diagnosis::new(Code::LS4207, what),
            )
        })??;
    let Some(SessionRequest {
        message: Some(Message::Hello(hello)),
        ..
    }) = first
    else {
        tracing::warn!(who = %peer.identity, "LS4207: a session began without a hello");
        return Err(refused(
            tonic::Code::FailedPrecondition,
            Diagnosis::new(Code::LS4207, "a session begins with a hello"),
        ));
    };
    if hello.agent != peer.identity.name() {
        let what = format!(
            "the certificate is {}'s, the hello says {}",
            peer.identity.name(),
            hello.agent
        );
        let diagnosis = Diagnosis::new(Code::LS4208, what);
        tracing::warn!("{diagnosis}");
        return Err(refused(tonic::Code::PermissionDenied, diagnosis));
    }
    Ok(hello)
}
