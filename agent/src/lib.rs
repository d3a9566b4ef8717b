//! The daemon that acts on a host.
//!
//! It opens one session to the coordinator, votes, runs tasks and reports
//! their outcomes. Its own policy decides what it may do; passwords and
//! addresses never leave it.

pub mod action;
pub mod actions;
pub mod canonical;
pub mod config;
pub mod config_watch;
mod convert;
pub mod driver;
pub mod error;
pub mod handle;
pub mod host;
pub mod key_sketch;
mod message_limits;
pub mod policy;
pub mod preflight;
pub mod session;
pub mod store;
mod worker;
