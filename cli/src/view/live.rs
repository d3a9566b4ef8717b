//! Rows at the bottom of a terminal that show what each agent is doing.

use crate::view::run::outage;
use indicatif::{MultiProgress, ProgressBar, ProgressStyle};
use lockstep_api::{LineKind, PhaseOutcome, PhaseStatus, RunStatus, TaskLine, TaskOutcome, Track};
use std::collections::BTreeMap;
use std::time::Duration;

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
}

impl Default for Live {
    fn default() -> Self {
        let screen = MultiProgress::new();
        let head = screen.add(ProgressBar::new_spinner().with_style(style("{spinner} {msg}")));
        let more = screen.add(ProgressBar::new_spinner().with_style(style("  {msg}")));
        head.enable_steady_tick(TICK);
        Self {
            screen,
            head,
            agents: BTreeMap::new(),
            more,
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
        self.head.set_message(head(run));
        let working: Vec<(&str, String)> = run
            .current()
            .filter(|phase| phase.outcome == PhaseOutcome::Executing)
            .map(working)
            .unwrap_or_default();
        let finished: Vec<String> = self
            .agents
            .keys()
            .filter(|name| !working.iter().any(|(agent, _)| agent == name))
            .cloned()
            .collect();
        for name in finished {
            if let Some(row) = self.agents.remove(&name) {
                row.finish_and_clear();
                self.screen.remove(&row);
            }
        }
        for (agent, doing) in &working {
            if let Some(row) = self.row(agent)
                && row.message().is_empty()
            {
                row.set_message(doing.clone());
            }
        }
        let hidden = working.len().saturating_sub(self.agents.len());
        let more = if hidden > 0 {
            format!("and {hidden} more agents")
        } else {
            String::new()
        };
        self.more.set_message(more);
    }

    /// Shows a line of a task.
    pub fn task_line(&mut self, line: &TaskLine) {
        let Some(row) = self.row(&line.agent) else {
            return;
        };
        let text: String = line.line.chars().take(MAX_LINE).collect();
        if line.kind == LineKind::Started {
            row.reset_elapsed();
        }
        row.set_message(format!("{}  {text}", line.step));
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
                .with_style(style("  {spinner} {prefix:<16} {elapsed:>4} {wide_msg}"))
                .with_prefix(agent.to_owned());
            let row = self.screen.insert_before(&self.more, row);
            row.enable_steady_tick(TICK);
            self.agents.insert(agent.to_owned(), row);
        }
        self.agents.get(agent)
    }
}

/// The run in one row.
fn head(run: &RunStatus) -> String {
    let forward = run
        .phases
        .iter()
        .filter(|phase| phase.track == Track::Forward)
        .count();
    let mut parts = vec![format!("{} {}", run.plan, run.outcome)];
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
    if run.write_outage_ms > 0 {
        parts.push(format!("write outage {}", outage(run)));
    }
    parts.join(" · ")
}

/// Each agent that has an open task, with the first such task.
fn working(phase: &PhaseStatus) -> Vec<(&str, String)> {
    let mut working: Vec<(&str, String)> = Vec::new();
    for task in phase
        .tasks
        .iter()
        .filter(|task| task.outcome == TaskOutcome::Open)
    {
        if !working.iter().any(|(agent, _)| *agent == task.agent) {
            working.push((&task.agent, format!("{} ({})", task.step, task.action)));
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
    use lockstep_api::TaskStatus;

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
            head(&run),
            "shop running · phase 2/2 start executing · write outage 1.2 s"
        );
        run.phases[1].outcome = PhaseOutcome::Failed;
        run.phases[2].outcome = PhaseOutcome::Executing;
        assert_eq!(
            head(&run),
            "shop running · rollback phase 1 back executing · write outage 1.2 s"
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
            tasks: vec![
                task("a", "one", TaskOutcome::Done),
                task("a", "two", TaskOutcome::Open),
                task("a", "three", TaskOutcome::Open),
                task("b", "one", TaskOutcome::Done),
            ],
            ..PhaseStatus::default()
        };
        assert_eq!(working(&phase), [("a", "two (service.stop)".to_owned())]);
    }
}
