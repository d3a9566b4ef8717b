//! The record of a run: every change that its tasks made to their hosts, read
//! from the run's journal.

use super::moment_ms;
use jiff::Timestamp;
use lockstep_api::{RunEvent, timestamp};
use serde::{Deserialize, Serialize};
use std::fmt::Write as _;

/// What one attempt of a task has changed on its host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TaskChanges {
    pub agent: String,
    pub step: String,
    pub attempt: u32,
    pub made: Vec<Change>,
    /// Changes that the journal only counts.
    pub omitted: u64,
}

/// A change of a host.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Change {
    /// By the clock of the agent's host.
    pub at: Option<Timestamp>,
    pub what: String,
}

/// The journal's `task-ended` and `contradicted` records, as far as they are needed.
#[derive(Deserialize)]
struct Ended {
    agent: String,
    report: Report,
}

#[derive(Deserialize)]
struct Report {
    step: String,
    attempt: u32,
    #[serde(default)]
    changes: Recorded,
}

#[derive(Default, Deserialize)]
struct Recorded {
    made: Vec<RecordedChange>,
    #[serde(default)]
    omitted: u64,
}

#[derive(Deserialize)]
struct RecordedChange {
    at: u64,
    what: String,
}

/// The changes that a journal entry reports, if it reports any.
fn reported(event: &RunEvent) -> Option<TaskChanges> {
    let Ended { agent, report } = Ended::deserialize(&event.record).ok()?;
    let made: Vec<Change> = report
        .changes
        .made
        .into_iter()
        .map(|change| Change {
            at: timestamp(change.at),
            what: change.what,
        })
        .collect();
    let omitted = report.changes.omitted;
    (!made.is_empty() || omitted > 0).then_some(TaskChanges {
        agent,
        step: report.step,
        attempt: report.attempt,
        made,
        omitted,
    })
}

/// The changes of a run, in the order in which the tasks ended.
pub fn changes(events: &[RunEvent]) -> Vec<TaskChanges> {
    events.iter().filter_map(reported).collect()
}

/// The lines under a journal entry that reports changes; empty for others.
pub fn lines_of(event: &RunEvent) -> String {
    reported(event).map_or_else(String::new, |task| lines(&task, "       "))
}

fn lines(task: &TaskChanges, indent: &str) -> String {
    let mut text = String::new();
    for change in &task.made {
        let at = moment_ms(change.at);
        let _ = writeln!(text, "{indent}{at}  {}", change.what);
    }
    if task.omitted > 0 {
        let _ = writeln!(
            text,
            "{indent}and {} more changes, which were only counted",
            task.omitted
        );
    }
    text
}

/// A section for each task that changed its host.
pub fn section(changes: &[TaskChanges]) -> String {
    if changes.is_empty() {
        return "\nNo task has reported a change of its host.\n".to_owned();
    }
    let mut text = "\nChanges of the hosts:\n".to_owned();
    for task in changes {
        let again = match task.attempt {
            0 | 1 => String::new(),
            attempt => format!(", attempt {attempt}"),
        };
        let _ = writeln!(text, "  {} on {}{again}", task.step, task.agent);
        text.push_str(&lines(task, "    "));
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::{Value, json};

    fn event(record: Value) -> RunEvent {
        RunEvent {
            sequence: 7,
            at: None,
            kind: "task-ended".to_owned(),
            summary: String::new(),
            record,
            hash: String::new(),
        }
    }

    #[test]
    fn the_changes_of_a_task_are_listed_with_their_times() {
        let made = json!([{"at": 1_000, "what": "killed session 42,7 of SHOP"}]);
        let report = json!({
            "step": "sessions", "attempt": 2, "outcome": {"outcome": "done"},
            "changes": {"made": made, "omitted": 3},
        });
        let ended = event(json!({"record": "task-ended", "agent": "ora-1", "report": report}));
        let silent = event(json!({"record": "completed", "phase": {"track": "forward"}}));
        let changes = changes(&[silent.clone(), ended.clone()]);
        let text = section(&changes);
        assert!(text.contains("sessions on ora-1, attempt 2\n"), "{text}");
        assert!(text.contains("killed session 42,7 of SHOP\n"), "{text}");
        assert!(text.contains("and 3 more changes"), "{text}");
        assert!(lines_of(&ended).contains("killed session"));
        assert_eq!(lines_of(&silent), "");
    }

    #[test]
    fn a_run_without_changes_says_so() {
        assert!(section(&changes(&[])).contains("No task has reported"));
    }
}
