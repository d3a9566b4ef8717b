//! Attributes of handles: what clients ask and set through OCIAttrGet and
//! OCIAttrSet.
//!
//! Attribute numbers mean something only together with the type of the handle,
//! and each has a width of its own, which the client does not pass. An
//! attribute that isn't listed here answers ORA-24315 and is reported aloud.

use crate::error::{Fault, SUCCESS, call};
use crate::handles::{Object, Server, Service, Session, lock, object};
use crate::link::{Link, Names};
use crate::memory;
use crate::statement::Statement;
use crate::trace;
use oracle_simulator::api::{Column, Kind, OraError};
use std::ffi::{c_int, c_void};
use std::sync::Arc;
use std::sync::atomic::Ordering::SeqCst;

/// An attribute's value in the width the client reads.
enum Given {
    U8(u8),
    I8(i8),
    U16(u16),
    I16(i16),
    U32(u32),
    I32(i32),
    U64(u64),
    Pointer(*mut c_void),
    /// A pointer to bytes that the handle keeps, with their length.
    Text(*const u8, usize),
    /// A pointer to an array that the handle keeps, with its length.
    Counts(*const u64, usize),
}

impl Given {
    fn text(text: &str) -> Self {
        Self::Text(text.as_ptr(), text.len())
    }

    /// # Safety
    /// `target` is valid for a write of the attribute, `size` null or valid.
    unsafe fn write(self, target: *mut c_void, size: *mut u32) {
        // SAFETY: as this function's own contract says.
        unsafe {
            match self {
                Self::U8(value) => memory::put(target.cast(), value),
                Self::I8(value) => memory::put(target.cast(), value),
                Self::U16(value) => memory::put(target.cast(), value),
                Self::I16(value) => memory::put(target.cast(), value),
                Self::U32(value) => memory::put(target.cast(), value),
                Self::I32(value) => memory::put(target.cast(), value),
                Self::U64(value) => memory::put(target.cast(), value),
                Self::Pointer(value) => memory::put(target.cast(), value),
                Self::Text(start, length) => {
                    memory::put(target.cast(), start);
                    memory::put(size, u32::try_from(length).unwrap_or(u32::MAX));
                }
                Self::Counts(start, length) => {
                    memory::put(target.cast(), start);
                    memory::put(size, u32::try_from(length).unwrap_or(u32::MAX));
                }
            }
        }
    }
}

fn unknown(what: &str, handle: &Object, attribute: u32) -> Fault {
    let kind = match handle {
        Object::Environment { .. } => "environment",
        Object::Error(_) => "error",
        Object::Service(_) => "service context",
        Object::Server(_) => "server",
        Object::Session(_) => "session",
        Object::Statement(_) => "statement",
        Object::Bind(_) => "bind",
        Object::Define(_) => "define",
        Object::Column(_) => "column",
        Object::Timestamp(_) => "timestamp",
    };
    trace::unsupported(format_args!(
        "attribute {attribute} of a {kind} handle can't be {what}"
    ));
    OraError::new(
        24315,
        format!("illegal attribute type: {attribute} of a {kind} handle"),
    )
    .into()
}

fn get(handle: &Object, attribute: u32) -> Result<Given, Fault> {
    let given = match handle {
        Object::Environment { charset, ncharset } => match attribute {
            31 => Some(Given::U16(*charset)),
            262 => Some(Given::U16(*ncharset)),
            _ => None,
        },
        Object::Error(record) => match attribute {
            74 => Some(Given::U32(record.row.load(SeqCst))),
            // No error is recoverable in the sense of Transaction Guard.
            472 => Some(Given::I32(0)),
            _ => None,
        },
        Object::Service(service) => of_service(service, attribute),
        Object::Server(server) => of_server(server, attribute)?,
        Object::Session(session) => of_session(session, attribute),
        Object::Statement(statement) => of_statement(&lock(statement), attribute),
        Object::Bind(bind) if attribute == 42 => Some(Given::U32(lock(bind).rows_returned)),
        Object::Column(column) => of_column(column, attribute),
        Object::Bind(_) | Object::Define(_) | Object::Timestamp(_) => None,
    };
    given.ok_or_else(|| unknown("read", handle, attribute))
}

