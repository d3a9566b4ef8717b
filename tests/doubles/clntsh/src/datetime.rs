//! DATE as OCI passes it (SQLT_ODT) and the functions of timestamp
//! descriptors.
//!
//! A timestamp with a time zone keeps its own fields when it becomes a DATE or
//! a TIMESTAMP, as a cast in Oracle does; the zone is dropped.

use crate::error::{SUCCESS, call};
use crate::handles::{lock, timestamp};
use crate::memory;
use oracle_simulator::api::{DateTime, OraError};
use std::ffi::{c_int, c_void};

/// A date as OCI lays it out: year, month, day, hour, minute, second.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(C)]
pub struct OciDate {
    year: i16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
}

impl From<DateTime> for OciDate {
    fn from(date: DateTime) -> Self {
        let DateTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
            nanos: _,
        } = date;
        Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
        }
    }
}

impl From<OciDate> for DateTime {
    fn from(date: OciDate) -> Self {
        let OciDate {
            year,
            month,
            day,
            hour,
            minute,
            second,
        } = date;
        Self {
            year,
            month,
            day,
            hour,
            minute,
            second,
            nanos: 0,
        }
    }
}

fn days_in(year: i16, month: u8) -> u8 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Checks that the fields are a point in time that Oracle knows.
///
/// # Errors
/// The ORA error of the first field that is out of its range.
pub fn check(date: DateTime) -> Result<DateTime, OraError> {
    let DateTime {
        year,
        month,
        day,
        hour,
        minute,
        second,
        nanos,
    } = date;
    if !(1..=9999).contains(&year) {
        Err(OraError::new(
            1841,
            "(full) year must be between -4713 and +9999, and not be 0",
        ))
    } else if !(1..=12).contains(&month) {
        Err(OraError::new(1843, "not a valid month"))
    } else if !(1..=days_in(year, month)).contains(&day) {
        Err(OraError::new(
            1847,
            "day of month must be between 1 and last day of month",
        ))
    } else if hour > 23 {
        Err(OraError::new(1850, "hour must be between 0 and 23"))
    } else if minute > 59 {
        Err(OraError::new(1851, "minutes must be between 0 and 59"))
    } else if second > 59 {
        Err(OraError::new(1852, "seconds must be between 0 and 59"))
    } else if nanos > 999_999_999 {
        Err(OraError::new(
            1880,
            "the fractional seconds must be between 0 and 999999999",
        ))
    } else {
        Ok(date)
    }
}

/// The offset in a time zone's text such as `+02:00`; none for no text.
fn offset(text: &str) -> Result<(i8, i8), OraError> {
    let invalid = || OraError::new(1882, "timezone region not found");
    if text.is_empty() {
        return Ok((0, 0));
    }
    let (sign, rest) = match text.split_at_checked(1) {
        Some(("-", rest)) => (-1, rest),
        Some(("+", rest)) => (1, rest),
        _ => return Err(invalid()),
    };
    let (hours, minutes) = rest.split_once(':').ok_or_else(invalid)?;
    let part = |text: &str| {
        text.parse::<i8>()
            .map(|part| part * sign)
            .map_err(|_| invalid())
    };
    Ok((part(hours)?, part(minutes)?))
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIDateTimeConstruct(
    _environment: *mut c_void,
    error_handle: *mut c_void,
    descriptor: *mut c_void,
    year: i16,
    month: u8,
    day: u8,
    hour: u8,
    minute: u8,
    second: u8,
    nanos: u32,
    zone: *const c_void,
    zone_length: usize,
) -> c_int {
    let body = || {
        let date = check(DateTime {
            year,
            month,
            day,
            hour,
            minute,
            second,
            nanos,
        })?;
        // SAFETY: OCI's contract: a live descriptor, and text of that length.
        let (timestamp, zone) =
            unsafe { (timestamp(descriptor)?, memory::text(zone, zone_length)) };
        *lock(&timestamp.value) = (date, offset(&zone)?);
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIDateTimeConstruct", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIDateTimeGetDate(
    _environment: *mut c_void,
    error_handle: *mut c_void,
    descriptor: *const c_void,
    year: *mut i16,
    month: *mut u8,
    day: *mut u8,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: a live descriptor, and valid pointers.
        unsafe {
            let (date, _) = *lock(&timestamp(descriptor)?.value);
            memory::put(year, date.year);
            memory::put(month, date.month);
            memory::put(day, date.day);
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIDateTimeGetDate", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIDateTimeGetTime(
    _environment: *mut c_void,
    error_handle: *mut c_void,
    descriptor: *const c_void,
    hour: *mut u8,
    minute: *mut u8,
    second: *mut u8,
    nanos: *mut u32,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: a live descriptor, and valid pointers.
        unsafe {
            let (date, _) = *lock(&timestamp(descriptor)?.value);
            memory::put(hour, date.hour);
            memory::put(minute, date.minute);
            memory::put(second, date.second);
            memory::put(nanos, date.nanos);
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIDateTimeGetTime", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIDateTimeGetTimeZoneOffset(
    _environment: *mut c_void,
    error_handle: *mut c_void,
    descriptor: *const c_void,
    hour: *mut i8,
    minute: *mut i8,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: a live descriptor, and valid pointers.
        unsafe {
            let (_, (hours, minutes)) = *lock(&timestamp(descriptor)?.value);
            memory::put(hour, hours);
            memory::put(minute, minutes);
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIDateTimeGetTimeZoneOffset", error_handle, body) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_real_days_pass() {
        let day = |year, month, day| DateTime {
            year,
            month,
            day,
            hour: 0,
            minute: 0,
            second: 0,
            nanos: 0,
        };
        assert!(check(day(2024, 2, 29)).is_ok());
        for (date, code) in [
            (day(2023, 2, 29), 1847),
            (day(1900, 2, 29), 1847),
            (day(2024, 13, 1), 1843),
            (day(0, 1, 1), 1841),
            (
                DateTime {
                    hour: 24,
                    ..day(2024, 1, 1)
                },
                1850,
            ),
            (
                DateTime {
                    second: 60,
                    ..day(2024, 1, 1)
                },
                1852,
            ),
        ] {
            assert_eq!(check(date).unwrap_err().code, code, "{date:?}");
        }
    }

    #[test]
    fn offsets_are_signed_in_both_parts() {
        assert_eq!(offset("+02:00"), Ok((2, 0)));
        assert_eq!(offset("-05:30"), Ok((-5, -30)));
        assert_eq!(offset(""), Ok((0, 0)));
        assert_eq!(offset("Europe/Vienna").unwrap_err().code, 1882);
    }
}
