//! What is on disk when a message is sent, and when the agent stops.

use super::Driver;
use crate::config::Config;
use crate::handle::{Handle, Outbox, Outgoing};
use crate::host::Host;
use crate::store::Store;
use faulty_disk::FaultyDisk;
use lockstep_api::Code;
use lockstep_barrier::ids::{Digest, Header, PhaseRef, RunId, StepId, Term, Track};
use lockstep_barrier::message::{Mode, Order, Reply, TaskOrder, Verdict};
use lockstep_barrier::record::ParticipantRecord;
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

/// The host's policy allows nothing: the vote will be a refusal.
async fn send_prepare(handle: &Handle) {
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
        read_only: false,
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
    handle.order(order, String::new()).await.unwrap();
}

/// What a process that started now would read.
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
async fn a_vote_and_the_records_it_relies_on_are_on_disk_before_it_is_sent() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let (driver, handle) = Driver::start(host(state.path()), store).unwrap();
    let running = tokio::spawn(driver.run());
    let (outbox, mut sent) = Outbox::new();
    handle.connected(outbox).await.unwrap();
    send_prepare(&handle).await;
    let message = sent.recv().await.unwrap();
    let found = on_disk(state.path());
    let is_vote = matches!(
        message,
        Outgoing::Reply {
            reply: Reply::Vote { .. },
            ..
        }
    );
    assert!(is_vote, "{message:?}");
    assert!(
        matches!(
            found.as_slice(),
            [
                ParticipantRecord::Opened { .. },
                ParticipantRecord::Accepted { .. },
                ParticipantRecord::Refused { .. }
            ]
        ),
        "{found:?}"
    );
    handle.stop().await;
    running.await.unwrap().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn records_that_wait_to_be_written_are_written_on_stop() {
    let state = tempfile::tempdir().unwrap();
    let store = Store::open(state.path()).unwrap();
    let (driver, handle) = Driver::start(host(state.path()), store).unwrap();
    // Both are queued before the loop begins: the probe's result comes too late.
    send_prepare(&handle).await;
    handle.stop().await;
    driver.run().await.unwrap();
    let found = on_disk(state.path());
    assert!(
        matches!(
            found.as_slice(),
            [
                ParticipantRecord::Opened { .. },
                ParticipantRecord::Accepted { .. }
            ]
        ),
        "{found:?}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn on_a_full_disk_the_agent_promises_nothing() {
    let state = tempfile::tempdir().unwrap();
    let disk = FaultyDisk::new(state.path());
    let store = Store::open(state.path()).unwrap();
    let (driver, handle) = Driver::start(host(state.path()), store).unwrap();
    let running = tokio::spawn(driver.run());
    handle.introduce().await.unwrap();
    disk.fill(&state.path().join("agent.db.reserve"));
    // Its record uses the reserved space.
    handle.introduce().await.unwrap();
    let (outbox, mut sent) = Outbox::new();
    handle.connected(outbox).await.unwrap();
    send_prepare(&handle).await;
    let message = sent.recv().await.unwrap();
    let Outgoing::Reply {
        reply:
            Reply::Vote {
                verdict: Verdict::Refuse { reasons },
                ..
            },
        ..
    } = &message
    else {
        unreachable!("{message:?}");
    };
    let codes: Vec<Code> = reasons.iter().map(|reason| reason.code).collect();
    assert_eq!(codes, [Code::LS3106]);
    handle.stop().await;
    running.await.unwrap().unwrap();
}

/// An agent with a configuration file of its own.
struct Configured {
    state: tempfile::TempDir,
    handle: Handle,
    running: tokio::task::JoinHandle<Result<(), crate::store::StoreError>>,
}

impl Configured {
    fn start(policy: &str) -> Self {
        let state = tempfile::tempdir().unwrap();
        write_config(state.path(), policy);
        let config = Config::load(&state.path().join("agent.toml")).unwrap();
        let store = Store::open(state.path()).unwrap();
        let (driver, handle) = Driver::start(Arc::new(Host::new(config)), store).unwrap();
        let running = tokio::spawn(driver.run());
        Self {
            state,
            handle,
            running,
        }
    }

    async fn change(&self, policy: &str) {
        write_config(self.state.path(), policy);
        self.handle.config_changed().await.unwrap();
    }

    async fn label(&self) -> String {
        let introduction = self.handle.introduce().await.unwrap();
        introduction.labels["role"].clone()
    }

    async fn stop(self) {
        self.handle.stop().await;
        self.running.await.unwrap().unwrap();
    }
}

fn write_config(state: &Path, more: &str) {
    let config = format!(
        "name='a'\ncoordinator='c'\nstate_dir={state:?}\n\
         [tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n{more}"
    );
    std::fs::write(state.join("agent.toml"), config).unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_is_used_and_a_bad_one_is_not() {
    let agent = Configured::start("[labels]\nrole='old'\n");
    let (outbox, mut sent) = Outbox::new();
    agent.handle.connected(outbox).await.unwrap();
    for bad in [
        "[labels]\nrole='bad'\n[policy]\nunknown=1\n",
        "[labels]\nrole='bad'\n[policy]\npaths=['relative']\n",
        "[labels]\nrole='bad'\n[telemetry]\nlog='debug'\n",
        "[labels",
    ] {
        agent.change(bad).await;
        assert_eq!(agent.label().await, "old", "{bad}");
    }
    assert!(
        sent.try_recv()
            .is_err_and(|e| e == tokio::sync::mpsc::error::TryRecvError::Empty)
    );
    agent.change("[labels]\nrole='new'\n").await;
    assert_eq!(agent.label().await, "new");
    assert!(sent.recv().await.is_none(), "the session is opened again");
    agent.stop().await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_changed_configuration_waits_for_the_end_of_the_run() {
    let policy = "[policy]\nactions=['check.*']\n";
    let agent = Configured::start(&format!("[labels]\nrole='old'\n{policy}"));
    let (outbox, mut sent) = Outbox::new();
    agent.handle.connected(outbox).await.unwrap();
    send_prepare(&agent.handle).await;
    sent.recv().await.unwrap();
    agent.change("[labels]\nrole='new'\n").await;
    assert_eq!(agent.label().await, "old");
    let close = Order::Close {
        run: RunId("r".into()),
        term: Term {
            number: 1,
            incarnation: 7,
        },
        decision: 2,
    };
    agent.handle.order(close, String::new()).await.unwrap();
    while agent.label().await != "new" {
        tokio::task::yield_now().await;
    }
    agent.stop().await;
}
