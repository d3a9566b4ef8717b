//! `oracle.rows.unchanged`: Oracle has no commit beyond the proved SCN.
//!
//! The fence excludes applications; it doesn't exclude SYS, a script on the host
//! that logs in as SYS, or a commit in the quarter of a second before a session
//! is detected. What such a session commits after the forward task has stopped
//! reaches nobody. So directly before PostgreSQL is opened, every table of the
//! schemas is checked:
//!
//! - `MAX(ORA_ROWSCN)` is not above the SCN. It is never below the SCN of the
//!   commit that last changed the row; it may be above it, because it is
//!   recorded for each block, and because a block that is cleaned out late gets
//!   a later one (SQL Language Reference, "ORA_ROWSCN Pseudocolumn").
//! - The number of rows is the one at the SCN. A deleted row has no ORA_ROWSCN
//!   any more. The count of `oracle.rows.digest` is used where there is one,
//!   otherwise a flashback query.
//! - Where ORA_ROWSCN is above the SCN or missing, a flashback version query
//!   decides: VERSIONS_STARTSCN is NULL for row versions from before the lower
//!   bound (SQL Language Reference, "Version Query Pseudocolumns"). If the undo
//!   is no longer there, the table counts as changed.
//!
//! Transactions must not be open before or after. The cost is one full scan of
//! each table, several at a time, and of some a second one; no row is fetched.
//!
//! What remains undetected: a commit during the scan to a table that has been
//! scanned, or between this check and the release that opens PostgreSQL, if its
//! transaction was too short for the watch of the fence; and what leaves neither
//! a row nor a different number of rows, such as an exchanged partition with
//! older blocks. External and temporary tables, sequences and Oracle's internal
//! tables (materialized view logs, queues) aren't checked.

use super::fence;
use super::names::Qualified;
use super::unlisted_tables::{TABLES, internal, shown};
use super::{required_permissions, schemas};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::actions::truncate_list;
use crate::host::oracle::{Bind, OracleError, Session};
use crate::policy::Permission;
use async_trait::async_trait;
use futures_util::future::join_all;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::OracleUnchanged;
use serde::Deserialize;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

/// They have no rows in the database (Oracle Database Reference,
/// ALL_EXTERNAL_TABLES), and no ORA_ROWSCN.
const EXTERNAL: &str = "SELECT TABLE_NAME FROM DBA_EXTERNAL_TABLES WHERE OWNER = :1";

/// Prefix of the control tables that a DMS task writes in its target (AWS DMS
/// user guide, "Control table task settings").
const DMS_CONTROL: &str = "awsdms_";

/// ORA-00942: table or view does not exist
const NO_TABLE: i32 = 942;

/// Tables that are scanned at the same time: the outage lasts as long as the
/// scans, and a database host has at least a few processors.
const SCANNERS: usize = 4;

/// A scan of a large table is one call. The task's own limit normally ends it
/// earlier.
const SCAN_LIMIT: Duration = Duration::from_secs(4 * 3600);

/// Interval between two progress lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

pub struct Unchanged;

/// What `oracle.rows.digest` reports about a table, as far as it matters here.
#[derive(Deserialize)]
struct Counted {
    rows: i64,
}

/// A table to check.
struct Table {
    name: Qualified,
    /// Its rows at the SCN, if they have been counted.
    rows: Option<i64>,
}

impl Table {
    /// Says what was changed after the SCN, or can't be excluded; `None` if
    /// nothing was.
    async fn changed(&self, session: &Session, scn: i64) -> Result<Option<String>, OracleError> {
        let name = format!("{}.{}", self.name.owner, self.name.name);
        let (now, last) = match self.now(session).await {
            Err(e) if e.ora() == Some(NO_TABLE) => {
                return Ok(Some(format!("{name} doesn't exist any more")));
            }
            Err(e) if e.ora().is_some() => return Ok(Some(unknown(&name, "read", &e))),
            Err(e) => return Err(e),
            Ok(now) => now,
        };
        let before = match self.rows {
            Some(rows) => rows,
            None => match self.before(session, scn).await {
                Ok(rows) => rows,
                Err(e) if e.ora().is_some() => {
                    return Ok(Some(unknown(&name, "counted as of the SCN", &e)));
                }
                Err(e) => return Err(e),
            },
        };
        if now != before {
            let sentence = format!("{name} had {before} rows and has {now}");
            return Ok(Some(sentence));
        }
        if now == 0 || last.is_some_and(|last| last <= scn) {
            return Ok(None);
        }
        match self.versions(session, scn).await {
            Ok(0) => Ok(None),
            Ok(versions) => Ok(Some(format!("{name} has {versions} later row versions"))),
            Err(e) if e.ora().is_some() => Ok(Some(unknown(&name, "read as of the SCN", &e))),
            Err(e) => Err(e),
        }
    }

