//! `lockstep plan check`.

use crate::failure::{Failure, PLAN};
use crate::output::{self, Format, table, table_text};
use crate::plan_file::PlanFile;
use crate::view::duration;
use lockstep_api::Exit;
use lockstep_plan::budget::{WorstCases, worst_cases};
use serde_json::json;

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
            let outage = checked.plan.as_ref().and_then(worst_cases);
            let found = json!({
                "valid": valid, "digest": digest, "problems": problems.json(), "outage": outage,
            });
            output::value(format, &found)?;
            return Ok(if valid { Exit::Done } else { Exit::Refused });
        }
        let report = problems.render(output::colours());
        let Some(plan) = checked.plan else {
            return Err(Failure::refused(PLAN, "the plan can't be run").report(report, json!(null)));
        };
        output::report(&report);
        output::text(&format!(
            "{} ({}) can be run: {} phases forward, {} back\ndigest {}\n",
            plan.name,
            plan.kind,
            plan.phases.len(),
            plan.rollback.len(),
            plan.digest(),
        ))?;
        if let Some(worst) = worst_cases(&plan) {
            output::text(&worst_case_table(&worst))?;
        }
        Ok(Exit::Done)
    }
}

/// What each phase of the outage may take, and when a rollback would begin.
fn worst_case_table(worst: &WorstCases) -> String {
    let mut table = table(&["OUTAGE", "AT MOST", "DELAYS A ROLLBACK BY"]);
    for phase in &worst.phases {
        let delay = match phase.delays_rollback_ms {
            0 => "–".to_owned(),
            ms => duration(ms),
        };
        table.add_row([phase.name.clone(), duration(phase.worst_ms), delay]);
    }
    format!(
        "\n{}\nbudget {}, of which {} for the rollback: decided after {} at the latest\n\
         if every limit were used up: {} forward, {} for the rollback\n",
        table_text(&table),
        duration(worst.budget_ms),
        duration(worst.rollback_reserve_ms),
        duration(worst.decides_ms()),
        duration(worst.forward_ms),
        duration(worst.rollback_ms),
    )
}
