//! CloudWatch's data: metrics, alarms and dashboards.
//!
//! Data points come from the engines ([`Metrics::publish_tasks`]) and from
//! PutMetricData. As with CloudWatch a task that doesn't run gets no data point:
//! a missing point is not zero. Alarms are evaluated when they are described.

use crate::task::registry::{Registry, Task};
use crate::task::state::{Status, now_ms};
use std::collections::{BTreeMap, VecDeque};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

/// The namespace of DMS's metrics.
pub const DMS_NAMESPACE: &str = "AWS/DMS";

/// Data points kept for one metric: three hours at one a second, longer than any
/// rehearsal, and what ListMetrics calls recently active.
const POINT_BOUND: usize = 3 * 3_600;

/// Metrics kept. A rehearsal has a few dozen.
const METRIC_BOUND: usize = 2_000;

/// Alarms and dashboards kept, each.
const DEFINITION_BOUND: usize = 500;

/// What names a metric. Dimensions are sorted.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct MetricId {
    /// `Namespace`.
    pub namespace: String,
    /// `MetricName`.
    pub name: String,
    /// `Dimensions`, sorted by name.
    pub dimensions: Vec<(String, String)>,
}

impl MetricId {
    /// An id with its dimensions put in order.
    pub fn new(
        namespace: impl Into<String>,
        name: impl Into<String>,
        mut dimensions: Vec<(String, String)>,
    ) -> Self {
        dimensions.sort();
        Self {
            namespace: namespace.into(),
            name: name.into(),
            dimensions,
        }
    }
}

/// How the points of a period become one value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Statistic {
    Average,
    Maximum,
    Minimum,
    Sum,
    SampleCount,
}

impl Statistic {
    /// Reads the API's word; percentiles are not supported.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "Average" => Self::Average,
            "Maximum" => Self::Maximum,
            "Minimum" => Self::Minimum,
            "Sum" => Self::Sum,
            "SampleCount" => Self::SampleCount,
            _ => return None,
        })
    }

    #[expect(clippy::cast_precision_loss, reason = "a few thousand points at most")]
    fn of(self, points: &[f64]) -> f64 {
        let sum: f64 = points.iter().sum();
        match self {
            Self::Average => sum / points.len() as f64,
            Self::Maximum => points.iter().copied().fold(f64::NEG_INFINITY, f64::max),
            Self::Minimum => points.iter().copied().fold(f64::INFINITY, f64::min),
            Self::Sum => sum,
            Self::SampleCount => points.len() as f64,
        }
    }
}

/// An alarm on one metric.
#[derive(Debug, Clone)]
pub struct Alarm {
    /// `AlarmName`.
    pub name: String,
    /// The request as it came, for the members that are only kept.
    pub request: serde_json::Map<String, serde_json::Value>,
    pub metric: MetricId,
    /// How points become values.
    pub statistic: Statistic,
    /// Seconds of a period.
    pub period_s: i64,
    pub evaluation_periods: i64,
    /// Of them so many must breach.
    pub datapoints_to_alarm: i64,
    pub threshold: f64,
    /// `ComparisonOperator`.
    pub comparison: Comparison,
    /// `TreatMissingData`.
    pub missing: MissingData,
    /// When it was last put, epoch ms.
    pub updated_ms: i64,
}

/// `ComparisonOperator`, without the anomaly bands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Comparison {
    /// `>=`
    AtLeast,
    /// `>`
    Above,
    /// `<`
    Below,
    /// `<=`
    AtMost,
}

/// `TreatMissingData`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum MissingData {
    Breaching,
    NotBreaching,
    /// As nothing; with nothing at all the state is INSUFFICIENT_DATA.
    Missing,
}

#[derive(Default)]
struct Inner {
    points: BTreeMap<MetricId, VecDeque<(i64, f64)>>,
    alarms: BTreeMap<String, Alarm>,
    dashboards: BTreeMap<String, String>,
}

#[derive(Default)]
pub struct Metrics(Mutex<Inner>);

impl Metrics {
    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Adds a data point.
    ///
    /// # Errors
    /// When the bound of metrics is reached.
    pub fn put(&self, id: MetricId, epoch_ms: i64, value: f64) -> Result<(), String> {
        let mut inner = self.lock();
        if !inner.points.contains_key(&id) && inner.points.len() >= METRIC_BOUND {
            return Err(format!("{METRIC_BOUND} metrics are kept at most"));
        }
        let points = inner.points.entry(id).or_default();
        if points.len() >= POINT_BOUND {
            points.pop_front();
        }
        points.push_back((epoch_ms, value));
        Ok(())
    }

