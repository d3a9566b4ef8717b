//! `postgres.jobs.disable`, `postgres.jobs.restore`: pg_cron and pgAgent.
//!
//! A job that fires inside the outage writes to PostgreSQL behind a closed
//! door. Only jobs that are scheduled in the resource's own database are
//! seen; where pg_cron lives in another one, that is a resource of its own.

use super::listed;
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, captured, found, recalled,
};
use crate::host::kept::Kept;
use crate::host::postgres::Session;
use crate::policy::Need;
use async_trait::async_trait;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::PostgresJobs;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};

/// Switches active jobs off.
pub struct Disable;

/// Switches on what `disable` has switched off.
pub struct Restore;

/// Whether each job is active: the capture of `disable`.
type Jobs = BTreeMap<String, bool>;

/// The name under which `disable` keeps what it has switched off.
const KEPT: &str = "postgres-jobs";

/// The two schedulers, as far as they are installed.
struct Schedulers {
    cron: bool,
    /// `cron.alter_job` is there; a job's owner may call it, while the table
    /// itself belongs to the extension.
    alter_job: bool,
    agent: bool,
}

impl Schedulers {
    async fn find(session: &Session) -> Result<Self, ActionError> {
        let sql = "SELECT to_regclass('cron.job') IS NOT NULL, \
                   EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
                     WHERE n.nspname = 'cron' AND p.proname = 'alter_job'), \
                   to_regclass('pgagent.pga_job') IS NOT NULL";
        let row = session.row(sql, &[]).await?;
        let found = Self {
            cron: row.get(0),
            alter_job: row.get(1),
            agent: row.get(2),
        };
        if found.cron {
            found.sees_all(session).await?;
        }
        Ok(found)
    }

    /// pg_cron shows a role only its own jobs unless it bypasses row
    /// security.
    async fn sees_all(&self, session: &Session) -> Result<(), ActionError> {
        let row = session
            .row(
                "SELECT row_security_active('cron.job'), current_user::text",
                &[],
            )
            .await?;
        let (blind, me): (bool, String) = (row.get(0), row.get(1));
        if !blind {
            return Ok(());
        }
        Err(ActionError::new(
            "LS2334",
            format!("pg_cron shows {me} only its own jobs"),
        )
        .left("nothing was changed")
        .next(format!(
            "let {me} bypass row security (ALTER ROLE {me} BYPASSRLS, or rds_superuser on Amazon \
             RDS), then retry"
        )))
    }

    async fn jobs(&self, session: &Session) -> Result<Jobs, ActionError> {
        let mut jobs = Jobs::new();
        let mut ask = Vec::new();
        if self.cron {
            ask.push("SELECT 'pg_cron/' || jobid, active FROM cron.job");
        }
        if self.agent {
            ask.push("SELECT 'pgagent/' || jobid, jobenabled FROM pgagent.pga_job");
        }
        for sql in ask {
            let rows = session.rows(sql, &[]).await?;
            jobs.extend(rows.iter().map(|row| (row.get(0), row.get(1))));
        }
        Ok(jobs)
    }

    fn set(&self, job: &str, active: bool) -> String {
        match job.split_once('/') {
            Some(("pg_cron", id)) if self.alter_job => {
                format!("SELECT cron.alter_job({id}, active := {active})")
            }
            Some(("pg_cron", id)) => {
                format!("UPDATE cron.job SET active = {active} WHERE jobid = {id}")
            }
            Some((_, id)) => {
                format!("UPDATE pgagent.pga_job SET jobenabled = {active} WHERE jobid = {id}")
            }
            // Keys are made in `jobs`, each with a slash.
            None => String::from("SELECT 1"),
        }
    }

    /// Switches jobs, all or none, and looks whether it took.
    async fn switch(
        &self,
        session: &Session,
        jobs: &[&String],
        active: bool,
    ) -> Result<(), ActionError> {
        let statements: Vec<String> = jobs.iter().map(|job| self.set(job, active)).collect();
        session.transaction(&statements).await?;
        let now = self.jobs(session).await?;
        let unchanged: Vec<&String> = jobs
            .iter()
            .copied()
            .filter(|job| now.get(*job).is_some_and(|is| *is != active))
            .collect();
        if unchanged.is_empty() {
            return Ok(());
        }
        Err(ActionError::new(
            "LS2335",
            format!("these jobs did not take the change: {}", listed(&unchanged)),
        )
        .left("the others did")
        .next("see what the agent's role may do with them, then retry"))
    }
}

