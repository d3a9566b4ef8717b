//! Operators' requests.

use super::no_certificate;
use crate::handle::{Handle, RequestError, RequestErrorKind, RequestedVerb, VerbRequest, Watched};
use crate::plans::CheckedPlan;
use crate::preflights::ANSWERS;
use lockstep_api::{Code, Diagnosis, RunUpdate};
use lockstep_barrier::coordinator::VerbAction;
use lockstep_barrier::record::Resolution;
use lockstep_pki::Peer;
use lockstep_proto::v1;
use lockstep_proto::v1::operator_service_server::OperatorService;
use std::pin::Pin;
use tokio::sync::{broadcast, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// Runs listed if the request names no limit.
const DEFAULT_LIST: u32 = 50;
/// Updates that may wait for a slow operator's link.
const UPDATES: usize = 1024;

pub struct Service {
    handle: Handle,
}

impl Service {
    pub fn new(handle: Handle) -> Self {
        Self { handle }
    }

    async fn act(
        &self,
        by: String,
        verb: Option<v1::Verb>,
        action: RequestedVerb,
    ) -> Result<Option<v1::RunStatus>, Status> {
        let verb = verb.unwrap_or_default();
        check_complete(&verb).map_err(RequestError::invalid)?;
        let asked = VerbRequest {
            run: verb.run_id,
            request: verb.request_id,
            by,
            reason: Some(verb.reason).filter(|reason| !reason.is_empty()),
            expected: Some(verb.expected_sequence),
            action,
        };
        Ok(Some(self.handle.verb(asked).await?.into()))
    }
}

/// A verb without an id could be executed twice, and one without a sequence could take
/// effect on a phase for which it was not meant.
fn check_complete(verb: &v1::Verb) -> Result<(), Diagnosis> {
    let lacks = if verb.request_id.is_empty() {
        "a request id"
    } else if verb.expected_sequence == 0 {
        "the sequence of the run that the operator has seen"
    } else {
        return Ok(());
    };
    let diagnosis = Diagnosis::new(Code::LS4313, format!("a verb carries {lacks}"));
    Err(diagnosis
        .state_left("nothing was changed")
        .remedy("read the run's status, and send both with the verb"))
}

fn operator<T>(request: &Request<T>) -> Result<String, Status> {
    request
        .extensions()
        .get::<Peer>()
        .map(|peer| peer.identity.name().to_owned())
        .ok_or_else(no_certificate)
}

/// Parses and verifies a plan, which for a large one takes a while, outside the
/// driver and the runtime's own threads.
async fn checked(document: Option<v1::PlanDocument>) -> Result<CheckedPlan, Status> {
    let document = document.ok_or_else(|| {
        RequestError::invalid(Diagnosis::new(Code::LS4310, "the request holds no plan"))
    })?;
    let checked = tokio::task::spawn_blocking(move || {
        CheckedPlan::check(&document.plan_json, &document.digest, &document.source)
    });
    let checked = checked.await.map_err(|e| {
        let diagnosis = Diagnosis::new(Code::LS5009, "the plan's verification failed");
        RequestError::new(RequestErrorKind::Internal, diagnosis.source(&e))
    })?;
    Ok(checked?)
}

#[tonic::async_trait]
impl OperatorService for Service {
    type PreflightStream =
        Pin<Box<dyn Stream<Item = Result<v1::PreflightResponse, Status>> + Send>>;
    type WatchRunStream = ReceiverStream<Result<v1::WatchRunResponse, Status>>;

    async fn pause_run(
        &self,
        request: Request<v1::PauseRunRequest>,
    ) -> Result<Response<v1::PauseRunResponse>, Status> {
        let by = operator(&request)?;
        let action = RequestedVerb::Other(VerbAction::Pause);
        let run = self.act(by, request.into_inner().verb, action).await?;
        Ok(Response::new(v1::PauseRunResponse { run }))
    }

    async fn resume_run(
        &self,
        request: Request<v1::ResumeRunRequest>,
    ) -> Result<Response<v1::ResumeRunResponse>, Status> {
        let by = operator(&request)?;
        let action = RequestedVerb::Other(VerbAction::Resume);
        let run = self.act(by, request.into_inner().verb, action).await?;
        Ok(Response::new(v1::ResumeRunResponse { run }))
    }

    async fn retry_run(
        &self,
        request: Request<v1::RetryRunRequest>,
    ) -> Result<Response<v1::RetryRunResponse>, Status> {
        let by = operator(&request)?;
        let action = RequestedVerb::Other(VerbAction::Retry);
        let run = self.act(by, request.into_inner().verb, action).await?;
        Ok(Response::new(v1::RetryRunResponse { run }))
    }

    async fn skip_run(
        &self,
        request: Request<v1::SkipRunRequest>,
    ) -> Result<Response<v1::SkipRunResponse>, Status> {
        let by = operator(&request)?;
        let action = RequestedVerb::Other(VerbAction::Skip);
        let run = self.act(by, request.into_inner().verb, action).await?;
        Ok(Response::new(v1::SkipRunResponse { run }))
    }

    async fn rollback_run(
        &self,
        request: Request<v1::RollbackRunRequest>,
    ) -> Result<Response<v1::RollbackRunResponse>, Status> {
        let by = operator(&request)?;
        let action = RequestedVerb::Other(VerbAction::Rollback);
        let run = self.act(by, request.into_inner().verb, action).await?;
        Ok(Response::new(v1::RollbackRunResponse { run }))
    }

    async fn abort_run(
        &self,
        request: Request<v1::AbortRunRequest>,
    ) -> Result<Response<v1::AbortRunResponse>, Status> {
        let by = operator(&request)?;
        let action = RequestedVerb::Other(VerbAction::Abort);
        let run = self.act(by, request.into_inner().verb, action).await?;
        Ok(Response::new(v1::AbortRunResponse { run }))
    }

    async fn preflight(
        &self,
        request: Request<v1::PreflightRequest>,
    ) -> Result<Response<Self::PreflightStream>, Status> {
        let plan = checked(request.into_inner().plan).await?;
        let (answers, parts) = mpsc::channel(ANSWERS);
        self.handle.preflight(plan, answers).await?;
        let parts = ReceiverStream::new(parts).map(Into::into);
        Ok(Response::new(Box::pin(parts.map(Ok))))
    }

    async fn start_run(
        &self,
        request: Request<v1::StartRunRequest>,
    ) -> Result<Response<v1::StartRunResponse>, Status> {
        let by = operator(&request)?;
        let request = request.into_inner();
        let plan = checked(request.plan).await?;
        let run_id = self.handle.start_run(plan, request.request_id, by).await?;
        Ok(Response::new(v1::StartRunResponse { run_id }))
    }

    async fn list_runs(
        &self,
        request: Request<v1::ListRunsRequest>,
    ) -> Result<Response<v1::ListRunsResponse>, Status> {
        let limit = match request.into_inner().limit {
            0 => DEFAULT_LIST,
            limit => limit,
        };
        let runs = self.handle.list(limit as usize).await?;
        let runs = runs.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListRunsResponse { runs }))
    }

    async fn get_run(
        &self,
        request: Request<v1::GetRunRequest>,
    ) -> Result<Response<v1::GetRunResponse>, Status> {
        let run = self.handle.get(request.into_inner().run_id).await?;
        let run = Some(run.into());
        Ok(Response::new(v1::GetRunResponse { run }))
    }

    async fn watch_run(
        &self,
        request: Request<v1::WatchRunRequest>,
    ) -> Result<Response<Self::WatchRunStream>, Status> {
        let request = request.into_inner();
        let watched = self
            .handle
            .watch(request.run_id, request.after_sequence)
            .await?;
        let (stream, updates) = mpsc::channel(UPDATES);
        tokio::spawn(forward(self.handle.clone(), watched, stream));
        Ok(Response::new(ReceiverStream::new(updates)))
    }

    async fn list_run_events(
        &self,
        request: Request<v1::ListRunEventsRequest>,
    ) -> Result<Response<v1::ListRunEventsResponse>, Status> {
        let request = request.into_inner();
        let events = self
            .handle
            .events(request.run_id, request.after_sequence)
            .await?;
        let events = events.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListRunEventsResponse { events }))
    }

    async fn approve_run(
        &self,
        request: Request<v1::ApproveRunRequest>,
    ) -> Result<Response<v1::ApproveRunResponse>, Status> {
        let by = operator(&request)?;
        let request = request.into_inner();
        let action = RequestedVerb::Approve {
            phase: request.phase,
            digest: request.plan_digest,
        };
        let run = self.act(by, request.verb, action).await?;
        Ok(Response::new(v1::ApproveRunResponse { run }))
    }

    async fn waive_task(
        &self,
        request: Request<v1::WaiveTaskRequest>,
    ) -> Result<Response<v1::WaiveTaskResponse>, Status> {
        let by = operator(&request)?;
        let request = request.into_inner();
        let action = VerbAction::Waive {
            agent: request.agent.as_str().into(),
            step: request.step_id.as_str().into(),
        };
        let run = self
            .act(by, request.verb, RequestedVerb::Other(action))
            .await?;
        Ok(Response::new(v1::WaiveTaskResponse { run }))
    }

    async fn resolve_task(
        &self,
        request: Request<v1::ResolveTaskRequest>,
    ) -> Result<Response<v1::ResolveTaskResponse>, Status> {
        let by = operator(&request)?;
        let request = request.into_inner();
        let resolution = match request.outcome() {
            v1::OutcomeKind::Done => Resolution::Done,
            v1::OutcomeKind::Failed => Resolution::Failed,
            v1::OutcomeKind::Unspecified
            | v1::OutcomeKind::Unchanged
            | v1::OutcomeKind::Armed
            | v1::OutcomeKind::Unknown
            | v1::OutcomeKind::Drifted
            | v1::OutcomeKind::Interrupted
            | v1::OutcomeKind::NotStarted
            | v1::OutcomeKind::Lapsed => {
                let what = "an unknown task is resolved as done or as failed";
                return Err(RequestError::invalid(Diagnosis::new(Code::LS4314, what)).into());
            }
        };
        let action = VerbAction::ResolveUnknown {
            agent: request.agent.as_str().into(),
            step: request.step_id.as_str().into(),
            resolution,
        };
        let run = self
            .act(by, request.verb, RequestedVerb::Other(action))
            .await?;
        Ok(Response::new(v1::ResolveTaskResponse { run }))
    }

    async fn list_agents(
        &self,
        _request: Request<v1::ListAgentsRequest>,
    ) -> Result<Response<v1::ListAgentsResponse>, Status> {
        let agents = self.handle.agents().await?;
        let agents = agents.into_iter().map(Into::into).collect();
        Ok(Response::new(v1::ListAgentsResponse { agents }))
    }

    async fn accept_agent(
        &self,
        request: Request<v1::AcceptAgentRequest>,
    ) -> Result<Response<v1::AcceptAgentResponse>, Status> {
        let by = operator(&request)?;
        let request = request.into_inner();
        let accepted = self.handle.accept(request.agent, by, request.reason);
        let agent = Some(accepted.await?.into());
        Ok(Response::new(v1::AcceptAgentResponse { agent }))
    }
}

