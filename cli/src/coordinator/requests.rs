//! The requests of the operator service, in the types of `lockstep-api`.

use super::{Coordinator, START_TIMEOUT};
use crate::failure::Failure;
use crate::plan_file::Loaded;
use lockstep_api::{AgentStatus, PreflightReport, RunEvent, RunStatus, RunUpdate};
use lockstep_proto::convert::Invalid;
use lockstep_proto::v1;
use tonic::{Status, Streaming};
use uuid::Uuid;

/// An operator's command to a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Verb {
    Approve {
        phase: String,
        /// Digest of the plan that is approved.
        digest: String,
    },
    Pause,
    Resume,
    Retry,
    Skip,
    Rollback,
    Abort,
    Waive {
        agent: String,
        step: String,
    },
    Resolve {
        agent: String,
        step: String,
        outcome: ObservedOutcome,
    },
}

/// How a task of unknown outcome ended, as an operator observed it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub enum ObservedOutcome {
    /// The task has taken effect.
    Done,
    /// The task has not taken effect.
    Failed,
}

/// The run that a verb applies to, and under which condition.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VerbRequest {
    pub run: String,
    /// The verb is refused if the run has decided anything after this sequence number.
    pub if_sequence: u64,
    pub reason: Option<String>,
}

/// The updates of a watched run.
pub struct Updates(Streaming<v1::WatchRunResponse>);

impl Updates {
    /// The next update; none at the end of the stream. Kinds of updates that this
    /// version doesn't know are skipped.
    ///
    /// # Errors
    /// The connection was lost, or the message is not valid for this version.
    pub async fn next(&mut self) -> Result<Option<RunUpdate>, Status> {
        while let Some(message) = self.0.message().await? {
            if message.update.is_some() {
                return message.try_into().map(Some).map_err(incomprehensible);
            }
        }
        Ok(None)
    }
}

/// The reports of a preflight, one for each agent.
pub struct Reports(Streaming<v1::PreflightResponse>);

impl Reports {
    /// The next report; none at the end of the stream.
    ///
    /// # Errors
    /// As [`Updates::next`].
    pub async fn next(&mut self) -> Result<Option<PreflightReport>, Status> {
        let message = self.0.message().await?;
        message
            .map(|message| message.try_into().map_err(incomprehensible))
            .transpose()
    }
}

impl Coordinator {
    /// Probes every task of a plan.
    ///
    /// # Errors
    /// The coordinator is unreachable or refuses the request.
    pub async fn preflight(&self, plan: Loaded) -> Result<Reports, Failure> {
        let request = self.request(v1::PreflightRequest {
            plan: Some(document(plan)),
        });
        let answer = self.client().preflight(request).await;
        let answer = answer.map_err(|status| self.failure(&status))?;
        Ok(Reports(answer.into_inner()))
    }

    /// Starts a run and returns its id. It takes as long as the agents need to probe
    /// the tasks.
    ///
    /// # Errors
    /// The probes found obstacles, or the coordinator didn't answer in time.
    pub async fn start(&self, plan: Loaded) -> Result<String, Failure> {
        let request = self.request(v1::StartRunRequest {
            plan: Some(document(plan)),
            request_id: Uuid::now_v7().to_string(),
        });
        let mut client = self.client();
        let answer = client.start_run(request);
        Ok(self.within(START_TIMEOUT, answer).await?.run_id)
    }

    /// The newest runs, without their phases.
    ///
    /// # Errors
    /// The coordinator didn't answer in time, or the message is not valid for this
    /// version.
    pub async fn runs(&self, limit: u32) -> Result<Vec<RunStatus>, Failure> {
        let request = v1::ListRunsRequest { limit };
        let answer = self
            .call(request, async |mut client, request| {
                client.list_runs(request).await
            })
            .await?;
        self.all(answer.runs)
    }

    /// The status of a run, by id or `latest`.
    ///
    /// # Errors
    /// There is no such run, or one of the errors of [`Self::runs`].
    pub async fn run(&self, run: &str) -> Result<RunStatus, Failure> {
        let request = v1::GetRunRequest {
            run_id: wire_id(run),
        };
        let answer = self
            .call(request, async |mut client, request| {
                client.get_run(request).await
            })
            .await?;
        self.status_of(answer.run)
    }

