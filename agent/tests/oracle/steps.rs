//! Several steps of one kind in one plan: each restores what it has changed,
//! and no other.

use crate::range::{Range, action};
use lockstep_agent::action::Undone;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};

/// Further users and a schema of its own.
const CRM: &str = r#"
CREATE USER CRM IDENTIFIED BY crm;
GRANT CONNECT, RESOURCE TO CRM;
CREATE TABLE CRM.CALLS (ID NUMBER(18) PRIMARY KEY);
CREATE TRIGGER CRM.CALLS_TRG BEFORE INSERT ON CRM.CALLS FOR EACH ROW
BEGIN
  NULL;
END;
/
"#;

fn pairs() -> [(&'static str, &'static str, Value, Value); 2] {
    [
        (
            "oracle.accounts.lock",
            "oracle.accounts.restore",
            json!({"resource": "orcl", "accounts": ["SHOP", "BATCH"]}),
            json!({"resource": "orcl", "accounts": ["CRM"]}),
        ),
        (
            "oracle.triggers.disable",
            "oracle.triggers.restore",
            json!({"resource": "orcl", "schemas": ["SHOP"]}),
            json!({"resource": "orcl", "schemas": ["CRM"]}),
        ),
    ]
}

#[tokio::test(flavor = "multi_thread")]
async fn two_steps_of_a_kind_each_restore_what_they_captured() {
    let range = Range::start(CRM).await;
    for (close, restore, first, second) in pairs() {
        let before = range.world();
        for (step, params) in [("first", &first), ("second", &second)] {
            let cx = range.context_at(step, None);
            action(close).execute(&cx, params, None).await.unwrap();
        }
        let later = range.context_of("6f0c3c1e-0000-7000-8000-000000000002");
        for params in [&first, &second] {
            let found = action(restore).probe(&later, params).await.unwrap();
            assert_eq!(found.finding, Finding::Pending, "{restore} {params}");
            assert_ne!(range.world(), before);
            let done = action(restore).execute(&later, params, None).await;
            done.unwrap_or_else(|e| panic!("{restore} {params}: {}", e.report()));
        }
        assert_eq!(range.world(), before, "{restore}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_undo_of_one_step_leaves_what_the_other_keeps() {
    let range = Range::start(CRM).await;
    for (close, restore, first, second) in pairs() {
        let before = range.world();
        let mut before_images = Vec::new();
        for (step, params) in [("first", &first), ("second", &second)] {
            let cx = range.context_at(step, None);
            let probe = action(close).probe(&cx, params).await.unwrap();
            before_images.push(probe.before_image.unwrap());
            action(close).execute(&cx, params, None).await.unwrap();
        }
        let undo = range.context_at("undo-second", Some("second"));
        let undone = action(close).undo(&undo, &second, &before_images[1]).await;
        assert_eq!(undone.unwrap(), Undone::Restored, "{close}");
        let later = range.context_of("6f0c3c1e-0000-7000-8000-000000000002");
        action(restore).execute(&later, &first, None).await.unwrap();
        assert_eq!(range.world(), before, "{restore}");
        let gone = action(restore).execute(&later, &second, None).await;
        assert_eq!(gone.unwrap_err().code(), Code::LS2209, "{restore}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn of_a_value_of_the_whole_instance_the_first_state_found_is_restored() {
    let range = Range::start("").await;
    let before = range.world();
    let params = json!({"resource": "orcl"});
    for step in ["first", "second"] {
        let cx = range.context_at(step, None);
        let disable = action("oracle.jobs.disable");
        disable.execute(&cx, &params, None).await.unwrap();
    }
    assert_ne!(range.world(), before);
    range.execute("oracle.jobs.restore", &params).await.unwrap();
    assert_eq!(range.world(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_an_older_agent_has_kept_is_restored() {
    let range = Range::start("").await;
    let before = range.world();
    let params = json!({"resource": "orcl", "accounts": ["SHOP", "BATCH"]});
    range
        .execute("oracle.accounts.lock", &params)
        .await
        .unwrap();
    let path = range.directory().join("kept/oracle-accounts.orcl.json");
    let old = json!({"run": "r", "value": {"SHOP": "OPEN", "BATCH": "LOCKED"}});
    std::fs::write(&path, old.to_string()).unwrap();
    range
        .execute("oracle.accounts.restore", &params)
        .await
        .unwrap();
    assert_eq!(range.world(), before);
    assert!(!path.exists());
}

#[tokio::test(flavor = "multi_thread")]
async fn a_misspelt_schema_or_account_is_refused() {
    let range = Range::start("").await;
    let cx = range.context_at("first", None);
    for (name, params, code) in [
        (
            "oracle.triggers.disable",
            json!({"resource": "orcl", "schemas": ["SHOPP"]}),
            Code::LS2217,
        ),
        (
            "oracle.triggers.disable",
            json!({"resource": "orcl", "schemas": ["SHOP", "shop"]}),
            Code::LS2217,
        ),
        (
            "oracle.accounts.lock",
            json!({"resource": "orcl", "accounts": ["SHOPP"]}),
            Code::LS2220,
        ),
        (
            "oracle.freeze.persist",
            json!({"resource": "orcl", "accounts": ["SHOPP"]}),
            Code::LS2220,
        ),
    ] {
        let error = action(name).probe(&cx, &params).await.unwrap_err();
        assert_eq!(error.code(), code, "{name} {params}: {}", error.report());
        let error = action(name).execute(&cx, &params, None).await.unwrap_err();
        assert_eq!(error.code(), code, "{name} {params}: {}", error.report());
    }
}
