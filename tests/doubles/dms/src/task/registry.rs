//! The registry: every task, connection and event, and the questions about them.
//!
//! What changes a task is in [`super::lifecycle`]. State lives as long as the
//! process.

use crate::api::errors::Fault;
use crate::config::{Config, Timing};
use crate::replicate::{Engine, SharedTiming};
use crate::task::faults::FaultBoard;
use crate::task::progress::Progress;
use crate::task::resources::Resources;
use crate::task::state::{Definition, Status, now_ms};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use tokio::sync::watch;

/// Tasks in one account: the default quota of DMS is 600.
pub(super) const TASK_BOUND: usize = 600;

/// Events kept; DMS keeps them for 14 days, a rehearsal makes some dozens.
const EVENT_BOUND: usize = 1_000;

/// A task and where it stands.
#[derive(Clone)]
pub struct Task {
    pub definition: Arc<Definition>,
    pub status: Status,
    /// `StopReason`.
    pub stop_reason: Option<&'static str>,
    /// `LastFailureMessage`.
    pub last_failure: Option<String>,
    /// `ReplicationTaskCreationDate`, epoch ms.
    pub created_ms: i64,
    /// `FreshStartDate`: the last start that was no resume, epoch ms.
    pub fresh_start_ms: Option<i64>,
    /// `StartDate`, epoch ms.
    pub started_ms: Option<i64>,
    /// `StopDate`, epoch ms.
    pub stopped_ms: Option<i64>,
    /// Whether it has ever run.
    pub has_run: bool,
    pub progress: Arc<Progress>,
    pub(super) stop: watch::Sender<bool>,
}

#[derive(Debug, Clone)]
pub struct Connection {
    /// `testing`, `successful` or `failed`.
    pub status: &'static str,
    /// `LastFailureMessage`.
    pub last_failure: Option<String>,
}

/// Something that happened to a task.
#[derive(Debug, Clone)]
pub struct TaskEvent {
    /// `SourceIdentifier`: the task's resource id.
    pub source: String,
    /// `Message`.
    pub message: String,
    /// The one entry of `EventCategories`.
    pub category: &'static str,
    pub epoch_ms: i64,
}

#[derive(Default)]
pub(super) struct Inner {
    pub(super) tasks: BTreeMap<String, Task>,
    pub(super) connections: BTreeMap<String, Connection>,
    pub(super) events: VecDeque<TaskEvent>,
}

impl Inner {
    pub(super) fn event(&mut self, task: &Definition, category: &'static str, message: String) {
        if self.events.len() >= EVENT_BOUND {
            self.events.pop_front();
        }
        self.events.push_back(TaskEvent {
            source: task.resource_id().into(),
            message,
            category,
            epoch_ms: now_ms(),
        });
    }

    pub(super) fn task(&mut self, arn: &str) -> Result<&mut Task, Fault> {
        self.tasks
            .get_mut(arn)
            .ok_or_else(|| Fault::not_found(format!("Replication task {arn} not found.")))
    }
}

/// Every task, and what they need.
pub struct Registry {
    pub(super) inner: Mutex<Inner>,
    pub(super) engine: Arc<dyn Engine>,
    pub resources: Resources,
    /// Faults and the call log.
    pub faults: Arc<FaultBoard>,
    pub timing: SharedTiming,
}

impl Registry {
    /// An empty registry over an engine.
    #[must_use]
    pub fn new(config: &Config, engine: Arc<dyn Engine>) -> Arc<Self> {
        Arc::new(Self {
            inner: Mutex::default(),
            engine,
            resources: Resources::new(config),
            faults: Arc::default(),
            timing: Arc::new(RwLock::new(config.timing)),
        })
    }

    pub(super) fn lock(&self) -> MutexGuard<'_, Inner> {
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }

    #[must_use]
    pub fn timing(&self) -> Timing {
        crate::replicate::timing(&self.timing)
    }

    pub fn set_timing(&self, timing: Timing) {
        *self.timing.write().unwrap_or_else(PoisonError::into_inner) = timing;
    }

    /// Every task, by ARN.
    #[must_use]
    pub fn tasks(&self) -> Vec<Task> {
        self.lock().tasks.values().cloned().collect()
    }

    /// One task.
    ///
    /// # Errors
    /// `ResourceNotFoundFault`.
    pub fn task(&self, arn: &str) -> Result<Task, Fault> {
        self.lock().task(arn).cloned()
    }

    /// Every connection that was ever tested, by endpoint ARN.
    #[must_use]
    pub fn connections(&self) -> BTreeMap<String, Connection> {
        self.lock().connections.clone()
    }

    /// Every event, oldest first.
    #[must_use]
    pub fn events(&self) -> Vec<TaskEvent> {
        self.lock().events.iter().cloned().collect()
    }
}
