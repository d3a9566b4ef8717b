//! `lockstep run approve`: opens one gate of exactly the plan that was read.

use crate::commands::run::verbs::Target;
use crate::coordinator::{Coordinator, Verb};
use crate::failure::{DIGEST, Failure};
use crate::output::Format;
use crate::plan_file::PlanFile;
use crate::view::short;
use lockstep_api::Exit;
use std::path::PathBuf;

/// Fewest digits of a digest that are taken for the whole: the 12 that every
/// view shows.
const FEWEST_DIGITS: usize = 12;

/// Approves.
#[derive(Debug, clap::Args)]
pub struct Approve {
    #[command(flatten)]
    target: Target,
    /// The phase whose gate is opened.
    #[arg(long)]
    phase: String,
    #[command(flatten)]
    approved: Approved,
    /// Why; recorded in the journal.
    #[arg(long)]
    reason: Option<String>,
}

/// What is approved: a digest that was read, or a file.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Approved {
    /// Digest of the plan that is approved, or its first 12 digits or more.
    #[arg(long)]
    digest: Option<String>,
    /// The plan file that is approved; the run must be of this very plan.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

impl Approve {
    pub async fn carry_out(
        self,
        coordinator: &Coordinator,
        format: Format,
    ) -> Result<Exit, Failure> {
        let approved = match (self.approved.digest, self.approved.plan) {
            (Some(digest), _) => digest,
            (None, Some(path)) => PlanFile::at(path).load()?.plan.digest().to_string(),
            (None, None) => String::new(),
        };
        let run = coordinator.run(&self.target.run).await?;
        check(&approved, &run.digest)?;
        let verb = Verb::Approve {
            phase: self.phase,
            digest: run.digest,
        };
        self.target
            .send(coordinator, verb, self.reason, format)
            .await
    }
}

/// Whether the approval is for the run's own plan.
fn check(approved: &str, of_run: &str) -> Result<(), Failure> {
    let approved = approved.to_ascii_lowercase();
    if approved.len() < FEWEST_DIGITS {
        let what = format!("{approved:?} is too short for a digest");
        return Err(Failure::refused(DIGEST, what).remedy(format!(
            "give at least {FEWEST_DIGITS} digits, as lockstep plan check prints them"
        )));
    }
    if !of_run.starts_with(&approved) {
        let what = format!(
            "the run is of the plan with digest {}, and {} was approved",
            short(of_run),
            short(&approved)
        );
        return Err(Failure::refused(DIGEST, what)
            .remedy("read the run's own plan before approving it; nothing was sent"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_runs_own_plan_can_be_approved() {
        let digest = "0123456789abcdef".repeat(4);
        for good in [digest.as_str(), "0123456789ab", "0123456789ABCDEF"] {
            check(good, &digest).unwrap();
        }
        for bad in ["", "0123456789a", "1123456789abcdef", &format!("{digest}0")] {
            assert_eq!(
                check(bad, &digest).unwrap_err().exit(),
                Exit::Refused,
                "{bad}"
            );
        }
    }
}
