//! Checks: they poll until the expected state is reached or the time is up, and
//! change nothing.

pub mod command;
pub mod http;
pub mod state;
pub mod tcp;

use crate::action::{ActionError, Context};
use lockstep_api::Code;
use std::time::Duration;

const PAUSE: Duration = Duration::from_millis(250);

/// Tries until it succeeds; the error has the problem of the last try.
async fn persist<F>(
    cx: &Context,
    what: &str,
    within_secs: u64,
    attempt: impl Fn() -> F,
) -> Result<(), ActionError>
where
    F: Future<Output = Result<(), String>>,
{
    let limit = Duration::from_secs(within_secs);
    let began = tokio::time::Instant::now();
    let mut last_reported = String::new();
    loop {
        let problem = match attempt().await {
            Ok(()) => return Ok(()),
            Err(problem) => problem,
        };
        if began.elapsed() >= limit || cx.cancel.is_cancelled() {
            return Err(ActionError::new(
                Code::LS2160,
                format!("{what} was not as wanted within {within_secs} s: {problem}"),
            )
            .state_left("nothing was changed by the check")
            .remedy("fix the cause, then retry"));
        }
        if problem != last_reported {
            cx.note(format!("{what}: {problem}; retrying"));
            last_reported = problem;
        }
        tokio::time::sleep(PAUSE).await;
    }
}
