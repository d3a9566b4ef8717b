//! Idle Oracle logins between tasks: the state in which the next task finds one,
//! and that neither the fence nor sessions.kill treats them as an application's.

use crate::range::{PATIENCE, Range};
use lockstep_agent::host::oracle::Session;
use serde_json::json;
use std::time::Instant;

const WHO: &str = "SELECT SYS_CONTEXT('USERENV', 'SID') || ',' || s.SERIAL# FROM V$SESSION s \
                   WHERE s.SID = SYS_CONTEXT('USERENV', 'SID')";
const ACTION: &str = "SELECT s.ACTION FROM V$SESSION s \
                      WHERE s.SID = SYS_CONTEXT('USERENV', 'SID')";

async fn who(session: &Session) -> String {
    session.row(WHO, &[]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn the_next_task_gets_the_login_under_its_own_name() {
    let range = Range::start("").await;
    let first = range.sys().await;
    let reused = who(&first).await;
    drop(first);
    let mut cx = range.context();
    cx.tag.step = "another".to_owned();
    let second = Session::open(&cx, "orcl").await.unwrap();
    assert_eq!(who(&second).await, reused);
    let action: String = second.row(ACTION, &[]).await.unwrap();
    assert!(action.ends_with("/another/1"), "{action}");

    let concurrent = range.sys().await;
    assert_ne!(who(&concurrent).await, reused, "one task, one session");
    drop((second, concurrent));
    let proof = Session::anew(&range.context(), "orcl").await.unwrap();
    assert_ne!(who(&proof).await, reused, "a login is proved possible");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_transaction_is_kept() {
    let range = Range::start("").await;
    let first = range.sys().await;
    let reused = who(&first).await;
    first
        .execute("INSERT INTO SHOP.ORDERS (ID) VALUES (1)", &[])
        .await
        .unwrap();
    let other = Session::anew(&range.context(), "orcl").await.unwrap();
    let open = async || -> i64 {
        let count = "SELECT COUNT(*) FROM GV$TRANSACTION";
        other.row(count, &[]).await.unwrap()
    };
    assert_eq!(open().await, 1);
    drop(first);
    let deadline = Instant::now() + PATIENCE;
    while open().await > 0 {
        assert!(Instant::now() < deadline, "the transaction stays open");
    }
    // After its rollback it is reused; the rollback runs in the background.
    let second = loop {
        let next = range.sys().await;
        if who(&next).await == reused {
            break next;
        }
        assert!(Instant::now() < deadline, "the login was not reused");
    };
    let rows: i64 = second
        .row("SELECT COUNT(*) FROM SHOP.ORDERS", &[])
        .await
        .unwrap();
    assert_eq!(rows, 0);
}

#[tokio::test(flavor = "multi_thread")]
async fn after_an_error_the_login_is_made_anew() {
    let range = Range::start("").await;
    let first = range.sys().await;
    let used = who(&first).await;
    let wrong = first.execute("ALTER SYSTEM NONSENSE", &[]).await;
    wrong.unwrap_err();
    drop(first);
    assert_ne!(who(&range.sys().await).await, used);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_login_that_died_while_it_was_kept_is_made_anew() {
    let range = Range::start("").await;
    let other = Session::anew(&range.context(), "orcl").await.unwrap();
    let first = Session::anew(&range.context(), "orcl").await.unwrap();
    let reused = who(&first).await;
    drop(first);
    let kill = format!("ALTER SYSTEM KILL SESSION '{reused}' IMMEDIATE");
    other.execute(&kill, &[]).await.unwrap();
    assert_ne!(who(&range.sys().await).await, reused);
}

#[tokio::test(flavor = "multi_thread")]
async fn kept_logins_are_neither_killed_nor_a_breach() {
    let range = Range::start("").await;
    let (first, second) = (range.sys().await, range.sys().await);
    let reused = [who(&first).await, who(&second).await];
    drop((first, second));
    let params = json!({
        "resource": "orcl",
        "exempt": {"users": ["DMS_USER"], "machines": []},
        "stable_secs": 1,
        "timeout_secs": 20,
    });
    let outputs = range.execute("oracle.sessions.kill", &params).await;
    assert_eq!(outputs.unwrap()["killed"], 0);
    let (first, second) = (range.sys().await, range.sys().await);
    for session in [&first, &second] {
        assert!(reused.contains(&who(session).await));
    }
}
