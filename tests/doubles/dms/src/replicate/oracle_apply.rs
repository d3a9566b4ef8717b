//! Applies transactions to Oracle: in order, each as one transaction, exactly once.
//!
//! The checkpoint is a row of `AWSDMS_TXN_STATE` in the endpoint user's schema and
//! moves in the same transaction as the rows. What can't be applied goes to
//! `AWSDMS_APPLY_EXCEPTIONS` there. Triggers of the target fire: turning them off
//! is the customer's concern, as with real DMS. Everything here blocks.

use super::Job;
use super::change::{Change, Operation, Row, TableName, Transaction, quote_name};
use super::connect::{oracle_session_lost, oracle_text};
use super::mapping::TableMapping;
use super::statement::map_change;
use crate::task::faults::ChangeFault;
use crate::task::progress::Effect;
use oracle::Connection;
use oracle::sql_type::{OracleType, Timestamp, ToSql};
use std::collections::{HashMap, HashSet};

/// The longest text in the exceptions table.
const EXCEPTION_TEXT: usize = 2_000;

/// Why a transaction was not applied; nothing of it is.
#[derive(Debug, thiserror::Error)]
pub enum OracleApplyError {
    #[error("Oracle, {doing}: {}", oracle_text(source))]
    Oracle {
        doing: &'static str,
        source: Box<oracle::Error>,
    },
    /// A policy of `ErrorBehavior` stops the task.
    #[error("{policy} is STOP_TASK, and {table}: {error}")]
    Stopped {
        policy: &'static str,
        table: TableName,
        error: String,
    },
}

fn doing(doing: &'static str) -> impl Fn(oracle::Error) -> OracleApplyError {
    move |source| OracleApplyError::Oracle {
        doing,
        source: Box::new(source),
    }
}

/// The policy that decides about a change that Oracle refuses.
fn policy(operation: Operation) -> &'static str {
    match operation {
        Operation::Insert => "ApplyErrorInsertPolicy",
        Operation::Update => "ApplyErrorUpdatePolicy",
        Operation::Delete => "ApplyErrorDeletePolicy",
    }
}

/// An error where the task's settings say `STOP_TASK`.
fn go_on(
    job: &Job,
    policy: &'static str,
    table: &TableName,
    error: &str,
) -> Result<(), OracleApplyError> {
    if job.task.settings.stops_on.contains(&policy) {
        return Err(OracleApplyError::Stopped {
            policy,
            table: table.clone(),
            error: error.to_owned(),
        });
    }
    Ok(())
}

/// How a column is bound.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Kind {
    Text,
    Number,
    Date,
    Timestamp,
    Raw,
}

impl Kind {
    fn of(data_type: &str) -> Self {
        match data_type {
            "NUMBER" | "FLOAT" | "INTEGER" => Self::Number,
            "DATE" => Self::Date,
            "RAW" => Self::Raw,
            other if other.starts_with("TIMESTAMP") => Self::Timestamp,
            _ => Self::Text,
        }
    }
}

/// What must be known of a target table.
struct Target {
    kinds: HashMap<String, Kind>,
    key: Vec<String>,
}

/// What applies transactions over one Oracle session.
pub struct OracleApplier {
    connection: Connection,
    task: String,
    tables: HashMap<TableName, Target>,
    without_key: HashSet<TableName>,
}

