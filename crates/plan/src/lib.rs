//! Plans: parsing, checking and expansion.
//!
//! This crate is pure: it turns text into a checked [`Plan`] or into a list of
//! problems with line, column and remedy. It performs no I/O.

pub mod actions;
pub mod budget;
pub mod catalogue;
pub mod check;
pub mod diagnose;
mod digest;
mod document;
mod duration;
mod expand;
mod load;
pub mod mappings;
pub mod model;
mod reference;
pub mod render;
mod schema;
mod schema_check;
pub mod source;
mod variables;

pub use diagnose::{CODES, Fault, Problem, Problems};
pub use digest::{Digest, ParseDigestError};
pub use document::MAX_BYTES;
pub use duration::{Duration, ParseDurationError};
pub use expand::cutover::STANDARD_PHASES;
pub use load::{Checked, Overrides, check, load};
pub use model::{FormatVersion, Gate, Kind, Mode, OnFailure, Outage, Party, Phase, Plan, Step};
pub use reference::{AgentFacts, Reference, ReferenceError, resolve, resolve_known};
pub use schema::schema;