#[async_trait]
impl Action for Disable {
    type Params = PostgresJobs;

    fn needs(&self, params: &PostgresJobs) -> Vec<Need> {
        vec![Need::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresJobs) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let jobs = Schedulers::find(&session).await?.jobs(&session).await?;
        let off = jobs.values().all(|active| !active);
        captured(if off { Finding::Already } else { Finding::Todo }, &jobs)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &PostgresJobs,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let schedulers = Schedulers::find(&session).await?;
        let jobs = schedulers.jobs(&session).await?;
        let mut description = Description::of(
            jobs.iter()
                .filter(|(_, active)| **active)
                .map(|(job, _)| schedulers.set(job, false)),
        );
        if !schedulers.cron && !schedulers.agent {
            description.remarks.push(format!(
                "neither pg_cron nor pgAgent in {}; pg_cron may live in another database of the \
                 server",
                session.server()
            ));
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresJobs,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let schedulers = Schedulers::find(&session).await?;
        let jobs = schedulers.jobs(&session).await?;
        let active: Vec<&String> = jobs.iter().filter(|(_, a)| **a).map(|(j, _)| j).collect();
        // Kept before the change, so that a crash in between forgets nothing.
        let kept = Kept::of(cx, KEPT, &params.resource);
        let mut off: BTreeSet<String> = kept.read()?.unwrap_or_default();
        off.extend(active.iter().map(|job| (*job).clone()));
        kept.write(&off)?;
        schedulers.switch(&session, &active, false).await?;
        cx.note(format!("jobs switched off: {}", listed(&active)));
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &PostgresJobs,
        capture: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Jobs = recalled(capture)?;
        let session = Session::open(cx, &params.resource).await?;
        let schedulers = Schedulers::find(&session).await?;
        let now = schedulers.jobs(&session).await?;
        let foreign: Vec<&String> = now
            .iter()
            .filter(|(job, active)| **active && before.get(*job) != Some(&true))
            .map(|(job, _)| job)
            .collect();
        if !foreign.is_empty() {
            return Ok(Undone::Drifted(format!(
                "somebody else has switched on {}; no job was changed",
                listed(&foreign)
            )));
        }
        let off: Vec<&String> = now
            .iter()
            .filter(|(job, active)| !**active && before.get(*job) == Some(&true))
            .map(|(job, _)| job)
            .collect();
        schedulers.switch(&session, &off, true).await?;
        Kept::of(cx, KEPT, &params.resource).forget()?;
        Ok(if off.is_empty() {
            Undone::Nothing
        } else {
            Undone::Restored
        })
    }
}

/// Jobs that `disable` has switched off and that still are.
async fn still_off(
    cx: &Context,
    session: &Session,
    params: &PostgresJobs,
) -> Result<(Schedulers, Vec<String>), ActionError> {
    let kept: Option<BTreeSet<String>> = Kept::of(cx, KEPT, &params.resource).read()?;
    let schedulers = Schedulers::find(session).await?;
    let now = schedulers.jobs(session).await?;
    let off = kept
        .unwrap_or_default()
        .into_iter()
        .filter(|job| now.get(job) == Some(&false))
        .collect();
    Ok((schedulers, off))
}

#[async_trait]
impl Action for Restore {
    type Params = PostgresJobs;

    fn needs(&self, params: &PostgresJobs) -> Vec<Need> {
        vec![Need::Postgres(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &PostgresJobs) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let (_, off) = still_off(cx, &session, params).await?;
        Ok(found(if off.is_empty() {
            Finding::Already
        } else {
            Finding::Todo
        }))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &PostgresJobs,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let (schedulers, off) = still_off(cx, &session, params).await?;
        Ok(Description::of(
            off.iter().map(|job| schedulers.set(job, true)),
        ))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &PostgresJobs,
        _capture: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let (schedulers, off) = still_off(cx, &session, params).await?;
        let off: Vec<&String> = off.iter().collect();
        schedulers.switch(&session, &off, true).await?;
        Kept::of(cx, KEPT, &params.resource).forget()?;
        cx.note(format!("jobs switched on: {}", listed(&off)));
        Ok(Outputs::new())
    }
}
