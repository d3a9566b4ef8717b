//! What a run waits for at the moment: open tasks with their times, deadlines and last
//! lines. It changes without journal entries.

use crate::view::duration;
use crate::view::run::outage;
use jiff::Timestamp;
use lockstep_api::{PhaseOutcome, PhaseStatus, RunOutcome, RunStatus, TaskOutcome, TaskStatus};

/// Largest number of lines, so that a large fleet doesn't fill the log.
const MAX_LINES: usize = 10;

/// The run without what changes by itself: two equal values differ in nothing that is
/// worth a line.
pub fn steady(run: &RunStatus) -> RunStatus {
    let mut run = run.clone();
    run.write_outage_ms = 0;
    for task in run.phases.iter_mut().flat_map(|phase| &mut phase.tasks) {
        task.progress = String::new();
        task.disconnected_since = None;
        if task.outcome == TaskOutcome::Open {
            task.started_at = None;
        }
    }
    run
}

/// The open tasks of the current phase.
pub fn open(run: &RunStatus) -> impl Iterator<Item = (&PhaseStatus, &TaskStatus)> {
    let executing = |phase: &&PhaseStatus| phase.outcome == PhaseOutcome::Executing;
    let phases = run.phases.iter().filter(executing);
    phases.flat_map(|phase| {
        let open = |task: &&TaskStatus| task.outcome == TaskOutcome::Open;
        phase
            .tasks
            .iter()
            .filter(open)
            .map(move |task| (phase, task))
    })
}

/// Lines about a run that has not changed for a while.
pub fn lines(run: &RunStatus, now: Timestamp) -> Vec<String> {
    if run.outcome.is_final() {
        return Vec::new();
    }
    let mut lines: Vec<String> = open(run)
        .map(|(phase, task)| {
            let state = state(phase, task, now);
            format!(
                "still open: {} {} ({}) {state}",
                task.agent, task.step, task.action
            )
        })
        .collect();
    if lines.is_empty() || run.outcome == RunOutcome::Waiting {
        lines = run
            .waits_on
            .iter()
            .map(|what| format!("run still waits for {what}"))
            .collect();
    }
    let hidden = lines.len().saturating_sub(MAX_LINES);
    lines.truncate(MAX_LINES);
    if hidden > 0 {
        lines.push(format!("and {hidden} more"));
    }
    if run.outage_open {
        lines.push(format!("write outage {} so far", outage(run)));
    }
    lines.extend(Some(run.decided.clone()).filter(|decided| !decided.is_empty()));
    lines
}

/// Elapsed time, deadline, connection and last line of an open task.
pub fn state(phase: &PhaseStatus, task: &TaskStatus, now: Timestamp) -> String {
    let mut parts = Vec::new();
    if let Some(since) = task.started_at.or(phase.released_at) {
        parts.push(format!("for {}", duration(between(since, now))));
    }
    if let Some(deadline) = task.deadline_at {
        parts.push(if deadline > now {
            format!("{} left", duration(between(now, deadline)))
        } else {
            format!("overdue by {}", duration(between(deadline, now)))
        });
    }
    if let Some(since) = task.disconnected_since {
        let time = duration(between(since, now));
        parts.push(format!("agent disconnected for {time}"));
    }
    let mut text = parts.join(", ");
    if !task.progress.is_empty() {
        text.push_str(&format!(": {}", task.progress));
    }
    text
}

/// Milliseconds from one time to a later one.
fn between(from: Timestamp, to: Timestamp) -> u64 {
    u64::try_from(to.as_millisecond() - from.as_millisecond()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::timestamp;

    fn run() -> RunStatus {
        RunStatus {
            outage_open: true,
            write_outage_ms: 62_000,
            outage_budget_ms: 600_000,
            waits_on: vec!["drain on db-1".to_owned()],
            phases: vec![PhaseStatus {
                name: "drain".to_owned(),
                outcome: PhaseOutcome::Executing,
                released_at: timestamp(1_000),
                tasks: vec![TaskStatus {
                    agent: "db-1".to_owned(),
                    step: "drain".to_owned(),
                    action: "postgres.marker.await".to_owned(),
                    outcome: TaskOutcome::Open,
                    deadline_at: timestamp(301_000),
                    disconnected_since: timestamp(41_000),
                    progress: "the marker is 12 s behind".to_owned(),
                    ..TaskStatus::default()
                }],
                ..PhaseStatus::default()
            }],
            ..RunStatus::default()
        }
    }

    #[test]
    fn an_open_task_has_its_time_deadline_connection_and_progress() {
        let now = timestamp(61_000).unwrap();
        assert_eq!(
            lines(&run(), now),
            [
                "still open: db-1 drain (postgres.marker.await) for 1 min 00 s, 4 min 00 s left, \
                 agent disconnected for 20.0 s: the marker is 12 s behind",
                "write outage 1 min 02 s of 10 min 00 s so far",
            ]
        );
        let late = timestamp(302_000).unwrap();
        assert!(lines(&run(), late)[0].contains("overdue by 1.0 s"));
    }

    #[test]
    fn without_an_open_task_the_run_says_what_it_waits_for() {
        let mut preparing = run();
        preparing.outage_open = false;
        preparing.phases[0].outcome = PhaseOutcome::Preparing;
        preparing.waits_on = vec!["the vote of app-2, which is not connected".to_owned()];
        let now = timestamp(61_000).unwrap();
        assert_eq!(
            lines(&preparing, now),
            ["run still waits for the vote of app-2, which is not connected"]
        );
    }

    #[test]
    fn progress_alone_is_no_change() {
        let mut next = run();
        next.phases[0].tasks[0].progress = "the marker is 2 s behind".to_owned();
        next.write_outage_ms += 1_000;
        assert_eq!(steady(&run()), steady(&next));
        next.phases[0].tasks[0].outcome = TaskOutcome::Done;
        assert_ne!(steady(&run()), steady(&next));
    }
}