impl OracleApplier {
    /// Over a session. `without_key` names the source tables that have no primary
    /// key: their updates and deletes are lost, as real DMS loses them.
    ///
    /// # Errors
    /// When the control tables can't be made.
    pub fn new(
        connection: Connection,
        task: &str,
        without_key: HashSet<TableName>,
    ) -> Result<Self, OracleApplyError> {
        let applier = Self {
            connection,
            task: task.into(),
            tables: HashMap::new(),
            without_key,
        };
        applier.ensure(
            "CREATE TABLE AWSDMS_TXN_STATE (TASK_NAME VARCHAR2(128) PRIMARY KEY, SOURCE_POSITION NUMBER(20) NOT NULL)",
        )?;
        applier.ensure(
            "CREATE TABLE AWSDMS_APPLY_EXCEPTIONS (TASK_NAME VARCHAR2(128) NOT NULL, TABLE_OWNER VARCHAR2(128) NOT NULL, \
             TABLE_NAME VARCHAR2(128) NOT NULL, ERROR_TIME DATE NOT NULL, STATEMENT VARCHAR2(4000) NOT NULL, \
             ERROR VARCHAR2(4000) NOT NULL)",
        )?;
        Ok(applier)
    }

    /// ORA-00955: the table is there already.
    fn ensure(&self, create: &str) -> Result<(), OracleApplyError> {
        match self.connection.execute(create, &[]) {
            Ok(_) => Ok(()),
            Err(e) if e.oci_code() == Some(955) => Ok(()),
            Err(e) => Err(doing("making the control tables")(e)),
        }
    }

    /// The position up to which everything is applied.
    ///
    /// # Errors
    /// As Oracle reports them.
    pub fn checkpoint(&self) -> Result<Option<u64>, OracleApplyError> {
        let failed = doing("reading the checkpoint");
        let query = "SELECT SOURCE_POSITION FROM AWSDMS_TXN_STATE WHERE TASK_NAME = :1";
        let mut rows = self
            .connection
            .query_as::<u64>(query, &[&self.task])
            .map_err(&failed)?;
        rows.next().transpose().map_err(failed)
    }

    /// Sets the checkpoint of a fresh start.
    ///
    /// # Errors
    /// As Oracle reports them.
    pub fn begin(&self, position: u64) -> Result<(), OracleApplyError> {
        self.advance(position)?;
        self.connection
            .commit()
            .map_err(doing("setting the checkpoint"))
    }

    fn advance(&self, position: u64) -> Result<(), OracleApplyError> {
        let failed = doing("moving the checkpoint");
        let update = "UPDATE AWSDMS_TXN_STATE SET SOURCE_POSITION = :1 WHERE TASK_NAME = :2";
        let moved = self
            .connection
            .execute(update, &[&position, &self.task])
            .and_then(|s| s.row_count())
            .map_err(&failed)?;
        if moved == 0 {
            let insert =
                "INSERT INTO AWSDMS_TXN_STATE (TASK_NAME, SOURCE_POSITION) VALUES (:1, :2)";
            self.connection
                .execute(insert, &[&self.task, &position])
                .map_err(failed)?;
        }
        Ok(())
    }

    /// Forgets the checkpoint of a task that is deleted.
    ///
    /// # Errors
    /// As Oracle reports them.
    pub fn forget(&self) -> Result<(), OracleApplyError> {
        let failed = doing("forgetting the checkpoint");
        self.connection
            .execute(
                "DELETE FROM AWSDMS_TXN_STATE WHERE TASK_NAME = :1",
                &[&self.task],
            )
            .and_then(|_| self.connection.commit())
            .map_err(failed)
    }

    /// Applies one transaction and commits it.
    ///
    /// # Errors
    /// When the session is lost or the commit fails; nothing is applied then.
    pub fn apply(
        &mut self,
        job: &Job,
        transaction: &Transaction,
    ) -> Result<Vec<Effect>, OracleApplyError> {
        let applied = self.apply_changes(job, transaction);
        if applied.is_err() {
            // The session may be gone; Oracle rolls back by itself then.
            let _ = self.connection.rollback();
        }
        applied
    }

    fn apply_changes(
        &mut self,
        job: &Job,
        transaction: &Transaction,
    ) -> Result<Vec<Effect>, OracleApplyError> {
        let mut effects = Vec::with_capacity(transaction.changes.len());
        for change in &transaction.changes {
            effects.push(self.apply_change(job, change)?);
        }
        self.advance(transaction.position)?;
        self.connection.commit().map_err(doing("committing"))?;
        Ok(effects)
    }

