//! Values between the simulator and the client's buffers.
//!
//! A [`Buffer`] is what a bind or define names: an array of values of one
//! external type with its indicators, lengths and return codes. A [`Cell`] is
//! one place of it, or one that a callback has given.

use crate::datetime::{self, OciDate};
use crate::error::{Fault, unsupported};
use crate::handles::{lock, timestamp};
use crate::memory;
use crate::number::{self, Vnu};
use oracle_simulator::api::{Kind, OraError, Value};
use std::ffi::c_void;

pub mod external {
    /// VARCHAR2.
    pub const CHR: u16 = 1;
    pub const INT: u16 = 3;
    /// NUMBER with its length in front.
    pub const VNU: u16 = 6;
    pub const BDOUBLE: u16 = 22;
    pub const BIN: u16 = 23;
    pub const UIN: u16 = 68;
    pub const AFC: u16 = 96;
    pub const ODT: u16 = 156;
    pub const TIMESTAMP: u16 = 187;
    /// Timestamp descriptor with time zone.
    pub const TIMESTAMP_TZ: u16 = 188;
    /// Timestamp descriptor with local time zone.
    pub const TIMESTAMP_LTZ: u16 = 232;
}

/// The indicator of NULL.
const NULL: i16 = -1;
/// The indicator of a value cut short whose length no indicator can hold.
const CUT: i16 = -2;
/// Return code of a value cut short (ORA-01406).
const TRUNCATED: u16 = 1406;

/// Lengths of the values of an array, in either width.
#[derive(Debug, Clone, Copy)]
pub enum Lengths {
    /// `ub2`, of OCIBindByPos and its kin.
    Short(*mut u16),
    /// `ub4`, of OCIBindByPos2 and its kin.
    Long(*mut u32),
}

/// An array of values in the client's memory.
#[derive(Debug, Clone, Copy)]
pub struct Buffer {
    pub value: *mut c_void,
    /// Bytes from one value to the next, and room for each.
    pub size: usize,
    pub external: u16,
    /// The first indicator, or null.
    pub indicator: *mut i16,
    /// The first length, or null.
    pub lengths: Lengths,
    /// The first return code, or null.
    pub return_code: *mut u16,
}

/// One value in the client's memory.
#[derive(Debug, Clone, Copy)]
pub struct Cell {
    pub value: *mut u8,
    pub size: usize,
    pub external: u16,
    /// Its indicator, or null.
    pub indicator: *mut i16,
    /// Its length, or null.
    pub length: Lengths,
    /// Its return code, or null.
    pub return_code: *mut u16,
}

/// Moves a pointer that may be null.
fn step<T>(pointer: *mut T, count: usize) -> *mut T {
    if pointer.is_null() {
        pointer
    } else {
        pointer.wrapping_add(count)
    }
}

impl Buffer {
    /// The value at that row. Nothing is read yet.
    pub fn cell(&self, row: usize) -> Cell {
        Cell {
            value: step(self.value.cast::<u8>(), row.saturating_mul(self.size)),
            size: self.size,
            external: self.external,
            indicator: step(self.indicator, row),
            length: match self.lengths {
                Lengths::Short(first) => Lengths::Short(step(first, row)),
                Lengths::Long(first) => Lengths::Long(step(first, row)),
            },
            return_code: step(self.return_code, row),
        }
    }
}

/// What the server is told of a variable of that external type.
pub fn kind(external: u16, size: usize) -> Result<Kind, OraError> {
    let size = u32::try_from(size).unwrap_or(u32::MAX);
    Ok(match external {
        external::CHR => Kind::Varchar2(size),
        external::AFC => Kind::Char(size),
        external::BIN => Kind::Raw(size),
        external::INT | external::UIN | external::VNU | external::BDOUBLE => Kind::Number(0, -127),
        external::ODT => Kind::Date,
        external::TIMESTAMP | external::TIMESTAMP_TZ | external::TIMESTAMP_LTZ => {
            Kind::Timestamp(9)
        }
        other => return Err(unsupported(&format!("external type {other}"))),
    })
}

