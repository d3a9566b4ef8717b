//! What the reverse task can't carry back to Oracle.
//!
//! The canary proves that the path works, not that every table can use it: what
//! DMS doesn't support is lost or changed in Oracle while the task runs on
//! without an error. Such tables and columns are obstacles unless the plan
//! accepts them by name; what depends on how applications write is a remark.
//!
//! Source: AWS DMS user guide, "Limitations on using a PostgreSQL database as a
//! DMS source", "Source data types for PostgreSQL" and "Setting LOB support for
//! source databases". That cascading changes arrive twice follows from PostgreSQL
//! writing them to the WAL like any others.

use super::column_types::{self, ColumnType};
use super::{Table, listed};
use crate::action::ActionError;
use crate::actions::dms::lobs::Lobs;
use crate::actions::dms::reverse_settings::Settings;
use crate::host::postgres::Session;
use lockstep_plan::catalogue::ReverseTask;
use lockstep_plan::mappings::selects;
use serde_json::{Value, json};
use std::collections::{BTreeMap, BTreeSet};

/// Result of the check.
#[derive(Debug, Default)]
pub struct Fallback {
    pub obstacles: Vec<String>,
    pub remarks: Vec<String>,
}

/// Whole tables that DMS doesn't replicate, or not correctly. `relkind` 'p' is a
/// partitioned table; an unlogged table writes no WAL.
const TABLES: &str = "SELECT n.nspname::text, c.relname::text, c.relkind = 'p', \
     c.relpersistence = 'u', \
     EXISTS (SELECT FROM pg_index i WHERE i.indrelid = c.oid AND i.indisunique \
       AND pg_get_indexdef(i.indexrelid) ~* '\\mcoalesce\\('), \
     EXISTS (SELECT FROM pg_class o WHERE o.relnamespace = c.relnamespace \
       AND o.relkind IN ('r', 'p') AND o.oid <> c.oid AND lower(o.relname) = lower(c.relname)) \
   FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
   WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') AND NOT c.relispartition ORDER BY 1, 2";

/// Foreign keys whose actions change rows of the child table, by what triggers
/// them.
const CASCADES: &str = "SELECT n.nspname::text, t.relname::text, c.conname::text, \
     c.confdeltype NOT IN ('a', 'r'), c.confupdtype NOT IN ('a', 'r') \
   FROM pg_constraint c JOIN pg_class t ON t.oid = c.conrelid \
   JOIN pg_namespace n ON n.oid = t.relnamespace \
   WHERE c.contype = 'f' AND c.conparentid = 0 AND n.nspname = ANY($1) \
     AND (c.confdeltype NOT IN ('a', 'r') OR c.confupdtype NOT IN ('a', 'r')) ORDER BY 1, 2, 3";

/// Types that DMS replicates as LOBs, except arrays and composite types. A
/// `varchar` without a length isn't in the guide's table; it has no length that
/// DMS could use for a string.
const LOBS: &[&str] = &[
    "text", "bytea", "json", "jsonb", "xml", "hstore", "tsvector", "tsquery", "path", "polygon",
    "citext",
];

/// Types that arrive as text of PostgreSQL's format, whatever the column in Oracle.
const TEXTS: &[&str] = &[
    "uuid", "interval", "inet", "cidr", "macaddr", "bit", "varbit", "point", "line", "lseg", "box",
    "circle",
];

const PARTITIONED: &str = "partitioned tables, whose changes don't arrive in the table in Oracle";
const UNLOGGED: &str =
    "unlogged tables, whose changes are not in the WAL; ALTER TABLE … SET LOGGED";
const COALESCE: &str = "tables with a unique index on COALESCE, which DMS doesn't replicate";
const SPELLING: &str = "tables whose names differ only in case, which DMS confuses";
const UNBOUNDED: &str = "numeric columns without a precision, which arrive rounded as \
     numeric(28,6); give them the precision and scale of the column in Oracle";
const BOOLEAN: &str = "boolean columns, which arrive as the texts 'true' and 'false'; use smallint \
     or numeric(1)";
const LARGE_OBJECT: &str = "columns with the identifier of a large object, which don't arrive";

struct Check<'a> {
    task: &'a ReverseTask,
    /// The mappings as JSON; null, which selects every table, without mappings.
    rules: Value,
    settings: Value,
    /// Places that DMS loses or changes, by reason.
    lost: BTreeMap<String, Vec<String>>,
    accepted: BTreeMap<String, Vec<String>>,
    used: BTreeSet<&'a str>,
    found: Fallback,
}

/// Checks the tables of the schemas that the task selects.
pub async fn check(
    session: &Session,
    schemas: &[String],
    task: &ReverseTask,
) -> Result<Fallback, ActionError> {
    let mut found = Fallback::default();
    let settings = match Settings::of(&task.settings) {
        Ok(settings) => settings.document(),
        Err(e) => {
            found.obstacles.push(e.report());
            Value::Null
        }
    };
    let rules = match &task.table_mappings {
        Value::String(text) => serde_json::from_str(text).unwrap_or_else(|_| json!({})),
        rules => rules.clone(),
    };
    let mut check = Check {
        task,
        rules,
        settings,
        lost: BTreeMap::new(),
        accepted: BTreeMap::new(),
        used: BTreeSet::new(),
        found,
    };
    check.tables(session, schemas).await?;
    check.columns(&column_types::of(session, schemas, &[]).await?);
    check.cascades(session, schemas).await?;
    Ok(check.finish())
}

