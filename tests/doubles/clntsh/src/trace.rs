//! A trace of every call, for whoever has to find out what a client wants.

use std::fmt;
use std::fs::{File, OpenOptions};
use std::io::Write;
use std::sync::{Mutex, OnceLock, PoisonError};

/// Names the file the trace is appended to.
pub const VARIABLE: &str = "LOCKSTEP_CLNTSH_TRACE";

/// Adds a line, where a trace is wanted. A trace that can't be written is
/// given up without a word: the calls themselves matter more.
pub fn line(text: fmt::Arguments<'_>) {
    static TRACE: OnceLock<Option<Mutex<File>>> = OnceLock::new();
    let trace = TRACE.get_or_init(|| {
        let path = std::env::var_os(VARIABLE)?;
        OpenOptions::new()
            .create(true)
            .append(true)
            .open(path)
            .ok()
            .map(Mutex::new)
    });
    if let Some(file) = trace {
        let mut file = file.lock().unwrap_or_else(PoisonError::into_inner);
        let _ = writeln!(file, "{text}");
    }
}

/// Says on standard error, and in the trace, that a client asked for something
/// the double does not do. Silence would pass for success.
pub fn unsupported(text: fmt::Arguments<'_>) {
    eprintln!("libclntsh double: {text}");
    line(format_args!("UNSUPPORTED {text}"));
}
