//! What changes tasks: create, start, stop, modify, delete, and the delays
//! between their states. TestConnection is here too, for it takes time alike.

use crate::api::errors::Fault;
use crate::config::TaskConfig;
use crate::replicate::Job;
use crate::task::definition::{
    Modification, NewTask, StartRequest, check_identifier, stop_position,
};
use crate::task::progress::Progress;
use crate::task::registry::{Connection, Registry, TASK_BOUND, Task};
use crate::task::resources::resource_id;
use crate::task::state::{Command, Definition, Ending, StartType, Status, now_ms};
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::watch;
use tracing::{info, warn};

/// How often a stop that the range makes hang looks whether it still should.
const HANG_POLL: Duration = Duration::from_millis(50);

impl Registry {
    /// Makes the tasks of the configuration and starts those that are to run.
    ///
    /// # Errors
    /// A sentence that names the task.
    pub fn create_configured(self: &Arc<Self>, tasks: &[TaskConfig]) -> Result<(), String> {
        for task in tasks {
            let endpoint = |name: &str| {
                self.resources
                    .endpoint_arn(name)
                    .map(str::to_owned)
                    .ok_or_else(|| {
                        format!(
                            "task {:?} names the unknown endpoint {name:?}",
                            task.identifier
                        )
                    })
            };
            let new = NewTask {
                identifier: task.identifier.clone(),
                source_arn: endpoint(&task.source)?,
                target_arn: endpoint(&task.target)?,
                instance_arn: self.resources.instance_arn.clone(),
                migration_type: task.migration_type.clone(),
                table_mappings: task.table_mappings.clone().unwrap_or_default(),
                settings: task.settings.clone(),
                cdc_start_position: task.cdc_start_position.clone(),
                ..NewTask::default()
            };
            let arn = self.resources.arns.dms_named("task", &task.identifier);
            let named = |fault: Fault| format!("task {:?}: {fault}", task.identifier);
            let definition = self.define(arn.clone(), new).map_err(named)?;
            self.insert(definition, Status::Ready).map_err(named)?;
            if task.running {
                let request = StartRequest {
                    start: StartType::StartReplication,
                    cdc_start_position: None,
                    cdc_stop_position: None,
                };
                self.start(&arn, request).map_err(named)?;
            }
        }
        Ok(())
    }

    /// CreateReplicationTask.
    ///
    /// # Errors
    /// As the API words them.
    pub fn create(self: &Arc<Self>, new: NewTask) -> Result<Task, Fault> {
        let arn = self
            .resources
            .arns
            .dms("task", &resource_id(uuid::Uuid::now_v7().as_u128()));
        let definition = self.define(arn.clone(), new)?;
        let task = self.insert(definition, Status::Creating)?;
        self.later(self.timing().creating_ms, move |registry| {
            registry.shift(&arn, Status::Creating, Status::Ready);
        });
        Ok(task)
    }

    fn insert(&self, definition: Definition, status: Status) -> Result<Task, Fault> {
        let mut inner = self.lock();
        if inner
            .tasks
            .values()
            .any(|t| t.definition.identifier == definition.identifier)
        {
            return Err(Fault::exists(format!(
                "Replication task {} already exists.",
                definition.identifier
            )));
        }
        if inner.tasks.len() >= TASK_BOUND {
            return Err(Fault::invalid(format!(
                "the quota of {TASK_BOUND} tasks is used up"
            )));
        }
        let task = Task {
            definition: Arc::new(definition),
            status,
            stop_reason: None,
            last_failure: None,
            created_ms: now_ms(),
            fresh_start_ms: None,
            started_ms: None,
            stopped_ms: None,
            has_run: false,
            progress: Arc::new(Progress::default()),
            stop: watch::channel(false).0,
        };
        inner.event(
            &task.definition,
            "creation",
            "Replication task has been created.".into(),
        );
        inner
            .tasks
            .insert(task.definition.arn.clone(), task.clone());
        Ok(task)
    }

    /// StartReplicationTask.
    ///
    /// # Errors
    /// As the API words them.
    pub fn start(self: &Arc<Self>, arn: &str, request: StartRequest) -> Result<Task, Fault> {
        let (job, task) = self.prepare_start(arn, request)?;
        tokio::spawn(Arc::clone(self).drive(job));
        Ok(task)
    }

