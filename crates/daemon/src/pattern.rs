//! The patterns of an agent's policy.

/// Whether a name matches a pattern: the name itself, or a prefix followed by
/// one `*` at the end. A `*` elsewhere is an ordinary character.
pub fn matches_pattern(pattern: &str, name: &str) -> bool {
    match pattern.strip_suffix('*') {
        Some(prefix) => name.starts_with(prefix),
        None => pattern == name,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_trailing_asterisk_is_a_wildcard() {
        for (pattern, name, expected) in [
            ("oracle.fence", "oracle.fence", true),
            ("oracle.fence", "oracle.fence.verify", false),
            ("oracle.fence", "oracle", false),
            ("oracle.*", "oracle.fence", true),
            ("oracle.*", "oracle.", true),
            ("oracle.*", "oracle", false),
            ("*", "dms.stop", true),
            ("*.stop", "dms.stop", false),
            ("", "dms.stop", false),
        ] {
            assert_eq!(matches_pattern(pattern, name), expected, "{pattern} {name}");
        }
    }
}