impl Cell {
    /// # Safety
    /// The pointers are null or valid for reads.
    unsafe fn stated_length(&self) -> usize {
        // SAFETY: as this function's own contract says.
        let stated = unsafe {
            match self.length {
                Lengths::Short(length) => memory::get(length).map(usize::from),
                Lengths::Long(length) => memory::get(length).map(|length| length as usize),
            }
        };
        stated.unwrap_or(self.size).min(self.size)
    }

    /// Reads an IN value.
    ///
    /// # Safety
    /// The pointers are null or valid for reads as the external type asks; a
    /// timestamp's descriptor lives.
    pub unsafe fn read(&self) -> Result<Value, Fault> {
        // SAFETY: as this function's own contract says.
        unsafe {
            if memory::get(self.indicator) == Some(NULL) || self.value.is_null() {
                return Ok(Value::Null);
            }
            Ok(match self.external {
                external::CHR | external::AFC => {
                    match memory::text(self.value.cast(), self.stated_length()) {
                        text if text.is_empty() => Value::Null,
                        text => Value::Text(text),
                    }
                }
                external::BIN => match memory::bytes(self.value, self.stated_length()) {
                    [] => Value::Null,
                    bytes => Value::Raw(bytes.to_vec()),
                },
                external::VNU => {
                    let vnu: Vnu = self.read_fixed()?;
                    Value::Number(number::decode(&vnu)?)
                }
                external::INT => Value::Number(self.read_integer()?.to_string()),
                external::UIN => {
                    let value: u64 = self.read_fixed()?;
                    Value::Number(value.to_string())
                }
                external::BDOUBLE => {
                    let value: f64 = self.read_fixed()?;
                    if !value.is_finite() {
                        return Err(OraError::new(1426, "numeric overflow").into());
                    }
                    Value::Number(value.to_string())
                }
                external::ODT => {
                    let date: OciDate = self.read_fixed()?;
                    Value::DateTime(datetime::check(date.into())?)
                }
                external::TIMESTAMP | external::TIMESTAMP_TZ | external::TIMESTAMP_LTZ => {
                    let descriptor: *mut c_void = self.read_fixed()?;
                    Value::DateTime(lock(&timestamp(descriptor)?.value).0)
                }
                other => return Err(unsupported(&format!("external type {other}")).into()),
            })
        }
    }

    /// # Safety
    /// As [`Self::read`]; any bytes are a valid `T`.
    unsafe fn read_fixed<T: Copy>(&self) -> Result<T, OraError> {
        self.check_room::<T>()?;
        // SAFETY: as this function's own contract says, and there is room.
        unsafe { memory::get(self.value.cast()) }
            .ok_or_else(|| OraError::new(1024, "invalid datatype in OCI call: a buffer is missing"))
    }

    /// A value of fixed size in a buffer that is too small for it would take
    /// what lies next to it.
    fn check_room<T>(&self) -> Result<(), OraError> {
        if self.size >= size_of::<T>() {
            return Ok(());
        }
        Err(unsupported(&format!(
            "external type {} in {} bytes",
            self.external, self.size
        )))
    }

    /// # Safety
    /// As [`Self::read`].
    unsafe fn read_integer(&self) -> Result<i64, OraError> {
        // SAFETY: as this function's own contract says.
        let value = unsafe {
            match self.size {
                1 => memory::get(self.value.cast::<i8>()).map(i64::from),
                2 => memory::get(self.value.cast::<i16>()).map(i64::from),
                4 => memory::get(self.value.cast::<i32>()).map(i64::from),
                8 => memory::get(self.value.cast::<i64>()),
                _ => None,
            }
        };
        value.ok_or_else(|| unsupported(&format!("an integer of {} bytes", self.size)))
    }

