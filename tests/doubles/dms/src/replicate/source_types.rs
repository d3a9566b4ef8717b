//! What DMS does to values of some types of a PostgreSQL source, and its capture
//! of DDL.
//!
//! Source: AWS DMS user guide, "Limitations on using a PostgreSQL database as a
//! DMS source" (NUMERIC without a precision becomes (28,6); a partitioned table's
//! changes are those of its partitions), "Source data types for PostgreSQL" (which
//! types are LOBs; a character of an NCLOB is two bytes), "Target metadata task
//! settings", and "Removing AWS DMS artifacts from a PostgreSQL source database".
//! Booleans arrive as `true` and `false` because `test_decoding` writes them so.
//! Whether (28,6) rounds or cuts isn't documented; it cuts here.

use super::change::{Row, TableName};
use crate::task::settings::Lobs;
use std::collections::HashMap;
use tokio_postgres::Client;

/// Digits after the point of a NUMERIC without a precision.
const SCALE: usize = 6;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Treatment {
    /// NUMERIC without a precision.
    Unbounded,
    /// BLOB: `\\x` and two digits for each byte.
    Bytes,
    /// CLOB or NCLOB.
    Characters,
}

/// The columns whose values DMS changes, by table.
#[derive(Debug, Default)]
pub struct SourceTypes {
    columns: HashMap<(TableName, String), Treatment>,
}

const COLUMNS: &str = "SELECT n.nspname::text, c.relname::text, a.attname::text, t.typname::text \
    FROM pg_attribute a JOIN pg_class c ON c.oid = a.attrelid AND c.relkind IN ('r', 'p') \
    JOIN pg_namespace n ON n.oid = c.relnamespace JOIN pg_type t ON t.oid = a.atttypid \
    WHERE a.attnum > 0 AND NOT a.attisdropped \
    AND n.nspname NOT IN ('pg_catalog', 'information_schema') \
    AND (t.typname IN ('text', 'json', 'jsonb', 'xml', 'bytea') OR t.typcategory = 'A' \
      OR (t.typname = 'numeric' AND a.atttypmod = -1))";

impl SourceTypes {
    /// Reads them from the catalogue.
    ///
    /// # Errors
    /// As PostgreSQL reports them.
    pub async fn read(client: &Client) -> Result<Self, tokio_postgres::Error> {
        let mut columns = HashMap::new();
        for row in client.query(COLUMNS, &[]).await? {
            let table = TableName::new(row.try_get::<_, String>(0)?, row.try_get::<_, String>(1)?);
            let treatment = match row.try_get::<_, String>(3)?.as_str() {
                "numeric" => Treatment::Unbounded,
                "bytea" => Treatment::Bytes,
                _ => Treatment::Characters,
            };
            columns.insert((table, row.try_get(2)?), treatment);
        }
        Ok(Self { columns })
    }

    /// What arrives of a row.
    pub fn carry(&self, table: &TableName, row: &mut Row, lobs: Lobs) {
        for (column, value) in row {
            let known = self.columns.get(&(table.clone(), column.clone()));
            if let Some(treatment) = known {
                *value = value.take().and_then(|text| treatment.arrives(text, lobs));
            }
        }
    }
}

impl Treatment {
    fn arrives(self, text: String, lobs: Lobs) -> Option<String> {
        let kb = match (self, lobs) {
            (Self::Unbounded, _) => return Some(cut_scale(text)),
            (Self::Bytes | Self::Characters, Lobs::Whole) => return Some(text),
            (Self::Bytes | Self::Characters, Lobs::LeftOut) => return None,
            (Self::Bytes | Self::Characters, Lobs::Cut(kb)) => kb,
        };
        let most = match self {
            // The prefix, and two digits for each byte.
            Self::Bytes => 2 + 2 * kb * 1024,
            Self::Characters | Self::Unbounded => kb * 1024 / 2,
        };
        Some(text.chars().take(most).collect())
    }
}

fn cut_scale(text: String) -> String {
    match text.split_once('.') {
        Some((whole, fraction)) if fraction.len() > SCALE => {
            let fraction: String = fraction.chars().take(SCALE).collect();
            format!("{whole}.{fraction}")
        }
        _ => text,
    }
}

/// Table in which the event trigger below records DDL.
const AUDIT: &str = "awsdms_ddl_audit";

/// Makes what DMS makes at a task's start to capture DDL: an event trigger, which
/// takes a superuser, that inserts with the rights of whoever runs the DDL.
///
/// # Errors
/// As PostgreSQL reports them.
pub async fn capture_ddl(client: &Client) -> Result<(), tokio_postgres::Error> {
    let known = "SELECT 1 FROM pg_event_trigger WHERE evtname = 'awsdms_intercept_ddl'";
    if client.query_opt(known, &[]).await?.is_some() {
        return Ok(());
    }
    client
        .batch_execute(&format!(
            "CREATE TABLE IF NOT EXISTS {AUDIT} (c_key bigserial PRIMARY KEY, c_time timestamp, \
               c_user varchar(64), c_txn varchar(16), c_tag varchar(24), c_ddlqry text); \
             CREATE OR REPLACE FUNCTION awsdms_intercept_ddl() RETURNS event_trigger \
             LANGUAGE plpgsql AS $$ BEGIN \
               IF tg_tag IN ('CREATE TABLE', 'ALTER TABLE', 'DROP TABLE', 'CREATE TABLE AS') THEN \
                 INSERT INTO {AUDIT} (c_time, c_user, c_txn, c_tag, c_ddlqry) \
                 VALUES (now(), current_user, txid_current()::varchar, tg_tag, current_query()); \
                 DELETE FROM {AUDIT}; \
               END IF; END $$; \
             CREATE EVENT TRIGGER awsdms_intercept_ddl ON ddl_command_end \
               EXECUTE FUNCTION awsdms_intercept_ddl()"
        ))
        .await
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_arrive_as_the_guide_says() {
        let long = "x".repeat(20_000);
        for (treatment, text, lobs, arrives) in [
            (
                Treatment::Unbounded,
                "0.611111104488373",
                Lobs::Whole,
                Some(8),
            ),
            (Treatment::Unbounded, "12", Lobs::LeftOut, Some(2)),
            (
                Treatment::Characters,
                long.as_str(),
                Lobs::Cut(32),
                Some(16_384),
            ),
            (
                Treatment::Characters,
                long.as_str(),
                Lobs::Whole,
                Some(20_000),
            ),
            (Treatment::Bytes, long.as_str(), Lobs::Cut(1), Some(2_050)),
            (Treatment::Bytes, "\\x00", Lobs::LeftOut, None),
        ] {
            let found = treatment.arrives(text.to_owned(), lobs);
            assert_eq!(
                found.map(|text| text.len()),
                arrives,
                "{treatment:?} {lobs:?}"
            );
        }
    }
}
