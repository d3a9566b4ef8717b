//! How a call ends: status codes, the error handle, and the guard around
//! every exported function.

use crate::handles::{Object, object};
use crate::trace;
use oracle_simulator::api::OraError;
use std::ffi::{c_char, c_int, c_void};
use std::panic::{AssertUnwindSafe, catch_unwind};

pub const SUCCESS: c_int = 0;
pub const NO_DATA: c_int = 100;
pub const ERROR: c_int = -1;
pub const INVALID_HANDLE: c_int = -2;

/// Why a call failed.
#[derive(Debug)]
pub enum Fault {
    /// An ORA error, to be fetched from the error handle.
    Ora(OraError),
    /// A handle that is null or of another type.
    Handle,
}

impl From<OraError> for Fault {
    fn from(error: OraError) -> Self {
        Self::Ora(error)
    }
}

/// What the body of an exported function gives back.
pub type Outcome = Result<c_int, Fault>;

/// ORA-03001 with a word on what it was.
pub fn unsupported(what: &str) -> OraError {
    trace::unsupported(format_args!("{what}"));
    OraError::new(3001, format!("unimplemented feature: {what}"))
}

/// Runs the body of an exported function: traces it, keeps panics from
/// crossing into C, and leaves the error, if any, in the error handle.
///
/// # Safety
/// `error_handle` is null or an OCI error handle that lives.
pub unsafe fn call(name: &str, error_handle: *mut c_void, body: impl FnOnce() -> Outcome) -> c_int {
    trace::line(format_args!("{name}"));
    let outcome = catch_unwind(AssertUnwindSafe(body)).unwrap_or_else(|_| {
        Err(Fault::Ora(OraError::new(
            24330,
            format!("internal OCI error: a panic in {name}"),
        )))
    });
    match outcome {
        Ok(status) => status,
        Err(Fault::Handle) => {
            trace::line(format_args!("  {name}: invalid handle"));
            INVALID_HANDLE
        }
        Err(Fault::Ora(error)) => {
            trace::line(format_args!("  {name}: {error} at {}", error.offset));
            // SAFETY: as this function's own contract says.
            if let Ok(Object::Error(record)) = unsafe { object(error_handle) } {
                record.set(error);
            }
            ERROR
        }
    }
}

/// OCIErrorGet: the error left by the last call that failed.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIErrorGet(
    handle: *mut c_void,
    record: u32,
    _sqlstate: *mut c_void,
    code: *mut i32,
    buffer: *mut c_char,
    size: u32,
    _kind: u32,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: a live handle.
        let Object::Error(last) = (unsafe { object(handle) })? else {
            return Err(Fault::Handle);
        };
        let Some(error) = last.get().filter(|_| record == 1) else {
            return Ok(NO_DATA);
        };
        let text = format!("{error}\n");
        // SAFETY: OCI's contract: `buffer` holds `size` bytes, `code` is valid.
        unsafe {
            crate::memory::put(code, i32::try_from(error.code).unwrap_or(i32::MAX));
            crate::memory::put_c_text(buffer, size as usize, &text);
        }
        Ok(SUCCESS)
    };
    // SAFETY: no error handle is given.
    unsafe { call("OCIErrorGet", std::ptr::null_mut(), body) }
}