    /// As [`Self::run`], with the gRPC status as the error, so that a watch can detect
    /// a lost connection.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn poll(&self, run: &str) -> Result<RunStatus, Status> {
        let request = self.request(v1::GetRunRequest {
            run_id: wire_id(run),
        });
        let answer = self.client().get_run(request).await?.into_inner();
        let run = answer.run.ok_or(Invalid::Missing("run"));
        run.and_then(TryInto::try_into).map_err(incomprehensible)
    }

    /// The journal of a run, after the entry with this sequence number.
    ///
    /// # Errors
    /// As [`Self::run`].
    pub async fn events(&self, run: &str, after: u64) -> Result<Vec<RunEvent>, Failure> {
        let request = v1::ListRunEventsRequest {
            run_id: wire_id(run),
            after_sequence: after,
        };
        let answer = self
            .call(request, async |mut client, request| {
                client.list_run_events(request).await
            })
            .await?;
        self.all(answer.events)
    }

    /// Watches a run, after the journal entry with this sequence number.
    ///
    /// # Errors
    /// There is no such run, or the connection was lost.
    pub async fn watch(&self, run: &str, after: u64) -> Result<Updates, Status> {
        let request = self.request(v1::WatchRunRequest {
            run_id: wire_id(run),
            after_sequence: after,
        });
        let answer = self.client().watch_run(request).await?;
        Ok(Updates(answer.into_inner()))
    }

    /// Sends a verb and returns the run's status after it. The request has a unique id,
    /// so that a retransmission takes effect only once.
    ///
    /// # Errors
    /// The verb was rejected, or one of the errors of [`Self::run`].
    pub async fn send(&self, request: VerbRequest, verb: Verb) -> Result<RunStatus, Failure> {
        let message = Some(v1::Verb {
            run_id: request.run,
            request_id: Uuid::now_v7().to_string(),
            expected_sequence: request.if_sequence,
            reason: request.reason.unwrap_or_default(),
        });
        macro_rules! send {
            ($method:ident, $request:ident $(, $field:ident: $value:expr)*) => {
                self.call(
                    v1::$request { verb: message, $($field: $value),* },
                    async |mut client, request| client.$method(request).await,
                )
                .await?
                .run
            };
        }
        let run = match verb {
            Verb::Approve { phase, digest } => {
                send!(approve_run, ApproveRunRequest, phase: phase, plan_digest: digest)
            }
            Verb::Pause => send!(pause_run, PauseRunRequest),
            Verb::Resume => send!(resume_run, ResumeRunRequest),
            Verb::Retry => send!(retry_run, RetryRunRequest),
            Verb::Skip => send!(skip_run, SkipRunRequest),
            Verb::Rollback => send!(rollback_run, RollbackRunRequest),
            Verb::Abort => send!(abort_run, AbortRunRequest),
            Verb::Waive { agent, step } => {
                send!(waive_task, WaiveTaskRequest, agent: agent, step_id: step)
            }
            Verb::Resolve {
                agent,
                step,
                outcome,
            } => {
                let outcome = match outcome {
                    ObservedOutcome::Done => v1::OutcomeKind::Done,
                    ObservedOutcome::Failed => v1::OutcomeKind::Failed,
                };
                send!(
                    resolve_task,
                    ResolveTaskRequest,
                    agent: agent,
                    step_id: step,
                    outcome: outcome.into()
                )
            }
        };
        self.status_of(run)
    }

    /// All agents that the coordinator knows, in the order of their names.
    ///
    /// # Errors
    /// The coordinator refused the request or didn't answer in time.
    pub async fn agents(&self) -> Result<Vec<AgentStatus>, Failure> {
        let answer = self
            .call(v1::ListAgentsRequest {}, async |mut client, request| {
                client.list_agents(request).await
            })
            .await?;
        Ok(answer.agents.into_iter().map(Into::into).collect())
    }

    /// Ends an agent's quarantine.
    ///
    /// # Errors
    /// The coordinator doesn't know the agent, or didn't answer in time.
    pub async fn accept_agent(
        &self,
        agent: String,
        reason: String,
    ) -> Result<AgentStatus, Failure> {
        let request = v1::AcceptAgentRequest { agent, reason };
        let answer = self
            .call(request, async |mut client, request| {
                client.accept_agent(request).await
            })
            .await?;
        let agent = answer.agent.ok_or(Invalid::Missing("agent"));
        agent
            .map(Into::into)
            .map_err(|error| self.failure(&incomprehensible(error)))
    }

    fn status_of(&self, run: Option<v1::RunStatus>) -> Result<RunStatus, Failure> {
        run.ok_or(Invalid::Missing("run"))
            .and_then(TryInto::try_into)
            .map_err(|error| self.failure(&incomprehensible(error)))
    }

    fn all<W, T: TryFrom<W, Error = Invalid>>(&self, wire: Vec<W>) -> Result<Vec<T>, Failure> {
        wire.into_iter()
            .map(T::try_from)
            .collect::<Result<_, _>>()
            .map_err(|error| self.failure(&incomprehensible(error)))
    }
}

/// The id of a run in requests, where an empty id means the newest run.
fn wire_id(run: &str) -> String {
    if run == crate::commands::run::LATEST {
        String::new()
    } else {
        run.to_owned()
    }
}

fn document(loaded: Loaded) -> v1::PlanDocument {
    v1::PlanDocument {
        plan_json: loaded.plan.to_json(),
        digest: loaded.plan.digest().to_string(),
        source: loaded.source,
    }
}

fn incomprehensible(error: Invalid) -> Status {
    Status::internal(format!(
        "the coordinator's response is not valid for this version of lockstep: {error}"
    ))
}
