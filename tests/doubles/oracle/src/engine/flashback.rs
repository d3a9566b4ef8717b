//! ORA_ROWSCN, and flashback version queries.
//!
//! ORA_ROWSCN is coarse, as in a table without ROWDEPENDENCIES: a whole block
//! has the SCN of its last change, or a later one after delayed block cleanout
//! (SQL Language Reference, "ORA_ROWSCN Pseudocolumn").

use super::datum::{Datum, Row};
use super::errors::Outcome;
use super::exec::{ColRef, Exec, Relation, Scope, same};
use super::from::column_of;
use super::kinds::NUMBER;
use super::prepare::{VERSIONS_SINCE, arguments, walk};
use super::storage::{StoredRow, Table};
use super::txn::Scn;
use crate::api::Kind;
use sqlparser::ast::{Expr, Select, SelectItem, TableVersion};
use std::ops::ControlFlow;
use std::sync::Arc;

pub const ROW_SCN: &str = "ORA_ROWSCN";

/// Whether a query names ORA_ROWSCN, outside of its subqueries.
pub fn names_row_scn(select: &Select) -> bool {
    let named = |expr: &Expr| {
        walk(expr, &mut |part| match column_of(part) {
            Some((_, name)) if same(&name, ROW_SCN) => ControlFlow::Break(()),
            _ => ControlFlow::Continue(()),
        })
        .is_break()
    };
    let projected = select.projection.iter().any(|item| match item {
        SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. } => named(expr),
        _ => false,
    });
    projected || select.selection.as_ref().is_some_and(named)
}

/// The lower bound of a flashback version query.
pub fn versions_since(version: &TableVersion) -> Option<&Expr> {
    let TableVersion::ForSystemTimeAsOf(Expr::Function(function)) = version else {
        return None;
    };
    if !function
        .name
        .to_string()
        .eq_ignore_ascii_case(VERSIONS_SINCE)
    {
        return None;
    }
    arguments(function).first().copied()
}

/// The columns of a table.
pub fn columns(table: &Table, qualifier: &Arc<str>) -> Vec<ColRef> {
    let column = |column: &super::storage::ColumnDef| ColRef {
        qualifier: Some(Arc::clone(qualifier)),
        name: column.name.as_str().into(),
        kind: column.kind,
        nullable: column.nullable,
    };
    table.columns.iter().map(column).collect()
}

pub fn pseudocolumn(qualifier: &Arc<str>, name: &str) -> ColRef {
    ColRef {
        qualifier: Some(Arc::clone(qualifier)),
        name: name.into(),
        kind: NUMBER,
        nullable: true,
    }
}

/// A row with the ORA_ROWSCN of its block.
pub fn with_scn(row: &Row, scns: &[Scn], number: usize) -> Row {
    let mut row = row.as_ref().clone();
    let scn = scns.get(Table::block_of(number)).copied();
    row.push(scn.map_or(Datum::Null, Datum::int));
    Arc::new(row)
}

/// The versions of a row that were current after an SCN, each with its start,
/// its end and its operation.
fn versions_of(row: &StoredRow, since: Scn) -> Vec<(Row, [Datum; 3])> {
    let mut out = Vec::new();
    for (at, (scn, version)) in row.versions.iter().enumerate() {
        let end = row.versions.get(at + 1).map(|(scn, _)| *scn);
        let before = at.checked_sub(1).and_then(|at| row.versions[at].1.as_ref());
        if *scn <= since {
            let current = end.is_none_or(|end| end > since);
            if let (true, Some(version)) = (current, version) {
                let end = end.map_or(Datum::Null, Datum::int);
                out.push((Arc::clone(version), [Datum::Null, end, Datum::Null]));
            }
            continue;
        }
        let start = Datum::int(*scn);
        match (before, version) {
            (None, Some(version)) => {
                let end = end.map_or(Datum::Null, Datum::int);
                out.push((Arc::clone(version), [start, end, Datum::text("I")]));
            }
            (Some(_), Some(version)) => {
                let end = end.map_or(Datum::Null, Datum::int);
                out.push((Arc::clone(version), [start, end, Datum::text("U")]));
            }
            (Some(before), None) => {
                out.push((Arc::clone(before), [start, Datum::Null, Datum::text("D")]));
            }
            (None, None) => {}
        }
    }
    out
}

impl Exec<'_> {
    /// ORA_ROWSCN of each block.
    pub fn row_scns(&self, number: usize) -> Vec<Scn> {
        let mut scns = self.st.tables[number].block_scns();
        if self.st.environment.delayed_cleanout {
            scns.fill(self.st.scn);
        }
        scns
    }

    /// The committed versions of a table's rows since an SCN.
    pub fn versions(
        &mut self,
        number: usize,
        qualifier: &Arc<str>,
        since: &Expr,
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Relation> {
        let mut cols = columns(&self.st.tables[number], qualifier);
        cols.push(pseudocolumn(qualifier, "VERSIONS_STARTSCN"));
        cols.push(pseudocolumn(qualifier, "VERSIONS_ENDSCN"));
        cols.push(ColRef {
            kind: Kind::Varchar2(1),
            ..pseudocolumn(qualifier, "VERSIONS_OPERATION")
        });
        if self.describing {
            let rows = Vec::new();
            return Ok(Relation { cols, rows });
        }
        let since = self.past_scn(since, outer)?;
        let table = &self.st.tables[number];
        if since < table.created_scn {
            return super::errors::stop(1466, "unable to read data - table definition has changed");
        }
        let versions = table.rows.iter().flat_map(|row| versions_of(row, since));
        let rows = versions
            .map(|(row, pseudo)| {
                let mut row = row.as_ref().clone();
                row.extend(pseudo);
                Arc::new(row)
            })
            .collect();
        Ok(Relation { cols, rows })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_say_what_was_done_since() {
        let row = |number: i64| Some(Arc::new(vec![Datum::int(number)]));
        let stored = StoredRow {
            versions: vec![(10, row(1)), (20, row(2)), (30, None)],
            pending: None,
        };
        let operations = |since| -> Vec<Datum> {
            let versions = versions_of(&stored, since).into_iter();
            versions.map(|(_, [_, _, operation])| operation).collect()
        };
        let text = Datum::text;
        assert_eq!(operations(5), [text("I"), text("U"), text("D")]);
        assert_eq!(operations(20), [Datum::Null, text("D")]);
        assert_eq!(operations(30), []);
    }
}
