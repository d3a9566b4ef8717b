//! The description of a variable (Oracle's "OAC") and its values, in and
//! out.

use super::TnsError;
use super::codec::{Reader, Source};
use super::scalar;
use crate::api::{Kind, OraError, Value};

const VARCHAR2: u8 = 1;
const NUMBER: u8 = 2;
const BINARY_INTEGER: u8 = 3;
const LONG: u8 = 8;
const DATE: u8 = 12;
const RAW: u8 = 23;
const LONG_RAW: u8 = 24;
const CHAR: u8 = 96;
const BINARY_FLOAT: u8 = 100;
const BINARY_DOUBLE: u8 = 101;
const OBJECT: u8 = 109;
const CLOB: u8 = 112;
const BLOB: u8 = 113;
const BFILE: u8 = 114;
const JSON: u8 = 119;
const VECTOR: u8 = 127;
const TIMESTAMP: u8 = 180;
const TIMESTAMP_TZ: u8 = 181;
const TIMESTAMP_LTZ: u8 = 231;

/// Flag of a PL/SQL table.
const ARRAY: u8 = 0x40;
/// Character set form of NCHAR, sent as UTF-16.
const NCHAR_FORM: u8 = 2;
/// Values larger than this go behind the others in a row of SQL; the largest
/// VARCHAR2 with MAX_STRING_SIZE=STANDARD.
const IN_LINE_MAX: u32 = 4_000;
/// AL32UTF8.
pub const UTF8: u64 = 873;

/// A bind variable's type as the client declares it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct BindType {
    code: u8,
    size: u32,
    form: u8,
}

impl BindType {
    /// Reads a description. Types whose values can't be read at all are
    /// refused here.
    pub fn read<S: Source>(reader: &mut Reader<'_, S>) -> Result<Self, TnsError> {
        let code = reader.u8()?;
        let flags = reader.u8()?;
        // Precision and scale, which clients leave at zero.
        reader.skip(2)?;
        let size = reader.ub4()?;
        // Maximal elements, continuation flags.
        reader.skip_ub(2)?;
        reader.counted_bytes()?;
        // Version, character set.
        reader.skip_ub(2)?;
        let form = reader.u8()?;
        // LOB prefetch length, object column id.
        reader.skip_ub(2)?;
        if flags & ARRAY != 0 {
            return Err(TnsError::Unsupported(
                "a PL/SQL table as bind variable".to_owned(),
            ));
        }
        if matches!(code, OBJECT | CLOB | BLOB | BFILE | JSON | VECTOR) {
            return Err(TnsError::Unsupported(format!(
                "a bind variable of type {code}"
            )));
        }
        Ok(Self { code, size, form })
    }

    /// Whether its value goes behind the others in a row.
    pub fn is_long(&self) -> bool {
        self.size > IN_LINE_MAX
    }

    /// The type as the engine names it.
    pub fn kind(&self) -> Result<Kind, OraError> {
        match self.code {
            VARCHAR2 | LONG => Ok(Kind::Varchar2(self.size)),
            CHAR => Ok(Kind::Char(self.size)),
            NUMBER | BINARY_INTEGER | BINARY_FLOAT | BINARY_DOUBLE => Ok(Kind::Number(0, -127)),
            DATE => Ok(Kind::Date),
            TIMESTAMP | TIMESTAMP_TZ | TIMESTAMP_LTZ => Ok(Kind::Timestamp(9)),
            RAW | LONG_RAW => Ok(Kind::Raw(self.size)),
            _ => Err(self.unsupported()),
        }
    }

    /// The value in a variable's bytes.
    pub fn value(&self, bytes: Vec<u8>) -> Result<Value, OraError> {
        if bytes.is_empty() {
            return Ok(Value::Null);
        }
        let malformed = |error: TnsError| {
            OraError::new(6502, format!("PL/SQL: numeric or value error: {error}"))
        };
        match self.code {
            VARCHAR2 | CHAR | LONG => self.text(bytes).map(Value::Text),
            NUMBER | BINARY_INTEGER => scalar::number_text(&bytes)
                .map(Value::Number)
                .map_err(malformed),
            BINARY_FLOAT | BINARY_DOUBLE => scalar::float_text(&bytes)
                .map(Value::Number)
                .map_err(malformed),
            DATE | TIMESTAMP | TIMESTAMP_TZ | TIMESTAMP_LTZ => scalar::datetime_value(&bytes)
                .map(Value::DateTime)
                .map_err(malformed),
            RAW | LONG_RAW => Ok(Value::Raw(bytes)),
            _ => Err(self.unsupported()),
        }
    }

    /// The bytes of an OUT value.
    pub fn bytes(&self, value: &Value) -> Result<Vec<u8>, OraError> {
        if matches!(self.code, BINARY_FLOAT | BINARY_DOUBLE) && *value != Value::Null {
            return Err(self.unsupported());
        }
        let bytes = column_bytes(&self.kind()?, value)?;
        if self.form == NCHAR_FORM {
            let text = String::from_utf8_lossy(&bytes);
            return Ok(text.encode_utf16().flat_map(u16::to_be_bytes).collect());
        }
        Ok(bytes)
    }

