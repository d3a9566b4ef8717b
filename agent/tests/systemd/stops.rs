//! Stops: whole transactions, what starts a unit again, and in which order.

use crate::manager::{FAMILY, Manager, mentions, params, until};
use lockstep_agent::actions;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;

#[tokio::test]
async fn a_stop_holds_what_starts_the_unit_again() {
    let manager = Manager::start().await;
    let pair = ["echo.socket", "echo.service"];
    manager
        .start_units(&["echo.service", "echo.socket"])
        .await
        .unwrap();
    // An earlier step may stop the socket, so it is no obstacle before the run.
    let stop = actions::find("service.stop").unwrap();
    let params = serde_json::json!({ "units": ["echo.service"] });
    let seen = stop.describe(&manager.context(), &params).await.unwrap();
    assert_eq!(seen.obstacles, Vec::<String>::new());
    assert!(seen.remarks[0].starts_with("echo.socket"), "{seen:?}");
    let error = manager.stop_units(&["echo.service"]).await.unwrap_err();
    assert!(error.contains("echo.socket"), "{error}");
    manager.stop_units(&pair).await.unwrap();
}

#[tokio::test]
async fn a_stopped_timer_waits_for_the_oneshot_it_started() {
    let manager = Manager::start().await;
    manager.start_units(&["report.timer"]).await.unwrap();
    let reported = manager.dir.path().join("reported");
    manager.stop_units(&["report.timer"]).await.unwrap();
    assert!(reported.exists(), "the oneshot still runs");
}

/// `Type=simple` is the default, so a batch of a timer need not be a oneshot.
#[tokio::test]
async fn a_stopped_timer_waits_for_whatever_it_started() {
    let manager = Manager::start().await;
    manager.start_units(&["batch.timer"]).await.unwrap();
    let batched = manager.dir.path().join("batched");
    manager.stop_units(&["batch.timer"]).await.unwrap();
    assert!(batched.exists(), "the batch still runs");

    // One that doesn't end by itself is found before the run.
    manager.start_units(&["daemon.timer"]).await.unwrap();
    let seen = manager.describe("service.stop", &["daemon.timer"]).await;
    assert!(mentions(&seen.remarks, "waits for its end"), "{seen:?}");
    let stop = actions::find("service.stop").unwrap();
    let hasty = serde_json::json!({ "units": ["daemon.timer"], "timeout_secs": 1 });
    let seen = stop.describe(&manager.context(), &hasty).await.unwrap();
    assert!(mentions(&seen.obstacles, "daemon.service"), "{seen:?}");
    let stopped = stop.execute(&manager.context(), &hasty, None).await;
    assert_eq!(stopped.unwrap_err().code(), Code::LS2103);
    // A retry, and a later phase that relies on the stop, see that it still runs.
    let probe = stop.probe(&manager.context(), &hasty).await.unwrap();
    assert_eq!(probe.finding, Finding::Pending);
    assert!(!stop.in_effect(&manager.context(), &hasty).await.unwrap());
    let both = ["daemon.timer", "daemon.service"];
    let seen = manager.describe("service.stop", &both).await;
    assert_eq!(seen.obstacles, Vec::<String>::new());
    manager.stop_units(&both).await.unwrap();
}

/// systemd refuses to start a socket whose service is active.
#[tokio::test]
async fn a_socket_is_started_before_its_service() {
    let manager = Manager::start().await;
    let pair = ["echo.socket", "echo.service"];
    manager.systemctl(&["start", "echo.socket", "echo.service"]);
    assert_eq!(manager.active(&pair), pair);
    let before = manager.task("service.stop", &pair, false).await.unwrap();
    assert_eq!(manager.active(&pair), Vec::<&str>::new());
    manager.undo("service.stop", &pair, false, &before).await;
    assert_eq!(manager.active(&pair), pair);
    manager.stop_units(&pair).await.unwrap();
    manager.start_units(&pair).await.unwrap();
    assert_eq!(manager.active(&pair), pair);
}

/// A client that connects while the service stops makes a socket that still listens start
/// it again.
#[tokio::test]
async fn a_socket_is_stopped_before_its_service_whatever_their_order() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "echo.socket", "echo.service"]);
    let pair = ["echo.service", "echo.socket"];
    assert_eq!(manager.active(&pair), pair);
    let _client = std::os::unix::net::UnixStream::connect(manager.dir.path().join("echo")).unwrap();
    manager.stop_units(&pair).await.unwrap();
    assert_eq!(manager.active(&pair), Vec::<&str>::new());
}

