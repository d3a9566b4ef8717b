//! What a task has done: the numbers behind DescribeTableStatistics,
//! ReplicationTaskStats, the checkpoint and the metrics.
//!
//! Engines write, the API reads. Statistics start at zero when a task is started
//! afresh and are kept when it is resumed.

use crate::replicate::change::{Operation, TableName};
use crate::task::state::now_ms;
use serde::Serialize;
use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// `TableState`, in the words of the user guide.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
pub enum TableState {
    /// Selected, its load not begun.
    #[serde(rename = "Before load")]
    BeforeLoad,
    #[serde(rename = "Full load")]
    FullLoad,
    /// Loaded, or without a load: changes are applied.
    #[serde(rename = "Table completed")]
    Completed,
    /// Suspended by an error; its changes are not applied.
    #[serde(rename = "Table error")]
    Error,
}

#[derive(Debug, Clone, Serialize)]
pub struct TableProgress {
    pub inserts: u64,
    pub updates: u64,
    pub deletes: u64,
    /// Rows copied by the load.
    pub full_load_rows: u64,
    /// Rows the load could not copy.
    pub full_load_error_rows: u64,
    /// When the load began, epoch ms.
    pub full_load_start_ms: Option<i64>,
    /// When it ended, epoch ms.
    pub full_load_end_ms: Option<i64>,
    /// Whether the table was loaded again.
    pub reloaded: bool,
    /// When anything here last changed, epoch ms.
    pub last_update_ms: i64,
    pub state: TableState,
    /// Why it is suspended.
    pub suspended_because: Option<String>,
    /// Changes that were read while it was suspended, and not applied.
    pub skipped: u64,
}

/// Counters for the range; the API shows none of them.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Counters {
    /// Changes read from the source since the run began; CloudWatch's
    /// CDCIncomingChanges is what of them waits to be applied.
    pub rows_read: u64,
    /// Changes whose transaction has ended at the target, applied or not.
    pub rows_finished: u64,
    pub transactions_read: u64,
    /// Transactions committed at the target.
    pub transactions_applied: u64,
    /// Rows written to `awsdms_apply_exceptions`.
    pub exceptions: u64,
    /// Updates and deletes lost because the table has no primary key.
    pub lost_without_key: u64,
    /// Connections made to the source.
    pub source_connects: u64,
    /// Connections made to the target.
    pub target_connects: u64,
    /// The last recoverable error of either side.
    pub last_error: Option<String>,
    /// Looks at the redo, or messages of the stream.
    pub polls: u64,
}

/// Everything behind the lock.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Snapshot {
    pub tables: BTreeMap<TableName, TableProgress>,
    /// Counters for the range.
    pub counters: Counters,
    /// Position up to which everything is applied: an SCN or an LSN.
    pub checkpoint: Option<String>,
    /// The replication slot in use.
    pub slot: Option<String>,
    /// Until when the source is known to be read to its end, epoch ms.
    pub source_read_until_ms: Option<i64>,
    /// Since when the oldest change not yet applied waits, epoch ms.
    pub oldest_pending_ms: Option<i64>,
    /// When the load began, epoch ms.
    pub load_start_ms: Option<i64>,
    /// When the load ended, epoch ms.
    pub load_end_ms: Option<i64>,
}

/// A task's progress, shared by its engine and the API.
#[derive(Debug, Default)]
pub struct Progress(Mutex<Snapshot>);

impl Progress {
    fn lock(&self) -> MutexGuard<'_, Snapshot> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A copy of everything.
    #[must_use]
    pub fn snapshot(&self) -> Snapshot {
        self.lock().clone()
    }

    /// Changes it in one step.
    pub fn update<T>(&self, change: impl FnOnce(&mut Snapshot) -> T) -> T {
        change(&mut self.lock())
    }

    /// Forgets everything: the task starts afresh.
    pub fn reset(&self) {
        *self.lock() = Snapshot::default();
    }

    /// Begins a run: what an earlier run had read and not applied is read again.
    pub fn begin_run(&self) {
        self.update(|s| {
            s.counters.rows_read = 0;
            s.counters.rows_finished = 0;
            s.oldest_pending_ms = None;
            s.source_read_until_ms = Some(now_ms());
        });
    }

