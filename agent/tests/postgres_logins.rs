//! Idle PostgreSQL logins between tasks: the state in which the next task finds one,
//! and when a login is closed instead.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_agent::action::Context;
use lockstep_agent::host::postgres::Session;
use serde_json::json;
use std::time::Duration;

mod site;
use site::Site;

async fn open(cx: &Context) -> Session {
    Session::open(cx, "shop").await.unwrap()
}

async fn process(session: &Session) -> i32 {
    let row = session.row("SELECT pg_backend_pid()", &[]).await;
    row.unwrap().get(0)
}

async fn setting(session: &Session, name: &str) -> String {
    let row = session.row("SELECT current_setting($1)", &[&name]).await;
    row.unwrap().get(0)
}

#[tokio::test]
async fn the_next_task_gets_the_login_and_nothing_else_of_the_last() {
    let site = Site::new("kept", "CREATE TABLE t (a int)", "").await;
    let first = open(&site.context()).await;
    let reused = process(&first).await;
    let default = setting(&first, "statement_timeout").await;
    first.without_limit().await.unwrap();
    let changes = ["SET LOCAL lock_timeout = 1".to_owned()];
    first.transaction(&changes).await.unwrap();
    drop(first);

    let mut cx = site.context();
    cx.tag.step = "another".to_owned();
    let second = open(&cx).await;
    assert_eq!(process(&second).await, reused);
    assert_eq!(setting(&second, "statement_timeout").await, default);
    assert_eq!(setting(&second, "lock_timeout").await, "5s");
    let name = setting(&second, "application_name").await;
    assert!(name.ends_with("/another/1"), "{name}");

    let concurrent = open(&site.context()).await;
    assert_ne!(process(&concurrent).await, reused, "one task, one session");
    drop((second, concurrent));
    let proof = Session::anew(&site.context(), "shop").await.unwrap();
    assert_ne!(process(&proof).await, reused, "a login is proved possible");
}

#[tokio::test]
async fn what_may_leave_something_behind_is_not_kept() {
    let site = Site::new("unkept", "CREATE TABLE t (a int)", "").await;
    for what in ["transaction", "error", "abandoned", "cancelled"] {
        let cx = site.context();
        let session = open(&cx).await;
        let used = process(&session).await;
        match what {
            "transaction" => session.run("BEGIN").await.unwrap(),
            "error" => drop(session.row("SELECT 1/0", &[]).await.unwrap_err()),
            "abandoned" => {
                let sleep = session.rows("SELECT pg_sleep(600)", &[]);
                let waited = tokio::time::timeout(Duration::from_millis(100), sleep).await;
                assert!(waited.is_err());
            }
            _ => cx.cancel.cancel(),
        }
        drop(session);
        let next = open(&site.context()).await;
        assert_ne!(process(&next).await, used, "{what}");
        let none = "SELECT pg_current_xact_id_if_assigned() IS NULL";
        assert!(next.row(none, &[]).await.unwrap().get::<_, bool>(0));
        next.run("SELECT 1").await.unwrap();
    }
}

#[tokio::test]
async fn a_login_that_died_while_it_was_kept_is_made_anew() {
    let site = Site::new("died", "CREATE TABLE t (a int)", "").await;
    let session = open(&site.context()).await;
    let reused = process(&session).await;
    drop(session);
    let end = format!("SELECT pg_terminate_backend({reused}, 10000)");
    assert_eq!(site.sql.text(&end).await, "t");
    let session = open(&site.context()).await;
    assert_ne!(process(&session).await, reused);
}

#[tokio::test]
async fn closing_roles_neither_ends_nor_counts_kept_logins() {
    let site = Site::new("aside", "CREATE TABLE t (a int)", "").await;
    let session = open(&site.context()).await;
    let reused = process(&session).await;
    drop(session);
    let roles = json!({"resource": "shop", "roles": ["aside_app"]});
    site.perform_once("postgres.roles.close", &roles).await;
    let session = open(&site.context()).await;
    assert_eq!(process(&session).await, reused);
}
