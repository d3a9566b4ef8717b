//! Evaluates which tables a DMS table mapping selects.
//!
//! Source: AWS DMS user guide, "Selection rules and actions" and "Wildcards in
//! table mapping". Only names are evaluated; filters and
//! transformations change the replicated rows, not the selection of tables.

use serde_json::Value;

/// Whether the mapping selects this table: some rule includes it and none
/// excludes it. `name` is `schema.table` as spelled in the source database.
pub fn selects(mappings: &Value, name: &str) -> bool {
    let Some((schema, table)) = name.split_once('.') else {
        return false;
    };
    let rules = mappings.get("rules").and_then(Value::as_array);
    let mut included = false;
    for rule in rules.into_iter().flatten() {
        if text(rule, "/rule-type") != "selection" {
            continue;
        }
        let hit = matches(text(rule, "/object-locator/schema-name"), schema)
            && matches(text(rule, "/object-locator/table-name"), table);
        match text(rule, "/rule-action") {
            "exclude" if hit => return false,
            "include" | "explicit" => included |= hit,
            _ => {}
        }
    }
    included
}

fn text<'a>(rule: &'a Value, pointer: &str) -> &'a str {
    rule.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

/// `%` matches any text, `_` one character, `[…]` one character of a set in
/// which `a-d` is a range; so `[_]` is an underscore. Case-sensitive.
fn matches(pattern: &str, name: &str) -> bool {
    let pattern: Vec<char> = pattern.chars().collect();
    let name: Vec<char> = name.chars().collect();
    fits(&pattern, &name)
}

fn fits(pattern: &[char], name: &[char]) -> bool {
    match pattern {
        [] => name.is_empty(),
        ['%', rest @ ..] => (0..=name.len()).any(|skipped| fits(rest, &name[skipped..])),
        ['[', rest @ ..] if rest.contains(&']') => {
            let end = rest.iter().position(|c| *c == ']').unwrap_or(rest.len());
            let (set, rest) = (&rest[..end], &rest[end + 1..]);
            matches!(name, [first, left @ ..] if in_set(set, *first) && fits(rest, left))
        }
        [one, rest @ ..] => {
            matches!(name, [first, left @ ..] if (*one == '_' || one == first) && fits(rest, left))
        }
    }
}

fn in_set(set: &[char], character: char) -> bool {
    match set {
        [] => false,
        [from, '-', to, rest @ ..] => (*from..=*to).contains(&character) || in_set(rest, character),
        [one, rest @ ..] => *one == character || in_set(rest, character),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn rule(action: &str, schema: &str, table: &str) -> Value {
        json!({
            "rule-type": "selection", "rule-action": action,
            "object-locator": {"schema-name": schema, "table-name": table},
        })
    }

    #[test]
    fn patterns_match_as_in_dms() {
        for (pattern, name, fit) in [
            ("orders", "orders", true),
            ("orders", "ORDERS", false),
            ("ord%", "orders", true),
            ("%", "", true),
            ("order_lines", "orderXlines", true),
            ("order[_]lines", "orderXlines", false),
            ("order[_]lines", "order_lines", true),
            ("t[a-c]", "tb", true),
            ("t[a-c]", "td", false),
            ("t[", "t[", true),
        ] {
            assert_eq!(matches(pattern, name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn an_exclusion_takes_precedence_in_any_position() {
        let mappings = json!({"rules": [
            rule("exclude", "lockstep", "lockstep_marker"),
            rule("include", "lockstep", "%"),
            rule("explicit", "shop", "orders"),
            {"rule-type": "transformation", "rule-action": "include",
             "object-locator": {"schema-name": "%", "table-name": "%"}},
        ]});
        assert!(selects(&mappings, "lockstep.lockstep_canary"));
        assert!(!selects(&mappings, "lockstep.lockstep_marker"));
        assert!(selects(&mappings, "shop.orders"));
        assert!(!selects(&mappings, "shop.order_lines"));
        assert!(!selects(&json!("none"), "shop.orders"));
    }
}
