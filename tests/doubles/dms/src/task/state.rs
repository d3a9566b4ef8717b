//! The states of a replication task and what each permits.
//!
//! Source: AWS DMS API reference, `ReplicationTask.Status` and `StopReason`, and
//! the user guide's task status table.

use crate::replicate::mapping::TableMapping;
use crate::task::settings::TaskSettings;

/// `ReplicationTask.Status`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Status {
    Creating,
    /// Made, or modified, and never run.
    Ready,
    /// On its way to running.
    Starting,
    Running,
    /// Finishing the transaction in progress.
    Stopping,
    /// Stopped by request, or at its stop position.
    Stopped,
    /// Ended by an error that retries don't cure.
    Failed,
    Modifying,
    /// On its way out.
    Deleting,
}

/// What can be asked of a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Command {
    Start,
    Stop,
    Modify,
    Delete,
}

impl Status {
    /// The status as the API writes it.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Creating => "creating",
            Self::Ready => "ready",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Stopping => "stopping",
            Self::Stopped => "stopped",
            Self::Failed => "failed",
            Self::Modifying => "modifying",
            Self::Deleting => "deleting",
        }
    }

    /// Whether the command is accepted in this state.
    #[must_use]
    pub fn permits(self, command: Command) -> bool {
        let at_rest = matches!(self, Self::Ready | Self::Stopped | Self::Failed);
        match command {
            Command::Start | Command::Modify | Command::Delete => at_rest,
            Command::Stop => self == Self::Running,
        }
    }
}

/// `MigrationType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MigrationType {
    /// Copies what is there and ends.
    FullLoad,
    Cdc,
    /// Copies what is there, then replicates changes.
    FullLoadAndCdc,
}

impl MigrationType {
    /// Reads the API's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "full-load" => Some(Self::FullLoad),
            "cdc" => Some(Self::Cdc),
            "full-load-and-cdc" => Some(Self::FullLoadAndCdc),
            _ => None,
        }
    }

    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::FullLoad => "full-load",
            Self::Cdc => "cdc",
            Self::FullLoadAndCdc => "full-load-and-cdc",
        }
    }

    /// Whether it copies the rows that exist.
    #[must_use]
    pub fn loads(self) -> bool {
        self != Self::Cdc
    }

    /// Whether it replicates changes.
    #[must_use]
    pub fn captures(self) -> bool {
        self != Self::FullLoad
    }
}

/// `StartReplicationTaskType`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum StartType {
    /// From the beginning: a task that loads reloads every table.
    StartReplication,
    ResumeProcessing,
    /// Empties the target's tables and loads them again.
    ReloadTarget,
}

impl StartType {
    /// Reads the API's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        match text {
            "start-replication" => Some(Self::StartReplication),
            "resume-processing" => Some(Self::ResumeProcessing),
            "reload-target" => Some(Self::ReloadTarget),
            _ => None,
        }
    }
}

/// What a task replicates: everything the customer said about it.
#[derive(Debug, Clone)]
pub struct Definition {
    /// `ReplicationTaskIdentifier`.
    pub identifier: String,
    /// `ReplicationTaskArn`.
    pub arn: String,
    /// `SourceEndpointArn`.
    pub source_arn: String,
    /// `TargetEndpointArn`.
    pub target_arn: String,
    /// `MigrationType`.
    pub migration_type: MigrationType,
    /// `TableMappings` as given.
    pub mappings_text: String,
    /// `TableMappings` as understood.
    pub mappings: TableMapping,
    /// `ReplicationTaskSettings` as understood; it holds the text too.
    pub settings: TaskSettings,
    /// `CdcStartPosition`.
    pub cdc_start_position: Option<String>,
    /// `CdcStopPosition`: only `server_time:…` is supported.
    pub cdc_stop_position: Option<StopPosition>,
    /// `TaskData`.
    pub task_data: Option<String>,
    pub tags: std::collections::BTreeMap<String, String>,
}

impl Definition {
    /// The last part of the ARN: the name of the task in CloudWatch's
    /// dimensions and in the control tables.
    #[must_use]
    pub fn resource_id(&self) -> &str {
        self.arn.rsplit(':').next().unwrap_or(&self.arn)
    }
}

/// When a task stops by itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StopPosition {
    pub text: String,
    /// The wall-clock time, milliseconds since the epoch.
    pub server_time_ms: i64,
}

impl StopPosition {
    /// Reads `server_time:2018-02-09T12:12:12` (UTC).
    ///
    /// # Errors
    /// A sentence for the caller, also for `commit_time:`, which is documented
    /// by AWS and not supported here: the redo carries no commit times.
    pub fn parse(text: &str) -> Result<Self, String> {
        let Some(time) = text.strip_prefix("server_time:") else {
            return Err(format!(
                "CdcStopPosition {text:?} is not supported here: only server_time:YYYY-MM-DDTHH:MM:SS is"
            ));
        };
        let civil: jiff::civil::DateTime = time
            .parse()
            .map_err(|_| format!("CdcStopPosition {text:?} holds no valid time"))?;
        let zoned = civil
            .to_zoned(jiff::tz::TimeZone::UTC)
            .map_err(|_| format!("CdcStopPosition {text:?} is out of range"))?;
        Ok(Self {
            text: text.into(),
            server_time_ms: zoned.timestamp().as_millisecond(),
        })
    }
}

/// How a task's run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Ending {
    Normal,
    /// The load is done and the task was to do nothing else.
    FullLoadFinished,
    /// Its `server_time` has come.
    StoppedAtServerTime,
    /// An error that retries don't cure.
    Fatal(String),
}

impl Ending {
    /// `StopReason`.
    #[must_use]
    pub fn stop_reason(&self) -> &'static str {
        match self {
            Self::Normal => "Stop Reason NORMAL",
            Self::FullLoadFinished => "Stop Reason FULL_LOAD_ONLY_FINISHED",
            Self::StoppedAtServerTime => "Stop Reason STOPPED_AT_SERVER_TIME",
            Self::Fatal(_) => "Stop Reason FATAL_ERROR",
        }
    }

    /// The state the task is left in.
    #[must_use]
    pub fn status(&self) -> Status {
        match self {
            Self::Fatal(_) => Status::Failed,
            _ => Status::Stopped,
        }
    }
}

/// Milliseconds since the epoch, now.
#[must_use]
pub fn now_ms() -> i64 {
    jiff::Timestamp::now().as_millisecond()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_tasks_at_rest_are_started_changed_or_deleted() {
        use Status::*;
        for status in [
            Creating, Ready, Starting, Running, Stopping, Stopped, Failed, Modifying, Deleting,
        ] {
            let at_rest = matches!(status, Ready | Stopped | Failed);
            assert_eq!(status.permits(Command::Start), at_rest, "{status:?}");
            assert_eq!(status.permits(Command::Delete), at_rest, "{status:?}");
            assert_eq!(
                status.permits(Command::Stop),
                status == Running,
                "{status:?}"
            );
        }
    }

    #[test]
    fn stop_positions_are_server_times_in_utc() {
        let position = StopPosition::parse("server_time:1970-01-01T00:00:02").unwrap();
        assert_eq!(position.server_time_ms, 2_000);
        assert!(StopPosition::parse("commit_time:2018-02-09T12:12:12").is_err());
        assert!(StopPosition::parse("server_time:soon").is_err());
    }
}
