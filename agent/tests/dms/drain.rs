//! The drain does not stand or fall with CloudWatch's data points.

use super::*;

const DRAIN: &str = "dms.task.drain";

/// DMS's metric of pending changes, under another instance or the present one.
fn publish(range: &Range, instance: &str, value: f64, age_ms: i64) {
    let task = range.task("forward").unwrap();
    range.control(
        "POST",
        "/control/metrics",
        &json!({"metric": "CDCIncomingChanges", "value": value, "age_ms": age_ms,
            "dimensions": {"ReplicationInstanceIdentifier": instance,
                "ReplicationTaskIdentifier": task["resource_id"]}}),
    );
}

fn timing(range: &Range, change: &Value) {
    range.control("PUT", "/control/timing", change);
}

#[tokio::test]
async fn points_that_are_visible_only_minutes_later_hold_nothing_up() {
    let range = Range::start("late").await;
    eventually("the metric", async || {
        let remarks = range.site.remarks(DRAIN, &range.forward(30)).await;
        remarks.is_empty().then_some(())
    })
    .await;
    timing(
        &range,
        &json!({"metrics_ms": 60_000, "metrics_late_ms": 90_000}),
    );
    let begun = Instant::now();
    range.site.perform(DRAIN, &range.forward(30)).await;
    assert!(begun.elapsed() < Duration::from_secs(10));

    // What the plan waits for is a bound, not a condition.
    let mut confirmed = range.forward(30);
    confirmed["confirm_secs"] = json!(2);
    let remarks = range.site.remarks(DRAIN, &confirmed).await;
    assert!(remarks[0].contains("too short"), "{remarks:?}");
    let begun = Instant::now();
    range.site.perform(DRAIN, &confirmed).await;
    assert!(begun.elapsed() >= Duration::from_secs(2));
}

#[tokio::test]
async fn a_point_that_is_not_zero_contradicts_the_marker() {
    let range = Range::start("contradicts").await;
    let instance = range.arns["instance_identifier"]
        .as_str()
        .unwrap()
        .to_owned();
    timing(&range, &json!({"metrics_ms": 60_000}));
    // Time for the last point at the former pace.
    tokio::time::sleep(Duration::from_millis(1_200)).await;
    publish(&range, &instance, 3.0, -2_000);
    let mut task = range.forward(3);
    task["confirm_secs"] = json!(5);
    let error = range.site.try_execute(DRAIN, &task).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2416, "{}", error.report());
    assert!(
        error.report().contains("3 changes wait"),
        "{}",
        error.report()
    );

    publish(&range, &instance, 0.0, -2_000);
    task["timeout_secs"] = json!(30);
    range.site.try_execute(DRAIN, &task).await.unwrap();
}

#[tokio::test]
async fn metrics_of_the_instance_before_a_move_are_not_the_tasks() {
    let range = Range::start("moved").await;
    publish(&range, "an-earlier-instance", 5.0, 60_000);
    let mut task = range.forward(30);
    task["confirm_secs"] = json!(30);
    let begun = Instant::now();
    range.site.perform(DRAIN, &task).await;
    assert!(begun.elapsed() < Duration::from_secs(20), "not confirmed");
}
