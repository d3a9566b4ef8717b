//! A daemon of a fleet: started, signalled, ended.

use super::{binary, until};
use std::fs::File;
use std::path::Path;
use std::process::{Child, Command, Stdio};

/// Spans leave that often, so that a test needn't wait the usual 5 s.
const SPAN_DELAY_MS: &str = "100";

/// A running daemon. Dropping it is `kill -9`.
pub struct Daemon {
    child: Child,
}

impl Daemon {
    /// Starts it with these arguments and environment; its output goes to the end of
    /// `log`.
    pub fn start(
        name: &str,
        config: &Path,
        (arguments, environment): (&[&str], &[(&str, &str)]),
        log: &Path,
    ) -> Self {
        let log = File::options().create(true).append(true).open(log).unwrap();
        let child = Command::new(binary(name))
            .arg("--config")
            .arg(config)
            .args(arguments)
            .env_clear()
            .env("OTEL_BSP_SCHEDULE_DELAY", SPAN_DELAY_MS)
            .envs(environment.iter().copied())
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log)
            .spawn()
            .unwrap();
        Self { child }
    }

    pub fn signal(&self, signal: libc::c_int) {
        let pid = i32::try_from(self.child.id()).unwrap();
        // SAFETY: plain system call; the child has not been waited for, so
        // its id can't be anybody else's.
        let sent = unsafe { libc::kill(pid, signal) };
        assert_eq!(sent, 0, "{}", std::io::Error::last_os_error());
    }

    /// Tells it to end, and waits until it has, in good order.
    pub fn stop(&mut self) {
        self.signal(libc::SIGTERM);
        let status = until("a daemon to end", || self.child.try_wait().unwrap());
        assert!(status.success(), "{status}");
    }

    /// How it ended, once it has.
    pub fn ended(&mut self) -> Option<std::process::ExitStatus> {
        self.child.try_wait().unwrap()
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // It may have ended by itself; then there is nothing to kill.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
