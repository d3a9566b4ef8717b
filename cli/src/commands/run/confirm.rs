//! Confirmation of the verbs that leave work undone.

use crate::failure::{Failure, UNCONFIRMED};
use crate::output;
use lockstep_api::{PhaseStatus, RunStatus, Track};
use serde_json::json;
use std::io::{self, BufRead, IsTerminal};

/// Option to send a verb without a question.
#[derive(Debug, Clone, Copy, clap::Args)]
pub struct Confirmation {
    /// Don't ask for a confirmation; required without a terminal.
    #[arg(long)]
    pub yes: bool,
}

/// Shows what a verb means and has the plan's name typed.
///
/// # Errors
/// There is no terminal, or something else was typed. Nothing was sent.
pub fn obtain(verb: &str, meaning: &str, run: &RunStatus) -> Result<(), Failure> {
    if !io::stdin().is_terminal() || !io::stderr().is_terminal() {
        let what = format!("`run {verb}` needs a confirmation, and there is no terminal");
        return Err(Failure::refused(UNCONFIRMED, what)
            .report(meaning, json!({"meaning": meaning, "run": run.id}))
            .state("nothing was sent to the coordinator")
            .remedy("repeat the command with --yes if that is intended"));
    }
    output::prompt(&format!(
        "{meaning}Type the name of the plan, {}, to confirm: ",
        run.plan
    ))?;
    typed(verb, &run.plan, &mut io::stdin().lock())
}

fn typed(verb: &str, plan: &str, input: &mut impl BufRead) -> Result<(), Failure> {
    let mut line = String::new();
    let read = input.read_line(&mut line);
    if read.is_ok() && line.trim() == plan {
        return Ok(());
    }
    let what = format!("`run {verb}` was not confirmed: the plan's name is {plan}");
    Err(Failure::refused(UNCONFIRMED, what)
        .state("nothing was sent to the coordinator")
        .remedy("repeat the command and type the name of the plan"))
}

/// What an abort leaves.
pub fn of_abort(run: &RunStatus) -> String {
    let mut text = format!("Aborting run {} of plan {}:\n", run.id, run.plan);
    let left: Vec<String> = run
        .phases
        .iter()
        .filter(|phase| !phase.abort_leaves.is_empty())
        .map(|phase| format!("    {}: {}\n", phase.name, phase.abort_leaves))
        .collect();
    if left.is_empty() {
        text.push_str("  no change of this run is in effect\n");
    } else {
        text.push_str("  these changes stay in effect and are not undone:\n");
        text.push_str(&left.concat());
    }
    text.push_str(
        "  afterwards the run can't be rolled back, retried or continued: what is to be undone \
         has to be undone by hand\n",
    );
    text
}

/// What a skip leaves out.
pub fn of_skip(run: &RunStatus) -> String {
    let Some(phase) = run.current() else {
        return format!("Skipping the held phase of run {}\n", run.id);
    };
    let mut text = format!(
        "Skipping phase {} of run {} ({}), which is {}:\n",
        phase.name, run.id, run.plan, phase.outcome
    );
    for task in &phase.tasks {
        let line = format!("    {} on {}: {}\n", task.step, task.agent, task.outcome);
        text.push_str(&line);
    }
    text.push_str(match phase.track {
        Track::Forward => {
            "  its tasks stay as they are, and the following phases run without what is missing; \
             the run ends as completed-with-skips at best\n"
        }
        Track::Rollback => {
            "  what this phase has not undone stays in effect and has to be undone by hand\n"
        }
    });
    text
}

/// What a waiver of a task gives up.
pub fn of_waive(run: &RunStatus, agent: &str, step: &str) -> String {
    let has = |phase: &&PhaseStatus| {
        let mut tasks = phase.tasks.iter();
        tasks.any(|task| task.agent == agent && task.step == step)
    };
    let phase = run.phases.iter().find(has);
    let of = phase.map_or_else(String::new, |phase| format!(" in phase {}", phase.name));
    format!(
        "Waiving {step} on {agent}{of} of run {} ({}):\n  the run no longer waits for its outcome, \
         although it may have taken effect or still be running\n  its undo becomes outstanding \
         and has to be done by hand\n",
        run.id, run.plan
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::{PhaseOutcome, TaskOutcome, TaskStatus};

    fn run(track: Track) -> RunStatus {
        RunStatus {
            id: "r-1".to_owned(),
            plan: "shop".to_owned(),
            phases: vec![PhaseStatus {
                name: "stop".to_owned(),
                track,
                outcome: PhaseOutcome::Failed,
                abort_leaves: "the applications stay stopped: web on app-1".to_owned(),
                tasks: vec![TaskStatus {
                    agent: "app-1".to_owned(),
                    step: "web".to_owned(),
                    outcome: TaskOutcome::Failed,
                    ..TaskStatus::default()
                }],
                ..PhaseStatus::default()
            }],
            ..RunStatus::default()
        }
    }

    #[test]
    fn only_the_name_of_the_plan_confirms() {
        assert!(typed("abort", "shop", &mut "shop\n".as_bytes()).is_ok());
        for other in ["", "\n", "y\n", "yes\n", "shop-2\n", "r-1\n"] {
            let failure = typed("abort", "shop", &mut other.as_bytes()).unwrap_err();
            assert!(failure.text().contains("LS5015"), "{other:?}");
        }
    }

    #[test]
    fn an_abort_says_what_it_leaves_and_forecloses() {
        let text = of_abort(&run(Track::Forward));
        assert!(text.contains("    stop: the applications stay stopped: web on app-1\n"));
        assert!(text.contains("can't be rolled back"), "{text}");
        let nothing = of_abort(&RunStatus::default());
        assert!(nothing.contains("no change of this run"), "{nothing}");
    }

    #[test]
    fn a_skip_and_a_waiver_name_their_phase_and_what_they_leave() {
        let forward = of_skip(&run(Track::Forward));
        assert!(forward.contains("phase stop"), "{forward}");
        assert!(forward.contains("web on app-1: failed"), "{forward}");
        assert!(forward.contains("completed-with-skips"), "{forward}");
        assert!(of_skip(&run(Track::Rollback)).contains("undone by hand"));
        let waived = of_waive(&run(Track::Forward), "app-1", "web");
        assert!(waived.contains("web on app-1 in phase stop"), "{waived}");
    }
}
