//! Which sequence feeds which columns.

use super::Table;
use crate::action::ActionError;
use crate::host::postgres::Session;
use lockstep_api::Code;
use std::collections::BTreeSet;

/// A column and the sequence that feeds it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Feed {
    /// For SQL, quoted where needed.
    pub sequence: String,
    pub table: Table,
    pub column: String,
    /// The column holds the sequence's values unchanged: it is a number or
    /// text, and its default is `nextval` alone.
    pub plain: bool,
}

impl Feed {
    /// `schema.table.column`.
    pub fn place(&self) -> String {
        format!("{}.{}", self.table, self.column)
    }
}

/// The sequences of some schemas.
pub struct Sequences {
    /// Identities, serials, and columns with `nextval` in their default.
    pub feeds: Vec<Feed>,
    /// Sequences that feed no column: only applications call them.
    pub idle: Vec<String>,
    /// Feeding sequences that the agent's role may not read and set.
    pub barred: Vec<String>,
}

/// Sequences by their owning column (`a` a serial, `i` an identity) and by
/// the defaults that depend on them.
const FEEDS: &str = "SELECT s.oid::regclass::text, n.nspname::text, c.relname::text, \
      a.attname::text, t.typcategory IN ('N', 'S') AND coalesce( \
        t.typcategory = 'N' AND pg_get_expr(d.adbin, d.adrelid) !~ 'nextval' OR \
        regexp_replace(pg_get_expr(d.adbin, d.adrelid), \
          'nextval\\(''([^'']|'''')*''::regclass\\)|::[a-z ]+(\\([0-9]+\\))?|[()]', '', 'g') = '', \
        t.typcategory = 'N'), \
      has_sequence_privilege(s.oid, 'SELECT') AND has_sequence_privilege(s.oid, 'UPDATE') \
    FROM pg_class c JOIN pg_namespace n ON n.oid = c.relnamespace \
    JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped \
    JOIN pg_type t ON t.oid = a.atttypid \
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum \
    JOIN LATERAL ( \
      SELECT o.objid AS oid FROM pg_depend o WHERE o.classid = 'pg_class'::regclass \
        AND o.refclassid = 'pg_class'::regclass AND o.refobjid = c.oid \
        AND o.refobjsubid = a.attnum AND o.deptype IN ('a', 'i') \
      UNION SELECT p.refobjid FROM pg_depend p WHERE p.classid = 'pg_attrdef'::regclass \
        AND p.objid = d.oid AND p.refclassid = 'pg_class'::regclass) f ON true \
    JOIN pg_class s ON s.oid = f.oid AND s.relkind = 'S' \
    WHERE n.nspname = ANY($1) AND c.relkind IN ('r', 'p') ORDER BY 1, 2, 3, 4";

impl Sequences {
    /// Reads the system catalog.
    pub async fn of(session: &Session, schemas: &[String]) -> Result<Self, ActionError> {
        let rows = session.rows(FEEDS, &[&schemas]).await?;
        let mut barred = BTreeSet::new();
        let mut feeds = Vec::with_capacity(rows.len());
        for row in &rows {
            let feed = Feed {
                sequence: row.get(0),
                table: Table {
                    schema: row.get(1),
                    name: row.get(2),
                },
                column: row.get(3),
                plain: row.get(4),
            };
            if !row.get::<_, bool>(5) {
                barred.insert(feed.sequence.clone());
            }
            feeds.push(feed);
        }
        let sql = "SELECT s.oid::regclass::text FROM pg_class s \
                   JOIN pg_namespace n ON n.oid = s.relnamespace \
                   WHERE s.relkind = 'S' AND n.nspname = ANY($1) ORDER BY 1";
        let rows = session.rows(sql, &[&schemas]).await?;
        let idle = rows
            .iter()
            .map(|row| row.get(0))
            .filter(|name: &String| feeds.iter().all(|feed| feed.sequence != *name))
            .collect();
        Ok(Self {
            feeds,
            idle,
            barred: barred.into_iter().collect(),
        })
    }

    /// Sequences that are left unchanged unless they are among `named`: their
    /// target value is unknown.
    pub fn left_alone(&self, named: &BTreeSet<String>) -> Vec<String> {
        let aligned: BTreeSet<&String> = self
            .feeds
            .iter()
            .filter(|feed| feed.plain)
            .map(|feed| &feed.sequence)
            .chain(named)
            .collect();
        let made = self
            .feeds
            .iter()
            .filter(|feed| !aligned.contains(&feed.sequence))
            .map(|feed| format!("{} of {}", feed.sequence, feed.place()));
        let idle = self.idle.iter().filter(|name| !named.contains(*name));
        made.chain(idle.cloned()).collect()
    }
}

/// `schema.table.column` in its parts.
pub fn column(text: &str) -> Result<(Table, &str), ActionError> {
    let unusable = || {
        ActionError::new(
            Code::LS2307,
            format!("{text:?} is not of the form schema.table.column"),
        )
        .state_left("nothing was changed")
        .remedy("correct it in the plan")
    };
    let (table, column) = text.rsplit_once('.').ok_or_else(unusable)?;
    Ok((Table::parse(table)?, column))
}

/// The sequence that feeds a column: the one it owns, or the one in its
/// default.
pub async fn find(session: &Session, place: &str) -> Result<String, ActionError> {
    let (table, column) = column(place)?;
    let sql = "SELECT coalesce(pg_get_serial_sequence($1, $2), ( \
                 SELECT s.oid::regclass::text FROM pg_attrdef d \
                 JOIN pg_attribute a ON a.attrelid = d.adrelid AND a.attnum = d.adnum \
                 JOIN pg_depend p ON p.classid = 'pg_attrdef'::regclass AND p.objid = d.oid \
                   AND p.refclassid = 'pg_class'::regclass \
                 JOIN pg_class s ON s.oid = p.refobjid AND s.relkind = 'S' \
                 WHERE d.adrelid = $1::text::regclass AND a.attname = $2 LIMIT 1))";
    let found: Option<String> = session.row(sql, &[&table.sql(), &column]).await?.get(0);
    found.ok_or_else(|| {
        ActionError::new(Code::LS2333, format!("no sequence feeds {place}"))
            .state_left("no sequence was moved by this step")
            .remedy(format!(
                "ALTER SEQUENCE … OWNED BY {place}, or take it out of the plan"
            ))
    })
}