    /// Writes a fetched or OUT value with its indicator, length and return
    /// code. Text and RAW that do not fit are cut and say so.
    ///
    /// # Safety
    /// The pointers are null or valid for writes as the external type asks; a
    /// timestamp's descriptor lives.
    pub unsafe fn write(&self, value: &Value) -> Result<(), Fault> {
        // SAFETY: as this function's own contract says.
        unsafe {
            memory::put(self.return_code, 0);
            match (self.external, value) {
                (_, Value::Null) => {
                    memory::put(self.indicator, NULL);
                    self.write_length(0);
                }
                (external::CHR | external::AFC | external::BIN, value) => {
                    self.write_bytes(&bytes_of(self.external, value)?);
                }
                (external::ODT, Value::DateTime(date)) => self.write_fixed(OciDate::from(*date))?,
                (
                    external::TIMESTAMP | external::TIMESTAMP_TZ | external::TIMESTAMP_LTZ,
                    Value::DateTime(date),
                ) => {
                    let descriptor: *mut c_void = self.read_fixed()?;
                    *lock(&timestamp(descriptor)?.value) = (*date, (0, 0));
                    memory::put(self.indicator, 0);
                    self.write_length(size_of::<*mut c_void>());
                }
                (external::VNU, Value::Number(text) | Value::Text(text)) => {
                    self.write_fixed(number::encode(text)?)?;
                }
                (external::INT, Value::Number(text) | Value::Text(text)) => {
                    self.write_integer(text)?
                }
                (external::UIN, Value::Number(text) | Value::Text(text)) => {
                    self.write_fixed(text.parse::<u64>().map_err(|_| overflow())?)?;
                }
                (external::BDOUBLE, Value::Number(text) | Value::Text(text)) => {
                    self.write_fixed(
                        text.parse::<f64>()
                            .map_err(|_| OraError::new(1722, "invalid number"))?,
                    )?;
                }
                (_, value) => return Err(inconsistent(self.external, value).into()),
            }
        }
        Ok(())
    }

    /// # Safety
    /// As [`Self::write`].
    unsafe fn write_fixed<T>(&self, value: T) -> Result<(), OraError> {
        self.check_room::<T>()?;
        // SAFETY: as this function's own contract says.
        unsafe {
            memory::put(self.value.cast::<T>(), value);
            memory::put(self.indicator, 0);
            self.write_length(size_of::<T>());
        }
        Ok(())
    }

    /// # Safety
    /// As [`Self::write`].
    unsafe fn write_integer(&self, text: &str) -> Result<(), OraError> {
        let whole = text.split('.').next().unwrap_or_default();
        let value: i64 = whole.parse().map_err(|_| overflow())?;
        // SAFETY: as this function's own contract says.
        unsafe {
            match self.size {
                8 => self.write_fixed(value)?,
                4 => self.write_fixed(i32::try_from(value).map_err(|_| overflow())?)?,
                2 => self.write_fixed(i16::try_from(value).map_err(|_| overflow())?)?,
                1 => self.write_fixed(i8::try_from(value).map_err(|_| overflow())?)?,
                other => return Err(unsupported(&format!("an integer of {other} bytes"))),
            }
        }
        Ok(())
    }

    /// Writes bytes, cut to the room there is.
    ///
    /// # Safety
    /// As [`Self::write`].
    pub unsafe fn write_bytes(&self, bytes: &[u8]) {
        let length = bytes.len().min(self.size);
        // SAFETY: as this function's own contract says; `length` fits the
        // buffer, and the bytes are our own.
        unsafe {
            if !self.value.is_null() {
                std::ptr::copy_nonoverlapping(bytes.as_ptr(), self.value, length);
            }
            if length < bytes.len() {
                memory::put(self.indicator, i16::try_from(bytes.len()).unwrap_or(CUT));
                memory::put(self.return_code, TRUNCATED);
            } else {
                memory::put(self.indicator, 0);
            }
            self.write_length(length);
        }
    }

    /// # Safety
    /// As [`Self::write`].
    pub unsafe fn write_length(&self, length: usize) {
        // SAFETY: as this function's own contract says.
        unsafe {
            match self.length {
                Lengths::Short(target) => {
                    memory::put(target, u16::try_from(length).unwrap_or(u16::MAX))
                }
                Lengths::Long(target) => {
                    memory::put(target, u32::try_from(length).unwrap_or(u32::MAX))
                }
            }
        }
    }
}

