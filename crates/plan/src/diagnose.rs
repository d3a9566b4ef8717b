//! Problems of a plan file: code, place, message, remedy.
//!
//! All problems of a file are reported together. Each has a code of [`CODES`] and
//! a page `docs/errors/LS1xxx.md`. Rendering is miette's; this module only
//! supplies the parts.

use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity,
    SourceCode,
};
use serde_json::{Value, json};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Every code of this crate with its title; `docs/errors/` has a page for
/// each.
pub const CODES: &[(&str, &str)] = &[
    (SYNTAX, "The file is not YAML"),
    (UNKNOWN_FIELD, "Unknown field"),
    (MISSING_FIELD, "Missing field"),
    (WRONG_VALUE, "Wrong type or value"),
    (DUPLICATE_KEY, "The same key twice"),
    (UNKNOWN_KIND, "Unknown kind of plan"),
    (NOT_IN_THIS_VERSION, "Not in this version"),
    (VARIABLE, "Variable without a value"),
    (MALFORMED_REFERENCE, "Malformed reference"),
    (UNKNOWN_OUTPUT, "Reference to an unknown output"),
    (LATER_OUTPUT, "Reference to an output that comes too late"),
    (CYCLE, "Cycle of references"),
    (AMBIGUOUS_OUTPUT, "Output of several agents"),
    (DUPLICATE_NAME, "The same name twice"),
    (UNUSABLE_NAME, "Name that cannot be used"),
    (UNKNOWN_PARTY, "Unknown party"),
    (EMPTY_PARTY, "Party without members"),
    (UNUSED_PARTY, "Party without a step"),
    (UNKNOWN_PHASE, "Unknown phase"),
    (WATCH, "Invalid watch"),
    (UNKNOWN_ACTION, "Unknown action"),
    (NO_STEPS, "Nothing to do"),
    (SHORT_DEADLINE, "Deadline shorter than the work"),
    (NO_RETURN, "Point of no return out of place"),
    (NOTHING_TO_UNDO, "Undo of an action that has none"),
    (NO_DMS_LISTENER, "Reverse task without a listener for DMS"),
    (REVERSE_INCOMPLETE, "Reverse task without its canary"),
    (OUTAGE_BUDGET, "Outage budget that cannot hold"),
    (REVERSE_MAPPING, "Reverse task that maps the wrong tables"),
    (
        PORTS_UNCHECKED,
        "Oracle's ports are not checked from application hosts",
    ),
    (
        DMS_MACHINES_OPEN,
        "DMS sessions are exempt from every machine",
    ),
    (TOO_LARGE, "Plan too large"),
];

pub(crate) const SYNTAX: &str = "LS1001";
pub(crate) const UNKNOWN_FIELD: &str = "LS1002";
pub(crate) const MISSING_FIELD: &str = "LS1003";
pub(crate) const WRONG_VALUE: &str = "LS1004";
pub(crate) const DUPLICATE_KEY: &str = "LS1005";
pub(crate) const UNKNOWN_KIND: &str = "LS1006";
pub(crate) const NOT_IN_THIS_VERSION: &str = "LS1007";
pub(crate) const TOO_LARGE: &str = "LS1008";
pub(crate) const VARIABLE: &str = "LS1010";
pub(crate) const MALFORMED_REFERENCE: &str = "LS1011";
pub(crate) const UNKNOWN_OUTPUT: &str = "LS1012";
pub(crate) const LATER_OUTPUT: &str = "LS1013";
pub(crate) const CYCLE: &str = "LS1014";
pub(crate) const AMBIGUOUS_OUTPUT: &str = "LS1015";
pub(crate) const DUPLICATE_NAME: &str = "LS1020";
pub(crate) const UNUSABLE_NAME: &str = "LS1021";
pub(crate) const UNKNOWN_PARTY: &str = "LS1022";
pub(crate) const EMPTY_PARTY: &str = "LS1023";
pub(crate) const UNUSED_PARTY: &str = "LS1024";
pub(crate) const UNKNOWN_PHASE: &str = "LS1025";
pub(crate) const WATCH: &str = "LS1026";
pub(crate) const UNKNOWN_ACTION: &str = "LS1030";
pub(crate) const NO_STEPS: &str = "LS1031";
pub(crate) const SHORT_DEADLINE: &str = "LS1032";
pub(crate) const NO_RETURN: &str = "LS1033";
pub(crate) const NOTHING_TO_UNDO: &str = "LS1034";
pub(crate) const NO_DMS_LISTENER: &str = "LS1040";
pub(crate) const REVERSE_INCOMPLETE: &str = "LS1041";
pub(crate) const OUTAGE_BUDGET: &str = "LS1042";
pub(crate) const REVERSE_MAPPING: &str = "LS1043";
pub(crate) const PORTS_UNCHECKED: &str = "LS1044";
pub(crate) const DMS_MACHINES_OPEN: &str = "LS1045";

