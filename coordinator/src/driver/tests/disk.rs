//! A disk that fails or is full: nothing leaves the coordinator that isn't
//! durable, what belongs together is written together, and an abort can still be
//! recorded.

use super::{Orders, abort, connect, introduction, leads, open, plan, start};
use crate::agents::{AgentMessage, Introduction};
use crate::handle::{AgentReport, Handle, RequestedVerb, VerbRequest};
use crate::store::Store;
use faulty_disk::{Fault, FaultyDisk};
use lockstep_api::{Code, Finding, RunOutcome};
use lockstep_barrier::coordinator::VerbAction;
use lockstep_barrier::ids::RunId;
use lockstep_barrier::message::{Order, Probe, Reply, Verdict};
use std::path::Path;
use std::time::Duration;

/// Kinds of the records of the only run.
fn kinds(state: &Path) -> Vec<String> {
    let store = Store::open(state).unwrap();
    let mut kinds = Vec::new();
    for run in store.runs().unwrap() {
        let entries = store.entries(&run, 0).unwrap();
        kinds.extend(entries.into_iter().map(|stored| stored.kind));
    }
    kinds
}

/// An agent whose journal is at this entry.
fn at(session_number: u64, journal_position: u64) -> Introduction {
    Introduction {
        journal_position,
        ..introduction("app-1", "app", session_number)
    }
}

async fn accept(handle: &Handle) -> bool {
    let accepted = handle.accept("app-1".into(), "ana".into(), "restored".into());
    accepted.await.is_ok()
}

#[tokio::test(flavor = "multi_thread")]
async fn an_acceptance_and_its_consequence_are_written_together() {
    let mut died = 0;
    for nth in 1.. {
        let state = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(state.path());
        let (handle, looping) = leads(state.path(), false);
        let (session, _orders) = open(&handle, at(1, 50)).await.unwrap();
        start(&handle, "r1", plan()).await.unwrap().unwrap();
        handle.close_session("app-1".into(), session).await;
        let refused = open(&handle, at(2, 20))
            .await
            .expect_err("it has gone back");
        assert_eq!(refused.diagnosis.code, Code::LS4202);
        disk.fail_from(nth, Fault::InputOutput);
        let accepted = accept(&handle).await;
        disk.repair();
        handle.stop().await;
        let ended = looping.await.unwrap();
        assert_eq!(ended.is_ok(), accepted, "write {nth}: {ended:?}");
        let lost = kinds(state.path()).contains(&"journal-lost".to_owned());
        let known = Store::open(state.path()).unwrap().agents().unwrap();
        let admitted = known.accepted_at.contains_key("app-1");
        assert_eq!(admitted, lost, "write {nth}");
        if accepted {
            assert!(admitted && lost);
            break;
        }
        died += 1;
    }
    assert!(died > 1, "only {died} writes failed");
}

async fn vote(handle: &Handle, session: u64, orders: &mut Orders) -> bool {
    while let Some(message) = orders.recv().await {
        let AgentMessage::Order(Order::Prepare { header, tasks, .. }) = message.message else {
            continue;
        };
        let probe = Probe {
            finding: Finding::Pending,
            before_image: None,
        };
        let ready = Verdict::Ready {
            probes: tasks
                .into_iter()
                .map(|task| (task.step, probe.clone()))
                .collect(),
        };
        let reply = Reply::Vote {
            run: header.run,
            phase: header.phase,
            attempt: header.attempt,
            term: header.term,
            verdict: ready,
            promise_age: 0,
        };
        let place = (0, String::new());
        let report = AgentReport::Reply { reply, place };
        handle.report("app-1".into(), session, report).await;
        return true;
    }
    false
}

