//! Tables: row versions, indexes, constraints.
//!
//! A row keeps every committed version, so that `AS OF SCN` can look back as
//! far as the process lives, and at most one uncommitted version, whose
//! transaction thereby holds the row's lock. Indexes hold candidates: every
//! row that ever had the key; a reader checks the version it sees.

use super::datum::{Datum, Row};
use super::txn::{Scn, TxnId};
use crate::api::Kind;
use std::collections::HashMap;

/// What a reader sees.
#[derive(Debug, Clone, Copy, Default)]
pub struct Snapshot {
    /// Committed as of that SCN; `None` is now.
    pub scn: Option<Scn>,
    /// And the uncommitted changes of that transaction.
    pub txn: Option<TxnId>,
}

/// A row with its history.
#[derive(Debug, Default)]
pub struct StoredRow {
    /// Committed versions, oldest first; `None` is a deletion.
    pub versions: Vec<(Scn, Option<Row>)>,
    /// The uncommitted version and whose it is.
    pub pending: Option<(TxnId, Option<Row>)>,
}

impl StoredRow {
    /// The row as a reader sees it.
    pub fn seen(&self, by: Snapshot) -> Option<&Row> {
        if let Some(scn) = by.scn {
            let at = self
                .versions
                .partition_point(|(version, _)| *version <= scn);
            return at
                .checked_sub(1)
                .and_then(|at| self.versions[at].1.as_ref());
        }
        match &self.pending {
            Some((owner, row)) if Some(*owner) == by.txn => row.as_ref(),
            _ => self.versions.last().and_then(|(_, row)| row.as_ref()),
        }
    }

    /// The transaction that holds the row's lock, unless it is `own`.
    pub fn locked_by_other(&self, own: Option<TxnId>) -> Option<TxnId> {
        self.pending
            .as_ref()
            .map(|(owner, _)| *owner)
            .filter(|owner| Some(*owner) != own)
    }
}

#[derive(Debug, Clone)]
pub struct ColumnDef {
    pub name: String,
    pub kind: Kind,
    /// Whether NULL is allowed.
    pub nullable: bool,
    pub default: Option<sqlparser::ast::Expr>,
}

/// What a constraint says.
#[derive(Debug, Clone)]
pub enum Rule {
    Primary,
    Unique,
    /// FOREIGN KEY to the named owner's table and its columns.
    Foreign {
        /// Parent table, by its number.
        parent: usize,
        /// Columns of the parent, by position.
        columns: Vec<usize>,
        cascade: bool,
    },
}

/// A constraint over columns.
#[derive(Debug, Clone)]
pub struct Constraint {
    pub name: String,
    pub columns: Vec<usize>,
    pub rule: Rule,
    pub enabled: bool,
}

/// Rows by the key of some columns.
#[derive(Debug)]
pub struct Index {
    pub columns: Vec<usize>,
    map: HashMap<Vec<Datum>, Vec<usize>>,
}

impl Index {
    fn key(&self, row: &Row) -> Vec<Datum> {
        self.columns.iter().map(|at| row[*at].key()).collect()
    }

    fn add(&mut self, row: &Row, number: usize) {
        let rows = self.map.entry(self.key(row)).or_default();
        if !rows.contains(&number) {
            rows.push(number);
        }
    }

    /// Rows that have or had the key.
    pub fn candidates(&self, key: &[Datum]) -> &[usize] {
        self.map.get(key).map_or(&[], Vec::as_slice)
    }
}

#[derive(Debug)]
pub struct Table {
    pub owner: String,
    pub name: String,
    pub columns: Vec<ColumnDef>,
    /// Rows by number; a number is never used again.
    pub rows: Vec<StoredRow>,
    pub constraints: Vec<Constraint>,
    /// Indexes, one per constraint and one per CREATE INDEX.
    pub indexes: Vec<Index>,
    /// Supplemental log groups: name and `ALL COLUMN LOGGING`,
    /// `PRIMARY KEY LOGGING` or `USER LOG GROUP`.
    pub log_groups: Vec<(String, String)>,
    /// `false` once dropped; the number stays taken for the redo's sake.
    pub dropped: bool,
    /// SCN of its creation.
    pub created_scn: Scn,
}

/// Rows per block: ORA_ROWSCN is the same for all of them.
const BLOCK_ROWS: usize = 4;

impl Table {
    pub fn new(owner: String, name: String, columns: Vec<ColumnDef>, created_scn: Scn) -> Self {
        Self {
            owner,
            name,
            columns,
            rows: Vec::new(),
            constraints: Vec::new(),
            indexes: Vec::new(),
            log_groups: Vec::new(),
            dropped: false,
            created_scn,
        }
    }

