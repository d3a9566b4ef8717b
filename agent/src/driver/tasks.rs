//! Runs what a task needs: the probes before it, the action itself, its
//! progress lines and its tracing span.

use super::{Driver, Recorder};
use crate::action::{Line, Progress, WorkId};
use crate::handle::TaskProgress;
use crate::message_limits;
use crate::worker::Inputs as TaskInputs;
use futures_util::StreamExt as _;
use futures_util::stream;
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::ids::{PhaseRef, RunId, StepId, Track};
use lockstep_barrier::message::{Mode, Probe, TaskOrder};
use lockstep_barrier::participant::{Event, Purpose};
use lockstep_clock as clock;
use lockstep_daemon::CrashPoint;
use lockstep_proto::convert::brief;
use std::collections::BTreeMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Concurrent probes of one agent. They change nothing, so their order
/// doesn't matter; but each may run a tool or hold a database session on a
/// host that has other work.
const PROBES_AT_ONCE: usize = 4;

/// A task to run.
pub(super) struct Assignment {
    pub(super) run: RunId,
    pub(super) phase: PhaseRef,
    pub(super) attempt: u32,
    pub(super) task: TaskOrder,
    pub(super) inputs: TaskInputs,
}

impl Driver {
    pub(super) fn probe(
        &mut self,
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        purpose: Purpose,
        tasks: Vec<TaskOrder>,
        inputs: TaskInputs,
    ) {
        let (worker, handle) = (self.worker.clone(), self.handle.clone());
        let span = self.span("probe", &run, "");
        // Before anything is promised. What was released, and a rollback, is
        // recorded in the reserved space.
        let begins = purpose == Purpose::Vote && phase.track == Track::Forward;
        let no_space = begins && self.store.is_low_on_space();
        let work = async move {
            let before = purpose == Purpose::Vote;
            let probes = tasks.into_iter().map(|task| {
                let tag = WorkId {
                    run: run.0.clone(),
                    step: task.step.0.clone(),
                    attempt,
                    of: None,
                };
                let cx = worker.context(tag, CancellationToken::new(), Progress::silent());
                let (worker, inputs) = (&worker, &inputs);
                async move {
                    let result = if no_space {
                        Err(no_space_left())
                    } else {
                        worker.probe(&task, inputs, before, &cx).await
                    };
                    (task, result)
                }
            });
            let probed: Vec<(TaskOrder, Result<Probe, Diagnosis>)> = stream::iter(probes)
                .buffered(PROBES_AT_ONCE)
                .collect()
                .await;
            let mut room = message_limits::Vote::new();
            let results: BTreeMap<StepId, Result<Probe, Diagnosis>> = probed
                .into_iter()
                .map(|(task, result)| {
                    let result = room.fit(&task.action, result);
                    (task.step, result)
                })
                .collect();
            let event = Event::Probed {
                run,
                phase,
                attempt,
                purpose,
                results,
            };
            handle.event(event).await;
        };
        tokio::spawn(work.instrument(span));
    }

    pub(super) fn perform(
        &mut self,
        Assignment {
            run,
            phase,
            attempt,
            task,
            inputs,
        }: Assignment,
        before_image: Option<serde_json::Value>,
        limit: Duration,
    ) {
        let cancel = CancellationToken::new();
        let key = (run.clone(), task.step.clone());
        self.running.insert(key, cancel.clone());
        let recorder = Recorder::new(
            self.handle.clone(),
            (run.clone(), task.step.clone()),
            (phase, attempt),
        );
        let progress = self.progress(&run, phase, &task.step, recorder.clone());
        let origin = match &task.mode {
            Mode::Execute => None,
            Mode::Undo { of } => Some(of.0.clone()),
        };
        let tag = WorkId {
            run: run.0.clone(),
            step: task.step.0.clone(),
            attempt,
            of: origin,
        };
        let cx = self.worker.context(tag, cancel, progress);
        let span = self.span(&task.action, &run, &task.step.0);
        let (worker, handle) = (self.worker.clone(), self.handle.clone());
        let work = async move {
            tracing::info!(action = task.action, "task started");
            let began = clock::boot_time();
            CrashPoint::BeforeAction.pass();
            let ended = worker
                .perform(&task, &inputs, before_image, limit, cx)
                .await;
            CrashPoint::AfterAction.pass();
            let (outcome, outputs) = message_limits::outcome(&task.action, ended);
            let took = clock::boot_time().saturating_sub(began);
            tracing::info!(action = task.action, ?outcome, took_ms = took, "task ended");
            if let Some(changed) = recorder.take() {
                handle.event(changed).await;
            }
            let step = task.step;
            let event = Event::Finished {
                run,
                step,
                phase,
                attempt,
                outcome,
                outputs,
                took,
            };
            handle.event(event).await;
        };
        tokio::spawn(work.instrument(span));
    }

    /// Records the changes among a task's lines, and sends all lines to whichever
    /// session is open at the time. Lines without room in the outbox are dropped, and
    /// the next line that is sent carries their number.
    fn progress(
        &self,
        run: &RunId,
        phase: PhaseRef,
        step: &StepId,
        recorder: Arc<Recorder>,
    ) -> Progress {
        let outbox = self.outbox.subscribe();
        let (run, step) = (run.clone(), step.clone());
        let dropped = AtomicU64::new(0);
        Progress::to(move |line| {
            if let Line::Effect(what) = &line {
                recorder.add(what);
            }
            let omitted = dropped.swap(0, Ordering::Relaxed);
            let progress = TaskProgress {
                run: run.clone(),
                phase,
                step: step.clone(),
                line: truncated(line),
                omitted,
            };
            let sent = outbox
                .borrow()
                .as_ref()
                .is_some_and(|outbox| outbox.send_progress(progress));
            if !sent {
                dropped.fetch_add(omitted + 1, Ordering::Relaxed);
            }
        })
    }

    pub(super) fn span(&self, what: &str, run: &RunId, step: &str) -> tracing::Span {
        let agent = self.host.config.name.as_str();
        let span = tracing::info_span!(
            "task",
            otel.name = %what,
            lockstep.agent = agent,
            lockstep.run = %run,
            lockstep.step = step
        );
        if let Some(traceparent) = self.traces.get(run).filter(|text| !text.is_empty())
            && let Err(e) = lockstep_telemetry::set_parent(&span, traceparent)
        {
            tracing::debug!(error = %e, "an order carried no usable trace context");
        }
        span
    }
}

fn truncated(line: Line) -> Line {
    match line {
        Line::Started => Line::Started,
        Line::Note(line) => Line::Note(brief(line)),
        Line::Effect(line) => Line::Effect(brief(line)),
        Line::Output(line) => Line::Output(brief(line)),
    }
}

fn no_space_left() -> Diagnosis {
    Diagnosis::new(Code::LS3106, "the disk of the agent's journal is full")
        .state_left("nothing was done")
        .remedy("free some space in the file system of its state_dir, then retry")
}
