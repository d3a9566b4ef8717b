//! What a program left behind: processes that go on after it (R22).
//!
//! A command of the policy, and every process that it starts, has a variable in its
//! environment that names agent, run, step and attempt. An agent that was killed finds
//! it again in `/proc/PID/environ` (proc(5)), under whatever process group and session
//! such a process has made for itself. As long as one is alive, no attempt of its task
//! is started: the work would be done twice.
//!
//! Not tagged are tools that start what is to outlive them, such as `lsnrctl`. A process
//! that clears its environment isn't found; work that has to outlive its command belongs
//! in a unit.

use super::context::WorkId;
use std::fmt;
use std::fs;
use std::os::unix::ffi::OsStrExt as _;

/// Variable that holds the tag of a process.
pub const VARIABLE: &str = "LOCKSTEP_WORK";

/// Processes of which a message names the command.
const NAMED: usize = 5;

/// Its value for a task.
pub fn tag(agent: &str, task: &WorkId) -> String {
    format!("{}{}", prefix(agent, &task.run, &task.step), task.attempt)
}

/// Names of agents, runs and steps contain no slash.
fn prefix(agent: &str, run: &str, step: &str) -> String {
    format!("{agent}/{run}/{step}/")
}

/// A process that was started for a task.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Left {
    pub pid: i32,
    /// The attempt that started it.
    pub attempt: String,
    command: String,
}

impl fmt::Display for Left {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{} ({}) of attempt {}",
            self.pid, self.command, self.attempt
        )
    }
}

/// The processes of any attempt of this task that are alive.
pub fn left_behind(agent: &str, run: &str, step: &str) -> Vec<Left> {
    let wanted = format!("{VARIABLE}={}", prefix(agent, run, step));
    let Ok(processes) = fs::read_dir("/proc") else {
        return Vec::new();
    };
    let mut left = Vec::new();
    for process in processes.flatten() {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        // That of a process that has ended is empty; that of another user can't be read,
        // nor can it be work of this agent then, unless it has changed its user.
        let environment = fs::read(process.path().join("environ")).unwrap_or_default();
        let attempt = environment
            .split(|byte| *byte == 0)
            .find_map(|variable| variable.strip_prefix(wanted.as_bytes()));
        if let Some(attempt) = attempt {
            left.push(Left {
                pid,
                attempt: String::from_utf8_lossy(attempt).into_owned(),
                command: command(process.path().join("comm").as_path()),
            });
        }
    }
    left.sort_by_key(|process| process.pid);
    left
}

fn command(comm: &std::path::Path) -> String {
    let name = fs::read(comm).unwrap_or_default();
    let name = std::ffi::OsStr::from_bytes(name.trim_ascii_end());
    name.to_string_lossy().into_owned()
}

/// The first of them, for a message.
pub fn listed(left: &[Left]) -> String {
    let mut named: Vec<String> = left.iter().take(NAMED).map(Left::to_string).collect();
    if left.len() > NAMED {
        named.push(format!("and {} more", left.len() - NAMED));
    }
    named.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::host::context::Context;
    use crate::worker::{Inputs, Worker};
    use lockstep_api::Code;
    use lockstep_barrier::ids::StepId;
    use lockstep_barrier::message::{Mode, Outcome, TaskOrder};
    use rustix::process::{Pid, Signal, kill_process};
    use serde_json::json;
    use std::time::Duration;

    fn end(process: &Left) {
        kill_process(Pid::from_raw(process.pid).unwrap(), Signal::KILL).unwrap();
    }

    /// A grandchild in a session of its own outlives its command and the agent.
    #[tokio::test]
    async fn work_that_an_earlier_attempt_left_is_not_started_again() {
        let dir = tempfile::tempdir().unwrap();
        let done = dir.path().join("done");
        let policy = format!(
            "[policy]\nactions=['command.run']\n[policy.commands.work]\n\
             argv=['/bin/sh', '-c', 'echo x >> {}; setsid sleep 600 & exit 1']\n",
            done.display()
        );
        let mut cx = Context::of_test(&policy);
        let worker = Worker::new(cx.host.clone());
        cx.tag.run = format!("run-{}", std::process::id());
        let order = TaskOrder {
            read_only: false,
            step: StepId("s".to_owned()),
            action: "command.run".to_owned(),
            mode: Mode::Execute,
            params: json!({"command": "work"}),
            timeout: 1000,
            watch: false,
        };
        let limit = Duration::from_secs(60);
        let inputs = Inputs::new();
        let perform = || worker.perform(&order, &inputs, None, limit, cx.clone());
        assert!(matches!(perform().await.0, Outcome::Failed { .. }));
        let left = || left_behind("a", &cx.tag.run, "s");
        assert_eq!(left().len(), 1, "{:?}", left());
        let probed = worker.probe(&order, &Inputs::new(), false, &cx).await;
        assert_eq!(probed.unwrap_err().code, Code::LS2018);
        let Outcome::Failed { diagnosis, .. } = perform().await.0 else {
            unreachable!("the task failed before");
        };
        assert_eq!(diagnosis.code, Code::LS2018);
        let runs = || std::fs::read_to_string(&done).unwrap().lines().count();
        assert_eq!(runs(), 1);
        left().iter().for_each(end);
        while !left().is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        assert!(matches!(perform().await.0, Outcome::Failed { .. }));
        assert_eq!(runs(), 2);
        left().iter().for_each(end);
    }
}
