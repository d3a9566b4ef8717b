//! COUNT, SUM, MIN, MAX, AVG and LISTAGG over a group of rows.

use super::datum::{self, Datum, Row};
use super::errors::{Outcome, stop, unsupported};
use super::exec::{Exec, Scope};
use super::prepare::arguments;
use bigdecimal::{BigDecimal, Zero};
use sqlparser::ast::{self, DuplicateTreatment, Expr, FunctionArg, FunctionArgExpr};
use std::collections::HashSet;

impl Exec<'_> {
    /// The value of an aggregate over a group.
    pub fn aggregate(
        &mut self,
        name: &str,
        function: &ast::Function,
        group: &[Row],
        scope: &Scope<'_>,
    ) -> Outcome<Datum> {
        let ast::FunctionArguments::List(list) = &function.args else {
            return stop(909, "invalid number of arguments");
        };
        if name == "COUNT"
            && matches!(
                list.args.as_slice(),
                [FunctionArg::Unnamed(FunctionArgExpr::Wildcard)]
            )
        {
            return Ok(Datum::int(group.len() as i64));
        }
        let args = arguments(function);
        let Some(argument) = args.first() else {
            return stop(909, "invalid number of arguments");
        };
        let distinct = matches!(list.duplicate_treatment, Some(DuplicateTreatment::Distinct));
        let values = self.values(argument, distinct, group, scope)?;
        match name {
            "COUNT" => Ok(Datum::int(values.len() as i64)),
            "MIN" => Ok(values
                .into_iter()
                .min_by(Datum::sort_order)
                .unwrap_or(Datum::Null)),
            "MAX" => Ok(values
                .into_iter()
                .max_by(Datum::sort_order)
                .unwrap_or(Datum::Null)),
            "LISTAGG" => self.listagg(function, &args, group, scope),
            _ if values.is_empty() => Ok(Datum::Null),
            _ => {
                let count = BigDecimal::from(values.len() as i64);
                let mut sum = BigDecimal::zero();
                for value in values {
                    sum += value.number()?;
                }
                let result = if name == "AVG" { sum / count } else { sum };
                Ok(Datum::Number(datum::limit_digits(result)))
            }
        }
    }

    fn values(
        &mut self,
        argument: &Expr,
        distinct: bool,
        group: &[Row],
        scope: &Scope<'_>,
    ) -> Outcome<Vec<Datum>> {
        let mut seen = HashSet::new();
        let mut values = Vec::with_capacity(group.len());
        for row in group {
            let inner = Scope {
                group: None,
                row,
                ..*scope
            };
            let value = self.eval(argument, &inner)?;
            if !value.is_null() && (!distinct || seen.insert(value.key())) {
                values.push(value);
            }
        }
        Ok(values)
    }

    fn listagg(
        &mut self,
        function: &ast::Function,
        args: &[&Expr],
        group: &[Row],
        scope: &Scope<'_>,
    ) -> Outcome<Datum> {
        let [order] = function.within_group.as_slice() else {
            return Err(
                unsupported("LISTAGG without WITHIN GROUP (ORDER BY one expression)").into(),
            );
        };
        let mut pairs = Vec::new();
        for row in group {
            let inner = Scope {
                group: None,
                row,
                ..*scope
            };
            let key = self.eval(&order.expr, &inner)?;
            if let Some(text) = self.eval(args[0], &inner)?.string() {
                pairs.push((key, text));
            }
        }
        pairs.sort_by(|left, right| left.0.sort_order(&right.0));
        if matches!(order.options.sort, Some(ast::OrderBySort::Desc)) {
            pairs.reverse();
        }
        let between = match args.get(1) {
            Some(expr) => self.eval(expr, scope)?.string().unwrap_or_default(),
            None => String::new(),
        };
        let texts: Vec<String> = pairs.into_iter().map(|(_, text)| text).collect();
        let joined = texts.join(&between);
        if joined.len() > 4000 {
            return stop(1489, "result of string concatenation is too long");
        }
        Ok(Datum::text(joined))
    }
}
