//! How much of a LOB a task replicates.
//!
//! Source: AWS DMS user guide, "Target metadata task settings", "Setting LOB
//! support for source databases" and "Table and collection settings rules". By
//! default a task is in limited LOB mode and cuts each LOB at 32 KB without an
//! error.

use lockstep_plan::mappings::selects;
use serde_json::{Value, json};

/// The size in KB at which limited LOB mode cuts by default (`LobMaxSize`).
const DEFAULT_KB: u64 = 32;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lobs {
    /// `FullLobMode`: each is replicated whole.
    Whole,
    /// `LimitedSizeLobMode`: each is cut at so many KB.
    Cut(u64),
    /// `SupportLobs` is off, or the mode is `none`.
    LeftOut,
}

impl Lobs {
    /// What a task does by its settings, as DMS shows them.
    pub fn of(settings: &Value) -> Self {
        let member = |name: &str| settings.pointer(&format!("/TargetMetadata/{name}"));
        let is = |name: &str| member(name).and_then(Value::as_bool);
        if is("SupportLobs") == Some(false) {
            Self::LeftOut
        } else if is("FullLobMode") == Some(true) {
            Self::Whole
        } else {
            Self::Cut(member("LobMaxSize").and_then(size).unwrap_or(DEFAULT_KB))
        }
    }

    /// As [`Lobs::of`] for the table `schema.table`, for which a `table-settings`
    /// rule may say otherwise.
    pub fn of_table(settings: &Value, mappings: &Value, table: &str) -> Self {
        let own = table_rules(mappings).find(|(rule, _)| {
            let mut selection = (*rule).clone();
            selection["rule-type"] = json!("selection");
            selection["rule-action"] = json!("include");
            selects(&json!({"rules": [selection]}), table)
        });
        match own {
            Some((_, "none")) => Self::LeftOut,
            Some((rule, "limited")) => Self::bulk(rule),
            Some((_, "unlimited")) => Self::Whole,
            _ => Self::of(settings),
        }
    }

    /// Limited LOB mode of a `table-settings` rule.
    fn bulk(rule: &Value) -> Self {
        let size = rule.pointer("/lob-settings/bulk-max-size").and_then(size);
        Self::Cut(size.unwrap_or(DEFAULT_KB))
    }

    /// What that means for values; `None` where all arrive whole.
    pub fn remark(self, of: &str) -> Option<String> {
        match self {
            Self::Whole => None,
            Self::Cut(kb) => Some(format!(
                "{of} at {kb} KB (limited LOB mode), without an error: a longer value differs in \
                 the target, and row counts agree all the same"
            )),
            Self::LeftOut => Some(format!(
                "{of} to nothing (LOB support is off): LOB columns aren't replicated"
            )),
        }
    }
}

/// The `table-settings` rules with a LOB mode, and the mode.
fn table_rules(mappings: &Value) -> impl Iterator<Item = (&Value, &str)> {
    let rules = mappings.get("rules").and_then(Value::as_array);
    rules
        .into_iter()
        .flatten()
        .filter(|rule| rule["rule-type"] == "table-settings")
        .filter_map(|rule| Some((rule, rule.pointer("/lob-settings/mode")?.as_str()?)))
}

/// A remark for each `table-settings` rule that limits the LOBs of its tables.
pub fn of_tables(mappings: &Value) -> Vec<String> {
    table_rules(mappings)
        .filter_map(|(rule, mode)| {
            let lobs = match mode {
                "none" => Lobs::LeftOut,
                "limited" => Lobs::bulk(rule),
                _ => return None,
            };
            let name = |which: &str| {
                let pointer = format!("/object-locator/{which}-name");
                let name = rule.pointer(&pointer).and_then(Value::as_str);
                name.unwrap_or("%").to_owned()
            };
            lobs.remark(&format!(
                "a rule of the table mappings cuts LOBs of {}.{}",
                name("schema"),
                name("table")
            ))
        })
        .collect()
}

/// DMS takes numbers in quotes or without.
pub fn size(value: &Value) -> Option<u64> {
    value.as_u64().or_else(|| value.as_str()?.parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_mode_is_read_from_the_settings() {
        for (metadata, lobs) in [
            (json!({}), Lobs::Cut(32)),
            (
                json!({"LimitedSizeLobMode": true, "LobMaxSize": 64}),
                Lobs::Cut(64),
            ),
            (json!({"FullLobMode": true, "LobMaxSize": 0}), Lobs::Whole),
            (
                json!({"SupportLobs": false, "FullLobMode": true}),
                Lobs::LeftOut,
            ),
        ] {
            assert_eq!(Lobs::of(&json!({"TargetMetadata": metadata})), lobs);
        }
    }

    #[test]
    fn tables_with_limits_of_their_own_are_named() {
        let rule = |lobs: Value| {
            json!({"rule-type": "table-settings", "lob-settings": lobs,
                "object-locator": {"schema-name": "shop", "table-name": "notes"}})
        };
        let of = |lobs: Value| of_tables(&json!({"rules": [rule(lobs)]}));
        assert!(
            of(json!({"mode": "limited", "bulk-max-size": "16"}))[0]
                .contains("shop.notes at 16 KB")
        );
        assert!(of(json!({"mode": "none"}))[0].contains("aren't replicated"));
        assert!(of(json!({"mode": "unlimited"})).is_empty());
        let mappings = json!({"rules": [rule(json!({"mode": "limited"}))]});
        let whole = json!({"TargetMetadata": {"FullLobMode": true}});
        assert_eq!(
            Lobs::of_table(&whole, &mappings, "shop.notes"),
            Lobs::Cut(32)
        );
        assert_eq!(Lobs::of_table(&whole, &mappings, "shop.other"), Lobs::Whole);
        assert!(of_tables(&json!({"rules": [{"rule-type": "selection"}]})).is_empty());
    }
}
