//! Requests whose agents connect and disconnect meanwhile.

mod disk;
mod identity;

use super::Driver;
use crate::agents::{AgentMessage, Introduction, ToAgent};
use crate::handle::{AgentReport, Answer, Handle, RequestErrorKind, RequestedVerb, VerbRequest};
use crate::plans::CheckedPlan;
use crate::preflights::TaskFinding;
use crate::store::{Store, StoreError};
use lockstep_api::{Code, Diagnosis, RunUpdate};
use lockstep_barrier::coordinator::VerbAction;
use lockstep_barrier::ids::{AgentName, Term};
use lockstep_barrier::message::AgentState;
use lockstep_plan::Overrides;
use lockstep_plan::model::Kind;
use std::collections::BTreeMap;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;

const PLAN: &str = "
kind: Plan
name: look
parties: { apps: { labels: { role: app }, expected: 1 } }
phases:
  - name: one
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
";

fn plan() -> CheckedPlan {
    let plan = lockstep_plan::load("look.yaml", PLAN, &Overrides::default()).unwrap();
    CheckedPlan::check(&plan.to_json(), &plan.digest().to_string(), PLAN).unwrap()
}

/// Such a plan as if it were a cutover's, which is probed before it starts.
fn cutover() -> CheckedPlan {
    let mut plan = lockstep_plan::load("look.yaml", PLAN, &Overrides::default()).unwrap();
    plan.kind = Kind::Cutover;
    CheckedPlan::trusted(plan, PLAN)
}

type Orders = mpsc::Receiver<ToAgent>;

/// The one agent's session of that number, and the messages sent on it.
async fn connect(handle: &Handle, session_number: u64) -> (u64, Orders) {
    connect_as(handle, "app-1", "app", session_number).await
}

async fn connect_as(
    handle: &Handle,
    agent: &str,
    role: &str,
    session_number: u64,
) -> (u64, Orders) {
    open(handle, introduction(agent, role, session_number))
        .await
        .unwrap()
}

fn introduction(agent: &str, role: &str, session_number: u64) -> Introduction {
    Introduction {
        state: AgentState {
            agent: agent.into(),
            journal: format!("j-{agent}").as_str().into(),
            term: Term::default(),
            run: None,
            decision: 0,
            release_age: None,
            release_ages: BTreeMap::new(),
        },
        machine: String::new(),
        boot: String::new(),
        session_number,
        version: String::new(),
        labels: [("role".to_owned(), role.to_owned())].into(),
        allowed_actions: vec!["command.run".to_owned()],
        journal_position: session_number,
        journal_disowned: false,
    }
}

/// Opens a session; gives its number, and the messages behind its Welcome.
async fn open(handle: &Handle, introduction: Introduction) -> Answer<(u64, Orders)> {
    let (outbox, mut orders) = mpsc::channel(16);
    let address = "127.0.0.1:1".to_owned();
    let session = handle.open_session(introduction, address, outbox).await?;
    let first = orders.recv().await.unwrap();
    assert!(matches!(first.message, AgentMessage::Welcome(_)));
    Ok((session, orders))
}

fn leading(state: &std::path::Path) -> Handle {
    leads(state, false).0
}

/// A coordinator that leads, and the task of its loop.
fn leads(state: &std::path::Path, take_over: bool) -> (Handle, JoinHandle<Result<(), StoreError>>) {
    let store = Store::open(state).unwrap();
    let (driver, handle) = Driver::start("c1".to_owned(), store, take_over).unwrap();
    (handle, tokio::spawn(driver.run()))
}

fn start(handle: &Handle, request: &str, plan: CheckedPlan) -> JoinHandle<Answer<String>> {
    let (handle, request) = (handle.clone(), request.to_owned());
    tokio::spawn(async move { handle.start_run(plan, request, "ana".to_owned()).await })
}

/// The request id of the preflight that the agent is ordered next.
async fn preflight_order(orders: &mut Orders) -> String {
    let message = orders.recv().await.unwrap().message;
    let AgentMessage::Preflight { request, .. } = message else {
        unreachable!("expected a preflight, got {message:?}");
    };
    request
}

