//! Requests of a driver: TTC messages 1, 2, 3, 17 and 26.
//!
//! Layouts are those of TTC field version 12, read field by field to the
//! end, because a request carries no length. Pointers ("is there one") are
//! single bytes that say nothing the counts don't say.

use super::TnsError;
use super::codec::{Reader, Source, text};
use super::oac::BindType;
use super::text::{Statement, Variable};
use crate::api::Tags;
use std::collections::HashMap;

/// Bind values accepted in one request: 40,000 rows of 50 columns.
const BIND_VALUES_MAX: usize = 2_000_000;
/// Bytes of bind values accepted in one request.
const BIND_BYTES_MAX: usize = 64 << 20;
/// Key/value pairs of a logon; drivers send about ten.
const PAIRS_MAX: u64 = 256;
/// Cursors closed by one request; a session holds fewer.
const CLOSED_CURSORS_MAX: u64 = 65_535;
/// Elements of an execution's option vector (al8i4).
const VECTOR: usize = 13;

/// Execute: run the statement.
const OPTION_EXECUTE: u64 = 0x20;
/// Execute: the variables described are defines, not binds.
const OPTION_DEFINE: u64 = 0x10;
/// Execute: return the first rows too.
const OPTION_FETCH: u64 = 0x40;
/// Execute: commit when it succeeds.
const OPTION_COMMIT: u64 = 0x100;
/// Execute: go on after a row that fails and list the errors.
const OPTION_BATCH_ERRORS: u64 = 0x8_0000;
/// Execution flag: list the rows that each iteration touched.
const FLAG_ROW_COUNTS: u64 = 0x4000;
/// Execution flag: a scrollable cursor.
const FLAG_SCROLLABLE: u64 = 0x02;
/// Re-execute, second options: commit when it succeeds.
const REEXECUTE_COMMIT: u64 = 0x1;

/// One request: what rides along, then what is asked.
#[derive(Debug)]
pub struct Request {
    /// Done first, in order.
    pub piggybacks: Vec<Piggyback>,
    /// What the client waits for.
    pub call: Call,
}

/// A side request without an answer of its own.
#[derive(Debug, PartialEq, Eq)]
pub enum Piggyback {
    /// These cursors are closed.
    CloseCursors(Vec<u32>),
    Tags(Tags),
    /// ALTER SESSION SET CURRENT_SCHEMA.
    Schema(String),
}

/// What a client waits for.
#[derive(Debug)]
pub enum Call {
    Protocol,
    DataTypes,
    /// A phase of the logon.
    Logon(Logon),
    /// Execute, or parse alone, with everything said.
    Execute(Execute),
    /// Rows of an open cursor: its number and how many.
    Fetch(u32, u32),
    Commit,
    Rollback,
    Ping,
    /// The end of the session.
    Logoff,
    /// The session returns to a server-side pool; no answer.
    Release,
}

/// A phase of the logon.
#[derive(Debug)]
pub struct Logon {
    /// The second phase, with the answer to the challenge.
    pub answers: bool,
    /// User as given; empty for external authentication.
    pub user: String,
    /// Bits of the mode.
    pub mode: u64,
    pub pairs: HashMap<String, String>,
}

#[derive(Debug)]
pub struct Execute {
    /// Cursor to use; 0 for a new one.
    pub cursor: u32,
    /// Text, types of the binds; `None` where the cursor has them.
    pub prepared: Option<(Statement, Vec<BindType>)>,
    /// Binds of each iteration in the order of the statement's variables,
    /// those that are returned left out.
    pub rows: Vec<Vec<Vec<u8>>>,
    /// Iterations; 0 where the statement is only to be described.
    pub iterations: u64,
    /// Whether rows are to be described before they are returned.
    pub describe: bool,
    /// Rows to return at once; 0 for none.
    pub fetch: u32,
    /// Commit when it succeeds.
    pub commit: bool,
    /// Go on after a row that fails.
    pub batch_errors: bool,
    /// List the rows each iteration touched.
    pub row_counts: bool,
}

