//! What the agent and the coordinator share as processes: the configuration
//! file, the store over the journal, signals, deadlines and the exit status.
//!
//! Each daemon describes itself in one [`Daemon`] constant. Error texts are the
//! same for both; the codes that they carry are the daemon's own.

mod config;
mod deadline;
mod pattern;
mod process;
mod store;

pub use config::ConfigFileError;
pub use deadline::sleep_until;
use lockstep_pki::Role;
pub use pattern::matches_pattern;
pub use process::{IdentityError, exit, shutdown_requested};
use std::fmt;
pub use store::{Store, StoreError};

/// A daemon as its configuration, its journal and its errors name it.
#[derive(Debug)]
pub struct Daemon {
    pub role: Role,
    pub codes: Codes,
}

/// Error codes; `docs/errors/` has a page for each.
#[derive(Debug)]
pub struct Codes {
    pub config_unreadable: &'static str,
    pub config_invalid: &'static str,
    pub certificate_of_another: &'static str,
    pub journal_failed: &'static str,
    pub record_unreadable: &'static str,
    pub state_directory: &'static str,
    pub unknown_format: &'static str,
}

impl Daemon {
    /// `agent` or `coordinator`.
    pub fn name(&self) -> &'static str {
        self.role.as_str()
    }
}

impl fmt::Display for Daemon {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

#[cfg(test)]
pub(crate) const TEST: Daemon = Daemon {
    role: Role::Agent,
    codes: Codes {
        config_unreadable: "C1",
        config_invalid: "C2",
        certificate_of_another: "C3",
        journal_failed: "C4",
        record_unreadable: "C5",
        state_directory: "C6",
        unknown_format: "C7",
    },
};
