//! Table mappings: which tables a task takes and what they are called at the
//! target.
//!
//! Source: AWS DMS user guide, "Using table mapping to specify task settings".
//! Supported: selection rules (include, explicit, exclude, load-order) and the
//! transformations rename, convert-lowercase and convert-uppercase. Filters,
//! table settings and other transformations are refused: they would change rows.

use crate::replicate::change::TableName;
use serde::Deserialize;

/// Rules in one document. DMS reads mappings of up to 2 MB; a thousand rules is
/// far beyond what a rehearsal needs.
const RULE_BOUND: usize = 1_000;

/// Why mappings are refused.
#[derive(Debug, thiserror::Error)]
pub enum MappingError {
    /// Not JSON, or not the schema.
    #[error("TableMappings is not a valid mapping document")]
    Json(#[source] serde_json::Error),
    /// No selection rule: DMS refuses such a task.
    #[error("TableMappings holds no selection rule")]
    NoSelection,
    /// Something the double doesn't carry out.
    #[error("TableMappings rule {rule}: {what}")]
    Unsupported {
        rule: String,
        /// What it asks for.
        what: String,
    },
    #[error("TableMappings holds more than {RULE_BOUND} rules")]
    TooMany,
}

#[derive(Deserialize)]
struct Document {
    rules: Vec<Rule>,
}

#[derive(Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Rule {
    rule_type: String,
    rule_id: serde_json::Value,
    #[serde(rename = "rule-name")]
    _rule_name: Option<serde_json::Value>,
    rule_action: String,
    rule_target: Option<String>,
    object_locator: Locator,
    value: Option<String>,
    #[serde(default)]
    filters: Vec<serde_json::Value>,
    load_order: Option<serde_json::Value>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "kebab-case", deny_unknown_fields)]
struct Locator {
    schema_name: String,
    table_name: Option<String>,
    column_name: Option<String>,
}

#[derive(Debug, Clone)]
struct Selection {
    schema: String,
    table: String,
    include: bool,
    load_order: i64,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Target {
    Schema,
    Table,
    Column,
}

#[derive(Debug, Clone)]
enum Renaming {
    To(String),
    Lower,
    Upper,
}

#[derive(Debug, Clone)]
struct Transformation {
    target: Target,
    locator: Locator,
    renaming: Renaming,
}

/// The rules of a task.
#[derive(Debug, Clone)]
pub struct TableMapping {
    selections: Vec<Selection>,
    transformations: Vec<Transformation>,
}

impl TableMapping {
    /// Reads the JSON document.
    ///
    /// # Errors
    /// When it is no mapping document, or asks for what is not supported.
    pub fn parse(text: &str) -> Result<Self, MappingError> {
        let document: Document = serde_json::from_str(text).map_err(MappingError::Json)?;
        if document.rules.len() > RULE_BOUND {
            return Err(MappingError::TooMany);
        }
        let mut mapping = Self {
            selections: Vec::new(),
            transformations: Vec::new(),
        };
        for rule in document.rules {
            mapping.add(rule)?;
        }
        if !mapping.selections.iter().any(|s| s.include) {
            return Err(MappingError::NoSelection);
        }
        Ok(mapping)
    }

    fn add(&mut self, rule: Rule) -> Result<(), MappingError> {
        let unsupported = |what: String| MappingError::Unsupported {
            rule: rule.rule_id.to_string(),
            what,
        };
        match rule.rule_type.as_str() {
            "selection" => {
                if !rule.filters.is_empty() {
                    return Err(unsupported("filters are not supported here".into()));
                }
                let include = match rule.rule_action.as_str() {
                    "include" | "explicit" => true,
                    "exclude" => false,
                    other => {
                        return Err(unsupported(format!(
                            "rule-action {other:?} is not supported here"
                        )));
                    }
                };
                self.selections.push(Selection {
                    schema: rule.object_locator.schema_name,
                    table: rule.object_locator.table_name.unwrap_or_else(|| "%".into()),
                    include,
                    load_order: rule.load_order.as_ref().and_then(number).unwrap_or(0),
                });
            }
            "transformation" => {
                let target = match rule.rule_target.as_deref() {
                    Some("schema") => Target::Schema,
                    Some("table") => Target::Table,
                    Some("column") => Target::Column,
                    other => {
                        return Err(unsupported(format!(
                            "rule-target {other:?} is not supported here"
                        )));
                    }
                };
                let renaming = match (rule.rule_action.as_str(), rule.value.clone()) {
                    ("rename", Some(value)) => Renaming::To(value),
                    ("rename", None) => return Err(unsupported("rename needs a value".into())),
                    ("convert-lowercase", _) => Renaming::Lower,
                    ("convert-uppercase", _) => Renaming::Upper,
                    (other, _) => {
                        return Err(unsupported(format!(
                            "rule-action {other:?} is not supported here"
                        )));
                    }
                };
                self.transformations.push(Transformation {
                    target,
                    locator: rule.object_locator,
                    renaming,
                });
            }
            other => {
                return Err(unsupported(format!(
                    "rule-type {other:?} is not supported here"
                )));
            }
        }
        Ok(())
    }

    /// Whether the task takes a table: some include matches and no exclude.
    #[must_use]
    pub fn selects(&self, table: &TableName) -> bool {
        let mut matching = self.matching(table).peekable();
        matching.peek().is_some() && matching.all(|s| s.include)
    }

    fn matching<'a>(&'a self, table: &'a TableName) -> impl Iterator<Item = &'a Selection> {
        self.selections
            .iter()
            .filter(|s| like(&s.schema, &table.schema) && like(&s.table, &table.table))
    }

