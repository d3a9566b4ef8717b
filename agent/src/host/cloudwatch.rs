//! Amazon CloudWatch: data points and alarms.

use super::aws;
use crate::error::ActionError;
use crate::host::context::Context;
use aws_sdk_cloudwatch::Client;
use aws_sdk_cloudwatch::error::{ProvideErrorMetadata, SdkError};
use aws_sdk_cloudwatch::primitives::DateTime;
use aws_sdk_cloudwatch::types::{
    Dimension, DimensionFilter, Metric, MetricAlarm, MetricDataQuery, MetricStat, RecentlyActive,
};
use jiff::Timestamp;

/// Names in one DescribeAlarms call (API reference).
const ALARMS_A_CALL: usize = 100;

/// Pages of metrics, 500 each. With a filter there is one.
const PAGES: usize = 20;

/// Seconds of a period: DMS publishes once a minute; a metric of high
/// resolution has points by the second.
const PERIODS: [(&str, i32); 2] = [("fine", 1), ("coarse", 60)];

/// Seconds beyond now to query, for clocks that differ.
const AHEAD_SECS: i64 = 60;

/// Names and values of a metric's dimensions.
pub type Dimensions = Vec<(String, String)>;

/// Epoch seconds and values, oldest first.
pub type Points = Vec<(i64, f64)>;

/// The service as one task uses it.
pub struct CloudWatch {
    client: Client,
    cx: Context,
}

impl CloudWatch {
    /// The service of a resource. Makes no call yet.
    ///
    /// # Errors
    /// Where the configuration's credentials can't be read.
    pub async fn of(cx: &Context, resource: &str) -> Result<Self, ActionError> {
        Ok(Self {
            client: aws::clients(cx, resource).await?.cloudwatch,
            cx: cx.clone(),
        })
    }

    async fn call<T, E>(
        &self,
        operation: &str,
        on: &str,
        work: impl Future<Output = Result<T, SdkError<E>>>,
    ) -> Result<T, ActionError>
    where
        E: ProvideErrorMetadata + std::error::Error + 'static,
    {
        Ok(aws::call(&self.cx, "cloudwatch", operation, on, work).await?)
    }

