//! `${…}` references in parameters: parsing and replacement.
//!
//! There are four forms. `${vars.NAME}` is replaced when the file is loaded and
//! never reaches the expanded plan. `${STEP.OUTPUT}`, `${agent.name}` and
//! `${agent.labels.KEY}` stay in it and are replaced at the release, for one
//! agent. `$${` is an escaped `${`. There are no expressions, no
//! defaults and no nesting.

use serde_json::Value;
use std::collections::BTreeMap;
use std::fmt;
use thiserror::Error;

/// An output of a step.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Reference {
    /// Id of the step.
    pub step: String,
    /// Name of the output.
    pub output: String,
}

impl fmt::Display for Reference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "${{{}.{}}}", self.step, self.output)
    }
}

/// Why a reference cannot be replaced.
#[derive(Debug, Clone, PartialEq, Eq, Error)]
pub enum ReferenceError {
    /// `${` without `}`, or invalid content.
    #[error("{text:?} is not a reference: {reason}")]
    Malformed {
        text: String,
        /// What is wrong with it.
        reason: &'static str,
    },
    /// The variable is not defined.
    #[error("variable {0:?} is not defined")]
    UnknownVariable(String),
    /// The step has not produced that output.
    #[error("{0} has no value")]
    MissingOutput(Reference),
    /// The agent has no such label.
    #[error("agent {agent} has no label {label:?}")]
    MissingLabel {
        /// Name of the agent.
        agent: String,
        /// Key of the label.
        label: String,
    },
    /// A list or an object inside longer text.
    #[error("{reference} is neither text nor a number, so it can't be part of longer text")]
    NotText {
        /// The reference as written.
        reference: String,
    },
}

/// The agent for which a task is resolved.
#[derive(Debug, Clone, Copy)]
pub struct AgentFacts<'a> {
    pub name: &'a str,
    pub labels: &'a BTreeMap<String, String>,
}

/// The content between `${` and `}`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Target {
    Variable(String),
    AgentName,
    AgentLabel(String),
    Output(Reference),
}

/// A segment of text; a reference also has its source text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Piece {
    Plain(String),
    Reference(Target, String),
}

/// Splits text into plain segments and references.
pub(crate) fn pieces(text: &str) -> Result<Vec<Piece>, ReferenceError> {
    let mut found = Vec::new();
    let mut plain = String::new();
    let mut rest = text;
    while let Some(at) = rest.find("${") {
        let before = &rest[..at];
        if let Some(escaped) = before.strip_suffix('$') {
            plain.push_str(escaped);
            plain.push_str("${");
            rest = &rest[at + 2..];
            continue;
        }
        plain.push_str(before);
        let inside = &rest[at + 2..];
        let Some(end) = inside.find('}') else {
            return Err(ReferenceError::Malformed {
                text: rest[at..].to_owned(),
                reason: "the closing } is missing",
            });
        };
        if !plain.is_empty() {
            found.push(Piece::Plain(std::mem::take(&mut plain)));
        }
        let written = format!("${{{}}}", &inside[..end]);
        found.push(Piece::Reference(target(&inside[..end], &written)?, written));
        rest = &inside[end + 1..];
    }
    plain.push_str(rest);
    if !plain.is_empty() || found.is_empty() {
        found.push(Piece::Plain(plain));
    }
    Ok(found)
}

fn target(inside: &str, written: &str) -> Result<Target, ReferenceError> {
    let malformed = |reason| ReferenceError::Malformed {
        text: written.to_owned(),
        reason,
    };
    let parts: Vec<&str> = inside.split('.').collect();
    let is_name = |part: &&str| {
        !part.is_empty()
            && part
                .chars()
                .all(|c| c.is_ascii_alphanumeric() || c == '-' || c == '_')
    };
    if !parts.iter().all(is_name) {
        return Err(malformed(
            "names consist of letters, digits, hyphens and underscores, separated by a full stop",
        ));
    }
    match parts.as_slice() {
        ["vars", name] => Ok(Target::Variable((*name).to_owned())),
        ["agent", "name"] => Ok(Target::AgentName),
        ["agent", "labels", key] => Ok(Target::AgentLabel((*key).to_owned())),
        ["agent" | "vars", ..] => Err(malformed(
            "the valid forms are ${vars.NAME}, ${agent.name} and ${agent.labels.KEY}",
        )),
        [step, output] => Ok(Target::Output(Reference {
            step: (*step).to_owned(),
            output: (*output).to_owned(),
        })),
        _ => Err(malformed(
            "a reference to an output has the form ${STEP.OUTPUT}",
        )),
    }
}

