//! Running a program: arguments as a list, never through a shell.
//!
//! Output is forwarded line by line as it arrives. The program gets a process
//! group of its own and ends with the task, whether the task is cancelled,
//! times out, or the agent dies (R22).

use crate::error::ActionError;
use crate::host::context::Context;
use lockstep_api::Code;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitStatus, Stdio};
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};
use tokio::process::{Child, Command};

/// Output retained of one program, in bytes; the rest is only forwarded.
const KEPT_OUTPUT: usize = 1 << 20;

#[derive(Debug, Clone)]
pub struct Program<'a> {
    /// The program, by absolute path.
    pub path: &'a Path,
    pub arguments: Vec<&'a str>,
    /// Its whole environment, apart from `PATH` and `LANG`.
    pub environment: Vec<(&'a str, &'a str)>,
    /// How long it may run.
    pub limit: Duration,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Ended {
    /// `None` where a signal ended it.
    pub code: Option<i32>,
    /// Standard output and error, in the order in which lines arrived.
    pub lines: Vec<String>,
}

impl Ended {
    /// The last line that isn't blank, for error messages.
    pub fn last_line(&self) -> &str {
        self.lines
            .iter()
            .rev()
            .map(|line| line.trim())
            .find(|line| !line.is_empty())
            .unwrap_or("")
    }

    pub fn text(&self) -> String {
        self.lines.join("\n")
    }
}

/// Runs a program until it exits.
///
/// # Errors
/// Where it can't be started, takes too long, or the task is cancelled. A
/// non-zero exit code is a result, not an error.
pub async fn run(cx: &Context, program: &Program<'_>) -> Result<Ended, ActionError> {
    let name = program.path.display();
    let mut child = spawn(program).map_err(|e| {
        ActionError::new(Code::LS2110, format!("{name} can't be started"))
            .state_left("nothing was done")
            .remedy("see that the program exists and that the agent may run it")
            .source(e)
    })?;
    let (stdout, stderr) = (child.stdout.take(), child.stderr.take());
    let lines = async {
        let (mut out, mut err) = tokio::join!(read(cx, stdout), read(cx, stderr));
        out.append(&mut err);
        out
    };
    let work = async {
        let lines = lines.await;
        child.wait().await.map(|status| Ended {
            code: code(status),
            lines,
        })
    };
    let stopped = tokio::select! {
        ended = work => {
            return ended.map_err(|e| {
                ActionError::new(Code::LS2111, format!("the end of {name} can't be awaited")).source(e)
            });
        }
        () = tokio::time::sleep(program.limit) => {
            format!("{name} took longer than {} s", program.limit.as_secs())
        }
        () = cx.cancel.cancelled() => format!("{name} was cancelled"),
    };
    end_group(&mut child).await;
    Err(ActionError::new(Code::LS2112, stopped)
        .state_left("the program was ended; what it had done is in effect")
        .remedy("check what it had done before a retry"))
}

fn spawn(program: &Program<'_>) -> std::io::Result<Child> {
    let mut command = Command::new(program.path);
    command
        .args(&program.arguments)
        .env_clear()
        .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
        .env("LANG", "C.UTF-8")
        .envs(program.environment.iter().copied())
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .process_group(0)
        .kill_on_drop(true);
    // SAFETY: prctl is async-signal-safe and touches only the new process.
    unsafe {
        command.pre_exec(|| {
            if libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 {
                Ok(())
            } else {
                Err(std::io::Error::last_os_error())
            }
        });
    }
    command.spawn()
}

async fn read(cx: &Context, stream: Option<impl AsyncRead + Unpin>) -> Vec<String> {
    let Some(stream) = stream else {
        return Vec::new();
    };
    let mut stream = BufReader::new(stream);
    let (mut lines, mut bytes, mut read) = (Vec::new(), 0, Vec::new());
    // Bytes, not text: to stop reading at a line that isn't UTF-8 would close
    // the pipe and kill the program with SIGPIPE.
    while matches!(stream.read_until(b'\n', &mut read).await, Ok(1..)) {
        let text = String::from_utf8_lossy(&read);
        let line = text.trim_end_matches(['\r', '\n']).to_owned();
        read.clear();
        cx.output(line.clone());
        bytes += line.len();
        if bytes <= KEPT_OUTPUT {
            lines.push(line);
        }
    }
    lines
}

