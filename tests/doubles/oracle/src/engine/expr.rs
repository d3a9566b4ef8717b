//! Expressions: evaluation with Oracle's NULLs and conversions.

use super::datum::{self, Datum};
use super::errors::{Outcome, Stop, no_column, ora, stop, unsupported};
use super::exec::{Exec, Relation, Scope, same, upper};
use super::{clock, format, functions, text};
use bigdecimal::{BigDecimal, Zero};
use sqlparser::ast::{
    BinaryOperator, CeilFloorKind, DataType, DateTimeField, Expr, Ident, Query, TrimWhereField,
    UnaryOperator, Value as Literal,
};
use std::cmp::Ordering;
use std::sync::Arc;

impl Exec<'_> {
    /// The value of an expression for a row.
    pub fn eval(&mut self, expr: &Expr, scope: &Scope<'_>) -> Outcome<Datum> {
        match expr {
            Expr::Nested(inner) => self.eval(inner, scope),
            Expr::Value(value) => self.literal(&value.value),
            Expr::Identifier(name) => self.identifier(name, scope),
            Expr::CompoundIdentifier(parts) => self.compound(parts, scope),
            Expr::BinaryOp { left, op, right } if is_arithmetic(op) => {
                let left = self.eval(left, scope)?;
                let right = self.eval(right, scope)?;
                arithmetic(left, op, right)
            }
            Expr::UnaryOp {
                op: UnaryOperator::Minus,
                expr,
            } => {
                let value = self.eval(expr, scope)?;
                if value.is_null() {
                    Ok(value)
                } else {
                    Ok(Datum::Number(-value.number()?))
                }
            }
            Expr::UnaryOp {
                op: UnaryOperator::Plus,
                expr,
            } => self.eval(expr, scope),
            Expr::Case {
                operand,
                conditions,
                else_result,
                ..
            } => {
                for when in conditions {
                    let holds = match operand {
                        Some(operand) => {
                            let operand = self.eval(operand, scope)?;
                            let value = self.eval(&when.condition, scope)?;
                            operand.compare(&value)? == Some(Ordering::Equal)
                        }
                        None => self.truth(&when.condition, scope)? == Some(true),
                    };
                    if holds {
                        return self.eval(&when.result, scope);
                    }
                }
                else_result
                    .as_ref()
                    .map_or(Ok(Datum::Null), |other| self.eval(other, scope))
            }
            Expr::Function(function) => self.function(function, scope),
            Expr::Subquery(query) => {
                let result = self.subquery(query, scope)?;
                if result.rows.len() > 1 {
                    return stop(1427, "single-row subquery returns more than one row");
                }
                Ok(result
                    .rows
                    .first()
                    .map_or(Datum::Null, |row| row[0].clone()))
            }
            other => self.special(other, scope),
        }
    }

    /// Expressions that SQL gives a syntax of their own.
    fn special(&mut self, expr: &Expr, scope: &Scope<'_>) -> Outcome<Datum> {
        match expr {
            Expr::Substring {
                expr,
                substring_from,
                substring_for,
                ..
            } => {
                let mut arguments = vec![self.eval(expr, scope)?];
                for part in [substring_from, substring_for].into_iter().flatten() {
                    arguments.push(self.eval(part, scope)?);
                }
                functions::scalar("SUBSTR", &arguments)
            }
            Expr::Trim {
                trim_where,
                trim_what,
                expr,
                ..
            } => {
                let function = match trim_where {
                    Some(TrimWhereField::Leading) => "LTRIM",
                    Some(TrimWhereField::Trailing) => "RTRIM",
                    _ => "TRIM",
                };
                let mut arguments = vec![self.eval(expr, scope)?];
                if let Some(what) = trim_what {
                    arguments.push(self.eval(what, scope)?);
                }
                functions::scalar(function, &arguments)
            }
            Expr::Ceil {
                expr,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => functions::scalar("CEIL", &[self.eval(expr, scope)?]),
            Expr::Floor {
                expr,
                field: CeilFloorKind::DateTimeField(DateTimeField::NoDateTime),
            } => functions::scalar("FLOOR", &[self.eval(expr, scope)?]),
            Expr::TypedString(typed) => typed_literal(&typed.value.value, &typed.data_type),
            Expr::Interval(interval) => {
                let amount = self.eval(&interval.value, scope)?;
                functions::interval(&amount, interval.leading_field.as_ref())
            }
            Expr::Cast {
                expr, data_type, ..
            } => {
                let value = self.eval(expr, scope)?;
                let kind = super::kinds::of_data_type(data_type)?;
                datum::fit(value, kind, &|| "CAST".to_owned())
            }
            Expr::Extract { field, expr, .. } => {
                let value = self.eval(expr, scope)?;
                functions::extract(field, &value)
            }
            // A condition where a value is wanted has no value in SQL.
            Expr::OuterJoin(_) => Err(unsupported("the (+) operator; write LEFT JOIN").into()),
            Expr::Tuple(_) => stop(907, "missing right parenthesis"),
            other => Err(ora(936, format!("missing expression near {other}")).into()),
        }
    }

    fn literal(&self, value: &Literal) -> Outcome<Datum> {
        Ok(match value {
            Literal::Number(text, _) => Datum::Number(datum::parse_number(text)?),
            Literal::SingleQuotedString(text) | Literal::NationalStringLiteral(text) => {
                Datum::text(text.as_str())
            }
            Literal::QuoteDelimitedStringLiteral(quoted) => Datum::text(quoted.value.as_str()),
            Literal::Null => Datum::Null,
            Literal::Placeholder(name) => match self.vars.get(name) {
                Some(variable) => variable.value.clone(),
                None if self.describing => Datum::Null,
                None => return stop(1008, "not all variables bound"),
            },
            other => return Err(unsupported(format!("the literal {other}")).into()),
        })
    }

    /// Position of a column in the innermost scope that knows it.
    fn find<'s>(
        qualifier: Option<&Ident>,
        name: &Ident,
        scope: &'s Scope<'s>,
    ) -> Outcome<Option<&'s Datum>> {
        let mut current = Some(scope);
        while let Some(scope) = current {
            let mut found = None;
            for (at, col) in scope.cols.iter().enumerate() {
                let right_table = qualifier.is_none_or(|qualifier| {
                    col.qualifier
                        .as_deref()
                        .is_some_and(|own| same(qualifier, own))
                });
                if right_table && same(name, &col.name) {
                    if found.is_some() {
                        return stop(918, "column ambiguously defined");
                    }
                    found = Some(at);
                }
            }
            if let Some(at) = found {
                return Ok(Some(scope.row.get(at).unwrap_or(&Datum::Null)));
            }
            current = scope.outer;
        }
        Ok(None)
    }

    fn identifier(&mut self, name: &Ident, scope: &Scope<'_>) -> Outcome<Datum> {
        if let Some(value) = Self::find(None, name, scope)? {
            return Ok(value.clone());
        }
        let upper = upper(name);
        if let Some(variable) = self.vars.get(&upper) {
            return Ok(variable.value.clone());
        }
        if let Some(value) = self.pseudo_column(&upper, scope)? {
            return Ok(value);
        }
        Err(no_column(&format!("\"{upper}\"")).into())
    }

    /// SYSDATE and its like, also where the parser makes a function of them.
    pub fn pseudo_column(&mut self, name: &str, scope: &Scope<'_>) -> Outcome<Option<Datum>> {
        Ok(Some(match name {
            "SYSDATE" | "CURRENT_DATE" => {
                let now = clock::now();
                Datum::Date(now.with().subsec_nanosecond(0).build().unwrap_or(now))
            }
            "SYSTIMESTAMP" | "CURRENT_TIMESTAMP" | "LOCALTIMESTAMP" => {
                Datum::Timestamp(clock::now())
            }
            "ROWNUM" => Datum::int(scope.rownum),
            "USER" => Datum::text(self.user()),
            "NULL" => Datum::Null,
            _ => return Ok(None),
        }))
    }

    fn compound(&mut self, parts: &[Ident], scope: &Scope<'_>) -> Outcome<Datum> {
        let names: Vec<String> = parts.iter().map(upper).collect();
        if let [.., last] = names.as_slice()
            && matches!(last.as_str(), "NEXTVAL" | "CURRVAL")
        {
            let owner = (names.len() == 3).then(|| names[0].as_str());
            let sequence = &names[names.len() - 2];
            return if self.describing {
                Ok(Datum::Null)
            } else if last == "NEXTVAL" {
                self.next_value(owner, sequence)
            } else {
                self.current_value(owner, sequence)
            };
        }
        let (qualifier, column) = match parts {
            [qualifier, column] | [_, qualifier, column] => (qualifier, column),
            _ => return Err(no_column(&names.join(".")).into()),
        };
        match Self::find(Some(qualifier), column, scope)? {
            Some(value) => Ok(value.clone()),
            None => {
                let quoted: Vec<String> = names.iter().map(|name| format!("\"{name}\"")).collect();
                Err(no_column(&quoted.join(".")).into())
            }
        }
    }

    /// AND or OR of two conditions, in three-valued logic: `decisive` decides
    /// by itself (false for AND, true for OR). The second one is evaluated
    /// only when the first doesn't decide.
    fn combined(
        &mut self,
        [left, right]: [&Expr; 2],
        decisive: bool,
        scope: &Scope<'_>,
    ) -> Outcome<Option<bool>> {
        let left = self.truth(left, scope)?;
        if left == Some(decisive) {
            return Ok(left);
        }
        let right = self.truth(right, scope)?;
        Ok(if right == Some(decisive) {
            right
        } else {
            left.and(right)
        })
    }

    /// The truth of a condition; `None` is unknown.
    pub fn truth(&mut self, expr: &Expr, scope: &Scope<'_>) -> Outcome<Option<bool>> {
        match expr {
            Expr::Nested(inner) => self.truth(inner, scope),
            Expr::UnaryOp {
                op: UnaryOperator::Not,
                expr,
            } => Ok(self.truth(expr, scope)?.map(|truth| !truth)),
            Expr::BinaryOp {
                left,
                op: op @ (BinaryOperator::And | BinaryOperator::Or),
                right,
            } => self.combined([left, right], *op == BinaryOperator::Or, scope),
            Expr::BinaryOp { left, op, right } => self.comparison(left, op, right, scope),
            Expr::IsNull(inner) => Ok(Some(self.eval(inner, scope)?.is_null())),
            Expr::IsNotNull(inner) => Ok(Some(!self.eval(inner, scope)?.is_null())),
            Expr::Between {
                expr,
                negated,
                low,
                high,
            } => {
                let inside = self.between(expr, [low, high], scope)?;
                Ok(inside.map(|inside| inside != *negated))
            }
            Expr::InList {
                expr,
                list,
                negated,
            } => {
                let mut values = Vec::with_capacity(list.len());
                for item in list {
                    values.push(self.row_value(item, scope)?);
                }
                let wanted = self.row_value(expr, scope)?;
                Ok(member(&wanted, values.iter().map(Vec::as_slice))?
                    .map(|found| found != *negated))
            }
            Expr::InSubquery {
                expr,
                subquery,
                negated,
            } => {
                let wanted = self.row_value(expr, scope)?;
                let result = self.subquery(subquery, scope)?;
                let rows = result.rows.iter().map(|row| row.as_slice());
                Ok(member(&wanted, rows)?.map(|found| found != *negated))
            }
            Expr::Exists { subquery, negated } => {
                let result = self.subquery(subquery, scope)?;
                Ok(Some(result.rows.is_empty() == *negated))
            }
            Expr::Like {
                negated,
                expr,
                pattern,
                escape_char,
                ..
            } => {
                let like = self.like([expr, pattern], escape_char.as_deref(), scope)?;
                Ok(like.map(|like| like != *negated))
            }
            _ => stop(920, "invalid relational operator"),
        }
    }

    fn between(
        &mut self,
        expr: &Expr,
        [low, high]: [&Expr; 2],
        scope: &Scope<'_>,
    ) -> Outcome<Option<bool>> {
        let value = self.eval(expr, scope)?;
        let above = value.compare(&self.eval(low, scope)?)?.map(Ordering::is_ge);
        let below = value
            .compare(&self.eval(high, scope)?)?
            .map(Ordering::is_le);
        Ok(match (above, below) {
            (Some(false), _) | (_, Some(false)) => Some(false),
            (Some(true), Some(true)) => Some(true),
            _ => None,
        })
    }

    fn like(
        &mut self,
        [text, pattern]: [&Expr; 2],
        escape: Option<&Expr>,
        scope: &Scope<'_>,
    ) -> Outcome<Option<bool>> {
        let text = self.eval(text, scope)?.string();
        let pattern = self.eval(pattern, scope)?.string();
        let escape = match escape {
            Some(escape) => self
                .eval(escape, scope)?
                .string()
                .and_then(|e| e.chars().next()),
            None => None,
        };
        Ok(text
            .zip(pattern)
            .map(|(text, pattern)| text::like(&text, &pattern, escape)))
    }

    fn row_value(&mut self, expr: &Expr, scope: &Scope<'_>) -> Outcome<Vec<Datum>> {
        match expr {
            Expr::Tuple(parts) => parts.iter().map(|part| self.eval(part, scope)).collect(),
            other => Ok(vec![self.eval(other, scope)?]),
        }
    }

    fn comparison(
        &mut self,
        left: &Expr,
        op: &BinaryOperator,
        right: &Expr,
        scope: &Scope<'_>,
    ) -> Outcome<Option<bool>> {
        let test: fn(Ordering) -> bool = match op {
            BinaryOperator::Eq => Ordering::is_eq,
            BinaryOperator::NotEq => Ordering::is_ne,
            BinaryOperator::Lt => Ordering::is_lt,
            BinaryOperator::LtEq => Ordering::is_le,
            BinaryOperator::Gt => Ordering::is_gt,
            BinaryOperator::GtEq => Ordering::is_ge,
            _ => return stop(920, "invalid relational operator"),
        };
        if let (Expr::Tuple(_), Expr::Tuple(_)) = (left, right) {
            let left = self.row_value(left, scope)?;
            let right = self.row_value(right, scope)?;
            return member(&left, std::iter::once(right.as_slice()));
        }
        let left = self.eval(left, scope)?;
        let right = self.eval(right, scope)?;
        Ok(left.compare(&right)?.map(test))
    }

    /// The rows of a subquery; one that needs no outer row runs once.
    pub fn subquery(&mut self, query: &Query, scope: &Scope<'_>) -> Outcome<Arc<Relation>> {
        if self.describing {
            // What is found without rows is no result to remember.
            return Ok(Arc::new(self.query(query, Some(scope))?));
        }
        let id = std::ptr::from_ref(query);
        match self.constant.get(&id) {
            Some(Some(known)) => return Ok(Arc::clone(known)),
            Some(None) => return Ok(Arc::new(self.query(query, Some(scope))?)),
            None => {}
        }
        match self.query(query, None) {
            Ok(result) => {
                let result = Arc::new(result);
                self.constant.insert(id, Some(Arc::clone(&result)));
                Ok(result)
            }
            Err(Stop::Ora(error)) if error.code == 904 => {
                self.constant.insert(id, None);
                Ok(Arc::new(self.query(query, Some(scope))?))
            }
            Err(other) => Err(other),
        }
    }
}

