//! What is known of a run beyond its journal: the connections of its agents and the
//! last line of each task. It is lost with the process, and no decision depends on it.

use lockstep_api::LineKind;
use lockstep_barrier::ids::{AgentName, StepId};
use std::collections::BTreeMap;

/// The latest lines of a task. Times are in milliseconds since the epoch; 0: none.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct TaskActivity {
    /// The agent reported that the action started.
    pub started: u64,
    /// Last note or line of output.
    pub line: String,
    pub line_at: u64,
}

#[derive(Debug, Default)]
pub struct Activity {
    tasks: BTreeMap<(StepId, AgentName), TaskActivity>,
    disconnected: BTreeMap<AgentName, u64>,
}

impl Activity {
    /// Of a run whose agents have not connected yet, as after a start of this process.
    pub fn unconnected<'a>(agents: impl IntoIterator<Item = &'a AgentName>, now: u64) -> Self {
        Self {
            disconnected: agents.into_iter().map(|name| (name.clone(), now)).collect(),
            ..Self::default()
        }
    }

    /// Records a line of a task.
    pub fn line(&mut self, step: StepId, agent: &AgentName, kind: LineKind, text: &str, now: u64) {
        let task = self.tasks.entry((step, agent.clone())).or_default();
        match kind {
            LineKind::Started => {
                *task = TaskActivity {
                    started: now,
                    ..TaskActivity::default()
                };
            }
            LineKind::Note | LineKind::Output => {
                text.clone_into(&mut task.line);
                task.line_at = now;
            }
        }
    }

    /// Records that an agent's session began or ended; whether that is a change.
    pub fn connection(&mut self, agent: &AgentName, connected: bool, now: u64) -> bool {
        if connected {
            return self.disconnected.remove(agent).is_some();
        }
        let known = self.disconnected.contains_key(agent);
        self.disconnected.entry(agent.clone()).or_insert(now);
        !known
    }

    pub fn task(&self, step: &StepId, agent: &AgentName) -> Option<&TaskActivity> {
        self.tasks.get(&(step.clone(), agent.clone()))
    }

    /// Since when the agent has had no session; 0 if it has one.
    pub fn disconnected_since(&self, agent: &AgentName) -> u64 {
        self.disconnected.get(agent).copied().unwrap_or(0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_connection_is_reported_once_with_the_time_of_its_loss() {
        let agent = AgentName::from("app-1");
        let mut activity = Activity::default();
        assert!(!activity.connection(&agent, true, 1), "it was connected");
        assert!(activity.connection(&agent, false, 5));
        assert!(!activity.connection(&agent, false, 9));
        assert_eq!(activity.disconnected_since(&agent), 5);
        assert!(activity.connection(&agent, true, 10));
        assert_eq!(activity.disconnected_since(&agent), 0);
    }

    #[test]
    fn another_attempt_forgets_the_lines_of_the_earlier_one() {
        let (agent, step) = (AgentName::from("a"), StepId::from("s"));
        let mut activity = Activity::default();
        activity.line(step.clone(), &agent, LineKind::Started, "", 1);
        activity.line(step.clone(), &agent, LineKind::Note, "2 sessions left", 2);
        assert_eq!(
            activity.task(&step, &agent).unwrap().line,
            "2 sessions left"
        );
        activity.line(step.clone(), &agent, LineKind::Started, "", 3);
        let again = activity.task(&step, &agent).unwrap();
        assert_eq!((again.started, again.line.as_str()), (3, ""));
    }
}
