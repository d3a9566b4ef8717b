//! Changes that a running task has made to its host, on their way into the
//! journal.

use crate::handle::{Handle, Input};
use lockstep_barrier::ids::{PhaseRef, RunId, StepId};
use lockstep_barrier::message::{Change, Changes};
use lockstep_barrier::participant::Event;
use lockstep_clock as clock;
use lockstep_proto::convert::truncated;
use lockstep_proto::limits::MAX_CHANGE;
use std::sync::{Arc, Mutex, PoisonError};

/// Collects the changes of one attempt of a task. The loop journals them while the
/// task runs, several together where they come fast, so that a crash of the agent
/// loses none that it had time to write.
pub(crate) struct Recorder {
    run: RunId,
    step: StepId,
    phase: PhaseRef,
    attempt: u32,
    waiting: Mutex<Waiting>,
    handle: Handle,
}

/// Changes that the loop has not taken yet.
#[derive(Default)]
struct Waiting {
    changes: Changes,
    /// A notification is in the loop's queue.
    notified: bool,
}

impl std::fmt::Debug for Recorder {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Recorder({}/{}/{})", self.run, self.step, self.attempt)
    }
}

impl Recorder {
    pub(super) fn new(
        handle: Handle,
        (run, step): (RunId, StepId),
        (phase, attempt): (PhaseRef, u32),
    ) -> Arc<Self> {
        Arc::new(Self {
            run,
            step,
            phase,
            attempt,
            waiting: Mutex::default(),
            handle,
        })
    }

    /// Adds a change and notifies the loop. Never waits: where the loop has no room
    /// for the notification, the change is taken with the next one, at the latest
    /// when the task has finished.
    pub(super) fn add(self: &Arc<Self>, what: &str) {
        let line: String = what
            .chars()
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        let change = Change {
            at: clock::wall_time(),
            what: truncated(line, MAX_CHANGE),
        };
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        waiting.changes.extend(Changes {
            made: vec![change],
            omitted: 0,
        });
        if !waiting.notified {
            waiting.notified = self.handle.offer(Input::Changed(self.clone()));
        }
    }

    /// Takes what has been added since the last call.
    pub(super) fn take(&self) -> Option<Event> {
        let mut waiting = self.waiting.lock().unwrap_or_else(PoisonError::into_inner);
        let Waiting { changes, .. } = std::mem::take(&mut *waiting);
        (!changes.is_empty()).then(|| Event::Changed {
            run: self.run.clone(),
            step: self.step.clone(),
            phase: self.phase,
            attempt: self.attempt,
            changes,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use lockstep_barrier::ids::Track;

    #[tokio::test]
    async fn changes_are_collected_in_order_bounded_and_on_one_line() {
        let (handle, mut queue) = Handle::new();
        let phase = PhaseRef {
            track: Track::Forward,
            index: 0,
        };
        let recorder = Recorder::new(handle, ("r".into(), "s".into()), (phase, 1));
        recorder.add("first\nline\u{1b}[31m");
        recorder.add(&"x".repeat(MAX_CHANGE * 2));
        for _ in 0..Changes::MAX {
            recorder.add("more");
        }
        // One notification for all of them.
        assert!(matches!(queue.try_recv(), Ok(Input::Changed(_))));
        assert!(queue.try_recv().is_err());
        let Some(Event::Changed { changes, .. }) = recorder.take() else {
            panic!("there are changes");
        };
        assert_eq!(changes.made[0].what, "first line [31m");
        assert_eq!(changes.made[1].what.len(), MAX_CHANGE + "…".len());
        assert_eq!((changes.made.len(), changes.omitted), (Changes::MAX, 2));
        assert!(recorder.take().is_none());
    }

    #[tokio::test]
    async fn a_notification_without_room_is_made_with_the_next_change() {
        let (handle, mut queue) = Handle::new();
        while handle.offer(Input::Disconnected) {}
        let phase = PhaseRef {
            track: Track::Forward,
            index: 0,
        };
        let recorder = Recorder::new(handle, ("r".into(), "s".into()), (phase, 1));
        recorder.add("first");
        while queue.try_recv().is_ok() {}
        recorder.add("second");
        let Ok(Input::Changed(notified)) = queue.try_recv() else {
            panic!("the loop was not notified");
        };
        let Some(Event::Changed { changes, .. }) = notified.take() else {
            panic!("there are changes");
        };
        assert_eq!(changes.made.len(), 2);
    }
}
