//! `lockstep run show`.

use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view;
use lockstep_api::Exit;

/// Shows the status of a run.
#[derive(Debug, clap::Args)]
pub struct Show {
    /// Id of the run.
    #[arg(default_value = super::LATEST)]
    run: String,
}

impl Show {
    pub async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        let run = coordinator.run(&self.run).await?;
        match format {
            Format::Table => output::text(&view::run::show(&run))?,
            Format::Json | Format::Jsonl => output::value(format, &run)?,
        }
        Ok(Exit::Done)
    }
}