/// Looks up an open cursor's statement and bind types while a request that
/// leaves them out is being read.
pub trait Cursors {
    /// The cursor of that number.
    fn prepared(&self, cursor: u32) -> Option<(&Statement, &[BindType])>;
}

impl Request {
    /// Reads a whole request.
    pub fn read<S: Source>(
        reader: &mut Reader<'_, S>,
        cursors: &impl Cursors,
    ) -> Result<Self, TnsError> {
        let mut piggybacks = Vec::new();
        loop {
            let call = match reader.u8()? {
                1 => protocol(reader)?,
                2 => data_types(reader)?,
                3 => function(reader, cursors)?,
                17 => {
                    piggybacks.push(piggyback(reader)?);
                    continue;
                }
                26 => release(reader)?,
                other => return Err(TnsError::Unsupported(format!("TTC message {other}"))),
            };
            return Ok(Self { piggybacks, call });
        }
    }
}

fn protocol<S: Source>(reader: &mut Reader<'_, S>) -> Result<Call, TnsError> {
    // Acceptable versions, then the driver's name, each ended by a zero.
    for _ in 0..2 {
        while reader.u8()? != 0 {}
    }
    Ok(Call::Protocol)
}

fn data_types<S: Source>(reader: &mut Reader<'_, S>) -> Result<Call, TnsError> {
    // Two character sets and the encoding flags.
    reader.skip(5)?;
    // Compile-time and run-time capabilities.
    reader.bytes()?;
    reader.bytes()?;
    // Type, conversion, representation and a zero; type 0 ends the list.
    while reader.take(2)? != [0, 0] {
        reader.skip(6)?;
    }
    Ok(Call::DataTypes)
}

fn release<S: Source>(reader: &mut Reader<'_, S>) -> Result<Call, TnsError> {
    // Function, sequence, tag pointer, tag length; then the mode.
    reader.skip(4)?;
    reader.ub()?;
    Ok(Call::Release)
}

fn piggyback<S: Source>(reader: &mut Reader<'_, S>) -> Result<Piggyback, TnsError> {
    let function = reader.u8()?;
    // Sequence number and a pointer.
    reader.skip(2)?;
    match function {
        105 => {
            let count = reader.ub()?;
            if count > CLOSED_CURSORS_MAX {
                return Err(TnsError::Malformed("a list of cursors that is too long"));
            }
            let cursors = (0..count).map(|_| reader.ub4()).collect::<Result<_, _>>()?;
            Ok(Piggyback::CloseCursors(cursors))
        }
        135 => tags(reader).map(Piggyback::Tags),
        152 => reader.counted_text().map(Piggyback::Schema),
        other => Err(TnsError::Unsupported(format!("piggyback {other}"))),
    }
}

fn tags<S: Source>(reader: &mut Reader<'_, S>) -> Result<Tags, TnsError> {
    // A second pointer, the flags.
    reader.skip(1)?;
    reader.ub()?;
    // Identifier, module, action: pointer and length each.
    let mut present = Vec::new();
    let mut header = |reader: &mut Reader<'_, S>| -> Result<(), TnsError> {
        present.push((reader.u8()? != 0, reader.ub()? > 0));
        Ok(())
    };
    for _ in 0..3 {
        header(reader)?;
    }
    // Execution context id, its call count and error, all unused.
    reader.skip(1)?;
    reader.ub()?;
    reader.skip(1)?;
    reader.ub()?;
    // Client info; two stack fields, unused; database operation.
    header(reader)?;
    for _ in 0..2 {
        reader.skip(1)?;
        reader.ub()?;
    }
    header(reader)?;
    // The texts follow in the same order. One that was set without a text is
    // being cleared.
    let mut texts = present.into_iter().map(|(set, given)| match (set, given) {
        (false, _) => Ok(None),
        (true, false) => Ok(Some(String::new())),
        (true, true) => reader.bytes().and_then(text).map(Some),
    });
    let mut next = || texts.next().unwrap_or(Ok(None));
    let (client_identifier, module, action, client_info) = (next()?, next()?, next()?, next()?);
    // DBOP has no place in V$SESSION as far as the engine goes.
    next()?;
    Ok(Tags {
        module,
        action,
        client_identifier,
        client_info,
    })
}

