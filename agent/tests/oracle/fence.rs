//! The fence: verified, watched, and finalized behind.

use crate::range::{PATIENCE, Range, action, shop, until};
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};
use tokio::sync::mpsc;

fn rules() -> Value {
    json!({
        "resource": "orcl",
        "exempt": {"users": ["DMS_USER"], "machines": []},
        "keep": ["LISTENER_DMS"],
        "accounts": ["BATCH"],
        "jobs_off": true,
        "window_secs": 1,
    })
}

async fn close(range: &Range) {
    let listeners = json!({"resource": "orcl", "keep": ["LISTENER_DMS"]});
    range
        .execute("oracle.listener.stop", &listeners)
        .await
        .unwrap();
    let jobs = json!({"resource": "orcl"});
    range.execute("oracle.jobs.disable", &jobs).await.unwrap();
}

fn finalize() -> Value {
    json!({
        "resource": "orcl",
        "marker_table": "LOCKSTEP.LOCKSTEP_MARKER",
        "tasks": ["arn:forward-1", "arn:forward-2"],
        "fence": rules(),
        "schemas": ["SHOP"],
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_fence_is_told_with_every_breach() {
    let range = Range::start("").await;
    range.sys().await;
    let client = shop(&range.second_listener()).unwrap();
    client
        .execute("INSERT INTO SHOP.ORDERS (ID) VALUES (1)", &[])
        .unwrap();
    let mut rules = rules();
    rules["accounts"] = json!(["BATCH", "SHOP"]);
    let error = range
        .execute("oracle.fence.watch", &rules)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2250);
    let story = error.report();
    for breach in [
        "the listener LISTENER is up",
        "a session is there that may not be",
        "a transaction is open in the session",
        "the account SHOP is OPEN",
        "job_queue_processes is 20 on ORCL1, 20 on ORCL2",
    ] {
        assert!(story.contains(breach), "{breach}: {story}");
    }
    assert!(!story.contains("LISTENER_DMS"), "{story}");
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_it_is_watched_is_told_even_if_gone_at_once() {
    let range = Range::start("").await;
    close(&range).await;
    let (cx, rules) = (range.context(), rules());
    let watch = action("oracle.fence.watch");
    watch.execute(&cx, &rules, None).await.unwrap();
    assert_eq!(watch.attest(&cx, &rules).await.unwrap(), None);

    let (breaches, mut reports) = mpsc::channel(16);
    let watching = async { watch.watch(&cx, &rules, false, breaches).await.unwrap() };
    let story = async {
        // DMS may come.
        let dms = oracle::Connection::connect("dms_user", "dms", "").unwrap();
        let closed = tokio::task::spawn_blocking(|| shop("").unwrap().close().unwrap());
        closed.await.unwrap();
        let breach = tokio::time::timeout(PATIENCE, reports.recv())
            .await
            .unwrap()
            .unwrap();
        assert!(breach.contains("SHOP"), "{breach}");
        dms.close().unwrap();
        let attested = watch.attest(&range.context(), &rules).await.unwrap();
        assert!(attested.unwrap().contains("SHOP has logged in"), "attested");

        range.control(&json!({"op": "start", "name": "LISTENER", "by": "lsnrctl"}));
        loop {
            let breach = tokio::time::timeout(PATIENCE, reports.recv())
                .await
                .unwrap()
                .unwrap();
            if breach == "the listener LISTENER is up" {
                break;
            }
        }
        cx.cancel.cancel();
    };
    tokio::join!(watching, story);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_watch_outlives_its_session() {
    let range = Range::start("").await;
    close(&range).await;
    let (cx, rules) = (range.context(), rules());
    let watch = action("oracle.fence.watch");
    watch.execute(&cx, &rules, None).await.unwrap();
    let (breaches, mut reports) = mpsc::channel(16);
    let watching = async { watch.watch(&cx, &rules, false, breaches).await.unwrap() };
    let story = async {
        let sys = range.sys().await;
        let others = "SELECT SID || ',' || SERIAL# FROM V$SESSION WHERE MODULE = 'lockstep' \
             AND SID <> SYS_CONTEXT('USERENV', 'SID')";
        let watchers: Vec<String> = sys.rows(others, &[]).await.unwrap();
        for id in watchers {
            let kill = format!("ALTER SYSTEM KILL SESSION '{id}' IMMEDIATE");
            // A session of a task that has ended may have ended by itself.
            let _ = sys.execute(&kill, &[]).await;
        }
        sys.execute("ALTER USER BATCH ACCOUNT UNLOCK", &[])
            .await
            .unwrap();
        let breach = tokio::time::timeout(PATIENCE, reports.recv())
            .await
            .unwrap()
            .unwrap();
        assert_eq!(breach, "the account BATCH is OPEN");
        cx.cancel.cancel();
    };
    tokio::join!(watching, story);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_gap_in_watching_is_a_breach_only_if_somebody_came() {
    let range = Range::start("").await;
    close(&range).await;
    let rules = rules();
    let watch = action("oracle.fence.watch");
    watch.execute(&range.context(), &rules, None).await.unwrap();

    let after_gap = async |range: &Range| {
        let (cx, (breaches, mut reports)) = (range.context(), mpsc::channel(16));
        let watching = async { watch.watch(&cx, &rules, true, breaches).await.unwrap() };
        let report = async {
            // A second breach, planted, ends the wait where there is no first.
            let sys = range.sys().await;
            let planted = "ALTER USER BATCH ACCOUNT UNLOCK";
            sys.execute(planted, &[]).await.unwrap();
            let first = tokio::time::timeout(PATIENCE, reports.recv())
                .await
                .unwrap()
                .unwrap();
            sys.execute("ALTER USER BATCH ACCOUNT LOCK", &[])
                .await
                .unwrap();
            cx.cancel.cancel();
            first
        };
        tokio::join!(watching, report).1
    };
    let calm = after_gap(&range).await;
    assert!(!calm.contains("logged in"), "{calm}");
    shop("").unwrap().close().unwrap();
    let breach = after_gap(&range).await;
    assert!(
        breach.contains("nobody has watched for a while"),
        "{breach}"
    );
    assert!(breach.contains("SHOP has logged in"), "{breach}");
}

#[tokio::test(flavor = "multi_thread")]
async fn the_last_word_is_an_scn_a_marker_and_a_log_switch_in_this_order() {
    let range = Range::start("").await;
    let sys = range.sys().await;
    let next = "SELECT SHOP.ORDERS_SEQ.NEXTVAL FROM DUAL";
    let client = shop("").unwrap();
    assert_eq!(client.query_row_as::<u32>(next, &[]).unwrap(), 1000);
    client.close().unwrap();
    close(&range).await;
    let params = finalize();
    range.probe("oracle.finalize", &params).await.unwrap();
    let outputs = range.execute("oracle.finalize", &params).await.unwrap();
    let scn: i64 = outputs["scn"].as_str().unwrap().parse().unwrap();
    let nonce = outputs["nonce"].as_str().unwrap();

    type Marker = (String, String, String, i64);
    let markers: Vec<Marker> = sys
        .rows(
            "SELECT RUN_ID, TASK_ID, NONCE, SCN FROM LOCKSTEP.LOCKSTEP_MARKER ORDER BY TASK_ID",
            &[],
        )
        .await
        .unwrap();
    let run = range.context().tag.run;
    let marker = |task: &str| (run.clone(), task.to_owned(), nonce.to_owned(), scn);
    assert_eq!(markers, [marker("arn:forward-1"), marker("arn:forward-2")]);

    let sql = "SELECT MIN(COMMIT_SCN) FROM V$LOGMNR_CONTENTS WHERE TABLE_NAME = 'LOCKSTEP_MARKER'";
    let committed: i64 = sys.row(sql, &[]).await.unwrap();
    let seen = range.observe();
    let checkpoint = seen["checkpoints"][0]["scn"].as_i64().unwrap();
    assert!(
        checkpoint <= scn && scn < committed,
        "{checkpoint} {scn} {committed}"
    );
    let sql = "SELECT COUNT(*) FROM V$ARCHIVED_LOG WHERE FIRST_CHANGE# <= :1 AND NEXT_CHANGE# > :2";
    let archived: i64 = sys
        .row(sql, &[committed.into(), committed.into()])
        .await
        .unwrap();
    assert_eq!(
        archived, 2,
        "the marker is in the archived logs of both threads"
    );

    let sequence = &outputs["sequences"]["SHOP.ORDERS_SEQ"];
    assert_eq!(
        sequence,
        &json!({"last_number": "1020", "increment_by": "1", "cycle": false})
    );
    let again = range.execute("oracle.finalize", &params).await.unwrap();
    assert_ne!(again["nonce"], outputs["nonce"], "a nonce serves once");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_marker_is_written_behind_an_open_fence() {
    let range = Range::start("").await;
    close(&range).await;
    let client = shop("").unwrap();
    let error = range
        .execute("oracle.finalize", &finalize())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2250);
    client.close().unwrap();
    let rows: i64 = range
        .sys()
        .await
        .row("SELECT COUNT(*) FROM LOCKSTEP.LOCKSTEP_MARKER", &[])
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_failure_between_two_markers_leaves_none() {
    let range = Range::start("").await;
    close(&range).await;
    let mut params = finalize();
    params["tasks"] = json!(["arn:forward-1", "arn:forward-1"]);
    let error = range.execute("oracle.finalize", &params).await.unwrap_err();
    assert!(error.report().contains("ORA-00001"), "{}", error.report());
    let rows: i64 = range
        .sys()
        .await
        .row("SELECT COUNT(*) FROM LOCKSTEP.LOCKSTEP_MARKER", &[])
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

/// A job of SYS, whose session is never a breach by itself.
const NIGHTLY: &str = "BEGIN DBMS_SCHEDULER.CREATE_JOB(job_name => 'SYS.NIGHTLY', \
     job_type => 'PLSQL_BLOCK', job_action => 'BEGIN DBMS_SESSION.SLEEP(30); END;', \
     enabled => TRUE); END;";

#[tokio::test(flavor = "multi_thread")]
async fn where_jobs_stay_on_a_running_one_voids_the_proof() {
    let range = Range::start("").await;
    close(&range).await;
    let sys = range.sys().await;
    for statement in [
        "ALTER SYSTEM SET JOB_QUEUE_PROCESSES=20 SCOPE=MEMORY SID='*'",
        NIGHTLY,
    ] {
        sys.execute(statement, &[]).await.unwrap();
    }
    let runs = async {
        while sys
            .rows::<String>("SELECT JOB_NAME FROM DBA_SCHEDULER_RUNNING_JOBS", &[])
            .await
            .unwrap()
            .is_empty()
        {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, runs).await.unwrap();
    let mut params = finalize();
    params["fence"]["jobs_off"] = json!(false);
    let error = range.execute("oracle.finalize", &params).await.unwrap_err();
    assert!(
        error.report().contains("the job SYS.NIGHTLY is running"),
        "{}",
        error.report()
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn where_jobs_are_off_a_running_one_breaks_the_fence() {
    let range = Range::start("").await;
    let sys = range.sys().await;
    sys.execute(NIGHTLY, &[]).await.unwrap();
    let runs = async {
        let running = "SELECT JOB_NAME FROM DBA_SCHEDULER_RUNNING_JOBS";
        while sys.rows::<String>(running, &[]).await.unwrap().is_empty() {
            tokio::time::sleep(std::time::Duration::from_millis(50)).await;
        }
    };
    tokio::time::timeout(PATIENCE, runs).await.unwrap();
    // With the queue off no other one starts; this one goes on.
    let off = "ALTER SYSTEM SET JOB_QUEUE_PROCESSES=0 SCOPE=MEMORY SID='*'";
    sys.execute(off, &[]).await.unwrap();
    let listeners = json!({"resource": "orcl", "keep": ["LISTENER_DMS"]});
    range
        .execute("oracle.listener.stop", &listeners)
        .await
        .unwrap();
    for (name, code) in [
        ("oracle.fence.watch", Code::LS2250),
        ("oracle.fence.verify", Code::LS2252),
    ] {
        let error = range.execute(name, &rules()).await.unwrap_err();
        let story = error.report();
        assert_eq!(error.code(), code, "{story}");
        assert!(story.contains("the job SYS.NIGHTLY is running"), "{story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_while_the_marker_is_written_voids_it() {
    let range = Range::start("").await;
    close(&range).await;
    let params = finalize();
    let finalized = range.execute("oracle.finalize", &params);
    let visit = async {
        // The note follows the window's last check and precedes the marker.
        until("the SCN isn't read", || {
            let said = range.said();
            said.iter().any(|line| line.starts_with("CURRENT_SCN is"))
        })
        .await;
        tokio::task::spawn_blocking(|| shop("").unwrap().close().unwrap())
            .await
            .unwrap();
        range.control(&json!({"op": "surround", "with": {}}));
    };
    // The log switch waits until the visitor has come and gone.
    range.control(&json!({"op": "surround", "with": {"archiver_stuck": true}}));
    let (finalized, ()) = tokio::join!(finalized, visit);
    let error = finalized.unwrap_err();
    let story = error.report();
    assert_eq!(error.code(), Code::LS2251, "{story}");
    assert!(story.contains("SHOP has logged in"), "{story}");
}

/// LAST_LOGIN as the fix of login storms leaves it.
fn hidden(name: &str, value: &str) -> Value {
    json!({"op": "surround", "with": {"hidden": {name: value}}})
}

#[tokio::test(flavor = "multi_thread")]
async fn logins_that_oracle_does_not_record_are_named_and_no_gap_is_excused() {
    let range = Range::start("").await;
    let ready = json!({"resource": "orcl", "marker_table": "LOCKSTEP.LOCKSTEP_MARKER",
        "oldest_transaction_secs": 300});
    let remarks = async || {
        let cx = range.context();
        let foreseen = action("oracle.ready").describe(&cx, &ready).await.unwrap();
        foreseen.remarks.join("\n")
    };
    let remark = "the fence won't see every login: ";
    range.sys().await;
    assert!(!remarks().await.contains(remark));
    let off = "_disable_last_successful_login_time";
    for (name, value, expected) in [
        (off, "TRUE", "is TRUE: LAST_LOGIN records no login"),
        (
            "_granularity_last_successful_login_time",
            "30",
            "within 30 s of another one",
        ),
    ] {
        range.control(&hidden(name, value));
        let seen = remarks().await;
        assert!(seen.contains(remark) && seen.contains(expected), "{seen}");
    }
    range.control(&hidden(off, "TRUE"));
    let visitor = shop("").unwrap();
    let seen = remarks().await;
    assert!(seen.contains("aren't recorded: SHOP"), "{seen}");
    visitor.close().unwrap();

    close(&range).await;
    let (rules, watch) = (rules(), action("oracle.fence.watch"));
    watch.execute(&range.context(), &rules, None).await.unwrap();
    let said = range.said().join("\n");
    assert!(said.contains("not seen by the fence: "), "{said}");
    let (cx, (breaches, mut reports)) = (range.context(), mpsc::channel(16));
    let watching = async { watch.watch(&cx, &rules, true, breaches).await.unwrap() };
    let report = async {
        let first = tokio::time::timeout(PATIENCE, reports.recv()).await;
        cx.cancel.cancel();
        first.unwrap().unwrap()
    };
    let (_, breach) = tokio::join!(watching, report);
    assert!(
        breach.starts_with("nobody has watched for a while: ") && breach.contains(off),
        "{breach}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_database_without_last_login_is_fenced_without_it() {
    let range = Range::start("").await;
    close(&range).await;
    range.inject("LAST_LOGIN", 904, 1000);
    let watch = action("oracle.fence.watch");
    watch
        .execute(&range.context(), &rules(), None)
        .await
        .unwrap();
    let said = range.said().join("\n");
    assert!(said.contains("before Oracle 12.1"), "{said}");
    assert_eq!(
        watch.attest(&range.context(), &rules()).await.unwrap(),
        None
    );
}

/// Jobs of DBMS_JOB: one broken, one for tomorrow.
const NUMBERED: &str = "BEGIN DBMS_JOB.ISUBMIT(7, 'NULL;', SYSDATE, 'SYSDATE + 1'); \
     DBMS_JOB.BROKEN(7, TRUE); DBMS_JOB.ISUBMIT(8, 'NULL;', SYSDATE + 1); COMMIT; END;";

#[tokio::test(flavor = "multi_thread")]
async fn where_jobs_stay_on_one_that_is_due_voids_the_proof_whatever_its_kind() {
    let range = Range::start("").await;
    close(&range).await;
    let sys = range.sys().await;
    sys.execute(NUMBERED, &[]).await.unwrap();
    let mut params = finalize();
    params["fence"]["jobs_off"] = json!(false);
    range.execute("oracle.finalize", &params).await.unwrap();
    // With the queue off it stays due and doesn't run.
    let soon = "BEGIN DBMS_JOB.ISUBMIT(9, 'NULL;', SYSDATE + 1 / 86400); COMMIT; END;";
    sys.execute(soon, &[]).await.unwrap();
    let error = range.execute("oracle.finalize", &params).await.unwrap_err();
    let story = error.report();
    assert_eq!(error.code(), Code::LS2250, "{story}");
    assert!(
        story.contains("the job number 9 of DBMS_JOB is due"),
        "{story}"
    );
    assert!(
        !story.contains("number 7") && !story.contains("number 8"),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn who_is_in_oracle_after_the_switch_is_named_and_not_killed() {
    let range = Range::start("").await;
    close(&range).await;
    let name = "oracle.fence.verify";
    assert_eq!(range.finding(name, &rules()).await, Finding::Pending);
    range.execute(name, &rules()).await.unwrap();
    // Sessions of DMS are allowed, and no others on any instance.
    let _dms = oracle::Connection::connect("dms_user", "dms", "").unwrap();
    range.execute(name, &rules()).await.unwrap();
    let client = shop(&range.second_listener()).unwrap();
    let error = range.execute(name, &rules()).await.unwrap_err();
    let story = error.report();
    assert_eq!(error.code(), Code::LS2252, "{story}");
    assert!(story.contains("@2 of SHOP from "), "{story}");
    assert!(client.ping().is_ok(), "it only looks");
    client
        .execute("INSERT INTO SHOP.ORDERS (ID) VALUES (1)", &[])
        .unwrap();
    let story = range.execute(name, &rules()).await.unwrap_err().report();
    assert!(
        story.contains("a transaction is open in the session"),
        "{story}"
    );
    client.close().unwrap();
    range.execute(name, &rules()).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn who_comes_within_the_window_after_the_switch_is_seen() {
    let range = Range::start("").await;
    close(&range).await;
    let mut rules = rules();
    rules["window_secs"] = json!(3);
    let verify = range.execute("oracle.fence.verify", &rules);
    let visit = async {
        tokio::time::sleep(std::time::Duration::from_millis(1200)).await;
        tokio::task::spawn_blocking(|| shop("").unwrap().close().unwrap())
            .await
            .unwrap();
    };
    let (verified, ()) = tokio::join!(verify, visit);
    let story = verified.unwrap_err().report();
    assert!(
        story.starts_with("LS2252: ") && story.contains("SHOP"),
        "{story}"
    );
}
