//! Scalar functions.
//!
//! What is not in [`scalar`] or [`Exec::function`] is ORA-00904, as an unknown
//! function is in Oracle.

use super::datum::{self, Datum};
use super::errors::{Outcome, no_column, ora, stop, unsupported};
use super::exec::{Exec, Scope, upper};
use super::format;
use super::prepare::arguments;
use super::text::{initcap, instr, pad, substr, translate};
use bigdecimal::{BigDecimal, RoundingMode, ToPrimitive, Zero};
use jiff::Span;
use sha2::{Digest, Sha256, Sha384, Sha512};
use sqlparser::ast::{self, DateTimeField};

/// Name of a function call, upper case, with its package.
pub fn name_of(function: &ast::Function) -> String {
    let parts: Vec<String> = function
        .name
        .0
        .iter()
        .filter_map(|part| part.as_ident().map(upper))
        .collect();
    parts.join(".")
}

/// Whether a function aggregates.
pub fn is_aggregate(name: &str) -> bool {
    matches!(name, "COUNT" | "SUM" | "MIN" | "MAX" | "AVG" | "LISTAGG")
}

impl Exec<'_> {
    pub fn function(&mut self, function: &ast::Function, scope: &Scope<'_>) -> Outcome<Datum> {
        let name = name_of(function);
        if function.over.is_some() {
            return Err(unsupported("analytic functions (OVER)").into());
        }
        if is_aggregate(&name) {
            let Some(group) = scope.group else {
                return stop(934, "group function is not allowed here");
            };
            return self.aggregate(&name, function, group, scope);
        }
        let list = arguments(function);
        match (name.as_str(), list.as_slice()) {
            // Evaluated only as far as needed.
            ("NVL", [value, other]) => {
                let value = self.eval(value, scope)?;
                if value.is_null() {
                    self.eval(other, scope)
                } else {
                    Ok(value)
                }
            }
            ("COALESCE", values) => {
                for value in values {
                    let value = self.eval(value, scope)?;
                    if !value.is_null() {
                        return Ok(value);
                    }
                }
                Ok(Datum::Null)
            }
            ("DECODE", [value, pairs @ ..]) => {
                let value = self.eval(value, scope)?;
                for pair in pairs.chunks(2) {
                    let [search, result] = pair else {
                        return self.eval(pair[0], scope);
                    };
                    let search = self.eval(search, scope)?;
                    let both_null = value.is_null() && search.is_null();
                    if both_null
                        || value
                            .compare(&search)?
                            .is_some_and(std::cmp::Ordering::is_eq)
                    {
                        return self.eval(result, scope);
                    }
                }
                Ok(Datum::Null)
            }
            ("SYS_CONTEXT", [_, _, ..]) => {
                let namespace = self.eval(list[0], scope)?.string().unwrap_or_default();
                let parameter = self.eval(list[1], scope)?.string().unwrap_or_default();
                self.sys_context(&namespace.to_uppercase(), &parameter.to_uppercase())
            }
            (_, []) => match self.pseudo_column(&name, scope)? {
                Some(value) => Ok(value),
                None => self.call_scalar(&name, &[]),
            },
            (_, list) => {
                let mut values = Vec::with_capacity(list.len());
                for argument in list {
                    values.push(self.eval(argument, scope)?);
                }
                self.call_scalar(&name, &values)
            }
        }
    }

    fn call_scalar(&mut self, name: &str, values: &[Datum]) -> Outcome<Datum> {
        match name {
            "DBMS_FLASHBACK.GET_SYSTEM_CHANGE_NUMBER" => Ok(Datum::int(self.st.read_scn())),
            "SYS_GUID" => Ok(Datum::Raw(rand::random::<[u8; 16]>().to_vec())),
            _ => scalar(name, values),
        }
    }
}

