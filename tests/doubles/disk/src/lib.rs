//! Failing writes for tests that use SQLite.
//!
//! A shim around SQLite's default VFS, registered as the default of the test's
//! process. It counts the writes below a directory and fails those that a test
//! has chosen, with the error that the operating system would cause. All other
//! calls reach the file system.

use rusqlite::ffi;
use std::ffi::{CStr, c_int, c_void};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, Once, PoisonError};

/// What a write that fails returns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fault {
    /// ENOSPC.
    NoSpace,
    /// EIO.
    InputOutput,
}

impl Fault {
    fn code(self) -> c_int {
        match self {
            Self::NoSpace => ffi::SQLITE_FULL,
            Self::InputOutput => ffi::SQLITE_IOERR_WRITE,
        }
    }
}

#[derive(Debug, Clone)]
enum Plan {
    /// See [`FaultyDisk::fail_from`].
    From(u64, Fault),
    /// There is no space as long as this file exists. After that, there is as
    /// much as it had.
    FullUntil { reserve: PathBuf, freed: u64 },
}

struct Disk {
    directory: PathBuf,
    plan: Option<Plan>,
    writes: u64,
}

static DISKS: Mutex<Vec<Disk>> = Mutex::new(Vec::new());

/// The disk below a directory. It works again once this is dropped.
#[derive(Debug)]
pub struct FaultyDisk {
    directory: PathBuf,
}

impl FaultyDisk {
    /// Takes effect for files that are opened afterwards.
    ///
    /// # Panics
    /// If the directory doesn't exist, or SQLite has no VFS.
    pub fn new(directory: &Path) -> Self {
        register();
        let directory = directory.canonicalize().expect("an existing directory");
        with_disks(|disks| {
            disks.push(Disk {
                directory: directory.clone(),
                plan: None,
                writes: 0,
            });
        });
        Self { directory }
    }

    /// From the given write on, counted from 1 from now, every write and sync
    /// fails; without space, every write that makes a file longer.
    pub fn fail_from(&self, nth: u64, fault: Fault) {
        self.with(|disk| {
            disk.writes = 0;
            disk.plan = Some(Plan::From(nth, fault));
        });
    }

    /// No file grows any more until this file is deleted, and then by no more
    /// than its length.
    ///
    /// # Panics
    /// If the file has no length.
    pub fn fill(&self, reserve: &Path) {
        let freed = std::fs::metadata(reserve).map_or(0, |meta| meta.len());
        let reserve = reserve.to_owned();
        self.with(|disk| disk.plan = Some(Plan::FullUntil { reserve, freed }));
    }

    /// There is space again, and every write succeeds.
    pub fn repair(&self) {
        self.with(|disk| disk.plan = None);
    }

    /// Writes and syncs since the disk was made or last made to fail.
    pub fn writes(&self) -> u64 {
        self.with(|disk| disk.writes)
    }

    fn with<T>(&self, act: impl FnOnce(&mut Disk) -> T) -> T {
        with_disks(|disks| {
            let disk = disks
                .iter_mut()
                .find(|disk| disk.directory == self.directory)
                .expect("it is removed only when this is dropped");
            act(disk)
        })
    }
}

impl Drop for FaultyDisk {
    fn drop(&mut self) {
        with_disks(|disks| disks.retain(|disk| disk.directory != self.directory));
    }
}

fn with_disks<T>(act: impl FnOnce(&mut Vec<Disk>) -> T) -> T {
    act(&mut DISKS.lock().unwrap_or_else(PoisonError::into_inner))
}

/// Why this operation fails, if it does. `grows_by`: how much longer the file
/// would be.
fn fault(directory: &Path, grows_by: u64) -> Option<c_int> {
    with_disks(|disks| {
        let disk = disks.iter_mut().find(|disk| disk.directory == directory)?;
        disk.writes += 1;
        match &mut disk.plan {
            None => None,
            Some(Plan::From(_, Fault::NoSpace)) if grows_by == 0 => None,
            Some(Plan::From(nth, fault)) => (disk.writes >= *nth).then(|| fault.code()),
            Some(Plan::FullUntil { .. }) if grows_by == 0 => None,
            Some(Plan::FullUntil { reserve, freed }) => {
                if reserve.exists() || *freed < grows_by {
                    return Some(Fault::NoSpace.code());
                }
                *freed -= grows_by;
                None
            }
        }
    })
}

/// The methods of one open file: those of SQLite, with the ones that write
/// replaced.
#[repr(C)]
struct Methods {
    shim: ffi::sqlite3_io_methods,
    original: *const ffi::sqlite3_io_methods,
    directory: PathBuf,
}