    fn apply_change(&mut self, job: &Job, change: &Change) -> Result<Effect, OracleApplyError> {
        if job.progress.is_suspended(&change.table) {
            return Ok(Effect::Skipped(change.table.clone()));
        }
        if change.operation != Operation::Insert && self.without_key.contains(&change.table) {
            return Ok(Effect::LostWithoutKey(change.table.clone()));
        }
        let suspend = |reason: &str| {
            go_on(job, "TableErrorPolicy", &change.table, reason)?;
            tracing::warn!(task = %job.task.identifier, table = %change.table, reason, "table suspended");
            job.progress.suspend(&change.table, reason);
            Ok(Effect::Skipped(change.table.clone()))
        };
        let fault = job.faults.for_change(&job.task.identifier, &change.table);
        if let Some(ChangeFault::Suspend(reason)) = &fault {
            return suspend(reason);
        }
        let mapped = map_change(&job.task.mappings, change);
        let target = self.target(&mapped.target)?;
        if target.kinds.is_empty() {
            return suspend(&format!("table {} does not exist", mapped.target));
        }
        let (sql, values) = target.statement(
            &mapped.target,
            change.operation,
            &mapped.before,
            &mapped.after,
        );
        if let Some(ChangeFault::Exception(error)) = fault {
            go_on(job, policy(change.operation), &change.table, &error)?;
            self.log_exception(&mapped.target, &sql, &error)?;
            return Ok(Effect::Exception(change.table.clone()));
        }
        let binds: Vec<&dyn ToSql> = values.iter().map(|v| &**v as &dyn ToSql).collect();
        let outcome = self
            .connection
            .execute(&sql, &binds)
            .and_then(|s| s.row_count());
        match outcome {
            // By default a DELETE without a row is ignored, not logged.
            Ok(0) if change.operation == Operation::Delete => {
                let none = "0 rows affected";
                go_on(job, policy(change.operation), &change.table, none)?;
                Ok(Effect::Applied(change.table.clone(), change.operation))
            }
            Ok(0) if change.operation == Operation::Update => {
                let none = "0 rows affected";
                go_on(job, policy(change.operation), &change.table, none)?;
                self.log_exception(&mapped.target, &sql, none)?;
                Ok(Effect::Exception(change.table.clone()))
            }
            Ok(_) => Ok(Effect::Applied(change.table.clone(), change.operation)),
            Err(error) if oracle_session_lost(&error) => Err(doing("applying a change")(error)),
            Err(error) => {
                let text = oracle_text(&error);
                go_on(job, policy(change.operation), &change.table, &text)?;
                self.log_exception(&mapped.target, &sql, &text)?;
                Ok(Effect::Exception(change.table.clone()))
            }
        }
    }

    fn log_exception(
        &self,
        target: &TableName,
        sql: &str,
        error: &str,
    ) -> Result<(), OracleApplyError> {
        let short = |text: &str| text.chars().take(EXCEPTION_TEXT).collect::<String>();
        let insert = "INSERT INTO AWSDMS_APPLY_EXCEPTIONS (TASK_NAME, TABLE_OWNER, TABLE_NAME, ERROR_TIME, STATEMENT, ERROR) \
            VALUES (:1, :2, :3, SYSDATE, :4, :5)";
        self.connection
            .execute(
                insert,
                &[
                    &self.task,
                    &target.schema,
                    &target.table,
                    &short(sql),
                    &short(error),
                ],
            )
            .map(drop)
            .map_err(doing("logging an exception"))
    }

    /// The target's columns and key, looked up once; no columns means no table.
    fn target(&mut self, name: &TableName) -> Result<&Target, OracleApplyError> {
        if !self.tables.contains_key(name) {
            let found = self
                .describe(name)
                .map_err(doing("reading the target's dictionary"))?;
            self.tables.insert(name.clone(), found);
        }
        Ok(&self.tables[name])
    }

