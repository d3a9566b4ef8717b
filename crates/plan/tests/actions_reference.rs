//! `docs/actions.md` is generated from the table of actions and the JSON Schema of
//! their parameters.
//!
//! `UPDATE=1 cargo test -p lockstep-plan --test actions_reference` writes it.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

use lockstep_plan::actions::{ACTIONS, Action, Effect, task_limit_secs};
use schemars::SchemaGenerator;
use schemars::generate::SchemaSettings;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

const HEAD: &str = "\
# Actions

What a step of a plan of `kind: Plan` can do, and with which parameters. A step names its action
and gives it `params`:

```yaml
- id: stop-orders
  party: apps
  action: service.stop
  params:
    units: [orders.service]
```

A parameter that an action doesn't have is an error ([LS1002](errors/LS1002.md)). Any value
can be replaced by `${step-id.output}`, the output of a step in an earlier phase. The agent that runs
the step must allow the action in the `[policy]` section of its agent.toml.

- *Read-only*: the action changes nothing.
- *Watch*: the action keeps checking until the phase that `watch_until` of the step names is released.
- *Undoable*: a rollback restores what the action changed.
- *No undo*: a rollback doesn't automatically restore what the action changed.

The default timeout is shown for a step that omits every parameter with a default and names one item
in each list. If an action has a time limit for each item of a list, the timeout grows with their
number.

This page is generated from the parameter types in `crates/plan/src/catalogue`.
";

/// Areas by prefix of an action's name, and what an agent needs for the actions in
/// addition to their names in its policy.
const AREAS: [(&str, &[&str], &str); 4] = [
    (
        "Hosts",
        &[
            "service.", "cron.", "process.", "config.", "check.", "command.",
        ],
        "Units, paths, addresses, processes and commands must be allowed by the agent's policy: \
         `units`, `paths`, `sources`, `addresses`, `[policy.processes]`, `[policy.commands]`. \
         `check.http` and `check.tcp` need no permission for the host's own loopback addresses.",
    ),
    (
        "Oracle",
        &["oracle."],
        "`resource` is NAME of a section `[oracle.NAME]` in agent.toml.",
    ),
    (
        "PostgreSQL",
        &["postgres."],
        "`resource` is NAME of a section `[postgres.NAME]` in agent.toml.",
    ),
    (
        "AWS",
        &["dms.", "cloudwatch."],
        "`resource` is NAME of a section `[aws.NAME]` in agent.toml; `postgres`, where an action \
         has it, of a section `[postgres.NAME]`.",
    ),
];

struct Reference {
    definitions: Map<String, Value>,
    /// Definitions that parameters refer to; each needs a description.
    types: BTreeSet<String>,
    text: String,
}

impl Reference {
    fn line(&mut self, line: &str) {
        writeln!(self.text, "{line}").unwrap();
    }

    /// Follows references to the definition itself.
    fn resolved(&self, schema: &Value) -> Value {
        match schema.get("$ref").and_then(Value::as_str) {
            Some(reference) => self.resolved(&self.definitions[name_of(reference)]),
            None => schema.clone(),
        }
    }

    fn action(&mut self, action: &Action, schema: &Value) {
        let name = name_of(schema["$ref"].as_str().unwrap());
        let description = text(&self.definitions[name]);
        let (about, outputs) = match description.split_once("\n\nOutputs: ") {
            Some((about, outputs)) => (about.to_owned(), Some(one_line(outputs))),
            None => (description, None),
        };
        self.line(&format!("\n### `{}`\n", action.name));
        self.line(&format!("{}.", sentence(action.summary)));
        let about = about.strip_prefix(&format!("`{}`", action.name)).unwrap();
        let about = sentence(one_line(about).trim_start_matches([':', '.', ' ']));
        if !about.is_empty() {
            self.line(&about);
        }
        let effect = match action.effect {
            Effect::ReadOnly => "Read-only",
            Effect::Watch => "Watch",
            Effect::Undoable => "Undoable",
            Effect::Permanent => "No undo",
        };
        let sample = self.sample(schema);
        action.decode(&sample).unwrap();
        let timeout = task_limit_secs(action.name, &sample);
        self.line(&format!("\n{effect}. Default timeout: {timeout} s."));
        for output in action.outputs {
            let described = outputs.as_ref().unwrap();
            assert!(
                described.contains(&format!("`{output}`")),
                "the doc comment of {} describes its output {output}",
                action.name
            );
        }
        if let Some(outputs) = outputs {
            assert!(!action.outputs.is_empty(), "{} has outputs", action.name);
            self.line(&format!("\nOutputs: {outputs}"));
        }
        self.fields(&self.resolved(schema));
    }

