//! Configuration, clients and errors of the AWS services.
//!
//! Clients are cached, with their connections and the host's trust store,
//! until the credentials files change.
//!
//! Errors are classified by their code: DMS models `AccessDeniedFault` for
//! some operations only, elsewhere a denial is an unmodelled
//! `AccessDeniedException`.

use crate::config::AwsConfig;
use crate::error::ActionError;
use crate::host::context::Context;
use crate::host::secret_file::{self, Unreadable};
use aws_config::retry::RetryConfig;
use aws_config::timeout::TimeoutConfig;
use aws_config::{AppName, BehaviorVersion, Region, SdkConfig};
use aws_sdk_databasemigration::config::Credentials;
use aws_sdk_databasemigration::error::{ProvideErrorMetadata, SdkError};
use lockstep_api::Code;
use std::collections::BTreeMap;
use std::path::Path;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// One attempt of a call; DMS answers within a second or two.
const ATTEMPT_LIMIT: Duration = Duration::from_secs(10);

/// A call with all its attempts. Long enough to outlast throttling, short
/// compared with the outage.
const CALL_LIMIT: Duration = Duration::from_secs(45);

/// Attempts of one call; only throttling and broken connections are tried
/// again, by the SDK.
const ATTEMPTS: u32 = 6;

/// The first pause between two attempts; it doubles.
const BACKOFF: Duration = Duration::from_millis(200);

/// A call that failed.
#[derive(Debug)]
pub struct Refused {
    /// The service's error code, if it returned one.
    pub code: Option<String>,
    error: ActionError,
}

impl Refused {
    /// The service reports that the resource doesn't exist.
    pub fn is_not_found(&self) -> bool {
        matches!(
            self.code.as_deref(),
            Some("ResourceNotFoundFault" | "ResourceNotFound")
        )
    }

    /// The resource's state doesn't permit the call.
    pub fn is_wrong_state(&self) -> bool {
        self.code.as_deref() == Some("InvalidResourceStateFault")
    }
}

impl From<Refused> for ActionError {
    fn from(refused: Refused) -> Self {
        refused.error
    }
}

/// The message of the service or of the client.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
struct Said(String);

/// The services of a resource.
#[derive(Clone)]
pub struct Clients {
    pub dms: aws_sdk_databasemigration::Client,
    pub cloudwatch: aws_sdk_cloudwatch::Client,
}

/// Clients by resource, with the credentials they were made with.
#[derive(Default)]
pub struct ClientCache(Mutex<BTreeMap<String, (Option<Credentials>, Clients)>>);

impl ClientCache {
    fn all(&self) -> MutexGuard<'_, BTreeMap<String, (Option<Credentials>, Clients)>> {
        // Entries are only replaced as a whole.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The clients for a resource. Nothing is called yet.
///
/// # Errors
/// LS2408 where a credentials file can't be read, LS2019 where others can read it.
pub async fn clients(cx: &Context, resource: &str) -> Result<Clients, ActionError> {
    let config = cx.host.aws(resource)?;
    let credentials = credentials(config)?;
    if let Some((with, clients)) = cx.host.aws.all().get(resource)
        && *with == credentials
    {
        return Ok(clients.clone());
    }
    let sdk = sdk(config, credentials.clone()).await;
    let clients = Clients {
        dms: aws_sdk_databasemigration::Client::new(&sdk),
        cloudwatch: aws_sdk_cloudwatch::Client::new(&sdk),
    };
    let entry = (credentials, clients.clone());
    cx.host.aws.all().insert(resource.to_owned(), entry);
    Ok(clients)
}

async fn sdk(config: &AwsConfig, credentials: Option<Credentials>) -> SdkConfig {
    let timeouts = TimeoutConfig::builder()
        .operation_attempt_timeout(ATTEMPT_LIMIT)
        .operation_timeout(CALL_LIMIT)
        .build();
    let retries = RetryConfig::standard()
        .with_max_attempts(ATTEMPTS)
        .with_initial_backoff(BACKOFF);
    let mut loader = aws_config::defaults(BehaviorVersion::v2026_01_12())
        .region(Region::new(config.region.clone()))
        .timeout_config(timeouts)
        .retry_config(retries);
    if let Ok(name) = AppName::new("lockstep") {
        loader = loader.app_name(name);
    }
    if let Some(url) = &config.endpoint_url {
        loader = loader.endpoint_url(url);
    }
    if let Some(credentials) = credentials {
        loader = loader.credentials_provider(credentials);
    }
    loader.load().await
}

/// From files where the configuration names them, else the SDK's own chain.
fn credentials(config: &AwsConfig) -> Result<Option<Credentials>, ActionError> {
    match (&config.access_key_id_file, &config.secret_access_key_file) {
        (Some(id), Some(secret)) => Ok(Some(Credentials::new(
            read(id)?,
            read(secret)?,
            None,
            None,
            "agent.toml",
        ))),
        _ => Ok(None),
    }
}

fn read(file: &Path) -> Result<String, ActionError> {
    let text =
        secret_file::read(file, "credentials file").map_err(|unreadable| match unreadable {
            Unreadable::Open(error) => error,
            Unreadable::Failed(e) => ActionError::new(
                Code::LS2408,
                format!("the credentials file {} can't be read", file.display()),
            )
            .state_left("nothing was done")
            .remedy("see that the agent may read it")
            .source(e),
        })?;
    Ok(text.trim().to_owned())
}

/// Makes a call. `service` is the prefix of IAM's actions (`dms`), `on` the
/// resource that the call is about. The SDK's futures are large: hand them in boxed.
///
/// # Errors
/// [`Refused`] with the service's code; LS2409 when the task is cancelled.
pub async fn call<T, E>(
    cx: &Context,
    service: &str,
    operation: &str,
    on: &str,
    work: impl Future<Output = Result<T, SdkError<E>>>,
) -> Result<T, Refused>
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let done = tokio::select! {
        done = work => done,
        () = cx.cancel.cancelled() => return Err(Refused {
            code: None,
            error: out_of_time(&format!("{service}:{operation} on {on}")),
        }),
    };
    done.map_err(|e| refused(service, operation, on, &e))
}

