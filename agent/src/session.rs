//! The session with the coordinator: one outbound stream, opened again
//! whenever it breaks.
//!
//! It knows nothing of runs. Orders go to the driver as they come; replies
//! come from the driver through one bounded queue per session. A session
//! whose queue overflows is ended: what matters is sent again by the next
//! one, so a slow link costs time, never memory or an outcome.

use crate::link::{Input, Inputs, Outbox};
use lockstep_pki::Credentials;
use lockstep_proto::limits::MAX_MESSAGE;
use lockstep_proto::v1::agent_service_client::AgentServiceClient;
use lockstep_proto::v1::session_response::Message;
use lockstep_proto::v1::{Hello, SessionRequest, SessionResponse};
use lockstep_telemetry::error_chain;
use std::time::Duration;
use tokio::sync::oneshot;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};

/// First pause after a session broke or couldn't be opened.
const FIRST_PAUSE: Duration = Duration::from_millis(100);
/// Longest pause: a coordinator that comes back must not wait long for its
/// agents, and a whole fleet knocking every two seconds is no load.
const LONGEST_PAUSE: Duration = Duration::from_secs(2);
/// Pause after the coordinator refused this agent: only an operator can mend
/// that.
const REFUSED_PAUSE: Duration = Duration::from_secs(10);
/// A ping that often, so that a dead link is noticed in seconds.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// And the answer within that time.
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(5);

/// Opens sessions for ever.
pub async fn keep(address: String, credentials: Credentials, inputs: Inputs) {
    let mut pause = FIRST_PAUSE;
    let mut disowned = false;
    loop {
        match run(
            &address,
            &credentials,
            &inputs,
            std::mem::take(&mut disowned),
        )
        .await
        {
            Ok(()) => {
                tracing::info!("the session with the coordinator ended");
                pause = FIRST_PAUSE;
            }
            Err(Ended::DriverGone) => return,
            Err(Ended::Established(status)) => {
                tracing::warn!(%status, "the session with the coordinator broke");
                pause = FIRST_PAUSE;
            }
            Err(Ended::Refused(status)) => {
                tracing::error!(
                    reason = status.message(),
                    "LS3201: the coordinator refuses this agent"
                );
                pause = REFUSED_PAUSE;
            }
            Err(Ended::Disowned(position)) => {
                tracing::error!(
                    position,
                    "LS3202: this agent's journal is not the one that the coordinator has heard \
                     of: it was restored from a backup, or another agent uses a copy of it"
                );
                disowned = true;
                pause = FIRST_PAUSE;
            }
            Err(Ended::Unreachable(error)) => {
                tracing::warn!(error, "the coordinator at {address} can't be reached");
            }
        }
        tokio::time::sleep(jittered(pause)).await;
        pause = (pause * 2).min(LONGEST_PAUSE).max(FIRST_PAUSE);
    }
}

/// How a session ended other than in good order.
enum Ended {
    DriverGone,
    Unreachable(String),
    Refused(Status),
    Established(Status),
    /// The coordinator has heard of an entry at this position that this
    /// agent's journal doesn't have.
    Disowned(u64),
}

async fn run(
    address: &str,
    credentials: &Credentials,
    inputs: &Inputs,
    disowned: bool,
) -> Result<(), Ended> {
    let mut client = connect(address, credentials).await?;
    let (outbox, queue) = Outbox::new();
    let hello = Hello {
        journal_disowned: disowned,
        ..ask_for_hello(inputs).await?
    };
    let greeting = SessionRequest {
        message: Some(lockstep_proto::v1::session_request::Message::Hello(hello)),
        ..SessionRequest::default()
    };
    if !outbox.send(greeting) {
        return Err(Ended::DriverGone);
    }
    let mut responses = client
        .session(Request::new(ReceiverStream::new(queue)))
        .await
        .map_err(opening)?
        .into_inner();
    let remembered = welcome(&mut responses).await?;
    recognise(inputs, remembered).await?;
    inputs
        .send(Input::Connected(outbox))
        .await
        .map_err(|_| Ended::DriverGone)?;
    let ended = receive(&mut responses, inputs).await;
    inputs
        .send(Input::Disconnected)
        .await
        .map_err(|_| Ended::DriverGone)?;
    ended
}

