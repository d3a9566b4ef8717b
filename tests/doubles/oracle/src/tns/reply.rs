//! Replies to a driver: TTC messages 4, 6, 7, 8, 9, 11 and 16, in the layout
//! of TTC field version 12.

use super::auth::Pair;
use super::codec::Writer;
use super::oac::{ColumnType, UTF8};
use crate::api::{Column, OraError};

/// Call status: a transaction is open.
const IN_TRANSACTION: u64 = 0x2;
/// Direction of a bind variable that only goes in.
const DIRECTION_IN: u8 = 32;
/// Direction of one that goes in and comes back. Blocks don't say whether
/// they read a variable, so every one that comes back is taken to be both.
const DIRECTION_IN_OUT: u8 = 48;
/// ORA-24381: error(s) in array DML.
const ARRAY_ERRORS: u32 = 24_381;

/// How a call ended.
#[derive(Debug, Default)]
pub struct Ending<'a> {
    /// A transaction is open.
    pub in_transaction: bool,
    /// Rows touched, or fetched so far.
    pub rows: u64,
    /// The cursor used; 0 where none remains open.
    pub cursor: u32,
    pub error: Option<&'a OraError>,
    /// Iterations of an array execution that failed.
    pub failures: &'a [(u32, OraError)],
}

impl Ending<'_> {
    /// Writes the end of a reply (message 4).
    pub fn write(&self, writer: &mut Writer) {
        let code = match self.error {
            Some(error) => error.code,
            None if !self.failures.is_empty() => ARRAY_ERRORS,
            None => 0,
        };
        let position = self
            .error
            .map_or(0, |error| u64::from(error.offset).min(i16::MAX as u64));
        writer
            .u8(4)
            .ub(status(self.in_transaction))
            .ub(0)
            .ub(self.rows & 0xffff_ffff);
        // The short form of the code has no room for large ones.
        writer.ub(if code <= 0xffff { code.into() } else { 0 });
        writer.zeros(2).ub(self.cursor.into()).ub(position);
        // SQL type, fatal, flags, cursor options, UPI parameter, warnings;
        // row id (five fields); system error, statement and call numbers,
        // padding, successful iterations, logical row id.
        writer.zeros(6).zeros(5).zeros(6);
        self.write_failures(writer);
        writer.ub(code.into()).ub(self.rows);
        match self.error {
            Some(error) => writer.bytes(message(error).as_bytes()),
            None if code == ARRAY_ERRORS => writer.bytes(b"ORA-24381: error(s) in array DML\n"),
            None => writer,
        };
    }

    fn write_failures(&self, writer: &mut Writer) {
        let count = self.failures.len() as u64;
        if count == 0 {
            writer.zeros(3);
            return;
        }
        // Each list begins with its length and a byte that only says whether
        // it is chunked.
        writer.ub(count).u8(0);
        for (_, error) in self.failures {
            writer.ub(u64::from(error.code & 0xffff));
        }
        writer.ub(count).u8(0);
        for (iteration, _) in self.failures {
            writer.ub((*iteration).into());
        }
        writer.ub(count).u8(0);
        for (_, error) in self.failures {
            let message = message(error);
            writer
                .ub(message.len() as u64)
                .bytes(message.as_bytes())
                .zeros(2);
        }
    }
}

fn message(error: &OraError) -> String {
    // Some errors carry a stack of further ORA lines in their text.
    format!("{error}\n")
}

fn status(in_transaction: bool) -> u64 {
    if in_transaction { IN_TRANSACTION } else { 0 }
}

/// Protocol negotiation: versions, character sets, capabilities.
pub fn protocol() -> Writer {
    let mut writer = Writer::new();
    writer.raw(&[1, 6, 0]).raw(b"x86_64/Linux 2.4.xx\0");
    // AL32UTF8 little-endian, server flags, no conversion elements.
    writer.raw(&(UTF8 as u16).to_le_bytes()).raw(&[1, 0, 0]);
    // Field descriptor: empty but for the national character set, AL16UTF16.
    let descriptor = [0, 0, 0, 0, 0, 0, 0, 0, 0, 0x07, 0xd0];
    writer.raw(&[0, descriptor.len() as u8]).raw(&descriptor);
    let mut compile = [0; 45];
    // O5LOGON and its companions; TTC field version 12 (19c).
    compile[4] = 0xea;
    compile[7] = 12;
    let mut run = [0; 11];
    run[0] = 2;
    writer.bytes(&compile).bytes(&run);
    writer
}

