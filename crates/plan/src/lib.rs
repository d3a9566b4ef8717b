//! Plans: what they say, whether they make sense, what they expand to.
//!
//! This crate is pure. Text comes in, a checked [`Plan`] or a list of
//! problems with file, line, caret and remedy comes out; reading files,
//! asking agents and running anything is for others.

pub mod actions;
pub mod catalogue;
mod digest;
pub mod model;
mod reference;

pub use digest::{Digest, NoDigest};
pub use model::{
    AgentFacts, FormatVersion, Gate, Kind, Mode, OnFailure, Outage, Party, Phase, Plan, Step,
};
pub use reference::{Reference, ReferenceError};
