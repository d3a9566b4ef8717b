//! A clock for decisions and a clock for display.

use std::time::{SystemTime, UNIX_EPOCH};

/// Milliseconds on CLOCK_BOOTTIME: it counts suspended time, which
/// `std::time::Instant` leaves out on Linux (rust-lang/rust#87906), so a
/// promise also expires while the machine is suspended (R12). Changes of the wall
/// clock don't affect it.
pub fn boot_time() -> u64 {
    let mut now = libc::timespec {
        tv_sec: 0,
        tv_nsec: 0,
    };
    // SAFETY: `now` is a valid timespec; CLOCK_BOOTTIME exists since Linux 2.6.39.
    let failed = unsafe { libc::clock_gettime(libc::CLOCK_BOOTTIME, &mut now) } != 0;
    debug_assert!(!failed, "CLOCK_BOOTTIME exists on every supported Linux");
    let seconds = u64::try_from(now.tv_sec).unwrap_or(0);
    let nanos = u64::try_from(now.tv_nsec).unwrap_or(0);
    seconds * 1000 + nanos / 1_000_000
}

/// Milliseconds since the epoch; for display, never for decisions.
#[expect(
    clippy::disallowed_methods,
    reason = "the one place that reads the wall clock"
)]
pub fn wall_time() -> u64 {
    let since = SystemTime::now()
        .duration_since(UNIX_EPOCH)
        .unwrap_or_default();
    u64::try_from(since.as_millis()).unwrap_or(u64::MAX)
}
