//! `lockstep run start`.

use crate::commands::run::watch::{WatchOptions, follow};
use crate::config::Connection;
use crate::coordinator::Coordinator;
use crate::failure::Failure;
use crate::output::{self, Format};
use crate::plan_file::PlanFile;
use lockstep_api::Exit;
use serde_json::json;

/// Starts a run.
#[derive(Debug, clap::Args)]
pub struct Start {
    #[command(flatten)]
    file: PlanFile,
    /// Watch the run and exit with its exit code.
    #[arg(long)]
    watch: bool,
    #[command(flatten)]
    options: WatchOptions,
}

impl Start {
    pub async fn execute(self, connection: &Connection, format: Format) -> Result<Exit, Failure> {
        let plan = self.file.load()?;
        let digest = plan.plan.digest().to_string();
        let coordinator = Coordinator::connect(connection).await?;
        let run = coordinator.start(plan).await?;
        if self.watch {
            return follow(&coordinator, &run, &self.options, format).await;
        }
        match format {
            Format::Table => output::text(&format!("{run}\n"))?,
            Format::Json | Format::Jsonl => {
                output::value(format, &json!({"id": run, "digest": digest}))?;
            }
        }
        Ok(Exit::Done)
    }
}
