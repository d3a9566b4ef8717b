//! A program as a child process whose exit status nobody else can take.
//!
//! Oracle's client library changes the process's handling of SIGCHLD at a local
//! login, so that the kernel or its own handler reaps every child, and `wait`
//! fails with ECHILD (Oracle Database Net Services Reference, BEQUEATH_DETACH;
//! ruby-oci8, "Conflicts between Local Connections and Child Process Handling on
//! Unix"). To change it back would leave the library's server processes as
//! zombies. So the agent doesn't wait for programs itself:
//!
//! ```text
//! agent ──── keeper (a fork that never execs) ──── program
//!   ▲           │ waits for the program, and writes its end to a pipe
//!   └───────────┘
//! ```
//!
//! The keeper handles SIGCHLD as the kernel does by default. It is cloned
//! without an exit signal, so neither the library's handler nor SA_NOCLDWAIT
//! reaps it: only `__WALL` does (wait(2), "clone children"; that holds because it
//! never execs, execve(2)). It leaves the program unreaped until it is
//! released, so that the program's process group can be killed without the
//! risk that its number means another group by then. If the agent dies, the
//! kernel kills the keeper, and then the program.
//!
//! Between fork and exec only async-signal-safe functions are called, because
//! other threads of the agent may have held locks at the fork.

use libc::{c_char, c_int, c_long, c_uint, pid_t};
use std::ffi::CString;
use std::io::{self, PipeReader, PipeWriter};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use tokio::io::AsyncReadExt;
use tokio::net::unix::pipe::Receiver;

/// Kinds of reports from the keeper; each is followed by a number.
const STARTED: c_int = 1;
const NOT_STARTED: c_int = 2;
const EXITED: c_int = 3;
const SIGNALLED: c_int = 4;

/// A kind and a number. Shorter than PIPE_BUF, so a report is read whole.
const REPORT_BYTES: usize = 8;

/// The end of a program.
#[derive(Debug)]
pub enum End {
    /// It could not be executed.
    NotStarted(io::Error),
    /// `None` if a signal ended it.
    Ended(Option<i32>),
}

/// A program that was started. Dropped before its end, it is killed with its
/// process group.
pub struct Child {
    keeper: pid_t,
    /// Known as soon as the keeper has reported it.
    program: Option<pid_t>,
    ended: bool,
    reports: Receiver,
    /// Closing it releases the keeper.
    release: Option<PipeWriter>,
    output: Option<(Receiver, Receiver)>,
}

impl Child {
    /// Starts a program in a process group of its own, without standard input,
    /// and with this environment only.
    ///
    /// # Errors
    /// If the operating system lacks resources, or an argument contains NUL.
    pub fn spawn<'a>(
        path: &Path,
        arguments: impl IntoIterator<Item = &'a str>,
        environment: impl IntoIterator<Item = (&'a str, &'a str)>,
    ) -> io::Result<Self> {
        let path = CString::new(path.as_os_str().as_bytes())?;
        let mut argv = vec![path.clone()];
        for argument in arguments {
            argv.push(CString::new(argument)?);
        }
        let mut envp = Vec::new();
        for (name, value) in environment {
            envp.push(CString::new(format!("{name}={value}"))?);
        }
        let (argv_pointers, envp_pointers) = (pointers(&argv), pointers(&envp));
        let null = std::fs::File::open("/dev/null")?;
        let (stdout, stdout_end) = io::pipe()?;
        let (stderr, stderr_end) = io::pipe()?;
        let (reports, report_end) = io::pipe()?;
        let (release_end, release) = io::pipe()?;
        let [stdout, stderr, reports] = [receiver(stdout)?, receiver(stderr)?, receiver(reports)?];
        let start = Start {
            agent: i32::try_from(std::process::id()).unwrap_or(0),
            path: path.as_ptr(),
            argv: argv_pointers.as_ptr(),
            envp: envp_pointers.as_ptr(),
            stdin: null.as_raw_fd(),
            stdout: stdout_end.as_raw_fd(),
            stderr: stderr_end.as_raw_fd(),
            reports: report_end.as_raw_fd(),
            release: release_end.as_raw_fd(),
        };
        // SAFETY: all pointers are to locals that live until the clone, which
        // copies them; both arrays end with null.
        let keeper = unsafe { fork_keeper(&start)? };
        Ok(Self {
            keeper,
            program: None,
            ended: false,
            reports,
            release: Some(release),
            output: Some((stdout, stderr)),
        })
    }

    /// Standard output and error; `None` the second time.
    pub fn output(&mut self) -> Option<(Receiver, Receiver)> {
        self.output.take()
    }

    /// Awaits the program's end. May be cancelled and called again.
    ///
    /// # Errors
    /// If the keeper was killed; the kernel has killed the program with it.
    pub async fn wait(&mut self) -> io::Result<End> {
        loop {
            if let Some(end) = self.report().await? {
                self.ended = true;
                return Ok(end);
            }
        }
    }

    /// Kills the program and its process group, and awaits its end.
    ///
    /// # Errors
    /// As [`Self::wait`].
    pub async fn kill(&mut self) -> io::Result<End> {
        while self.program.is_none() {
            if let Some(end) = self.report().await? {
                self.ended = true;
                return Ok(end);
            }
        }
        self.kill_group();
        self.wait().await
    }

    async fn report(&mut self) -> io::Result<Option<End>> {
        let mut report = [0; REPORT_BYTES];
        self.reports.read_exact(&mut report).await?;
        let [a, b, c, d, e, f, g, h] = report;
        let number = i32::from_ne_bytes([e, f, g, h]);
        match i32::from_ne_bytes([a, b, c, d]) {
            STARTED => {
                self.program = Some(number);
                Ok(None)
            }
            NOT_STARTED => Ok(Some(End::NotStarted(io::Error::from_raw_os_error(number)))),
            EXITED => Ok(Some(End::Ended(Some(number)))),
            SIGNALLED => Ok(Some(End::Ended(None))),
            _ => Err(io::ErrorKind::InvalidData.into()),
        }
    }

    fn kill_group(&self) {
        if let Some(group) = self.program {
            // SAFETY: a plain system call. The keeper hasn't reaped the leader
            // of the group, so no other group has this number.
            unsafe { libc::killpg(group, libc::SIGKILL) };
        }
    }
}