    /// Every metric that has a data point.
    #[must_use]
    pub fn list(&self) -> Vec<MetricId> {
        self.lock().points.keys().cloned().collect()
    }

    /// Values by period, oldest first: each begins at a multiple of the period and
    /// is there only if a point falls into it.
    #[must_use]
    pub fn values(
        &self,
        id: &MetricId,
        statistic: Statistic,
        period_s: i64,
        from_ms: i64,
        to_ms: i64,
    ) -> Vec<(i64, f64)> {
        let period_ms = period_s.max(1) * 1_000;
        let mut periods: BTreeMap<i64, Vec<f64>> = BTreeMap::new();
        if let Some(points) = self.lock().points.get(id) {
            for (at, value) in points
                .iter()
                .filter(|(at, _)| (from_ms..to_ms).contains(at))
            {
                periods
                    .entry(at.div_euclid(period_ms) * period_ms)
                    .or_default()
                    .push(*value);
            }
        }
        periods
            .into_iter()
            .map(|(at, points)| (at, statistic.of(&points)))
            .collect()
    }

    /// Puts an alarm, new or in place of the one of that name.
    ///
    /// # Errors
    /// When the bound is reached.
    pub fn put_alarm(&self, alarm: Alarm) -> Result<(), String> {
        let mut inner = self.lock();
        if !inner.alarms.contains_key(&alarm.name) && inner.alarms.len() >= DEFINITION_BOUND {
            return Err(format!("{DEFINITION_BOUND} alarms are kept at most"));
        }
        inner.alarms.insert(alarm.name.clone(), alarm);
        Ok(())
    }

    /// Every alarm, by name.
    #[must_use]
    pub fn alarms(&self) -> Vec<Alarm> {
        self.lock().alarms.values().cloned().collect()
    }

    /// Deletes alarms: all of them, or none and the first name that is unknown.
    ///
    /// # Errors
    /// The unknown name.
    pub fn delete_alarms(&self, names: &[String]) -> Result<(), String> {
        let mut inner = self.lock();
        if let Some(unknown) = names.iter().find(|n| !inner.alarms.contains_key(*n)) {
            return Err(unknown.clone());
        }
        for name in names {
            inner.alarms.remove(name);
        }
        Ok(())
    }

    /// Puts a dashboard's body.
    ///
    /// # Errors
    /// When the bound is reached.
    pub fn put_dashboard(&self, name: String, body: String) -> Result<(), String> {
        let mut inner = self.lock();
        if !inner.dashboards.contains_key(&name) && inner.dashboards.len() >= DEFINITION_BOUND {
            return Err(format!("{DEFINITION_BOUND} dashboards are kept at most"));
        }
        inner.dashboards.insert(name, body);
        Ok(())
    }

    #[must_use]
    pub fn dashboard(&self, name: &str) -> Option<String> {
        self.lock().dashboards.get(name).cloned()
    }

    /// An alarm's state at a time: `OK`, `ALARM` or `INSUFFICIENT_DATA`, and why.
    #[must_use]
    pub fn alarm_state(&self, alarm: &Alarm, at_ms: i64) -> (&'static str, String) {
        let period_ms = alarm.period_s * 1_000;
        let end = at_ms.div_euclid(period_ms) * period_ms + period_ms;
        let begin = end - alarm.evaluation_periods * period_ms;
        let values = self.values(&alarm.metric, alarm.statistic, alarm.period_s, begin, end);
        let missing = alarm.evaluation_periods - i64::try_from(values.len()).unwrap_or(i64::MAX);
        let over = values
            .iter()
            .filter(|(_, v)| alarm.comparison.breaches(*v, alarm.threshold));
        let mut breaching = i64::try_from(over.count()).unwrap_or(i64::MAX);
        if alarm.missing == MissingData::Breaching {
            breaching += missing;
        }
        if values.is_empty() && alarm.missing == MissingData::Missing {
            return (
                "INSUFFICIENT_DATA",
                "Insufficient Data: no datapoints were received".into(),
            );
        }
        let reason = format!(
            "{breaching} of {} periods breach the threshold {}",
            alarm.evaluation_periods, alarm.threshold
        );
        if breaching >= alarm.datapoints_to_alarm {
            ("ALARM", reason)
        } else {
            ("OK", reason)
        }
    }

    /// Publishes what the running tasks have measured, for ever.
    pub async fn publish_tasks(&self, registry: &Registry) {
        loop {
            tokio::time::sleep(Duration::from_millis(registry.timing().metrics_ms.max(10))).await;
            for task in registry.tasks() {
                if matches!(task.status, Status::Running | Status::Stopping) {
                    self.publish(&registry.resources.instance_identifier, &task);
                }
            }
        }
    }

