//! Jobs of pg_cron and pgAgent.

use crate::PATIENCE;
use crate::site::Site;
use lockstep_agent::action::{ActionError, Context};
use lockstep_agent::actions;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};
use tokio_util::sync::CancellationToken;

const JOBS: &str = "
    CREATE SCHEMA cron; CREATE SCHEMA pgagent;
    CREATE TABLE cron.job (jobid bigint PRIMARY KEY, active boolean,
        database text DEFAULT current_database());
    CREATE FUNCTION cron.alter_job(job_id bigint, schedule text DEFAULT NULL, active boolean DEFAULT NULL)
        RETURNS void LANGUAGE sql AS 'UPDATE cron.job SET active = $3 WHERE jobid = $1';
    INSERT INTO cron.job VALUES (1, true), (2, false);
    INSERT INTO cron.job VALUES (3, true, 'another');
    CREATE TABLE pgagent.pga_job (jobid serial PRIMARY KEY, jobenabled boolean, jobagentid int);
    INSERT INTO pgagent.pga_job (jobenabled) VALUES (true), (false)";

const ACTIVE: &str = "SELECT (SELECT string_agg(active::text, ' ' ORDER BY jobid) FROM cron.job) \
                      || ' ' || (SELECT string_agg(jobenabled::text, ' ' ORDER BY jobid) FROM pgagent.pga_job)";

#[tokio::test]
async fn jobs_go_off_and_only_those_that_were_on_come_back() {
    // The two schedulers' tables, made by hand: neither is installed here.
    let site = Site::new("jobs", JOBS, "").await;
    let params = json!({"resource": "shop"});
    let before = site.sql.text(ACTIVE).await;
    let before_image = site.perform_once("postgres.jobs.disable", &params).await;
    // The third one runs elsewhere.
    assert_eq!(site.sql.text(ACTIVE).await, "false false true false false");
    site.undo_once("postgres.jobs.disable", &params, before_image)
        .await;
    assert_eq!(site.sql.text(ACTIVE).await, before);

    site.perform_once("postgres.jobs.disable", &params).await;
    site.perform_once("postgres.jobs.restore", &params).await;
    assert_eq!(site.sql.text(ACTIVE).await, before);
}

#[tokio::test]
async fn jobs_that_pg_cron_keeps_in_another_database_are_found() {
    let home = Site::new("cronhome", JOBS, "").await;
    let site = Site::new("cronaway", "", "").await;
    let params = json!({"resource": "shop"});
    site.sql
        .run("ALTER DATABASE cronaway SET cron.database_name = 'cronhome'")
        .await;
    home.sql
        .run(
            "UPDATE cron.job SET database = 'cronaway' WHERE jobid < 3; \
             REVOKE CONNECT ON DATABASE cronhome FROM PUBLIC",
        )
        .await;
    let refused = site
        .try_probe("postgres.jobs.disable", &params)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), Code::LS2336, "{}", refused.report());

    home.sql
        .run("GRANT CONNECT ON DATABASE cronhome TO cronaway_agent")
        .await;
    home.sql
        .run(
            "GRANT USAGE ON SCHEMA cron TO cronaway_agent; \
             GRANT UPDATE ON cron.job TO cronaway_agent; \
             ALTER TABLE cron.job ENABLE ROW LEVEL SECURITY",
        )
        .await;
    let blind = site
        .try_probe("postgres.jobs.disable", &params)
        .await
        .unwrap_err();
    assert_eq!(blind.code(), Code::LS2334, "{}", blind.report());

    site.sql.run("ALTER ROLE cronaway_agent BYPASSRLS").await;
    let before = home.sql.text(ACTIVE).await;
    let before_image = site.perform_once("postgres.jobs.disable", &params).await;
    // Its own pgAgent is no matter of the other database.
    assert_eq!(home.sql.text(ACTIVE).await, "false false true true false");
    site.undo_once("postgres.jobs.disable", &params, before_image)
        .await;
    assert_eq!(home.sql.text(ACTIVE).await, before);
    site.perform_once("postgres.jobs.disable", &params).await;
    site.perform_once("postgres.jobs.restore", &params).await;
    assert_eq!(home.sql.text(ACTIVE).await, before);
}

