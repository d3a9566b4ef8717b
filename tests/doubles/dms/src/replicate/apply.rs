//! Applies transactions to PostgreSQL: in order, each as one transaction, exactly
//! once.
//!
//! A round of transactions goes out one by one, each in a single round trip. Only
//! the last commit of a round waits for the disk; it makes those before it durable
//! too, and a crash in between loses rows and checkpoint together. When a
//! transaction fails, it is rolled back and applied again change by change, so
//! that what can't be applied is logged as DMS logs it and the rest arrives.

use super::Job;
use super::change::{Change, Operation, TableName, Transaction};
use super::checkpoint::ControlTables;
use super::connect::postgres_text;
use super::statement::{Mapped, TargetTable, map_change};
use crate::task::faults::ChangeFault;
use crate::task::progress::Effect;
use crate::task::state::Definition;
use std::collections::HashMap;
use std::sync::Arc;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, SimpleQueryMessage};

/// Why a round was not applied to its end.
#[derive(Debug, thiserror::Error)]
pub enum ApplyError {
    /// The session is lost, or the server asks to try again.
    #[error("PostgreSQL: {}", postgres_text(.0))]
    Retry(#[source] tokio_postgres::Error),
}

/// What applies the transactions of one session.
pub struct Applier {
    client: Client,
    task: Arc<Definition>,
    control: ControlTables,
    tables: HashMap<TableName, Option<TargetTable>>,
}

impl Applier {
    /// Over a connection; the control tables must be there.
    #[must_use]
    pub fn new(client: Client, task: Arc<Definition>) -> Self {
        Self {
            client,
            control: ControlTables::new(&task),
            task,
            tables: HashMap::new(),
        }
    }

    #[must_use]
    pub fn client(&self) -> &Client {
        &self.client
    }

    #[must_use]
    pub fn control(&self) -> &ControlTables {
        &self.control
    }

    /// Applies a round, up to the end of the transaction in progress when the task
    /// is asked to stop.
    ///
    /// # Errors
    /// When the session is lost; everything up to the checkpoint is applied.
    pub async fn apply(&mut self, job: &Job, round: &[Transaction]) -> Result<(), ApplyError> {
        for (index, transaction) in round.iter().enumerate() {
            if job.stopping() {
                return Ok(());
            }
            let last = index + 1 == round.len();
            self.apply_one(job, transaction, last).await?;
        }
        Ok(())
    }

    async fn apply_one(
        &mut self,
        job: &Job,
        transaction: &Transaction,
        durable: bool,
    ) -> Result<(), ApplyError> {
        self.describe_tables(transaction).await?;
        let faulty = job.faults.concerns_changes(&job.task.identifier);
        let quick = if faulty {
            None
        } else {
            self.apply_whole(job, transaction, durable).await?
        };
        let effects = match quick {
            Some(effects) => effects,
            None => self.apply_singly(job, transaction).await?,
        };
        job.progress.transaction_applied(
            transaction.changes.len(),
            &effects,
            transaction.position.to_string(),
        );
        Ok(())
    }

    /// The whole transaction in one round trip; none when a statement failed and
    /// everything was rolled back.
    async fn apply_whole(
        &mut self,
        job: &Job,
        transaction: &Transaction,
        durable: bool,
    ) -> Result<Option<Vec<Effect>>, ApplyError> {
        let mut sql = String::from("BEGIN;");
        if !durable {
            sql += "SET LOCAL synchronous_commit TO off;";
        }
        let mut planned = Vec::with_capacity(transaction.changes.len());
        for change in &transaction.changes {
            let mapped = map_change(&self.task.mappings, change);
            let effect = match self.table(&mapped.target) {
                _ if job.progress.is_suspended(&change.table) => {
                    Effect::Skipped(change.table.clone())
                }
                // The table is missing: found out singly, where it is suspended.
                None => return Ok(None),
                Some(table) => {
                    if let Some(statement) = self.checked(table, &mapped) {
                        sql += &statement;
                        sql.push(';');
                        planned.push((
                            Effect::Applied(change.table.clone(), change.operation),
                            true,
                        ));
                        continue;
                    }
                    Effect::Applied(change.table.clone(), change.operation)
                }
            };
            planned.push((effect, false));
        }
        sql += &self.control.advance(transaction.position, &transaction.xid);
        sql += ";COMMIT";
        match self.client.simple_query(&sql).await {
            Ok(messages) => Ok(Some(self.judge(planned, &messages, durable))),
            Err(error) if is_lost(&error) => Err(ApplyError::Retry(error)),
            Err(_) => {
                self.run("ROLLBACK").await?;
                Ok(None)
            }
        }
    }

