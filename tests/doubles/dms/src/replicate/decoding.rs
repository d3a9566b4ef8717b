//! Reads the text of PostgreSQL's `test_decoding` output plugin. Pure.
//!
//! Source: PostgreSQL 15, `contrib/test_decoding/test_decoding.c`. Text is quoted
//! with doubled quotes and nothing else is escaped: a value may hold line ends.

use super::change::{Change, Operation, Row, TableName};

/// One message of the plugin.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Decoded {
    /// `BEGIN xid`
    Begin(String),
    /// `COMMIT xid`
    Commit,
    Change(Change),
    /// A change that says nothing of its row: an UPDATE or DELETE of a table
    /// without a replica identity.
    WithoutKey(TableName),
    /// A TRUNCATE, which DMS passes on only where asked to; it is not passed on.
    Truncate,
    Other,
}

/// A message that can't be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("test_decoding wrote {text:?}, which can't be read at {rest:?}")]
pub struct DecodeError {
    text: String,
    rest: String,
}

/// Reads one message.
///
/// # Errors
/// When it is not what the plugin writes.
pub fn decode(text: &str) -> Result<Decoded, DecodeError> {
    if let Some(xid) = text.strip_prefix("BEGIN") {
        return Ok(Decoded::Begin(xid.trim().into()));
    }
    if text.starts_with("COMMIT") {
        return Ok(Decoded::Commit);
    }
    let mut cursor = Cursor { text, rest: text };
    if !cursor.skip("table ") {
        return Ok(Decoded::Other);
    }
    cursor.change()
}

struct Cursor<'a> {
    text: &'a str,
    rest: &'a str,
}