fn of_service(service: &Service, attribute: u32) -> Option<Given> {
    Some(match attribute {
        6 => Given::Pointer(service.server.load(SeqCst)),
        7 => Given::Pointer(service.session.load(SeqCst)),
        176 => Given::U32(service.cache_size.load(SeqCst)),
        // OCI_ATTR_MAX_IDENTIFIER_LEN, since 12.2.
        500 => Given::U8(128),
        531 => Given::U32(service.call_timeout.load(SeqCst)),
        // OCI_ATTR_SERVER_TYPE: dedicated.
        694 => Given::U8(1),
        _ => return None,
    })
}

fn of_server(server: &Server, attribute: u32) -> Result<Option<Given>, Fault> {
    Ok(Some(match attribute {
        31 => Given::U16(873),
        143 => {
            let usable = lock(&server.connection)
                .as_ref()
                .is_some_and(|connection| connection.usable());
            Given::U32(usable.into())
        }
        391 => Given::text(&names(server)?.database),
        392 => Given::text(&names(server)?.instance),
        393 => Given::text(&names(server)?.service),
        // OCI_ATTR_DBDOMAIN: the range has none.
        399 => Given::text(""),
        _ => return Ok(None),
    }))
}

/// The server's names, asked once.
fn names(server: &Server) -> Result<&Names, Fault> {
    if let Some(names) = server.names.get() {
        return Ok(names);
    }
    let connection = lock(&server.connection).clone();
    let connection = connection.ok_or_else(|| OraError::new(3114, "not connected to ORACLE"))?;
    let names = Link::bare(connection).names()?;
    Ok(server.names.get_or_init(|| names))
}

fn of_session(session: &Session, attribute: u32) -> Option<Given> {
    Some(match attribute {
        22 => Given::text(&lock(&session.login).0),
        // OCI_ATTR_MAX_OPEN_CURSORS.
        471 => {
            Given::U32(u32::try_from(oracle_simulator::bequeath::MAX_CURSORS).unwrap_or(u32::MAX))
        }
        484 => {
            let open = lock(&session.connection)
                .as_ref()
                .is_some_and(|connection| connection.in_transaction());
            Given::I32(open.into())
        }
        _ => return None,
    })
}

fn of_statement(statement: &Statement, attribute: u32) -> Option<Given> {
    Some(match attribute {
        9 => Given::U32(u32::try_from(statement.row_count).unwrap_or(u32::MAX)),
        10 => Given::U16(function_code(statement)),
        18 => Given::U32(u32::try_from(statement.columns.len()).unwrap_or(u32::MAX)),
        24 => Given::U16(statement.prepared.kind as u16),
        73 => Given::U32(statement.batch_errors),
        129 => Given::U16(statement.error_offset),
        144 => Given::text(&statement.sql),
        190 => Given::U32(u32::try_from(statement.order.len()).unwrap_or(u32::MAX)),
        197 => Given::U32(statement.fetched),
        218 => Given::U8(statement.prepared.returning.is_some().into()),
        457 => Given::U64(statement.row_count),
        469 => Given::Counts(statement.row_counts.as_ptr(), statement.row_counts.len()),
        // OCI_ATTR_SQL_ID is the server's, which does not tell.
        504 => Given::text(""),
        _ => return None,
    })
}

/// OCI_ATTR_SQLFNCODE, which clients ask of DDL to know whether a type has
/// changed; the double has no types.
fn function_code(statement: &Statement) -> u16 {
    use crate::lexer::StatementType;
    match statement.prepared.kind {
        StatementType::Create => 1,
        StatementType::Drop => 12,
        StatementType::Alter => 49,
        _ => 0,
    }
}