/// A function of values alone.
pub fn scalar(name: &str, args: &[Datum]) -> Outcome<Datum> {
    let first = args.first().cloned().unwrap_or(Datum::Null);
    // Functions that give NULL for a NULL first argument.
    let nullable = !matches!(
        name,
        "NVL2" | "NULLIF" | "CONCAT" | "GREATEST" | "LEAST" | "REPLACE"
    );
    let text = first.string().unwrap_or_default();
    match (name, args.len()) {
        _ if first.is_null() && nullable && is_known(name) => Ok(Datum::Null),
        ("NVL2", 3) => Ok(if first.is_null() {
            args[2].clone()
        } else {
            args[1].clone()
        }),
        ("NULLIF", 2) => Ok(match first.compare(&args[1])? {
            Some(std::cmp::Ordering::Equal) => Datum::Null,
            _ => first,
        }),
        ("CONCAT", 2) => Ok(Datum::text(text + &args[1].string().unwrap_or_default())),
        ("UPPER", 1) => Ok(Datum::text(text.to_uppercase())),
        ("LOWER", 1) => Ok(Datum::text(text.to_lowercase())),
        ("INITCAP", 1) => Ok(Datum::text(initcap(&text))),
        ("LENGTH", 1) => Ok(Datum::int(text.chars().count() as i64)),
        ("LENGTHB", 1) => Ok(Datum::int(text.len() as i64)),
        ("SUBSTR", 2 | 3) => substr(&text, args),
        ("INSTR", 2..=4) => instr(&text, args),
        ("REPLACE", 2 | 3) => {
            let from = args[1].string().unwrap_or_default();
            let to = args.get(2).and_then(Datum::string).unwrap_or_default();
            Ok(Datum::text(if from.is_empty() {
                text
            } else {
                text.replace(&from, &to)
            }))
        }
        ("TRANSLATE", 3) => Ok(Datum::text(translate(
            &text,
            &args[1].string().unwrap_or_default(),
            &args[2].string().unwrap_or_default(),
        ))),
        ("TRIM" | "LTRIM" | "RTRIM", 1 | 2) => Ok(Datum::text(trim(name, &text, args.get(1)))),
        ("LPAD" | "RPAD", 2 | 3) => pad(name, &text, args),
        ("CHR", 1) => {
            let code = u32::try_from(first.integer()?)
                .ok()
                .and_then(char::from_u32);
            Ok(Datum::opt(code.map(String::from)))
        }
        ("ASCII", 1) => Ok(Datum::int(text.chars().next().map_or(0, |c| c as u32))),
        ("RAWTOHEX", 1) => Ok(Datum::text(hex::encode_upper(first.raw()?))),
        ("HEXTORAW", 1) => Ok(Datum::Raw(first.raw()?)),
        ("UTL_RAW.CAST_TO_RAW", 1) => Ok(Datum::Raw(text.into_bytes())),
        ("UTL_RAW.CAST_TO_VARCHAR2", 1) => Ok(Datum::text(
            String::from_utf8_lossy(&first.raw()?).into_owned(),
        )),
        ("STANDARD_HASH", 1 | 2) => standard_hash(&first, args.get(1)),
        _ => numeric(name, first, args),
    }
}

/// Functions of numbers, and conversions to them.
fn numeric(name: &str, first: Datum, args: &[Datum]) -> Outcome<Datum> {
    match (name, args.len()) {
        ("GREATEST" | "LEAST", 1..) => extreme(name, args),
        ("ABS", 1) => Ok(Datum::Number(first.number()?.abs())),
        ("SIGN", 1) => Ok(Datum::int(first.number()?.cmp(&BigDecimal::zero()) as i8)),
        ("CEIL", 1) => Ok(Datum::Number(
            first.number()?.with_scale_round(0, RoundingMode::Ceiling),
        )),
        ("FLOOR", 1) => Ok(Datum::Number(
            first.number()?.with_scale_round(0, RoundingMode::Floor),
        )),
        ("MOD", 2) => modulo(&first, &args[1]),
        ("POWER", 2) => power(&first, &args[1]),
        ("ROUND" | "TRUNC", 1 | 2) => round_or_trunc(name, &first, args.get(1)),
        ("TO_NUMBER", 1..) => to_number(&first, args.get(1)),
        _ => temporal(name, first, args),
    }
}

