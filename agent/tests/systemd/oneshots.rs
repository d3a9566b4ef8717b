//! Oneshots, which run at their own time and not at that of a run.

use crate::manager::{Manager, mentions, params, until};
use lockstep_agent::actions;

#[tokio::test]
async fn a_retry_does_not_run_a_oneshot_again() {
    let manager = Manager::start().await;
    // Started in reverse: the oneshot runs, then the other fails.
    let units = ["bad.service", "twice.service"];
    let params = params("service.start", &units, false);
    let start = actions::find("service.start").unwrap();
    let cx = manager.context();
    let before = start
        .probe(&cx, &params)
        .await
        .unwrap()
        .before_image
        .unwrap();
    for _ in 0..2 {
        let error = start
            .execute(&cx, &params, Some(&before))
            .await
            .unwrap_err();
        assert!(error.report().contains("bad.service"), "{}", error.report());
    }
    let ran = std::fs::read_to_string(manager.dir.path().join("twice")).unwrap();
    assert_eq!(ran, "ran\n");
}

/// A batch that failed last night is not run anew when the applications start.
#[tokio::test]
async fn a_oneshot_that_had_failed_is_not_started_after_a_stop() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "steady.service", "bad.service"]);
    let units = ["steady.service", "bad.service"];
    manager.stop_units(&units).await.unwrap();
    manager.start_units(&units).await.unwrap();
    assert_eq!(manager.active(&units), ["steady.service"]);
}

/// A batch that was cut off begins at its own time again, not when an undo or a start
/// comes to it.
#[tokio::test]
async fn a_oneshot_that_was_stopped_while_it_ran_is_not_run_again() {
    let manager = Manager::start().await;
    let units = ["steady.service", "night.service"];
    manager.systemctl(&["start", "steady.service"]);
    let night = manager.dir.path().join("night");
    let runs = || std::fs::read_to_string(&night).unwrap_or_default();
    manager.systemctl(&["start", "--no-block", "night.service"]);
    until(|| runs() == "ran\n").await;
    let seen = manager.describe("service.stop", &units).await;
    let cut = "night.service is a oneshot and runs now";
    assert!(mentions(&seen.remarks, cut), "{seen:?}");
    let before = manager.task("service.stop", &units, false).await.unwrap();
    manager.undo("service.stop", &units, false, &before).await;
    assert_eq!(manager.active(&units), ["steady.service"]);
    assert_eq!(runs(), "ran\n");

    manager.systemctl(&["start", "--no-block", "night.service"]);
    until(|| runs() == "ran\nran\n").await;
    manager.stop_units(&units).await.unwrap();
    manager.start_units(&units).await.unwrap();
    assert_eq!(manager.active(&units), ["steady.service"]);
    assert_eq!(runs(), "ran\nran\n");
}