    /// One point of each metric of a task.
    ///
    /// Source latency is the time since the source was last known to be read to
    /// its end; target latency the time for which the oldest change that was read
    /// has waited to be applied. Incoming changes are those waiting.
    #[expect(
        clippy::cast_precision_loss,
        reason = "latencies and counts are far below 2^52"
    )]
    fn publish(&self, instance: &str, task: &Task) {
        let now = now_ms();
        let snapshot = task.progress.snapshot();
        let since = |ms: Option<i64>| ms.map_or(0.0, |ms| ((now - ms).max(0) / 1_000) as f64);
        let (source, waiting) = (
            since(snapshot.source_read_until_ms),
            since(snapshot.oldest_pending_ms),
        );
        let pending = snapshot.pending() as f64;
        let dimensions = vec![
            (
                "ReplicationInstanceIdentifier".to_owned(),
                instance.to_owned(),
            ),
            (
                "ReplicationTaskIdentifier".to_owned(),
                task.definition.resource_id().to_owned(),
            ),
        ];
        for (name, value) in [
            ("CDCLatencySource", source),
            ("CDCLatencyTarget", source.max(waiting)),
            ("CDCIncomingChanges", pending),
            ("CDCChangesMemorySource", 0.0),
            ("CDCChangesMemoryTarget", pending),
            ("CDCChangesDiskSource", 0.0),
            ("CDCChangesDiskTarget", 0.0),
        ] {
            let id = MetricId::new(DMS_NAMESPACE, name, dimensions.clone());
            if let Err(why) = self.put(id, now, value) {
                tracing::warn!(why, "a data point is lost");
            }
        }
    }
}

impl Comparison {
    /// Reads the API's word.
    #[must_use]
    pub fn parse(text: &str) -> Option<Self> {
        Some(match text {
            "GreaterThanOrEqualToThreshold" => Self::AtLeast,
            "GreaterThanThreshold" => Self::Above,
            "LessThanThreshold" => Self::Below,
            "LessThanOrEqualToThreshold" => Self::AtMost,
            _ => return None,
        })
    }

    fn breaches(self, value: f64, threshold: f64) -> bool {
        match self {
            Self::AtLeast => value >= threshold,
            Self::Above => value > threshold,
            Self::Below => value < threshold,
            Self::AtMost => value <= threshold,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn latency() -> MetricId {
        MetricId::new(DMS_NAMESPACE, "CDCLatencySource", vec![])
    }

    fn alarm(missing: MissingData) -> Alarm {
        Alarm {
            name: "late".into(),
            request: serde_json::Map::new(),
            metric: latency(),
            statistic: Statistic::Maximum,
            period_s: 60,
            evaluation_periods: 2,
            datapoints_to_alarm: 2,
            threshold: 10.0,
            comparison: Comparison::Above,
            missing,
            updated_ms: 0,
        }
    }

    #[test]
    fn points_fall_into_aligned_periods() {
        let metrics = Metrics::default();
        for (at, value) in [(59_000, 1.0), (60_000, 2.0), (119_000, 4.0), (200_000, 9.0)] {
            metrics.put(latency(), at, value).unwrap();
        }
        let values = metrics.values(&latency(), Statistic::Average, 60, 0, 180_000);
        assert_eq!(values, [(0, 1.0), (60_000, 3.0)]);
        let values = metrics.values(&latency(), Statistic::Maximum, 60, 60_000, 120_000);
        assert_eq!(values, [(60_000, 4.0)]);
    }

    #[test]
    fn an_alarm_judges_missing_data_as_told() {
        let metrics = Metrics::default();
        for (missing, state) in [
            (MissingData::Missing, "INSUFFICIENT_DATA"),
            (MissingData::Breaching, "ALARM"),
            (MissingData::NotBreaching, "OK"),
        ] {
            assert_eq!(
                metrics.alarm_state(&alarm(missing), 119_000).0,
                state,
                "{missing:?}"
            );
        }
        metrics.put(latency(), 30_000, 11.0).unwrap();
        assert_eq!(
            metrics.alarm_state(&alarm(MissingData::Missing), 119_000).0,
            "OK"
        );
        metrics.put(latency(), 90_000, 12.0).unwrap();
        assert_eq!(
            metrics.alarm_state(&alarm(MissingData::Missing), 119_000).0,
            "ALARM"
        );
    }
}
