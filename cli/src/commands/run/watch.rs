//! `lockstep run watch`, and the watching that other commands end with.

use crate::coordinator::{Coordinator, Updates, lost};
use crate::failure::{Failure, TIMED_OUT};
use crate::output::Format;
use crate::view::watch::View;
use jiff::SignedDuration;
use lockstep_api::{Exit, RunOutcome, RunStatus, RunUpdate};
use std::time::Duration;
use tokio::time::{Instant, sleep, timeout, timeout_at};
use tonic::Status;

/// How long a coordinator that has gone is waited for: a restart takes seconds,
/// a service manager's back-off half a minute.
const LOST_FOR: Duration = Duration::from_secs(60);

/// First pause before trying again, doubled each time up to the second.
const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(2);

/// After this long without a word the run is asked how it stands: soon enough for
/// an operator at a gate, and seldom beside what a working run says.
const SILENCE: Duration = Duration::from_secs(1);

/// Far enough away to mean never, near enough for arithmetic on it.
const NEVER: Duration = Duration::from_secs(10 * 365 * 24 * 3600);

/// Watches a run.
#[derive(Debug, clap::Args)]
pub struct Watch {
    /// The run.
    #[arg(default_value = super::LATEST)]
    run: String,
    #[command(flatten)]
    patience: Patience,
}

/// How long to watch.
#[derive(Debug, Clone, Default, clap::Args)]
pub struct Patience {
    /// Go on watching while the run waits for an operator.
    #[arg(long)]
    stay: bool,
    /// Give up watching after this time, such as 90s or 2h; the run goes on.
    #[arg(long, value_name = "TIME", value_parser = time)]
    timeout: Option<Duration>,
}

impl Watch {
    pub async fn carry_out(
        self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        follow(coordinator, &self.run, &self.patience, format).await
    }
}

/// Watches a run until it ends, or waits for an operator, and says how. A lost
/// connection is made again; what was missed is made up for.
///
/// # Errors
/// The run isn't known, the coordinator stays away, or the time is over.
pub async fn follow(
    coordinator: &Coordinator,
    run: &str,
    patience: &Patience,
    format: Format,
) -> Result<Exit, Failure> {
    let mut view = View::new(format);
    let mut watcher = Watcher {
        coordinator,
        run: run.to_owned(),
        sequence: 0,
        last: None,
        patience,
        until: Instant::now() + patience.timeout.unwrap_or(NEVER),
        heard: None,
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
    /// How the run stood last.
    last: Option<RunStatus>,
    patience: &'a Patience,
    until: Instant,
    /// When the coordinator was last heard; none before the first time.
    heard: Option<Instant>,
}

impl Watcher<'_> {
    async fn watch(&mut self, view: &mut View) -> Result<Exit, Failure> {
        let mut pause = FIRST_PAUSE;
        loop {
            let before = self.heard;
            let status = match timeout_at(self.until, self.stream(view)).await {
                Err(_) => return Err(self.timed_out()),
                Ok(Ok(exit)) => return Ok(exit),
                Ok(Err(Ended::View(failure))) => return Err(failure),
                Ok(Err(Ended::Stream(status))) => status,
            };
            // Before the first answer an error is the answer.
            let since = self
                .heard
                .ok_or_else(|| self.coordinator.failure(&status))?;
            if !lost(&status) || since.elapsed() > LOST_FOR {
                return Err(self.coordinator.failure(&status).remedy(
                    "the run doesn't need this command; watch it again with lockstep run watch",
                ));
            }
            if self.heard != before {
                pause = FIRST_PAUSE;
                view.note("the connection to the coordinator was lost; trying again")?;
            }
            sleep(pause).await;
            pause = (pause * 2).min(LONGEST_PAUSE);
        }
    }

    /// Shows one stream to its end.
    async fn stream(&mut self, view: &mut View) -> Result<Exit, Ended> {
        let mut updates = self.coordinator.watch(&self.run, self.sequence).await?;
        while let Some(update) = self.next(&mut updates).await? {
            let exit = self.record(&update);
            view.show(update).map_err(Ended::View)?;
            if let Some(exit) = exit {
                return Ok(exit);
            }
        }
        // A coordinator that stops ends its streams in good order.
        Err(Ended::Stream(Status::unavailable(
            "the coordinator ended the watch before the run",
        )))
    }

    /// The next update; none at the end of the stream. A run that has fallen
    /// silent is asked how it stands: that a gate is reached is no journal entry,
    /// and so isn't announced.
    async fn next(&mut self, updates: &mut Updates) -> Result<Option<RunUpdate>, Status> {
        loop {
            let update = match timeout(SILENCE, updates.next()).await {
                Ok(update) => match update? {
                    Some(update) => Some(update),
                    None => return Ok(None),
                },
                Err(_) => self.poll().await?,
            };
            self.heard = Some(Instant::now());
            if update.is_some() {
                return Ok(update);
            }
        }
    }

    /// How the run stands, if that is anything new.
    async fn poll(&self) -> Result<Option<RunUpdate>, Status> {
        let run = self.coordinator.poll(&self.run).await?;
        let known = self.last.as_ref().is_some_and(|last| {
            // The outage grows by itself.
            let write_outage_ms = run.write_outage_ms;
            RunStatus {
                write_outage_ms,
                ..last.clone()
            } == run
        });
        Ok((!known).then(|| RunUpdate::Status { run: Box::new(run) }))
    }

    /// Remembers where to go on, and says how the command ends if this is its end.
    fn record(&mut self, update: &RunUpdate) -> Option<Exit> {
        match update {
            RunUpdate::Status { run } => {
                // The newest run may be another one after a lost connection.
                self.run.clone_from(&run.id);
                self.last = Some(RunStatus::clone(run));
                let stays = self.patience.stay && run.outcome == RunOutcome::Waiting;
                run.exit_code.filter(|_| !stays)
            }
            RunUpdate::Event { event } => {
                self.sequence = self.sequence.max(event.sequence);
                None
            }
            RunUpdate::Line { .. } => None,
        }
    }

    fn timed_out(&self) -> Failure {
        let time = self.patience.timeout.unwrap_or_default().as_secs();
        let what = format!("the run {} hasn't ended within {time} s", self.run);
        Failure::new(TIMED_OUT, Exit::TimedOut, what)
            .remedy("the run goes on; watch it again with lockstep run watch")
    }
}

/// Why a stream was left.
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
    fn a_time_is_written_as_people_write_it() {
        assert_eq!(time("90s"), Ok(Duration::from_secs(90)));
        assert_eq!(time("1h 30m"), Ok(Duration::from_secs(5_400)));
        assert!(time("-1s").is_err());
        assert!(time("soon").is_err());
    }
}
