//! `postgres.rows.verify`: the rows equal those of Oracle at its last SCN, no
//! foreign key value lacks its parent row, and no constraint or index is
//! invalid.
//!
//! The tables that the plan names are read in one snapshot. Every other table
//! that both sides have is counted on its own: nothing writes any more, and a
//! transaction over thousands of tables would need more locks than the server
//! has. Rows that differ are named by their keys, from the sketch that Oracle's side
//! gave ([`crate::key_sketch`]).

use super::comparable::{self, Described};
use super::{Table, listed, schema_checks};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::canonical::{Column, Kind, RowDigest};
use crate::host::postgres::{Session, quoted};
use crate::key_sketch::{Differences, Side, Sketch};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{ComparedTable, PostgresRows};
use serde::Deserialize;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

pub struct Verify;

/// Interval between two progress lines while unlisted tables are counted.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What `oracle.rows.digest` gave for one table.
#[derive(Debug, Deserialize)]
struct Expected {
    rows: u64,
    #[serde(default)]
    digest: Option<String>,
    /// The columns of the digest, in order.
    #[serde(default)]
    columns: Vec<Column>,
    /// Positions of the primary key among the columns.
    #[serde(default)]
    key: Vec<usize>,
    /// The sketch of Oracle's rows; none without a key.
    #[serde(default)]
    sketch: Vec<String>,
    /// Its name here, where the plan doesn't name it.
    #[serde(default)]
    postgres: Option<String>,
}

/// Parses the output of `oracle.rows.digest`; every compared table must be in
/// it.
fn expected(params: &PostgresRows) -> Result<BTreeMap<String, Expected>, ActionError> {
    let unusable = |what: String| {
        ActionError::new(Code::LS2320, what)
            .state_left("nothing was changed")
            .remedy("give the output tables of oracle.rows.digest over the same tables")
    };
    let all: BTreeMap<String, Expected> =
        serde_json::from_value(params.expected.clone()).map_err(|e| {
            unusable("expected is no output of oracle.rows.digest".to_owned()).source(e)
        })?;
    for table in &params.tables {
        match all.get(&table.oracle) {
            None => {
                return Err(unusable(format!(
                    "expected says nothing of {}",
                    table.oracle
                )));
            }
            Some(one) if table.digest && (one.digest.is_none() || one.columns.is_empty()) => {
                return Err(unusable(format!(
                    "expected has no digest of {}",
                    table.oracle
                )));
            }
            Some(_) => {}
        }
    }
    Ok(all)
}

/// The SQL expression that gives a column's value as the text of its kind.
fn as_text(column: &Column) -> String {
    let name = quoted(&column.name);
    match column.kind {
        // A boolean corresponds to NUMBER(1); every other type is cast to text.
        Kind::Number => format!(
            "CASE pg_typeof({name})::text WHEN 'boolean' \
             THEN ({name}::text = 'true')::int::text ELSE {name}::text END"
        ),
        // A cast of bpchar to text removes trailing blanks, which its
        // comparison ignores too.
        Kind::Char | Kind::Text | Kind::Float | Kind::Single | Kind::Timestamp | Kind::Bytes => {
            format!("{name}::text")
        }
        Kind::Instant => format!("{name}::timestamptz::text"),
    }
}

async fn count(session: &Session, table: &Table) -> Result<u64, ActionError> {
    let sql = format!("SELECT count(*) FROM {}", table.sql());
    let rows: i64 = session.row(&sql, &[]).await?.get(0);
    Ok(rows.unsigned_abs())
}

async fn digest(
    session: &Session,
    table: &Table,
    expected: &Expected,
) -> Result<(RowDigest, Sketch), ActionError> {
    let columns = &expected.columns;
    let list: Vec<String> = columns.iter().map(as_text).collect();
    let sql = format!("SELECT {} FROM {}", list.join(", "), table.sql());
    let mut rows = Box::pin(session.stream(&sql).await?);
    let mut digest = RowDigest::new();
    let mut sketch = Sketch::default();
    let mut values = Vec::with_capacity(columns.len());
    while let Some(row) = session.next(&mut rows).await? {
        values.clear();
        for (index, column) in columns.iter().enumerate() {
            let text: Option<&str> = row.get(index);
            let value = match text {
                None => None,
                Some(text) => column.kind.canonical(text).map_err(|e| {
                    ActionError::new(
                        Code::LS2321,
                        format!("{table}.{} holds what Oracle can't hold", column.name),
                    )
                    .state_left("nothing was changed")
                    .remedy(
                        "correct the value, leave the column out of the comparison (except), or \
                         have the table only counted (digest: false)",
                    )
                    .source(e)
                })?,
            };
            values.push(value);
        }
        let hash = digest.add(&values);
        sketch.add_row(&values, &expected.key, &hash);
    }
    Ok((digest, sketch))
}