/// Sends an operator the run's updates until it has ended. One who lags too far
/// behind receives the status instead of the missed updates.
async fn forward(
    handle: Handle,
    watched: Watched,
    stream: mpsc::Sender<Result<v1::WatchRunResponse, Status>>,
) {
    let Watched {
        status,
        missed,
        mut updates,
    } = watched;
    let run = status.id.clone();
    let mut over = status.ended_at.is_some();
    let first = RunUpdate::Status {
        run: Box::new(status),
    };
    let missed = missed.into_iter().map(|event| RunUpdate::Event { event });
    for update in std::iter::once(first).chain(missed) {
        if send(&stream, update).await.is_err() {
            return;
        }
    }
    while !over {
        let update = match updates.recv().await {
            Ok(update) => update,
            Err(broadcast::error::RecvError::Closed) => return,
            Err(broadcast::error::RecvError::Lagged(_)) => match handle.get(run.clone()).await {
                Ok(status) => RunUpdate::Status {
                    run: Box::new(status),
                },
                Err(_) => return,
            },
        };
        over = matches!(&update, RunUpdate::Status { run } if run.ended_at.is_some());
        if send(&stream, update).await.is_err() {
            return;
        }
    }
}

async fn send(
    stream: &mpsc::Sender<Result<v1::WatchRunResponse, Status>>,
    update: RunUpdate,
) -> Result<(), ()> {
    stream.send(Ok(update.into())).await.map_err(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_verb_needs_an_id_and_a_sequence() {
        let complete = v1::Verb {
            request_id: "request-1".to_owned(),
            expected_sequence: 7,
            ..v1::Verb::default()
        };
        assert!(check_complete(&complete).is_ok());
        let unconditional = v1::Verb {
            expected_sequence: 0,
            ..complete.clone()
        };
        let anonymous = v1::Verb {
            request_id: String::new(),
            ..complete
        };
        for verb in [unconditional, anonymous] {
            let refused = check_complete(&verb).unwrap_err();
            assert_eq!(refused.code, Code::LS4313, "{refused}");
        }
    }
}
