//! Documents point at what is there: links between files and to headings, and
//! the paths that the map of the code names.

#![expect(
    clippy::unwrap_used,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("..")
}

/// Directories whose documents are checked.
const DIRECTORIES: [&str; 8] = [
    "",
    ".github",
    "docs",
    "docs/errors",
    "tests",
    "tests/doubles/clntsh",
    "tests/doubles/dms",
    "tests/doubles/oracle",
];

fn documents() -> Vec<PathBuf> {
    DIRECTORIES
        .iter()
        .flat_map(|directory| fs::read_dir(root().join(directory)).unwrap())
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "md"))
        .collect()
}

/// The targets of `[text](target)` outside of code blocks.
fn links(text: &str) -> Vec<&str> {
    prose(text)
        .flat_map(|line| line.split("](").skip(1))
        .filter_map(|rest| rest.split_once(')'))
        .map(|(target, _)| target)
        .collect()
}

/// Lines outside of code blocks.
fn prose(text: &str) -> impl Iterator<Item = &str> {
    let mut code = false;
    text.lines().filter(move |line| {
        let fence = line.trim_start().starts_with("```");
        code ^= fence;
        !code && !fence
    })
}

/// Anchors of the headings, made as the usual renderers make them.
fn anchors(text: &str) -> BTreeSet<String> {
    prose(text)
        .filter(|line| line.starts_with('#'))
        .map(|line| {
            line.trim_start_matches('#')
                .trim()
                .to_lowercase()
                .chars()
                .filter(|c| c.is_alphanumeric() || matches!(c, ' ' | '-' | '_'))
                .map(|c| if c == ' ' { '-' } else { c })
                .collect()
        })
        .collect()
}

fn problem(document: &Path, text: &str, link: &str) -> Option<String> {
    if link.starts_with("https://") {
        return None;
    }
    let (file, anchor) = link.split_once('#').unwrap_or((link, ""));
    let target = document.parent().unwrap().join(file);
    if !file.is_empty() && !target.exists() {
        return Some(format!("{}: {link} is not there", document.display()));
    }
    let other;
    let text = if file.is_empty() || anchor.is_empty() {
        text
    } else {
        other = fs::read_to_string(&target).unwrap();
        &other
    };
    let lacking = !anchor.is_empty() && !anchors(text).contains(anchor);
    lacking.then(|| format!("{}: {link} has no such heading", document.display()))
}

#[test]
fn links_lead_somewhere() {
    let mut problems = Vec::new();
    for document in documents() {
        let text = fs::read_to_string(&document).unwrap();
        problems.extend(
            links(&text)
                .iter()
                .filter_map(|link| problem(&document, &text, link)),
        );
    }
    assert_eq!(problems, Vec::<String>::new());
}

/// In the map's section of a crate, `name.rs` and `name/` are that crate's.
#[test]
fn the_map_shows_what_is_there() {
    let text = fs::read_to_string(root().join("ARCHITECTURE.md")).unwrap();
    let map = text.split("## Code map").nth(1).unwrap();
    let map = map.split("\n## ").next().unwrap();
    let mut missing = Vec::new();
    for section in map.split("\n### `").skip(1) {
        let (name, body) = section.split_once('`').unwrap();
        let (home, mut inside) = (root().join(name), PathBuf::new());
        for line in body.lines() {
            if line.starts_with("- ") {
                inside.clear();
            }
            for path in line.split('`').skip(1).step_by(2) {
                let is_path = path.ends_with(".rs") || path.ends_with('/');
                if !is_path || path.contains('*') {
                    continue;
                }
                let src = home.join("src");
                let there = [
                    root().join(path),
                    home.join(path),
                    src.join(path),
                    src.join(&inside).join(path),
                ];
                if !there.iter().any(|path| path.exists()) {
                    missing.push(format!("{name}: {path}"));
                }
                if path.ends_with('/') {
                    inside = PathBuf::from(path);
                }
            }
        }
    }
    assert_eq!(missing, Vec::<String>::new());
}