/// Columns of a rendered report; fits a terminal of the usual width.
const REPORT_WIDTH: usize = 100;

/// A problem whose location in the file is not resolved yet. The location is a
/// JSON pointer (`/phases/0/steps/1/action`) into the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Code of [`CODES`].
    pub code: &'static str,
    /// JSON pointer to the wrong value, or to its nearest ancestor if the
    /// value is missing.
    pub pointer: String,
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The plan can still be run.
    pub warning: bool,
    /// Mark the key rather than the value.
    pub at_key: bool,
}

impl Fault {
    pub(crate) fn new(
        code: &'static str,
        pointer: impl Into<String>,
        message: impl Into<String>,
        remedy: impl Into<String>,
    ) -> Self {
        Self {
            code,
            pointer: pointer.into(),
            message: message.into(),
            remedy: remedy.into(),
            warning: false,
            at_key: false,
        }
    }

    pub(crate) fn into_warning(mut self) -> Self {
        self.warning = true;
        self
    }

    pub(crate) fn at_key(mut self) -> Self {
        self.at_key = true;
        self
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} ({})", self.code, self.message, self.remedy)
    }
}

/// One problem with its location in a file.
#[derive(Debug, Clone)]
pub struct Problem {
    /// Code of [`CODES`].
    pub code: &'static str,
    pub message: String,
    /// What to do about it.
    pub remedy: String,
    /// The plan can still be run.
    pub warning: bool,
    /// Line, from 1.
    pub line: usize,
    /// Column in characters, from 1.
    pub column: usize,
    at: Range<usize>,
    source: Arc<NamedSource<String>>,
}

impl Problem {
    fn new(fault: Fault, at: Range<usize>, source: &Arc<NamedSource<String>>) -> Self {
        let before = source.inner().get(..at.start).unwrap_or_default();
        let line_start = before.rfind('\n').map_or(0, |newline| newline + 1);
        Self {
            code: fault.code,
            message: fault.message,
            remedy: fault.remedy,
            warning: fault.warning,
            line: before.matches('\n').count() + 1,
            column: before[line_start..].chars().count() + 1,
            at,
            source: Arc::clone(source),
        }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Problem {}

impl Diagnostic for Problem {
    fn code<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(self.code))
    }

    fn severity(&self) -> Option<Severity> {
        Some(if self.warning {
            Severity::Warning
        } else {
            Severity::Error
        })
    }

    fn help<'a>(&'a self) -> Option<Box<dyn fmt::Display + 'a>> {
        Some(Box::new(&self.remedy))
    }

    fn source_code(&self) -> Option<&dyn SourceCode> {
        Some(self.source.as_ref())
    }

    fn labels(&self) -> Option<Box<dyn Iterator<Item = LabeledSpan> + '_>> {
        let label = LabeledSpan::new_with_span(Some("here".to_owned()), self.at.clone());
        Some(Box::new(std::iter::once(label)))
    }
}

/// All problems of one file, in order of location. `Display` renders
/// them as a report without colours.
#[derive(Debug, Clone)]
pub struct Problems {
    file: String,
    all: Vec<Problem>,
}

impl Problems {
    pub(crate) fn new(
        file: &str,
        text: &str,
        faults: impl IntoIterator<Item = (Fault, Range<usize>)>,
    ) -> Self {
        let source = Arc::new(NamedSource::new(file, text.to_owned()).with_language("YAML"));
        let mut all: Vec<Problem> = faults
            .into_iter()
            .map(|(fault, at)| Problem::new(fault, at, &source))
            .collect();
        all.sort_by(|a, b| (a.at.start, a.code, &a.message).cmp(&(b.at.start, b.code, &b.message)));
        all.dedup_by(|a, b| a.at == b.at && a.code == b.code && a.message == b.message);
        Self {
            file: file.to_owned(),
            all,
        }
    }

    /// Name of the file.
    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.iter()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether one of them prevents the plan from being run.
    pub fn has_errors(&self) -> bool {
        self.all.iter().any(|problem| !problem.warning)
    }