fn of_column(column: &Arc<Column>, attribute: u32) -> Option<Given> {
    let (code, size, precision, scale): (u16, u32, i16, i8) = match column.kind {
        Kind::Varchar2(size) => (1, size, 0, 0),
        Kind::Char(size) => (96, size, 0, 0),
        Kind::Number(precision, scale) => (2, 22, precision.into(), scale),
        Kind::Date => (12, 7, 0, 0),
        Kind::Timestamp(digits) => (187, 11, 0, i8::try_from(digits).unwrap_or(9)),
        Kind::Raw(size) => (23, size, 0, 0),
    };
    Some(match attribute {
        1 | 286 => Given::U16(u16::try_from(size).unwrap_or(u16::MAX)),
        2 => Given::U16(code),
        4 => Given::text(&column.name),
        5 => Given::I16(precision),
        6 => Given::I8(scale),
        7 => Given::U8(column.nullable.into()),
        // OCI_ATTR_CHARSET_FORM: implicit.
        32 => Given::U8(1),
        // Neither JSON nor OSON.
        534 | 623 => Given::U8(0),
        _ => return None,
    })
}

/// # Safety
/// `value` is what OCIAttrSet gets for that attribute.
unsafe fn set(handle: &Object, attribute: u32, value: *mut c_void, size: u32) -> Result<(), Fault> {
    // SAFETY: as this function's own contract says.
    let text = || unsafe { memory::text(value, size as usize) };
    // SAFETY: as this function's own contract says.
    let number = || unsafe { memory::get(value.cast::<u32>()) }.unwrap_or(0);
    match (handle, attribute) {
        (Object::Service(service), 6) => service.server.store(value, SeqCst),
        (Object::Service(service), 7) => service.session.store(value, SeqCst),
        // No transaction handle is the only one there is.
        (Object::Service(_), 8) if value.is_null() => {}
        (Object::Service(service), 176) => service.cache_size.store(number(), SeqCst),
        (Object::Service(service), 531) => service.call_timeout.store(number(), SeqCst),
        (Object::Session(session), 22) => lock(&session.login).0 = text(),
        (Object::Session(session), 23) => lock(&session.login).1 = text(),
        (Object::Session(session), 278) => lock(&session.tags).client_identifier = Some(text()),
        (Object::Session(session), 366) => lock(&session.tags).module = Some(text()),
        (Object::Session(session), 367) => lock(&session.tags).action = Some(text()),
        (Object::Session(session), 368) => lock(&session.tags).client_info = Some(text()),
        // The driver's name has no place in V$SESSION.
        (Object::Session(_), 424) => {}
        // Prefetching only saves round trips, which are bundled here anyhow.
        (Object::Statement(_), 11) => {}
        // Both character set forms are AL32UTF8; the size repeats the buffer's.
        (Object::Bind(_) | Object::Define(_), 32 | 33) => {}
        _ => return Err(unknown("set", handle, attribute)),
    }
    Ok(())
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIAttrGet(
    handle: *const c_void,
    kind: u32,
    target: *mut c_void,
    size: *mut u32,
    attribute: u32,
    error_handle: *mut c_void,
) -> c_int {
    let body = || {
        trace::line(format_args!("  [{kind}:{attribute}]"));
        // SAFETY: OCI's contract: a live handle, and room for the attribute.
        unsafe { get(object(handle)?, attribute)?.write(target, size) };
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIAttrGet", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIAttrSet(
    handle: *mut c_void,
    kind: u32,
    value: *mut c_void,
    size: u32,
    attribute: u32,
    error_handle: *mut c_void,
) -> c_int {
    let body = || {
        trace::line(format_args!("  [{kind}:{attribute}]"));
        // SAFETY: OCI's contract: a live handle, and a value of the attribute.
        unsafe { set(object(handle)?, attribute, value, size) }?;
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIAttrSet", error_handle, body) }
}