#[tokio::test]
async fn a_stop_is_undone_for_every_unit_of_its_transaction() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "orders.service", "worker.service", "bound.service"]);
    manager.systemctl(&["start", "helped.service"]);
    let stop = ["orders.service", "helped.service"];
    let seen = manager.describe("service.stop", &stop).await;
    assert!(
        mentions(&seen.would_do, "also stops worker.service"),
        "{seen:?}"
    );
    assert!(
        mentions(&seen.would_do, "also stops bound.service"),
        "{seen:?}"
    );
    assert!(
        mentions(&seen.would_do, "also stops helper.service"),
        "{seen:?}"
    );
    // pump.service was inactive before: it is no part of the change.
    assert!(!mentions(&seen.would_do, "pump.service"), "{seen:?}");
    let before = manager.task("service.stop", &stop, false).await.unwrap();
    let all = [FAMILY, &["helped.service", "helper.service"]].concat();
    assert_eq!(manager.active(&all), Vec::<&str>::new());
    manager.undo("service.stop", &stop, false, &before).await;
    let expected = [
        "orders.service",
        "worker.service",
        "bound.service",
        "helped.service",
        "helper.service",
    ];
    assert_eq!(manager.active(&all), expected);
}

#[tokio::test]
async fn a_unit_outside_of_the_policy_does_not_go_down_with_another() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "worker.service"]);
    let cx = manager.context_with(&["orders.service"]);
    let params = params("service.stop", &["orders.service"], false);
    let stop = actions::find("service.stop").unwrap();
    let seen = stop.describe(&cx, &params).await.unwrap();
    assert!(mentions(&seen.obstacles, "worker.service"), "{seen:?}");
    let error = stop.probe(&cx, &params).await.unwrap_err().report();
    assert!(error.starts_with("LS2109"), "{error}");
}

#[tokio::test]
async fn a_stop_by_alias_and_a_start_by_name_are_of_the_same_unit() {
    let manager = Manager::start().await;
    for (alias, unit) in [
        ("o.service", "orders.service"),
        ("s.service", "steady.service"),
    ] {
        std::os::unix::fs::symlink(unit, manager.units().join(alias)).unwrap();
    }
    manager.systemctl(&["daemon-reload"]);
    let aliases = ["o.service", "s.service"];
    let names = ["orders.service", "steady.service"];
    for (stopped, started) in [(aliases, names), (names, aliases)] {
        manager.systemctl(&["start", "orders.service", "worker.service"]);
        manager.stop_units(&stopped).await.unwrap();
        manager.start_units(&started).await.unwrap();
        // steady.service was inactive before the stop.
        let all = ["orders.service", "worker.service", "steady.service"];
        assert_eq!(manager.active(&all), all[..2]);
    }
}

/// systemd stops a socket with Accept=yes and leaves the service of each connection.
#[tokio::test]
async fn a_stopped_socket_waits_for_the_services_of_its_connections() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "lines.socket"]);
    let client = std::os::unix::net::UnixStream::connect(manager.dir.path().join("lines"));
    let client = client.unwrap();
    let served = || manager.systemctl(&["list-units", "--plain", "--no-legend", "lines@*"]);
    until(|| served().contains("running")).await;
    let seen = manager.describe("service.stop", &["lines.socket"]).await;
    assert!(mentions(&seen.remarks, "lines@"), "{seen:?}");
    let stop = actions::find("service.stop").unwrap();
    let hasty = serde_json::json!({ "units": ["lines.socket"], "timeout_secs": 1 });
    let stopped = stop.execute(&manager.context(), &hasty, None).await;
    let error = stopped.unwrap_err();
    assert_eq!(error.code(), Code::LS2103);
    assert!(error.report().contains("lines@"), "{}", error.report());
    assert!(!stop.in_effect(&manager.context(), &hasty).await.unwrap());
    drop(client);
    manager.stop_units(&["lines.socket"]).await.unwrap();
    assert!(!served().contains("running"));
}

#[tokio::test]
async fn what_upholds_a_unit_is_stopped_before_it_whatever_their_order() {
    let manager = Manager::start().await;
    manager.systemctl(&["start", "keeper.service"]);
    let units = ["kept.service", "keeper.service"];
    until(|| manager.active(&units) == units).await;
    manager.stop_units(&units).await.unwrap();
    assert_eq!(manager.active(&units), Vec::<&str>::new());
}
