//! Statements: preparing, executing, fetching.
//!
//! Preparing is a local matter, as in the real library. An execution takes the
//! IN values of all its rows to the server at once and spreads what comes
//! back: OUT values into the client's variables, row counts, failed rows, and
//! of a query its columns and first rows. Further rows are fetched from the
//! server's cursor when they are asked for.

use crate::bind::{self, BindKey};
use crate::define;
use crate::error::{Fault, NO_DATA, Outcome, SUCCESS, call, unsupported};
use crate::handles::{self, Object, allocate, lock, object, service, statement};
use crate::lexer::{self, Prepared, StatementType};
use crate::link::{self, Link};
use crate::memory;
use crate::trace;
use oracle_simulator::api::{Bind, Column, OraError, Reply, Value};
use oracle_simulator::wire::{Answer, Execute, Request, RowError};
use std::collections::{BTreeMap, VecDeque};
use std::ffi::{c_int, c_void};
use std::sync::{Arc, Mutex};

/// Rows of a query that come with its execution: one fetch of ODPI-C.
const FIRST_ROWS: u32 = 100;
/// Rows asked for at least when more are needed: fewer round trips for large
/// results, a few hundred kilobytes at most for the range's tables.
const MORE_ROWS: u32 = 1000;

const BATCH_ERRORS: u32 = 0x80;
const COMMIT_ON_SUCCESS: u32 = 0x20;
const DESCRIBE_ONLY: u32 = 0x10;
const PARSE_ONLY: u32 = 0x100;
const ROW_COUNT_ARRAY: u32 = 0x10_0000;

const FETCH_NEXT: u16 = 2;

/// What a statement handle keeps.
pub struct Statement {
    pub sql: String,
    /// What the client side knows of it.
    pub prepared: Prepared,
    /// Bind names by position: every appearance in SQL, the first in PL/SQL.
    pub order: Vec<String>,
    /// Bind variables in the order they were bound.
    pub binds: Vec<(BindKey, Arc<Object>)>,
    /// Define buffers by position, from 1.
    pub defines: BTreeMap<u32, Arc<Object>>,
    /// Columns of a query once it has been executed or described. Clients keep
    /// pointers to the names, so they stay as long as they stay the same.
    pub columns: Vec<Arc<Column>>,
    rows: VecDeque<Vec<Value>>,
    cursor: Option<u32>,
    link: Option<Link>,
    /// OCI_ATTR_ROWS_FETCHED: rows of the last fetch.
    pub fetched: u32,
    pub row_count: u64,
    pub row_counts: Vec<u64>,
    pub batch_errors: u32,
    pub error_offset: u16,
}

impl Statement {
    fn new(sql: String) -> Self {
        let prepared = lexer::prepare(&sql);
        let mut order = Vec::new();
        for name in &prepared.names {
            if !prepared.kind.is_block() || !order.contains(name) {
                order.push(name.clone());
            }
        }
        Self {
            sql,
            prepared,
            order,
            binds: Vec::new(),
            defines: BTreeMap::new(),
            columns: Vec::new(),
            rows: VecDeque::new(),
            cursor: None,
            link: None,
            fetched: 0,
            row_count: 0,
            row_counts: Vec::new(),
            batch_errors: 0,
            error_offset: 0,
        }
    }

    fn bound(&self, index: usize) -> Result<&Arc<Object>, OraError> {
        let name = &self.order[index];
        self.binds
            .iter()
            .find(|(key, _)| match key {
                BindKey::Position(position) => *position as usize == index + 1,
                BindKey::Name(bound) => bound == name,
            })
            .map(|(_, handle)| handle)
            .ok_or_else(|| OraError::new(1008, "not all variables bound"))
    }

    /// The bind variables of one execution. Names that appear twice in SQL may
    /// be bound twice by position, but only to the same value.
    ///
    /// # Safety
    /// The variables bound live.
    unsafe fn bind_row(&self, row: usize) -> Result<Vec<Bind>, Fault> {
        let returning = self.prepared.returning.unwrap_or(usize::MAX);
        let mut binds: Vec<Bind> = Vec::with_capacity(self.order.len());
        for (index, name) in self.order.iter().enumerate() {
            let handle = self.bound(index)?;
            let Object::Bind(state) = &**handle else {
                return Err(Fault::Handle);
            };
            let buffer = lock(state).buffer();
            let kind = crate::convert::kind(buffer.external, buffer.size)?;
            let value = if index >= returning {
                Value::Null
            } else {
                // SAFETY: as this function's own contract says.
                unsafe { bind::read(handle, row) }?
            };
            match binds.iter().find(|bind| bind.name == *name) {
                None => binds.push(Bind {
                    name: name.clone(),
                    value,
                    kind,
                }),
                Some(same) if same.value == value => {}
                Some(_) => return Err(unsupported("one bind name with two values").into()),
            }
        }
        trace::line(format_args!("  row {row}: {binds:?}"));
        Ok(binds)
    }

