//! Types of result columns, known before a row is seen.

use super::errors::{ora, unsupported};
use super::exec::{Exec, Scope, same, upper};
use super::functions::name_of;
use super::prepare::arguments;
use crate::api::{Kind, OraError};
use sqlparser::ast::{
    BinaryOperator, CharacterLength, DataType, ExactNumberInfo, Expr, SetExpr, TimezoneInfo,
    Value as Literal,
};

pub const NUMBER: Kind = Kind::Number(0, -127);
/// The widest VARCHAR2.
pub const WIDE: Kind = Kind::Varchar2(4000);

/// The type of a bare NULL, which goes with every other.
pub const UNTYPED: Kind = Kind::Varchar2(0);

/// The type that a column definition or CAST names.
pub fn of_data_type(data_type: &DataType) -> Result<Kind, OraError> {
    let width = |length: &Option<CharacterLength>, default: u32| match length {
        Some(CharacterLength::IntegerLength { length, .. }) => *length as u32,
        _ => default,
    };
    let number = |info: &ExactNumberInfo| match info {
        ExactNumberInfo::None => NUMBER,
        ExactNumberInfo::Precision(precision) => Kind::Number(*precision as u8, 0),
        ExactNumberInfo::PrecisionAndScale(precision, scale) => {
            Kind::Number(*precision as u8, *scale as i8)
        }
    };
    match data_type {
        DataType::Varchar(length) | DataType::Nvarchar(length) => {
            Ok(Kind::Varchar2(width(length, 4000)))
        }
        DataType::Char(length) | DataType::Character(length) => Ok(Kind::Char(width(length, 1))),
        DataType::Numeric(info) | DataType::Decimal(info) | DataType::Dec(info) => Ok(number(info)),
        DataType::Int(_) | DataType::Integer(_) | DataType::SmallInt(_) => Ok(Kind::Number(38, 0)),
        DataType::Date => Ok(Kind::Date),
        DataType::Timestamp(digits, TimezoneInfo::None) => {
            Ok(Kind::Timestamp(digits.unwrap_or(6) as u8))
        }
        DataType::Custom(name, modifiers) => {
            let name = name.to_string().to_uppercase();
            let argument = |at: usize| -> Option<i64> {
                modifiers.get(at)?.split_whitespace().next()?.parse().ok()
            };
            match name.as_str() {
                "VARCHAR2" | "NVARCHAR2" => argument(0)
                    .map(|width| Kind::Varchar2(width as u32))
                    .ok_or_else(|| ora(906, "missing left parenthesis")),
                "NUMBER" => Ok(match (argument(0), argument(1)) {
                    (None, _) => NUMBER,
                    (Some(precision), scale) => {
                        Kind::Number(precision as u8, scale.unwrap_or(0) as i8)
                    }
                }),
                "RAW" => argument(0)
                    .map(|width| Kind::Raw(width as u32))
                    .ok_or_else(|| ora(906, "missing left parenthesis")),
                other => Err(unsupported(format!("the data type {other}"))),
            }
        }
        other => Err(unsupported(format!("the data type {other}"))),
    }
}

/// The type that holds values of both, where a set operation joins them.
pub fn join(left: Kind, right: Kind) -> Result<Kind, OraError> {
    use Kind::{Char, Date, Number, Raw, Timestamp, Varchar2};
    Ok(match (left, right) {
        (a, b) if a == b || b == UNTYPED => a,
        (UNTYPED, b) => b,
        (Varchar2(a) | Char(a), Varchar2(b) | Char(b)) => Varchar2(a.max(b)),
        (Number(..), Number(..)) => NUMBER,
        (Date | Timestamp(_), Date | Timestamp(_)) => Timestamp(9),
        (Raw(a), Raw(b)) => Raw(a.max(b)),
        _ => {
            return Err(ora(
                1790,
                "expression must have same datatype as corresponding expression",
            ));
        }
    })
}