/// Functions of dates and intervals, and conversions to and from them.
fn temporal(name: &str, first: Datum, args: &[Datum]) -> Outcome<Datum> {
    let text = || first.string().unwrap_or_default();
    match (name, args.len()) {
        ("TO_CHAR", 1..) => to_char(&first, args.get(1)),
        ("TO_DATE", 1..) => {
            let model = args
                .get(1)
                .and_then(Datum::string)
                .unwrap_or_else(|| format::nls().date);
            Ok(match &first {
                Datum::Date(_) => first.clone(),
                Datum::Timestamp(at) => Datum::Date(*at),
                _ => Datum::Date(format::parse_date(&text(), &model)?),
            })
        }
        ("TO_TIMESTAMP", 1..) => {
            let model = args
                .get(1)
                .and_then(Datum::string)
                .unwrap_or_else(|| format::nls().timestamp);
            Ok(match &first {
                Datum::Date(at) | Datum::Timestamp(at) => Datum::Timestamp(*at),
                _ => Datum::Timestamp(format::parse_date(&text(), &model)?),
            })
        }
        ("ADD_MONTHS", 2) => add_months(&first, &args[1]),
        ("LAST_DAY", 1) => {
            let at = first.datetime()?;
            Ok(Datum::Date(
                at.with()
                    .day(at.date().days_in_month())
                    .build()
                    .unwrap_or(at),
            ))
        }
        ("MONTHS_BETWEEN" | "ORA_HASH" | "DUMP", _) => Err(unsupported(name).into()),
        ("NUMTODSINTERVAL", 2) => {
            let unit = args[1].string().unwrap_or_default().to_uppercase();
            interval_of(&first.number()?, &unit)
        }
        _ if is_known(name) => stop(909, "invalid number of arguments"),
        _ => Err(no_column(&format!("\"{name}\"")).into()),
    }
}

/// TRIM, LTRIM or RTRIM of the characters in a set; of blanks without one.
fn trim(name: &str, text: &str, set: Option<&Datum>) -> String {
    let set = set
        .and_then(Datum::string)
        .unwrap_or_else(|| " ".to_owned());
    let left = if name == "RTRIM" {
        text
    } else {
        text.trim_start_matches(|c| set.contains(c))
    };
    let both = if name == "LTRIM" {
        left
    } else {
        left.trim_end_matches(|c| set.contains(c))
    };
    both.to_owned()
}

fn is_known(name: &str) -> bool {
    matches!(
        name,
        "NVL2"
            | "NULLIF"
            | "CONCAT"
            | "UPPER"
            | "LOWER"
            | "INITCAP"
            | "LENGTH"
            | "LENGTHB"
            | "SUBSTR"
            | "INSTR"
            | "REPLACE"
            | "TRANSLATE"
            | "TRIM"
            | "LTRIM"
            | "RTRIM"
            | "LPAD"
            | "RPAD"
            | "CHR"
            | "ASCII"
            | "GREATEST"
            | "LEAST"
            | "ABS"
            | "SIGN"
            | "CEIL"
            | "FLOOR"
            | "MOD"
            | "POWER"
            | "ROUND"
            | "TRUNC"
            | "TO_CHAR"
            | "TO_NUMBER"
            | "TO_DATE"
            | "TO_TIMESTAMP"
            | "ADD_MONTHS"
            | "LAST_DAY"
            | "NUMTODSINTERVAL"
            | "RAWTOHEX"
            | "HEXTORAW"
            | "UTL_RAW.CAST_TO_RAW"
            | "UTL_RAW.CAST_TO_VARCHAR2"
            | "STANDARD_HASH"
    )
}

