//! The canonical text of a column's value and the digest over a table's rows:
//! what `oracle.rows.digest` and `postgres.rows.verify` both compute, so that
//! two databases with different types can be compared.
//!
//! Oracle's side determines which columns are compared, in which order and of
//! which [`Kind`] ([`Column`]); PostgreSQL's side reads the column of the same
//! lower-case name as the same kind. Each side reads the value as text and
//! passes it to [`Kind::canonical`]; the results are equal exactly if the
//! values are.
//!
//! | kind | input text | canonical |
//! |---|---|---|
//! | number | decimal, exponent allowed | plain decimal, no trailing zeros, no `+`, no `-0` |
//! | float | what the database prints of a binary float | shortest text that reads back to the same 64-bit float |
//! | single | the same | the same of the nearest 32-bit float |
//! | text | as stored | as stored; the empty string is NULL, as in Oracle |
//! | char | as stored | without trailing blanks; nothing left is NULL |
//! | timestamp | `YYYY-MM-DD[ HH:MM:SS[.fraction]]` | `YYYY-MM-DD HH:MM:SS.ffffff`, rounded to microseconds |
//! | instant | the same with an offset (`+00`, `-05:30`, `Z`) | the same in UTC |
//! | bytes | hexadecimal, with or without `\x` | upper-case hexadecimal; none is NULL |
//!
//! The digest doesn't depend on the order of rows and detects duplicates. It
//! gives no protection against deliberate collisions.

use jiff::civil::DateTime;
use jiff::{Timestamp, Unit};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Column {
    pub name: String,
    pub kind: Kind,
}

/// How values of a column are compared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Kind {
    Number,
    Float,
    /// Binary floats of 32 bits. Not [`Kind::Float`]: the 32-bit 0.1 isn't the
    /// 64-bit float that its text parses to.
    Single,
    /// Text of varying length.
    Text,
    /// Text padded with blanks.
    Char,
    /// Date with time, without a zone; dates too.
    Timestamp,
    /// A point in time.
    Instant,
    Bytes,
}

/// A value that is not of its column's kind.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{value:?} can't be compared as {kind:?}")]
pub struct NotCanonical {
    pub kind: Kind,
    pub value: String,
}

/// Characters of a value shown in an error.
const MAX_SHOWN_CHARS: usize = 40;

impl Kind {
    /// The canonical text; `None` is NULL.
    ///
    /// # Errors
    /// Where the text isn't a value of this kind (an infinite date, a year
    /// before 1): such a column can't be compared.
    pub fn canonical(self, text: &str) -> Result<Option<String>, NotCanonical> {
        let canonical = match self {
            Self::Text => Some(text.to_owned()),
            Self::Char => Some(text.trim_end_matches(' ').to_owned()),
            Self::Number => canonical_number(text),
            Self::Float => canonical_float(text),
            Self::Single => canonical_single(text),
            Self::Timestamp => canonical_timestamp(text),
            Self::Instant => canonical_instant(text),
            Self::Bytes => canonical_bytes(text),
        };
        match canonical {
            Some(text) => Ok(Some(text).filter(|text| !text.is_empty())),
            None => Err(NotCanonical {
                kind: self,
                value: text.chars().take(MAX_SHOWN_CHARS).collect(),
            }),
        }
    }
}

/// Plain decimal without trailing zeros: `1`, `-0.5`, `1200`. `None` where it
/// is no decimal number (`NaN`, `~`).
pub fn canonical_number(text: &str) -> Option<String> {
    let text = text.trim();
    let (mantissa, exponent) = match text.find(['e', 'E']) {
        Some(at) => (&text[..at], text[at + 1..].parse::<i32>().ok()?),
        None => (text, 0),
    };
    let negative = mantissa.starts_with('-');
    let unsigned = mantissa.strip_prefix(['-', '+']).unwrap_or(mantissa);
    let (whole, fraction) = unsigned.split_once('.').unwrap_or((unsigned, ""));
    let digits = format!("{whole}{fraction}");
    // Oracle's exponents go up to 125, PostgreSQL's numeric at 131072 digits.
    if digits.is_empty()
        || !digits.bytes().all(|byte| byte.is_ascii_digit())
        || exponent.unsigned_abs() > 200_000
    {
        return None;
    }
    let point = i64::try_from(whole.len()).ok()? + i64::from(exponent);
    let plain = place_point(&digits, point);
    if plain == "0" || !negative {
        Some(plain)
    } else {
        Some(format!("-{plain}"))
    }
}

/// Digits with the decimal point before position `point`.
fn place_point(digits: &str, point: i64) -> String {
    let length = i64::try_from(digits.len()).unwrap_or(i64::MAX);
    let zeros = |count: i64| "0".repeat(usize::try_from(count).unwrap_or(0));
    let at = usize::try_from(point.clamp(0, length)).unwrap_or(0);
    let whole = format!("{}{}", &digits[..at], zeros(point - length));
    let fraction = format!("{}{}", zeros(-point), &digits[at..]);
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    match fraction.trim_end_matches('0') {
        "" => whole.to_owned(),
        fraction => format!("{whole}.{fraction}"),
    }
}