impl Drop for Child {
    fn drop(&mut self) {
        if !self.ended {
            self.kill_group();
            // The kernel kills the program when its parent dies, also where its
            // number isn't known yet.
            // SAFETY: a plain system call on a child that isn't waited for yet.
            unsafe { libc::kill(self.keeper, libc::SIGKILL) };
        }
        drop(self.release.take());
        // Killed or released, the keeper exits at once.
        // SAFETY: a plain system call; a null status is allowed.
        while unsafe { libc::waitpid(self.keeper, std::ptr::null_mut(), libc::__WALL) } < 0 {
            if io::Error::last_os_error().kind() != io::ErrorKind::Interrupted {
                break;
            }
        }
    }
}

fn pointers(texts: &[CString]) -> Vec<*const c_char> {
    let all = texts.iter().map(|text| text.as_ptr());
    all.chain([std::ptr::null()]).collect()
}

fn receiver(end: PipeReader) -> io::Result<Receiver> {
    Receiver::from_owned_fd(OwnedFd::from(end))
}

/// What the keeper needs. All descriptors close on exec.
struct Start {
    agent: pid_t,
    path: *const c_char,
    argv: *const *const c_char,
    envp: *const *const c_char,
    stdin: c_int,
    stdout: c_int,
    stderr: c_int,
    reports: c_int,
    release: c_int,
}

/// # Safety
/// The pointers of `start` are valid, and its arrays end with null.
unsafe fn fork_keeper(start: &Start) -> io::Result<pid_t> {
    // SAFETY: signal sets are plain data; the child calls only functions that
    // are async-signal-safe, and never returns.
    unsafe {
        let (mut all, mut before) = (std::mem::zeroed(), std::mem::zeroed());
        libc::sigfillset(&raw mut all);
        // A handler of the agent must not run in the keeper: the keeper shares
        // the pipes that handlers write to. Neither does a signal to the
        // agent's whole control group end the keeper before the program.
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const all, &raw mut before);
        let keeper = clone(0);
        if keeper == 0 {
            keep(start);
        }
        let error = io::Error::last_os_error();
        libc::pthread_sigmask(libc::SIG_SETMASK, &raw const before, std::ptr::null_mut());
        if keeper < 0 { Err(error) } else { Ok(keeper) }
    }
}

/// fork(2) with that exit signal, and without the C library's own handlers and
/// locks. Zero in the child, negative for an error. The order of the arguments
/// is that of x86-64 and arm64.
///
/// # Safety
/// The child may only call functions that are async-signal-safe.
unsafe fn clone(exit_signal: c_int) -> pid_t {
    let none: c_long = 0;
    // SAFETY: without CLONE_VM and a stack, this is fork(2).
    let child = unsafe {
        libc::syscall(
            libc::SYS_clone,
            c_long::from(exit_signal),
            none,
            none,
            none,
            none,
        )
    };
    // Process numbers have at most 22 bits.
    pid_t::try_from(child).unwrap_or(-1)
}

