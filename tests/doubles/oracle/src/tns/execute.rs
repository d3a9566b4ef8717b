//! Executions: from a request through the engine to the reply.

use super::codec::Writer;
use super::cursor::{Cursor, OpenCursors};
use super::oac::BindType;
use super::reply::{self, Ending};
use super::request::Execute;
use super::text::Statement;
use crate::api::{Bind, OraError, Reply, Session, Value};

/// ORA-01403, which ends a fetch rather than fails it.
const NO_DATA_FOUND: u32 = 1403;
/// Failed iterations listed at most; a driver accepts 65,535.
const FAILURES_MAX: usize = 65_535;

/// What the iterations of an execution added up to.
#[derive(Default)]
struct Tally {
    rows: u64,
    counts: Vec<u64>,
    failures: Vec<(u32, OraError)>,
    /// Per iteration of a block: what came back by name.
    outs: Vec<Vec<(String, Value)>>,
    /// Per iteration of DML: what RETURNING gave.
    returned: Vec<Vec<(String, Value)>>,
    /// A query ran; its rows are in the cursor.
    queried: bool,
    error: Option<OraError>,
}

impl Execute {
    /// Executes and writes the reply, which comes with the cursor that was
    /// opened for it, if one was. An error comes with the cursor that stays
    /// open in spite of it, or 0.
    pub fn run(
        mut self,
        session: &mut dyn Session,
        cursors: &mut OpenCursors,
    ) -> Result<(Writer, Option<u32>), (OraError, u32)> {
        let is_new = self.cursor == 0;
        if let Some((statement, types)) = self.prepared.take() {
            if is_new {
                let opened = cursors.open(Cursor::new(statement, types));
                self.cursor = opened.map_err(|error| (error, 0))?;
            } else {
                let cursor = cursors.get(self.cursor).map_err(|error| (error, 0))?;
                *cursor = Cursor::new(statement, types);
            }
        }
        let number = self.cursor;
        match self.execute(session, cursors) {
            Ok(writer) => Ok((writer, is_new.then_some(number))),
            Err(error) if is_new => {
                // A statement that failed at its first execution leaves no
                // cursor behind.
                cursors.close(number);
                Err((error, 0))
            }
            Err(error) => Err((error, number)),
        }
    }

    fn execute(
        &self,
        session: &mut dyn Session,
        cursors: &mut OpenCursors,
    ) -> Result<Writer, OraError> {
        let mut writer = Writer::new();
        let cursor = cursors.get(self.cursor)?;
        if self.iterations == 0 {
            if cursor.statement.is_query {
                reply::describe(&mut writer, &session.describe(&cursor.statement.sql)?);
            }
            let in_transaction = session.in_transaction();
            Ending {
                in_transaction,
                cursor: self.cursor,
                ..Ending::default()
            }
            .write(&mut writer);
            return Ok(writer);
        }
        let mut tally = self.iterate(session, cursor)?;
        if let Some(error) = tally.error.take() {
            // Earlier iterations stand; the driver wants to know how many.
            return self.failed(session, &tally, error);
        }
        if self.commit && tally.failures.is_empty() {
            session.commit()?;
        }
        let in_transaction = session.in_transaction();
        if tally.queried {
            if self.describe {
                reply::describe(&mut writer, &cursor.columns);
            }
            if self.fetch > 0 {
                fetch(
                    cursors,
                    self.cursor,
                    self.fetch,
                    in_transaction,
                    &mut writer,
                )?;
                return Ok(writer);
            }
        }
        self.values(cursors, &tally, &mut writer)?;
        if self.row_counts {
            reply::row_counts(&mut writer, &tally.counts);
        }
        Ending {
            in_transaction,
            rows: tally.rows,
            cursor: self.cursor,
            error: None,
            failures: &tally.failures,
        }
        .write(&mut writer);
        Ok(writer)
    }

    fn failed(
        &self,
        session: &dyn Session,
        tally: &Tally,
        error: OraError,
    ) -> Result<Writer, OraError> {
        if self.iterations <= 1 || super::session::is_fatal(&error) {
            return Err(error);
        }
        let mut writer = Writer::new();
        Ending {
            in_transaction: session.in_transaction(),
            rows: tally.rows,
            cursor: self.cursor,
            error: Some(&error),
            failures: &[],
        }
        .write(&mut writer);
        Ok(writer)
    }

