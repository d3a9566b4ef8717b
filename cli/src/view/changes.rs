//! Changes between two states of a run, as lines of text, for both the plain and the
//! live view.

use crate::view::run::{outage, task_line};
use crate::view::{duration, short};
use jiff::Timestamp;
use lockstep_api::{
    AgentConnection, LineKind, PhaseOutcome, PhaseStatus, RunOutcome, RunStatus, TaskLine,
    TaskOutcome, TaskStatus, Track,
};

/// A line and the time of its event; none if the status doesn't have the time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Line {
    pub at: Option<Timestamp>,
    pub text: String,
}

impl From<String> for Line {
    fn from(text: String) -> Self {
        Self { at: None, text }
    }
}

/// Lines for the differences between two states. There is no `before` at the first
/// state of a watch, which may be hours after the run began: each line has the time
/// of its event.
pub fn between(before: Option<&RunStatus>, next: &RunStatus) -> Vec<Line> {
    let mut lines = Vec::new();
    if before.is_none() {
        let digest = short(&next.digest);
        lines.push(Line {
            at: next.started_at,
            text: format!(
                "run {}: plan {} ({}), digest {digest}",
                next.id, next.plan, next.kind
            ),
        });
    }
    for phase in &next.phases {
        let was = before
            .and_then(|run| run.phases.iter().find(|was| was.name == phase.name))
            .filter(|was| was.track == phase.track);
        phase_lines(was, phase, &mut lines);
    }
    run_lines(before, next, &mut lines);
    lines
}

/// The output, start or note of a running task, as one line.
pub fn of_line(line: &TaskLine) -> Line {
    let text = match line.kind {
        LineKind::Output => format!("{} {} | {}", line.agent, line.step, line.line),
        LineKind::Started => format!("{} {} started {}", line.agent, line.step, line.line),
        LineKind::Note => format!("{} {}: {}", line.agent, line.step, line.line),
    };
    Line {
        at: line.at,
        text: text.trim_end().to_owned(),
    }
}

/// A change of an agent's connection.
pub fn of_connection(connection: &AgentConnection) -> Line {
    let state = if connection.connected {
        "reconnected"
    } else {
        "disconnected"
    };
    Line {
        at: connection.at,
        text: format!("{} {state}", connection.agent),
    }
}

/// When the phase reached its state, as far as the status says.
fn reached_at(phase: &PhaseStatus) -> Option<Timestamp> {
    match phase.outcome {
        PhaseOutcome::Preparing | PhaseOutcome::Gated => phase.prepared_at,
        PhaseOutcome::Executing => phase.released_at,
        PhaseOutcome::Done | PhaseOutcome::Undone => phase.completed_at,
        PhaseOutcome::Pending | PhaseOutcome::Failed | PhaseOutcome::Skipped => None,
    }
}

fn phase_lines(was: Option<&PhaseStatus>, phase: &PhaseStatus, lines: &mut Vec<Line>) {
    let old = was
        .map(|was| (was.outcome, was.attempt))
        .unwrap_or_default();
    // In the order of events: the phase begins, its tasks change, the phase ends.
    let begins = matches!(
        phase.outcome,
        PhaseOutcome::Preparing | PhaseOutcome::Gated | PhaseOutcome::Executing
    );
    let changed = old != (phase.outcome, phase.attempt);
    if changed && begins {
        lines.push(Line {
            at: reached_at(phase),
            text: phase_line(phase),
        });
    }
    for task in &phase.tasks {
        let old = was.and_then(|was| {
            was.tasks
                .iter()
                .find(|old| old.agent == task.agent && old.step == task.step)
        });
        if let Some(text) = task_change(old, task) {
            let at = task.ended_at.or(phase.completed_at);
            lines.push(Line { at, text });
        }
    }
    if changed && !begins && phase.outcome != PhaseOutcome::Pending {
        lines.push(Line {
            at: reached_at(phase),
            text: phase_line(phase),
        });
    }
}

fn phase_line(phase: &PhaseStatus) -> String {
    let back = match phase.track {
        Track::Rollback => "rollback phase",
        Track::Forward => "phase",
    };
    let mut line = format!("{back} {}: {}", phase.name, phase.outcome);
    if phase.attempt > 1 {
        line.push_str(&format!(", attempt {}", phase.attempt));
    }
    if phase.outcome == PhaseOutcome::Done {
        let (took, barrier) = (duration(phase.took_ms), duration(phase.barrier_ms));
        line.push_str(&format!(" in {took}, the barrier took {barrier}"));
    }
    if phase.outcome == PhaseOutcome::Gated {
        line.push_str(&format!(" ({})", phase.gate));
    }
    line
}

fn task_change(old: Option<&TaskStatus>, task: &TaskStatus) -> Option<String> {
    let unremarkable = matches!(
        task.outcome,
        TaskOutcome::Pending | TaskOutcome::Ready | TaskOutcome::Open
    );
    let same = old.is_some_and(|old| {
        old.outcome == task.outcome && old.attempt == task.attempt && old.detail == task.detail
    });
    if unremarkable || same {
        return None;
    }
    Some(task_line(task))
}

