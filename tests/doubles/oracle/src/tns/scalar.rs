//! NUMBER, DATE, TIMESTAMP and binary floating point as Oracle keeps them,
//! to and from the texts and structures of the engine's interface.
//!
//! NUMBER (Oracle Call Interface guide, "External data types"): an exponent
//! byte in base 100 and up to 20 digits, each plus one; for negatives the
//! exponent is inverted, digits are 101 − digit and a 102 ends the number
//! where there is room.

use super::TnsError;
use crate::api::DateTime;

/// Base-100 digits of the longest NUMBER.
const DIGITS_MAX: usize = 20;
/// Bias of the exponent byte of a positive number whose first digit stands
/// for units.
const UNITS: i32 = 193;

/// NUMBER from plain decimal text. Digits beyond the 20th pair are cut off.
/// Fails on anything but decimal text and outside Oracle's range.
pub fn number(text: &str) -> Result<Vec<u8>, TnsError> {
    const WRONG: TnsError = TnsError::Malformed("a number that is not plain decimal text");
    let (negative, magnitude) = match text.strip_prefix('-') {
        Some(rest) => (true, rest),
        None => (false, text.strip_prefix('+').unwrap_or(text)),
    };
    let (whole, fraction) = magnitude.split_once('.').unwrap_or((magnitude, ""));
    let digits_only = |part: &str| part.bytes().all(|byte| byte.is_ascii_digit());
    if whole.len() + fraction.len() == 0 || !digits_only(whole) || !digits_only(fraction) {
        return Err(WRONG);
    }
    let mut digits: Vec<u8> = Vec::with_capacity(magnitude.len() + 2);
    if whole.len() % 2 == 1 {
        digits.push(0);
    }
    digits.extend(
        whole
            .bytes()
            .chain(fraction.bytes())
            .map(|byte| byte - b'0'),
    );
    if digits.len() % 2 == 1 {
        digits.push(0);
    }
    let mut exponent = (whole.len() as i32 + 1) / 2 - 1;
    let mut pairs: Vec<u8> = digits
        .chunks(2)
        .map(|pair| pair[0] * 10 + pair[1])
        .collect();
    let leading = pairs.iter().take_while(|pair| **pair == 0).count();
    pairs.drain(..leading);
    exponent -= leading as i32;
    pairs.truncate(DIGITS_MAX);
    while pairs.last() == Some(&0) {
        pairs.pop();
    }
    if pairs.is_empty() {
        return Ok(vec![0x80]);
    }
    let head = u8::try_from(exponent + UNITS)
        .ok()
        .filter(|head| *head >= 0x80)
        .ok_or(TnsError::Malformed("a number outside Oracle's range"))?;
    Ok(assemble(negative, head, &pairs))
}

fn assemble(negative: bool, head: u8, pairs: &[u8]) -> Vec<u8> {
    let mut bytes = vec![if negative { !head } else { head }];
    bytes.extend(
        pairs
            .iter()
            .map(|pair| if negative { 101 - pair } else { pair + 1 }),
    );
    if negative && pairs.len() < DIGITS_MAX {
        bytes.push(102);
    }
    bytes
}

/// Plain decimal text of a NUMBER. Fails on bytes that are none, infinity
/// included.
pub fn number_text(bytes: &[u8]) -> Result<String, TnsError> {
    const WRONG: TnsError = TnsError::Malformed("bytes that are not a NUMBER");
    let (&head, rest) = bytes.split_first().ok_or(WRONG)?;
    if head == 0x80 && rest.is_empty() {
        return Ok("0".to_owned());
    }
    let negative = head < 0x80;
    let rest = if negative {
        rest.strip_suffix(&[102]).unwrap_or(rest)
    } else {
        rest
    };
    let exponent = i32::from(if negative { !head } else { head }) - UNITS;
    if rest.is_empty() || rest.len() > DIGITS_MAX {
        return Err(WRONG);
    }
    let mut digits = String::new();
    for byte in rest {
        let pair = if negative {
            101u8.checked_sub(*byte)
        } else {
            byte.checked_sub(1)
        };
        let pair = pair.filter(|pair| *pair < 100).ok_or(WRONG)?;
        digits.push_str(&format!("{pair:02}"));
    }
    let point = (exponent + 1) * 2;
    let (whole, fraction) = if point <= 0 {
        (String::new(), "0".repeat(-point as usize) + &digits)
    } else if digits.len() <= point as usize {
        let padding = "0".repeat(point as usize - digits.len());
        (digits + &padding, String::new())
    } else {
        let fraction = digits.split_off(point as usize);
        (digits, fraction)
    };
    let whole = match whole.trim_start_matches('0') {
        "" => "0",
        rest => rest,
    };
    let sign = if negative { "-" } else { "" };
    Ok(match fraction.trim_end_matches('0') {
        "" => format!("{sign}{whole}"),
        fraction => format!("{sign}{whole}.{fraction}"),
    })
}

/// DATE (7 bytes), or TIMESTAMP (11) where there is a fraction of a second.
pub fn datetime(value: &DateTime) -> Vec<u8> {
    let mut bytes = vec![
        (value.year / 100 + 100) as u8,
        (value.year % 100 + 100) as u8,
        value.month,
        value.day,
        value.hour + 1,
        value.minute + 1,
        value.second + 1,
    ];
    if value.nanos != 0 {
        bytes.extend(value.nanos.to_be_bytes());
    }
    bytes
}

