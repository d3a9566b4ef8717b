//! Rollback: every host as before, or the exact list of what is not.

use crate::fleet::{CommandOutput, Fleet, Moment, phase, task};
use serde_json::{Value, json};
use std::fs;

const ALL: [&str; 3] = ["app-1", "app-2", "app-3"];

/// A file, a link and a crontab are changed; then a command may fail.
const SWITCH: &str = r"
kind: Plan
name: switch
parties:
  apps: { labels: { role: app }, expected: 3 }
phases:
  - name: stop
    on_failure: rollback
    steps:
      - id: report
        party: apps
        action: cron.disable
        params: { files: ['@DIR@/${agent.name}/etc/report'] }
  - name: switch
    on_failure: rollback
    steps:
      - id: file
        party: apps
        action: config.switch
        params:
          path: '@DIR@/${agent.name}/etc/database.toml'
          to: '@DIR@/${agent.name}/etc/postgres.toml'
      - id: link
        party: apps
        action: config.switch
        params:
          path: '@DIR@/${agent.name}/etc/current'
          to: '@DIR@/${agent.name}/etc/postgres.toml'
  - name: start
    on_failure: rollback
    steps:
      - { id: start, party: apps, action: command.run, params: { command: first } }
";

/// Where `config.switch` keeps the file that stood there.
const PREVIOUS_FILE: &str = "etc/.database.toml.lockstep-previous";

#[test]
fn a_failure_brings_every_host_back_to_what_it_was() {
    let fleet = Fleet::of(&ALL);
    let plan = fleet.plan("switch", SWITCH);
    // One host differs: its crontab is out of effect before the run and must
    // stay so.
    let off = fleet.host("app-3");
    fs::rename(
        off.path("etc/report"),
        off.path("etc/.report.lockstep-disabled"),
    )
    .unwrap();
    let before = fleet.snapshot(&ALL);

    fleet.host("app-2").hold("first");
    fleet.host("app-2").spoil("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    let host = fleet.host("app-1");
    assert_eq!(host.read("etc/database.toml"), "database = 'postgres'\n");
    assert_eq!(host.read("etc/current"), "database = 'postgres'\n");
    assert!(!host.has("etc/report"));

    fleet.host("app-2").let_go("first");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 5, "{output}");
    assert_eq!(output.json["outcome"], "rolled-back");
    assert_eq!(output.json["exit_code"], 5);
    assert_eq!(output.json["still_changed"], json!([]));
    let reason = output.json["reason"].as_str().unwrap();
    for part in ["start", "app-2", "first exited with 3", "first is broken"] {
        assert!(reason.contains(part), "{part:?}: {reason}");
    }
    for name in ["stop", "switch"] {
        assert_eq!(phase(&output.json, name)["outcome"], "undone", "{output}");
    }
    assert_eq!(fleet.snapshot(&ALL), before);
}