fn function<S: Source>(
    reader: &mut Reader<'_, S>,
    cursors: &impl Cursors,
) -> Result<Call, TnsError> {
    let function = reader.u8()?;
    // Sequence number.
    reader.skip(1)?;
    match function {
        118 | 115 => logon(reader, function == 115).map(Call::Logon),
        94 => execute(reader, cursors).map(Call::Execute),
        4 | 78 => reexecute(reader, function == 78, cursors).map(Call::Execute),
        5 => Ok(Call::Fetch(reader.ub4()?, reader.ub4()?)),
        14 => Ok(Call::Commit),
        15 => Ok(Call::Rollback),
        147 => Ok(Call::Ping),
        9 => Ok(Call::Logoff),
        other => Err(TnsError::Unsupported(format!("TTC function {other}"))),
    }
}

fn logon<S: Source>(reader: &mut Reader<'_, S>, answers: bool) -> Result<Logon, TnsError> {
    let has_user = reader.u8()? != 0;
    reader.ub()?;
    let mode = reader.ub()?;
    reader.skip(1)?;
    let count = reader.ub()?;
    reader.skip(2)?;
    if count > PAIRS_MAX {
        return Err(TnsError::Malformed("a logon of more than 256 pairs"));
    }
    let user = if has_user {
        text(reader.bytes()?)?
    } else {
        String::new()
    };
    let mut pairs = HashMap::new();
    for _ in 0..count {
        let key = reader.counted_text()?;
        let value = reader.counted_text()?;
        reader.ub()?;
        pairs.insert(key, value);
    }
    Ok(Logon {
        answers,
        user,
        mode,
        pairs,
    })
}

fn execute<S: Source>(
    reader: &mut Reader<'_, S>,
    cursors: &impl Cursors,
) -> Result<Execute, TnsError> {
    let options = reader.ub()?;
    let cursor = reader.ub4()?;
    let has_sql = reader.u8()? != 0;
    reader.ub()?;
    // Vector pointer and length, two output pointers, prefetch buffer size.
    reader.skip(1)?;
    reader.ub()?;
    reader.skip(2)?;
    reader.ub()?;
    let prefetch = reader.ub4()?;
    // Longest LONG, binds pointer.
    reader.ub()?;
    reader.skip(1)?;
    let bind_count = reader.ub4()? as usize;
    // Five pointers, defines pointer, number of defines.
    reader.skip(6)?;
    reader.ub()?;
    execute_rest(reader)?;
    let statement = if has_sql {
        Some(text(reader.bytes()?)?)
    } else {
        None
    };
    let vector = (0..VECTOR)
        .map(|_| reader.ub())
        .collect::<Result<Vec<_>, _>>()?;
    if options & OPTION_DEFINE != 0 {
        return Err(TnsError::Unsupported("a define of columns".to_owned()));
    }
    if vector[9] & FLAG_SCROLLABLE != 0 {
        return Err(TnsError::Unsupported("a scrollable cursor".to_owned()));
    }
    let statement = match statement {
        Some(sql) => Statement::new(sql),
        None => match cursors.prepared(cursor) {
            Some((statement, _)) => statement.clone(),
            None => {
                return Err(TnsError::Unsupported(format!(
                    "cursor {cursor}, which is not open"
                )));
            }
        },
    };
    if bind_count > BIND_VALUES_MAX {
        return Err(TnsError::Malformed(
            "more bind variables than a request may have",
        ));
    }
    let types = (0..bind_count)
        .map(|_| BindType::read(reader))
        .collect::<Result<Vec<_>, _>>()?;
    let runs = options & OPTION_EXECUTE != 0;
    let iterations = match (runs, statement.is_query) {
        (false, _) => 0,
        (true, true) => 1,
        (true, false) => vector[1].max(1),
    };
    let rows = bind_rows(reader, &statement, &types, iterations)?;
    Ok(Execute {
        cursor,
        prepared: Some((statement, types)),
        rows,
        iterations,
        describe: true,
        fetch: if options & OPTION_FETCH != 0 {
            prefetch
        } else {
            0
        },
        commit: options & OPTION_COMMIT != 0,
        batch_errors: options & OPTION_BATCH_ERRORS != 0,
        row_counts: vector[9] & FLAG_ROW_COUNTS != 0,
    })
}

