//! Waiting for events, with a bound that only guards against failure.

use super::error::Error;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

/// How often a condition is looked at: short against everything the range
/// waits for, long enough to leave the two cores alone.
const PAUSE: Duration = Duration::from_millis(25);

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Tells every wait to give up; what SIGINT and SIGTERM do.
pub fn interrupt() {
    INTERRUPTED.store(true, Ordering::SeqCst);
}

/// Whether [`interrupt`] was called.
#[must_use]
pub fn interrupted() -> bool {
    INTERRUPTED.load(Ordering::SeqCst)
}

/// Waits until `look` gives something.
///
/// # Errors
/// What `look` fails with; [`Error::NotReady`] after `limit`;
/// [`Error::Interrupted`] on [`interrupt`].
pub fn until<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    until_even_if_interrupted(what, limit, || {
        if interrupted() {
            Err(Error::Interrupted)
        } else {
            look()
        }
    })
}

/// The same for tearing down, which an interruption must not cut short.
///
/// # Errors
/// As [`until`], without the interruption.
pub fn until_even_if_interrupted<T>(
    what: &str,
    limit: Duration,
    mut look: impl FnMut() -> Result<Option<T>, Error>,
) -> Result<T, Error> {
    let end = Instant::now() + limit;
    loop {
        if let Some(found) = look()? {
            return Ok(found);
        }
        if Instant::now() >= end {
            return Err(Error::NotReady {
                what: what.to_owned(),
                how: format!("did not happen within {} s", limit.as_secs()),
                log: String::new(),
            });
        }
        std::thread::sleep(PAUSE);
    }
}
