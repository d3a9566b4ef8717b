//! What a client can ask of a statement: its bind names and its columns; and
//! of an error handle: the rows of a batch that failed.

use crate::error::{Fault, NO_DATA, SUCCESS, call};
use crate::handles::{Object, allocate, lock, object, statement};
use crate::memory;
use oracle_simulator::api::OraError;
use std::ffi::{c_char, c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// OCIStmtGetBindInfo: the names of the bind variables from `start` on.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIStmtGetBindInfo(
    statement_handle: *mut c_void,
    error_handle: *mut c_void,
    size: u32,
    start: u32,
    found: *mut i32,
    names: *mut *const c_char,
    name_lengths: *mut u8,
    indicators: *mut *const c_char,
    indicator_lengths: *mut u8,
    duplicates: *mut u8,
    binds: *mut *mut c_void,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: a live handle.
        let statement = unsafe { statement(statement_handle) }?;
        let all = &statement.prepared.names;
        let total = i32::try_from(all.len()).unwrap_or(i32::MAX);
        let first = (start as usize).saturating_sub(1);
        let Some(rest) = all.get(first..).filter(|rest| !rest.is_empty()) else {
            // SAFETY: OCI's contract: valid for a write.
            unsafe { memory::put(found, 0) };
            return Ok(NO_DATA);
        };
        let shown = rest.len().min(size as usize);
        for (index, name) in rest.iter().take(shown).enumerate() {
            let duplicate = all[..first + index].contains(name);
            // SAFETY: OCI's contract: each array holds `size` places, and
            // `shown <= size`; the names live as long as the statement.
            unsafe {
                memory::put(names.wrapping_add(index), name.as_ptr().cast());
                memory::put(
                    name_lengths.wrapping_add(index),
                    u8::try_from(name.len()).unwrap_or(u8::MAX),
                );
                memory::put(indicators.wrapping_add(index), std::ptr::null());
                memory::put(indicator_lengths.wrapping_add(index), 0);
                memory::put(duplicates.wrapping_add(index), duplicate.into());
                memory::put(binds.wrapping_add(index), std::ptr::null_mut());
            }
        }
        // A negative number says that there are more than there was room for.
        let complete = first + shown == all.len();
        // SAFETY: OCI's contract: valid for a write.
        unsafe { memory::put(found, if complete { total } else { -total }) };
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIStmtGetBindInfo", error_handle, body) }
}

/// OCIParamGet: a column of a statement, from 1, or a failed row of the last
/// batch, from 0.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIParamGet(
    handle: *const c_void,
    _kind: u32,
    error_handle: *mut c_void,
    parameter: *mut *mut c_void,
    position: u32,
) -> c_int {
    let none = || Fault::from(OraError::new(24334, "no descriptor for this position"));
    // SAFETY: OCI's contract: a live handle.
    let body = || match unsafe { object(handle) }? {
        Object::Statement(statement) => {
            let statement = lock(statement);
            let index = (position as usize).checked_sub(1).ok_or_else(none)?;
            let column = statement.columns.get(index).ok_or_else(none)?;
            // SAFETY: OCI's contract: valid for a write.
            unsafe { memory::put(parameter, allocate(Object::Column(Arc::clone(column)))) };
            Ok(SUCCESS)
        }
        Object::Error(record) => {
            let failure = record.batch_error(position as usize).ok_or_else(none)?;
            // SAFETY: OCI's contract: points at an error handle of the client.
            let Object::Error(target) = (unsafe { object(*parameter) })? else {
                return Err(Fault::Handle);
            };
            target.row.store(failure.row, SeqCst);
            target.set(failure.error);
            Ok(SUCCESS)
        }
        _ => Err(Fault::Handle),
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIParamGet", error_handle, body) }
}
