//! Reads committed transactions from Oracle's redo, and rows for a load.
//!
//! The redo comes from a query in the style of LogMiner (`V$LOGMNR_CONTENTS` with
//! committed data only, each row's values as JSON): the simulated Oracle answers
//! it, a real one would need a mining session first. Everything here blocks.

use super::change::{Change, Operation, Row, TableName, Transaction, quote_name};
use super::connect::oracle_text;
use super::mapping::TableMapping;
use oracle::{Connection, Row as OracleRow};
use serde::Deserialize;
use std::collections::{BTreeMap, BTreeSet};

/// Rows of redo after which a round ends with its transaction. A few rounds a
/// second carry thousands of rows; a larger one would only delay its first rows.
const ROUND_ROWS: usize = 1_000;

/// Rows in one transaction. It is held in memory whole; beyond this the task fails
/// and says so, where real DMS would swap it to disk.
const TRANSACTION_ROWS: usize = 200_000;

/// Why the redo can't be read.
#[derive(Debug, thiserror::Error)]
pub enum RedoError {
    /// Oracle refused, or the session is lost.
    #[error("Oracle, {doing}: {}", oracle_text(source))]
    Oracle {
        /// What was being done.
        doing: &'static str,
        source: Box<oracle::Error>,
    },
    /// A row of redo that can't be understood.
    #[error("the redo at SCN {scn} can't be read: {why}")]
    Malformed { scn: u64, why: String },
    /// A transaction beyond the bound.
    #[error("the transaction committed at SCN {scn} has more than {TRANSACTION_ROWS} rows")]
    TooLarge { scn: u64 },
}

impl RedoError {
    /// Whether trying again can't help.
    #[must_use]
    pub fn is_fatal(&self) -> bool {
        !matches!(self, Self::Oracle { .. })
    }
}

fn doing(doing: &'static str) -> impl Fn(oracle::Error) -> RedoError {
    move |source| RedoError::Oracle {
        doing,
        source: Box::new(source),
    }
}

/// What one look at the redo brought.
#[derive(Debug, Default)]
pub struct Round {
    /// Transactions with changes of selected tables, in commit order.
    pub transactions: Vec<Transaction>,
    /// Whether the redo was read to its end.
    pub complete: bool,
}

/// A place in the redo.
pub struct RedoReader {
    connection: Connection,
    position: u64,
}

#[derive(Deserialize)]
struct RowData {
    #[serde(default)]
    before: Option<Row>,
    #[serde(default)]
    after: Option<Row>,
}

impl RedoReader {
    /// Reads what committed after `position`.
    #[must_use]
    pub fn new(connection: Connection, position: u64) -> Self {
        Self {
            connection,
            position,
        }
    }

    /// The next round; empty when nothing new has committed.
    ///
    /// # Errors
    /// As [`RedoError`] tells; the place is not moved then.
    pub fn poll(&mut self, mapping: &TableMapping) -> Result<Round, RedoError> {
        const QUERY: &str = "SELECT SCN, COMMIT_SCN, XID, SEQ, OPERATION, SEG_OWNER, TABLE_NAME, ROW_DATA \
            FROM V$LOGMNR_CONTENTS WHERE COMMIT_SCN > :1 ORDER BY COMMIT_SCN, SEQ";
        let failed = doing("reading the redo");
        let mut rows = self
            .connection
            .query(QUERY, &[&self.position])
            .map_err(&failed)?;
        let mut round = Round::default();
        let (mut seen, mut in_transaction, mut position) = (0, 0, self.position);
        loop {
            let Some(row) = rows.next() else {
                round.complete = true;
                break;
            };
            let row = row.map_err(&failed)?;
            let scn: u64 = row.get(1).map_err(&failed)?;
            if scn != position {
                if seen >= ROUND_ROWS {
                    break;
                }
                in_transaction = 0;
                position = scn;
            }
            seen += 1;
            in_transaction += 1;
            if in_transaction > TRANSACTION_ROWS {
                return Err(RedoError::TooLarge { scn });
            }
            if let Some(change) = read_change(&row, scn, mapping)? {
                let xid: String = row.get(2).map_err(&failed)?;
                round.add(scn, xid, change);
            }
        }
        self.position = position;
        Ok(round)
    }
}

impl Round {
    fn add(&mut self, scn: u64, xid: String, change: Change) {
        match self.transactions.last_mut() {
            Some(transaction) if transaction.position == scn => transaction.changes.push(change),
            _ => self.transactions.push(Transaction {
                position: scn,
                xid,
                changes: vec![change],
            }),
        }
    }
}

fn read_change(
    row: &OracleRow,
    scn: u64,
    mapping: &TableMapping,
) -> Result<Option<Change>, RedoError> {
    let text = |index: usize| {
        row.get::<_, String>(index)
            .map_err(doing("reading a row of redo"))
    };
    let table = TableName::new(text(5)?, text(6)?);
    if !mapping.selects(&table) {
        return Ok(None);
    }
    let malformed = |why: String| RedoError::Malformed { scn, why };
    let operation = match text(4)?.as_str() {
        "INSERT" => Operation::Insert,
        "UPDATE" => Operation::Update,
        "DELETE" => Operation::Delete,
        // DDL and transaction markers carry no row.
        _ => return Ok(None),
    };
    let data: RowData = serde_json::from_str(&text(7)?).map_err(|e| malformed(e.to_string()))?;
    Ok(Some(Change {
        table,
        operation,
        before: data.before.unwrap_or_default(),
        after: data.after.unwrap_or_default(),
    }))
}

