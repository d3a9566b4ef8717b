//! Durations as written in plans: `500ms`, `30s`, `5m`, `2h`.

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Deserializer};
use std::borrow::Cow;
use std::str::FromStr;
use thiserror::Error;

/// A duration in whole milliseconds: one number and one unit. Compound forms
/// such as `1h30m` are rejected because they are easily misread.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Duration {
    ms: u64,
}

/// The text is not a duration.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("{0:?} is not a duration")]
pub struct ParseDurationError(String);

/// A week: longer than any run, so a larger value has the wrong unit.
const MAX_MS: u64 = 7 * 24 * 3600 * 1000;

impl Duration {
    /// Value of `format` in the JSON Schema.
    pub const FORMAT: &'static str = "lockstep-duration";

    /// Whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self { ms: secs * 1000 }
    }

    /// In milliseconds.
    pub const fn ms(self) -> u64 {
        self.ms
    }

    /// In seconds, rounded up.
    pub const fn secs(self) -> u64 {
        self.ms.div_ceil(1000)
    }
}

impl FromStr for Duration {
    type Err = ParseDurationError;

    fn from_str(text: &str) -> Result<Self, ParseDurationError> {
        let invalid = || ParseDurationError(text.to_owned());
        let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
        let unit_ms = match &text[digits.len()..] {
            "ms" => 1,
            "s" => 1000,
            "m" => 60 * 1000,
            "h" => 3600 * 1000,
            _ => return Err(invalid()),
        };
        if !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return Err(invalid());
        }
        digits
            .parse::<u64>()
            .ok()
            .and_then(|number| number.checked_mul(unit_ms))
            .filter(|ms| (1..=MAX_MS).contains(ms))
            .map(|ms| Self { ms })
            .ok_or_else(invalid)
    }
}

impl<'de> Deserialize<'de> for Duration {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl JsonSchema for Duration {
    fn schema_name() -> Cow<'static, str> {
        "Duration".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({
            "type": "string",
            "format": Self::FORMAT,
            "pattern": r"^([0-9]+(ms|s|m|h)|.*\$\{.*)$",
        })
    }
}

/// Milliseconds as readable text: `500ms`, `30s`, `28m 15s`, `2h`.
pub(crate) fn shown(ms: u64) -> String {
    if ms == 0 || !ms.is_multiple_of(1000) {
        return format!("{ms}ms");
    }
    let secs = ms / 1000;
    [(secs / 3600, 'h'), (secs / 60 % 60, 'm'), (secs % 60, 's')]
        .iter()
        .filter(|(number, _)| *number > 0)
        .map(|(number, unit)| format!("{number}{unit}"))
        .collect::<Vec<_>>()
        .join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_duration_has_one_number_and_one_unit() {
        for (text, ms) in [
            ("500ms", 500),
            ("30s", 30_000),
            ("5m", 300_000),
            ("2h", 7_200_000),
        ] {
            assert_eq!(text.parse::<Duration>().unwrap().ms(), ms);
            assert_eq!(shown(ms), text);
        }
        for text in [
            "",
            "30",
            "s",
            "-1s",
            "1.5s",
            "1h30m",
            "0s",
            "9000h",
            "3d",
            "99999999999999999999s",
        ] {
            assert!(text.parse::<Duration>().is_err(), "{text}");
        }
    }
}
