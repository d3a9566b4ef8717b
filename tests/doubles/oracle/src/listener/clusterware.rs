//! Clusterware's agent: it starts the listeners under its care again.
//!
//! A listener that ends by other means than `srvctl` is a failed resource,
//! which Clusterware starts again at its next check. After `srvctl stop` real
//! Clusterware sets the resource's target to OFFLINE and leaves it alone
//! until somebody starts it or the stack restarts; the double starts it again
//! too, a little later, and so stands for that restart or for a colleague's
//! `srvctl start`. Either way only `srvctl disable` keeps a listener down,
//! which is what a cutover has to do.

use super::{Requester, Shared};
use std::sync::PoisonError;
use std::time::{Duration, Instant};

/// From the end of a listener by other means to its restart. Clusterware's
/// check interval for listeners is a minute; a rehearsal has no minute.
const AFTER_FAILURE: Duration = Duration::from_secs(1);
/// From `srvctl stop` to the restart.
const AFTER_STOP: Duration = Duration::from_secs(2);
/// From a restart that failed, because the port is taken, to the next.
const AFTER_BIND_FAILURE: Duration = Duration::from_secs(1);

/// When a listener that has just been stopped is started again, if ever.
pub fn restart_at(clustered: bool, enabled: bool, by: Requester) -> Option<Instant> {
    let delay = match by {
        Requester::Lsnrctl => AFTER_FAILURE,
        Requester::Srvctl => AFTER_STOP,
    };
    (clustered && enabled).then(|| Instant::now() + delay)
}

/// Runs until the manager ends.
pub fn watch(shared: &Shared) {
    let mut state = shared.lock();
    while !state.ending {
        let now = Instant::now();
        for listener in &mut state.listeners {
            if listener.restart_at.is_none_or(|at| at > now) {
                continue;
            }
            tracing::info!(
                listener = listener.endpoint.name,
                "Clusterware restarts a listener"
            );
            if let Err(error) = listener.start() {
                let source = std::error::Error::source(&error);
                tracing::warn!(%error, source, "Clusterware could not restart a listener");
                listener.restart_at = Some(now + AFTER_BIND_FAILURE);
            }
        }
        let next = state
            .listeners
            .iter()
            .filter_map(|listener| listener.restart_at)
            .min();
        state = match next {
            Some(at) => {
                let wait = at.saturating_duration_since(Instant::now());
                let waited = shared.changed.wait_timeout(state, wait);
                waited.unwrap_or_else(PoisonError::into_inner).0
            }
            None => shared
                .changed
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner),
        };
    }
}