    fn text(&self, bytes: Vec<u8>) -> Result<String, OraError> {
        const WRONG: &str =
            "bad character set conversion: bind text is not valid in its character set";
        if self.form == NCHAR_FORM {
            let units: Vec<u16> = bytes
                .chunks(2)
                .map(|unit| unit.iter().fold(0, |u, b| u << 8 | u16::from(*b)))
                .collect();
            return String::from_utf16(&units).map_err(|_| OraError::new(12_703, WRONG));
        }
        String::from_utf8(bytes).map_err(|_| OraError::new(12_703, WRONG))
    }

    fn unsupported(&self) -> OraError {
        OraError::new(
            3115,
            format!(
                "unsupported network datatype or representation (type {})",
                self.code
            ),
        )
    }
}

/// How a column is described: type code, precision, scale, size in bytes and
/// character set form.
pub struct ColumnType {
    /// Oracle's number of the type.
    pub code: u8,
    /// Precision of a NUMBER.
    pub precision: u8,
    /// Scale of a NUMBER, fractional digits of a TIMESTAMP.
    pub scale: i8,
    /// Bytes; never 0, which drivers take for a column of NULLs.
    pub size: u32,
    /// 1 for character types.
    pub form: u8,
}

impl From<&Kind> for ColumnType {
    fn from(kind: &Kind) -> Self {
        let plain = |code, size: u32, form| Self {
            code,
            precision: 0,
            scale: 0,
            size: size.max(1),
            form,
        };
        match *kind {
            Kind::Varchar2(size) => plain(VARCHAR2, size, 1),
            Kind::Char(size) => plain(CHAR, size, 1),
            Kind::Number(precision, scale) => Self {
                code: NUMBER,
                precision,
                scale,
                size: 22,
                form: 0,
            },
            Kind::Date => plain(DATE, 7, 0),
            Kind::Timestamp(digits) => Self {
                code: TIMESTAMP,
                precision: 0,
                scale: digits as i8,
                size: 11,
                form: 0,
            },
            Kind::Raw(size) => plain(RAW, size, 0),
        }
    }
}

/// The bytes of a value in a column of a kind; none for NULL.
pub fn column_bytes(kind: &Kind, value: &Value) -> Result<Vec<u8>, OraError> {
    let invalid_number = |_| OraError::new(1722, "invalid number");
    match (kind, value) {
        (_, Value::Null) => Ok(Vec::new()),
        (Kind::Varchar2(_) | Kind::Char(_), Value::Text(text) | Value::Number(text)) => {
            Ok(text.as_bytes().to_vec())
        }
        (Kind::Varchar2(_) | Kind::Char(_), Value::Raw(bytes)) => {
            Ok(hex::encode_upper(bytes).into_bytes())
        }
        (Kind::Number(..), Value::Number(text) | Value::Text(text)) => {
            scalar::number(text.trim()).map_err(invalid_number)
        }
        (Kind::Date, Value::DateTime(time)) => Ok(scalar::datetime(&crate::api::DateTime {
            nanos: 0,
            ..*time
        })),
        (Kind::Timestamp(_), Value::DateTime(time)) => Ok(scalar::datetime(time)),
        (Kind::Raw(_), Value::Raw(bytes)) => Ok(bytes.clone()),
        (kind, value) => Err(OraError::new(
            932,
            format!("inconsistent datatypes: expected {kind:?} got {value:?}"),
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bind(code: u8, form: u8) -> BindType {
        BindType {
            code,
            size: 100,
            form,
        }
    }

    #[test]
    fn tns_bind_values_come_back_as_they_went() {
        let time = crate::api::DateTime {
            year: 2026,
            month: 11,
            day: 23,
            hour: 0,
            minute: 59,
            second: 0,
            nanos: 5,
        };
        for (code, form, value) in [
            (VARCHAR2, 1, Value::Text("grün".to_owned())),
            (VARCHAR2, 2, Value::Text("grün 🍀".to_owned())),
            (CHAR, 1, Value::Text("x ".to_owned())),
            (LONG, 1, Value::Text("x".repeat(50_000))),
            (NUMBER, 0, Value::Number("-12.5".to_owned())),
            (TIMESTAMP, 0, Value::DateTime(time)),
            (RAW, 0, Value::Raw(vec![0, 255])),
            (NUMBER, 0, Value::Null),
        ] {
            let bind = bind(code, form);
            assert_eq!(bind.value(bind.bytes(&value).unwrap()).unwrap(), value);
        }
    }

    #[test]
    fn tns_types_without_a_meaning_here_are_errors() {
        assert_eq!(bind(102, 0).kind().unwrap_err().code, 3115);
        assert_eq!(
            bind(BINARY_DOUBLE, 0)
                .bytes(&Value::Number("1".into()))
                .unwrap_err()
                .code,
            3115
        );
        assert_eq!(
            bind(VARCHAR2, 1).value(vec![0xff]).unwrap_err().code,
            12_703
        );
        let wrong = column_bytes(&Kind::Number(0, -127), &Value::Text("abc".into()));
        assert_eq!(wrong.unwrap_err().code, 1722);
        assert_eq!(
            column_bytes(&Kind::Date, &Value::Raw(vec![1]))
                .unwrap_err()
                .code,
            932
        );
    }
}
