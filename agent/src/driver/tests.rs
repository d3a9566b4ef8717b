//! What is on disk when something goes out.

use super::Driver;
use crate::host::Host;
use crate::link::{Input, Outbox};
use crate::store::Store;
use lockstep_barrier::ids::{Digest, Header, PhaseRef, RunId, StepId, Term, Track};
use lockstep_barrier::message::{Mode, Order, TaskOrder};
use lockstep_barrier::record::ParticipantRecord;
use lockstep_proto::v1::session_request::Message;
use serde_json::json;
use std::path::Path;
use std::sync::Arc;

fn host(state: &Path) -> Arc<Host> {
    let config = format!(
        "name='a'\ncoordinator='c'\nstate_dir={state:?}\n\
         [tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n"
    );
    Arc::new(Host::new(toml::from_str(&config).unwrap()))
}

/// Its policy allows nothing: the vote will be a refusal.
fn prepare() -> Input {
    let header = Header {
        run: RunId("r".into()),
        phase: PhaseRef {
            track: Track::Forward,
            index: 0,
        },
        attempt: 1,
        term: Term {
            number: 1,
            incarnation: 7,
        },
        decision: 1,
        digest: Digest("d".into()),
    };
    let task = TaskOrder {
        step: StepId("s".into()),
        action: "check.tcp".into(),
        mode: Mode::Execute,
        params: json!({"address": "127.0.0.1:1"}),
        timeout: 1000,
        watch: false,
    };
    let order = Order::Prepare {
        header,
        tasks: vec![task],
        start_by: 60_000,
        finish_by: 60_000,
        provisional: false,
    };
    Input::Order {
        order,
        traceparent: String::new(),
    }
}

/// What a process would find that started now.
fn on_disk(state: &Path) -> Vec<ParticipantRecord> {
    let copy = tempfile::tempdir().unwrap();
    for file in std::fs::read_dir(state).unwrap() {
        let file = file.unwrap();
        std::fs::copy(file.path(), copy.path().join(file.file_name())).unwrap();
    }
    let entries = Store::open(copy.path()).unwrap().records().unwrap();
    entries.into_iter().map(|entry| entry.record).collect()
}

#[tokio::test(flavor = "multi_thread")]
async fn a_vote_and_what_it_rests_on_are_on_disk_before_it_is_sent() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let (driver, inputs) = Driver::start(host(state.path()), store).unwrap();
    let running = tokio::spawn(driver.run());
    let (outbox, mut sent) = Outbox::new();
    for input in [Input::Connected(outbox), prepare()] {
        assert!(inputs.send(input).await.is_ok());
    }
    let reply = sent.recv().await.unwrap();
    let found = on_disk(state.path());
    assert!(matches!(reply.message, Some(Message::Vote(_))), "{reply:?}");
    let [first, second] = found.as_slice() else {
        panic!("{found:?}");
    };
    assert!(matches!(first, ParticipantRecord::Obeyed { .. }));
    assert!(matches!(second, ParticipantRecord::Refused { .. }));
    assert!(inputs.send(Input::Stop).await.is_ok());
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn what_waits_to_be_written_is_written_at_the_end() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let (driver, inputs) = Driver::start(host(state.path()), store).unwrap();
    // Both are there before the loop begins: the probe's answer comes too late.
    for input in [prepare(), Input::Stop] {
        assert!(inputs.send(input).await.is_ok());
    }
    driver.run().await.unwrap();
    let found = on_disk(state.path());
    assert!(
        matches!(found.as_slice(), [ParticipantRecord::Obeyed { .. }]),
        "{found:?}"
    );
}
