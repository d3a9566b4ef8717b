//! Rows at the bottom of a terminal that show what each agent is doing.

use crate::view::run::outage;
use crate::view::waiting;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use jiff::Timestamp;
use lockstep_api::{LineKind, PhaseStatus, RunStatus, TaskLine, TaskStatus, Track, printable};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// Largest number of agents shown, so that the rows fit on a terminal; the others are
/// only counted.
const MAX_ROWS: usize = 12;

/// Interval at which elapsed times are redrawn.
const TICK: Duration = Duration::from_millis(200);

/// Largest number of characters shown of an output line.
const MAX_LINE: usize = 100;

/// One row for the run, one for each agent with a running task, and one for the
/// number of hidden agents.
pub struct Live {
    screen: MultiProgress,
    head: ProgressBar,
    agents: BTreeMap<String, ProgressBar>,
    more: ProgressBar,
    /// The last status and when it was received.
    run: Option<(RunStatus, Instant)>,
    /// The last line of each agent, with its step.
    lines: BTreeMap<String, (String, String)>,
}

impl Default for Live {
    fn default() -> Self {
        let screen = MultiProgress::new();
        let head = screen.add(ProgressBar::new_spinner().with_style(style("{spinner} {wide_msg}")));
        let more = screen.add(ProgressBar::new_spinner().with_style(style("  {wide_msg}")));
        head.enable_steady_tick(TICK);
        Self {
            screen,
            head,
            agents: BTreeMap::new(),
            more,
            run: None,
            lines: BTreeMap::new(),
        }
    }
}

impl Live {
    /// Writes permanent output above the rows.
    pub fn above<T>(&self, write: impl FnOnce() -> T) -> T {
        self.screen.suspend(write)
    }

    /// Shows a new status of the run.
    pub fn update(&mut self, run: &RunStatus) {
        self.run = Some((run.clone(), Instant::now()));
        let working = working(run);
        let finished: Vec<String> = self
            .agents
            .keys()
            .filter(|name| !working.iter().any(|(agent, _)| agent == name))
            .cloned()
            .collect();
        for name in finished {
            self.lines.remove(&name);
            if let Some(row) = self.agents.remove(&name) {
                row.finish_and_clear();
                self.screen.remove(&row);
            }
        }
        for (agent, _) in &working {
            let _ = self.row(agent);
        }
        let hidden = working.len().saturating_sub(self.agents.len());
        let more = if hidden > 0 {
            format!("and {hidden} more agents")
        } else {
            String::new()
        };
        self.more.set_message(more);
        self.tick();
    }

    /// Redraws the outage, and the time and deadline of each open task.
    pub fn tick(&self) {
        let Some((run, received)) = &self.run else {
            return;
        };
        let since = u64::try_from(received.elapsed().as_millis()).unwrap_or(0);
        self.head.set_message(in_a_row(&head(run, since)));
        let now = Timestamp::now();
        for (agent, (phase, task)) in working(run) {
            let Some(row) = self.agents.get(agent) else {
                continue;
            };
            let mut task = task.clone();
            let mut step = format!("{} ({})", task.step, task.action);
            if let Some((of, line)) = self.lines.get(agent) {
                step.clone_from(of);
                task.progress.clone_from(line);
            }
            let text = format!("{step} {}", waiting::state(phase, &task, now));
            row.set_message(in_a_row(&text));
        }
    }

    /// Shows a line of a task.
    pub fn task_line(&mut self, line: &TaskLine) {
        if self.row(&line.agent).is_none() {
            return;
        }
        let text: String = match line.kind {
            LineKind::Started => String::new(),
            LineKind::Note | LineKind::Output => line.line.chars().take(MAX_LINE).collect(),
        };
        let latest = (line.step.clone(), text);
        self.lines.insert(line.agent.clone(), latest);
        self.tick();
    }

    pub fn clear(&self) {
        // If the terminal can't be cleared, the rows remain, which is harmless.
        let _ = self.screen.clear();
    }

    /// The row of an agent, which is added if there is room.
    fn row(&mut self, agent: &str) -> Option<&ProgressBar> {
        if !self.agents.contains_key(agent) {
            if self.agents.len() >= MAX_ROWS {
                return None;
            }
            let row = ProgressBar::new_spinner()
                .with_style(style("  {spinner} {prefix:<16} {wide_msg}"))
                .with_prefix(agent.to_owned());
            let row = self.screen.insert_before(&self.more, row);
            row.enable_steady_tick(TICK);
            self.agents.insert(agent.to_owned(), row);
        }
        self.agents.get(agent)
    }
}

