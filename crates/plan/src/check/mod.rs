//! Consistency of an expanded plan.
//!
//! The loader verifies every plan it expands, and the coordinator verifies
//! every plan it receives, because that plan may not come from this loader.
//! Pointers in the faults refer to the expanded plan's JSON; a file of kind
//! `Plan` has the same structure, so its loader can show the line.
//!
//! Whether agents exist, resources are configured and policies allow the
//! actions is checked by the preflight.

mod flow;
mod steps;

use crate::budget::worst_cases;
use crate::diagnose::{self, Fault, suggest};
use crate::duration::shown;
use crate::model::{OnFailure, Phase, Plan};
use std::collections::BTreeSet;
pub(crate) use steps::longest_ms;

/// Maximum number of phases of a plan, forward and rollback together: more than three
/// times those of a cutover with every option.
pub const MAX_PHASES: usize = 128;

/// Maximum number of steps of a plan: a run's state holds one task per step and agent.
pub const MAX_STEPS: usize = 1024;

/// Maximum size of an expanded plan's JSON in bytes: a request to the coordinator
/// contains it with its file, and the first record of a run contains it twice, as plan
/// and as resolved plan.
pub const MAX_EXPANDED: usize = 1024 * 1024;

/// Maximum number of agents of one party: a barrier waits for the slowest, and the
/// coordinator's journal records every task.
pub const MAX_AGENTS: u32 = 1000;

/// Maximum number of characters of a name; names become parts of unit names and of
/// columns on a terminal.
pub const MAX_NAME: usize = 64;

/// All faults of the plan, including warnings.
pub fn verify(plan: &Plan) -> Vec<Fault> {
    let mut faults = Vec::new();
    names(plan, &mut faults);
    parties(plan, &mut faults);
    phases(plan, &mut faults);
    outage(plan, &mut faults);
    steps::check(plan, &mut faults);
    flow::check(plan, &mut faults);
    size(plan, &mut faults);
    faults
}

fn size(plan: &Plan, faults: &mut Vec<Fault>) {
    let bytes = plan.to_json().len();
    if bytes <= MAX_EXPANDED {
        return;
    }
    let all = plan.phases.iter().enumerate();
    let largest = all.max_by_key(|(_, phase)| {
        let params = phase.steps.iter().map(|step| step.params.to_string().len());
        params.sum::<usize>()
    });
    let (pointer, largest) = largest.map_or_else(
        || ("/phases".to_owned(), String::new()),
        |(index, phase)| {
            (
                format!("/phases/{index}"),
                format!("; the largest phase is {:?}", phase.name),
            )
        },
    );
    faults.push(Fault::new(
        diagnose::TOO_LARGE,
        pointer,
        format!("the expanded plan has {bytes} bytes{largest}"),
        format!("a plan has at most {MAX_EXPANDED} bytes once expanded; split it"),
    ));
}

/// Forward and rollback phases with their pointers, in the order of the plan.
fn all_phases(plan: &Plan) -> impl Iterator<Item = (String, &Phase)> {
    numbered("/phases", &plan.phases).chain(numbered("/rollback", &plan.rollback))
}

fn numbered<'a>(
    pointer: &'static str,
    phases: &'a [Phase],
) -> impl Iterator<Item = (String, &'a Phase)> {
    phases
        .iter()
        .enumerate()
        .map(move |(index, phase)| (format!("{pointer}/{index}"), phase))
}

fn names(plan: &Plan, faults: &mut Vec<Fault>) {
    name("/name", &plan.name, &[], faults);
    for party in plan.parties.keys() {
        name(
            &crate::document::join("/parties", party),
            party,
            &[],
            faults,
        );
    }
    let mut phases = BTreeSet::new();
    let mut steps = BTreeSet::new();
    for (pointer, phase) in all_phases(plan) {
        name(&format!("{pointer}/name"), &phase.name, &[], faults);
        if !phases.insert(&phase.name) {
            twice(&format!("{pointer}/name"), "phase", &phase.name, faults);
        }
        for (index, step) in phase.steps.iter().enumerate() {
            let pointer = format!("{pointer}/steps/{index}/id");
            // `${vars.x}` and `${agent.name}` would be ambiguous.
            name(&pointer, &step.id, &["vars", "agent"], faults);
            if step.id.contains('.') {
                faults.push(Fault::new(
                    diagnose::UNUSABLE_NAME,
                    &pointer,
                    format!("the step id {:?} contains a full stop", step.id),
                    "in a reference a full stop ends the step id: use a hyphen",
                ));
            }
            if !steps.insert(&step.id) {
                twice(&pointer, "step", &step.id, faults);
            }
        }
    }
    if plan.phases.len() + plan.rollback.len() > MAX_PHASES || steps.len() > MAX_STEPS {
        faults.push(Fault::new(
            diagnose::TOO_LARGE,
            "/phases",
            format!("the plan has {} steps", steps.len()),
            format!("a plan has at most {MAX_PHASES} phases and {MAX_STEPS} steps; split it"),
        ));
    }
}