impl<'a> Check<'a> {
    /// `table` is the whole table, or the one of the column `place`.
    fn lose(&mut self, reason: &str, table: &Table, place: String) {
        let whole = table.to_string();
        let accept = self.task.accept.iter();
        let by = accept
            .map(String::as_str)
            .find(|one| *one == place || *one == whole);
        let list = if by.is_some() {
            &mut self.accepted
        } else {
            &mut self.lost
        };
        list.entry(reason.to_owned()).or_default().push(place);
        self.used.extend(by);
    }

    async fn tables(&mut self, session: &Session, schemas: &[String]) -> Result<(), ActionError> {
        for row in session.rows(TABLES, &[&schemas]).await? {
            let table = Table {
                schema: row.get(0),
                name: row.get(1),
            };
            if !selected(&self.rules, &table) {
                continue;
            }
            let reasons = [PARTITIONED, UNLOGGED, COALESCE, SPELLING];
            for (at, reason) in reasons.into_iter().enumerate() {
                if row.get(at + 2) {
                    self.lose(reason, &table, table.to_string());
                }
            }
        }
        Ok(())
    }

    fn columns(&mut self, columns: &[ColumnType]) {
        let (mut texts, mut zoned) = (Vec::new(), Vec::new());
        for column in columns {
            if !selected(&self.rules, &column.table) {
                continue;
            }
            let place = column.place();
            match column.base.as_str() {
                "numeric" if column.modifier == -1 => self.lose(UNBOUNDED, &column.table, place),
                "bool" => self.lose(BOOLEAN, &column.table, place),
                "oid" | "lo" => self.lose(LARGE_OBJECT, &column.table, place),
                _ if is_lob(column) => self.lob(column),
                other if column.sort == "e" || TEXTS.contains(&other) => texts.push(place),
                "timestamptz" | "timetz" => zoned.push(place),
                _ => {}
            }
        }
        for (which, what) in [
            (
                texts,
                "arrive in Oracle as text in PostgreSQL's format; a column of another type there \
                 (RAW for uuid) stops the task",
            ),
            (zoned, "arrive in Oracle without their time zone"),
        ] {
            if !which.is_empty() {
                self.found
                    .remarks
                    .push(format!("{} {what}", listed(&which)));
            }
        }
    }

    fn lob(&mut self, column: &ColumnType) {
        let table = column.table.to_string();
        let reason = match Lobs::of_table(&self.settings, &self.rules, &table) {
            Lobs::Whole => return,
            Lobs::Cut(kb) => format!(
                "LOB columns, whose values arrive cut at {kb} KB; choose full LOB mode (leave \
                 LobMaxSize out of dms.reverse.settings and of the table mappings)"
            ),
            Lobs::LeftOut => {
                "LOB columns, which don't arrive, because LOB support is off".to_owned()
            }
        };
        self.lose(&reason, &column.table, column.place());
    }

    async fn cascades(&mut self, session: &Session, schemas: &[String]) -> Result<(), ActionError> {
        let (mut deletes, mut updates) = (Vec::new(), Vec::new());
        for row in session.rows(CASCADES, &[&schemas]).await? {
            let table = Table {
                schema: row.get(0),
                name: row.get(1),
            };
            if selected(&self.rules, &table) {
                let key = format!("{} of {table}", row.get::<_, String>(2));
                if row.get(3) {
                    deletes.push(key.clone());
                }
                if row.get(4) {
                    updates.push(key);
                }
            }
        }
        if !deletes.is_empty() {
            self.found.remarks.push(format!(
                "deletes cascade by {}: the reverse task repeats the parent's and the children's \
                 deletes. Where the key in Oracle cascades, too, the second finds no row, and where \
                 it doesn't, the first is rejected (ORA-02292): either stops the task unless that \
                 key is disabled in Oracle",
                listed(&deletes)
            ));
        }
        if !updates.is_empty() {
            self.found.remarks.push(format!(
                "updates of keys cascade by {}: the reverse task ignores updates of primary keys, \
                 without an exception",
                listed(&updates)
            ));
        }
        Ok(())
    }

    fn finish(mut self) -> Fallback {
        for (reason, places) in &self.lost {
            self.found.obstacles.push(format!(
                "the reverse task would lose or change data in Oracle without an error: {}: {reason}, \
                 exclude them from dms.reverse.table_mappings, or accept the loss by name in \
                 dms.reverse.accept",
                listed(places)
            ));
        }
        for (reason, places) in &self.accepted {
            self.found.remarks.push(format!(
                "the plan accepts that a fallback lacks {}: {reason}",
                listed(places)
            ));
        }
        let accept = self.task.accept.iter().map(String::as_str);
        let unused: Vec<&str> = accept.filter(|one| !self.used.contains(one)).collect();
        if !unused.is_empty() {
            self.found.remarks.push(format!(
                "dms.reverse.accept names {}, where nothing has to be accepted",
                listed(&unused)
            ));
        }
        self.found.remarks.push(
            "the reverse task replicates neither TRUNCATE nor updates of primary keys, without an \
             exception, and an empty string may arrive in Oracle as one space: applications must \
             not rely on them while a fallback is wanted"
                .to_owned(),
        );
        self.found
    }
}

fn selected(rules: &Value, table: &Table) -> bool {
    rules.is_null() || selects(rules, &table.to_string())
}

fn is_lob(column: &ColumnType) -> bool {
    LOBS.contains(&column.base.as_str())
        || column.is_array()
        || column.sort == "c"
        || (column.base == "varchar" && column.modifier == -1)
}
