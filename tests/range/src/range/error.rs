//! What can go wrong in the range itself.

use std::fmt;
use std::path::PathBuf;

/// Why the range could not be started, used or stopped.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine lacks something; everything that is missing, at once.
    #[error("this machine lacks what the rehearsal range needs:\n{}", list(.0))]
    Missing(Vec<Missing>),
    /// A file or directory could not be used.
    #[error("cannot {what} {path}")]
    File {
        /// `read`, `write`, `create`…
        what: &'static str,
        path: PathBuf,
        source: std::io::Error,
    },
    /// A program could not be started at all.
    #[error("cannot start {program} ({purpose})")]
    Start {
        program: String,
        /// What it was for.
        purpose: String,
        source: std::io::Error,
    },
    /// A command ended with a failure.
    #[error("{purpose} failed ({status}): {output}")]
    Command {
        /// What it was for.
        purpose: String,
        status: String,
        /// What it said, shortened.
        output: String,
    },
    /// Something did not come up in time, or ended instead.
    #[error("{what} {how}\n{log}")]
    NotReady {
        /// What was waited for.
        what: String,
        /// `did not come up within 30 s`, `ended with status 1`.
        how: String,
        /// The end of its log.
        log: String,
    },
    /// An answer of one of the range's own parts can't be understood.
    #[error("{from} gave an answer that the range can't use: {detail}")]
    Answer {
        from: String,
        /// What is wrong with it.
        detail: String,
    },
    /// Certificates could not be made.
    #[error("cannot make the certificate of {name}: {detail}")]
    Certificate { name: String, detail: String },
    /// The range has no host of that name.
    #[error("the range has no host {name}; it has {}", known.join(", "))]
    NoSuchHost {
        /// The name that was given.
        name: String,
        /// The hosts there are.
        known: Vec<String>,
    },
    /// The operator pressed Ctrl-C, or the process was asked to end.
    #[error("interrupted")]
    Interrupted,
}

/// One thing that is missing, and its remedy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Missing {
    pub what: String,
    /// What to do about it.
    pub remedy: String,
}

impl fmt::Display for Missing {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.what, self.remedy)
    }
}

fn list(missing: &[Missing]) -> String {
    let lines: Vec<String> = missing.iter().map(|m| format!("  - {m}")).collect();
    lines.join("\n")
}

impl Error {
    /// For `map_err` on file operations.
    pub fn file(
        what: &'static str,
        path: impl Into<PathBuf>,
    ) -> impl FnOnce(std::io::Error) -> Self {
        let path = path.into();
        move |source| Self::File { what, path, source }
    }
}
