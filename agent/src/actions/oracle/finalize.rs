//! `oracle.finalize`: the final position of the replication, marked by a row.
//!
//! The fence is verified over its window, and only then is CURRENT_SCN read: a
//! position read before writes have stopped loses the writes in between
//! (vitessio/vitess#16563). Then one marker row per replication task is
//! committed, and the log is switched: a replicator that only reads archived logs
//! would never see a marker written after the switch. At the end the fence is
//! verified again; a breach invalidates the proof.
//!
//! Undo does nothing: the marker rows stay.

use super::fence::{self, Job, Logins};
use super::listeners::Listeners;
use super::marker::{self, ARCHIVE, CURRENT_SCN};
use super::names::Qualified;
use super::{required_permissions, schemas};
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::oracle::{Bind, Session};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::OracleFinalize;
use serde_json::{Map, Value, json};
use std::time::Duration;

const CHECKPOINT: &str = "ALTER SYSTEM CHECKPOINT";
/// In-doubt distributed transactions can still commit.
const IN_DOUBT: &str = "SELECT COUNT(*) FROM DBA_2PC_PENDING";
/// Jobs of the scheduler that start within the given seconds.
const DUE: &str = "SELECT OWNER, JOB_NAME FROM DBA_SCHEDULER_JOBS \
     WHERE ENABLED = 'TRUE' AND NEXT_RUN_DATE <= SYSTIMESTAMP + NUMTODSINTERVAL(:1, 'SECOND')";
/// Jobs of DBMS_JOB that start within the given seconds; a broken job never
/// runs (Oracle Database Reference, ALL_JOBS).
const OLD_DUE: &str = "SELECT JOB FROM DBA_JOBS \
     WHERE BROKEN = 'N' AND NEXT_DATE <= SYSDATE + :1 / 86400";
const SEQUENCES: &str = "SELECT SEQUENCE_NAME, TO_CHAR(LAST_NUMBER), TO_CHAR(INCREMENT_BY), \
     CYCLE_FLAG FROM DBA_SEQUENCES WHERE SEQUENCE_OWNER = :1 ORDER BY SEQUENCE_NAME";

pub struct Finalize;

#[async_trait]
impl Action for Finalize {
    type Params = OracleFinalize;

    fn required_permissions(&self, params: &OracleFinalize) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleFinalize) -> Result<Probe, ActionError> {
        let table = Qualified::read(&params.marker_table)?;
        let session = Session::open(cx, &params.resource).await?;
        marker::table_exists(&session, &table).await?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &OracleFinalize,
    ) -> Result<Description, ActionError> {
        let table = Qualified::read(&params.marker_table)?;
        let mut would_do = vec![
            format!("verify the fence for {} s", params.fence.window_secs),
            CHECKPOINT.to_owned(),
            CURRENT_SCN.to_owned(),
        ];
        would_do.extend(
            params
                .tasks
                .iter()
                .map(|task| format!("{} for {task}", marker::insert(&table))),
        );
        would_do.push("COMMIT".to_owned());
        would_do.push(ARCHIVE.to_owned());
        would_do.push("verify the fence again".to_owned());
        Ok(Description::of(would_do))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OracleFinalize,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let listeners = Listeners::of(cx, &params.resource).await?;
        let since = closed(cx, &session, &listeners, params).await?;
        // A checkpoint of a large cache and the archiving of large logs take
        // minutes; the task's own limit ends them.
        session
            .allow(Duration::from_secs(params.timeout_secs))
            .await?;
        session.execute(CHECKPOINT, &[]).await?;
        cx.effect(CHECKPOINT);
        let scn: String = session.row(CURRENT_SCN, &[]).await?;
        cx.note(format!("CURRENT_SCN is {scn}"));
        let table = Qualified::read(&params.marker_table)?;
        let nonce = marker::nonce(false);
        marker::mark(cx, &session, &table, &params.tasks, (&nonce, &scn)).await?;
        session.execute(ARCHIVE, &[]).await?;
        cx.effect(ARCHIVE);
        fence::verify(cx, &session, &listeners, &params.fence, &since)
            .await
            .map_err(voided)?;
        let sequences = sequences(&session, &params.schemas).await?;
        Ok(Outputs::from([
            ("scn".to_owned(), json!(scn)),
            ("nonce".to_owned(), json!(nonce)),
            ("sequences".to_owned(), sequences),
        ]))
    }
}

/// Verifies the fence over its window, and that nothing can still write without
/// a session.
async fn closed(
    cx: &Context,
    session: &Session,
    listeners: &Listeners,
    params: &OracleFinalize,
) -> Result<Logins, ActionError> {
    let since = fence::hold(cx, session, listeners, &params.fence).await?;
    cx.note(format!(
        "the fence has held for {} s",
        params.fence.window_secs
    ));
    let mut breaches = Vec::new();
    let in_doubt: i64 = session.row(IN_DOUBT, &[]).await?;
    if in_doubt > 0 {
        breaches.push(format!("{in_doubt} distributed transactions are in doubt"));
    }
    if !params.fence.jobs_off {
        let due = due(session, params.fence.window_secs).await?;
        breaches.extend(due.iter().map(|job| format!("the job {job} is due")));
        let running = fence::running_jobs(session).await?;
        breaches.extend(
            running
                .iter()
                .map(|job| format!("the job {job} is running")),
        );
    }
    if breaches.is_empty() {
        Ok(since)
    } else {
        Err(fence::broken(&breaches))
    }
}

/// Jobs that may start while the marker is being replicated.
async fn due(session: &Session, window_secs: u64) -> Result<Vec<Job>, ActionError> {
    let window = [Bind::Integer(window_secs.try_into().unwrap_or(i64::MAX))];
    let scheduled: Vec<(String, String)> = session.rows(DUE, &window).await?;
    let numbered: Vec<i64> = session.rows(OLD_DUE, &window).await?;
    let scheduled = scheduled
        .into_iter()
        .map(|(owner, name)| Job::Scheduled(owner, name));
    Ok(scheduled
        .chain(numbered.into_iter().map(Job::Numbered))
        .collect())
}

fn voided(error: ActionError) -> ActionError {
    if error.code() != Code::LS2250 {
        return error;
    }
    ActionError::new(
        Code::LS2251,
        "the fence was broken while the marker was written",
    )
    .state_left("the marker and its SCN prove nothing; rows may have been committed after them")
    .remedy("close what is named, then retry: a new SCN and a new marker are taken")
    .source(error)
}

/// Maps `OWNER.SEQUENCE` to {last_number, increment_by, cycle}. LAST_NUMBER is
/// beyond every value that any instance has cached. Numbers are strings because
/// they go up to 10^28.
async fn sequences(session: &Session, schemas: &[String]) -> Result<Value, ActionError> {
    schemas::require(session, schemas.iter().map(String::as_str)).await?;
    let mut all = Map::new();
    for owner in schemas {
        type Sequence = (String, String, String, String);
        let found: Vec<Sequence> = session.rows(SEQUENCES, &[owner.as_str().into()]).await?;
        for (name, last_number, increment_by, cycle) in found {
            let sequence = json!({
                "last_number": last_number,
                "increment_by": increment_by,
                "cycle": cycle == "Y",
            });
            all.insert(format!("{owner}.{name}"), sequence);
        }
    }
    Ok(Value::Object(all))
}