fn code(status: ExitStatus) -> Option<i32> {
    match status.signal() {
        Some(_) => None,
        None => status.code(),
    }
}

async fn end_group(child: &mut Child) {
    if let Some(group) = child.id().and_then(|id| i32::try_from(id).ok()) {
        // SAFETY: plain system call; the group is the child's own, and the
        // child has not been waited for, so its id can't be anybody else's.
        unsafe {
            libc::killpg(group, libc::SIGKILL);
        }
    }
    // Killed above, so this returns.
    let _ = child.wait().await;
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;
    use crate::host::Host;
    use crate::host::context::{Line, Progress, WorkId};
    use std::sync::{Arc, Mutex};
    use tokio_util::sync::CancellationToken;

    fn context(lines: &Arc<Mutex<Vec<Line>>>) -> Context {
        let least = "name='a'\ncoordinator='c'\nstate_dir='/s'\n[tls]\nca='a'\ncert='b'\nkey='c'\ntrust_domain='t'\n";
        let config: Config = toml::from_str(least).unwrap();
        let lines = lines.clone();
        Context {
            host: Arc::new(Host::new(config)),
            tag: WorkId {
                run: "r".into(),
                step: "s".into(),
                attempt: 1,
                of: None,
            },
            cancel: CancellationToken::new(),
            progress: Progress::to(move |line| lines.lock().unwrap().push(line)),
        }
    }

    fn program<'a>(arguments: &[&'a str], limit: Duration) -> Program<'a> {
        let path = Path::new("/bin/sh");
        Program {
            path,
            arguments: arguments.to_vec(),
            environment: vec![("GIVEN", "yes")],
            limit,
        }
    }

    #[tokio::test]
    async fn output_comes_live_and_the_exit_code_is_told() {
        let lines = Arc::default();
        let cx = context(&lines);
        let script = "echo one; echo \"$GIVEN $HOME\" >&2; exit 3";
        let ended = run(&cx, &program(&["-c", script], Duration::from_secs(20)))
            .await
            .unwrap();
        assert_eq!(ended.code, Some(3));
        assert_eq!(
            ended.lines,
            ["one", "yes "],
            "only the given environment is seen"
        );
        assert!(lines.lock().unwrap().contains(&Line::Output("one".into())));
    }

    #[tokio::test]
    async fn a_line_in_another_encoding_neither_ends_the_program_nor_hides_the_rest() {
        let cx = context(&Arc::default());
        let script =
            "printf 'Z\\351\\n'; i=0; while [ $i -lt 20000 ]; do echo $i; i=$((i+1)); done";
        let ended = run(&cx, &program(&["-c", script], Duration::from_secs(60)))
            .await
            .unwrap();
        assert_eq!(ended.code, Some(0), "{:?}", ended.lines.first());
        assert_eq!(ended.lines[0], "Z\u{fffd}");
        assert_eq!(ended.last_line(), "19999");
    }

    #[tokio::test]
    async fn a_cancelled_program_ends_with_all_it_started() {
        let dir = tempfile::tempdir().unwrap();
        let pid_file = dir.path().join("pid");
        let script = format!("sleep 600 & echo $! > {}; wait", pid_file.display());
        let cx = context(&Arc::default());
        let cancel = cx.cancel.clone();
        let work = tokio::spawn(async move {
            run(&cx, &program(&["-c", &script], Duration::from_secs(60))).await
        });
        let pid = loop {
            match std::fs::read_to_string(&pid_file)
                .ok()
                .and_then(|t| t.trim().parse::<i32>().ok())
            {
                Some(pid) => break pid,
                None => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        cancel.cancel();
        let error = work.await.unwrap().unwrap_err();
        assert_eq!(error.code(), Code::LS2112);
        let has_ended = || {
            let stat = std::fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
            stat.is_empty() || stat.contains(") Z")
        };
        while !has_ended() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn a_program_that_is_not_there_is_an_error_that_names_it() {
        let cx = context(&Arc::default());
        let missing = Program {
            path: Path::new("/nowhere/at-all"),
            arguments: vec![],
            environment: vec![],
            limit: Duration::from_secs(1),
        };
        let error = run(&cx, &missing).await.unwrap_err();
        assert!(
            error.report().contains("/nowhere/at-all"),
            "{}",
            error.report()
        );
    }
}
