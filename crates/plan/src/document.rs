//! A YAML file as a tree in which every value and every key knows its place.
//!
//! serde stops at the first error; a plan's author wants all of them. So the
//! text is read into this tree first, checked as a whole, and only then
//! decoded into types. Variables are replaced here, so that what they stand
//! for is checked where they are used.

use crate::diagnose::{self, Fault};
use crate::reference::{self, ReferenceError, Target};
use serde::de::{self, Deserialize, Deserializer, MapAccess, SeqAccess, Visitor};
use serde_json::{Number, Value};
use serde_saphyr::{DuplicateKeyPolicy, Location, Spanned};
use std::collections::BTreeMap;
use std::fmt;
use std::ops::Range;

/// Bytes of a plan file. The largest real plan seen has 30 kB; a file beyond
/// this is a mistake, and the tree would take many times its size.
pub const MAX_BYTES: usize = 1024 * 1024;

/// A value and its place.
#[derive(Debug, Clone)]
pub(crate) struct Node {
    pub content: Content,
    /// Bytes of the file.
    pub at: Range<usize>,
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

/// A key, its place, and its value.
#[derive(Debug, Clone)]
pub(crate) struct Entry {
    pub key: String,
    pub key_at: Range<usize>,
    pub node: Node,
}

impl Node {
    /// Reads the text.
    ///
    /// # Errors
    /// One fault with its place: no YAML, or too large.
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
            .map(Self::from)
            .map_err(|error| {
                let at = error
                    .location()
                    .map_or(0..0, |location| character(&location, text));
                let fault = Fault::new(
                    diagnose::SYNTAX,
                    "",
                    without_place(&error.to_string()),
                    "look at the indentation, at quotes and brackets left open, and at what \
                     stands before this place",
                );
                (fault, at)
            })
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

