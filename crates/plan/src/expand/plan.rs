//! `kind: Plan`: fills in the defaults and derives the rollback.

use super::{BARRIER_MS, START_BY_MS, rollback};
use crate::actions::{self, Action};
use crate::check::longest_ms;
use crate::digest::normalized;
use crate::model::{FormatVersion, Kind, Mode, OnFailure, Outage, Phase, Plan, Step};
use crate::source::plan::{FailurePolicy, PhaseSource, PlanFile, StepSource};
use serde_json::{Map, Value};

/// The expanded plan. Phases and steps have the same indices as in the file.
pub(crate) fn expand(source: &PlanFile) -> Plan {
    let parties = source
        .parties
        .iter()
        .map(|(name, party)| (name.clone(), party.into()))
        .collect();
    let phases: Vec<Phase> = source
        .phases
        .iter()
        .map(|phase| {
            let steps: Vec<Step> = phase.steps.iter().map(step).collect();
            let finish_by_ms = phase.finish_by.map_or_else(
                || longest_ms(&parties, &steps).saturating_add(BARRIER_MS),
                |given| given.ms(),
            );
            expanded(phase, finish_by_ms, steps)
        })
        .collect();
    Plan {
        format: FormatVersion::CURRENT,
        name: source.name.clone(),
        kind: Kind::Plan,
        rollback: rollback::reversed(&phases, &parties),
        parties,
        phases,
        outage: source.outage.as_ref().map(|outage| Outage {
            budget_ms: outage.budget.ms(),
            starts_with: outage.starts_with.clone(),
            ends_with: outage.ends_with.clone(),
            rollback_reserve_ms: outage.rollback_reserve.ms(),
        }),
    }
}

fn expanded(phase: &PhaseSource, finish_by_ms: u64, steps: Vec<Step>) -> Phase {
    Phase {
        name: phase.name.clone(),
        standard: phase.name.clone(),
        runbook_steps: phase.runbook_steps.clone(),
        gate: phase.gate,
        start_by_ms: phase.start_by.map_or(START_BY_MS, |given| given.ms()),
        finish_by_ms,
        on_failure: policy(phase.on_failure),
        point_of_no_return: phase.point_of_no_return,
        steps,
    }
}

pub(super) fn policy(policy: FailurePolicy) -> OnFailure {
    match policy {
        FailurePolicy::Hold => OnFailure::Hold,
        FailurePolicy::Rollback => OnFailure::Rollback,
    }
}

fn step(source: &StepSource) -> Step {
    let params = source.params.clone();
    let params = normalized(params.unwrap_or_else(|| Value::Object(Map::new())));
    let has_undo = Action::find(&source.action).is_some_and(Action::undoable);
    Step {
        id: source.id.clone(),
        party: source.party.clone(),
        action: source.action.clone(),
        mode: Mode::Execute,
        timeout_ms: source.timeout.map_or_else(
            || actions::task_limit_secs(&source.action, &params).saturating_mul(1000),
            |given| given.ms(),
        ),
        params,
        proof: source.proof,
        required: source.required,
        undoable: source.undo.unwrap_or(has_undo),
        watch_until: source.watch_until.clone(),
    }
}
