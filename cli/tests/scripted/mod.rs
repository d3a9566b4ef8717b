//! A coordinator that answers operators from a script, behind the real listener.

use lockstep_api::Diagnosis;
use lockstep_pki::{Authority, CredentialFiles, Credentials, Listener, ListenerOptions};
use lockstep_proto::convert::diagnosis::diagnosis_to_status;
use lockstep_proto::v1::operator_service_server::{OperatorService, OperatorServiceServer};
use lockstep_proto::v1::watch_run_response::Update;
use lockstep_proto::v1::{self, RunEvent, RunOutcome, RunStatus, TaskLine, WatchRunResponse};
use std::collections::VecDeque;
use std::path::PathBuf;
use std::pin::Pin;
use std::process::Stdio;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tempfile::TempDir;
use tokio_stream::{Stream, StreamExt};
use tonic::{Request, Response, Status};

/// Sequence of the run that `get_run` returns.
pub const SEEN: u64 = 7;

/// One message of a watch, or its end.
#[derive(Clone)]
pub enum Answer {
    Status(Box<RunStatus>),
    Line(TaskLine),
    /// A journal entry with this sequence.
    Event(u64),
    /// The stream ends with an error.
    Fail(Status),
    /// The stream stays open without further messages.
    Silence,
}

pub fn run(outcome: RunOutcome) -> RunStatus {
    RunStatus {
        run_id: "r-1".to_owned(),
        plan_name: "shop".to_owned(),
        plan_kind: "Plan".to_owned(),
        plan_digest: "ab".repeat(32),
        outcome: outcome.into(),
        exit_code: match outcome {
            RunOutcome::Failed | RunOutcome::Aborted => 1,
            RunOutcome::RolledBack => 5,
            RunOutcome::Waiting => 6,
            _ => 0,
        },
        ..RunStatus::default()
    }
}

pub fn line(text: &str) -> TaskLine {
    TaskLine {
        agent: "app-1".to_owned(),
        phase: "stop".to_owned(),
        step_id: "stop-web".to_owned(),
        kind: "output".to_owned(),
        line: text.to_owned(),
        at_ms: 1,
    }
}

/// Result of a finished command.
#[derive(Debug)]
pub struct Done {
    pub code: i32,
    pub out: String,
    pub err: String,
}

/// The coordinator, its trust domain and a plan.
pub struct Scripted {
    dir: TempDir,
    authority: Authority,
    address: String,
    credentials: Credentials,
    script: Arc<Script>,
}

struct Script {
    /// One list of answers for each watch.
    watches: Mutex<VecDeque<Vec<Answer>>>,
    /// Run and sequence number of each requested watch.
    requested: Mutex<Vec<(String, u64)>>,
    /// Expected sequence of each requested retry.
    retries: Mutex<Vec<u64>>,
}

impl Scripted {
    pub async fn start(watches: Vec<Vec<Answer>>) -> Self {
        let dir = TempDir::new().unwrap();
        let authority = Authority::create(dir.path(), "example.org".parse().unwrap()).unwrap();
        for identity in ["coordinator/main", "operator/alice"] {
            let valid = Duration::from_secs(3600);
            let issued = authority
                .issue(&identity.parse().unwrap(), valid, &[])
                .unwrap();
            issued.write(dir.path()).unwrap();
        }
        let file = |name: &str| dir.path().join(name);
        let credentials = Credentials::load(CredentialFiles {
            ca: file("ca.pem"),
            cert: file("main.pem"),
            key: file("main-key.pem"),
            crl: Some(file("crl.pem")),
        })
        .unwrap();
        let listener = Listener::bind(
            "127.0.0.1:0".parse().unwrap(),
            credentials.clone(),
            ListenerOptions::default(),
        )
        .unwrap();
        let address = format!("https://{}", listener.local_addr().unwrap());
        let script = Arc::new(Script {
            watches: Mutex::new(watches.into()),
            requested: Mutex::default(),
            retries: Mutex::default(),
        });
        let service = OperatorServiceServer::from_arc(script.clone());
        tokio::spawn(
            tonic::transport::Server::builder()
                .add_service(service)
                .serve_with_incoming(listener),
        );
        Self {
            dir,
            authority,
            address,
            credentials,
            script,
        }
    }

    /// Runs the command as the operator alice.
    pub async fn lockstep(&self, arguments: &[&str]) -> Done {
        self.lockstep_at(&self.address, arguments).await
    }

    pub async fn lockstep_at(&self, address: &str, arguments: &[&str]) -> Done {
        let output = tokio::process::Command::new(env!("CARGO_BIN_EXE_lockstep"))
            .args(arguments)
            .env("LOCKSTEP_COORDINATOR", address)
            .env("LOCKSTEP_CA", self.path("ca.pem"))
            .env("LOCKSTEP_CERT", self.path("alice.pem"))
            .env("LOCKSTEP_KEY", self.path("alice-key.pem"))
            .env("XDG_CONFIG_HOME", self.path("nowhere"))
            .stdin(Stdio::null())
            .kill_on_drop(true)
            .output();
        // Only a guard against a hanging test.
        let output = tokio::time::timeout(Duration::from_secs(60), output)
            .await
            .unwrap()
            .unwrap();
        Done {
            code: output.status.code().unwrap(),
            out: String::from_utf8(output.stdout).unwrap(),
            err: String::from_utf8(output.stderr).unwrap(),
        }
    }

