//! What the command says when it can't do what was asked: once, with its code,
//! the whole chain of causes, and what to do next.

use crate::exit::Exit;
use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Write;

pub const UNREACHABLE: &str = "LS5001";
pub const INSECURE: &str = "LS5002";
pub const CONFIGURATION: &str = "LS5003";
pub const CREDENTIALS: &str = "LS5004";
pub const NOT_PERMITTED: &str = "LS5005";
pub const REFUSED: &str = "LS5006";
pub const NOT_FOUND: &str = "LS5007";
pub const TIMED_OUT: &str = "LS5008";
pub const COORDINATOR: &str = "LS5009";
pub const FILE: &str = "LS5010";
pub const AUTHORITY: &str = "LS5011";
pub const DIGEST: &str = "LS5012";
pub const PLAN: &str = "LS5013";
pub const OBSTACLES: &str = "LS5014";

/// Why a command ends without having done what was asked.
#[derive(Debug)]
pub struct Failure(Box<Account>);

#[derive(Debug)]
struct Account {
    code: String,
    exit: Exit,
    what: String,
    causes: Vec<String>,
    remedy: Option<String>,
    report: Option<Report>,
}

/// A longer account that stands before the failure itself.
#[derive(Debug)]
struct Report {
    text: String,
    json: Value,
}

impl Failure {
    /// A failure without a cause below it.
    pub fn new(code: &'static str, exit: Exit, what: impl Into<String>) -> Self {
        Self(Box::new(Account {
            code: code.to_owned(),
            exit,
            what: what.into(),
            causes: Vec::new(),
            remedy: None,
            report: None,
        }))
    }

    /// Input that is refused before anything is sent or changed.
    pub fn refused(code: &'static str, what: impl Into<String>) -> Self {
        Self::new(code, Exit::Refused, what)
    }

    /// A failure with an error as its whole description.
    pub fn of(code: &'static str, exit: Exit, error: &dyn Error) -> Self {
        let mut failure = Self::new(code, exit, error.to_string());
        failure.0.causes = causes(error);
        failure
    }

    /// Adds a cause in words.
    pub fn because_of(mut self, cause: impl Into<String>) -> Self {
        self.0.causes.push(cause.into());
        self
    }

    /// Adds an error and its sources as causes.
    pub fn because(mut self, error: &dyn Error) -> Self {
        self.0.causes.push(error.to_string());
        self.0.causes.extend(causes(error));
        self.0.causes.dedup();
        self
    }

    /// Adds what to do next.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.remedy = Some(remedy.into());
        self
    }

    /// Adds a longer account, such as all problems of a plan.
    pub fn report(mut self, text: impl Into<String>, json: Value) -> Self {
        self.0.report = Some(Report {
            text: text.into(),
            json,
        });
        self
    }

    /// Replaces the code by the one that the coordinator gave.
    pub fn with_code(mut self, code: impl Into<String>) -> Self {
        self.0.code = code.into();
        self
    }

    /// How the command ends.
    pub fn exit(&self) -> Exit {
        self.0.exit
    }

    pub fn text(&self) -> String {
        // Writing into a String has no way to fail.
        let mut text = String::new();
        if let Some(report) = &self.0.report {
            let _ = writeln!(text, "{}", report.text.trim_end());
        }
        let _ = writeln!(text, "error[{}]: {}", self.0.code, self.0.what);
        for cause in &self.0.causes {
            let _ = writeln!(text, "  because: {cause}");
        }
        if let Some(remedy) = &self.0.remedy {
            let _ = writeln!(text, "  next: {remedy}");
        }
        text
    }

    pub fn json(&self) -> Value {
        json!({"error": {
            "code": self.0.code,
            "exit_code": self.0.exit.code(),
            "message": self.0.what,
            "causes": self.0.causes,
            "remedy": self.0.remedy,
            "report": self.0.report.as_ref().map(|report| &report.json),
        }})
    }
}

fn causes(error: &dyn Error) -> Vec<String> {
    let mut causes: Vec<String> = std::iter::successors(error.source(), |error| (*error).source())
        .map(ToString::to_string)
        .collect();
    // Libraries repeat their source's text in their own.
    causes.dedup();
    causes
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Every code of the command with its title; `docs/errors/` has a page for each.
    const CODES: &[(&str, &str)] = &[
        (UNREACHABLE, "No coordinator there"),
        (INSECURE, "No secure connection"),
        (CONFIGURATION, "Configuration incomplete or wrong"),
        (CREDENTIALS, "Certificate files that can't be used"),
        (NOT_PERMITTED, "Not permitted"),
        (REFUSED, "Refused by the coordinator"),
        (NOT_FOUND, "No such run or agent"),
        (TIMED_OUT, "Took too long"),
        (COORDINATOR, "The coordinator failed"),
        (FILE, "File that can't be read or written"),
        (AUTHORITY, "The certificate authority refused"),
        (DIGEST, "Another plan than the one approved"),
        (PLAN, "Plan with problems"),
        (OBSTACLES, "Something stands in the way of the plan"),
    ];

    #[derive(Debug, thiserror::Error)]
    #[error("can't read the map")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn the_whole_chain_is_told_once() {
        let outer = Outer(std::io::Error::other("the disk is gone"));
        let failure = Failure::of(FILE, Exit::Refused, &outer).remedy("find another map");
        assert_eq!(
            failure.text(),
            "error[LS5010]: can't read the map\n  because: the disk is gone\n  next: find another map\n"
        );
        assert_eq!(failure.json()["error"]["causes"][0], "the disk is gone");
        assert_eq!(failure.json()["error"]["exit_code"], 2);
    }

    #[test]
    fn every_code_has_its_page() {
        for (code, title) in CODES {
            let path = format!("{}/../docs/errors/{code}.md", env!("CARGO_MANIFEST_DIR"));
            let page =
                std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
            assert!(page.starts_with(&format!("# {code}: {title}\n")), "{path}");
        }
    }
}
