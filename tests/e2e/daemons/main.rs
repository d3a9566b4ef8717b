//! The shipped daemons and the operator's command, end to end, without a
//! database: each test is one story on a fleet of its own.
//!
//! A fleet's hosts are directories; what its agents do there (crontabs,
//! configuration files, commands) is real. The binaries are those beside this
//! test in the target directory, so build the workspace first:
//! `cargo build --workspace`.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test and its helpers stop at the first surprise"
)]

mod absence;
mod barrier;
mod certificates;
mod crash_points;
mod crashes;
mod cutover_preflight;
mod decisions;
mod fleet;
mod refused_input;
mod rollback;
mod secrets;
mod sweep;
mod take_over;
mod traces;
