//! Attaching to a server, beginning and ending sessions, transactions, breaks.

use crate::error::{Outcome, SUCCESS, call, unsupported};
use crate::handles::{Object, lock, object, server, service, session};
use crate::link::{self, Connection};
use crate::memory;
use crate::sigchld;
use crate::target;
use crate::trace;
use oracle_simulator::api::OraError;
use oracle_simulator::wire::{Answer, Logon, Request, Target};
use std::ffi::{CStr, c_char, c_int, c_void};
use std::path::PathBuf;
use std::sync::Arc;

/// OCI_CRED_RDBMS: user name and password.
const BY_PASSWORD: u32 = 1;
/// OCI_CRED_EXT: the operating system vouches.
const BY_OPERATING_SYSTEM: u32 = 2;

const SYSDBA: u32 = 0x2;
const STATEMENT_CACHE: u32 = 0x40;

/// OCIServerAttach: connects. ORACLE_HOME and ORACLE_SID are read here, so a
/// process may set them as late as that.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIServerAttach(
    server_handle: *mut c_void,
    error_handle: *mut c_void,
    connect_string: *const c_void,
    length: i32,
    _mode: u32,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: a live handle, and text of that length.
        let (server, text) = unsafe {
            (
                server(server_handle)?,
                memory::text(connect_string, usize::try_from(length).unwrap_or(0)),
            )
        };
        trace::line(format_args!("  '{text}'"));
        let home = std::env::var_os("ORACLE_HOME").map(PathBuf::from);
        let destination = target::parse(&text, home, std::env::var("ORACLE_SID").ok())?;
        if matches!(destination.targets.as_slice(), [Target::Unix(_)]) {
            sigchld::take_over();
        }
        *lock(&server.connection) = Some(Arc::new(Connection::open(&destination)?));
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIServerAttach", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIServerDetach(
    server_handle: *mut c_void,
    error_handle: *mut c_void,
    _mode: u32,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: a live handle.
        if let Some(connection) = lock(&unsafe { server(server_handle) }?.connection).take() {
            connection.client().close();
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIServerDetach", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCISessionBegin(
    service_handle: *mut c_void,
    error_handle: *mut c_void,
    session_handle: *mut c_void,
    credentials: u32,
    mode: u32,
) -> c_int {
    let body = || {
        trace::line(format_args!("  credentials {credentials} mode {mode:#x}"));
        if mode & !(SYSDBA | STATEMENT_CACHE) != 0 {
            return Err(unsupported(&format!("session mode {mode:#x}")).into());
        }
        // SAFETY: OCI's contract: live handles.
        let (service, session) = unsafe { (service(service_handle)?, session(session_handle)?) };
        let password = match credentials {
            BY_PASSWORD => Some(lock(&session.login).clone()),
            BY_OPERATING_SYSTEM => None,
            other => return Err(unsupported(&format!("credentials {other}")).into()),
        };
        let logon = logon(password, mode & SYSDBA != 0);
        let link = service.link()?;
        let Answer::LoggedOn { sid, serial } = link.call(Request::Logon(logon))? else {
            return Err(link::protocol_error().into());
        };
        trace::line(format_args!("  session {sid},{serial}"));
        *lock(&session.connection) = Some(link.connection);
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCISessionBegin", error_handle, body) }
}

/// What V$SESSION is told of this process, in the words of the real library.
fn logon(password: Option<(String, String)>, sysdba: bool) -> Logon {
    let machine = machine();
    let program = std::env::current_exe()
        .ok()
        .and_then(|path| {
            path.file_name()
                .map(|name| name.to_string_lossy().into_owned())
        })
        .unwrap_or_else(|| "unknown".into());
    Logon {
        password,
        sysdba,
        program: format!("{program}@{machine} (TNS V1-V3)"),
        machine,
        os_user: os_user(),
        process: std::process::id().to_string(),
    }
}

fn machine() -> String {
    let mut name: [c_char; 256] = [0; 256];
    // SAFETY: the buffer is one byte longer than is told, so it stays closed
    // by a zero whatever is written.
    if unsafe { libc::gethostname(name.as_mut_ptr(), name.len() - 1) } != 0 {
        return "localhost".into();
    }
    // SAFETY: closed by a zero, as said.
    unsafe { CStr::from_ptr(name.as_ptr()) }
        .to_string_lossy()
        .into_owned()
}

fn os_user() -> String {
    let mut buffer: [c_char; 4096] = [0; 4096];
    // SAFETY: passwd is plain data, for which zeroes are valid.
    let mut entry: libc::passwd = unsafe { std::mem::zeroed() };
    let mut found = std::ptr::null_mut();
    // SAFETY: all pointers are to locals, and the length is the buffer's.
    unsafe {
        let uid = libc::geteuid();
        let status = libc::getpwuid_r(
            uid,
            &raw mut entry,
            buffer.as_mut_ptr(),
            buffer.len(),
            &raw mut found,
        );
        if status == 0 && !found.is_null() && !entry.pw_name.is_null() {
            return CStr::from_ptr(entry.pw_name).to_string_lossy().into_owned();
        }
        uid.to_string()
    }
}

/// A call that a service context makes and that answers nothing.
///
/// # Safety
/// The handles live.
unsafe fn plain(
    name: &str,
    service_handle: *mut c_void,
    error_handle: *mut c_void,
    request: Request,
) -> c_int {
    let body = || {
        // SAFETY: as this function's own contract says.
        unsafe { service(service_handle) }?.link()?.call(request)?;
        Ok(SUCCESS)
    };
    // SAFETY: as this function's own contract says.
    unsafe { call(name, error_handle, body) }
}

/// OCISessionEnd: logs off. A session that is dead already has ended.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCISessionEnd(
    service_handle: *mut c_void,
    error_handle: *mut c_void,
    session_handle: *mut c_void,
    _mode: u32,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: live handles.
        let (service, session) = unsafe { (service(service_handle)?, session(session_handle)?) };
        if lock(&session.connection)
            .take()
            .is_some_and(|connection| connection.usable())
        {
            service.link()?.call(Request::Logoff)?;
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCISessionEnd", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIPing(
    service_handle: *mut c_void,
    error_handle: *mut c_void,
    _mode: u32,
) -> c_int {
    // SAFETY: OCI's contract: live handles.
    unsafe { plain("OCIPing", service_handle, error_handle, Request::Ping) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCITransCommit(
    service_handle: *mut c_void,
    error_handle: *mut c_void,
    _flags: u32,
) -> c_int {
    // SAFETY: OCI's contract: live handles.
    unsafe {
        plain(
            "OCITransCommit",
            service_handle,
            error_handle,
            Request::Commit,
        )
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCITransRollback(
    service_handle: *mut c_void,
    error_handle: *mut c_void,
    _flags: u32,
) -> c_int {
    // SAFETY: OCI's contract: live handles.
    unsafe {
        plain(
            "OCITransRollback",
            service_handle,
            error_handle,
            Request::Rollback,
        )
    }
}

/// OCIBreak: interrupts the call that another thread makes.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIBreak(handle: *mut c_void, error_handle: *mut c_void) -> c_int {
    let body = || -> Outcome {
        // SAFETY: OCI's contract: a live service context or server handle.
        let connection = match unsafe { object(handle) }? {
            Object::Service(service) => service.link()?.connection,
            Object::Server(server) => lock(&server.connection)
                .clone()
                .ok_or_else(|| OraError::new(3114, "not connected to ORACLE"))?,
            _ => return Err(crate::error::Fault::Handle),
        };
        connection
            .client()
            .cancel()
            .map_err(|_| OraError::new(3113, "end-of-file on communication channel"))?;
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIBreak", error_handle, body) }
}

/// OCIReset: an interrupted call leaves nothing here that would need it.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIReset(_handle: *mut c_void, _error_handle: *mut c_void) -> c_int {
    SUCCESS
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIServerRelease(
    handle: *mut c_void,
    error_handle: *mut c_void,
    buffer: *mut c_char,
    size: u32,
    kind: u8,
    release: *mut u32,
) -> c_int {
    // SAFETY: the same contract.
    unsafe { OCIServerRelease2(handle, error_handle, buffer, size, kind, release, 0) }
}

/// OCIServerRelease2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIServerRelease2(
    handle: *mut c_void,
    error_handle: *mut c_void,
    buffer: *mut c_char,
    size: u32,
    _kind: u8,
    release: *mut u32,
    _mode: u32,
) -> c_int {
    let body = || -> Outcome {
        // SAFETY: OCI's contract: a live service context or server handle.
        let connection = match unsafe { object(handle) }? {
            Object::Service(service) => Some(service.link()?.connection),
            Object::Server(server) => lock(&server.connection).clone(),
            _ => return Err(crate::error::Fault::Handle),
        };
        let connection =
            connection.ok_or_else(|| OraError::new(3114, "not connected to ORACLE"))?;
        let welcome = connection.client().welcome();
        // SAFETY: OCI's contract: `size` bytes, and a pointer valid for a write.
        unsafe {
            memory::put_c_text(buffer, size as usize, &welcome.banner);
            memory::put(release, welcome.release);
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIServerRelease2", error_handle, body) }
}
