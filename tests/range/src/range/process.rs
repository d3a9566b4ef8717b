//! Starting and ending the range's processes.
//!
//! Every process enters a control group of the range before it becomes what
//! it is to be, so that nothing it starts can get away. It gets a small
//! environment of its own: an `ORACLE_HOME` or `LOCKSTEP_*` of the caller
//! must not change a rehearsal.

use super::cgroup::Group;
use super::error::Error;
use super::wait;
use serde::Serialize;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

/// From the polite signal to SIGKILL. PostgreSQL's fast shutdown writes a
/// checkpoint, the slowest of all ends here.
const STOP_LIMIT: Duration = Duration::from_secs(15);

/// How much of a log goes into an error.
const LOG_TAIL: usize = 2000;

/// Enters the groups, then becomes the program. Arguments: how many
/// entrances, the entrances, the command.
const ENTER: &str = r#"n=$1; shift; while [ "$n" -gt 0 ]; do echo $$ >"$1" || exit 1; shift; n=$((n-1)); done; exec "$@""#;

/// A process to start.
#[derive(Debug)]
pub struct Launch {
    role: &'static str,
    name: String,
    argv: Vec<String>,
    env: Vec<(String, String)>,
    log: PathBuf,
    namespace: Option<u32>,
    user: Option<String>,
    stop_signal: i32,
}

impl Launch {
    /// A process `name` of kind `role` that runs `argv` and logs to `log`.
    pub fn new<S: Into<String>>(
        role: &'static str,
        name: impl Into<String>,
        argv: impl IntoIterator<Item = S>,
        log: PathBuf,
    ) -> Self {
        Self {
            role,
            name: name.into(),
            argv: argv.into_iter().map(Into::into).collect(),
            env: Vec::new(),
            log,
            namespace: None,
            user: None,
            stop_signal: libc::SIGTERM,
        }
    }

    /// Sets an environment variable.
    #[must_use]
    pub fn env(mut self, name: &str, value: impl AsRef<Path>) -> Self {
        self.env
            .push((name.to_owned(), value.as_ref().display().to_string()));
        self
    }

    /// Runs in the mount and host-name namespaces of that process.
    #[must_use]
    pub fn inside(mut self, pid: u32) -> Self {
        self.namespace = Some(pid);
        self
    }

    /// Runs as that user.
    #[must_use]
    pub fn run_by(mut self, user: Option<&str>) -> Self {
        self.user = user.map(str::to_owned);
        self
    }

    /// The signal that asks it to end, when not SIGTERM.
    #[must_use]
    pub fn stopped_by(mut self, signal: i32) -> Self {
        self.stop_signal = signal;
        self
    }

    fn command(&self, group: &Group) -> Vec<String> {
        let mut command: Vec<String> =
            vec!["/bin/sh".into(), "-c".into(), ENTER.into(), "enter".into()];
        let entrances = group.entrances();
        command.push(entrances.len().to_string());
        command.extend(entrances.iter().map(|path| path.display().to_string()));
        if let Some(pid) = self.namespace {
            command.extend(["nsenter", "--mount", "--uts", "--target"].map(String::from));
            command.extend([pid.to_string(), "--".into()]);
        }
        command.extend(as_user(self.user.as_deref()));
        command.extend(self.argv.iter().cloned());
        command
    }
}

/// What stands before a command to run it as another user.
pub(super) fn as_user(user: Option<&str>) -> Vec<String> {
    user.map_or_else(Vec::new, |user| {
        [
            "setpriv",
            "--reuid",
            user,
            "--regid",
            user,
            "--clear-groups",
        ]
        .map(String::from)
        .to_vec()
    })
}

/// A process of the range, as `processes.json` names it.
#[derive(Debug, Clone, Serialize)]
pub struct Listed {
    /// `coordinator`, `agent`, `oracle`, `postgres`, `dms`, `systemd`…
    pub role: String,
    /// Its name, such as the host's.
    pub name: String,
    pub pid: u32,
}

/// A process that the range started and will end.
#[derive(Debug)]
pub struct Process {
    /// How it is listed.
    pub listed: Listed,
    log: PathBuf,
    child: Child,
    stop_signal: i32,
}

