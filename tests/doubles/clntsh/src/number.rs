//! Oracle's NUMBER as OCI passes it (SQLT_VNU): a length byte, an exponent
//! byte and up to twenty base-100 digits.
//!
//! Positive numbers carry their exponent plus 193 and each digit plus 1;
//! negative ones carry the complement of the exponent and 101 minus each
//! digit, closed by 102 where there is room. Zero is the single byte 0x80
//! (Oracle Call Interface Programmer's Guide, "NUMBER").

use crate::error::{Outcome, SUCCESS, call};
use crate::memory;
use oracle_simulator::api::OraError;
use std::ffi::{c_int, c_void};

/// Size of a VNU: length, exponent, twenty digits.
pub const SIZE: usize = 22;

/// Base-100 digits a NUMBER holds.
const DIGITS: usize = 20;

/// Exponents of 100 that fit the exponent byte.
const EXPONENTS: std::ops::RangeInclusive<i64> = -65..=62;

/// A number as OCI passes it.
pub type Vnu = [u8; SIZE];

fn invalid() -> OraError {
    OraError::new(1722, "invalid number")
}

/// Encodes decimal text (`-12.5`, `1E-7`). Digits beyond the fortieth are
/// rounded away; what is too small becomes zero.
///
/// # Errors
/// ORA-01722 for what is no number, ORA-01426 for what is too large.
pub fn encode(text: &str) -> Result<Vnu, OraError> {
    let (negative, digits, point) = parse(text.trim())?;
    // Pairs are counted from the decimal point, so that the first digit may
    // need a zero before it.
    let mut decimal = digits;
    if point.rem_euclid(2) == 1 {
        decimal.insert(0, 0);
    }
    let mut exponent = (point + point.rem_euclid(2)) / 2 - 1;
    if decimal.len() % 2 == 1 {
        decimal.push(0);
    }
    let mut pairs: Vec<u8> = decimal
        .chunks(2)
        .map(|pair| pair[0] * 10 + pair[1])
        .collect();
    let leading = pairs.iter().take_while(|pair| **pair == 0).count();
    pairs.drain(..leading);
    exponent -= i64::try_from(leading).unwrap_or(i64::MAX);
    if round(&mut pairs) {
        exponent += 1;
    }
    while pairs.last() == Some(&0) {
        pairs.pop();
    }
    if pairs.is_empty() || exponent < *EXPONENTS.start() {
        return Ok(pack(&[0x80]));
    }
    if exponent > *EXPONENTS.end() {
        return Err(OraError::new(1426, "numeric overflow"));
    }
    let biased = u8::try_from(exponent + 193).map_err(|_| invalid())?;
    let mut body = Vec::with_capacity(SIZE);
    if negative {
        body.push(!biased);
        body.extend(pairs.iter().map(|pair| 101 - pair));
        if pairs.len() < DIGITS {
            body.push(102);
        }
    } else {
        body.push(biased);
        body.extend(pairs.iter().map(|pair| pair + 1));
    }
    Ok(pack(&body))
}

