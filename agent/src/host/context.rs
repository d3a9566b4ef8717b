//! What a piece of work carries with it: the host, its name, its cancellation
//! and the way for its live lines.

use super::Host;
use std::fmt;
use std::sync::Arc;
use tokio_util::sync::CancellationToken;

/// What an action has to work with.
#[derive(Clone)]
pub struct Context {
    pub host: Arc<Host>,
    /// `RUN/STEP/ATTEMPT`: the name of its work in every tool (R22).
    pub tag: Tag,
    /// Cancelled when the task's time is up.
    pub cancel: CancellationToken,
    /// Where live lines go.
    pub progress: Progress,
}

impl Context {
    /// Says something about the work, live.
    pub fn note(&self, line: impl Into<String>) {
        self.progress.send(Line::Note(line.into()));
    }

    /// Passes on a line of a tool's output, live.
    pub fn output(&self, line: impl Into<String>) {
        self.progress.send(Line::Output(line.into()));
    }
}

/// The name of a task's work.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tag {
    pub run: String,
    pub step: String,
    pub attempt: u32,
    /// Where the step is an undo: the step whose change it takes back.
    pub of: Option<String>,
}

impl Tag {
    /// The step that makes the change, whether this is it or its undo.
    pub fn origin(&self) -> &str {
        self.of.as_deref().unwrap_or(&self.step)
    }
}

impl fmt::Display for Tag {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.step, self.attempt)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    /// The task has started.
    Started,
    /// What the action says.
    Note(String),
    /// What a tool says.
    Output(String),
}

/// Where live lines go. Lines that don't fit are dropped and counted:
/// progress never holds up the work.
#[derive(Clone)]
pub struct Progress {
    send: Arc<dyn Fn(Line) + Send + Sync>,
}

impl Progress {
    /// Lines go to this function, which must not block.
    pub fn to(send: impl Fn(Line) + Send + Sync + 'static) -> Self {
        Self {
            send: Arc::new(send),
        }
    }

    /// Lines go nowhere: for probes and tests.
    pub fn silent() -> Self {
        Self::to(drop)
    }

    pub fn send(&self, line: Line) {
        (self.send)(line);
    }
}
