//! The connection to the coordinator, and how its errors become failures of the
//! command.
//!
//! Generated types are used only in this module.

mod requests;

use crate::config::{Config, Connection};
use crate::failure::{
    CONFIGURATION, COORDINATOR, CREDENTIALS, Failure, INSECURE, NOT_FOUND, NOT_PERMITTED, REFUSED,
    TIMED_OUT, UNREACHABLE,
};
use lockstep_api::Exit;
use lockstep_pki::{ConnectError, Credentials, Refusal};
use lockstep_proto::convert::diagnosis::diagnosis_from_status;
use lockstep_proto::limits::MAX_ANSWER;
use lockstep_proto::v1::operator_service_client::OperatorServiceClient;
use lockstep_telemetry::TraceContext;
pub use requests::{ObservedOutcome, Updates, Verb, VerbRequest};
use std::error::Error;
use std::future::Future;
use std::time::Duration;
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};

/// Time limit of a request. The coordinator answers from memory and its journal;
/// slower results are streamed.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(20);

/// Time limit for starting a run, before which every agent probes all of its tasks.
/// Longer than the coordinator's own time limit for the agents.
const START_TIMEOUT: Duration = Duration::from_secs(330);

/// Interval and timeout of HTTP/2 keep-alive pings, so that a watch detects the loss
/// of the coordinator's host.
const KEEP_ALIVE: Duration = Duration::from_secs(10);

#[derive(Debug, Clone)]
pub struct Coordinator {
    address: String,
    client: OperatorServiceClient<Channel>,
    trace: TraceContext,
}

impl Coordinator {
    /// Connects with the settings of the command line and the configuration file.
    ///
    /// # Errors
    /// The configuration or a certificate is invalid, the coordinator is unreachable,
    /// or it can't prove its identity.
    pub async fn connect(connection: &Connection) -> Result<Self, Failure> {
        let Config {
            coordinator: address,
            files,
        } = connection.resolve()?;
        let credentials = Credentials::load(files).map_err(|error| {
            Failure::of(CREDENTIALS, Exit::Refused, &error)
                .remedy("check --ca, --cert and --key; lockstep pki issue creates new ones")
        })?;
        let endpoint = Endpoint::from_shared(address.clone()).map_err(|error| {
            let what = format!("{address:?} is not an address of the form https://HOST:PORT");
            Failure::refused(CONFIGURATION, what).because(&error)
        })?;
        let endpoint = endpoint
            .http2_keep_alive_interval(KEEP_ALIVE)
            .keep_alive_timeout(KEEP_ALIVE)
            .keep_alive_while_idle(true);
        let channel = lockstep_pki::connect(&endpoint, &credentials)
            .await
            .map_err(|error| unreachable(&address, &error))?;
        let client = OperatorServiceClient::new(channel).max_decoding_message_size(MAX_ANSWER);
        Ok(Self::new(address, client))
    }

    fn new(address: String, client: OperatorServiceClient<Channel>) -> Self {
        Self {
            address,
            client,
            trace: TraceContext::generate(),
        }
    }

    /// A request that carries the trace of this command.
    fn request<M>(&self, message: M) -> Request<M> {
        let mut request = Request::new(message);
        // Hexadecimal digits and dashes are always a valid metadata value.
        if let Ok(traceparent) = self.trace.to_string().parse() {
            request.metadata_mut().insert("traceparent", traceparent);
        }
        request
    }

    /// A client for one call; clones share the connection.
    fn client(&self) -> OperatorServiceClient<Channel> {
        self.client.clone()
    }

    /// Makes one request with a time limit.
    ///
    /// # Errors
    /// The coordinator refused the request or didn't answer in time.
    async fn call<M, R, F>(
        &self,
        message: M,
        send: impl FnOnce(OperatorServiceClient<Channel>, Request<M>) -> F,
    ) -> Result<R, Failure>
    where
        F: Future<Output = Result<Response<R>, Status>>,
    {
        let answer = send(self.client(), self.request(message));
        self.within(REQUEST_TIMEOUT, answer).await
    }

    async fn within<R>(
        &self,
        limit: Duration,
        answer: impl Future<Output = Result<Response<R>, Status>>,
    ) -> Result<R, Failure> {
        match tokio::time::timeout(limit, answer).await {
            Ok(Ok(response)) => Ok(response.into_inner()),
            Ok(Err(status)) => Err(self.failure(&status)),
            Err(_) => Err(self.too_slow(limit)),
        }
    }

    fn too_slow(&self, limit: Duration) -> Failure {
        let what = format!(
            "the coordinator at {} did not answer within {} s",
            self.address,
            limit.as_secs()
        );
        Failure::new(TIMED_OUT, Exit::TimedOut, what)
            .remedy("the request may have taken effect; check with lockstep run show")
    }

