//! Agents that vanish, and agents that come back as somebody else.

use crate::fleet::{Fleet, Moment, phase, task, until};
use serde_json::{Value, json};
use std::fs;

const BOTH: [&str; 2] = ["app-1", "app-2"];

const BRIEF: &str = r"
kind: Plan
name: brief
parties:
  first: { labels: { host: app-1 }, expected: 1 }
  second: { labels: { host: app-2 }, expected: 1 }
phases:
  - name: one
    finish_by: 2s
    steps:
      - { id: first, party: second, action: command.run, params: { command: first } }
      - { id: second, party: second, action: command.run, params: { command: second } }
  - name: two
    steps:
      - { id: third, party: first, action: command.run, params: { command: third } }
";

const CALM: &str = r"
kind: Plan
name: calm
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    steps:
      - { id: third, party: apps, action: command.run, params: { command: third } }
";

#[test]
fn an_agent_that_vanishes_is_lost_until_somebody_waives_it() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("brief", BRIEF);
    fleet.host("app-2").hold("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    fleet.kill_agent("app-2");

    let output = fleet.watch(&run);
    assert_eq!(output.code, 1, "{output}");
    assert_eq!(phase(&output.json, "one")["outcome"], "failed");
    assert_eq!(task(&output.json, "app-2", "first")["outcome"], "lost");
    let reason = output.json["reason"].as_str().unwrap();
    assert!(reason.contains("LS4406"), "{reason}");
    assert!(reason.contains("first on app-2"), "{reason}");
    let retry = ["run", "retry", &run];
    fleet.lockstep(&retry).is_refused(&["app-2", "waive"]);
    assert_eq!(fleet.count("app-1", "third", Moment::Begins), 0);

    for step in ["first", "second"] {
        let waive = ["run", "waive", &run, "--agent", "app-2", "--step", step];
        let output = fleet.lockstep(&[&waive[..], &["--reason", "its disk burnt"]].concat());
        assert_eq!(output.code, 0, "{output}");
    }
    let output = fleet.then_watch(&retry);
    assert_eq!(output.code, 7, "{output}");
    assert_eq!(output.json["outcome"], "completed-with-skips");
    assert_eq!(task(&output.json, "app-2", "first")["outcome"], "waived");
    assert!(
        output.json["outstanding_undo"]
            .to_string()
            .contains("app-2"),
        "{output}"
    );

    // It comes back, and nothing of all that is carried out any more.
    fleet.host("app-2").let_go("first");
    fleet.start_agent("app-2");
    until("app-2 to be free of the run", || {
        let agent = fleet.agent("app-2");
        (agent["connected"] == true && agent["run"] == Value::Null).then_some(())
    });
    assert_eq!(fleet.count("app-2", "first", Moment::Begins), 1);
    assert_eq!(fleet.count("app-2", "first", Moment::Ends), 0);
    assert_eq!(fleet.count("app-2", "second", Moment::Begins), 0);
    let next = fleet.plan("calm", CALM);
    let output = fleet.then_watch(&["run", "start", &next]);
    assert_eq!(output.code, 0, "it takes part in the next run: {output}");
}

#[test]
fn a_name_with_another_journal_waits_for_an_operator() {
    let mut fleet = Fleet::of(&BOTH);
    let known = fleet.agent("app-2")["journal_id"].clone();
    fleet.kill_agent("app-2");
    fs::remove_dir_all(fleet.host("app-2").path("state")).unwrap();
    fleet.start_agent("app-2");
    let agent = until("app-2 to be in quarantine", || {
        Some(fleet.agent("app-2")).filter(|agent| agent["quarantine"] != Value::Null)
    });
    assert_eq!(agent["connected"], false);
    assert_eq!(agent["journal_id"], known);
    assert!(fleet.log("coordinator").contains("LS4201"));
    until("app-2 to say so", || {
        fleet.log("app-2").contains("LS4201").then_some(())
    });

    let plan = fleet.plan("calm", CALM);
    fleet
        .lockstep(&["run", "start", &plan])
        .is_refused(&["LS4302", "party apps"]);
    fleet
        .lockstep(&["agents", "accept", "app-1", "--reason", "x"])
        .is_refused(&["app-1 is not in quarantine"]);

    let output = fleet.lockstep(&["agents", "accept", "app-2", "--reason", "it has a new disk"]);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(output.json["quarantine"], Value::Null);
    fleet.kill_agent("app-2");
    fleet.start_agent("app-2");
    fleet.wait_connected(&["app-2"]);
    assert_ne!(fleet.agent("app-2")["journal_id"], known);
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 0, "{output}");

    // What was accepted stays accepted.
    fleet.restart_coordinator();
    fleet.wait_connected(&BOTH);
}

