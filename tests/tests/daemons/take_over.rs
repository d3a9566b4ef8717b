//! Two coordinators with one name: the second one decides nothing until it
//! is told that the first one is gone.

use crate::fleet::{Fleet, Moment, until};
use std::fs;

const BOTH: [&str; 2] = ["app-1", "app-2"];

const PLAN: &str = r"
kind: Plan
name: anything
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
";

#[test]
fn a_coordinator_without_its_journal_is_fenced_until_it_takes_over() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("anything", PLAN);
    let told = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(told.code, 0, "{told}");

    fleet.kill_coordinator();
    fs::remove_dir_all(fleet.path("coordinator")).unwrap();
    fleet.start_coordinator();
    until("the coordinator to notice", || {
        fleet.log("coordinator").contains("LS4204").then_some(())
    });
    fleet.lockstep(&["run", "start", &plan]).is_refused(&[
        "LS4204",
        "obeyed term 1",
        "--take-over",
    ]);
    assert_eq!(fleet.count("app-1", "first", Moment::Begins), 1);

    fleet.kill_coordinator();
    fleet.start_coordinator_with(&["--take-over"]);
    // Agents that were refused wait before they try again.
    for agent in BOTH {
        fleet.kill_agent(agent);
        fleet.start_agent(agent);
    }
    fleet.wait_connected(&BOTH);
    let told = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(told.code, 0, "{told}");
    assert_eq!(fleet.count("app-1", "first", Moment::Ends), 2);
}