/// Most keys in one sentence for each side.
const KEYS_SHOWN: usize = 20;

/// The keys that differ, by the side on which they are.
fn named(expected: &Expected, found: Option<Differences>) -> String {
    let Some(found) = found else {
        return "; too many differ to name any".to_owned();
    };
    let columns: Vec<&str> = expected
        .key
        .iter()
        .filter_map(|at| Some(expected.columns.get(*at)?.name.as_str()))
        .collect();
    let mut text = if found.complete {
        String::new()
    } else {
        "; more rows differ than are named here".to_owned()
    };
    for (side, what) in [
        (Side::Both, "different"),
        (Side::Theirs, "missing in PostgreSQL"),
        (Side::Ours, "only in PostgreSQL"),
    ] {
        let keys: Vec<&str> = found
            .keys
            .iter()
            .filter(|(_, on)| **on == side)
            .map(|(key, _)| key.as_str())
            .collect();
        if !keys.is_empty() {
            let rest = keys.len().saturating_sub(KEYS_SHOWN);
            let shown = keys.iter().take(KEYS_SHOWN).copied().collect::<Vec<_>>();
            text.push_str(&format!(
                "; {what}: {} {}",
                columns.join(", "),
                shown.join("; ")
            ));
            if rest > 0 {
                text.push_str(&format!(" and {rest} more"));
            }
        }
    }
    text
}

/// Compares one table: its rows, and a sentence where it differs.
async fn compare(
    session: &Session,
    compared: &ComparedTable,
    expected: &Expected,
) -> Result<(u64, Option<String>), ActionError> {
    let table = Table::parse(&compared.postgres)?;
    let (rows, digest, sketch) = match (&expected.digest, compared.digest) {
        (Some(_), true) => {
            let (digest, sketch) = digest(session, &table, expected).await?;
            (digest.rows(), Some(digest.finish()), Some(sketch))
        }
        _ => (count(session, &table).await?, None, None),
    };
    let named = || match &sketch {
        Some(sketch) if !expected.sketch.is_empty() => {
            named(expected, sketch.differences(&expected.sketch))
        }
        Some(_) => {
            "; the rows can't be named without a primary key in Oracle that is compared".to_owned()
        }
        None => String::new(),
    };
    let differs = if rows != expected.rows {
        Some(format!(
            "{table} has {rows} rows, {} had {}{}",
            compared.oracle,
            expected.rows,
            named()
        ))
    } else if digest.is_some() && digest != expected.digest {
        Some(format!(
            "{table} and {} have {rows} rows each, but not the same ones{}",
            compared.oracle,
            named()
        ))
    } else {
        None
    };
    Ok((rows, differs))
}

/// Results of the comparisons.
#[derive(Default)]
struct Compared {
    tables: Map<String, Value>,
    wrong: Vec<String>,
}

impl Compared {
    /// The tables that the plan names.
    async fn named(
        cx: &Context,
        session: &Session,
        params: &PostgresRows,
        expected: &BTreeMap<String, Expected>,
    ) -> Result<Self, ActionError> {
        let mut done = Self::default();
        session
            .run("BEGIN ISOLATION LEVEL REPEATABLE READ READ ONLY")
            .await?;
        for compared in &params.tables {
            let Some(wanted) = expected.get(&compared.oracle) else {
                continue;
            };
            let (rows, differs) = done.one(session, compared, wanted).await?;
            let same = || match compared.digest {
                true => format!("{}: {rows} rows, the same digest", compared.postgres),
                false => format!(
                    "{}: {rows} rows, only counted: their values were not compared",
                    compared.postgres
                ),
            };
            cx.note(differs.unwrap_or_else(same));
        }
        session.run("COMMIT").await?;
        Ok(done)
    }

    /// The others that Oracle has counted.
    async fn others(
        &mut self,
        cx: &Context,
        session: &Session,
        expected: &BTreeMap<String, Expected>,
    ) -> Result<(), ActionError> {
        let others: Vec<(ComparedTable, &Expected)> = expected
            .iter()
            .filter_map(|(oracle, wanted)| {
                let postgres = wanted.postgres.clone()?;
                let compared = ComparedTable {
                    oracle: oracle.clone(),
                    postgres,
                    digest: false,
                    except: Vec::new(),
                };
                Some((compared, wanted))
            })
            .collect();
        let (mut last_reported, mut same) = (Instant::now(), 0);
        for (compared, wanted) in &others {
            match self.one(session, compared, wanted).await? {
                (_, Some(differs)) => cx.note(differs),
                (_, None) => same += 1,
            }
            if last_reported.elapsed() >= PROGRESS_INTERVAL {
                cx.note(format!(
                    "{same} of {} further tables have the same number of rows, only counted",
                    others.len()
                ));
                last_reported = Instant::now();
            }
        }
        if !others.is_empty() {
            cx.note(format!(
                "{same} of {} further tables have the same number of rows, only counted",
                others.len()
            ));
        }
        Ok(())
    }