    /// The number of rows, and an SCN at or after the last commit; `None` if
    /// not every row has one.
    async fn now(&self, session: &Session) -> Result<(i64, Option<i64>), OracleError> {
        type Bound = (i64, i64, Option<String>);
        let sql = format!("{} FROM {}", bound(), self.name.sql());
        match session.row::<Bound>(&sql, &[]).await {
            Ok((rows, with_scn, last)) => {
                let last = last.and_then(|last| last.parse().ok());
                Ok((rows, last.filter(|_| with_scn == rows)))
            }
            // This kind of table has no ORA_ROWSCN.
            Err(e) if e.ora().is_some_and(|code| code != NO_TABLE) => {
                let sql = format!("SELECT COUNT(*) FROM {}", self.name.sql());
                Ok((session.row(&sql, &[]).await?, None))
            }
            Err(e) => Err(e),
        }
    }

    /// The number of rows at the SCN.
    async fn before(&self, session: &Session, scn: i64) -> Result<i64, OracleError> {
        let sql = format!("SELECT COUNT(*) FROM {} AS OF SCN :1", self.name.sql());
        session.row(&sql, &[Bind::Integer(scn)]).await
    }

    /// The number of row versions that began after the SCN.
    async fn versions(&self, session: &Session, scn: i64) -> Result<i64, OracleError> {
        let sql = format!(
            "SELECT COUNT(*) FROM {} VERSIONS BETWEEN SCN :1 AND MAXVALUE \
             WHERE VERSIONS_STARTSCN > :2",
            self.name.sql()
        );
        let binds = [Bind::Integer(scn), Bind::Integer(scn)];
        session.row(&sql, &binds).await
    }
}

fn bound() -> &'static str {
    "SELECT COUNT(*), COUNT(ORA_ROWSCN), TO_CHAR(MAX(ORA_ROWSCN))"
}

fn unknown(name: &str, what: &str, error: &OracleError) -> String {
    format!("a change of {name} can't be excluded, because it can't be {what}: {error}")
}

/// The counts of `oracle.rows.digest` by `OWNER.TABLE`.
fn expected(params: &OracleUnchanged) -> Result<BTreeMap<String, Counted>, ActionError> {
    if params.expected.is_null() {
        return Ok(BTreeMap::new());
    }
    serde_json::from_value(params.expected.clone()).map_err(|e| {
        ActionError::new(Code::LS2274, "expected is no output of oracle.rows.digest")
            .state_left("nothing was compared")
            .remedy("give the output tables of oracle.rows.digest at the same SCN")
            .source(e)
    })
}

fn scn_of(params: &OracleUnchanged) -> Result<i64, ActionError> {
    params.scn.parse().map_err(|_| {
        ActionError::new(Code::LS2273, format!("{:?} is no SCN", params.scn))
            .state_left("nothing was compared")
            .remedy("give the `scn` of oracle.finalize")
    })
}

/// The tables of the schemas, and those that have been counted.
async fn tables(
    session: &Session,
    params: &OracleUnchanged,
    mut counted: BTreeMap<String, Counted>,
) -> Result<Vec<Table>, ActionError> {
    schemas::require(session, params.schemas.iter().map(String::as_str)).await?;
    let mut tables = Vec::new();
    for owner in &params.schemas {
        let external: Vec<String> = session.rows(EXTERNAL, &[owner.as_str().into()]).await?;
        let external: BTreeSet<String> = external.into_iter().collect();
        let names: Vec<String> = session.rows(TABLES, &[owner.as_str().into()]).await?;
        for name in names.into_iter().filter(|name| !external.contains(name)) {
            let rows = counted.remove(&format!("{owner}.{name}"));
            if rows.is_some() || !(internal(&name) || of_dms(&name)) {
                tables.push(Table {
                    rows: rows.map(|counted| counted.rows),
                    name: Qualified {
                        owner: owner.clone(),
                        name,
                    },
                });
            }
        }
    }
    for (name, counted) in counted {
        tables.push(Table {
            name: Qualified::read(&name)?,
            rows: Some(counted.rows),
        });
    }
    let except: Vec<Qualified> = params
        .except
        .iter()
        .map(|name| Qualified::read(name))
        .collect::<Result<_, _>>()?;
    tables.retain(|table| !except.contains(&table.name));
    Ok(tables)
}

