//! The proof that everything has arrived, and what voids it.

use crate::site::{RUN, Site};
use crate::{PATIENCE, PROOFS};
use lockstep_agent::actions;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};
use std::time::Duration;

pub fn marker(timeout_secs: u64) -> Value {
    json!({"resource": "shop", "marker_table": "lockstep.marker", "tasks": ["arn:a", "arn:b"],
        "nonce": "n1", "scn": "4711", "control_schema": "dms", "apply_exceptions": "1",
        "timeout_secs": timeout_secs})
}

#[tokio::test]
async fn markers_are_awaited_with_nothing_pending_or_lost() {
    let site = Site::new("marker", PROOFS, "").await;
    let exception = "INSERT INTO dms.awsdms_apply_exceptions (\"TABLE_OWNER\", \"TABLE_NAME\") \
                     VALUES ('SHOP', 'ORDERS')";
    site.sql.run(exception).await;
    let write = |task: &str, nonce: &str, scn: u32| {
        format!("INSERT INTO lockstep.marker VALUES ('{RUN}', '{task}', '{nonce}', {scn}, now())")
    };
    site.sql.run(&write("arn:a", "n1", 4711)).await;
    // A marker of another attempt proves nothing.
    site.sql.run(&write("arn:b", "n0", 4711)).await;
    let error = site
        .try_execute("postgres.marker.await", &marker(0))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2318);
    assert!(error.report().contains("arn:b"), "{}", error.report());

    site.sql
        .run("CREATE TABLE dms.awsdms_status (\"PENDING_CHANGES\" bigint)")
        .await;
    site.sql
        .run("INSERT INTO dms.awsdms_status VALUES (3)")
        .await;
    let (mut context, params) = (site.context(), marker(60));
    context.tag.attempt = 2;
    let action = actions::find("postgres.marker.await").unwrap();
    let waiting = tokio::spawn(async move { action.execute(&context, &params, None).await });
    // It has looked at least once before anything comes.
    let read_only = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%task_id::text%' \
                 AND application_name LIKE 'lockstep %/step/2' AND state = 'idle'";
    eventually(&site, read_only).await;
    assert!(!waiting.is_finished());
    site.sql.run(&write("arn:b", "n1", 4711)).await;
    let pending = site
        .try_execute("postgres.marker.await", &marker(0))
        .await
        .unwrap_err();
    assert!(
        pending.report().contains("3 changes are pending"),
        "{}",
        pending.report()
    );
    site.sql
        .run("UPDATE dms.awsdms_status SET \"PENDING_CHANGES\" = 0")
        .await;
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let probe = site.probe("postgres.marker.await", &marker(0)).await;
    assert_eq!(probe.finding, Finding::Satisfied);

    site.sql.run(exception).await;
    let lost = site
        .try_execute("postgres.marker.await", &marker(60))
        .await
        .unwrap_err();
    assert_eq!(lost.code(), Code::LS2317);
    assert!(
        lost.report().contains("SHOP.ORDERS (2)"),
        "{}",
        lost.report()
    );
}

/// Applications still write during a trial, so changes are always pending.
#[tokio::test]
async fn a_trial_waits_for_the_markers_only() {
    let site = Site::new("trial", PROOFS, "").await;
    site.sql
        .run(
            "CREATE TABLE dms.awsdms_status (\"PENDING_CHANGES\" bigint); \
             INSERT INTO dms.awsdms_status VALUES (3)",
        )
        .await;
    let mut params = marker(0);
    params["trial"] = json!(true);
    let error = site
        .try_execute("postgres.marker.await", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2318);
    let report = error.report();
    assert!(report.contains("applications still run"), "{report}");
    for task in ["arn:a", "arn:b"] {
        let row = format!("('{RUN}', '{task}', 'n1', 4711, now())");
        site.sql
            .run(&format!("INSERT INTO lockstep.marker VALUES {row}"))
            .await;
    }
    site.try_execute("postgres.marker.await", &params)
        .await
        .unwrap();
}

/// Waits until a query counts one.
pub async fn eventually(site: &Site, sql: &str) {
    tokio::time::timeout(PATIENCE, async {
        while site.sql.text(sql).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never: {sql}"));
}

#[tokio::test]
async fn what_fails_between_the_proof_and_the_stop_is_seen() {
    let site = Site::new("drained", PROOFS, "").await;
    let params = json!({"resource": "shop", "control_schema": "dms", "apply_exceptions": "1"});
    let name = "postgres.drain.check";
    let exception = "INSERT INTO dms.awsdms_apply_exceptions (\"TABLE_OWNER\", \"TABLE_NAME\") \
                     VALUES ('SHOP', 'ORDERS')";
    site.sql.run(exception).await;
    site.perform(name, &params).await;
    site.sql
        .run(
            "CREATE TABLE dms.awsdms_status (\"PENDING_CHANGES\" bigint); \
             INSERT INTO dms.awsdms_status VALUES (3)",
        )
        .await;
    let error = site.try_execute(name, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2326, "{}", error.report());
    site.sql.run("DELETE FROM dms.awsdms_status").await;
    site.sql.run(exception).await;
    let error = site.try_execute(name, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2317, "{}", error.report());
    assert!(
        error.report().contains("1 changes could not"),
        "{}",
        error.report()
    );
}

#[tokio::test]
async fn a_change_that_fails_just_before_its_marker_comes_is_lost_not_proved() {
    let site = Site::new("markerlate", PROOFS, "").await;
    // A table that, when it is looked at, has its last change fail before its
    // markers are there: what a replicator may do between two statements.
    site.sql
        .run(
            "CREATE FUNCTION lockstep.fail() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS \
             $$INSERT INTO dms.awsdms_apply_exceptions (\"TABLE_OWNER\", \"TABLE_NAME\") \
             VALUES ('SHOP', 'ORDERS'), ('SHOP', 'ORDERS') RETURNING true$$; \
             CREATE VIEW lockstep.late AS SELECT task_id, 'n1' AS nonce, 4711 AS scn \
             FROM unnest(ARRAY['arn:a', 'arn:b']) AS task_id, \
             (SELECT lockstep.fail() OFFSET 0) AS failed (so) WHERE failed.so; \
             GRANT SELECT ON lockstep.late TO PUBLIC; \
             GRANT EXECUTE ON FUNCTION lockstep.fail() TO PUBLIC",
        )
        .await;
    let mut params = marker(60);
    params["marker_table"] = json!("lockstep.late");
    let lost = site
        .try_execute("postgres.marker.await", &params)
        .await
        .unwrap_err();
    assert_eq!(lost.code(), Code::LS2317, "{}", lost.report());
}

#[tokio::test]
async fn a_marker_with_another_scn_voids_the_proof() {
    let site = Site::new("markerscn", PROOFS, "").await;
    site.sql
        .run(&format!(
            "INSERT INTO lockstep.marker VALUES ('{RUN}', 'arn:a', 'n1', 12, now())"
        ))
        .await;
    let error = site
        .try_execute("postgres.marker.await", &marker(60))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2316);
}
