//! The session with the coordinator: one outbound stream, opened again
//! whenever it breaks.
//!
//! Orders go to the loop as they arrive; replies come from the loop through
//! one bounded queue per session. A session whose queue overflows is ended:
//! whatever must arrive is sent again by the next one, so a slow connection
//! costs time, but neither memory nor an outcome.

use crate::convert;
use crate::handle::{Handle, Introduction, JournalEntry, Outbox, Outgoing, Stopped, WeakOutbox};
use backon::{BackoffBuilder, ConstantBuilder, ExponentialBuilder};
use lockstep_pki::Credentials;
use lockstep_proto::limits::MAX_MESSAGE;
use lockstep_proto::v1::SessionResponse;
use lockstep_proto::v1::agent_service_client::AgentServiceClient;
use lockstep_proto::v1::session_response::Message;
use lockstep_telemetry::error_chain;
use std::time::Duration;
use tokio_stream::StreamExt as _;
use tokio_stream::wrappers::ReceiverStream;
use tonic::transport::Endpoint;
use tonic::{Code, Request, Status, Streaming};

/// Shortest pause after a session broke or couldn't be opened. Jitter adds up
/// to as much again to each pause, so that agents don't reconnect in step.
const MIN_PAUSE: Duration = Duration::from_millis(50);
/// Longest pause, without jitter: a restarted coordinator must not wait long
/// for its agents, and even a thousand agents that reconnect every other
/// second are no load.
const MAX_PAUSE: Duration = Duration::from_secs(1);
/// Pause after the coordinator rejected this agent, without jitter: only an
/// operator can fix that.
const REJECTED_PAUSE: Duration = Duration::from_secs(5);
/// Interval of HTTP/2 pings, which detect a dead connection within seconds.
const KEEPALIVE: Duration = Duration::from_secs(5);
/// How long the answer to a ping may take.
const KEEPALIVE_LIMIT: Duration = Duration::from_secs(5);

/// Opens sessions until the agent stops.
pub async fn run(address: String, credentials: Credentials, handle: Handle) {
    let mut pauses = reconnect_pauses();
    let mut journal_mismatch = false;
    loop {
        let ended = session(&address, &credentials, &handle, journal_mismatch)
            .await
            .err();
        journal_mismatch = matches!(ended, Some(Ended::JournalMismatch(_)));
        let mut pause = None;
        match ended {
            None => {
                tracing::info!("the session with the coordinator ended");
                pauses = reconnect_pauses();
            }
            Some(Ended::Stopped) => return,
            Some(Ended::Broken(status)) => {
                tracing::warn!(%status, "the session with the coordinator broke");
                pauses = reconnect_pauses();
            }
            Some(Ended::Rejected(status)) => {
                tracing::error!(
                    reason = status.message(),
                    "LS3201: the coordinator refuses this agent"
                );
                pause = rejected_pause();
            }
            Some(Ended::JournalMismatch(position)) => {
                tracing::error!(
                    position,
                    "LS3202: this agent's journal is not the one that the coordinator has seen: \
                     it was restored from a backup, or another agent uses a copy of it"
                );
                pauses = reconnect_pauses();
            }
            Some(Ended::Unreachable(error)) => {
                tracing::warn!(error, "the coordinator at {address} can't be reached");
            }
        }
        let pause = pause.or_else(|| pauses.next()).unwrap_or(MAX_PAUSE);
        tokio::time::sleep(pause).await;
    }
}

/// Pauses between attempts to open a session, without end.
fn reconnect_pauses() -> impl Iterator<Item = Duration> {
    ExponentialBuilder::new()
        .with_min_delay(MIN_PAUSE)
        .with_max_delay(MAX_PAUSE)
        .without_max_times()
        .with_jitter()
        .build()
}

fn rejected_pause() -> Option<Duration> {
    let pauses = ConstantBuilder::new().with_delay(REJECTED_PAUSE);
    pauses.with_jitter().build().next()
}

