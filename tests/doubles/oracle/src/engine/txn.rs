//! Transactions: what they have changed, and how that is undone or kept.

use super::datum::Row;
use super::sessions::SessionKey;
use jiff::civil;
use std::collections::HashMap;

/// A system change number.
pub type Scn = u64;

/// Number of a transaction, unique in the life of the process.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct TxnId(pub u64);

impl TxnId {
    /// `undo segment.slot.sequence`, as V$LOGMNR_CONTENTS and V$TRANSACTION
    /// identify a transaction.
    pub fn parts(self) -> (u64, u64, u64) {
        (self.0 % 10 + 1, self.0 / 10 % 34, self.0 / 340 + 1000)
    }

    /// The XID column, a RAW(8), as hexadecimal text.
    pub fn xid(self) -> String {
        let (segment, slot, sequence) = self.parts();
        let bytes = [
            (segment as u16).to_le_bytes().to_vec(),
            (slot as u16).to_le_bytes().to_vec(),
            (sequence as u32).to_le_bytes().to_vec(),
        ];
        hex::encode_upper(bytes.concat())
    }
}

/// One change to one row, enough to undo it and to write its redo.
#[derive(Debug, Clone)]
pub struct Change {
    /// Which table, by its number.
    pub table: usize,
    /// Which row of it.
    pub row: usize,
    /// The uncommitted state before: `None` where there was none.
    pub pending_before: Option<Option<Row>>,
    /// The row before, `None` for an insert.
    pub before: Option<Row>,
    /// The row after, `None` for a delete.
    pub after: Option<Row>,
    /// SCN at the time of the change.
    pub scn: Scn,
}

#[derive(Debug)]
pub struct Transaction {
    pub session: SessionKey,
    pub started: civil::DateTime,
    /// SCN at its start.
    pub start_scn: Scn,
    /// Its changes in order.
    pub changes: Vec<Change>,
    /// Savepoints: name and the number of changes before it.
    pub savepoints: Vec<(String, usize)>,
}

/// A committed transaction in the redo.
#[derive(Debug)]
pub struct Committed {
    pub id: TxnId,
    /// SCN of its commit.
    pub commit_scn: Scn,
    /// When it was committed.
    pub at: civil::DateTime,
    pub user: String,
    /// Its changes in order.
    pub changes: Vec<Change>,
}

/// The open transactions and the committed ones.
///
/// Redo is kept for the life of the process: rehearsals are short, and the
/// replicator may come back to any of it.
#[derive(Debug, Default)]
pub struct Transactions {
    pub open: HashMap<TxnId, Transaction>,
    /// The committed ones in the order of their SCN.
    pub redo: Vec<Committed>,
    last: u64,
}

impl Transactions {
    pub fn begin(&mut self, session: SessionKey, scn: Scn) -> TxnId {
        self.last += 1;
        let id = TxnId(self.last);
        self.open.insert(
            id,
            Transaction {
                session,
                started: super::clock::now(),
                start_scn: scn,
                changes: Vec::new(),
                savepoints: Vec::new(),
            },
        );
        id
    }

    /// Number of changes so far: a mark to roll back to.
    pub fn mark(&self, id: Option<TxnId>) -> usize {
        id.and_then(|id| self.open.get(&id))
            .map_or(0, |txn| txn.changes.len())
    }

    /// The redo of everything committed after that SCN.
    pub fn redo_after(&self, scn: Scn) -> &[Committed] {
        let from = self.redo.partition_point(|txn| txn.commit_scn <= scn);
        &self.redo[from..]
    }
}
