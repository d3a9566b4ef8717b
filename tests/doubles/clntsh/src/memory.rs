//! The few ways in which the double touches the client's memory.

use std::ffi::{c_char, c_void};

/// Writes through a pointer that may be null or unaligned.
///
/// # Safety
/// `target` is null or valid for a write of `T`.
pub unsafe fn put<T>(target: *mut T, value: T) {
    if !target.is_null() {
        // SAFETY: as this function's own contract says.
        unsafe { target.write_unaligned(value) };
    }
}

/// Writes text and a terminating zero, cut to the buffer.
///
/// # Safety
/// `buffer` is null or valid for writes of `size` bytes.
pub unsafe fn put_c_text(buffer: *mut c_char, size: usize, text: &str) {
    if buffer.is_null() || size == 0 {
        return;
    }
    let length = text.len().min(size - 1);
    // SAFETY: `length + 1 <= size`, and the text is not part of the buffer.
    unsafe {
        std::ptr::copy_nonoverlapping(text.as_ptr(), buffer.cast(), length);
        buffer.add(length).write(0);
    }
}

/// The bytes a client points at; none for a null pointer.
///
/// # Safety
/// `start` is null or valid for reads of `length` bytes, which nobody changes
/// as long as the slice lives.
pub unsafe fn bytes<'a>(start: *const u8, length: usize) -> &'a [u8] {
    if start.is_null() {
        return &[];
    }
    // SAFETY: as this function's own contract says.
    unsafe { std::slice::from_raw_parts(start, length) }
}

/// Text a client points at; bytes that are not UTF-8 are replaced.
///
/// # Safety
/// As [`bytes`].
pub unsafe fn text(start: *const c_void, length: usize) -> String {
    // SAFETY: as this function's own contract says.
    String::from_utf8_lossy(unsafe { bytes(start.cast(), length) }).into_owned()
}

/// A value a client points at.
///
/// # Safety
/// `source` is null or valid for a read of `T`, for which any bytes are valid.
pub unsafe fn get<T: Copy>(source: *const T) -> Option<T> {
    if source.is_null() {
        return None;
    }
    // SAFETY: as this function's own contract says.
    Some(unsafe { source.read_unaligned() })
}
