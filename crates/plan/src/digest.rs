//! The digest that identifies a plan in approvals and runs: SHA-256 of its
//! canonical JSON.
//!
//! Canonical means: keys sorted by their bytes, no white space, integers
//! without a fraction (`80` and `80.0` are the same). It does not depend on the
//! features of `serde_json`.

use crate::model::Plan;
use serde::{Deserialize, Deserializer, Serialize, Serializer};
use serde_json::Value;
use sha2::{Digest as _, Sha256};
use std::fmt;
use std::str::FromStr;
use thiserror::Error;

/// SHA-256 of a plan's canonical JSON; displayed as 64 hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Digest([u8; 32]);

/// The text is not 64 hexadecimal digits.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
#[error("a plan digest is 64 hexadecimal digits, not {0:?}")]
pub struct ParseDigestError(String);

impl Digest {
    /// The first 12 digits, for display.
    pub fn short(&self) -> String {
        hex::encode(&self.0[..6])
    }
}

impl fmt::Display for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&hex::encode(self.0))
    }
}

impl fmt::Debug for Digest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Digest({self})")
    }
}

impl FromStr for Digest {
    type Err = ParseDigestError;

    fn from_str(text: &str) -> Result<Self, ParseDigestError> {
        let mut bytes = [0; 32];
        hex::decode_to_slice(text, &mut bytes).map_err(|_| ParseDigestError(text.to_owned()))?;
        Ok(Self(bytes))
    }
}

impl Serialize for Digest {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Digest {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?
            .parse()
            .map_err(serde::de::Error::custom)
    }
}

impl Plan {
    /// The digest that approvals, orders and reports refer to.
    pub fn digest(&self) -> Digest {
        Digest(Sha256::digest(self.to_json()).into())
    }

    /// The canonical JSON, as sent and stored.
    pub fn to_json(&self) -> String {
        let mut json = String::new();
        // A plan consists of text, numbers, lists and maps with text keys, so
        // its conversion to a JSON value can't fail.
        write_canonical(
            &serde_json::to_value(self).unwrap_or(Value::Null),
            &mut json,
        );
        json
    }

    /// Parses an expanded plan without verifying it; see `check::verify`.
    ///
    /// # Errors
    /// Invalid JSON, an unknown field, or an unknown format version.
    pub fn from_json(json: &str) -> Result<Self, serde_json::Error> {
        serde_json::from_str(json)
    }
}

fn write_canonical(value: &Value, json: &mut String) {
    match value {
        Value::Null | Value::Bool(_) | Value::String(_) => json.push_str(&value.to_string()),
        Value::Number(number) => json.push_str(&canonical_number(number)),
        Value::Array(items) => {
            json.push('[');
            for (index, item) in items.iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_canonical(item, json);
            }
            json.push(']');
        }
        Value::Object(fields) => {
            let mut sorted: Vec<_> = fields.iter().collect();
            sorted.sort_by_key(|(key, _)| key.as_bytes());
            json.push('{');
            for (index, (key, field)) in sorted.into_iter().enumerate() {
                if index > 0 {
                    json.push(',');
                }
                write_canonical(&Value::String(key.clone()), json);
                json.push(':');
                write_canonical(field, json);
            }
            json.push('}');
        }
    }
}

/// The value with whole numbers as integers, as in a plan that is parsed from
/// its canonical JSON.
pub(crate) fn normalized(value: Value) -> Value {
    match value {
        Value::Number(number) => canonical_number(&number)
            .parse()
            .map_or(Value::Number(number), Value::Number),
        Value::Array(items) => items.into_iter().map(normalized).collect(),
        Value::Object(fields) => Value::Object(
            fields
                .into_iter()
                .map(|(key, field)| (key, normalized(field)))
                .collect(),
        ),
        other => other,
    }
}

/// Integers up to 2^53 are exact in a double; larger values are
/// written unchanged.
const EXACT_IN_DOUBLE: f64 = 9_007_199_254_740_992.0;

fn canonical_number(number: &serde_json::Number) -> String {
    match number.as_f64() {
        Some(float)
            if number.is_f64() && float.fract() == 0.0 && float.abs() <= EXACT_IN_DOUBLE =>
        {
            // Adding zero turns -0 into 0.
            format!("{:.0}", float + 0.0)
        }
        _ => number.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn canonical(value: &Value) -> String {
        let mut json = String::new();
        write_canonical(value, &mut json);
        json
    }

    #[test]
    fn keys_are_sorted_and_whole_numbers_have_no_fraction() {
        assert_eq!(
            canonical(&json!({"b": [1.0, -0.0, -3.0, 0.5, 1e300], "a": "x\"\n", "B": null})),
            r#"{"B":null,"a":"x\"\n","b":[1,0,-3,0.5,1e+300]}"#
        );
    }

    #[test]
    fn a_digest_is_parsed_from_its_own_text() {
        let digest = Digest([0xab; 32]);
        assert_eq!(digest.to_string().parse(), Ok(digest));
        assert_eq!(digest.short(), "abababababab");
        assert!("abc".parse::<Digest>().is_err());
    }
}
