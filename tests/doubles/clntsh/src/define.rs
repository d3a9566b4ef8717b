//! Define buffers: where fetched columns go.
//!
//! Columns that may be longer than a static buffer are defined with a callback
//! (OCIDefineDynamic) that gives room piece by piece.

use crate::convert::{self, Buffer, Cell, Lengths, external};
use crate::error::{Fault, Outcome, SUCCESS, call};
use crate::handles::{self, Object, lock, statement};
use crate::memory;
use crate::trace;
use oracle_simulator::api::{OraError, Value};
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex};

/// OCI_CONTINUE, what a callback answers when it has done its part.
pub const CONTINUE: i32 = -24200;

const ONE_PIECE: u8 = 0;
const NEXT_PIECE: u8 = 2;

/// The size a client states for a value of any length.
const UNBOUNDED: usize = i32::MAX as usize;

pub type DefineCallback = unsafe extern "C" fn(
    context: *mut c_void,
    define: *mut c_void,
    iteration: u32,
    value: *mut *mut c_void,
    length: *mut *mut u32,
    piece: *mut u8,
    indicator: *mut *mut c_void,
    return_code: *mut *mut u16,
) -> i32;

/// What a define handle keeps.
#[derive(Debug)]
pub struct DefineState {
    buffer: Buffer,
    dynamic: Option<(*mut c_void, DefineCallback)>,
}

/// Room that a callback has given.
#[derive(Debug, Clone, Copy)]
pub struct Place {
    /// Where the value goes.
    pub value: *mut c_void,
    /// How much room there is; takes how much was used.
    pub length: *mut u32,
    pub indicator: *mut c_void,
    /// Its return code, or null.
    pub return_code: *mut u16,
}

impl Default for Place {
    fn default() -> Self {
        Self {
            value: std::ptr::null_mut(),
            length: std::ptr::null_mut(),
            indicator: std::ptr::null_mut(),
            return_code: std::ptr::null_mut(),
        }
    }
}

impl Place {
    /// # Safety
    /// `length` is null or valid for a read.
    unsafe fn cell(self, external: u16, size: usize) -> Cell {
        // SAFETY: as this function's own contract says.
        let room = unsafe { memory::get(self.length) }.map_or(size, |length| length as usize);
        Cell {
            value: self.value.cast(),
            size: room,
            external,
            indicator: self.indicator.cast(),
            length: Lengths::Long(self.length),
            return_code: self.return_code,
        }
    }
}

/// Writes a value to where a callback says, in pieces if it has no bound.
///
/// # Safety
/// `place` gives pointers that are null or valid for writes.
pub unsafe fn write_to(
    external: u16,
    size: usize,
    value: &Value,
    mut place: impl FnMut(u8) -> Result<Place, Fault>,
) -> Result<(), Fault> {
    // SAFETY: as this function's own contract says.
    let mut cell = unsafe { place(ONE_PIECE)?.cell(external, size) };
    let in_pieces =
        size >= UNBOUNDED && matches!(external, external::CHR | external::AFC | external::BIN);
    if !in_pieces || *value == Value::Null {
        // SAFETY: as this function's own contract says.
        return unsafe { cell.write(value) };
    }
    let bytes = convert::bytes_of(external, value)?;
    let mut rest = bytes.as_slice();
    loop {
        if cell.size == 0 {
            return Err(
                OraError::new(24343, "user defined callback error: it gave no room").into(),
            );
        }
        let (now, later) = rest.split_at(rest.len().min(cell.size));
        // SAFETY: the cell has room for `now`.
        unsafe { cell.write_bytes(now) };
        rest = later;
        if rest.is_empty() {
            return Ok(());
        }
        // SAFETY: as this function's own contract says.
        cell = unsafe { place(NEXT_PIECE)?.cell(external, size) };
    }
}

