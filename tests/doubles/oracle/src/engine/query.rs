//! SELECT: from the FROM clause to the ordered result.

use super::datum::{Datum, Row};
use super::errors::{Outcome, Stop, no_table, ora, stop, unsupported};
use super::exec::{ColRef, Exec, Relation, Scope, same, upper};
use super::functions::{is_aggregate, name_of};
use super::kinds;
use super::prepare::{parts, walk};
use sqlparser::ast::{
    Distinct, Expr, GroupByExpr, LimitClause, OrderByExpr, OrderByKind, OrderBySort, Query, Select,
    SelectItem, SelectItemQualifiedWildcardKind, SetExpr, SetOperator, SetQuantifier,
    Value as Literal,
};
use std::borrow::Cow;
use std::cmp::Ordering;
use std::collections::{HashMap, HashSet};
use std::ops::ControlFlow;
use std::sync::Arc;

/// Subqueries nested deeper than this are refused (ORA-00913 in spirit):
/// nothing sensible needs more, and the thread's stack is finite.
const DEEPEST: usize = 64;

/// An output expression and its alias. The expression stays where the parser
/// put it: results of subqueries are remembered by their place.
type Item<'q> = (Cow<'q, Expr>, Option<Arc<str>>);

/// A query's body before ORDER BY, with what ORDER BY may still refer to.
struct Body {
    relation: Relation,
    /// Sort keys per row for the ORDER BY expressions.
    keys: Vec<Vec<Datum>>,
}

