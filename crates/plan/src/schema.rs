//! The JSON Schema of plan files, for editors and for the loader.

use crate::actions::{ACTIONS, Action};
use crate::model::Kind;
use crate::source::{cutover::Cutover, plan::PlanFile, restart::Restart};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::sync::LazyLock;

impl Kind {
    /// Name of the schema definition of its files.
    fn definition(self) -> &'static str {
        match self {
            Self::Cutover => "Cutover",
            Self::Restart => "Restart",
            Self::Plan => "PlanFile",
        }
    }

    pub(crate) fn reference(self) -> Value {
        json!({"$ref": format!("#/$defs/{}", self.definition())})
    }
}

/// The published schema of all kinds of plan files, JSON Schema draft
/// 2020-12. It allows `${…}` in place of any value.
pub fn schema() -> Value {
    let mut schema = strict().clone();
    if let Some(definitions) = schema["$defs"].as_object_mut() {
        for definition in definitions.values_mut() {
            each_value(definition, &mut |value| {
                let described = value.get("description").cloned();
                let plain = value.clone();
                *value = json!({"anyOf": [plain, {"type": "string", "pattern": r"\$\{"}]});
                if let Some(description) = described {
                    value["description"] = description;
                }
            });
        }
    }
    schema
}

/// Visits the schemas of values inside a definition that are not plain text,
/// innermost first. `kind` is skipped: it selects the schema of the file.
fn each_value(schema: &mut Value, visit: &mut impl FnMut(&mut Value)) {
    let Some(object) = schema.as_object_mut() else {
        return;
    };
    let mut inner = |value: &mut Value| {
        each_value(value, visit);
        let plain_text = value["type"] == "string" && value.get("enum").is_none();
        if value.is_object() && !plain_text && value.get("const").is_none() {
            visit(value);
        }
    };
    if let Some(properties) = object.get_mut("properties").and_then(Value::as_object_mut) {
        properties.values_mut().for_each(&mut inner);
    }
    for name in ["items", "additionalProperties"] {
        if let Some(value) = object.get_mut(name) {
            inner(value);
        }
    }
}

/// The schema that documents are checked against once their variables are
/// replaced.
pub(crate) fn strict() -> &'static Value {
    static STRICT: LazyLock<Value> = LazyLock::new(generate);
    &STRICT
}

fn generate() -> Value {
    let mut generator = SchemaSettings::draft2020_12().into_generator();
    generator.subschema_for::<Cutover>();
    generator.subschema_for::<Restart>();
    generator.subschema_for::<PlanFile>();
    let conditions: Vec<Value> = ACTIONS
        .iter()
        .map(|action| {
            json!({
                "if": {"properties": {"action": {"const": action.name}}, "required": ["action"]},
                "then": {"properties": {"params": action.schema(&mut generator)}},
            })
        })
        .collect();
    let mut definitions = generator.take_definitions(true);
    for kind in Kind::ALL {
        if let Some(field) = property(&mut definitions, kind.definition(), "kind") {
            *field = json!({"type": "string", "const": kind.name(), "description": "Kind of the plan file."});
        }
    }
    if let Some(field) = property(&mut definitions, "StepSource", "action") {
        let names: Vec<&str> = ACTIONS.iter().map(|action| action.name).collect();
        *field = json!({
            "description": "Name of the action.",
            "type": "string",
            "examples": names,
        });
    }
    if let Some(step) = definitions.get_mut("StepSource") {
        step["allOf"] = Value::Array(conditions);
    }
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "Lockstep plan",
        "oneOf": Kind::ALL.map(Kind::reference),
        "$defs": definitions,
    })
}

fn property<'a>(
    definitions: &'a mut Map<String, Value>,
    definition: &str,
    name: &str,
) -> Option<&'a mut Value> {
    definitions
        .get_mut(definition)?
        .pointer_mut(&format!("/properties/{name}"))
}

/// The schema of an action's parameters, a reference into [`strict`].
pub(crate) fn parameters(action: &Action) -> Value {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    action.schema(&mut generator).to_value()
}
