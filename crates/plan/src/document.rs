//! A YAML file as a tree with the location of every key and value.
//!
//! serde stops at the first error, but all problems are to be reported. So the
//! text is parsed into this tree first, checked as a whole, and only then
//! decoded into types.

use crate::diagnose::{self, Fault};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};
use std::fmt;
use std::ops::Range;

/// Maximum size of a plan file in bytes. The largest real plan so far has 30 kB. A file
/// above the limit is a mistake; its tree would take many times its size, and the first
/// record of a run contains the file as well as the plan.
pub const MAX_BYTES: usize = 512 * 1024;

/// A value and its location.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub content: Content,
    /// Byte range in the file.
    pub at: Range<usize>,
    /// How the file writes a number, `true` or `false`: the number 1.10 has the value
    /// 1.1, so its text can't be derived from it.
    pub written: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) enum Content {
    Null,
    Bool(bool),
    Number(Number),
    Text(String),
    List(Vec<Node>),
    Map(Vec<Entry>),
}

/// A key, its location, and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub key_at: Range<usize>,
    pub node: Node,
}

impl Node {
    /// Parses the text.
    ///
    /// # Errors
    /// One fault with its location: invalid YAML, or too large.
    pub fn parse(text: &str) -> Result<Self, (Fault, Range<usize>)> {
        if text.len() > MAX_BYTES {
            let fault = Fault::new(
                diagnose::TOO_LARGE,
                "",
                format!("the file has {} bytes", text.len()),
                format!("a plan file has at most {MAX_BYTES} bytes; split the plan"),
            );
            return Err((fault, 0..0));
        }
        let options = serde_saphyr::options! {
            duplicate_keys: DuplicateKeyPolicy::PassThrough,
            with_snippet: false,
            strict_booleans: true,
        };
        serde_saphyr::from_str_with_options::<Spanned<Content>>(text, options)
            .map(|parsed| Self::from(parsed).with_written(text))
            .map_err(|error| {
                let at = error
                    .location()
                    .map_or(0..0, |location| character(&location, text));
                let fault = Fault::new(
                    diagnose::SYNTAX,
                    "",
                    without_location(&error.to_string()),
                    "check the indentation, unclosed quotes and brackets, and the text before this \
                     location",
                );
                (fault, at)
            })
    }

    /// Records how numbers and booleans are written in the file.
    fn with_written(mut self, text: &str) -> Self {
        self.written = match &mut self.content {
            Content::Bool(_) | Content::Number(_) => text
                .get(self.at.clone())
                .filter(|written| is_plain(written))
                .map(str::to_owned),
            Content::Null | Content::Text(_) => None,
            Content::List(items) => {
                for item in std::mem::take(items) {
                    items.push(item.with_written(text));
                }
                None
            }
            Content::Map(entries) => {
                for mut entry in std::mem::take(entries) {
                    entry.node = entry.node.with_written(text);
                    entries.push(entry);
                }
                None
            }
        };
        self
    }

    /// The text of a number or boolean as the file has it, if it isn't the usual one of
    /// its value.
    pub fn unusual(&self) -> Option<&str> {
        let usual = match &self.content {
            Content::Bool(value) => value.to_string(),
            Content::Number(number) => number.to_string(),
            Content::Null | Content::Text(_) | Content::List(_) | Content::Map(_) => return None,
        };
        self.written.as_deref().filter(|written| *written != usual)
    }

    /// The value at a JSON pointer, if there is one.
    pub fn get(&self, pointer: &str) -> Option<&Self> {
        let mut node = self;
        for segment in segments(pointer) {
            node = node.child(&segment)?;
        }
        Some(node)
    }

    fn child(&self, segment: &str) -> Option<&Self> {
        match &self.content {
            Content::Map(entries) => entries
                .iter()
                .find(|entry| entry.key == segment)
                .map(|entry| &entry.node),
            Content::List(items) => items.get(segment.parse::<usize>().ok()?),
            _ => None,
        }
    }

    /// The location of a pointer, or of its nearest ancestor in the file.
    pub fn place(&self, pointer: &str, at_key: bool) -> Range<usize> {
        let mut node = self;
        let mut place = self.first_line();
        for segment in segments(pointer) {
            let key_at = match &node.content {
                Content::Map(entries) => entries
                    .iter()
                    .find(|entry| entry.key == segment)
                    .map(|entry| entry.key_at.clone()),
                _ => None,
            };
            let Some(child) = node.child(&segment) else {
                return place;
            };
            node = child;
            // Mark a single word, not a whole block.
            place = match (&node.content, key_at) {
                (Content::Map(_) | Content::List(_) | Content::Null, Some(key)) => key,
                (_, Some(key)) if at_key => key,
                _ => node.first_line(),
            };
        }
        place
    }

