//! `lockstep run show`.

use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view;
use crate::view::record::TaskChanges;
use lockstep_api::{Exit, RunStatus};

/// Shows the status of a run.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Id of the run.
    #[arg(default_value = super::LATEST)]
    run: String,
    /// Also list every change that the run made to a host.
    #[arg(long)]
    detail: bool,
}

/// A run with the record of its changes.
#[derive(serde::Serialize)]
struct Detailed {
    #[serde(flatten)]
    run: RunStatus,
    changes: Vec<TaskChanges>,
}

impl Show {
    pub async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        let run = coordinator.run(&self.run).await?;
        if self.detail {
            let changes = view::record::changes(&coordinator.events(&run.id, 0).await?);
            match format {
                Format::Table => {
                    let section = view::record::section(&changes);
                    output::text(&(view::run::show(&run) + &section))?;
                }
                Format::Json | Format::Jsonl => output::value(format, &Detailed { run, changes })?,
            }
            return Ok(Exit::Done);
        }
        match format {
            Format::Table => output::text(&view::run::show(&run))?,
            Format::Json | Format::Jsonl => output::value(format, &run)?,
        }
        Ok(Exit::Done)
    }
}
