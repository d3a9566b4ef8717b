//! How a command fails: one error with its code, the chain of causes, the state that
//! it leaves, and what to do next.

use lockstep_api::{Code, Diagnosis, Exit};
use serde_json::{Value, json};
use std::error::Error;
use std::fmt::Write;

pub const UNREACHABLE: Code = Code::LS5001;
pub const INSECURE: Code = Code::LS5002;
pub const CONFIGURATION: Code = Code::LS5003;
pub const CREDENTIALS: Code = Code::LS5004;
pub const NOT_PERMITTED: Code = Code::LS5005;
pub const REFUSED: Code = Code::LS5006;
pub const NOT_FOUND: Code = Code::LS5007;
pub const TIMED_OUT: Code = Code::LS5008;
pub const COORDINATOR: Code = Code::LS5009;
pub const FILE: Code = Code::LS5010;
pub const AUTHORITY: Code = Code::LS5011;
pub const DIGEST: Code = Code::LS5012;
pub const PLAN: Code = Code::LS5013;
pub const OBSTACLES: Code = Code::LS5014;
pub const UNCONFIRMED: Code = Code::LS5015;

/// Why a command failed. Boxed, so that a `Result` stays small.
#[derive(Debug)]
pub struct Failure(Box<Details>);

#[derive(Debug)]
struct Details {
    exit: Exit,
    diagnosis: Diagnosis,
    report: Option<Report>,
}

/// Detailed output that is printed before the error itself.
#[derive(Debug)]
struct Report {
    text: String,
    json: Value,
}

impl Failure {
    /// A failure that another component has diagnosed.
    pub fn diagnosed(exit: Exit, diagnosis: Diagnosis) -> Self {
        Self(Box::new(Details {
            exit,
            diagnosis,
            report: None,
        }))
    }

    /// A failure without causes; [`Self::because`] adds them.
    pub fn new(code: Code, exit: Exit, what: impl Into<String>) -> Self {
        Self::diagnosed(exit, Diagnosis::new(code, what))
    }

    /// Input that is refused before anything is sent or changed.
    pub fn refused(code: Code, what: impl Into<String>) -> Self {
        Self::new(code, Exit::Refused, what)
    }

    /// A failure that an error and its sources describe completely.
    pub fn of(code: Code, exit: Exit, error: &dyn Error) -> Self {
        let mut failure = Self::new(code, exit, error.to_string());
        failure.0.diagnosis.causes = causes(error);
        failure
    }

    /// Adds a cause that exists only as text.
    pub fn because_of(mut self, cause: impl Into<String>) -> Self {
        self.0.diagnosis.causes.push(cause.into());
        self
    }

    /// Adds an error and its sources as causes.
    pub fn because(mut self, error: &dyn Error) -> Self {
        self.0.diagnosis.causes.push(error.to_string());
        self.0.diagnosis.causes.extend(causes(error));
        self.0.diagnosis.causes.dedup();
        self
    }

    /// Adds the state that the failure leaves.
    pub fn state(mut self, state_left: impl Into<String>) -> Self {
        self.0.diagnosis.state_left = Some(state_left.into());
        self
    }

    /// Adds what to do next.
    pub fn remedy(mut self, remedy: impl Into<String>) -> Self {
        self.0.diagnosis.remedy = Some(remedy.into());
        self
    }

    /// Adds a longer report, such as all problems of a plan.
    pub fn report(mut self, text: impl Into<String>, json: Value) -> Self {
        self.0.report = Some(Report {
            text: text.into(),
            json,
        });
        self
    }

    pub fn exit(&self) -> Exit {
        self.0.exit
    }

    pub fn text(&self) -> String {
        // Writing to a String can't fail.
        let mut text = String::new();
        if let Some(report) = &self.0.report {
            let _ = writeln!(text, "{}", report.text.trim_end());
        }
        let _ = writeln!(
            text,
            "error[{}]: {}",
            self.0.diagnosis.code, self.0.diagnosis.what
        );
        for cause in &self.0.diagnosis.causes {
            let _ = writeln!(text, "  because: {cause}");
        }
        if let Some(state_left) = &self.0.diagnosis.state_left {
            let _ = writeln!(text, "  state: {state_left}");
        }
        if let Some(remedy) = &self.0.diagnosis.remedy {
            let _ = writeln!(text, "  next: {remedy}");
        }
        text
    }

    pub fn json(&self) -> Value {
        json!({"error": {
            "code": self.0.diagnosis.code,
            "exit_code": self.0.exit.code(),
            "what": self.0.diagnosis.what,
            "causes": self.0.diagnosis.causes,
            "state_left": self.0.diagnosis.state_left,
            "remedy": self.0.diagnosis.remedy,
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

    #[derive(Debug, thiserror::Error)]
    #[error("can't read the map")]
    struct Outer(#[source] std::io::Error);

    #[test]
    fn each_cause_is_shown_once() {
        let outer = Outer(std::io::Error::other("the disk was removed"));
        let failure = Failure::of(FILE, Exit::Refused, &outer).remedy("find another map");
        assert_eq!(
            failure.text(),
            "error[LS5010]: can't read the map\n  because: the disk was removed\n  next: find another map\n"
        );
        assert_eq!(failure.json()["error"]["causes"][0], "the disk was removed");
        assert_eq!(failure.json()["error"]["exit_code"], 2);
    }
}