/// Runs the plan until its last phase is about to fail on app-2, lets
/// somebody interfere with a host, and lets it fail.
fn interfered(fleet: &Fleet, plan: &str, interfere: impl FnOnce()) -> (String, CommandOutput) {
    fleet.host("app-2").hold("first");
    fleet.host("app-2").spoil("first");
    let run = fleet.run(plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    interfere();
    fleet.host("app-2").let_go("first");
    let output = fleet.watch(&run);
    (run, output)
}

#[test]
fn an_undo_that_fails_holds_with_what_is_still_changed() {
    let fleet = Fleet::of(&ALL);
    let plan = fleet.plan("switch", SWITCH);
    let before = fleet.snapshot(&ALL);
    let host = fleet.host("app-3");
    let mut kept = String::new();
    let (run, output) = interfered(&fleet, &plan, || {
        kept = host.read(PREVIOUS_FILE);
        host.write(PREVIOUS_FILE, "somebody's notes");
    });
    assert_eq!(output.code, 1, "{output}");
    assert_eq!(output.json["outcome"], "waiting");
    // The crontabs come after the files: on no host are they back.
    let still: Value = json!([
        "file on app-3",
        "report on app-1",
        "report on app-2",
        "report on app-3"
    ]);
    assert_eq!(output.json["still_changed"], still, "{output}");
    let reason = output.json["reason"].as_str().unwrap();
    assert!(reason.contains("LS2131"), "{reason}");
    let failed: Vec<&Value> = (output.json["phases"].as_array().unwrap().iter())
        .flat_map(|phase| phase["tasks"].as_array().unwrap())
        .filter(|task| task["outcome"] == "failed" && task["agent"] == "app-3")
        .collect();
    assert_eq!(failed.len(), 1, "{output}");
    let diagnosis = &failed[0]["diagnosis"];
    assert_eq!(diagnosis["code"], "LS2131", "{output}");
    assert!(diagnosis["remedy"].is_string(), "{output}");
    assert_eq!(host.read("etc/database.toml"), "database = 'postgres'\n");

    host.write(PREVIOUS_FILE, &kept);
    let output = fleet.then_watch(&["run", "retry", &run]);
    assert_eq!(output.code, 5, "{output}");
    assert_eq!(output.json["still_changed"], json!([]));
    assert_eq!(fleet.snapshot(&ALL), before);
}

#[test]
fn what_somebody_else_has_changed_is_left_to_the_operator() {
    let fleet = Fleet::of(&ALL);
    let plan = fleet.plan("switch", SWITCH);
    let before = fleet.snapshot(&ALL);
    let host = fleet.host("app-1");
    let foreign = "database = 'elsewhere'\n";
    let (run, output) = interfered(&fleet, &plan, || host.write("etc/database.toml", foreign));
    assert_eq!(output.code, 1, "{output}");
    let undo = phase(&output.json, "undo-switch")["tasks"]
        .as_array()
        .unwrap();
    let drifted: Vec<&Value> = undo.iter().filter(|t| t["outcome"] == "drifted").collect();
    assert_eq!(drifted.len(), 1, "{output}");
    assert_eq!(
        (&drifted[0]["agent"], &drifted[0]["undo_of"]),
        (&json!("app-1"), &json!("file"))
    );
    assert_eq!(host.read("etc/database.toml"), foreign, "it is left alone");
    let step = drifted[0]["step"].as_str().unwrap().to_owned();

    // Nothing is tried again before somebody has looked.
    fleet
        .lockstep(&["run", "retry", &run])
        .is_refused(&["app-1", "resolve"]);
    host.write("etc/database.toml", "database = 'postgres'\n");
    let output = fleet.lockstep(&[
        "run",
        "resolve",
        &run,
        "--agent",
        "app-1",
        "--step",
        &step,
        "--as",
        "failed",
        "--reason",
        "the file was a mistake of mine",
    ]);
    assert_eq!(output.code, 0, "{output}");
    let output = fleet.then_watch(&["run", "retry", &run]);
    assert_eq!(output.code, 5, "{output}");
    assert_eq!(task(&output.json, "app-1", &step)["outcome"], "done");
    assert_eq!(fleet.snapshot(&ALL), before);
}

/// An outage that may last four seconds, the last one reserved for the rollback.
const BUDGET: &str = r"
kind: Plan
name: budget
parties:
  apps: { labels: { role: app }, expected: 3 }
outage: { budget: 4s, rollback_reserve: 2s, starts_with: stop, ends_with: start }
phases:
  - name: stop
    steps:
      - id: report
        party: apps
        action: cron.disable
        params: { files: ['@DIR@/${agent.name}/etc/report'] }
  - name: work
    finish_by: 4s
    steps:
      - { id: work, party: apps, action: command.run, params: { command: first } }
  - name: start
    steps:
      - { id: start, party: apps, action: command.run, params: { command: second } }
";

#[test]
fn an_outage_that_gets_too_long_is_given_up() {
    let fleet = Fleet::of(&ALL);
    let plan = fleet.plan("budget", BUDGET);
    let before = fleet.snapshot(&ALL);
    fleet.host("app-2").hold("first");
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 5, "{output}");
    let reason = output.json["reason"].as_str().unwrap();
    assert!(reason.contains("LS4410"), "{reason}");
    assert_eq!(output.json["outage_budget_ms"], 4_000);
    assert_eq!(phase(&output.json, "start")["outcome"], "pending");
    assert_eq!(fleet.count("app-2", "first", Moment::Ends), 0);
    assert_eq!(fleet.snapshot(&ALL), before);
}

/// A wait that has 200 seconds left when the outage's budget is used up.
#[test]
fn a_rollback_does_not_wait_for_what_only_waits() {
    let fleet = Fleet::of(&ALL);
    let wait = "{ id: work, party: apps, action: check.tcp, \
                params: { address: '127.0.0.1:1', within_secs: 200 } }";
    let text = BUDGET.replace("    finish_by: 4s\n", "").replace(
        "{ id: work, party: apps, action: command.run, params: { command: first } }",
        wait,
    );
    let plan = fleet.plan("waits", &text);
    let before = fleet.snapshot(&ALL);
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 5, "{output}");
    for agent in ALL {
        assert_eq!(task(&output.json, agent, "work")["outcome"], "interrupted");
    }
    assert_eq!(fleet.snapshot(&ALL), before);
}
