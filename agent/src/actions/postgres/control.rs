//! DMS's control tables in the target database.
//!
//! Source: AWS DMS user guide, "Control table task settings". Some tables exist
//! only where the task's settings request them. Their columns are in upper
//! case; versions of DMS differ, so the system catalog is queried.

use super::{Table, listed};
use crate::action::ActionError;
use crate::host::postgres::{Session, quoted};
use lockstep_api::Code;
use serde_json::Value;

/// Changes that could not be applied; always exists with ongoing replication.
pub const EXCEPTIONS: &str = "awsdms_apply_exceptions";
/// Tables that DMS has suspended.
pub const SUSPENDED: &str = "awsdms_suspended_tables";
pub const VALIDATION: &str = "awsdms_validation_failures_v1";
/// Progress of a task.
pub const STATUS: &str = "awsdms_status";

/// Whether `schema.table` is one of DMS's own tables, in any schema.
pub fn is_one(name: &str) -> bool {
    let table = name.split_once('.').map_or(name, |(_, table)| table);
    table.starts_with("awsdms_")
}

/// A control table that exists.
pub struct Control {
    table: Table,
    columns: Vec<String>,
}

impl Control {
    /// The control table of that name, if it exists.
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

/// Rows of a control table, 0 where it doesn't exist, and the tables that they
/// name.
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

/// What `postgres.ready` counted before the run: a number or the text of one.
pub fn exceptions_before(value: &Value) -> Result<i64, ActionError> {
    value
        .as_i64()
        .or_else(|| value.as_str().and_then(|text| text.trim().parse().ok()))
        .ok_or_else(|| {
            ActionError::new(
                Code::LS2315,
                format!("apply_exceptions is {value}, not a number"),
            )
            .state_left("nothing was changed")
            .remedy("give the output apply_exceptions of postgres.ready")
        })
}

/// Changes that DMS has read and not applied, from `awsdms_status`, which
/// exists only where the task's settings request it; 0 without it.
pub async fn pending(session: &Session, schema: &str) -> Result<i64, ActionError> {
    match Control::find(session, schema, STATUS).await? {
        Some(status) => Ok(status.sum(session, "pending_changes").await?.unwrap_or(0)),
        None => Ok(0),
    }
}

/// Checks that no change was lost, no table suspended and no differing row
/// found. `before` is the number of exceptions when the run began.
pub async fn unharmed(session: &Session, schema: &str, before: i64) -> Result<(), ActionError> {
    let (exceptions, tables) = found(session, schema, EXCEPTIONS).await?;
    if exceptions > before {
        return Err(lost(format!(
            "{} changes could not be applied since the run began; all exceptions: {}",
            exceptions - before,
            listed(&tables)
        ))
        .remedy(format!(
            "see {schema}.{EXCEPTIONS}, repair the rows, then roll back or retry from the start"
        )));
    }
    for (name, what) in [
        (SUSPENDED, "DMS has suspended tables"),
        (VALIDATION, "validation has found rows that differ"),
    ] {
        let (rows, tables) = found(session, schema, name).await?;
        if rows > 0 {
            return Err(lost(format!("{what}: {}", listed(&tables))).remedy(format!(
                "see {schema}.{name}, repair and empty it, then roll back or retry"
            )));
        }
    }
    Ok(())
}

fn lost(what: String) -> ActionError {
    ActionError::new(Code::LS2317, what)
        .state_left("PostgreSQL does not hold all that Oracle holds")
}
