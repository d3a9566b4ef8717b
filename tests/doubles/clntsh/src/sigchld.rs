//! What a local login does to SIGCHLD.
//!
//! The server process of a bequeath connection is a child of the client, and
//! by default the real library sees to its end itself: it changes the process's
//! handling of SIGCHLD so that dead children are reaped, those of the
//! application too, whose `wait` then fails with ECHILD. `BEQUEATH_DETACH=YES`
//! in `sqlnet.ora` prevents that (Oracle Database Net Services Reference,
//! BEQUEATH_DETACH: "to turn signal handling on or off"; ruby-oci8, "Conflicts
//! between Local Connections and Child Process Handling on Unix").
//!
//! Which of the two ways of reaping the library uses isn't documented.
//! `LOCKSTEP_CLNTSH_SIGCHLD` selects one: `handler` (the default) or
//! `nocldwait`.

use std::path::PathBuf;

extern "C" fn reap(_signal: libc::c_int) {
    // SAFETY: waitpid is async-signal-safe, and errno is restored.
    unsafe {
        let errno = libc::__errno_location();
        let before = *errno;
        while libc::waitpid(-1, std::ptr::null_mut(), libc::WNOHANG) > 0 {}
        *errno = before;
    }
}

/// Changes the process's handling of SIGCHLD, unless `sqlnet.ora` forbids it.
pub fn take_over() {
    if detached() {
        return;
    }
    // SAFETY: sigaction is plain data, for which zeroes are valid; the handler
    // calls nothing that a handler may not.
    unsafe {
        let mut action: libc::sigaction = std::mem::zeroed();
        if std::env::var("LOCKSTEP_CLNTSH_SIGCHLD").is_ok_and(|way| way == "nocldwait") {
            action.sa_sigaction = libc::SIG_DFL;
            action.sa_flags = libc::SA_NOCLDWAIT;
        } else {
            action.sa_sigaction = reap as extern "C" fn(libc::c_int) as libc::sighandler_t;
            action.sa_flags = libc::SA_RESTART;
        }
        libc::sigaction(libc::SIGCHLD, &raw const action, std::ptr::null_mut());
    }
}

/// Whether `BEQUEATH_DETACH` is set, in `TNS_ADMIN` or else in the home.
fn detached() -> bool {
    let directory = match (
        std::env::var_os("TNS_ADMIN"),
        std::env::var_os("ORACLE_HOME"),
    ) {
        (Some(directory), _) => PathBuf::from(directory),
        (None, Some(home)) => PathBuf::from(home).join("network/admin"),
        (None, None) => return false,
    };
    let text = std::fs::read_to_string(directory.join("sqlnet.ora")).unwrap_or_default();
    text.lines().any(|line| {
        line.split_once('=').is_some_and(|(name, value)| {
            name.trim().eq_ignore_ascii_case("BEQUEATH_DETACH")
                && value.trim().eq_ignore_ascii_case("yes")
        })
    })
}
