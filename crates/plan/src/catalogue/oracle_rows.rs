//! Actions that read the rows and columns of Oracle's tables, to compare them.

use super::{ExemptSessions, defaults};
use crate::actions::{ActionSpec, Effect};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// A table to compare.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct ComparedTable {
    /// `OWNER.TABLE` in Oracle.
    pub oracle: String,
    /// `schema.table` in PostgreSQL.
    pub postgres: String,
    /// Compare a digest over every value, not only the number of rows. With
    /// `false` a value that was changed on the way goes unnoticed.
    #[serde(default = "defaults::compared_by_digest")]
    pub digest: bool,
    /// Columns that the digest leaves out, named as in PostgreSQL: those that
    /// exist on one side only, or whose types can't be compared.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
}

/// A schema on both sides. Tables correspond if their names are equal, or if the
/// name in Oracle is the upper-case form of that in PostgreSQL.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct MappedSchema {
    /// Owner in Oracle.
    pub oracle: String,
    /// Schema in PostgreSQL.
    pub postgres: String,
}

/// `oracle.rows.digest`: counts and digests rows as of an SCN.
///
/// Outputs: `tables` (map of `OWNER.TABLE` to {rows, digest or null}; to
/// {rows, postgres} for a table of `counted`, with its name in PostgreSQL).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleRows {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// The SCN, as text.
    pub scn: String,
    /// Tables to compare.
    pub tables: Vec<ComparedTable>,
    /// Output `tables` of `postgres.ready`: a list of `schema.table`. Those that
    /// also exist in Oracle are counted.
    #[serde(default)]
    pub counted: serde_json::Value,
    /// Schemas in which Oracle has the tables of `counted`.
    #[serde(default)]
    pub schemas: Vec<MappedSchema>,
}

impl ActionSpec for OracleRows {
    const NAME: &'static str = "oracle.rows.digest";
    const SUMMARY: &'static str = "count and digest rows at an SCN";
    const OUTPUTS: &'static [&'static str] = &["tables"];
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `oracle.rows.unchanged`: verifies that nothing was committed in the schemas
/// after an SCN, and that no transaction is open.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleUnchanged {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// The SCN, as text.
    pub scn: String,
    /// Owners of the tables.
    pub schemas: Vec<String>,
    /// `OWNER.TABLE` of tables that may change: the marker and the canary table.
    #[serde(default)]
    pub except: Vec<String>,
    /// Output `tables` of `oracle.rows.digest` at that SCN: their row counts. The
    /// rows of other tables are counted as of the SCN.
    #[serde(default)]
    pub expected: serde_json::Value,
    /// Sessions whose transactions don't count.
    #[serde(default)]
    pub exempt: ExemptSessions,
}

impl ActionSpec for OracleUnchanged {
    const NAME: &'static str = "oracle.rows.unchanged";
    const SUMMARY: &'static str = "prove that Oracle has no later change";
    const EFFECT: Effect = Effect::ReadOnly;
}

/// `oracle.columns.describe`: reads as what kind of value each column is compared.
///
/// Outputs: `columns` (map of `OWNER.TABLE` to a list of {name, kind, type}).
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct OracleColumns {
    /// Resource of the agent's configuration.
    pub resource: String,
    /// Tables to compare.
    pub tables: Vec<ComparedTable>,
    /// Also check for identity columns `GENERATED ALWAYS`, into which a reverse
    /// task can't insert.
    #[serde(default)]
    pub reverse: bool,
    /// Schemas whose other tables are checked for that, too.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub schemas: Vec<MappedSchema>,
    /// Table mappings of the reverse task in the JSON format of DMS, which select the
    /// tables to check; absent: all.
    #[serde(default, skip_serializing_if = "serde_json::Value::is_null")]
    pub table_mappings: serde_json::Value,
    /// `schema.table` or `schema.table.column` in PostgreSQL for which the plan
    /// accepts that the reverse task fails.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub accept: Vec<String>,
}

impl ActionSpec for OracleColumns {
    const NAME: &'static str = "oracle.columns.describe";
    const SUMMARY: &'static str = "read the columns of the compared tables";
    const OUTPUTS: &'static [&'static str] = &["columns"];
    const EFFECT: Effect = Effect::ReadOnly;
}