/// Executes; once it waits for a job, `then` is done.
async fn disable(
    site: &Site,
    params: &Value,
    then: impl FnOnce(&CancellationToken),
) -> Result<(), ActionError> {
    let cx: Context = site.context();
    let disable = actions::find("postgres.jobs.disable").unwrap();
    site.notes.lock().unwrap().clear();
    let waits = async {
        let waits = || site.notes.lock().unwrap().join(" ").contains("waiting for");
        while !waits() {
            tokio::time::sleep(std::time::Duration::from_millis(20)).await;
        }
        then(&cx.cancel);
        std::future::pending().await
    };
    let both = async {
        tokio::select! {
            done = disable.execute(&cx, params, None) => done.map(drop),
            () = waits => Ok(()),
        }
    };
    tokio::time::timeout(PATIENCE, both).await.unwrap()
}

/// pg_cron's sessions have its name as their application name; the job's role need not be
/// one of those that are closed (pg_cron, README and pg_cron.c). A run of pgAgent has the
/// backend of its agent in `jobagentid` (pgAgent, job.cpp).
#[tokio::test]
async fn a_job_that_runs_is_waited_for_and_named() {
    let more = "CREATE TABLE cron.job_run_details (jobid bigint, runid bigint, job_pid int, \
                  status text); \
                UPDATE pgagent.pga_job SET jobagentid = 1 WHERE jobid = 2";
    let site = Site::new("runningjobs", &format!("{JOBS}; {more}"), "").await;
    let params = json!({"resource": "shop"});
    let run = site
        .cluster
        .login("runningjobs_app", "runningjobs")
        .await
        .unwrap();
    run.run("SET application_name = 'pg_cron'").await;
    let pid = run.text("SELECT pg_backend_pid()::text").await;
    let seen = site
        .remarks("postgres.jobs.disable", &params)
        .await
        .join("\n");
    let named = format!("a job of pg_cron (session {pid} of runningjobs_app) is running now");
    assert!(seen.contains(&named), "{seen}");
    // With its log, the job has a name, whatever the job sets.
    site.sql
        .run(&format!(
            "INSERT INTO cron.job_run_details VALUES (1, 1, {pid}, 'running'), \
               (2, 2, {pid}, 'succeeded')"
        ))
        .await;
    run.run("SET application_name = 'report'").await;

    let error = disable(&site, &params, CancellationToken::cancel)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2341, "{}", error.report());
    assert!(
        error.report().contains("pg_cron/1 (session"),
        "{}",
        error.report()
    );
    assert!(!error.report().contains("pgagent"), "{}", error.report());
    // Off, but not in effect.
    assert_eq!(site.sql.text(ACTIVE).await, "false false true false false");
    let probe = site.probe("postgres.jobs.disable", &params).await;
    assert_eq!(probe.finding, Finding::Pending);

    disable(&site, &params, |_| drop(run)).await.unwrap();
    let agent = site
        .cluster
        .login("runningjobs_app", "runningjobs")
        .await
        .unwrap();
    let pid = agent.text("SELECT pg_backend_pid()::text").await;
    let claim = format!("UPDATE pgagent.pga_job SET jobagentid = {pid} WHERE jobid = 1");
    site.sql.run(&claim).await;
    let seen = site
        .remarks("postgres.jobs.disable", &params)
        .await
        .join("\n");
    assert!(seen.contains("pgagent/1 (session"), "{seen}");
    disable(&site, &params, |_| drop(agent)).await.unwrap();
    let probe = site.probe("postgres.jobs.disable", &params).await;
    assert_eq!(probe.finding, Finding::Satisfied);
}

#[tokio::test]
async fn without_schedulers_there_is_nothing_to_do() {
    let site = Site::new("nojobs", "", "").await;
    for name in ["postgres.jobs.disable", "postgres.jobs.restore"] {
        let probe = site.probe(name, &json!({"resource": "shop"})).await;
        assert_eq!(probe.finding, Finding::Satisfied, "{name}");
    }
}
