//! Processes by their executable.
//!
//! `/proc/PID/exe` names the file that runs, with all links resolved (proc(5)), so the
//! policy's name is resolved, too.

use crate::config::ProcessPolicy;
use crate::error::ActionError;
use lockstep_api::Code;
use rustix::io::Errno;
use rustix::process::{Pid, Signal, kill_process, test_kill_process};
use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, Read as _};
use std::os::unix::ffi::OsStrExt as _;
use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// A program has its arguments microseconds after its executable; one that has
/// none after so many reads, a millisecond apart, has cleared them.
const LOOKS_AT_ARGUMENTS: u32 = 20;

/// A process; its start time distinguishes it from a later one with the same
/// PID.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    pid: i32,
    started: u64,
    /// Its user, by name where the host's own user database has one.
    user: String,
    command: String,
    /// The systemd unit that it belongs to, which may start it again.
    pub unit: Option<String>,
}

impl fmt::Display for Found {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} of {} ({})", self.pid, self.user, self.command)
    }
}

/// The executable of an entry of the policy, in all the ways that a process can show
/// it.
struct Executable<'a> {
    /// As the policy names it.
    named: &'a Path,
    /// With its links resolved; as named where it doesn't exist (any more).
    resolved: PathBuf,
    /// Device and inode of the file: a process may have reached it by another hard link
    /// or through a bind mount.
    file: Option<(u64, u64)>,
}

impl<'a> Executable<'a> {
    fn of(named: &'a Path) -> Self {
        Self {
            named,
            resolved: named.canonicalize().unwrap_or_else(|_| named.to_owned()),
            file: fs::metadata(named).ok().map(|found| identity(&found)),
        }
    }

    /// Whether this is the program of a process, which has `exe` in /proc.
    fn runs_as(&self, pid: i32, exe: &Path) -> bool {
        let shown = exe.as_os_str().as_bytes();
        // Appended to the path of an executable that was replaced or removed while it
        // runs (proc(5)): an upgraded program still matches.
        let removed = shown.strip_suffix(b" (deleted)");
        let path = removed.unwrap_or(shown);
        let by_path = [self.named, &self.resolved]
            .iter()
            .any(|known| known.as_os_str().as_bytes() == path);
        // Stat of /proc/PID/exe is that of the file itself, whatever its name.
        let by_file = || {
            let running = fs::metadata(format!("/proc/{pid}/exe")).ok();
            running.is_some_and(|running| self.file == Some(identity(&running)))
        };
        // An upgrade may have pointed the link at another version meanwhile.
        let by_call = || removed.is_some() && self.is_called_by(pid);
        by_path || by_file() || by_call()
    }

    /// Whether the process was started by this name.
    fn is_called_by(&self, pid: i32) -> bool {
        let arguments = arguments(pid).unwrap_or_default();
        let called = arguments.first().map(Path::new);
        called == Some(self.named) || called == Some(&self.resolved)
    }

    /// Whether a process whose executable can't be read may be of this program: by its
    /// call, or by its name, of which the kernel retains 15 bytes (proc(5), comm).
    fn may_run_as(&self, pid: i32) -> bool {
        const COMM: usize = 15;
        let comm = fs::read(format!("/proc/{pid}/comm")).unwrap_or_default();
        let comm = comm.strip_suffix(b"\n").unwrap_or(&comm);
        let named = [self.named, &self.resolved].iter().any(|known| {
            let name = known.file_name().unwrap_or_default().as_bytes();
            &name[..name.len().min(COMM)] == comm
        });
        named || self.is_called_by(pid)
    }
}

fn identity(file: &Metadata) -> (u64, u64) {
    (file.dev(), file.ino())
}

/// Every process that the policy's entry of this name matches.
///
/// # Errors
/// LS2152 where it can't be said whether a process is one of them.
pub fn find(name: &str, policy: &ProcessPolicy) -> Result<Vec<Found>, ActionError> {
    let unknown = |what: String, e: io::Error| {
        ActionError::new(Code::LS2152, what)
            .state_left("nothing was done to it")
            .remedy(format!(
                "run the agent as root with CAP_SYS_PTRACE, or as the user of the processes of \
                 policy.processes.{name}"
            ))
            .source(e)
    };
    let entries = fs::read_dir("/proc")
        .and_then(|entries| fs::metadata("/proc/1").map(|_| entries))
        .map_err(|e| {
            // With the mount option hidepid=2, other users' processes aren't listed.
            unknown("the processes of this host can't be listed".to_owned(), e)
        })?;
    let executable = Executable::of(&policy.exe);
    let mut all = Vec::new();
    for entry in entries.flatten() {
        let Some(pid) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.parse().ok())
        else {
            continue;
        };
        match fs::read_link(format!("/proc/{pid}/exe")) {
            Ok(exe) if executable.runs_as(pid, &exe) => all.extend(describe(pid, policy)),
            Ok(_) => {}
            Err(e) if e.kind() == io::ErrorKind::PermissionDenied => {
                let may_be = executable.may_run_as(pid) && has_argument(pid, policy);
                if may_be && started(pid).is_some() {
                    let what = format!("the executable of the process {pid} can't be read");
                    return Err(unknown(what, e));
                }
            }
            // Ended meanwhile, or a thread of the kernel, which has none.
            Err(_) => {}
        }
    }
    Ok(all)
}