/// The keeper's life: starts the program, reports its end, waits for its release.
///
/// # Safety
/// As [`fork_keeper`], in a process that [`clone`] has just made.
unsafe fn keep(start: &Start) -> ! {
    // SAFETY: plain system calls on the process's own descriptors and child.
    unsafe {
        if !dies_with(start.agent) {
            report(start.reports, NOT_STARTED, errno());
            libc::_exit(1);
        }
        handle_signals_by_default();
        let keeper = libc::getpid();
        let program = clone(libc::SIGCHLD);
        if program == 0 {
            become_program(start, keeper);
        }
        if program < 0 {
            report(start.reports, NOT_STARTED, errno());
            libc::_exit(1);
        }
        // Held open they would outlive the agent's: its locks, its connections.
        close_all_but(start.reports, start.release);
        // Both parent and child do this, so that it is done for both.
        libc::setpgid(program, program);
        report(start.reports, STARTED, program);
        let mut info: libc::siginfo_t = std::mem::zeroed();
        let id = libc::id_t::try_from(program).unwrap_or(0);
        let kept = libc::WEXITED | libc::WNOWAIT;
        while libc::waitid(libc::P_PID, id, &raw mut info, kept) != 0 {
            if errno() != libc::EINTR {
                libc::_exit(1);
            }
        }
        let kind = if info.si_code == libc::CLD_EXITED {
            EXITED
        } else {
            SIGNALLED
        };
        report(start.reports, kind, info.si_status());
        let mut byte = 0u8;
        while libc::read(start.release, (&raw mut byte).cast(), 1) < 0 && errno() == libc::EINTR {}
        libc::waitpid(program, std::ptr::null_mut(), 0);
        libc::_exit(0)
    }
}

/// # Safety
/// As [`keep`].
unsafe fn become_program(start: &Start, keeper: pid_t) -> ! {
    // SAFETY: plain system calls; the pointers are valid by the caller's promise.
    // Descriptors 0 to 2 are open in every Rust program, so those of `start`
    // are others, and the copies stay open at the exec.
    unsafe {
        let mut none: libc::sigset_t = std::mem::zeroed();
        libc::sigemptyset(&raw mut none);
        let ready = dies_with(keeper)
            && libc::setpgid(0, 0) == 0
            && libc::dup2(start.stdin, 0) >= 0
            && libc::dup2(start.stdout, 1) >= 0
            && libc::dup2(start.stderr, 2) >= 0
            && libc::sigprocmask(libc::SIG_SETMASK, &raw const none, std::ptr::null_mut()) == 0;
        if ready {
            libc::execve(start.path, start.argv, start.envp);
        }
        report(start.reports, NOT_STARTED, errno());
        libc::_exit(127)
    }
}

/// Has the kernel kill this process when its parent ends; false if it has ended
/// already, or the kernel refuses.
///
/// # Safety
/// As [`keep`].
unsafe fn dies_with(parent: pid_t) -> bool {
    // SAFETY: plain system calls.
    unsafe { libc::prctl(libc::PR_SET_PDEATHSIG, libc::SIGKILL) == 0 && libc::getppid() == parent }
}

/// What the agent and its libraries have set is undone. Ignored signals stay
/// ignored, but for two: Rust ignores SIGPIPE, and a program that ignores SIGCHLD
/// can't await its own children.
///
/// # Safety
/// As [`keep`].
unsafe fn handle_signals_by_default() {
    // SAFETY: sigaction is plain data, for which zeroes are valid.
    unsafe {
        let mut default: libc::sigaction = std::mem::zeroed();
        default.sa_sigaction = libc::SIG_DFL;
        for signal in 1..=libc::SIGRTMAX() {
            let mut now: libc::sigaction = std::mem::zeroed();
            if libc::sigaction(signal, std::ptr::null(), &raw mut now) == 0
                && (now.sa_sigaction != libc::SIG_IGN
                    || matches!(signal, libc::SIGPIPE | libc::SIGCHLD))
            {
                libc::sigaction(signal, &raw const default, std::ptr::null_mut());
            }
        }
    }
}

/// # Safety
/// As [`keep`].
unsafe fn close_all_but(one: c_int, other: c_int) {
    let (low, high) = (one.min(other), one.max(other));
    for (first, last) in [(0, low - 1), (low + 1, high - 1), (high + 1, c_int::MAX)] {
        if first > last {
            continue;
        }
        // SAFETY: the process's own descriptors, which nothing else uses.
        unsafe {
            let (from, to) = (first.cast_unsigned(), last.cast_unsigned());
            let flags: c_uint = 0;
            // Linux has it since 5.9.
            if libc::syscall(libc::SYS_close_range, from, to, flags) == 0 {
                continue;
            }
            let mut limit: libc::rlimit = std::mem::zeroed();
            libc::getrlimit(libc::RLIMIT_NOFILE, &raw mut limit);
            let highest = c_int::try_from(limit.rlim_cur).unwrap_or(c_int::MAX);
            for descriptor in first..=last.min(highest) {
                libc::close(descriptor);
            }
        }
    }
}

/// # Safety
/// As [`keep`].
unsafe fn report(pipe: c_int, kind: c_int, number: c_int) {
    let [a, b, c, d] = kind.to_ne_bytes();
    let [e, f, g, h] = number.to_ne_bytes();
    let bytes: [u8; REPORT_BYTES] = [a, b, c, d, e, f, g, h];
    // SAFETY: the buffer has that length. If nobody reads any more, nobody
    // needs the report, and SIGPIPE is blocked.
    unsafe { libc::write(pipe, bytes.as_ptr().cast(), REPORT_BYTES) };
}

fn errno() -> c_int {
    // SAFETY: the location is the thread's own.
    unsafe { *libc::__errno_location() }
}
