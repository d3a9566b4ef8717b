//! `oracle.rows.digest`: counts and digests as of an SCN.
//!
//! Values are fetched in the driver's own types, so that no NLS setting of a
//! session or database affects them, and are converted to the canonical text of
//! [`crate::canonical`]. The output also lists the columns with their kinds:
//! PostgreSQL compares those columns in that order.
//!
//! In addition to the tables that the plan names, every other table that exists
//! on both sides is counted, so that a table that the plan forgot is compared,
//! too.

use super::names::Qualified;
use super::required_permissions;
use super::unlisted_tables::{self, Others};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::canonical::{Column, Kind, NotCanonical, RowDigest};
use crate::host::oracle::{Bind, Session};
use crate::key_sketch::Sketch;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::{ComparedTable, OracleRows};
use oracle::Row;
use oracle::sql_type::Timestamp;
use serde_json::{Map, Value, json};
use std::time::Duration;

/// Columns in order; hidden and virtual columns hold no data of their own.
const COLUMNS: &str = "SELECT COLUMN_NAME, DATA_TYPE FROM DBA_TAB_COLS \
     WHERE OWNER = :1 AND TABLE_NAME = :2 AND HIDDEN_COLUMN = 'NO' AND VIRTUAL_COLUMN = 'NO' \
     ORDER BY COLUMN_ID";

/// Columns of the primary key.
const KEY: &str = "SELECT CC.COLUMN_NAME FROM DBA_CONSTRAINTS C, DBA_CONS_COLUMNS CC \
     WHERE C.OWNER = :1 AND C.TABLE_NAME = :2 AND C.CONSTRAINT_TYPE = 'P' \
     AND CC.OWNER = C.OWNER AND CC.CONSTRAINT_NAME = C.CONSTRAINT_NAME ORDER BY CC.POSITION";

/// Tables whose differing rows can be named: a sketch takes up to 45 KB, and the
/// outputs of a task must stay below 1 MiB.
const SKETCHED: usize = 16;

/// A scan of a large table is one call. The task's own limit normally ends it
/// earlier.
const SCAN_LIMIT: Duration = Duration::from_secs(4 * 3600);
/// Rows per round trip.
const FETCHED: u32 = 1000;

pub struct Digest;

/// A column of the table in Oracle.
pub struct Source {
    pub name: String,
    pub data_type: String,
    pub column: Column,
}

/// The kind as which a type is compared; `None` if it can't be compared.
fn kind(data_type: &str) -> Option<Kind> {
    // TIMESTAMP(6) WITH TIME ZONE and the like.
    let base = data_type.split('(').next().unwrap_or(data_type);
    Some(match base {
        "NUMBER" | "FLOAT" => Kind::Number,
        "BINARY_FLOAT" => Kind::Single,
        "BINARY_DOUBLE" => Kind::Float,
        "VARCHAR2" | "NVARCHAR2" | "CLOB" | "NCLOB" => Kind::Text,
        "CHAR" | "NCHAR" => Kind::Char,
        "TIMESTAMP" if data_type.ends_with("TIME ZONE") => Kind::Instant,
        "DATE" | "TIMESTAMP" => Kind::Timestamp,
        "RAW" | "BLOB" => Kind::Bytes,
        _ => return None,
    })
}

/// The columns of a table, as name and type.
async fn types(session: &Session, table: &Qualified) -> Result<Vec<(String, String)>, ActionError> {
    let binds = [table.owner.as_str().into(), table.name.as_str().into()];
    let all: Vec<(String, String)> = session.rows(COLUMNS, &binds).await?;
    if !all.is_empty() {
        return Ok(all);
    }
    let what = format!("Oracle has no table {}.{}", table.owner, table.name);
    Err(ActionError::new(Code::LS2270, what)
        .state_left("nothing was compared")
        .remedy("correct it in the plan, spelled as DBA_TABLES does"))
}

/// The columns that the digest covers.
pub async fn columns(
    session: &Session,
    compared: &ComparedTable,
) -> Result<Vec<Source>, ActionError> {
    let table = Qualified::read(&compared.oracle)?;
    let all = types(session, &table).await?;
    let left_out = |name: &String| compared.except.contains(&name.to_lowercase());
    let place = format!("{}.{}", table.owner, table.name);
    let source = |(name, data_type): (String, String)| match kind(&data_type) {
        Some(kind) => Ok(Source {
            column: Column {
                name: name.to_lowercase(),
                kind,
            },
            name,
            data_type,
        }),
        None => Err(ActionError::new(
            Code::LS2271,
            format!(
                "the column {name} of {place} has the type {data_type}, which can't be compared"
            ),
        )
        .state_left("nothing was compared in this table")
        .remedy(
            "leave the column out of the comparison (except), or compare this table by its count \
             only (digest: false)",
        )),
    };
    all.into_iter()
        .filter(|(name, _)| !left_out(name))
        .map(source)
        .collect()
}

