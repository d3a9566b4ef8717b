//! AWS Database Migration Service: tasks, their tables, connections.
//!
//! Only provisioned replication: serverless is another API
//! (`StartReplication` by `ReplicationConfigArn`). `reload-target` isn't
//! spoken at all: it would empty the target's tables.
//!
//! Source of states and texts: the API reference of 2016-01-01.

use super::aws::{self, Refused};
use crate::error::ActionError;
use crate::host::context::Context;
use crate::host::endpoint::Endpoint;
use aws_sdk_databasemigration::Client;
use aws_sdk_databasemigration::types::{
    Filter, MigrationTypeValue, ReplicationTask, StartReplicationTaskTypeValue, TableStatistics,
    Tag,
};
use lockstep_api::Code;
use std::time::Duration;

/// Records on one page of a Describe call: DMS takes 20 to 100 for tasks, up
/// to 500 for table statistics.
const STATISTICS_PAGE: i32 = 500;

/// Pages of table statistics: half a million tables.
const PAGES: usize = 1_000;

/// The tag that names the run which created a task.
pub const RUN_TAG: &str = "lockstep:run";

/// First pause between two queries of a state.
const FIRST_POLL: Duration = Duration::from_millis(100);

/// The longest. A state lasts minutes in AWS, and each look costs a call that
/// may be throttled.
const LONGEST_POLL: Duration = Duration::from_secs(3);

/// How a task is started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Start {
    /// `start-replication`, for the first start of a task that only before-images
    /// changes. A task that loads would reload every table.
    First,
    /// `resume-processing`, from where it stopped.
    Resume,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Task {
    /// `ReplicationTaskArn`.
    pub arn: String,
    /// `ReplicationTaskIdentifier`.
    pub identifier: String,
    /// `Status`.
    pub status: String,
    /// `MigrationType`.
    pub migration_type: String,
    /// `StopReason`; empty where there is none.
    pub stop_reason: String,
    /// `LastFailureMessage`; empty where there is none.
    pub last_failure: String,
    /// `RecoveryCheckpoint`.
    pub checkpoint: Option<String>,
    /// `SourceEndpointArn`.
    pub source: String,
    /// `TargetEndpointArn`.
    pub target: String,
    /// `ReplicationInstanceArn`.
    pub instance: String,
    /// It has been started before.
    pub has_run: bool,
}

impl Task {
    /// It replicates, or is about to.
    pub fn is_up(&self) -> bool {
        matches!(self.status.as_str(), "starting" | "running")
    }

    /// It does nothing, and nothing is under way.
    pub fn is_at_rest(&self) -> bool {
        matches!(self.status.as_str(), "ready" | "stopped" | "failed")
    }

    /// The last part of the ARN, by which CloudWatch and slots name it.
    pub fn resource_id(&self) -> &str {
        self.arn.rsplit(':').next().unwrap_or(&self.arn)
    }

    fn of(task: &ReplicationTask) -> Self {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        let fresh_start = task
            .replication_task_stats()
            .is_some_and(|stats| stats.fresh_start_date().is_some());
        Self {
            arn: text(task.replication_task_arn()),
            identifier: text(task.replication_task_identifier()),
            status: text(task.status()),
            migration_type: text(task.migration_type().map(MigrationTypeValue::as_str)),
            stop_reason: text(task.stop_reason()),
            last_failure: text(task.last_failure_message()),
            checkpoint: task.recovery_checkpoint().map(str::to_owned),
            source: text(task.source_endpoint_arn()),
            target: text(task.target_endpoint_arn()),
            instance: text(task.replication_instance_arn()),
            has_run: fresh_start || task.replication_task_start_date().is_some(),
        }
    }
}

/// What a task replicates and how, as DMS shows it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Documents {
    /// `TableMappings`, JSON.
    pub mappings: String,
    /// `ReplicationTaskSettings`, JSON, with every default filled in.
    pub settings: String,
}

impl Documents {
    fn of(task: &ReplicationTask) -> Self {
        let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
        Self {
            mappings: text(task.table_mappings()),
            settings: text(task.replication_task_settings()),
        }
    }
}

/// What a new task is to be: changes only.
#[derive(Debug, Clone)]
pub struct NewTask<'a> {
    /// `ReplicationTaskIdentifier`.
    pub identifier: &'a str,
    /// `ReplicationInstanceArn`.
    pub instance: &'a str,
    /// `SourceEndpointArn`.
    pub source: &'a str,
    /// `TargetEndpointArn`.
    pub target: &'a str,
    /// `TableMappings`, JSON.
    pub mappings: String,
    /// `ReplicationTaskSettings`, JSON.
    pub settings: String,
}

/// A connection from the instance to an endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Connection {
    /// `testing`, `successful`, `failed`, …
    pub status: String,
    /// Why it failed; empty where it didn't.
    pub last_failure: String,
}

fn no_task(arn: &str) -> ActionError {
    ActionError::new(Code::LS2405, format!("there is no replication task {arn}"))
        .state_left("nothing was done")
        .remedy("correct the ARN in the plan, and the region in agent.toml")
}