fn name(pointer: &str, name: &str, reserved: &[&str], faults: &mut Vec<Fault>) {
    let usable = name.len() <= MAX_NAME
        && name.starts_with(|c: char| c.is_ascii_lowercase() || c.is_ascii_digit())
        && name
            .chars()
            .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || "-_.".contains(c));
    if !usable {
        faults.push(Fault::new(
            diagnose::UNUSABLE_NAME,
            pointer,
            format!("{name:?} is not a valid name"),
            format!(
                "names start with a lowercase letter or a digit and consist of lowercase letters, \
                 digits, - _ and . up to {MAX_NAME} characters"
            ),
        ));
    } else if reserved.contains(&name) {
        faults.push(Fault::new(
            diagnose::UNUSABLE_NAME,
            pointer,
            format!("{name:?} is reserved in references"),
            "choose another name",
        ));
    }
}

fn twice(pointer: &str, what: &str, name: &str, faults: &mut Vec<Fault>) {
    faults.push(Fault::new(
        diagnose::DUPLICATE_NAME,
        pointer,
        format!("there is another {what} named {name:?}"),
        "use unique names: reports, approvals and references identify things by name",
    ));
}

fn parties(plan: &Plan, faults: &mut Vec<Fault>) {
    if plan.parties.is_empty() {
        faults.push(Fault::new(
            diagnose::EMPTY_PARTY,
            "/parties",
            "the plan has no parties",
            "define at least one, with the labels of its agents and their expected number",
        ));
    }
    for (name, party) in &plan.parties {
        let pointer = crate::document::join("/parties", name);
        if party.labels.is_empty() {
            faults.push(Fault::new(
                diagnose::EMPTY_PARTY,
                format!("{pointer}/labels"),
                format!("party {name:?} has no labels"),
                "list the labels of its agents; a party cannot match every agent",
            ));
        }
        if !(1..=MAX_AGENTS).contains(&party.expected) {
            faults.push(Fault::new(
                diagnose::EMPTY_PARTY,
                format!("{pointer}/expected"),
                format!("party {name:?} expects {} agents", party.expected),
                format!(
                    "set the number of agents that must match, 1 to {MAX_AGENTS}: an empty party \
                     would always be ready"
                ),
            ));
        }
        let used = plan
            .phases
            .iter()
            .chain(&plan.rollback)
            .flat_map(|phase| &phase.steps)
            .any(|step| step.party == *name);
        if !used {
            faults.push(
                Fault::new(
                    diagnose::UNUSED_PARTY,
                    pointer,
                    format!("party {name:?} has no step"),
                    "remove it, or add a step for it",
                )
                .into_warning(),
            );
        }
    }
}

fn phases(plan: &Plan, faults: &mut Vec<Fault>) {
    if plan.phases.is_empty() {
        faults.push(Fault::new(
            diagnose::NO_STEPS,
            "/phases",
            "the plan has no phases",
            "add at least one phase with a step",
        ));
    }
    let mut no_return: Option<&str> = None;
    for (pointer, phase) in all_phases(plan) {
        let forward = pointer.starts_with("/phases");
        if phase.steps.is_empty() {
            faults.push(Fault::new(
                diagnose::NO_STEPS,
                format!("{pointer}/steps"),
                format!("phase {:?} has no steps", phase.name),
                "add a step, or remove the phase",
            ));
        }
        if phase.start_by_ms == 0 || phase.finish_by_ms == 0 {
            faults.push(Fault::new(
                diagnose::SHORT_DEADLINE,
                format!("{pointer}/finish_by"),
                format!("phase {:?} has a deadline of zero", phase.name),
                "set it to the time that its steps may take",
            ));
        }
        if phase.point_of_no_return && (!forward || no_return.is_some()) {
            faults.push(Fault::new(
                diagnose::NO_RETURN,
                format!("{pointer}/point_of_no_return"),
                match no_return {
                    Some(first) => format!("phase {first:?} is already the point of no return"),
                    None => "a rollback has no point of no return".to_owned(),
                },
                "mark only the phase after whose release no rollback is possible",
            ));
        }
        let past = phase.point_of_no_return || no_return.is_some();
        if forward && past && phase.on_failure == OnFailure::Rollback {
            faults.push(Fault::new(
                diagnose::NO_RETURN,
                format!("{pointer}/on_failure"),
                format!(
                    "phase {:?} cannot roll back: it is past the point of no return",
                    phase.name
                ),
                "write on_failure: hold",
            ));
        }
        let fits = if forward {
            phase.on_failure != OnFailure::Continue
        } else {
            phase.on_failure != OnFailure::Rollback
        };
        if !fits {
            faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                format!("{pointer}/on_failure"),
                "this failure policy is not allowed here",
                "a failed forward phase can hold or roll back; a failed rollback phase can hold or \
                 continue",
            ));
        }
        if forward && phase.point_of_no_return {
            no_return = Some(&phase.name);
        }
    }
}

