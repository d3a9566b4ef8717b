//! How much of a LOB a task replicates.
//!
//! Source: AWS DMS user guide, "Target metadata task settings", "Setting LOB
//! support for source databases" and "Table and collection settings rules". By
//! default a task is in limited LOB mode and cuts each LOB at 32 KB without an
//! error.

use serde_json::Value;

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

/// A remark for each `table-settings` rule that limits the LOBs of its tables.
pub fn of_tables(mappings: &Value) -> Vec<String> {
    let rules = mappings.get("rules").and_then(Value::as_array);
    rules
        .into_iter()
        .flatten()
        .filter(|rule| rule["rule-type"] == "table-settings")
        .filter_map(|rule| {
            let lobs = match rule.pointer("/lob-settings/mode")?.as_str()? {
                "none" => Lobs::LeftOut,
                "limited" => {
                    let size = rule.pointer("/lob-settings/bulk-max-size").and_then(size);
                    Lobs::Cut(size.unwrap_or(DEFAULT_KB))
                }
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
        assert!(of_tables(&json!({"rules": [{"rule-type": "selection"}]})).is_empty());
    }
}
