//! PostgreSQL to Oracle: changes from a logical slot, applied by a thread that
//! owns the Oracle session.
//!
//! The slot is the endpoint's own (`SlotName`) or one that the task makes at its
//! first start and drops when it is deleted. The stream is held all the time, so
//! the slot is `active`; the slot moves only over what Oracle has committed. Its
//! transactions are applied exactly once: the checkpoint is in Oracle.

use super::change::{TableName, Transaction};
use super::connect::{self, ConnectError, postgres_text};
use super::decoding::{DecodeError, Decoded, decode};
use super::oracle_apply::{OracleApplier, OracleApplyError, selected};
use super::source_types::{SourceTypes, capture_ddl};
use super::stream::{LogicalStream, Message, StreamError, format_lsn, parse_lsn};
use super::{Job, timing};
use crate::config::{OracleEndpoint, PostgresEndpoint};
use crate::task::progress::TableState;
use crate::task::state::{Definition, Ending, StartType, now_ms};
use std::collections::HashSet;
use std::sync::mpsc as std_mpsc;
use std::time::Duration;
use tokio::sync::mpsc;

/// Transactions read ahead of the one that is applied. When it is full the socket
/// is not read, and the server holds the rest.
const TRANSACTIONS_AHEAD: usize = 256;

/// Changes in one transaction, as for the other direction.
const TRANSACTION_ROWS: usize = 200_000;

/// Interval for confirming the slot's position and checking whether the task ends.
const TICK: Duration = Duration::from_millis(100);

/// How long the Oracle thread waits for its last transaction at the end of a run.
const LAST_TRANSACTION: Duration = Duration::from_secs(30);

