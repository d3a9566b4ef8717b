//! Evaluates which tables a DMS table mapping selects.
//!
//! Source: AWS DMS user guide, "Selection rules and actions" and "Wildcards in
//! table mapping", which describes `escapeCharacter`. Only names are evaluated; filters and
//! transformations change the replicated rows, not the selection of tables.

use serde_json::Value;

/// The selection rules of a task.
pub struct Mappings<'a> {
    rules: &'a Value,
    escape: Option<char>,
}

impl<'a> Mappings<'a> {
    /// `escape` is the `escapeCharacter` of the task's Oracle endpoint, if it has
    /// one: the character after it is no wildcard.
    pub fn of(rules: &'a Value, escape: Option<char>) -> Self {
        Self { rules, escape }
    }

    /// Whether the mapping selects this table: some rule includes it and none
    /// excludes it. `name` is `schema.table` as spelled in the source database.
    pub fn selects(&self, name: &str) -> bool {
        let Some((schema, table)) = name.split_once('.') else {
            return false;
        };
        let mut included = false;
        for rule in self.selections() {
            let hit =
                self.matches(text(rule, SCHEMA), schema) && self.matches(text(rule, TABLE), table);
            match text(rule, "/rule-action") {
                "exclude" if hit => return false,
                "include" | "explicit" => included |= hit,
                _ => {}
            }
        }
        included
    }

    /// Whether a name in a selection rule contains the character, which may mean
    /// that it is escaped.
    pub fn contain(&self, character: char) -> bool {
        self.selections().any(|rule| {
            [SCHEMA, TABLE]
                .iter()
                .any(|at| text(rule, at).contains(character))
        })
    }

    fn selections(&self) -> impl Iterator<Item = &'a Value> {
        let rules = self.rules.get("rules").and_then(Value::as_array);
        let selection = |rule: &&Value| text(rule, "/rule-type") == "selection";
        rules.into_iter().flatten().filter(selection)
    }

    /// `%` matches any text, `_` one character, `[…]` one character of a set in
    /// which `a-d` is a range; so `[_]` is an underscore. Case-sensitive.
    fn matches(&self, pattern: &str, name: &str) -> bool {
        let pattern: Vec<char> = pattern.chars().collect();
        let name: Vec<char> = name.chars().collect();
        fits(&pattern, &name, self.escape)
    }
}

/// Whether the mapping selects this table, where no endpoint defines an
/// `escapeCharacter`.
pub fn selects(rules: &Value, name: &str) -> bool {
    Mappings::of(rules, None).selects(name)
}

const SCHEMA: &str = "/object-locator/schema-name";
const TABLE: &str = "/object-locator/table-name";

fn text<'a>(rule: &'a Value, pointer: &str) -> &'a str {
    rule.pointer(pointer)
        .and_then(Value::as_str)
        .unwrap_or_default()
}

fn fits(pattern: &[char], name: &[char], escape: Option<char>) -> bool {
    let fits = |pattern: &[char], name: &[char]| fits(pattern, name, escape);
    match pattern {
        [] => name.is_empty(),
        [sign, literal, rest @ ..] if Some(*sign) == escape => {
            matches!(name, [first, left @ ..] if literal == first && fits(rest, left))
        }
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
            let mappings = Mappings::of(&Value::Null, None);
            assert_eq!(mappings.matches(pattern, name), fit, "{pattern} {name}");
        }
    }

    #[test]
    fn an_escaped_wildcard_is_an_ordinary_character() {
        // The guide's own example: "TEST#_T%" with escapeCharacter=#.
        for (escape, pattern, name, fit) in [
            (Some('#'), "TEST#_T%", "TEST_T1", true),
            (Some('#'), "TEST#_T%", "TESTXT1", false),
            (None, "TEST#_T%", "TEST_T1", false),
            (Some('#'), "A#%", "A%", true),
            (Some('#'), "A#%", "AB", false),
            (Some('#'), "A##", "A#", true),
            (Some('#'), "A#[B]", "A[B]", true),
            // Nothing follows it.
            (Some('#'), "A#", "A#", true),
        ] {
            let mappings = Mappings::of(&Value::Null, escape);
            let found = mappings.matches(pattern, name);
            assert_eq!(found, fit, "{escape:?} {pattern} {name}");
        }
        let rules = json!({"rules": [rule("include", "LOCKSTEP", "LOCKSTEP#_MARKER")]});
        let marker = "LOCKSTEP.LOCKSTEP_MARKER";
        assert!(Mappings::of(&rules, Some('#')).selects(marker));
        assert!(!selects(&rules, marker));
        assert!(Mappings::of(&rules, None).contain('#'));
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
