//! Oracle to PostgreSQL: a load if the task has one, then changes from the redo.
//!
//! A run is a chain of sessions. A session opens both connections and works from
//! the checkpoint in the target; whatever loses it (the listener, a killed session,
//! a restart of either server) leads to the next one after a wait that grows, as
//! real DMS does for recoverable errors.

use super::apply::{Applier, ApplyError};
use super::connect::{self, ConnectError};
use super::load::{self, LoadError};
use super::redo::{self, RedoError, RedoReader, Round};
use super::{Job, timing};
use crate::config::{OracleEndpoint, PostgresEndpoint};
use crate::task::progress::TableState;
use crate::task::state::{Ending, StartType, now_ms};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Rounds read ahead of the one that is applied.
const ROUNDS_AHEAD: usize = 2;

/// How often a task that applies nothing looks whether it still shouldn't, and how
/// often a waiting one looks whether it is to end.
const LOOK: Duration = Duration::from_millis(20);

/// How often `awsdms_status` is written, in milliseconds.
const STATUS_MS: i64 = 1_000;

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error(transparent)]
    Redo(#[from] RedoError),
    #[error(transparent)]
    Apply(#[from] ApplyError),
    #[error("the thread that reads Oracle has ended")]
    Thread,
    #[error("the checkpoint is missing in awsdms_txn_state; start the task with start-replication")]
    NoCheckpoint,
}

impl SessionError {
    fn is_fatal(&self) -> bool {
        match self {
            Self::Redo(e) => e.is_fatal(),
            Self::NoCheckpoint => true,
            Self::Connect(e) => matches!(e, ConnectError::Authority { .. }),
            Self::Apply(_) | Self::Thread => false,
        }
    }
}

impl From<LoadError> for SessionError {
    fn from(error: LoadError) -> Self {
        match error {
            LoadError::Source(e) => Self::Redo(e),
            LoadError::Target(e) => Self::Apply(e),
            LoadError::Stopped | LoadError::Thread => Self::Thread,
        }
    }
}

/// What the sessions of one run share.
struct Run {
    job: Job,
    source: OracleEndpoint,
    target: PostgresEndpoint,
    /// Whether the run still has to begin afresh: no checkpoint counts yet.
    fresh: bool,
    failures: u32,
}

/// Runs a task until it ends.
pub async fn run(job: Job, source: OracleEndpoint, target: PostgresEndpoint) -> Ending {
    let mut run = Run {
        fresh: job.start != StartType::ResumeProcessing,
        job,
        source,
        target,
        failures: 0,
    };
    loop {
        if let Some(ending) = run.job.ending() {
            run.leave_exception().await;
            return ending;
        }
        match run.session().await {
            Ok(ending) => {
                run.leave_exception().await;
                return ending;
            }
            Err(error) if error.is_fatal() => return Ending::Fatal(error.to_string()),
            Err(error) if run.job.stopping() => {
                tracing::info!(task = %run.job.task.identifier, %error, "stopped");
                run.leave_exception().await;
                return Ending::Normal;
            }
            Err(error) => run.wait_after(&error).await,
        }
    }
}

impl Run {
    async fn wait_after(&mut self, error: &SessionError) {
        let wait = timing(&self.job.timing).retry_after(self.failures);
        self.failures = self.failures.saturating_add(1);
        tracing::warn!(task = %self.job.task.identifier, %error, ?wait, "recoverable error");
        self.job
            .progress
            .update(|s| s.counters.last_error = Some(error.to_string()));
        self.job.pause(wait).await;
    }

    /// What the range wants to be found after the stop.
    async fn leave_exception(&self) {
        let left = self
            .job
            .faults
            .stop_leaves_exception(&self.job.task.identifier);
        let Some((table, message)) = left else {
            return;
        };
        let Ok(client) = connect::postgres(&self.target).await else {
            return;
        };
        let applier = Applier::new(client, Arc::clone(&self.job.task));
        let logged = applier.control().exception(&table, "", &message);
        if let Err(error) = applier.client().batch_execute(&logged).await {
            tracing::warn!(task = %self.job.task.identifier, %error, "exception not logged");
        }
    }

    async fn session(&mut self) -> Result<Ending, SessionError> {
        let client = connect::postgres(&self.target).await?;
        self.job
            .progress
            .update(|s| s.counters.target_connects += 1);
        let mut applier = Applier::new(client, Arc::clone(&self.job.task));
        let ensured = applier.control().ensure(applier.client()).await;
        ensured.map_err(ApplyError::Retry)?;
        let source = self.source.clone();
        let connection = tokio::task::spawn_blocking(move || connect::oracle_blocking(&source))
            .await
            .map_err(|_| SessionError::Thread)??;
        self.job
            .progress
            .update(|s| s.counters.source_connects += 1);
        let connection = Arc::new(connection);
        if self.fresh {
            if let Some(ending) = self.begin_afresh(&connection, &mut applier).await? {
                return Ok(ending);
            }
            self.fresh = false;
        }
        let checkpoint = applier
            .control()
            .read(applier.client())
            .await
            .map_err(ApplyError::Retry)?;
        let checkpoint = checkpoint.ok_or(SessionError::NoCheckpoint)?;
        self.job
            .progress
            .update(|s| s.checkpoint = Some(checkpoint.to_string()));
        // What an earlier session had read and not applied is read again.
        self.job.progress.update(|s| {
            s.counters.rows_read = s.counters.rows_finished;
            s.oldest_pending_ms = None;
        });
        self.replicate(connection, &mut applier, checkpoint).await
    }

    /// The load, or for a task without one just the first checkpoint.
    async fn begin_afresh(
        &mut self,
        connection: &Arc<oracle::Connection>,
        applier: &mut Applier,
    ) -> Result<Option<Ending>, SessionError> {
        let job = self.job.clone();
        let task = Arc::clone(&job.task);
        let source = Arc::clone(connection);
        let looked = tokio::task::spawn_blocking(move || {
            let tables = redo::selected_tables(&source, &task.mappings)?;
            Ok::<_, RedoError>((tables, redo::current_scn(&source)?))
        });
        let (tables, scn) = looked.await.map_err(|_| SessionError::Thread)??;
        if job.task.migration_type.loads() {
            let truncate = job.has_run
                || job.start == StartType::ReloadTarget
                || job.task.settings.truncate_before_load;
            load::load(&job, Arc::clone(connection), applier, tables, scn, truncate).await?;
            if !job.task.migration_type.captures() {
                return Ok(Some(Ending::FullLoadFinished));
            }
            return Ok(None);
        }
        job.progress.reset();
        job.progress.begin_run();
        for (table, _) in &tables {
            job.progress.add_table(table, TableState::Completed);
        }
        let position = match job.task.cdc_start_position.as_deref().map(str::parse) {
            Some(Ok(given)) => given,
            _ => scn,
        };
        let begin = format!(
            "BEGIN; {} {}; COMMIT",
            applier.control().forget(),
            applier.control().begin(position)
        );
        applier
            .client()
            .batch_execute(&begin)
            .await
            .map_err(ApplyError::Retry)?;
        Ok(None)
    }

    /// Changes, until the task ends or the session does.
    async fn replicate(
        &mut self,
        connection: Arc<oracle::Connection>,
        applier: &mut Applier,
        from: u64,
    ) -> Result<Ending, SessionError> {
        let connection = Arc::into_inner(connection).ok_or(SessionError::Thread)?;
        let (send, mut rounds) = mpsc::channel(ROUNDS_AHEAD);
        let job = self.job.clone();
        let reader = tokio::task::spawn_blocking(move || {
            read(&job, RedoReader::new(connection, from), &send)
        });
        let mut status_due = 0;
        loop {
            if let Some(ending) = self.job.ending() {
                self.write_status(applier, "STOPPED").await?;
                return Ok(ending);
            }
            if now_ms() >= status_due {
                status_due = now_ms() + STATUS_MS;
                self.write_status(applier, "RUNNING").await?;
            }
            if self.job.faults.apply_paused(&self.job.task.identifier) {
                self.job.pause(LOOK).await;
                continue;
            }
            match tokio::time::timeout(LOOK, rounds.recv()).await {
                Err(_) => {}
                Ok(Some(round)) => {
                    let round: Round = round;
                    applier.apply(&self.job, &round.transactions).await?;
                    self.failures = 0;
                }
                Ok(None) => {
                    reader.await.map_err(|_| SessionError::Thread)??;
                    return Err(SessionError::Thread);
                }
            }
        }
    }

    async fn write_status(&self, applier: &Applier, status: &str) -> Result<(), SessionError> {
        if let Some(sql) = applier
            .control()
            .status(status, &self.job.progress.snapshot())
        {
            applier
                .client()
                .batch_execute(&sql)
                .await
                .map_err(ApplyError::Retry)?;
        }
        Ok(())
    }
}

/// Looks at the redo again and again, until nobody takes the rounds any more.
fn read(job: &Job, mut reader: RedoReader, send: &mpsc::Sender<Round>) -> Result<(), RedoError> {
    while !send.is_closed() && !job.stopping() {
        let looked_ms = now_ms();
        let round = reader.poll(&job.task.mappings)?;
        job.progress.update(|s| {
            s.counters.polls += 1;
            if round.complete {
                s.source_read_until_ms = Some(looked_ms);
            }
        });
        for transaction in &round.transactions {
            job.progress.transaction_read(transaction.changes.len());
        }
        let complete = round.complete;
        if !round.transactions.is_empty() && send.blocking_send(round).is_err() {
            break;
        }
        if complete {
            std::thread::sleep(Duration::from_millis(timing(&job.timing).poll_ms));
        }
    }
    Ok(())
}
