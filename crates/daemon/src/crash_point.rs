//! Crash points: named places at which a test ends a daemon as `kill -9` does.
//!
//! `LOCKSTEP_CRASH_AT=after-append:3` ends the process at the third passage of that
//! place, and `LOCKSTEP_CRASH_LOG=FILE` appends the name of every place that is passed.
//! Both exist only in builds with debug assertions; in a release build
//! [`CrashPoint::pass`] is empty.

/// A place where a daemon may die.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CrashPoint {
    /// Records are decided and not yet on disk.
    BeforeAppend,
    /// Records are on disk, and nothing that relies on them has happened.
    AfterAppend,
    /// An order or a reply is about to be sent.
    BeforeSend,
    /// It was passed to the connection.
    AfterSend,
    /// A message of the other side has arrived and has had no effect.
    BeforeReceive,
    /// The state machine has decided what follows from the message.
    AfterReceive,
    /// An action's intent is on disk, and the action has not begun.
    BeforeAction,
    /// The action has ended, and its outcome is recorded nowhere.
    AfterAction,
}

impl CrashPoint {
    /// All of them, in the order of a task's life.
    pub const ALL: [Self; 8] = [
        Self::BeforeReceive,
        Self::AfterReceive,
        Self::BeforeAppend,
        Self::AfterAppend,
        Self::BeforeAction,
        Self::AfterAction,
        Self::BeforeSend,
        Self::AfterSend,
    ];

    /// The name in `LOCKSTEP_CRASH_AT`.
    pub fn name(self) -> &'static str {
        match self {
            Self::BeforeAppend => "before-append",
            Self::AfterAppend => "after-append",
            Self::BeforeSend => "before-send",
            Self::AfterSend => "after-send",
            Self::BeforeReceive => "before-receive",
            Self::AfterReceive => "after-receive",
            Self::BeforeAction => "before-action",
            Self::AfterAction => "after-action",
        }
    }

    /// The process passes this place, and may end here.
    #[cfg(debug_assertions)]
    pub fn pass(self) {
        enabled::pass(self);
    }

    /// The process passes this place.
    #[cfg(not(debug_assertions))]
    pub fn pass(self) {}
}

#[cfg(debug_assertions)]
mod enabled {
    use super::CrashPoint;
    use std::io::Write as _;
    use std::sync::LazyLock;
    use std::sync::atomic::{AtomicU64, Ordering};

    /// The place to die at, and the passages left until then.
    static CRASH_AT: LazyLock<Option<(String, AtomicU64)>> = LazyLock::new(|| {
        let text = std::env::var("LOCKSTEP_CRASH_AT").ok()?;
        let (name, passage) = text.split_once(':')?;
        Some((name.to_owned(), AtomicU64::new(passage.parse().ok()?)))
    });

    static LOG: LazyLock<Option<std::path::PathBuf>> =
        LazyLock::new(|| std::env::var_os("LOCKSTEP_CRASH_LOG").map(Into::into));

    pub(super) fn pass(point: CrashPoint) {
        if let Some(path) = &*LOG {
            let file = std::fs::File::options()
                .create(true)
                .append(true)
                .open(path);
            // A test that finds no line fails by itself.
            let _ = file.and_then(|mut file| writeln!(file, "{}", point.name()));
        }
        let Some((name, left)) = &*CRASH_AT else {
            return;
        };
        if name == point.name() && left.fetch_sub(1, Ordering::SeqCst) == 1 {
            // Nothing is flushed or closed, as with SIGKILL: no destructor runs, and no
            // other thread continues.
            std::process::abort();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn every_place_has_a_name_of_its_own() {
        let names: BTreeSet<&str> = CrashPoint::ALL.iter().map(|point| point.name()).collect();
        assert_eq!(names.len(), CrashPoint::ALL.len());
    }
}
