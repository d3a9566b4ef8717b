//! `lockstep plan`: checks and shows plans, without a connection.

mod check;
mod show;

use crate::failure::Failure;
use crate::output::{self, Format};
use clap::Subcommand;
use lockstep_api::Exit;

/// Commands about plans.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Check a plan; report all problems with their locations.
    Check(check::Check),
    /// Show what a plan expands to.
    Show(show::Show),
    /// Print the JSON Schema of plan files.
    Schema,
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// The file can't be read, or the plan has problems.
    pub fn execute(self, format: Format) -> Result<Exit, Failure> {
        match self {
            Self::Check(command) => command.execute(format),
            Self::Show(command) => command.execute(format),
            Self::Schema => {
                output::value(format, &lockstep_plan::schema())?;
                Ok(Exit::Done)
            }
        }
    }
}
