//! The faults that the range asks for, and the log of every call.
//!
//! Faults belong to the range: the product has no switch for them. Each is named
//! by its JSON form in [`FaultSpec`].

use crate::replicate::change::TableName;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::VecDeque;
use std::sync::{Mutex, MutexGuard, PoisonError};

/// Calls kept in the log. A rehearsal makes a few thousand; the oldest go first,
/// and how many have gone is told.
const CALL_LOG_BOUND: usize = 50_000;

/// Faults armed at one time. More than a handful is a mistake of the caller.
const FAULT_BOUND: usize = 100;

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "kind", rename_all = "snake_case", deny_unknown_fields)]
pub enum FaultSpec {
    /// Calls are denied: of one operation, or of all.
    AccessDenied {
        /// Which operation; none means all.
        operation: Option<String>,
        /// How many calls pass before the first one is hit.
        #[serde(default)]
        after: u64,
        /// For how many calls; none means until it is cleared.
        times: Option<u64>,
    },
    Throttling {
        /// Which operation; none means all.
        operation: Option<String>,
        /// How many calls pass before the first one is hit.
        #[serde(default)]
        after: u64,
        /// For how many calls; none means until it is cleared.
        times: Option<u64>,
    },
    /// A running task fails for good.
    TaskFailed { task: String, message: String },
    /// A table is suspended when the next of its changes arrives.
    TableSuspended {
        task: String,
        schema: String,
        table: String,
        /// The reason that the control table shows.
        message: String,
    },
    /// Changes of a table can't be applied and go to `awsdms_apply_exceptions`;
    /// a LOB error is one of these.
    ApplyError {
        task: String,
        schema: String,
        table: String,
        /// The error that the exceptions table shows.
        message: String,
        /// For how many changes; none means until it is cleared.
        times: Option<u64>,
    },
    /// A running task applies nothing: changes pile up.
    ApplyPaused { task: String },
    /// Connections to an endpoint fail in TestConnection.
    ConnectionRefused {
        endpoint: String,
        /// LastFailureMessage of the connection.
        message: String,
    },
    /// A task that is told to stop fails instead.
    StopFails { task: String, message: String },
    /// A task shows the message of a failure that is over, whatever it does.
    FailureRemembered { task: String, message: String },
    /// Every table of a task shows as `Before load`.
    NotLoaded { task: String },
    /// A task that is told to stop can't apply its last change, logs that, and
    /// stops as it should.
    StopLeavesException {
        task: String,
        schema: String,
        table: String,
        /// The error that the exceptions table shows.
        message: String,
    },
    /// A task stays in `stopping`.
    StopHangs { task: String },
}

impl FaultSpec {
    /// What it does to a call of that operation, if it concerns it.
    fn on_call(&self, called: &str) -> Option<CallFault> {
        let (operation, fault) = match self {
            Self::AccessDenied { operation, .. } => (operation, CallFault::Denied),
            Self::Throttling { operation, .. } => (operation, CallFault::Throttled),
            _ => return None,
        };
        let hits = operation.as_deref().is_none_or(|o| o == called);
        hits.then_some(fault)
    }

    /// Calls that still pass.
    fn after(&mut self) -> Option<&mut u64> {
        match self {
            Self::AccessDenied { after, .. } | Self::Throttling { after, .. } => Some(after),
            _ => None,
        }
    }

    fn times(&mut self) -> Option<&mut u64> {
        match self {
            Self::AccessDenied { times, .. }
            | Self::Throttling { times, .. }
            | Self::ApplyError { times, .. } => times.as_mut(),
            _ => None,
        }
    }
}

/// What an armed fault does to an API call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallFault {
    Denied,
    Throttled,
}

/// What an armed fault does to a change.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ChangeFault {
    /// Its table is suspended, with this reason.
    Suspend(String),
    /// It goes to the exceptions, with this error.
    Exception(String),
}

/// One call of the API.
#[derive(Debug, Clone, Serialize)]
pub struct Call {
    pub epoch_ms: i64,
    /// `dms` or `cloudwatch`.
    pub service: &'static str,
    pub operation: String,
    pub parameters: Value,
    /// The error code it was answered with.
    pub error: Option<String>,
}

