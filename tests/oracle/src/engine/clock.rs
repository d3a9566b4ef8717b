//! The simulator's clock: UTC, for the database and for every session.

use jiff::civil;

/// Now, as SYSTIMESTAMP without its zone.
pub fn now() -> civil::DateTime {
    jiff::Timestamp::now()
        .to_zoned(jiff::tz::TimeZone::UTC)
        .datetime()
}

/// Now in milliseconds since 1970.
pub fn epoch_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}
