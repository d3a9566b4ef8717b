//! What changes tasks: create, start, stop, modify, delete, and the delays
//! between their states. TestConnection is here too, for it takes time alike.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;
use tracing::{info, warn};

use crate::api::errors::Fault;
use crate::config::TaskConfig;
use crate::replicate::Job;
use crate::replicate::mapping::TableMapping;
use crate::task::progress::Progress;
use crate::task::registry::{Connection, Registry, TASK_BOUND, Task};
use crate::task::resources::{is_identifier, resource_id};
use crate::task::settings::TaskSettings;
use crate::task::state::{
    Command, Definition, Ending, MigrationType, StartType, Status, StopPosition, now_ms,
};

/// How often a stop that the range makes hang looks whether it still should.
const HANG_POLL: Duration = Duration::from_millis(50);

/// What CreateReplicationTask asks for, in plain text.
#[derive(Debug, Clone, Default)]
pub struct NewTask {
    /// `ReplicationTaskIdentifier`.
    pub identifier: String,
    /// `SourceEndpointArn`.
    pub source_arn: String,
    /// `TargetEndpointArn`.
    pub target_arn: String,
    /// `ReplicationInstanceArn`.
    pub instance_arn: String,
    /// `MigrationType`.
    pub migration_type: String,
    /// `TableMappings`.
    pub table_mappings: String,
    /// `ReplicationTaskSettings`.
    pub settings: Option<String>,
    /// `CdcStartPosition`.
    pub cdc_start_position: Option<String>,
    /// `CdcStopPosition`.
    pub cdc_stop_position: Option<String>,
    /// `TaskData`.
    pub task_data: Option<String>,
}

/// What ModifyReplicationTask changes.
#[derive(Debug, Clone, Default)]
pub struct Modification {
    /// New identifier.
    pub identifier: Option<String>,
    /// New migration type.
    pub migration_type: Option<String>,
    /// New mappings.
    pub table_mappings: Option<String>,
    /// New settings.
    pub settings: Option<String>,
    /// New start position.
    pub cdc_start_position: Option<String>,
    /// New stop position.
    pub cdc_stop_position: Option<String>,
    /// New task data.
    pub task_data: Option<String>,
}