/// The call log as the range reads it.
#[derive(Debug, Clone, Default, Serialize)]
pub struct CallLog {
    /// Calls that were dropped at the bound.
    pub dropped: u64,
    /// The calls, oldest first.
    pub calls: VecDeque<Call>,
}

/// Armed faults and the call log.
#[derive(Debug, Default)]
pub struct FaultBoard {
    armed: Mutex<Vec<FaultSpec>>,
    log: Mutex<CallLog>,
}

impl FaultBoard {
    fn armed(&self) -> MutexGuard<'_, Vec<FaultSpec>> {
        self.armed.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn log(&self) -> MutexGuard<'_, CallLog> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Arms a fault.
    ///
    /// # Errors
    /// When the bound is reached.
    pub fn arm(&self, fault: FaultSpec) -> Result<(), String> {
        let mut armed = self.armed();
        if armed.len() >= FAULT_BOUND {
            return Err(format!(
                "{FAULT_BOUND} faults are armed already; clear some first"
            ));
        }
        armed.push(fault);
        Ok(())
    }

    #[must_use]
    pub fn list(&self) -> Vec<FaultSpec> {
        self.armed().clone()
    }

    pub fn clear(&self) {
        self.armed().clear();
    }

    /// Takes one use of the first armed fault that `matches` finds.
    fn use_one<T>(&self, matches: impl Fn(&FaultSpec) -> Option<T>) -> Option<T> {
        let mut armed = self.armed();
        let (index, found) = armed
            .iter()
            .enumerate()
            .find_map(|(i, fault)| matches(fault).map(|found| (i, found)))?;
        if let Some(times) = armed[index].times() {
            *times = times.saturating_sub(1);
            if *times == 0 {
                armed.remove(index);
            }
        }
        Some(found)
    }

    /// The fault for a call, if one is armed. A fault that lets calls pass
    /// first counts this one.
    #[must_use]
    pub fn for_call(&self, called: &str) -> Option<CallFault> {
        let waits = self.armed().iter_mut().any(|fault| {
            let concerns = fault.on_call(called).is_some();
            match fault.after().filter(|after| concerns && **after > 0) {
                Some(after) => {
                    *after -= 1;
                    true
                }
                None => false,
            }
        });
        if waits {
            return None;
        }
        self.use_one(|fault| fault.on_call(called))
    }

    /// The failure of a task, once.
    #[must_use]
    pub fn take_task_failure(&self, identifier: &str) -> Option<String> {
        let mut armed = self.armed();
        let index = armed
            .iter()
            .position(|f| matches!(f, FaultSpec::TaskFailed { task, .. } if task == identifier))?;
        match armed.remove(index) {
            FaultSpec::TaskFailed { message, .. } => Some(message),
            _ => None,
        }
    }

    /// The fault for a change, if one is armed.
    #[must_use]
    pub fn for_change(&self, identifier: &str, changed: &TableName) -> Option<ChangeFault> {
        let hits = |task: &str, schema: &str, table: &str| {
            task == identifier && schema == changed.schema && table == changed.table
        };
        self.use_one(|fault| match fault {
            FaultSpec::TableSuspended {
                task,
                schema,
                table,
                message,
            } if hits(task, schema, table) => Some(ChangeFault::Suspend(message.clone())),
            FaultSpec::ApplyError {
                task,
                schema,
                table,
                message,
                ..
            } if hits(task, schema, table) => Some(ChangeFault::Exception(message.clone())),
            _ => None,
        })
    }

    /// Whether any fault concerns changes of the task, so that each must be
    /// looked at.
    #[must_use]
    pub fn concerns_changes(&self, identifier: &str) -> bool {
        self.armed().iter().any(|fault| {
            matches!(fault, FaultSpec::TableSuspended { task, .. } | FaultSpec::ApplyError { task, .. } if task == identifier)
        })
    }

    /// Whether the task is to apply nothing.
    #[must_use]
    pub fn apply_paused(&self, identifier: &str) -> bool {
        self.armed()
            .iter()
            .any(|f| matches!(f, FaultSpec::ApplyPaused { task } if task == identifier))
    }

    /// Whether the task's tables are to show as not loaded.
    #[must_use]
    pub fn not_loaded(&self, identifier: &str) -> bool {
        self.armed()
            .iter()
            .any(|f| matches!(f, FaultSpec::NotLoaded { task } if task == identifier))
    }

