//! Agents' sessions.

use crate::agents::OUTBOX;
use crate::handle::Handle;
use lockstep_barrier::ids::AgentName;
use lockstep_pki::Peer;
use lockstep_proto::v1::agent_service_server::AgentService;
use lockstep_proto::v1::session_request::Message;
use lockstep_proto::v1::{Hello, SessionRequest, SessionResponse, session_response};
use std::time::Duration;
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
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
    type SessionStream = ReceiverStream<Result<SessionResponse, Status>>;

    async fn session(
        &self,
        request: Request<Streaming<SessionRequest>>,
    ) -> Result<Response<Self::SessionStream>, Status> {
        let peer = request
            .extensions()
            .get::<Peer>()
            .cloned()
            .ok_or_else(|| Status::unauthenticated("no certificate"))?;
        let mut requests = request.into_inner();
        let hello = hello(&mut requests, &peer).await?;
        let agent = AgentName(hello.agent.clone());
        let (outbox, responses) = mpsc::channel(OUTBOX);
        let address = peer.address.to_string();
        // The welcome must be the first thing in the stream, so the driver
        // learns of the session only through `hello`, and orders follow it.
        let (session, welcome) = self.handle.hello(hello, address, outbox.clone()).await?;
        let welcome = SessionResponse {
            traceparent: String::new(),
            message: Some(session_response::Message::Welcome(welcome)),
        };
        let (stream, ordered) = mpsc::channel(OUTBOX);
        stream
            .try_send(Ok(welcome))
            .map_err(|_| Status::internal("the session's queue is full before it began"))?;
        drop(outbox);
        tokio::spawn(forward(responses, stream));
        tokio::spawn(listen(self.handle.clone(), agent, session, requests));
        Ok(Response::new(ReceiverStream::new(ordered)))
    }
}

/// Orders go into the stream behind the welcome; when the driver drops its
/// end, the stream ends, and with it the session.
async fn forward(
    mut responses: mpsc::Receiver<Result<SessionResponse, Status>>,
    stream: mpsc::Sender<Result<SessionResponse, Status>>,
) {
    while let Some(response) = responses.recv().await {
        if stream.send(response).await.is_err() {
            return;
        }
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
                let agent = agent.clone();
                handle.agent_says(agent, session, message, place).await;
            }
            Ok(Some(_)) => {}
            Ok(None) => break,
            Err(status) => {
                tracing::debug!(%agent, %status, "the session broke");
                break;
            }
        }
    }
    handle.agent_gone(agent, session).await;
}

async fn hello(requests: &mut Streaming<SessionRequest>, peer: &Peer) -> Result<Hello, Status> {
    let first = tokio::time::timeout(HELLO_LIMIT, requests.message())
        .await
        .map_err(|_| Status::deadline_exceeded("no hello in time"))??;
    let Some(SessionRequest {
        message: Some(Message::Hello(hello)),
        ..
    }) = first
    else {
        tracing::warn!(who = %peer.identity, "LS4207: a session began without a hello");
        return Err(Status::failed_precondition(
            "LS4207: a session begins with a hello",
        ));
    };
    if hello.agent != peer.identity.name() {
        let why = format!(
            "LS4208: the certificate is {}'s, the hello says {}",
            peer.identity.name(),
            hello.agent
        );
        tracing::warn!("{why}");
        return Err(Status::permission_denied(why));
    }
    Ok(hello)
}
