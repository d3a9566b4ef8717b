//! The commands, each in its own file.

pub mod agents;
pub mod explain;
pub mod pki;
pub mod plan;
pub mod preflight;
pub mod run;

use crate::args::{Arguments, Command, Connected};
use crate::failure::Failure;
use lockstep_api::Exit;

/// Runs the command of the command line.
///
/// # Errors
/// Whatever the command itself reports.
pub async fn carry_out(arguments: Arguments) -> Result<Exit, Failure> {
    let format = arguments.output;
    match arguments.command {
        Command::Pki(command) => command.carry_out(format),
        Command::Plan(command) => command.carry_out(format),
        Command::Explain(command) => command.carry_out(format),
        Command::Preflight(command) => command.carry_out(format).await,
        Command::Agents(Connected {
            connection,
            command,
        }) => command.carry_out(&connection, format).await,
        Command::Run(Connected {
            connection,
            command,
        }) => command.carry_out(&connection, format).await,
    }
}