    /// An update that met no row has become an exception: its row count says so.
    fn judge(
        &self,
        planned: Vec<(Effect, bool)>,
        messages: &[SimpleQueryMessage],
        durable: bool,
    ) -> Vec<Effect> {
        let mut counts = messages.iter().filter_map(|m| match m {
            SimpleQueryMessage::CommandComplete(rows) => Some(*rows),
            _ => None,
        });
        // BEGIN, and SET where there is one.
        counts.nth(usize::from(!durable));
        planned
            .into_iter()
            .map(|(effect, executed)| match effect {
                Effect::Applied(table, Operation::Update) if executed => {
                    if counts.next() == Some(1) {
                        Effect::Exception(table)
                    } else {
                        Effect::Applied(table, Operation::Update)
                    }
                }
                other => {
                    if executed {
                        counts.next();
                    }
                    other
                }
            })
            .collect()
    }

    /// Change by change, each behind a savepoint.
    async fn apply_singly(
        &mut self,
        job: &Job,
        transaction: &Transaction,
    ) -> Result<Vec<Effect>, ApplyError> {
        self.run("BEGIN").await?;
        let mut effects = Vec::with_capacity(transaction.changes.len());
        for change in &transaction.changes {
            effects.push(self.apply_change(job, change).await?);
        }
        let advance = self.control.advance(transaction.position, &transaction.xid);
        self.run(&advance).await?;
        self.run("COMMIT").await?;
        Ok(effects)
    }

    async fn apply_change(&mut self, job: &Job, change: &Change) -> Result<Effect, ApplyError> {
        if job.progress.is_suspended(&change.table) {
            return Ok(Effect::Skipped(change.table.clone()));
        }
        let mapped = map_change(&self.task.mappings, change);
        let planned = self.table(&mapped.target).map(|table| {
            (
                self.checked(table, &mapped),
                table.statement(&mapped).unwrap_or_default(),
            )
        });
        let Some((checked, statement)) = planned else {
            let reason = format!("table {} does not exist", mapped.target);
            return self.suspend(job, change, &mapped.target, &reason).await;
        };
        match job.faults.for_change(&job.task.identifier, &change.table) {
            Some(ChangeFault::Suspend(reason)) => {
                return self.suspend(job, change, &mapped.target, &reason).await;
            }
            Some(ChangeFault::Exception(error)) => {
                return self
                    .log_exception(change, &mapped.target, &statement, &error)
                    .await;
            }
            None => {}
        }
        let Some(checked) = checked else {
            return Ok(Effect::Applied(change.table.clone(), change.operation));
        };
        self.run("SAVEPOINT one_change").await?;
        match self.client.simple_query(&checked).await {
            Ok(messages) => {
                self.run("RELEASE SAVEPOINT one_change").await?;
                let planned = vec![(
                    Effect::Applied(change.table.clone(), change.operation),
                    true,
                )];
                let mut with_begin = vec![SimpleQueryMessage::CommandComplete(0)];
                with_begin.extend(messages);
                Ok(self.judge(planned, &with_begin, true).remove(0))
            }
            Err(error) if is_lost(&error) => Err(ApplyError::Retry(error)),
            Err(error) => {
                self.run("ROLLBACK TO SAVEPOINT one_change").await?;
                let text = postgres_text(&error);
                if is_table_error(&error) {
                    self.suspend(job, change, &mapped.target, &text).await
                } else {
                    self.log_exception(change, &mapped.target, &statement, &text)
                        .await
                }
            }
        }
    }