    /// A table is selected by the task; known ones are left alone.
    pub fn add_table(&self, table: &TableName, state: TableState) {
        self.update(|s| {
            s.table(table, state);
        });
    }

    /// A table is suspended.
    pub fn suspend(&self, table: &TableName, reason: &str) {
        self.update(|s| {
            let entry = s.table(table, TableState::Error);
            entry.state = TableState::Error;
            entry.suspended_because = Some(reason.into());
        });
    }

    /// Whether a table is suspended.
    #[must_use]
    pub fn is_suspended(&self, table: &TableName) -> bool {
        self.lock()
            .tables
            .get(table)
            .is_some_and(|t| t.state == TableState::Error)
    }

    /// A transaction with so many changes was read.
    pub fn transaction_read(&self, rows: usize) {
        self.update(|s| {
            s.counters.transactions_read += 1;
            s.counters.rows_read += rows as u64;
            s.oldest_pending_ms.get_or_insert_with(now_ms);
        });
    }

    /// A transaction is committed at the target, with these effects.
    pub fn transaction_applied(&self, rows: usize, effects: &[Effect], checkpoint: String) {
        self.update(|s| {
            for effect in effects {
                s.take_effect(effect);
            }
            s.counters.transactions_applied += 1;
            s.counters.rows_finished += rows as u64;
            s.checkpoint = Some(checkpoint);
            let pending = s
                .counters
                .rows_read
                .saturating_sub(s.counters.rows_finished);
            s.oldest_pending_ms = (pending > 0).then(now_ms);
        });
    }
}

/// What became of one change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Effect {
    Applied(TableName, Operation),
    /// Written to `awsdms_apply_exceptions`.
    Exception(TableName),
    /// Not applied: its table is suspended.
    Skipped(TableName),
    /// Lost: an update or delete on a table without a primary key.
    LostWithoutKey(TableName),
}

impl Snapshot {
    /// The entry of a table, made if it is new.
    pub fn table(&mut self, table: &TableName, state: TableState) -> &mut TableProgress {
        let entry = self
            .tables
            .entry(table.clone())
            .or_insert_with(|| TableProgress {
                inserts: 0,
                updates: 0,
                deletes: 0,
                full_load_rows: 0,
                full_load_error_rows: 0,
                full_load_start_ms: None,
                full_load_end_ms: None,
                reloaded: false,
                last_update_ms: now_ms(),
                state,
                suspended_because: None,
                skipped: 0,
            });
        entry.last_update_ms = now_ms();
        entry
    }

    fn take_effect(&mut self, effect: &Effect) {
        match effect {
            Effect::Applied(table, operation) => {
                let entry = self.table(table, TableState::Completed);
                match operation {
                    Operation::Insert => entry.inserts += 1,
                    Operation::Update => entry.updates += 1,
                    Operation::Delete => entry.deletes += 1,
                }
            }
            Effect::Exception(_) => self.counters.exceptions += 1,
            Effect::Skipped(table) => self.table(table, TableState::Error).skipped += 1,
            Effect::LostWithoutKey(_) => self.counters.lost_without_key += 1,
        }
    }

    /// Changes read and not yet applied.
    #[must_use]
    pub fn pending(&self) -> u64 {
        self.counters
            .rows_read
            .saturating_sub(self.counters.rows_finished)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn statistics_follow_what_was_applied() {
        let progress = Progress::default();
        let orders = TableName::new("SHOP", "ORDERS");
        progress.transaction_read(3);
        assert_eq!(progress.snapshot().pending(), 3);
        let effects = [
            Effect::Applied(orders.clone(), Operation::Insert),
            Effect::Applied(orders.clone(), Operation::Delete),
            Effect::Exception(orders.clone()),
        ];
        progress.transaction_applied(3, &effects, "42".into());
        let snapshot = progress.snapshot();
        assert_eq!(snapshot.pending(), 0);
        assert_eq!(snapshot.oldest_pending_ms, None);
        assert_eq!(snapshot.checkpoint.as_deref(), Some("42"));
        assert_eq!(
            (
                snapshot.tables[&orders].inserts,
                snapshot.tables[&orders].deletes
            ),
            (1, 1)
        );
        assert_eq!(snapshot.counters.exceptions, 1);
    }
}