    pub fn first_line(&self) -> Range<usize> {
        match &self.content {
            Content::Map(entries) => entries
                .first()
                .map_or(self.at.clone(), |entry| entry.key_at.clone()),
            Content::List(items) => items
                .first()
                .map_or(self.at.clone(), |item| item.first_line()),
            _ => self.at.clone(),
        }
    }

    /// The tree without locations.
    pub fn to_value(&self) -> Value {
        match &self.content {
            Content::Null => Value::Null,
            Content::Bool(value) => Value::Bool(*value),
            Content::Number(number) => Value::Number(number.clone()),
            Content::Text(text) => Value::String(text.clone()),
            Content::List(items) => items.iter().map(Self::to_value).collect(),
            Content::Map(entries) => Value::Object(
                entries
                    .iter()
                    .map(|entry| (entry.key.clone(), entry.node.to_value()))
                    .collect(),
            ),
        }
    }

    /// Reports keys that occur twice in one map.
    pub fn duplicates(&self, pointer: &str, faults: &mut Vec<(Fault, Range<usize>)>) {
        match &self.content {
            Content::Map(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    if entries[..index].iter().any(|other| other.key == entry.key) {
                        let fault = Fault::new(
                            diagnose::DUPLICATE_KEY,
                            pointer,
                            format!("the key {:?} occurs twice", entry.key),
                            "remove or rename one of the two",
                        );
                        faults.push((fault, entry.key_at.clone()));
                    }
                    entry.node.duplicates(&join(pointer, &entry.key), faults);
                }
            }
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.duplicates(&join(pointer, &index.to_string()), faults);
                }
            }
            _ => {}
        }
    }
}

impl Node {
    /// Reports numbers that YAML reads as another one than most people do, or that other
    /// readers of YAML take for a text: `1_0`, `010`, `0x1F`, `1e3`, `+5`.
    pub fn odd_numbers(&self, pointer: &str, faults: &mut Vec<(Fault, Range<usize>)>) {
        match &self.content {
            Content::Number(number) => {
                let odd = self.written.as_deref().filter(|text| !is_decimal(text));
                if let Some(written) = odd {
                    let fault = Fault::new(
                        diagnose::WRONG_VALUE,
                        pointer,
                        format!("{written} is read as the number {number}"),
                        format!(
                            "write {number}, or put it in quotes if it is a text: \"{written}\""
                        ),
                    );
                    faults.push((fault, self.at.clone()));
                }
            }
            Content::List(items) => {
                for (index, item) in items.iter().enumerate() {
                    item.odd_numbers(&join(pointer, &index.to_string()), faults);
                }
            }
            Content::Map(entries) => {
                for entry in entries {
                    entry.node.odd_numbers(&join(pointer, &entry.key), faults);
                }
            }
            Content::Null | Content::Bool(_) | Content::Text(_) => {}
        }
    }
}

/// Digits without a leading zero, a sign or anything else but one decimal point.
fn is_decimal(written: &str) -> bool {
    let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    let unsigned = written.strip_prefix('-').unwrap_or(written);
    let (whole, fraction) = match unsigned.split_once('.') {
        Some((whole, fraction)) => (whole, Some(fraction)),
        None => (unsigned, None),
    };
    digits(whole) && (whole == "0" || !whole.starts_with('0')) && fraction.is_none_or(digits)
}

pub(crate) fn join(pointer: &str, segment: &str) -> String {
    format!(
        "{pointer}/{}",
        segment.replace('~', "~0").replace('/', "~1")
    )
}

fn segments(pointer: &str) -> impl Iterator<Item = String> {
    pointer
        .split('/')
        .skip(1)
        .map(|segment| segment.replace("~1", "/").replace("~0", "~"))
}

/// Whether this is the text of a scalar itself, not an alias or a tag.
fn is_plain(written: &str) -> bool {
    let plain = |c: char| c.is_ascii_alphanumeric() || "+-._".contains(c);
    !written.is_empty() && written.chars().all(plain)
}

fn bytes(location: &Location) -> Range<usize> {
    let span = location.span();
    let start = span.byte_offset().unwrap_or(0) as usize;
    start..start + span.byte_len().unwrap_or(0) as usize
}