impl Exec<'_> {
    pub fn query(&mut self, query: &Query, outer: Option<&Scope<'_>>) -> Outcome<Relation> {
        if self.depth > DEEPEST {
            return stop(913, "subqueries nested too deeply");
        }
        self.depth += 1;
        let named = self.named.len();
        let result = self.query_inner(query, outer);
        self.named.truncate(named);
        self.depth -= 1;
        result
    }

    fn query_inner(&mut self, query: &Query, outer: Option<&Scope<'_>>) -> Outcome<Relation> {
        if !query.locks.is_empty() || query.for_clause.is_some() {
            return Err(unsupported("SELECT … FOR UPDATE").into());
        }
        if let Some(with) = &query.with {
            for table in &with.cte_tables {
                let result = self.query(&table.query, outer)?;
                self.named
                    .push((upper(&table.alias.name), Arc::new(result)));
            }
        }
        let order: &[OrderByExpr] = match query.order_by.as_ref().map(|order| &order.kind) {
            None => &[],
            Some(OrderByKind::Expressions(list)) => list,
            Some(OrderByKind::All(_)) => return Err(unsupported("ORDER BY ALL").into()),
        };
        let Body { mut relation, keys } = self.body(&query.body, order, outer)?;
        if !order.is_empty() {
            sort(&mut relation.rows, keys, order);
        }
        self.limit(query, &mut relation, outer)?;
        Ok(relation)
    }

    fn limit(
        &mut self,
        query: &Query,
        relation: &mut Relation,
        outer: Option<&Scope<'_>>,
    ) -> Outcome<()> {
        let scope = outer.unwrap_or(&Scope::EMPTY);
        let offset = match &query.limit_clause {
            None => None,
            Some(LimitClause::LimitOffset {
                limit: None,
                offset: Some(offset),
                ..
            }) => Some(&offset.value),
            Some(_) => return stop(933, "SQL command not properly ended"),
        };
        if let Some(offset) = offset {
            let skip = usize::try_from(self.eval(offset, scope)?.integer()?).unwrap_or(0);
            relation.rows.drain(..skip.min(relation.rows.len()));
        }
        if let Some(fetch) = &query.fetch {
            if fetch.with_ties || fetch.percent {
                return Err(unsupported("FETCH … WITH TIES or PERCENT").into());
            }
            let most = match &fetch.quantity {
                Some(quantity) => self.eval(quantity, scope)?.integer()?,
                None => 1,
            };
            relation.rows.truncate(usize::try_from(most).unwrap_or(0));
        }
        Ok(())
    }

    fn body(
        &mut self,
        body: &SetExpr,
        order: &[OrderByExpr],
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Body> {
        match body {
            SetExpr::Select(select) => self.select(select, order, outer),
            SetExpr::Query(query) => {
                let relation = self.query(query, outer)?;
                let keys = self.output_keys(&relation, order)?;
                Ok(Body { relation, keys })
            }
            SetExpr::SetOperation {
                left,
                op,
                set_quantifier,
                right,
            } => {
                let left = self.body(left, &[], outer)?.relation;
                let right = self.body(right, &[], outer)?.relation;
                let relation = set_operation(left, *op, *set_quantifier, right)?;
                let keys = self.output_keys(&relation, order)?;
                Ok(Body { relation, keys })
            }
            _ => Err(unsupported("this form of query").into()),
        }
    }

    /// Sort keys where only output columns can be named.
    fn output_keys(
        &mut self,
        relation: &Relation,
        order: &[OrderByExpr],
    ) -> Outcome<Vec<Vec<Datum>>> {
        let mut keys = Vec::with_capacity(relation.rows.len());
        for row in &relation.rows {
            let scope = Scope::new(&relation.cols, row, None);
            let mut key = Vec::with_capacity(order.len());
            for by in order {
                key.push(match position(&by.expr, row.len())? {
                    Some(at) => row[at].clone(),
                    None => self.eval(&by.expr, &scope)?,
                });
            }
            keys.push(key);
        }
        Ok(keys)
    }

    fn select(
        &mut self,
        select: &Select,
        order: &[OrderByExpr],
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Body> {
        if !select.connect_by.is_empty() || select.qualify.is_some() || select.into.is_some() {
            return Err(unsupported("CONNECT BY, QUALIFY and SELECT INTO outside PL/SQL").into());
        }
        let source = self.from(select, outer)?;
        let items = expand(&select.projection, &source.cols)?;
        if source.rows.is_empty() {
            self.check_names(select, &items, &source, outer)?;
        }
        let rows = self.filter(select.selection.as_ref(), &source, outer)?;
        let cols = self.output_columns(&items, &source.cols, outer);
        let keys: &[Expr] = match &select.group_by {
            GroupByExpr::Expressions(list, modifiers) if modifiers.is_empty() => list,
            _ => return Err(unsupported("GROUP BY ALL, ROLLUP and CUBE").into()),
        };
        let aggregates = items.iter().any(|(expr, _)| has_aggregate(expr))
            || select.having.as_ref().is_some_and(has_aggregate);
        let grouped = aggregates || !keys.is_empty();
        let groups: Vec<Vec<Row>> = if grouped {
            for (expr, _) in &items {
                check_grouped(expr, keys, &source.cols)?;
            }
            self.group(rows, keys, &source.cols, outer)?
        } else {
            rows.into_iter().map(|row| vec![row]).collect()
        };
        let mut out = Relation {
            cols,
            rows: Vec::with_capacity(groups.len()),
        };
        let mut sort_keys = Vec::new();
        let blank = vec![Datum::Null; source.cols.len()];
        for group in &groups {
            let row = group.first().map_or(blank.as_slice(), |row| row.as_slice());
            let scope = Scope {
                group: grouped.then_some(group.as_slice()),
                rownum: out.rows.len() as u64 + 1,
                ..Scope::new(&source.cols, row, outer)
            };
            if let Some(having) = &select.having
                && self.truth(having, &scope)? != Some(true)
            {
                continue;
            }
            let mut output = Vec::with_capacity(items.len());
            for (expr, _) in &items {
                output.push(self.eval(expr, &scope)?);
            }
            if !order.is_empty() {
                sort_keys.push(self.sort_key(order, &out.cols, &output, &scope)?);
            }
            out.rows.push(Arc::new(output));
        }
        match &select.distinct {
            None | Some(Distinct::All) => {}
            Some(Distinct::Distinct) => distinct(&mut out.rows, &mut sort_keys),
            Some(Distinct::On(_)) => return Err(unsupported("DISTINCT ON").into()),
        }
        Ok(Body {
            relation: out,
            keys: sort_keys,
        })
    }

    /// Finds unknown columns where there is no row to stumble over them.
    fn check_names(
        &mut self,
        select: &Select,
        items: &[Item<'_>],
        source: &Relation,
        outer: Option<&Scope<'_>>,
    ) -> Outcome<()> {
        let blank: Row = Arc::new(vec![Datum::Null; source.cols.len()]);
        let group = [Arc::clone(&blank)];
        let scope = Scope {
            group: Some(&group),
            ..Scope::new(&source.cols, &blank, outer)
        };
        let describing = std::mem::replace(&mut self.describing, true);
        let mut results: Vec<Outcome<()>> = Vec::new();
        for condition in [&select.selection, &select.having].into_iter().flatten() {
            results.push(self.truth(condition, &scope).map(|_| ()));
        }
        for (expr, _) in items {
            results.push(self.eval(expr, &scope).map(|_| ()));
        }
        self.describing = describing;
        for result in results {
            match result {
                // Conversions of a blank row may fail; names may not.
                Err(Stop::Ora(error)) if matches!(error.code, 904 | 918 | 942) => {
                    return Err(error.into());
                }
                _ => {}
            }
        }
        Ok(())
    }

    fn output_columns(
        &self,
        items: &[Item<'_>],
        cols: &[ColRef],
        outer: Option<&Scope<'_>>,
    ) -> Vec<ColRef> {
        let scope = Scope::new(cols, &[], outer);
        items
            .iter()
            .map(|(expr, alias)| ColRef {
                qualifier: None,
                name: alias.clone().unwrap_or_else(|| column_name(expr)),
                kind: self.kind(expr, &scope),
                nullable: !matches!(&**expr, Expr::Identifier(name)
                    if cols.iter().any(|col| same(name, &col.name) && !col.nullable)),
            })
            .collect()
    }

    /// ORDER BY may name output columns, their positions, or source columns.
    fn sort_key(
        &mut self,
        order: &[OrderByExpr],
        cols: &[ColRef],
        output: &[Datum],
        scope: &Scope<'_>,
    ) -> Outcome<Vec<Datum>> {
        let mut key = Vec::with_capacity(order.len());
        for by in order {
            let named = match &by.expr {
                Expr::Identifier(name) => cols.iter().position(|col| same(name, &col.name)),
                _ => None,
            };
            key.push(match named.or(position(&by.expr, output.len())?) {
                Some(at) => output[at].clone(),
                None => self.eval(&by.expr, scope)?,
            });
        }
        Ok(key)
    }

    /// WHERE, numbering the rows that pass.
    fn filter(
        &mut self,
        condition: Option<&Expr>,
        source: &Relation,
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Vec<Row>> {
        let Some(condition) = condition else {
            return Ok(source.rows.clone());
        };
        let mut rows = Vec::new();
        for row in &source.rows {
            let scope = Scope {
                rownum: rows.len() as u64 + 1,
                ..Scope::new(&source.cols, row, outer)
            };
            if self.truth(condition, &scope)? == Some(true) {
                rows.push(Arc::clone(row));
            }
        }
        Ok(rows)
    }

    fn group(
        &mut self,
        rows: Vec<Row>,
        keys: &[Expr],
        cols: &[ColRef],
        outer: Option<&Scope<'_>>,
    ) -> Outcome<Vec<Vec<Row>>> {
        if keys.is_empty() {
            return Ok(vec![rows]);
        }
        let mut order: Vec<Vec<Row>> = Vec::new();
        let mut by_key: HashMap<Vec<Datum>, usize> = HashMap::new();
        for row in rows {
            let scope = Scope::new(cols, &row, outer);
            let mut key = Vec::with_capacity(keys.len());
            for expr in keys {
                key.push(self.eval(expr, &scope)?.key());
            }
            let at = *by_key.entry(key).or_insert_with(|| {
                order.push(Vec::new());
                order.len() - 1
            });
            order[at].push(row);
        }
        Ok(order)
    }

    /// The columns of the base tables in a FROM clause, for their types.
    pub fn columns_named_in(&self, select: &Select) -> Vec<(String, crate::api::Kind)> {
        let mut columns = Vec::new();
        for source in &select.from {
            if let sqlparser::ast::TableFactor::Table { name, .. } = &source.relation
                && let Ok(number) = self.table_number(name)
            {
                let table = &self.st.tables[number];
                columns.extend(table.columns.iter().map(|c| (c.name.clone(), c.kind)));
            }
        }
        columns
    }

    /// The number of the table that a name means; ORA-00942.
    pub fn table_number(&self, name: &sqlparser::ast::ObjectName) -> Outcome<usize> {
        let (owner, name) = split_name(name);
        self.st
            .find_table(owner.as_deref().unwrap_or(&self.schema), &name)
            .ok_or_else(|| no_table().into())
    }
}

/// `[owner.]name` as the dictionary holds it.
pub fn split_name(name: &sqlparser::ast::ObjectName) -> (Option<String>, String) {
    let mut parts: Vec<String> = name
        .0
        .iter()
        .filter_map(|part| part.as_ident().map(upper))
        .collect();
    let last = parts.pop().unwrap_or_default();
    (parts.pop(), last)
}

/// A literal number in ORDER BY is an output column's position.
fn position(expr: &Expr, columns: usize) -> Outcome<Option<usize>> {
    let Expr::Value(value) = expr else {
        return Ok(None);
    };
    let Literal::Number(text, _) = &value.value else {
        return Ok(None);
    };
    match text.parse::<usize>() {
        Ok(at) if (1..=columns).contains(&at) => Ok(Some(at - 1)),
        _ => stop(
            1785,
            "ORDER BY item must be the number of a SELECT-list expression",
        ),
    }
}

fn sort(rows: &mut Vec<Row>, keys: Vec<Vec<Datum>>, order: &[OrderByExpr]) {
    let mut pairs: Vec<(Vec<Datum>, Row)> = keys.into_iter().zip(std::mem::take(rows)).collect();
    pairs.sort_by(|(left, _), (right, _)| {
        for (at, by) in order.iter().enumerate() {
            let (left, right) = (&left[at], &right[at]);
            let descending = matches!(by.options.sort, Some(OrderBySort::Desc));
            let nulls_first = by.options.nulls_first.unwrap_or(descending);
            let ordering = match (left.is_null(), right.is_null()) {
                (true, true) => Ordering::Equal,
                (true, false) if nulls_first => Ordering::Less,
                (true, false) => Ordering::Greater,
                (false, true) if nulls_first => Ordering::Greater,
                (false, true) => Ordering::Less,
                _ if descending => right.sort_order(left),
                _ => left.sort_order(right),
            };
            if ordering != Ordering::Equal {
                return ordering;
            }
        }
        Ordering::Equal
    });
    rows.extend(pairs.into_iter().map(|(_, row)| row));
}

fn distinct(rows: &mut Vec<Row>, keys: &mut Vec<Vec<Datum>>) {
    let mut seen = HashSet::new();
    let keep: Vec<bool> = rows
        .iter()
        .map(|row| seen.insert(row.iter().map(Datum::key).collect::<Vec<_>>()))
        .collect();
    let mut flags = keep.iter();
    rows.retain(|_| flags.next().copied().unwrap_or(true));
    let mut flags = keep.iter();
    keys.retain(|_| flags.next().copied().unwrap_or(true));
}

fn set_operation(
    mut left: Relation,
    op: SetOperator,
    quantifier: SetQuantifier,
    right: Relation,
) -> Outcome<Relation> {
    if left.cols.len() != right.cols.len() {
        return stop(1789, "query block has incorrect number of result columns");
    }
    for (left, right) in left.cols.iter_mut().zip(&right.cols) {
        left.kind = kinds::join(left.kind, right.kind)?;
    }
    let key = |row: &Row| row.iter().map(Datum::key).collect::<Vec<_>>();
    let others: HashSet<Vec<Datum>> = match op {
        SetOperator::Union => HashSet::new(),
        _ => right.rows.iter().map(key).collect(),
    };
    match (op, quantifier) {
        (SetOperator::Union, SetQuantifier::All) => {
            left.rows.extend(right.rows);
            return Ok(left);
        }
        (SetOperator::Union, SetQuantifier::None | SetQuantifier::Distinct) => {
            left.rows.extend(right.rows);
        }
        (SetOperator::Minus | SetOperator::Except, SetQuantifier::None) => {
            left.rows.retain(|row| !others.contains(&key(row)));
        }
        (SetOperator::Intersect, SetQuantifier::None) => {
            left.rows.retain(|row| others.contains(&key(row)));
        }
        _ => return Err(unsupported("this set operation").into()),
    }
    distinct(&mut left.rows, &mut Vec::new());
    Ok(left)
}

/// The output expressions with their aliases, `*` written out.
fn expand<'q>(items: &'q [SelectItem], cols: &[ColRef]) -> Outcome<Vec<Item<'q>>> {
    let mut out = Vec::new();
    for item in items {
        match item {
            SelectItem::UnnamedExpr(expr) => out.push((Cow::Borrowed(expr), None)),
            SelectItem::ExprWithAlias { expr, alias } => {
                out.push((Cow::Borrowed(expr), Some(upper(alias).into())));
            }
            SelectItem::Wildcard(_) => out.extend(cols.iter().map(column_expr)),
            SelectItem::QualifiedWildcard(SelectItemQualifiedWildcardKind::ObjectName(name), _) => {
                let (_, table) = split_name(name);
                let before = out.len();
                let own = cols
                    .iter()
                    .filter(|col| col.qualifier.as_deref() == Some(table.as_str()));
                out.extend(own.map(column_expr));
                if out.len() == before {
                    return Err(no_table().into());
                }
            }
            other => return Err(ora(936, format!("missing expression near {other}")).into()),
        }
    }
    Ok(out)
}

fn column_expr<'q>(col: &ColRef) -> Item<'q> {
    let quoted = |name: &str| sqlparser::ast::Ident::with_quote('"', name);
    let expr = match &col.qualifier {
        Some(table) => Expr::CompoundIdentifier(vec![quoted(table), quoted(&col.name)]),
        None => Expr::Identifier(quoted(&col.name)),
    };
    (Cow::Owned(expr), Some(Arc::clone(&col.name)))
}

/// The name Oracle gives an output column without an alias.
fn column_name(expr: &Expr) -> Arc<str> {
    match expr {
        Expr::Identifier(name) => upper(name).into(),
        Expr::CompoundIdentifier(parts) => parts.last().map(upper).unwrap_or_default().into(),
        other => other.to_string().to_uppercase().replace(' ', "").into(),
    }
}

fn has_aggregate(expr: &Expr) -> bool {
    walk(expr, &mut |part| match part {
        Expr::Function(function) if is_aggregate(&name_of(function)) => ControlFlow::Break(()),
        _ => ControlFlow::Continue(()),
    })
    .is_break()
}

/// ORA-00937 and ORA-00979: what stands outside aggregates must be grouped by.
fn check_grouped(expr: &Expr, keys: &[Expr], cols: &[ColRef]) -> Outcome<()> {
    let text = |expr: &Expr| expr.to_string().to_uppercase();
    if keys
        .iter()
        .any(|key| text(key) == text(expr) || column_name(key) == column_name(expr))
    {
        return Ok(());
    }
    match expr {
        Expr::Function(function) if is_aggregate(&name_of(function)) => Ok(()),
        Expr::Identifier(name) if cols.iter().any(|col| same(name, &col.name)) => not_grouped(keys),
        Expr::CompoundIdentifier(_) => not_grouped(keys),
        other => parts(other)
            .into_iter()
            .try_for_each(|part| check_grouped(part, keys, cols)),
    }
}

fn not_grouped(keys: &[Expr]) -> Outcome<()> {
    if keys.is_empty() {
        stop(937, "not a single-group group function")
    } else {
        stop(979, "not a GROUP BY expression")
    }
}