async fn connect(
    address: &str,
    credentials: &Credentials,
) -> Result<AgentServiceClient<tonic::transport::Channel>, Ended> {
    let unreachable = |e: &(dyn std::error::Error + 'static)| Ended::Unreachable(error_chain(e));
    let endpoint = Endpoint::from_shared(format!("https://{address}"))
        .map_err(|e| unreachable(&e))?
        .http2_keep_alive_interval(KEEPALIVE)
        .keep_alive_timeout(KEEPALIVE_LIMIT)
        .keep_alive_while_idle(true);
    let channel = lockstep_pki::connect(&endpoint, credentials)
        .await
        .map_err(|e| unreachable(&e))?;
    Ok(AgentServiceClient::new(channel)
        .max_decoding_message_size(MAX_MESSAGE)
        .max_encoding_message_size(MAX_MESSAGE))
}

async fn ask_for_hello(inputs: &Inputs) -> Result<Hello, Ended> {
    let (answer, hello) = oneshot::channel();
    inputs
        .send(Input::Hello(answer))
        .await
        .map_err(|_| Ended::DriverGone)?;
    hello.await.map_err(|_| Ended::DriverGone)
}

/// Before anything is obeyed: is this the journal that the coordinator has
/// heard of (R10)?
async fn recognise(inputs: &Inputs, (position, hash): (u64, String)) -> Result<(), Ended> {
    if position == 0 {
        return Ok(());
    }
    let (answer, known) = oneshot::channel();
    inputs
        .send(Input::Remembered {
            position,
            hash,
            answer,
        })
        .await
        .map_err(|_| Ended::DriverGone)?;
    match known.await {
        Ok(true) => Ok(()),
        Ok(false) => Err(Ended::Disowned(position)),
        Err(_) => Err(Ended::DriverGone),
    }
}

/// Gives position and hash of an entry that the coordinator has heard of.
async fn welcome(responses: &mut Streaming<SessionResponse>) -> Result<(u64, String), Ended> {
    match responses
        .message()
        .await
        .map_err(opening)?
        .and_then(|response| response.message)
    {
        Some(Message::Welcome(welcome)) => {
            let term = welcome.term.unwrap_or_default().number;
            tracing::info!(coordinator = welcome.coordinator, term, "connected");
            Ok((welcome.journal_position, welcome.journal_hash))
        }
        _ => Err(Ended::Established(Status::internal(
            "the coordinator did not say welcome",
        ))),
    }
}

async fn receive(responses: &mut Streaming<SessionResponse>, inputs: &Inputs) -> Result<(), Ended> {
    while let Some(response) = responses.message().await.map_err(Ended::Established)? {
        let Some(message) = response.message else {
            continue;
        };
        let traceparent = response.traceparent;
        let input = match message {
            Message::PreflightOrder(order) => Input::Preflight(order),
            message => match lockstep_proto::convert::order(message) {
                Ok(order) => Input::Order { order, traceparent },
                Err(invalid) => {
                    let status = Status::invalid_argument(format!("invalid order: {invalid}"));
                    return Err(Ended::Established(status));
                }
            },
        };
        inputs.send(input).await.map_err(|_| Ended::DriverGone)?;
    }
    Ok(())
}

fn opening(status: Status) -> Ended {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => {
            Ended::Refused(status)
        }
        _ => Ended::Unreachable(error_chain(&status)),
    }
}

/// Between half and all of the pause, so that a fleet doesn't knock in step.
fn jittered(pause: Duration) -> Duration {
    let random = uuid::Uuid::now_v7().as_u128() & 0xffff;
    let share = 0.5 + (random as f64 / 65535.0) / 2.0;
    pause.mul_f64(share)
}
