//! The columns of tables with the types beneath their domains.

use super::Table;
use crate::action::ActionError;
use crate::host::postgres::Session;

/// A column of a table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ColumnType {
    pub table: Table,
    pub name: String,
    /// As PostgreSQL writes it: `numeric(12,2)`, or the name of a domain.
    pub shown: String,
    /// `pg_type.typname` of the type itself, beneath any domain: `int8`, `_text`.
    pub base: String,
    /// `pg_type.typtype`: `b` base, `c` composite, `e` enumeration, `r` range.
    pub sort: String,
    /// `atttypmod`, or that of the domain; −1 without a length or precision.
    pub modifier: i32,
    /// `GENERATED ALWAYS AS (…)`: it holds no data of its own.
    pub generated: bool,
}

impl ColumnType {
    /// Whether it is an array.
    pub fn is_array(&self) -> bool {
        self.base.starts_with('_')
    }

    /// `schema.table.column`.
    pub fn place(&self) -> String {
        format!("{}.{}", self.table, self.name)
    }
}

/// Ordinary and partitioned tables; a partition is a part of its table.
const COLUMNS: &str = "WITH RECURSIVE found AS ( \
     SELECT n.nspname::text AS schema, c.relname::text AS name, a.attnum, a.attname::text AS attname, \
       format_type(a.atttypid, a.atttypmod) AS shown, a.atttypid AS type, a.atttypmod AS modifier, \
       a.attgenerated <> '' AS generated \
     FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid \
     JOIN pg_namespace n ON n.oid = c.relnamespace \
     WHERE c.relkind IN ('r', 'p') AND NOT c.relispartition AND a.attnum > 0 \
       AND NOT a.attisdropped AND (n.nspname = ANY($1) OR (n.nspname || '.' || c.relname) = ANY($2)) \
     UNION ALL \
     SELECT f.schema, f.name, f.attnum, f.attname, f.shown, t.typbasetype, \
       CASE WHEN t.typtypmod = -1 THEN f.modifier ELSE t.typtypmod END, f.generated \
     FROM found f JOIN pg_type t ON t.oid = f.type AND t.typtype = 'd') \
   SELECT f.schema, f.name, f.attname, f.shown, t.typname::text, t.typtype::text, f.modifier, \
     f.generated \
   FROM found f JOIN pg_type t ON t.oid = f.type AND t.typtype <> 'd' \
   ORDER BY f.schema, f.name, f.attnum";

/// The columns of all tables of the schemas, and of the tables named
/// (`schema.table`), in order.
pub async fn of(
    session: &Session,
    schemas: &[String],
    tables: &[String],
) -> Result<Vec<ColumnType>, ActionError> {
    let rows = session.rows(COLUMNS, &[&schemas, &tables]).await?;
    Ok(rows
        .iter()
        .map(|row| ColumnType {
            table: Table {
                schema: row.get(0),
                name: row.get(1),
            },
            name: row.get(2),
            shown: row.get(3),
            base: row.get(4),
            sort: row.get(5),
            modifier: row.get(6),
            generated: row.get(7),
        })
        .collect())
}
