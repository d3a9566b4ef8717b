//! Rows and transactions on their way, whichever the direction.

use serde::{Deserialize, Serialize, Serializer};
use std::collections::BTreeMap;

/// A table and its schema, as the source spells them.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct TableName {
    pub schema: String,
    pub table: String,
}

impl TableName {
    /// A name from its parts.
    pub fn new(schema: impl Into<String>, table: impl Into<String>) -> Self {
        Self {
            schema: schema.into(),
            table: table.into(),
        }
    }

    /// `"schema"."table"`, quoted for either database.
    #[must_use]
    pub fn quoted(&self) -> String {
        format!("{}.{}", quote_name(&self.schema), quote_name(&self.table))
    }
}

impl std::fmt::Display for TableName {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{}.{}", self.schema, self.table)
    }
}

impl Serialize for TableName {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// A name in double quotes, as both databases read it.
#[must_use]
pub fn quote_name(name: &str) -> String {
    format!("\"{}\"", name.replace('"', "\"\""))
}

/// What a change does.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "UPPERCASE")]
pub enum Operation {
    Insert,
    /// New values for a row.
    Update,
    Delete,
}

/// Values by column, each in its database's canonical text; none is NULL.
pub type Row = BTreeMap<String, Option<String>>;

/// One change of one row.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Change {
    pub table: TableName,
    pub operation: Operation,
    /// The row before, or what is known of it; empty for an insert.
    pub before: Row,
    /// The row after; empty for a delete.
    pub after: Row,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Transaction {
    /// Its commit SCN, or the LSN after its commit.
    pub position: u64,
    /// The source's id of it.
    pub xid: String,
    /// Its changes, in order.
    pub changes: Vec<Change>,
}
