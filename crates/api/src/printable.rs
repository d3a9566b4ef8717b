//! Text of others, made safe for a terminal.
//!
//! Output of programs, error texts and rows come from hosts. A terminal obeys the
//! control characters in them: they can move the cursor, rewrite what was printed
//! before, set the title, or reverse the order of what is read.

use std::borrow::Cow;
use std::fmt::Write as _;

/// The text with control characters as escapes (`\u001b`), which are also valid in a
/// JSON string. Line breaks and tabs stay.
pub fn printable(text: &str) -> Cow<'_, str> {
    escaped(text, false)
}

/// Like [`printable`], for text that this program has coloured: sequences that only
/// set colours stay as well.
pub fn printable_coloured(text: &str) -> Cow<'_, str> {
    escaped(text, true)
}

fn escaped(text: &str, coloured: bool) -> Cow<'_, str> {
    if !text.chars().any(is_active) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 16);
    let mut rest = text;
    while let Some(character) = rest.chars().next() {
        let colour = if coloured { colour_length(rest) } else { None };
        let length = colour.unwrap_or(character.len_utf8());
        if colour.is_some() || !is_active(character) {
            out.push_str(&rest[..length]);
        } else {
            for unit in character.encode_utf16(&mut [0; 2]) {
                // Writing to a String can't fail.
                let _ = write!(out, "\\u{unit:04x}");
            }
        }
        rest = &rest[length..];
    }
    Cow::Owned(out)
}

/// Length of the sequence at the beginning that sets colours: ESC [ digits m.
fn colour_length(text: &str) -> Option<usize> {
    let parameters = text.strip_prefix("\u{1b}[")?;
    let end = parameters.find(|c: char| !c.is_ascii_digit() && c != ';')?;
    parameters[end..].starts_with('m').then_some(2 + end + 1)
}

/// Whether a terminal does something other than showing it: C0, DEL and C1, the
/// separators of lines and paragraphs, and what changes the direction of text or is
/// an invisible tag.
fn is_active(character: char) -> bool {
    match character {
        '\n' | '\t' => false,
        '\u{61c}'
        | '\u{200e}'
        | '\u{200f}'
        | '\u{2028}'..='\u{202e}'
        | '\u{2066}'..='\u{2069}'
        | '\u{e0000}'..='\u{e007f}' => true,
        other => other.is_control(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_would_obey_is_shown_instead() {
        for (text, shown) in [
            ("stopped\u{1b}[2K\rfine", "stopped\\u001b[2K\\u000dfine"),
            ("\u{7}bell \u{9b}31m", "\\u0007bell \\u009b31m"),
            ("a\u{202e}b\u{2066}c\u{7f}", "a\\u202eb\\u2066c\\u007f"),
            ("tag\u{e0041}", "tag\\udb40\\udc41"),
            ("\u{1b}]0;title\u{7}", "\\u001b]0;title\\u0007"),
        ] {
            assert_eq!(printable(text), shown);
        }
        let plain = "äöü – 表\n\tnext";
        assert!(matches!(printable(plain), Cow::Borrowed(same) if same == plain));
    }

    #[test]
    fn escapes_are_valid_json() {
        let json = serde_json::to_string("\u{9b}\u{202e}\u{e0041}\u{1b}").unwrap();
        let shown = printable(&json);
        let read: String = serde_json::from_str(&shown).unwrap();
        assert!(shown.is_ascii() && read == "\u{9b}\u{202e}\u{e0041}\u{1b}");
    }

    #[test]
    fn only_colours_stay_in_coloured_text() {
        let text = "\u{1b}[31;1merror\u{1b}[0m\u{1b}[2J\u{1b}]0;x\u{7}";
        let shown = "\u{1b}[31;1merror\u{1b}[0m\\u001b[2J\\u001b]0;x\\u0007";
        assert_eq!(printable_coloured(text), shown);
    }
}
