//! `lockstep run list`.

use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view;
use lockstep_api::Exit;

/// Lists runs.
#[derive(Debug, clap::Args)]
pub struct List {
    /// Maximum number of runs.
    #[arg(long, default_value_t = 50)]
    limit: u32,
}

impl List {
    pub async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        let runs = coordinator.runs(self.limit).await?;
        match format {
            Format::Table => output::text(&view::run::list(&runs))?,
            Format::Json | Format::Jsonl => output::values(format, &runs)?,
        }
        Ok(Exit::Done)
    }
}