/// The shortest text of the nearest 64-bit float. Oracle prints `Nan` and
/// `Inf`, PostgreSQL `NaN` and `Infinity`; Rust reads them all.
pub fn canonical_float(text: &str) -> Option<String> {
    let value: f64 = text.trim().parse().ok()?;
    // Both databases hold -0 equal to 0.
    Some(if value == 0.0 {
        "0".to_owned()
    } else {
        value.to_string()
    })
}

/// As [`canonical_float`], of the nearest 32-bit float.
pub fn canonical_single(text: &str) -> Option<String> {
    let value: f32 = text.trim().parse().ok()?;
    Some(if value == 0.0 {
        "0".to_owned()
    } else {
        value.to_string()
    })
}

/// `YYYY-MM-DD HH:MM:SS.ffffff`; a missing time is midnight. Digits beyond
/// microseconds are rounded, as PostgreSQL does on input.
pub fn canonical_timestamp(text: &str) -> Option<String> {
    let text = text.trim();
    // jiff would accept an offset and ignore it.
    if !text
        .bytes()
        .all(|b| b.is_ascii_digit() || b"-:. T".contains(&b))
    {
        return None;
    }
    let value: DateTime = text.parse().ok()?;
    written(value)
}

/// As [`canonical_timestamp`], in UTC, from a text with an offset.
pub fn canonical_instant(text: &str) -> Option<String> {
    let text = text.trim();
    // PostgreSQL writes `+00`, Oracle ` +00:00`; jiff accepts it only without a space.
    let joined = match text.rfind([' ', 'T']) {
        Some(at) if text[at + 1..].starts_with(['+', '-']) => {
            format!("{}{}", &text[..at], &text[at + 1..])
        }
        _ => text.to_owned(),
    };
    let value: Timestamp = joined.parse().ok()?;
    written(jiff::tz::Offset::UTC.to_datetime(value))
}

fn written(value: DateTime) -> Option<String> {
    let value = value.round(Unit::Microsecond).ok()?;
    (value.year() >= 1).then(|| {
        format!(
            "{} {:02}:{:02}:{:02}.{:06}",
            value.date(),
            value.hour(),
            value.minute(),
            value.second(),
            value.subsec_nanosecond() / 1000
        )
    })
}

/// Upper-case hexadecimal without a prefix.
pub fn canonical_bytes(text: &str) -> Option<String> {
    let digits = text.strip_prefix("\\x").unwrap_or(text);
    let whole = digits.len().is_multiple_of(2) && digits.bytes().all(|b| b.is_ascii_hexdigit());
    whole.then(|| digits.to_ascii_uppercase())
}

/// The digest over the rows of a table.
///
/// Each row's SHA-256 is taken as two numbers of 128 bits, which are summed
/// modulo 2^128: the order of rows doesn't matter, and a duplicate row counts
/// twice, while an exclusive or would cancel it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct RowDigest {
    rows: u64,
    high: u128,
    low: u128,
}

impl RowDigest {
    /// The digest of no rows.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a row of canonical values, `None` for NULL.
    ///
    /// A value is written as its length in bytes, a colon and its text, NULL
    /// as `-`, so that no two rows have the same text. Returns the row's hash.
    pub fn add(&mut self, row: &[Option<String>]) -> [u8; 32] {
        let mut hash = Sha256::new();
        for value in row {
            match value {
                None => hash.update(b"-"),
                Some(text) => {
                    hash.update(text.len().to_string().as_bytes());
                    hash.update(b":");
                    hash.update(text.as_bytes());
                }
            }
        }
        let hash: [u8; 32] = hash.finalize().into();
        let (mut high, mut low) = ([0; 16], [0; 16]);
        high.copy_from_slice(&hash[..16]);
        low.copy_from_slice(&hash[16..]);
        self.rows += 1;
        self.high = self.high.wrapping_add(u128::from_be_bytes(high));
        self.low = self.low.wrapping_add(u128::from_be_bytes(low));
        hash
    }

    /// Rows added so far.
    pub fn rows(&self) -> u64 {
        self.rows
    }

