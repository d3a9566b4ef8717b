//! Replication tasks: what they are, which states they go through, and the
//! registry that owns them.

pub mod definition;
pub mod faults;
pub mod lifecycle;
pub mod progress;
pub mod registry;
pub mod resources;
pub mod settings;
pub mod state;
