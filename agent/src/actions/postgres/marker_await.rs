//! `postgres.marker.await`: every marker has arrived and nothing is pending,
//! suspended or excepted.
//!
//! The marker was committed after the last change of any application, so where
//! commit order is preserved, its arrival proves that theirs have arrived.
//! Where it may not be (batch apply), the counters must agree as well. Nothing
//! is changed: the markers stay, as part of the proof.

use super::{Table, control, listed};
use crate::action::{Action, ActionError, Context, Description, Outputs, found, satisfied_if};
use crate::host::postgres::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::PostgresMarker;
use serde_json::Value;
use std::collections::BTreeSet;
use std::time::Duration;
use tokio::time::Instant;

pub struct Await;

/// Interval between two checks: short against the outage, long against the
/// query.
const POLL: Duration = Duration::from_millis(100);

/// Interval between two progress lines of a wait.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(5);

/// What is still awaited.
#[derive(Debug, PartialEq, Eq)]
enum Awaited {
    Nothing,
    Markers(Vec<String>),
    Pending(i64),
}

impl Awaited {
    fn progress(&self) -> String {
        match self {
            Self::Nothing => "everything has arrived".to_owned(),
            Self::Markers(tasks) => format!("no marker yet of {}", listed(tasks)),
            Self::Pending(changes) => format!("{changes} changes are pending at DMS"),
        }
    }
}

async fn look(session: &Session, params: &PostgresMarker) -> Result<Awaited, ActionError> {
    let before = control::exceptions_before(&params.apply_exceptions)?;
    let unharmed = || control::unharmed(session, &params.control_schema, before);
    // A wait that can't succeed ends at once.
    unharmed().await?;
    let awaited = awaited(session, params).await?;
    // A change may fail after the check above and before the marker arrives:
    // what preceded the markers is known only once they have arrived.
    if awaited == Awaited::Nothing {
        unharmed().await?;
    }
    Ok(awaited)
}

async fn awaited(session: &Session, params: &PostgresMarker) -> Result<Awaited, ActionError> {
    let table = Table::parse(&params.marker_table)?;
    let sql = format!(
        "SELECT task_id::text, scn::numeric = $2::text::numeric FROM {} WHERE nonce = $1",
        table.sql()
    );
    let rows = session.rows(&sql, &[&params.nonce, &params.scn]).await?;
    let mut arrived = BTreeSet::new();
    for row in &rows {
        let (task, same): (String, Option<bool>) = (row.get(0), row.get(1));
        if same != Some(true) {
            return Err(ActionError::new(
                Code::LS2316,
                format!(
                    "the marker of {task} carries another SCN than {}",
                    params.scn
                ),
            )
            .state_left("nothing was changed; the proof does not hold")
            .remedy("see who writes to the marker table, then retry from oracle.finalize"));
        }
        arrived.insert(task);
    }
    let missing: Vec<String> = params
        .tasks
        .iter()
        .filter(|task| !arrived.contains(*task))
        .cloned()
        .collect();
    if !missing.is_empty() {
        return Ok(Awaited::Markers(missing));
    }
    if params.trial {
        return Ok(Awaited::Nothing);
    }
    let pending = control::pending(session, &params.control_schema).await?;
    Ok(if pending == 0 {
        Awaited::Nothing
    } else {
        Awaited::Pending(pending)
    })
}

#[async_trait]
impl Action for Await {
    type Params = PostgresMarker;

    fn required_permissions(&self, params: &PostgresMarker) -> Vec<Permission> {
        vec![Permission::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresMarker) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let awaited = look(&session, params).await?;
        Ok(found(satisfied_if(awaited == Awaited::Nothing)))
    }

    async fn describe(
        &self,
        _cx: &Context,
        params: &PostgresMarker,
    ) -> Result<Description, ActionError> {
        Ok(Description::of([format!(
            "wait in {} for the marker {} of {}, then query DMS's control tables",
            params.marker_table,
            params.nonce,
            listed(&params.tasks)
        )]))
    }

    async fn describe_unresolved(
        &self,
        cx: &Context,
        params: &PostgresMarker,
    ) -> Result<Description, ActionError> {
        let mut foreseen = self.describe(cx, params).await?;
        let table = Table::parse(&params.marker_table)?;
        let session = Session::open(cx, &params.resource).await?;
        let sql = format!(
            "SELECT task_id::text, scn::numeric, nonce::text FROM {} LIMIT 0",
            table.sql()
        );
        foreseen.obstacle(session.rows(&sql, &[]).await);
        foreseen.obstacle(control::pending(&session, &params.control_schema).await);
        Ok(foreseen)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresMarker,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let begun = Instant::now();
        let limit = Duration::from_secs(params.timeout_secs);
        let mut report_at = begun + PROGRESS_INTERVAL;
        loop {
            let awaited = look(&session, params).await?;
            if awaited == Awaited::Nothing {
                cx.note(format!(
                    "every marker has arrived after {} ms",
                    begun.elapsed().as_millis()
                ));
                return Ok(Outputs::new());
            }
            if begun.elapsed() >= limit {
                let state = if params.trial {
                    "applications still run on Oracle; nothing was changed"
                } else {
                    "Oracle is closed, PostgreSQL as it was"
                };
                return Err(ActionError::new(
                    Code::LS2318,
                    format!("{} after {} s", awaited.progress(), limit.as_secs()),
                )
                .state_left(state)
                .remedy(
                    "see the task's state, its latency and its log, then retry for more time or \
                     roll back",
                ));
            }
            if Instant::now() >= report_at {
                cx.note(awaited.progress());
                report_at += PROGRESS_INTERVAL;
            }
            session.pause(POLL).await?;
        }
    }
}