/// The character at a line and a column: parser errors have no byte offset.
fn character(location: &Location, text: &str) -> Range<usize> {
    let line = usize::try_from(location.line()).unwrap_or(1).max(1);
    let column = usize::try_from(location.column()).unwrap_or(1).max(1);
    let line_start = text
        .split_inclusive('\n')
        .take(line - 1)
        .map(str::len)
        .sum::<usize>();
    let rest = &text[line_start..];
    let before: usize = rest.chars().take(column - 1).map(char::len_utf8).sum();
    let length = rest[before..].chars().next().map_or(0, char::len_utf8);
    line_start + before..line_start + before + length
}

/// Removes the location from a parser message; the report shows it.
fn without_location(message: &str) -> String {
    message
        .split(" at line ")
        .next()
        .unwrap_or(message)
        .trim_end_matches(':')
        .to_owned()
}

impl From<Spanned<Content>> for Node {
    fn from(spanned: Spanned<Content>) -> Self {
        Self {
            at: bytes(&spanned.referenced),
            content: spanned.value,
            written: None,
        }
    }
}

impl<'de> Deserialize<'de> for Content {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ContentVisitor)
    }
}

struct ContentVisitor;

impl<'de> Visitor<'de> for ContentVisitor {
    type Value = Content;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("text, a number, true or false, a list or a map")
    }

    fn visit_unit<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_none<E>(self) -> Result<Content, E> {
        Ok(Content::Null)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Content, E> {
        Ok(Content::Bool(value))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Content, E> {
        Ok(Content::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Content, E> {
        Number::from_f64(value)
            .map(Content::Number)
            .ok_or_else(|| E::custom("a number must be finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Content, E> {
        Ok(Content::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Content, E> {
        Ok(Content::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Content, A::Error> {
        let mut items = Vec::new();
        while let Some(item) = seq.next_element::<Spanned<Content>>()? {
            items.push(item.into());
        }
        Ok(Content::List(items))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Content, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            entries.push(Entry {
                key_at: bytes(&key.referenced),
                key: key.value,
                node: map.next_value::<Spanned<Content>>()?.into(),
            });
        }
        Ok(Content::Map(entries))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXT: &str = "name: shop\nparties:\n  apps: {labels: {role: app}}\nlist:\n  - a\n  - 5\n";

    fn at<'a>(text: &'a str, pointer: &str) -> &'a str {
        &text[Node::parse(text).unwrap().place(pointer, false)]
    }

    #[test]
    fn every_value_has_a_location() {
        assert_eq!(at(TEXT, "/name"), "shop");
        assert_eq!(at(TEXT, "/parties/apps"), "apps");
        assert_eq!(at(TEXT, "/parties/apps/labels/role"), "app");
        assert_eq!(at(TEXT, "/list/1"), "5");
        assert_eq!(at(TEXT, "/list"), "list");
    }

    #[test]
    fn a_missing_value_has_the_location_of_its_ancestor() {
        assert_eq!(at(TEXT, "/parties/apps/expected"), "apps");
        assert_eq!(at(TEXT, "/phases"), "name");
    }

    #[test]
    fn numbers_are_written_in_one_way_only() {
        for (written, odd) in [
            ("10", false),
            ("0", false),
            ("-5", false),
            ("0.5", false),
            ("1.10", false),
            ("1_0", true),
            ("010", true),
            ("0o17", true),
            ("0x1F", true),
            ("1e3", true),
            ("+5", true),
        ] {
            let text = format!("list:\n  - expected: {written}\n");
            let document = Node::parse(&text).unwrap();
            let is_number = matches!(
                document.get("/list/0/expected").map(|node| &node.content),
                Some(Content::Number(_))
            );
            let mut faults = Vec::new();
            document.odd_numbers("", &mut faults);
            assert_eq!(
                !faults.is_empty(),
                odd && is_number,
                "{written}: {faults:?}"
            );
            assert!(is_number || odd, "{written}");
            if let Some((fault, place)) = faults.first() {
                assert_eq!(&text[place.clone()], written);
                assert_eq!(fault.pointer, "/list/0/expected");
            }
        }
        let mut faults = Vec::new();
        Node::parse("expected: 1_0\n")
            .unwrap()
            .odd_numbers("", &mut faults);
        assert_eq!(
            faults.len(),
            1,
            "the spelling that a reviewer reads as 10 or as a name"
        );
    }

    #[test]
    fn a_syntax_error_has_a_location() {
        let (fault, at) = Node::parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert_eq!(fault.code, diagnose::SYNTAX);
        assert_eq!(&"a: 1\nb: [1, 2\nc: 3\n"[at], ":", "{fault}");
    }
}