/// `DATE '…'` and `TIMESTAMP '…'`.
fn typed_literal(literal: &Literal, kind: &DataType) -> Outcome<Datum> {
    let Literal::SingleQuotedString(text) = literal else {
        return Err(unsupported("this literal").into());
    };
    match kind {
        DataType::Date => Ok(Datum::Date(format::parse_date(text, "YYYY-MM-DD")?)),
        DataType::Timestamp(..) => Ok(Datum::Timestamp(format::parse_date(
            text,
            "YYYY-MM-DD HH24:MI:SS.FF",
        )?)),
        _ => Err(unsupported("this literal").into()),
    }
}

/// Whether a value is among others, by Oracle's rule for IN.
fn member<'r>(wanted: &[Datum], rows: impl Iterator<Item = &'r [Datum]>) -> Outcome<Option<bool>> {
    let mut unknown = false;
    for row in rows {
        if row.len() != wanted.len() {
            return stop(947, "not enough values");
        }
        let mut equal = Some(true);
        for (left, right) in wanted.iter().zip(row) {
            match left.compare(right)? {
                Some(Ordering::Equal) => {}
                Some(_) => {
                    equal = Some(false);
                    break;
                }
                None => equal = None,
            }
        }
        match equal {
            Some(true) => return Ok(Some(true)),
            None => unknown = true,
            Some(false) => {}
        }
    }
    Ok(if unknown { None } else { Some(false) })
}

