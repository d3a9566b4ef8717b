//! Converts the text of a plan file to a checked plan or a list of problems.

use crate::actions::Action;
use crate::check::verify;
use crate::diagnose::{self, Fault, Problems, suggest};
use crate::document::{Content, Node};
use crate::expand;
use crate::model::{Kind, Plan};
use crate::schema;
use crate::schema_check::{self, DeferredRefs};
use crate::source::{cutover::Cutover, plan::PlanFile, restart::Restart};
use serde::de::DeserializeOwned;
use serde_json::Value;
use std::collections::BTreeMap;
use std::ops::Range;

/// Values given for one load in addition to the file.
#[derive(Debug, Clone, Default)]
pub struct Overrides {
    /// Values of variables, by name.
    pub vars: BTreeMap<String, String>,
}

/// Result of checking a file.
#[derive(Debug, Clone)]
pub struct Checked {
    /// The plan, if it has no errors.
    pub plan: Option<Plan>,
    /// Errors and warnings; only warnings if there is a plan.
    pub problems: Problems,
}

/// Reads, checks and expands a plan file. `file_name` is for the report only.
///
/// # Errors
/// All problems, each with its location and a remedy. Warnings alone are no
/// error; [`check()`](crate::load::check) returns them.
pub fn load(file_name: &str, text: &str, overrides: &Overrides) -> Result<Plan, Problems> {
    let checked = check(file_name, text, overrides);
    checked.plan.ok_or(checked.problems)
}

/// Like [`load()`](crate::load::load), but also returns the warnings of a valid plan.
pub fn check(file_name: &str, text: &str, overrides: &Overrides) -> Checked {
    let mut located = Vec::new();
    let plan = match Node::parse(text) {
        Ok(document) => checked(document, overrides, &mut located),
        Err(problem) => {
            located.push(problem);
            None
        }
    };
    let problems = Problems::new(file_name, text, located);
    Checked {
        plan: plan.filter(|_| !problems.has_errors()),
        problems,
    }
}

type Located = Vec<(Fault, Range<usize>)>;

fn checked(mut document: Node, overrides: &Overrides, located: &mut Located) -> Option<Plan> {
    document.duplicates("", located);
    let mut odd = Located::new();
    document.odd_numbers("", &mut odd);
    located.extend(document.substitute(&overrides.vars));
    let (plan, faults) = match kind(&document) {
        Ok(Kind::Plan) => plan_file(&document),
        Ok(kind @ Kind::Restart) => expanded::<Restart>(&document, kind, expand::restart::expand),
        Ok(kind @ Kind::Cutover) => expanded::<Cutover>(&document, kind, expand::cutover::expand),
        Err(fault) => (None, vec![fault]),
    };
    // A variable without a value also has the wrong type: report it once.
    let reported: Vec<Range<usize>> = located.iter().map(|(_, place)| place.clone()).collect();
    let placed = faults.into_iter().map(|fault| {
        let place = document.place(&fault.pointer, fault.at_key);
        (fault, place)
    });
    located.extend(placed.filter(|(_, place)| !reported.contains(place)));
    // Where the number is wrong for another reason, that reason says more.
    odd.retain(|(_, place)| !located.iter().any(|(_, other)| other == place));
    located.append(&mut odd);
    plan
}

fn kind(document: &Node) -> Result<Kind, Fault> {
    let names = Kind::ALL.map(Kind::name);
    if !matches!(document.content, Content::Map(_)) {
        return Err(Fault::new(
            diagnose::UNKNOWN_KIND,
            "",
            "the file is not a plan",
            "a plan is a map with the keys kind and name; see the examples in deploy/plans",
        ));
    }
    let Some(node) = document.get("/kind") else {
        return Err(Fault::new(
            diagnose::UNKNOWN_KIND,
            "",
            "field \"kind\" is missing",
            format!("add kind: one of {}", names.join(", ")),
        ));
    };
    let written = match &node.content {
        Content::Text(text) => text.clone(),
        _ => node.to_value().to_string(),
    };
    Kind::ALL
        .into_iter()
        .find(|kind| kind.name() == written)
        .ok_or_else(|| {
            Fault::new(
                diagnose::UNKNOWN_KIND,
                "/kind",
                format!("{written:?} is not a kind of plan"),
                suggest(&written, names),
            )
        })
}

