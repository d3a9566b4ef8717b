//! A scripted operator: what somebody does who reads the guide and has no more
//! knowledge than the run's status shows.

use crate::rehearsal::{RunStatus, TaskStatus};

/// How often a failed phase is retried before the run is rolled back: the trouble is
/// over by then, or it isn't temporary.
const RETRIES: usize = 2;

/// What the operator has done so far, to which phase.
#[derive(Debug, Default)]
pub struct Operator {
    done: Vec<(Act, String)>,
}

/// A verb, as `lockstep run` has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Act {
    /// The operator has seen on the host that the task didn't take effect, or can be
    /// repeated; its undo covers it all the same.
    ResolveFailed {
        agent: String,
        step: String,
    },
    Retry,
    Resume,
    Rollback,
    Abort,
}

impl Act {
    /// The arguments of the command, without the run.
    #[must_use]
    pub fn arguments(&self, run: &str) -> Vec<String> {
        let words: Vec<&str> = match self {
            Self::ResolveFailed { agent, step } => {
                vec![
                    "resolve", run, "--agent", agent, "--step", step, "--as", "failed",
                ]
            }
            Self::Retry => vec!["retry", run],
            Self::Resume => vec!["resume", run],
            Self::Rollback => vec!["rollback", run],
            Self::Abort => vec!["abort", run, "--yes"],
        };
        let reason = ["--reason", "scripted operator"];
        words.into_iter().chain(reason).map(str::to_owned).collect()
    }
}

impl Operator {
    /// What the operator does about a run that waits; nothing while it is on its way
    /// by itself.
    pub fn decide(&mut self, run: &RunStatus) -> Option<Act> {
        if run.outcome != "waiting" {
            return None;
        }
        let failed = run.phases.iter().find(|phase| phase.outcome == "failed");
        let phase = failed.map(|phase| phase.name.clone()).unwrap_or_default();
        let act = self.next(run, &phase);
        self.done.push((act.clone(), phase));
        Some(act)
    }

    fn next(&self, run: &RunStatus, phase: &str) -> Act {
        let tasks = run.phases.iter().flat_map(|phase| &phase.tasks);
        let unresolved = |task: &&TaskStatus| {
            matches!(task.outcome.as_str(), "unknown" | "drifted") && !self.has_resolved(task)
        };
        if let Some(task) = tasks.into_iter().find(unresolved) {
            return Act::ResolveFailed {
                agent: task.agent.clone(),
                step: task.step.clone(),
            };
        }
        if phase.is_empty() {
            return match self.times(&Act::Resume, phase) {
                0 | 1 => Act::Resume,
                _ => Act::Abort,
            };
        }
        let turned_back = self.done.iter().any(|(act, _)| *act == Act::Rollback);
        match self.times(&Act::Retry, phase) {
            retries if retries < RETRIES => Act::Retry,
            _ if !turned_back => Act::Rollback,
            _ => Act::Abort,
        }
    }

    fn has_resolved(&self, task: &TaskStatus) -> bool {
        let of_task = Act::ResolveFailed {
            agent: task.agent.clone(),
            step: task.step.clone(),
        };
        self.done.iter().any(|(act, _)| *act == of_task)
    }

    fn times(&self, act: &Act, phase: &str) -> usize {
        let of_phase = |done: &&(Act, String)| done.0 == *act && done.1 == phase;
        self.done.iter().filter(of_phase).count()
    }

    /// Everything that was done, as the command has it.
    #[must_use]
    pub fn verbs(&self) -> Vec<String> {
        let verb = |(act, phase): &(Act, String)| match act {
            Act::ResolveFailed { agent, step } => format!("resolve {step} on {agent}"),
            Act::Retry => format!("retry {phase}"),
            Act::Resume => "resume".to_owned(),
            Act::Rollback => format!("rollback at {phase}"),
            Act::Abort => format!("abort at {phase}"),
        };
        self.done.iter().map(verb).collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::PhaseStatus;

    fn waiting(task_outcome: &str) -> RunStatus {
        let task = TaskStatus {
            agent: "ora-1".to_owned(),
            step: "finalize".to_owned(),
            outcome: task_outcome.to_owned(),
            ..TaskStatus::default()
        };
        let phase = PhaseStatus {
            name: "final-changes".to_owned(),
            outcome: "failed".to_owned(),
            tasks: vec![task],
            ..PhaseStatus::default()
        };
        RunStatus {
            outcome: "waiting".to_owned(),
            phases: vec![phase],
            ..RunStatus::default()
        }
    }

    #[test]
    fn what_is_unknown_is_resolved_once_then_the_phase_retried_and_rolled_back() {
        let mut operator = Operator::default();
        let acts: Vec<Act> = (0..5)
            .filter_map(|_| operator.decide(&waiting("unknown")))
            .collect();
        assert!(matches!(&acts[0], Act::ResolveFailed { step, .. } if step == "finalize"));
        assert_eq!(
            acts[1..],
            [Act::Retry, Act::Retry, Act::Rollback, Act::Abort]
        );
        assert_eq!(operator.verbs()[0], "resolve finalize on ora-1");
    }

    #[test]
    fn a_run_that_moves_is_left_alone() {
        let mut operator = Operator::default();
        let run = RunStatus {
            outcome: "running".to_owned(),
            ..waiting("failed")
        };
        assert_eq!(operator.decide(&run), None);
        assert!(operator.verbs().is_empty());
    }
}