    /// `load-order`: tables with a higher one are loaded first.
    #[must_use]
    pub fn load_order(&self, table: &TableName) -> i64 {
        self.matching(table)
            .map(|s| s.load_order)
            .max()
            .unwrap_or(0)
    }

    /// The schema patterns of the including rules.
    pub fn schema_patterns(&self) -> impl Iterator<Item = &str> {
        self.selections
            .iter()
            .filter(|s| s.include)
            .map(|s| s.schema.as_str())
    }

    /// The table's name at the target.
    #[must_use]
    pub fn target(&self, table: &TableName) -> TableName {
        TableName {
            schema: self.rename(Target::Schema, table, None, &table.schema),
            table: self.rename(Target::Table, table, None, &table.table),
        }
    }

    /// A column's name at the target.
    #[must_use]
    pub fn column(&self, table: &TableName, column: &str) -> String {
        self.rename(Target::Column, table, Some(column), column)
    }

    fn rename(
        &self,
        target: Target,
        table: &TableName,
        column: Option<&str>,
        name: &str,
    ) -> String {
        let mut renamed = name.to_owned();
        for rule in self.transformations.iter().filter(|t| t.target == target) {
            let locator = &rule.locator;
            let hits = like(&locator.schema_name, &table.schema)
                && locator
                    .table_name
                    .as_deref()
                    .is_none_or(|p| like(p, &table.table))
                && column.is_none_or(|c| locator.column_name.as_deref().is_none_or(|p| like(p, c)));
            if hits {
                renamed = match &rule.renaming {
                    Renaming::To(value) => value.clone(),
                    Renaming::Lower => renamed.to_lowercase(),
                    Renaming::Upper => renamed.to_uppercase(),
                };
            }
        }
        renamed
    }
}

/// DMS takes numbers in quotes or without.
fn number(value: &serde_json::Value) -> Option<i64> {
    value.as_i64().or_else(|| value.as_str()?.parse().ok())
}

/// Whether a name fits a pattern with `%` for any text. `_` is itself: DMS
/// documents it as a wildcard for one character, which also fits itself, and a
/// pattern that relied on it would take tables nobody meant; `[_]` is accepted.
#[must_use]
pub fn like(pattern: &str, name: &str) -> bool {
    let pattern = pattern.replace("[_]", "_");
    let parts: Vec<&str> = pattern.split('%').collect();
    let (Some(first), Some(last)) = (parts.first(), parts.last()) else {
        return false;
    };
    if parts.len() == 1 {
        return pattern == name;
    }
    let Some(mut rest) = name.strip_prefix(first) else {
        return false;
    };
    for part in &parts[1..parts.len() - 1] {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.len() >= last.len() && rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    const FORWARD: &str = r#"{"rules":[
        {"rule-type":"selection","rule-id":"1","rule-name":"1","rule-action":"include",
         "object-locator":{"schema-name":"SHOP","table-name":"%"},"filters":[],"load-order":"2"},
        {"rule-type":"selection","rule-id":"2","rule-name":"2","rule-action":"exclude",
         "object-locator":{"schema-name":"SHOP","table-name":"TICKS"}},
        {"rule-type":"transformation","rule-id":"3","rule-name":"3","rule-action":"rename","value":"shop",
         "rule-target":"schema","object-locator":{"schema-name":"SHOP"}},
        {"rule-type":"transformation","rule-id":"4","rule-name":"4","rule-action":"convert-lowercase",
         "rule-target":"table","object-locator":{"schema-name":"SHOP","table-name":"%"}},
        {"rule-type":"transformation","rule-id":"5","rule-name":"5","rule-action":"convert-lowercase",
         "rule-target":"column","object-locator":{"schema-name":"SHOP","table-name":"%","column-name":"%"}}]}"#;

    #[test]
    fn selects_and_renames() {
        let mapping = TableMapping::parse(FORWARD).unwrap();
        let orders = TableName::new("SHOP", "ORDERS");
        assert!(mapping.selects(&orders));
        assert!(!mapping.selects(&TableName::new("SHOP", "TICKS")));
        assert!(!mapping.selects(&TableName::new("LOCKSTEP", "LOCKSTEP_MARKER")));
        assert_eq!(mapping.target(&orders), TableName::new("shop", "orders"));
        assert_eq!(mapping.column(&orders, "ORDER_NO"), "order_no");
        assert_eq!(mapping.load_order(&orders), 2);
    }

    #[test]
    fn refuses_what_would_change_rows() {
        for (from, to) in [
            (r#""filters":[]"#, r#""filters":[{"filter-type":"source"}]"#),
            ("convert-lowercase", "add-prefix"),
            (
                r#""rule-type":"selection","rule-id":"2""#,
                r#""rule-type":"table-settings","rule-id":"2""#,
            ),
        ] {
            let text = FORWARD.replace(from, to);
            assert!(
                matches!(
                    TableMapping::parse(&text),
                    Err(MappingError::Unsupported { .. })
                ),
                "{to}"
            );
        }
        assert!(matches!(
            TableMapping::parse(r#"{"rules":[]}"#),
            Err(MappingError::NoSelection)
        ));
        assert!(matches!(
            TableMapping::parse("{"),
            Err(MappingError::Json(_))
        ));
    }

    #[test]
    fn patterns_match_whole_names() {
        for (pattern, name, fits) in [
            ("%", "ORDERS", true),
            ("ORDER%", "ORDERS", true),
            ("%LINES", "ORDER_LINES", true),
            ("O%_%S", "ORDER_LINES", true),
            ("ORDER", "ORDERS", false),
            ("A%A", "A", false),
            ("ORDER[_]LINES", "ORDER_LINES", true),
        ] {
            assert_eq!(like(pattern, name), fits, "{pattern} {name}");
        }
    }
}
