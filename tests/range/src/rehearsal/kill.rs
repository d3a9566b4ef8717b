//! A process killed in the middle of a run, and started again.
//!
//! The moment is a task's: between its intent and its outcome, in a named
//! step. It is taken from the run's own stream of happenings, since only the
//! product knows when a task starts; what it leads to is judged without it.

use super::product::{Product, RunStatus};
use crate::range::{Error, Range, wait};
use serde::Serialize;
use serde_json::Value;
use std::str::FromStr;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

/// The slowest way to a late phase takes about a minute.
const STRIKE_LIMIT: Duration = Duration::from_secs(300);

/// One look at the stream; between two of them Ctrl-C is noticed.
const LISTEN: Duration = Duration::from_millis(200);

/// Whom to kill, and when.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Kill {
    /// `coordinator` or `agent`.
    pub role: &'static str,
    /// Its name; for an agent its host's.
    pub name: String,
    /// The step whose task (for the coordinator: anybody's) has started and
    /// not ended.
    pub step: String,
    /// What the task has said by then: its effect is made, and only its
    /// outcome is missing. Its start when absent.
    pub said: Option<String>,
}

/// What a kill met.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Struck {
    /// `coordinator` or `agent`.
    pub role: &'static str,
    pub name: String,
    pub phase: String,
    pub step: String,
    /// Whether the step's outcome had not been told when the victim was dead:
    /// only then it was between intent and outcome.
    pub between: bool,
}

impl Kill {
    /// Whether the victim is among these hosts; the coordinator always is.
    ///
    /// # Errors
    /// [`Error::NoSuchHost`] otherwise.
    pub fn check(&self, hosts: Vec<String>) -> Result<(), Error> {
        if self.role == "coordinator" || hosts.contains(&self.name) {
            Ok(())
        } else {
            Err(Error::NoSuchHost {
                name: self.name.clone(),
                known: hosts,
            })
        }
    }

    /// Waits for the moment, kills, and starts again.
    ///
    /// # Errors
    /// When the moment does not come, or the process does not come up again.
    pub fn strike(&self, range: &mut Range, updates: &Receiver<Value>) -> Result<Struck, Error> {
        let what = format!("{} on {}", self.step, self.name);
        let phase = wait::until(&what, STRIKE_LIMIT, || {
            loop {
                // Taken one by one as they come: the moment is short.
                match updates.recv_timeout(LISTEN) {
                    Ok(update) if self.is_moment(&update) => {
                        let phase = update["line"]["phase"].as_str();
                        return Ok(phase.map(str::to_owned));
                    }
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout) => return Ok(None),
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(Error::NotReady {
                            what: what.clone(),
                            how: "did not start before the run ended".into(),
                            log: String::new(),
                        });
                    }
                }
            }
        })?;
        range.kill(self.role, &self.name);
        println!("killed {} {} in {}", self.role, self.name, self.step);
        let between = if self.role == "coordinator" {
            !updates.try_iter().any(|later| self.has_ended(&later))
        } else {
            // The victim is dead: what it had told is known by now.
            self.is_open(&Product::of(range).newest_run()?)
        };
        let struck = Struck {
            role: self.role,
            name: self.name.clone(),
            phase,
            step: self.step.clone(),
            between,
        };
        if self.role == "coordinator" {
            range.start_coordinator()?;
        } else if let Some(host) = range.host(&self.name).cloned() {
            range.start_agent(&host)?;
        }
        Ok(struck)
    }

    fn is_mine(&self, agent: &Value) -> bool {
        self.role == "coordinator" || *agent == self.name.as_str()
    }

    fn is_moment(&self, update: &Value) -> bool {
        let line = &update["line"];
        let text = line["line"].as_str().unwrap_or_default();
        let so_far = match &self.said {
            None => line["kind"] == "started",
            Some(said) => line["kind"] == "note" && text.contains(said),
        };
        update["type"] == "line"
            && so_far
            && line["step"] == self.step.as_str()
            && self.is_mine(&line["agent"])
    }

    fn is_open(&self, run: &RunStatus) -> bool {
        let tasks = run.phases.iter().flat_map(|phase| &phase.tasks);
        tasks
            .filter(|task| task.step == self.step && task.agent == self.name)
            .any(|task| task.outcome == "open")
    }

    /// Whether the task was told to have ended.
    fn has_ended(&self, update: &Value) -> bool {
        let phases = update["run"]["phases"].as_array();
        let tasks = phases
            .into_iter()
            .flatten()
            .flat_map(|phase| phase["tasks"].as_array().into_iter().flatten());
        let mut mine = tasks
            .filter(|task| task["step"] == self.step.as_str() && self.is_mine(&task["agent"]))
            .peekable();
        mine.peek().is_some() && mine.all(|task| task["outcome"] != "open")
    }
}