    fn prepare_start(&self, arn: &str, request: StartRequest) -> Result<(Job, Task), Fault> {
        let source_arn = self.task(arn)?.definition.source_arn.clone();
        let start_position = self.start_position(&source_arn, request.cdc_start_position)?;
        let stop_position = stop_position(request.cdc_stop_position)?;
        let mut inner = self.lock();
        let task = inner.task(arn)?;
        permit(task, Command::Start)?;
        if !task.has_run && request.start != StartType::StartReplication {
            return Err(Fault::wrong_state(format!(
                "Replication task {arn} has never run; it can be started with start-replication only."
            )));
        }
        if request.start == StartType::ReloadTarget && !task.definition.migration_type.loads() {
            return Err(Fault::combination("reload-target needs a task that loads"));
        }
        if start_position.is_some() || stop_position.is_some() {
            let definition = Arc::make_mut(&mut task.definition);
            definition.cdc_start_position = start_position.or(definition.cdc_start_position.take());
            definition.cdc_stop_position = stop_position.or(definition.cdc_stop_position.take());
        }
        if request.start == StartType::StartReplication {
            self.check_slot(&task.definition)?;
        }
        let endpoint = |arn: &str| {
            self.resources
                .endpoints
                .get(arn)
                .cloned()
                .ok_or_else(|| Fault::not_found(format!("Endpoint {arn} not found.")))
        };
        let (stop, asked) = watch::channel(false);
        let job = Job {
            source: endpoint(&task.definition.source_arn)?,
            target: endpoint(&task.definition.target_arn)?,
            task: Arc::clone(&task.definition),
            start: request.start,
            has_run: task.has_run,
            progress: Arc::clone(&task.progress),
            stop: asked,
            faults: Arc::clone(&self.faults),
            timing: Arc::clone(&self.timing),
        };
        task.stop = stop;
        task.begin(request.start);
        let view = task.clone();
        inner.event(
            &job.task,
            "state change",
            "Replication task has been started.".into(),
        );
        Ok((job, view))
    }

    /// From `starting` to the end of the run.
    async fn drive(self: Arc<Self>, job: Job) {
        let arn = job.task.arn.clone();
        tokio::time::sleep(Duration::from_millis(self.timing().starting_ms)).await;
        self.shift(&arn, Status::Starting, Status::Running);
        job.progress.begin_run();
        info!(task = %job.task.identifier, "running");
        let mut ending = self.engine.run(job.clone()).await;
        if !matches!(ending, Ending::Fatal(_)) {
            self.shift(&arn, Status::Running, Status::Stopping);
            while self.faults.stop_hangs(&job.task.identifier) {
                tokio::time::sleep(HANG_POLL).await;
            }
            tokio::time::sleep(Duration::from_millis(self.timing().stopping_ms)).await;
            if let Some(message) = self.faults.stop_fails(&job.task.identifier) {
                ending = Ending::Fatal(message);
            }
        }
        self.end(&arn, &ending);
    }

    fn end(&self, arn: &str, ending: &Ending) {
        let mut inner = self.lock();
        let Ok(task) = inner.task(arn) else { return };
        task.status = ending.status();
        task.stop_reason = Some(ending.stop_reason());
        task.stopped_ms = Some(now_ms());
        let definition = Arc::clone(&task.definition);
        if let Ending::Fatal(message) = ending {
            warn!(task = %definition.identifier, message, "failed");
            task.last_failure = Some(message.clone());
            inner.event(
                &definition,
                "failure",
                format!("Replication task has failed. {message}"),
            );
        } else {
            info!(task = %definition.identifier, reason = ending.stop_reason(), "stopped");
            inner.event(
                &definition,
                "state change",
                "Replication task has stopped.".into(),
            );
        }
    }

    /// StopReplicationTask: the transaction in progress is finished.
    ///
    /// # Errors
    /// As the API words them.
    pub fn stop(&self, arn: &str) -> Result<Task, Fault> {
        let mut inner = self.lock();
        let task = inner.task(arn)?;
        permit(task, Command::Stop)?;
        task.status = Status::Stopping;
        task.stop.send_replace(true);
        Ok(task.clone())
    }

