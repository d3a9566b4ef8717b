//! Values inside the engine: conversion, comparison, arithmetic.
//!
//! Comparison follows Oracle's rules of implicit conversion: text meets a
//! number as a number and a date as a date. A CHAR value compares
//! blank-padded with everything, which is broader than Oracle (there a
//! VARCHAR2 bind makes the comparison non-padded).

use super::errors::{Outcome, ora, stop};
use super::format;
use crate::api::{self, Kind, Value};
use bigdecimal::{BigDecimal, RoundingMode, ToPrimitive, Zero};
use jiff::civil;
use std::cmp::Ordering;
use std::str::FromStr;
use std::sync::Arc;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Datum {
    Null,
    /// VARCHAR2; never empty.
    Text(String),
    /// CHAR, padded to its column's width.
    Char(String),
    Number(BigDecimal),
    Date(civil::DateTime),
    Timestamp(civil::DateTime),
    Raw(Vec<u8>),
    /// INTERVAL DAY TO SECOND, in nanoseconds; for arithmetic only.
    Interval(i64),
}

/// A row: shared, because history and snapshots hold the same ones.
pub type Row = Arc<Vec<Datum>>;

/// Digits a NUMBER holds.
const PRECISION: u64 = 40;

impl Datum {
    /// Text, where empty is NULL.
    pub fn text(text: impl Into<String>) -> Self {
        let text = text.into();
        if text.is_empty() {
            Self::Null
        } else {
            Self::Text(text)
        }
    }

    pub fn int(number: impl Into<i128>) -> Self {
        Self::Number(BigDecimal::from(number.into()))
    }

    pub fn opt(text: Option<impl Into<String>>) -> Self {
        text.map_or(Self::Null, Self::text)
    }

    /// `YES` or `NO`.
    pub fn yes(flag: bool) -> Self {
        Self::text(if flag { "YES" } else { "NO" })
    }

    /// Whether this is NULL.
    pub fn is_null(&self) -> bool {
        matches!(self, Self::Null)
    }

    /// From the frontend's value.
    pub fn from_value(value: &Value, kind: Kind) -> Outcome<Self> {
        Ok(match value {
            Value::Null => Self::Null,
            Value::Text(text) => Self::text(text.as_str()),
            Value::Number(text) => Self::Number(parse_number(text)?),
            Value::Raw(bytes) if bytes.is_empty() => Self::Null,
            Value::Raw(bytes) => Self::Raw(bytes.clone()),
            Value::DateTime(at) => {
                let civil = from_api(*at)?;
                if matches!(kind, Kind::Date) {
                    Self::Date(civil)
                } else {
                    Self::Timestamp(civil)
                }
            }
        })
    }

    /// To the frontend's value, converted to the kind that was described.
    pub fn to_value(&self, kind: Kind) -> Outcome<Value> {
        Ok(match (self, kind) {
            (Self::Null, _) => Value::Null,
            (_, Kind::Number(..)) => Value::Number(plain(&self.number()?)),
            (Self::Raw(bytes), Kind::Raw(_)) => Value::Raw(bytes.clone()),
            (_, Kind::Date) => {
                let at = self.datetime()?;
                Value::DateTime(to_api(at.with().subsec_nanosecond(0).build().unwrap_or(at)))
            }
            (_, Kind::Timestamp(_)) => Value::DateTime(to_api(self.datetime()?)),
            (_, Kind::Raw(_)) => Value::Raw(self.raw()?),
            (_, Kind::Varchar2(_) | Kind::Char(_)) => {
                self.string().map_or(Value::Null, Value::Text)
            }
        })
    }

    /// As a number; ORA-01722 where it is none.
    pub fn number(&self) -> Outcome<BigDecimal> {
        match self {
            Self::Number(number) => Ok(number.clone()),
            Self::Text(text) | Self::Char(text) => parse_number(text),
            Self::Null => Ok(BigDecimal::zero()),
            _ => stop(932, "inconsistent datatypes: expected NUMBER"),
        }
    }

    /// As a whole number of 64 bits, truncated.
    pub fn integer(&self) -> Outcome<i64> {
        self.number()?
            .to_i64()
            .ok_or_else(|| ora(1426, "numeric overflow").into())
    }