/// Whether the process has the argument of the policy, if that asks for one.
fn has_argument(pid: i32, policy: &ProcessPolicy) -> bool {
    match &policy.argument {
        Some(wanted) => arguments(pid).is_some_and(|arguments| arguments.contains(wanted)),
        None => true,
    }
}

fn describe(pid: i32, policy: &ProcessPolicy) -> Option<Found> {
    let started = has_argument(pid, policy).then(|| started(pid)).flatten()?;
    let uid = fs::metadata(format!("/proc/{pid}")).ok()?.uid();
    // Only the fields of the policy: arguments may hold a password.
    let shown = [
        Some(policy.exe.display().to_string()),
        policy.argument.clone(),
    ];
    Some(Found {
        pid,
        started,
        user: user(uid),
        unit: unit(&fs::read_to_string(format!("/proc/{pid}/cgroup")).unwrap_or_default()),
        command: shown.into_iter().flatten().collect::<Vec<_>>().join(" "),
    })
}

/// The service whose control group this is, from /proc/PID/cgroup (cgroups(7)): version
/// 2 has one line, `0::/system.slice/shop.service`; version 1 one for each hierarchy.
fn unit(cgroups: &str) -> Option<String> {
    let mut paths = cgroups
        .lines()
        .filter_map(|line| line.splitn(3, ':').nth(2));
    let service = |path: &str| {
        let mut groups = path.rsplit('/');
        let unit = groups.find(|group| group.ends_with(".service") || group.ends_with(".scope"))?;
        // A scope is a login session or a container: nothing starts it again by itself.
        unit.ends_with(".service").then(|| unit.to_owned())
    };
    paths.find_map(service)
}

/// The name of a user in /etc/passwd, otherwise its number: other databases of users
/// may be across a network.
fn user(uid: u32) -> String {
    let passwd = fs::read_to_string("/etc/passwd").unwrap_or_default();
    let number = uid.to_string();
    let entry = passwd
        .lines()
        .map(|line| line.split(':').collect::<Vec<_>>())
        .find(|fields| fields.get(2) == Some(&number.as_str()));
    entry.map_or(number.clone(), |fields| fields[0].to_owned())
}

