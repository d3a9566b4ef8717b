//! `lockstep agents`: who is there, and what each may do.

mod accept;
mod list;
mod show;

use crate::config::Connection;
use crate::coordinator::Coordinator;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::Format;
use crate::status::Agent;
use clap::Subcommand;
use lockstep_proto::v1::ListAgentsRequest;

/// What to do about agents.
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
    /// Carries out the command.
    ///
    /// # Errors
    /// The coordinator can't be asked, or knows no such agent.
    pub async fn carry_out(self, connection: &Connection, format: Format) -> Result<Exit, Failure> {
        let coordinator = Coordinator::connect(connection).await?;
        match self {
            Self::List => list::carry_out(&coordinator, format).await,
            Self::Show(command) => command.carry_out(&coordinator, format).await,
            Self::Accept(command) => command.carry_out(&coordinator, format).await,
        }
    }
}

async fn all(coordinator: &Coordinator) -> Result<Vec<Agent>, Failure> {
    let answer = coordinator
        .call(ListAgentsRequest {}, async |mut client, request| {
            client.list_agents(request).await
        })
        .await?;
    Ok(answer.agents.into_iter().map(Agent::from).collect())
}

/// Labels as they are written in plans.
fn labels(agent: &Agent) -> String {
    let labels: Vec<_> = agent
        .labels
        .iter()
        .map(|(key, value)| format!("{key}={value}"))
        .collect();
    labels.join(" ")
}
