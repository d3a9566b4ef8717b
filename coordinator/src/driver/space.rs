//! A full disk: nothing new begins, what is in progress is paused, and
//! everything can be read.
//!
//! The journal has reserved space, with which runs in progress can be recorded
//! to their end. Once that is used up, a coordinator that starts records nothing:
//! it leads no run and only answers reads, until it can write again.

use super::{Driver, StartError};
use crate::active_run::RunEntry;
use crate::handle::RequestedVerb;
use crate::store::StoreError;
use lockstep_api::{Code, Diagnosis};
use lockstep_barrier::coordinator::{Run, Verb, VerbAction};
use lockstep_barrier::ids::{Millis, RunId};

/// How often a coordinator without space tries to lead, in milliseconds.
const LEAD_PAUSE: Millis = if cfg!(test) { 100 } else { 5_000 };
/// Who pauses runs, in place of an operator.
const BY: &str = "the coordinator, whose disk is full (LS4108)";

impl Driver {
    /// Why nothing new can begin.
    pub(super) fn no_space(&mut self) -> Option<Diagnosis> {
        (self.stalled.is_some() || self.store.is_low_on_space()).then(no_space)
    }

    /// Why this verb must wait for space: it would let the run go on.
    pub(super) fn no_space_for(&mut self, verb: &RequestedVerb) -> Option<Diagnosis> {
        let restrains = match verb {
            RequestedVerb::Approve { .. } => false,
            RequestedVerb::Other(action) => match action {
                VerbAction::Approve { .. }
                | VerbAction::Resume
                | VerbAction::Retry
                | VerbAction::Skip => false,
                VerbAction::Pause
                | VerbAction::Rollback
                | VerbAction::Abort
                | VerbAction::Waive { .. }
                | VerbAction::ResolveUnknown { .. } => true,
            },
        };
        if restrains && self.stalled.is_none() {
            return None;
        }
        self.no_space()
    }

    /// Pauses every run that goes forward, once the journal uses its reserve. A
    /// rollback goes on: it ends what has begun.
    pub(super) fn pause_without_space(&mut self) -> Result<(), StoreError> {
        let low = self.stalled.is_none() && self.store.is_low_on_space();
        if low == self.low_on_space {
            return Ok(());
        }
        self.low_on_space = low;
        if !low {
            tracing::info!("the journal has its reserved space again");
            return Ok(());
        }
        tracing::error!("{}", no_space());
        let now = lockstep_clock::boot_time();
        let goes_forward = |cell: &&mut RunEntry| {
            let state = cell.state();
            state.ended.is_none() && state.rollback.is_none() && state.abort.is_none()
        };
        for cell in self.runs.values_mut().filter(goes_forward) {
            let id = cell.state().begin.run.clone();
            let verb = Verb {
                request: format!("no-space-{}", cell.state().last),
                by: BY.to_owned(),
                reason: Some(no_space().to_string()),
                expected: None,
                action: VerbAction::Pause,
            };
            // One that is paused already refuses it.
            let effects = cell.run().map(|run: &mut Run| run.verb(now, verb));
            let effects = effects.and_then(Result::ok).into_iter().flatten();
            self.effects
                .extend(effects.map(|effect| (id.clone(), effect)));
        }
        self.flush()
    }

    /// Leads as soon as a term can be recorded.
    pub(super) fn lead_if_possible(&mut self) -> Result<(), StoreError> {
        let now = lockstep_clock::boot_time();
        if self.stalled.is_none_or(|at| at > now) {
            return Ok(());
        }
        let term = match self.store.begin_term() {
            Ok(Some(term)) => term,
            Ok(None) => {
                self.stalled = Some(now.saturating_add(LEAD_PAUSE));
                return Ok(());
            }
            Err(error) if error.is_full() => {
                self.stalled = Some(now.saturating_add(LEAD_PAUSE));
                return Ok(());
            }
            Err(error) => return Err(error),
        };
        self.term = term;
        self.terms = self.store.terms()?;
        self.stalled = None;
        let known = self.store.agents()?;
        let before: Vec<RunId> = std::mem::take(&mut self.order);
        self.runs.clear();
        match self.resume_runs(&known.accepted_at) {
            Ok(()) => {
                tracing::info!(
                    term = term.number,
                    runs = before.len(),
                    "the coordinator leads"
                );
                self.flush()
            }
            Err(StartError::Store(error)) => Err(error),
            // They were read when the process started.
            Err(error) => {
                tracing::error!(%error, "the runs can't be resumed");
                Ok(())
            }
        }
    }
}

fn no_space() -> Diagnosis {
    let what = "the disk of the coordinator's journal is full";
    Diagnosis::new(Code::LS4108, what)
        .state_left("nothing new is released or started")
        .remedy("free some space in the file system of its state_dir, then try again")
}
