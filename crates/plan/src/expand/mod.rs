//! From a kind of plan file to the expanded plan.
//!
//! Expansion never fails on its own account: what the file cannot mean is
//! told as faults with pointers into the file, and the plan is made as far
//! as it goes, so that the check can tell the rest at once.

pub(crate) mod cutover;
pub(crate) mod plan;
pub(crate) mod restart;
mod rollback;

use crate::actions::{self, ActionSpec, Effect};
use crate::check::longest_ms;
use crate::digest::settled;
use crate::model::{Gate, Mode, OnFailure, Party, Phase, Step};
use crate::source::Health;
use serde_json::Value;
use std::collections::BTreeMap;

/// How long a promise to start lives if the file does not say. It covers the
/// way of the release and of every other agent's vote.
const START_BY_MS: u64 = 60_000;

/// What a phase may take beyond its steps: the way of the release and of the
/// outcomes.
const BARRIER_MS: u64 = 15_000;

/// A step with the action's own undo and limits.
fn step<A: ActionSpec>(id: impl Into<String>, party: &str, params: &A) -> Step {
    // Parameter types are plain maps with text keys; turning one into a JSON
    // value has no way to fail.
    let params = settled(serde_json::to_value(params).unwrap_or(Value::Null));
    Step {
        id: id.into(),
        party: party.to_owned(),
        action: A::NAME.to_owned(),
        mode: Mode::Execute,
        timeout_ms: actions::task_limit_secs(A::NAME, &params).saturating_mul(1000),
        params,
        proof: false,
        undoable: A::EFFECT == Effect::Undoable,
        watch_until: None,
    }
}

impl Step {
    fn proving(mut self) -> Self {
        self.proof = true;
        self
    }

    fn kept(mut self) -> Self {
        self.undoable = false;
        self
    }

    fn within_ms(mut self, ms: u64) -> Self {
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
            undoable: false,
            watch_until: None,
            ..self.clone()
        }
    }
}

/// A phase that takes as long as its steps may.
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

/// One check for each thing that health names.
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
