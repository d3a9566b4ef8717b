//! References to outputs of other steps: whether each exists and is available
//! in time.
//!
//! A release carries the outputs that its tasks consume, so the step that
//! produces an output must belong to an earlier phase.

use super::all_phases;
use crate::actions::Action;
use crate::diagnose::{self, Fault, suggest};
use crate::model::{Plan, Step};
use crate::reference::{self, Piece, Reference, Target};
use serde_json::Value;
use std::collections::BTreeMap;

/// The phase number of each step, rollback phases numbered after forward phases.
type Places<'a> = BTreeMap<&'a str, (usize, &'a Step)>;

pub(super) fn check(plan: &Plan, faults: &mut Vec<Fault>) {
    let mut places = Places::new();
    for (number, (_, phase)) in all_phases(plan).enumerate() {
        for step in &phase.steps {
            places.entry(&step.id).or_insert((number, step));
        }
    }
    for (number, (pointer, phase)) in all_phases(plan).enumerate() {
        for (index, step) in phase.steps.iter().enumerate() {
            let params = format!("{pointer}/steps/{index}/params");
            each(&step.params, &params, &mut |at, target| {
                faults.extend(fault(plan, &places, number, step, at, target));
            });
        }
    }
}

/// Every reference in a value with its pointer; malformed ones as an error.
fn each(
    value: &Value,
    pointer: &str,
    visit: &mut impl FnMut(&str, Result<Target, reference::ReferenceError>),
) {
    match value {
        Value::String(text) => match reference::pieces(text) {
            Ok(pieces) => {
                for piece in pieces {
                    if let Piece::Reference(target, _) = piece {
                        visit(pointer, Ok(target));
                    }
                }
            }
            Err(error) => visit(pointer, Err(error)),
        },
        Value::Array(items) => {
            for (index, item) in items.iter().enumerate() {
                each(item, &format!("{pointer}/{index}"), visit);
            }
        }
        Value::Object(fields) => {
            for (key, field) in fields {
                each(field, &crate::document::join(pointer, key), visit);
            }
        }
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

fn fault(
    plan: &Plan,
    places: &Places<'_>,
    number: usize,
    step: &Step,
    at: &str,
    target: Result<Target, reference::ReferenceError>,
) -> Option<Fault> {
    let reference = match target {
        Ok(Target::Output(reference)) => reference,
        Ok(Target::AgentName | Target::AgentLabel(_)) => return None,
        Ok(Target::Variable(name)) => {
            return Some(Fault::new(
                diagnose::VARIABLE,
                at,
                format!("variable {name:?} was not replaced"),
                "an expanded plan contains no variables; load it from its file",
            ));
        }
        Err(error) => {
            let mut fault = crate::variables::reference_fault(&error, [].iter());
            at.clone_into(&mut fault.pointer);
            return Some(fault);
        }
    };
    let earlier = places
        .iter()
        .filter(|(_, (place, _))| *place < number)
        .map(|(&id, _)| id);
    let Some((producer_number, producer)) = places.get(reference.step.as_str()) else {
        return Some(Fault::new(
            diagnose::UNKNOWN_OUTPUT,
            at,
            format!("{reference}: there is no step {:?}", reference.step),
            suggest(&reference.step, earlier),
        ));
    };
    let outputs = Action::find(&producer.action)?.outputs;
    if !outputs.contains(&reference.output.as_str()) {
        return Some(Fault::new(
            diagnose::UNKNOWN_OUTPUT,
            at,
            format!(
                "{reference}: {} has no output {:?}",
                producer.action, reference.output
            ),
            if outputs.is_empty() {
                format!("{} has no outputs", producer.action)
            } else {
                suggest(&reference.output, outputs.iter().copied())
            },
        ));
    }
    if *producer_number >= number {
        return Some(too_late(places, step, producer, &reference, at));
    }
    ambiguous(plan, producer, &reference, at)
}

fn too_late(
    places: &Places<'_>,
    step: &Step,
    producer: &Step,
    reference: &Reference,
    at: &str,
) -> Fault {
    if let Some(path) = path(places, producer, &step.id, &mut Vec::new()) {
        let cycle: Vec<&str> = std::iter::once(step.id.as_str()).chain(path).collect();
        return Fault::new(
            diagnose::CYCLE,
            at,
            format!("the steps depend on each other: {}", cycle.join(" → ")),
            "remove one of these references",
        );
    }
    Fault::new(
        diagnose::LATER_OUTPUT,
        at,
        format!("{reference} is not available when this phase is released"),
        "move this step into a phase after the one that produces the output",
    )
}

/// The ids of the steps on a path of references from `from` to `to`, if one
/// exists.
fn path<'a>(
    places: &Places<'a>,
    from: &'a Step,
    to: &str,
    seen: &mut Vec<&'a str>,
) -> Option<Vec<&'a str>> {
    if from.id == to {
        return Some(vec![&from.id]);
    }
    if seen.contains(&from.id.as_str()) {
        return None;
    }
    seen.push(&from.id);
    from.inputs().iter().find_map(|input| {
        let (_, next) = places.get(input.step.as_str())?;
        let mut rest = path(places, next, to, seen)?;
        rest.insert(0, &from.id);
        Some(rest)
    })
}

fn ambiguous(plan: &Plan, producer: &Step, reference: &Reference, at: &str) -> Option<Fault> {
    let agents = plan.parties.get(&producer.party)?.expected;
    (agents != 1).then(|| {
        Fault::new(
            diagnose::AMBIGUOUS_OUTPUT,
            at,
            format!(
                "{reference} has {agents} values: party {:?} has {agents} agents",
                producer.party
            ),
            format!(
                "assign step {:?} to a party with expected: 1, such as a lead host",
                producer.id
            ),
        )
    })
}
