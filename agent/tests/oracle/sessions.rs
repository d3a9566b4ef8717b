//! Sessions: killed until none comes back, drained, and this product's own
//! ones when they are cancelled or killed.

use crate::range::{Range, action, shop, until};
use lockstep_agent::host::oracle::OracleError;
use lockstep_api::Code;
use serde_json::{Value, json};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

/// A pool that connects again at once, whatever happens to its session.
struct Pool {
    stopping: Arc<AtomicBool>,
    logins: Arc<AtomicU32>,
    thread: Option<JoinHandle<()>>,
}

impl Pool {
    fn start(connect_string: String) -> Self {
        let (stopping, logins) = (
            Arc::new(AtomicBool::new(false)),
            Arc::new(AtomicU32::new(0)),
        );
        let (stop, count) = (stopping.clone(), logins.clone());
        let thread = std::thread::spawn(move || {
            while !stop.load(Ordering::SeqCst) {
                if let Ok(connection) = shop(&connect_string) {
                    count.fetch_add(1, Ordering::SeqCst);
                    while !stop.load(Ordering::SeqCst) && connection.ping().is_ok() {
                        std::thread::sleep(Duration::from_millis(5));
                    }
                }
                std::thread::sleep(Duration::from_millis(5));
            }
        });
        Self {
            stopping,
            logins,
            thread: Some(thread),
        }
    }

    fn logins(&self) -> u32 {
        self.logins.load(Ordering::SeqCst)
    }
}

impl Drop for Pool {
    fn drop(&mut self) {
        self.stopping.store(true, Ordering::SeqCst);
        if let Some(thread) = self.thread.take() {
            thread.join().unwrap();
        }
    }
}

fn kill(timeout_secs: u64) -> Value {
    json!({
        "resource": "orcl",
        "exempt": {"users": ["DMS_USER"], "machines": []},
        "stable_secs": 1,
        "timeout_secs": timeout_secs,
    })
}

fn users(range: &Range) -> Vec<String> {
    let seen = range.observe();
    let sessions = seen["sessions"].as_array().unwrap();
    sessions
        .iter()
        .filter(|session| session["status"] != "KILLED")
        .map(|session| session["user"].as_str().unwrap_or("").to_owned())
        .collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn killing_before_the_doors_are_closed_never_ends() {
    let range = Range::start("").await;
    range.sys().await;
    let pool = Pool::start(range.listener());
    let second = Pool::start(range.second_listener());
    until("the pools don't connect", || {
        pool.logins() > 0 && second.logins() > 0
    })
    .await;
    let error = range
        .execute("oracle.sessions.kill", &kill(3))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2240, "{}", error.report());
    assert!(pool.logins() > 1, "it came back");
}