    /// Position of a column.
    pub fn column(&self, name: &str) -> Option<usize> {
        self.columns.iter().position(|column| column.name == name)
    }

    /// `"OWNER"."TABLE"."COLUMN"` for error texts.
    pub fn quoted(&self, column: usize) -> String {
        format!(
            "\"{}\".\"{}\".\"{}\"",
            self.owner, self.name, self.columns[column].name
        )
    }

    /// Makes an index over columns unless there is one.
    pub fn add_index(&mut self, columns: Vec<usize>) {
        if self.index_on(&columns).is_some() {
            return;
        }
        let mut index = Index {
            columns,
            map: HashMap::new(),
        };
        for (number, row) in self.rows.iter().enumerate() {
            let pending = row.pending.iter().filter_map(|(_, row)| row.as_ref());
            for version in row
                .versions
                .iter()
                .filter_map(|(_, row)| row.as_ref())
                .chain(pending)
            {
                index.add(version, number);
            }
        }
        self.indexes.push(index);
    }

    /// The index over exactly these columns.
    pub fn index_on(&self, columns: &[usize]) -> Option<&Index> {
        self.indexes.iter().find(|index| index.columns == columns)
    }

    /// Adds a row number for the next insert.
    pub fn new_row(&mut self) -> usize {
        self.rows.push(StoredRow::default());
        self.rows.len() - 1
    }

    /// Sets the uncommitted version of a row.
    pub fn set_pending(&mut self, row: usize, txn: TxnId, version: Option<Row>) {
        if let Some(version) = &version {
            for index in &mut self.indexes {
                index.add(version, row);
            }
        }
        self.rows[row].pending = Some((txn, version));
    }

    /// The SCN of the last commit that changed each block, deletions included.
    pub fn block_scns(&self) -> Vec<Scn> {
        let last = |row: &StoredRow| row.versions.last().map_or(0, |(scn, _)| *scn);
        let blocks = self.rows.chunks(BLOCK_ROWS);
        blocks
            .map(|block| block.iter().map(last).max().unwrap_or(0))
            .collect()
    }

    /// The block of a row, as a position in [`Self::block_scns`].
    pub fn block_of(row: usize) -> usize {
        row / BLOCK_ROWS
    }

    /// The rows a reader sees, with their numbers.
    pub fn scan(&self, by: Snapshot) -> impl Iterator<Item = (usize, &Row)> {
        self.rows
            .iter()
            .enumerate()
            .filter_map(move |(number, row)| row.seen(by).map(|row| (number, row)))
    }

    /// The rows among candidates of an index that really have the key.
    pub fn lookup<'t>(
        &'t self,
        index: &'t Index,
        key: &'t [Datum],
        by: Snapshot,
    ) -> impl Iterator<Item = (usize, &'t Row)> {
        index.candidates(key).iter().filter_map(move |number| {
            let row = self.rows[*number].seen(by)?;
            let same = index
                .columns
                .iter()
                .zip(key)
                .all(|(at, want)| row[*at].key() == *want);
            same.then_some((*number, row))
        })
    }

    /// The columns of the primary key.
    pub fn primary_key(&self) -> Option<&[usize]> {
        self.constraints
            .iter()
            .find(|constraint| matches!(constraint.rule, Rule::Primary))
            .map(|constraint| constraint.columns.as_slice())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;

    fn row(number: i64) -> Row {
        Arc::new(vec![Datum::int(number)])
    }

    #[test]
    fn readers_see_their_own_and_the_committed_versions() {
        let stored = StoredRow {
            versions: vec![(10, Some(row(1))), (20, None), (30, Some(row(3)))],
            pending: Some((TxnId(7), Some(row(4)))),
        };
        let seen = |scn, txn| stored.seen(Snapshot { scn, txn }).cloned();
        assert_eq!(seen(Some(9), None), None);
        assert_eq!(seen(Some(10), None), Some(row(1)));
        assert_eq!(seen(Some(25), None), None);
        assert_eq!(seen(None, None), Some(row(3)));
        assert_eq!(seen(None, Some(TxnId(7))), Some(row(4)));
        assert_eq!(seen(None, Some(TxnId(8))), Some(row(3)));
        assert_eq!(stored.locked_by_other(Some(TxnId(7))), None);
        assert_eq!(stored.locked_by_other(None), Some(TxnId(7)));
    }
}
