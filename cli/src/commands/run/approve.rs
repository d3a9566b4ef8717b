//! `lockstep run approve`: opens one gate, for exactly the plan that the operator read.

use crate::commands::run::verbs::Target;
use crate::coordinator::{Coordinator, Verb};
use crate::failure::{DIGEST, Failure};
use crate::output::Format;
use crate::plan_file::PlanFile;
use crate::view::short;
use lockstep_api::Exit;
use std::path::PathBuf;

/// Fewest digits that identify a digest: the 12 that every view shows.
const FEWEST_DIGITS: usize = 12;

/// Approves a phase.
#[derive(Debug, clap::Args)]
pub struct Approve {
    #[command(flatten)]
    target: Target,
    /// The phase whose gate is opened.
    #[arg(long)]
    phase: String,
    #[command(flatten)]
    approved: Approved,
    /// Reason, recorded in the journal.
    #[arg(long)]
    reason: Option<String>,
}

/// The plan that is approved, by its digest or as a file.
#[derive(Debug, clap::Args)]
#[group(required = true, multiple = false)]
struct Approved {
    /// Digest of the plan that is approved; at least its first 12 digits.
    #[arg(long)]
    digest: Option<String>,
    /// File of the plan that is approved; its digest must be that of the run's plan.
    #[arg(long, value_name = "FILE")]
    plan: Option<PathBuf>,
}

impl Approve {
    pub async fn execute(
        mut self,
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
            digest: run.digest.clone(),
        };
        self.target.apply_to(run);
        self.target
            .send(coordinator, verb, self.reason, format)
            .await
    }
}

/// Checks that the approval is for the plan of the run.
///
/// # Errors
/// It is for another plan, or the digest is too short to tell.
fn check(approved: &str, digest_of_run: &str) -> Result<(), Failure> {
    let approved = approved.to_ascii_lowercase();
    if approved.len() < FEWEST_DIGITS {
        let what = format!("{approved:?} is too short for a digest");
        return Err(Failure::refused(DIGEST, what).remedy(format!(
            "give at least {FEWEST_DIGITS} digits, as lockstep plan check prints them"
        )));
    }
    if !digest_of_run.starts_with(&approved) {
        let what = format!(
            "the plan of the run has the digest {}, but {} was approved",
            short(digest_of_run),
            short(&approved)
        );
        return Err(Failure::refused(DIGEST, what)
            .remedy("read the plan of the run before approving it; nothing was sent"));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_plan_of_the_run_can_be_approved() {
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
