//! Each change is done, found done, taken back; and taken back too where it
//! had failed half-way.

use crate::range::{Range, TICKER, action, until};
use lockstep_agent::action::Undone;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};

fn changes() -> Vec<(&'static str, Value)> {
    vec![
        (
            "oracle.listener.stop",
            json!({"resource": "orcl", "keep": ["LISTENER_DMS"]}),
        ),
        ("oracle.listener.stop", json!({"resource": "clustered"})),
        (
            "oracle.accounts.lock",
            json!({"resource": "orcl", "accounts": ["SHOP", "BATCH"]}),
        ),
        ("oracle.logins.restrict", json!({"resource": "orcl"})),
        ("oracle.jobs.disable", json!({"resource": "orcl"})),
        (
            "oracle.jobs.disable",
            json!({"resource": "orcl", "scope": "both"}),
        ),
        ("oracle.queue_monitor.disable", json!({"resource": "orcl"})),
        (
            "oracle.queue_monitor.disable",
            json!({"resource": "orcl", "scope": "both"}),
        ),
        (
            "oracle.triggers.disable",
            json!({"resource": "orcl", "schemas": ["SHOP"]}),
        ),
        (
            "oracle.freeze.persist",
            json!({"resource": "clustered", "jobs": true, "accounts": ["BATCH", "GONE"]}),
        ),
        (
            "oracle.freeze.persist",
            json!({"resource": "orcl", "accounts": ["SHOP", "BATCH"]}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn every_change_is_done_found_and_taken_back() {
    let range = Range::start("").await;
    for (name, params) in changes() {
        let before = range.world();
        let probe = range.probe(name, &params).await.unwrap();
        assert_eq!(probe.finding, Finding::Pending, "{name} {params}");
        assert_eq!(range.world(), before, "{name}: a probe changes nothing");
        range.execute(name, &params).await.unwrap();
        assert_ne!(range.world(), before, "{name} {params}");
        assert_eq!(
            range.finding(name, &params).await,
            Finding::Satisfied,
            "{name}"
        );
        let before_image = probe.before_image.unwrap();
        let undone = range.undo(name, &params, &before_image).await.unwrap();
        assert_eq!(undone, Undone::Restored, "{name} {params}");
        assert_eq!(range.world(), before, "{name} {params}");
        let again = range.undo(name, &params, &before_image).await.unwrap();
        assert_eq!(again, Undone::Unchanged, "{name}: twice is once");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_failed_half_way_is_taken_back_too() {
    let range = Range::start("CREATE USER CRM IDENTIFIED BY crm;\n").await;
    for (name, params, fails_at) in [
        (
            "oracle.accounts.lock",
            json!({"resource": "orcl", "accounts": ["CRM", "SHOP"]}),
            "ALTER USER \"SHOP\"",
        ),
        (
            "oracle.triggers.disable",
            json!({"resource": "orcl", "schemas": ["SHOP"]}),
            "\"orders upper\" DISABLE",
        ),
        (
            "oracle.jobs.disable",
            json!({"resource": "orcl", "scope": "both"}),
            "SCOPE=SPFILE",
        ),
    ] {
        let before = range.world();
        let before_image = range
            .probe(name, &params)
            .await
            .unwrap()
            .before_image
            .unwrap();
        range.inject(fails_at, 4021, 1);
        let error = range.execute(name, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2203, "{}", error.report());
        assert!(error.report().contains("ORA-04021"), "{}", error.report());
        assert_ne!(range.world(), before, "{name} had begun");
        assert_eq!(
            range.finding(name, &params).await,
            Finding::Pending,
            "{name}"
        );
        range.undo(name, &params, &before_image).await.unwrap();
        assert_eq!(range.world(), before, "{name}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn an_undo_that_fails_half_way_goes_on_with_the_rest_and_can_be_repeated() {
    let range = Range::start("CREATE USER CRM IDENTIFIED BY crm;\n").await;
    let name = "oracle.accounts.lock";
    let params = json!({"resource": "orcl", "accounts": ["CRM", "SHOP", "BATCH"]});
    let before = range.world();
    let before_image = range
        .probe(name, &params)
        .await
        .unwrap()
        .before_image
        .unwrap();
    range.execute(name, &params).await.unwrap();
    range.inject("\"CRM\" ACCOUNT UNLOCK", 4021, 1);
    let error = range.undo(name, &params, &before_image).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2203);
    let accounts = &range.observe()["accounts"];
    assert_eq!(
        (&accounts["CRM"], &accounts["SHOP"], &accounts["BATCH"]),
        (&json!("LOCKED"), &json!("OPEN"), &json!("LOCKED"))
    );
    range.undo(name, &params, &before_image).await.unwrap();
    assert_eq!(range.world(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_account_unlocked_since_is_locked_again_and_restored_as_it_was() {
    let range = Range::start("").await;
    let before = range.world();
    let accounts = json!({"resource": "orcl", "accounts": ["SHOP", "BATCH"]});
    let lock = range.context_at("lock", None);
    let locking = action("oracle.accounts.lock").execute(&lock, &accounts, None);
    locking.await.unwrap();
    let locked = range.world();
    let keep = "oracle.freeze.persist";
    assert_eq!(range.finding(keep, &accounts).await, Finding::Satisfied);
    let sys = range.sys().await;
    sys.execute("ALTER USER SHOP ACCOUNT UNLOCK", &[])
        .await
        .unwrap();
    assert_eq!(range.finding(keep, &accounts).await, Finding::Pending);
    range.execute(keep, &accounts).await.unwrap();
    assert_eq!(range.world(), locked);
    // A fallback days later uses the state from before the cutover.
    range
        .execute("oracle.accounts.restore", &accounts)
        .await
        .unwrap();
    assert_eq!(range.world(), before);
    let error = range
        .execute(keep, &json!({"resource": "orcl", "accounts": ["SYS"]}))
        .await;
    assert_eq!(error.unwrap_err().code(), Code::LS2221);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_somebody_else_has_changed_is_left_alone_and_told() {
    let range = Range::start("").await;
    let params = json!({"resource": "orcl"});
    let name = "oracle.jobs.disable";
    let before_image = range
        .probe(name, &params)
        .await
        .unwrap()
        .before_image
        .unwrap();
    range.execute(name, &params).await.unwrap();
    let sys = range.sys().await;
    let by_hand = "ALTER SYSTEM SET JOB_QUEUE_PROCESSES=5 SCOPE=MEMORY SID='ORCL2'";
    sys.execute(by_hand, &[]).await.unwrap();
    let Undone::Drifted(what) = range.undo(name, &params, &before_image).await.unwrap() else {
        panic!("a foreign value is a drift");
    };
    assert_eq!(what, "job_queue_processes is 5 on ORCL2, was 20 before");
    let parameters = &range.observe()["parameters"];
    assert_eq!(parameters["1"]["job_queue_processes"], "20");
    assert_eq!(parameters["2"]["job_queue_processes"], "5");
}

/// RESET in memory is refused for more than another instance.
#[tokio::test(flavor = "multi_thread")]
async fn a_value_whose_reset_is_refused_is_set() {
    let range = Range::start("").await;
    let params = json!({"resource": "orcl"});
    let name = "oracle.queue_monitor.disable";
    let before = range.world();
    let probe = range.probe(name, &params).await.unwrap();
    range.execute(name, &params).await.unwrap();
    range.inject("RESET AQ_TM_PROCESSES SCOPE=MEMORY", 2065, 2);
    let before_image = probe.before_image.unwrap();
    let undone = range.undo(name, &params, &before_image).await.unwrap();
    assert_eq!(undone, Undone::Restored);
    assert!(range.said().iter().any(|line| line.contains("ORA-02065")));
    assert_eq!(range.world()["parameters"], before["parameters"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_plan_of_days_later_restores_what_was_before_the_cutover() {
    let range = Range::start("").await;
    let before = range.world();
    let pairs = [
        (
            "oracle.accounts",
            "lock",
            json!({"resource": "orcl", "accounts": ["SHOP", "BATCH"]}),
        ),
        (
            "oracle.triggers",
            "disable",
            json!({"resource": "orcl", "schemas": ["SHOP"]}),
        ),
        ("oracle.jobs", "disable", json!({"resource": "orcl"})),
        (
            "oracle.queue_monitor",
            "disable",
            json!({"resource": "orcl"}),
        ),
    ];
    for (area, verb, params) in &pairs {
        let restore = format!("{area}.restore");
        if *area != "oracle.accounts" {
            let error = range.probe(&restore, params).await.unwrap_err();
            assert_eq!(error.code(), Code::LS2209, "{}", error.report());
        }
        range
            .execute(&format!("{area}.{verb}"), params)
            .await
            .unwrap();
        assert_eq!(
            range.finding(&restore, params).await,
            Finding::Pending,
            "{area}"
        );
    }
    assert_ne!(range.world(), before);
    for (area, _, params) in &pairs {
        range
            .execute(&format!("{area}.restore"), params)
            .await
            .unwrap();
    }
    assert_eq!(range.world(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_is_started_and_stopped_again() {
    let range = Range::start("").await;
    let stop = json!({"resource": "clustered"});
    range.execute("oracle.listener.stop", &stop).await.unwrap();
    let closed = range.world();
    let start = json!({"resource": "clustered", "listeners": ["LISTENER_CRS"]});
    let name = "oracle.listener.start";
    let probe = range.probe(name, &start).await.unwrap();
    assert_eq!(probe.finding, Finding::Pending);
    range.execute(name, &start).await.unwrap();
    assert_eq!(range.finding(name, &start).await, Finding::Satisfied);
    range
        .undo(name, &start, &probe.before_image.unwrap())
        .await
        .unwrap();
    assert_eq!(range.world(), closed);
    range
        .execute("oracle.logins.restrict", &json!({"resource": "orcl"}))
        .await
        .unwrap();
    let open = json!({"resource": "orcl"});
    assert_eq!(
        range.finding("oracle.logins.open", &open).await,
        Finding::Pending
    );
    range.execute("oracle.logins.open", &open).await.unwrap();
    assert_eq!(range.world(), closed);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_under_clusterware_stays_down() {
    let range = Range::start("").await;
    // What is stopped and not disabled comes back: that is what the action
    // has to know.
    range.control(&json!({"op": "stop", "name": "LISTENER_CRS", "by": "srvctl"}));
    let running = |range: &Range| {
        let listeners = range.control(&json!({"op": "listeners"}));
        let found = listeners.as_array().unwrap().clone();
        let found = found.into_iter().find(|one| one["name"] == "LISTENER_CRS");
        found.unwrap()["running"] == true
    };
    until("Clusterware did not start it again", || running(&range)).await;
    range
        .execute("oracle.listener.stop", &json!({"resource": "clustered"}))
        .await
        .unwrap();
    // Clusterware looks several times while SCAN's listener is started.
    range.control(&json!({"op": "enable", "name": "LISTENER_SCAN1"}));
    until("Clusterware did not look", || {
        let listeners = range.control(&json!({"op": "listeners"}));
        let listeners = listeners.as_array().unwrap().clone();
        listeners
            .iter()
            .any(|one| one["name"] == "LISTENER_SCAN1" && one["running"] == true)
    })
    .await;
    assert!(!running(&range));
}

#[tokio::test(flavor = "multi_thread")]
async fn names_that_are_not_there_are_refused_before_anything_is_done() {
    let range = Range::start("").await;
    let before = range.world();
    for (name, params, code) in [
        (
            "oracle.listener.stop",
            json!({"resource": "orcl", "listeners": ["LISTENER_CRS"]}),
            Code::LS2210,
        ),
        (
            "oracle.accounts.lock",
            json!({"resource": "orcl", "accounts": ["SHOP", "NOBODY"]}),
            Code::LS2220,
        ),
        (
            "oracle.accounts.lock",
            json!({"resource": "orcl", "accounts": ["SYS"]}),
            Code::LS2221,
        ),
        (
            "oracle.logins.restrict",
            json!({"resource": "none"}),
            Code::LS2005,
        ),
    ] {
        let error = range.probe(name, &params).await.unwrap_err();
        assert_eq!(error.code(), code, "{}", error.report());
        let error = range.execute(name, &params).await.unwrap_err();
        assert_eq!(error.code(), code, "{}", error.report());
    }
    assert_eq!(range.world(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_job_that_keeps_coming_back_is_stopped_or_told() {
    let range = Range::start(TICKER).await;
    let name = "oracle.jobs.disable";
    let runs = || range.observe()["jobs"][0]["state"] == "RUNNING";
    until("the job does not run", runs).await;
    let before = range.world();
    let patient = json!({"resource": "orcl", "wait_secs": 1});
    let before_image = range
        .probe(name, &patient)
        .await
        .unwrap()
        .before_image
        .unwrap();
    let error = range.execute(name, &patient).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2231);
    assert!(error.report().contains("SHOP.TICKER"), "{}", error.report());
    range.undo(name, &patient, &before_image).await.unwrap();
    assert_eq!(range.world(), before);

    let firm = json!({"resource": "orcl", "wait_secs": 0, "stop_running": true});
    range.execute(name, &firm).await.unwrap();
    assert_eq!(range.finding(name, &firm).await, Finding::Satisfied);
    assert!(!runs());
    range.undo(name, &firm, &before_image).await.unwrap();
    until("the job does not come back", runs).await;
    assert_eq!(range.world(), before);
}

/// Before release 19c a job of DBMS_JOB is none of the scheduler, so no call stops it.
#[tokio::test(flavor = "multi_thread")]
async fn a_job_of_dbms_job_is_stopped_where_the_scheduler_does_not_know_it() {
    let range = Range::start("").await;
    range.control(&json!({"op": "surround", "with": {"old_jobs_apart": true}}));
    let sys = range.sys().await;
    let long = "BEGIN DBMS_JOB.ISUBMIT(7, 'DBMS_SESSION.SLEEP(60);', SYSDATE); COMMIT; END;";
    sys.execute(long, &[]).await.unwrap();
    let runs = || range.observe()["jobs"][0]["state"] == "RUNNING";
    until("the job does not run", runs).await;
    let name = "oracle.jobs.disable";
    let firm = json!({"resource": "orcl", "wait_secs": 0, "stop_running": true});
    range.execute(name, &firm).await.unwrap();
    assert_eq!(range.finding(name, &firm).await, Finding::Satisfied);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_tells_what_would_be_done_and_changes_nothing() {
    let range = Range::start("").await;
    let before = range.world();
    for (name, params) in changes() {
        let cx = range.context();
        let description = action(name).describe(&cx, &params).await.unwrap();
        assert!(!description.would_do.is_empty(), "{name} {params}");
        assert_eq!(description.obstacles, Vec::<String>::new(), "{name}");
    }
    assert_eq!(range.world(), before);
    let cx = range.context();
    let params = json!({"resource": "orcl", "schemas": ["SHOP"]});
    let description = action("oracle.triggers.disable")
        .describe(&cx, &params)
        .await
        .unwrap();
    assert_eq!(
        description.would_do,
        [
            "ALTER TRIGGER \"SHOP\".\"ORDERS_AUDIT_TRG\" DISABLE",
            "ALTER TRIGGER \"SHOP\".\"orders upper\" DISABLE",
        ]
    );
    assert!(description.remarks[0].contains("SHOP.ORDERS_OLD_TRG is disabled already"));
}