fn outage(plan: &Plan, faults: &mut Vec<Fault>) {
    let Some(outage) = &plan.outage else {
        return;
    };
    let mut position = |field: &str, name: &str| {
        let found = plan.phases.iter().position(|phase| phase.name == *name);
        if found.is_none() {
            faults.push(unknown_phase(plan, &format!("/outage/{field}"), name));
        }
        found
    };
    let start = position("starts_with", &outage.starts_with);
    let end = position("ends_with", &outage.ends_with);
    if let (Some(start), Some(end)) = (start, end)
        && end < start
    {
        faults.push(Fault::new(
            diagnose::OUTAGE_BUDGET,
            "/outage/ends_with",
            format!(
                "the outage would end with {:?}, before it starts with {:?}",
                outage.ends_with, outage.starts_with
            ),
            "name a later phase",
        ));
    }
    if outage.rollback_reserve_ms >= outage.budget_ms {
        faults.push(Fault::new(
            diagnose::OUTAGE_BUDGET,
            "/outage/rollback_reserve",
            "the rollback reserve uses up the whole budget",
            "the reserve is part of the budget: reduce it or increase the budget",
        ));
    }
    short_reserve(plan, faults);
}

/// A step that changes something runs to its limit before a rollback begins.
fn short_reserve(plan: &Plan, faults: &mut Vec<Fault>) {
    let Some(worst) = worst_cases(plan) else {
        return;
    };
    let longer: Vec<String> = worst
        .phases
        .iter()
        .filter(|phase| phase.delays_rollback_ms > worst.rollback_reserve_ms)
        .map(|phase| format!("{} by {}", phase.name, shown(phase.delays_rollback_ms)))
        .collect();
    if longer.is_empty() || worst.decides_ms() == 0 {
        return;
    }
    faults.push(
        Fault::new(
            diagnose::SHORT_RESERVE,
            "/outage/rollback_reserve",
            format!(
                "a rollback that is decided after {} may begin only when the budget of {} is used \
                 up, because steps that change something run to their limit first: it may be \
                 delayed in {}",
                shown(worst.decides_ms()),
                shown(worst.budget_ms),
                longer.join(", ")
            ),
            "reduce the timeouts of these phases, or increase the reserve",
        )
        .into_warning(),
    );
}

fn unknown_phase(plan: &Plan, pointer: &str, name: &str) -> Fault {
    Fault::new(
        diagnose::UNKNOWN_PHASE,
        pointer,
        format!("there is no phase {name:?}"),
        suggest(name, plan.phases.iter().map(|phase| phase.name.as_str())),
    )
}

fn unknown_action(pointer: &str, name: &str) -> Fault {
    let known = crate::actions::ACTIONS.iter().map(|action| action.name);
    let remedy = match diagnose::nearest(name, known.clone()) {
        Some(near) => format!("did you mean {near:?}?"),
        None => {
            let family = name.split('.').next().unwrap_or_default();
            let related: Vec<&str> = known
                .filter(|known| known.split('.').next() == Some(family))
                .collect();
            if related.is_empty() {
                "`lockstep plan schema` lists all actions".to_owned()
            } else {
                format!("actions with the same prefix: {}", related.join(", "))
            }
        }
    };
    Fault::new(
        diagnose::UNKNOWN_ACTION,
        pointer,
        format!("there is no action {name:?}"),
        remedy,
    )
}
