//! `lockstep agents accept`.

use crate::coordinator::Coordinator;
use crate::exit::Exit;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::status::Agent;
use lockstep_proto::v1::AcceptAgentRequest;

/// Ends an agent's quarantine.
#[derive(Debug, clap::Args)]
pub struct Accept {
    /// Its name.
    agent: String,
    /// Why it is trusted again; stands in the journal.
    #[arg(long)]
    reason: String,
}

impl Accept {
    pub async fn carry_out(
        self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        let request = AcceptAgentRequest {
            agent: self.agent,
            reason: self.reason,
        };
        let answer = coordinator
            .call(request, async |mut client, request| {
                client.accept_agent(request).await
            })
            .await?;
        let agent = Agent::from(answer.agent.unwrap_or_default());
        match format {
            Format::Table => output::text(&super::show::text(&agent))?,
            Format::Json | Format::Jsonl => output::value(format, &agent)?,
        }
        Ok(Exit::Done)
    }
}
