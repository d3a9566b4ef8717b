//! INSERT, UPDATE, DELETE: rows, constraints, triggers, RETURNING.

use super::datum::{Datum, Row};
use super::errors::{Outcome, Stop, no_column, ora, stop, unsupported};
use super::exec::{ColRef, Exec, Scope, same, upper};
use super::from::conjuncts;
use super::prepare::Returning;
use super::privileges;
use super::query::split_name;
use super::storage::Snapshot;
use super::triggers::{Event, Timing};
use super::txn::{Change, TxnId};
use crate::api::{Reply, Value};
use sqlparser::ast::{
    self, Assignment, AssignmentTarget, Expr, FromTable, SetExpr, TableFactor, TableObject,
    TableWithJoins,
};
use std::sync::Arc;

/// The rows an UPDATE or DELETE works on.
struct Target {
    table: usize,
    cols: Vec<ColRef>,
    rows: Vec<(usize, Row)>,
}

impl Exec<'_> {
    pub fn insert(
        &mut self,
        insert: &ast::Insert,
        returning: Option<&Returning>,
    ) -> Outcome<Reply> {
        let TableObject::TableName(name) = &insert.table else {
            return Err(unsupported("INSERT into anything but a table").into());
        };
        if !insert.multi_table_into_clauses.is_empty() {
            return Err(unsupported("INSERT ALL").into());
        }
        let number = self.table_number(name)?;
        privileges::may_use_table(self.st, self.key, number, "INSERT")?;
        let columns = self.insert_columns(number, insert)?;
        let Some(source) = &insert.source else {
            return stop(926, "missing VALUES keyword");
        };
        let mut count = 0;
        let mut returned = Vec::new();
        for values in self.source_rows(source, columns.len())? {
            let row = self.new_row(number, &columns, values)?;
            let row = self.insert_row(number, row)?;
            count += 1;
            returned = self.returning(number, &row, returning)?;
        }
        if returning.is_some() && count > 1 {
            return stop(22816, "unsupported feature with RETURNING clause");
        }
        Ok(Reply::Affected {
            rows: count,
            returned,
        })
    }

    fn insert_columns(&self, number: usize, insert: &ast::Insert) -> Outcome<Vec<usize>> {
        let table = &self.st.tables[number];
        if insert.columns.is_empty() {
            return Ok((0..table.columns.len()).collect());
        }
        insert
            .columns
            .iter()
            .map(|name| {
                let (_, name) = split_name(name);
                table
                    .column(&name)
                    .ok_or_else(|| no_column(&format!("\"{name}\"")).into())
            })
            .collect()
    }

    /// The rows of VALUES or of the query; `None` stands for DEFAULT.
    fn source_rows(
        &mut self,
        source: &ast::Query,
        width: usize,
    ) -> Outcome<Vec<Vec<Option<Datum>>>> {
        let rows = if let SetExpr::Values(values) = &*source.body {
            let mut rows = Vec::with_capacity(values.rows.len());
            for row in &values.rows {
                let mut out = Vec::with_capacity(width);
                for expr in &row.content {
                    out.push(match expr {
                        Expr::Identifier(name) if same(name, "DEFAULT") => None,
                        expr => Some(self.eval(expr, &Scope::EMPTY)?),
                    });
                }
                rows.push(out);
            }
            rows
        } else {
            let result = self.query(source, None)?;
            result
                .rows
                .iter()
                .map(|row| row.iter().cloned().map(Some).collect())
                .collect()
        };
        match rows.iter().map(Vec::len).find(|have| *have != width) {
            Some(have) if have < width => stop(947, "not enough values"),
            Some(_) => stop(913, "too many values"),
            None => Ok(rows),
        }
    }

    fn new_row(
        &mut self,
        number: usize,
        columns: &[usize],
        values: Vec<Option<Datum>>,
    ) -> Outcome<Vec<Datum>> {
        let width = self.st.tables[number].columns.len();
        let mut given: Vec<Option<Datum>> = vec![None; width];
        for (at, value) in columns.iter().zip(values) {
            given[*at] = value;
        }
        let mut row = Vec::with_capacity(width);
        for (at, value) in given.into_iter().enumerate() {
            row.push(match value {
                Some(value) => value,
                None => match self.st.tables[number].columns[at].default.clone() {
                    Some(default) => self.eval(&default, &Scope::EMPTY)?,
                    None => Datum::Null,
                },
            });
        }
        Ok(row)
    }

    fn insert_row(&mut self, number: usize, row: Vec<Datum>) -> Outcome<Row> {
        let row = self
            .fire_before(number, Event::Insert, None, Some(row))?
            .unwrap_or_default();
        let row = Arc::new(self.fitted(number, row)?);
        let txn = self.st.transaction(self.key);
        self.check_keys(number, None, &row, txn)?;
        self.check_parents(number, &row, txn)?;
        let at = self.st.tables[number].new_row();
        self.write(number, at, txn, None, Some(Arc::clone(&row)));
        self.fire(number, Timing::After, Event::Insert, None, Some(&row))?;
        Ok(row)
    }

    pub fn update(
        &mut self,
        update: &ast::Update,
        returning: Option<&Returning>,
    ) -> Outcome<Reply> {
        let target = self.target(&update.table, update.selection.as_ref(), "UPDATE")?;
        let assigned = self.assigned(&target, &update.assignments)?;
        let mut returned = Vec::new();
        for (at, old) in &target.rows {
            let scope = Scope::new(&target.cols, old, None);
            let mut new = old.as_ref().clone();
            for (column, expr) in &assigned {
                new[*column] = match expr {
                    Expr::Identifier(name) if same(name, "DEFAULT") => Datum::Null,
                    expr => self.eval(expr, &scope)?,
                };
            }
            let new = self
                .fire_before(target.table, Event::Update, Some(old), Some(new))?
                .unwrap_or_default();
            let new = Arc::new(self.fitted(target.table, new)?);
            let txn = self.st.transaction(self.key);
            self.check_keys(target.table, Some(*at), &new, txn)?;
            self.check_parents(target.table, &new, txn)?;
            self.check_children(target.table, old, Some(&new), txn)?;
            self.write(
                target.table,
                *at,
                txn,
                Some(Arc::clone(old)),
                Some(Arc::clone(&new)),
            );
            self.fire(
                target.table,
                Timing::After,
                Event::Update,
                Some(old),
                Some(&new),
            )?;
            returned = self.returning(target.table, &new, returning)?;
        }
        self.affected(target.rows.len(), returned, returning)
    }

    fn assigned<'u>(
        &self,
        target: &Target,
        assignments: &'u [Assignment],
    ) -> Outcome<Vec<(usize, &'u Expr)>> {
        let table = &self.st.tables[target.table];
        assignments
            .iter()
            .map(|assignment| {
                let AssignmentTarget::ColumnName(name) = &assignment.target else {
                    return Err(unsupported("SET (columns) = (subquery)").into());
                };
                let (_, name) = split_name(name);
                let at = table
                    .column(&name)
                    .ok_or_else(|| no_column(&format!("\"{name}\"")))?;
                Ok((at, &assignment.value))
            })
            .collect()
    }

    pub fn delete(
        &mut self,
        delete: &ast::Delete,
        returning: Option<&Returning>,
    ) -> Outcome<Reply> {
        let (FromTable::WithFromKeyword(from) | FromTable::WithoutKeyword(from)) = &delete.from;
        let [from] = from.as_slice() else {
            return stop(933, "SQL command not properly ended");
        };
        let target = self.target(from, delete.selection.as_ref(), "DELETE")?;
        let mut returned = Vec::new();
        for (at, old) in &target.rows {
            returned = self.returning(target.table, old, returning)?;
            self.delete_row(target.table, *at, old)?;
        }
        self.affected(target.rows.len(), returned, returning)
    }

    /// Deletes one row, and by ON DELETE CASCADE its children.
    pub fn delete_row(&mut self, table: usize, at: usize, old: &Row) -> Outcome<()> {
        self.fire_before(table, Event::Delete, Some(old), None)?;
        let txn = self.st.transaction(self.key);
        self.check_children(table, old, None, txn)?;
        self.write(table, at, txn, Some(Arc::clone(old)), None);
        self.fire(table, Timing::After, Event::Delete, Some(old), None)
    }

    fn affected(
        &self,
        rows: usize,
        returned: Vec<(String, Value)>,
        returning: Option<&Returning>,
    ) -> Outcome<Reply> {
        if returning.is_some() && rows > 1 {
            return stop(
                24369,
                "required callbacks not registered for one or more bind handles",
            );
        }
        Ok(Reply::Affected {
            rows: rows as u64,
            returned,
        })
    }

    /// The rows that an UPDATE or DELETE means, none of them locked by others.
    fn target(
        &mut self,
        from: &TableWithJoins,
        condition: Option<&Expr>,
        privilege: &str,
    ) -> Outcome<Target> {
        let TableFactor::Table { name, alias, .. } = &from.relation else {
            return Err(unsupported("changing anything but a table").into());
        };
        if !from.joins.is_empty() {
            return Err(unsupported("changing a join").into());
        }
        let number = self.table_number(name)?;
        privileges::may_use_table(self.st, self.key, number, privilege)?;
        let qualifier: Arc<str> = match alias {
            Some(alias) => upper(&alias.name).into(),
            None => self.st.tables[number].name.as_str().into(),
        };
        let cols: Vec<ColRef> = self.columns_of(number, &qualifier);
        let mut conditions = Vec::new();
        if let Some(condition) = condition {
            conjuncts(condition, &mut conditions);
        }
        let known = self.known_values(&conditions, &[qualifier.to_string()], None)?;
        let known: Vec<_> = known.iter().collect();
        let own = self.st.session(self.key).and_then(|session| session.txn);
        let mut rows = Vec::new();
        for (at, row) in self.candidates(
            number,
            Snapshot {
                scn: None,
                txn: own,
            },
            &known,
        ) {
            let scope = Scope {
                rownum: rows.len() as u64 + 1,
                ..Scope::new(&cols, &row, None)
            };
            let wanted = match condition {
                Some(condition) => self.truth(condition, &scope)? == Some(true),
                None => true,
            };
            if wanted {
                if let Some(holder) = self.st.tables[number].rows[at].locked_by_other(own) {
                    return Err(Stop::Blocked(holder));
                }
                rows.push((at, row));
            }
        }
        Ok(Target {
            table: number,
            cols,
            rows,
        })
    }

    /// The columns of a table under a name.
    pub fn columns_of(&self, number: usize, qualifier: &Arc<str>) -> Vec<ColRef> {
        self.st.tables[number]
            .columns
            .iter()
            .map(|column| ColRef {
                qualifier: Some(Arc::clone(qualifier)),
                name: column.name.as_str().into(),
                kind: column.kind,
                nullable: column.nullable,
            })
            .collect()
    }

    /// Makes a change in the transaction.
    fn write(
        &mut self,
        table: usize,
        at: usize,
        txn: TxnId,
        before: Option<Row>,
        after: Option<Row>,
    ) {
        let scn = self.st.scn;
        let stored = &self.st.tables[table].rows[at];
        let pending_before = stored.pending.as_ref().map(|(_, version)| version.clone());
        self.st.tables[table].set_pending(at, txn, after.clone());
        if let Some(transaction) = self.st.transactions.open.get_mut(&txn) {
            let change = Change {
                table,
                row: at,
                pending_before,
                before,
                after,
                scn,
            };
            transaction.changes.push(change);
        }
    }

    fn returning(
        &mut self,
        number: usize,
        row: &Row,
        returning: Option<&Returning>,
    ) -> Outcome<Vec<(String, Value)>> {
        let Some(returning) = returning else {
            return Ok(Vec::new());
        };
        let qualifier: Arc<str> = self.st.tables[number].name.as_str().into();
        let cols = self.columns_of(number, &qualifier);
        let scope = Scope::new(&cols, row, None);
        let mut out = Vec::with_capacity(returning.into.len());
        for (expr, name) in returning.exprs.iter().zip(&returning.into) {
            let value = self.eval(expr, &scope)?;
            let kind = self
                .vars
                .get(&format!(":{name}"))
                .map(|variable| variable.kind)
                .ok_or_else(|| ora(1008, "not all variables bound"))?;
            out.push((name.clone(), value.to_value(kind)?));
        }
        Ok(out)
    }
}
