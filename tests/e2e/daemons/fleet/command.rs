//! The operator's command, as a script would call it.

use super::binary;
use serde_json::Value;
use std::fmt;
use std::io::{BufRead, BufReader, Read};
use std::net::SocketAddr;
use std::path::Path;
use std::process::{Child, ChildStdout, Command, Stdio};

/// Result of a call of the command.
#[derive(Debug)]
pub struct CommandOutput {
    pub code: i32,
    /// Standard output as JSON; null if it was empty.
    pub json: Value,
    /// Text of the standard error output.
    pub error: String,
}

impl CommandOutput {
    /// Asserts that the request was refused, with an error that contains all of these.
    pub fn is_refused(&self, named: &[&str]) {
        assert_eq!(self.code, 2, "{self}");
        for text in named {
            assert!(self.error.contains(text), "{text:?} is missing:\n{self}");
        }
    }
}

impl fmt::Display for CommandOutput {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "exit code {}\n{:#}\n{}",
            self.code, self.json, self.error
        )
    }
}

fn call(address: SocketAddr, pki: &Path, ca: &str, name: &str, format: &str) -> Command {
    let mut command = Command::new(binary("lockstep"));
    command
        .env_clear()
        .args(["-o", format])
        .env("LOCKSTEP_COORDINATOR", format!("https://{address}"))
        .env("LOCKSTEP_CA", pki.join(ca))
        .env("LOCKSTEP_CERT", pki.join(format!("{name}.pem")))
        .env("LOCKSTEP_KEY", pki.join(format!("{name}-key.pem")));
    command
}

/// Calls the command with the certificate of that name, trusting the
/// authorities in the file `ca`.
pub fn lockstep(
    address: SocketAddr,
    pki: &Path,
    ca: &str,
    name: &str,
    arguments: &[&str],
) -> CommandOutput {
    let mut command = call(address, pki, ca, name, "json");
    command.args(arguments);
    // There is no terminal on which to confirm these.
    if let ["run", "abort" | "skip" | "waive", ..] = arguments {
        command.arg("--yes");
    }
    let ended = command.output().unwrap();
    let text = String::from_utf8(ended.stdout).unwrap();
    CommandOutput {
        code: ended.status.code().unwrap(),
        json: match text.trim() {
            "" => Value::Null,
            text => serde_json::from_str(text).unwrap_or_else(|e| panic!("{e}: {text}")),
        },
        error: String::from_utf8(ended.stderr).unwrap(),
    }
}

/// A watch that goes on beside the test.
pub struct Following {
    child: Child,
    output: BufReader<ChildStdout>,
    first: String,
}

/// Calls the command and waits until it has printed its first line.
pub fn follow(address: SocketAddr, pki: &Path, name: &str, arguments: &[&str]) -> Following {
    let mut command = call(address, pki, "ca.pem", name, "jsonl");
    command.args(arguments).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let mut output = BufReader::new(child.stdout.take().unwrap());
    let mut first = String::new();
    output.read_line(&mut first).unwrap();
    Following {
        child,
        output,
        first,
    }
}

impl Following {
    /// Waits until the watch has ended; gives its exit code and everything
    /// that it printed.
    pub fn end(mut self) -> (i32, Vec<Value>) {
        let mut text = std::mem::take(&mut self.first);
        self.output.read_to_string(&mut text).unwrap();
        let code = self.child.wait().unwrap().code().unwrap();
        let lines = text.lines().map(|line| serde_json::from_str(line).unwrap());
        (code, lines.collect())
    }
}

impl Drop for Following {
    fn drop(&mut self) {
        // It ends by itself at its timeout at the latest.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// A phase of a run, by its name.
pub fn phase<'a>(run: &'a Value, name: &str) -> &'a Value {
    let mut phases = run["phases"].as_array().into_iter().flatten();
    phases
        .find(|phase| phase["name"] == name)
        .unwrap_or_else(|| panic!("no phase {name} in {run:#}"))
}

/// A task of a run.
pub fn task<'a>(run: &'a Value, agent: &str, step: &str) -> &'a Value {
    let phases = run["phases"].as_array().into_iter().flatten();
    let mut tasks = phases.flat_map(|phase| phase["tasks"].as_array().into_iter().flatten());
    tasks
        .find(|task| task["agent"] == agent && task["step"] == step)
        .unwrap_or_else(|| panic!("no task {step} on {agent} in {run:#}"))
}