/// The bytes of a value for a character or RAW buffer.
///
/// # Errors
/// ORA-00932 for a date: its text is the server's to make, by NLS_DATE_FORMAT.
pub fn bytes_of(external: u16, value: &Value) -> Result<Vec<u8>, OraError> {
    match value {
        Value::Null => Ok(Vec::new()),
        Value::Raw(bytes) if external == external::BIN => Ok(bytes.clone()),
        Value::Text(text) if external == external::BIN => {
            from_hex(text).ok_or_else(|| OraError::new(1465, "invalid hex number"))
        }
        Value::Raw(bytes) => Ok(bytes
            .iter()
            .flat_map(|byte| format!("{byte:02X}").into_bytes())
            .collect()),
        Value::Text(text) | Value::Number(text) if external != external::BIN => {
            Ok(text.clone().into_bytes())
        }
        other => Err(inconsistent(external, other)),
    }
}

fn from_hex(text: &str) -> Option<Vec<u8>> {
    let digits: Vec<u8> = text
        .chars()
        .map(|digit| digit.to_digit(16)?.try_into().ok())
        .collect::<Option<_>>()?;
    let padded = if digits.len() % 2 == 1 {
        [vec![0], digits].concat()
    } else {
        digits
    };
    Some(
        padded
            .chunks(2)
            .map(|pair| pair[0] * 16 + pair[1])
            .collect(),
    )
}

fn overflow() -> OraError {
    OraError::new(1455, "converting column overflows integer datatype")
}

fn inconsistent(external: u16, value: &Value) -> OraError {
    let got = match value {
        Value::Null => "NULL",
        Value::Text(_) => "CHAR",
        Value::Number(_) => "NUMBER",
        Value::DateTime(_) => "DATE",
        Value::Raw(_) => "BINARY",
    };
    OraError::new(
        932,
        format!("inconsistent datatypes: expected external type {external} got {got}"),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cell(
        value: &mut [u8],
        external: u16,
        indicator: &mut i16,
        length: &mut u32,
        code: &mut u16,
    ) -> Cell {
        Cell {
            value: value.as_mut_ptr(),
            size: value.len(),
            external,
            indicator,
            length: Lengths::Long(length),
            return_code: code,
        }
    }

    #[test]
    fn text_that_does_not_fit_is_cut_and_says_so() {
        let (mut buffer, mut indicator, mut length, mut code) = ([0; 4], 0, 0, 7);
        let cell = cell(
            &mut buffer,
            external::CHR,
            &mut indicator,
            &mut length,
            &mut code,
        );
        // SAFETY: all pointers are to locals of the right type.
        unsafe { cell.write(&Value::Text("abcdef".into())).unwrap() };
        assert_eq!((&buffer, indicator, length, code), (b"abcd", 6, 4, 1406));
    }

    #[test]
    fn return_codes_are_cleared_with_every_value() {
        let (mut buffer, mut indicator, mut length, mut code) = ([0; 22], 0, 0, 1406);
        let cell = cell(
            &mut buffer,
            external::VNU,
            &mut indicator,
            &mut length,
            &mut code,
        );
        // SAFETY: all pointers are to locals of the right type.
        unsafe { cell.write(&Value::Null).unwrap() };
        assert_eq!((indicator, code), (-1, 0));
        // SAFETY: as before.
        unsafe { cell.write(&Value::Number("-12.5".into())).unwrap() };
        // SAFETY: as before.
        let back = unsafe { cell.read() }.unwrap();
        assert_eq!(
            (back, indicator, length),
            (Value::Number("-12.5".into()), 0, 22)
        );
    }

    #[test]
    fn an_integer_that_overflows_is_an_error() {
        let (mut buffer, mut indicator, mut length, mut code) = ([0; 4], 0, 0, 0);
        let cell = cell(
            &mut buffer,
            external::INT,
            &mut indicator,
            &mut length,
            &mut code,
        );
        // SAFETY: all pointers are to locals of the right type.
        let refused = unsafe { cell.write(&Value::Number("3000000000".into())) };
        assert!(matches!(refused, Err(Fault::Ora(error)) if error.code == 1455));
    }

    #[test]
    fn raw_and_hex_stand_for_each_other() {
        assert_eq!(
            bytes_of(external::CHR, &Value::Raw(vec![0xca, 0xfe])).unwrap(),
            b"CAFE"
        );
        assert_eq!(
            bytes_of(external::BIN, &Value::Text("afe".into())).unwrap(),
            [0x0a, 0xfe]
        );
        assert_eq!(
            bytes_of(external::BIN, &Value::Text("xy".into()))
                .unwrap_err()
                .code,
            1465
        );
    }
}