/// Writes a fetched value to the buffer's row.
///
/// # Safety
/// The buffer defined lives, or its callback gives such that do.
pub unsafe fn write(handle: &Arc<Object>, row: usize, value: &Value) -> Result<(), Fault> {
    let Object::Define(state) = &**handle else {
        return Err(Fault::Handle);
    };
    let (buffer, dynamic) = {
        let state = lock(state);
        (state.buffer, state.dynamic)
    };
    let Some((context, take)) = dynamic else {
        // SAFETY: as this function's own contract says.
        return unsafe { buffer.cell(row).write(value) };
    };
    let failed = || OraError::new(24343, "user defined callback error");
    let iteration = u32::try_from(row).map_err(|_| failed())?;
    let place = |mut piece: u8| {
        let mut place = Place::default();
        // SAFETY: a callback of OCIDefineDynamic with pointers to locals.
        let status = unsafe {
            take(
                context,
                Arc::as_ptr(handle).cast_mut().cast(),
                iteration,
                &raw mut place.value,
                &raw mut place.length,
                &raw mut piece,
                &raw mut place.indicator,
                &raw mut place.return_code,
            )
        };
        if status == CONTINUE {
            Ok(place)
        } else {
            Err(failed().into())
        }
    };
    // SAFETY: the callback gives places that live.
    unsafe { write_to(buffer.external, buffer.size, value, place) }
}

/// # Safety
/// The handles are as OCI's define calls want them.
unsafe fn enter(
    statement_handle: *mut c_void,
    define_handle: *mut *mut c_void,
    position: u32,
    buffer: Buffer,
) -> Outcome {
    trace::line(format_args!(
        "  position {position} external type {} size {}",
        buffer.external, buffer.size
    ));
    convert::kind(buffer.external, buffer.size)?;
    // SAFETY: as this function's own contract says.
    let mut statement = unsafe { statement(statement_handle) }?;
    if position == 0 {
        return Err(OraError::new(1007, "variable not in select list").into());
    }
    let object = Arc::new(Object::Define(Mutex::new(DefineState {
        buffer,
        dynamic: None,
    })));
    // SAFETY: OCI's contract: `define_handle` is valid for a write.
    unsafe { memory::put(define_handle, Arc::as_ptr(&object).cast_mut().cast()) };
    statement.defines.insert(position, object);
    Ok(SUCCESS)
}

/// Declares one of OCI's two define functions.
macro_rules! define_function {
    ($function:ident, $size:ty, $lengths:ident, $length:ty) => {
        #[doc = concat!(stringify!($function), ".")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(
            statement_handle: *mut c_void,
            define_handle: *mut *mut c_void,
            error_handle: *mut c_void,
            position: u32,
            value: *mut c_void,
            size: $size,
            external: u16,
            indicator: *mut i16,
            lengths: *mut $length,
            return_code: *mut u16,
            _mode: u32,
        ) -> c_int {
            let body = || {
                let size = usize::try_from(size)
                    .map_err(|_| OraError::new(1031, "invalid buffer size"))?;
                let buffer = Buffer {
                    value,
                    size,
                    external,
                    indicator,
                    lengths: Lengths::$lengths(lengths),
                    return_code,
                };
                // SAFETY: OCI's contract for the handles.
                unsafe { enter(statement_handle, define_handle, position, buffer) }
            };
            // SAFETY: the error handle lives, by OCI's contract.
            unsafe { call(stringify!($function), error_handle, body) }
        }
    };
}

define_function!(OCIDefineByPos, i32, Short, u16);
define_function!(OCIDefineByPos2, i64, Long, u32);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIDefineDynamic(
    define_handle: *mut c_void,
    error_handle: *mut c_void,
    context: *mut c_void,
    take: Option<DefineCallback>,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: a define handle that lives.
        let state = unsafe { handles::define(define_handle) }?;
        lock(state).dynamic = take.map(|take| (context, take));
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIDefineDynamic", error_handle, body) }
}