impl Process {
    /// Starts it inside `group`.
    ///
    /// # Errors
    /// When the log can't be written or the program can't be started.
    pub fn start(launch: &Launch, group: &Group) -> Result<Self, Error> {
        use std::os::unix::process::CommandExt;
        if let Some(dir) = launch.log.parent() {
            std::fs::create_dir_all(dir).map_err(Error::file("create", dir))?;
        }
        let log = File::options()
            .create(true)
            .append(true)
            .open(&launch.log)
            .map_err(Error::file("open", &launch.log))?;
        let errors = log.try_clone().map_err(Error::file("open", &launch.log))?;
        let command = launch.command(group);
        let child = Command::new(&command[0])
            .args(&command[1..])
            .env_clear()
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("LANG", "C.UTF-8")
            .env("TZ", "UTC")
            .envs(launch.env.iter().map(|(k, v)| (k, v)))
            .current_dir("/")
            .stdin(Stdio::null())
            .stdout(log)
            .stderr(errors)
            // A group of its own: Ctrl-C at the terminal reaches the
            // rehearsal alone, which then ends everything in order.
            .process_group(0)
            .spawn()
            .map_err(|source| Error::Start {
                program: launch.argv.first().cloned().unwrap_or_default(),
                purpose: launch.name.clone(),
                source,
            })?;
        let listed = Listed {
            role: launch.role.to_owned(),
            name: launch.name.clone(),
            pid: child.id(),
        };
        Ok(Self {
            listed,
            log: launch.log.clone(),
            child,
            stop_signal: launch.stop_signal,
        })
    }

    /// Waits until `ready` says so; a process that ends meanwhile is an error
    /// with the end of its log.
    ///
    /// # Errors
    /// [`Error::NotReady`] with the log, or what `ready` fails with.
    pub fn wait_ready(
        &mut self,
        limit: Duration,
        mut ready: impl FnMut() -> bool,
    ) -> Result<(), Error> {
        let what = format!("{} {}", self.listed.role, self.listed.name);
        let result = wait::until(&what, limit, || {
            if let Ok(Some(status)) = self.child.try_wait() {
                return Err(Error::NotReady {
                    what: what.clone(),
                    how: format!("ended with {status}"),
                    log: String::new(),
                });
            }
            Ok(ready().then_some(()))
        });
        result.map_err(|error| match error {
            Error::NotReady { what, how, .. } => Error::NotReady {
                what,
                how,
                log: tail(&self.log),
            },
            other => other,
        })
    }

    /// Whether it still runs.
    pub fn is_running(&mut self) -> bool {
        matches!(self.child.try_wait(), Ok(None))
    }

    /// Ends it at once, as a power cut would.
    pub fn kill(&mut self) {
        // It may have ended by itself; then there is nothing to do.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// Sends it a signal.
    pub fn signal(&self, number: i32) {
        if let Ok(pid) = i32::try_from(self.listed.pid) {
            signal(pid, number);
        }
    }

    /// Asks it to end and waits; SIGKILL when it doesn't.
    pub fn stop(&mut self) {
        if !self.is_running() {
            return;
        }
        if let Ok(pid) = i32::try_from(self.listed.pid) {
            signal(pid, self.stop_signal);
        }
        let ended = wait::until_even_if_interrupted("its end", STOP_LIMIT, || {
            Ok((!self.is_running()).then_some(()))
        });
        if ended.is_err() {
            self.kill();
        }
    }
}

/// Sends a signal to one process. One that is gone is no error: the range
/// signals only what it started itself.
pub(super) fn signal(pid: i32, number: i32) {
    if pid > 1 {
        // SAFETY: kill(2) takes two integers and touches no memory of ours.
        let _ = unsafe { libc::kill(pid, number) };
    }
}

/// Runs a command to its end and gives what it printed.
///
/// # Errors
/// [`Error::Start`] or, with the output, [`Error::Command`].
pub fn run(purpose: &str, command: &mut Command) -> Result<String, Error> {
    let output = command
        .stdin(Stdio::null())
        .output()
        .map_err(|source| Error::Start {
            program: command.get_program().to_string_lossy().into_owned(),
            purpose: purpose.to_owned(),
            source,
        })?;
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    if output.status.success() {
        return Ok(printed);
    }
    let said = format!("{printed}{}", String::from_utf8_lossy(&output.stderr));
    Err(Error::Command {
        purpose: purpose.to_owned(),
        status: output.status.to_string(),
        output: last(&said).trim().to_owned(),
    })
}

/// The end of a log file, or nothing.
#[must_use]
pub fn tail(path: &Path) -> String {
    let text = std::fs::read(path).unwrap_or_default();
    last(&String::from_utf8_lossy(&text)).to_owned()
}

fn last(text: &str) -> &str {
    let mut from = text.len().saturating_sub(LOG_TAIL);
    while !text.is_char_boundary(from) {
        from += 1;
    }
    &text[from..]
}
