//! `lockstep plan check`.

use crate::failure::{Failure, PLAN};
use crate::output::{self, Format};
use crate::plan_file::PlanFile;
use lockstep_api::Exit;
use serde_json::json;
use std::io::{IsTerminal, stderr};

/// Checks a plan.
#[derive(Debug, clap::Args)]
pub struct Check {
    #[command(flatten)]
    file: PlanFile,
}

impl Check {
    pub fn execute(self, format: Format) -> Result<Exit, Failure> {
        let (checked, _) = self.file.check()?;
        let problems = &checked.problems;
        let digest = checked.plan.as_ref().map(|plan| plan.digest().to_string());
        if format != Format::Table {
            let valid = checked.plan.is_some();
            let found = json!({"valid": valid, "digest": digest, "problems": problems.json()});
            output::value(format, &found)?;
            return Ok(if valid { Exit::Done } else { Exit::Refused });
        }
        let report = problems.render(stderr().is_terminal());
        let Some(plan) = checked.plan else {
            return Err(Failure::refused(PLAN, "the plan can't be run").report(report, json!(null)));
        };
        eprint!("{report}");
        output::text(&format!(
            "{} ({}) can be run: {} phases forward, {} back\ndigest {}\n",
            plan.name,
            plan.kind,
            plan.phases.len(),
            plan.rollback.len(),
            plan.digest(),
        ))?;
        Ok(Exit::Done)
    }
}
