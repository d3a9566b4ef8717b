//! Validation of a document against the published JSON Schema.
//!
//! An editor with that schema therefore marks the same faults. It supports the
//! subset that this crate's schemas use: types, properties, items,
//! enumerations, bounds, references and alternatives. All faults are reported,
//! not only the first.

use crate::diagnose::{self, Fault};
use crate::document::{Content, Node, join};
use crate::duration::Duration;
use crate::reference::{self, Piece, Target};
use serde_json::{Map, Value};

/// References that are allowed in place of values and resolved later.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum DeferredRefs {
    /// `${agent.…}`, in text only.
    Agent,
    /// As `Agent`, but values without a schema here are not searched for
    /// references: they are checked against a schema of their own.
    Elsewhere,
    /// Also outputs of steps, in place of a value of any type.
    Outputs,
}

/// Checks `node` at `pointer` against `schema`, whose definitions are in
/// `root`.
pub(crate) fn check(
    node: &Node,
    pointer: &str,
    schema: &Value,
    root: &Value,
    deferred: DeferredRefs,
) -> Vec<Fault> {
    let mut walk = Walk {
        root,
        deferred,
        faults: Vec::new(),
    };
    walk.value(node, pointer, schema);
    walk.faults
}

struct Walk<'a> {
    root: &'a Value,
    deferred: DeferredRefs,
    faults: Vec<Fault>,
}

