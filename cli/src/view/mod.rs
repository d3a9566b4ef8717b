//! Text output.

pub mod changes;
pub mod live;
pub mod record;
pub mod run;
pub mod waiting;
pub mod watch;

use jiff::Timestamp;
use jiff::tz::TimeZone;

/// Date and time with the local time zone, to the second.
pub fn moment(at: Option<Timestamp>) -> String {
    match at {
        Some(at) => at
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S %Z")
            .to_string(),
        None => "–".to_owned(),
    }
}

/// As [`moment`], to the millisecond.
pub fn moment_ms(at: Option<Timestamp>) -> String {
    match at {
        Some(at) => at
            .to_zoned(TimeZone::system())
            .strftime("%Y-%m-%d %H:%M:%S%.3f %Z")
            .to_string(),
        None => "–".to_owned(),
    }
}

/// Time of day in the local time zone, to the millisecond.
pub fn clock(at: Timestamp) -> String {
    at.to_zoned(TimeZone::system())
        .strftime("%H:%M:%S%.3f")
        .to_string()
}

/// A duration in a suitable unit.
pub fn duration(ms: u64) -> String {
    match ms {
        0..1_000 => format!("{ms} ms"),
        1_000..60_000 => format!("{}.{} s", ms / 1_000, ms % 1_000 / 100),
        60_000..3_600_000 => format!("{} min {:02} s", ms / 60_000, ms % 60_000 / 1_000),
        _ => format!("{} h {:02} min", ms / 3_600_000, ms % 3_600_000 / 60_000),
    }
}

/// The first 12 digits of a digest, for display.
pub fn short(digest: &str) -> &str {
    digest.get(..12).unwrap_or(digest)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_is_shown_in_a_suitable_unit() {
        let cases = [
            (0, "0 ms"),
            (999, "999 ms"),
            (1_000, "1.0 s"),
            (59_990, "59.9 s"),
            (60_000, "1 min 00 s"),
            (3_599_999, "59 min 59 s"),
            (7_500_000, "2 h 05 min"),
        ];
        for (ms, text) in cases {
            assert_eq!(duration(ms), text);
        }
    }
}
