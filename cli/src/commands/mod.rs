//! The commands, each in its own file.

pub mod agents;
pub mod pki;
pub mod plan;
pub mod preflight;
pub mod run;

use crate::args::{Arguments, Command};
use crate::exit::Exit;
use crate::failure::Failure;

/// Carries out what the command line says.
///
/// # Errors
/// Whatever the command itself reports.
pub async fn carry_out(arguments: Arguments) -> Result<Exit, Failure> {
    let (connection, format) = (&arguments.connection, arguments.output);
    match arguments.command {
        Command::Pki(command) => command.carry_out(format),
        Command::Plan(command) => command.carry_out(format),
        Command::Preflight(command) => command.carry_out(connection, format).await,
        Command::Agents(command) => command.carry_out(connection, format).await,
        Command::Run(command) => command.carry_out(connection, format).await,
    }
}
