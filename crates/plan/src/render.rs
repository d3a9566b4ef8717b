//! The expanded plan as text for `lockstep plan show`.
//!
//! One block for each phase with its gate, its deadlines and its failure policy;
//! below it each step with its party, action and main parameters. Programs use
//! [`Plan::to_json`] instead.

use crate::duration::shown;
use crate::expand::cutover::STANDARD_PHASES;
use crate::model::{Gate, Kind, Mode, OnFailure, Phase, Plan, Step};
use serde_json::Value;
use std::fmt::{self, Write as _};

/// Maximum number of characters of a parameter's value; longer ones are truncated, …
const VALUE_WIDTH: usize = 60;

/// The plan's header, its parties and the forward phases.
pub fn forward(plan: &Plan) -> String {
    let mut text = String::new();
    // Writing to a String can't fail.
    let _ = write_forward(&mut text, plan);
    text
}

pub fn rollback(plan: &Plan) -> String {
    let mut text = String::new();
    let _ = write_rollback(&mut text, plan);
    text
}

fn write_forward(out: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(out, "{} {}, digest {}", plan.kind, plan.name, plan.digest())?;
    writeln!(out)?;
    writeln!(out, "Parties")?;
    let width = widest(plan.parties.keys().map(String::as_str));
    for (name, party) in &plan.parties {
        let labels: Vec<String> = party
            .labels
            .iter()
            .map(|(key, value)| format!("{key}={value}"))
            .collect();
        let agents = if party.expected == 1 {
            "agent"
        } else {
            "agents"
        };
        let detachable = if party.detachable { ", detachable" } else { "" };
        writeln!(
            out,
            "  {name:width$}  {} {agents} with {}{detachable}",
            party.expected,
            labels.join(" ")
        )?;
    }
    if let Some(outage) = &plan.outage {
        writeln!(out)?;
        writeln!(
            out,
            "Outage of at most {} from {} to the end of {}, {} of it reserved for a rollback",
            shown(outage.budget_ms),
            outage.starts_with,
            outage.ends_with,
            shown(outage.rollback_reserve_ms)
        )?;
    }
    for phase in &plan.phases {
        write_phase(out, plan, phase)?;
    }
    let omitted = omitted(plan);
    if !omitted.is_empty() {
        writeln!(out)?;
        writeln!(out, "Omitted phases (no steps): {}", omitted.join(", "))?;
    }
    Ok(())
}

fn write_rollback(out: &mut String, plan: &Plan) -> fmt::Result {
    writeln!(
        out,
        "Rollback of {} {}, digest {}",
        plan.kind,
        plan.name,
        plan.digest()
    )?;
    if plan.rollback.is_empty() {
        writeln!(out)?;
        writeln!(out, "Nothing to undo.")?;
    }
    for phase in &plan.rollback {
        write_phase(out, plan, phase)?;
    }
    Ok(())
}

fn omitted(plan: &Plan) -> Vec<&'static str> {
    if plan.kind != Kind::Cutover {
        return Vec::new();
    }
    STANDARD_PHASES
        .iter()
        .copied()
        .filter(|name| plan.phases.iter().all(|phase| phase.standard != *name))
        .collect()
}

fn write_phase(out: &mut String, plan: &Plan, phase: &Phase) -> fmt::Result {
    writeln!(out)?;
    write!(out, "{}", phase.name)?;
    if !phase.runbook_steps.is_empty() {
        write!(out, "  [step {}]", phase.runbook_steps.join(", "))?;
    }
    writeln!(out)?;
    if phase.point_of_no_return {
        writeln!(
            out,
            "  point of no return: no rollback is possible after the release of this phase"
        )?;
    }
    match phase.gate {
        Gate::None => {}
        Gate::Approval => writeln!(out, "  gate: an operator must approve")?,
        Gate::Hold => writeln!(out, "  gate: the run holds until an operator resumes it")?,
    }
    let failure = match phase.on_failure {
        OnFailure::Hold => "hold",
        OnFailure::Rollback => "roll back",
        OnFailure::Continue => "continue, hold at the end",
    };
    writeln!(
        out,
        "  start by {}, finish by {}; on failure {failure}",
        shown(phase.start_by_ms),
        shown(phase.finish_by_ms)
    )?;
    let parties = widest(phase.steps.iter().map(|step| step.party.as_str()));
    let ids = widest(phase.steps.iter().map(|step| step.id.as_str()));
    for step in &phase.steps {
        write!(out, "  {:parties$}  {:ids$}  ", step.party, step.id)?;
        write_step(out, plan, step)?;
    }
    Ok(())
}

fn write_step(out: &mut String, plan: &Plan, step: &Step) -> fmt::Result {
    if let Mode::Undo { of } = &step.mode {
        let phase = plan
            .phases
            .iter()
            .find(|phase| phase.steps.iter().any(|step| step.id == *of))
            .map_or("", |phase| &phase.name);
        return writeln!(out, "undo {} of {phase}", step.action);
    }
    write!(out, "{}", step.action)?;
    if let Value::Object(fields) = &step.params {
        for (name, value) in fields {
            if let Some(value) = short(value) {
                write!(out, " {name}={value}")?;
            }
        }
    }
    let mut marks = Vec::new();
    if step.proof {
        marks.push("proof".to_owned());
    }
    if step.required {
        marks.push("required".to_owned());
    }
    if step.undoable {
        marks.push("undoable".to_owned());
    }
    if let Some(until) = &step.watch_until {
        marks.push(format!("watch until {until}"));
    }
    if !marks.is_empty() {
        write!(out, " ({})", marks.join(", "))?;
    }
    writeln!(out)
}

/// A parameter value on one line; none if it is empty.
fn short(value: &Value) -> Option<String> {
    let text = match value {
        Value::Null => return None,
        Value::String(text) => text.clone(),
        Value::Bool(_) | Value::Number(_) => value.to_string(),
        Value::Array(items) if items.is_empty() => return None,
        Value::Object(fields) if fields.is_empty() => return None,
        Value::Array(items) if items.iter().all(Value::is_string) => {
            let texts: Vec<&str> = items.iter().filter_map(Value::as_str).collect();
            let joined = texts.join(",");
            if texts.len() > 1 && joined.chars().count() > VALUE_WIDTH {
                format!("[{} entries]", texts.len())
            } else {
                joined
            }
        }
        Value::Array(items) => format!("[{} entries]", items.len()),
        Value::Object(_) => "{…}".to_owned(),
    };
    if text.chars().count() <= VALUE_WIDTH {
        return Some(text);
    }
    // The end of an ARN or a path is more specific than its beginning.
    let skip = text.chars().count() - (VALUE_WIDTH - 1);
    Some(
        std::iter::once('…')
            .chain(text.chars().skip(skip))
            .collect(),
    )
}

fn widest<'a>(texts: impl Iterator<Item = &'a str>) -> usize {
    texts.map(|text| text.chars().count()).max().unwrap_or(0)
}
