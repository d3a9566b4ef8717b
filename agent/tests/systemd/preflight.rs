//! What the preflight names before anything is stopped.

use crate::manager::{Manager, mentions, params};
use lockstep_agent::actions;

/// systemd starts an upheld unit again as soon as it is down.
#[tokio::test]
async fn what_starts_a_unit_again_is_named_before_the_stop() {
    let manager = Manager::start().await;
    manager.systemctl(&["enable", "vendors.service"]);
    manager.systemctl(&["start", "keeper.service"]);
    let seen = manager.describe("service.stop", &["kept.service"]).await;
    assert!(
        mentions(
            &seen.remarks,
            "keeper.service is active and starts kept.service again"
        ),
        "{seen:?}"
    );
    let stop = actions::find("service.stop").unwrap();
    let disabling = params("service.stop", &["vendors.service"], true);
    let seen = stop.describe(&manager.context(), &disabling).await.unwrap();
    assert!(
        mentions(
            &seen.remarks,
            "disabling vendors.service leaves keeper.service"
        ),
        "{seen:?}"
    );

    let error = manager.stop_units(&["kept.service"]).await.unwrap_err();
    assert!(error.contains("nothing was stopped"), "{error}");
    manager
        .stop_units(&["keeper.service", "kept.service"])
        .await
        .unwrap();
}

#[tokio::test]
async fn preflight_names_what_would_fail_during_the_outage() {
    let manager = Manager::start().await;
    manager.systemctl(&[
        "start",
        "slow.service",
        "manual.service",
        "lost.service",
        "nightly.timer",
    ]);
    let file = manager.units().join("dark.service");
    std::fs::remove_file(&file).unwrap();
    std::os::unix::fs::symlink("/dev/null", &file).unwrap();
    std::fs::remove_file(manager.units().join("lost.service")).unwrap();
    let seen = manager.describe("service.stop", &["lost.service"]).await;
    assert!(
        mentions(&seen.obstacles, "missing"),
        "before a reload: {seen:?}"
    );
    manager.systemctl(&["daemon-reload"]);
    let seen = manager.describe("service.stop", &["lost.service"]).await;
    assert!(
        mentions(&seen.obstacles, "missing"),
        "after a reload: {seen:?}"
    );

    let seen = manager.describe("service.stop", &["slow.service"]).await;
    assert!(
        mentions(&seen.obstacles, "61 s to stop, the step 20 s"),
        "{seen:?}"
    );
    // A default that no unit has set is no reason to refuse.
    manager.systemctl(&["start", "steady.service"]);
    let seen = manager.describe("service.stop", &["steady.service"]).await;
    assert_eq!(seen.obstacles, Vec::<String>::new());
    assert!(
        mentions(&seen.remarks, "90 s to stop, the step 20 s"),
        "{seen:?}"
    );

    let seen = manager.describe("service.stop", &["manual.service"]).await;
    assert!(mentions(&seen.obstacles, "RefuseManualStop"), "{seen:?}");
    let seen = manager.describe("service.start", &["dark.service"]).await;
    assert!(mentions(&seen.obstacles, "masked"), "{seen:?}");
    manager.start_units(&["dark.service"]).await.unwrap_err();
    let seen = manager.describe("service.stop", &["nightly.timer"]).await;
    assert!(mentions(&seen.remarks, "Persistent="), "{seen:?}");
}