/// Data type negotiation: an empty list accepts the client's.
pub fn data_types() -> Writer {
    let mut writer = Writer::new();
    writer.raw(&[2, 0, 0]);
    writer
}

/// The answer to a phase of the logon.
pub fn logon(pairs: &[Pair]) -> Writer {
    let mut writer = Writer::new();
    writer.u8(8).ub(pairs.len() as u64);
    for (key, value, flag) in pairs {
        writer
            .counted(key.as_bytes())
            .counted(value.as_bytes())
            .ub((*flag).into());
    }
    writer.append(done(false));
    writer
}

/// The plain end of a call (message 9).
pub fn done(in_transaction: bool) -> Writer {
    let mut writer = Writer::new();
    writer.u8(9).ub(status(in_transaction)).ub(0);
    writer
}

/// The columns of a query.
pub fn describe(writer: &mut Writer, columns: &[Column]) {
    writer.u8(16).bytes(b"");
    let width: u64 = columns
        .iter()
        .map(|column| u64::from(ColumnType::from(&column.kind).size))
        .sum();
    writer.ub(width).ub(columns.len() as u64);
    if !columns.is_empty() {
        writer.u8(0);
    }
    for (position, column) in columns.iter().enumerate() {
        let kind = ColumnType::from(&column.kind);
        writer
            .raw(&[kind.code, 0, kind.precision, kind.scale as u8])
            .ub(kind.size.into());
        // Array elements, continuation flags, object id, version.
        writer.zeros(4);
        let is_text = kind.form != 0;
        writer.ub(if is_text { UTF8 } else { 0 }).u8(kind.form);
        // Size in characters, object column id.
        writer
            .ub(if is_text { kind.size.into() } else { 0 })
            .zeros(1);
        writer
            .u8(u8::from(column.nullable))
            .u8(column.name.len().min(255) as u8);
        writer.counted(column.name.as_bytes());
        // Type schema and name; position; flags.
        writer.zeros(2).ub(position as u64 + 1).zeros(1);
    }
    // Current date, four cursor properties, query cache key.
    writer.zeros(6);
}

/// The head in front of a batch of rows.
pub fn row_header(writer: &mut Writer, columns: usize) {
    writer.u8(6).u8(0).ub(columns as u64).zeros(5);
}

pub fn row(writer: &mut Writer, values: &[Vec<u8>]) {
    writer.u8(7);
    for value in values {
        writer.bytes(value);
    }
}

/// Which bind variables of a block come back.
pub fn directions(writer: &mut Writer, comes_back: &[bool]) {
    let count = comes_back.len() as u64;
    // The count is split into its low byte and the rest.
    writer.u8(11).u8(0).ub(count % 256).ub(count / 256).zeros(4);
    for comes_back in comes_back {
        writer.u8(if *comes_back {
            DIRECTION_IN_OUT
        } else {
            DIRECTION_IN
        });
    }
}

/// The OUT values of one iteration of a block.
pub fn out_values(writer: &mut Writer, values: &[Vec<u8>]) {
    writer.u8(7);
    for value in values {
        // Behind each value: the length it was cut from, here none.
        writer.bytes(value).zeros(1);
    }
}

/// The values that one iteration returned, per variable a list of rows.
pub fn returned(writer: &mut Writer, variables: &[Vec<Vec<u8>>]) {
    writer.u8(7);
    for rows in variables {
        writer.ub(rows.len() as u64);
        for value in rows {
            writer.bytes(value).zeros(1);
        }
    }
}

/// Rows touched by each iteration of an array execution.
pub fn row_counts(writer: &mut Writer, counts: &[u64]) {
    writer.u8(8).zeros(4).ub(counts.len() as u64);
    for count in counts {
        writer.ub(*count);
    }
}
