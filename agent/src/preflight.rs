//! Preflight: every task of a plan looked at, nothing promised or changed.

use crate::action::{Progress, Tag};
use crate::bounds;
use crate::work::Worker;
use lockstep_proto::{convert, v1};
use tokio_util::sync::CancellationToken;

/// Looks at every task of the order, in order.
pub async fn look(worker: &Worker, order: v1::PreflightOrder) -> v1::PreflightReport {
    let request_id = order.request_id;
    let tasks = match convert::tasks(order.tasks) {
        Ok(tasks) => tasks,
        Err(invalid) => {
            let obstacles = vec![format!("the coordinator sent an invalid task: {invalid}")];
            let finding = v1::PreflightFinding {
                obstacles,
                ..Default::default()
            };
            return v1::PreflightReport {
                request_id,
                findings: vec![finding],
            };
        }
    };
    let mut findings = Vec::with_capacity(tasks.len());
    let mut room = bounds::Report::new();
    for task in &tasks {
        let tag = Tag {
            run: "preflight".to_owned(),
            step: task.step.0.clone(),
            attempt: 0,
            of: None,
        };
        let cx = worker.context(tag, CancellationToken::new(), Progress::silent());
        let seen = worker.preflight(task, &cx).await;
        let finding = seen
            .finding
            .map_or(v1::Finding::Unspecified, v1::Finding::from);
        findings.push(room.take(v1::PreflightFinding {
            step_id: task.step.0.clone(),
            would_do: seen.would_do,
            obstacles: seen.obstacles,
            remarks: seen.remarks,
            finding: finding.into(),
        }));
    }
    v1::PreflightReport {
        request_id,
        findings,
    }
}
