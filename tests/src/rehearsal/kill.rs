//! A process killed in the middle of a run, and started again.
//!
//! The moment is a task's: between its intent and its outcome, in a named
//! phase. It is taken from the run's own stream of happenings, since only the
//! product knows when a task starts; what it leads to is judged without it.

use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use serde_json::Value;

use crate::range::{Error, Range, wait};

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
    /// The phase in which one of its tasks (for the coordinator: any) has
    /// started.
    pub phase: String,
}

impl Kill {
    /// Waits for the moment, kills, and starts again.
    ///
    /// # Errors
    /// When the moment does not come, or the process does not come up again.
    pub fn strike(&self, range: &mut Range, happenings: &Receiver<Value>) -> Result<(), Error> {
        let what = format!("a task of {} in {}", self.name, self.phase);
        wait::until(&what, STRIKE_LIMIT, || {
            loop {
                // Taken one by one as they come: the moment is short.
                match happenings.recv_timeout(LISTEN) {
                    Ok(happening) if self.is_moment(&happening) => return Ok(Some(())),
                    Ok(_) => {}
                    Err(RecvTimeoutError::Timeout) => return Ok(None),
                    Err(RecvTimeoutError::Disconnected) => {
                        return Err(Error::NotReady {
                            what: what.clone(),
                            how: "did not happen before the run ended".into(),
                            log: String::new(),
                        });
                    }
                }
            }
        })?;
        println!("killing {} {} in {}", self.role, self.name, self.phase);
        range.kill(self.role, &self.name);
        if self.role == "coordinator" {
            return range.start_coordinator();
        }
        match range.host(&self.name).cloned() {
            Some(host) => range.start_agent(&host),
            None => Ok(()),
        }
    }

    fn is_moment(&self, happening: &Value) -> bool {
        let line = &happening["line"];
        let mine = self.role == "coordinator" || line["agent"] == self.name.as_str();
        happening["type"] == "line"
            && line["kind"] == "started"
            && line["phase"] == self.phase.as_str()
            && mine
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn the_moment_is_a_task_of_the_victim_that_has_started() {
        let kill = Kill {
            role: "agent",
            name: "ora-1".into(),
            phase: "close-oracle".into(),
        };
        let line = |agent: &str, kind: &str, phase: &str| json!({"type": "line", "line": {"agent": agent, "kind": kind, "phase": phase}});
        assert!(kill.is_moment(&line("ora-1", "started", "close-oracle")));
        assert!(!kill.is_moment(&line("ora-2", "started", "close-oracle")));
        assert!(!kill.is_moment(&line("ora-1", "note", "close-oracle")));
        assert!(!kill.is_moment(&line("ora-1", "started", "prepare")));
        assert!(!kill.is_moment(&json!({"type": "status"})));
    }
}
