//! `lockstep agents accept`.

use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::{self, Format};
use lockstep_api::Exit;

/// Ends an agent's quarantine.
#[derive(Debug, clap::Args)]
pub struct Accept {
    /// Name of the agent.
    agent: String,
    /// Why the agent is trusted again; recorded in the journal.
    #[arg(long)]
    reason: String,
}

impl Accept {
    pub async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        let agent = coordinator.accept_agent(self.agent, self.reason).await?;
        match format {
            Format::Table => output::text(&super::show::text(&agent))?,
            Format::Json | Format::Jsonl => output::value(format, &agent)?,
        }
        Ok(Exit::Done)
    }
}
