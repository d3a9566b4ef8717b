//! The context of a task: its host, identity, cancellation and progress.

use super::Host;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use tokio_util::sync::CancellationToken;

/// What every part of an action receives.
#[derive(Clone)]
pub struct Context {
    pub host: Arc<Host>,
    /// Displayed as `RUN/STEP/ATTEMPT`, under which the work shows in every
    /// tool and database (R22).
    pub tag: WorkId,
    /// Cancelled when the task's time is up.
    pub cancel: CancellationToken,
    /// Where progress lines go.
    pub progress: Progress,
}

impl Context {
    /// Sends a progress line of the action.
    pub fn note(&self, line: impl Into<String>) {
        self.progress.send(Line::Note(line.into()));
    }

    /// Reports one effect on the host, after it took place: a session killed, a
    /// statement run, a unit stopped, a file replaced, an API call. Unlike a note it
    /// is journaled as part of the record of the run, so it names what was changed
    /// and never contains a secret.
    pub fn effect(&self, line: impl Into<String>) {
        self.progress.send(Line::Effect(line.into()));
    }

    /// Sends a line of a tool's output as progress, while the task has written less than
    /// [`MAX_OUTPUT`]; then says once that the output is cut.
    pub fn output(&self, line: impl Into<String>) {
        self.progress.output(line.into());
    }
}

#[cfg(test)]
impl Context {
    /// A task on a host with the least configuration and these lines after it. Its state
    /// directory is that of the test programs.
    pub fn of_test(more: &str) -> Self {
        let state = std::env::temp_dir().join("lockstep-agent-tests");
        std::fs::create_dir_all(&state).unwrap();
        let least = format!(
            "name='a'\ncoordinator='c'\nstate_dir='{}'\n[tls]\nca='a'\ncert='b'\n\
             key='c'\ntrust_domain='t'\n",
            state.display()
        );
        Self {
            host: Arc::new(Host::new(
                toml::from_str(&format!("{least}{more}")).unwrap(),
            )),
            tag: WorkId {
                run: "r".into(),
                step: "s".into(),
                attempt: 1,
                of: None,
            },
            cancel: CancellationToken::new(),
            progress: Progress::silent(),
        }
    }
}

/// Output of the programs of one task that is forwarded, in bytes: what an operator
/// reads of it is far less, and a program that never stops writing costs no more.
pub const MAX_OUTPUT: u64 = 16 << 20;

/// Identifies a task in the tools and databases where it works.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WorkId {
    pub run: String,
    pub step: String,
    pub attempt: u32,
    /// For an undo: the step that it undoes.
    pub of: Option<String>,
}

impl WorkId {
    /// The step that makes the change, which an undo restores.
    pub fn origin(&self) -> &str {
        self.of.as_deref().unwrap_or(&self.step)
    }
}

impl fmt::Display for WorkId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.run, self.step, self.attempt)
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Line {
    Started,
    Note(String),
    /// A change that the task has made to its host.
    Effect(String),
    /// From a tool that the action runs.
    Output(String),
}

/// Receives progress lines. Lines without room are dropped and counted:
/// progress never delays the work.
#[derive(Clone)]
pub struct Progress {
    send: Arc<dyn Fn(Line) + Send + Sync>,
    /// What is left of [`MAX_OUTPUT`].
    room: Arc<AtomicU64>,
    /// That the output is cut has been said.
    is_cut: Arc<AtomicBool>,
}

impl Progress {
    /// Sends lines to this function, which must not block.
    pub fn to(send: impl Fn(Line) + Send + Sync + 'static) -> Self {
        Self {
            send: Arc::new(send),
            room: Arc::new(AtomicU64::new(MAX_OUTPUT)),
            is_cut: Arc::default(),
        }
    }

    /// Drops all lines: for probes and tests.
    pub fn silent() -> Self {
        Self::to(drop)
    }

    pub fn send(&self, line: Line) {
        (self.send)(line);
    }

    fn output(&self, line: String) {
        // With its line break, so that empty lines count, too.
        let bytes = u64::try_from(line.len())
            .unwrap_or(u64::MAX)
            .saturating_add(1);
        let room = self.room.load(Ordering::Relaxed);
        if bytes <= room {
            // Two streams of one program may both take the last of the room; that is
            // one line too many.
            self.room.fetch_sub(bytes.min(room), Ordering::Relaxed);
            self.send(Line::Output(line));
        } else if !self.is_cut.swap(true, Ordering::Relaxed) {
            self.room.store(0, Ordering::Relaxed);
            let limit = MAX_OUTPUT >> 20;
            self.send(Line::Note(format!(
                "the output is cut here: the programs of this task have written {limit} MiB"
            )));
        }
    }
}
