//! The daemon that sequences a run.
//!
//! It holds no credentials and runs no SQL, no shell and no AWS call: it
//! orders named actions on named resources. A run's state is the fold of its
//! journal; after `kill -9` it resumes its runs under a new term.

#![deny(clippy::wildcard_enum_match_arm)]

mod active_run;
mod activity;
pub mod agents;
pub mod config;
pub mod driver;
pub mod grpc;
pub mod handle;
pub mod party_resolution;
pub mod plans;
pub mod preflights;
mod spans;
mod status;
pub mod store;
mod timeline;
