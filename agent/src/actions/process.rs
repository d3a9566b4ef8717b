//! `process.stop`: ends processes that no service manager owns.
//!
//! The agent's own policy defines the processes: by executable, and by an
//! argument where one executable serves many purposes. The agent can't start
//! them again; a plan that needs that uses a unit.

use crate::action::{Action, ActionError, Context, Description, Outputs, found, satisfied_if};
use crate::config::ProcessPolicy;
use crate::policy::Permission;
use async_trait::async_trait;
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::StopProcess;
use serde_json::Value;
use std::os::unix::ffi::OsStrExt as _;
use std::path::Path;
use std::time::Duration;

/// Interval between two checks whether they have ended.
const POLL_INTERVAL: Duration = Duration::from_millis(100);
/// After SIGKILL a process ends at once, or hangs in the kernel.
const KILL_LIMIT: Duration = Duration::from_secs(5);

/// A program has its arguments microseconds after its executable; one that has
/// none after so many reads, a millisecond apart, has cleared them.
const LOOKS_AT_ARGUMENTS: u32 = 20;

pub struct Stop;

/// A process; its start time distinguishes it from a later one with the same
/// PID.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Found {
    pid: i32,
    started: u64,
    command: String,
}

/// Every process that the policy's entry of this name matches.
fn find(policy: &ProcessPolicy) -> Vec<Found> {
    let Ok(entries) = std::fs::read_dir("/proc") else {
        return Vec::new();
    };
    entries
        .flatten()
        .filter_map(|entry| entry.file_name().to_str()?.parse::<i32>().ok())
        .filter_map(|pid| describe(pid, policy))
        .collect()
}

fn describe(pid: i32, policy: &ProcessPolicy) -> Option<Found> {
    let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
    let meant = is_of(&exe, &policy.exe)
        && match &policy.argument {
            Some(wanted) => arguments(pid)?.contains(wanted),
            None => true,
        };
    let started = meant.then(|| started(pid)).flatten()?;
    // Only the fields of the policy: arguments may hold a password.
    let shown = [
        Some(policy.exe.display().to_string()),
        policy.argument.clone(),
    ];
    Some(Found {
        pid,
        started,
        command: shown.into_iter().flatten().collect::<Vec<_>>().join(" "),
    })
}

/// The arguments of a process. During `execve` a process has its executable
/// before its arguments (the kernel's `fs/exec.c`), so empty arguments are read
/// again, or such a process would not match.
fn arguments(pid: i32) -> Option<Vec<String>> {
    for _ in 0..LOOKS_AT_ARGUMENTS {
        let bytes = std::fs::read(format!("/proc/{pid}/cmdline")).ok()?;
        if !bytes.is_empty() {
            let arguments = bytes.split(|byte| *byte == 0);
            let filled = arguments.filter(|argument| !argument.is_empty());
            return Some(
                filled
                    .map(|argument| String::from_utf8_lossy(argument).into_owned())
                    .collect(),
            );
        }
        std::thread::sleep(Duration::from_millis(1));
    }
    None
}

/// The kernel appends ` (deleted)` to the path of an executable that was
/// replaced while it runs (proc(5)): an upgraded program still matches.
fn is_of(exe: &Path, meant: &Path) -> bool {
    let exe = exe.as_os_str().as_bytes();
    exe.strip_suffix(b" (deleted)").unwrap_or(exe) == meant.as_os_str().as_bytes()
}

/// Start time of a process, in clock ticks since boot: field 22 of
/// `/proc/PID/stat` (proc(5)), counted behind the name in parentheses.
fn started(pid: i32) -> Option<u64> {
    let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (_, fields) = stat.rsplit_once(')')?;
    let mut fields = fields.split_whitespace();
    if fields.next()? == "Z" {
        return None;
    }
    fields.nth(18)?.parse().ok()
}

fn signal(process: &Found, signal: i32) {
    if started(process.pid) == Some(process.started) {
        // SAFETY: plain system call. The start time was checked just before, so
        // the PID is still that of the process found.
        unsafe {
            libc::kill(process.pid, signal);
        }
    }
}

fn meant(cx: &Context, params: &StopProcess) -> Result<Vec<Found>, ActionError> {
    let mut processes = Vec::new();
    for name in &params.processes {
        let policy = cx.host.policy.process(name).ok_or_else(|| {
            ActionError::new(
                Code::LS2005,
                format!("this agent has no process {name} in its policy"),
            )
            .state_left("nothing was done")
            .remedy(format!("define [policy.processes.{name}] in agent.toml"))
        })?;
        processes.extend(find(policy));
    }
    Ok(processes)
}

/// Waits until all have ended; returns those that have not.
async fn wait(
    cx: &Context,
    params: &StopProcess,
    limit: Duration,
) -> Result<Vec<Found>, ActionError> {
    let began = tokio::time::Instant::now();
    loop {
        let left = meant(cx, params)?;
        if left.is_empty() || began.elapsed() >= limit || cx.cancel.is_cancelled() {
            return Ok(left);
        }
        tokio::time::sleep(POLL_INTERVAL).await;
    }
}

#[async_trait]
impl Action for Stop {
    type Params = StopProcess;

    fn required_permissions(&self, params: &StopProcess) -> Vec<Permission> {
        params
            .processes
            .iter()
            .cloned()
            .map(Permission::Process)
            .collect()
    }

    async fn probe(&self, cx: &Context, params: &StopProcess) -> Result<Probe, ActionError> {
        let none = meant(cx, params)?.is_empty();
        Ok(found(satisfied_if(none)))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &StopProcess,
    ) -> Result<Description, ActionError> {
        let processes = meant(cx, params)?;
        let mut description = Description::of(
            processes
                .iter()
                .map(|process| format!("SIGTERM {} ({})", process.pid, process.command)),
        );
        if !processes.is_empty() {
            let remark = "what is ended here can't be started again by a rollback";
            description.remarks.push(remark.to_owned());
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &StopProcess,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        for process in meant(cx, params)? {
            cx.note(format!("SIGTERM {} ({})", process.pid, process.command));
            signal(&process, libc::SIGTERM);
        }
        for process in wait(cx, params, Duration::from_secs(params.timeout_secs)).await? {
            cx.note(format!("SIGKILL {} ({})", process.pid, process.command));
            signal(&process, libc::SIGKILL);
        }
        let left = wait(cx, params, KILL_LIMIT).await?;
        if left.is_empty() {
            return Ok(Outputs::new());
        }
        let left: Vec<String> = left
            .iter()
            .map(|process| format!("{} ({})", process.pid, process.command))
            .collect();
        Err(ActionError::new(
            Code::LS2150,
            format!("processes go on or came back: {}", left.join(", ")),
        )
        .state_left("those named still run")
        .remedy("find what starts them again, stop that, then retry"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::Command;

    #[test]
    fn a_process_is_known_after_its_program_was_replaced_and_its_secrets_are_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("batch");
        std::fs::copy("/bin/sleep", &exe).unwrap();
        let mut child = Command::new(&exe).args(["600", "1"]).spawn().unwrap();
        std::fs::remove_file(&exe).unwrap();
        let policy = ProcessPolicy {
            exe: exe.clone(),
            argument: Some("600".to_owned()),
        };
        let found = find(&policy);
        child.kill().unwrap();
        child.wait().unwrap();
        let commands: Vec<&str> = found.iter().map(|one| one.command.as_str()).collect();
        assert_eq!(commands, [format!("{} 600", exe.display())]);
    }
}
