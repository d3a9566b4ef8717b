//! Waiting for something to happen.

use std::time::{Duration, Instant};

/// A guard against waiting for ever, and nothing else: everything waited for
/// here happens within seconds, on a busy machine too.
const LIMIT: Duration = Duration::from_secs(40);

/// The same, as the command takes it.
pub const LIMIT_TEXT: &str = "40s";

const PAUSE: Duration = Duration::from_millis(20);

/// Waits until `look` gives something.
pub fn until<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let began = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(began.elapsed() < LIMIT, "waited in vain for {what}");
        std::thread::sleep(PAUSE);
    }
}