/// The outputs that `params` refers to, without duplicates, in order of
/// appearance. Malformed references are ignored here; the check reports them.
pub(crate) fn outputs_in(params: &Value) -> Vec<Reference> {
    let mut found = Vec::new();
    each_text(params, &mut |text| {
        for piece in pieces(text).unwrap_or_default() {
            if let Piece::Reference(Target::Output(reference), _) = piece
                && !found.contains(&reference)
            {
                found.push(reference);
            }
        }
    });
    found
}

fn each_text(value: &Value, visit: &mut impl FnMut(&str)) {
    match value {
        Value::String(text) => visit(text),
        Value::Array(items) => items.iter().for_each(|item| each_text(item, visit)),
        Value::Object(fields) => fields.values().for_each(|field| each_text(field, visit)),
        Value::Null | Value::Bool(_) | Value::Number(_) => {}
    }
}

/// Replaces every reference in `text` by the result of `lookup`; `None` leaves
/// the reference unchanged.
pub(crate) fn replace(
    text: &str,
    lookup: &impl Fn(&Target) -> Result<Option<Value>, ReferenceError>,
) -> Result<Value, ReferenceError> {
    let pieces = pieces(text)?;
    if let [Piece::Reference(target, _)] = pieces.as_slice()
        && let Some(value) = lookup(target)?
    {
        return Ok(value);
    }
    let keeps_references = pieces
        .iter()
        .map(|piece| match piece {
            Piece::Plain(_) => Ok(false),
            Piece::Reference(target, _) => lookup(target).map(|value| value.is_none()),
        })
        .collect::<Result<Vec<_>, _>>()?
        .contains(&true);
    let mut replaced = String::new();
    for piece in &pieces {
        match piece {
            // Text with remaining references is parsed again, so escapes must
            // be preserved.
            Piece::Plain(plain) if keeps_references => {
                replaced.push_str(&plain.replace("${", "$${"));
            }
            Piece::Plain(plain) => replaced.push_str(plain),
            Piece::Reference(target, written) => match lookup(target)? {
                None => replaced.push_str(written),
                Some(value) => replaced.push_str(&as_text(value, written)?),
            },
        }
    }
    Ok(Value::String(replaced))
}

fn as_text(value: Value, written: &str) -> Result<String, ReferenceError> {
    match value {
        Value::String(text) => Ok(text),
        Value::Number(number) => Ok(number.to_string()),
        Value::Bool(_) | Value::Null | Value::Array(_) | Value::Object(_) => {
            Err(ReferenceError::NotText {
                reference: written.to_owned(),
            })
        }
    }
}

/// As [`resolve`], but before the run: references to outputs stay unchanged, so
/// that the rest of the parameters can be checked.
///
/// # Errors
/// As for [`resolve`], except for missing outputs.
pub fn resolve_known(params: &Value, agent: AgentFacts<'_>) -> Result<Value, ReferenceError> {
    let lookup = |target: &Target| match target {
        Target::Output(_) => Ok(None),
        known => of_agent(known, agent).map(Some),
    };
    map_texts(params, &|text| replace(text, &lookup))
}

fn of_agent(target: &Target, agent: AgentFacts<'_>) -> Result<Value, ReferenceError> {
    match target {
        Target::Variable(name) => Err(ReferenceError::UnknownVariable(name.clone())),
        Target::Output(reference) => Err(ReferenceError::MissingOutput(reference.clone())),
        Target::AgentName => Ok(Value::String(agent.name.to_owned())),
        Target::AgentLabel(key) => agent
            .labels
            .get(key)
            .map(|label| Value::String(label.clone()))
            .ok_or_else(|| ReferenceError::MissingLabel {
                agent: agent.name.to_owned(),
                label: key.clone(),
            }),
    }
}

/// Parameters for one agent with every `${…}` replaced: see
/// [`crate::Step::resolve`].
///
/// # Errors
/// As for [`crate::Step::resolve`].
pub fn resolve(
    params: &Value,
    outputs: &BTreeMap<Reference, Value>,
    agent: AgentFacts<'_>,
) -> Result<Value, ReferenceError> {
    let lookup = |target: &Target| {
        let given = match target {
            Target::Output(reference) => outputs.get(reference).cloned(),
            _ => None,
        };
        given.map_or_else(|| of_agent(target, agent), Ok).map(Some)
    };
    map_texts(params, &|text| replace(text, &lookup))
}