/// The value as text, as input for [`crate::canonical`].
fn text(row: &Row, at: usize, kind: Kind) -> oracle::Result<Option<String>> {
    Ok(match kind {
        Kind::Number | Kind::Text | Kind::Char => row.get(at)?,
        Kind::Float | Kind::Single => row
            .get::<_, Option<f64>>(at)?
            .map(|value| value.to_string()),
        Kind::Timestamp => row.get::<_, Option<Timestamp>>(at)?.map(|at| plain(&at)),
        Kind::Instant => row.get::<_, Option<Timestamp>>(at)?.map(|at| zoned(&at)),
        Kind::Bytes => row.get::<_, Option<Vec<u8>>>(at)?.map(hex::encode),
    })
}

fn plain(at: &Timestamp) -> String {
    format!(
        "{:04}-{:02}-{:02} {:02}:{:02}:{:02}.{:09}",
        at.year(),
        at.month(),
        at.day(),
        at.hour(),
        at.minute(),
        at.second(),
        at.nanosecond()
    )
}

fn zoned(at: &Timestamp) -> String {
    let offset = at.tz_offset();
    let (sign, offset) = (if offset < 0 { '-' } else { '+' }, offset.abs());
    format!(
        "{}{sign}{:02}:{:02}",
        plain(at),
        offset / 3600,
        offset % 3600 / 60
    )
}

pub async fn count(session: &Session, table: &Qualified, scn: i64) -> Result<u64, ActionError> {
    let sql = format!("SELECT COUNT(*) FROM {} AS OF SCN :1", table.sql());
    Ok(session.row(&sql, &[Bind::Integer(scn)]).await?)
}

/// Positions of the primary key among the compared columns; none if it isn't
/// compared as a whole.
async fn key(
    session: &Session,
    table: &Qualified,
    sources: &[Source],
) -> Result<Vec<usize>, ActionError> {
    let binds = [table.owner.as_str().into(), table.name.as_str().into()];
    let names: Vec<String> = session.rows(KEY, &binds).await?;
    let at = |name: &String| sources.iter().position(|source| source.name == *name);
    Ok(names
        .iter()
        .map(at)
        .collect::<Option<_>>()
        .unwrap_or_default())
}

async fn digest(
    session: &Session,
    table: &Qualified,
    sources: &[Source],
    key: Vec<usize>,
    scn: i64,
) -> Result<(RowDigest, Sketch), ActionError> {
    let names: Vec<String> = sources
        .iter()
        .map(|source| super::names::quoted(&source.name))
        .collect::<Result<_, _>>()?;
    let sql = format!(
        "SELECT {} FROM {} AS OF SCN :1",
        names.join(", "),
        table.sql()
    );
    let kinds: Vec<Kind> = sources.iter().map(|source| source.column.kind).collect();
    let text_of_query = sql.clone();
    let scanned = session
        .with(&sql, move |connection| {
            let mut statement = connection
                .statement(&text_of_query)
                .fetch_array_size(FETCHED)
                .build()?;
            let mut digest = RowDigest::new();
            let mut sketch = Sketch::default();
            for row in statement.query(&[&scn])? {
                match canonical(&row?, &kinds)? {
                    Ok(values) => {
                        let hash = digest.add(&values);
                        sketch.add_row(&values, &key, &hash);
                    }
                    Err(e) => return Ok(Err(e)),
                }
            }
            Ok(Ok((digest, sketch)))
        })
        .await?;
    scanned.map_err(|(at, e)| {
        let column = sources.get(at).map_or("?", |source| source.name.as_str());
        ActionError::new(
            Code::LS2272,
            format!(
                "a value in {column} of {}.{} can't be compared",
                table.owner, table.name
            ),
        )
        .state_left("nothing was compared in this table")
        .remedy("compare this table by its count only (digest: false)")
        .source(e)
    })
}

/// Checks that a table exists and can be compared as the plan requires.
async fn comparable(session: &Session, compared: &ComparedTable) -> Result<(), ActionError> {
    if compared.digest {
        columns(session, compared).await.map(drop)
    } else {
        let table = Qualified::read(&compared.oracle)?;
        types(session, &table).await.map(drop)
    }
}

