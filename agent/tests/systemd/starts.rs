//! Starts and restarts: when a unit counts as started, and what undo leaves.

use crate::manager::{FAMILY, Manager, mentions, params, until};
use lockstep_agent::actions;
use std::process::Command;
use std::time::Duration;

#[tokio::test]
async fn a_unit_is_started_once_it_stays_up() {
    let manager = Manager::start().await;
    manager.start_units(&["steady.service"]).await.unwrap();
    for unit in ["loop.service", "short.service"] {
        let error = manager.start_units(&[unit]).await.unwrap_err();
        assert!(error.contains("did not stay up"), "{error}");
    }
}

#[tokio::test]
async fn a_oneshot_is_started_once_it_succeeded() {
    let manager = Manager::start().await;
    manager.start_units(&["once.service"]).await.unwrap();
    manager.start_units(&["bad.service"]).await.unwrap_err();
}

#[tokio::test]
async fn a_start_brings_back_what_the_stop_of_the_same_run_took_down() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "orders.service", "worker.service", "pump.service"]);
    // steady.service was stopped on purpose.
    let units = ["orders.service", "steady.service"];
    manager.stop_units(&units).await.unwrap();
    assert_eq!(manager.active(FAMILY), Vec::<&str>::new());
    manager.start_units(&units).await.unwrap();
    let expected = ["orders.service", "worker.service", "pump.service"];
    assert_eq!(manager.active(FAMILY), expected);
    assert_eq!(manager.active(&["steady.service"]), Vec::<&str>::new());
}

#[tokio::test]
async fn a_start_is_undone_for_what_conflicts_and_what_it_pulled_in() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "green.service"]);
    let seen = manager.describe("service.start", &["blue.service"]).await;
    assert!(
        mentions(&seen.would_do, "also stops green.service"),
        "{seen:?}"
    );
    assert!(
        mentions(&seen.would_do, "also starts store.service"),
        "{seen:?}"
    );
    let before = manager
        .task("service.start", &["blue.service"], false)
        .await
        .unwrap();
    let all = ["blue.service", "green.service", "store.service"];
    assert_eq!(manager.active(&all), ["blue.service", "store.service"]);
    manager
        .undo("service.start", &["blue.service"], false, &before)
        .await;
    assert_eq!(manager.active(&all), ["green.service"]);
    let both = ["blue.service", "green.service"];
    let seen = manager.describe("service.start", &both).await;
    assert!(mentions(&seen.obstacles, "conflict"), "{seen:?}");
}

#[tokio::test]
async fn a_restart_leaves_every_unit_as_active_as_it_was() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "orders.service", "worker.service"]);
    let units = ["orders.service", "steady.service"];
    let seen = manager.describe("service.restart", &units).await;
    assert!(mentions(&seen.would_do, "worker.service"), "{seen:?}");
    assert!(mentions(&seen.remarks, "steady.service"), "{seen:?}");
    manager.execute("service.restart", &units).await.unwrap();
    let all = [FAMILY, &["steady.service"]].concat();
    assert_eq!(manager.active(&all), ["orders.service", "worker.service"]);
}

#[tokio::test]
async fn a_restarted_bus_is_connected_to_again() {
    let manager = Manager::start().await;
    let cx = manager.context();
    let params = params("service.start", &["steady.service"], false);
    let start = actions::find("service.start").unwrap();
    let before = start
        .probe(&cx, &params)
        .await
        .unwrap()
        .before_image
        .unwrap();
    start.execute(&cx, &params, Some(&before)).await.unwrap();
    let pid = manager.systemctl(&["show", "-P", "MainPID", "dbus.service"]);
    let killed = Command::new("kill").args(["-KILL", pid.trim()]).status();
    assert!(killed.unwrap().success());
    // systemd itself needs some time to come back to the new bus.
    let mut undone = start.undo(&cx, &params, &before).await;
    for _ in 0..50 {
        if undone.is_ok() {
            break;
        }
        tokio::time::sleep(Duration::from_millis(100)).await;
        undone = start.undo(&cx, &params, &before).await;
    }
    undone.unwrap();
    assert_eq!(manager.active(&["steady.service"]), Vec::<&str>::new());
}

/// A unit between two states is neither up nor down: taken for inactive, it would stay
/// down after an undo.
#[tokio::test]
async fn a_unit_that_is_being_restarted_is_up_again_after_an_undo() {
    let manager = Manager::start().await;
    let unit = ["redeployed.service"];
    manager.systemctl(&["start", "redeployed.service"]);
    manager.systemctl(&["restart", "--no-block", "redeployed.service"]);
    let state = || manager.systemctl(&["is-active", "redeployed.service"]);
    until(|| state().trim() == "deactivating").await;
    let before = manager.task("service.stop", &unit, false).await.unwrap();
    assert_eq!(manager.active(&unit), Vec::<&str>::new());
    manager.undo("service.stop", &unit, false, &before).await;
    assert_eq!(manager.active(&unit), unit);
    // A later start of the same run as well.
    manager.systemctl(&["restart", "--no-block", "redeployed.service"]);
    until(|| state().trim() == "deactivating").await;
    manager.stop_units(&unit).await.unwrap();
    manager.start_units(&unit).await.unwrap();
    assert_eq!(manager.active(&unit), unit);
}

#[tokio::test]
async fn a_unit_that_does_not_settle_is_refused() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "closing.service"]);
    manager.systemctl(&["stop", "--no-block", "closing.service"]);
    let state = || manager.systemctl(&["is-active", "closing.service"]);
    until(|| state().trim() == "deactivating").await;
    for action in ["service.stop", "service.start", "service.restart"] {
        let seen = manager.describe(action, &["closing.service"]).await;
        let settle = "closing.service is deactivating";
        assert!(mentions(&seen.obstacles, settle), "{action}: {seen:?}");
    }
    let error = manager.stop_units(&["closing.service"]).await.unwrap_err();
    assert!(error.starts_with("LS2109"), "{error}");
    assert!(error.contains("wait until it has settled"), "{error}");
    std::fs::write(manager.dir.path().join("closed"), "").unwrap();
    until(|| state().trim() == "inactive").await;
    manager.stop_units(&["closing.service"]).await.unwrap();

    manager.systemctl(&["start", "--no-block", "loop.service"]);
    let sub = || manager.systemctl(&["show", "-P", "SubState", "loop.service"]);
    until(|| sub().trim() == "auto-restart").await;
    let seen = manager.describe("service.stop", &["loop.service"]).await;
    assert!(mentions(&seen.obstacles, "auto-restart"), "{seen:?}");
}
