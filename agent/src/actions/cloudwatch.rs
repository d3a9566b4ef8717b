//! `cloudwatch.alarms.put`: the alarms are defined as in the plan.

use crate::action::{
    Action, ActionError, Context, Description, Outputs, Undone, decode_before_image, satisfied_if,
    with_before_image,
};
use crate::host::cloudwatch::{CloudWatch, dimensions_of, pairs};
use crate::policy::Permission;
use async_trait::async_trait;
use aws_sdk_cloudwatch::types::{ComparisonOperator, MetricAlarm, StandardUnit, Statistic};
use lockstep_api::Code;
use lockstep_barrier::message::Probe;
use lockstep_plan::catalogue::{Alarm, CloudwatchAlarms};
use serde::{Deserialize, Serialize};
use serde_json::Value;
use std::collections::BTreeMap;

pub struct Put;

/// An alarm as it is saved: every parameter of PutMetricAlarm for an alarm on
/// one metric.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Definition {
    name: String,
    description: Option<String>,
    actions_enabled: bool,
    ok_actions: Vec<String>,
    alarm_actions: Vec<String>,
    no_data_actions: Vec<String>,
    namespace: Option<String>,
    metric: Option<String>,
    dimensions: BTreeMap<String, String>,
    statistic: Option<String>,
    extended_statistic: Option<String>,
    period: Option<i32>,
    unit: Option<String>,
    periods: Option<i32>,
    datapoints: Option<i32>,
    threshold: Option<f64>,
    comparison: Option<String>,
    missing_data: Option<String>,
    low_sample: Option<String>,
}

impl Definition {
    /// The alarm of the plan. All periods have to breach, which is CloudWatch's
    /// rule where DatapointsToAlarm is absent.
    fn wanted(alarm: &Alarm) -> Self {
        let number = |number: u32| i32::try_from(number).ok();
        Self {
            name: alarm.name.clone(),
            description: None,
            actions_enabled: true,
            ok_actions: Vec::new(),
            alarm_actions: alarm.actions.clone(),
            no_data_actions: Vec::new(),
            namespace: Some(alarm.namespace.clone()),
            metric: Some(alarm.metric.clone()),
            dimensions: alarm.dimensions.clone(),
            statistic: Some(alarm.statistic.clone()),
            extended_statistic: None,
            period: number(alarm.period_secs),
            unit: None,
            periods: number(alarm.periods),
            datapoints: None,
            threshold: Some(alarm.threshold),
            comparison: Some(alarm.comparison.clone()),
            missing_data: Some(alarm.missing_data.clone()),
            low_sample: None,
        }
    }

    fn of(alarm: &MetricAlarm) -> Self {
        let text = |text: Option<&str>| text.map(str::to_owned);
        Self {
            name: alarm.alarm_name().unwrap_or_default().to_owned(),
            description: text(alarm.alarm_description()),
            actions_enabled: alarm.actions_enabled().unwrap_or(true),
            ok_actions: alarm.ok_actions().to_vec(),
            alarm_actions: alarm.alarm_actions().to_vec(),
            no_data_actions: alarm.insufficient_data_actions().to_vec(),
            namespace: text(alarm.namespace()),
            metric: text(alarm.metric_name()),
            dimensions: pairs(alarm.dimensions()).into_iter().collect(),
            statistic: text(alarm.statistic().map(Statistic::as_str)),
            extended_statistic: text(alarm.extended_statistic()),
            period: alarm.period(),
            unit: text(alarm.unit().map(StandardUnit::as_str)),
            periods: alarm.evaluation_periods(),
            // CloudWatch returns its defaults explicitly.
            datapoints: alarm
                .datapoints_to_alarm()
                .filter(|points| Some(*points) != alarm.evaluation_periods()),
            threshold: alarm.threshold(),
            comparison: text(alarm.comparison_operator().map(ComparisonOperator::as_str)),
            missing_data: text(alarm.treat_missing_data()),
            low_sample: text(alarm.evaluate_low_sample_count_percentile()),
        }
    }

    fn alarm(&self) -> MetricAlarm {
        let dimensions: Vec<(String, String)> = self.dimensions.clone().into_iter().collect();
        MetricAlarm::builder()
            .alarm_name(&self.name)
            .set_alarm_description(self.description.clone())
            .actions_enabled(self.actions_enabled)
            .set_ok_actions(Some(self.ok_actions.clone()))
            .set_alarm_actions(Some(self.alarm_actions.clone()))
            .set_insufficient_data_actions(Some(self.no_data_actions.clone()))
            .set_namespace(self.namespace.clone())
            .set_metric_name(self.metric.clone())
            .set_dimensions(Some(dimensions_of(&dimensions)))
            .set_statistic(self.statistic.as_deref().map(Statistic::from))
            .set_extended_statistic(self.extended_statistic.clone())
            .set_period(self.period)
            .set_unit(self.unit.as_deref().map(StandardUnit::from))
            .set_evaluation_periods(self.periods)
            .set_datapoints_to_alarm(self.datapoints)
            .set_threshold(self.threshold)
            .set_comparison_operator(self.comparison.as_deref().map(ComparisonOperator::from))
            .set_treat_missing_data(self.missing_data.clone())
            .set_evaluate_low_sample_count_percentile(self.low_sample.clone())
            .build()
    }
}