/// The fields of an execution between its defines and its text: registration
/// id, object and LOB pointers, row count pointers, SQL signature and id,
/// chunk ids. None of them changes what is done.
fn execute_rest<S: Source>(reader: &mut Reader<'_, S>) -> Result<(), TnsError> {
    reader.ub()?;
    for (pointers, integers) in [(3, 1), (1, 2), (1, 1), (2, 1), (1, 1), (2, 1)] {
        reader.skip(pointers)?;
        reader.skip_ub(integers)?;
    }
    Ok(())
}

fn reexecute<S: Source>(
    reader: &mut Reader<'_, S>,
    fetches: bool,
    cursors: &impl Cursors,
) -> Result<Execute, TnsError> {
    let cursor = reader.ub4()?;
    let count = reader.ub()?;
    reader.ub()?;
    let options = reader.ub()?;
    let Some((statement, types)) = cursors.prepared(cursor) else {
        return Err(TnsError::Unsupported(format!(
            "cursor {cursor}, which is not open"
        )));
    };
    let iterations = if fetches || statement.is_query {
        1
    } else {
        count.max(1)
    };
    let rows = bind_rows(reader, statement, types, iterations)?;
    let fetch = if fetches {
        u32::try_from(count).map_err(|_| TnsError::Malformed("a fetch beyond 32 bits"))?
    } else {
        0
    };
    Ok(Execute {
        cursor,
        prepared: None,
        rows,
        iterations,
        describe: false,
        fetch,
        commit: !fetches && options & REEXECUTE_COMMIT != 0,
        batch_errors: false,
        row_counts: false,
    })
}

