//! Running a program: arguments as a list, never through a shell.
//!
//! Output is forwarded line by line as it arrives, within bounds for a line and for a
//! task, and what is beyond them is read and dropped. The program gets a process
//! group of its own and ends with the task, whether the task is cancelled,
//! times out, or the agent dies (R22).
//!
//! A program has ended when its process has. Another process that it left behind may
//! hold its output open for ever; its lines are forwarded for a short time only.
//!
//! A program's exit status doesn't depend on what Oracle's client library does
//! with SIGCHLD ([`super::child`]).

use super::child::{Child, End};
use super::work;
use crate::error::ActionError;
use crate::host::context::Context;
use lockstep_api::Code;
use std::collections::BTreeMap;
use std::io;
use std::path::Path;
use std::time::Duration;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::net::unix::pipe::Receiver;

/// Output retained of one stream of a program, in bytes; of the rest, which is only
/// forwarded, the last line is retained.
const KEPT_OUTPUT: usize = 1 << 20;
/// What a retained line costs besides its text, in bytes.
const LINE_COST: usize = size_of::<String>();
/// Longest line, in bytes; the rest of it is dropped. Tools of Oracle write no line as
/// long as this, and a message to the operator is shorter still.
const MAX_LINE: usize = 64 << 10;
/// Read at once, in bytes; the size of a pipe.
const CHUNK: usize = 64 << 10;
/// How long output is read after the program has ended. What it has written is in the
/// pipe already; only another process can keep the pipe open.
const DRAIN_LIMIT: Duration = Duration::from_millis(500);
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
    /// Whether what it starts, and leaves behind, is work of the task ([`work`]).
    pub tagged: bool,
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
    let mut child = spawn(cx, program).map_err(not_started)?;
    let mut output = Output::of(child.output());
    let stopped = tokio::select! {
        end = output.read_until_end(cx, &mut child) => {
            return match end {
                Ok(End::Ended(code)) => {
                    let lines = output.finish(cx, &program.path.display().to_string()).await;
                    Ok(Ended { code, lines })
                }
                Ok(End::NotStarted(e)) => Err(not_started(e)),
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
        tagged: false,
    };
    match run(cx, &program).await?.code {
        Some(CODE) => Ok(()),
        other => Err(ActionError::new(
            Code::LS2111,
            format!("a program that exits with {CODE} seems to have exited with {other:?}"),
        )),
    }
}

fn spawn(cx: &Context, program: &Program<'_>) -> io::Result<Child> {
    let work = work::tag(&cx.host.config.name, &cx.tag);
    let mut environment = BTreeMap::from([
        ("PATH", "/usr/sbin:/usr/bin:/sbin:/bin"),
        ("LANG", "C.UTF-8"),
    ]);
    environment.extend(program.environment.iter().copied());
    if program.tagged {
        environment.insert(work::VARIABLE, &work);
    }
    Child::spawn(program.path, program.arguments.iter().copied(), environment)
}

/// What a program writes.
struct Output {
    streams: Option<(Receiver, Receiver)>,
    lines: (Lines, Lines),
    /// Both streams have ended.
    complete: bool,
}

impl Output {
    fn of(streams: Option<(Receiver, Receiver)>) -> Self {
        Self {
            complete: streams.is_none(),
            streams,
            lines: (Lines::default(), Lines::default()),
        }
    }

    /// Reads both streams to their end.
    async fn read(&mut self, cx: &Context) {
        if let Some((stdout, stderr)) = &mut self.streams {
            let (out, err) = &mut self.lines;
            tokio::join!(read(cx, stdout, out), read(cx, stderr, err));
        }
        self.complete = true;
    }

    /// Reads until the program has ended.
    async fn read_until_end(&mut self, cx: &Context, child: &mut Child) -> io::Result<End> {
        tokio::select! {
            end = child.wait() => return end,
            () = self.read(cx) => {}
        }
        child.wait().await
    }

    /// Reads what the program had written when it ended, and gives all lines: those of
    /// standard output first.
    async fn finish(mut self, cx: &Context, name: &str) -> Vec<String> {
        if !self.complete {
            let drained = tokio::time::timeout(DRAIN_LIMIT, self.read(cx)).await;
            if drained.is_err() {
                cx.note(format!(
                    "{name} has ended; another process still holds its output, which is no \
                     longer forwarded"
                ));
            }
        }
        if let (false, Some(streams)) = (self.complete, self.streams.take()) {
            // A write to a pipe that nobody reads would end that process.
            tokio::spawn(discard(streams));
        }
        let (out, err) = self.lines;
        let mut lines = out.finish(cx);
        lines.append(&mut err.finish(cx));
        lines
    }
}

async fn discard((mut stdout, mut stderr): (Receiver, Receiver)) {
    let (mut out, mut err) = (tokio::io::sink(), tokio::io::sink());
    // Ends with the last process that holds the pipes; an error ends it, too.
    let _ = tokio::join!(
        tokio::io::copy(&mut stdout, &mut out),
        tokio::io::copy(&mut stderr, &mut err)
    );
}

/// Lines of one stream.
#[derive(Debug, Default)]
struct Lines {
    /// The line that hasn't ended yet.
    current: Vec<u8>,
    /// More of it was dropped.
    cut: bool,
    kept: Vec<String>,
    /// Size of those kept, in bytes.
    size: usize,
    /// The last line, where it isn't kept, and the number of lines that are not.
    last: Option<String>,
    omitted: u64,
}

impl Lines {
    fn take(&mut self, cx: &Context, chunk: &[u8]) {
        // Bytes, not text: a line may not be UTF-8.
        for part in chunk.split_inclusive(|byte| *byte == b'\n') {
            let (text, ends) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let room = MAX_LINE.saturating_sub(self.current.len());
            let fits = text.len().min(room);
            self.current
                .extend_from_slice(text.get(..fits).unwrap_or_default());
            self.cut |= fits < text.len();
            if ends {
                self.end_line(cx);
            }
        }
    }

    fn end_line(&mut self, cx: &Context) {
        let mut line = String::from_utf8_lossy(&self.current)
            .trim_end_matches('\r')
            .to_owned();
        if self.cut {
            line.push_str(" … [the rest of this line is cut]");
        }
        self.current.clear();
        self.cut = false;
        cx.output(line.clone());
        self.size = self.size.saturating_add(line.len() + LINE_COST);
        if self.size <= KEPT_OUTPUT {
            self.kept.push(line);
        } else {
            self.omitted += 1;
            self.last = Some(line);
        }
    }

    fn finish(mut self, cx: &Context) -> Vec<String> {
        if !self.current.is_empty() {
            self.end_line(cx);
        }
        if let Some(last) = self.last {
            if self.omitted > 1 {
                self.kept
                    .push(format!("[{} lines are cut]", self.omitted - 1));
            }
            self.kept.push(last);
        }
        self.kept
    }
}

/// Reads a stream to its end. Cancelled, it has lost nothing of what it has read.
async fn read(cx: &Context, stream: &mut (impl AsyncRead + Unpin), lines: &mut Lines) {
    let mut chunk = vec![0; CHUNK];
    while let Ok(read @ 1..) = stream.read(&mut chunk).await {
        lines.take(cx, chunk.get(..read).unwrap_or_default());
    }
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
            tagged: true,
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

    /// Resident memory of this process, in bytes.
    fn resident() -> usize {
        let status = std::fs::read_to_string("/proc/self/statm").unwrap();
        let pages: usize = status.split(' ').nth(1).unwrap().parse().unwrap();
        pages * 4096
    }

    #[tokio::test]
    async fn output_without_end_is_cut_and_costs_constant_memory() {
        for script in [
            "head -c 300000000 /dev/zero",
            "head -c 60000000 /dev/zero | tr '\\0' '\\n'",
            "yes 0123456789012345678901234567890123456789 | head -c 60000000",
        ] {
            let lines: Arc<Mutex<Vec<Line>>> = Arc::default();
            let bytes = Arc::new(Mutex::new(0));
            let (notes, forwarded) = (lines.clone(), bytes.clone());
            let mut cx = context(&Arc::default());
            cx.progress = Progress::to(move |line| match line {
                Line::Output(text) => *forwarded.lock().unwrap() += text.len(),
                line => notes.lock().unwrap().push(line),
            });
            let before = resident();
            let ended = run(&cx, &program(&["-c", script], Duration::from_secs(120)))
                .await
                .unwrap();
            assert_eq!(ended.code, Some(0), "{script}");
            let grown = resident().saturating_sub(before);
            assert!(grown < 64 << 20, "{script}: {grown} bytes");
            let kept: usize = ended.lines.iter().map(|line| line.len() + LINE_COST).sum();
            assert!(kept < 2 << 20, "{script}: {kept} bytes are retained");
            let bytes = *bytes.lock().unwrap();
            assert!(bytes <= 16 << 20, "{script}: {bytes} bytes were forwarded");
            let notes = lines.lock().unwrap();
            if script.starts_with("head -c 300000000") {
                assert!(ended.last_line().contains("is cut"), "{script}");
            } else {
                assert_eq!(notes.len(), 1, "{script}: {notes:?}");
                assert!(format!("{notes:?}").contains("cut here"), "{notes:?}");
            }
        }
    }

    #[tokio::test]
    async fn a_process_that_keeps_the_output_open_holds_up_nothing() {
        let lines = Arc::default();
        let mut cx = context(&lines);
        // Other tests run programs for the same task meanwhile.
        cx.tag.run = "keeps-output".to_owned();
        let began = std::time::Instant::now();
        let script = "echo before; sleep 600 & echo $!; exit 4";
        let ended = run(&cx, &program(&["-c", script], Duration::from_secs(60)))
            .await
            .unwrap();
        assert!(began.elapsed() < Duration::from_secs(30));
        assert_eq!(ended.code, Some(4));
        let [before, pid] = ended.lines.as_slice() else {
            panic!("{:?}", ended.lines);
        };
        assert_eq!(before, "before");
        let noted = format!("{:?}", lines.lock().unwrap());
        assert!(noted.contains("still holds its output"), "{noted}");
        let left = work::left_behind("a", "keeps-output", "s");
        assert_eq!(left.len(), 1, "{left:?}");
        let pid: i32 = pid.parse().unwrap();
        assert_eq!(left[0].pid, pid);
        rustix::process::kill_process(
            rustix::process::Pid::from_raw(pid).unwrap(),
            rustix::process::Signal::KILL,
        )
        .unwrap();
        while !work::left_behind("a", "keeps-output", "s").is_empty() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
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
            tagged: false,
        };
        let error = run(&cx, &missing).await.unwrap_err();
        assert!(
            error.report().contains("/nowhere/at-all"),
            "{}",
            error.report()
        );
    }
}
