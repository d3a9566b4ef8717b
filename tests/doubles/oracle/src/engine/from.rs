//! The FROM clause: tables, views, subqueries, joins.
//!
//! A condition `column = value`, where the value needs no row of this query,
//! is used to look rows up by an index; an equality between two tables makes
//! a hash join. Every condition is checked again afterwards, so that these
//! are matters of speed alone.

use super::datum::{Datum, Row};
use super::errors::{Outcome, Stop, no_table, ora, stop, unsupported};
use super::exec::{ColRef, Exec, Relation, Scope, same, upper};
use super::prepare::walk;
use super::query::split_name;
use super::storage::Snapshot;
use super::{flashback, privileges, views};
use sqlparser::ast::{
    BinaryOperator, Expr, Ident, Join, JoinConstraint, JoinOperator, Select, TableFactor,
    TableVersion,
};
use std::collections::HashMap;
use std::ops::ControlFlow;
use std::sync::Arc;

/// `column op value` with the value known before any row is read.
#[derive(Debug)]
pub struct Known {
    pub column: Ident,
    /// The comparison, the column on the left.
    pub op: BinaryOperator,
    pub value: Datum,
    qualifier: Option<Ident>,
}

impl Exec<'_> {
    /// The rows of a FROM clause, joined.
    pub fn from(&mut self, select: &Select, outer: Option<&Scope<'_>>) -> Outcome<Relation> {
        let outside = std::mem::replace(&mut self.row_scn, flashback::names_row_scn(select));
        let relation = self.joined(select, outer);
        self.row_scn = outside;
        relation
    }

    fn joined(&mut self, select: &Select, outer: Option<&Scope<'_>>) -> Outcome<Relation> {
        let mut conditions = Vec::new();
        if let Some(condition) = &select.selection {
            conjuncts(condition, &mut conditions);
        }
        let locals = local_names(select);
        let known = self.known_values(&conditions, &locals, outer)?;
        let mut all: Option<Relation> = None;
        for source in &select.from {
            let first = self.factor(&source.relation, &known, outer)?;
            let mut joined = match all.take() {
                None => first,
                Some(left) => self.join(left, first, &conditions, false, outer)?,
            };
            for join in &source.joins {
                joined = self.join_step(joined, join, &conditions, &known, &locals, outer)?;
            }
            all = Some(joined);
        }
        all.ok_or_else(|| ora(923, "FROM keyword not found where expected").into())
    }

    fn join_step(
        &mut self,
        left: Relation,
        join: &Join,
        conditions: &[&Expr],
        known: &[Known],
        locals: &[String],
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Relation> {
        let (constraint, keep_left) = match &join.join_operator {
            JoinOperator::Join(constraint) | JoinOperator::Inner(constraint) => (constraint, false),
            JoinOperator::Left(constraint) | JoinOperator::LeftOuter(constraint) => {
                (constraint, true)
            }
            JoinOperator::CrossJoin(constraint) => (constraint, false),
            _ => return Err(unsupported("joins other than INNER, LEFT and CROSS").into()),
        };
        let mut on = Vec::new();
        match constraint {
            JoinConstraint::On(condition) => conjuncts(condition, &mut on),
            JoinConstraint::None => {}
            JoinConstraint::Using(_) | JoinConstraint::Natural => {
                return Err(unsupported("JOIN … USING and NATURAL JOIN; write ON").into());
            }
        }
        let mut right_known = self.known_values(&on, locals, outer)?;
        right_known.extend(known.iter().map(|k| Known {
            column: k.column.clone(),
            op: k.op.clone(),
            value: k.value.clone(),
            qualifier: k.qualifier.clone(),
        }));
        let right = self.factor(&join.relation, &right_known, outer)?;
        if !keep_left {
            on.extend(conditions);
        }
        self.join(left, right, &on, keep_left, outer)
    }

    /// Joins by the conditions that both sides together can answer.
    fn join(
        &mut self,
        left: Relation,
        right: Relation,
        conditions: &[&Expr],
        keep_left: bool,
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Relation> {
        let mut cols = left.cols.clone();
        cols.extend(right.cols.iter().cloned());
        let pairs = equal_pairs(conditions, &left.cols, &right.cols);
        // Conditions on tables still to come belong to the whole WHERE.
        let checks: Vec<&Expr> = conditions
            .iter()
            .copied()
            .filter(|condition| keep_left || answerable(condition, &cols))
            .collect();
        let mut by_key: HashMap<Vec<Datum>, Vec<usize>> = HashMap::new();
        for (at, row) in right.rows.iter().enumerate() {
            let key: Vec<Datum> = pairs.iter().map(|(_, r)| row[*r].key()).collect();
            by_key.entry(key).or_default().push(at);
        }
        let blank = vec![Datum::Null; right.cols.len()];
        let mut rows: Vec<Row> = Vec::new();
        for row in &left.rows {
            let key: Vec<Datum> = pairs.iter().map(|(l, _)| row[*l].key()).collect();
            let mut matched = false;
            for at in by_key.get(&key).map_or(&[][..], Vec::as_slice) {
                let mut both = row.as_ref().clone();
                both.extend(right.rows[*at].iter().cloned());
                let mut holds = true;
                for check in &checks {
                    let scope = Scope::new(&cols, &both, outer);
                    if self.truth(check, &scope)? != Some(true) {
                        holds = false;
                        break;
                    }
                }
                if holds {
                    matched = true;
                    rows.push(Arc::new(both));
                }
            }
            if keep_left && !matched {
                let mut alone = row.as_ref().clone();
                alone.extend(blank.iter().cloned());
                rows.push(Arc::new(alone));
            }
        }
        if keep_left {
            cols[left.cols.len()..]
                .iter_mut()
                .for_each(|col| col.nullable = true);
        }
        Ok(Relation { cols, rows })
    }

    fn factor(
        &mut self,
        factor: &TableFactor,
        known: &[Known],
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Relation> {
        match factor {
            TableFactor::Table {
                name,
                alias,
                version,
                args: None,
                sample: None,
                ..
            } => {
                let (owner, table) = split_name(name);
                let alias = alias.as_ref().map(|alias| upper(&alias.name));
                let qualifier: Arc<str> = alias.unwrap_or_else(|| table.clone()).into();
                if owner.is_none()
                    && let Some((_, result)) = self.named.iter().rev().find(|(n, _)| *n == table)
                {
                    let result = Arc::clone(result);
                    return Ok(requalified(&result, &qualifier));
                }
                let own: Vec<&Known> = known
                    .iter()
                    .filter(|k| k.qualifier.as_ref().is_none_or(|q| same(q, &qualifier)))
                    .collect();
                self.table(
                    owner.as_deref(),
                    &table,
                    &qualifier,
                    version.as_ref(),
                    &own,
                    outer,
                )
            }
            TableFactor::Derived {
                lateral: false,
                subquery,
                alias,
                ..
            } => {
                let result = self.query(subquery, outer)?;
                let qualifier = alias
                    .as_ref()
                    .map(|alias| upper(&alias.name))
                    .unwrap_or_default();
                Ok(requalified(&result, &qualifier.into()))
            }
            TableFactor::NestedJoin { .. } => Err(unsupported("parentheses around joins").into()),
            other => Err(unsupported(format!("{other} in FROM")).into()),
        }
    }

    fn table(
        &mut self,
        owner: Option<&str>,
        name: &str,
        qualifier: &Arc<str>,
        version: Option<&TableVersion>,
        known: &[&Known],
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Relation> {
        let found = self.st.find_table(owner.unwrap_or(&self.schema), name);
        let Some(number) = found else {
            if let Some(mut relation) = views::open(self, owner, name, known)? {
                for col in &mut relation.cols {
                    col.qualifier = Some(Arc::clone(qualifier));
                }
                if self.describing {
                    relation.rows.clear();
                }
                return Ok(relation);
            }
            return Err(no_table().into());
        };
        privileges::may_use_table(self.st, self.key, number, "SELECT")?;
        if let Some(since) = version.and_then(flashback::versions_since) {
            return self.versions(number, qualifier, since, outer);
        }
        let snapshot = self.snapshot(version, outer)?;
        let table = &self.st.tables[number];
        if snapshot.scn.is_some_and(|scn| scn < table.created_scn) {
            return stop(1466, "unable to read data - table definition has changed");
        }
        let mut cols = flashback::columns(table, qualifier);
        // Not in a flashback query: there it is ORA-00904.
        let row_scn = self.row_scn && version.is_none();
        if row_scn {
            cols.push(flashback::pseudocolumn(qualifier, flashback::ROW_SCN));
        }
        if self.describing {
            return Ok(Relation {
                cols,
                rows: Vec::new(),
            });
        }
        let rows = self.candidates(number, snapshot, known).into_iter();
        let rows = if row_scn {
            let scns = self.row_scns(number);
            rows.map(|(at, row)| flashback::with_scn(&row, &scns, at))
                .collect()
        } else {
            rows.map(|(_, row)| row).collect()
        };
        Ok(Relation { cols, rows })
    }

    /// What this session sees, or saw as of an SCN.
    fn snapshot(
        &mut self,
        version: Option<&TableVersion>,
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Snapshot> {
        let Some(version) = version else {
            return Ok(Snapshot {
                scn: None,
                txn: self.st.session(self.key).and_then(|s| s.txn),
            });
        };
        let TableVersion::ForSystemTimeAsOf(expr) = version else {
            return Err(unsupported("AS OF TIMESTAMP; use AS OF SCN").into());
        };
        if self.describing {
            return Ok(Snapshot::default());
        }
        Ok(Snapshot {
            scn: Some(self.past_scn(expr, outer)?),
            txn: None,
        })
    }

    /// The SCN that a flashback clause names.
    pub fn past_scn(&mut self, expr: &Expr, outer: Option<&Scope<'_>>) -> Outcome<u64> {
        let scn = self.eval(expr, outer.unwrap_or(&Scope::EMPTY))?.integer()?;
        match u64::try_from(scn) {
            Ok(scn) if scn <= self.st.scn => Ok(scn),
            _ => stop(8181, "specified number is not a valid system change number"),
        }
    }

    /// The rows of a table that can satisfy the known values: by an index
    /// where one fits, all of them otherwise.
    pub fn candidates(
        &self,
        number: usize,
        snapshot: Snapshot,
        known: &[&Known],
    ) -> Vec<(usize, Row)> {
        let table = &self.st.tables[number];
        for index in &table.indexes {
            let key: Option<Vec<Datum>> = index
                .columns
                .iter()
                .map(|at| {
                    let column = &table.columns[*at];
                    known
                        .iter()
                        .find(|k| k.op == BinaryOperator::Eq && same(&k.column, &column.name))
                        .and_then(|k| as_key(&k.value, column.kind))
                })
                .collect();
            if let Some(key) = key {
                let rows = table.lookup(index, &key, snapshot);
                return rows
                    .map(|(number, row)| (number, Arc::clone(row)))
                    .collect();
            }
        }
        table
            .scan(snapshot)
            .map(|(number, row)| (number, Arc::clone(row)))
            .collect()
    }

    /// The conditions whose value is known beforehand.
    pub fn known_values(
        &mut self,
        conditions: &[&Expr],
        locals: &[String],
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Vec<Known>> {
        let mut out = Vec::new();
        if self.describing {
            return Ok(out);
        }
        for condition in conditions {
            let Expr::BinaryOp { left, op, right } = condition else {
                continue;
            };
            for (column, op, value) in [(left, op.clone(), right), (right, mirrored(op), left)] {
                let Some((qualifier, name)) = column_of(column) else {
                    continue;
                };
                if !independent(value, locals, self.vars) {
                    continue;
                }
                match self.eval(value, outer.unwrap_or(&Scope::EMPTY)) {
                    Ok(value) => out.push(Known {
                        column: name,
                        op,
                        value,
                        qualifier,
                    }),
                    // An outer row that is not there yet; the condition itself decides.
                    Err(Stop::Ora(_)) => {}
                    Err(blocked) => return Err(blocked),
                }
            }
        }
        Ok(out)
    }
}

/// A value as a key of an index over a column of that type, where comparing
/// would not convert the column instead.
fn as_key(value: &Datum, kind: crate::api::Kind) -> Option<Datum> {
    use crate::api::Kind;
    match (value, kind) {
        (Datum::Text(_) | Datum::Char(_), Kind::Varchar2(_) | Kind::Char(_))
        | (Datum::Number(_), Kind::Number(..))
        | (Datum::Date(_) | Datum::Timestamp(_), Kind::Date | Kind::Timestamp(_))
        | (Datum::Raw(_), Kind::Raw(_)) => Some(value.key()),
        (Datum::Text(_), Kind::Number(..)) => Some(Datum::Number(value.number().ok()?).key()),
        _ => None,
    }
}

fn mirrored(op: &BinaryOperator) -> BinaryOperator {
    match op {
        BinaryOperator::Lt => BinaryOperator::Gt,
        BinaryOperator::LtEq => BinaryOperator::GtEq,
        BinaryOperator::Gt => BinaryOperator::Lt,
        BinaryOperator::GtEq => BinaryOperator::LtEq,
        other => other.clone(),
    }
}

pub fn column_of(expr: &Expr) -> Option<(Option<Ident>, Ident)> {
    match expr {
        Expr::Identifier(name) => Some((None, name.clone())),
        Expr::CompoundIdentifier(parts) => match parts.as_slice() {
            [.., qualifier, name] => Some((Some(qualifier.clone()), name.clone())),
            _ => None,
        },
        Expr::Nested(inner) => column_of(inner),
        _ => None,
    }
}

/// Whether an expression needs no row of the tables named here.
fn independent(expr: &Expr, locals: &[String], vars: &super::exec::Variables) -> bool {
    let dependent = walk(expr, &mut |part| match part {
        Expr::Identifier(name) => {
            let name = upper(name);
            let free = matches!(name.as_str(), "SYSDATE" | "SYSTIMESTAMP" | "USER")
                || vars.contains_key(&name);
            if free {
                ControlFlow::Continue(())
            } else {
                ControlFlow::Break(())
            }
        }
        Expr::CompoundIdentifier(parts) => {
            let qualifier = parts.iter().rev().nth(1).map(upper).unwrap_or_default();
            let last = parts.last().map(upper).unwrap_or_default();
            if locals.contains(&qualifier) || matches!(last.as_str(), "NEXTVAL" | "CURRVAL") {
                ControlFlow::Break(())
            } else {
                ControlFlow::Continue(())
            }
        }
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    dependent.is_continue()
}

/// Names by which the tables of this query can be meant.
fn local_names(select: &Select) -> Vec<String> {
    let mut names = Vec::new();
    for source in &select.from {
        let joined = source.joins.iter().map(|join| &join.relation);
        for factor in std::iter::once(&source.relation).chain(joined) {
            match factor {
                TableFactor::Table {
                    alias: Some(alias), ..
                }
                | TableFactor::Derived {
                    alias: Some(alias), ..
                } => names.push(upper(&alias.name)),
                TableFactor::Table { name, .. } => names.push(split_name(name).1),
                _ => {}
            }
        }
    }
    names
}

/// The parts of a condition that AND binds together.
pub fn conjuncts<'e>(expr: &'e Expr, out: &mut Vec<&'e Expr>) {
    match expr {
        Expr::BinaryOp {
            left,
            op: BinaryOperator::And,
            right,
        } => {
            conjuncts(left, out);
            conjuncts(right, out);
        }
        Expr::Nested(inner) => conjuncts(inner, out),
        other => out.push(other),
    }
}

fn find_col(cols: &[ColRef], expr: &Expr) -> Option<usize> {
    let (qualifier, name) = column_of(expr)?;
    let mut found = cols.iter().enumerate().filter(|(_, col)| {
        same(&name, &col.name)
            && qualifier
                .as_ref()
                .is_none_or(|q| col.qualifier.as_deref().is_some_and(|o| same(q, o)))
    });
    let (at, _) = found.next()?;
    found.next().is_none().then_some(at)
}

/// Equalities between a column of each side whose values can be hashed alike.
fn equal_pairs(conditions: &[&Expr], left: &[ColRef], right: &[ColRef]) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    for condition in conditions {
        let Expr::BinaryOp {
            left: a,
            op: BinaryOperator::Eq,
            right: b,
        } = condition
        else {
            continue;
        };
        let forward = find_col(left, a).zip(find_col(right, b));
        let Some((l, r)) = forward.or_else(|| find_col(left, b).zip(find_col(right, a))) else {
            continue;
        };
        // NULL never equals NULL, yet their keys would: the check afterwards sorts that out.
        if std::mem::discriminant(&left[l].kind) == std::mem::discriminant(&right[r].kind) {
            pairs.push((l, r));
        }
    }
    pairs
}

/// Whether every column an expression names is among these.
fn answerable(expr: &Expr, cols: &[ColRef]) -> bool {
    let missing = walk(expr, &mut |part| match part {
        Expr::Identifier(_) | Expr::CompoundIdentifier(_) => match find_col(cols, part) {
            Some(_) => ControlFlow::Continue(()),
            None => ControlFlow::Break(()),
        },
        Expr::Subquery(_) | Expr::Exists { .. } | Expr::InSubquery { .. } => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    });
    missing.is_continue()
}

fn requalified(relation: &Relation, qualifier: &Arc<str>) -> Relation {
    Relation {
        cols: relation
            .cols
            .iter()
            .map(|col| ColRef {
                qualifier: Some(Arc::clone(qualifier)),
                ..col.clone()
            })
            .collect(),
        rows: relation.rows.clone(),
    }
}