/// The text without line breaks, and without what a terminal would obey.
fn in_a_row(text: &str) -> String {
    printable(text).replace('\n', " ")
}

/// The run in one row, this many milliseconds after its status was received. A narrow
/// terminal cuts the row at its end, so the outage comes first.
fn head(run: &RunStatus, since: u64) -> String {
    let forward = run
        .phases
        .iter()
        .filter(|phase| phase.track == Track::Forward)
        .count();
    let mut parts = vec![format!("{} {}", run.plan, run.outcome)];
    if run.outage_open || run.write_outage_ms > 0 {
        let elapsed = if run.outage_open { since } else { 0 };
        let now = RunStatus {
            write_outage_ms: run.write_outage_ms.saturating_add(elapsed),
            outage_budget_ms: run.outage_budget_ms,
            ..RunStatus::default()
        };
        parts.push(format!("write outage {}", outage(&now)));
    }
    if let Some(phase) = run.current() {
        let number = run.phases.iter().filter(|other| other.track == phase.track);
        let number = number.take_while(|other| other.name != phase.name).count() + 1;
        let of = if phase.track == Track::Forward {
            format!("phase {number}/{forward}")
        } else {
            format!("rollback phase {number}")
        };
        parts.push(format!("{of} {} {}", phase.name, phase.outcome));
    }
    parts.extend(Some(run.decided.clone()).filter(|decided| !decided.is_empty()));
    parts.join(" · ")
}

/// Each agent that has an open task, with the first such task and its phase.
fn working(run: &RunStatus) -> Vec<(&str, (&PhaseStatus, &TaskStatus))> {
    let mut working: Vec<(&str, (&PhaseStatus, &TaskStatus))> = Vec::new();
    for (phase, task) in waiting::open(run) {
        if !working.iter().any(|(agent, _)| *agent == task.agent) {
            working.push((&task.agent, (phase, task)));
        }
    }
    working
}

fn style(template: &str) -> ProgressStyle {
    // The templates are constants; an invalid one falls back to the default.
    ProgressStyle::with_template(template).unwrap_or_else(|_| ProgressStyle::default_spinner())
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_api::{PhaseOutcome, TaskOutcome};

    #[test]
    fn the_head_shows_the_current_phase() {
        let phase = |name: &str, track, outcome| PhaseStatus {
            name: name.to_owned(),
            track,
            outcome,
            ..PhaseStatus::default()
        };
        let mut run = RunStatus {
            plan: "shop".to_owned(),
            write_outage_ms: 1_200,
            phases: vec![
                phase("stop", Track::Forward, PhaseOutcome::Done),
                phase("start", Track::Forward, PhaseOutcome::Executing),
                phase("back", Track::Rollback, PhaseOutcome::Pending),
            ],
            ..RunStatus::default()
        };
        assert_eq!(
            head(&run, 5_000),
            "shop running · write outage 1.2 s · phase 2/2 start executing",
            "an outage that is over doesn't grow"
        );
        run.outage_open = true;
        run.decided = "rollback requested by ana, waits for 1 open task".to_owned();
        assert_eq!(
            head(&run, 5_000),
            "shop running · write outage 6.2 s · phase 2/2 start executing · rollback requested \
             by ana, waits for 1 open task"
        );
        run.decided = String::new();
        run.phases[1].outcome = PhaseOutcome::Failed;
        run.phases[2].outcome = PhaseOutcome::Executing;
        assert_eq!(
            head(&run, 0),
            "shop running · write outage 1.2 s · rollback phase 1 back executing"
        );
    }

    #[test]
    fn an_agent_is_shown_with_its_first_open_task() {
        let task = |agent: &str, step: &str, outcome| TaskStatus {
            agent: agent.to_owned(),
            step: step.to_owned(),
            action: "service.stop".to_owned(),
            outcome,
            ..TaskStatus::default()
        };
        let phase = PhaseStatus {
            outcome: PhaseOutcome::Executing,
            tasks: vec![
                task("a", "one", TaskOutcome::Done),
                task("a", "two", TaskOutcome::Open),
                task("a", "three", TaskOutcome::Open),
                task("b", "one", TaskOutcome::Done),
            ],
            ..PhaseStatus::default()
        };
        let run = RunStatus {
            phases: vec![phase],
            ..RunStatus::default()
        };
        let steps: Vec<(&str, &str)> = working(&run)
            .into_iter()
            .map(|(agent, (_, task))| (agent, task.step.as_str()))
            .collect();
        assert_eq!(steps, [("a", "two")]);
    }
}
