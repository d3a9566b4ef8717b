//! `oracle.jobs.disable` and `oracle.jobs.restore`: JOB_QUEUE_PROCESSES.
//!
//! In the root of a container database, 0 applies to the jobs of every
//! container. No new job starts, but running jobs continue, so the action waits
//! for them, and stops them if the plan says so. Before the point of no return
//! the value is set in memory only: a restart of the instance must restore the
//! old one.

use super::fence::{JOBS, Job, running_jobs};
use super::parameters::{Values, shown};
use super::session_class::DbSession;
use super::{POLL_INTERVAL, names, required_permissions, saved_state, sessions};
use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, found,
    satisfied_if, with_before_image,
};
use crate::host::oracle::Session;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::{DisableOracleJobs, RestoreOracleJobs, Scope};
use serde_json::Value;
use std::time::Duration;
use tokio::time::Instant;

const KIND: &str = "jobs";

/// Stops a running job; FORCE ends its slave if an interrupt doesn't
/// (Oracle Database PL/SQL Packages Reference, DBMS_SCHEDULER.STOP_JOB).
const STOP_JOB: &str = "BEGIN DBMS_SCHEDULER.STOP_JOB(:1, TRUE); END;";
/// `ORA-27366: job … is not running`: it has ended by itself.
const NOT_RUNNING: i32 = 27366;
/// `ORA-27475: unknown job`: it has ended and was dropped.
const UNKNOWN_JOB: i32 = 27475;

/// The session of a job of DBMS_JOB. DBA_JOBS_RUNNING shows those of the own instance, with
/// the SID of the session that holds the job's lock (Oracle Database Reference).
const SESSION_OF_JOB: &str = "SELECT s.INST_ID, s.SID, s.SERIAL#, s.USERNAME, s.MACHINE, s.PROGRAM, \
     s.MODULE, s.STATUS, s.TYPE, s.SERVICE_NAME FROM DBA_JOBS_RUNNING r JOIN GV$SESSION s \
     ON s.SID = r.SID AND s.INST_ID = SYS_CONTEXT('USERENV', 'INSTANCE') WHERE r.JOB = :1";

/// Time from the request to stop a job until it must have ended.
const STOP_LIMIT: Duration = Duration::from_secs(30);

/// `oracle.jobs.disable`
pub struct Disable;

/// `oracle.jobs.restore`
pub struct Restore;

fn is_off(values: &Values, scope: Scope) -> bool {
    values.is_off_in_memory() && (scope == Scope::Memory || values.is_off_in_file())
}

