//! `lockstep run events`.

use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::view;
use lockstep_api::Exit;

/// Prints a run's journal.
#[derive(Debug, clap::Args)]
pub struct Events {
    /// Id of the run.
    #[arg(default_value = super::LATEST)]
    run: String,
    /// Print only entries after this sequence number.
    #[arg(long, default_value_t = 0, value_name = "SEQUENCE")]
    after: u64,
}

impl Events {
    pub async fn execute(self, coordinator: &Coordinator, format: Format) -> Result<Exit, Failure> {
        let events = coordinator.events(&self.run, self.after).await?;
        match format {
            Format::Table => output::text(&view::run::events(&events))?,
            Format::Json | Format::Jsonl => output::values(format, &events)?,
        }
        Ok(Exit::Done)
    }
}
