//! DMS's control tables in the PostgreSQL target.
//!
//! `awsdms_txn_state` holds the checkpoint: it moves in the same transaction as
//! the rows, so that every source transaction is applied exactly once, whatever
//! ends in between. `awsdms_apply_exceptions` is always there; `awsdms_status` and
//! `awsdms_suspended_tables` when the settings ask for them.
//!
//! Source: AWS DMS user guide, "Control table task settings". The columns of
//! `awsdms_txn_state` are not documented; those here are the double's own.

use super::change::{TableName, quote_name};
use super::statement::literal;
use crate::task::progress::Snapshot;
use crate::task::state::Definition;
use tokio_postgres::{Client, Error};

/// `SERVER_NAME` in the control tables.
const SERVER_NAME: &str = "dms-double";

/// The control tables of one task.
#[derive(Debug, Clone)]
pub struct ControlTables {
    schema: String,
    task: String,
    status: bool,
    suspended: bool,
}

impl ControlTables {
    /// As the task's settings ask.
    #[must_use]
    pub fn new(task: &Definition) -> Self {
        Self {
            schema: task.settings.control_schema.clone(),
            task: task.resource_id().into(),
            status: task.settings.status_table,
            suspended: task.settings.suspended_table,
        }
    }

    fn table(&self, name: &str) -> String {
        format!("{}.{}", quote_name(&self.schema), quote_name(name))
    }

    /// Makes the tables that are missing. What exists is left alone, and needs no
    /// privilege to create.
    ///
    /// # Errors
    /// As PostgreSQL reports them.
    pub async fn ensure(&self, client: &Client) -> Result<(), Error> {
        let mut wanted = vec![
            ("awsdms_txn_state", TXN_STATE),
            ("awsdms_apply_exceptions", EXCEPTIONS),
        ];
        if self.status {
            wanted.push(("awsdms_status", STATUS));
        }
        if self.suspended {
            wanted.push(("awsdms_suspended_tables", SUSPENDED));
        }
        for (name, columns) in wanted {
            let table = self.table(name);
            let exists: bool = client
                .query_one("SELECT to_regclass($1) IS NOT NULL", &[&table])
                .await?
                .try_get(0)?;
            if !exists {
                client
                    .batch_execute(&format!("CREATE TABLE {table} ({columns})"))
                    .await?;
            }
        }
        Ok(())
    }

    /// The position up to which everything is applied.
    ///
    /// # Errors
    /// As PostgreSQL reports them.
    pub async fn read(&self, client: &Client) -> Result<Option<u64>, Error> {
        let query = format!(
            r#"SELECT "SOURCE_POSITION"::text FROM {} WHERE "TASK_NAME" = $1"#,
            self.table("awsdms_txn_state")
        );
        let row = client.query_opt(&query, &[&self.task]).await?;
        let text: Option<String> = row.map(|r| r.try_get(0)).transpose()?;
        Ok(text.and_then(|t| t.parse().ok()))
    }

    /// Forgets the checkpoint and the task's suspended tables: a fresh start.
    #[must_use]
    pub fn forget(&self) -> String {
        let mut sql = format!(
            r#"DELETE FROM {} WHERE "TASK_NAME" = {};"#,
            self.table("awsdms_txn_state"),
            literal(&self.task)
        );
        if self.suspended {
            sql += &format!(
                r#" DELETE FROM {} WHERE "TASK_NAME" = {};"#,
                self.table("awsdms_suspended_tables"),
                literal(&self.task)
            );
        }
        sql
    }

    /// Sets the first checkpoint.
    #[must_use]
    pub fn begin(&self, position: u64) -> String {
        format!(
            r#"INSERT INTO {} ("TASK_NAME", "SOURCE_POSITION", "SOURCE_XID", "APPLIED_TIME") VALUES ({}, {position}, '', now() AT TIME ZONE 'UTC')"#,
            self.table("awsdms_txn_state"),
            literal(&self.task)
        )
    }

    /// Moves the checkpoint on.
    #[must_use]
    pub fn advance(&self, position: u64, xid: &str) -> String {
        format!(
            r#"UPDATE {} SET "SOURCE_POSITION" = {position}, "SOURCE_XID" = {}, "APPLIED_TIME" = now() AT TIME ZONE 'UTC' WHERE "TASK_NAME" = {}"#,
            self.table("awsdms_txn_state"),
            literal(xid),
            literal(&self.task)
        )
    }

    /// Logs a change that could not be applied.
    #[must_use]
    pub fn exception(&self, target: &TableName, statement: &str, error: &str) -> String {
        format!(
            "{} VALUES ({})",
            self.exception_into(),
            self.exception_row(target, statement, error)
        )
    }

    /// Runs an update and logs it as an exception when it meets no row
    /// (`ApplyErrorUpdatePolicy = LOG_ERROR`). Its row count is 1 for an exception.
    #[must_use]
    pub fn checked_update(&self, target: &TableName, update: &str) -> String {
        format!(
            "WITH met AS ({update} RETURNING 1) {} SELECT {} WHERE NOT EXISTS (SELECT 1 FROM met)",
            self.exception_into(),
            self.exception_row(target, update, "0 rows affected")
        )
    }

