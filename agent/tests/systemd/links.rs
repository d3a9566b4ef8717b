//! The links of enablement, restored one by one.

use crate::manager::{ELSEWHERE, Manager};

#[tokio::test]
async fn the_links_of_enablement_are_restored_one_by_one() {
    let manager = Manager::start().await;
    let elsewhere = manager.dir.path().join("elsewhere");
    std::fs::create_dir(&elsewhere).unwrap();
    let file = elsewhere.join("aw.service");
    std::fs::write(&file, ELSEWHERE).unwrap();
    manager.systemctl(&[
        "enable",
        "al.service",
        "maria.service",
        file.to_str().unwrap(),
    ]);
    manager.systemctl(&["enable", "--runtime", "rt.service"]);
    // Links that `enable` would not create: another target, another alias, relative.
    manager.systemctl(&["add-requires", "timers.target", "maria.service"]);
    std::os::unix::fs::symlink("maria.service", manager.units().join("odd.service")).unwrap();
    manager.systemctl(&["disable", "al2.service"]);
    let wants = manager.units().join("timers.target.wants");
    std::fs::create_dir_all(&wants).unwrap();
    std::os::unix::fs::symlink("../al2.service", wants.join("al2.service")).unwrap();
    manager.systemctl(&["daemon-reload"]);
    let units = ["al.service", "maria.service", "aw.service", "rt.service"];
    manager.systemctl(&[&["start"], &units[..]].concat());
    let links = manager.links();

    let before = manager.task("service.stop", &units, true).await.unwrap();
    let enabled = |unit: &&&str| {
        manager
            .systemctl(&["is-enabled", unit])
            .starts_with("enabled")
    };
    assert_eq!(units.iter().filter(enabled).count(), 0);
    manager.undo("service.stop", &units, true, &before).await;
    assert_eq!(manager.links(), links);
    assert_eq!(manager.active(&units), units);

    // A start of the same run restores the same links.
    manager.task("service.stop", &units, true).await.unwrap();
    assert_ne!(manager.links(), links);
    manager.task("service.start", &units, true).await.unwrap();
    assert_eq!(manager.links(), links);
    assert_eq!(manager.active(&units), units);
}

#[tokio::test]
async fn an_undone_start_removes_the_links_it_created() {
    let manager = Manager::start().await;
    let links = manager.links();
    let units = ["al.service", "maria.service"];
    let before = manager.task("service.start", &units, true).await.unwrap();
    assert_eq!(manager.links().len(), links.len() + 4);
    manager.undo("service.start", &units, true, &before).await;
    assert_eq!(manager.links(), links);
}
