//! Format models of TO_CHAR, TO_DATE and TO_TIMESTAMP.
//!
//! Dates: YYYY YY RR MM MON MONTH DD DDD DY DAY HH24 HH12 HH MI SS SSSSS FF[1-9]
//! AM PM D Q IYYY IW J and quoted text. Numbers: 9 0 . , D G S MI FM $. Anything else is
//! ORA-01821 or ORA-01481, as in Oracle. NLS: English, territory America.

use super::errors::{Outcome, ora, stop};
use jiff::civil;
use std::cell::RefCell;

/// The formats in which a session's dates become text without a model.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nls {
    /// `NLS_DATE_FORMAT`.
    pub date: String,
    /// `NLS_TIMESTAMP_FORMAT`.
    pub timestamp: String,
}

impl Default for Nls {
    fn default() -> Self {
        Self {
            date: "DD-MON-RR".to_owned(),
            timestamp: "DD-MON-RR HH.MI.SS.FF AM".to_owned(),
        }
    }
}

thread_local! {
    // A call runs on one thread from its start to its end, so the session's
    // settings need not be handed through every conversion.
    static NLS: RefCell<Nls> = RefCell::new(Nls::default());
}

/// Makes the settings those of the session whose call runs on this thread.
pub fn use_nls(nls: &Nls) {
    NLS.with(|current| {
        if *current.borrow() != *nls {
            current.replace(nls.clone());
        }
    });
}

/// The settings of the running call.
pub fn nls() -> Nls {
    NLS.with(|current| current.borrow().clone())
}

const MONTHS: [&str; 12] = [
    "JANUARY",
    "FEBRUARY",
    "MARCH",
    "APRIL",
    "MAY",
    "JUNE",
    "JULY",
    "AUGUST",
    "SEPTEMBER",
    "OCTOBER",
    "NOVEMBER",
    "DECEMBER",
];
const DAYS: [&str; 7] = [
    "MONDAY",
    "TUESDAY",
    "WEDNESDAY",
    "THURSDAY",
    "FRIDAY",
    "SATURDAY",
    "SUNDAY",
];

/// Elements, longest first so that `MONTH` is not read as `MON`.
const ELEMENTS: [&str; 39] = [
    "SSSSS", "MONTH", "YYYY", "IYYY", "RRRR", "HH24", "HH12", "A.M.", "P.M.", "DDD", "DAY", "MON",
    "FF1", "FF2", "FF3", "FF4", "FF5", "FF6", "FF7", "FF8", "FF9", "TZH", "TZM", "TZR", "YY", "RR",
    "MM", "DD", "DY", "HH", "MI", "SS", "FF", "AM", "PM", "IW", "Q", "D", "J",
];

#[derive(Debug, PartialEq)]
enum Part<'f> {
    Element(&'static str, Case),
    Literal(&'f str),
    FillMode,
    Exact,
}

#[derive(Debug, Clone, Copy, PartialEq)]
enum Case {
    Upper,
    Lower,
    Capital,
}

fn parts(model: &str) -> Outcome<Vec<Part<'_>>> {
    let mut rest = model;
    let mut out = Vec::new();
    while let Some(first) = rest.chars().next() {
        if first == '"' {
            let end = rest[1..]
                .find('"')
                .ok_or_else(|| ora(1821, "date format not recognized"))?;
            out.push(Part::Literal(&rest[1..=end]));
            rest = &rest[end + 2..];
            continue;
        }
        if !first.is_ascii_alphanumeric() {
            let width = first.len_utf8();
            out.push(Part::Literal(&rest[..width]));
            rest = &rest[width..];
            continue;
        }
        let upper = rest.to_ascii_uppercase();
        if upper.starts_with("FM") || upper.starts_with("FX") {
            out.push(if upper.starts_with("FM") {
                Part::FillMode
            } else {
                Part::Exact
            });
            rest = &rest[2..];
            continue;
        }
        let Some(element) = ELEMENTS.iter().find(|element| upper.starts_with(**element)) else {
            return stop(1821, "date format not recognized");
        };
        let written = &rest[..element.len()];
        let case = if written.chars().all(|c| !c.is_ascii_uppercase()) {
            Case::Lower
        } else if written
            .chars()
            .nth(1)
            .is_some_and(|c| c.is_ascii_lowercase())
        {
            Case::Capital
        } else {
            Case::Upper
        };
        out.push(Part::Element(element, case));
        rest = &rest[element.len()..];
    }
    Ok(out)
}