    /// Sends the statement with its rows and takes in what comes back.
    ///
    /// # Safety
    /// The variables bound live.
    unsafe fn execute(
        &mut self,
        link: Link,
        rows: usize,
        mode: u32,
    ) -> Result<Vec<RowError>, Fault> {
        self.forget_result();
        // SAFETY: as this function's own contract says.
        let binds = (0..rows)
            .map(|row| unsafe { self.bind_row(row) })
            .collect::<Result<_, _>>()?;
        let answer = link.call(Request::Execute(Execute {
            sql: self.sql.clone(),
            rows: binds,
            commit: mode & COMMIT_ON_SUCCESS != 0,
            keep_going: mode & BATCH_ERRORS != 0,
            first_rows: FIRST_ROWS,
        }));
        let answer = answer.inspect_err(|error| self.error_offset = offset(error))?;
        let Answer::Executed {
            replies,
            cursor,
            failed,
        } = answer
        else {
            return Err(link::protocol_error().into());
        };
        self.link = Some(link);
        self.cursor = cursor;
        self.row_counts = vec![0; rows];
        // Rows that failed have no reply.
        let succeeded =
            (0..rows).filter(|row| !failed.iter().any(|failure| failure.row as usize == *row));
        for (row, reply) in succeeded.zip(replies) {
            // SAFETY: as this function's own contract says.
            unsafe { self.take_in(row, reply) }?;
        }
        if mode & BATCH_ERRORS == 0
            && let Some(failure) = failed.first()
        {
            self.error_offset = offset(&failure.error);
            self.row_counts.truncate(failure.row as usize);
            return Err(failure.error.clone().into());
        }
        self.batch_errors = u32::try_from(failed.len()).unwrap_or(u32::MAX);
        Ok(failed)
    }

    /// # Safety
    /// The variables bound live.
    unsafe fn take_in(&mut self, row: usize, reply: Reply) -> Result<(), Fault> {
        match reply {
            Reply::Rows { columns, rows } => {
                self.describe(columns);
                self.rows = rows.into();
            }
            Reply::Affected { rows, returned } => {
                self.row_count += rows;
                self.row_counts[row] = rows;
                if let Some(first) = self.prepared.returning {
                    // SAFETY: as this function's own contract says.
                    unsafe { self.give_back(row, first, &returned) }?;
                }
            }
            // SAFETY: as this function's own contract says.
            Reply::Block { out } => unsafe { self.give_back(row, 0, &out) }?,
            Reply::Done => {}
        }
        Ok(())
    }

    /// Hands OUT values to the variables from `first` on. Several values of
    /// one name are the rows a RETURNING clause gave.
    ///
    /// # Safety
    /// The variables bound live.
    unsafe fn give_back(
        &self,
        row: usize,
        first: usize,
        out: &[(String, Value)],
    ) -> Result<(), Fault> {
        for index in first..self.order.len() {
            let handle = self.bound(index)?;
            let name = &self.order[index];
            let values: Vec<Value> = out
                .iter()
                .filter(|(given, _)| given == name)
                .map(|(_, value)| value.clone())
                .collect();
            // SAFETY: as this function's own contract says.
            unsafe { bind::write(handle, row, &values) }?;
        }
        Ok(())
    }

    fn describe(&mut self, columns: Vec<Column>) {
        let same = self.columns.len() == columns.len()
            && self
                .columns
                .iter()
                .zip(&columns)
                .all(|(old, new)| **old == *new);
        if !same {
            self.columns = columns.into_iter().map(Arc::new).collect();
        }
    }

    fn forget_result(&mut self) {
        if let (Some(cursor), Some(link)) = (self.cursor.take(), &self.link) {
            link.close_cursor(cursor);
        }
        self.rows.clear();
        self.row_counts.clear();
        self.fetched = 0;
        self.row_count = 0;
        self.batch_errors = 0;
        self.error_offset = 0;
    }

    /// Makes sure that so many rows are here, or the last.
    fn fetch_more(&mut self, wanted: u32) -> Result<(), OraError> {
        while let Some(cursor) = self.cursor
            && self.rows.len() < wanted as usize
        {
            let link = self
                .link
                .as_ref()
                .ok_or_else(|| OraError::new(1002, "fetch out of sequence"))?;
            let request = Request::Fetch {
                cursor,
                rows: wanted.max(MORE_ROWS),
            };
            let answer = link.call(request).inspect_err(|_| self.cursor = None)?;
            let Answer::Fetched { rows, more } = answer else {
                return Err(link::protocol_error());
            };
            self.rows.extend(rows);
            if !more {
                self.cursor = None;
            }
        }
        Ok(())
    }

