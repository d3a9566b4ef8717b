//! DMS's control tables in the target database.
//!
//! Source: AWS DMS user guide, "Control table task settings". Some tables
//! exist only where the task's settings ask for them. Their columns are
//! written in upper case; versions of DMS differ, so the catalogue is asked.

use super::Table;
use crate::action::ActionError;
use crate::host::postgres::{Session, quoted};

/// Changes that could not be applied; always there with ongoing replication.
pub const EXCEPTIONS: &str = "awsdms_apply_exceptions";
/// Tables that DMS has given up.
pub const SUSPENDED: &str = "awsdms_suspended_tables";
/// Rows that differ.
pub const VALIDATION: &str = "awsdms_validation_failures_v1";
/// How far a task is.
pub const STATUS: &str = "awsdms_status";

/// A control table that exists.
pub struct Control {
    table: Table,
    columns: Vec<String>,
}

impl Control {
    /// The control table of that name, if it is there.
    pub async fn find(
        session: &Session,
        schema: &str,
        name: &str,
    ) -> Result<Option<Self>, ActionError> {
        let sql = "SELECT a.attname::text FROM pg_attribute a \
                   JOIN pg_class c ON c.oid = a.attrelid \
                   JOIN pg_namespace n ON n.oid = c.relnamespace \
                   WHERE n.nspname = $1 AND c.relname = $2 AND a.attnum > 0 AND NOT a.attisdropped";
        let rows = session.rows(sql, &[&schema, &name]).await?;
        let columns: Vec<String> = rows.iter().map(|row| row.get(0)).collect();
        Ok((!columns.is_empty()).then(|| Self {
            table: Table {
                schema: schema.to_owned(),
                name: name.to_owned(),
            },
            columns,
        }))
    }

    /// Its rows.
    pub async fn count(&self, session: &Session) -> Result<i64, ActionError> {
        let sql = format!("SELECT count(*) FROM {}", self.table.sql());
        Ok(session.row(&sql, &[]).await?.get(0))
    }

    /// `owner.table (n)` for each table that it names.
    pub async fn tables(&self, session: &Session) -> Result<Vec<String>, ActionError> {
        let (Some(owner), Some(table)) = (self.column("table_owner"), self.column("table_name"))
        else {
            return Ok(Vec::new());
        };
        let sql = format!(
            "SELECT concat({owner}, '.', {table}, ' (', count(*), ')') FROM {} \
             GROUP BY {owner}, {table} ORDER BY count(*) DESC, 1",
            self.table.sql()
        );
        let rows = session.rows(&sql, &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// The sum of a numeric column; `None` where it has no such column.
    pub async fn sum(&self, session: &Session, column: &str) -> Result<Option<i64>, ActionError> {
        let Some(column) = self.column(column) else {
            return Ok(None);
        };
        let sql = format!(
            "SELECT coalesce(sum({column}), 0)::bigint FROM {}",
            self.table.sql()
        );
        Ok(Some(session.row(&sql, &[]).await?.get(0)))
    }

    fn column(&self, name: &str) -> Option<String> {
        self.columns
            .iter()
            .find(|column| column.eq_ignore_ascii_case(name))
            .map(|column| quoted(column))
    }
}

/// Rows of a control table, 0 where it isn't there, and the tables they name.
pub async fn found(
    session: &Session,
    schema: &str,
    name: &str,
) -> Result<(i64, Vec<String>), ActionError> {
    match Control::find(session, schema, name).await? {
        None => Ok((0, Vec::new())),
        Some(control) => match control.count(session).await? {
            0 => Ok((0, Vec::new())),
            rows => Ok((rows, control.tables(session).await?)),
        },
    }
}