/// The values of each iteration. In SQL, values declared larger than 4,000
/// bytes come behind the others of their row.
fn bind_rows<S: Source>(
    reader: &mut Reader<'_, S>,
    statement: &Statement,
    types: &[BindType],
    iterations: u64,
) -> Result<Vec<Vec<Vec<u8>>>, TnsError> {
    let is_returned = |at: usize| {
        statement
            .variables
            .get(at)
            .is_some_and(|v: &Variable| v.returned)
    };
    let sent: Vec<usize> = (0..types.len()).filter(|at| !is_returned(*at)).collect();
    if sent.is_empty() {
        return Ok(Vec::new());
    }
    let iterations = usize::try_from(iterations).unwrap_or(usize::MAX);
    if iterations.saturating_mul(sent.len()) > BIND_VALUES_MAX {
        return Err(TnsError::Malformed(
            "more than 2,000,000 bind values in a request",
        ));
    }
    let is_late = |at: usize| !statement.is_block && types[at].is_long();
    let mut order: Vec<usize> = (0..sent.len()).collect();
    order.sort_by_key(|position| is_late(sent[*position]));
    let mut total = 0;
    let mut rows = Vec::with_capacity(iterations);
    for _ in 0..iterations {
        if reader.u8()? != 7 {
            return Err(TnsError::Malformed("bind values without their row mark"));
        }
        let mut row = vec![Vec::new(); sent.len()];
        for &position in &order {
            row[position] = reader.bytes()?;
            total += row[position].len();
        }
        if total > BIND_BYTES_MAX {
            return Err(TnsError::Malformed(
                "more than 64 MiB of bind values in a request",
            ));
        }
        rows.push(row);
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use super::super::codec::Writer;
    use super::*;
    use std::collections::VecDeque;

    struct Pieces(VecDeque<Vec<u8>>);

    impl Source for Pieces {
        fn next_payload(&mut self) -> Result<Vec<u8>, TnsError> {
            self.0.pop_front().ok_or(TnsError::Closed)
        }
    }

    struct NoCursors;

    impl Cursors for NoCursors {
        fn prepared(&self, _: u32) -> Option<(&Statement, &[BindType])> {
            None
        }
    }

    /// What a driver sends for an INSERT of one number and one text, twice,
    /// with a cursor to close riding along.
    fn insert(sql: &str) -> Vec<u8> {
        let mut w = Writer::new();
        w.raw(&[17, 105, 1, 1]).ub(1).ub(3);
        w.raw(&[3, 94, 2])
            .ub(0x8129)
            .ub(0)
            .u8(1)
            .ub(sql.len() as u64)
            .u8(1)
            .ub(13);
        w.zeros(3).ub(1).ub(0x7fff_ffff).u8(1).ub(2).zeros(7);
        w.zeros(1)
            .raw(&[0, 1, 0])
            .zeros(1)
            .u8(0)
            .zeros(2)
            .u8(0)
            .zeros(1)
            .u8(0);
        w.u8(0).zeros(1).u8(0).zeros(1).u8(0).u8(0).zeros(1);
        w.bytes(sql.as_bytes()).ub(1).ub(2).zeros(11);
        for (code, size) in [(2, 22), (1, 40)] {
            w.raw(&[code, 1, 0, 0])
                .ub(size)
                .zeros(2)
                .zeros(1)
                .zeros(1)
                .ub(873)
                .u8(1)
                .zeros(2);
        }
        w.u8(7)
            .bytes(&[193, 2])
            .bytes(b"one")
            .u8(7)
            .bytes(&[193, 3])
            .bytes(b"");
        w.into_bytes()
    }

    fn check(pieces: Vec<Vec<u8>>, sql: &str) {
        let mut source = Pieces(pieces.into());
        let mut reader = Reader::new(&mut source, Vec::new());
        let request = Request::read(&mut reader, &NoCursors).unwrap();
        assert!(reader.at_packet_end());
        assert_eq!(request.piggybacks, [Piggyback::CloseCursors(vec![3])]);
        let Call::Execute(execute) = request.call else {
            panic!("{:?}", request.call)
        };
        let (statement, types) = execute.prepared.unwrap();
        assert_eq!((statement.sql.as_str(), types.len()), (sql, 2));
        assert_eq!(execute.iterations, 2);
        assert!(execute.commit);
        assert_eq!(
            execute.rows,
            [
                vec![vec![193, 2], b"one".to_vec()],
                vec![vec![193, 3], Vec::new()]
            ]
        );
    }

    #[test]
    fn tns_an_execution_is_read_however_it_is_cut() {
        let sql = "insert into t (a, b) values (:a, :b)";
        let bytes = insert(sql);
        for cut in 0..bytes.len() {
            check(vec![bytes[..cut].to_vec(), bytes[cut..].to_vec()], sql);
        }
        check(bytes.chunks(1).map(<[u8]>::to_vec).collect(), sql);
    }

    #[test]
    fn tns_long_statements_cross_packets() {
        let sql = format!(
            "insert into t (a, b) values (:a, :b) -- {}",
            "x".repeat(40_000)
        );
        let bytes = insert(&sql);
        check(bytes.chunks(8_182).map(<[u8]>::to_vec).collect(), &sql);
    }

    #[test]
    fn tns_a_request_cut_short_is_an_error_at_every_byte() {
        let bytes = insert("insert into t (a, b) values (:a, :b)");
        for end in 0..bytes.len() {
            let mut source = Pieces(VecDeque::from([bytes[..end].to_vec()]));
            let mut reader = Reader::new(&mut source, Vec::new());
            assert!(Request::read(&mut reader, &NoCursors).is_err(), "{end}");
        }
    }

    #[test]
    fn tns_a_damaged_request_is_read_or_refused_but_never_a_panic() {
        let bytes = insert("insert into t (a, b) values (:a, :b) returning a into :c");
        let mut read = 0;
        for at in 0..bytes.len() {
            for damage in [0, 1, 7, 0x7f, 0x80, 253, 254, 255] {
                let mut damaged = bytes.clone();
                damaged[at] = damage;
                let mut source = Pieces(VecDeque::new());
                let mut reader = Reader::new(&mut source, damaged);
                read += usize::from(Request::read(&mut reader, &NoCursors).is_ok());
            }
        }
        // Most bytes are texts and values, where any damage is still a value.
        assert!(read > 0);
    }
}
