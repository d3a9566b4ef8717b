//! The library and its environment: version, threads, character sets.
//!
//! One character set is spoken, AL32UTF8, on both sides; asking for another
//! fails.

use crate::error::{self, SUCCESS, call};
use crate::handles::{Object, allocate};
use crate::memory;
use oracle_simulator::api::OraError;
use std::ffi::{CStr, c_char, c_int, c_void};

/// NLS_CHARSET_ID of AL32UTF8.
const AL32UTF8: u16 = 873;

/// OCI_NLS_CHARSET_MAXBYTESZ.
const MAX_BYTES_PER_CHARACTER: u16 = 91;

/// OCIClientVersion: 19.3, old enough for ODPI-C to ask little, new enough for
/// call timeouts.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIClientVersion(
    major: *mut c_int,
    minor: *mut c_int,
    update: *mut c_int,
    patch: *mut c_int,
    port: *mut c_int,
) {
    // SAFETY: OCI's contract: five valid pointers.
    unsafe {
        memory::put(major, 19);
        memory::put(minor, 3);
        memory::put(update, 0);
        memory::put(patch, 0);
        memory::put(port, 0);
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIEnvNlsCreate(
    environment: *mut *mut c_void,
    _mode: u32,
    _context: *mut c_void,
    _malloc: *mut c_void,
    _realloc: *mut c_void,
    _free: *mut c_void,
    _extra: usize,
    _memory: *mut c_void,
    charset: u16,
    ncharset: u16,
) -> c_int {
    let body = || {
        for wanted in [charset, ncharset] {
            if wanted != 0 && wanted != AL32UTF8 {
                return Err(error::unsupported(&format!("character set {wanted}")).into());
            }
        }
        let object = Object::Environment {
            charset: AL32UTF8,
            ncharset: AL32UTF8,
        };
        // SAFETY: OCI's contract: `environment` is valid for a write.
        unsafe { memory::put(environment, allocate(object)) };
        Ok(SUCCESS)
    };
    // SAFETY: no error handle exists yet.
    unsafe { call("OCIEnvNlsCreate", std::ptr::null_mut(), body) }
}

/// OCIThreadProcessInit: nothing to prepare.
#[unsafe(no_mangle)]
pub extern "C" fn OCIThreadProcessInit() {}

/// OCIThreadKeyInit: a thread-specific value with a destructor.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIThreadKeyInit(
    _environment: *mut c_void,
    error_handle: *mut c_void,
    key: *mut *mut c_void,
    destructor: Option<unsafe extern "C" fn(*mut c_void)>,
) -> c_int {
    let body = || {
        let mut made: libc::pthread_key_t = 0;
        // SAFETY: `made` is valid for a write; the destructor is the client's.
        if unsafe { libc::pthread_key_create(&raw mut made, destructor) } != 0 {
            return Err(OraError::new(24330, "internal OCI error: no thread key is left").into());
        }
        // Keys count from 0 and a null pointer means none.
        // SAFETY: OCI's contract: `key` is valid for a write.
        unsafe { memory::put(key, (made as usize + 1) as *mut c_void) };
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIThreadKeyInit", error_handle, body) }
}

fn thread_key(key: *mut c_void) -> libc::pthread_key_t {
    libc::pthread_key_t::try_from((key as usize).wrapping_sub(1))
        .unwrap_or(libc::pthread_key_t::MAX)
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIThreadKeyGet(
    _environment: *mut c_void,
    _error_handle: *mut c_void,
    key: *mut c_void,
    value: *mut *mut c_void,
) -> c_int {
    // SAFETY: a key from OCIThreadKeyInit, and a pointer valid for a write.
    unsafe { memory::put(value, libc::pthread_getspecific(thread_key(key))) };
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIThreadKeySet(
    _environment: *mut c_void,
    _error_handle: *mut c_void,
    key: *mut c_void,
    value: *mut c_void,
) -> c_int {
    // SAFETY: a key from OCIThreadKeyInit.
    if unsafe { libc::pthread_setspecific(thread_key(key), value) } == 0 {
        SUCCESS
    } else {
        error::ERROR
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIThreadKeyDestroy(
    _environment: *mut c_void,
    _error_handle: *mut c_void,
    key: *mut *mut c_void,
) -> c_int {
    // SAFETY: OCI's contract: `key` points at a key from OCIThreadKeyInit.
    unsafe {
        libc::pthread_key_delete(thread_key(*key));
        memory::put(key, std::ptr::null_mut());
    }
    SUCCESS
}

/// OCINlsNumericInfoGet: how wide a character can be.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINlsNumericInfoGet(
    _environment: *mut c_void,
    error_handle: *mut c_void,
    value: *mut i32,
    item: u16,
) -> c_int {
    let body = || match item {
        MAX_BYTES_PER_CHARACTER => {
            // SAFETY: OCI's contract: `value` is valid for a write.
            unsafe { memory::put(value, 4) };
            Ok(SUCCESS)
        }
        _ => Err(error::unsupported(&format!("NLS item {item}")).into()),
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCINlsNumericInfoGet", error_handle, body) }
}

/// OCINlsEnvironmentVariableGet: NLS_LANG always says AL32UTF8.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINlsEnvironmentVariableGet(
    value: *mut u16,
    _size: usize,
    _item: u16,
    _charset: u16,
    length: *mut usize,
) -> c_int {
    // SAFETY: OCI's contract: room for a character set id, and for its length.
    unsafe {
        memory::put(value, AL32UTF8);
        memory::put(length, 2);
    }
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINlsCharSetNameToId(
    _environment: *mut c_void,
    name: *const c_char,
) -> u16 {
    // SAFETY: OCI's contract: a terminated string.
    match unsafe { CStr::from_ptr(name) }.to_bytes() {
        b"AL32UTF8" | b"UTF8" => AL32UTF8,
        _ => 0,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINlsCharSetIdToName(
    _environment: *mut c_void,
    buffer: *mut c_char,
    size: usize,
    id: u16,
) -> c_int {
    if id != AL32UTF8 {
        return error::ERROR;
    }
    // SAFETY: OCI's contract: `buffer` holds `size` bytes.
    unsafe { memory::put_c_text(buffer, size, "AL32UTF8") };
    SUCCESS
}

/// OCINlsNameMap: Oracle's and IANA's name of the one character set.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCINlsNameMap(
    _environment: *mut c_void,
    buffer: *mut c_char,
    size: usize,
    name: *const c_char,
    direction: u32,
) -> c_int {
    // SAFETY: OCI's contract: a terminated string.
    let name = unsafe { CStr::from_ptr(name) }
        .to_string_lossy()
        .to_ascii_lowercase();
    let mapped = match (direction, name.as_str()) {
        (0, "utf-8") => "AL32UTF8",
        (1, "al32utf8") => "UTF-8",
        _ => return error::ERROR,
    };
    // SAFETY: OCI's contract: `buffer` holds `size` bytes.
    unsafe { memory::put_c_text(buffer, size, mapped) };
    SUCCESS
}