/// Why a session ended.
#[derive(Debug, thiserror::Error)]
enum SessionError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("PostgreSQL: {}", postgres_text(.0))]
    Postgres(#[from] tokio_postgres::Error),
    #[error("{}", with_cause(.0))]
    Stream(#[from] StreamError),
    #[error(transparent)]
    Oracle(#[from] OracleApplyError),
    #[error(transparent)]
    Decode(#[from] DecodeError),
    #[error("the slot {0:?} does not exist")]
    NoSlot(String),
    #[error("transaction {0} has more than {TRANSACTION_ROWS} changes")]
    TooLarge(String),
    #[error("the thread that writes to Oracle has ended")]
    Thread,
}

fn with_cause(error: &StreamError) -> String {
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

impl SessionError {
    fn is_fatal(&self) -> bool {
        match self {
            Self::Stream(e) => e.is_fatal(),
            Self::Decode(_) | Self::NoSlot(_) | Self::TooLarge(_) => true,
            Self::Connect(e) => matches!(e, ConnectError::Authority { .. }),
            Self::Postgres(e) => e
                .code()
                .is_some_and(|c| !c.code().starts_with("57") && !c.code().starts_with("53")),
            Self::Oracle(OracleApplyError::Stopped { .. }) => true,
            Self::Oracle(OracleApplyError::Oracle { .. }) | Self::Thread => false,
        }
    }
}

/// Runs a task until it ends.
pub async fn run(job: Job, source: PostgresEndpoint, target: OracleEndpoint) -> Ending {
    let mut fresh = job.start != StartType::ResumeProcessing;
    let mut failures = 0_u32;
    loop {
        if let Some(ending) = job.ending() {
            return ending;
        }
        let error = match session(&job, &source, &target, &mut fresh, &mut failures).await {
            Ok(ending) => return ending,
            Err(error) if error.is_fatal() => return Ending::Fatal(error.to_string()),
            Err(error) => error,
        };
        let wait = timing(&job.timing).retry_after(failures);
        failures = failures.saturating_add(1);
        tracing::warn!(task = %job.task.identifier, %error, ?wait, "recoverable error");
        job.progress
            .update(|s| s.counters.last_error = Some(error.to_string()));
        job.pause(wait).await;
    }
}

/// The slot that a task makes for itself, if its endpoint names none. The resource
/// id is part of it, so that no two tasks share one.
#[must_use]
pub fn own_slot(task: &Definition) -> String {
    let name: String = task
        .identifier
        .chars()
        .map(|c| {
            if c.is_ascii_alphanumeric() {
                c.to_ascii_lowercase()
            } else {
                '_'
            }
        })
        .take(36)
        .collect();
    format!("{name}_{}", task.resource_id().to_ascii_lowercase())
}

/// Drops the slot that the task has made, if it is there.
///
/// # Errors
/// A sentence that names the slot.
pub async fn drop_own_slot(task: &Definition, source: &PostgresEndpoint) -> Result<(), String> {
    if source.slot().is_some() {
        return Ok(());
    }
    let slot = own_slot(task);
    let left = |why: String| format!("The replication slot {slot} may be left behind: {why}");
    let client = connect::postgres(source)
        .await
        .map_err(|e| left(e.to_string()))?;
    client
        .execute(
            "SELECT pg_drop_replication_slot(slot_name) FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await
        .map(drop)
        .map_err(|e| left(postgres_text(&e)))
}

async fn session(
    job: &Job,
    source: &PostgresEndpoint,
    target: &OracleEndpoint,
    fresh: &mut bool,
    failures: &mut u32,
) -> Result<Ending, SessionError> {
    let client = connect::postgres(source).await?;
    if source.captures_ddl() {
        capture_ddl(&client).await?;
    }
    let types = SourceTypes::read(&client).await?;
    let (slot, confirmed) = ensure_slot(job, source, &client).await?;
    let without_key = selected(&job.task.mappings, tables(&client, WITHOUT_KEY).await?);
    let start = match job.task.cdc_start_position.as_deref().and_then(parse_lsn) {
        Some(given) => given.max(confirmed),
        None => confirmed,
    };
    let applier = open_applier(job, target, without_key).await?;
    let mut writer = Writer::start(job, applier, fresh.then_some(start)).await?;
    // The slot never moves back: it may have been confirmed over changes of others.
    writer.applied = writer.applied.max(start);
    if *fresh {
        job.progress.reset();
        job.progress.begin_run();
        for table in tables(&client, ALL_TABLES).await? {
            if job.task.mappings.selects(&table) {
                job.progress.add_table(&table, TableState::Completed);
            }
        }
        *fresh = false;
    }
    drop(client);
    let stream = LogicalStream::start(source, &slot, writer.applied).await?;
    *failures = 0;
    job.progress.update(|s| {
        s.slot = Some(slot.clone());
        s.checkpoint = Some(format_lsn(writer.applied));
        s.counters.source_connects += 1;
        s.counters.rows_read = s.counters.rows_finished;
        s.oldest_pending_ms = None;
    });
    Session {
        job,
        stream,
        writer,
        types,
        open: None,
    }
    .run()
    .await
}

/// The slot and what it has confirmed. A slot that the customer made must be there;
/// the task's own is made at its first start.
async fn ensure_slot(
    job: &Job,
    source: &PostgresEndpoint,
    client: &tokio_postgres::Client,
) -> Result<(String, u64), SessionError> {
    let slot = source
        .slot()
        .map_or_else(|| own_slot(&job.task), str::to_owned);
    let found = client
        .query_opt(
            "SELECT confirmed_flush_lsn::text FROM pg_replication_slots WHERE slot_name = $1",
            &[&slot],
        )
        .await?;
    let confirmed: Option<String> = match found {
        Some(row) => row.try_get(0)?,
        None if source.slot().is_some() || job.start == StartType::ResumeProcessing => {
            return Err(SessionError::NoSlot(slot));
        }
        None => {
            let made = client
                .query_one(
                    "SELECT lsn::text FROM pg_create_logical_replication_slot($1, 'test_decoding')",
                    &[&slot],
                )
                .await?;
            tracing::info!(task = %job.task.identifier, slot, "replication slot created");
            made.try_get(0)?
        }
    };
    Ok((slot, confirmed.as_deref().and_then(parse_lsn).unwrap_or(0)))
}

const ALL_TABLES: &str = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema')";

const WITHOUT_KEY: &str = "SELECT n.nspname::text, c.relname::text FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    WHERE c.relkind IN ('r', 'p') AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    AND NOT EXISTS (SELECT 1 FROM pg_index i WHERE i.indrelid = c.oid AND i.indisprimary)";

async fn tables(
    client: &tokio_postgres::Client,
    query: &str,
) -> Result<Vec<TableName>, SessionError> {
    let rows = client.query(query, &[]).await?;
    rows.iter()
        .map(|row| {
            Ok(TableName::new(
                row.try_get::<_, String>(0)?,
                row.try_get::<_, String>(1)?,
            ))
        })
        .collect()
}

async fn open_applier(
    job: &Job,
    target: &OracleEndpoint,
    without_key: HashSet<TableName>,
) -> Result<OracleApplier, SessionError> {
    let (target, task) = (target.clone(), job.task.resource_id().to_owned());
    let opened = tokio::task::spawn_blocking(move || {
        let connection = connect::oracle_blocking(&target)?;
        Ok::<_, SessionError>(OracleApplier::new(connection, &task, without_key)?)
    });
    let applier = opened.await.map_err(|_| SessionError::Thread)??;
    job.progress.update(|s| s.counters.target_connects += 1);
    Ok(applier)
}

/// The thread that owns the Oracle session.
struct Writer {
    transactions: mpsc::Sender<Transaction>,
    outcomes: mpsc::Receiver<Result<u64, OracleApplyError>>,
    /// Everything before this position is committed in Oracle.
    applied: u64,
    /// Transactions handed over whose outcome has not been reported.
    outstanding: usize,
}

impl Writer {
    /// Reads the checkpoint, or sets it for a fresh start, and begins to wait for
    /// transactions.
    async fn start(
        job: &Job,
        applier: OracleApplier,
        begin: Option<u64>,
    ) -> Result<Self, SessionError> {
        let (transactions, to_apply) = mpsc::channel(TRANSACTIONS_AHEAD);
        let (tell, outcomes) = mpsc::channel(TRANSACTIONS_AHEAD + 1);
        let (ready, started) = std_mpsc::sync_channel(1);
        let job = job.clone();
        std::thread::Builder::new()
            .name("oracle-writer".into())
            .spawn(move || write(&job, applier, begin, &ready, to_apply, &tell))
            .map_err(|_| SessionError::Thread)?;
        let applied = tokio::task::spawn_blocking(move || started.recv()).await;
        let applied = applied
            .map_err(|_| SessionError::Thread)?
            .map_err(|_| SessionError::Thread)??;
        Ok(Self {
            transactions,
            outcomes,
            applied,
            outstanding: 0,
        })
    }

    fn settle(
        &mut self,
        outcome: Option<Result<u64, OracleApplyError>>,
    ) -> Result<(), SessionError> {
        self.applied = outcome.ok_or(SessionError::Thread)??;
        self.outstanding -= 1;
        Ok(())
    }
}

fn write(
    job: &Job,
    mut applier: OracleApplier,
    begin: Option<u64>,
    ready: &std_mpsc::SyncSender<Result<u64, OracleApplyError>>,
    mut transactions: mpsc::Receiver<Transaction>,
    tell: &mpsc::Sender<Result<u64, OracleApplyError>>,
) {
    let position = match begin {
        Some(position) => applier.begin(position).map(|()| position),
        None => applier.checkpoint().map(|found| found.unwrap_or(0)),
    };
    let failed = position.is_err();
    // The session may have been closed meanwhile; then no receiver waits.
    if ready.send(position).is_err() || failed {
        return;
    }
    while let Some(transaction) = transactions.blocking_recv() {
        while job.faults.apply_paused(&job.task.identifier) && !job.stopping() {
            std::thread::sleep(Duration::from_millis(20));
        }
        // Read ahead, and not in progress: left for the next run.
        if job.stopping() {
            return;
        }
        let outcome = applier.apply(job, &transaction).map(|effects| {
            let position = format_lsn(transaction.position);
            job.progress
                .transaction_applied(transaction.changes.len(), &effects, position);
            transaction.position
        });
        let failed = outcome.is_err();
        if tell.blocking_send(outcome).is_err() || failed {
            return;
        }
    }
}

struct Session<'a> {
    job: &'a Job,
    stream: LogicalStream,
    writer: Writer,
    types: SourceTypes,
    /// The transaction whose commit has not arrived.
    open: Option<Transaction>,
}

impl Session<'_> {
    async fn run(mut self) -> Result<Ending, SessionError> {
        let mut tick = tokio::time::interval(TICK);
        tick.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            if let Some(ending) = self.job.ending() {
                return self.end(ending).await;
            }
            let room = self.writer.transactions.capacity() > 0;
            tokio::select! {
                message = self.stream.next(), if room => self.take(message?).await?,
                outcome = self.writer.outcomes.recv() => self.writer.settle(outcome)?,
                _ = tick.tick() => self.stream.confirm(self.writer.applied).await?,
            }
        }
    }

    /// Waits for the transaction in progress, confirms it, and frees the slot.
    async fn end(mut self, ending: Ending) -> Result<Ending, SessionError> {
        let (closed, _) = mpsc::channel(1);
        self.writer.transactions = closed;
        let rest = async {
            while let Some(outcome) = self.writer.outcomes.recv().await {
                if self.writer.settle(Some(outcome)).is_err() {
                    break;
                }
            }
        };
        if tokio::time::timeout(LAST_TRANSACTION, rest).await.is_err() {
            tracing::warn!(task = %self.job.task.identifier, "Oracle did not answer in time; resuming will tell by the checkpoint");
        }
        // The checkpoint in Oracle counts; a slot that lags behind it does no harm.
        let _ = self.stream.confirm(self.writer.applied).await;
        self.stream.close().await;
        Ok(ending)
    }

    async fn take(&mut self, message: Message) -> Result<(), SessionError> {
        let now = now_ms();
        self.job.progress.update(|s| {
            s.counters.polls += 1;
            s.source_read_until_ms = Some(now);
        });
        match message {
            Message::Keepalive { end_lsn, reply } => {
                // Nothing is under way: whatever the WAL holds before this is not ours.
                if self.open.is_none() && self.writer.outstanding == 0 {
                    self.writer.applied = self.writer.applied.max(end_lsn);
                }
                if reply {
                    self.stream.confirm(self.writer.applied).await?;
                }
            }
            Message::Data { lsn, text } => self.decoded(lsn, decode(&text)?)?,
        }
        Ok(())
    }

    fn decoded(&mut self, lsn: u64, decoded: Decoded) -> Result<(), SessionError> {
        match decoded {
            Decoded::Begin(xid) => {
                self.open = Some(Transaction {
                    position: 0,
                    xid,
                    changes: Vec::new(),
                });
            }
            Decoded::Change(mut change) if self.job.task.mappings.selects(&change.table) => {
                let lobs = self.job.task.settings.lobs;
                self.types.carry(&change.table, &mut change.after, lobs);
                if let Some(open) = &mut self.open {
                    if open.changes.len() >= TRANSACTION_ROWS {
                        return Err(SessionError::TooLarge(open.xid.clone()));
                    }
                    open.changes.push(change);
                }
            }
            Decoded::WithoutKey(table) if self.job.task.mappings.selects(&table) => {
                self.job
                    .progress
                    .update(|s| s.counters.lost_without_key += 1);
            }
            Decoded::Commit => {
                if let Some(mut transaction) = self.open.take() {
                    transaction.position = lsn;
                    self.hand_over(transaction)?;
                }
            }
            _ => {}
        }
        Ok(())
    }

    fn hand_over(&mut self, transaction: Transaction) -> Result<(), SessionError> {
        if transaction.changes.is_empty() {
            if self.writer.outstanding == 0 {
                self.writer.applied = self.writer.applied.max(transaction.position);
            }
            return Ok(());
        }
        self.job
            .progress
            .transaction_read(transaction.changes.len());
        self.writer.outstanding += 1;
        // There is room: it was checked before the message was read.
        self.writer
            .transactions
            .try_send(transaction)
            .map_err(|_| SessionError::Thread)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::replicate::mapping::TableMapping;
    use crate::task::settings::TaskSettings;
    use crate::task::state::MigrationType;

    #[test]
    fn a_slot_name_is_one_that_postgresql_accepts() {
        let mappings = r#"{"rules":[{"rule-type":"selection","rule-id":"1","rule-action":"include",
            "object-locator":{"schema-name":"shop","table-name":"%"}}]}"#;
        let task = Definition {
            identifier: format!("Reverse-{}", "x".repeat(200)),
            arn: "arn:aws:dms:eu-central-1:123456789012:task:ABCDEFGHIJKLMNOPQRSTUVWXYZ".into(),
            source_arn: String::new(),
            target_arn: String::new(),
            migration_type: MigrationType::Cdc,
            mappings_text: mappings.into(),
            mappings: TableMapping::parse(mappings).unwrap(),
            settings: TaskSettings::parse(None).unwrap(),
            cdc_start_position: None,
            cdc_stop_position: None,
            task_data: None,
            tags: std::collections::BTreeMap::new(),
        };
        let slot = own_slot(&task);
        assert!(slot.len() <= 63, "{slot}");
        assert!(
            slot.bytes()
                .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_')
        );
    }
}