    /// The dimensions of every metric of that name which has this dimension and
    /// recent data. After MoveReplicationTask there are several: those of the old
    /// instance stay listed for hours.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn dimensions(
        &self,
        namespace: &str,
        metric: &str,
        (name, value): (&str, &str),
    ) -> Result<Vec<Dimensions>, ActionError> {
        let filter = DimensionFilter::builder().name(name).value(value).build();
        let (mut found, mut token) = (Vec::new(), None);
        for _ in 0..PAGES {
            let request = self
                .client
                .list_metrics()
                .namespace(namespace)
                .metric_name(metric)
                .dimensions(filter.clone())
                .recently_active(RecentlyActive::Pt3H)
                .set_next_token(token);
            let answer = self
                .call("ListMetrics", metric, Box::pin(request.send()))
                .await?;
            found.extend(answer.metrics().iter().map(|one| pairs(one.dimensions())));
            token = answer.next_token;
            if token.is_none() {
                break;
            }
        }
        Ok(found)
    }

    /// Maximum by period since then, in the finest resolution that has data.
    /// Periods that began earlier don't count.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn points(
        &self,
        namespace: &str,
        metric: &str,
        dimensions: &[(String, String)],
        since: Timestamp,
    ) -> Result<Points, ActionError> {
        let named = Metric::builder()
            .namespace(namespace)
            .metric_name(metric)
            .set_dimensions(Some(dimensions_of(dimensions)))
            .build();
        let queries = PERIODS.iter().map(|(id, period)| {
            let stat = MetricStat::builder()
                .metric(named.clone())
                .period(*period)
                .stat("Maximum")
                .build();
            MetricDataQuery::builder().id(*id).metric_stat(stat).build()
        });
        let from = since.as_second();
        let to = Timestamp::now().as_second() + AHEAD_SECS;
        let request = self
            .client
            .get_metric_data()
            .set_metric_data_queries(Some(queries.collect()))
            .start_time(DateTime::from_secs(from))
            .end_time(DateTime::from_secs(to));
        let answer = self
            .call("GetMetricData", metric, Box::pin(request.send()))
            .await?;
        for (id, _) in PERIODS {
            let result = answer
                .metric_data_results()
                .iter()
                .find(|result| result.id() == Some(id));
            let Some(result) = result else { continue };
            let mut points: Points = result
                .timestamps()
                .iter()
                .map(DateTime::secs)
                .zip(result.values().iter().copied())
                .filter(|(at, _)| *at > from)
                .collect();
            points.sort_by_key(|(at, _)| *at);
            if !points.is_empty() {
                return Ok(points);
            }
        }
        Ok(Points::new())
    }

    /// The existing metric alarms of those names.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn alarms(&self, names: &[String]) -> Result<Vec<MetricAlarm>, ActionError> {
        let mut alarms = Vec::new();
        for names in names.chunks(ALARMS_A_CALL) {
            let request = self
                .client
                .describe_alarms()
                .set_alarm_names(Some(names.to_vec()))
                .max_records(100);
            let answer = self
                .call(
                    "DescribeAlarms",
                    &names.join(", "),
                    Box::pin(request.send()),
                )
                .await?;
            alarms.extend(answer.metric_alarms.unwrap_or_default());
        }
        Ok(alarms)
    }

    /// Creates an alarm, or replaces the one of that name.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn put_alarm(&self, alarm: &MetricAlarm) -> Result<(), ActionError> {
        let name = alarm.alarm_name().unwrap_or_default();
        let list = |items: &[String]| (!items.is_empty()).then(|| items.to_vec());
        let request = self
            .client
            .put_metric_alarm()
            .set_alarm_name(alarm.alarm_name.clone())
            .set_alarm_description(alarm.alarm_description.clone())
            .set_actions_enabled(alarm.actions_enabled)
            .set_ok_actions(list(alarm.ok_actions()))
            .set_alarm_actions(list(alarm.alarm_actions()))
            .set_insufficient_data_actions(list(alarm.insufficient_data_actions()))
            .set_namespace(alarm.namespace.clone())
            .set_metric_name(alarm.metric_name.clone())
            .set_dimensions(alarm.dimensions.clone())
            .set_statistic(alarm.statistic.clone())
            .set_extended_statistic(alarm.extended_statistic.clone())
            .set_period(alarm.period)
            .set_unit(alarm.unit.clone())
            .set_evaluation_periods(alarm.evaluation_periods)
            .set_datapoints_to_alarm(alarm.datapoints_to_alarm)
            .set_threshold(alarm.threshold)
            .set_comparison_operator(alarm.comparison_operator.clone())
            .set_treat_missing_data(alarm.treat_missing_data.clone())
            .set_evaluate_low_sample_count_percentile(
                alarm.evaluate_low_sample_count_percentile.clone(),
            );
        self.call("PutMetricAlarm", name, Box::pin(request.send()))
            .await
            .map(drop)
    }

    /// Deletes alarms.
    ///
    /// # Errors
    /// As [`aws::call`].
    pub async fn delete_alarms(&self, names: &[String]) -> Result<(), ActionError> {
        for names in names.chunks(ALARMS_A_CALL) {
            let request = self
                .client
                .delete_alarms()
                .set_alarm_names(Some(names.to_vec()));
            self.call("DeleteAlarms", &names.join(", "), Box::pin(request.send()))
                .await?;
        }
        Ok(())
    }
}

pub fn pairs(dimensions: &[Dimension]) -> Vec<(String, String)> {
    dimensions
        .iter()
        .map(|one| {
            let text = |text: Option<&str>| text.unwrap_or_default().to_owned();
            (text(one.name()), text(one.value()))
        })
        .collect()
}

pub fn dimensions_of(pairs: &[(String, String)]) -> Vec<Dimension> {
    pairs
        .iter()
        .map(|(name, value)| Dimension::builder().name(name).value(value).build())
        .collect()
}
