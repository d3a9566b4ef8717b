//! Expansion of each kind of plan file.
//!
//! Expansion never fails: inconsistencies are returned as faults with pointers
//! into the file, and the plan is built as far as possible, so that the check
//! can report the remaining problems in the same pass.

pub(crate) mod cutover;
pub(crate) mod plan;
pub(crate) mod restart;
mod rollback;

use crate::actions::{self, ActionSpec, Effect};
use crate::check::longest_ms;
use crate::digest::normalized;
use crate::model::{Gate, Mode, OnFailure, Party, Phase, Step};
use crate::source::Health;
use serde_json::Value;
use std::collections::BTreeMap;

/// Default lifetime of a promise to start. It covers the votes of all other
/// agents and the delivery of the release.
const START_BY_MS: u64 = 60_000;

/// Time that a phase may take in addition to its steps: delivery of the release
/// and of the outcomes.
const BARRIER_MS: u64 = 15_000;

/// A step with the default undo and timeout of its action.
fn step<A: ActionSpec>(id: impl Into<String>, party: &str, params: &A) -> Step {
    // Parameter types are plain maps with text keys, so the conversion to a JSON
    // value can't fail.
    let params = normalized(serde_json::to_value(params).unwrap_or(Value::Null));
    Step {
        id: id.into(),
        party: party.to_owned(),
        action: A::NAME.to_owned(),
        mode: Mode::Execute,
        timeout_ms: actions::task_limit_secs(A::NAME, &params).saturating_mul(1000),
        params,
        proof: false,
        required: false,
        undoable: A::EFFECT == Effect::Undoable,
        watch_until: None,
    }
}

impl Step {
    fn proof(mut self) -> Self {
        self.proof = true;
        self
    }

    fn required(mut self) -> Self {
        self.required = true;
        self
    }

    fn without_undo(mut self) -> Self {
        self.undoable = false;
        self
    }

    fn with_timeout(mut self, ms: u64) -> Self {
        self.timeout_ms = ms;
        self
    }

    fn watching_until(mut self, phase: &str) -> Self {
        self.watch_until = Some(phase.to_owned());
        self
    }

    /// The step that undoes this one.
    fn undo(&self) -> Self {
        Self {
            id: format!("undo-{}", self.id),
            mode: Mode::Undo {
                of: self.id.clone(),
            },
            proof: false,
            required: false,
            undoable: false,
            watch_until: None,
            ..self.clone()
        }
    }
}

/// A phase whose deadline follows from its steps.
fn phase(
    name: &str,
    on_failure: OnFailure,
    parties: &BTreeMap<String, Party>,
    steps: Vec<Step>,
) -> Phase {
    Phase {
        name: name.to_owned(),
        standard: name.to_owned(),
        runbook_steps: Vec::new(),
        gate: Gate::None,
        start_by_ms: START_BY_MS,
        finish_by_ms: longest_ms(parties, &steps).saturating_add(BARRIER_MS),
        on_failure,
        point_of_no_return: false,
        steps,
    }
}

/// One step for each health check that is configured.
fn health_checks(health: &Health, prefix: &str, party: &str) -> Vec<Step> {
    let mut steps = Vec::new();
    if let Some(http) = &health.http {
        steps.push(step(format!("{prefix}-http"), party, http));
    }
    if let Some(tcp) = &health.tcp {
        steps.push(step(format!("{prefix}-tcp"), party, tcp));
    }
    if let Some(command) = &health.command {
        let id = format!("{prefix}-command");
        steps.push(step(id, party, command));
    }
    steps
}