fn extreme(name: &str, args: &[Datum]) -> Outcome<Datum> {
    let mut best = args[0].clone();
    for value in &args[1..] {
        let Some(order) = value.compare(&best)? else {
            return Ok(Datum::Null);
        };
        if (name == "GREATEST" && order.is_gt()) || (name == "LEAST" && order.is_lt()) {
            best = value.clone();
        }
    }
    Ok(best)
}

fn modulo(value: &Datum, by: &Datum) -> Outcome<Datum> {
    if by.is_null() {
        return Ok(Datum::Null);
    }
    let (value, by) = (value.number()?, by.number()?);
    Ok(Datum::Number(if by.is_zero() { value } else { value % by }))
}

fn power(value: &Datum, exponent: &Datum) -> Outcome<Datum> {
    let exponent = exponent.integer()?;
    let base = value.number()?;
    if !(0..=1000).contains(&exponent) {
        return Err(unsupported("POWER with a negative or very large exponent").into());
    }
    let mut result = BigDecimal::from(1);
    for _ in 0..exponent {
        result = datum::limit_digits(result * &base);
    }
    Ok(Datum::Number(result))
}

fn round_or_trunc(name: &str, value: &Datum, by: Option<&Datum>) -> Outcome<Datum> {
    if let Datum::Date(at) | Datum::Timestamp(at) = value {
        let unit = by
            .and_then(Datum::string)
            .unwrap_or_else(|| "DD".to_owned())
            .to_uppercase();
        let day = match unit.as_str() {
            "DD" | "DDD" | "J" => at.date(),
            "MM" | "MON" | "MONTH" => at.date().first_of_month(),
            "YYYY" | "YY" | "YEAR" => at.date().first_of_year(),
            "HH" | "HH24" | "MI" => {
                let minute = if unit == "MI" { at.minute() } else { 0 };
                return Ok(Datum::Date(at.date().at(at.hour(), minute, 0, 0)));
            }
            "IW" => {
                let back = i64::from(at.weekday().to_monday_zero_offset());
                at.date()
                    .checked_sub(Span::new().days(back))
                    .unwrap_or(at.date())
            }
            _ => return stop(1898, "too many precision specifiers"),
        };
        if name == "ROUND" {
            return Err(unsupported("ROUND of a date").into());
        }
        return Ok(Datum::Date(day.at(0, 0, 0, 0)));
    }
    let scale = by.map_or(Ok(0), Datum::integer)?;
    let number = value.number()?;
    Ok(Datum::Number(if name == "ROUND" {
        datum::round(&number, scale)
    } else {
        datum::truncate(&number, scale)
    }))
}

fn to_char(value: &Datum, model: Option<&Datum>) -> Outcome<Datum> {
    let Some(model) = model.and_then(Datum::string) else {
        return Ok(Datum::opt(value.string()));
    };
    Ok(Datum::text(match value {
        Datum::Date(at) | Datum::Timestamp(at) => format::date(at, &model)?,
        other => {
            let upper = model.to_uppercase();
            if upper.trim_start_matches("FM").chars().all(|c| c == 'X') {
                let hex = format!("{:X}", other.integer()?);
                if upper.starts_with("FM") {
                    hex
                } else {
                    format!("{hex:>width$}", width = model.len() + 1)
                }
            } else if matches!(upper.as_str(), "TM" | "TM9") {
                other.string().unwrap_or_default()
            } else {
                format::number(&other.number()?, &model)?
            }
        }
    }))
}

fn to_number(value: &Datum, model: Option<&Datum>) -> Outcome<Datum> {
    let model = model
        .and_then(Datum::string)
        .unwrap_or_default()
        .to_uppercase();
    let text = value.string().unwrap_or_default();
    if !model.is_empty() && model.trim_start_matches("FM").chars().all(|c| c == 'X') {
        let number =
            i128::from_str_radix(text.trim(), 16).map_err(|_| ora(1722, "invalid number"))?;
        return Ok(Datum::int(number));
    }
    let text = if model.contains([',', 'G']) {
        text.replace(',', "")
    } else {
        text
    };
    Ok(Datum::Number(datum::parse_number(
        text.trim_start_matches('$'),
    )?))
}

