//! Between the thread that reads a connection and the one that makes its calls.

use crate::api::Canceller;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// How often a cancel is repeated until the call has noticed: it can arrive
/// before the engine has begun the call, where it would mean nothing.
const CANCEL_INTERVAL: Duration = Duration::from_millis(20);

/// Lets the reading thread interrupt the call that the other thread makes.
#[derive(Default)]
pub struct Gate {
    state: Mutex<GateState>,
    finished: Condvar,
}

#[derive(Default)]
struct GateState {
    running: u64,
    cancelled: u64,
    abandoned: bool,
    canceller: Option<Box<dyn Canceller>>,
}

impl Gate {
    /// A call has come in.
    pub fn begin(&self, call: u64) {
        lock(&self.state).running = call;
    }

    /// A call has ended.
    pub fn finish(&self, call: u64) {
        let mut state = lock(&self.state);
        if state.running == call {
            state.running = 0;
        }
        drop(state);
        self.finished.notify_all();
    }

    /// From now on there is a session to interrupt.
    pub fn arm(&self, canceller: Box<dyn Canceller>) {
        lock(&self.state).canceller = Some(canceller);
    }

    /// Whether the call must not go on: an array execution asks before each row.
    pub fn cancelled(&self, call: u64) -> bool {
        let state = lock(&self.state);
        state.abandoned || state.cancelled == call
    }

    /// Interrupts that call and waits until it has ended. A cancel may overtake
    /// the call it means, which then finds itself cancelled when it starts; one
    /// that comes late means a call that nobody asks about any more.
    pub fn cancel(&self, call: u64) {
        let mut state = lock(&self.state);
        state.cancelled = call;
        if call == 0 {
            return;
        }
        while state.running == call {
            if let Some(canceller) = &state.canceller {
                canceller.cancel();
            }
            state = self
                .finished
                .wait_timeout(state, CANCEL_INTERVAL)
                .unwrap_or_else(PoisonError::into_inner)
                .0;
        }
    }

    /// The client is gone: whatever runs for it ends.
    pub fn abandon(&self) {
        let running = {
            let mut state = lock(&self.state);
            state.abandoned = true;
            state.running
        };
        self.cancel(running);
    }
}

/// A poisoned lock is taken all the same: the state is plain numbers.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};
    use std::thread;

    struct Counting(Arc<AtomicUsize>);

    impl Canceller for Counting {
        fn cancel(&self) {
            self.0.fetch_add(1, Ordering::SeqCst);
        }
    }

    #[test]
    fn a_cancel_is_repeated_until_the_call_has_ended() {
        let gate = Gate::default();
        let cancels = Arc::new(AtomicUsize::new(0));
        gate.arm(Box::new(Counting(Arc::clone(&cancels))));
        gate.begin(1);
        thread::scope(|scope| {
            let reader = scope.spawn(|| gate.cancel(1));
            // The first cancel went to an engine that had not begun the call.
            while cancels.load(Ordering::SeqCst) < 2 {
                thread::yield_now();
            }
            assert!(!reader.is_finished());
            gate.finish(1);
        });
        assert!(gate.cancelled(1));
    }

    #[test]
    fn a_cancel_that_overtakes_its_call_is_not_lost() {
        let gate = Gate::default();
        gate.cancel(1);
        gate.begin(1);
        assert!(gate.cancelled(1));
    }

    #[test]
    fn a_late_cancel_leaves_the_next_call_alone() {
        let gate = Gate::default();
        let cancels = Arc::new(AtomicUsize::new(0));
        gate.arm(Box::new(Counting(Arc::clone(&cancels))));
        gate.begin(1);
        gate.finish(1);
        gate.begin(2);
        gate.cancel(1);
        assert!(!gate.cancelled(2));
        assert_eq!(cancels.load(Ordering::SeqCst), 0);
    }

    #[test]
    fn a_client_that_is_gone_cancels_whatever_comes() {
        let gate = Gate::default();
        gate.abandon();
        gate.begin(1);
        assert!(gate.cancelled(1));
    }
}
