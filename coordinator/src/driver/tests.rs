//! Requests whose agents come and go under them.

use super::Driver;
use crate::handle::Handle;
use crate::store::Store;
use lockstep_barrier::ids::AgentName;
use lockstep_plan::Overrides;
use lockstep_proto::v1;
use tokio::sync::mpsc;

const PLAN: &str = "
kind: Plan
name: look
parties: { apps: { labels: { role: app }, expected: 1 } }
phases:
  - name: one
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
";

fn document() -> v1::PlanDocument {
    let plan = lockstep_plan::load("look.yaml", PLAN, &Overrides::default()).unwrap();
    v1::PlanDocument {
        plan_json: plan.to_json(),
        digest: plan.digest().to_string(),
        source: PLAN.to_owned(),
    }
}

type Orders = mpsc::Receiver<Result<v1::SessionResponse, tonic::Status>>;

/// The one agent's session of that number, and what is sent on it.
async fn connect(handle: &Handle, session_number: u64) -> (u64, Orders) {
    let hello = v1::Hello {
        agent: "app-1".into(),
        journal_id: "j1".into(),
        session_number,
        journal_position: session_number,
        labels: [("role".to_owned(), "app".to_owned())].into(),
        allowed_actions: vec!["command.run".to_owned()],
        ..v1::Hello::default()
    };
    let (outbox, orders) = mpsc::channel(16);
    let address = "127.0.0.1:1".to_owned();
    let (session, _) = handle.hello(hello, address, outbox).await.unwrap();
    (session, orders)
}

fn leading(state: &std::path::Path) -> Handle {
    let store = Store::open(state).unwrap();
    let (driver, handle) = Driver::start("c1".to_owned(), store, false).unwrap();
    tokio::spawn(driver.run());
    handle
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_ends_with_the_session_that_was_asked() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (old, _orders) = connect(&handle, 1).await;
    let (answers, mut parts) = mpsc::channel(4);
    handle.preflight(document(), answers).await.unwrap();
    let (_, _orders) = connect(&handle, 2).await;
    handle.agent_gone(AgentName::from("app-1"), old).await;
    let part = parts.recv().await.unwrap().unwrap();
    assert!(part.obstacles[0].contains("LS4301"), "{part:?}");
    assert!(parts.recv().await.is_none(), "nobody else was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_an_id_are_not_the_same_one() {
    for (request, same) in [("", false), ("r1", true)] {
        let state = tempfile::tempdir().unwrap();
        let handle = leading(state.path());
        let (_, _orders) = connect(&handle, 1).await;
        let by = "ana".to_owned();
        let begun = handle.start(document(), request.to_owned(), by).await;
        let begun = begun.unwrap();
        let known = handle.started(request.to_owned()).await.unwrap();
        assert_eq!(known, same.then_some(begun), "{request:?}");
    }
}