    /// The digest as text: the number of rows and 64 hexadecimal digits.
    pub fn finish(&self) -> String {
        format!("{}:{:032x}{:032x}", self.rows, self.high, self.low)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check(kind: Kind, same: &[&str], canonical: Option<&str>) {
        for text in same {
            assert_eq!(
                kind.canonical(text),
                Ok(canonical.map(str::to_owned)),
                "{kind:?} {text:?}"
            );
        }
    }

    #[test]
    fn numbers_are_equal_however_they_are_written() {
        check(
            Kind::Number,
            &["1", "1.0", "+1.000", "01", "10E-1", ".1e1"],
            Some("1"),
        );
        check(Kind::Number, &["0", "-0", "0.00", "-0E+10"], Some("0"));
        check(Kind::Number, &["-0.5", "-.5", "-5e-1"], Some("-0.5"));
        check(Kind::Number, &["1200", "1.2E+3", "1200.00"], Some("1200"));
        check(Kind::Number, &["1E-3", "0.001"], Some("0.001"));
        check(
            Kind::Number,
            &["99999999999999999999999999999999999999.5"],
            Some("99999999999999999999999999999999999999.5"),
        );
    }

    #[test]
    fn floats_are_equal_as_floats() {
        check(
            Kind::Float,
            &["1.0E-001", "0.1", "1.0000000000000001E-001"],
            Some("0.1"),
        );
        check(Kind::Float, &["-0", "0.0"], Some("0"));
        check(Kind::Float, &["Inf", "Infinity"], Some("inf"));
        check(Kind::Float, &["Nan", "NaN"], Some("NaN"));
    }

    #[test]
    fn floats_of_32_bits_are_equal_whether_they_were_widened_or_not() {
        let widened = f64::from(0.1_f32).to_string();
        check(Kind::Single, &["0.1", &widened], Some("0.1"));
        check(Kind::Single, &["-0", "0.0"], Some("0"));
        check(Kind::Single, &["Nan", "NaN"], Some("NaN"));
    }

    #[test]
    fn empty_text_is_null_and_padding_does_not_count() {
        check(Kind::Text, &[""], None);
        check(Kind::Text, &[" "], Some(" "));
        check(Kind::Text, &["a "], Some("a "));
        check(Kind::Char, &["", "   "], None);
        check(Kind::Char, &["ab", "ab  "], Some("ab"));
        check(Kind::Char, &[" ab"], Some(" ab"));
    }

    #[test]
    fn dates_and_timestamps_are_one() {
        check(
            Kind::Timestamp,
            &[
                "2026-02-03",
                "2026-02-03 00:00:00",
                "2026-02-03 00:00:00.000000000",
                "2026-02-02 23:59:59.9999996",
            ],
            Some("2026-02-03 00:00:00.000000"),
        );
        check(
            Kind::Timestamp,
            &["2026-02-03 04:05:06.12", "2026-02-03 04:05:06.1200001"],
            Some("2026-02-03 04:05:06.120000"),
        );
        check(
            Kind::Instant,
            &[
                "2026-02-03 04:05:06+00",
                "2026-02-03 04:05:06Z",
                "2026-02-03 09:35:06.000000 +05:30",
                "2026-02-02 23:05:06-05",
            ],
            Some("2026-02-03 04:05:06.000000"),
        );
    }

    #[test]
    fn bytes_are_hexadecimal() {
        check(Kind::Bytes, &["0aFF", "\\x0aff"], Some("0AFF"));
        check(Kind::Bytes, &["", "\\x"], None);
    }

    #[test]
    fn what_can_not_be_compared_is_said() {
        for (kind, text) in [
            (Kind::Number, "NaN"),
            (Kind::Number, "1,5"),
            (Kind::Number, ""),
            (Kind::Number, "1e999999999"),
            (Kind::Timestamp, "infinity"),
            (Kind::Timestamp, "0044-03-15 BC"),
            (Kind::Timestamp, "2026-02-30"),
            (Kind::Timestamp, "2026-02-03 04:05:06+02"),
            (Kind::Instant, "2026-02-03 04:05:06"),
            (Kind::Bytes, "0A F"),
        ] {
            let error = kind.canonical(text).unwrap_err();
            assert_eq!(error.kind, kind);
        }
    }

    fn digest(rows: &[&[Option<&str>]]) -> String {
        let mut digest = RowDigest::new();
        for row in rows {
            let row: Vec<Option<String>> =
                row.iter().map(|value| value.map(str::to_owned)).collect();
            digest.add(&row);
        }
        digest.finish()
    }

    #[test]
    fn the_order_of_rows_does_not_matter_and_duplicates_do() {
        let (a, b): (&[Option<&str>], &[Option<&str>]) = (&[Some("1"), None], &[Some("2"), None]);
        assert_eq!(digest(&[a, b]), digest(&[b, a]));
        assert_ne!(digest(&[a, a, b]), digest(&[a, b, b]));
        assert_ne!(digest(&[a]), digest(&[a, b, b]));
        assert!(digest(&[]).starts_with("0:"));
    }

    #[test]
    fn values_do_not_run_into_each_other() {
        assert_ne!(
            digest(&[&[Some("ab"), Some("c")]]),
            digest(&[&[Some("a"), Some("bc")]])
        );
        assert_ne!(digest(&[&[None, Some("a")]]), digest(&[&[Some("a"), None]]));
        assert_ne!(digest(&[&[Some("-")]]), digest(&[&[None]]));
        assert_ne!(
            digest(&[&[Some("1:1")]]),
            digest(&[&[Some("1"), Some("1")]])
        );
    }
}
