//! `lockstep pki`: a private certificate authority in a directory.

mod init;
mod issue;
mod revoke;

use crate::failure::{AUTHORITY, Failure};
use crate::output::Format;
use clap::Subcommand;
use lockstep_api::Exit;
use lockstep_pki::AuthorityError;

/// Commands about certificates.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// Create an authority for a trust domain.
    Init(init::Init),
    /// Create a certificate and key for an agent, a coordinator or an operator.
    Issue(issue::Issue),
    /// Revoke a certificate by adding it to the revocation list.
    Revoke(revoke::Revoke),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// The authority can't be created, opened or changed.
    pub fn execute(self, format: Format) -> Result<Exit, Failure> {
        match self {
            Self::Init(command) => command.execute(format),
            Self::Issue(command) => command.execute(format),
            Self::Revoke(command) => command.execute(format),
        }
    }
}

fn failure(error: &AuthorityError) -> Failure {
    Failure::of(AUTHORITY, Exit::Refused, error)
}
