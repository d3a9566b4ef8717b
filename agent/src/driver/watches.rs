//! Watches: arming, attesting and disarming them.

use super::Driver;
use crate::action::{Progress, WorkId};
use crate::worker::Inputs as TaskInputs;
use lockstep_barrier::ids::{RunId, StepId};
use lockstep_barrier::message::TaskOrder;
use lockstep_barrier::participant::Event;
use lockstep_proto::convert::brief;
use std::time::Duration;
use tokio::sync::mpsc;
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

/// Breaches that may wait for the loop, per watch.
const BREACHES: usize = 16;
/// How long a watch may take to stop when it is disarmed, before it is aborted.
const DISARM_LIMIT: Duration = Duration::from_secs(5);

pub(super) struct Watching {
    pub(super) cancel: CancellationToken,
    work: JoinHandle<()>,
    task: TaskOrder,
    inputs: TaskInputs,
}

impl Driver {
    pub(super) fn arm(
        &mut self,
        run: RunId,
        step: StepId,
        task: TaskOrder,
        inputs: TaskInputs,
        after_gap: bool,
    ) {
        let cancel = CancellationToken::new();
        let tag = WorkId {
            run: run.0.clone(),
            step: step.0.clone(),
            attempt: 0,
            of: None,
        };
        let cx = self.worker.context(tag, cancel.clone(), Progress::silent());
        let (breaches, mut reported) = mpsc::channel(BREACHES);
        let (worker, handle) = (self.worker.clone(), self.handle.clone());
        let (of_run, of_step) = (run.clone(), step.clone());
        let (watched, consumed) = (task.clone(), inputs.clone());
        let work = tokio::spawn(async move {
            let relay = async {
                while let Some(detail) = reported.recv().await {
                    let (run, step) = (of_run.clone(), of_step.clone());
                    let detail = brief(detail);
                    let event = Event::WatchBroke { run, step, detail };
                    handle.event(event).await;
                }
            };
            tokio::join!(
                relay,
                worker.watch(&watched, &consumed, after_gap, breaches, cx)
            );
        });
        self.watching.insert(
            (run, step),
            Watching {
                cancel,
                work,
                task,
                inputs,
            },
        );
    }

    pub(super) async fn disarm(&mut self, run: RunId, step: StepId) {
        let Some(watching) = self.watching.remove(&(run, step)) else {
            return;
        };
        watching.cancel.cancel();
        let mut work = watching.work;
        if tokio::time::timeout(DISARM_LIMIT, &mut work).await.is_err() {
            work.abort();
        }
    }

    pub(super) fn attest(&self, run: RunId, step: StepId, nonce: u64) {
        let key = (run, step);
        let watched = self
            .watching
            .get(&key)
            .map(|w| (w.task.clone(), w.inputs.clone()));
        let (worker, handle) = (self.worker.clone(), self.handle.clone());
        tokio::spawn(async move {
            let (run, step) = key;
            let breach = match watched {
                Some((task, inputs)) => {
                    let tag = WorkId {
                        run: run.0.clone(),
                        step: step.0.clone(),
                        attempt: 0,
                        of: None,
                    };
                    let cx = worker.context(tag, CancellationToken::new(), Progress::silent());
                    worker.attest(&task, &inputs, cx).await.map(brief)
                }
                None => Some("nobody is watching on this agent".to_owned()),
            };
            let event = Event::Attested {
                run,
                step,
                nonce,
                breach,
            };
            handle.event(event).await;
        });
    }
}
