//! Every code that the product's sources name is declared, every declared code
//! is raised somewhere, and the index lists all pages.
//!
//! That a declared code has a page is checked by the compiler.

#![expect(
    clippy::unwrap_used,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_api::Code;
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

/// Where the product's own sources lie. What only tests say is not the
/// product's: directories named `tests` beside these are left out.
const SOURCES: [&str; 5] = [
    "proto/src",
    "crates",
    "coordinator/src",
    "agent/src",
    "cli/src",
];

/// The list of pages in the index begins after this line.
const LIST: &str = "## All of them\n";

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Every Rust file below a directory.
fn sources(directory: &Path, files: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy();
        if path.is_dir() {
            // The declaration of the codes raises none.
            if name != "tests" && !path.ends_with("crates/api") {
                sources(&path, files);
            }
        } else if name.ends_with(".rs") && name != "tests.rs" {
            files.push(path);
        }
    }
}

/// The part of a file that is shipped: unit tests stand at the foot, and
/// comments raise no errors.
fn shipped(text: &str) -> impl Iterator<Item = &str> {
    text.lines()
        .take_while(|line| line.trim() != "#[cfg(test)]")
        .filter(|line| !line.trim_start().starts_with("//"))
}

/// Every `LSnnnn` in a line: two letters and exactly four digits.
fn codes(line: &str) -> impl Iterator<Item = &str> {
    line.match_indices("LS").filter_map(|(at, _)| {
        let rest = &line[at + 2..];
        let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
        (digits == 4).then(|| &line[at..at + 6])
    })
}

/// Every code of the product, with a file that raises it.
fn raised() -> BTreeMap<String, PathBuf> {
    let mut files = Vec::new();
    for directory in SOURCES {
        sources(&root().join(directory), &mut files);
    }
    let mut raised = BTreeMap::new();
    for file in files {
        let text = fs::read_to_string(&file).unwrap();
        for code in shipped(&text).flat_map(codes) {
            raised.insert(code.to_owned(), file.clone());
        }
    }
    raised
}

#[test]
fn sources_name_declared_codes_only_and_every_code_is_raised() {
    let raised = raised();
    assert!(raised.len() > 100, "the search finds the sources");
    let undeclared: Vec<_> = raised
        .iter()
        .filter(|(code, _)| Code::find(code).is_none())
        .collect();
    assert!(
        undeclared.is_empty(),
        "declare {undeclared:?} in crates/api"
    );
    let unused: Vec<_> = Code::ALL
        .iter()
        .filter(|code| !raised.contains_key(code.as_str()))
        .collect();
    assert!(unused.is_empty(), "nothing raises {unused:?}");
}

/// `UPDATE_INDEX=1 cargo test -p lockstep-tests --test errors` writes it.
#[test]
fn the_index_lists_every_page() {
    let path = root().join("docs/errors/README.md");
    let text = fs::read_to_string(&path).unwrap();
    let (head, _) = text.split_once(LIST).unwrap();
    let list: String = Code::ALL
        .iter()
        .map(|code| format!("- [{code}]({code}.md): {}\n", code.title()))
        .collect();
    let wanted = format!("{head}{LIST}\n{list}");
    if std::env::var_os("UPDATE_INDEX").is_some() {
        fs::write(&path, &wanted).unwrap();
    }
    let found = fs::read_to_string(&path).unwrap();
    assert_eq!(found, wanted, "repeat this test with UPDATE_INDEX=1");
}

#[test]
fn codes_are_found_where_they_are_shipped() {
    let file =
        "/// Such as LS0001.\nx(\"LS0002: no LS00031 yesLS0004\")\n#[cfg(test)]\n\"LS0005\"\n";
    let found: Vec<&str> = shipped(file).flat_map(codes).collect();
    assert_eq!(found, ["LS0002", "LS0004"]);
}