/// What StartReplicationTask asks for.
#[derive(Debug, Clone)]
pub struct StartRequest {
    /// How.
    pub start: StartType,
    /// From where, instead of the task's own start position.
    pub cdc_start_position: Option<String>,
    /// Until when, instead of the task's own stop position.
    pub cdc_stop_position: Option<String>,
}

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

    fn define(&self, arn: String, new: NewTask) -> Result<Definition, Fault> {
        check_identifier(&new.identifier)?;
        if new.instance_arn != self.resources.instance_arn {
            return Err(Fault::not_found(format!(
                "Replication instance {} not found.",
                new.instance_arn
            )));
        }
        self.check_endpoints(&new)?;
        Ok(Definition {
            identifier: new.identifier,
            arn,
            migration_type: migration_type(&new.migration_type)?,
            mappings: mappings(&new.table_mappings)?,
            mappings_text: new.table_mappings,
            settings: TaskSettings::parse(new.settings.as_deref()).map_err(Fault::invalid)?,
            cdc_start_position: self.start_position(&new.source_arn, new.cdc_start_position)?,
            cdc_stop_position: stop_position(new.cdc_stop_position)?,
            source_arn: new.source_arn,
            target_arn: new.target_arn,
            task_data: new.task_data,
        })
    }

    fn check_endpoints(&self, new: &NewTask) -> Result<(), Fault> {
        use crate::config::EndpointKind::{Source, Target};
        let mut engines = Vec::with_capacity(2);
        for (arn, kind) in [(&new.source_arn, Source), (&new.target_arn, Target)] {
            let endpoint = self
                .resources
                .endpoints
                .get(arn)
                .ok_or_else(|| Fault::not_found(format!("Endpoint {arn} not found.")))?;
            if endpoint.kind() != kind {
                return Err(Fault::invalid(format!(
                    "Endpoint {arn} is not a {kind:?} endpoint."
                )));
            }
            engines.push(endpoint.engine_name());
        }
        if engines[0] == engines[1] {
            return Err(Fault::invalid(format!(
                "replication from {0} to {0} is not supported here",
                engines[0]
            )));
        }
        if engines[0] == "postgres" && new.migration_type != "cdc" {
            return Err(Fault::invalid(
                "a PostgreSQL source is supported here with MigrationType cdc only",
            ));
        }
        Ok(())
    }

    /// A start position is an SCN for Oracle; for PostgreSQL an LSN, and then the
    /// endpoint must name its own slot (AWS DMS user guide, PostgreSQL source).
    fn start_position(
        &self,
        source_arn: &str,
        given: Option<String>,
    ) -> Result<Option<String>, Fault> {
        use crate::config::EndpointConfig::{Oracle, Postgres};
        let Some(text) = given else { return Ok(None) };
        match self.resources.endpoints.get(source_arn).map(AsRef::as_ref) {
            Some(Oracle(_)) if text.parse::<u64>().is_ok() => Ok(Some(text)),
            Some(Postgres(e)) if e.slot_name.is_none() => Err(Fault::combination(
                "CdcStartPosition needs an endpoint with PostgreSQLSettings.SlotName",
            )),
            Some(Postgres(_)) if crate::replicate::stream::parse_lsn(&text).is_some() => {
                Ok(Some(text))
            }
            _ => Err(Fault::invalid(format!(
                "CdcStartPosition {text:?} is not a position of the source"
            ))),
        }
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
        let ending = self.engine.run(job.clone()).await;
        if !matches!(ending, Ending::Fatal(_)) {
            self.shift(&arn, Status::Running, Status::Stopping);
            while self.faults.stop_hangs(&job.task.identifier) {
                tokio::time::sleep(HANG_POLL).await;
            }
            tokio::time::sleep(Duration::from_millis(self.timing().stopping_ms)).await;
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
        let start_position = self.start_position(&source_arn, change.cdc_start_position)?;
        let stop_position = stop_position(change.cdc_stop_position)?;
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
        let mut definition = (*task.definition).clone();
        if let Some(identifier) = change.identifier {
            definition.identifier = identifier;
        }
        if let Some(text) = change.migration_type {
            definition.migration_type = migration_type(&text)?;
        }
        if let Some(text) = change.table_mappings {
            definition.mappings = mappings(&text)?;
            definition.mappings_text = text;
        }
        if let Some(text) = change.settings {
            definition.settings = TaskSettings::parse(Some(&text)).map_err(Fault::invalid)?;
        }
        definition.cdc_start_position = start_position.or(definition.cdc_start_position);
        definition.cdc_stop_position = stop_position.or(definition.cdc_stop_position);
        definition.task_data = change.task_data.or(definition.task_data);
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

fn check_identifier(text: &str) -> Result<(), Fault> {
    if is_identifier(text) {
        return Ok(());
    }
    Err(Fault::invalid(format!(
        "The parameter ReplicationTaskIdentifier must be 1 to 255 letters, digits and single hyphens, beginning with a letter: {text:?}"
    )))
}

fn migration_type(text: &str) -> Result<MigrationType, Fault> {
    MigrationType::parse(text)
        .ok_or_else(|| Fault::invalid(format!("MigrationType {text:?} is not valid")))
}

fn mappings(text: &str) -> Result<TableMapping, Fault> {
    TableMapping::parse(text).map_err(|e| {
        let cause = std::error::Error::source(&e)
            .map(|s| format!(": {s}"))
            .unwrap_or_default();
        Fault::invalid(format!("{e}{cause}"))
    })
}

fn stop_position(text: Option<String>) -> Result<Option<StopPosition>, Fault> {
    text.map(|t| StopPosition::parse(&t).map_err(Fault::invalid))
        .transpose()
}
