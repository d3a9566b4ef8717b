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

/// Runs the command that the arguments name.
///
/// # Errors
/// The command's own failure.
pub async fn execute(arguments: Arguments) -> Result<Exit, Failure> {
    let format = arguments.output;
    match arguments.command {
        Command::Pki(command) => command.execute(format),
        Command::Plan(command) => command.execute(format),
        Command::Explain(command) => command.execute(format),
        Command::Preflight(command) => command.execute(format).await,
        Command::Agents(Connected {
            connection,
            command,
        }) => command.execute(&connection, format).await,
        Command::Run(Connected {
            connection,
            command,
        }) => command.execute(&connection, format).await,
    }
}