/// The alarms that exist, by name: the before-image.
type Definitions = BTreeMap<String, Definition>;

async fn defined(
    watch: &CloudWatch,
    params: &CloudwatchAlarms,
) -> Result<Definitions, ActionError> {
    let names: Vec<String> = params.alarms.iter().map(|a| a.name.clone()).collect();
    let alarms = watch.alarms(&names).await?;
    let composed: Vec<&str> = alarms
        .iter()
        .filter(|alarm| !alarm.metrics().is_empty() || alarm.threshold_metric_id().is_some())
        .filter_map(MetricAlarm::alarm_name)
        .collect();
    if composed.is_empty() {
        return Ok(alarms
            .iter()
            .map(Definition::of)
            .map(|alarm| (alarm.name.clone(), alarm))
            .collect());
    }
    Err(ActionError::new(
        Code::LS2430,
        format!(
            "alarms of these names are on expressions, and could not be put back: {}",
            composed.join(", ")
        ),
    )
    .state_left("nothing was changed")
    .remedy("choose other names in the plan"))
}

fn wanted(params: &CloudwatchAlarms) -> impl Iterator<Item = Definition> {
    params.alarms.iter().map(Definition::wanted)
}

#[async_trait]
impl Action for Put {
    type Params = CloudwatchAlarms;

    fn required_permissions(&self, params: &CloudwatchAlarms) -> Vec<Permission> {
        vec![Permission::Aws(params.resource.clone())]
    }

    async fn probe(&self, cx: &Context, params: &CloudwatchAlarms) -> Result<Probe, ActionError> {
        let watch = CloudWatch::of(cx, &params.resource).await?;
        let definitions = defined(&watch, params).await?;
        let so = wanted(params).all(|alarm| definitions.get(&alarm.name) == Some(&alarm));
        with_before_image(satisfied_if(so), &definitions)
    }

    async fn describe(
        &self,
        cx: &Context,
        params: &CloudwatchAlarms,
    ) -> Result<Description, ActionError> {
        let watch = CloudWatch::of(cx, &params.resource).await?;
        let definitions = defined(&watch, params).await?;
        Ok(Description::of(params.alarms.iter().filter_map(|alarm| {
            let now = definitions.get(&alarm.name);
            let how = match now {
                Some(now) if *now == Definition::wanted(alarm) => return None,
                Some(_) => "in place of the one that is there",
                None => "new",
            };
            Some(format!(
                "PutMetricAlarm {} ({how}): {} of {} {} {}",
                alarm.name, alarm.statistic, alarm.metric, alarm.comparison, alarm.threshold
            ))
        })))
    }

    async fn execute(
        &self,
        cx: &Context,
        params: &CloudwatchAlarms,
        _before_image: Option<&Value>,
    ) -> Result<Outputs, ActionError> {
        let watch = CloudWatch::of(cx, &params.resource).await?;
        let definitions = defined(&watch, params).await?;
        for alarm in wanted(params) {
            if definitions.get(&alarm.name) != Some(&alarm) {
                watch.put_alarm(&alarm.alarm()).await?;
                cx.effect(format!("the alarm {}: put", alarm.name));
            }
        }
        Ok(Outputs::new())
    }

    async fn undo(
        &self,
        cx: &Context,
        params: &CloudwatchAlarms,
        before_image: &Value,
    ) -> Result<Undone, ActionError> {
        let before: Definitions = decode_before_image(before_image)?;
        let watch = CloudWatch::of(cx, &params.resource).await?;
        let now = defined(&watch, params).await?;
        let (mut delete, mut put, mut foreign) = (Vec::new(), Vec::new(), Vec::new());
        for ours in wanted(params) {
            let (was, is) = (before.get(&ours.name), now.get(&ours.name));
            if was == is {
                continue;
            }
            match (was, is) {
                _ if is != Some(&ours) => foreign.push(ours.name),
                (None, _) => delete.push(ours.name),
                (Some(was), _) => put.push(was.clone()),
            }
        }
        if !foreign.is_empty() {
            return Ok(Undone::Drifted(format!(
                "somebody else has changed the alarms {}; none was changed back",
                foreign.join(", ")
            )));
        }
        for alarm in &put {
            watch.put_alarm(&alarm.alarm()).await?;
        }
        watch.delete_alarms(&delete).await?;
        Ok(if put.is_empty() && delete.is_empty() {
            Undone::Unchanged
        } else {
            Undone::Restored
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_definition_survives_the_way_through_the_api() {
        let alarm = Alarm {
            name: "slot-lag".to_owned(),
            namespace: "AWS/RDS".to_owned(),
            metric: "OldestReplicationSlotLag".to_owned(),
            dimensions: BTreeMap::from([("DBInstanceIdentifier".to_owned(), "shop".to_owned())]),
            statistic: "Maximum".to_owned(),
            period_secs: 60,
            periods: 5,
            comparison: "GreaterThanThreshold".to_owned(),
            threshold: 1e10,
            actions: vec!["arn:aws:sns:eu-central-1:123456789012:night".to_owned()],
            missing_data: "breaching".to_owned(),
        };
        let wanted = Definition::wanted(&alarm);
        assert_eq!(Definition::of(&wanted.alarm()), wanted);
    }
}