    /// The report as text, for a terminal with or without colours.
    pub fn render(&self, colours: bool) -> String {
        let theme = if colours {
            GraphicalTheme::unicode()
        } else {
            GraphicalTheme::unicode_nocolor()
        };
        let handler = GraphicalReportHandler::new_themed(theme)
            .with_width(REPORT_WIDTH)
            .with_links(false);
        let mut report = String::new();
        for (index, problem) in self.all.iter().enumerate() {
            if index > 0 {
                report.push('\n');
            }
            // Writing into a String cannot fail.
            let _ = handler.render_report(&mut report, problem);
        }
        let errors = self.all.iter().filter(|problem| !problem.warning).count();
        let warnings = self.all.len() - errors;
        let mut parts = Vec::new();
        if errors > 0 {
            parts.push(format!(
                "{errors} error{}",
                if errors == 1 { "" } else { "s" }
            ));
        }
        if warnings > 0 {
            parts.push(format!(
                "{warnings} warning{}",
                if warnings == 1 { "" } else { "s" }
            ));
        }
        if !parts.is_empty() {
            report.push_str(&format!("\n{}: {}\n", self.file, parts.join(", ")));
        }
        report
    }

    /// The problems for programs: a list of objects with `code`, `severity`,
    /// `message`, `remedy`, `file`, `line`, `column`.
    pub fn json(&self) -> Value {
        self.all
            .iter()
            .map(|problem| {
                json!({
                    "code": problem.code,
                    "severity": if problem.warning { "warning" } else { "error" },
                    "message": problem.message,
                    "remedy": problem.remedy,
                    "file": self.file,
                    "line": problem.line,
                    "column": problem.column,
                })
            })
            .collect()
    }
}

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.render(false).trim_end())
    }
}

impl std::error::Error for Problems {}

/// The known name closest to `written`, if the distance suggests a typo.
pub(crate) fn nearest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str>,
) -> Option<&'a str> {
    known
        .into_iter()
        .map(|name| (distance(written, name), name))
        // Up to a third of the letters wrong is a typo; more is another word.
        .filter(|(distance, name)| *distance <= name.chars().count().max(3) / 3)
        .min()
        .map(|(_, name)| name)
}

/// "Did you mean …", or the list of all valid names.
pub(crate) fn suggest<'a>(
    written: &str,
    known: impl IntoIterator<Item = &'a str> + Clone,
) -> String {
    if let Some(name) = nearest(written, known.clone()) {
        return format!("did you mean {name:?}?");
    }
    let names: Vec<&str> = known.into_iter().collect();
    if names.is_empty() {
        "no value is valid here".to_owned()
    } else {
        format!("valid here: {}", names.join(", "))
    }
}

/// Damerau-Levenshtein distance (restricted transpositions), ignoring case.
fn distance(a: &str, b: &str) -> usize {
    let a: Vec<char> = a.to_lowercase().chars().collect();
    let b: Vec<char> = b.to_lowercase().chars().collect();
    let mut rows = vec![(0..=b.len()).collect::<Vec<usize>>()];
    for i in 1..=a.len() {
        let mut row = vec![i];
        for j in 1..=b.len() {
            let differs = usize::from(a[i - 1] != b[j - 1]);
            let mut best = (rows[i - 1][j] + 1)
                .min(row[j - 1] + 1)
                .min(rows[i - 1][j - 1] + differs);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                best = best.min(rows[i - 2][j - 2] + 1);
            }
            row.push(best);
        }
        rows.push(row);
    }
    rows[a.len()][b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_are_unique_and_have_pages() {
        let pages = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/errors");
        for (index, (code, title)) in CODES.iter().enumerate() {
            assert!(
                CODES[..index].iter().all(|(other, _)| other != code),
                "{code}"
            );
            let page = std::fs::read_to_string(format!("{pages}/{code}.md"))
                .unwrap_or_else(|error| panic!("docs/errors/{code}.md: {error}"));
            assert!(
                page.starts_with(&format!("# {code}: {title}\n")),
                "docs/errors/{code}.md begins with its code and title"
            );
        }
    }

    #[test]
    fn a_typo_finds_the_intended_word() {
        let known = ["services", "timers", "processes"];
        assert_eq!(nearest("service", known), Some("services"));
        assert_eq!(nearest("tmiers", known), Some("timers"));
        assert_eq!(nearest("listeners", known), None);
        assert_eq!(suggest("zzz", ["a", "b"]), "valid here: a, b");
    }
}