fn cased(text: &str, case: Case) -> String {
    match case {
        Case::Upper => text.to_owned(),
        Case::Lower => text.to_ascii_lowercase(),
        Case::Capital => {
            let lower = text.to_ascii_lowercase();
            let mut chars = lower.chars();
            chars.next().map_or_else(String::new, |c| {
                c.to_ascii_uppercase().to_string() + chars.as_str()
            })
        }
    }
}

/// TO_CHAR of a date or timestamp.
pub fn date(at: &civil::DateTime, model: &str) -> Outcome<String> {
    let mut out = String::new();
    let mut fill = true;
    for part in parts(model)? {
        match part {
            Part::Literal(text) => out.push_str(text),
            Part::FillMode => fill = !fill,
            Part::Exact => {}
            Part::Element(element, case) => {
                let text = element_text(at, element, case)?;
                let numeric = text.bytes().all(|b| b.is_ascii_digit());
                if fill || element.starts_with("FF") {
                    out.push_str(&text);
                } else if numeric {
                    let short = text.trim_start_matches('0');
                    out.push_str(if short.is_empty() { "0" } else { short });
                } else {
                    out.push_str(text.trim_end());
                }
            }
        }
    }
    Ok(out)
}

fn element_text(at: &civil::DateTime, element: &str, case: Case) -> Outcome<String> {
    let hour12 = match at.hour() % 12 {
        0 => 12,
        hour => hour,
    };
    let weekday = at.weekday().to_monday_zero_offset().unsigned_abs() as usize;
    let month = at.month().unsigned_abs() as usize - 1;
    Ok(match element {
        "YYYY" | "RRRR" => format!("{:04}", at.year()),
        "YY" | "RR" => format!("{:02}", at.year() % 100),
        "IYYY" => format!("{:04}", at.date().iso_week_date().year()),
        "IW" => format!("{:02}", at.date().iso_week_date().week()),
        "Q" => (at.month().unsigned_abs().div_ceil(3)).to_string(),
        "MM" => format!("{:02}", at.month()),
        "MON" => cased(&MONTHS[month][..3], case),
        "MONTH" => format!("{:<9}", cased(MONTHS[month], case)),
        "DD" => format!("{:02}", at.day()),
        "DDD" => format!("{:03}", at.date().day_of_year()),
        "D" => (at.weekday().to_sunday_one_offset()).to_string(),
        "DY" => cased(&DAYS[weekday][..3], case),
        "DAY" => format!("{:<9}", cased(DAYS[weekday], case)),
        "J" => (crate::engine::datum::nanos_of(*at) / 86_400_000_000_000 + 2_440_588).to_string(),
        "HH24" => format!("{:02}", at.hour()),
        "HH" | "HH12" => format!("{hour12:02}"),
        "MI" => format!("{:02}", at.minute()),
        "SS" => format!("{:02}", at.second()),
        "SSSSS" => {
            let seconds = i32::from(at.hour()) * 3600 + i32::from(at.minute()) * 60;
            format!("{:05}", seconds + i32::from(at.second()))
        }
        "AM" | "PM" | "A.M." | "P.M." => {
            let text = if at.hour() < 12 { "AM" } else { "PM" };
            cased(text, case)
        }
        "TZH" | "TZR" => "+00".to_owned(),
        "TZM" => "00".to_owned(),
        "FF" => format!("{:06}", at.subsec_nanosecond() / 1000),
        fraction => {
            let digits = usize::from(fraction.as_bytes()[2] - b'0');
            format!("{:09}", at.subsec_nanosecond())[..digits].to_owned()
        }
    })
}

