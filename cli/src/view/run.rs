//! A run and lists of runs, as text.

use crate::output::{table, table_text};
use crate::view::{duration, moment, moment_ms, record, short};
use lockstep_api::{PhaseStatus, RunEvent, RunStatus, TaskOutcome, TaskStatus, Track};
use std::fmt::Write;

/// One line for each run.
pub fn list(runs: &[RunStatus]) -> String {
    let mut table = table(&["RUN", "PLAN", "OUTCOME", "STARTED", "ENDED", "BY"]);
    for run in runs {
        table.add_row([
            run.id.clone(),
            run.plan.clone(),
            run.outcome.to_string(),
            moment(run.started_at),
            moment(run.ended_at),
            run.started_by.clone(),
        ]);
    }
    table_text(&table)
}

/// All details of one run.
pub fn show(run: &RunStatus) -> String {
    let mut text = head(run);
    text.push('\n');
    text.push_str(&phases(&run.phases));
    let unsettled: Vec<_> = run
        .phases
        .iter()
        .flat_map(|phase| phase.tasks.iter().map(move |task| (phase, task)))
        .filter(|(_, task)| task.outcome.is_bad() || task.outcome == TaskOutcome::Open)
        .collect();
    if !unsettled.is_empty() {
        text.push_str("\nTasks that are open or went wrong:\n");
        for (phase, task) in unsettled {
            // Writing to a String can't fail.
            let times = task_times(task);
            let _ = writeln!(text, "  {}: {}{times}", phase.name, task_line(task));
        }
    }
    text.push_str(&section("Waiting for", &run.waits_on));
    text.push_str(&section("Still changed", &run.still_changed));
    text.push_str(&section("Undo outstanding", &run.outstanding_undo));
    text
}

/// Properties and status of a run, without its phases.
pub fn head(run: &RunStatus) -> String {
    let mut text = String::new();
    let mut line = |name: &str, value: &str| {
        if !value.is_empty() {
            let _ = writeln!(text, "{name:<10}{value}");
        }
    };
    line("run", &run.id);
    line(
        "plan",
        &format!("{} ({}), digest {}", run.plan, run.kind, short(&run.digest)),
    );
    line("outcome", run.outcome.as_str());
    line("reason", &run.reason);
    line(
        "started",
        &format!("{} by {}", moment(run.started_at), run.started_by),
    );
    if run.ended_at.is_some() {
        line("ended", &moment(run.ended_at));
    }
    line("outage", &outage(run));
    line("trace", &run.trace_id);
    text
}

/// The write outage and its budget; empty without an outage.
pub fn outage(run: &RunStatus) -> String {
    match (run.write_outage_ms, run.outage_budget_ms) {
        (0, _) => String::new(),
        (ms, 0) => duration(ms),
        (ms, budget) => format!("{} of {}", duration(ms), duration(budget)),
    }
}

/// A task in one line.
pub fn task_line(task: &TaskStatus) -> String {
    let mut line = format!("{} {} ({})", task.agent, task.step, task.action);
    if let Some(step) = &task.undo_of {
        let _ = write!(line, " undoing {step}");
    }
    let _ = write!(line, " {}", task.outcome);
    if task.took_ms > 0 && matches!(task.outcome, TaskOutcome::Done | TaskOutcome::Failed) {
        let _ = write!(line, " after {}", duration(task.took_ms));
    }
    if !task.detail.is_empty() {
        let _ = write!(line, ": {}", task.detail);
    }
    line
}

/// Start and end of a task, in parentheses; empty if neither is known.
fn task_times(task: &TaskStatus) -> String {
    match (task.started_at, task.ended_at) {
        (None, None) => String::new(),
        (Some(_), None) => format!(" (since {})", moment(task.started_at)),
        (None, Some(_)) => format!(" (ended {})", moment(task.ended_at)),
        (Some(_), Some(_)) => format!(
            " ({} to {})",
            moment(task.started_at),
            moment(task.ended_at)
        ),
    }
}

/// One line for each journal entry, and one for each change that it reports.
pub fn events(events: &[RunEvent]) -> String {
    let mut text = String::new();
    for event in events {
        let at = moment_ms(event.at);
        let _ = writeln!(
            text,
            "{:>5}  {at}  {:<22} {}",
            event.sequence, event.kind, event.summary
        );
        text.push_str(&record::lines_of(event));
    }
    text
}

fn phases(phases: &[PhaseStatus]) -> String {
    let mut table = table(&["PHASE", "STEPS", "OUTCOME", "TASKS", "TOOK", "BARRIER"]);
    for phase in phases {
        let finished = phase
            .tasks
            .iter()
            .filter(|task| {
                matches!(
                    task.outcome,
                    TaskOutcome::Done | TaskOutcome::Unchanged | TaskOutcome::Armed
                )
            })
            .count();
        let back = match phase.track {
            Track::Rollback => "↩ ",
            Track::Forward => "",
        };
        table.add_row([
            format!("{back}{}", phase.name),
            phase.runbook_steps.join(", "),
            phase.outcome.to_string(),
            format!("{finished}/{}", phase.tasks.len()),
            phase
                .completed_at
                .map(|_| duration(phase.took_ms))
                .unwrap_or_default(),
            phase
                .completed_at
                .map(|_| duration(phase.barrier_ms))
                .unwrap_or_default(),
        ]);
    }
    table_text(&table)
}

fn section(title: &str, lines: &[String]) -> String {
    if lines.is_empty() {
        return String::new();
    }
    let lines: String = lines.iter().map(|line| format!("  {line}\n")).collect();
    format!("\n{title}:\n{lines}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::{PhaseOutcome, RunOutcome};

    #[test]
    fn a_failed_task_is_shown_with_its_reason() {
        let task = TaskStatus {
            agent: "app-1".to_owned(),
            step: "stop-web".to_owned(),
            action: "service.stop".to_owned(),
            outcome: TaskOutcome::Failed,
            detail: "shop.service is still active".to_owned(),
            ..TaskStatus::default()
        };
        let run = RunStatus {
            id: "0198".to_owned(),
            plan: "shop".to_owned(),
            kind: "Plan".to_owned(),
            digest: "abcdef0123456789".to_owned(),
            outcome: RunOutcome::Waiting,
            reason: "phase stop failed".to_owned(),
            waits_on: vec!["an operator: retry, skip, roll back or abort".to_owned()],
            write_outage_ms: 1_500,
            outage_budget_ms: 60_000,
            phases: vec![PhaseStatus {
                name: "stop".to_owned(),
                outcome: PhaseOutcome::Failed,
                tasks: vec![task],
                ..PhaseStatus::default()
            }],
            ..RunStatus::default()
        };
        let text = show(&run);
        for expected in [
            "plan      shop (Plan), digest abcdef012345\n",
            "outcome   waiting\n",
            "outage    1.5 s of 1 min 00 s\n",
            "  stop: app-1 stop-web (service.stop) failed: shop.service is still active\n",
            "Waiting for:\n  an operator: retry, skip, roll back or abort\n",
        ] {
            assert!(
                text.contains(expected),
                "{expected:?} is missing in\n{text}"
            );
        }
        assert!(!text.contains("Still changed"));
    }
}