/// Why no process can ever have this executable; `None` if one can.
pub fn impossible(exe: &Path) -> Option<String> {
    match fs::metadata(exe) {
        // In a directory that the agent can't enter, it may exist.
        Err(e) if e.kind() == io::ErrorKind::PermissionDenied => return None,
        Err(e) => return Some(e.to_string()),
        Ok(found) if !found.is_file() => return Some("it is not a file".to_owned()),
        Ok(found) if found.mode() & 0o111 == 0 => {
            return Some("it is not executable".to_owned());
        }
        Ok(_) => {}
    }
    let mut start = [0; 256];
    let length = fs::File::open(exe)
        .and_then(|mut file| file.read(&mut start))
        .ok()?;
    let line = start[..length].strip_prefix(b"#!")?;
    let line = line.split(|byte| *byte == b'\n').next()?;
    Some(format!(
        "it is a script, whose processes run its interpreter ({}): write the interpreter as exe, \
         and {} as argument",
        String::from_utf8_lossy(line).trim(),
        exe.display()
    ))
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

/// Sends a signal; `false` if the process has ended.
///
/// # Errors
/// LS2153 where the agent isn't permitted to.
pub fn signal(process: &Found, signal: Signal) -> Result<bool, ActionError> {
    if started(process.pid) != Some(process.started) {
        return Ok(false);
    }
    // The start time was checked just before, so the PID is still that of the process
    // found.
    match Pid::from_raw(process.pid).map(|pid| kill_process(pid, signal)) {
        None | Some(Err(Errno::SRCH)) => Ok(false),
        Some(Ok(())) => Ok(true),
        Some(Err(e)) => Err(forbidden(process, e)),
    }
}

/// Whether the process can be signalled, without a signal (kill(2), signal 0).
///
/// # Errors
/// LS2153 where the agent isn't permitted to.
pub fn may_signal(process: &Found) -> Result<(), ActionError> {
    match Pid::from_raw(process.pid).map(test_kill_process) {
        Some(Err(e)) if e != Errno::SRCH => Err(forbidden(process, e)),
        _ => Ok(()),
    }
}

fn forbidden(process: &Found, source: Errno) -> ActionError {
    ActionError::new(
        Code::LS2153,
        format!("the process {process} can't be ended"),
    )
    .state_left("it is still running")
    .remedy("run the agent as root with CAP_KILL, or as the user of the process")
    .source(io::Error::from(source))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::process::{Child, Command};

    fn policy(exe: &Path, argument: Option<&str>) -> ProcessPolicy {
        ProcessPolicy {
            exe: exe.to_owned(),
            argument: argument.map(str::to_owned),
        }
    }

    fn end(mut child: Child) {
        child.kill().unwrap();
        child.wait().unwrap();
    }

    fn pids(policy: &ProcessPolicy) -> Vec<u32> {
        let found = find("batch", policy).unwrap();
        found
            .iter()
            .map(|one| u32::try_from(one.pid).unwrap())
            .collect()
    }

    #[test]
    fn a_process_is_known_after_its_program_was_replaced_and_its_secrets_are_not_told() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("batch");
        fs::copy("/bin/sleep", &exe).unwrap();
        let child = Command::new(&exe).args(["600", "1"]).spawn().unwrap();
        fs::remove_file(&exe).unwrap();
        let found = find("batch", &policy(&exe, Some("600")));
        end(child);
        let found = found.unwrap();
        let commands: Vec<&str> = found.iter().map(|one| one.command.as_str()).collect();
        assert_eq!(commands, [format!("{} 600", exe.display())]);
    }

    /// A link, a link among its directories, and another hard link.
    #[test]
    fn a_process_is_known_by_every_name_of_its_program() {
        let dir = tempfile::tempdir().unwrap();
        let home = dir.path().join("batch-2.1");
        fs::create_dir(&home).unwrap();
        let exe = home.join("batch-2");
        fs::copy("/bin/sleep", &exe).unwrap();
        let (link, current, other) = (
            dir.path().join("batch"),
            dir.path().join("current"),
            dir.path().join("other"),
        );
        std::os::unix::fs::symlink(&exe, &link).unwrap();
        std::os::unix::fs::symlink(&home, &current).unwrap();
        fs::hard_link(&exe, &other).unwrap();
        let names = [exe, link.clone(), current.join("batch-2"), other];
        for started in &names {
            let child = Command::new(started).arg("600").spawn().unwrap();
            let pid = child.id();
            let seen: Vec<_> = names
                .iter()
                .map(|name| (name, pids(&policy(name, None))))
                .collect();
            end(child);
            for (name, seen) in seen {
                assert_eq!(seen, [pid], "{} as {}", started.display(), name.display());
            }
        }
    }

    #[test]
    fn a_process_is_known_after_the_link_was_pointed_at_a_new_version() {
        let dir = tempfile::tempdir().unwrap();
        let (old, new) = (dir.path().join("batch-1"), dir.path().join("batch-2"));
        let link = dir.path().join("batch");
        fs::copy("/bin/sleep", &old).unwrap();
        fs::copy("/bin/sleep", &new).unwrap();
        std::os::unix::fs::symlink(&old, &link).unwrap();
        let child = Command::new(&link).arg("600").spawn().unwrap();
        let pid = child.id();
        fs::remove_file(&old).unwrap();
        fs::remove_file(&link).unwrap();
        std::os::unix::fs::symlink(&new, &link).unwrap();
        let seen = pids(&policy(&link, Some("600")));
        end(child);
        assert_eq!(seen, [pid]);
    }

    #[test]
    fn a_name_that_no_process_can_have_is_recognised() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(impossible(Path::new("/bin/sleep")), None);
        let script = dir.path().join("importer");
        fs::write(&script, "#!/usr/bin/python3 -u\nprint()\n").unwrap();
        let data = impossible(&script).unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
        fs::set_permissions(&script, mode).unwrap();
        let why = impossible(&script).unwrap();
        assert!(why.contains("/usr/bin/python3 -u"), "{why}");
        assert!(!data.contains("script"), "not executable: {data}");
        assert!(impossible(dir.path()).is_some());
        assert!(impossible(&dir.path().join("none")).is_some());
    }

    #[test]
    fn a_process_whose_executable_can_not_be_read_is_recognised_by_its_name() {
        let dir = tempfile::tempdir().unwrap();
        let exe = dir.path().join("a-name-of-twenty-bytes");
        fs::copy("/bin/sleep", &exe).unwrap();
        let child = Command::new(&exe).arg("600").spawn().unwrap();
        let pid = i32::try_from(child.id()).unwrap();
        let (this, other) = (Executable::of(&exe).may_run_as(pid), Path::new("/bin/cat"));
        let other = Executable::of(other).may_run_as(pid);
        end(child);
        assert!(this);
        assert!(!other);
    }

    #[test]
    fn the_unit_of_a_process_is_read_from_its_control_group() {
        for (cgroups, expected) in [
            ("0::/system.slice/shop.service\n", Some("shop.service")),
            (
                "0::/system.slice/shop.service/worker\n",
                Some("shop.service"),
            ),
            (
                "4:cpu:/\n1:name=systemd:/system.slice/shop.service\n0::/\n",
                Some("shop.service"),
            ),
            ("0::/user.slice/user-0.slice/session-3.scope\n", None),
            (
                "0::/user.slice/user@0.service/app.slice/run-7.scope\n",
                None,
            ),
            ("0::/\n", None),
            ("", None),
        ] {
            assert_eq!(unit(cgroups).as_deref(), expected, "{cgroups}");
        }
    }
}
