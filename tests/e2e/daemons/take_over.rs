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
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 0, "{output}");

    fleet.kill_coordinator();
    fs::remove_dir_all(fleet.path("coordinator")).unwrap();
    fleet.start_coordinator();
    until("the coordinator to notice", || {
        fleet.log("coordinator").contains("LS4204").then_some(())
    });
    fleet.lockstep(&["run", "start", &plan]).is_refused(&[
        "LS4204",
        "accepted term 1",
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
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(fleet.count("app-1", "first", Moment::Ends), 2);
}

const LONGER: &str = r"
kind: Plan
name: longer
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
  - name: two
    steps:
      - { id: second, party: apps, action: command.run, params: { command: second } }
";

/// What was decided since the backup is nowhere but at the agents. So the run
/// goes neither on nor back; giving it up stops what still runs.
#[test]
fn with_a_journal_from_a_backup_a_run_can_only_be_given_up() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("longer", LONGER);
    fleet.host("app-2").hold("first");
    fleet.host("app-2").hold("second");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    fleet.kill_coordinator();
    let (state, backup) = (fleet.path("coordinator"), fleet.path("backup"));
    copy(&state, &backup);
    fleet.start_coordinator();
    fleet.host("app-2").let_go("first");
    fleet.wait_for("app-2", "second", Moment::Begins);

    fleet.kill_coordinator();
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&backup, &state).unwrap();
    fleet.start_coordinator();
    until("the coordinator to notice", || {
        fleet.log("coordinator").contains("LS4204").then_some(())
    });
    fleet.kill_coordinator();
    fleet.start_coordinator_with(&["--take-over"]);
    fleet.wait_connected(&BOTH);
    for verb in ["retry", "rollback"] {
        fleet
            .lockstep(&["run", verb, &run, "--reason", "x"])
            .is_refused(&["another coordinator of this run", "abort it"]);
    }
    assert_eq!(fleet.count("app-1", "second", Moment::Begins), 1);
    let output = fleet.then_watch(&["run", "abort", &run, "--reason", "its journal is old"]);
    assert_eq!(output.json["outcome"], "aborted", "{output}");
    until("both to be free of the run", || {
        let free = |name| fleet.agent(name)["run"] == serde_json::Value::Null;
        BOTH.into_iter().all(free).then_some(())
    });
    assert_eq!(fleet.count("app-2", "second", Moment::Ends), 0);
}

/// A run that began after the backup isn't in it: there is nothing to give up
/// by name, and its agents would be locked to it for ever.
#[test]
fn taking_over_closes_a_run_of_which_the_backup_has_never_heard() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("longer", LONGER);
    let (state, backup) = (fleet.path("coordinator"), fleet.path("backup"));
    copy(&state, &backup);
    fleet.host("app-2").hold("second");
    fleet.run(&plan);
    fleet.wait_for("app-2", "second", Moment::Begins);

    fleet.kill_coordinator();
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&backup, &state).unwrap();
    fleet.start_coordinator();
    until("the coordinator to notice", || {
        fleet.log("coordinator").contains("LS4204").then_some(())
    });
    fleet.kill_coordinator();
    fleet.start_coordinator_with(&["--take-over"]);
    fleet.wait_connected(&BOTH);
    until("the lost run to be closed", || {
        let closing = "closing a run of which this coordinator's journal holds nothing";
        (fleet.log("coordinator").matches(closing).count() >= BOTH.len()).then_some(())
    });
    fleet.host("app-2").let_go("second");
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 0, "{output}");
    // What the lost run had begun was cancelled.
    assert_eq!(fleet.count("app-2", "second", Moment::Ends), 1);
}

fn copy(from: &std::path::Path, to: &std::path::Path) {
    fs::create_dir(to).unwrap();
    for entry in fs::read_dir(from).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), to.join(entry.file_name())).unwrap();
    }
}
