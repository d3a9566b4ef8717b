//! Work for a task: probes before it, the action itself, its live lines and
//! its span.

use super::Driver;
use crate::action::{Line, Progress, Tag};
use crate::bounds;
use crate::link::Input;
use crate::work::Inputs as TaskInputs;
use futures_util::StreamExt as _;
use futures_util::stream;
use lockstep_barrier::ids::{PhaseRef, RunId, StepId};
use lockstep_barrier::message::{Mode, Probe, TaskOrder};
use lockstep_barrier::participant::{Event, Purpose};
use lockstep_clock as clock;
use lockstep_proto::convert::brief;
use lockstep_proto::v1;
use std::collections::BTreeMap;
use std::time::Duration;
use tokio_util::sync::CancellationToken;
use tracing::Instrument;

/// Probes of one agent beside each other. They only look, so their order
/// doesn't matter; but each may run a tool or hold a session on a host that
/// has other work.
const PROBES_AT_ONCE: usize = 4;

/// A task at work.
pub(super) struct Running {
    pub(super) cancel: CancellationToken,
    pub(super) task: TaskOrder,
    pub(super) inputs: TaskInputs,
}

/// A task to be carried out.
pub(super) struct Assignment {
    pub(super) run: RunId,
    pub(super) phase: PhaseRef,
    pub(super) attempt: u32,
    pub(super) task: TaskOrder,
    pub(super) inputs: TaskInputs,
}

impl Driver {
    pub(super) fn probe(
        &self,
        run: RunId,
        phase: PhaseRef,
        attempt: u32,
        purpose: Purpose,
        tasks: Vec<TaskOrder>,
        inputs: TaskInputs,
    ) {
        let (worker, report) = (self.worker.clone(), self.inputs.clone());
        let span = self.span("probe", &run, "");
        let work = async move {
            let before = purpose == Purpose::Vote;
            let looks = tasks.into_iter().map(|task| {
                let tag = Tag {
                    run: run.0.clone(),
                    step: task.step.0.clone(),
                    attempt,
                    of: None,
                };
                let cx = worker.context(tag, CancellationToken::new(), Progress::silent());
                let (worker, inputs) = (&worker, &inputs);
                async move {
                    let result = worker.probe(&task, inputs, before, &cx).await;
                    (task, result)
                }
            });
            let looked: Vec<(TaskOrder, Result<Probe, String>)> =
                stream::iter(looks).buffered(PROBES_AT_ONCE).collect().await;
            let mut room = bounds::Vote::new();
            let results: BTreeMap<StepId, Result<Probe, String>> = looked
                .into_iter()
                .map(|(task, result)| {
                    let result = room.take(&task.action, result);
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
            // The loop is gone only when the process ends.
            let _ = report.send(Input::Happened(event)).await;
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
        capture: Option<serde_json::Value>,
        limit: Duration,
    ) {
        let cancel = CancellationToken::new();
        let key = (run.clone(), task.step.clone());
        let running = Running {
            cancel: cancel.clone(),
            task: task.clone(),
            inputs: inputs.clone(),
        };
        self.running.insert(key, running);
        let progress = self.progress(&run, phase, &task.step);
        let origin = match &task.mode {
            Mode::Execute => None,
            Mode::Undo { of } => Some(of.0.clone()),
        };
        let tag = Tag {
            run: run.0.clone(),
            step: task.step.0.clone(),
            attempt,
            of: origin,
        };
        let cx = self.worker.context(tag, cancel, progress);
        let span = self.span(&task.action, &run, &task.step.0);
        let (worker, report) = (self.worker.clone(), self.inputs.clone());
        let work = async move {
            tracing::info!(action = task.action, "task started");
            let began = clock::boot_time();
            let ended = worker.perform(&task, &inputs, capture, limit, cx).await;
            let (outcome, outputs) = bounds::outcome(&task.action, ended);
            let took = clock::boot_time().saturating_sub(began);
            tracing::info!(action = task.action, ?outcome, took_ms = took, "task ended");
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
            let _ = report.send(Input::Happened(event)).await;
        };
        tokio::spawn(work.instrument(span));
    }

    pub(super) fn progress(&self, run: &RunId, phase: PhaseRef, step: &StepId) -> Progress {
        let outbox = self.outbox.subscribe();
        let (run, step) = (run.0.clone(), step.0.clone());
        let omitted = std::sync::atomic::AtomicU64::new(0);
        Progress::to(move |line| {
            use std::sync::atomic::Ordering::Relaxed;
            let (kind, line) = match line {
                Line::Started => (v1::ProgressKind::Started, String::new()),
                Line::Note(line) => (v1::ProgressKind::Note, line),
                Line::Output(line) => (v1::ProgressKind::Output, line),
            };
            let progress = v1::Progress {
                run_id: run.clone(),
                phase: Some(phase.into()),
                step_id: step.clone(),
                kind: kind.into(),
                line: brief(line),
                omitted: omitted.load(Relaxed),
            };
            let request = v1::SessionRequest {
                traceparent: String::new(),
                message: Some(v1::session_request::Message::Progress(progress)),
                ..Default::default()
            };
            let sent = outbox
                .borrow()
                .as_ref()
                .is_some_and(|outbox| outbox.send_line(request));
            if sent {
                omitted.store(0, Relaxed);
            } else {
                omitted.fetch_add(1, Relaxed);
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