fn register() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        // SAFETY: the default VFS lives as long as the process, and so does the
        // copy, which differs only in `xOpen`.
        unsafe {
            let default = ffi::sqlite3_vfs_find(std::ptr::null());
            assert!(!default.is_null(), "SQLite has a default VFS");
            let shim = Box::leak(Box::new(*default));
            shim.zName = c"faulty-disk".as_ptr();
            shim.pNext = std::ptr::null_mut();
            shim.xOpen = Some(open);
            // Read by `open`; the copied functions don't use it by this name.
            DEFAULT.get_or_init(|| Default(default));
            ffi::sqlite3_vfs_register(shim, 1);
        }
    });
}

struct Default(*mut ffi::sqlite3_vfs);
// SAFETY: the pointer is to a static of SQLite, which is used concurrently.
unsafe impl Send for Default {}
// SAFETY: as above.
unsafe impl Sync for Default {}

static DEFAULT: std::sync::OnceLock<Default> = std::sync::OnceLock::new();

unsafe extern "C" fn open(
    _: *mut ffi::sqlite3_vfs,
    name: ffi::sqlite3_filename,
    file: *mut ffi::sqlite3_file,
    flags: c_int,
    out: *mut c_int,
) -> c_int {
    let Some(Default(default)) = DEFAULT.get() else {
        return ffi::SQLITE_CANTOPEN;
    };
    // SAFETY: SQLite's own arguments are passed on; the file's methods are valid
    // after a successful open, and the replacement lives as long as the process.
    unsafe {
        let Some(original_open) = (**default).xOpen else {
            return ffi::SQLITE_CANTOPEN;
        };
        let code = original_open(*default, name, file, flags, out);
        if code != ffi::SQLITE_OK || name.is_null() {
            return code;
        }
        let path = CStr::from_ptr(name).to_string_lossy().into_owned();
        let directory = with_disks(|disks| {
            let of = disks
                .iter()
                .find(|d| Path::new(&path).starts_with(&d.directory));
            of.map(|disk| disk.directory.clone())
        });
        if let Some(directory) = directory {
            let original = (*file).pMethods;
            let mut shim = *original;
            shim.xWrite = Some(write);
            shim.xSync = Some(sync);
            shim.xTruncate = Some(truncate);
            (*file).pMethods = &raw const Box::leak(Box::new(Methods {
                shim,
                original,
                directory,
            }))
            .shim;
        }
        code
    }
}

unsafe fn methods<'a>(file: *mut ffi::sqlite3_file) -> &'a Methods {
    // SAFETY: only files that `open` gave these methods call the functions below.
    unsafe { &*(*file).pMethods.cast::<Methods>() }
}

unsafe extern "C" fn write(
    file: *mut ffi::sqlite3_file,
    data: *const c_void,
    amount: c_int,
    offset: ffi::sqlite3_int64,
) -> c_int {
    // SAFETY: see `methods`; SQLite's own arguments are passed on.
    unsafe {
        let methods = methods(file);
        let mut length = 0;
        if let Some(size) = (*methods.original).xFileSize {
            size(file, &raw mut length);
        }
        let grows_by = u64::try_from(offset + i64::from(amount) - length).unwrap_or(0);
        if let Some(code) = fault(&methods.directory, grows_by) {
            return code;
        }
        (*methods.original)
            .xWrite
            .map_or(ffi::SQLITE_IOERR_WRITE, |call| {
                call(file, data, amount, offset)
            })
    }
}

unsafe extern "C" fn sync(file: *mut ffi::sqlite3_file, flags: c_int) -> c_int {
    // SAFETY: see `methods`; SQLite's own arguments are passed on.
    unsafe {
        let methods = methods(file);
        match fault(&methods.directory, 0) {
            Some(ffi::SQLITE_IOERR_WRITE) => ffi::SQLITE_IOERR_FSYNC,
            Some(code) => code,
            None => (*methods.original)
                .xSync
                .map_or(ffi::SQLITE_IOERR_FSYNC, |call| call(file, flags)),
        }
    }
}

unsafe extern "C" fn truncate(file: *mut ffi::sqlite3_file, size: ffi::sqlite3_int64) -> c_int {
    // SAFETY: see `methods`; SQLite's own arguments are passed on.
    unsafe {
        let methods = methods(file);
        match fault(&methods.directory, 0) {
            Some(ffi::SQLITE_IOERR_WRITE) => ffi::SQLITE_IOERR_TRUNCATE,
            Some(code) => code,
            None => (*methods.original)
                .xTruncate
                .map_or(ffi::SQLITE_IOERR_TRUNCATE, |call| call(file, size)),
        }
    }
}