impl FromStr for Kill {
    type Err = String;

    /// `coordinator:STEP` or `HOST:STEP`, with `:TEXT` that the step says.
    fn from_str(text: &str) -> Result<Self, String> {
        let mut parts = text.splitn(3, ':');
        let mut part = || parts.next().filter(|part| !part.is_empty());
        let (Some(name), Some(step), said) = (part(), part(), part()) else {
            return Err(format!("{text:?} is not coordinator:STEP or HOST:STEP"));
        };
        let role = match name {
            "coordinator" => "coordinator",
            _ => "agent",
        };
        Ok(Self {
            role,
            name: name.to_owned(),
            step: step.to_owned(),
            said: said.map(str::to_owned),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn kill() -> Kill {
        "ora-1:finalize".parse().unwrap()
    }

    #[test]
    fn a_victim_is_the_coordinator_or_the_agent_of_a_host() {
        assert_eq!((kill().role, kill().name.as_str()), ("agent", "ora-1"));
        let other: Kill = "coordinator:finalize".parse().unwrap();
        assert_eq!(other.role, "coordinator");
        assert_eq!(other.said, None);
        assert!("finalize".parse::<Kill>().is_err());
        assert!(":finalize".parse::<Kill>().is_err());
    }

    #[test]
    fn a_victim_that_is_no_host_is_refused_with_the_hosts_there_are() {
        let hosts = || crate::range::host_names(3);
        assert!(kill().check(hosts()).is_ok());
        let coordinator: Kill = "coordinator:finalize".parse().unwrap();
        assert!(coordinator.check(hosts()).is_ok());
        let other: Kill = "app-9:finalize".parse().unwrap();
        assert_eq!(
            other.check(hosts()).unwrap_err().to_string(),
            "the range has no host app-9; it has ora-1, ora-2, pg-1, app-1, app-2, app-3"
        );
    }

    #[test]
    fn the_moment_is_a_task_of_the_victim_that_has_started() {
        let line = |agent: &str, kind: &str, step: &str| json!({"type": "line", "line": {"agent": agent, "kind": kind, "step": step}});
        assert!(kill().is_moment(&line("ora-1", "started", "finalize")));
        assert!(!kill().is_moment(&line("ora-2", "started", "finalize")));
        assert!(!kill().is_moment(&line("ora-1", "note", "finalize")));
        assert!(!kill().is_moment(&line("ora-1", "started", "fence")));
        assert!(!kill().is_moment(&json!({"type": "status"})));
    }

    #[test]
    fn the_moment_may_be_what_the_task_says() {
        let kill: Kill = "ora-1:finalize:rows committed".parse().unwrap();
        let line = |kind: &str, text: &str| {
            json!({"type": "line", "line": {"agent": "ora-1", "kind": kind, "step": "finalize",
                   "line": text}})
        };
        assert!(kill.is_moment(&line("note", "2 marker rows committed")));
        assert!(!kill.is_moment(&line("note", "the fence has held")));
        assert!(!kill.is_moment(&line("started", "")));
    }

    #[test]
    fn it_is_over_once_the_outcome_was_told() {
        let status = |outcome: &str| {
            json!({"type": "status", "run": {"phases": [{"tasks": [
                {"agent": "ora-1", "step": "finalize", "outcome": outcome},
                {"agent": "ora-1", "step": "fence", "outcome": "armed"},
            ]}]}})
        };
        assert!(!kill().has_ended(&status("open")));
        assert!(kill().has_ended(&status("done")));
        assert!(!kill().has_ended(&json!({"type": "line"})));
    }
}