    fn exception_into(&self) -> String {
        format!(
            r#"INSERT INTO {} ("TASK_NAME", "TABLE_OWNER", "TABLE_NAME", "ERROR_TIME", "STATEMENT", "ERROR")"#,
            self.table("awsdms_apply_exceptions")
        )
    }

    fn exception_row(&self, target: &TableName, statement: &str, error: &str) -> String {
        format!(
            "{}, {}, {}, now() AT TIME ZONE 'UTC', {}, {}",
            literal(&self.task),
            literal(&target.schema),
            literal(&target.table),
            literal(statement),
            literal(error)
        )
    }

    /// Notes a suspended table, where the settings ask for it.
    #[must_use]
    pub fn suspend(&self, target: &TableName, reason: &str) -> Option<String> {
        self.suspended.then(|| {
            format!(
                r#"INSERT INTO {} ("SERVER_NAME", "TASK_NAME", "TABLE_OWNER", "TABLE_NAME", "SUSPEND_REASON", "SUSPEND_TIMESTAMP") VALUES ('{SERVER_NAME}', {}, {}, {}, {}, now() AT TIME ZONE 'UTC')"#,
                self.table("awsdms_suspended_tables"),
                literal(&self.task),
                literal(&target.schema),
                literal(&target.table),
                literal(reason)
            )
        })
    }

    /// Writes the status row, where the settings ask for it.
    #[must_use]
    pub fn status(&self, task_status: &str, snapshot: &Snapshot) -> Option<String> {
        self.status.then(|| {
            let position = literal(snapshot.checkpoint.as_deref().unwrap_or_default());
            let task = literal(&self.task);
            format!(
                r#"INSERT INTO {table} AS s ("SERVER_NAME", "TASK_NAME", "TASK_STATUS", "STATUS_TIME", "PENDING_CHANGES", "DISK_SWAP_SIZE", "TASK_MEMORY", "SOURCE_CURRENT_POSITION", "SOURCE_CURRENT_TIMESTAMP", "SOURCE_TAIL_POSITION", "SOURCE_TAIL_TIMESTAMP", "SOURCE_TIMESTAMP_APPLIED")
                VALUES ('{SERVER_NAME}', {task}, {status}, now() AT TIME ZONE 'UTC', {pending}, 0, 0, {position}, NULL, {position}, NULL, NULL)
                ON CONFLICT ("SERVER_NAME", "TASK_NAME") DO UPDATE SET "TASK_STATUS" = excluded."TASK_STATUS", "STATUS_TIME" = excluded."STATUS_TIME", "PENDING_CHANGES" = excluded."PENDING_CHANGES", "SOURCE_CURRENT_POSITION" = excluded."SOURCE_CURRENT_POSITION", "SOURCE_TAIL_POSITION" = excluded."SOURCE_TAIL_POSITION""#,
                table = self.table("awsdms_status"),
                status = literal(task_status),
                pending = snapshot.pending(),
            )
        })
    }
}

const TXN_STATE: &str = r#""TASK_NAME" varchar(128) PRIMARY KEY, "SOURCE_POSITION" numeric(20) NOT NULL, "SOURCE_XID" varchar(128) NOT NULL, "APPLIED_TIME" timestamp NOT NULL"#;

const EXCEPTIONS: &str = r#""TASK_NAME" varchar(128) NOT NULL, "TABLE_OWNER" varchar(128) NOT NULL, "TABLE_NAME" varchar(128) NOT NULL, "ERROR_TIME" timestamp NOT NULL, "STATEMENT" text NOT NULL, "ERROR" text NOT NULL"#;

const STATUS: &str = r#""SERVER_NAME" varchar(128) NOT NULL, "TASK_NAME" varchar(128) NOT NULL, "TASK_STATUS" varchar(32), "STATUS_TIME" timestamp, "PENDING_CHANGES" bigint, "DISK_SWAP_SIZE" bigint, "TASK_MEMORY" bigint, "SOURCE_CURRENT_POSITION" varchar(128), "SOURCE_CURRENT_TIMESTAMP" timestamp, "SOURCE_TAIL_POSITION" varchar(128), "SOURCE_TAIL_TIMESTAMP" timestamp, "SOURCE_TIMESTAMP_APPLIED" timestamp, PRIMARY KEY ("SERVER_NAME", "TASK_NAME")"#;

const SUSPENDED: &str = r#""SERVER_NAME" varchar(128) NOT NULL, "TASK_NAME" varchar(128) NOT NULL, "TABLE_OWNER" varchar(128) NOT NULL, "TABLE_NAME" varchar(128) NOT NULL, "SUSPEND_REASON" text NOT NULL, "SUSPEND_TIMESTAMP" timestamp NOT NULL"#;