    /// A table of an object's fields.
    fn fields(&mut self, schema: &Value) {
        self.line("\n| parameter | type | default | |\n|---|---|---|---|");
        let required: Vec<&str> = strings(&schema["required"]);
        for (name, field) in schema["properties"].as_object().unwrap() {
            let default = if required.contains(&name.as_str()) {
                "required".to_owned()
            } else {
                default(field)
            };
            let row = format!(
                "| `{name}` | {} | {default} | {} |",
                self.type_of(field),
                one_line(&text(field)).replace('|', "\\|")
            );
            self.line(&row);
        }
    }

    fn type_of(&mut self, schema: &Value) -> String {
        if let Some(reference) = schema.get("$ref").and_then(Value::as_str) {
            let name = name_of(reference).to_owned();
            self.types.insert(name.clone());
            return format!("[{name}](#{})", name.to_lowercase());
        }
        let kinds = match &schema["type"] {
            Value::String(kind) => vec![kind.as_str()],
            kinds => strings(kinds),
        };
        match kinds.first() {
            Some(&"string") => "text".to_owned(),
            Some(&"integer") => "whole number".to_owned(),
            Some(&"number") => "number".to_owned(),
            Some(&"boolean") => "`true` or `false`".to_owned(),
            Some(&"array") => format!("list of {}", self.type_of(&schema["items"])),
            Some(&"object") => {
                let values = self.type_of(&schema["additionalProperties"]);
                format!("map of text to {values}")
            }
            _ => "any value".to_owned(),
        }
    }

    /// Describes the definitions that parameters refer to, directly or indirectly.
    fn all_types(&mut self) {
        self.line("\n## Types");
        let mut described = BTreeSet::new();
        while let Some(name) = self.types.difference(&described).next().cloned() {
            let schema = self.definitions[&name].clone();
            described.insert(name.clone());
            self.line(&format!("\n### {name}\n\n{}", one_line(&text(&schema))));
            if schema.get("properties").is_some() {
                self.fields(&schema);
                continue;
            }
            self.line("");
            for word in schema["oneOf"].as_array().unwrap() {
                let value = word["const"].as_str().unwrap();
                self.line(&format!("- `{value}`: {}", one_line(&text(word))));
            }
        }
    }

    /// The smallest value that the schema accepts, with one item in each list.
    fn sample(&self, schema: &Value) -> Value {
        let schema = self.resolved(schema);
        match schema["type"].as_str() {
            Some("string") => json!("text"),
            Some("integer" | "number") => json!(1),
            Some("array") => json!([self.sample(&schema["items"])]),
            Some("object") => strings(&schema["required"])
                .into_iter()
                .map(|name| (name.to_owned(), self.sample(&schema["properties"][name])))
                .collect::<Map<_, _>>()
                .into(),
            _ => json!({}),
        }
    }
}

fn name_of(reference: &str) -> &str {
    reference.rsplit('/').next().unwrap()
}

fn text(schema: &Value) -> String {
    let text = schema.get("description").and_then(Value::as_str);
    text.unwrap_or_default().to_owned()
}

fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn sentence(text: &str) -> String {
    let mut letters = text.chars();
    letters.next().map_or_else(String::new, |first| {
        first.to_uppercase().chain(letters).collect()
    })
}

fn strings(value: &Value) -> Vec<&str> {
    let items = value.as_array().map(Vec::as_slice).unwrap_or_default();
    items.iter().filter_map(Value::as_str).collect()
}

fn default(field: &Value) -> String {
    match field.get("default") {
        None | Some(Value::Null) => "none".to_owned(),
        Some(Value::Array(items)) if items.is_empty() => "empty".to_owned(),
        Some(Value::Object(_)) => "empty".to_owned(),
        Some(Value::String(text)) => format!("`{text}`"),
        Some(value) => format!("`{value}`"),
    }
}

fn reference() -> String {
    let mut generator: SchemaGenerator = SchemaSettings::draft2020_12().into_generator();
    let schemas: Vec<(&Action, Value)> = ACTIONS
        .iter()
        .map(|action| (action, action.schema(&mut generator).to_value()))
        .collect();
    let mut reference = Reference {
        definitions: generator.take_definitions(true),
        types: BTreeSet::new(),
        text: HEAD.to_owned(),
    };
    let mut shown = 0;
    for (area, prefixes, needs) in AREAS {
        reference.line(&format!("\n## {area}\n\n{needs}"));
        for (action, schema) in &schemas {
            if prefixes
                .iter()
                .any(|prefix| action.name.starts_with(prefix))
            {
                reference.action(action, schema);
                shown += 1;
            }
        }
    }
    assert_eq!(shown, ACTIONS.len(), "an action is in none of the areas");
    reference.all_types();
    reference.text
}

#[test]
fn the_actions_page_is_up_to_date() {
    let path = format!("{}/../../docs/actions.md", env!("CARGO_MANIFEST_DIR"));
    let expected = reference();
    if std::env::var_os("UPDATE").is_some() {
        fs::write(&path, &expected).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap_or_default();
    assert!(
        found == expected,
        "docs/actions.md differs from the table of actions; \
         UPDATE=1 cargo test -p lockstep-plan --test actions_reference writes it"
    );
}
