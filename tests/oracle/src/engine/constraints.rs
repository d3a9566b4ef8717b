//! What constraints say to a changed row: types, NOT NULL, keys, parents and
//! children. A verdict that hangs on another open transaction waits for it.

use std::sync::Arc;

use super::datum::{self, Datum, Row};
use super::errors::{Outcome, Stop, stop};
use super::exec::Exec;
use super::storage::{Rule, Snapshot};
use super::txn::TxnId;

impl Exec<'_> {
    /// Converts a row to its columns' types; ORA-01400 where NULL is not allowed.
    pub fn fitted(&self, number: usize, row: Vec<Datum>) -> Outcome<Vec<Datum>> {
        let table = &self.st.tables[number];
        row.into_iter()
            .enumerate()
            .map(|(at, value)| {
                let column = &table.columns[at];
                let value = datum::fit(value, column.kind, &|| table.quoted(at))?;
                if value.is_null() && !column.nullable {
                    return stop(
                        1400,
                        format!("cannot insert NULL into ({})", table.quoted(at)),
                    );
                }
                Ok(value)
            })
            .collect()
    }

    /// PRIMARY KEY and UNIQUE: no other row may have the key, nor be about to.
    pub fn check_keys(
        &self,
        number: usize,
        own_row: Option<usize>,
        row: &Row,
        txn: TxnId,
    ) -> Outcome<()> {
        let table = &self.st.tables[number];
        for constraint in &table.constraints {
            if !constraint.enabled || matches!(constraint.rule, Rule::Foreign { .. }) {
                continue;
            }
            let key: Vec<Datum> = constraint.columns.iter().map(|at| row[*at].key()).collect();
            let Some(index) = table.index_on(&constraint.columns) else {
                continue;
            };
            if key.iter().all(Datum::is_null) {
                continue;
            }
            for candidate in index.candidates(&key) {
                if Some(*candidate) == own_row {
                    continue;
                }
                let stored = &table.rows[*candidate];
                let has_key = |row: &Row| {
                    constraint
                        .columns
                        .iter()
                        .zip(&key)
                        .all(|(at, want)| row[*at].key() == *want)
                };
                if stored
                    .seen(Snapshot {
                        scn: None,
                        txn: Some(txn),
                    })
                    .is_some_and(has_key)
                {
                    // Whether it stays so may hang on another transaction.
                    if let Some(holder) = stored.locked_by_other(Some(txn)) {
                        return Err(Stop::Blocked(holder));
                    }
                    let name = format!("{}.{}", table.owner, constraint.name);
                    return stop(1, format!("unique constraint ({name}) violated"));
                }
                if let Some((holder, Some(pending))) = &stored.pending
                    && *holder != txn
                    && has_key(pending)
                {
                    return Err(Stop::Blocked(*holder));
                }
            }
        }
        Ok(())
    }

    /// FOREIGN KEY: the parent must be there.
    pub fn check_parents(&self, number: usize, row: &Row, txn: TxnId) -> Outcome<()> {
        let table = &self.st.tables[number];
        for constraint in &table.constraints {
            let Rule::Foreign {
                parent, columns, ..
            } = &constraint.rule
            else {
                continue;
            };
            let key: Vec<Datum> = constraint.columns.iter().map(|at| row[*at].key()).collect();
            if !constraint.enabled || key.iter().any(Datum::is_null) {
                continue;
            }
            let parent = &self.st.tables[*parent];
            let Some(index) = parent.index_on(columns) else {
                continue;
            };
            let snapshot = Snapshot {
                scn: None,
                txn: Some(txn),
            };
            let mut blocked = None;
            let found = parent.lookup(index, &key, snapshot).next();
            for candidate in index.candidates(&key) {
                blocked = blocked.or(parent.rows[*candidate].locked_by_other(Some(txn)));
            }
            match (found, blocked) {
                // A parent about to vanish or to come: its transaction decides.
                (Some((at, _)), _)
                    if parent.rows[at]
                        .pending
                        .as_ref()
                        .is_some_and(|(o, v)| *o != txn && v.is_none()) =>
                {
                    return Err(Stop::Blocked(blocked.unwrap_or(txn)));
                }
                (Some(_), _) => {}
                (None, Some(holder)) => return Err(Stop::Blocked(holder)),
                (None, None) => {
                    let name = format!("{}.{}", table.owner, constraint.name);
                    let text =
                        format!("integrity constraint ({name}) violated - parent key not found");
                    return stop(2291, text);
                }
            }
        }
        Ok(())
    }

    /// FOREIGN KEY seen from the parent: no child may be left behind.
    pub fn check_children(
        &mut self,
        number: usize,
        old: &Row,
        new: Option<&Row>,
        txn: TxnId,
    ) -> Outcome<()> {
        let mut doomed = Vec::new();
        for (child_number, child) in self.st.tables.iter().enumerate() {
            for constraint in child
                .constraints
                .iter()
                .filter(|c| c.enabled && !child.dropped)
            {
                let Rule::Foreign {
                    parent,
                    columns,
                    cascade,
                } = &constraint.rule
                else {
                    continue;
                };
                let unchanged = new
                    .is_some_and(|new| columns.iter().all(|at| new[*at].key() == old[*at].key()));
                if *parent != number || unchanged {
                    continue;
                }
                let key: Vec<Datum> = columns.iter().map(|at| old[*at].key()).collect();
                let Some(index) = child.index_on(&constraint.columns) else {
                    continue;
                };
                let snapshot = Snapshot {
                    scn: None,
                    txn: Some(txn),
                };
                for (at, row) in child.lookup(index, &key, snapshot) {
                    if *cascade && new.is_none() {
                        doomed.push((child_number, at, Arc::clone(row)));
                        continue;
                    }
                    let name = format!("{}.{}", child.owner, constraint.name);
                    let text =
                        format!("integrity constraint ({name}) violated - child record found");
                    return stop(2292, text);
                }
                for candidate in index.candidates(&key) {
                    if let Some(holder) = child.rows[*candidate].locked_by_other(Some(txn)) {
                        return Err(Stop::Blocked(holder));
                    }
                }
            }
        }
        for (table, at, row) in doomed {
            self.delete_row(table, at, &row)?;
        }
        Ok(())
    }
}