    async fn suspend(
        &self,
        job: &Job,
        change: &Change,
        target: &TableName,
        reason: &str,
    ) -> Result<Effect, ApplyError> {
        tracing::warn!(task = %job.task.identifier, table = %change.table, reason, "table suspended");
        if let Some(sql) = self.control.suspend(target, reason) {
            self.run(&sql).await?;
        }
        job.progress.suspend(&change.table, reason);
        Ok(Effect::Skipped(change.table.clone()))
    }

    async fn log_exception(
        &self,
        change: &Change,
        target: &TableName,
        statement: &str,
        error: &str,
    ) -> Result<Effect, ApplyError> {
        self.run(&self.control.exception(target, statement, error))
            .await?;
        Ok(Effect::Exception(change.table.clone()))
    }

    /// The statement of a change, made to log an exception where the policy asks.
    fn checked(&self, table: &TargetTable, mapped: &Mapped) -> Option<String> {
        let statement = table.statement(mapped)?;
        Some(match mapped.operation {
            Operation::Update => self.control.checked_update(&mapped.target, &statement),
            Operation::Insert | Operation::Delete => statement,
        })
    }

    async fn run(&self, sql: &str) -> Result<(), ApplyError> {
        self.client
            .batch_execute(sql)
            .await
            .map_err(ApplyError::Retry)
    }

    fn table(&self, target: &TableName) -> Option<&TargetTable> {
        self.tables.get(target).and_then(Option::as_ref)
    }

    /// Looks up the target tables of a transaction that are not known yet.
    async fn describe_tables(&mut self, transaction: &Transaction) -> Result<(), ApplyError> {
        for change in &transaction.changes {
            let target = self.task.mappings.target(&change.table);
            self.describe(&target).await?;
        }
        Ok(())
    }

    /// Looks up a target table, once.
    ///
    /// # Errors
    /// When the session is lost.
    pub async fn describe(
        &mut self,
        target: &TableName,
    ) -> Result<Option<&TargetTable>, ApplyError> {
        if !self.tables.contains_key(target) {
            let found = describe(&self.client, target)
                .await
                .map_err(ApplyError::Retry)?;
            self.tables.insert(target.clone(), found);
        }
        Ok(self.table(target))
    }
}

async fn describe(
    client: &Client,
    target: &TableName,
) -> Result<Option<TargetTable>, tokio_postgres::Error> {
    const COLUMNS: &str = "SELECT a.attname::text, a.atttypid = 'bytea'::regtype, \
        coalesce(a.attnum = ANY (i.indkey), false) \
        FROM pg_attribute a LEFT JOIN pg_index i ON i.indrelid = a.attrelid AND i.indisprimary \
        WHERE a.attrelid = to_regclass($1) AND a.attnum > 0 AND NOT a.attisdropped ORDER BY a.attnum";
    let rows = client.query(COLUMNS, &[&target.quoted()]).await?;
    if rows.is_empty() {
        return Ok(None);
    }
    let mut table = TargetTable::default();
    for row in rows {
        let column: String = row.try_get(0)?;
        if row.try_get(1)? {
            table.binary.insert(column.clone());
        }
        if row.try_get(2)? {
            table.key.push(column);
        }
    }
    Ok(Some(table))
}

/// The session is gone, or the server wants the transaction tried again.
fn is_lost(error: &tokio_postgres::Error) -> bool {
    match error.code() {
        None => true,
        Some(code) => {
            let class = &code.code()[..2];
            // Rollback, resources, operator's intervention, system error.
            ["40", "53", "57", "58"].contains(&class)
        }
    }
}

/// Errors of the table rather than of the row: `TableErrorPolicy = SUSPEND_TABLE`.
fn is_table_error(error: &tokio_postgres::Error) -> bool {
    error.code().is_some_and(|code| {
        [
            SqlState::UNDEFINED_TABLE,
            SqlState::UNDEFINED_COLUMN,
            SqlState::INVALID_SCHEMA_NAME,
            SqlState::INSUFFICIENT_PRIVILEGE,
        ]
        .contains(code)
    })
}
