//! The vocabulary that the coordinator, the agent and the command share: error
//! codes with their pages, diagnoses, and the status of runs and agents.
//!
//! Pure: no runtime, no transport. `lockstep-proto` converts these types to and
//! from the wire; serde's form of the status types is the JSON of
//! `lockstep -o json`, an interface whose fields are only added.

mod code;
mod diagnosis;
mod exit;
mod printable;
mod status;
mod words;

pub use code::{Code, UnknownCode};
pub use diagnosis::Diagnosis;
pub use exit::{Exit, UnknownExit};
pub use printable::{printable, printable_coloured};
pub use status::*;
pub use words::{Finding, Gate, OnFailure, Track};