    /// The place of a pointer, or of the nearest thing around it that the
    /// file holds.
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
            // The caret belongs under a word, not under a whole block.
            place = match (&node.content, key_at) {
                (Content::Map(_) | Content::List(_) | Content::Null, Some(key)) => key,
                (_, Some(key)) if at_key => key,
                _ => node.first_line(),
            };
        }
        place
    }

    fn first_line(&self) -> Range<usize> {
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

    /// The tree without places.
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

    /// Keys that stand twice in one map.
    pub fn duplicates(&self, pointer: &str, faults: &mut Vec<(Fault, Range<usize>)>) {
        match &self.content {
            Content::Map(entries) => {
                for (index, entry) in entries.iter().enumerate() {
                    if entries[..index].iter().any(|other| other.key == entry.key) {
                        let fault = Fault::new(
                            diagnose::DUPLICATE_KEY,
                            pointer,
                            format!("{:?} stands here twice", entry.key),
                            "keep one of the two, or give one another name",
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

    /// Replaces `${vars.NAME}` everywhere but in `vars` itself, and takes the
    /// definitions out of the tree.
    pub fn substitute(
        &mut self,
        overrides: &BTreeMap<String, String>,
    ) -> Vec<(Fault, Range<usize>)> {
        let mut faults = Vec::new();
        let Content::Map(entries) = &mut self.content else {
            return faults;
        };
        let definitions = entries
            .iter()
            .position(|entry| entry.key == "vars")
            .map(|index| entries.remove(index).node);
        let variables = definitions_of(definitions.as_ref(), overrides, &self.at, &mut faults);
        self.replace_variables(&variables, &mut faults);
        faults
    }

    fn replace_variables(
        &mut self,
        variables: &BTreeMap<String, Value>,
        faults: &mut Vec<(Fault, Range<usize>)>,
    ) {
        match &mut self.content {
            Content::Text(text) if text.contains("${vars.") => {
                let lookup = |target: &Target| match target {
                    Target::Variable(name) => variables
                        .get(name)
                        .map(|value| Some(value.clone()))
                        .ok_or_else(|| ReferenceError::UnknownVariable(name.clone())),
                    _ => Ok(None),
                };
                match reference::replace(text, &lookup) {
                    Ok(value) => self.content = content_of(value, &self.at),
                    Err(error) => {
                        let fault = reference_fault(&error, variables.keys());
                        faults.push((fault, self.at.clone()));
                    }
                }
            }
            Content::List(items) => {
                for item in items {
                    item.replace_variables(variables, faults);
                }
            }
            Content::Map(entries) => {
                for entry in entries {
                    entry.node.replace_variables(variables, faults);
                }
            }
            _ => {}
        }
    }
}

/// Values of the variables: the file's own, replaced by what was given for
/// this load. A value given as text takes the type that the file's value has.
fn definitions_of(
    definitions: Option<&Node>,
    overrides: &BTreeMap<String, String>,
    whole: &Range<usize>,
    faults: &mut Vec<(Fault, Range<usize>)>,
) -> BTreeMap<String, Value> {
    let mut variables = BTreeMap::new();
    let entries = match definitions.map(|node| &node.content) {
        Some(Content::Map(entries)) => entries.as_slice(),
        Some(_) => {
            let at = definitions.map_or(whole.clone(), |node| node.at.clone());
            faults.push((
                Fault::new(
                    diagnose::WRONG_VALUE,
                    "/vars",
                    "vars is not a map",
                    "write one \"name: value\" per line below vars",
                ),
                at,
            ));
            &[]
        }
        None => &[],
    };
    for entry in entries {
        let value = match (overrides.get(&entry.key), &entry.node.content) {
            (Some(given), Content::Number(_)) => given
                .parse::<Number>()
                .map_or_else(|_| Value::String(given.clone()), Value::Number),
            (Some(given), Content::Bool(_)) => match given.as_str() {
                "true" => Value::Bool(true),
                "false" => Value::Bool(false),
                _ => Value::String(given.clone()),
            },
            (Some(given), _) => Value::String(given.clone()),
            (None, Content::Null) => {
                faults.push((
                    Fault::new(
                        diagnose::VARIABLE,
                        "/vars",
                        format!("variable {:?} has no value", entry.key),
                        format!("give one with --var {}=VALUE", entry.key),
                    ),
                    entry.key_at.clone(),
                ));
                Value::String(String::new())
            }
            (None, _) => entry.node.to_value(),
        };
        variables.insert(entry.key.clone(), value);
    }
    for name in overrides
        .keys()
        .filter(|name| !variables.contains_key(*name))
    {
        faults.push((
            Fault::new(
                diagnose::VARIABLE,
                "/vars",
                format!("a value was given for {name:?}, which is no variable of this plan"),
                diagnose::suggest(name, variables.keys().map(String::as_str)),
            ),
            definitions.map_or(0..0, |node| node.first_line()),
        ));
    }
    variables
}

/// The fault that a reference without a value makes; its pointer is for the
/// caller to set.
pub(crate) fn reference_fault<'a>(
    error: &ReferenceError,
    variables: impl Iterator<Item = &'a String> + Clone,
) -> Fault {
    match error {
        ReferenceError::UnknownVariable(name) => Fault::new(
            diagnose::VARIABLE,
            "",
            error.to_string(),
            format!(
                "define it below vars; {}",
                diagnose::suggest(name, variables.map(String::as_str))
            ),
        ),
        ReferenceError::Malformed { .. } => Fault::new(
            diagnose::MALFORMED_REFERENCE,
            "",
            error.to_string(),
            "write ${vars.NAME}, ${STEP.OUTPUT}, ${agent.name} or ${agent.labels.KEY}; $${ is a \
             plain ${",
        ),
        _ => Fault::new(
            diagnose::MALFORMED_REFERENCE,
            "",
            error.to_string(),
            "let the reference stand alone as the whole value",
        ),
    }
}

fn content_of(value: Value, at: &Range<usize>) -> Content {
    let node = |value| Node {
        content: content_of(value, at),
        at: at.clone(),
    };
    match value {
        Value::Null => Content::Null,
        Value::Bool(value) => Content::Bool(value),
        Value::Number(number) => Content::Number(number),
        Value::String(text) => Content::Text(text),
        Value::Array(items) => Content::List(items.into_iter().map(node).collect()),
        Value::Object(fields) => Content::Map(
            fields
                .into_iter()
                .map(|(key, value)| Entry {
                    key,
                    key_at: at.clone(),
                    node: node(value),
                })
                .collect(),
        ),
    }
}

/// One level deeper.
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

fn bytes(location: &Location) -> Range<usize> {
    let span = location.span();
    let start = span.byte_offset().unwrap_or(0) as usize;
    start..start + span.byte_len().unwrap_or(0) as usize
}

/// One character at a line and a column: the parser's own errors know no
/// bytes.
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

/// The place is shown by the report; the parser's own mention of it is left
/// out.
fn without_place(message: &str) -> String {
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
    fn every_value_knows_its_place() {
        assert_eq!(at(TEXT, "/name"), "shop");
        assert_eq!(at(TEXT, "/parties/apps"), "apps");
        assert_eq!(at(TEXT, "/parties/apps/labels/role"), "app");
        assert_eq!(at(TEXT, "/list/1"), "5");
        assert_eq!(at(TEXT, "/list"), "list");
    }

    #[test]
    fn what_is_missing_points_at_what_is_around_it() {
        assert_eq!(at(TEXT, "/parties/apps/expected"), "apps");
        assert_eq!(at(TEXT, "/phases"), "name");
    }

    #[test]
    fn variables_keep_their_type_and_take_overrides() {
        let text = "vars: {n: 3, unit: a.service, home: null}\nx: ${vars.n}\ny: go-${vars.unit}\n\
                    z: ${vars.home}\n";
        let mut node = Node::parse(text).unwrap();
        let overrides = BTreeMap::from([
            ("n".to_owned(), "4".to_owned()),
            ("home".to_owned(), "/srv".to_owned()),
        ]);
        assert!(node.substitute(&overrides).is_empty());
        assert_eq!(
            node.to_value(),
            serde_json::json!({"x": 4, "y": "go-a.service", "z": "/srv"})
        );
    }

    #[test]
    fn variables_without_a_value_are_all_named() {
        let text = "vars: {a: null}\nx: ${vars.b}\n";
        let mut node = Node::parse(text).unwrap();
        let overrides = BTreeMap::from([("c".to_owned(), "1".to_owned())]);
        let messages: Vec<_> = node
            .substitute(&overrides)
            .into_iter()
            .map(|(fault, _)| fault.message)
            .collect();
        assert_eq!(
            messages,
            [
                "variable \"a\" has no value",
                "a value was given for \"c\", which is no variable of this plan",
                "variable \"b\" is not defined",
            ]
        );
    }

    #[test]
    fn broken_yaml_has_a_place() {
        let (fault, at) = Node::parse("a: 1\nb: [1, 2\nc: 3\n").unwrap_err();
        assert_eq!(fault.code, diagnose::SYNTAX);
        assert_eq!(&"a: 1\nb: [1, 2\nc: 3\n"[at], ":", "{fault}");
    }
}
