//! Code that the agent and the coordinator share: the configuration file, the store
//! over the journal, signals, deadlines and the exit status.
//!
//! Each daemon describes itself in one [`Daemon`] constant. The error messages are the
//! same for both daemons, but each has its own error codes.

mod config;
mod crash_point;
mod deadline;
mod pattern;
mod process;
mod store;

pub use config::ConfigFileError;
pub use crash_point::CrashPoint;
pub use deadline::sleep_until;
use lockstep_api::Code;
use lockstep_pki::Role;
pub use pattern::matches_pattern;
pub use process::{IdentityError, exit, raise_file_limit, shutdown_requested};
use std::fmt;
pub use store::{Store, StoreError};

/// Properties in which the two daemons differ.
#[derive(Debug)]
pub struct Daemon {
    pub role: Role,
    pub codes: Codes,
}

/// A daemon's codes for the errors that both daemons can report.
#[derive(Debug)]
pub struct Codes {
    pub config_unreadable: Code,
    pub config_invalid: Code,
    pub certificate_of_another: Code,
    pub journal_failed: Code,
    pub record_unreadable: Code,
    pub state_directory: Code,
    pub unknown_format: Code,
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
        config_unreadable: Code::LS3001,
        config_invalid: Code::LS3002,
        certificate_of_another: Code::LS3004,
        journal_failed: Code::LS3101,
        record_unreadable: Code::LS3102,
        state_directory: Code::LS3103,
        unknown_format: Code::LS3105,
    },
};