    /// The failure that a gRPC status means for the command.
    pub fn failure(&self, status: &Status) -> Failure {
        let diagnosis = diagnosis_from_status(status);
        if diagnosis.is_none() && lost(status) {
            return unreachable(&self.address, status);
        }
        let (code, exit) = match status.code() {
            Code::Unavailable => (UNREACHABLE, Exit::Unreachable),
            Code::PermissionDenied | Code::Unauthenticated => (NOT_PERMITTED, Exit::Refused),
            Code::NotFound => (NOT_FOUND, Exit::Refused),
            Code::DeadlineExceeded => (TIMED_OUT, Exit::TimedOut),
            Code::InvalidArgument
            | Code::FailedPrecondition
            | Code::AlreadyExists
            | Code::Aborted
            | Code::OutOfRange
            | Code::ResourceExhausted => (REFUSED, Exit::Refused),
            _ => (COORDINATOR, Exit::Failed),
        };
        match diagnosis {
            Some(diagnosis) => Failure::diagnosed(exit, diagnosis),
            None => Failure::new(code, exit, status.message()),
        }
    }
}

/// Whether the connection was lost rather than the request refused.
pub fn lost(status: &Status) -> bool {
    status.code() == Code::Unavailable
        || (matches!(
            status.code(),
            Code::Unknown | Code::Cancelled | Code::Internal
        ) && status.source().is_some())
}

fn unreachable(address: &str, error: &(dyn Error + 'static)) -> Failure {
    let refusal = Refusal::among(error);
    let connect = chain(error).find_map(|error| error.downcast_ref::<ConnectError>());
    let failure = match (connect, refusal) {
        (Some(connect @ ConnectError::Address { .. }), _) => {
            return Failure::of(CONFIGURATION, Exit::Refused, connect);
        }
        (Some(connect @ ConnectError::Tls { .. }), _) => {
            Failure::of(INSECURE, Exit::Unreachable, connect)
        }
        (Some(connect), _) => Failure::of(UNREACHABLE, Exit::Unreachable, connect),
        (None, Some(refusal)) => {
            let what = format!("no secure connection to the coordinator at {address}");
            Failure::new(INSECURE, Exit::Unreachable, what).because(&refusal)
        }
        (None, None) => {
            let what = format!("the connection to the coordinator at {address} was lost");
            let failure = Failure::new(UNREACHABLE, Exit::Unreachable, what);
            // The text of a status contains its source in Debug form, so the source itself
            // is shown.
            match (error.source(), error.downcast_ref::<Status>()) {
                (Some(source), _) => failure.because(source),
                (None, Some(status)) => failure.because_of(status.message()),
                (None, None) => failure.because(error),
            }
        }
    };
    failure.remedy(
        "check that lockstep-coordinator is running there and that both certificates are valid",
    )
}

fn chain<'a>(error: &'a (dyn Error + 'static)) -> impl Iterator<Item = &'a (dyn Error + 'static)> {
    std::iter::successors(Some(error), |error| (*error).source())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::Diagnosis;
    use lockstep_proto::convert::diagnosis::diagnosis_to_status;

    fn coordinator() -> Coordinator {
        let channel = Endpoint::from_static("https://coordinator:7400").connect_lazy();
        let client = OperatorServiceClient::new(channel);
        Coordinator::new("https://coordinator:7400".to_owned(), client)
    }

    #[tokio::test]
    async fn each_status_has_an_exit_code_and_an_error_code() {
        let cases = [
            (Code::InvalidArgument, Exit::Refused, REFUSED),
            (Code::FailedPrecondition, Exit::Refused, REFUSED),
            (Code::NotFound, Exit::Refused, NOT_FOUND),
            (Code::PermissionDenied, Exit::Refused, NOT_PERMITTED),
            (Code::Unavailable, Exit::Unreachable, UNREACHABLE),
            (Code::DeadlineExceeded, Exit::TimedOut, TIMED_OUT),
            (Code::Internal, Exit::Failed, COORDINATOR),
        ];
        for (status, exit, code) in cases {
            let failure = coordinator().failure(&Status::new(status, "the message"));
            assert_eq!(failure.exit(), exit, "{status:?}");
            assert!(
                failure.text().starts_with(&format!("error[{code}]: ")),
                "{status:?}"
            );
        }
    }

    #[tokio::test]
    async fn all_parts_of_a_diagnosis_are_shown() {
        let diagnosis = Diagnosis::new(lockstep_api::Code::LS4101, "the run has ended")
            .state_left("nothing was changed")
            .remedy("start another run – with the same plan");
        let status = diagnosis_to_status(Code::FailedPrecondition, &diagnosis);
        let failure = coordinator().failure(&status);
        assert_eq!(
            failure.text(),
            "error[LS4101]: the run has ended\n  state: nothing was changed\n  \
             next: start another run – with the same plan\n"
        );
        assert_eq!(failure.json()["error"]["state_left"], "nothing was changed");
    }

    #[tokio::test]
    async fn a_coordinator_that_shuts_down_is_not_a_lost_connection() {
        let diagnosis = Diagnosis::new(UNREACHABLE, "the coordinator is shutting down");
        let failure = coordinator().failure(&diagnosis_to_status(Code::Unavailable, &diagnosis));
        assert_eq!(failure.exit(), Exit::Unreachable);
        assert_eq!(
            failure.text(),
            format!("error[{UNREACHABLE}]: the coordinator is shutting down\n")
        );
    }
}