    /// As text, by the default formats; `None` for NULL.
    pub fn string(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Text(text) | Self::Char(text) => text.clone(),
            Self::Number(number) => {
                let text = plain(number);
                // Oracle writes .5, not 0.5.
                if let Some(rest) = text.strip_prefix("0.") {
                    format!(".{rest}")
                } else if let Some(rest) = text.strip_prefix("-0.") {
                    format!("-.{rest}")
                } else {
                    text
                }
            }
            Self::Date(at) => format::date(at, &format::nls().date).unwrap_or_default(),
            Self::Timestamp(at) => format::date(at, &format::nls().timestamp).unwrap_or_default(),
            Self::Raw(bytes) => hex::encode_upper(bytes),
            Self::Interval(nanos) => interval_text(*nanos),
        })
    }

    /// As a point in time; text goes by the default format.
    pub fn datetime(&self) -> Outcome<civil::DateTime> {
        match self {
            Self::Date(at) | Self::Timestamp(at) => Ok(*at),
            Self::Text(text) | Self::Char(text) => format::parse_date(text, &format::nls().date),
            _ => stop(932, "inconsistent datatypes: expected DATE"),
        }
    }

    /// As bytes; text is read as hexadecimal (HEXTORAW), as Oracle does.
    pub fn raw(&self) -> Outcome<Vec<u8>> {
        match self {
            Self::Raw(bytes) => Ok(bytes.clone()),
            Self::Text(text) | Self::Char(text) => {
                hex::decode(text).map_err(|_| ora(1465, "invalid hex number").into())
            }
            _ => stop(932, "inconsistent datatypes: expected BINARY"),
        }
    }

    /// The text that redo carries: one form per type, independent of settings.
    pub fn canonical(&self) -> Option<String> {
        Some(match self {
            Self::Null => return None,
            Self::Number(number) => plain(number),
            Self::Date(at) => format::date(at, "YYYY-MM-DD HH24:MI:SS").unwrap_or_default(),
            Self::Timestamp(at) => {
                format::date(at, "YYYY-MM-DD HH24:MI:SS.FF9").unwrap_or_default()
            }
            Self::Raw(bytes) => hex::encode_upper(bytes),
            other => return other.string(),
        })
    }

    /// The form in which values are equal exactly when Oracle calls them so,
    /// for hash keys of indexes, joins and groups.
    pub fn key(&self) -> Self {
        match self {
            Self::Char(text) => Self::Text(text.trim_end_matches(' ').to_owned()),
            Self::Number(number) => Self::Number(number.normalized()),
            Self::Timestamp(at) => Self::Date(*at),
            other => other.clone(),
        }
    }

    /// Oracle's comparison; `None` where either is NULL.
    pub fn compare(&self, other: &Self) -> Outcome<Option<Ordering>> {
        use Datum::{Char, Date, Interval, Null, Number, Raw, Text, Timestamp};
        Ok(Some(match (self, other) {
            (Null, _) | (_, Null) => return Ok(None),
            (Text(a), Text(b)) => a.cmp(b),
            (Text(a) | Char(a), Text(b) | Char(b)) => {
                a.trim_end_matches(' ').cmp(b.trim_end_matches(' '))
            }
            (Number(_), _) | (_, Number(_)) => self.number()?.cmp(&other.number()?),
            (Date(_) | Timestamp(_), _) | (_, Date(_) | Timestamp(_)) => {
                self.datetime()?.cmp(&other.datetime()?)
            }
            (Raw(_), _) | (_, Raw(_)) => self.raw()?.cmp(&other.raw()?),
            (Interval(a), Interval(b)) => a.cmp(b),
            _ => return stop(932, "inconsistent datatypes"),
        }))
    }

    /// Ordering for ORDER BY: NULLs last, otherwise as `compare`.
    pub fn sort_order(&self, other: &Self) -> Ordering {
        match (self.is_null(), other.is_null()) {
            (true, true) => Ordering::Equal,
            (true, false) => Ordering::Greater,
            (false, true) => Ordering::Less,
            _ => self
                .compare(other)
                .ok()
                .flatten()
                .unwrap_or(Ordering::Equal),
        }
    }
}

