//! The daemon that acts on a host.
//!
//! It opens one session to the coordinator, promises, acts and reports. What
//! it may do is its own policy's matter; what it knows of passwords and
//! addresses never leaves it.

pub mod action;
pub mod actions;
mod bounds;
pub mod canonical;
pub mod config;
pub mod driver;
pub mod error;
pub mod host;
pub mod link;
pub mod policy;
mod preflight;
pub mod session;
pub mod store;
mod work;
