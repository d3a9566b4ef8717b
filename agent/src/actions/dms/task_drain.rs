//! `dms.task.drain`: nothing is pending in the forward task.
//!
//! The marker decides, not this step: DMS applies transactions in the order of
//! their commits, so once Oracle's last one has arrived (with batch apply: the
//! second marker) everything before it is applied, or named in a control table,
//! which `postgres.marker.await` and `postgres.drain.check` read. This step adds
//! what they don't see: the task runs, no table is suspended, no row waits for
//! validation, and CloudWatch doesn't contradict.
//!
//! CloudWatch can contradict but can't decide. DMS publishes one data point of
//! `CDCIncomingChanges` a minute, visible a minute or more later. One whose period
//! begins after this step therefore appears two to four minutes into it, which no
//! outage should wait for to learn what the marker has proved; and a missing
//! point is not zero. So by default none is waited for. A plan can ask for a
//! confirmation (`confirm_secs`, [`CONFIRMED_AFTER`]), and still goes on without
//! one. A point that is there and isn't 0 is waited out, up to `timeout_secs`.
//!
//! Source: AWS DMS user guide, "Replication task metrics"; Amazon CloudWatch user
//! guide, "Metrics concepts" (resolution, periods).

use super::health::Health;
use crate::action::{Action, ActionError, Context, Description, Outputs, found};
use crate::host::cloudwatch::{CloudWatch, Dimensions, Points};
use crate::host::dms::{Dms, Poll, Task};
use crate::policy::Permission;
use async_trait::async_trait;
use jiff::{SignedDuration, Timestamp};
use lockstep_api::Code;
use lockstep_barrier::message::{Finding, Probe};
use lockstep_plan::catalogue::DrainDmsTask;
use serde_json::Value;
use std::time::Duration;

pub struct Drain;

/// Within this a confirmation comes: up to one period until the next begins, that
/// period, and two more until its point is visible.
const CONFIRMED_AFTER: Duration = Duration::from_secs(4 * 60);

/// For how long back the newest point of a metric is looked for: several periods,
/// and fewer points than one GetMetricData answers.
const RECENT: SignedDuration = SignedDuration::from_mins(30);

/// Between two live lines.
const PROGRESS_INTERVAL: Duration = Duration::from_secs(10);

const NAMESPACE: &str = "AWS/DMS";
const INCOMING: &str = "CDCIncomingChanges";
const LATENCY: &str = "CDCLatencyTarget";

/// What the points since this step began say.
#[derive(Debug, PartialEq)]
enum Incoming {
    /// There is none yet.
    Unknown,
    Zero,
    Waiting(f64),
}

fn judge(points: &Points) -> Incoming {
    match points.last() {
        None => Incoming::Unknown,
        Some((_, value)) if *value == 0.0 => Incoming::Zero,
        Some((_, value)) => Incoming::Waiting(*value),
    }
}

/// What one look found.
enum Seen {
    Drained,
    /// Only CloudWatch's confirmation is missing.
    Unconfirmed,
    Pending(String),
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
            "check that {} runs, that no row waits for validation and that CloudWatch's \
             {INCOMING} doesn't contradict the marker",
            task.identifier
        )]);
        let watch = CloudWatch::of(cx, &params.resource).await?;
        if metric(&watch, &task).await?.is_none() {
            description.remarks.push(format!(
                "CloudWatch has no metric {INCOMING} of {}, so it can neither confirm the drain \
                 nor contradict it",
                task.identifier
            ));
        }
        let confirm = confirm(params);
        if !confirm.is_zero() && confirm < CONFIRMED_AFTER {
            description.remarks.push(format!(
                "{} s may be too short for CloudWatch to confirm the drain: a data point takes up \
                 to {} s; the run goes on without it",
                confirm.as_secs(),
                CONFIRMED_AFTER.as_secs()
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
        let limit = Duration::from_secs(params.timeout_secs) + confirm(params);
        let mut poll = Poll::begin(cx, limit);
        let confirmed_by = tokio::time::Instant::now() + confirm(params);
        let mut report_at = tokio::time::Instant::now() + PROGRESS_INTERVAL;
        loop {
            let waiting = match seen(&dms, &watch, params, begun).await? {
                Seen::Drained => break,
                Seen::Unconfirmed if tokio::time::Instant::now() >= confirmed_by => {
                    cx.note(
                        "CloudWatch has published no data point since the marker arrived, and \
                         none is needed: the marker and the control tables decide"
                            .to_owned(),
                    );
                    break;
                }
                Seen::Unconfirmed => {
                    format!("no data point of {INCOMING} yet since this step began")
                }
                Seen::Pending(what) => what,
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

fn confirm(params: &DrainDmsTask) -> Duration {
    Duration::from_secs(params.confirm_secs.unwrap_or_default())
}

async fn running(dms: &Dms, params: &DrainDmsTask) -> Result<Task, ActionError> {
    let task = dms.task(&params.task).await?;
    if task.status == "running" {
        return Ok(task);
    }
    Err(super::wrong_end(&params.task, Some(&task), "running"))
}

/// The dimensions under which the task's metrics run now: usually the ARN's
/// resource id, in places the identifier; of several (the task was moved to this
/// instance from another), those with the newest data point.
async fn metric(watch: &CloudWatch, task: &Task) -> Result<Option<Dimensions>, ActionError> {
    let mut known = Vec::new();
    for value in [task.resource_id(), &task.identifier] {
        let by = ("ReplicationTaskIdentifier", value);
        known.extend(watch.dimensions(NAMESPACE, INCOMING, by).await?);
    }
    if known.len() < 2 {
        return Ok(known.pop());
    }
    let since = Timestamp::now() - RECENT;
    let mut newest = None;
    for dimensions in known {
        let points = watch
            .points(NAMESPACE, INCOMING, &dimensions, since)
            .await?;
        let at = points.last().map(|(at, _)| *at);
        if newest.as_ref().is_none_or(|(than, _)| at > *than) {
            newest = Some((at, dimensions));
        }
    }
    Ok(newest.map(|(_, dimensions)| dimensions))
}

async fn seen(
    dms: &Dms,
    watch: &CloudWatch,
    params: &DrainDmsTask,
    begun: Timestamp,
) -> Result<Seen, ActionError> {
    let task = running(dms, params).await?;
    let health = Health::of(dms, &task).await?.passed(&task)?;
    if health.validating > 0 {
        let rows = health.validating;
        return Ok(Seen::Pending(format!("{rows} rows wait for validation")));
    }
    let Some(dimensions) = metric(watch, &task).await? else {
        return Ok(Seen::Unconfirmed);
    };
    let points = watch
        .points(NAMESPACE, INCOMING, &dimensions, begun)
        .await?;
    let changes = match judge(&points) {
        Incoming::Unknown => return Ok(Seen::Unconfirmed),
        Incoming::Zero => return Ok(Seen::Drained),
        Incoming::Waiting(changes) => changes,
    };
    let latency = watch.points(NAMESPACE, LATENCY, &dimensions, begun).await?;
    let latency = latency
        .last()
        .map(|(_, seconds)| format!(" (latency at the target {seconds} s)"));
    Ok(Seen::Pending(format!(
        "{changes} changes wait to be applied{}",
        latency.unwrap_or_default()
    )))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_newest_point_counts_and_nothing_is_no_zero() {
        assert_eq!(judge(&vec![]), Incoming::Unknown);
        assert_eq!(judge(&vec![(1, 0.0), (2, 3.0)]), Incoming::Waiting(3.0));
        assert_eq!(judge(&vec![(1, 3.0), (2, 0.0)]), Incoming::Zero);
    }
}
