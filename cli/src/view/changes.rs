//! Changes between two states of a run, as lines of text, for both the plain and the
//! live view.

use crate::view::run::{outage, task_line};
use crate::view::{duration, short};
use lockstep_api::{
    LineKind, PhaseOutcome, PhaseStatus, RunOutcome, RunStatus, TaskLine, TaskOutcome, TaskStatus,
    Track,
};

/// Lines for the differences between two states. There is no `before` at the first
/// state of a watch.
pub fn between(before: Option<&RunStatus>, next: &RunStatus) -> Vec<String> {
    let mut lines = Vec::new();
    if before.is_none() {
        let digest = short(&next.digest);
        lines.push(format!(
            "run {}: plan {} ({}), digest {digest}",
            next.id, next.plan, next.kind
        ));
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
pub fn of_line(line: &TaskLine) -> String {
    match line.kind {
        LineKind::Output => format!("{} {} | {}", line.agent, line.step, line.line),
        LineKind::Started => format!("{} {} started {}", line.agent, line.step, line.line),
        LineKind::Note => format!("{} {}: {}", line.agent, line.step, line.line),
    }
    .trim_end()
    .to_owned()
}

fn phase_lines(was: Option<&PhaseStatus>, phase: &PhaseStatus, lines: &mut Vec<String>) {
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
        lines.push(phase_line(phase));
    }
    for task in &phase.tasks {
        let old = was.and_then(|was| {
            was.tasks
                .iter()
                .find(|old| old.agent == task.agent && old.step == task.step)
        });
        if let Some(line) = task_change(old, task) {
            lines.push(line);
        }
    }
    if changed && !begins && phase.outcome != PhaseOutcome::Pending {
        lines.push(phase_line(phase));
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

fn run_lines(before: Option<&RunStatus>, next: &RunStatus, lines: &mut Vec<String>) {
    if next.outcome == RunOutcome::Waiting {
        let same =
            before.is_some_and(|run| run.outcome == next.outcome && run.waits_on == next.waits_on);
        if !same {
            if !next.reason.is_empty() {
                lines.push(format!("run waits: {}", next.reason));
            }
            lines.extend(
                next.waits_on
                    .iter()
                    .map(|what| format!("run waits for {what}")),
            );
        }
    }
    let was = before.map(|run| run.outcome);
    if next.outcome.is_final() && was != Some(next.outcome) {
        let mut line = format!("run {}", next.outcome);
        if !next.reason.is_empty() {
            line.push_str(&format!(": {}", next.reason));
        }
        lines.push(line);
        if next.write_outage_ms > 0 {
            lines.push(format!("write outage {}", outage(next)));
        }
        lines.extend(
            next.still_changed
                .iter()
                .map(|what| format!("still changed: {what}")),
        );
        lines.extend(
            next.outstanding_undo
                .iter()
                .map(|what| format!("undo outstanding: {what}")),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

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
            lines.extend(between(before.as_ref(), &next));
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
            between(Some(&before), &waiting),
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