/// The task's time is up.
pub fn out_of_time(during: &str) -> ActionError {
    ActionError::new(
        Code::LS2409,
        format!("the task's time was up during {during}"),
    )
    .state_left("AWS may still carry out what it was asked for")
    .remedy("check it in the console, then retry: the probe determines how far it came")
}

fn refused<E>(service: &str, operation: &str, on: &str, error: &SdkError<E>) -> Refused
where
    E: ProvideErrorMetadata + std::error::Error + 'static,
{
    let code = error.code().map(str::to_owned);
    let asked = format!("{service}:{operation} on {on}");
    let (number, what, next) = match code.as_deref() {
        None => (
            Code::LS2401,
            format!("no answer to {asked}"),
            "see region, endpoint_url and credentials in agent.toml, and the way to AWS".to_owned(),
        ),
        Some("AccessDeniedFault" | "AccessDeniedException" | "AccessDenied") => (
            Code::LS2402,
            format!("AWS denies {asked}"),
            format!("allow {service}:{operation} to the agent's credentials, then retry"),
        ),
        Some(
            "UnrecognizedClientException"
            | "InvalidSignatureException"
            | "ExpiredTokenException"
            | "InvalidClientTokenId"
            | "SignatureDoesNotMatch",
        ) => (
            Code::LS2403,
            format!("AWS does not accept the agent's credentials for {asked}"),
            "renew them, and see that the host's clock is right, then retry".to_owned(),
        ),
        Some("ThrottlingException" | "Throttling" | "RequestLimitExceeded") => (
            Code::LS2404,
            format!("AWS throttles {asked}"),
            "see what else calls AWS with this account, then retry".to_owned(),
        ),
        Some("ResourceNotFoundFault" | "ResourceNotFound") => (
            Code::LS2405,
            format!("AWS finds nothing for {asked}"),
            "correct the name or ARN in the plan, and the region in agent.toml".to_owned(),
        ),
        Some("InvalidResourceStateFault") => (
            Code::LS2406,
            format!("its state doesn't permit {asked}"),
            "see its state in the console, wait or fix it, then retry".to_owned(),
        ),
        Some(_) => (
            Code::LS2407,
            format!("AWS refuses {asked}"),
            "correct what the message names, then retry".to_owned(),
        ),
    };
    let said = match (&code, error.message()) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.clone(),
        (None, _) => chain(error),
    };
    let left = match code {
        Some(_) => "this call changed nothing",
        None => "where the call came through, AWS carries it out",
    };
    let error = ActionError::new(number, what)
        .state_left(left)
        .remedy(next)
        .source(Said(said));
    Refused { code, error }
}

fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text.push_str(": ");
        text.push_str(&cause.to_string());
        source = cause.source();
    }
    text
}
