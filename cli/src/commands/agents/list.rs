//! `lockstep agents list`.

use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view::moment;
use lockstep_api::{AgentStatus, Exit};

pub async fn execute(coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
    let agents = coordinator.agents().await?;
    match format {
        Format::Table => output::text(&text(&agents))?,
        Format::Json | Format::Jsonl => output::values(format, &agents)?,
    }
    Ok(Exit::Done)
}

fn text(agents: &[AgentStatus]) -> String {
    let mut table = output::table(&["AGENT", "STATE", "LABELS", "VERSION", "LAST SEEN", "RUN"]);
    for agent in agents {
        table.add_row([
            agent.name.clone(),
            agent.state().to_owned(),
            super::labels(agent),
            agent.version.clone(),
            moment(agent.last_seen),
            agent.run.clone().unwrap_or_default(),
        ]);
    }
    output::table_text(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_agent_is_one_line() {
        let agent = AgentStatus {
            name: "db-1".to_owned(),
            connected: true,
            labels: [("role".to_owned(), "oracle".to_owned())].into(),
            version: "0.1.0".to_owned(),
            ..AgentStatus::default()
        };
        let disconnected = AgentStatus {
            name: "db-2".to_owned(),
            ..AgentStatus::default()
        };
        let text = text(&[agent, disconnected]);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split_whitespace().collect())
            .collect();
        assert_eq!(lines[1], ["db-1", "connected", "role=oracle", "0.1.0", "–"]);
        assert_eq!(lines[2], ["db-2", "disconnected", "–"]);
    }
}