    async fn one(
        &mut self,
        session: &Session,
        compared: &ComparedTable,
        wanted: &Expected,
    ) -> Result<(u64, Option<String>), ActionError> {
        let (rows, differs) = compare(session, compared, wanted).await?;
        self.wrong.extend(differs.clone());
        let table = compared.postgres.clone();
        let how = if compared.digest { "digest" } else { "count" };
        self.tables
            .insert(table, json!({"rows": rows, "compared": how}));
        Ok((rows, differs))
    }
}

/// Checks the types before any row is read: a type that can't be compared isn't a
/// wrong value.
async fn pairs(
    session: &Session,
    params: &PostgresRows,
    expected: &BTreeMap<String, Expected>,
) -> Result<(), ActionError> {
    let mut wrong = Vec::new();
    for compared in params.tables.iter().filter(|compared| compared.digest) {
        let columns = expected.get(&compared.oracle).map(|one| &one.columns);
        let described: Vec<Described> = columns
            .into_iter()
            .flatten()
            .map(|column| Described {
                column: column.clone(),
                data_type: None,
            })
            .collect();
        wrong.extend(comparable::mismatches(session, compared, &described).await?);
    }
    comparable::judged(&wrong)
}

/// Whether the compared tables exist and can be read.
async fn readable(session: &Session, tables: &[ComparedTable]) -> Result<(), ActionError> {
    let (mut missing, mut barred) = (Vec::new(), Vec::new());
    for compared in tables {
        let table = Table::parse(&compared.postgres)?;
        let sql = "SELECT to_regclass($1::text) IS NOT NULL, \
                   has_table_privilege(to_regclass($1::text), 'SELECT')";
        let row = session.row(sql, &[&table.sql()]).await?;
        if !row.get::<_, bool>(0) {
            missing.push(compared.postgres.clone());
        } else if row.get::<_, Option<bool>>(1) != Some(true) {
            barred.push(compared.postgres.clone());
        }
    }
    let error =
        |what: String| ActionError::new(Code::LS2322, what).state_left("nothing was changed");
    if !missing.is_empty() {
        return Err(error(format!("no such tables: {}", listed(&missing)))
            .remedy("correct compare.tables in the plan"));
    }
    if !barred.is_empty() {
        let what = format!("the agent's role may not read {}", listed(&barred));
        return Err(error(what).remedy("GRANT pg_read_all_data to it, or SELECT on each"));
    }
    Ok(())
}

#[async_trait]
impl Action for Verify {
    type Params = PostgresRows;

    fn required_permissions(&self, params: &PostgresRows) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresRows) -> Result<Probe, ActionError> {
        expected(params)?;
        let session = Session::open(cx, &params.resource).await?;
        readable(&session, &params.tables).await?;
        // A comparison is always pending: rows may have changed since.
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &PostgresRows,
    ) -> Result<Description, ActionError> {
        let mut would_do: Vec<String> = params
            .tables
            .iter()
            .map(|table| {
                let how = if table.digest { "digest" } else { "count" };
                format!("{how} {}, compare with {}", table.postgres, table.oracle)
            })
            .collect();
        if !params.schemas.is_empty() {
            would_do.push(format!(
                "check foreign keys, constraints and indexes of {}",
                listed(&params.schemas)
            ));
        }
        Ok(Description::of(would_do))
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &PostgresRows,
    ) -> Result<Description, ActionError> {
        let mut foreseen = self.describe(cx, params).await?;
        let session = Session::open(cx, &params.resource).await?;
        foreseen.obstacle(readable(&session, &params.tables).await);
        // The run would find them only after the fence.
        let invalid = schema_checks::invalid(&session, &params.schemas).await?;
        if !invalid.is_empty() {
            foreseen.obstacles.push(format!(
                "{}; ALTER TABLE … VALIDATE CONSTRAINT or REINDEX INDEX before the run, which \
                 otherwise stops at them with Oracle closed",
                listed(&invalid)
            ));
        }
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresRows,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let expected = expected(params)?;
        let session = Session::open(cx, &params.resource).await?;
        pairs(&session, params, &expected).await?;
        session.without_limit().await?;
        let mut done = Compared::named(cx, &session, params, &expected).await?;
        done.others(cx, &session, &expected).await?;
        let Compared { tables, mut wrong } = done;
        wrong.extend(schema_checks::problems(&session, &params.schemas).await?);
        if wrong.is_empty() {
            return Ok(Outputs::from([(
                "tables".to_owned(),
                Value::Object(tables),
            )]));
        }
        Err(ActionError::new(Code::LS2323, listed(&wrong))
            .state_left("nothing was changed; the data is not what Oracle had")
            .remedy("roll back, or repair the rows while Oracle is closed and retry"))
    }
}
