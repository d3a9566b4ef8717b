//! Whether a task's mappings and settings are those of the plan.
//!
//! DMS returns table mappings as they were given, and settings with every
//! default filled in. So mappings must be equal, and settings must contain
//! those of the plan; the rest of the settings is ignored. White space, the
//! order of keys, nulls and empty lists are no difference.
//!
//! Source: AWS DMS API reference, `ReplicationTask`; user guide, "Specifying
//! task settings".

use serde_json::Value;

/// Differences of one document in a sentence at most.
const MAX_LISTED: usize = 5;

/// Characters of a value in a sentence at most.
const VALUE_SHOWN: usize = 60;

/// How the table mappings differ, a sentence for each place.
pub fn mappings(is: &str, wanted: &str) -> Vec<String> {
    document("table mappings", is, wanted, false)
}

/// How the settings differ from what the plan says, a sentence for each place.
pub fn settings(is: &str, wanted: &str) -> Vec<String> {
    document("settings", is, wanted, true)
}

/// `partly`: a field that only the task has is no difference.
fn document(what: &str, is: &str, wanted: &str, partly: bool) -> Vec<String> {
    let read = |text: &str| match serde_json::from_str::<Value>(text) {
        Ok(value) => pruned(value),
        // Compared as a whole.
        Err(_) => Value::String(text.to_owned()),
    };
    let mut found = Vec::new();
    compare(
        &mut String::new(),
        &read(is),
        &read(wanted),
        partly,
        &mut found,
    );
    let more = found.len().saturating_sub(MAX_LISTED);
    found.truncate(MAX_LISTED);
    let mut sentences: Vec<String> = found
        .into_iter()
        .map(|difference| format!("its {what} differ{difference}"))
        .collect();
    if more > 0 {
        sentences.push(format!("its {what} differ in {more} more places"));
    }
    sentences
}

/// Without nulls and empty lists, which mean the same as absence.
fn pruned(value: Value) -> Value {
    match value {
        Value::Object(map) => Value::Object(
            map.into_iter()
                .map(|(key, value)| (key, pruned(value)))
                .filter(|(_, value)| {
                    !value.is_null() && value.as_array().is_none_or(|list| !list.is_empty())
                })
                .collect(),
        ),
        Value::Array(list) => Value::Array(list.into_iter().map(pruned).collect()),
        other => other,
    }
}

fn compare(at: &mut String, is: &Value, wanted: &Value, partly: bool, found: &mut Vec<String>) {
    let length = at.len();
    match (is, wanted) {
        (Value::Object(is), Value::Object(wanted)) => {
            let only_there = is
                .keys()
                .filter(|key| !partly && !wanted.contains_key(*key));
            for key in wanted.keys().chain(only_there) {
                at.push('/');
                at.push_str(key);
                let of = |map: &serde_json::Map<String, Value>| map.get(key).cloned();
                let (is, wanted) = (of(is).unwrap_or_default(), of(wanted).unwrap_or_default());
                compare(at, &is, &wanted, partly, found);
                at.truncate(length);
            }
        }
        // Lists of settings name components by id, and DMS adds the rest.
        (Value::Array(is), Value::Array(wanted)) if partly => {
            for one in wanted
                .iter()
                .filter(|one| !is.iter().any(|is| has(is, one)))
            {
                found.push(format!(" at {at}: {} is not there", shown(one)));
            }
        }
        (Value::Array(is), Value::Array(wanted)) if is.len() == wanted.len() => {
            for (index, (is, wanted)) in is.iter().zip(wanted).enumerate() {
                at.push_str(&format!("/{index}"));
                compare(at, is, wanted, partly, found);
                at.truncate(length);
            }
        }
        (Value::Array(is), Value::Array(wanted)) => found.push(format!(
            " at {at}: there are {}, not {}",
            is.len(),
            wanted.len()
        )),
        (is, wanted) if is == wanted => {}
        (is, wanted) => {
            let at = if at.is_empty() {
                String::new()
            } else {
                format!(" at {at}")
            };
            found.push(format!("{at}: {}, not {}", shown(is), shown(wanted)));
        }
    }
}

/// Whether every wanted field is equal.
fn has(is: &Value, wanted: &Value) -> bool {
    let mut found = Vec::new();
    compare(&mut String::new(), is, wanted, true, &mut found);
    found.is_empty()
}

fn shown(value: &Value) -> String {
    let text = match value {
        Value::Null => "nothing".to_owned(),
        other => other.to_string(),
    };
    if text.chars().count() <= VALUE_SHOWN {
        return text;
    }
    let begin: String = text.chars().take(VALUE_SHOWN).collect();
    format!("{begin}…")
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rules(name: &str) -> Value {
        json!({"rules": [{"rule-type": "selection", "rule-id": "1", "rule-action": "include",
            "object-locator": {"schema-name": name, "table-name": "%"}}]})
    }

    #[test]
    fn mappings_are_compared_as_json_and_whole() {
        let wanted = rules("shop").to_string();
        let mut same = rules("shop");
        same["rules"][0]["filters"] = json!([]);
        same["rules"][0]["load-order"] = Value::Null;
        let pretty = serde_json::to_string_pretty(&same).unwrap();
        assert_eq!(mappings(&pretty, &wanted), Vec::<String>::new());

        let other = mappings(&rules("crm").to_string(), &wanted);
        assert_eq!(
            other,
            [
                r#"its table mappings differ at /rules/0/object-locator/schema-name: "crm", not "shop""#
            ]
        );
        let mut filtered = rules("shop");
        filtered["rules"][0]["filters"] = json!([{"column-name": "ID"}]);
        assert_eq!(mappings(&filtered.to_string(), &wanted).len(), 1);
        let mut longer = rules("shop");
        longer["rules"].as_array_mut().unwrap().push(json!({}));
        assert_eq!(
            mappings(&longer.to_string(), &wanted),
            ["its table mappings differ at /rules: there are 2, not 1"]
        );
        assert_eq!(mappings("no JSON", &wanted).len(), 1);
    }

    #[test]
    fn settings_are_compared_where_the_plan_says_anything() {
        let is = json!({
            "FullLoadSettings": {"TargetTablePrepMode": "DO_NOTHING", "MaxFullLoadSubTasks": 8},
            "Logging": {"EnableLogging": true, "LogComponents": [
                {"Id": "SOURCE_CAPTURE", "Severity": "LOGGER_SEVERITY_DEFAULT"},
                {"Id": "TARGET_APPLY", "Severity": "LOGGER_SEVERITY_DEBUG"}]},
        })
        .to_string();
        for (wanted, differences) in [
            (json!({}), 0),
            (
                json!({"FullLoadSettings": {"TargetTablePrepMode": "DO_NOTHING"}}),
                0,
            ),
            (json!({"FullLoadSettings": {"MaxFullLoadSubTasks": 4}}), 1),
            (json!({"Logging": {"EnableLogging": false}}), 1),
            (
                json!({"Logging": {"LogComponents": [{"Id": "TARGET_APPLY", "Severity": "LOGGER_SEVERITY_DEBUG"}]}}),
                0,
            ),
            (
                json!({"Logging": {"LogComponents": [{"Id": "TARGET_APPLY", "Severity": "LOGGER_SEVERITY_INFO"}]}}),
                1,
            ),
            (json!({"TargetMetadata": {"BatchApplyEnabled": true}}), 1),
        ] {
            let found = settings(&is, &wanted.to_string());
            assert_eq!(found.len(), differences, "{wanted}: {found:?}");
        }
    }
}