    /// Path of a valid plan.
    pub fn plan(&self) -> String {
        let path = self.path("plan.yaml");
        let text = "kind: Plan\nname: shop\nparties:\n  apps:\n    labels: {role: app}\n    \
                    expected: 1\nphases:\n  - name: stop\n    steps:\n      - id: stop-web\n        \
                    party: apps\n        action: service.stop\n        params:\n          \
                    units: [shop.service]\n";
        std::fs::write(&path, text).unwrap();
        path.display().to_string()
    }

    /// Run and sequence number of each watch requested so far.
    pub fn requested_watches(&self) -> Vec<(String, u64)> {
        self.script.requested.lock().unwrap().clone()
    }

    /// Expected sequence of each retry requested so far.
    pub fn requested_retries(&self) -> Vec<u64> {
        self.script.retries.lock().unwrap().clone()
    }

    pub fn revoke_operator(&self) {
        self.authority.revoke(&self.path("alice.pem")).unwrap();
        assert!(self.credentials.reload().unwrap());
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }
}

type Answers<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Implements the service; the listed methods are not part of any script.
macro_rules! operator_service {
    ($($method:ident($request:ident) -> $response:ident;)*) => {
        #[tonic::async_trait]
        impl OperatorService for Script {
            type PreflightStream = Answers<v1::PreflightResponse>;
            type WatchRunStream = Answers<WatchRunResponse>;

            async fn preflight(
                &self,
                _request: Request<v1::PreflightRequest>,
            ) -> Result<Response<Self::PreflightStream>, Status> {
                Err(Status::unimplemented("not in the script"))
            }

            async fn start_run(
                &self,
                _request: Request<v1::StartRunRequest>,
            ) -> Result<Response<v1::StartRunResponse>, Status> {
                Ok(Response::new(v1::StartRunResponse { run_id: "r-1".to_owned() }))
            }

            async fn get_run(
                &self,
                _request: Request<v1::GetRunRequest>,
            ) -> Result<Response<v1::GetRunResponse>, Status> {
                let run = RunStatus { sequence: SEEN, ..run(RunOutcome::Waiting) };
                Ok(Response::new(v1::GetRunResponse { run: Some(run) }))
            }

            async fn retry_run(
                &self,
                request: Request<v1::RetryRunRequest>,
            ) -> Result<Response<v1::RetryRunResponse>, Status> {
                let verb = request.into_inner().verb.unwrap_or_default();
                self.retries.lock().unwrap().push(verb.expected_sequence);
                let run = Some(run(RunOutcome::Waiting));
                Ok(Response::new(v1::RetryRunResponse { run }))
            }

            async fn watch_run(
                &self,
                request: Request<v1::WatchRunRequest>,
            ) -> Result<Response<Self::WatchRunStream>, Status> {
                Ok(Response::new(self.watch(request.into_inner())))
            }

            async fn abort_run(
                &self,
                _request: Request<v1::AbortRunRequest>,
            ) -> Result<Response<v1::AbortRunResponse>, Status> {
                let ended = Diagnosis::new(lockstep_api::Code::LS4101, "the run r-1 has ended")
                    .remedy("start another");
                Err(diagnosis_to_status(tonic::Code::FailedPrecondition, &ended))
            }

            $(
                async fn $method(
                    &self,
                    _request: Request<v1::$request>,
                ) -> Result<Response<v1::$response>, Status> {
                    Err(Status::unimplemented("not in the script"))
                }
            )*
        }
    };
}

operator_service! {
    list_runs(ListRunsRequest) -> ListRunsResponse;
    list_run_events(ListRunEventsRequest) -> ListRunEventsResponse;
    approve_run(ApproveRunRequest) -> ApproveRunResponse;
    pause_run(PauseRunRequest) -> PauseRunResponse;
    resume_run(ResumeRunRequest) -> ResumeRunResponse;
    skip_run(SkipRunRequest) -> SkipRunResponse;
    rollback_run(RollbackRunRequest) -> RollbackRunResponse;
    waive_task(WaiveTaskRequest) -> WaiveTaskResponse;
    resolve_task(ResolveTaskRequest) -> ResolveTaskResponse;
    list_agents(ListAgentsRequest) -> ListAgentsResponse;
    accept_agent(AcceptAgentRequest) -> AcceptAgentResponse;
}

impl Script {
    fn watch(&self, request: v1::WatchRunRequest) -> Answers<WatchRunResponse> {
        self.requested
            .lock()
            .unwrap()
            .push((request.run_id, request.after_sequence));
        let answers = self.watches.lock().unwrap().pop_front().unwrap_or_default();
        let silent = answers
            .iter()
            .any(|answer| matches!(answer, Answer::Silence));
        let updates = tokio_stream::iter(answers).filter_map(|answer| match answer {
            Answer::Status(run) => Some(Ok(Update::Status(*run))),
            Answer::Line(line) => Some(Ok(Update::Line(line))),
            Answer::Event(sequence) => Some(Ok(Update::Event(RunEvent {
                sequence,
                ..RunEvent::default()
            }))),
            Answer::Fail(status) => Some(Err(status)),
            Answer::Silence => None,
        });
        let updates = updates.map(|update| {
            update.map(|update| WatchRunResponse {
                update: Some(update),
            })
        });
        if silent {
            Box::pin(updates.chain(tokio_stream::pending()))
        } else {
            Box::pin(updates)
        }
    }
}
