//! The marker row, whose arrival in PostgreSQL shows how far the replication has
//! come; and `oracle.marker.write`, which tries its path before the outage.
//!
//! The rows stay: the forward tasks map their table, so a deletion would be
//! replicated too; and every nonce is used once, so an old row can't be taken for
//! a later one.

use super::names::Qualified;
use super::required_permissions;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::oracle::{Bind, Session};
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::OracleMarker;
use serde_json::{Value, json};

pub(super) const CURRENT_SCN: &str = "SELECT TO_CHAR(CURRENT_SCN) FROM V$DATABASE";
/// Unlike SWITCH LOGFILE, it covers every thread and returns only when the logs
/// are archived.
pub(super) const ARCHIVE: &str = "ALTER SYSTEM ARCHIVE LOG CURRENT";
const TABLE_EXISTS: &str = "SELECT COUNT(*) FROM DBA_TABLES WHERE OWNER = :1 AND TABLE_NAME = :2";

pub struct Write;

pub(super) fn insert(table: &Qualified) -> String {
    format!(
        "INSERT INTO {} (RUN_ID, TASK_ID, NONCE, SCN, WRITTEN_AT) \
         VALUES (:1, :2, :3, TO_NUMBER(:4), SYSDATE)",
        table.sql()
    )
}

/// Fails where the marker table doesn't exist.
pub(super) async fn table_exists(session: &Session, table: &Qualified) -> Result<(), ActionError> {
    let binds = [table.owner.as_str().into(), table.name.as_str().into()];
    let tables: i64 = session.row(TABLE_EXISTS, &binds).await?;
    if tables > 0 {
        return Ok(());
    }
    let what = format!(
        "the marker table {}.{} doesn't exist",
        table.owner, table.name
    );
    Err(ActionError::new(Code::LS2222, what)
        .state_left("nothing was done")
        .remedy("create it, map it in the forward task and log it supplementally"))
}

/// A nonce that is used once. Those of a trial are recognisable, also to somebody
/// who later asks the table for the SCN of the fence.
pub(super) fn nonce(trial: bool) -> String {
    let prefix = if trial { "trial-" } else { "" };
    format!("{prefix}{}", uuid::Uuid::new_v4())
}

/// Commits one marker row per replication task.
pub(super) async fn mark(
    cx: &Context,
    session: &Session,
    table: &Qualified,
    tasks: &[String],
    (nonce, scn): (&str, &str),
) -> Result<(), ActionError> {
    let insert = insert(table);
    let rows = tasks.iter().map(|task| {
        let binds = [cx.tag.run.as_str(), task.as_str(), nonce, scn];
        (insert.clone(), binds.map(Bind::from).to_vec())
    });
    let written = session.transaction(rows.collect()).await?;
    cx.effect(format!(
        "{written} marker rows with nonce {nonce} committed"
    ));
    Ok(())
}

#[async_trait]
impl Action for Write {
    type Params = OracleMarker;

    fn required_permissions(&self, params: &OracleMarker) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &OracleMarker) -> Result<Probe, ActionError> {
        let table = Qualified::read(&params.marker_table)?;
        let session = Session::open(cx, &params.resource).await?;
        table_exists(&session, &table).await?;
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &OracleMarker,
    ) -> Result<Description, ActionError> {
        let table = Qualified::read(&params.marker_table)?;
        let inserts = params
            .tasks
            .iter()
            .map(|task| format!("{} for {task}", insert(&table)));
        let ends = ["COMMIT".to_owned(), ARCHIVE.to_owned()];
        Ok(Description::of(inserts.chain(ends)))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &OracleMarker,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let table = Qualified::read(&params.marker_table)?;
        let session = Session::open(cx, &params.resource).await?;
        let scn: String = session.row(CURRENT_SCN, &[]).await?;
        let nonce = nonce(true);
        mark(cx, &session, &table, &params.tasks, (&nonce, &scn)).await?;
        // A task that reads only archived logs sees the marker after the switch.
        session.execute(ARCHIVE, &[]).await?;
        cx.effect(ARCHIVE);
        Ok(Outputs::from([
            ("scn".to_owned(), json!(scn)),
            ("nonce".to_owned(), json!(nonce)),
        ]))
    }
}