/// What a date text has said so far.
struct Reading {
    year: i16,
    month: i8,
    day: i8,
    hour: i8,
    minute: i8,
    second: i8,
    nanos: i32,
    afternoon: Option<bool>,
}

pub fn parse_date(text: &str, model: &str) -> Outcome<civil::DateTime> {
    let today = super::clock::now();
    let mut reading = Reading {
        year: today.year(),
        month: today.month(),
        day: 1,
        hour: 0,
        minute: 0,
        second: 0,
        nanos: 0,
        afternoon: None,
    };
    let mut rest = text.trim();
    for part in parts(model)? {
        match part {
            Part::FillMode | Part::Exact => {}
            Part::Literal(literal) => {
                // Any punctuation matches any other; a blank may be missing.
                if let Some(after) = rest.strip_prefix(literal) {
                    rest = after;
                } else if rest.starts_with(|c: char| c.is_ascii_punctuation() || c == ' ') {
                    rest = &rest[1..];
                } else if !rest.is_empty() && !literal.trim().is_empty() {
                    return stop(1861, "literal does not match format string");
                }
            }
            // A text that ends early leaves the rest of the time at zero.
            Part::Element(_, _) if rest.is_empty() => break,
            Part::Element(element, _) => rest = read_element(&mut reading, element, rest)?,
        }
    }
    if !rest.trim().is_empty() {
        return stop(
            1830,
            "date format picture ends before converting entire input string",
        );
    }
    if let Some(afternoon) = reading.afternoon {
        reading.hour = reading.hour % 12 + if afternoon { 12 } else { 0 };
    }
    civil::DateTime::new(
        reading.year,
        reading.month,
        reading.day,
        reading.hour,
        reading.minute,
        reading.second,
        reading.nanos,
    )
    .map_err(|_| ora(1839, "date not valid for month specified").into())
}

fn digits(rest: &str, most: usize, error: (u32, &str)) -> Outcome<(i32, usize)> {
    let width = rest
        .bytes()
        .take(most)
        .take_while(u8::is_ascii_digit)
        .count();
    rest[..width]
        .parse()
        .map(|n| (n, width))
        .map_err(|_| ora(error.0, error.1).into())
}

fn ranged(value: i32, range: std::ops::RangeInclusive<i32>, error: (u32, &str)) -> Outcome<i8> {
    if range.contains(&value) {
        Ok(value as i8)
    } else {
        stop(error.0, error.1)
    }
}

const NUMERIC: (u32, &str) = (
    1858,
    "a non-numeric character was found where a numeric was expected",
);

/// A year of the given element, and how many bytes it takes.
fn read_year(element: &str, rest: &str) -> Outcome<(i16, usize)> {
    if matches!(element, "YY" | "RR") {
        let (year, width) = digits(rest, 2, NUMERIC)?;
        let century = if element == "RR" && year >= 50 {
            1900
        } else {
            2000
        };
        return Ok(((century + year) as i16, width));
    }
    let (year, width) = digits(rest, 4, NUMERIC)?;
    if !(1..=9999).contains(&year) {
        return stop(
            1841,
            "(full) year must be between -4713 and +9999, and not be 0",
        );
    }
    Ok((year as i16, width))
}

/// A month by its name, whole or abbreviated, and how many bytes it takes.
fn read_month_name(rest: &str) -> Outcome<(i8, usize)> {
    let upper = rest.to_ascii_uppercase();
    let Some(index) = MONTHS.iter().position(|m| upper.starts_with(&m[..3])) else {
        return stop(1843, "not a valid month");
    };
    let width = if upper.starts_with(MONTHS[index]) {
        MONTHS[index].len()
    } else {
        3
    };
    Ok((index as i8 + 1, width))
}