    /// DeleteReplicationTask: the task's own slot is dropped with it.
    ///
    /// # Errors
    /// As the API words them.
    pub fn delete(self: &Arc<Self>, arn: &str) -> Result<Task, Fault> {
        let view = {
            let mut inner = self.lock();
            let task = inner.task(arn)?;
            permit(task, Command::Delete)?;
            task.status = Status::Deleting;
            task.clone()
        };
        let registry = Arc::clone(self);
        let definition = Arc::clone(&view.definition);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(registry.timing().deleting_ms)).await;
            let discarded = match registry.resources.endpoints.get(&definition.source_arn) {
                Some(source) => {
                    registry
                        .engine
                        .discard(Arc::clone(&definition), Arc::clone(source))
                        .await
                }
                None => Ok(()),
            };
            if let Err(why) = &discarded {
                warn!(task = %definition.identifier, why, "deleted, but its slot may be left behind");
            }
            let mut inner = registry.lock();
            inner.tasks.remove(&definition.arn);
            let rest = discarded
                .err()
                .map(|why| format!(" {why}"))
                .unwrap_or_default();
            inner.event(
                &definition,
                "deletion",
                format!("Replication task has been deleted.{rest}"),
            );
        });
        Ok(view)
    }

    /// ModifyReplicationTask.
    ///
    /// # Errors
    /// As the API words them.
    pub fn modify(self: &Arc<Self>, arn: &str, change: Modification) -> Result<Task, Fault> {
        let source_arn = self.task(arn)?.definition.source_arn.clone();
        let start_position = self.start_position(&source_arn, change.cdc_start_position.clone())?;
        let stop_position = stop_position(change.cdc_stop_position.clone())?;
        let mut inner = self.lock();
        if let Some(identifier) = &change.identifier {
            check_identifier(identifier)?;
            if inner
                .tasks
                .values()
                .any(|t| t.definition.identifier == *identifier && t.definition.arn != arn)
            {
                return Err(Fault::exists(format!(
                    "Replication task {identifier} already exists."
                )));
            }
        }
        let task = inner.task(arn)?;
        permit(task, Command::Modify)?;
        let mut definition = task.definition.changed(&change)?;
        definition.cdc_start_position = start_position.or(definition.cdc_start_position);
        definition.cdc_stop_position = stop_position.or(definition.cdc_stop_position);
        let before = task.status;
        task.definition = Arc::new(definition);
        task.status = Status::Modifying;
        let view = task.clone();
        drop(inner);
        let arn = arn.to_owned();
        self.later(self.timing().modifying_ms, move |registry| {
            registry.shift(&arn, Status::Modifying, before);
        });
        Ok(view)
    }

    /// TestConnection: `testing` now, the outcome of a real connection later.
    ///
    /// # Errors
    /// As the API words them.
    pub fn test_connection(
        self: &Arc<Self>,
        instance_arn: &str,
        endpoint_arn: &str,
    ) -> Result<Connection, Fault> {
        if instance_arn != self.resources.instance_arn {
            return Err(Fault::not_found(format!(
                "Replication instance {instance_arn} not found."
            )));
        }
        let endpoint = self
            .resources
            .endpoints
            .get(endpoint_arn)
            .cloned()
            .ok_or_else(|| Fault::not_found(format!("Endpoint {endpoint_arn} not found.")))?;
        let testing = Connection {
            status: "testing",
            last_failure: None,
        };
        let mut inner = self.lock();
        if inner
            .connections
            .get(endpoint_arn)
            .is_some_and(|c| c.status == "testing")
        {
            return Err(Fault::wrong_state(format!(
                "Endpoint {endpoint_arn} is being tested."
            )));
        }
        inner
            .connections
            .insert(endpoint_arn.into(), testing.clone());
        drop(inner);
        let registry = Arc::clone(self);
        let arn = endpoint_arn.to_owned();
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(registry.timing().testing_ms)).await;
            let outcome = match registry.faults.connection_refused(endpoint.identifier()) {
                Some(message) => Err(message),
                None => registry.engine.test(endpoint).await,
            };
            let connection = Connection {
                status: if outcome.is_ok() {
                    "successful"
                } else {
                    "failed"
                },
                last_failure: outcome.err(),
            };
            registry.lock().connections.insert(arn, connection);
        });
        Ok(testing)
    }

    /// Moves a task on, unless something else has moved it meanwhile.
    fn shift(&self, arn: &str, from: Status, to: Status) {
        if let Ok(task) = self.lock().task(arn)
            && task.status == from
        {
            task.status = to;
        }
    }

    fn later(self: &Arc<Self>, after_ms: u64, then: impl FnOnce(&Self) + Send + 'static) {
        let registry = Arc::clone(self);
        tokio::spawn(async move {
            tokio::time::sleep(Duration::from_millis(after_ms)).await;
            then(&registry);
        });
    }
}

impl Task {
    fn begin(&mut self, start: StartType) {
        let now = now_ms();
        self.status = Status::Starting;
        self.stop_reason = None;
        self.last_failure = None;
        self.started_ms = Some(now);
        self.stopped_ms = None;
        self.has_run = true;
        if start != StartType::ResumeProcessing {
            self.fresh_start_ms = Some(now);
        }
    }
}

fn permit(task: &Task, command: Command) -> Result<(), Fault> {
    if task.status.permits(command) {
        return Ok(());
    }
    Err(Fault::wrong_state(format!(
        "Replication Task cannot be {}, invalid state: {} ({})",
        match command {
            Command::Start => "started",
            Command::Stop => "stopped",
            Command::Modify => "modified",
            Command::Delete => "deleted",
        },
        task.status.as_str(),
        task.definition.arn
    )))
}
