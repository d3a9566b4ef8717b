//! Problems of a plan file: code, location, message, remedy.
//!
//! All problems of a file are reported together. This module supplies their parts, and
//! miette renders them.

use lockstep_api::Code;
use miette::{
    Diagnostic, GraphicalReportHandler, GraphicalTheme, LabeledSpan, NamedSource, Severity,
    SourceCode,
};
use serde_json::{Value, json};
use std::fmt;
use std::ops::Range;
use std::sync::Arc;

/// Every code of this crate.
pub const CODES: &[Code] = &[
    SYNTAX,
    UNKNOWN_FIELD,
    MISSING_FIELD,
    WRONG_VALUE,
    DUPLICATE_KEY,
    UNKNOWN_KIND,
    NOT_IN_THIS_VERSION,
    VARIABLE,
    MALFORMED_REFERENCE,
    UNKNOWN_OUTPUT,
    LATER_OUTPUT,
    CYCLE,
    AMBIGUOUS_OUTPUT,
    DUPLICATE_NAME,
    UNUSABLE_NAME,
    UNKNOWN_PARTY,
    EMPTY_PARTY,
    UNUSED_PARTY,
    UNKNOWN_PHASE,
    WATCH,
    UNKNOWN_ACTION,
    NO_STEPS,
    SHORT_DEADLINE,
    NO_RETURN,
    NOTHING_TO_UNDO,
    NO_DMS_LISTENER,
    REVERSE_INCOMPLETE,
    OUTAGE_BUDGET,
    REVERSE_MAPPING,
    PORTS_UNCHECKED,
    DMS_MACHINES_OPEN,
    SHORT_RESERVE,
    TOO_LARGE,
];

pub(crate) const SYNTAX: Code = Code::LS1001;
pub(crate) const UNKNOWN_FIELD: Code = Code::LS1002;
pub(crate) const MISSING_FIELD: Code = Code::LS1003;
pub(crate) const WRONG_VALUE: Code = Code::LS1004;
pub(crate) const DUPLICATE_KEY: Code = Code::LS1005;
pub(crate) const UNKNOWN_KIND: Code = Code::LS1006;
pub(crate) const NOT_IN_THIS_VERSION: Code = Code::LS1007;
pub(crate) const TOO_LARGE: Code = Code::LS1008;
pub(crate) const VARIABLE: Code = Code::LS1010;
pub(crate) const MALFORMED_REFERENCE: Code = Code::LS1011;
pub(crate) const UNKNOWN_OUTPUT: Code = Code::LS1012;
pub(crate) const LATER_OUTPUT: Code = Code::LS1013;
pub(crate) const CYCLE: Code = Code::LS1014;
pub(crate) const AMBIGUOUS_OUTPUT: Code = Code::LS1015;
pub(crate) const DUPLICATE_NAME: Code = Code::LS1020;
pub(crate) const UNUSABLE_NAME: Code = Code::LS1021;
pub(crate) const UNKNOWN_PARTY: Code = Code::LS1022;
pub(crate) const EMPTY_PARTY: Code = Code::LS1023;
pub(crate) const UNUSED_PARTY: Code = Code::LS1024;
pub(crate) const UNKNOWN_PHASE: Code = Code::LS1025;
pub(crate) const WATCH: Code = Code::LS1026;
pub(crate) const UNKNOWN_ACTION: Code = Code::LS1030;
pub(crate) const NO_STEPS: Code = Code::LS1031;
pub(crate) const SHORT_DEADLINE: Code = Code::LS1032;
pub(crate) const NO_RETURN: Code = Code::LS1033;
pub(crate) const NOTHING_TO_UNDO: Code = Code::LS1034;
pub(crate) const NO_DMS_LISTENER: Code = Code::LS1040;
pub(crate) const REVERSE_INCOMPLETE: Code = Code::LS1041;
pub(crate) const OUTAGE_BUDGET: Code = Code::LS1042;
pub(crate) const REVERSE_MAPPING: Code = Code::LS1043;
pub(crate) const PORTS_UNCHECKED: Code = Code::LS1044;
pub(crate) const DMS_MACHINES_OPEN: Code = Code::LS1045;
pub(crate) const SHORT_RESERVE: Code = Code::LS1046;

/// Columns of a rendered report; fits a terminal of the usual width.
const REPORT_WIDTH: usize = 100;

/// A problem whose location in the file is not resolved yet. The location is a
/// JSON pointer (`/phases/0/steps/1/action`) into the document.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fault {
    /// Code of [`CODES`].
    pub code: Code,
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
        code: Code,
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
    pub code: Code,
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

    pub fn file(&self) -> &str {
        &self.file
    }

    pub fn iter(&self) -> impl Iterator<Item = &Problem> {
        self.all.iter()
    }

    pub fn is_empty(&self) -> bool {
        self.all.is_empty()
    }

    /// Whether any of them prevents the plan from being run.
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
            // Writing to a String can't fail.
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
    fn codes_are_unique() {
        for (index, code) in CODES.iter().enumerate() {
            assert!(!CODES[..index].contains(code), "{code}");
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
