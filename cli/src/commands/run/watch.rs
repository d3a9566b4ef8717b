//! `lockstep run watch`, and the option `--watch` of other commands.

use crate::coordinator::{Coordinator, Updates, lost};
use crate::failure::{Failure, TIMED_OUT};
use crate::output::Format;
use crate::view::waiting::steady;
use crate::view::watch::View;
use jiff::SignedDuration;
use lockstep_api::{Exit, RunOutcome, RunStatus, RunUpdate};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Status;

/// How long to keep trying after the connection is lost: a restart of the
/// coordinator takes seconds, the back-off of a service manager half a minute.
const RECONNECT_TIMEOUT: Duration = Duration::from_secs(60);

/// Pause before the first reconnection, doubled each time up to the longest pause.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// The status is polled after this time without an update: soon enough for an
/// operator who waits for a gate, and seldom while a run sends updates.
const POLL_AFTER: Duration = Duration::from_secs(1);

/// A time limit that is never reached and doesn't overflow an `Instant`.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Watches a run.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// Id of the run.
    #[arg(default_value = super::LATEST)]
    run: String,
    #[command(flatten)]
    options: WatchOptions,
}

/// When to stop watching.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct WatchOptions {
    /// Keep watching while the run waits for an operator.
    #[arg(long)]
    stay: bool,
    /// Stop watching after this time, such as 90s or 2h; the run continues.
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

impl Watch {
    pub async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        follow(coordinator, &self.run, &self.options, format).await
    }
}

/// Watches a run until it ends or waits for an operator, and returns its exit code.
/// A lost connection is re-established, and the watch continues after the last
/// journal entry it has shown.
///
/// # Errors
/// The run is unknown, the coordinator stays unreachable, or the time limit passed.
pub async fn follow(
    coordinator: &Coordinator,
    run: &str,
    options: &WatchOptions,
    format: Format,
) -> Result<Exit, Failure> {
    let mut view = View::new(format);
    let mut watcher = Watcher {
        coordinator,
        run: run.to_owned(),
        sequence: 0,
        last: None,
        options,
        until: Instant::now() + options.timeout.unwrap_or(NEVER),
        last_seen: None,
    };
    let outcome = watcher.watch(&mut view).await;
    view.end()?;
    outcome
}

struct Watcher<'a> {
    coordinator: &'a Coordinator,
    run: String,
    /// The last journal entry that was shown.
    sequence: u64,
    /// Last known status of the run.
    last: Option<RunStatus>,
    options: &'a WatchOptions,
    until: Instant,
    /// Time of the last update; none before the first.
    last_seen: Option<Instant>,
}

impl Watcher<'_> {
    async fn watch(&mut self, view: &mut View) -> Result<Exit, Failure> {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.last_seen;
            let status = match timeout_at(self.until, self.stream(view)).await {
                Err(_) => return Err(self.timed_out()),
                Ok(Ok(exit)) => return Ok(exit),
                Ok(Err(Ended::View(failure))) => return Err(failure),
                Ok(Err(Ended::Stream(status))) => status,
            };
            // An error before the first update is not retried.
            let since = self
                .last_seen
                .ok_or_else(|| self.coordinator.failure(&status))?;
            if !lost(&status) || since.elapsed() > RECONNECT_TIMEOUT {
                return Err(self.coordinator.failure(&status).remedy(
                    "the run continues without this command; watch it again with lockstep run watch",
                ));
            }
            if self.last_seen != before {
                pause = FIRST_PAUSE;
                view.note("the connection to the coordinator was lost; reconnecting")?;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Shows the updates of one stream until it ends.
    async fn stream(&mut self, view: &mut View) -> Result<Exit, Ended> {
        let mut updates = self.coordinator.watch(&self.run, self.sequence).await?;
        while let Some(update) = self.next(&mut updates, view).await? {
            let exit = self.record(&update);
            view.show(update).map_err(Ended::View)?;
            if let Some(exit) = exit {
                return Ok(exit);
            }
        }
        // A coordinator that is shutting down closes its streams without an error.
        Err(Ended::Stream(Status::unavailable(
            "the coordinator closed the stream before the run ended",
        )))
    }

    /// The next update; none at the end of the stream. Without updates the status is
    /// polled, because reaching a gate is not a journal entry and causes no update.
    async fn next(
        &mut self,
        updates: &mut Updates,
        view: &mut View,
    ) -> Result<Option<RunUpdate>, Ended> {
        loop {
            view.tick().map_err(Ended::View)?;
            let update = match timeout(POLL_AFTER, updates.next()).await {
                Ok(update) => match update? {
                    Some(update) => Some(update),
                    None => return Ok(None),
                },
                Err(_) => self.poll(view).await?,
            };
            self.last_seen = Some(Instant::now());
            if update.is_some() {
                return Ok(update);
            }
        }
    }

    /// The status of the run; none if nothing has changed but what changes by itself.
    async fn poll(&self, view: &mut View) -> Result<Option<RunUpdate>, Status> {
        let run = self.coordinator.poll(&self.run).await?;
        let known = self.last.as_ref().map(steady);
        if known == Some(steady(&run)) {
            view.refresh(run);
            return Ok(None);
        }
        Ok(Some(RunUpdate::Status { run: Box::new(run) }))
    }

    /// Records where to continue after a reconnection. Returns the exit code if the
    /// watch ends with this update.
    fn record(&mut self, update: &RunUpdate) -> Option<Exit> {
        match update {
            RunUpdate::Status { run } => {
                // After a reconnection `latest` could be another run.
                self.run.clone_from(&run.id);
                self.last = Some(RunStatus::clone(run));
                let stays = self.options.stay && run.outcome == RunOutcome::Waiting;
                run.exit_code.filter(|_| !stays)
            }
            RunUpdate::Event { event } => {
                self.sequence = self.sequence.max(event.sequence);
                None
            }
            RunUpdate::Line { .. } | RunUpdate::Connection { .. } => None,
        }
    }

    fn timed_out(&self) -> Failure {
        let time = self.options.timeout.unwrap_or_default().as_secs();
        let what = format!("the run {} hasn't ended within {time} s", self.run);
        Failure::new(TIMED_OUT, Exit::TimedOut, what)
            .remedy("the run continues; watch it again with lockstep run watch")
    }
}

/// Why a stream ended.
enum Ended {
    Stream(Status),
    View(Failure),
}

impl From<Status> for Ended {
    fn from(status: Status) -> Self {
        Self::Stream(status)
    }
}

fn time(text: &str) -> Result<Duration, String> {
    let time: SignedDuration = text
        .parse()
        .map_err(|error: jiff::Error| error.to_string())?;
    Duration::try_from(time).map_err(|_| "a time can't be negative".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_time_has_a_unit_and_is_not_negative() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert!(time("-1s").is_err());
        assert!(time("soon").is_err());
    }
}
