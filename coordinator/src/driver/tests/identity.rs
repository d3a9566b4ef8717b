//! Which agents are admitted, and which of them fence which run.

use super::super::Driver;
use super::super::admission::Opening;
use super::{Orders, PLAN, abort, connect, connect_as, introduction, leading, leads, open, start};
use crate::agents::{AgentMessage, Introduction};
use crate::handle::{AgentReport, Answer, Handle, Progress, RequestedVerb, VerbRequest};
use crate::plans::CheckedPlan;
use crate::store::Store;
use lockstep_api::{Code, LineKind, RunUpdate};
use lockstep_barrier::coordinator::{VerbAction, Wait};
use lockstep_barrier::ids::{RunId, Term};
use lockstep_barrier::message::{Order, Reply};
use lockstep_plan::Overrides;
use tokio::sync::{mpsc, oneshot};

const FOREIGN: u64 = 0xf0;

/// An agent that has accepted this term of another coordinator.
fn foreign(agent: &str, role: &str, session_number: u64, number: u64) -> Introduction {
    let mut introduction = introduction(agent, role, session_number);
    introduction.state.term = Term {
        number,
        incarnation: FOREIGN,
    };
    introduction
}

/// The same plan for the agents with another label.
fn plan_for(role: &str) -> CheckedPlan {
    let text = PLAN.replace("role: app", &format!("role: {role}"));
    let plan = lockstep_plan::load("look.yaml", &text, &Overrides::default()).unwrap();
    CheckedPlan::trusted(plan, &text)
}

async fn started(handle: &Handle, request: &str, role: &str) -> String {
    let run = start(handle, request, plan_for(role)).await.unwrap();
    run.unwrap()
}

fn verb(run: &str, request: &str, action: VerbAction) -> VerbRequest {
    VerbRequest {
        request: request.to_owned(),
        action: RequestedVerb::Other(action),
        ..abort(run)
    }
}

async fn next_order(orders: &mut Orders) -> Order {
    loop {
        let message = orders.recv().await.expect("the session is open").message;
        if let AgentMessage::Order(order) = message {
            return order;
        }
    }
}