impl Cursor<'_> {
    fn error(&self) -> DecodeError {
        // Enough to find the place; a row can be very long.
        let short = |text: &str| text.chars().take(200).collect();
        DecodeError {
            text: short(self.text),
            rest: short(self.rest),
        }
    }

    fn skip(&mut self, expected: &str) -> bool {
        match self.rest.strip_prefix(expected) {
            Some(rest) => {
                self.rest = rest;
                true
            }
            None => false,
        }
    }

    fn expect(&mut self, expected: &str) -> Result<(), DecodeError> {
        if self.skip(expected) {
            Ok(())
        } else {
            Err(self.error())
        }
    }

    /// A name, quoted where PostgreSQL's `quote_identifier` quotes it.
    fn name(&mut self) -> Result<String, DecodeError> {
        if self.skip("\"") {
            return self.quoted('"');
        }
        let end = self
            .rest
            .find(|c: char| !(c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_'))
            .filter(|end| *end > 0)
            .ok_or_else(|| self.error())?;
        let (name, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(name.into())
    }

    /// The rest of a quoted text; a doubled quote stands for one.
    fn quoted(&mut self, quote: char) -> Result<String, DecodeError> {
        let mut text = String::new();
        loop {
            let end = self.rest.find(quote).ok_or_else(|| self.error())?;
            text.push_str(&self.rest[..end]);
            self.rest = &self.rest[end + 1..];
            if !self.rest.starts_with(quote) {
                return Ok(text);
            }
            text.push(quote);
            self.rest = &self.rest[1..];
        }
    }

    fn change(&mut self) -> Result<Decoded, DecodeError> {
        let schema = self.name()?;
        self.expect(".")?;
        let table = TableName::new(schema, self.name()?);
        if self.rest.starts_with(", ") || self.rest.starts_with(": TRUNCATE") {
            return Ok(Decoded::Truncate);
        }
        self.expect(": ")?;
        let operation = if self.skip("INSERT:") {
            Operation::Insert
        } else if self.skip("UPDATE:") {
            Operation::Update
        } else {
            self.expect("DELETE:")?;
            Operation::Delete
        };
        if self.rest.trim_start() == "(no-tuple-data)" {
            return Ok(Decoded::WithoutKey(table));
        }
        let before = if self.skip(" old-key:") {
            let row = self.row()?;
            self.expect(" new-tuple:")?;
            row
        } else {
            Row::new()
        };
        let row = self.row()?;
        let (before, after) = match operation {
            Operation::Delete => (row, Row::new()),
            Operation::Insert | Operation::Update => (before, row),
        };
        Ok(Decoded::Change(Change {
            table,
            operation,
            before,
            after,
        }))
    }

    /// ` name[type]:value name[type]:value`, up to the end or ` new-tuple:`.
    fn row(&mut self) -> Result<Row, DecodeError> {
        let mut row = Row::new();
        while !self.rest.is_empty() && !self.rest.starts_with(" new-tuple:") {
            self.expect(" ")?;
            let column = self.name()?;
            self.expect("[")?;
            self.kind()?;
            self.expect(":")?;
            match self.value()? {
                Value::Null => row.insert(column, None),
                Value::Text(text) => row.insert(column, Some(text)),
                // A large value that the update left alone is not in the stream.
                Value::Unchanged => None,
            };
        }
        Ok(row)
    }

    /// A type's name up to its bracket; arrays have brackets of their own.
    fn kind(&mut self) -> Result<(), DecodeError> {
        let mut depth = 1_u32;
        for (index, c) in self.rest.char_indices() {
            match c {
                '[' => depth += 1,
                ']' => depth -= 1,
                _ => {}
            }
            if depth == 0 {
                self.rest = &self.rest[index + 1..];
                return Ok(());
            }
        }
        Err(self.error())
    }

    fn value(&mut self) -> Result<Value, DecodeError> {
        // Bit strings are written B'…'.
        if self.skip("'") || self.skip("B'") {
            return self.quoted('\'').map(Value::Text);
        }
        let end = self.rest.find(' ').unwrap_or(self.rest.len());
        let (word, rest) = self.rest.split_at(end);
        self.rest = rest;
        Ok(match word {
            "null" => Value::Null,
            "unchanged-toast-datum" => Value::Unchanged,
            other => Value::Text(other.into()),
        })
    }
}

enum Value {
    Null,
    Text(String),
    Unchanged,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn change(text: &str) -> Change {
        match decode(text).unwrap() {
            Decoded::Change(change) => change,
            other => panic!("{other:?}"),
        }
    }

    fn get<'a>(row: &'a Row, column: &str) -> Option<&'a str> {
        row[column].as_deref()
    }

    #[test]
    fn an_insert_with_every_kind_of_value() {
        let read = change(
            "table shop.orders: INSERT: id[bigint]:1 customer[character varying]:'O''Brien\nof [Cork]: a[b]:1' \
             amount[numeric]:12.50 note[text]:null paid[boolean]:true tags[text[]]:'{a,b}' \
             placed_at[timestamp without time zone]:'2026-11-23 01:02:03'",
        );
        assert_eq!(read.operation, Operation::Insert);
        assert_eq!(read.table, TableName::new("shop", "orders"));
        assert_eq!(
            get(&read.after, "customer"),
            Some("O'Brien\nof [Cork]: a[b]:1")
        );
        assert_eq!(get(&read.after, "amount"), Some("12.50"));
        assert_eq!(get(&read.after, "note"), None);
        assert_eq!(get(&read.after, "tags"), Some("{a,b}"));
        assert_eq!(get(&read.after, "placed_at"), Some("2026-11-23 01:02:03"));
    }

    #[test]
    fn updates_and_deletes_by_key() {
        let moved = change(
            "table shop.orders: UPDATE: old-key: id[bigint]:1 new-tuple: id[bigint]:2 note[text]:'x'",
        );
        assert_eq!(
            (get(&moved.before, "id"), get(&moved.after, "id")),
            (Some("1"), Some("2"))
        );
        let kept =
            change("table shop.orders: UPDATE: id[bigint]:1 big[text]:unchanged-toast-datum");
        assert!(!kept.after.contains_key("big") && kept.before.is_empty());
        let gone = change("table \"Shop\".\"a\"\"b\": DELETE: id[bigint]:1");
        assert_eq!(gone.table, TableName::new("Shop", "a\"b"));
        assert_eq!(get(&gone.before, "id"), Some("1"));
    }

    #[test]
    fn what_carries_no_row_is_told_apart() {
        assert_eq!(decode("BEGIN 741").unwrap(), Decoded::Begin("741".into()));
        assert_eq!(decode("COMMIT 741").unwrap(), Decoded::Commit);
        assert_eq!(
            decode("table shop.log: DELETE: (no-tuple-data)").unwrap(),
            Decoded::WithoutKey(TableName::new("shop", "log"))
        );
        assert_eq!(
            decode("table shop.a, shop.b: TRUNCATE: (no-flags)").unwrap(),
            Decoded::Truncate
        );
        assert!(decode("table shop.orders: INSERT: id[bigint]:'1").is_err());
    }
}