/// The point in time of a DATE, a TIMESTAMP or a TIMESTAMP WITH TIME ZONE.
/// A zone is passed over: the engine knows no zones, and drivers send the
/// time as UTC.
pub fn datetime_value(bytes: &[u8]) -> Result<DateTime, TnsError> {
    const WRONG: TnsError = TnsError::Malformed("bytes that are not a DATE or TIMESTAMP");
    let &[century, year, month, day, hour, minute, second] =
        bytes.first_chunk::<7>().ok_or(WRONG)?;
    let nanos = match bytes.get(7..11) {
        Some(&[a, b, c, d]) => u32::from_be_bytes([a, b, c, d]),
        _ => 0,
    };
    let value = DateTime {
        year: (i16::from(century) - 100) * 100 + i16::from(year) - 100,
        month,
        day,
        hour: hour.checked_sub(1).ok_or(WRONG)?,
        minute: minute.checked_sub(1).ok_or(WRONG)?,
        second: second.checked_sub(1).ok_or(WRONG)?,
        nanos,
    };
    let plausible = (1..=9999).contains(&value.year)
        && (1..=12).contains(&value.month)
        && (1..=31).contains(&value.day)
        && value.hour < 24
        && value.minute < 60
        && value.second < 60
        && value.nanos < 1_000_000_000;
    if plausible { Ok(value) } else { Err(WRONG) }
}

/// Plain decimal text of a BINARY_FLOAT (4 bytes) or BINARY_DOUBLE (8):
/// IEEE 754 with the sign bit flipped, negatives inverted, so that the bytes
/// sort. Fails on infinity and NaN, which NUMBER lacks.
pub fn float_text(bytes: &[u8]) -> Result<String, TnsError> {
    const WRONG: TnsError = TnsError::Malformed("bytes that are not a finite binary float");
    let negative = bytes.first().ok_or(WRONG)? & 0x80 == 0;
    let mut ieee = bytes.to_vec();
    if negative {
        ieee.iter_mut().for_each(|byte| *byte = !*byte);
    } else {
        ieee[0] &= 0x7f;
    }
    let value = match ieee.len() {
        4 => ieee
            .first_chunk()
            .map(|bytes| f64::from(f32::from_be_bytes(*bytes))),
        8 => ieee.first_chunk().map(|bytes| f64::from_be_bytes(*bytes)),
        _ => None,
    };
    let value = value.filter(|value| value.is_finite()).ok_or(WRONG)?;
    Ok(value.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tns_numbers_have_oracles_bytes() {
        // As DUMP(n) prints them.
        for (text, bytes) in [
            ("0", vec![128]),
            ("1", vec![193, 2]),
            ("10", vec![193, 11]),
            ("100", vec![194, 2]),
            ("123", vec![194, 2, 24]),
            ("-123", vec![61, 100, 78, 102]),
            ("0.1", vec![192, 11]),
            ("0.01", vec![192, 2]),
            ("0.001", vec![191, 11]),
            ("-12.5", vec![62, 89, 51, 102]),
            ("1234567.89", vec![196, 2, 24, 46, 68, 90]),
            ("1000000", vec![196, 2]),
        ] {
            assert_eq!(number(text).unwrap(), bytes, "{text}");
            assert_eq!(number_text(&bytes).unwrap(), text);
        }
    }

    #[test]
    fn tns_numbers_are_read_however_they_are_written() {
        for (given, plain) in [
            ("+5", "5"),
            ("-0", "0"),
            ("007.500", "7.5"),
            (".5", "0.5"),
            ("5.", "5"),
            (
                "99999999999999999999999999999999999999",
                "99999999999999999999999999999999999999",
            ),
            (
                "-99999999999999999999999999999999999999",
                "-99999999999999999999999999999999999999",
            ),
        ] {
            assert_eq!(number_text(&number(given).unwrap()).unwrap(), plain);
        }
        let tiny = format!("0.{}1", "0".repeat(100));
        assert_eq!(number_text(&number(&tiny).unwrap()).unwrap(), tiny);
    }

    #[test]
    fn tns_what_is_no_number_is_refused() {
        for text in ["", "-", ".", "1e5", "x", "1.2.3", "--1"] {
            assert!(number(text).is_err(), "{text:?}");
        }
        assert!(number(&"9".repeat(130)).is_err());
        for bytes in [&[][..], &[193], &[193, 0], &[193, 200], &[255, 101, 1, 0]] {
            assert!(number_text(bytes).is_err(), "{bytes:?}");
        }
    }

    #[test]
    fn tns_dates_keep_the_fraction_only_where_there_is_one() {
        let date = DateTime {
            year: 2024,
            month: 2,
            day: 29,
            hour: 13,
            minute: 14,
            second: 15,
            nanos: 0,
        };
        assert_eq!(datetime(&date), [120, 124, 2, 29, 14, 15, 16]);
        let stamp = DateTime {
            nanos: 123_456_789,
            ..date
        };
        assert_eq!(datetime(&stamp).len(), 11);
        for value in [date, stamp] {
            assert_eq!(datetime_value(&datetime(&value)).unwrap(), value);
        }
        for bytes in [
            &[120, 124, 13, 1, 1, 1, 1][..],
            &[120, 124, 1, 1, 0, 1, 1],
            &[120],
        ] {
            assert!(datetime_value(bytes).is_err());
        }
    }

    #[test]
    fn tns_binary_floats_become_decimal_text() {
        for (bytes, text) in [
            ("bff8000000000000", "1.5"),
            ("4007ffffffffffff", "-1.5"),
            ("bfc00000", "1.5"),
            ("8000000000000000", "0"),
        ] {
            assert_eq!(float_text(&hex::decode(bytes).unwrap()).unwrap(), text);
        }
        assert!(float_text(&hex::decode("fff0000000000000").unwrap()).is_err());
    }
}
