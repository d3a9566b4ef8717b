//! Replaces `${vars.NAME}` in a document before it is checked, so that the value
//! of a variable is checked where it is used.

use crate::diagnose::{self, Fault};
use crate::document::{Content, Entry, Node};
use crate::reference::{self, ReferenceError, Target};
use serde_json::{Number, Value};
use std::collections::BTreeMap;
use std::ops::Range;

impl Node {
    /// Replaces `${vars.NAME}` everywhere except in `vars`, and removes `vars`
    /// from the tree.
    pub fn substitute(
        &mut self,
        overrides: &BTreeMap<String, String>,
    ) -> Vec<(Fault, Range<usize>)> {
        let mut faults = Vec::new();
        let Content::Map(entries) = &mut self.content else {
            return faults;
        };
        let definitions = entries
            .iter()
            .position(|entry| entry.key == "vars")
            .map(|index| entries.remove(index).node);
        let variables = definitions_of(definitions.as_ref(), overrides, &mut faults);
        self.replace_variables(&variables, &mut faults);
        faults
    }

    fn replace_variables(
        &mut self,
        variables: &BTreeMap<String, Value>,
        faults: &mut Vec<(Fault, Range<usize>)>,
    ) {
        match &mut self.content {
            Content::Text(text) if text.contains("${vars.") => {
                let lookup = |target: &Target| match target {
                    Target::Variable(name) => variables
                        .get(name)
                        .map(|value| Some(value.clone()))
                        .ok_or_else(|| ReferenceError::UnknownVariable(name.clone())),
                    _ => Ok(None),
                };
                match reference::replace(text, &lookup) {
                    Ok(value) => {
                        self.content = content_of(value, &self.at);
                        self.written = None;
                    }
                    Err(error) => {
                        let fault = reference_fault(&error, variables.keys());
                        faults.push((fault, self.at.clone()));
                    }
                }
            }
            Content::List(items) => {
                for item in items {
                    item.replace_variables(variables, faults);
                }
            }
            Content::Map(entries) => {
                for entry in entries {
                    entry.node.replace_variables(variables, faults);
                }
            }
            _ => {}
        }
    }
}

/// Values of the variables: those of the file, replaced by the overrides. An
/// override is converted to the type of the file's value.
fn definitions_of(
    definitions: Option<&Node>,
    overrides: &BTreeMap<String, String>,
    faults: &mut Vec<(Fault, Range<usize>)>,
) -> BTreeMap<String, Value> {
    let mut variables = BTreeMap::new();
    let entries = match definitions.map(|node| (&node.content, &node.at)) {
        Some((Content::Map(entries), _)) => entries.as_slice(),
        Some((_, at)) => {
            faults.push((
                Fault::new(
                    diagnose::WRONG_VALUE,
                    "/vars",
                    "vars is not a map",
                    "write one \"name: value\" per line under vars",
                ),
                at.clone(),
            ));
            &[]
        }
        None => &[],
    };
    for entry in entries {
        let value = value_of(entry, overrides.get(&entry.key)).unwrap_or_else(|| {
            faults.push((
                Fault::new(
                    diagnose::VARIABLE,
                    "/vars",
                    format!("variable {:?} has no value", entry.key),
                    format!("set it with --var {}=VALUE", entry.key),
                ),
                entry.key_at.clone(),
            ));
            Value::String(String::new())
        });
        if !overrides.contains_key(&entry.key) {
            faults.extend(misread(entry).map(|fault| (fault, entry.node.at.clone())));
        }
        if mentions_variable(&value) {
            faults.push((
                Fault::new(
                    diagnose::VARIABLE,
                    "/vars",
                    format!("the value of variable {:?} refers to a variable", entry.key),
                    "write out the value: variables cannot refer to other variables",
                ),
                entry.node.at.clone(),
            ));
        }
        variables.insert(entry.key.clone(), value);
    }
    for name in overrides
        .keys()
        .filter(|name| !variables.contains_key(*name))
    {
        faults.push((
            Fault::new(
                diagnose::VARIABLE,
                "/vars",
                format!("a value was given for {name:?}, which is not a variable of this plan"),
                diagnose::suggest(name, variables.keys().map(String::as_str)),
            ),
            definitions.map_or(0..0, |node| node.first_line()),
        ));
    }
    variables
}

/// A number whose text its value doesn't preserve, as 1.10: it would be inserted into
/// a text as 1.1.
fn misread(entry: &Entry) -> Option<Fault> {
    let written = entry.node.unusual()?;
    let read = entry.node.to_value();
    Some(Fault::new(
        diagnose::WRONG_VALUE,
        "/vars",
        format!(
            "the variable {:?} is read as {read}, not as {written}",
            entry.key
        ),
        format!("write {read}, or put it in quotes if it is a text: \"{written}\""),
    ))
}