impl Walk<'_> {
    fn value(&mut self, node: &Node, pointer: &str, schema: &Value) {
        let schema = self.resolved(schema).unwrap_or_default();
        if accepts_anything(&schema) {
            if self.deferred != DeferredRefs::Elsewhere {
                self.references(node, pointer);
            }
            return;
        }
        if let Content::Text(text) = &node.content
            && text.contains("${")
            && self.is_deferred(text, pointer, &schema)
        {
            return;
        }
        if let Some(alternatives) = alternatives(&schema) {
            self.alternatives(node, pointer, alternatives);
            return;
        }
        let expected = types(&schema);
        if !expected.is_empty() && !expected.iter().any(|name| has_type(node, name)) {
            self.wrong_type(node, pointer, &expected, &schema);
            return;
        }
        match &node.content {
            Content::Map(_) => self.map(node, pointer, &schema),
            Content::List(items) => self.list(items, pointer, &schema),
            Content::Number(number) => self.bounds(number.as_f64(), pointer, &schema),
            Content::Text(text) => self.text(text, pointer, &schema),
            Content::Null | Content::Bool(_) => {}
        }
    }

    /// Follows `$ref`. `None` for a schema that accepts anything.
    fn resolved(&self, schema: &Value) -> Option<Map<String, Value>> {
        let object = schema.as_object()?;
        if let Some(reference) = object.get("$ref").and_then(Value::as_str) {
            let target = self.root.pointer(reference.strip_prefix('#')?)?;
            return self.resolved(target);
        }
        Some(object.clone())
    }

    /// Whether the text is resolved later. Malformed or misplaced references are
    /// reported, and the text then needs no further check.
    fn is_deferred(&mut self, text: &str, pointer: &str, schema: &Map<String, Value>) -> bool {
        let pieces = match reference::pieces(text) {
            Ok(pieces) => pieces,
            Err(error) => {
                let mut fault = crate::variables::reference_fault(&error, [].iter());
                pointer.clone_into(&mut fault.pointer);
                self.faults.push(fault);
                return true;
            }
        };
        let output = pieces.iter().find_map(|piece| match piece {
            Piece::Reference(Target::Output(reference), _) => Some(reference.clone()),
            _ => None,
        });
        let Some(output) = output else {
            let expected = types(schema);
            return expected.is_empty() || expected.contains(&"string");
        };
        if self.deferred != DeferredRefs::Outputs {
            self.faults.push(Fault::new(
                diagnose::MALFORMED_REFERENCE,
                pointer,
                format!("{output} is not allowed here"),
                "outputs can be used in the params of a step, in plans of kind Plan; here use only \
                 ${vars.NAME}, ${agent.name} and ${agent.labels.KEY}",
            ));
        }
        true
    }

    /// Malformed references in a value of any shape.
    fn references(&mut self, node: &Node, pointer: &str) {
        match &node.content {
            Content::Text(text) if text.contains("${") => {
                self.is_deferred(text, pointer, &Map::new());
            }
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    self.references(item, &join(pointer, &index.to_string()));
                }
            }
            Content::Map(entries) => {
                for entry in entries {
                    self.references(&entry.node, &join(pointer, &entry.key));
                }
            }
            _ => {}
        }
    }

    fn alternatives(&mut self, node: &Node, pointer: &str, alternatives: &[Value]) {
        let words: Vec<&str> = alternatives
            .iter()
            .filter_map(|schema| schema.get("const").and_then(Value::as_str))
            .chain(
                alternatives
                    .iter()
                    .filter_map(|schema| schema.get("enum").and_then(Value::as_array))
                    .flatten()
                    .filter_map(Value::as_str),
            )
            .collect();
        if !words.is_empty() {
            self.word(node, pointer, &words);
            return;
        }
        let is_null = |schema: &&Value| schema.get("type").and_then(Value::as_str) == Some("null");
        if matches!(node.content, Content::Null) && alternatives.iter().any(|s| is_null(&s)) {
            return;
        }
        // The alternative with the fewest faults is most likely the intended one.
        let best = alternatives
            .iter()
            .filter(|schema| !is_null(schema))
            .map(|schema| check(node, pointer, schema, self.root, self.deferred))
            .min_by_key(Vec::len);
        self.faults.extend(best.unwrap_or_default());
    }

    fn word(&mut self, node: &Node, pointer: &str, words: &[&str]) {
        let written = match &node.content {
            Content::Text(text) => text.clone(),
            _ => shown(node),
        };
        if !words.contains(&written.as_str()) {
            self.faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                pointer,
                format!("{written:?} is not a valid value here"),
                diagnose::suggest(&written, words.iter().copied()),
            ));
        }
    }

    fn wrong_type(
        &mut self,
        node: &Node,
        pointer: &str,
        expected: &[&str],
        schema: &Map<String, Value>,
    ) {
        let names: Vec<&str> = expected
            .iter()
            .filter(|name| **name != "null")
            .map(|name| in_words(name, schema))
            .collect();
        let remedy = match (&node.content, expected.first()) {
            (Content::Number(_) | Content::Bool(_), Some(&"string")) => {
                format!("put it in quotes: \"{}\"", shown(node))
            }
            (Content::Text(_), Some(&"integer" | &"number")) => {
                "write a number without quotes and without a unit".to_owned()
            }
            (Content::Text(text), Some(&"array")) => format!("write a list: [{text}]"),
            (Content::Null, _) => "write a value, or remove the field".to_owned(),
            _ => schema
                .get("description")
                .and_then(Value::as_str)
                .map_or_else(
                    || format!("write {}", names.join(" or ")),
                    |description| format!("this field is: {}", one_line(description)),
                ),
        };
        self.faults.push(Fault::new(
            diagnose::WRONG_VALUE,
            pointer,
            format!("found {}, expected {}", shown(node), names.join(" or ")),
            remedy,
        ));
    }

    fn map(&mut self, node: &Node, pointer: &str, schema: &Map<String, Value>) {
        let Content::Map(entries) = &node.content else {
            return;
        };
        let no_properties = Map::new();
        let properties = schema
            .get("properties")
            .and_then(Value::as_object)
            .unwrap_or(&no_properties);
        let rest = schema.get("additionalProperties");
        for entry in entries {
            let inner = join(pointer, &entry.key);
            match (properties.get(&entry.key), rest) {
                (Some(schema), _) => self.value(&entry.node, &inner, schema),
                (None, Some(Value::Bool(false))) => {
                    let unused = properties
                        .keys()
                        .map(String::as_str)
                        .filter(|name| entries.iter().all(|other| other.key != *name));
                    self.faults.push(
                        Fault::new(
                            diagnose::UNKNOWN_FIELD,
                            inner,
                            format!("unknown field {:?}", entry.key),
                            diagnose::suggest(&entry.key, unused),
                        )
                        .at_key(),
                    );
                }
                (None, Some(schema)) => self.value(&entry.node, &inner, schema),
                (None, None) => self.references(&entry.node, &inner),
            }
        }
        let required = schema.get("required").and_then(Value::as_array);
        for name in required.into_iter().flatten().filter_map(Value::as_str) {
            if entries.iter().all(|entry| entry.key != name) {
                self.missing(name, pointer, properties);
            }
        }
        if let Some(least) = schema.get("minProperties").and_then(Value::as_u64)
            && (entries.len() as u64) < least
        {
            self.too_few(pointer);
        }
    }

    fn missing(&mut self, name: &str, pointer: &str, properties: &Map<String, Value>) {
        let meaning = properties
            .get(name)
            .and_then(|schema| schema.get("description"))
            .and_then(Value::as_str)
            .map_or_else(String::new, |text| format!(": {}", one_line(text)));
        self.faults.push(
            Fault::new(
                diagnose::MISSING_FIELD,
                pointer,
                format!("field {name:?} is missing"),
                format!("add {name}{meaning}"),
            )
            .at_key(),
        );
    }

    fn too_few(&mut self, pointer: &str) {
        self.faults.push(Fault::new(
            diagnose::WRONG_VALUE,
            pointer,
            "the value is empty",
            "add at least one entry",
        ));
    }

    fn list(&mut self, items: &[Node], pointer: &str, schema: &Map<String, Value>) {
        if let Some(least) = schema.get("minItems").and_then(Value::as_u64)
            && (items.len() as u64) < least
        {
            self.too_few(pointer);
        }
        for (index, item) in items.iter().enumerate() {
            let inner = join(pointer, &index.to_string());
            match schema.get("items") {
                Some(schema) => self.value(item, &inner, schema),
                None => self.references(item, &inner),
            }
        }
    }

    fn bounds(&mut self, number: Option<f64>, pointer: &str, schema: &Map<String, Value>) {
        let Some(number) = number else {
            return;
        };
        let bound = |name| schema.get(name).and_then(Value::as_f64);
        let too_small = bound("minimum").filter(|least| number < *least);
        let too_large = bound("maximum").filter(|most| number > *most);
        if let Some(least) = too_small {
            self.faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                pointer,
                format!("{number} is too small"),
                format!("the minimum is {least}"),
            ));
        }
        if let Some(most) = too_large {
            self.faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                pointer,
                format!("{number} is too large"),
                format!("the maximum is {most}"),
            ));
        }
    }

    fn text(&mut self, text: &str, pointer: &str, schema: &Map<String, Value>) {
        let words: Vec<&str> = schema
            .get("enum")
            .and_then(Value::as_array)
            .into_iter()
            .flatten()
            .chain(schema.get("const"))
            .filter_map(Value::as_str)
            .collect();
        if !words.is_empty() && !words.contains(&text) {
            self.faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                pointer,
                format!("{text:?} is not a valid value here"),
                diagnose::suggest(text, words),
            ));
        }
        if schema.get("format").and_then(Value::as_str) == Some(Duration::FORMAT)
            && let Err(error) = text.parse::<Duration>()
        {
            self.faults.push(Fault::new(
                diagnose::WRONG_VALUE,
                pointer,
                error.to_string(),
                "write a whole number and a unit: 500ms, 30s, 5m, 2h",
            ));
        }
        if schema.get("minLength").and_then(Value::as_u64) > Some(0) && text.is_empty() {
            self.too_few(pointer);
        }
    }
}