    fn describe(&self, name: &TableName) -> oracle::Result<Target> {
        const COLUMNS: &str = "SELECT COLUMN_NAME, DATA_TYPE FROM DBA_TAB_COLUMNS WHERE OWNER = :1 AND TABLE_NAME = :2";
        const KEY: &str = "SELECT CC.COLUMN_NAME FROM DBA_CONSTRAINTS C, DBA_CONS_COLUMNS CC \
            WHERE C.OWNER = :1 AND C.TABLE_NAME = :2 AND C.CONSTRAINT_TYPE = 'P' \
            AND CC.OWNER = C.OWNER AND CC.CONSTRAINT_NAME = C.CONSTRAINT_NAME ORDER BY CC.POSITION";
        let mut kinds = HashMap::new();
        for row in self
            .connection
            .query_as::<(String, String)>(COLUMNS, &[&name.schema, &name.table])?
        {
            let (column, data_type) = row?;
            kinds.insert(column, Kind::of(&data_type));
        }
        let key = self
            .connection
            .query_as::<String>(KEY, &[&name.schema, &name.table])?
            .collect::<oracle::Result<_>>()?;
        Ok(Target { kinds, key })
    }
}

type Bind = Box<dyn ToSql>;

impl Target {
    /// The statement of a change, with what is bound to it.
    fn statement(
        &self,
        name: &TableName,
        operation: Operation,
        before: &Row,
        after: &Row,
    ) -> (String, Vec<Bind>) {
        let table = name.quoted();
        let mut binds = Vec::new();
        match operation {
            Operation::Insert => {
                let names: Vec<_> = after.keys().map(|c| quote_name(c)).collect();
                let places: Vec<_> = (1..=after.len()).map(|n| format!(":{n}")).collect();
                binds.extend(after.iter().map(|(c, v)| self.bind(c, v.as_deref())));
                let sql = format!(
                    "INSERT INTO {table} ({}) VALUES ({})",
                    names.join(", "),
                    places.join(", ")
                );
                (sql, binds)
            }
            Operation::Update => {
                let sets: Vec<_> = after
                    .iter()
                    .map(|(column, value)| {
                        binds.push(self.bind(column, value.as_deref()));
                        format!("{} = :{}", quote_name(column), binds.len())
                    })
                    .collect();
                let condition = self.condition(before, after, &mut binds);
                (
                    format!("UPDATE {table} SET {} WHERE {condition}", sets.join(", ")),
                    binds,
                )
            }
            Operation::Delete => {
                let condition = self.condition(before, after, &mut binds);
                (format!("DELETE FROM {table} WHERE {condition}"), binds)
            }
        }
    }

    /// By the target's key; without one by what the source gave as its key.
    fn condition(&self, before: &Row, after: &Row, binds: &mut Vec<Bind>) -> String {
        let given: Vec<String> = before.keys().cloned().collect();
        let columns = if self.key.is_empty() {
            &given
        } else {
            &self.key
        };
        let conditions: Vec<_> = columns
            .iter()
            .map(|column| {
                match before
                    .get(column)
                    .or_else(|| after.get(column))
                    .and_then(Option::as_deref)
                {
                    None => format!("{} IS NULL", quote_name(column)),
                    Some(value) => {
                        binds.push(self.bind(column, Some(value)));
                        format!("{} = :{}", quote_name(column), binds.len())
                    }
                }
            })
            .collect();
        conditions.join(" AND ")
    }

