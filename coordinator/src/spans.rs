//! The spans of a run: one for the run, one for each phase. The spans of tasks,
//! which agents open, are children of the phase that ordered them.
//!
//! The run's trace id is generated at its start and journaled with it, so the
//! trace continues after a restart of the coordinator.

use lockstep_barrier::coordinator::State;
use lockstep_barrier::ids::PhaseRef;
use lockstep_barrier::record::Record;
use lockstep_telemetry::traceparent_of;
use tracing::Span;

/// The open spans of one run.
pub struct RunSpans {
    run: Span,
    phase: Option<(PhaseRef, Span)>,
}

impl RunSpans {
    /// Opens the run's span as a child of its journaled trace context, unless
    /// the run has ended: its span was closed then.
    pub fn open(state: &State) -> Self {
        if state.ended.is_some() {
            return Self {
                run: Span::none(),
                phase: None,
            };
        }
        let run = tracing::info_span!(
            "run",
            lockstep.run = %state.begin.run,
            lockstep.plan = %state.begin.resolved_plan.digest,
            lockstep.term = state.term.number
        );
        if let Err(e) = lockstep_telemetry::set_parent(&run, &state.begin.trace) {
            tracing::debug!(error = %e, "the run carries no usable trace context");
        }
        let mut spans = Self { run, phase: None };
        if let Some(phase) = state.current() {
            spans.enter(state, phase);
        }
        spans
    }

    pub fn note(&mut self, state: &State, record: &Record) {
        match record {
            Record::Preparing { phase, .. }
                if self.phase.as_ref().is_none_or(|p| p.0 != *phase) =>
            {
                self.enter(state, *phase);
            }
            Record::Completed { .. } | Record::Skipped { .. } => self.phase = None,
            Record::Ended { .. } => {
                self.phase = None;
                self.run = Span::none();
            }
            Record::Began { .. }
            | Record::TermBegan { .. }
            | Record::TookOver { .. }
            | Record::Preparing { .. }
            | Record::GateOpened { .. }
            | Record::Released { .. }
            | Record::TaskEnded { .. }
            | Record::TaskLost { .. }
            | Record::Revoked { .. }
            | Record::Failed { .. }
            | Record::RetryDecided { .. }
            | Record::Waived { .. }
            | Record::UnknownResolved { .. }
            | Record::Paused { .. }
            | Record::Resumed { .. }
            | Record::RollbackDecided { .. }
            | Record::RollbackBegan {}
            | Record::AbortDecided { .. }
            | Record::Breached { .. }
            | Record::Disarmed { .. }
            | Record::Contradicted { .. }
            | Record::UndoOutstanding { .. }
            | Record::LateUndoPreparing { .. }
            | Record::LateUndoReleased { .. }
            | Record::LateUndoLeft { .. }
            | Record::JournalLost { .. }
            | Record::ClosedBy { .. } => {}
        }
    }

    pub fn traceparent(&self) -> String {
        traceparent_of(self.phase.as_ref().map_or(&self.run, |(_, span)| span))
    }

    fn enter(&mut self, state: &State, phase: PhaseRef) {
        let name = state.spec(phase).map_or("phase", |spec| spec.name.as_str());
        let span = tracing::info_span!(
            parent: &self.run,
            "phase",
            otel.name = name,
            lockstep.phase = name
        );
        self.phase = Some((phase, span));
    }
}
