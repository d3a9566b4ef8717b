//! Handles and descriptors: what the opaque pointers of OCI point at.
//!
//! A handle is shared by every thread that holds its pointer, so each kind
//! keeps its state behind atomics or a lock, and this crate only ever makes
//! shared references to it.

use crate::bind::BindState;
use crate::error::{self, Fault, SUCCESS};
use crate::link::{Connection, Names};
use crate::statement::Statement;
use crate::trace;
use oracle_simulator::api::{Column, DateTime, OraError, Tags};
use oracle_simulator::wire::RowError;
use std::ffi::{c_int, c_void};
use std::sync::atomic::{AtomicPtr, AtomicU32, AtomicUsize};
use std::sync::{Arc, Mutex, MutexGuard, OnceLock, PoisonError};

/// OCI_HTYPE_ERROR and its kin, as far as the double knows them.
pub mod kind {
    pub const ERROR: u32 = 2;
    pub const SERVICE: u32 = 3;
    pub const SERVER: u32 = 8;
    /// User session, or authentication information.
    pub const SESSION: u32 = 9;
    /// TIMESTAMP, with time zone, with local time zone.
    pub const TIMESTAMPS: std::ops::RangeInclusive<u32> = 68..=70;
}

/// What a pointer can point at.
pub enum Object {
    /// Environment handle with its character sets.
    Environment {
        charset: u16,
        ncharset: u16,
    },
    Error(ErrorRecord),
    /// Service context: a server, a session and their settings.
    Service(Service),
    /// Server handle: a connection.
    Server(Server),
    /// Session handle: who logs in, and the end-to-end attributes.
    Session(Session),
    Statement(Mutex<Statement>),
    /// Bind handle, owned by its statement.
    Bind(Mutex<BindState>),
    /// Define handle, owned by its statement.
    Define(Mutex<crate::define::DefineState>),
    /// Parameter descriptor of a column.
    Column(Arc<Column>),
    Timestamp(Timestamp),
}

// SAFETY: what is not an atomic or behind a lock is never changed. The locks
// guard pointers to the client's buffers too; those are followed only inside a
// call made with the statement's handle, and OCI leaves it to the client that
// no two threads use them at once.
unsafe impl Send for Object {}
// SAFETY: as for Send.
unsafe impl Sync for Object {}

/// The last error, and the failed rows of the last batch.
#[derive(Default)]
pub struct ErrorRecord {
    last: Mutex<Option<OraError>>,
    batch: Mutex<Vec<RowError>>,
    /// Where this handle stands for one row of a batch, its index.
    pub row: AtomicU32,
}

impl ErrorRecord {
    /// Keeps an error until the next.
    pub fn set(&self, error: OraError) {
        *lock(&self.last) = Some(error);
    }

    pub fn get(&self) -> Option<OraError> {
        lock(&self.last).clone()
    }

    /// Keeps the failed rows of a batch.
    pub fn set_batch(&self, failed: Vec<RowError>) {
        *lock(&self.batch) = failed;
    }

    /// A failed row of the last batch, counted from 0.
    pub fn batch_error(&self, index: usize) -> Option<RowError> {
        lock(&self.batch).get(index).cloned()
    }
}

pub struct Service {
    /// The server handle, null until set.
    pub server: AtomicPtr<c_void>,
    /// The session handle, null until set.
    pub session: AtomicPtr<c_void>,
    /// OCI_ATTR_STMTCACHESIZE. Preparing a statement is a local matter here,
    /// so a cache would keep nothing of value; the number is only remembered.
    pub cache_size: AtomicU32,
    /// OCI_ATTR_CALL_TIMEOUT in milliseconds; 0 waits for ever.
    pub call_timeout: Arc<AtomicU32>,
}

#[derive(Default)]
pub struct Server {
    /// The connection while attached.
    pub connection: Mutex<Option<Arc<Connection>>>,
    /// Names of database, instance and service, asked once.
    pub names: OnceLock<Names>,
}

#[derive(Default)]
pub struct Session {
    /// User name and password, as given.
    pub login: Mutex<(String, String)>,
    /// End-to-end attributes not yet sent; they ride along on the next call.
    pub tags: Arc<Mutex<Tags>>,
    /// The connection the session lives on, once it has begun.
    pub connection: Mutex<Option<Arc<Connection>>>,
}

pub struct Timestamp {
    /// Its fields and the zone's offset in hours and minutes.
    pub value: Mutex<(DateTime, (i8, i8))>,
    /// How many descriptors were allocated together with this one.
    array: AtomicUsize,
}

/// The object a handle points at.
///
/// # Safety
/// `pointer` is null or came from [`allocate`] and has not been freed.
pub unsafe fn object<'a>(pointer: *const c_void) -> Result<&'a Object, Fault> {
    // SAFETY: as this function's own contract says; objects are only ever
    // borrowed shared.
    unsafe { pointer.cast::<Object>().as_ref() }.ok_or(Fault::Handle)
}

/// Hands an object out to the client, which owns it until it frees it.
pub fn allocate(object: Object) -> *mut c_void {
    Box::into_raw(Box::new(object)).cast()
}

/// # Safety
/// `pointer` is null or came from [`allocate`] and is not used again.
unsafe fn free(pointer: *mut c_void) {
    if !pointer.is_null() {
        // SAFETY: as this function's own contract says.
        drop(unsafe { Box::from_raw(pointer.cast::<Object>()) });
    }
}