type Canonical = Result<Vec<Option<String>>, (usize, NotCanonical)>;

fn canonical(row: &Row, kinds: &[Kind]) -> oracle::Result<Canonical> {
    let mut values = Vec::with_capacity(kinds.len());
    for (at, kind) in kinds.iter().enumerate() {
        match text(row, at, *kind)?.map(|text| kind.canonical(&text)) {
            None => values.push(None),
            Some(Ok(value)) => values.push(value),
            Some(Err(e)) => return Ok(Err((at, e))),
        }
    }
    Ok(Ok(values))
}

async fn compare(
    session: &Session,
    compared: &ComparedTable,
    scn: i64,
    sketched: bool,
) -> Result<Value, ActionError> {
    let table = Qualified::read(&compared.oracle)?;
    if !compared.digest {
        let rows = count(session, &table, scn).await?;
        return Ok(json!({"rows": rows, "digest": null}));
    }
    let sources = columns(session, compared).await?;
    let key = if sketched {
        key(session, &table, &sources).await?
    } else {
        Vec::new()
    };
    let (digest, sketch) = digest(session, &table, &sources, key.clone(), scn).await?;
    let columns: Vec<&Column> = sources.iter().map(|source| &source.column).collect();
    let mut result = json!({"rows": digest.rows(), "digest": digest.finish(), "columns": columns});
    if !key.is_empty() {
        result["key"] = json!(key);
        result["sketch"] = json!(sketch.texts(digest.rows()));
    }
    Ok(result)
}

#[async_trait]
impl Action for Digest {
    type Params = OracleRows;

    fn required_permissions(&self, params: &OracleRows) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleRows) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        for compared in &params.tables {
            comparable(&session, compared).await?;
        }
        unlisted_tables::counted(params)?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &OracleRows,
    ) -> Result<Description, ActionError> {
        let mut would_do: Vec<String> = params
            .tables
            .iter()
            .map(|compared| {
                let what = if compared.digest { "digest" } else { "count" };
                format!("{what} {} AS OF SCN {}", compared.oracle, params.scn)
            })
            .collect();
        would_do.extend(params.schemas.iter().map(|mapped| {
            format!(
                "count every other table of {} that {} in PostgreSQL has",
                mapped.oracle, mapped.postgres
            )
        }));
        Ok(Description::of(would_do))
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &OracleRows,
    ) -> Result<Description, ActionError> {
        let mut foreseen = self.describe(cx, params).await?;
        let session = Session::open(cx, &params.resource).await?;
        for compared in &params.tables {
            foreseen.obstacle(comparable(&session, compared).await);
        }
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OracleRows,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let scn: i64 = params.scn.parse().map_err(|_| {
            ActionError::new(Code::LS2273, format!("{:?} is no SCN", params.scn))
                .state_left("nothing was compared")
                .remedy("give the `scn` of oracle.finalize")
        })?;
        let session = Session::open(cx, &params.resource).await?;
        session.allow(SCAN_LIMIT).await?;
        let mut tables = Map::new();
        let mut digests = 0;
        for compared in &params.tables {
            digests += usize::from(compared.digest);
            let result = compare(&session, compared, scn, digests <= SKETCHED).await?;
            let how = if compared.digest {
                "rows"
            } else {
                "rows, only counted"
            };
            cx.note(format!("{}: {} {how}", compared.oracle, result["rows"]));
            tables.insert(compared.oracle.clone(), result);
        }
        let others = Others::find(&session, params).await?;
        others.count(cx, &session, scn, &mut tables).await?;
        Ok(Outputs::from([(
            "tables".to_owned(),
            Value::Object(tables),
        )]))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn types_have_their_kinds() {
        for (data_type, expected) in [
            ("NUMBER", Some(Kind::Number)),
            ("CHAR", Some(Kind::Char)),
            ("DATE", Some(Kind::Timestamp)),
            ("TIMESTAMP(6)", Some(Kind::Timestamp)),
            ("TIMESTAMP(6) WITH TIME ZONE", Some(Kind::Instant)),
            ("TIMESTAMP(6) WITH LOCAL TIME ZONE", Some(Kind::Instant)),
            ("BINARY_DOUBLE", Some(Kind::Float)),
            ("BINARY_FLOAT", Some(Kind::Single)),
            ("RAW", Some(Kind::Bytes)),
            ("XMLTYPE", None),
            ("LONG", None),
        ] {
            assert_eq!(kind(data_type), expected, "{data_type}");
        }
    }
}
