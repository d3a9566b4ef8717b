//! Conversion between the generated types and those of the barrier.
//!
//! Conversion to the wire cannot fail; conversion from the wire returns an
//! [`Invalid`] for every missing or invalid part, and the message is rejected.

pub mod diagnosis;
mod foreseen;
mod order;
mod reply;
pub mod status;

pub use foreseen::{foreseen, foreseen_inputs, foreseen_outputs};
pub use order::{order, tasks};
pub use reply::reply;

use crate::v1;
use lockstep_barrier::ids::{PhaseRef, RunId, StepId, Term};
use serde::de::DeserializeOwned;

/// A message that violates the protocol.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Invalid {
    /// A required part is missing.
    #[error("{0} is missing")]
    Missing(&'static str),
    /// A value that the protocol doesn't know.
    #[error("{0} has a value that this version doesn't know")]
    Unknown(&'static str),
    /// Malformed JSON.
    #[error("{field} is malformed: {problem}")]
    Json {
        field: &'static str,
        problem: String,
    },
    /// The message is not for this side.
    #[error("{0} is not something this side accepts")]
    Unexpected(&'static str),
}

/// Bytes of a sentence from an agent that is recorded in the journal: an error with
/// its cause and the end of a command's output. Without a limit one agent could
/// exceed the size of a journal entry and so stop the coordinator.
pub const MAX_SENTENCE: usize = 16 << 10;

/// Reasons of one refusal: more than one phase has tasks for one agent.
pub const MAX_REASONS: usize = 64;

/// Truncates a sentence that is too long.
pub fn brief(sentence: String) -> String {
    truncated(sentence, MAX_SENTENCE)
}

/// A text of at most so many bytes and an ellipsis; empty if none are left.
pub fn truncated(mut text: String, bytes: usize) -> String {
    if bytes == 0 {
        text.clear();
    } else if text.len() > bytes {
        text.truncate(text.floor_char_boundary(bytes));
        text.push('…');
    }
    text
}

fn some(text: String) -> Option<String> {
    Some(text).filter(|text| !text.is_empty())
}

type Result<T> = std::result::Result<T, Invalid>;

fn json<T: DeserializeOwned + Default>(field: &'static str, text: &str) -> Result<T> {
    if text.is_empty() {
        return Ok(T::default());
    }
    serde_json::from_str(text).map_err(|e| Invalid::Json {
        field,
        problem: e.to_string(),
    })
}

fn text<T: serde::Serialize>(value: &T) -> String {
    // Maps with text keys and JSON values always serialise.
    serde_json::to_string(value).unwrap_or_default()
}

impl From<Term> for v1::Term {
    fn from(term: Term) -> Self {
        Self {
            number: term.number,
            incarnation: term.incarnation,
        }
    }
}

impl From<v1::Term> for Term {
    fn from(term: v1::Term) -> Self {
        Self {
            number: term.number,
            incarnation: term.incarnation,
        }
    }
}

impl From<PhaseRef> for v1::PhaseRef {
    fn from(phase: PhaseRef) -> Self {
        Self {
            track: v1::Track::from(phase.track).into(),
            index: phase.index,
        }
    }
}

impl TryFrom<v1::PhaseRef> for PhaseRef {
    type Error = Invalid;

    fn try_from(phase: v1::PhaseRef) -> Result<Self> {
        Ok(Self {
            track: status::track(phase.track)?,
            index: phase.index,
        })
    }
}

fn phase(phase: Option<v1::PhaseRef>) -> Result<PhaseRef> {
    phase.ok_or(Invalid::Missing("phase"))?.try_into()
}

fn run(id: String) -> Result<RunId> {
    if id.is_empty() {
        Err(Invalid::Missing("run_id"))
    } else {
        Ok(RunId(id))
    }
}

fn step(id: String) -> Result<StepId> {
    if id.is_empty() {
        Err(Invalid::Missing("step_id"))
    } else {
        Ok(StepId(id))
    }
}

fn steps(ids: Vec<String>) -> Result<Vec<StepId>> {
    ids.into_iter().map(step).collect()
}

fn step_texts(steps: Vec<StepId>) -> Vec<String> {
    steps.into_iter().map(|step| step.0).collect()
}
