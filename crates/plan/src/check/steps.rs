//! Checks of single steps and of their phase: party, action, parameters, undo,
//! watch, time limits.

use super::{all_phases, unknown_action, unknown_phase};
use crate::actions::{Action, ActionSpec, Effect};
use crate::catalogue::{CheckHttp, CheckState, DmsReverseStart, StopListeners};
use crate::diagnose::{self, Fault, suggest};
use crate::duration::shown;
use crate::model::{Mode, Party, Phase, Plan, Step};
use serde_json::Value;

pub(super) fn check(plan: &Plan, faults: &mut Vec<Fault>) {
    for (pointer, phase) in all_phases(plan) {
        for (index, step) in phase.steps.iter().enumerate() {
            let pointer = format!("{pointer}/steps/{index}");
            party(plan, &pointer, step, faults);
            match Action::find(&step.action) {
                None => faults.push(unknown_action(&format!("{pointer}/action"), &step.action)),
                Some(action) => {
                    parameters(&pointer, step, action, faults);
                    checked_state(&pointer, step, faults);
                    url(&pointer, step, faults);
                    undo(plan, &pointer, step, action, faults);
                    watch(plan, &pointer, phase, step, action, faults);
                    timeout(&pointer, step, action, faults);
                }
            }
        }
        deadline(plan, &pointer, phase, faults);
    }
    dms_listener(plan, faults);
}

fn party(plan: &Plan, pointer: &str, step: &Step, faults: &mut Vec<Fault>) {
    if !plan.parties.contains_key(&step.party) {
        faults.push(Fault::new(
            diagnose::UNKNOWN_PARTY,
            format!("{pointer}/party"),
            format!("there is no party {:?}", step.party),
            suggest(&step.party, plan.parties.keys().map(String::as_str)),
        ));
    }
}

/// Decodes the parameters into the action's type. Parameters with references are
/// complete only at the release: the loader checks their structure against the
/// schema, and the agent decodes them again.
fn parameters(pointer: &str, step: &Step, action: &Action, faults: &mut Vec<Fault>) {
    if has_reference(&step.params) {
        return;
    }
    if let Err(error) = action.decode(&step.params) {
        faults.push(Fault::new(
            diagnose::WRONG_VALUE,
            format!("{pointer}/params"),
            format!("parameters of {}: {error}", step.action),
            "`lockstep plan schema` prints the parameters of each action",
        ));
    }
}

/// The action whose state a `check.state` checks must reach one, and the parameters
/// must be its own.
fn checked_state(pointer: &str, step: &Step, faults: &mut Vec<Fault>) {
    if step.action != CheckState::NAME {
        return;
    }
    let name = step.params["action"].as_str().unwrap_or_default();
    let at = format!("{pointer}/params/action");
    let Some(action) = Action::find(name) else {
        faults.push(unknown_action(&at, name));
        return;
    };
    let params = &step.params["params"];
    match action.effect {
        Effect::ReadOnly | Effect::Watch => faults.push(Fault::new(
            diagnose::WRONG_VALUE,
            at,
            format!("{name} reaches no state: it changes nothing"),
            "name an action that changes something",
        )),
        Effect::Undoable | Effect::Permanent if has_reference(params) => {}
        Effect::Undoable | Effect::Permanent => {
            if let Err(error) = action.decode(params) {
                faults.push(Fault::new(
                    diagnose::WRONG_VALUE,
                    format!("{pointer}/params/params"),
                    format!("parameters of {name}: {error}"),
                    "`lockstep plan schema` prints the parameters of each action",
                ));
            }
        }
    }
}

/// A password in a URL would be in the journal and in every view of the plan.
fn url(pointer: &str, step: &Step, faults: &mut Vec<Fault>) {
    let url = step.params["url"].as_str().unwrap_or_default();
    let authority = url.split_once("://").map_or("", |(_, rest)| rest);
    let authority = authority.split(['/', '?', '#']).next().unwrap_or_default();
    if step.action == CheckHttp::NAME && authority.contains('@') {
        faults.push(Fault::new(
            diagnose::WRONG_VALUE,
            format!("{pointer}/params/url"),
            "a URL with a user or a password",
            "leave it out; where the endpoint demands a login, use check.command",
        ));
    }
}

fn has_reference(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${"),
        Value::Array(items) => items.iter().any(has_reference),
        Value::Object(fields) => fields.values().any(has_reference),
        Value::Null | Value::Bool(_) | Value::Number(_) => false,
    }
}

fn undo(plan: &Plan, pointer: &str, step: &Step, action: &Action, faults: &mut Vec<Fault>) {
    if step.undoable && !action.undoable() {
        faults.push(Fault::new(
            diagnose::NOTHING_TO_UNDO,
            format!("{pointer}/undo"),
            format!("{} has no undo", step.action),
            "remove undo",
        ));
    }
    let Mode::Undo { of } = &step.mode else {
        return;
    };
    let forward = pointer.starts_with("/phases");
    let undone = plan
        .phases
        .iter()
        .flat_map(|phase| &phase.steps)
        .find(|other| other.id == *of);
    let reason = match undone {
        _ if forward => Some("a forward phase cannot undo a step".to_owned()),
        None => Some(format!("there is no forward step {of:?}")),
        Some(undone) if !undone.undoable => Some(format!("step {of:?} is not undoable")),
        Some(undone) if undone.action != step.action || undone.party != step.party => {
            Some(format!("step {of:?} has another action or party"))
        }
        Some(_) => None,
    };
    if let Some(reason) = reason {
        faults.push(Fault::new(
            diagnose::NOTHING_TO_UNDO,
            format!("{pointer}/mode"),
            reason,
            "an undo refers to an undoable forward step with the same party and action",
        ));
    }
}