#[test]
fn a_journal_from_a_backup_waits_for_an_operator() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("calm", CALM);
    fleet.kill_agent("app-2");
    let (state, backup) = (fleet.host("app-2").path("state"), fleet.path("backup"));
    fs::create_dir(&backup).unwrap();
    for entry in fs::read_dir(&state).unwrap() {
        let entry = entry.unwrap();
        fs::copy(entry.path(), backup.join(entry.file_name())).unwrap();
    }
    fleet.start_agent("app-2");
    fleet.wait_connected(&["app-2"]);
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 0, "{output}");

    fleet.kill_agent("app-2");
    fs::remove_dir_all(&state).unwrap();
    fs::rename(&backup, &state).unwrap();
    // Each attempt to connect makes the journal longer; that must not help, and
    // neither must a coordinator that is started again meanwhile.
    for attempt in 1..=4 {
        if attempt % 2 == 1 {
            fleet.restart_coordinator();
        }
        fleet.start_agent("app-2");
        until("app-2 to be refused", || {
            let refusals = fleet.log("app-2").matches("LS4202").count();
            (refusals >= attempt).then_some(())
        });
        fleet.kill_agent("app-2");
    }
    let agent = fleet.agent("app-2");
    assert_ne!(agent["quarantine"], Value::Null);
    assert_eq!(agent["connected"], false);
}

/// Takes an agent's journal away and has it accepted with a new one.
fn reinstall(fleet: &mut Fleet, name: &str) {
    fleet.kill_agent(name);
    fs::remove_dir_all(fleet.host(name).path("state")).unwrap();
    fleet.start_agent(name);
    until("the agent to be in quarantine", || {
        (fleet.agent(name)["quarantine"] != Value::Null).then_some(())
    });
    let output = fleet.lockstep(&["agents", "accept", name, "--reason", "it has a new disk"]);
    assert_eq!(output.code, 0, "{output}");
    // An agent that was refused waits before it tries again.
    fleet.kill_agent(name);
    fleet.start_agent(name);
    fleet.wait_connected(&[name]);
}

const WITH_ROLLBACK: &str = r"
kind: Plan
name: with-rollback
parties:
  apps: { labels: { role: app }, expected: 2 }
  first: { labels: { host: app-1 }, expected: 1 }
phases:
  - name: switch
    on_failure: rollback
    steps:
      - id: file
        party: apps
        action: config.switch
        params:
          path: '@DIR@/${agent.name}/etc/database.toml'
          to: '@DIR@/${agent.name}/etc/postgres.toml'
  - name: start
    on_failure: rollback
    steps:
      - { id: start, party: first, action: command.run, params: { command: first } }
";

#[test]
fn a_host_that_lost_its_journal_is_restored_from_the_coordinators() {
    let mut fleet = Fleet::of(&BOTH);
    let before = fleet.snapshot(&BOTH);
    let plan = fleet.plan("with-rollback", WITH_ROLLBACK);
    fleet.host("app-1").hold("first");
    fleet.host("app-1").spoil("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-1", "first", Moment::Begins);
    reinstall(&mut fleet, "app-2");
    fleet.host("app-1").let_go("first");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 5, "{output}");
    assert_eq!(output.json["still_changed"], json!([]));
    assert_eq!(fleet.snapshot(&BOTH), before);
}

const OPEN: &str = r"
kind: Plan
name: open
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
      - { id: second, party: apps, action: command.run, params: { command: second } }
";

#[test]
fn work_that_was_open_when_the_journal_was_lost_is_unknown() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("open", OPEN);
    fleet.host("app-2").hold("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    reinstall(&mut fleet, "app-2");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 1, "{output}");
    assert_eq!(task(&output.json, "app-2", "first")["outcome"], "unknown");
    fleet.host("app-2").let_go("first");
    for (step, truth) in [("first", "failed"), ("second", "failed")] {
        let output = fleet.lockstep(&[
            "run",
            "resolve",
            &run,
            "--agent",
            "app-2",
            "--step",
            step,
            "--as",
            truth,
            "--reason",
            "the host is new",
        ]);
        assert_eq!(output.code, 0, "{output}");
    }
    let output = fleet.then_watch(&["run", "retry", &run]);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(fleet.count("app-2", "first", Moment::Ends), 1);
    assert_eq!(fleet.count("app-2", "second", Moment::Ends), 1);
    assert_eq!(fleet.count("app-1", "second", Moment::Ends), 1);
}