/// Sign, decimal digits, and how many of them stand before the point.
fn parse(text: &str) -> Result<(bool, Vec<u8>, i64), OraError> {
    let (negative, text) = match text.as_bytes().first() {
        Some(b'-') => (true, &text[1..]),
        Some(b'+') => (false, &text[1..]),
        _ => (false, text),
    };
    let (mantissa, power) = match text.split_once(['e', 'E']) {
        Some((mantissa, power)) => (mantissa, power.parse::<i16>().map_err(|_| invalid())?),
        None => (text, 0),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let digits: Vec<u8> = whole.bytes().chain(fraction.bytes()).collect();
    if digits.is_empty() || !digits.iter().all(u8::is_ascii_digit) {
        return Err(invalid());
    }
    let digits = digits.into_iter().map(|digit| digit - b'0').collect();
    Ok((
        negative,
        digits,
        i64::try_from(whole.len()).map_err(|_| invalid())? + i64::from(power),
    ))
}

/// Cuts to the digits that fit, rounding half up; says whether a digit was
/// gained in front.
fn round(pairs: &mut Vec<u8>) -> bool {
    let Some(&next) = pairs.get(DIGITS) else {
        return false;
    };
    pairs.truncate(DIGITS);
    if next < 50 {
        return false;
    }
    for pair in pairs.iter_mut().rev() {
        *pair += 1;
        if *pair < 100 {
            return false;
        }
        *pair = 0;
    }
    pairs.insert(0, 1);
    pairs.truncate(DIGITS);
    true
}

fn pack(body: &[u8]) -> Vnu {
    let mut vnu = [0; SIZE];
    let length = body.len().min(SIZE - 1);
    vnu[0] = u8::try_from(length).unwrap_or(0);
    vnu[1..=length].copy_from_slice(&body[..length]);
    vnu
}

/// Decodes to plain decimal text.
///
/// # Errors
/// ORA-01722 where the bytes are no number.
pub fn decode(vnu: &Vnu) -> Result<String, OraError> {
    let body = vnu.get(1..=vnu[0] as usize).ok_or_else(invalid)?;
    let Some((&first, digits)) = body.split_first() else {
        return Err(invalid());
    };
    if first == 0x80 {
        return Ok("0".into());
    }
    let negative = first & 0x80 == 0;
    let exponent = i64::from(if negative { !first } else { first }) - 193;
    let mut pairs = Vec::with_capacity(DIGITS);
    for &digit in digits {
        if negative && digit == 102 {
            break;
        }
        let pair = if negative {
            101u8.checked_sub(digit)
        } else {
            digit.checked_sub(1)
        };
        pairs.push(pair.filter(|pair| *pair < 100).ok_or_else(invalid)?);
    }
    let mut whole = String::new();
    let mut fraction = String::new();
    for (place, pair) in (0i64..).zip(&pairs) {
        let side = if place <= exponent {
            &mut whole
        } else {
            &mut fraction
        };
        side.push_str(&format!("{pair:02}"));
    }
    for _ in i64::try_from(pairs.len()).map_err(|_| invalid())?..=exponent {
        whole.push_str("00");
    }
    if exponent < -1 {
        fraction.insert_str(
            0,
            &"00".repeat(usize::try_from(-1 - exponent).map_err(|_| invalid())?),
        );
    }
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let sign = if negative { "-" } else { "" };
    let point = if fraction.is_empty() { "" } else { "." };
    Ok(format!(
        "{sign}{}{point}{fraction}",
        if whole.is_empty() { "0" } else { whole }
    ))
}

/// # Safety
/// `number` is valid for a read of a VNU.
unsafe fn read(number: *const Vnu) -> Result<String, OraError> {
    // SAFETY: as this function's own contract says.
    unsafe { memory::get(number) }
        .ok_or_else(invalid)
        .and_then(|vnu| decode(&vnu))
}

/// OCINumberToInt: the integer part, where it fits.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINumberToInt(
    error_handle: *mut c_void,
    number: *const Vnu,
    length: u32,
    flags: u32,
    result: *mut c_void,
) -> c_int {
    let body = || -> Outcome {
        // SAFETY: OCI's contract: a valid number.
        let text = unsafe { read(number) }?;
        let whole: i128 = text
            .split('.')
            .next()
            .unwrap_or_default()
            .parse()
            .map_err(|_| invalid())?;
        let overflow = |_| OraError::new(22053, "overflow error");
        // OCI_NUMBER_UNSIGNED is 0, OCI_NUMBER_SIGNED 2.
        // SAFETY: OCI's contract: `result` holds an integer of `length` bytes.
        unsafe {
            match (length, flags) {
                (8, 0) => memory::put(result.cast(), u64::try_from(whole).map_err(overflow)?),
                (8, _) => memory::put(result.cast(), i64::try_from(whole).map_err(overflow)?),
                (4, 0) => memory::put(result.cast(), u32::try_from(whole).map_err(overflow)?),
                (4, _) => memory::put(result.cast(), i32::try_from(whole).map_err(overflow)?),
                _ => return Err(crate::error::unsupported("an integer of that size").into()),
            }
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCINumberToInt", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINumberFromInt(
    error_handle: *mut c_void,
    integer: *const c_void,
    length: u32,
    flags: u32,
    number: *mut Vnu,
) -> c_int {
    let body = || -> Outcome {
        // SAFETY: OCI's contract: `integer` holds an integer of `length` bytes.
        let text = unsafe {
            match (length, flags) {
                (8, 0) => memory::get(integer.cast::<u64>()).map(|value| value.to_string()),
                (8, _) => memory::get(integer.cast::<i64>()).map(|value| value.to_string()),
                (4, 0) => memory::get(integer.cast::<u32>()).map(|value| value.to_string()),
                (4, _) => memory::get(integer.cast::<i32>()).map(|value| value.to_string()),
                _ => None,
            }
        };
        let vnu = encode(&text.ok_or_else(invalid)?)?;
        // SAFETY: OCI's contract: `number` is valid for a write.
        unsafe { memory::put(number, vnu) };
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCINumberFromInt", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINumberToReal(
    error_handle: *mut c_void,
    number: *const Vnu,
    length: u32,
    result: *mut c_void,
) -> c_int {
    let body = || -> Outcome {
        if length != 8 {
            return Err(crate::error::unsupported("a real of that size").into());
        }
        // SAFETY: OCI's contract: a valid number, and room for a double.
        unsafe {
            let value: f64 = read(number)?.parse().map_err(|_| invalid())?;
            memory::put(result.cast(), value);
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCINumberToReal", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINumberFromReal(
    error_handle: *mut c_void,
    real: *const c_void,
    length: u32,
    number: *mut Vnu,
) -> c_int {
    let body = || -> Outcome {
        if length != 8 {
            return Err(crate::error::unsupported("a real of that size").into());
        }
        // SAFETY: OCI's contract: a double, and room for a number.
        unsafe {
            let value = memory::get(real.cast::<f64>()).ok_or_else(invalid)?;
            memory::put(number, encode(&value.to_string())?);
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCINumberFromReal", error_handle, body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn check(text: &str, bytes: &[u8], back: &str) {
        let vnu = encode(text).unwrap();
        assert_eq!(&vnu[1..=vnu[0] as usize], bytes, "{text}");
        assert_eq!(decode(&vnu).unwrap(), back, "{text}");
    }

    #[test]
    fn numbers_are_laid_out_as_oracle_dumps_them() {
        // What SELECT DUMP(x) shows on a real server.
        check("0", &[128], "0");
        check("-0.00", &[128], "0");
        check("1", &[193, 2], "1");
        check("10", &[193, 11], "10");
        check("100", &[194, 2], "100");
        check("123", &[194, 2, 24], "123");
        check("-1", &[62, 100, 102], "-1");
        check("-123", &[61, 100, 78, 102], "-123");
        check("0.1", &[192, 11], "0.1");
        check(".05", &[192, 6], "0.05");
        check("0.001", &[191, 11], "0.001");
        check("12.5", &[193, 13, 51], "12.5");
        check("-12.5", &[62, 89, 51, 102], "-12.5");
        check("1e3", &[194, 11], "1000");
        check("1.5E-7", &[189, 16], "0.00000015");
        check("100000000000000000000", &[203, 2], "100000000000000000000");
        check("007.50", &[193, 8, 51], "7.5");
    }

    #[test]
    fn forty_digits_survive_and_more_are_rounded() {
        let forty = "1234567890123456789012345678901234567890";
        assert_eq!(decode(&encode(forty).unwrap()).unwrap(), forty);
        let negative = format!("-{forty}");
        assert_eq!(decode(&encode(&negative).unwrap()).unwrap(), negative);
        let nines = "9".repeat(42);
        assert_eq!(
            decode(&encode(&nines).unwrap()).unwrap(),
            format!("1{}", "0".repeat(42))
        );
    }

    #[test]
    fn what_is_no_number_is_refused() {
        for (text, code) in [
            ("", 1722),
            ("-", 1722),
            ("1x", 1722),
            ("1.2.3", 1722),
            ("1e", 1722),
            ("1e126", 1426),
        ] {
            assert_eq!(encode(text).unwrap_err().code, code, "{text}");
        }
        assert_eq!(encode("1e-131").unwrap()[..2], [1, 128]);
        assert_eq!(decode(&[22; SIZE]).unwrap_err().code, 1722);
        assert_eq!(decode(&[0; SIZE]).unwrap_err().code, 1722);
    }

    #[test]
    fn every_small_decimal_comes_back() {
        for number in -20_000..20_000 {
            for scale in 0..6u32 {
                let text = format!("{number}e-{scale}");
                let back: f64 = decode(&encode(&text).unwrap()).unwrap().parse().unwrap();
                let wanted: f64 = text.parse().unwrap();
                assert!((back - wanted).abs() < 1e-12, "{text}: {back}");
            }
        }
    }
}