fn map_texts(
    value: &Value,
    map: &impl Fn(&str) -> Result<Value, ReferenceError>,
) -> Result<Value, ReferenceError> {
    Ok(match value {
        Value::String(text) => map(text)?,
        Value::Array(items) => Value::Array(
            items
                .iter()
                .map(|item| map_texts(item, map))
                .collect::<Result<_, _>>()?,
        ),
        Value::Object(fields) => Value::Object(
            fields
                .iter()
                .map(|(key, field)| Ok((key.clone(), map_texts(field, map)?)))
                .collect::<Result<_, _>>()?,
        ),
        Value::Null | Value::Bool(_) | Value::Number(_) => value.clone(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn agent_labels() -> BTreeMap<String, String> {
        BTreeMap::from([("site".to_owned(), "north".to_owned())])
    }

    fn resolved(params: &Value) -> Result<Value, ReferenceError> {
        let outputs = BTreeMap::from([
            (
                Reference {
                    step: "finalize".into(),
                    output: "scn".into(),
                },
                json!("4711"),
            ),
            (
                Reference {
                    step: "rows".into(),
                    output: "tables".into(),
                },
                json!({"SHOP.ORDERS": {"rows": 3}}),
            ),
        ]);
        let labels = agent_labels();
        resolve(
            params,
            &outputs,
            AgentFacts {
                name: "app-1",
                labels: &labels,
            },
        )
    }

    #[test]
    fn a_reference_alone_becomes_the_value_itself() {
        assert_eq!(
            resolved(&json!({"expected": "${rows.tables}", "n": [1, "${finalize.scn}"]})),
            Ok(json!({"expected": {"SHOP.ORDERS": {"rows": 3}}, "n": [1, "4711"]}))
        );
    }

    #[test]
    fn a_reference_inside_longer_text_becomes_text() {
        assert_eq!(
            resolved(&json!(
                "/srv/${agent.name}/${agent.labels.site}/at-${finalize.scn}"
            )),
            Ok(json!("/srv/app-1/north/at-4711"))
        );
        assert!(matches!(
            resolved(&json!("rows: ${rows.tables}")),
            Err(ReferenceError::NotText { .. })
        ));
    }

    #[test]
    fn a_doubled_dollar_is_plain_text() {
        assert_eq!(resolved(&json!("a $${b} c")), Ok(json!("a ${b} c")));
        assert_eq!(resolved(&json!("costs $5")), Ok(json!("costs $5")));
    }

    #[test]
    fn references_to_outputs_stay_unresolved_before_the_run() {
        let labels = agent_labels();
        let agent = AgentFacts {
            name: "app-1",
            labels: &labels,
        };
        let params = json!({"at": "${agent.labels.site}", "scn": "${finalize.scn}"});
        assert_eq!(
            resolve_known(&params, agent),
            Ok(json!({"at": "north", "scn": "${finalize.scn}"}))
        );
        let params = json!(["${finalize.scn}", "${agent.labels.rack}"]);
        assert!(matches!(
            resolve_known(&params, agent),
            Err(ReferenceError::MissingLabel { .. })
        ));
    }

    #[test]
    fn missing_values_and_malformed_references_are_reported() {
        assert_eq!(
            resolved(&json!("${finalize.nonce}"))
                .unwrap_err()
                .to_string(),
            "${finalize.nonce} has no value"
        );
        assert_eq!(
            resolved(&json!("${agent.labels.rack}"))
                .unwrap_err()
                .to_string(),
            "agent app-1 has no label \"rack\""
        );
        for broken in ["${finalize", "${a.b.c}", "${}", "${vars.a.b}", "${a b.c}"] {
            assert!(
                matches!(
                    resolved(&json!(broken)),
                    Err(ReferenceError::Malformed { .. })
                ),
                "{broken}"
            );
        }
    }

    #[test]
    fn text_that_keeps_a_reference_keeps_its_escapes() {
        let only_vars = |target: &Target| match target {
            Target::Variable(name) => Ok(Some(json!(format!("<{name}>")))),
            _ => Ok(None),
        };
        assert_eq!(
            replace("$${x} ${vars.a} ${s.o}", &only_vars),
            Ok(json!("$${x} <a> ${s.o}"))
        );
        assert_eq!(
            replace("$${x} ${vars.a}", &only_vars),
            Ok(json!("${x} <a>"))
        );
    }
}
