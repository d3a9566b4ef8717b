//! pg_cron and pgAgent: their jobs, and how they are switched on and off.
//!
//! pg_cron stores the jobs of all databases in one, `cron.database_name`, and
//! `cron.schedule_in_database` runs them in any (pg_cron, README). Where that
//! is another database than the resource's, the agent reads that one too.

use super::listed;
use crate::action::{ActionError, Context};
use crate::host::postgres::{Session, quoted};
use lockstep_api::Code;
use std::collections::BTreeMap;
use std::time::Duration;

/// Whether each job is active.
pub type Jobs = BTreeMap<String, bool>;

/// Before the id of a job of pg_cron.
const CRON: &str = "pg_cron/";

/// How often running jobs are read. pg_cron connects within milliseconds of a job's time.
const POLL: Duration = Duration::from_secs(1);

/// The schedulers that are installed.
pub struct Schedulers {
    own: Session,
    database: String,
    /// A session with pg_cron's database, if that is another one.
    elsewhere: Option<Session>,
    cron: bool,
    /// `cron.alter_job` exists; a job's owner may call it, while the table
    /// itself belongs to the extension.
    alter_job: bool,
    agent: bool,
}

impl Schedulers {
    /// Finds the schedulers that run jobs in the resource's database.
    ///
    /// # Errors
    /// LS2334 where pg_cron hides jobs, LS2336 where its database is closed
    /// to the agent.
    pub async fn find(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        let own = Session::open(cx, resource).await?;
        let sql = "SELECT current_database()::text, current_setting('cron.database_name', true), \
                   to_regclass('pgagent.pga_job') IS NOT NULL";
        let row = own.row(sql, &[]).await?;
        let (database, home): (String, Option<String>) = (row.get(0), row.get(1));
        let elsewhere = match home {
            Some(home) if !home.is_empty() && home != database => {
                Some(open_home(cx, resource, &home).await?)
            }
            _ => None,
        };
        let mut found = Self {
            own,
            database,
            elsewhere,
            cron: false,
            alter_job: false,
            agent: row.get(2),
        };
        let sql = "SELECT to_regclass('cron.job') IS NOT NULL, \
                   EXISTS (SELECT FROM pg_proc p JOIN pg_namespace n ON n.oid = p.pronamespace \
                     WHERE n.nspname = 'cron' AND p.proname = 'alter_job')";
        let row = found.home().row(sql, &[]).await?;
        (found.cron, found.alter_job) = (row.get(0), row.get(1));
        if found.cron {
            found.sees_all().await?;
        }
        Ok(found)
    }

    /// The session with pg_cron's database.
    fn home(&self) -> &Session {
        self.elsewhere.as_ref().unwrap_or(&self.own)
    }

    /// pg_cron shows a role only its own jobs unless it bypasses row
    /// security.
    async fn sees_all(&self) -> Result<(), ActionError> {
        let sql = "SELECT row_security_active('cron.job'), current_user::text";
        let row = self.home().row(sql, &[]).await?;
        let (blind, me): (bool, String) = (row.get(0), row.get(1));
        if !blind {
            return Ok(());
        }
        Err(ActionError::new(
            Code::LS2334,
            format!(
                "pg_cron in {} shows {me} only its own jobs",
                self.home().server()
            ),
        )
        .state_left("nothing was changed")
        .remedy(format!(
            "let {me} bypass row security (ALTER ROLE {me} BYPASSRLS, or rds_superuser on Amazon \
             RDS), then retry"
        )))
    }

    /// The jobs that run in the resource's database. Of pgAgent these are all
    /// that it stores there.
    ///
    /// # Errors
    /// Where PostgreSQL returns an error.
    pub async fn jobs(&self) -> Result<Jobs, ActionError> {
        let mut jobs = Jobs::new();
        if self.cron {
            let sql = "SELECT $1::text || jobid, active FROM cron.job WHERE database = $2";
            let rows = self.home().rows(sql, &[&CRON, &self.database]).await?;
            jobs.extend(rows.iter().map(|row| (row.get(0), row.get(1))));
        }
        if self.agent {
            let sql = "SELECT 'pgagent/' || jobid, jobenabled FROM pgagent.pga_job";
            let rows = self.own.rows(sql, &[]).await?;
            jobs.extend(rows.iter().map(|row| (row.get(0), row.get(1))));
        }
        Ok(jobs)
    }

