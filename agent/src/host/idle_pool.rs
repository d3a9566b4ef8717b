//! A pool of idle connections, reused from one task to the next.
//!
//! A phase queries the same resource several times within milliseconds, and
//! a login costs more than the query. Whoever returns a connection guarantees
//! that it has no running statement, no open transaction and no failed call;
//! whoever takes one checks first that it is alive. Where a login itself is to
//! be verified, a new one is made.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Idle connections per resource: as many as there are concurrent probes. More
/// would only use up connections that others need.
const MAX_IDLE: usize = 3;

/// How long a connection may be idle. Longer than the barrier between two
/// phases; short enough that changed roles, passwords or instance states soon
/// apply to a new login, and that no shutdown waits for an idle one.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Idle connections by resource.
pub struct IdlePool<T> {
    limit: Duration,
    state: Mutex<State<T>>,
}

struct State<T> {
    /// In the order in which they expire.
    idle: Vec<Idle<T>>,
    /// A task is waiting to remove the oldest.
    cleanup_running: bool,
}

struct Idle<T> {
    resource: String,
    until: Instant,
    connection: T,
}

impl<T: Send + 'static> IdlePool<T> {
    pub fn new() -> Arc<Self> {
        Self::for_at_most(IDLE_LIMIT)
    }

    fn for_at_most(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            limit,
            state: Mutex::new(State {
                idle: Vec::new(),
                cleanup_running: false,
            }),
        })
    }

    /// The connection of this resource that was used last.
    pub fn take(&self, resource: &str) -> Option<T> {
        let mut state = self.state();
        let now = Instant::now();
        let newest = state
            .idle
            .iter()
            .rposition(|one| one.resource == resource && now < one.until)?;
        Some(state.idle.remove(newest).connection)
    }

    /// Adds a connection, if there is room and a runtime to close it in time.
    pub fn put(self: &Arc<Self>, resource: &str, connection: T) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut state = self.state();
        let of_resource = state.idle.iter().filter(|one| one.resource == resource);
        if of_resource.count() >= MAX_IDLE {
            return;
        }
        state.idle.push(Idle {
            resource: resource.to_owned(),
            until: Instant::now() + self.limit,
            connection,
        });
        if !std::mem::replace(&mut state.cleanup_running, true) {
            let first = Instant::now() + self.limit;
            runtime.spawn(cleanup(Arc::downgrade(self), first));
        }
    }

    /// Closes the connections that are too old; gives when the next one will be.
    fn close_expired(&self) -> Option<Instant> {
        let mut expired = Vec::new();
        let mut state = self.state();
        let now = Instant::now();
        while state.idle.first().is_some_and(|one| one.until <= now) {
            expired.push(state.idle.remove(0));
        }
        let next = state.idle.first().map(|one| one.until);
        state.cleanup_running = next.is_some();
        drop(state);
        next
    }

    fn state(&self) -> MutexGuard<'_, State<T>> {
        // Every critical section leaves the list consistent.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn cleanup<T: Send + 'static>(pool: Weak<IdlePool<T>>, first: Instant) {
    let mut next = Some(first);
    while let Some(at) = next {
        tokio::time::sleep_until(at).await;
        next = pool.upgrade().and_then(|pool| pool.close_expired());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_of_the_resource_comes_first() {
        let pool = IdlePool::new();
        for (resource, connection) in [("a", 1), ("b", 2), ("a", 3)] {
            pool.put(resource, connection);
        }
        let taken: Vec<Option<i32>> = (0..3).map(|_| pool.take("a")).collect();
        assert_eq!(taken, [Some(3), Some(1), None]);
        assert_eq!(pool.take("b"), Some(2));
    }

    #[tokio::test]
    async fn connections_idle_for_too_long_are_closed() {
        let pool = IdlePool::for_at_most(Duration::from_millis(20));
        let connection = Arc::new(());
        // The second time, a new cleanup task has to start.
        for _ in 0..2 {
            pool.put("a", connection.clone());
            pool.put("b", connection.clone());
            assert_eq!(Arc::strong_count(&connection), 3);
            while Arc::strong_count(&connection) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn an_expired_connection_is_not_handed_out() {
        let pool = IdlePool::for_at_most(Duration::ZERO);
        pool.put("a", 1);
        assert_eq!(pool.take("a"), None);
    }

    #[tokio::test]
    async fn no_more_than_the_limit_are_pooled() {
        let pool = IdlePool::new();
        let connection = Arc::new(());
        for _ in 0..10 {
            pool.put("a", connection.clone());
        }
        assert_eq!(Arc::strong_count(&connection), 1 + MAX_IDLE);
    }
}