/// Whether the schema has no constraints.
fn accepts_anything(schema: &Map<String, Value>) -> bool {
    schema.keys().all(|key| {
        matches!(
            key.as_str(),
            "description" | "default" | "title" | "examples"
        )
    })
}

fn alternatives(schema: &Map<String, Value>) -> Option<&Vec<Value>> {
    schema
        .get("anyOf")
        .or_else(|| schema.get("oneOf"))
        .and_then(Value::as_array)
}

fn types(schema: &Map<String, Value>) -> Vec<&str> {
    match schema.get("type") {
        Some(Value::String(name)) => vec![name],
        Some(Value::Array(names)) => names.iter().filter_map(Value::as_str).collect(),
        _ => Vec::new(),
    }
}

fn has_type(node: &Node, name: &str) -> bool {
    match &node.content {
        Content::Null => name == "null",
        Content::Bool(_) => name == "boolean",
        Content::Number(number) => name == "number" || (name == "integer" && !number.is_f64()),
        Content::Text(_) => name == "string",
        Content::List(_) => name == "array",
        Content::Map(_) => name == "object",
    }
}

fn in_words(name: &str, schema: &Map<String, Value>) -> &'static str {
    match name {
        "string" if schema.get("format").and_then(Value::as_str) == Some(Duration::FORMAT) => {
            "a duration such as 30s"
        }
        "string" => "text",
        "integer" => "a whole number",
        "number" => "a number",
        "boolean" => "true or false",
        "array" => "a list",
        _ => "a map",
    }
}

/// A number as the file writes it: in quotes, it must be the same text.
fn shown(node: &Node) -> String {
    if let Some(written) = node.unusual() {
        return written.to_owned();
    }
    match &node.content {
        Content::Null => "no value".to_owned(),
        Content::Bool(value) => value.to_string(),
        Content::Number(number) => number.to_string(),
        Content::Text(text) => format!("{text:?}"),
        Content::List(_) => "a list".to_owned(),
        Content::Map(_) => "a map".to_owned(),
    }
}

/// The first sentence of a description, on one line.
fn one_line(description: &str) -> String {
    let line = description.split_whitespace().collect::<Vec<_>>().join(" ");
    match line.find(". ") {
        Some(end) => line[..end].to_owned(),
        None => line.trim_end_matches('.').to_owned(),
    }
}
