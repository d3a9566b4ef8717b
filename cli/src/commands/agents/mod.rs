//! `lockstep agents`: the agents that the coordinator knows.

mod accept;
mod list;
mod show;

use crate::config::Connection;
use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::Format;
use clap::Subcommand;
use lockstep_api::{AgentStatus, Exit};

/// Commands about agents.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// List all agents that the coordinator knows.
    List,
    /// Show one agent.
    Show(show::Show),
    /// End an agent's quarantine.
    Accept(accept::Accept),
}

impl Command {
    /// Runs the command.
    ///
    /// # Errors
    /// The coordinator is unreachable, refuses the request, or doesn't know the agent.
    pub async fn execute(self, connection: &Connection, format: Format) -> Result<Exit, Failure> {
        let coordinator = Coordinator::connect(connection).await?;
        match self {
            Self::List => list::execute(&coordinator, format).await,
            Self::Show(command) => command.execute(&coordinator, format).await,
            Self::Accept(command) => command.execute(&coordinator, format).await,
        }
    }
}

/// Labels as `key=value`, separated by blanks.
fn labels(agent: &AgentStatus) -> String {
    let labels: Vec<_> = agent
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(" ")
}
