//! The replicator: what makes a task really move rows.
//!
//! [`Engine`] is what the registry drives. [`replicator::Replicator`] is the real one; it
//! takes the direction from the endpoints: Oracle to PostgreSQL is [`forward`],
//! PostgreSQL to Oracle is [`reverse`], anything else is refused when the task
//! is created.

pub mod apply;
pub mod change;
pub mod checkpoint;
pub mod connect;
pub mod decoding;
pub mod forward;
pub mod load;
pub mod mapping;
pub mod oracle_apply;
pub mod redo;
pub mod replicator;
pub mod reverse;
pub mod source_types;
pub mod statement;
pub mod stream;

use crate::config::{EndpointConfig, Timing};
use crate::task::faults::FaultBoard;
use crate::task::progress::Progress;
use crate::task::state::{Definition, Ending, StartType};
use std::future::Future;
use std::pin::Pin;
use std::sync::{Arc, RwLock};
use tokio::sync::watch;

/// A boxed future, so that engines can be chosen when the program runs.
pub type BoxFuture<T> = Pin<Box<dyn Future<Output = T> + Send>>;

/// The timing that engines and the registry read; the control interface writes it.
pub type SharedTiming = Arc<RwLock<Timing>>;

/// Reads the timing; a writer that panicked leaves the last whole value.
#[must_use]
pub fn timing(shared: &SharedTiming) -> Timing {
    *shared
        .read()
        .unwrap_or_else(std::sync::PoisonError::into_inner)
}

/// One run of a task.
#[derive(Clone)]
pub struct Job {
    pub task: Arc<Definition>,
    pub source: Arc<EndpointConfig>,
    pub target: Arc<EndpointConfig>,
    /// How it was asked to start.
    pub start: StartType,
    /// Whether it has run before.
    pub has_run: bool,
    /// Where statistics and positions are kept.
    pub progress: Arc<Progress>,
    /// Turns true when the task is asked to stop.
    pub stop: watch::Receiver<bool>,
    /// The faults of the range.
    pub faults: Arc<FaultBoard>,
    pub timing: SharedTiming,
}

impl Job {
    /// Whether the task is asked to stop.
    #[must_use]
    pub fn stopping(&self) -> bool {
        *self.stop.borrow()
    }

    /// Waits, or returns at once when the task is asked to stop.
    pub async fn pause(&self, wait: std::time::Duration) {
        let mut stop = self.stop.clone();
        tokio::select! {
            () = tokio::time::sleep(wait) => {}
            _ = stop.wait_for(|asked| *asked) => {}
        }
    }

    /// Why the task is to end now, if it is: asked to stop, an injected failure,
    /// or a `server_time` that has come.
    #[must_use]
    pub fn ending(&self) -> Option<Ending> {
        if self.stopping() {
            return Some(Ending::Normal);
        }
        if let Some(message) = self.faults.take_task_failure(&self.task.identifier) {
            return Some(Ending::Fatal(message));
        }
        let stop_at = self.task.cdc_stop_position.as_ref()?.server_time_ms;
        (crate::task::state::now_ms() >= stop_at).then_some(Ending::StoppedAtServerTime)
    }
}

pub trait Engine: Send + Sync + 'static {
    /// Runs a task until it ends.
    fn run(&self, job: Job) -> BoxFuture<Ending>;

    /// Gives back what the task holds at its endpoints (its replication slot).
    /// A failure is told and does not keep the task from being deleted, as with
    /// real DMS.
    fn discard(
        &self,
        task: Arc<Definition>,
        source: Arc<EndpointConfig>,
    ) -> BoxFuture<Result<(), String>>;

    /// Connects to an endpoint, as TestConnection does.
    fn test(&self, endpoint: Arc<EndpointConfig>) -> BoxFuture<Result<(), String>>;
}
