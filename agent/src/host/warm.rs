//! Connections kept from one piece of work to the next.
//!
//! A phase looks at the same resource several times within milliseconds, and
//! a login costs more than the look. What is kept is idle: whoever gives a
//! connection back vouches that it has no statement under way, no open
//! transaction and no error behind it; whoever takes one sees first that it
//! is alive. A login that is to be proved is made anew.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;
use tokio::time::Instant;

/// Idle connections of one resource: for as many as are probed at once. More
/// would only take places from others.
const KEPT: usize = 3;

/// How long a connection may be idle. Longer than the barrier between two
/// phases; short enough that a change of roles, of passwords or of an
/// instance's state soon meets a new login, and that nobody's shutdown waits.
const IDLE_LIMIT: Duration = Duration::from_secs(60);

/// Idle connections by resource.
pub struct Warm<T> {
    limit: Duration,
    shelf: Mutex<Shelf<T>>,
}

struct Shelf<T> {
    /// In order of age, the oldest first.
    idle: Vec<Idle<T>>,
    /// Somebody waits for the oldest to be too old.
    swept: bool,
}

struct Idle<T> {
    resource: String,
    until: Instant,
    connection: T,
}

impl<T: Send + 'static> Warm<T> {
    pub fn new() -> Arc<Self> {
        Self::for_at_most(IDLE_LIMIT)
    }

    fn for_at_most(limit: Duration) -> Arc<Self> {
        Arc::new(Self {
            limit,
            shelf: Mutex::new(Shelf {
                idle: Vec::new(),
                swept: false,
            }),
        })
    }

    /// The connection of this resource that was used last.
    pub fn take(&self, resource: &str) -> Option<T> {
        let mut shelf = self.shelf();
        let now = Instant::now();
        let newest = shelf
            .idle
            .iter()
            .rposition(|one| one.resource == resource && now < one.until)?;
        Some(shelf.idle.remove(newest).connection)
    }

    /// Keeps a connection, if there is room and a runtime to end it in time.
    pub fn keep(self: &Arc<Self>, resource: &str, connection: T) {
        let Ok(runtime) = tokio::runtime::Handle::try_current() else {
            return;
        };
        let mut shelf = self.shelf();
        let of_it = shelf.idle.iter().filter(|one| one.resource == resource);
        if of_it.count() >= KEPT {
            return;
        }
        shelf.idle.push(Idle {
            resource: resource.to_owned(),
            until: Instant::now() + self.limit,
            connection,
        });
        if !std::mem::replace(&mut shelf.swept, true) {
            let first = Instant::now() + self.limit;
            runtime.spawn(sweep(Arc::downgrade(self), first));
        }
    }

    /// Ends what is too old; gives when to look again.
    fn end_overdue(&self) -> Option<Instant> {
        let mut overdue = Vec::new();
        let mut shelf = self.shelf();
        let now = Instant::now();
        while shelf.idle.first().is_some_and(|one| one.until <= now) {
            overdue.push(shelf.idle.remove(0));
        }
        let next = shelf.idle.first().map(|one| one.until);
        shelf.swept = next.is_some();
        drop(shelf);
        next
    }

    fn shelf(&self) -> MutexGuard<'_, Shelf<T>> {
        // It is whole between any two of its statements.
        self.shelf.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn sweep<T: Send + 'static>(warm: Weak<Warm<T>>, first: Instant) {
    let mut next = Some(first);
    while let Some(at) = next {
        tokio::time::sleep_until(at).await;
        next = warm.upgrade().and_then(|warm| warm.end_overdue());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn the_newest_of_the_resource_comes_first() {
        let warm = Warm::new();
        for (resource, connection) in [("a", 1), ("b", 2), ("a", 3)] {
            warm.keep(resource, connection);
        }
        let taken: Vec<Option<i32>> = (0..3).map(|_| warm.take("a")).collect();
        assert_eq!(taken, [Some(3), Some(1), None]);
        assert_eq!(warm.take("b"), Some(2));
    }

    #[tokio::test]
    async fn what_is_idle_for_too_long_ends() {
        let warm = Warm::for_at_most(Duration::from_millis(20));
        let connection = Arc::new(());
        // The second time, it is looked after again.
        for _ in 0..2 {
            warm.keep("a", connection.clone());
            warm.keep("b", connection.clone());
            assert_eq!(Arc::strong_count(&connection), 3);
            while Arc::strong_count(&connection) > 1 {
                tokio::time::sleep(Duration::from_millis(1)).await;
            }
        }
    }

    #[tokio::test]
    async fn what_is_too_old_is_not_given_out() {
        let warm = Warm::for_at_most(Duration::ZERO);
        warm.keep("a", 1);
        assert_eq!(warm.take("a"), None);
    }

    #[tokio::test]
    async fn only_so_many_are_kept() {
        let warm = Warm::new();
        let connection = Arc::new(());
        for _ in 0..10 {
            warm.keep("a", connection.clone());
        }
        assert_eq!(Arc::strong_count(&connection), 1 + KEPT);
    }
}