fn read_element<'t>(into: &mut Reading, element: &str, rest: &'t str) -> Outcome<&'t str> {
    let width;
    match element {
        "YYYY" | "RRRR" | "IYYY" | "YY" | "RR" => {
            (into.year, width) = read_year(element, rest)?;
        }
        "MM" => {
            let (month, w) = digits(rest, 2, NUMERIC)?;
            into.month = ranged(month, 1..=12, (1843, "not a valid month"))?;
            width = w;
        }
        "MON" | "MONTH" => (into.month, width) = read_month_name(rest)?,
        "DD" => {
            let (day, w) = digits(rest, 2, NUMERIC)?;
            let error = (1847, "day of month must be between 1 and last day of month");
            into.day = ranged(day, 1..=31, error)?;
            width = w;
        }
        "HH24" | "HH" | "HH12" => {
            let (hour, w) = digits(rest, 2, NUMERIC)?;
            into.hour = ranged(hour, 0..=23, (1850, "hour must be between 0 and 23"))?;
            width = w;
        }
        "MI" => {
            let (minute, w) = digits(rest, 2, NUMERIC)?;
            into.minute = ranged(minute, 0..=59, (1851, "minutes must be between 0 and 59"))?;
            width = w;
        }
        "SS" => {
            let (second, w) = digits(rest, 2, NUMERIC)?;
            into.second = ranged(second, 0..=59, (1852, "seconds must be between 0 and 59"))?;
            width = w;
        }
        "AM" | "PM" | "A.M." | "P.M." => {
            let upper = rest.to_ascii_uppercase();
            into.afternoon = Some(upper.starts_with('P'));
            width = element.len().min(rest.len());
        }
        fraction if fraction.starts_with("FF") => {
            let (_, w) = digits(rest, 9, NUMERIC)?;
            into.nanos = format!("{:0<9}", &rest[..w]).parse().unwrap_or(0);
            width = w;
        }
        _ => return stop(1820, "format code cannot appear in date input format"),
    }
    Ok(&rest[width..])
}

/// TO_CHAR of a number with a model such as `FM999,990.00`.
pub fn number(value: &bigdecimal::BigDecimal, model: &str) -> Outcome<String> {
    let upper = model.to_ascii_uppercase();
    let (fill, upper) = match upper.strip_prefix("FM") {
        Some(rest) => (false, rest.to_owned()),
        None => (true, upper),
    };
    if !upper.chars().all(|c| "90.,DGS$MI".contains(c)) {
        return stop(1481, "invalid number format model");
    }
    let trailing_minus = upper.ends_with("MI");
    let sign_always = upper.contains('S');
    let body: String = upper
        .chars()
        .filter(|c| "90.,DG".contains(*c))
        .map(|c| {
            if c == 'D' {
                '.'
            } else if c == 'G' {
                ','
            } else {
                c
            }
        })
        .collect();
    let (whole, fraction) = body.split_once('.').unwrap_or((&body, ""));
    let scale = fraction.len();
    let rounded = super::datum::round(value, scale as i64);
    let text = rounded.to_plain_string();
    let (negative, text) = text
        .strip_prefix('-')
        .map_or((false, text.as_str()), |t| (true, t));
    let (int_digits, frac_digits) = text.split_once('.').unwrap_or((text, ""));
    let int_digits = if int_digits == "0" { "" } else { int_digits };
    let places = whole.chars().filter(|c| *c != ',').count();
    if int_digits.len() > places {
        return Ok("#".repeat(model.len() + usize::from(fill)));
    }
    let mut out = whole_part(whole, int_digits, places);
    if scale > 0 {
        out.push('.');
        let mut digits = format!("{frac_digits:0<scale$}");
        if !fill {
            let keep = fraction.rfind('0').map_or(0, |at| at + 1);
            while digits.len() > keep && digits.ends_with('0') {
                digits.pop();
            }
        }
        out.push_str(&digits);
    }
    let sign = match (negative, sign_always) {
        (true, _) => "-",
        (false, true) => "+",
        (false, false) => "",
    };
    let lead = if upper.contains('$') { "$" } else { "" };
    let signed = if trailing_minus {
        format!("{lead}{out}{}", if negative { "-" } else { " " })
    } else {
        format!("{sign}{lead}{out}")
    };
    let width = body.len() + 1 + lead.len();
    Ok(if fill {
        format!("{signed:>width$}")
    } else {
        signed.trim().to_owned()
    })
}