/// A table that a task takes, with its columns and their types in order.
pub type SelectedTable = (TableName, Vec<(String, String)>);

/// The SCN now.
///
/// # Errors
/// As Oracle reports them.
pub fn current_scn(connection: &Connection) -> Result<u64, RedoError> {
    connection
        .query_row_as("SELECT CURRENT_SCN FROM V$DATABASE", &[])
        .map_err(doing("reading CURRENT_SCN"))
}

/// The selected tables with their columns and types, tables to be loaded first
/// first.
///
/// # Errors
/// As Oracle reports them.
pub fn selected_tables(
    connection: &Connection,
    mapping: &TableMapping,
) -> Result<Vec<SelectedTable>, RedoError> {
    let failed = doing("reading DBA_TABLES and DBA_TAB_COLUMNS");
    let mut tables: BTreeMap<TableName, Vec<(String, String)>> = BTreeMap::new();
    let mut patterns: Vec<_> = mapping.schema_patterns().collect();
    patterns.sort_unstable();
    patterns.dedup();
    for schema in patterns {
        const TABLES: &str = "SELECT OWNER, TABLE_NAME FROM DBA_TABLES WHERE OWNER LIKE :1";
        const QUERY: &str = "SELECT OWNER, TABLE_NAME, COLUMN_NAME, DATA_TYPE FROM DBA_TAB_COLUMNS \
            WHERE OWNER LIKE :1 ORDER BY OWNER, TABLE_NAME, COLUMN_ID";
        // DBA_TAB_COLUMNS tells of views too, which have no redo.
        let known: BTreeSet<TableName> = connection
            .query_as::<(String, String)>(TABLES, &[&schema])
            .and_then(|rows| rows.collect::<oracle::Result<Vec<_>>>())
            .map_err(&failed)?
            .into_iter()
            .map(|(owner, table)| TableName::new(owner, table))
            .collect();
        let columns = connection
            .query_as::<(String, String, String, String)>(QUERY, &[&schema])
            .map_err(&failed)?;
        for column in columns {
            let (owner, table, column, kind) = column.map_err(&failed)?;
            let name = TableName::new(owner, table);
            if known.contains(&name) && mapping.selects(&name) {
                let columns = tables.entry(name).or_default();
                if !columns.iter().any(|(known, _)| *known == column) {
                    columns.push((column, kind));
                }
            }
        }
    }
    let mut tables: Vec<_> = tables.into_iter().collect();
    tables.sort_by_key(|(name, _)| -mapping.load_order(name));
    Ok(tables)
}

/// Reads a table as of an SCN, a chunk of rows at a time.
///
/// # Errors
/// As Oracle reports them, or what `take` answers.
pub fn read_table(
    connection: &Connection,
    table: &TableName,
    columns: &[(String, String)],
    scn: u64,
    chunk: usize,
    mut take: impl FnMut(Vec<Row>) -> bool,
) -> Result<bool, RedoError> {
    let failed = doing("loading a table");
    let names: Vec<_> = columns.iter().map(|(name, _)| quote_name(name)).collect();
    let query = format!(
        "SELECT {} FROM {} AS OF SCN {scn}",
        names.join(", "),
        table.quoted()
    );
    let mut rows = Vec::with_capacity(chunk);
    for row in connection.query(&query, &[]).map_err(&failed)? {
        let row = row.map_err(&failed)?;
        let mut values = Row::new();
        for (index, (name, kind)) in columns.iter().enumerate() {
            let value = if matches!(kind.as_str(), "RAW" | "LONG RAW" | "BLOB") {
                row.get::<_, Option<Vec<u8>>>(index)
                    .map(|v| v.as_deref().map(hex))
            } else {
                row.get::<_, Option<String>>(index)
            };
            values.insert(name.clone(), value.map_err(&failed)?);
        }
        rows.push(values);
        if rows.len() == chunk && !take(std::mem::take(&mut rows)) {
            return Ok(false);
        }
    }
    Ok(rows.is_empty() || take(rows))
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02X}")).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn changes_with_one_commit_scn_are_one_transaction() {
        let change = |table: &str| Change {
            table: TableName::new("SHOP", table),
            operation: Operation::Insert,
            before: Row::new(),
            after: Row::new(),
        };
        let mut round = Round::default();
        round.add(7, "1.2.3".into(), change("ORDERS"));
        round.add(7, "1.2.3".into(), change("ORDER_LINES"));
        round.add(9, "1.2.4".into(), change("ORDERS"));
        let sizes: Vec<_> = round
            .transactions
            .iter()
            .map(|t| (t.position, t.changes.len()))
            .collect();
        assert_eq!(sizes, [(7, 2), (9, 1)]);
    }

    #[test]
    fn row_data_keeps_null_apart_from_absent() {
        let data: RowData = serde_json::from_str(r#"{"after":{"ID":"1","NOTE":null}}"#).unwrap();
        let after = data.after.unwrap();
        assert_eq!(after["NOTE"], None);
        assert_eq!(after["ID"].as_deref(), Some("1"));
        assert!(data.before.is_none());
    }
}