    /// Jobs that run in the resource's database now, each with its session. Switching a
    /// job off doesn't end its current run.
    ///
    /// pg_cron connects as the job's user with the application name `pg_cron`; with
    /// `cron.use_background_workers` its workers have that backend type instead. Which job
    /// it is, is in `cron.job_run_details` unless `cron.log_run` is off. A job of pgAgent
    /// that runs has the backend of its agent in `jobagentid`, which a crash leaves there
    /// (pgAgent, job.cpp and pgAgent.cpp).
    ///
    /// # Errors
    /// Where PostgreSQL returns an error.
    pub async fn running(&self) -> Result<Vec<String>, ActionError> {
        let mut running = Vec::new();
        let readable = "SELECT coalesce(has_table_privilege(to_regclass('cron.job_run_details'), \
                        'SELECT'), false)";
        let details = match self.home().row(readable, &[]).await?.get(0) {
            true => {
                "SELECT jobid, job_pid FROM cron.job_run_details \
                 WHERE status NOT IN ('succeeded', 'failed')"
            }
            false => "SELECT NULL::bigint AS jobid, NULL::integer AS job_pid LIMIT 0",
        };
        let sql = format!(
            "SELECT DISTINCT coalesce($1::text || d.jobid, 'a job of pg_cron'), a.pid, \
               coalesce(a.usename::text, '?') \
             FROM pg_stat_activity a LEFT JOIN ({details}) d ON d.job_pid = a.pid \
             WHERE a.datname = $2 AND (d.jobid IS NOT NULL OR a.application_name = 'pg_cron' \
               OR a.backend_type = 'pg_cron') ORDER BY 2"
        );
        let rows = self.home().rows(&sql, &[&CRON, &self.database]).await?;
        running.extend(rows.iter().map(|row| {
            let (job, pid, user): (String, i32, String) = (row.get(0), row.get(1), row.get(2));
            format!("{job} (session {pid} of {user})")
        }));
        if self.agent {
            let sql = "SELECT 'pgagent/' || j.jobid, j.jobagentid FROM pgagent.pga_job j \
                       JOIN pg_stat_activity a ON a.pid = j.jobagentid ORDER BY j.jobid";
            let rows = self.own.rows(sql, &[]).await?;
            running.extend(rows.iter().map(|row| {
                let (job, pid): (String, i32) = (row.get(0), row.get(1));
                format!("{job} (session {pid} of its agent)")
            }));
        }
        Ok(running)
    }

    /// Waits until no job runs, as long as the task may. A run that is about to connect has
    /// no session yet, so two readings in a row must find none.
    ///
    /// # Errors
    /// LS2341 where jobs still run when the task's time is up.
    pub async fn wait(&self, cx: &Context) -> Result<(), ActionError> {
        let (mut last, mut quiet) = (Vec::new(), 0);
        loop {
            let running = self.running().await?;
            quiet = if running.is_empty() { quiet + 1 } else { 0 };
            if quiet == 2 {
                return Ok(());
            }
            if running != last && !running.is_empty() {
                cx.note(format!("waiting for {}", running.join(", ")));
            }
            last = running;
            tokio::select! {
                () = tokio::time::sleep(POLL) => {}
                () = cx.cancel.cancelled() => return Err(still_running(&last)),
            }
        }
    }

    /// The statement that switches a job.
    pub fn set(&self, job: &str, active: bool) -> String {
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

    /// Switches jobs and checks the result: all or none in one database. Where
    /// there are two, a failure in the second leaves the first switched, and a
    /// retry does the rest.
    ///
    /// # Errors
    /// LS2335 where a job has not taken the change.
    pub async fn switch(&self, jobs: &[&String], active: bool) -> Result<(), ActionError> {
        let statements = |jobs: &[&String]| -> Vec<String> {
            jobs.iter().map(|job| self.set(job, active)).collect()
        };
        match &self.elsewhere {
            None => self.own.transaction(&statements(jobs)).await?,
            Some(home) => {
                let (cron, agent): (Vec<&String>, Vec<&String>) =
                    jobs.iter().copied().partition(|job| job.starts_with(CRON));
                home.transaction(&statements(&cron)).await?;
                self.own.transaction(&statements(&agent)).await?;
            }
        }
        let now = self.jobs().await?;
        let unchanged: Vec<&String> = jobs
            .iter()
            .copied()
            .filter(|job| now.get(*job).is_some_and(|is| *is != active))
            .collect();
        if unchanged.is_empty() {
            return Ok(());
        }
        Err(ActionError::new(
            Code::LS2335,
            format!("these jobs did not take the change: {}", listed(&unchanged)),
        )
        .state_left("the others did")
        .remedy("see what the agent's role may do with them, then retry"))
    }

    /// Remarks on what can't be checked from this host.
    pub fn remark(&self) -> Option<String> {
        (!self.cron && !self.agent).then(|| {
            format!(
                "neither pg_cron nor pgAgent runs jobs in {}; a pgAgent that lives in another \
                 database is not seen",
                self.own.server()
            )
        })
    }
}

fn still_running(jobs: &[String]) -> ActionError {
    let what = match jobs {
        [] => "the time was up before it was certain that no job runs".to_owned(),
        jobs => format!("jobs still run: {}", jobs.join(", ")),
    };
    ActionError::new(Code::LS2341, what)
        .state_left("the jobs are disabled, so that none starts again")
        .remedy(
            "wait until they have ended, or end their sessions with pg_terminate_backend, then \
             retry",
        )
}

/// Jobs that the agent can't see would run, so that is an error.
async fn open_home(cx: &Context, resource: &str, home: &str) -> Result<Session, ActionError> {
    let refused = |e: ActionError| {
        if e.code() != Code::LS2301 {
            return e;
        }
        ActionError::new(
            Code::LS2336,
            format!("pg_cron lives in the database {home}, where the agent can't log in"),
        )
        .state_left("nothing was changed; jobs that are defined there may run in this database")
        .remedy(format!(
            "GRANT CONNECT ON DATABASE {} to the agent's role and let pg_hba.conf admit it, then \
             retry",
            quoted(home)
        ))
        .source(e)
    };
    Session::open_in(cx, resource, home).await.map_err(refused)
}