impl Exec<'_> {
    /// The type of an expression.
    pub fn kind(&self, expr: &Expr, scope: &Scope<'_>) -> Kind {
        match expr {
            Expr::Nested(inner) => self.kind(inner, scope),
            Expr::Value(value) => match &value.value {
                Literal::Number(..) => NUMBER,
                Literal::SingleQuotedString(text) => Kind::Char(text.len().max(1) as u32),
                Literal::Placeholder(name) => self.vars.get(name).map_or(WIDE, |v| v.kind),
                Literal::Null => UNTYPED,
                _ => WIDE,
            },
            Expr::Identifier(name) => self
                .column_kind(None, name, scope)
                .or_else(|| self.vars.get(&upper(name)).map(|variable| variable.kind))
                .unwrap_or_else(|| of_call(&upper(name), &[])),
            Expr::CompoundIdentifier(parts) => match parts.as_slice() {
                [.., last] if same(last, "NEXTVAL") || same(last, "CURRVAL") => NUMBER,
                [.., qualifier, name] => self
                    .column_kind(Some(qualifier), name, scope)
                    .unwrap_or(WIDE),
                _ => WIDE,
            },
            Expr::BinaryOp { left, op, right } => {
                self.arithmetic_kind(self.kind(left, scope), op, self.kind(right, scope))
            }
            Expr::Case {
                conditions,
                else_result,
                ..
            } => {
                let results = conditions.iter().map(|when| &when.result);
                self.common(results.chain(else_result.as_deref()), scope)
            }
            Expr::Function(function) => {
                let list = arguments(function);
                match (name_of(function).as_str(), list.as_slice()) {
                    ("NVL" | "COALESCE" | "GREATEST" | "LEAST" | "NULLIF", list) => {
                        self.common(list.iter().copied(), scope)
                    }
                    ("NVL2", [_, rest @ ..]) => self.common(rest.iter().copied(), scope),
                    ("DECODE", [_, rest @ ..]) => {
                        let last = (rest.len() % 2 == 1).then(|| rest[rest.len() - 1]);
                        let results = rest.chunks_exact(2).map(|pair| pair[1]);
                        self.common(results.chain(last), scope)
                    }
                    (name, list) => {
                        let kinds: Vec<Kind> = list.iter().map(|e| self.kind(e, scope)).collect();
                        of_call(name, &kinds)
                    }
                }
            }
            Expr::Cast { data_type, .. } => of_data_type(data_type).unwrap_or(WIDE),
            Expr::TypedString(typed) => of_data_type(&typed.data_type).unwrap_or(WIDE),
            Expr::UnaryOp { .. }
            | Expr::Ceil { .. }
            | Expr::Floor { .. }
            | Expr::Extract { .. } => NUMBER,
            Expr::Subquery(query) => match &*query.body {
                SetExpr::Select(select) => self.scalar_query_kind(select, scope),
                _ => WIDE,
            },
            _ => WIDE,
        }
    }

    fn scalar_query_kind(&self, select: &sqlparser::ast::Select, scope: &Scope<'_>) -> Kind {
        use sqlparser::ast::SelectItem;
        match select.projection.first() {
            Some(SelectItem::UnnamedExpr(expr) | SelectItem::ExprWithAlias { expr, .. }) => {
                match expr {
                    Expr::Function(function) if function.over.is_none() => {
                        of_call(&name_of(function), &[])
                    }
                    // Column of a table the subquery names, looked up there.
                    Expr::Identifier(name) => self
                        .columns_named_in(select)
                        .into_iter()
                        .find(|(column, _)| same(name, column))
                        .map_or(WIDE, |(_, kind)| kind),
                    other => self.kind(other, scope),
                }
            }
            _ => WIDE,
        }
    }

    fn column_kind(
        &self,
        qualifier: Option<&sqlparser::ast::Ident>,
        name: &sqlparser::ast::Ident,
        scope: &Scope<'_>,
    ) -> Option<Kind> {
        let mut current = Some(scope);
        while let Some(scope) = current {
            let found = scope.cols.iter().find(|col| {
                same(name, &col.name)
                    && qualifier
                        .is_none_or(|q| col.qualifier.as_deref().is_some_and(|o| same(q, o)))
            });
            if let Some(col) = found {
                return Some(col.kind);
            }
            current = scope.outer;
        }
        None
    }

    fn common<'e>(&self, exprs: impl Iterator<Item = &'e Expr>, scope: &Scope<'_>) -> Kind {
        exprs
            .filter(|expr| !matches!(expr, Expr::Value(v) if v.value == Literal::Null))
            .map(|expr| self.kind(expr, scope))
            .reduce(|a, b| join(a, b).unwrap_or(a))
            .unwrap_or(WIDE)
    }

    fn arithmetic_kind(&self, left: Kind, op: &BinaryOperator, right: Kind) -> Kind {
        let is_date = |kind| matches!(kind, Kind::Date | Kind::Timestamp(_));
        match (op, left, right) {
            (BinaryOperator::StringConcat, ..) => WIDE,
            (BinaryOperator::Minus, Kind::Date, Kind::Date) => NUMBER,
            // Between timestamps lies an interval, shown as text.
            (BinaryOperator::Minus, a, b) if is_date(a) && is_date(b) => Kind::Varchar2(30),
            (BinaryOperator::Plus | BinaryOperator::Minus, a, _) if is_date(a) => a,
            (BinaryOperator::Plus, _, b) if is_date(b) => b,
            _ => NUMBER,
        }
    }
}

/// The type of a function's result by its name and its arguments' types.
fn of_call(name: &str, args: &[Kind]) -> Kind {
    match name {
        "COUNT"
        | "SUM"
        | "AVG"
        | "LENGTH"
        | "LENGTHB"
        | "INSTR"
        | "ABS"
        | "SIGN"
        | "CEIL"
        | "FLOOR"
        | "MOD"
        | "POWER"
        | "TO_NUMBER"
        | "ASCII"
        | "ROWNUM"
        | "DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER" => NUMBER,
        "ROUND" | "TRUNC" => match args.first() {
            Some(Kind::Date | Kind::Timestamp(_)) => Kind::Date,
            _ => NUMBER,
        },
        "MIN" | "MAX" => args.first().copied().unwrap_or(WIDE),
        "SYSDATE" | "CURRENT_DATE" | "TO_DATE" | "ADD_MONTHS" | "LAST_DAY" => Kind::Date,
        "SYSTIMESTAMP" | "CURRENT_TIMESTAMP" | "LOCALTIMESTAMP" => Kind::Timestamp(6),
        "TO_TIMESTAMP" => Kind::Timestamp(9),
        "STANDARD_HASH" => Kind::Raw(64),
        "SYS_GUID" => Kind::Raw(16),
        "HEXTORAW" | "UTL_RAW.CAST_TO_RAW" => Kind::Raw(2000),
        "USER" => Kind::Varchar2(128),
        "UPPER" | "LOWER" | "SUBSTR" | "TRIM" | "LTRIM" | "RTRIM" => match args.first() {
            Some(Kind::Varchar2(width) | Kind::Char(width)) => Kind::Varchar2(*width),
            _ => WIDE,
        },
        _ => WIDE,
    }
}