    /// A value as the column's type; text that does not fit it is left to Oracle
    /// to convert or refuse.
    fn bind(&self, column: &str, value: Option<&str>) -> Bind {
        let kind = self.kinds.get(column).copied().unwrap_or(Kind::Text);
        let text = || Box::new(value.map(str::to_owned)) as Bind;
        match (kind, value) {
            (Kind::Number, Some(v)) => match v.parse::<i64>() {
                Ok(number) => Box::new(number),
                Err(_) => text(),
            },
            (Kind::Date, Some(v)) => timestamp(v).map_or_else(text, |t| {
                Box::new(Date(
                    Timestamp::new(
                        t.year(),
                        t.month(),
                        t.day(),
                        t.hour(),
                        t.minute(),
                        t.second(),
                        0,
                    )
                    .unwrap_or(t),
                ))
            }),
            (Kind::Timestamp, Some(v)) => timestamp(v).map_or_else(text, |t| Box::new(t)),
            (Kind::Raw, Some(v)) => unhex(v).map_or_else(text, |bytes| Box::new(bytes)),
            _ => text(),
        }
    }
}

/// A timestamp that is bound as DATE, which has no fraction.
struct Date(Timestamp);

impl ToSql for Date {
    fn oratype(&self, _: &Connection) -> oracle::Result<OracleType> {
        Ok(OracleType::Date)
    }

    fn to_sql(&self, value: &mut oracle::SqlValue<'_>) -> oracle::Result<()> {
        value.set(&self.0)
    }
}

/// Reads PostgreSQL's ISO timestamps.
fn timestamp(text: &str) -> Option<Timestamp> {
    text.parse().ok()
}

/// `bytea` in its hexadecimal form.
fn unhex(text: &str) -> Option<Vec<u8>> {
    let digits = text.strip_prefix("\\x")?;
    (0..digits.len())
        .step_by(2)
        .map(|i| u8::from_str_radix(digits.get(i..i + 2)?, 16).ok())
        .collect()
}

/// The tables that a mapping selects among those without a primary key.
#[must_use]
pub fn selected(mapping: &TableMapping, tables: Vec<TableName>) -> HashSet<TableName> {
    tables.into_iter().filter(|t| mapping.selects(t)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn target() -> Target {
        let kinds = [
            ("ID", Kind::Number),
            ("NOTE", Kind::Text),
            ("PLACED_AT", Kind::Date),
        ];
        Target {
            kinds: kinds.into_iter().map(|(c, k)| (c.to_owned(), k)).collect(),
            key: vec!["ID".into()],
        }
    }

    fn row(values: &[(&str, Option<&str>)]) -> Row {
        values
            .iter()
            .map(|(c, v)| ((*c).to_owned(), v.map(str::to_owned)))
            .collect()
    }

    #[test]
    fn statements_bind_every_value() {
        let name = TableName::new("SHOP", "ORDERS");
        let after = row(&[("ID", Some("1")), ("NOTE", None)]);
        let (sql, binds) = target().statement(&name, Operation::Insert, &Row::new(), &after);
        assert_eq!(
            sql,
            r#"INSERT INTO "SHOP"."ORDERS" ("ID", "NOTE") VALUES (:1, :2)"#
        );
        assert_eq!(binds.len(), 2);
        let before = row(&[("ID", Some("0"))]);
        let (sql, binds) = target().statement(&name, Operation::Update, &before, &after);
        assert_eq!(
            sql,
            r#"UPDATE "SHOP"."ORDERS" SET "ID" = :1, "NOTE" = :2 WHERE "ID" = :3"#
        );
        assert_eq!(binds.len(), 3);
        let (sql, binds) = target().statement(&name, Operation::Delete, &before, &Row::new());
        assert_eq!(sql, r#"DELETE FROM "SHOP"."ORDERS" WHERE "ID" = :1"#);
        assert_eq!(binds.len(), 1);
    }

    #[test]
    fn postgres_texts_are_read() {
        let read = timestamp("2026-11-23 01:02:03.25").unwrap();
        assert_eq!(
            (read.year(), read.second(), read.nanosecond()),
            (2026, 3, 250_000_000)
        );
        assert!(timestamp("2026-11-23 01:02:03+00").is_some());
        assert_eq!(unhex("\\x00ff").unwrap(), [0, 255]);
        assert_eq!(unhex("00ff"), None);
    }
}
