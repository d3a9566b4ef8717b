//! `dms.task.drain`: nothing is pending in the forward task.
//!
//! The marker proves the order, the counters that nothing lags behind it:
//! two data points of `CDCIncomingChanges`, both taken after this step began,
//! must be 0. A missing point is not zero. Latency only corroborates: it
//! falls to 0 as well when nothing new is read.

use super::health::Health;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::cloudwatch::{CloudWatch, Points};
use crate::host::dms::{Dms, Poll, Task};
use crate::policy::Permission;
use async_trait::async_trait;
use jiff::Timestamp;
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DrainDmsTask;
use serde_json::Value;
use std::time::Duration;

pub struct Drain;

/// Data points in a row that must be 0.
const ZEROS: usize = 2;

/// Between two live lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

const NAMESPACE: &str = "AWS/DMS";
const INCOMING: &str = "CDCIncomingChanges";
const LATENCY: &str = "CDCLatencyTarget";

/// What the points say.
#[derive(Debug, PartialEq)]
enum Incoming {
    Zero,
    NotYet(String),
}

fn judge(points: &Points) -> Incoming {
    let last: Vec<f64> = points.iter().rev().take(ZEROS).map(|(_, v)| *v).collect();
    if last.len() == ZEROS && last.iter().all(|value| *value == 0.0) {
        return Incoming::Zero;
    }
    Incoming::NotYet(match last.first() {
        None => format!("no data point of {INCOMING} yet since this step began"),
        Some(value) if *value == 0.0 => format!("one data point of {INCOMING} is 0"),
        Some(value) => format!("{value} changes wait to be applied"),
    })
}

#[async_trait]
impl Action for Drain {
    type Params = DrainDmsTask;

    fn required_permissions(&self, params: &DrainDmsTask) -> Vec<Permission> {
        vec![Permission::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &DrainDmsTask) -> Result<Probe, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        running(&dms, params).await?;
        // That nothing was pending a moment ago proves nothing now.
        Ok(found(Finding::Pending))
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &DrainDmsTask,
    ) -> Result<Description, ActionError> {
        let dms = Dms::of(cx, &params.resource).await?;
        let task = dms.task(&params.task).await?;
        let mut description = Description::of([format!(
            "wait until {INCOMING} of {} is 0 in {ZEROS} data points, validation included",
            task.identifier
        )]);
        let watch = CloudWatch::of(cx, &params.resource).await?;
        if metric(&watch, &task).await?.is_none() {
            description.obstacles.push(format!(
                "CloudWatch has no metric {INCOMING} of {}; see that the task publishes it",
                task.identifier
            ));
        }
        Ok(description)
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &DrainDmsTask,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let begun = Timestamp::now();
        let dms = Dms::of(cx, &params.resource).await?;
        let watch = CloudWatch::of(cx, &params.resource).await?;
        let limit = Duration::from_secs(params.timeout_secs);
        let mut poll = Poll::begin(cx, limit);
        let mut report_at = tokio::time::Instant::now() + PROGRESS_INTERVAL;
        loop {
            let waiting = match pending(&dms, &watch, params, begun).await? {
                None => break,
                Some(waiting) => waiting,
            };
            if tokio::time::Instant::now() >= report_at {
                cx.note(waiting.clone());
                report_at += PROGRESS_INTERVAL;
            }
            if !poll.again("the wait for the drain").await? {
                return Err(ActionError::new(
                    Code::LS2416,
                    format!("not drained after {} s: {waiting}", limit.as_secs()),
                )
                .state_left("Oracle is closed, the task runs")
                .remedy(
                    "see the task's metrics in CloudWatch, then retry for more time or roll back",
                ));
            }
        }
        cx.note("nothing is pending in the task".to_owned());
        Ok(Outputs::new())
    }
}

async fn running(dms: &Dms, params: &DrainDmsTask) -> Result<Task, ActionError> {
    let task = dms.task(&params.task).await?;
    if task.status == "running" {
        return Ok(task);
    }
    Err(super::wrong_end(&params.task, Some(&task), "running"))
}

/// The dimensions under which the task's metrics run: usually the ARN's
/// resource id, in places the identifier.
async fn metric(
    watch: &CloudWatch,
    task: &Task,
) -> Result<Option<Vec<(String, String)>>, ActionError> {
    for value in [task.resource_id(), &task.identifier] {
        let by = ("ReplicationTaskIdentifier", value);
        if let Some(found) = watch.dimensions(NAMESPACE, INCOMING, by).await? {
            return Ok(Some(found));
        }
    }
    Ok(None)
}

/// What is still pending; nothing once drained.
async fn pending(
    dms: &Dms,
    watch: &CloudWatch,
    params: &DrainDmsTask,
    begun: Timestamp,
) -> Result<Option<String>, ActionError> {
    let task = running(dms, params).await?;
    let health = Health::of(dms, &task).await?.passed(&task)?;
    if health.validating > 0 {
        return Ok(Some(format!(
            "{} rows wait for validation",
            health.validating
        )));
    }
    let Some(dimensions) = metric(watch, &task).await? else {
        return Ok(Some(format!("CloudWatch knows no {INCOMING} of the task")));
    };
    let points = watch
        .points(NAMESPACE, INCOMING, &dimensions, begun)
        .await?;
    match judge(&points) {
        Incoming::Zero => Ok(None),
        Incoming::NotYet(why) => {
            let latency = watch.points(NAMESPACE, LATENCY, &dimensions, begun).await?;
            let latency = latency
                .last()
                .map(|(_, seconds)| format!(" (latency at the target {seconds} s)"));
            Ok(Some(format!("{why}{}", latency.unwrap_or_default())))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_zeros_are_wanted_and_nothing_is_no_zero() {
        assert!(matches!(judge(&vec![]), Incoming::NotYet(_)));
        assert!(matches!(judge(&vec![(1, 0.0)]), Incoming::NotYet(_)));
        assert!(matches!(
            judge(&vec![(1, 0.0), (2, 3.0)]),
            Incoming::NotYet(_)
        ));
        assert!(matches!(
            judge(&vec![(1, 3.0), (2, 0.0)]),
            Incoming::NotYet(_)
        ));
        assert_eq!(judge(&vec![(1, 3.0), (2, 0.0), (3, 0.0)]), Incoming::Zero);
    }
}
