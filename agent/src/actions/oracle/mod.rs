//! Actions on an Oracle database and its listeners.
//!
//! Statements are constants, or built from quoted names and from numbers that
//! Oracle itself returned; nothing else from a plan becomes SQL text.

pub mod accounts;
pub mod canary;
pub mod closed;
mod dms_door;
mod fence;
pub mod fence_verify;
pub mod fence_watch;
pub mod finalize;
pub mod jobs;
mod kept;
pub mod listener;
mod listeners;
pub mod logins;
pub mod logs;
mod names;
mod neighbours;
mod other_tables;
mod parameters;
pub mod queue_monitor;
pub mod ready;
pub mod rows;
pub mod sessions;
mod spare;
pub mod triggers;

use crate::policy::Need;
use std::time::Duration;

/// Interval between two checks of a wait: short against any outage budget, long
/// against the queries themselves.
const LOOK: Duration = Duration::from_millis(250);

fn needs(resource: &str) -> Vec<Need> {
    vec![Need::Oracle(resource.to_owned())]
}
