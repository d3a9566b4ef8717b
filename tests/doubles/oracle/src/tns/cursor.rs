//! The open cursors of a connection.

use super::oac::{BindType, column_bytes};
use super::request::Cursors;
use super::text::Statement;
use crate::api::{Column, OraError, Value};
use std::collections::BTreeMap;

/// Cursors a session may hold open; Oracle's default of `OPEN_CURSORS` is
/// 300 in the databases that DBCA makes.
const OPEN_MAX: usize = 300;

/// A statement with its state.
pub struct Cursor {
    pub statement: Statement,
    /// Types of its bind variables.
    pub types: Vec<BindType>,
    /// Columns of its rows, where it is a query that has run.
    pub columns: Vec<Column>,
    /// Rows not fetched yet; `None` where nothing has run.
    rows: Option<std::vec::IntoIter<Vec<Value>>>,
    /// Rows fetched so far.
    pub fetched: u64,
}

impl Cursor {
    /// A cursor that has not run.
    pub fn new(statement: Statement, types: Vec<BindType>) -> Self {
        Self {
            statement,
            types,
            columns: Vec::new(),
            rows: None,
            fetched: 0,
        }
    }

    /// Takes the result of a query.
    pub fn open(&mut self, columns: Vec<Column>, rows: Vec<Vec<Value>>) {
        self.columns = columns;
        self.rows = Some(rows.into_iter());
        self.fetched = 0;
    }

    /// The next rows, at most `count`, as bytes. ORA-01002 where there is no
    /// result to fetch from.
    pub fn fetch(&mut self, count: u32) -> Result<Vec<Vec<Vec<u8>>>, OraError> {
        let Some(rows) = self.rows.as_mut() else {
            return Err(OraError::new(1002, "fetch out of sequence"));
        };
        let mut batch = Vec::new();
        for row in rows.by_ref().take(count as usize) {
            let values = self.columns.iter().zip(&row);
            batch.push(
                values
                    .map(|(column, value)| column_bytes(&column.kind, value))
                    .collect::<Result<Vec<_>, _>>()?,
            );
        }
        self.fetched += batch.len() as u64;
        Ok(batch)
    }

    /// Whether every row has been fetched.
    pub fn is_exhausted(&self) -> bool {
        self.rows.as_ref().is_none_or(|rows| rows.len() == 0)
    }
}

/// All cursors of a connection by number.
#[derive(Default)]
pub struct OpenCursors {
    by_number: BTreeMap<u32, Cursor>,
}

impl OpenCursors {
    /// Opens a cursor and gives its number. ORA-01000 when there are too
    /// many.
    pub fn open(&mut self, cursor: Cursor) -> Result<u32, OraError> {
        if self.by_number.len() >= OPEN_MAX {
            return Err(OraError::new(1000, "maximum open cursors exceeded"));
        }
        // The lowest number that is free: they stay within the two bytes
        // that drivers keep.
        let number = (1..)
            .find(|number| !self.by_number.contains_key(number))
            .unwrap_or(1);
        self.by_number.insert(number, cursor);
        Ok(number)
    }

    /// The cursor of that number. ORA-01001 where there is none.
    pub fn get(&mut self, number: u32) -> Result<&mut Cursor, OraError> {
        self.by_number
            .get_mut(&number)
            .ok_or_else(|| OraError::new(1001, "invalid cursor"))
    }

    /// Closes a cursor; one that isn't open is passed over.
    pub fn close(&mut self, number: u32) {
        self.by_number.remove(&number);
    }
}

impl Cursors for OpenCursors {
    fn prepared(&self, cursor: u32) -> Option<(&Statement, &[BindType])> {
        let cursor = self.by_number.get(&cursor)?;
        Some((&cursor.statement, &cursor.types))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::Kind;

    #[test]
    fn tns_rows_come_in_batches() {
        let mut cursor = Cursor::new(Statement::new("select 1".to_owned()), Vec::new());
        assert_eq!(cursor.fetch(1).unwrap_err().code, 1002);
        let column = Column {
            name: "N".to_owned(),
            kind: Kind::Number(0, -127),
            nullable: true,
        };
        let rows = (1..=3)
            .map(|n: i32| vec![Value::Number(n.to_string())])
            .collect();
        cursor.open(vec![column], rows);
        assert_eq!(cursor.fetch(2).unwrap().len(), 2);
        assert!(!cursor.is_exhausted());
        assert_eq!(cursor.fetch(2).unwrap(), [[[193, 4]]]);
        assert!(cursor.is_exhausted());
        assert_eq!((cursor.fetch(2).unwrap().len(), cursor.fetched), (0, 3));
    }

    #[test]
    fn tns_cursor_numbers_are_used_again_and_end_somewhere() {
        let cursor = || Cursor::new(Statement::new(String::new()), Vec::new());
        let mut open = OpenCursors::default();
        for number in 1..=OPEN_MAX as u32 {
            assert_eq!(open.open(cursor()).unwrap(), number);
        }
        assert_eq!(open.open(cursor()).unwrap_err().code, 1000);
        open.close(7);
        assert_eq!(open.open(cursor()).unwrap(), 7);
        assert_eq!(open.get(999).err().map(|error| error.code), Some(1001));
    }
}