fn watch(
    plan: &Plan,
    pointer: &str,
    phase: &Phase,
    step: &Step,
    action: &Action,
    faults: &mut Vec<Fault>,
) {
    let at = format!("{pointer}/watch_until");
    let Some(until) = &step.watch_until else {
        if action.watch() {
            faults.push(Fault::new(
                diagnose::WATCH,
                format!("{pointer}/action"),
                format!("{} is a watch, but watch_until is missing", step.action),
                "add watch_until with the phase whose release ends the watch",
            ));
        }
        return;
    };
    if !action.watch() {
        faults.push(Fault::new(
            diagnose::WATCH,
            at,
            format!("{} is not a watch", step.action),
            "remove watch_until",
        ));
        return;
    }
    let here = plan
        .phases
        .iter()
        .position(|other| other.name == phase.name);
    let there = plan.phases.iter().position(|other| other.name == *until);
    match (here, there) {
        (_, None) => faults.push(unknown_phase(plan, &at, until)),
        (Some(here), Some(there)) if there > here => {}
        _ => faults.push(Fault::new(
            diagnose::WATCH,
            at,
            format!(
                "the watch would end with {until:?}, which does not come after {:?}",
                phase.name
            ),
            "name a phase after that of the watch",
        )),
    }
}

fn timeout(pointer: &str, step: &Step, action: &Action, faults: &mut Vec<Fault>) {
    if step.timeout_ms == 0 {
        faults.push(Fault::new(
            diagnose::SHORT_DEADLINE,
            format!("{pointer}/timeout"),
            format!("step {:?} has a timeout of zero", step.id),
            "set it to the time that the step may take",
        ));
        return;
    }
    let own = action
        .limit_secs(&step.params)
        .unwrap_or(0)
        .saturating_mul(1000);
    if step.timeout_ms < own {
        faults.push(
            Fault::new(
                diagnose::SHORT_DEADLINE,
                format!("{pointer}/timeout"),
                format!(
                    "step {:?} times out after {}, but the parameters of {} allow it {}",
                    step.id,
                    shown(step.timeout_ms),
                    step.action,
                    shown(own)
                ),
                "increase the timeout, or reduce the limits in params",
            )
            .into_warning(),
        );
    }
}

fn deadline(plan: &Plan, pointer: &str, phase: &Phase, faults: &mut Vec<Fault>) {
    let needed = longest_ms(&plan.parties, &phase.steps);
    if phase.finish_by_ms > 0 && phase.finish_by_ms < needed {
        faults.push(
            Fault::new(
                diagnose::SHORT_DEADLINE,
                format!("{pointer}/finish_by"),
                format!(
                    "phase {:?} must finish within {}, but the steps of one agent may take {}",
                    phase.name,
                    shown(phase.finish_by_ms),
                    shown(needed)
                ),
                "increase finish_by, or reduce the timeouts of the steps",
            )
            .into_warning(),
        );
    }
}

/// The longest time that one agent may need for its steps in sequence. An agent
/// belongs to every party whose labels are a subset of its own.
pub(crate) fn longest_ms(
    parties: &std::collections::BTreeMap<String, Party>,
    steps: &[Step],
) -> u64 {
    parties
        .values()
        .map(|agent| {
            steps
                .iter()
                .filter(|step| {
                    parties
                        .get(&step.party)
                        .is_some_and(|party| party.matches(&agent.labels))
                })
                .fold(0, |sum: u64, step| sum.saturating_add(step.timeout_ms))
        })
        .max()
        .unwrap_or(0)
}

/// A reverse task opens a new connection to Oracle after the listeners have been
/// stopped, so one of them must stay up (AWS DMS connects the target endpoint
/// when the task starts).
fn dms_listener(plan: &Plan, faults: &mut Vec<Fault>) {
    let steps = || {
        plan.phases.iter().enumerate().flat_map(|(p, phase)| {
            phase
                .steps
                .iter()
                .enumerate()
                .map(move |(s, step)| (p, s, step))
        })
    };
    let Some((started, ..)) = steps().find(|(.., step)| step.action == DmsReverseStart::NAME)
    else {
        return;
    };
    for (phase, index, step) in steps() {
        let keeps = step
            .params
            .get("keep")
            .and_then(Value::as_array)
            .is_some_and(|keep| !keep.is_empty());
        let names = step
            .params
            .get("listeners")
            .and_then(Value::as_array)
            .is_some_and(|listeners| !listeners.is_empty());
        if step.action == StopListeners::NAME && phase <= started && !keeps && !names {
            faults.push(Fault::new(
                diagnose::NO_DMS_LISTENER,
                format!("/phases/{phase}/steps/{index}/params"),
                "all listeners are stopped, so the reverse task could not connect to Oracle",
                "list the listener reserved for DMS in keep",
            ));
        }
    }
}