/// Declares a function that unwraps one kind of object.
macro_rules! accessor {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty) => {
        $(#[$doc])*
        ///
        /// # Safety
        /// As [`object`].
        pub unsafe fn $name<'a>(pointer: *const c_void) -> Result<&'a $type, Fault> {
            // SAFETY: as this function's own contract says.
            match unsafe { object(pointer) }? {
                Object::$variant(found) => Ok(found),
                _ => Err(Fault::Handle),
            }
        }
    };
}

accessor!(/// A service context.
    service, Service, Service);
accessor!(/// A server handle.
    server, Server, Server);
accessor!(/// A session handle.
    session, Session, Session);
accessor!(/// A bind handle.
    bind, Bind, Mutex<BindState>);
accessor!(/// A define handle.
    define, Define, Mutex<crate::define::DefineState>);
accessor!(/// A timestamp descriptor.
    timestamp, Timestamp, Timestamp);

/// A statement handle, locked.
///
/// # Safety
/// As [`object`].
pub unsafe fn statement<'a>(pointer: *const c_void) -> Result<MutexGuard<'a, Statement>, Fault> {
    // SAFETY: as this function's own contract says.
    match unsafe { object(pointer) }? {
        Object::Statement(found) => Ok(lock(found)),
        _ => Err(Fault::Handle),
    }
}

/// A poisoned lock is taken all the same: a panic has become an ORA error, and
/// the handle must stay good for being freed.
pub fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

fn new_timestamp(array: usize) -> *mut c_void {
    let epoch = DateTime {
        year: 1970,
        month: 1,
        day: 1,
        hour: 0,
        minute: 0,
        second: 0,
        nanos: 0,
    };
    allocate(Object::Timestamp(Timestamp {
        value: Mutex::new((epoch, (0, 0))),
        array: AtomicUsize::new(array),
    }))
}

fn new_handle(kind: u32) -> Option<Object> {
    match kind {
        kind::ERROR => Some(Object::Error(ErrorRecord::default())),
        kind::SERVICE => Some(Object::Service(Service {
            server: AtomicPtr::default(),
            session: AtomicPtr::default(),
            cache_size: AtomicU32::new(20),
            call_timeout: Arc::default(),
        })),
        kind::SERVER => Some(Object::Server(Server::default())),
        kind::SESSION => Some(Object::Session(Session::default())),
        _ => None,
    }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIHandleAlloc(
    parent: *mut c_void,
    handle: *mut *mut c_void,
    kind: u32,
    _extra: usize,
    _memory: *mut c_void,
) -> c_int {
    let body = || match new_handle(kind) {
        Some(object) => {
            // SAFETY: OCI's contract: `handle` is valid for a write.
            unsafe { crate::memory::put(handle, allocate(object)) };
            Ok(SUCCESS)
        }
        None => Err(error::unsupported(&format!("handle type {kind}")).into()),
    };
    // SAFETY: `parent` is a live environment handle, which takes no errors.
    unsafe { error::call("OCIHandleAlloc", parent, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIHandleFree(handle: *mut c_void, _kind: u32) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: the client is done with the handle.
        unsafe { free(handle) };
        Ok(SUCCESS)
    };
    // SAFETY: no error handle is given.
    unsafe { error::call("OCIHandleFree", std::ptr::null_mut(), body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIDescriptorAlloc(
    parent: *mut c_void,
    descriptor: *mut *mut c_void,
    kind: u32,
    _extra: usize,
    _memory: *mut c_void,
) -> c_int {
    // SAFETY: an array of one.
    unsafe { OCIArrayDescriptorAlloc(parent, descriptor, kind, 1, 0, std::ptr::null_mut()) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIDescriptorFree(descriptor: *mut c_void, _kind: u32) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: the client is done with the descriptor.
        unsafe { free(descriptor) };
        Ok(SUCCESS)
    };
    // SAFETY: no error handle is given.
    unsafe { error::call("OCIDescriptorFree", std::ptr::null_mut(), body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIArrayDescriptorAlloc(
    parent: *mut c_void,
    descriptors: *mut *mut c_void,
    kind: u32,
    count: u32,
    _extra: usize,
    _memory: *mut c_void,
) -> c_int {
    let body = || {
        if !kind::TIMESTAMPS.contains(&kind) {
            return Err(error::unsupported(&format!("descriptor type {kind}")).into());
        }
        for index in 0..count as usize {
            // SAFETY: OCI's contract: room for `count` pointers.
            unsafe { descriptors.add(index).write(new_timestamp(count as usize)) };
        }
        Ok(SUCCESS)
    };
    // SAFETY: `parent` is a live environment handle, which takes no errors.
    unsafe { error::call("OCIArrayDescriptorAlloc", parent, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIArrayDescriptorFree(
    descriptors: *mut *mut c_void,
    _kind: u32,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: the array came from OCIArrayDescriptorAlloc.
        let first = unsafe { timestamp(*descriptors) }?;
        let count = first.array.load(std::sync::atomic::Ordering::SeqCst);
        trace::line(format_args!("  {count} descriptors"));
        for index in 0..count {
            // SAFETY: the array holds `count` descriptors that live.
            unsafe { free(*descriptors.add(index)) };
        }
        Ok(SUCCESS)
    };
    // SAFETY: no error handle is given.
    unsafe { error::call("OCIArrayDescriptorFree", std::ptr::null_mut(), body) }
}