/// The service, as one task of ours speaks to it.
pub struct Dms {
    client: Client,
    cx: Context,
}

impl Dms {
    /// The service of a resource. Nothing is called yet.
    ///
    /// # Errors
    /// Where the configuration's credentials can't be read.
    pub async fn of(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        Ok(Self {
            client: aws::clients(cx, resource).await?.dms,
            cx: cx.clone(),
        })
    }

    /// A task by its ARN; `None` where there is none.
    ///
    /// # Errors
    /// LS2410 for a serverless replication; else as [`aws::call`].
    pub async fn find(&self, arn: &str) -> Result<Option<Task>, ActionError> {
        if arn.contains(":replication-config:") {
            return Err(ActionError::new(
                Code::LS2410,
                format!("{arn} is a serverless replication"),
            )
            .state_left("nothing was done")
            .remedy("name a replication task; serverless replications are not supported"));
        }
        Ok(self
            .describe("replication-task-arn", arn, false)
            .await?
            .as_ref()
            .map(Task::of))
    }

    /// A task by its ARN.
    ///
    /// # Errors
    /// LS2405 where there is none.
    pub async fn task(&self, arn: &str) -> Result<Task, ActionError> {
        self.find(arn).await?.ok_or_else(|| no_task(arn))
    }

    /// A task by its identifier; `None` where there is none.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn find_named(&self, identifier: &str) -> Result<Option<Task>, ActionError> {
        Ok(self
            .describe("replication-task-id", identifier, false)
            .await?
            .as_ref()
            .map(Task::of))
    }

    /// The documents of a task.
    ///
    /// # Errors
    /// LS2405 where there is no such task; else as [`aws::call`].
    pub async fn documents(&self, arn: &str) -> Result<Documents, ActionError> {
        let found = self.describe("replication-task-arn", arn, true).await?;
        found
            .as_ref()
            .map(Documents::of)
            .ok_or_else(|| no_task(arn))
    }

    /// As [`Self::find_named`], with the task's documents.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn find_whole(
        &self,
        identifier: &str,
    ) -> Result<Option<(Task, Documents)>, ActionError> {
        let found = self
            .describe("replication-task-id", identifier, true)
            .await?;
        Ok(found
            .as_ref()
            .map(|task| (Task::of(task), Documents::of(task))))
    }

    /// Whether this run created the task: it carries the run's tag.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn is_of_this_run(&self, arn: &str) -> Result<bool, ActionError> {
        let request = self.client.list_tags_for_resource().resource_arn(arn);
        let answer = self
            .call("ListTagsForResource", arn, Box::pin(request.send()))
            .await?;
        Ok(answer
            .tag_list()
            .iter()
            .any(|tag| tag.key() == Some(RUN_TAG) && tag.value() == Some(self.cx.tag.run.as_str())))
    }

    async fn describe(
        &self,
        filter: &str,
        value: &str,
        whole: bool,
    ) -> Result<Option<ReplicationTask>, ActionError> {
        let request = self
            .client
            .describe_replication_tasks()
            .filters(by(filter, value)?)
            .without_settings(!whole);
        match self
            .call("DescribeReplicationTasks", value, Box::pin(request.send()))
            .await
        {
            Ok(answer) => Ok(answer
                .replication_tasks
                .unwrap_or_default()
                .into_iter()
                .next()),
            Err(refused) if refused.is_not_found() => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    /// Every table of a task.
    ///
    /// # Errors
    /// As [`aws::call`]; LS2411 where there are more pages than the bound.
    pub async fn statistics(&self, arn: &str) -> Result<Vec<TableStatistics>, ActionError> {
        let (mut tables, mut marker) = (Vec::new(), None);
        for _ in 0..PAGES {
            let request = self
                .client
                .describe_table_statistics()
                .replication_task_arn(arn)
                .max_records(STATISTICS_PAGE)
                .set_marker(marker);
            let answer = self
                .call("DescribeTableStatistics", arn, Box::pin(request.send()))
                .await?;
            tables.extend(answer.table_statistics.unwrap_or_default());
            marker = answer.marker.filter(|marker| !marker.is_empty());
            if marker.is_none() {
                return Ok(tables);
            }
        }
        Err(ActionError::new(
            Code::LS2411,
            format!("the statistics of {arn} don't end after {PAGES} pages"),
        )
        .state_left("nothing was changed")
        .remedy("split the task, or report this"))
    }

    /// Starts a task. That it has taken the order is all this waits for.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn start(&self, arn: &str, start: Start) -> Result<(), Refused> {
        let kind = match start {
            Start::First => StartReplicationTaskTypeValue::StartReplication,
            Start::Resume => StartReplicationTaskTypeValue::ResumeProcessing,
        };
        let request = self
            .client
            .start_replication_task()
            .replication_task_arn(arn)
            .start_replication_task_type(kind);
        self.call("StartReplicationTask", arn, Box::pin(request.send()))
            .await
            .map(drop)
    }

    /// Asks a task to stop after the transaction in progress.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn stop(&self, arn: &str) -> Result<(), Refused> {
        let request = self
            .client
            .stop_replication_task()
            .replication_task_arn(arn);
        self.call("StopReplicationTask", arn, Box::pin(request.send()))
            .await
            .map(drop)
    }

    /// Creates a task that before-images changes only; its ARN.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn create(&self, new: &NewTask<'_>) -> Result<Task, ActionError> {
        let run = Tag::builder().key(RUN_TAG).value(&self.cx.tag.run).build();
        let request = self
            .client
            .create_replication_task()
            .replication_task_identifier(new.identifier)
            .replication_instance_arn(new.instance)
            .source_endpoint_arn(new.source)
            .target_endpoint_arn(new.target)
            .migration_type(MigrationTypeValue::Cdc)
            .table_mappings(&new.mappings)
            .replication_task_settings(&new.settings)
            .tags(run);
        let answer = self
            .call(
                "CreateReplicationTask",
                new.identifier,
                Box::pin(request.send()),
            )
            .await?;
        answer.replication_task().map(Task::of).ok_or_else(|| {
            ActionError::new(
                Code::LS2407,
                format!("AWS created {} and does not say what", new.identifier),
            )
            .state_left("the task may be there")
            .remedy("retry: the probe finds it")
        })
    }

    /// Deletes a task.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn delete(&self, arn: &str) -> Result<(), Refused> {
        let request = self
            .client
            .delete_replication_task()
            .replication_task_arn(arn);
        self.call("DeleteReplicationTask", arn, Box::pin(request.send()))
            .await
            .map(drop)
    }

    /// Has the instance test its connection to an endpoint.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn test_connection(&self, instance: &str, endpoint: &str) -> Result<(), Refused> {
        let request = self
            .client
            .test_connection()
            .replication_instance_arn(instance)
            .endpoint_arn(endpoint);
        self.call("TestConnection", endpoint, Box::pin(request.send()))
            .await
            .map(drop)
    }

    /// What is known of that connection.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn connection(
        &self,
        instance: &str,
        endpoint: &str,
    ) -> Result<Option<Connection>, ActionError> {
        let request = self
            .client
            .describe_connections()
            .filters(by("endpoint-arn", endpoint)?)
            .filters(by("replication-instance-arn", instance)?);
        match self
            .call("DescribeConnections", endpoint, Box::pin(request.send()))
            .await
        {
            Ok(answer) => Ok(answer.connections().first().map(|one| Connection {
                status: one.status().unwrap_or_default().to_owned(),
                last_failure: one.last_failure_message().unwrap_or_default().to_owned(),
            })),
            Err(refused) if refused.is_not_found() => Ok(None),
            Err(refused) => Err(refused.into()),
        }
    }

    /// An endpoint.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn endpoint(&self, arn: &str) -> Result<Endpoint, ActionError> {
        let request = self
            .client
            .describe_endpoints()
            .filters(by("endpoint-arn", arn)?);
        let answer = self
            .call("DescribeEndpoints", arn, Box::pin(request.send()))
            .await?;
        let found = answer.endpoints().first().ok_or_else(|| {
            ActionError::new(Code::LS2405, format!("there is no endpoint {arn}"))
                .state_left("nothing was done")
                .remedy("correct the ARN in the plan")
        })?;
        Ok(Endpoint::of(found))
    }

    async fn call<T, E>(
        &self,
        operation: &str,
        on: &str,
        work: impl Future<Output = Result<T, aws_sdk_databasemigration::error::SdkError<E>>>,
    ) -> Result<T, Refused>
    where
        E: aws_sdk_databasemigration::error::ProvideErrorMetadata + std::error::Error + 'static,
    {
        aws::call(&self.cx, "dms", operation, on, work).await
    }
}

fn by(name: &str, value: &str) -> Result<Filter, ActionError> {
    let filter = Filter::builder().name(name).values(value).build();
    filter.map_err(|e| ActionError::new(Code::LS2407, format!("no filter by {name}")).source(e))
}

/// Polls with growing pauses until `limit`.
pub struct Poll {
    cx: Context,
    wait: Duration,
    end: tokio::time::Instant,
}

impl Poll {
    pub fn begin(cx: &Context, limit: Duration) -> Self {
        Self {
            cx: cx.clone(),
            wait: FIRST_POLL,
            end: tokio::time::Instant::now() + limit,
        }
    }

    /// Waits for the next look; `false` when the time is up.
    ///
    /// # Errors
    /// LS2409 when the task is cancelled.
    pub async fn again(&mut self, waiting_for: &str) -> Result<bool, ActionError> {
        let now = tokio::time::Instant::now();
        if now >= self.end {
            return Ok(false);
        }
        let wait = self.wait.min(self.end - now);
        self.wait = (self.wait * 3 / 2).min(LONGEST_POLL);
        tokio::select! {
            () = tokio::time::sleep(wait) => Ok(true),
            () = self.cx.cancel.cancelled() => Err(aws::out_of_time(waiting_for)),
        }
    }
}
