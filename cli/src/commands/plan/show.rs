//! `lockstep plan show`.

use crate::failure::Failure;
use crate::output::{self, Format};
use crate::plan_file::PlanFile;
use lockstep_api::Exit;
use lockstep_plan::{Phase, render};

/// Shows what a plan expands to.
#[derive(Debug, clap::Args)]
pub struct Show {
    #[command(flatten)]
    file: PlanFile,
    /// Show the rollback instead of the forward phases.
    #[arg(long)]
    rollback: bool,
}

impl Show {
    pub fn execute(self, format: Format) -> Result<Exit, Failure> {
        let plan = self.file.load()?.plan;
        match (format, self.rollback) {
            (Format::Table, false) => output::text(&render::forward(&plan))?,
            (Format::Table, true) => output::text(&render::rollback(&plan))?,
            // The document is the whole plan, as it is digested.
            (Format::Json, false) => output::value(format, &plan)?,
            (Format::Json, true) => output::value(format, &plan.rollback)?,
            (Format::Jsonl, rollback) => {
                let phases: &[Phase] = if rollback {
                    &plan.rollback
                } else {
                    &plan.phases
                };
                output::values(format, phases)?;
            }
        }
        Ok(Exit::Done)
    }
}
