//! What constraints say to a changed row: types, NOT NULL, keys, parents and
//! children. A verdict that hangs on another open transaction waits for it.
//! And what a new index or an enabled constraint says to the rows that are there.

use super::datum::{self, Datum, Row};
use super::errors::{Outcome, Stop, ora, stop};
use super::exec::Exec;
use super::sessions::SessionKey;
use super::state::State;
use super::storage::{Constraint, Rule, Snapshot};
use super::txn::TxnId;
use crate::api::OraError;
use std::collections::HashSet;
use std::sync::Arc;

impl State {
    /// ORA-00955 where an index's name is taken, ORA-01452 where a unique one
    /// would have to hold a key twice.
    pub fn index_may_be(
        &self,
        key: SessionKey,
        number: usize,
        name: &str,
        columns: &[usize],
        unique: bool,
    ) -> Result<(), OraError> {
        let table = &self.tables[number];
        let taken = self
            .live_tables()
            .filter(|other| other.owner == table.owner)
            .flat_map(|other| &other.constraints)
            .any(|constraint| constraint.name == name);
        if taken {
            return Err(ora(955, "name is already used by an existing object"));
        }
        if unique && self.has_key_twice(key, number, columns) {
            return Err(ora(
                1452,
                "cannot CREATE UNIQUE INDEX; duplicate keys found",
            ));
        }
        Ok(())
    }

    /// What a session sees now.
    fn now(&self, key: SessionKey) -> Snapshot {
        Snapshot {
            scn: None,
            txn: self.session(key).and_then(|session| session.txn),
        }
    }

    fn has_key_twice(&self, key: SessionKey, number: usize, columns: &[usize]) -> bool {
        let by = self.now(key);
        let rows = self.tables[number].rows.iter();
        let mut keys = HashSet::new();
        rows.filter_map(|row| row.seen(by)).any(|row| {
            let key: Vec<Datum> = columns.iter().map(|at| row[*at].key()).collect();
            !key.iter().all(Datum::is_null) && !keys.insert(key)
        })
    }

    /// ENABLE CONSTRAINT looks at the rows that are there: ORA-02299 for a key
    /// that is there twice, ORA-02298 for a parent that is not.
    pub fn validate(
        &self,
        key: SessionKey,
        number: usize,
        rule: &Constraint,
    ) -> Result<(), OraError> {
        let table = &self.tables[number];
        let name = format!("{}.{}", table.owner, rule.name);
        let Rule::Foreign {
            parent, columns, ..
        } = &rule.rule
        else {
            let twice = self.has_key_twice(key, number, &rule.columns);
            let error = format!("cannot validate ({name}) - duplicate keys found");
            return if twice { Err(ora(2299, error)) } else { Ok(()) };
        };
        let by = self.now(key);
        let parent = &self.tables[*parent];
        let of = |row: &Row, columns: &[usize]| -> Vec<Datum> {
            columns.iter().map(|at| row[*at].key()).collect()
        };
        let parents = parent.rows.iter().filter_map(|row| row.seen(by));
        let parents: HashSet<Vec<Datum>> = parents.map(|row| of(row, columns)).collect();
        let mut rows = table.rows.iter().filter_map(|row| row.seen(by));
        let orphan = rows.any(|row| {
            let key = of(row, &rule.columns);
            !key.iter().any(Datum::is_null) && !parents.contains(&key)
        });
        if orphan {
            let text = format!("cannot validate ({name}) - parent keys not found");
            return Err(ora(2298, text));
        }
        Ok(())
    }
}

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