async fn report(handle: &Handle, session: u64, request: String, obstacles: &[&str]) {
    let finding = TaskFinding {
        step: "first".to_owned(),
        obstacles: obstacles.iter().map(|&text| text.to_owned()).collect(),
        ..TaskFinding::default()
    };
    let findings = vec![finding];
    let report = AgentReport::Preflight { request, findings };
    handle.report("app-1".into(), session, report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_preflight_ends_with_the_session_that_was_asked() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (old, _orders) = connect(&handle, 1).await;
    let (answers, mut parts) = mpsc::channel(4);
    handle.preflight(plan(), answers).await.unwrap();
    let (_, _orders) = connect(&handle, 2).await;
    handle.close_session(AgentName::from("app-1"), old).await;
    let part = parts.recv().await.unwrap();
    assert!(part.obstacles[0].contains("LS4301"), "{part:?}");
    assert!(parts.recv().await.is_none(), "nobody else was asked");
}

#[tokio::test(flavor = "multi_thread")]
async fn requests_without_an_id_are_not_the_same_one() {
    for (request, same) in [("", false), ("r1", true)] {
        let state = tempfile::tempdir().unwrap();
        let handle = leading(state.path());
        let (_, _orders) = connect(&handle, 1).await;
        let first = start(&handle, request, plan()).await.unwrap().unwrap();
        let again = start(&handle, request, plan()).await.unwrap();
        if same {
            assert_eq!(again.unwrap(), first);
            let other = start(&handle, request, cutover()).await.unwrap();
            assert_eq!(other.unwrap_err().diagnosis.code, Code::LS4317);
        } else {
            // Its agent is in the first run.
            assert_eq!(again.unwrap_err().diagnosis.code, Code::LS4302);
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_starts_once_every_agent_has_reported_without_obstacles() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (session, mut orders) = connect(&handle, 1).await;
    let first = start(&handle, "r1", cutover());
    let request = preflight_order(&mut orders).await;
    let again = start(&handle, "r1", cutover());
    let other = start(&handle, "r1", plan()).await.unwrap().unwrap_err();
    assert_eq!(other.diagnosis.code, Code::LS4317);
    assert!(handle.list(9).await.unwrap().is_empty(), "not started yet");
    report(&handle, session, request, &[]).await;
    let run = first.await.unwrap().unwrap();
    assert_eq!(again.await.unwrap().unwrap(), run);
    assert_eq!(handle.list(9).await.unwrap().len(), 1);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_with_an_obstacle_is_refused_and_may_be_submitted_again() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (session, mut orders) = connect(&handle, 1).await;
    let first = start(&handle, "r1", cutover());
    let request = preflight_order(&mut orders).await;
    report(&handle, session, request, &["no such account"]).await;
    let error = first.await.unwrap().unwrap_err();
    assert_eq!(error.kind, RequestErrorKind::Precondition);
    let what = "obstacles prevent this plan: app-1 first: no such account";
    let expected = Diagnosis::new(Code::LS4316, what)
        .state_left("nothing was started")
        .remedy("see all of them with `lockstep preflight`");
    assert_eq!(error.diagnosis, expected);
    let second = start(&handle, "r1", cutover());
    let request = preflight_order(&mut orders).await;
    report(&handle, session, request, &[]).await;
    second.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_cutover_whose_operator_disconnected_is_not_started() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (session, mut orders) = connect(&handle, 1).await;
    let operator = start(&handle, "r1", cutover());
    let request = preflight_order(&mut orders).await;
    operator.abort();
    assert!(operator.await.unwrap_err().is_cancelled());
    report(&handle, session, request, &[]).await;
    assert!(handle.list(9).await.unwrap().is_empty());
}

fn abort(run: &str) -> VerbRequest {
    VerbRequest {
        run: run.to_owned(),
        request: "v1".to_owned(),
        by: "ana".to_owned(),
        reason: Some("a test".to_owned()),
        expected: None,
        action: RequestedVerb::Other(VerbAction::Abort),
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_latest_run_is_one_that_has_not_ended() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (_, _orders) = connect(&handle, 1).await;
    let (_, _others) = connect_as(&handle, "db-1", "db", 1).await;
    let first = start(&handle, "r1", plan()).await.unwrap().unwrap();
    let text = PLAN.replace("role: app", "role: db");
    let other = lockstep_plan::load("look.yaml", &text, &Overrides::default()).unwrap();
    let second = start(&handle, "r2", CheckedPlan::trusted(other, &text));
    let second = second.await.unwrap().unwrap();
    assert_eq!(handle.get(String::new()).await.unwrap().id, second);
    handle.verb(abort(&second)).await.unwrap();
    assert_eq!(handle.get(String::new()).await.unwrap().id, first);
    handle.verb(abort(&first)).await.unwrap();
    assert_eq!(handle.get(String::new()).await.unwrap().id, second);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_lost_agent_of_a_run_is_reported_to_its_watchers() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (session, _orders) = connect(&handle, 1).await;
    let run = start(&handle, "r1", plan()).await.unwrap().unwrap();
    let mut watched = handle.watch(run, 0).await.unwrap();
    handle.close_session("app-1".into(), session).await;
    let (_, _again) = connect(&handle, 2).await;
    let mut connections = Vec::new();
    while connections.len() < 2 {
        if let RunUpdate::Connection { connection } = watched.updates.recv().await.unwrap() {
            assert!(connection.at.is_some());
            connections.push((connection.agent, connection.connected));
        }
    }
    assert_eq!(
        connections,
        [("app-1".to_owned(), false), ("app-1".to_owned(), true)]
    );
}