async fn closed(handle: &Handle, agent: &str, session: u64, run: &str) {
    let report = AgentReport::Reply {
        reply: Reply::Closed { run: run.into() },
        place: (0, String::new()),
    };
    handle.report(agent.into(), session, report).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_of_no_run_fences_nothing() {
    let lost_run = {
        let mut introduction = foreign("stray-2", "other", 1, 1);
        introduction.state.run = Some(RunId::from("run-of-another"));
        introduction
    };
    for stray in [
        foreign("stray-1", "other", 1, 1),
        foreign("stray-3", "other", 1, 7),
        lost_run,
    ] {
        let state = tempfile::tempdir().unwrap();
        let handle = leading(state.path());
        let (_, _orders) = connect(&handle, 1).await;
        let run = started(&handle, "r1", "app").await;
        let (_, _strays) = open(&handle, stray.clone()).await.expect("it is admitted");
        let waits = handle.get(run.clone()).await.unwrap().waits_on;
        assert!(!waits.is_empty() && !format!("{waits:?}").contains("take-over"));
        handle.verb(abort(&run)).await.expect("no run is fenced");
        let refused = start(&handle, "r2", plan_for("other")).await.unwrap();
        let what = refused
            .expect_err("it obeys another coordinator")
            .to_string();
        assert!(
            what.contains("LS4204") && what.contains("--take-over"),
            "{what}"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_term_that_an_agent_reports_uses_up_the_counter() {
    for take_over in [false, true] {
        for number in [u64::MAX, u64::MAX - 1, 1 << 40] {
            let state = tempfile::tempdir().unwrap();
            let (handle, looping) = leads(state.path(), take_over);
            let (_, _orders) = connect(&handle, 1).await;
            let run = started(&handle, "r1", "app").await;
            for (agent, role) in [("app-1", "app"), ("stray-1", "other")] {
                let refused = open(&handle, foreign(agent, role, 2, number)).await;
                let refused = refused.expect_err("no coordinator has started that often");
                assert_eq!(refused.diagnosis.code, Code::LS4211);
            }
            handle
                .verb(abort(&run))
                .await
                .expect("the run isn't fenced");
            handle.stop().await;
            looping.await.unwrap().unwrap();
            let (handle, _) = leads(state.path(), false);
            assert_eq!(
                handle.list(9).await.unwrap().len(),
                1,
                "the journal can be opened"
            );
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn no_decision_that_a_member_reports_uses_up_the_counter() {
    let state = tempfile::tempdir().unwrap();
    let (handle, looping) = leads(state.path(), true);
    let (_, _orders) = connect(&handle, 1).await;
    let run = started(&handle, "r1", "app").await;
    let mut absurd = foreign("app-1", "app", 2, 1);
    absurd.state.run = Some(RunId(run.clone()));
    absurd.state.decision = u64::MAX;
    let refused = open(&handle, absurd)
        .await
        .expect_err("no run decides that often");
    assert_eq!(refused.diagnosis.code, Code::LS4211);
    handle.stop().await;
    looping.await.unwrap().unwrap();
    let (handle, _) = leads(state.path(), false);
    handle.verb(abort(&run)).await.expect("it can still decide");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_member_that_follows_another_coordinator_fences_its_own_run_only() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (session, _orders) = connect(&handle, 1).await;
    let (_, _others) = connect_as(&handle, "db-1", "db", 1).await;
    let (_, _third) = connect_as(&handle, "web-1", "web", 1).await;
    let fenced = started(&handle, "r1", "app").await;
    let other = started(&handle, "r2", "db").await;
    handle.close_session("app-1".into(), session).await;
    let (_, mut orders) = open(&handle, foreign("app-1", "app", 2, 1)).await.unwrap();
    let refused = handle.verb(abort(&fenced)).await.unwrap_err().to_string();
    assert!(refused.contains("--take-over"), "{refused}");
    let status = handle.get(fenced.clone()).await.unwrap();
    assert!(
        format!("{:?}", status.waits_on).contains("take"),
        "{:?}",
        status.waits_on
    );
    assert!(orders.try_recv().is_err(), "a fenced run sends no orders");
    let pause = verb(&fenced, "v2", VerbAction::Pause);
    handle.verb(pause).await.expect("a pause only restrains");
    handle
        .verb(verb(&other, "v3", VerbAction::Abort))
        .await
        .expect("another run");
    started(&handle, "r3", "web").await;
}

#[tokio::test(flavor = "multi_thread")]
async fn the_loop_waits_for_no_deadline_of_a_fenced_run() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let (mut driver, _handle) = Driver::start("c1".to_owned(), store, false).unwrap();
    let (outbox, _orders) = mpsc::channel(16);
    let (reply, _answer) = oneshot::channel();
    let opening = Opening {
        introduction: introduction("app-1", "app", 1),
        address: "127.0.0.1:1".to_owned(),
        outbox,
        reply,
    };
    driver.open_session(opening).unwrap();
    let run = driver.begin(&plan_for("app"), "r1".to_owned(), "ana".to_owned());
    let run = RunId(run.unwrap());
    assert!(driver.next_deadline().is_some(), "of the votes");
    let follows = foreign("app-1", "app", 2, 1).state;
    driver.connected(&follows, true);
    driver.flush().unwrap();
    let waits = driver.runs[&run].live().unwrap().waits_on();
    assert!(matches!(waits[..], [Wait::TakeOver { .. }]), "{waits:?}");
    assert_eq!(driver.next_deadline(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_once_followed_another_coordinator_may_take_part_under_a_higher_term() {
    let state = tempfile::tempdir().unwrap();
    let (handle, looping) = leads(state.path(), false);
    handle.stop().await;
    looping.await.unwrap().unwrap();
    let handle = leading(state.path());
    let (session, _orders) = open(&handle, foreign("app-1", "app", 1, 1)).await.unwrap();
    let run = started(&handle, "r1", "app").await;
    // Its session breaks before an order has reached it.
    handle.close_session("app-1".into(), session).await;
    let (_, mut orders) = open(&handle, foreign("app-1", "app", 2, 1)).await.unwrap();
    assert!(matches!(
        next_order(&mut orders).await,
        Order::Prepare { .. }
    ));
    handle
        .verb(abort(&run))
        .await
        .expect("the run isn't fenced");
}

#[tokio::test(flavor = "multi_thread")]
async fn an_agent_that_is_back_with_the_lock_of_a_closed_run_is_freed() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (session, _orders) = connect(&handle, 1).await;
    let run = started(&handle, "r1", "app").await;
    handle.verb(abort(&run)).await.unwrap();
    closed(&handle, "app-1", session, &run).await;
    handle.close_session("app-1".into(), session).await;
    let mut restored = introduction("app-1", "app", 2);
    restored.state.run = Some(RunId(run.clone()));
    restored.state.decision = 90;
    let (session, mut orders) = open(&handle, restored).await.unwrap();
    let locked = |agents: Vec<lockstep_api::AgentStatus>| agents[0].run.clone();
    assert_eq!(locked(handle.agents().await.unwrap()), Some(run.clone()));
    let order = next_order(&mut orders).await;
    assert!(
        matches!(&order, Order::Close { run: closed, decision, .. } if closed.0 == run && *decision >= 90),
        "{order:?}"
    );
    closed(&handle, "app-1", session, &run).await;
    assert_eq!(locked(handle.agents().await.unwrap()), None);
    started(&handle, "r2", "app").await;
}

/// The agent's session from a boot of its machine.
fn on_boot(boot: &str, session_number: u64) -> Introduction {
    Introduction {
        machine: "m1".to_owned(),
        boot: boot.to_owned(),
        ..introduction("app-1", "app", session_number)
    }
}

/// Opens a session while the open one, as long as there is one, answers pings.
async fn open_beside(
    handle: &Handle,
    introduction: Introduction,
    session: u64,
    orders: &mut Orders,
) -> Answer<(u64, Orders)> {
    let opening = open(handle, introduction);
    tokio::pin!(opening);
    loop {
        tokio::select! {
            opened = &mut opening => return opened,
            Some(message) = orders.recv() => {
                assert!(matches!(message.message, AgentMessage::Ping), "{message:?}");
                handle.report("app-1".into(), session, AgentReport::Alive).await;
            }
        }
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_clone_is_refused_while_its_original_answers_and_the_original_stays() {
    // The clone was booted after the original, or runs a copy of the state
    // directory on the same machine.
    for boot in ["b2", "b1"] {
        let state = tempfile::tempdir().unwrap();
        let handle = leading(state.path());
        let (original, mut orders) = open(&handle, on_boot("b1", 1)).await.unwrap();
        let clone = open_beside(&handle, on_boot(boot, 2), original, &mut orders).await;
        let refused = clone.expect_err("the original still answers");
        assert_eq!(refused.diagnosis.code, Code::LS4209);
        started(&handle, "r1", "app").await;
        let order = next_order(&mut orders).await;
        assert!(matches!(order, Order::Prepare { .. }), "{order:?}");
        let status = handle.agents().await.unwrap();
        assert!(
            status[0].connected && status[0].quarantine.is_some(),
            "{status:?}"
        );
        let accepted = handle.accept("app-1".into(), "ana".into(), "stopped it".into());
        assert!(
            accepted.await.unwrap().connected,
            "it is the original that is accepted"
        );
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn the_original_of_a_quarantined_clone_may_come_back() {
    let state = tempfile::tempdir().unwrap();
    let (handle, looping) = leads(state.path(), false);
    let (original, mut orders) = open(&handle, on_boot("b1", 1)).await.unwrap();
    let clone = open_beside(&handle, on_boot("b2", 2), original, &mut orders).await;
    assert!(clone.is_err());
    handle.close_session("app-1".into(), original).await;
    for again in [3, 4] {
        let refused = open(&handle, on_boot("b2", again))
            .await
            .expect_err("the clone");
        assert_eq!(refused.diagnosis.code, Code::LS4202);
    }
    let (original, _orders) = open(&handle, on_boot("b1", 2)).await.expect("the original");
    handle.close_session("app-1".into(), original).await;
    handle.stop().await;
    looping.await.unwrap().unwrap();
    // A restarted coordinator knows which one is which, too.
    let handle = leading(state.path());
    assert!(open(&handle, on_boot("b2", 5)).await.is_err(), "the clone");
    open(&handle, on_boot("b1", 3)).await.expect("the original");
}

#[tokio::test(flavor = "multi_thread")]
async fn a_booted_machine_replaces_its_session_once_that_is_dead() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (_, silent) = open(&handle, on_boot("b1", 1)).await.unwrap();
    let (second, orders) = open(&handle, on_boot("b2", 2))
        .await
        .expect("nothing answers");
    drop(silent);
    let closing = async {
        handle.close_session("app-1".into(), second).await;
        drop(orders);
    };
    let (third, ()) = tokio::join!(open(&handle, on_boot("b3", 3)), closing);
    third.expect("it is closed");
}

#[tokio::test(flavor = "multi_thread")]
async fn only_members_of_a_run_report_progress_for_it() {
    let state = tempfile::tempdir().unwrap();
    let handle = leading(state.path());
    let (member, _orders) = connect(&handle, 1).await;
    let (stray, _others) = connect_as(&handle, "stray-1", "other", 1).await;
    let run = started(&handle, "r1", "app").await;
    let mut watched = handle.watch(run.clone(), 0).await.unwrap();
    for (agent, session) in [("stray-1", stray), ("app-1", member)] {
        let progress = Progress {
            run: RunId(run.clone()),
            phase: None,
            step: "first".to_owned(),
            kind: LineKind::Note,
            line: "all is well".to_owned(),
            omitted: 0,
        };
        let report = AgentReport::Progress(progress);
        handle.report(agent.into(), session, report).await;
    }
    let line = loop {
        if let RunUpdate::Line { line } = watched.updates.recv().await.unwrap() {
            break line;
        }
    };
    assert_eq!(line.agent, "app-1");
}
