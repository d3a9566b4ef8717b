//! Bind variables: where a statement's IN values come from and its OUT values
//! go to.
//!
//! Variables of a DML statement with a RETURNING clause are bound with
//! callbacks (OCIBindDynamic): how many values come back is known only after
//! the execution. Index-by tables are not supported.

use crate::convert::{Buffer, Cell, Lengths};
use crate::define::{self, CONTINUE, Place};
use crate::error::{Fault, Outcome, SUCCESS, call, unsupported};
use crate::handles::{self, Object, lock, statement};
use crate::memory;
use crate::trace;
use oracle_simulator::api::{OraError, Value};
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex};

/// How a variable was named.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum BindKey {
    /// By position, from 1.
    Position(u32),
    /// By name, upper case, without the colon.
    Name(String),
}

pub type InCallback = unsafe extern "C" fn(
    context: *mut c_void,
    bind: *mut c_void,
    iteration: u32,
    index: u32,
    value: *mut *mut c_void,
    length: *mut u32,
    piece: *mut u8,
    indicator: *mut *mut c_void,
) -> i32;

pub type OutCallback = unsafe extern "C" fn(
    context: *mut c_void,
    bind: *mut c_void,
    iteration: u32,
    index: u32,
    value: *mut *mut c_void,
    length: *mut *mut u32,
    piece: *mut u8,
    indicator: *mut *mut c_void,
    return_code: *mut *mut u16,
) -> i32;

/// The callbacks of OCIBindDynamic with their contexts.
#[derive(Debug, Clone, Copy)]
struct Dynamic {
    in_context: *mut c_void,
    give: InCallback,
    out_context: *mut c_void,
    take: OutCallback,
}

/// What a bind handle keeps.
#[derive(Debug)]
pub struct BindState {
    buffer: Buffer,
    dynamic: Option<Dynamic>,
    /// OCI_ATTR_ROWS_RETURNED, read by the client's own callback.
    pub rows_returned: u32,
}

impl BindState {
    pub fn buffer(&self) -> Buffer {
        self.buffer
    }
}

fn callback_failed() -> Fault {
    OraError::new(24343, "user defined callback error").into()
}

/// The IN value of a row.
///
/// # Safety
/// The buffers bound live, or the callbacks give such that do.
pub unsafe fn read(handle: &Arc<Object>, row: usize) -> Result<Value, Fault> {
    let Object::Bind(state) = &**handle else {
        return Err(Fault::Handle);
    };
    let (buffer, dynamic) = {
        let state = lock(state);
        (state.buffer, state.dynamic)
    };
    let Some(Dynamic {
        in_context, give, ..
    }) = dynamic
    else {
        // SAFETY: as this function's own contract says.
        return unsafe { buffer.cell(row).read() };
    };
    let (mut value, mut length, mut piece) = (std::ptr::null_mut(), 0u32, 0u8);
    let mut indicator = std::ptr::null_mut();
    let iteration = u32::try_from(row).map_err(|_| callback_failed())?;
    // SAFETY: a callback of OCIBindDynamic with valid pointers to locals.
    let status = unsafe {
        give(
            in_context,
            Arc::as_ptr(handle).cast_mut().cast(),
            iteration,
            0,
            &raw mut value,
            &raw mut length,
            &raw mut piece,
            &raw mut indicator,
        )
    };
    if status != CONTINUE {
        return Err(callback_failed());
    }
    let cell = Cell {
        value: value.cast(),
        size: length as usize,
        external: buffer.external,
        indicator: indicator.cast(),
        length: Lengths::Long(&raw mut length),
        return_code: std::ptr::null_mut(),
    };
    // SAFETY: the callback has just given these.
    unsafe { cell.read() }
}