fn whole_part(whole: &str, int_digits: &str, places: usize) -> String {
    let padded = format!("{int_digits:>places$}");
    let first_zero = whole.chars().filter(|c| *c != ',').position(|c| c == '0');
    let mut digits = padded.chars().enumerate();
    let mut out = String::new();
    for mark in whole.chars() {
        if mark == ',' {
            if out.ends_with(|c: char| c.is_ascii_digit()) {
                out.push(',');
            }
            continue;
        }
        match digits.next() {
            Some((at, ' ')) if first_zero.is_some_and(|zero| at >= zero) => out.push('0'),
            Some((_, ' ')) | None => {}
            Some((_, digit)) => out.push(digit),
        }
    }
    // A bare 0 shows where the model has digits but the number has none.
    if out.is_empty() && !whole.is_empty() && !whole.contains('0') && int_digits.is_empty() {
        return String::new();
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::str::FromStr;

    #[test]
    fn dates_come_out_by_the_model() {
        let at = civil::date(2026, 3, 7).at(15, 4, 5, 123_456_789);
        let cases = [
            ("YYYY-MM-DD HH24:MI:SS", "2026-03-07 15:04:05"),
            ("DD-MON-RR", "07-MAR-26"),
            ("Month DD, YYYY", "March     07, 2026"),
            ("FMMonth DD", "March 7"),
            ("HH12:MI AM", "03:04 PM"),
            ("YYYY-MM-DD\"T\"HH24:MI:SS.FF3", "2026-03-07T15:04:05.123"),
            ("Dy Q DDD", "Sat 1 066"),
        ];
        for (model, want) in cases {
            assert_eq!(date(&at, model).unwrap(), want, "{model}");
        }
        assert!(date(&at, "XX").is_err());
    }

    #[test]
    fn dates_are_read_by_the_model() {
        let cases = [
            (
                "2026-03-07 15:04:05",
                "YYYY-MM-DD HH24:MI:SS",
                "2026-03-07T15:04:05",
            ),
            ("2026-03-07", "YYYY-MM-DD HH24:MI:SS", "2026-03-07T00:00:00"),
            ("07-mar-26", "DD-MON-RR", "2026-03-07T00:00:00"),
            ("20260307", "YYYYMMDD", "2026-03-07T00:00:00"),
            (
                "2026/03/07 03.04 PM",
                "YYYY-MM-DD HH:MI AM",
                "2026-03-07T15:04:00",
            ),
        ];
        for (text, model, want) in cases {
            assert_eq!(parse_date(text, model).unwrap().to_string(), want, "{text}");
        }
    }

    #[test]
    fn numbers_come_out_by_the_model() {
        let cases = [
            ("1234.5", "999,990.00", "   1,234.50"),
            ("1234.5", "FM999,990.00", "1,234.50"),
            ("-0.5", "FM990.0", "-0.5"),
            ("7", "000", " 007"),
            ("12345", "999", "####"),
            ("12", "FM999.99", "12."),
        ];
        for (value, model, want) in cases {
            let value = bigdecimal::BigDecimal::from_str(value).unwrap();
            assert_eq!(number(&value, model).unwrap(), want, "{model}");
        }
    }
}