fn interval_text(nanos: i64) -> String {
    let (sign, nanos) = if nanos < 0 {
        ('-', -nanos)
    } else {
        ('+', nanos)
    };
    let seconds = nanos / 1_000_000_000;
    format!(
        "{sign}{:02} {:02}:{:02}:{:02}.{:06}",
        seconds / 86_400,
        seconds / 3600 % 24,
        seconds / 60 % 60,
        seconds % 60,
        nanos % 1_000_000_000 / 1000
    )
}

/// Reads a number as Oracle converts text: blanks around it are allowed.
pub fn parse_number(text: &str) -> Outcome<BigDecimal> {
    let trimmed = text.trim();
    let digits = trimmed.strip_prefix('+').unwrap_or(trimmed);
    if digits.is_empty() || digits.contains('_') {
        return stop(1722, "invalid number");
    }
    BigDecimal::from_str(digits).map_err(|_| ora(1722, "invalid number").into())
}

/// A number as plain decimal text without an exponent.
pub fn plain(number: &BigDecimal) -> String {
    if number.is_zero() {
        return "0".to_owned();
    }
    number.normalized().to_plain_string()
}

/// Rounds half away from zero, as Oracle's ROUND does.
pub fn round(number: &BigDecimal, scale: i64) -> BigDecimal {
    number.with_scale_round(scale, RoundingMode::HalfUp)
}

/// Cuts towards zero, as Oracle's TRUNC does.
pub fn truncate(number: &BigDecimal, scale: i64) -> BigDecimal {
    number.with_scale_round(scale, RoundingMode::Down)
}

/// Keeps a computed number within NUMBER's digits.
pub fn limit_digits(number: BigDecimal) -> BigDecimal {
    if number.digits() > PRECISION {
        number.with_prec(PRECISION)
    } else {
        number
    }
}

/// Days between two points in time, as DATE subtraction gives them.
pub fn days_between(later: civil::DateTime, earlier: civil::DateTime) -> BigDecimal {
    let nanos = nanos_of(later) - nanos_of(earlier);
    limit_digits(BigDecimal::from(nanos) / BigDecimal::from(DAY_NANOS))
}

/// Nanoseconds of a day.
pub const DAY_NANOS: i128 = 86_400_000_000_000;

/// A civil time as nanoseconds since 1970.
pub fn nanos_of(at: civil::DateTime) -> i128 {
    at.to_zoned(jiff::tz::TimeZone::UTC)
        .map_or(0, |zoned| zoned.timestamp().as_nanosecond())
}

/// A civil time from nanoseconds since 1970; ORA-01841 beyond year 9999.
pub fn from_nanos(nanos: i128) -> Outcome<civil::DateTime> {
    jiff::Timestamp::from_nanosecond(nanos)
        .map(|at| at.to_zoned(jiff::tz::TimeZone::UTC).datetime())
        .map_err(|_| {
            ora(
                1841,
                "(full) year must be between -4713 and +9999, and not be 0",
            )
            .into()
        })
}

/// A point in time moved by a number of days.
pub fn add_days(at: civil::DateTime, days: &BigDecimal) -> Outcome<civil::DateTime> {
    let nanos = (days * BigDecimal::from(DAY_NANOS)).with_scale_round(0, RoundingMode::HalfUp);
    let nanos = nanos
        .to_i128()
        .ok_or_else(|| ora(1426, "numeric overflow"))?;
    from_nanos(nanos_of(at) + nanos)
}

fn from_api(at: api::DateTime) -> Outcome<civil::DateTime> {
    civil::DateTime::new(
        at.year,
        at.month as i8,
        at.day as i8,
        at.hour as i8,
        at.minute as i8,
        at.second as i8,
        at.nanos as i32,
    )
    .map_err(|_| ora(1847, "day of month must be between 1 and last day of month").into())
}

fn to_api(at: civil::DateTime) -> api::DateTime {
    api::DateTime {
        year: at.year(),
        month: at.month().unsigned_abs(),
        day: at.day().unsigned_abs(),
        hour: at.hour().unsigned_abs(),
        minute: at.minute().unsigned_abs(),
        second: at.second().unsigned_abs(),
        nanos: at.subsec_nanosecond().unsigned_abs(),
    }
}