fn run_lines(before: Option<&RunStatus>, next: &RunStatus, lines: &mut Vec<Line>) {
    // How many tasks it waits for changes with each outcome, and is in the other lines.
    let known = before.is_some_and(|run| !run.decided.is_empty());
    if !next.decided.is_empty() && !known {
        lines.push(next.decided.clone().into());
    }
    if next.outcome == RunOutcome::Waiting {
        let same =
            before.is_some_and(|run| run.outcome == next.outcome && run.waits_on == next.waits_on);
        if !same {
            if !next.reason.is_empty() {
                lines.push(format!("run waits: {}", next.reason).into());
            }
            lines.extend(
                next.waits_on
                    .iter()
                    .map(|what| format!("run waits for {what}").into()),
            );
        }
    }
    let was = before.map(|run| run.outcome);
    if next.outcome.is_final() && was != Some(next.outcome) {
        let mut line = format!("run {}", next.outcome);
        if !next.reason.is_empty() {
            line.push_str(&format!(": {}", next.reason));
        }
        let at = next.ended_at;
        let mut ends = vec![line];
        if next.write_outage_ms > 0 {
            ends.push(format!("write outage {}", outage(next)));
        }
        ends.extend(
            next.still_changed
                .iter()
                .map(|what| format!("still changed: {what}")),
        );
        ends.extend(
            next.outstanding_undo
                .iter()
                .map(|what| format!("undo outstanding: {what}")),
        );
        lines.extend(ends.into_iter().map(|text| Line { at, text }));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(before: Option<&RunStatus>, next: &RunStatus) -> Vec<String> {
        let lines = between(before, next).into_iter();
        lines.map(|line| line.text).collect()
    }

    #[test]
    fn what_happened_before_the_watch_has_its_own_time() {
        let mut done = run(PhaseOutcome::Done, TaskOutcome::Done);
        done.started_at = lockstep_api::timestamp(1_000);
        done.phases[0].completed_at = lockstep_api::timestamp(3_000);
        let times: Vec<Option<Timestamp>> = between(None, &done)
            .into_iter()
            .map(|line| line.at)
            .collect();
        let (began, completed) = (done.started_at, done.phases[0].completed_at);
        assert_eq!(times, [began, completed, completed]);
    }

    fn run(outcome: PhaseOutcome, task: TaskOutcome) -> RunStatus {
        RunStatus {
            id: "r1".to_owned(),
            plan: "shop".to_owned(),
            kind: "Plan".to_owned(),
            digest: "d".repeat(64),
            phases: vec![PhaseStatus {
                name: "stop".to_owned(),
                track: Track::Forward,
                outcome,
                attempt: 1,
                took_ms: 1_200,
                barrier_ms: 12,
                tasks: vec![TaskStatus {
                    agent: "app-1".to_owned(),
                    step: "web".to_owned(),
                    action: "service.stop".to_owned(),
                    outcome: task,
                    took_ms: 700,
                    ..TaskStatus::default()
                }],
                ..PhaseStatus::default()
            }],
            ..RunStatus::default()
        }
    }

    #[test]
    fn each_change_is_shown_once() {
        let mut lines = Vec::new();
        let mut before: Option<RunStatus> = None;
        let mut done = run(PhaseOutcome::Done, TaskOutcome::Done);
        done.outcome = RunOutcome::Completed;
        for next in [
            run(PhaseOutcome::Preparing, TaskOutcome::Pending),
            run(PhaseOutcome::Executing, TaskOutcome::Open),
            run(PhaseOutcome::Executing, TaskOutcome::Open),
            run(PhaseOutcome::Executing, TaskOutcome::Done),
            done,
        ] {
            lines.extend(texts(before.as_ref(), &next));
            before = Some(next);
        }
        assert_eq!(
            lines,
            [
                "run r1: plan shop (Plan), digest dddddddddddd",
                "phase stop: preparing",
                "phase stop: executing",
                "app-1 web (service.stop) done after 700 ms",
                "phase stop: done in 1.2 s, the barrier took 12 ms",
                "run completed",
            ]
        );
    }

    #[test]
    fn waiting_is_shown_once_with_its_reason() {
        let mut waiting = run(PhaseOutcome::Failed, TaskOutcome::Failed);
        waiting.outcome = RunOutcome::Waiting;
        waiting.reason = "phase stop failed".to_owned();
        waiting.waits_on = vec!["an operator".to_owned()];
        let before = run(PhaseOutcome::Executing, TaskOutcome::Open);
        assert_eq!(
            texts(Some(&before), &waiting),
            [
                "app-1 web (service.stop) failed after 700 ms",
                "phase stop: failed",
                "run waits: phase stop failed",
                "run waits for an operator",
            ]
        );
        assert!(between(Some(&waiting), &waiting).is_empty());
    }
}