/// Waits until no job runs; returns those that still do.
async fn wait(cx: &Context, session: &Session, limit: Duration) -> Result<Vec<Job>, ActionError> {
    let until = Instant::now() + limit;
    let mut last_reported = Vec::new();
    loop {
        let running = running_jobs(session).await?;
        if running.is_empty() || Instant::now() >= until {
            return Ok(running);
        }
        if running != last_reported {
            let names: Vec<String> = running.iter().map(Job::to_string).collect();
            cx.note(format!("waiting for {}", names.join(", ")));
            last_reported = running;
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

/// Ends the session in which a job of DBMS_JOB runs, for no call stops one: only since
/// release 19c it is a job of the scheduler as well, and is stopped as that (Oracle
/// Database Upgrade Guide 19c, "Support for DBMS_JOB"). The queue is off, so that it isn't
/// tried again.
async fn end(cx: &Context, session: &Session, number: i64) -> Result<(), ActionError> {
    let sessions: Vec<DbSession> = session.rows(SESSION_OF_JOB, &[number.into()]).await?;
    for seen in &sessions {
        sessions::kill(cx, session, seen).await?;
    }
    Ok(())
}

async fn stop(cx: &Context, session: &Session, job: &Job) -> Result<(), ActionError> {
    let Job::Scheduled(owner, name) = job else {
        return Ok(());
    };
    let quoted = format!("{}.{}", names::quoted(owner)?, names::quoted(name)?);
    match session.execute(STOP_JOB, &[quoted.as_str().into()]).await {
        Err(e) if matches!(e.ora(), Some(NOT_RUNNING | UNKNOWN_JOB)) => return Ok(()),
        stopped => stopped?,
    }
    cx.effect(format!("DBMS_SCHEDULER.STOP_JOB('{quoted}', TRUE)"));
    Ok(())
}

fn still_running(jobs: &[Job]) -> ActionError {
    let names: Vec<String> = jobs.iter().map(Job::to_string).collect();
    ActionError::new(
        Code::LS2231,
        format!("jobs still run: {}", names.join(", ")),
    )
    .state_left("JOB_QUEUE_PROCESSES is 0, so that no further job starts")
    .remedy("wait for them and retry, or let the plan stop running jobs (stop_running)")
}

#[async_trait]
impl Action for Disable {
    type Params = DisableOracleJobs;

    fn required_permissions(&self, params: &DisableOracleJobs) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &DisableOracleJobs) -> Result<Probe, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let values = JOBS.values(&session).await?;
        let so = is_off(&values, params.scope) && running_jobs(&session).await?.is_empty();
        with_before_image(satisfied_if(so), &values)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DisableOracleJobs,
    ) -> Result<Description, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let values = JOBS.values(&session).await?;
        let mut description = Description::of([JOBS.off_in_memory()]);
        if params.scope == Scope::Both {
            description.would_do.extend(JOBS.off_in_file(&values));
        }
        description.would_do.push(format!(
            "wait {} s for running jobs{}",
            params.wait_secs,
            if params.stop_running {
                ", then DBMS_SCHEDULER.STOP_JOB, or ALTER SYSTEM KILL SESSION for those of DBMS_JOB"
            } else {
                ", then fail"
            }
        ));
        description.remarks.push(shown(JOBS, &values));
        for job in running_jobs(&session).await? {
            description.remarks.push(format!("{job} is running now"));
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DisableOracleJobs,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let session = Session::open(cx, &params.resource).await?;
        let values = JOBS.values(&session).await?;
        saved_state::save(cx, &params.resource, KIND, &values)?;
        let mut statements = vec![JOBS.off_in_memory()];
        if params.scope == Scope::Both {
            statements.extend(JOBS.off_in_file(&values));
        }
        for statement in statements {
            session.execute(&statement, &[]).await?;
            cx.effect(statement);
        }
        let running = wait(cx, &session, Duration::from_secs(params.wait_secs)).await?;
        if running.is_empty() {
            return Ok(Outputs::new());
        }
        if !params.stop_running {
            return Err(still_running(&running));
        }
        for job in &running {
            stop(cx, &session, job).await?;
        }
        for job in running_jobs(&session).await? {
            if let Job::Numbered(number) = job {
                end(cx, &session, number).await?;
            }
        }
        let left = wait(cx, &session, STOP_LIMIT).await?;
        if left.is_empty() {
            Ok(Outputs::new())
        } else {
            Err(still_running(&left))
        }
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &DisableOracleJobs,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Values = decode_before_image(before_image)?;
        let session = Session::open(cx, &params.resource).await?;
        let file = params.scope == Scope::Both;
        let undone = JOBS.restore(cx, &session, &before, file).await?;
        saved_state::done::<Values>(cx, &params.resource, KIND, &undone)?;
        Ok(undone)
    }
}

#[async_trait]
impl Action for Restore {
    type Params = RestoreOracleJobs;

    fn required_permissions(&self, params: &RestoreOracleJobs) -> Vec<Permission> {
        required_permissions(&params.resource)
    }

    async fn probe(&self, cx: &Context, params: &RestoreOracleJobs) -> Result<Probe, ActionError> {
        let before: Values = saved_state::recall_first(cx, &params.resource, KIND)?;
        let session = Session::open(cx, &params.resource).await?;
        let so = JOBS.values(&session).await? == before;
        Ok(found(satisfied_if(so)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &RestoreOracleJobs,
    ) -> Result<Description, ActionError> {
        let before: Values = saved_state::recall_first(cx, &params.resource, KIND)?;
        Ok(Description::of([format!(
            "ALTER SYSTEM until {}",
            shown(JOBS, &before)
        )]))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &RestoreOracleJobs,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let before: Values = saved_state::recall_first(cx, &params.resource, KIND)?;
        let session = Session::open(cx, &params.resource).await?;
        // The freeze may have been written to the server parameter file since.
        super::parameters::restore(cx, &session, JOBS, &before).await?;
        saved_state::forget(cx, &params.resource, KIND)?;
        Ok(Outputs::new())
    }
}
