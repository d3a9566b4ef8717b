//! The simulator's clock: UTC, for the database and for every session.

use jiff::civil;

/// Now, as SYSTIMESTAMP without its zone.
pub fn now() -> civil::DateTime {
    jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .datetime()
}

/// A time of this clock in milliseconds since 1970; none beyond year 9999.
pub fn civil_ms(at: civil::DateTime) -> Option<i64> {
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(at.timestamp().as_millisecond())
}

/// Now in milliseconds since 1970.
pub fn epoch_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
