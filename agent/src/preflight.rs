//! Preflight: probes every task of a plan without promising or changing
//! anything.

use crate::action::{Outputs, Progress, WorkId};
use crate::message_limits;
use crate::worker::{Inputs, Worker};
use lockstep_barrier::ids::StepId;
use lockstep_barrier::message::{Finding, TaskOrder};
use tokio_util::sync::CancellationToken;

#[derive(Debug, Clone)]
pub struct PreflightOrder {
    pub request_id: String,
    /// The tasks to probe, in order, with the foreseen outputs of other steps; or
    /// why they can't be read, which the report then says.
    pub tasks: Result<(Vec<TaskOrder>, Inputs), String>,
}

/// One finding for each task of the order, in order.
#[derive(Debug, Clone, Default)]
pub struct PreflightReport {
    pub request_id: String,
    pub findings: Vec<PreflightFinding>,
}

#[derive(Debug, Clone, Default)]
pub struct PreflightFinding {
    /// Absent where the finding is about the order itself.
    pub step: Option<StepId>,
    /// The SQL, the commands and the API calls, a line each.
    pub would_do: Vec<String>,
    /// Sentences with their remedies.
    pub obstacles: Vec<String>,
    pub remarks: Vec<String>,
    /// Absent where the task couldn't be probed.
    pub finding: Option<Finding>,
    /// Outputs that are known before the run.
    pub foreseen: Outputs,
}

/// Probes every task of the order, in order.
pub async fn run(worker: &Worker, order: PreflightOrder) -> PreflightReport {
    let request_id = order.request_id;
    let (tasks, inputs) = match order.tasks {
        Ok(order) => order,
        Err(invalid) => {
            let obstacles = vec![format!(
                "LS2008: the coordinator sent an invalid task: {invalid}; nothing was done; \
                 install the coordinator's version on this host"
            )];
            let finding = PreflightFinding {
                obstacles,
                ..PreflightFinding::default()
            };
            return PreflightReport {
                request_id,
                findings: vec![finding],
            };
        }
    };
    let mut findings = Vec::with_capacity(tasks.len());
    let mut room = message_limits::Report::new();
    for task in &tasks {
        let tag = WorkId {
            run: "preflight".to_owned(),
            step: task.step.0.clone(),
            attempt: 0,
            of: None,
        };
        let cx = worker.context(tag, CancellationToken::new(), Progress::silent());
        let seen = worker.preflight(task, &inputs, &cx).await;
        findings.push(room.fit(PreflightFinding {
            step: Some(task.step.clone()),
            would_do: seen.would_do,
            obstacles: seen.obstacles,
            remarks: seen.remarks,
            finding: seen.finding,
            foreseen: seen.foreseen,
        }));
    }
    PreflightReport {
        request_id,
        findings,
    }
}
