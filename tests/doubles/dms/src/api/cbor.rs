//! Smithy rpc-v2-cbor: bodies between CBOR and what the handlers use.
//!
//! Source: Smithy 2.0, "Smithy RPC v2 CBOR protocol". Requests become JSON values
//! (timestamps as epoch seconds), so that they can be logged and read with serde;
//! answers are serialised straight to CBOR, with timestamps under tag 1.

use super::errors::Fault;
use ciborium::Value as Cbor;
use ciborium::tag::Required;
use serde::Serialize;
use serde_json::{Map, Number, Value};
use std::io::Read;

/// A body after decompression. CloudWatch itself takes 1 MB.
const BODY_BOUND: u64 = 1 << 20;

/// A timestamp in an answer: CBOR tag 1 over epoch seconds.
pub(super) type Stamp = Required<f64, 1>;

/// Epoch milliseconds as a timestamp.
#[expect(
    clippy::cast_precision_loss,
    reason = "exact to the millisecond until the year 287396"
)]
pub(super) fn stamp(epoch_ms: i64) -> Stamp {
    Required(epoch_ms as f64 / 1_000.0)
}

/// Reads a request's body, compressed by gzip if its header says so.
pub(super) fn decode(body: &[u8], gzip: bool) -> Result<Value, Fault> {
    if body.is_empty() {
        return Ok(Value::Object(Map::new()));
    }
    let refuse = |why: String| Fault::serialization(format!("the body can't be read: {why}"));
    let mut plain = Vec::new();
    if gzip {
        flate2::read::GzDecoder::new(body)
            .take(BODY_BOUND + 1)
            .read_to_end(&mut plain)
            .map_err(|e| refuse(e.to_string()))?;
    } else {
        plain.extend_from_slice(body);
    }
    if plain.len() as u64 > BODY_BOUND {
        return Err(refuse(format!("it is larger than {BODY_BOUND} bytes")));
    }
    let value: Cbor = ciborium::from_reader(plain.as_slice()).map_err(|e| refuse(e.to_string()))?;
    to_json(value).map_err(refuse)
}

fn to_json(value: Cbor) -> Result<Value, String> {
    Ok(match value {
        Cbor::Null => Value::Null,
        Cbor::Bool(b) => Value::Bool(b),
        Cbor::Text(text) => Value::String(text),
        Cbor::Integer(i) => i64::try_from(i)
            .map(Value::from)
            .map_err(|_| "an integer is out of range".to_owned())?,
        Cbor::Float(f) => Number::from_f64(f)
            .map(Value::Number)
            .ok_or("a number is not finite")?,
        Cbor::Tag(1, inner) => to_json(*inner)?,
        Cbor::Array(values) => values.into_iter().map(to_json).collect::<Result<_, _>>()?,
        Cbor::Map(members) => {
            let mut object = Map::new();
            for (key, value) in members {
                let Cbor::Text(key) = key else {
                    return Err("a key is not a text".into());
                };
                object.insert(key, to_json(value)?);
            }
            Value::Object(object)
        }
        _ => return Err("it holds a type that the protocol doesn't know".into()),
    })
}

/// Writes an answer's body.
pub(super) fn encode(answer: &impl Serialize) -> Result<Vec<u8>, Fault> {
    let mut body = Vec::new();
    ciborium::into_writer(answer, &mut body)
        .map_err(|e| Fault::serialization(format!("the answer can't be written: {e}")))?;
    Ok(body)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn timestamps_are_tag_one_and_come_back_as_seconds() {
        let body = encode(&[stamp(1_500)]).unwrap();
        assert_eq!(decode(&body, false).unwrap(), serde_json::json!([1.5]));
        assert_eq!(body[1], 0xc1);
    }

    #[test]
    fn a_compressed_body_is_bounded_after_decompression() {
        use std::io::Write;
        let mut packer = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
        packer.write_all(&vec![0; 2 << 20]).unwrap();
        assert!(decode(&packer.finish().unwrap(), true).is_err());
    }
}