/// Writes the OUT values of a row: one for a block, as many as rows were
/// touched for RETURNING.
///
/// # Safety
/// As [`read`].
pub unsafe fn write(handle: &Arc<Object>, row: usize, values: &[Value]) -> Result<(), Fault> {
    let Object::Bind(state) = &**handle else {
        return Err(Fault::Handle);
    };
    let (buffer, dynamic) = {
        let mut state = lock(state);
        state.rows_returned = u32::try_from(values.len()).unwrap_or(u32::MAX);
        (state.buffer, state.dynamic)
    };
    let Some(Dynamic {
        out_context, take, ..
    }) = dynamic
    else {
        return match values {
            [] => Ok(()),
            // SAFETY: as this function's own contract says.
            [value] => unsafe { buffer.cell(row).write(value) },
            _ => Err(unsupported("several returned rows for a variable without callbacks").into()),
        };
    };
    let iteration = u32::try_from(row).map_err(|_| callback_failed())?;
    for (index, value) in (0u32..).zip(values) {
        let mut size = u32::try_from(buffer.size).unwrap_or(u32::MAX);
        let place = |mut piece: u8| {
            let mut place = Place {
                length: &raw mut size,
                ..Place::default()
            };
            // SAFETY: a callback of OCIBindDynamic with pointers to locals.
            let status = unsafe {
                take(
                    out_context,
                    Arc::as_ptr(handle).cast_mut().cast(),
                    iteration,
                    index,
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
                Err(callback_failed())
            }
        };
        // SAFETY: the callback gives places that live.
        unsafe { define::write_to(buffer.external, buffer.size, value, place) }?;
    }
    Ok(())
}

/// Enters a variable into its statement; the same variable bound again takes
/// the place of the former.
///
/// # Safety
/// `statement_handle` and `bind_handle` are as OCI's bind calls want them.
unsafe fn enter(
    statement_handle: *mut c_void,
    bind_handle: *mut *mut c_void,
    key: BindKey,
    buffer: Buffer,
) -> Outcome {
    trace::line(format_args!(
        "  {key:?} external type {} size {}",
        buffer.external, buffer.size
    ));
    // Asked now so that a type the double doesn't know fails where it is named.
    crate::convert::kind(buffer.external, buffer.size)?;
    // SAFETY: as this function's own contract says.
    let mut statement = unsafe { statement(statement_handle) }?;
    let known = match &key {
        BindKey::Position(position) => (1..=statement.order.len()).contains(&(*position as usize)),
        BindKey::Name(name) => statement.order.contains(name),
    };
    if !known {
        return Err(OraError::new(1036, "illegal variable name/number").into());
    }
    let state = BindState {
        buffer,
        dynamic: None,
        rows_returned: 0,
    };
    let object = Arc::new(Object::Bind(Mutex::new(state)));
    // SAFETY: OCI's contract: `bind_handle` is valid for a write.
    unsafe { memory::put(bind_handle, Arc::as_ptr(&object).cast_mut().cast()) };
    statement.binds.retain(|(other, _)| *other != key);
    statement.binds.push((key, object));
    Ok(SUCCESS)
}

/// # Safety
/// `name` is valid for reads of `length` bytes.
unsafe fn name_key(name: *const c_void, length: i32) -> BindKey {
    // SAFETY: as this function's own contract says.
    let name = unsafe { memory::text(name, usize::try_from(length).unwrap_or(0)) };
    let name = name.strip_prefix(':').unwrap_or(&name);
    match name
        .strip_prefix('"')
        .and_then(|name| name.strip_suffix('"'))
    {
        Some(quoted) => BindKey::Name(quoted.to_owned()),
        None => BindKey::Name(name.to_uppercase()),
    }
}

fn refuse_tables(elements: *const u32) -> Result<(), Fault> {
    if elements.is_null() {
        Ok(())
    } else {
        Err(unsupported("an index-by table as a bind variable").into())
    }
}

/// Declares one of OCI's four bind functions.
macro_rules! bind_function {
    ($function:ident, ($($named:ident: $type:ty),*), $key:expr, $size:ty, $lengths:ident, $length:ty) => {
        #[doc = concat!(stringify!($function), ".")]
        #[unsafe(no_mangle)]
        pub unsafe extern "C" fn $function(
            statement_handle: *mut c_void,
            bind_handle: *mut *mut c_void,
            error_handle: *mut c_void,
            $($named: $type,)*
            value: *mut c_void,
            size: $size,
            external: u16,
            indicator: *mut i16,
            lengths: *mut $length,
            return_code: *mut u16,
            _table_size: u32,
            table_elements: *mut u32,
            _mode: u32,
        ) -> c_int {
            let body = || {
                refuse_tables(table_elements)?;
                let size = usize::try_from(size).map_err(|_| OraError::new(1031, "invalid buffer size"))?;
                let buffer =
                    Buffer { value, size, external, indicator, lengths: Lengths::$lengths(lengths), return_code };
                // SAFETY: OCI's contract for the handles and the name.
                unsafe { enter(statement_handle, bind_handle, $key, buffer) }
            };
            // SAFETY: the error handle lives, by OCI's contract.
            unsafe { call(stringify!($function), error_handle, body) }
        }
    };
}

bind_function!(OCIBindByPos, (position: u32), BindKey::Position(position), i32, Short, u16);
bind_function!(OCIBindByPos2, (position: u32), BindKey::Position(position), i64, Long, u32);
bind_function!(OCIBindByName, (name: *const c_void, name_length: i32), name_key(name, name_length), i32, Short, u16);
bind_function!(OCIBindByName2, (name: *const c_void, name_length: i32), name_key(name, name_length), i64, Long, u32);

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIBindDynamic(
    bind_handle: *mut c_void,
    error_handle: *mut c_void,
    in_context: *mut c_void,
    give: Option<InCallback>,
    out_context: *mut c_void,
    take: Option<OutCallback>,
) -> c_int {
    let body = || {
        let (Some(give), Some(take)) = (give, take) else {
            return Err(callback_failed());
        };
        // SAFETY: OCI's contract: a bind handle that lives.
        let state = unsafe { handles::bind(bind_handle) }?;
        lock(state).dynamic = Some(Dynamic {
            in_context,
            give,
            out_context,
            take,
        });
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIBindDynamic", error_handle, body) }
}