/// Kinds whose files have another structure than the expanded plan.
fn expanded<S: DeserializeOwned>(
    document: &Node,
    kind: Kind,
    expand: impl Fn(&S) -> (Plan, Vec<Fault>),
) -> (Option<Plan>, Vec<Fault>) {
    let schema = schema::strict();
    let mut faults =
        schema_check::check(document, "", &kind.reference(), schema, DeferredRefs::Agent);
    let Some(source) = decode::<S>(document, &mut faults) else {
        return (None, faults);
    };
    let (plan, own) = expand(&source);
    faults.extend(own);
    if faults.iter().all(|fault| fault.warning) {
        let rest = verify(&plan);
        faults.extend(rest.into_iter().map(|fault| in_source(fault, &plan)));
    }
    (Some(plan), faults)
}

/// Maps a fault in an expanded phase to the place in the file that sets it.
fn in_source(mut fault: Fault, plan: &Plan) -> Fault {
    let phase = fault
        .pointer
        .strip_prefix("/phases/")
        .and_then(|rest| rest.split('/').next()?.parse::<usize>().ok())
        .and_then(|index| plan.phases.get(index));
    if let Some(phase) = phase
        && fault.pointer.ends_with("/finish_by")
    {
        fault.pointer = crate::document::join("/deadlines", &phase.standard);
    }
    fault
}

/// `kind: Plan`: pointers of the expanded plan are those of the file, and the
/// parameters of each step are checked against its action.
fn plan_file(document: &Node) -> (Option<Plan>, Vec<Fault>) {
    let schema = schema::strict();
    let kind = Kind::Plan;
    let mut faults = schema_check::check(
        document,
        "",
        &kind.reference(),
        schema,
        DeferredRefs::Elsewhere,
    );
    faults.extend(parameters(document, schema));
    let Some(source) = decode::<PlanFile>(document, &mut faults) else {
        return (None, faults);
    };
    let plan = expand::plan::expand(&source);
    for fault in verify(&plan) {
        let reported = faults.iter().any(|known| {
            known.pointer == fault.pointer && known.code == fault.code
                || fault.code == diagnose::WRONG_VALUE && known.pointer.starts_with(&fault.pointer)
        });
        // Rollback phases are derived from the forward ones: so are their faults.
        if !reported && !fault.pointer.starts_with("/rollback") {
            faults.push(fault);
        }
    }
    (Some(plan), faults)
}

fn parameters(document: &Node, schema: &Value) -> Vec<Fault> {
    let mut faults = Vec::new();
    let count = |pointer: &str| match document.get(pointer).map(|node| &node.content) {
        Some(Content::List(items)) => items.len(),
        _ => 0,
    };
    for phase in 0..count("/phases") {
        for step in 0..count(&format!("/phases/{phase}/steps")) {
            let pointer = format!("/phases/{phase}/steps/{step}");
            let Some(Content::Text(name)) = document
                .get(&format!("{pointer}/action"))
                .map(|node| &node.content)
            else {
                continue;
            };
            let Some(action) = Action::find(name) else {
                continue;
            };
            let pointer = format!("{pointer}/params");
            let none = Node {
                content: Content::Map(Vec::new()),
                at: 0..0,
                written: None,
            };
            let params = document.get(&pointer).unwrap_or(&none);
            let expected = schema::parameters(action);
            faults.extend(schema_check::check(
                params,
                &pointer,
                &expected,
                schema,
                DeferredRefs::Outputs,
            ));
        }
    }
    faults
}

/// Decodes the typed form. Unknown fields have been reported and are removed, so
/// that the rest can still be checked. A decoding error is reported only if no
/// other fault explains it.
fn decode<S: DeserializeOwned>(document: &Node, faults: &mut Vec<Fault>) -> Option<S> {
    let mut value = document.to_value();
    for fault in faults
        .iter()
        .filter(|fault| fault.code == diagnose::UNKNOWN_FIELD)
    {
        remove(&mut value, &fault.pointer);
    }
    match serde_json::from_value(value) {
        Ok(source) => Some(source),
        Err(error) => {
            if faults
                .iter()
                .all(|fault| fault.code == diagnose::UNKNOWN_FIELD)
            {
                faults.push(Fault::new(
                    diagnose::WRONG_VALUE,
                    "",
                    error.to_string(),
                    "`lockstep plan schema` prints the schema of plan files",
                ));
            }
            None
        }
    }
}

fn remove(value: &mut Value, pointer: &str) {
    if let Some((parent, key)) = pointer.rsplit_once('/')
        && let Some(Value::Object(fields)) = value.pointer_mut(parent)
    {
        fields.remove(&key.replace("~1", "/").replace("~0", "~"));
    }
}