/// Why a session ended, other than in good order.
enum Ended {
    Stopped,
    Unreachable(String),
    Rejected(Status),
    /// It was open before.
    Broken(Status),
    /// The coordinator has seen an entry at this position that this agent's
    /// journal doesn't have.
    JournalMismatch(u64),
}

impl From<Stopped> for Ended {
    fn from(Stopped: Stopped) -> Self {
        Self::Stopped
    }
}

/// One session, from its opening to its end.
async fn session(
    address: &str,
    credentials: &Credentials,
    handle: &Handle,
    journal_mismatch: bool,
) -> Result<(), Ended> {
    let mut client = connect(address, credentials).await?;
    let introduction = Introduction {
        journal_mismatch,
        ..handle.introduce().await?
    };
    let (outbox, queue) = Outbox::new();
    let requests = tokio_stream::once(convert::hello(introduction))
        .chain(ReceiverStream::new(queue).map(convert::outgoing));
    let mut responses = client
        .session(Request::new(requests))
        .await
        .map_err(not_opened)?
        .into_inner();
    if let Some(last_seen) = welcome(&mut responses).await? {
        let position = last_seen.position;
        if !handle.has_entry(last_seen).await? {
            return Err(Ended::JournalMismatch(position));
        }
    }
    let alive = outbox.downgrade();
    handle.connected(outbox).await?;
    let ended = receive(&mut responses, handle, &alive).await;
    handle.disconnected().await?;
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

/// Waits for the Welcome; gives the last entry of this agent's journal that
/// the coordinator has seen. No order is accepted before that entry is found
/// in the journal (R10).
async fn welcome(
    responses: &mut Streaming<SessionResponse>,
) -> Result<Option<JournalEntry>, Ended> {
    let first = responses.message().await.map_err(not_opened)?;
    let Some(Message::Welcome(welcome)) = first.and_then(|response| response.message) else {
        let status = Status::internal("the coordinator's first message was not a Welcome");
        return Err(Ended::Broken(status));
    };
    let term = welcome.term.unwrap_or_default().number;
    tracing::info!(coordinator = welcome.coordinator, term, "connected");
    let seen_any = welcome.journal_position > 0;
    Ok(seen_any.then_some(JournalEntry {
        position: welcome.journal_position,
        hash: welcome.journal_hash,
    }))
}

async fn receive(
    responses: &mut Streaming<SessionResponse>,
    handle: &Handle,
    alive: &WeakOutbox,
) -> Result<(), Ended> {
    while let Some(response) = responses.message().await.map_err(Ended::Broken)? {
        match response.message {
            None => {}
            Some(Message::Ping(_)) => alive.offer(Outgoing::Pong),
            Some(Message::PreflightOrder(order)) => {
                handle.preflight(convert::preflight_order(order)).await?;
            }
            Some(message) => {
                let order = lockstep_proto::convert::order(message).map_err(|invalid| {
                    Ended::Broken(Status::invalid_argument(format!(
                        "invalid order: {invalid}"
                    )))
                })?;
                handle.order(order, response.traceparent).await?;
            }
        }
    }
    Ok(())
}

fn not_opened(status: Status) -> Ended {
    match status.code() {
        Code::PermissionDenied | Code::Unauthenticated | Code::FailedPrecondition => {
            Ended::Rejected(status)
        }
        _ => Ended::Unreachable(error_chain(&status)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_grow_to_the_longest_and_never_end() {
        let pauses: Vec<Duration> = reconnect_pauses().take(100).collect();
        assert_eq!(pauses.len(), 100);
        assert!(
            (MIN_PAUSE..=MIN_PAUSE * 2).contains(&pauses[0]),
            "{pauses:?}"
        );
        for pause in &pauses[10..] {
            assert!((MAX_PAUSE..=MAX_PAUSE * 2).contains(pause), "{pause:?}");
        }
        let rejected = rejected_pause().unwrap();
        assert!((REJECTED_PAUSE..=REJECTED_PAUSE * 2).contains(&rejected));
    }
}
