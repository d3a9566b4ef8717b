//! Actions on an Oracle database and its listeners.
//!
//! Statements are constants, or built from quoted names and from numbers that
//! Oracle itself returned; nothing else from a plan becomes SQL text.

pub mod accounts;
pub mod canary;
mod clients;
pub mod columns;
mod dms_listener;
mod fence;
pub mod fence_verify;
pub mod fence_watch;
pub mod finalize;
pub mod freeze;
pub mod jobs;
pub mod listener;
mod listener_checks;
mod listeners;
mod login_times;
pub mod logins;
pub mod marker;
mod names;
mod parameters;
pub mod queue_monitor;
pub mod ready;
pub mod redo_logs;
pub mod rows;
mod saved_state;
mod schemas;
mod session_class;
pub mod sessions;
pub mod triggers;
pub mod unchanged;
mod unlisted_tables;

use crate::policy::Permission;
use std::time::Duration;

/// Interval between two checks of a wait: short against any outage budget, long
/// against the queries themselves.
const POLL_INTERVAL: Duration = Duration::from_millis(250);

fn required_permissions(resource: &str) -> Vec<Permission> {
    vec![Permission::Oracle(resource.to_owned())]
}
