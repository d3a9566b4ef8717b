//! The full load: copies the rows that exist, as of one SCN, into PostgreSQL.
//!
//! The whole load is one transaction of PostgreSQL, so that a lost connection
//! leaves nothing half loaded: it is begun again. A table that can't be loaded is
//! suspended and the others go on, as with real DMS. Tables are loaded one after
//! the other, by the mapping's `load-order`; foreign keys are the customer's
//! concern, as with real DMS.

use super::Job;
use super::apply::{Applier, ApplyError};
use super::change::{Row, TableName};
use super::redo::{self, RedoError, SelectedTable};
use crate::task::progress::TableState;
use crate::task::state::now_ms;
use std::sync::Arc;
use tokio::sync::mpsc;

/// Rows in one INSERT.
const CHUNK: usize = 500;

/// Chunks on their way from Oracle: a few keep both sides busy.
const CHUNKS_AHEAD: usize = 4;

/// Why a load did not end.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    #[error(transparent)]
    Source(RedoError),
    #[error(transparent)]
    Target(ApplyError),
    /// The task was asked to stop; nothing is loaded.
    #[error("asked to stop during the load")]
    Stopped,
    /// The reading thread has ended without a word.
    #[error("the thread that reads Oracle has ended")]
    Thread,
}

enum Piece {
    Begin(TableName),
    Rows(TableName, Vec<Row>),
    End(TableName),
}

/// Loads the tables as of `scn` and sets the checkpoint to it.
///
/// # Errors
/// As [`LoadError`] tells; nothing is loaded then.
pub async fn load(
    job: &Job,
    connection: Arc<oracle::Connection>,
    applier: &mut Applier,
    tables: Vec<SelectedTable>,
    scn: u64,
    truncate: bool,
) -> Result<(), LoadError> {
    begin(job, applier, &tables, truncate).await?;
    let (send, mut pieces) = mpsc::channel(CHUNKS_AHEAD);
    let reader = tokio::task::spawn_blocking(move || read(&connection, &tables, scn, &send));
    while let Some(piece) = pieces.recv().await {
        if job.stopping() {
            return Err(LoadError::Stopped);
        }
        take(job, applier, piece).await.map_err(LoadError::Target)?;
    }
    reader
        .await
        .map_err(|_| LoadError::Thread)?
        .map_err(LoadError::Source)?;
    let done = format!("{}; COMMIT", applier.control().begin(scn));
    run(applier, &done).await?;
    job.progress.update(|s| {
        s.load_end_ms = Some(now_ms());
        s.checkpoint = Some(scn.to_string());
    });
    Ok(())
}

async fn begin(
    job: &Job,
    applier: &mut Applier,
    tables: &[SelectedTable],
    truncate: bool,
) -> Result<(), LoadError> {
    job.progress.reset();
    job.progress.begin_run();
    job.progress.update(|s| s.load_start_ms = Some(now_ms()));
    let mut sql = format!("BEGIN; {}", applier.control().forget());
    for (table, _) in tables {
        job.progress.add_table(table, TableState::BeforeLoad);
        let target = job.task.mappings.target(table);
        let there = applier
            .describe(&target)
            .await
            .map_err(LoadError::Target)?
            .is_some();
        if truncate && there {
            sql += &format!(" TRUNCATE {} CASCADE;", target.quoted());
        }
    }
    run(applier, &sql).await
}

async fn run(applier: &Applier, sql: &str) -> Result<(), LoadError> {
    let outcome = applier.client().batch_execute(sql).await;
    outcome.map_err(|e| LoadError::Target(ApplyError::Retry(e)))
}

/// Reads table after table; ends early when nobody takes the rows any more.
fn read(
    connection: &oracle::Connection,
    tables: &[SelectedTable],
    scn: u64,
    send: &mpsc::Sender<Piece>,
) -> Result<(), RedoError> {
    for (table, columns) in tables {
        let wanted = send.blocking_send(Piece::Begin(table.clone())).is_ok()
            && redo::read_table(connection, table, columns, scn, CHUNK, |rows| {
                send.blocking_send(Piece::Rows(table.clone(), rows)).is_ok()
            })?
            && send.blocking_send(Piece::End(table.clone())).is_ok();
        if !wanted {
            break;
        }
    }
    Ok(())
}

async fn take(job: &Job, applier: &mut Applier, piece: Piece) -> Result<(), ApplyError> {
    match piece {
        Piece::Begin(table) => job.progress.update(|s| {
            let reloaded = job.has_run;
            let entry = s.table(&table, TableState::FullLoad);
            entry.state = TableState::FullLoad;
            entry.reloaded = reloaded;
            entry.full_load_start_ms = Some(now_ms());
        }),
        Piece::Rows(table, rows) if !job.progress.is_suspended(&table) => {
            let count = rows.len() as u64;
            match insert(job, applier, &table, &rows).await? {
                Ok(()) => job
                    .progress
                    .update(|s| s.table(&table, TableState::FullLoad).full_load_rows += count),
                Err(reason) => {
                    job.progress.suspend(&table, &reason);
                    job.progress.update(|s| {
                        s.table(&table, TableState::Error).full_load_error_rows += count
                    });
                }
            }
        }
        Piece::Rows(table, rows) => job.progress.update(|s| {
            s.table(&table, TableState::Error).full_load_error_rows += rows.len() as u64
        }),
        Piece::End(table) => job.progress.update(|s| {
            let entry = s.table(&table, TableState::Completed);
            entry.full_load_end_ms = Some(now_ms());
            if entry.state != TableState::Error {
                entry.state = TableState::Completed;
            }
        }),
    }
    Ok(())
}

/// Inserts rows behind a savepoint; the inner error is the table's, not the
/// session's.
async fn insert(
    job: &Job,
    applier: &mut Applier,
    table: &TableName,
    rows: &[Row],
) -> Result<Result<(), String>, ApplyError> {
    let mapping = &job.task.mappings;
    let target = mapping.target(table);
    let renamed: Vec<Row> = rows
        .iter()
        .map(|row| {
            row.iter()
                .map(|(c, v)| (mapping.column(table, c), v.clone()))
                .collect()
        })
        .collect();
    let Some(shape) = applier.describe(&target).await? else {
        return Ok(Err(format!("table {target} does not exist")));
    };
    let sql = format!(
        "SAVEPOINT load; {}; RELEASE SAVEPOINT load",
        shape.insert(&target, &renamed)
    );
    match applier.client().batch_execute(&sql).await {
        Ok(()) => Ok(Ok(())),
        Err(error) if error.code().is_none() => Err(ApplyError::Retry(error)),
        Err(error) => {
            let undo = applier
                .client()
                .batch_execute("ROLLBACK TO SAVEPOINT load")
                .await;
            undo.map_err(ApplyError::Retry)?;
            Ok(Err(super::connect::postgres_text(&error)))
        }
    }
}