    /// The message that the task shows of a failure that is over.
    #[must_use]
    pub fn failure_remembered(&self, identifier: &str) -> Option<String> {
        self.armed().iter().find_map(|fault| match fault {
            FaultSpec::FailureRemembered { task, message } if task == identifier => {
                Some(message.clone())
            }
            _ => None,
        })
    }

    /// Whether the task is to stay in `stopping`.
    #[must_use]
    pub fn stop_hangs(&self, identifier: &str) -> bool {
        self.armed()
            .iter()
            .any(|f| matches!(f, FaultSpec::StopHangs { task } if task == identifier))
    }

    /// Why the task fails when it is told to stop, if it is to.
    #[must_use]
    pub fn stop_fails(&self, identifier: &str) -> Option<String> {
        self.armed().iter().find_map(|fault| match fault {
            FaultSpec::StopFails { task, message } if task == identifier => Some(message.clone()),
            _ => None,
        })
    }

    /// The exception that the task leaves when it is told to stop, if any: the
    /// target table and the error.
    #[must_use]
    pub fn stop_leaves_exception(&self, identifier: &str) -> Option<(TableName, String)> {
        self.armed().iter().find_map(|fault| match fault {
            FaultSpec::StopLeavesException {
                task,
                schema,
                table,
                message,
            } if task == identifier => Some((TableName::new(schema, table), message.clone())),
            _ => None,
        })
    }

    /// Why connections to the endpoint fail, if they are to.
    #[must_use]
    pub fn connection_refused(&self, identifier: &str) -> Option<String> {
        self.armed().iter().find_map(|fault| match fault {
            FaultSpec::ConnectionRefused { endpoint, message } if endpoint == identifier => {
                Some(message.clone())
            }
            _ => None,
        })
    }

    pub fn record(&self, call: Call) {
        let mut log = self.log();
        if log.calls.len() >= CALL_LOG_BOUND {
            log.calls.pop_front();
            log.dropped += 1;
        }
        log.calls.push_back(call);
    }

    #[must_use]
    pub fn calls(&self) -> CallLog {
        self.log().clone()
    }

    /// Empties the call log.
    pub fn forget_calls(&self) {
        *self.log() = CallLog::default();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_fault_lasts_as_many_times_as_asked() {
        let board = FaultBoard::default();
        let fault = r#"{"kind":"throttling","operation":"StopReplicationTask","times":2}"#;
        board.arm(serde_json::from_str(fault).unwrap()).unwrap();
        assert_eq!(board.for_call("StartReplicationTask"), None);
        assert_eq!(
            board.for_call("StopReplicationTask"),
            Some(CallFault::Throttled)
        );
        assert_eq!(
            board.for_call("StopReplicationTask"),
            Some(CallFault::Throttled)
        );
        assert_eq!(board.for_call("StopReplicationTask"), None);
    }

    #[test]
    fn a_fault_lets_as_many_calls_pass_as_asked() {
        let board = FaultBoard::default();
        let fault = r#"{"kind":"access_denied","operation":"PutMetricAlarm","after":1,"times":1}"#;
        board.arm(serde_json::from_str(fault).unwrap()).unwrap();
        assert_eq!(board.for_call("DescribeAlarms"), None);
        assert_eq!(board.for_call("PutMetricAlarm"), None);
        assert_eq!(board.for_call("PutMetricAlarm"), Some(CallFault::Denied));
        assert_eq!(board.for_call("PutMetricAlarm"), None);
    }

    #[test]
    fn a_change_is_hit_by_task_and_table() {
        let board = FaultBoard::default();
        let fault = r#"{"kind":"apply_error","task":"forward","schema":"SHOP","table":"ORDERS","message":"LOB"}"#;
        board.arm(serde_json::from_str(fault).unwrap()).unwrap();
        let orders = TableName::new("SHOP", "ORDERS");
        assert!(board.concerns_changes("forward") && !board.concerns_changes("other"));
        assert_eq!(board.for_change("other", &orders), None);
        assert_eq!(
            board.for_change("forward", &orders),
            Some(ChangeFault::Exception("LOB".into()))
        );
        board.clear();
        assert_eq!(board.for_change("forward", &orders), None);
    }
}