/// Converts a value to a column's type and checks that it fits.
///
/// `column` is the name for the error, as `"OWNER"."TABLE"."COLUMN"`.
pub fn fit(datum: Datum, kind: Kind, column: &dyn Fn() -> String) -> Outcome<Datum> {
    if datum.is_null() {
        return Ok(Datum::Null);
    }
    let too_large = |actual: usize, maximum: u32| {
        stop(
            12899,
            format!(
                "value too large for column {} (actual: {actual}, maximum: {maximum})",
                column()
            ),
        )
    };
    Ok(match kind {
        Kind::Varchar2(width) => {
            let text = datum.string().unwrap_or_default();
            if text.len() > width as usize {
                return too_large(text.len(), width);
            }
            Datum::text(text)
        }
        Kind::Char(width) => {
            let text = datum.string().unwrap_or_default();
            if text.len() > width as usize {
                return too_large(text.len(), width);
            }
            Datum::Char(format!("{text:<width$}", width = width as usize))
        }
        Kind::Number(precision, scale) => Datum::Number(fit_number(&datum, precision, scale)?),
        Kind::Date => {
            let at = datum.datetime()?;
            Datum::Date(at.with().subsec_nanosecond(0).build().unwrap_or(at))
        }
        Kind::Timestamp(digits) => Datum::Timestamp(fit_timestamp(&datum, digits)?),
        Kind::Raw(width) => {
            let bytes = datum.raw()?;
            if bytes.len() > width as usize {
                return too_large(bytes.len(), width);
            }
            Datum::Raw(bytes)
        }
    })
}

fn fit_number(datum: &Datum, precision: u8, scale: i8) -> Outcome<BigDecimal> {
    let number = datum.number()?;
    if precision == 0 && scale == -127 {
        return Ok(number.normalized());
    }
    let precision = if precision == 0 {
        38
    } else {
        i64::from(precision)
    };
    let rounded = round(&number, i64::from(scale)).normalized();
    let whole_digits = rounded.digits() as i64 - rounded.fractional_digit_count();
    if !rounded.is_zero() && whole_digits > precision - i64::from(scale) {
        return stop(
            1438,
            "value larger than specified precision allowed for this column",
        );
    }
    Ok(rounded)
}

fn fit_timestamp(datum: &Datum, digits: u8) -> Outcome<civil::DateTime> {
    let at = match datum {
        Datum::Text(text) | Datum::Char(text) => {
            format::parse_date(text, &format::nls().timestamp)?
        }
        other => other.datetime()?,
    };
    let unit = 10_i32.pow(9 - u32::from(digits.min(9)));
    let nanos = at.subsec_nanosecond() / unit * unit;
    Ok(at.with().subsec_nanosecond(nanos).build().unwrap_or(at))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name() -> String {
        "\"S\".\"T\".\"C\"".to_owned()
    }

    #[test]
    fn numbers_are_fitted_to_precision_and_scale() {
        let cases = [
            ("12.345", Kind::Number(12, 2), Ok("12.35")),
            ("-0.005", Kind::Number(12, 2), Ok("-0.01")),
            ("123", Kind::Number(2, 0), Err(1438)),
            ("99.5", Kind::Number(2, 0), Err(1438)),
            ("1e3", Kind::Number(0, -127), Ok("1000")),
            ("abc", Kind::Number(5, 0), Err(1722)),
        ];
        for (text, kind, want) in cases {
            let got = fit(Datum::text(text), kind, &name);
            match (got, want) {
                (Ok(Datum::Number(number)), Ok(want)) => assert_eq!(plain(&number), want, "{text}"),
                (Err(Stop::Ora(error)), Err(code)) => assert_eq!(error.code, code, "{text}"),
                (got, want) => panic!("{text}: {got:?} instead of {want:?}"),
            }
        }
    }

    use super::super::errors::Stop;

    #[test]
    fn text_too_long_names_the_column() {
        let Err(Stop::Ora(error)) = fit(Datum::text("abcd"), Kind::Varchar2(3), &name) else {
            panic!("fitted");
        };
        assert_eq!(
            error.message,
            "value too large for column \"S\".\"T\".\"C\" (actual: 4, maximum: 3)"
        );
    }

    #[test]
    fn char_compares_blank_padded() {
        let padded = Datum::Char("ab  ".into());
        assert_eq!(
            padded.compare(&Datum::text("ab")).unwrap(),
            Some(Ordering::Equal)
        );
    }
}
