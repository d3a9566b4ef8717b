//! Damage that a load can leave unnoticed: foreign keys without a parent row
//! (their triggers were off), constraints never validated, invalid indexes.

use super::require_schemas;
use crate::action::ActionError;
use crate::host::postgres::{Session, quoted};

/// A sentence for each.
pub async fn problems(session: &Session, schemas: &[String]) -> Result<Vec<String>, ActionError> {
    let mut problems = invalid(session, schemas).await?;
    for key in keys(session, schemas).await? {
        let orphans: i64 = session.row(&key.query(), &[]).await?.get(0);
        if orphans > 0 {
            problems.push(format!(
                "{orphans} rows of {} point nowhere by {}",
                key.child, key.name
            ));
        }
    }
    Ok(problems)
}

/// Constraints `NOT VALID` and indexes that an interrupted build left.
pub async fn invalid(session: &Session, schemas: &[String]) -> Result<Vec<String>, ActionError> {
    let sql = "SELECT 'the constraint ' || c.conname || ' of ' || c.conrelid::regclass::text \
                 || ' is NOT VALID' FROM pg_constraint c \
               JOIN pg_namespace n ON n.oid = c.connamespace \
               WHERE n.nspname = ANY($1) AND NOT c.convalidated \
               UNION ALL \
               SELECT 'the index ' || i.indexrelid::regclass::text || ' is invalid' \
               FROM pg_index i JOIN pg_class t ON t.oid = i.indrelid \
               JOIN pg_namespace n ON n.oid = t.relnamespace \
               WHERE n.nspname = ANY($1) AND NOT (i.indisvalid AND i.indisready) ORDER BY 1";
    require_schemas(session, schemas).await?;
    let rows = session.rows(sql, &[&schemas]).await?;
    Ok(rows.iter().map(|row| row.get(0)).collect())
}

struct ForeignKey {
    name: String,
    child: String,
    parent: String,
    columns: Vec<String>,
    referred: Vec<String>,
}

impl ForeignKey {
    /// Rows without a parent. A key with a NULL in it is no reference
    /// (`MATCH SIMPLE`, the default).
    fn query(&self) -> String {
        let pairs = self.columns.iter().zip(&self.referred);
        let joined: Vec<String> = pairs
            .map(|(child, parent)| format!("p.{} = c.{}", quoted(parent), quoted(child)))
            .collect();
        let present: Vec<String> = self
            .columns
            .iter()
            .map(|column| format!("c.{} IS NOT NULL", quoted(column)))
            .collect();
        format!(
            "SELECT count(*) FROM {} c WHERE {} AND NOT EXISTS (SELECT FROM {} p WHERE {})",
            self.child,
            present.join(" AND "),
            self.parent,
            joined.join(" AND ")
        )
    }
}

/// The foreign keys of the schemas; those that a partition inherits are
/// covered by its parent's.
async fn keys(session: &Session, schemas: &[String]) -> Result<Vec<ForeignKey>, ActionError> {
    let sql = "SELECT c.conname::text, c.conrelid::regclass::text, c.confrelid::regclass::text, \
               ARRAY(SELECT a.attname::text FROM unnest(c.conkey) WITH ORDINALITY k(num, pos) \
                 JOIN pg_attribute a ON a.attrelid = c.conrelid AND a.attnum = k.num ORDER BY pos), \
               ARRAY(SELECT a.attname::text FROM unnest(c.confkey) WITH ORDINALITY k(num, pos) \
                 JOIN pg_attribute a ON a.attrelid = c.confrelid AND a.attnum = k.num ORDER BY pos) \
               FROM pg_constraint c JOIN pg_namespace n ON n.oid = c.connamespace \
               WHERE c.contype = 'f' AND c.conparentid = 0 AND n.nspname = ANY($1) ORDER BY 2, 1";
    let rows = session.rows(sql, &[&schemas]).await?;
    Ok(rows
        .iter()
        .map(|row| ForeignKey {
            name: row.get(0),
            child: row.get(1),
            parent: row.get(2),
            columns: row.get(3),
            referred: row.get(4),
        })
        .collect())
}