fn of_dms(name: &str) -> bool {
    name.to_lowercase().starts_with(DMS_CONTROL)
}

/// Checks all tables, [`SCANNERS`] at a time. One sentence for each change.
async fn changes(
    cx: &Context,
    params: &OracleUnchanged,
    tables: &[Table],
    scn: i64,
) -> Result<Vec<String>, ActionError> {
    let next = AtomicUsize::new(0);
    let last_reported = Mutex::new(Instant::now());
    let scanner = || async {
        let session = Session::open(cx, &params.resource).await?;
        session.allow(SCAN_LIMIT).await?;
        let mut found = Vec::new();
        loop {
            let at = next.fetch_add(1, Ordering::Relaxed);
            let Some(table) = tables.get(at) else {
                return Ok(found);
            };
            found.extend(table.changed(&session, scn).await?);
            let mut last = last_reported.lock().unwrap_or_else(PoisonError::into_inner);
            if last.elapsed() >= PROGRESS_INTERVAL {
                cx.note(format!("{} of {} tables checked", at + 1, tables.len()));
                *last = Instant::now();
            }
        }
    };
    let scanners = (0..SCANNERS.min(tables.len())).map(|_| scanner());
    let found: Result<Vec<Vec<String>>, ActionError> =
        join_all(scanners).await.into_iter().collect();
    let mut found = found?.concat();
    found.sort();
    Ok(found)
}

fn verdict(scn: i64, found: &[String]) -> Result<(), ActionError> {
    if found.is_empty() {
        return Ok(());
    }
    let what = format!(
        "Oracle was changed after SCN {scn}, or may yet be: {}",
        truncate_list(found.to_vec()).join("; ")
    );
    Err(ActionError::new(Code::LS2253, what)
        .state_left(
            "PostgreSQL was not opened; it lacks these changes, because the forward task has been \
             stopped",
        )
        .remedy(
            "roll back: the forward task then resumes and replicates them; find who wrote (SYS, a \
             script on the host, a job of SYS), stop it, and start a new run",
        ))
}

#[async_trait]
impl Action for Unchanged {
    type Params = OracleUnchanged;

    fn required_permissions(&self, params: &OracleUnchanged) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleUnchanged) -> Result<Probe, ActionError> {
        scn_of(params)?;
        let session = Session::open(cx, &params.resource).await?;
        tables(&session, params, expected(params)?).await?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &OracleUnchanged,
    ) -> Result<Description, ActionError> {
        Ok(Description::of([format!(
            "verify that nothing was committed in {} after SCN {}, except in {}",
            params.schemas.join(", "),
            params.scn,
            params.except.join(", ")
        )]))
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &OracleUnchanged,
    ) -> Result<Description, ActionError> {
        let mut foreseen = self.describe(cx, params).await?;
        let session = Session::open(cx, &params.resource).await?;
        let mut without = Vec::new();
        let tables = tables(&session, params, BTreeMap::new()).await?;
        for table in &tables {
            // Returns no row, and fails like the real query.
            let sql = format!("{} FROM {} WHERE 1 = 0", bound(), table.name.sql());
            match session.rows::<(i64, i64, Option<String>)>(&sql, &[]).await {
                Ok(_) => {}
                Err(e) if e.ora().is_some() => without.push(format!("{} ({e})", table.name.sql())),
                Err(e) => return Err(e.into()),
            }
        }
        let count = format!("{} tables, each scanned once", tables.len());
        foreseen.remarks.push(count);
        if !without.is_empty() {
            foreseen.remarks.push(format!(
                "without ORA_ROWSCN, so that only a flashback version query can tell whether they \
                 were changed: {}",
                shown(&without)
            ));
        }
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OracleUnchanged,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let scn = scn_of(params)?;
        let session = Session::open(cx, &params.resource).await?;
        let tables = tables(&session, params, expected(params)?).await?;
        let mut seen = fence::transactions(&session, &params.exempt).await?;
        seen.extend(changes(cx, params, &tables, scn).await?);
        let open = fence::transactions(&session, &params.exempt).await?;
        seen.extend(
            open.into_iter()
                .filter(|one| !seen.contains(one))
                .collect::<Vec<_>>(),
        );
        verdict(scn, &seen)?;
        cx.note(format!(
            "nothing was committed after SCN {scn} in {} tables",
            tables.len()
        ));
        Ok(Outputs::new())
    }
}