fn is_arithmetic(op: &BinaryOperator) -> bool {
    matches!(
        op,
        BinaryOperator::Plus
            | BinaryOperator::Minus
            | BinaryOperator::Multiply
            | BinaryOperator::Divide
            | BinaryOperator::StringConcat
    )
}

/// `+ - * / ||` with dates: DATE ± days, DATE − DATE, ± INTERVAL.
fn arithmetic(left: Datum, op: &BinaryOperator, right: Datum) -> Outcome<Datum> {
    use Datum::{Date, Interval, Timestamp};
    if matches!(op, BinaryOperator::StringConcat) {
        let left = left.string().unwrap_or_default();
        return Ok(Datum::text(left + &right.string().unwrap_or_default()));
    }
    if left.is_null() || right.is_null() {
        return Ok(Datum::Null);
    }
    let sign = if matches!(op, BinaryOperator::Minus) {
        -1
    } else {
        1
    };
    let additive = matches!(op, BinaryOperator::Plus | BinaryOperator::Minus);
    match (&left, &right) {
        (Date(a), Date(b)) if sign < 0 => return Ok(Datum::Number(datum::days_between(*a, *b))),
        (Date(a) | Timestamp(a), Date(b) | Timestamp(b)) if sign < 0 => {
            let nanos = datum::nanos_of(*a) - datum::nanos_of(*b);
            return i64::try_from(nanos).map(Interval).map_err(|_| {
                ora(1873, "the leading precision of the interval is too small").into()
            });
        }
        (Date(a), Interval(nanos)) if additive => {
            return Ok(Date(datum::from_nanos(
                datum::nanos_of(*a) + i128::from(sign * nanos),
            )?));
        }
        (Timestamp(a), Interval(nanos)) if additive => {
            return Ok(Timestamp(datum::from_nanos(
                datum::nanos_of(*a) + i128::from(sign * nanos),
            )?));
        }
        (Interval(a), Interval(b)) if additive => return Ok(Interval(a + sign * b)),
        (Date(at) | Timestamp(at), _) if additive => {
            let days = right.number()? * BigDecimal::from(sign);
            return Ok(Date(datum::add_days(*at, &days)?));
        }
        (_, Date(at) | Timestamp(at)) if additive && sign > 0 => {
            return Ok(Date(datum::add_days(*at, &left.number()?)?));
        }
        _ => {}
    }
    let (left, right) = (left.number()?, right.number()?);
    let result = match op {
        BinaryOperator::Plus => left + right,
        BinaryOperator::Minus => left - right,
        BinaryOperator::Multiply => left * right,
        BinaryOperator::Divide => {
            if right.is_zero() {
                return stop(1476, "divisor is equal to zero");
            }
            left / right
        }
        _ => return stop(920, "invalid relational operator"),
    };
    Ok(Datum::Number(datum::limit_digits(result)))
}
