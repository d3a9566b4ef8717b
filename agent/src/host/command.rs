//! Running a program: arguments as a list, never through a shell.
//!
//! Output is forwarded line by line as it arrives. The program gets a process
//! group of its own and ends with the task, whether the task is cancelled,
//! times out, or the agent dies (R22).
//!
//! A program's exit status doesn't depend on what Oracle's client library does
//! with SIGCHLD ([`super::child`]).

use super::child::{Child, End};
use crate::error::ActionError;
use crate::host::context::Context;
use lockstep_api::Code;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncBufReadExt, AsyncRead, BufReader};

/// Output retained of one program, in bytes; the rest is only forwarded.
const KEPT_OUTPUT: usize = 1 << 20;
/// A shell exits within milliseconds, under load within a second.
const PROOF_LIMIT: Duration = Duration::from_secs(20);

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
    let not_started = |e: io::Error| {
        ActionError::new(Code::LS2110, format!("{name} can't be started"))
            .state_left("nothing was done")
            .remedy("see that the program exists and that the agent may run it")
            .source(e)
    };
    let mut child = spawn(program).map_err(not_started)?;
    let output = child.output();
    let lines = async {
        let (stdout, stderr) = output.unzip();
        let (mut out, mut err) = tokio::join!(read(cx, stdout), read(cx, stderr));
        out.append(&mut err);
        out
    };
    let work = async {
        let lines = lines.await;
        child.wait().await.map(|end| (end, lines))
    };
    let stopped = tokio::select! {
        ended = work => {
            return match ended {
                Ok((End::Ended(code), lines)) => Ok(Ended { code, lines }),
                Ok((End::NotStarted(e), _)) => Err(not_started(e)),
                Err(e) => Err(ActionError::new(
                    Code::LS2111,
                    format!("the end of {name} can't be awaited"),
                )
                .source(e)),
            };
        }
        () = tokio::time::sleep(program.limit) => {
            format!("{name} took longer than {} s", program.limit.as_secs())
        }
        () = cx.cancel.cancelled() => format!("{name} was cancelled"),
    };
    // Without a report of its end the kernel has killed it.
    let _ = child.kill().await;
    Err(ActionError::new(Code::LS2112, stopped)
        .state_left("the program was ended; what it had done is in effect")
        .remedy("check what it had done before a retry"))
}

/// Runs a program whose end is known, as proof that exit statuses arrive here
/// whatever the libraries of this process do with SIGCHLD.
///
/// # Errors
/// As [`run`], or where the exit status is another.
pub async fn prove_exit_statuses(cx: &Context) -> Result<(), ActionError> {
    const CODE: i32 = 7;
    let program = Program {
        path: Path::new("/bin/sh"),
        arguments: vec!["-c", "exit 7"],
        environment: vec![],
        limit: PROOF_LIMIT,
    };
    match run(cx, &program).await?.code {
        Some(CODE) => Ok(()),
        other => Err(ActionError::new(
            Code::LS2111,
            format!("a program that exits with {CODE} seems to have exited with {other:?}"),
        )),
    }
}

fn spawn(program: &Program<'_>) -> io::Result<Child> {
    let mut environment = BTreeMap::from([
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
    ]);
    environment.extend(program.environment.iter().copied());
    Child::spawn(program.path, program.arguments.iter().copied(), environment)
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
    async fn a_program_that_a_signal_ended_has_no_exit_code() {
        let cx = context(&Arc::default());
        let arguments = program(&["-c", "kill -9 $$"], Duration::from_secs(20));
        assert_eq!(run(&cx, &arguments).await.unwrap().code, None);
    }

    /// As a program is started by a shell or by systemd.
    #[tokio::test]
    async fn a_program_leads_its_group_and_handles_signals_by_default() {
        let cx = context(&Arc::default());
        // No child processes: a shell blocks signals while it starts one.
        let script = "read -r pid name state parent group rest < /proc/self/stat
            echo $group; echo $$
            while read -r line; do
                case $line in SigBlk*|SigIgn*) echo \"$line\";; esac
            done < /proc/self/status";
        let ended = run(&cx, &program(&["-c", script], Duration::from_secs(20)))
            .await
            .unwrap();
        let [group, process, blocked, ignored] = ended.lines.as_slice() else {
            panic!("{:?}", ended.lines);
        };
        assert_eq!(group, process);
        assert!(blocked.ends_with("0000000000000000"), "{blocked}");
        // Bits 13 and 17 of 1 to 64: SIGPIPE and SIGCHLD.
        let ignored = ignored.rsplit('\t').next().unwrap();
        let ignored = u64::from_str_radix(ignored, 16).unwrap();
        assert_eq!(ignored & (1 << 12 | 1 << 16), 0, "{ignored:x}");
    }

    /// The descriptors of the agent: its journal, its connections, its locks.
    #[tokio::test]
    async fn a_program_that_runs_holds_nothing_of_the_agent() {
        let (mine, other) = std::os::unix::net::UnixStream::pair().unwrap();
        let lines = Arc::default();
        let cx = context(&lines);
        let cancel = cx.cancel.clone();
        let work = tokio::spawn(async move {
            let script = program(&["-c", "echo up; sleep 600"], Duration::from_secs(60));
            run(&cx, &script).await
        });
        while !lines.lock().unwrap().contains(&Line::Output("up".into())) {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        drop(mine);
        other
            .set_read_timeout(Some(Duration::from_secs(20)))
            .unwrap();
        let read = std::io::Read::read(&mut &other, &mut [0]).unwrap();
        assert_eq!(read, 0, "the connection ends with the agent's descriptor");
        cancel.cancel();
        work.await.unwrap().unwrap_err();
    }

    #[tokio::test]
    async fn a_program_whose_task_is_dropped_ends() {
        let lines = Arc::default();
        let cx = context(&lines);
        let work = tokio::spawn(async move {
            let script = program(&["-c", "echo $$; sleep 600"], Duration::from_secs(60));
            run(&cx, &script).await
        });
        let pid = loop {
            let line = lines.lock().unwrap().first().cloned();
            match line {
                Some(Line::Output(pid)) => break pid,
                _ => tokio::time::sleep(Duration::from_millis(10)).await,
            }
        };
        work.abort();
        work.await.unwrap_err();
        while Path::new(&format!("/proc/{pid}")).exists() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    #[tokio::test]
    async fn the_proof_of_exit_statuses_holds() {
        prove_exit_statuses(&context(&Arc::default()))
            .await
            .unwrap();
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