#[tokio::test(flavor = "multi_thread")]
async fn with_closed_doors_nobody_comes_back_and_dms_stays() {
    let range = Range::start("").await;
    range.sys().await;
    let pool = Pool::start(range.listener());
    let second = Pool::start(range.second_listener());
    let writer = shop(&range.second_listener()).unwrap();
    writer
        .execute("INSERT INTO SHOP.ORDERS (ID) VALUES (1)", &[])
        .unwrap();
    let dms = oracle::Connection::connect("dms_user", "dms", range.listener()).unwrap();
    until("the pools don't connect", || {
        pool.logins() > 0 && second.logins() > 0
    })
    .await;

    let accounts = json!({"resource": "orcl", "accounts": ["SHOP"]});
    range
        .execute("oracle.accounts.lock", &accounts)
        .await
        .unwrap();
    let outputs = range
        .execute("oracle.sessions.kill", &kill(60))
        .await
        .unwrap();
    assert!(outputs["killed"].as_u64().unwrap() >= 3, "{outputs:?}");
    let left = users(&range);
    assert!(!left.contains(&"SHOP".to_owned()), "{left:?}");
    assert!(dms.ping().is_ok(), "DMS is exempt");
    assert!(writer.commit().is_err(), "its session is gone");
    let said = range.said().join("\n");
    assert!(said.contains("of SHOP from"), "{said}");
    let rows: i64 = range
        .sys()
        .await
        .row("SELECT COUNT(*) FROM SHOP.ORDERS", &[])
        .await
        .unwrap();
    assert_eq!(rows, 0, "what was open is rolled back");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_session_that_is_gone_before_its_kill_does_no_harm() {
    let range = Range::start("").await;
    range.sys().await;
    let client = shop("").unwrap();
    range.inject("KILL SESSION", 30, 1);
    let outputs = range
        .execute("oracle.sessions.kill", &kill(60))
        .await
        .unwrap();
    assert_eq!(outputs["killed"], 1, "the second time it was killed");
    assert!(client.ping().is_err());
}

/// The rows of SHOP's sessions, whatever their status.
async fn listed(range: &Range) -> Vec<(String, String)> {
    let query = "SELECT STATUS, SERVER FROM GV$SESSION WHERE USERNAME = 'SHOP'";
    range.sys().await.rows(query, &[]).await.unwrap()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_session_that_its_client_never_uses_again_holds_up_nothing() {
    let range = Range::start("").await;
    range.sys().await;
    let forgotten = shop("").unwrap();
    let outputs = range
        .execute("oracle.sessions.kill", &kill(20))
        .await
        .unwrap();
    assert_eq!(outputs["killed"], 1);
    let row = ("KILLED".to_owned(), "PSEUDO".to_owned());
    assert_eq!(listed(&range).await, [row], "its client doesn't know yet");
    let said = range.said().join("\n");
    assert!(
        said.contains("listed until their clients use them"),
        "{said}"
    );
    let fence = json!({"resource": "orcl", "keep": ["LISTENER", "LISTENER_DMS"],
        "exempt": {"users": ["DMS_USER"], "machines": []}, "window_secs": 1});
    range.execute("oracle.fence.verify", &fence).await.unwrap();
    assert!(forgotten.ping().is_err());
    assert_eq!(listed(&range).await, []);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_killed_session_counts_until_its_transaction_is_rolled_back() {
    let range = Range::start("").await;
    range.sys().await;
    let client = shop("").unwrap();
    client
        .execute("INSERT INTO SHOP.ORDERS (ID) VALUES (1)", &[])
        .unwrap();
    range.control(&json!({"op": "surround", "with": {"slow_rollback": true}}));
    let error = range
        .execute("oracle.sessions.kill", &kill(2))
        .await
        .unwrap_err();
    let story = error.report();
    assert_eq!(error.code(), Code::LS2240, "{story}");
    assert!(story.contains("(killed)"), "{story}");
    assert!(
        story.contains("a transaction is open in the session"),
        "{story}"
    );
    range.control(&json!({"op": "surround", "with": {}}));
    let outputs = range
        .execute("oracle.sessions.kill", &kill(20))
        .await
        .unwrap();
    assert_eq!(outputs["killed"], 0, "it was killed before");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_open_transaction_holds_up_the_kill_though_no_session_is_left() {
    let range = Range::start("").await;
    let sys = crate::unchanged::by_hand();
    sys.execute("INSERT INTO SHOP.ORDERS (ID) VALUES (1)", &[])
        .unwrap();
    for name in ["oracle.sessions.kill", "oracle.sessions.drain"] {
        let error = range.execute(name, &kill(1)).await.unwrap_err();
        let story = error.report();
        assert_eq!(error.code(), Code::LS2240, "{story}");
        assert!(story.contains("transactions are still open"), "{story}");
        assert!(story.contains("of SYS from"), "{story}");
    }
    sys.commit().unwrap();
    range
        .execute("oracle.sessions.kill", &kill(20))
        .await
        .unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_stable_before_the_window_is_over() {
    let range = Range::start("").await;
    range.sys().await;
    let mut params = kill(60);
    params["stable_secs"] = json!(3);
    let began = std::time::Instant::now();
    let drain = range.execute("oracle.sessions.drain", &params);
    let visit = async {
        // Within the window of the first check, after which nobody is there.
        tokio::time::sleep(Duration::from_secs(1)).await;
        let visitor = tokio::task::spawn_blocking(|| shop("").unwrap());
        let visitor = visitor.await.unwrap();
        until("the drain doesn't see the visitor", || {
            let said = range.said();
            said.iter().any(|line| line.contains("1 sessions are left"))
        })
        .await;
        visitor.close().unwrap();
        std::time::Instant::now()
    };
    let (drained, left) = tokio::join!(drain, visit);
    drained.unwrap();
    let window = Duration::from_secs(3);
    assert!(began.elapsed() >= window);
    assert!(left.elapsed() >= window, "the window begins anew");
}

#[tokio::test(flavor = "multi_thread")]
async fn draining_waits_for_those_who_leave_and_kills_nobody() {
    let range = Range::start("").await;
    range.sys().await;
    let client = shop("").unwrap();
    let error = range
        .execute("oracle.sessions.drain", &kill(1))
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2240);
    assert!(client.ping().is_ok());
    let params = kill(60);
    let drain = range.execute("oracle.sessions.drain", &params);
    let leave = async {
        until("the drain doesn't look", || {
            range
                .said()
                .iter()
                .any(|line| line.contains("1 sessions are left"))
        })
        .await;
        client.close().unwrap();
    };
    let (drained, ()) = tokio::join!(drain, leave);
    drained.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cancelled_task_breaks_its_call() {
    let range = Range::start("").await;
    let cx = range.context();
    let sys = lockstep_agent::host::oracle::Session::open(&cx, "orcl")
        .await
        .unwrap();
    let sleep = sys.execute("BEGIN DBMS_SESSION.SLEEP(600); END;", &[]);
    let cancel = async {
        until("the call is not seen", || {
            let seen = range.observe();
            let sessions = seen["sessions"].as_array().unwrap().clone();
            sessions
                .iter()
                .any(|s| s["module"] == "lockstep" && s["status"] == "ACTIVE")
        })
        .await;
        cx.cancel.cancel();
    };
    let (ended, ()) = tokio::join!(sleep, cancel);
    assert!(
        matches!(ended, Err(OracleError::Broken { .. })),
        "{ended:?}"
    );
    let params = json!({"resource": "orcl"});
    let late = action("oracle.logins.restrict").execute(&cx, &params, None);
    assert_eq!(
        late.await.unwrap_err().code(),
        Code::LS2206,
        "nothing is begun after it"
    );
    assert_eq!(range.observe()["instances"][0]["restricted"], false);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_query_outlives_its_session_and_a_change_does_not() {
    let range = Range::start("").await;
    let (mine, other) = (range.sys().await, range.sys().await);
    let who = "SELECT SYS_CONTEXT('USERENV', 'SID') || ',' || s.SERIAL# FROM V$SESSION s \
               WHERE s.SID = SYS_CONTEXT('USERENV', 'SID')";
    for changes in [false, true] {
        let id: String = mine.row(who, &[]).await.unwrap();
        let kill = format!("ALTER SYSTEM KILL SESSION '{id}' IMMEDIATE");
        other.execute(&kill, &[]).await.unwrap();
        if changes {
            let error = mine
                .execute("ALTER SYSTEM CHECKPOINT", &[])
                .await
                .unwrap_err();
            assert!(matches!(error, OracleError::Dead { .. }), "{error}");
        }
        let again: String = mine.row(who, &[]).await.unwrap();
        assert_ne!(again, id);
    }
}