/// Whether a release arrives before the session ends, or in this time.
async fn is_released(orders: &mut Orders) -> bool {
    let next = async {
        while let Some(message) = orders.recv().await {
            if matches!(message.message, AgentMessage::Order(Order::Release { .. })) {
                return true;
            }
        }
        false
    };
    let limit = Duration::from_secs(5);
    tokio::time::timeout(limit, next).await.unwrap_or(false)
}

#[tokio::test(flavor = "multi_thread")]
async fn nothing_is_released_whose_record_the_disk_refused() {
    let mut refused = 0;
    for nth in 1.. {
        let state = tempfile::tempdir().unwrap();
        let disk = FaultyDisk::new(state.path());
        let (handle, looping) = leads(state.path(), false);
        let (session, mut orders) = connect(&handle, 1).await;
        disk.fail_from(nth, Fault::InputOutput);
        let started = start(&handle, "r1", plan()).await.unwrap().is_ok();
        let voted = started && vote(&handle, session, &mut orders).await;
        let released = voted && is_released(&mut orders).await;
        disk.repair();
        handle.stop().await;
        drop(looping.await.unwrap());
        let recorded = kinds(state.path()).contains(&"released".to_owned());
        assert!(
            recorded || !released,
            "write {nth}: released, but not recorded"
        );
        if released {
            break;
        }
        refused += 1;
    }
    assert!(refused > 2, "only {refused} writes failed");
}

fn resume(run: &str) -> VerbRequest {
    VerbRequest {
        request: "v0".to_owned(),
        action: RequestedVerb::Other(VerbAction::Resume),
        ..abort(run)
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_runs_are_paused_and_can_be_read_and_aborted() {
    let state = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(state.path());
    let (handle, _) = leads(state.path(), false);
    let (session, mut orders) = connect(&handle, 1).await;
    let run = start(&handle, "r1", plan()).await.unwrap().unwrap();
    disk.fill(&state.path().join("coordinator.db.reserve"));
    // Some record finds no space.
    for other in 0..200 {
        let name = format!("other-{other}");
        open(&handle, introduction(&name, "other", 1))
            .await
            .unwrap();
        let status = handle.get(run.clone()).await.unwrap();
        if format!("{status:?}").contains("LS4108") {
            break;
        }
    }
    let status = handle.get(run.clone()).await.unwrap();
    assert!(format!("{status:?}").contains("LS4108"), "{status:?}");
    vote(&handle, session, &mut orders).await;
    let refused = start(&handle, "r2", plan()).await.unwrap().unwrap_err();
    assert_eq!(refused.diagnosis.code, Code::LS4108);
    let refused = handle.verb(resume(&run)).await.unwrap_err();
    assert_eq!(refused.diagnosis.code, Code::LS4108);
    assert!(orders.try_recv().is_err(), "nothing is released");
    let status = handle.verb(abort(&run)).await.expect("it is recorded");
    assert_eq!(status.outcome, RunOutcome::Aborted);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_coordinator_without_any_space_answers_reads_and_leads_once_there_is_some() {
    let state = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(state.path());
    let (handle, looping) = leads(state.path(), false);
    let (_, _orders) = connect(&handle, 1).await;
    let run = start(&handle, "r1", plan()).await.unwrap().unwrap();
    handle.stop().await;
    looping.await.unwrap().unwrap();
    disk.fail_from(1, Fault::NoSpace);
    let (handle, _) = leads(state.path(), false);
    assert_eq!(handle.get(run.clone()).await.unwrap().id, run);
    let abort = || handle.verb(abort(&run));
    assert_eq!(abort().await.unwrap_err().diagnosis.code, Code::LS4108);
    let refused = open(&handle, introduction("app-1", "app", 2)).await;
    assert_eq!(refused.unwrap_err().diagnosis.code, Code::LS4108);
    disk.repair();
    let mut aborted = abort().await;
    while aborted.is_err() {
        tokio::time::sleep(Duration::from_millis(20)).await;
        aborted = abort().await;
    }
    assert_eq!(RunId(aborted.unwrap().id), RunId(run));
}