fn add_months(value: &Datum, months: &Datum) -> Outcome<Datum> {
    let at = value.datetime()?;
    let months = months.integer()?;
    let last_day = at.day() == at.date().days_in_month();
    let moved = at
        .checked_add(
            Span::new()
                .try_months(months)
                .map_err(|_| ora(1841, "year out of range"))?,
        )
        .map_err(|_| {
            ora(
                1841,
                "(full) year must be between -4713 and +9999, and not be 0",
            )
        })?;
    // The last day of a month stays the last day of a month.
    let day = if last_day {
        moved.date().days_in_month()
    } else {
        moved.day()
    };
    Ok(Datum::Date(moved.with().day(day).build().unwrap_or(moved)))
}

fn standard_hash(value: &Datum, method: Option<&Datum>) -> Outcome<Datum> {
    let bytes = match value {
        Datum::Raw(bytes) => bytes.clone(),
        Datum::Text(text) | Datum::Char(text) => text.clone().into_bytes(),
        _ => return Err(unsupported("STANDARD_HASH of this type; use TO_CHAR").into()),
    };
    let method = method
        .and_then(Datum::string)
        .unwrap_or_else(|| "SHA1".to_owned());
    Ok(Datum::Raw(match method.to_uppercase().as_str() {
        "SHA256" => Sha256::digest(&bytes).to_vec(),
        "SHA384" => Sha384::digest(&bytes).to_vec(),
        "SHA512" => Sha512::digest(&bytes).to_vec(),
        other => return Err(unsupported(format!("STANDARD_HASH with {other}")).into()),
    }))
}

/// `INTERVAL 'n' unit`.
pub fn interval(amount: &Datum, unit: Option<&DateTimeField>) -> Outcome<Datum> {
    let unit = unit.map(ToString::to_string).unwrap_or_default();
    interval_of(&amount.number()?, &unit.to_uppercase())
}

fn interval_of(amount: &BigDecimal, unit: &str) -> Outcome<Datum> {
    let seconds: i64 = match unit {
        "DAY" => 86_400,
        "HOUR" => 3_600,
        "MINUTE" => 60,
        "SECOND" => 1,
        other => return Err(unsupported(format!("INTERVAL of {other}")).into()),
    };
    let nanos = amount * BigDecimal::from(seconds * 1_000_000_000);
    nanos
        .with_scale_round(0, RoundingMode::HalfUp)
        .to_i64()
        .map(Datum::Interval)
        .ok_or_else(|| ora(1873, "the leading precision of the interval is too small").into())
}

/// EXTRACT from a date, a timestamp or an interval.
pub fn extract(field: &DateTimeField, value: &Datum) -> Outcome<Datum> {
    if value.is_null() {
        return Ok(Datum::Null);
    }
    let unit = field.to_string().to_uppercase();
    if let Datum::Interval(nanos) = value {
        let seconds = nanos / 1_000_000_000;
        return Ok(match unit.as_str() {
            "DAY" => Datum::int(seconds / 86_400),
            "HOUR" => Datum::int(seconds / 3600 % 24),
            "MINUTE" => Datum::int(seconds / 60 % 60),
            "SECOND" => {
                let nanos = BigDecimal::from(nanos % 60_000_000_000);
                Datum::Number(nanos / BigDecimal::from(1_000_000_000))
            }
            _ => return stop(30076, "invalid extract field for extract source"),
        });
    }
    let at = value.datetime()?;
    Ok(match unit.as_str() {
        "YEAR" => Datum::int(at.year()),
        "MONTH" => Datum::int(at.month()),
        "DAY" => Datum::int(at.day()),
        "HOUR" => Datum::int(at.hour()),
        "MINUTE" => Datum::int(at.minute()),
        "SECOND" => Datum::int(at.second()),
        _ => return stop(30076, "invalid extract field for extract source"),
    })
}
