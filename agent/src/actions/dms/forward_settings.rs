//! What the settings of the forward task mean for the proofs: where its control tables
//! are, and which changes it leaves out or repeats.
//!
//! Source: AWS DMS user guide, "Control table task settings", "Error handling task
//! settings" and "Task settings for change processing DDL handling".

use super::reverse_settings::{DDL, ERRORS, POLICIES};
use serde_json::Value;

/// Where the control tables are if the settings name no schema, in PostgreSQL.
const DEFAULT_SCHEMA: &str = "public";

/// Statements on tables that a task repeats in the target, by setting.
const REPEATED: [(&str, &str); 3] = [
    ("HandleSourceTableDropped", "DROP"),
    ("HandleSourceTableTruncated", "TRUNCATE"),
    ("HandleSourceTableAltered", "ALTER"),
];

/// Why the control tables that the plan reads aren't those of the task: then changes
/// that it could not apply would go unseen.
pub fn other_control_schema(settings: &Value, planned: &str) -> Option<String> {
    let named = settings.pointer("/ControlTablesSettings/ControlSchema");
    let schema = match named.and_then(Value::as_str) {
        None | Some("") => DEFAULT_SCHEMA,
        Some(schema) => schema,
    };
    (schema != planned).then(|| {
        format!(
            "its control tables are in the schema {schema}, and the plan reads those in {planned}, so \
             lost changes would go unseen; write {schema} as postgres.control_schema"
        )
    })
}

/// What the task repeats and what it does after an error, for people.
pub fn summary(settings: &Value) -> String {
    let is_on = |name: &str| settings[DDL][name] == true;
    let repeated: Vec<&str> = REPEATED
        .iter()
        .filter(|(setting, _)| is_on(setting))
        .map(|(_, statement)| *statement)
        .collect();
    let ddl = match repeated.as_slice() {
        [] => "no DDL repeated".to_owned(),
        some => format!("{} repeated", some.join(", ")),
    };
    let policies: Vec<String> = POLICIES
        .iter()
        .filter_map(|(name, _)| Some(format!("{name}={}", settings[ERRORS][*name].as_str()?)))
        .collect();
    format!("its settings: {ddl}, {}", policies.join(", "))
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_control_schema_is_public_unless_named() {
        for (settings, schema) in [
            (json!({}), "public"),
            (
                json!({"ControlTablesSettings": {"ControlSchema": null}}),
                "public",
            ),
            (
                json!({"ControlTablesSettings": {"ControlSchema": ""}}),
                "public",
            ),
            (
                json!({"ControlTablesSettings": {"ControlSchema": "dms"}}),
                "dms",
            ),
        ] {
            assert_eq!(other_control_schema(&settings, schema), None);
            let other = other_control_schema(&settings, "other").unwrap();
            assert!(
                other.contains(&format!("in the schema {schema},")),
                "{other}"
            );
        }
    }

    #[test]
    fn what_is_repeated_and_left_out_is_shown() {
        let settings = json!({DDL: {"HandleSourceTableDropped": true,
                "HandleSourceTableAltered": true, "HandleSourceTableTruncated": false},
            ERRORS: {"DataErrorPolicy": "IGNORE_RECORD"}});
        assert_eq!(
            summary(&settings),
            "its settings: DROP, ALTER repeated, DataErrorPolicy=IGNORE_RECORD"
        );
    }
}