    /// Puts the next rows into the define buffers.
    ///
    /// # Safety
    /// The buffers defined live and have room for `wanted` rows.
    unsafe fn fetch(&mut self, wanted: u32) -> Outcome {
        self.fetched = 0;
        self.fetch_more(wanted)?;
        for row in 0..wanted as usize {
            let Some(values) = self.rows.pop_front() else {
                return Ok(NO_DATA);
            };
            for (position, handle) in &self.defines {
                let value = values.get(*position as usize - 1);
                let value =
                    value.ok_or_else(|| OraError::new(1007, "variable not in select list"))?;
                // SAFETY: as this function's own contract says.
                unsafe { define::write(handle, row, value) }?;
            }
            self.fetched += 1;
            self.row_count += 1;
        }
        Ok(SUCCESS)
    }
}

impl Drop for Statement {
    fn drop(&mut self) {
        if let (Some(cursor), Some(link)) = (self.cursor.take(), &self.link) {
            link.connection.close_cursor(cursor);
        }
    }
}

fn offset(error: &OraError) -> u16 {
    u16::try_from(error.offset).unwrap_or(u16::MAX)
}

/// OCIStmtPrepare2.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIStmtPrepare2(
    _service_handle: *mut c_void,
    statement_handle: *mut *mut c_void,
    error_handle: *mut c_void,
    sql: *const c_void,
    length: u32,
    _key: *const c_void,
    _key_length: u32,
    _language: u32,
    _mode: u32,
) -> c_int {
    let body = || {
        // SAFETY: OCI's contract: text of that length.
        let sql = unsafe { memory::text(sql, length as usize) };
        trace::line(format_args!("  {sql}"));
        let object = Object::Statement(Mutex::new(Statement::new(sql)));
        // SAFETY: OCI's contract: `statement_handle` is valid for a write.
        unsafe { memory::put(statement_handle, allocate(object)) };
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIStmtPrepare2", error_handle, body) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIStmtRelease(
    statement_handle: *mut c_void,
    _error_handle: *mut c_void,
    _key: *const c_void,
    _key_length: u32,
    _mode: u32,
) -> c_int {
    // SAFETY: OCI's contract: the client is done with the handle.
    unsafe { handles::OCIHandleFree(statement_handle, 0) }
}

#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIStmtExecute(
    service_handle: *mut c_void,
    statement_handle: *mut c_void,
    error_handle: *mut c_void,
    iterations: u32,
    first_row: u32,
    _snapshot_in: *const c_void,
    _snapshot_out: *mut c_void,
    mode: u32,
) -> c_int {
    let body = || {
        trace::line(format_args!("  iterations {iterations} mode {mode:#x}"));
        let known = BATCH_ERRORS | COMMIT_ON_SUCCESS | DESCRIBE_ONLY | PARSE_ONLY | ROW_COUNT_ARRAY;
        if mode & !known != 0 || first_row != 0 {
            return Err(
                unsupported(&format!("execution mode {mode:#x} from row {first_row}")).into(),
            );
        }
        // SAFETY: OCI's contract: live handles.
        let (link, mut statement) = unsafe {
            (
                service(service_handle)?.link()?,
                statement(statement_handle)?,
            )
        };
        let query = statement.prepared.kind == StatementType::Select;
        if mode & (DESCRIBE_ONLY | PARSE_ONLY) != 0 {
            return describe(&mut statement, &link, query);
        }
        if query && iterations > 0 {
            return Err(unsupported("fetching during the execution of a query").into());
        }
        // SAFETY: OCI's contract: the variables bound live.
        let failed = unsafe { statement.execute(link, iterations.max(1) as usize, mode) }?;
        // SAFETY: OCI's contract: a live handle.
        if let Ok(Object::Error(record)) = unsafe { object(error_handle) } {
            record.set_batch(failed);
        }
        Ok(SUCCESS)
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIStmtExecute", error_handle, body) }
}

/// Only a query can be described without being executed; other statements are
/// parsed when they are executed.
fn describe(statement: &mut Statement, link: &Link, query: bool) -> Outcome {
    if !query {
        return Err(unsupported("parsing a statement without executing it").into());
    }
    let answer = link.call(Request::Describe {
        sql: statement.sql.clone(),
    });
    match answer.inspect_err(|error| statement.error_offset = offset(error))? {
        Answer::Described { columns } => statement.describe(columns),
        _ => return Err(link::protocol_error().into()),
    }
    Ok(SUCCESS)
}

/// OCIStmtFetch2, forward only.
#[unsafe(no_mangle)]
pub unsafe extern "C" fn OCIStmtFetch2(
    statement_handle: *mut c_void,
    error_handle: *mut c_void,
    rows: u32,
    orientation: u16,
    _offset: i32,
    _mode: u32,
) -> c_int {
    let body = || {
        if orientation != FETCH_NEXT && orientation != 0 {
            return Err(unsupported(&format!("fetch orientation {orientation}")).into());
        }
        // SAFETY: OCI's contract: a live handle, and room for that many rows.
        unsafe { statement(statement_handle)?.fetch(rows) }
    };
    // SAFETY: the error handle lives, by OCI's contract.
    unsafe { call("OCIStmtFetch2", error_handle, body) }
}