/// The override in the type of the file's value; otherwise the file's value.
/// `None` when the file has no value and there is no override.
fn value_of(entry: &Entry, given: Option<&String>) -> Option<Value> {
    let text = |given: &String| Value::String(given.clone());
    Some(match (given, &entry.node.content) {
        // 1.10 is a text: as a number, it would be inserted as 1.1.
        (Some(given), Content::Number(_)) => given
            .parse::<Number>()
            .ok()
            .filter(|number| number.to_string() == *given)
            .map_or_else(|| text(given), Value::Number),
        (Some(given), Content::Bool(_)) => given
            .parse::<bool>()
            .map_or_else(|_| text(given), Value::Bool),
        (Some(given), _) => text(given),
        (None, Content::Null) => return None,
        (None, _) => entry.node.to_value(),
    })
}

fn mentions_variable(value: &Value) -> bool {
    match value {
        Value::String(text) => text.contains("${vars."),
        Value::Array(items) => items.iter().any(mentions_variable),
        Value::Object(fields) => fields.values().any(mentions_variable),
        _ => false,
    }
}

/// The fault for a reference without a value; the caller sets its pointer.
pub(crate) fn reference_fault<'a>(
    error: &ReferenceError,
    variables: impl Iterator<Item = &'a String> + Clone,
) -> Fault {
    match error {
        ReferenceError::UnknownVariable(name) => Fault::new(
            diagnose::VARIABLE,
            "",
            error.to_string(),
            format!(
                "define it under vars; {}",
                diagnose::suggest(name, variables.map(String::as_str))
            ),
        ),
        ReferenceError::Malformed { .. } => Fault::new(
            diagnose::MALFORMED_REFERENCE,
            "",
            error.to_string(),
            "write ${vars.NAME}, ${STEP.OUTPUT}, ${agent.name} or ${agent.labels.KEY}; $${ is a \
             plain ${",
        ),
        _ => Fault::new(
            diagnose::MALFORMED_REFERENCE,
            "",
            error.to_string(),
            "use the reference as the whole value",
        ),
    }
}

fn content_of(value: Value, at: &Range<usize>) -> Content {
    let node = |value| Node {
        content: content_of(value, at),
        at: at.clone(),
        written: None,
    };
    match value {
        Value::Null => Content::Null,
        Value::Bool(value) => Content::Bool(value),
        Value::Number(number) => Content::Number(number),
        Value::String(text) => Content::Text(text),
        Value::Array(items) => Content::List(items.into_iter().map(node).collect()),
        Value::Object(fields) => Content::Map(
            fields
                .into_iter()
                .map(|(key, value)| Entry {
                    key,
                    key_at: at.clone(),
                    node: node(value),
                })
                .collect(),
        ),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn overrides_are_converted_to_the_type_of_the_variable() {
        let text = "vars: {n: 3, unit: a.service, home: null}\nx: ${vars.n}\ny: go-${vars.unit}\n\
                    z: ${vars.home}\n";
        let mut node = Node::parse(text).unwrap();
        let overrides = BTreeMap::from([
            ("n".to_owned(), "4".to_owned()),
            ("home".to_owned(), "/srv".to_owned()),
        ]);
        assert!(node.substitute(&overrides).is_empty());
        assert_eq!(
            node.to_value(),
            serde_json::json!({"x": 4, "y": "go-a.service", "z": "/srv"})
        );
    }

    /// As a number, 1.10 would be inserted into a path as 1.1.
    #[test]
    fn a_number_that_its_value_does_not_preserve_is_refused_or_inserted_as_given() {
        let text = "vars: {v: 1.10, n: 2.5, t: \"1.10\"}\nx: app-${vars.v}\ny: app-${vars.t}\n";
        let mut node = Node::parse(text).unwrap();
        let reported = node.clone().substitute(&BTreeMap::new());
        let [(fault, at)] = &reported[..] else {
            panic!("one fault, not {reported:?}");
        };
        assert!(
            fault.message.contains("1.1, not as 1.10"),
            "{}",
            fault.message
        );
        assert_eq!(&text[at.clone()], "1.10");

        let given = BTreeMap::from([("v".to_owned(), "1.20".to_owned())]);
        assert!(node.substitute(&given).is_empty());
        assert_eq!(
            node.to_value(),
            serde_json::json!({"x": "app-1.20", "y": "app-1.10"})
        );
    }

    #[test]
    fn a_variable_that_refers_to_another_is_reported_at_its_location() {
        let text = "vars:\n  a: x-${vars.b}\n  b: y\nx: ${vars.a}\n";
        let mut node = Node::parse(text).unwrap();
        let reported = node.substitute(&BTreeMap::new());
        let [(fault, at)] = &reported[..] else {
            panic!("one fault, not {reported:?}");
        };
        assert!(fault.message.contains("\"a\""), "{}", fault.message);
        assert_eq!(&text[at.clone()], "x-${vars.b}");
    }

    #[test]
    fn all_variables_without_a_value_are_reported() {
        let text = "vars: {a: null}\nx: ${vars.b}\n";
        let mut node = Node::parse(text).unwrap();
        let overrides = BTreeMap::from([("c".to_owned(), "1".to_owned())]);
        let messages: Vec<_> = node
            .substitute(&overrides)
            .into_iter()
            .map(|(fault, _)| fault.message)
            .collect();
        assert_eq!(
            messages,
            [
                "variable \"a\" has no value",
                "a value was given for \"c\", which is not a variable of this plan",
                "variable \"b\" is not defined",
            ]
        );
    }
}
