//! `lockstep agents show`.

use crate::coordinator::Coordinator;
use crate::failure::{Failure, NOT_FOUND};
use crate::output::{self, Format};
use crate::view::moment;
use lockstep_api::{AgentStatus, Exit};
use std::fmt::Write;

/// Shows one agent.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Name of the agent.
    agent: String,
}

impl Show {
    pub async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        let agents = coordinator.agents().await?;
        let Some(agent) = agents.iter().find(|agent| agent.name == self.agent) else {
            let what = format!("the coordinator knows no agent {:?}", self.agent);
            return Err(Failure::refused(NOT_FOUND, what).remedy(
                "lockstep agents list shows all; an agent is known once it has connected",
            ));
        };
        match format {
            Format::Table => output::text(&text(agent))?,
            Format::Json | Format::Jsonl => output::value(format, agent)?,
        }
        Ok(Exit::Done)
    }
}

/// All details of one agent, as text.
pub fn text(agent: &AgentStatus) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            // Writing to a String can't fail.
            let _ = writeln!(text, "{name:<12}{value}");
        }
    };
    line("agent", &agent.name);
    line("state", agent.state());
    line("reason", agent.quarantine.as_deref().unwrap_or_default());
    line("labels", &super::labels(agent));
    line("version", &agent.version);
    line("address", &agent.address);
    line("last seen", &moment(agent.last_seen));
    line("run", agent.run.as_deref().unwrap_or_default());
    line("journal", &agent.journal_id);
    line("may do", &agent.allowed_actions.join(" "));
    text
}