    fn iterate(&self, session: &mut dyn Session, cursor: &mut Cursor) -> Result<Tally, OraError> {
        let mut tally = Tally::default();
        let no_values = Vec::new();
        for iteration in 0..self.iterations {
            let values = self.rows.get(iteration as usize).unwrap_or(&no_values);
            let binds = binds(&cursor.statement, &cursor.types, values)?;
            match session.execute(&cursor.statement.sql, &binds) {
                Ok(Reply::Rows { columns, rows }) => {
                    cursor.open(columns, rows);
                    tally.queried = true;
                }
                Ok(Reply::Affected { rows, returned }) => {
                    tally.rows += rows;
                    tally.counts.push(rows);
                    tally.returned.push(returned);
                }
                Ok(Reply::Block { out }) => {
                    tally.rows += 1;
                    tally.outs.push(out);
                }
                Ok(Reply::Done) => {}
                Err(error) if self.batch_errors && !super::session::is_fatal(&error) => {
                    tally.counts.push(0);
                    if tally.failures.len() < FAILURES_MAX {
                        tally.failures.push((iteration as u32, error));
                    }
                }
                Err(error) => {
                    tally.error = Some(error);
                    break;
                }
            }
        }
        Ok(tally)
    }

    /// Writes what comes back in bind variables.
    fn values(
        &self,
        cursors: &mut OpenCursors,
        tally: &Tally,
        writer: &mut Writer,
    ) -> Result<(), OraError> {
        let Cursor {
            statement, types, ..
        } = cursors.get(self.cursor)?;
        if statement.is_returning() {
            for returned in &tally.returned {
                let variables = statement.variables.iter().zip(&*types);
                let lists = variables
                    .filter(|(variable, _)| variable.returned)
                    .map(|(variable, kind)| all_of(returned, &variable.name, kind))
                    .collect::<Result<Vec<_>, _>>()?;
                reply::returned(writer, &lists);
            }
        } else if !tally.outs.is_empty() && !types.is_empty() {
            let comes_back: Vec<bool> = statement
                .variables
                .iter()
                .map(|variable| {
                    tally
                        .outs
                        .iter()
                        .flatten()
                        .any(|out| out.0 == variable.name)
                })
                .collect();
            reply::directions(writer, &comes_back);
            if !comes_back.contains(&true) {
                return Ok(());
            }
            for (iteration, out) in tally.outs.iter().enumerate() {
                let mut values = Vec::new();
                for at in (0..types.len()).filter(|at| comes_back[*at]) {
                    let name = &statement.variables[at].name;
                    values.push(match out.iter().rfind(|(assigned, _)| assigned == name) {
                        Some((_, value)) => types[at].bytes(value)?,
                        // Not assigned this time: it keeps its value.
                        None => self.rows[iteration][at].clone(),
                    });
                }
                reply::out_values(writer, &values);
            }
        }
        Ok(())
    }
}

/// Every value of a name, in the order of the rows that gave them.
fn all_of(
    returned: &[(String, Value)],
    name: &str,
    kind: &BindType,
) -> Result<Vec<Vec<u8>>, OraError> {
    returned
        .iter()
        .filter(|(variable, _)| variable == name)
        .map(|(_, value)| kind.bytes(value))
        .collect()
}

/// The engine's binds: each name once, values decoded. The variables after
/// RETURNING INTO go along without a value.
fn binds(
    statement: &Statement,
    types: &[BindType],
    values: &[Vec<u8>],
) -> Result<Vec<Bind>, OraError> {
    if types.is_empty() {
        return Ok(Vec::new());
    }
    if types.len() != statement.variables.len() {
        return Err(OraError::new(1008, "not all variables bound"));
    }
    let mut values = values.iter();
    let mut binds: Vec<Bind> = Vec::with_capacity(types.len());
    for (variable, kind) in statement.variables.iter().zip(types) {
        let value = match values.next() {
            Some(bytes) if !variable.returned => kind.value(bytes.clone())?,
            _ => Value::Null,
        };
        if !binds.iter().any(|bind| bind.name == variable.name) {
            binds.push(Bind {
                name: variable.name.clone(),
                value,
                kind: kind.kind()?,
            });
        }
    }
    Ok(binds)
}

/// Fetches from an open cursor and writes rows and ending.
pub fn fetch(
    cursors: &mut OpenCursors,
    number: u32,
    count: u32,
    in_transaction: bool,
    writer: &mut Writer,
) -> Result<(), OraError> {
    let cursor = cursors.get(number)?;
    let rows = cursor.fetch(count)?;
    reply::row_header(writer, cursor.columns.len());
    for row in &rows {
        reply::row(writer, row);
    }
    let end = OraError::new(NO_DATA_FOUND, "no data found");
    Ending {
        in_transaction,
        rows: cursor.fetched,
        cursor: number,
        error: cursor.is_exhausted().then_some(&end),
        failures: &[],
    }
    .write(writer);
    Ok(())
}
