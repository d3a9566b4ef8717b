//! `kill -9` of the coordinator and of agents, at chosen moments. Every
//! effect happens exactly once, or an operator is asked.

use crate::fleet::{Fleet, Moment, phase, task, until};
use serde_json::json;
use std::collections::BTreeSet;
use std::fs::File;
use std::os::fd::AsRawFd;

const BOTH: [&str; 2] = ["app-1", "app-2"];

const COMMANDS: &str = r"
kind: Plan
name: commands
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
      - { id: second, party: apps, action: command.run, params: { command: second } }
  - name: two
    steps:
      - { id: third, party: apps, action: command.run, params: { command: third } }
";

fn terms(fleet: &Fleet, run: &str) -> Vec<u64> {
    let terms = fleet.events(run).into_iter();
    terms
        .filter_map(|event| event["record"]["term"]["number"].as_u64())
        .collect()
}

fn completed_once(fleet: &Fleet, run: &str) {
    let output = fleet.watch(run);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(output.json["outcome"], "completed");
    for agent in BOTH {
        for command in ["first", "second", "third"] {
            for moment in [Moment::Begins, Moment::Ends] {
                assert_eq!(fleet.count(agent, command, moment), 1, "{agent} {command}");
            }
        }
    }
}

#[test]
fn the_coordinator_dies_before_the_first_release() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("commands", COMMANDS);
    // A vote is missing, so nothing can be released.
    fleet.freeze("app-2");
    let run = fleet.run(&plan);
    until("app-1 to have voted", || {
        (task(&fleet.show(&run), "app-1", "first")["outcome"] == "ready").then_some(())
    });
    fleet.restart_coordinator();
    assert_eq!(fleet.effects(), []);
    fleet.thaw("app-2");
    completed_once(&fleet, &run);
    assert_eq!(terms(&fleet, &run), [1, 2]);
}

#[test]
fn the_coordinator_dies_between_release_and_outcomes() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("commands", COMMANDS);
    for agent in BOTH {
        fleet.host(agent).hold("first");
    }
    let run = fleet.run(&plan);
    for agent in BOTH {
        fleet.wait_for(agent, "first", Moment::Begins);
    }
    fleet.kill_coordinator();
    // Without a coordinator, what was released goes on to its end: also the
    // task after the one that runs.
    fleet.host("app-1").let_go("first");
    fleet.wait_for("app-1", "second", Moment::Ends);
    fleet.start_coordinator();
    // Again, while app-2 is still at work and app-1 has reported or not.
    fleet.restart_coordinator();
    fleet.host("app-2").let_go("first");
    completed_once(&fleet, &run);
    assert_eq!(terms(&fleet, &run), [1, 2, 3]);
}

const WITH_ROLLBACK: &str = r"
kind: Plan
name: with-rollback
parties:
  apps: { labels: { role: app }, expected: 2 }
  second: { labels: { host: app-2 }, expected: 1 }
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
  - name: stop
    on_failure: rollback
    steps:
      - id: report
        party: second
        action: cron.disable
        params: { files: ['@DIR@/${agent.name}/etc/report'] }
  - name: start
    on_failure: rollback
    steps:
      - { id: start, party: second, action: command.run, params: { command: first } }
";

/// A run whose last phase is about to fail on app-2.
fn about_to_roll_back(fleet: &Fleet) -> String {
    let plan = fleet.plan("with-rollback", WITH_ROLLBACK);
    fleet.host("app-2").hold("first");
    fleet.host("app-2").spoil("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    run
}

#[test]
fn the_coordinator_dies_in_the_rollback() {
    let mut fleet = Fleet::of(&BOTH);
    let before = fleet.snapshot(&BOTH);
    let run = about_to_roll_back(&fleet);
    fleet.freeze("app-1");
    fleet.host("app-2").let_go("first");
    // The crontab is back, the files aren't: app-1 has not promised.
    until("the rollback to be half done", || {
        fleet.host("app-2").has("etc/report").then_some(())
    });
    fleet.restart_coordinator();
    fleet.thaw("app-1");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 5, "{output}");
    assert_eq!(terms(&fleet, &run), [1, 2]);
    assert_eq!(output.json["still_changed"], json!([]));
    assert_eq!(fleet.snapshot(&BOTH), before);
    let undos = fleet.events(&run).into_iter().filter(|event| {
        event["kind"] == "task-ended" && event["record"]["report"]["phase"]["track"] == "rollback"
    });
    assert_eq!(undos.count(), 3, "each undo once");
}

/// A run in which app-2 was killed while its first command ran, and is back.
fn unknown(fleet: &mut Fleet) -> String {
    let plan = fleet.plan("commands", COMMANDS);
    fleet.host("app-2").hold("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    fleet.kill_agent("app-2");
    fleet.start_agent("app-2");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 1, "{output}");
    assert_eq!(output.json["outcome"], "waiting");
    assert_eq!(task(&output.json, "app-2", "first")["outcome"], "unknown");
    assert_eq!(
        task(&output.json, "app-2", "second")["outcome"],
        "not-started"
    );
    let reason = output.json["reason"].as_str().unwrap();
    assert!(reason.contains("first on app-2"), "{reason}");
    fleet
        .lockstep(&["run", "retry", &run])
        .is_refused(&["first on app-2", "resolve it as done or failed"]);
    fleet.host("app-2").let_go("first");
    run
}

fn resolve(fleet: &Fleet, run: &str, truth: &str) {
    let output = fleet.lockstep(&[
        "run",
        "resolve",
        run,
        "--agent",
        "app-2",
        "--step",
        "first",
        "--as",
        truth,
        "--reason",
        "checked the host",
    ]);
    assert_eq!(output.code, 0, "{output}");
}

#[test]
fn an_agent_dies_at_work_and_its_task_had_its_effect() {
    let mut fleet = Fleet::of(&BOTH);
    let run = unknown(&mut fleet);
    resolve(&fleet, &run, "done");
    let output = fleet.then_watch(&["run", "retry", &run]);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(fleet.count("app-2", "first", Moment::Begins), 1);
    assert_eq!(fleet.count("app-2", "second", Moment::Ends), 1);
    assert_eq!(fleet.count("app-1", "second", Moment::Ends), 1);
}

#[test]
fn an_agent_dies_at_work_and_its_task_had_no_effect() {
    let mut fleet = Fleet::of(&BOTH);
    let run = unknown(&mut fleet);
    resolve(&fleet, &run, "failed");
    let output = fleet.then_watch(&["run", "retry", &run]);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(fleet.count("app-2", "first", Moment::Ends), 1);
    assert_eq!(fleet.count("app-1", "first", Moment::Begins), 1);
}

const CHECK_THEN_SWITCH: &str = r"
kind: Plan
name: check-then-switch
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: switch
    steps:
      - { id: healthy, party: apps, action: check.command, params: { command: first } }
      - id: file
        party: apps
        action: config.switch
        params:
          path: '@DIR@/${agent.name}/etc/database.toml'
          to: '@DIR@/${agent.name}/etc/postgres.toml'
";

#[test]
fn an_agent_dies_at_work_that_can_be_judged_and_it_is_done_without_asking() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("check-then-switch", CHECK_THEN_SWITCH);
    fleet.host("app-2").hold("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    fleet.kill_agent("app-2");
    fleet.host("app-2").let_go("first");
    fleet.start_agent("app-2");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(phase(&output.json, "switch")["attempt"], 2);
    let ends: BTreeSet<(u64, String)> = fleet
        .events(&run)
        .into_iter()
        .map(|event| event["record"].clone())
        .filter(|record| record["record"] == "task-ended" && record["agent"] == "app-2")
        .map(|record| {
            let report = &record["report"];
            let ended = format!("{} {}", report["step"], report["outcome"]["outcome"]);
            (report["attempt"].as_u64().unwrap(), ended.replace('"', ""))
        })
        .collect();
    let wanted = [
        (1, "file not-started"),
        (1, "healthy interrupted"),
        (2, "file done"),
        (2, "healthy done"),
    ];
    let wanted = wanted.map(|(attempt, ended)| (attempt, ended.to_owned()));
    assert_eq!(ends, BTreeSet::from(wanted), "{output}");
    assert_eq!(fleet.count("app-1", "first", Moment::Begins), 1);
    assert_eq!(
        fleet.host("app-2").read("etc/database.toml"),
        "database = 'postgres'\n"
    );
}

#[test]
fn an_agent_restarts_between_its_promise_and_the_release() {
    let mut fleet = Fleet::of(&BOTH);
    let text = COMMANDS.replacen("name: two\n", "name: two\n    gate: approval\n", 1);
    let plan = fleet.plan("commands", &text);
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 6, "{output}");
    let run = output.json["id"].as_str().unwrap().to_owned();
    let attempt = phase(&output.json, "two")["attempt"].as_u64().unwrap();
    fleet.kill_agent("app-2");
    fleet.start_agent("app-2");
    // The promise has died with it: everyone is asked again.
    until("the gate to be reached again", || {
        let now = fleet.show(&run);
        let two = phase(&now, "two");
        (two["outcome"] == "gated" && two["attempt"].as_u64() > Some(attempt)).then_some(())
    });
    let output = fleet.then_watch(&["run", "approve", &run, "--phase", "two", "--plan", &plan]);
    assert_eq!(output.code, 0, "{output}");
    completed_once(&fleet, &run);
}

#[test]
fn the_coordinator_dies_at_a_gate_and_while_an_operator_decides() {
    let mut fleet = Fleet::of(&BOTH);
    let text = COMMANDS.replacen("name: two\n", "name: two\n    gate: approval\n", 1);
    let plan = fleet.plan("commands", &text);
    fleet.host("app-1").spoil("third");
    let output = fleet.then_watch(&["run", "start", &plan]);
    let run = output.json["id"].as_str().unwrap().to_owned();
    fleet.restart_coordinator();
    let again = fleet.watch(&run);
    assert_eq!(again.code, 6, "{again}");
    let approve = ["run", "approve", &run, "--phase", "two", "--plan", &plan];
    let output = fleet.then_watch(&approve);
    assert_eq!(output.code, 1, "{output}");
    fleet.restart_coordinator();
    fleet.wait_connected(&BOTH);
    let again = fleet.watch(&run);
    assert_eq!(again.code, 1, "{again}");
    assert_eq!(again.json["reason"], output.json["reason"]);
    fleet.host("app-1").mend("third");
    let output = fleet.then_watch(&["run", "retry", &run]);
    assert_eq!(output.code, 6, "{output}");
    let output = fleet.then_watch(&approve);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(fleet.count("app-2", "third", Moment::Begins), 1);
}

#[test]
fn who_watches_a_run_goes_on_watching_over_a_restart() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("commands", COMMANDS);
    fleet.host("app-2").hold("second");
    let run = fleet.run(&plan);
    let watching = fleet.follow(&run);
    fleet.wait_for("app-2", "second", Moment::Begins);
    fleet.stop_coordinator();
    fleet.start_coordinator();
    fleet.host("app-2").let_go("second");
    let (code, lines) = watching.end();
    assert_eq!(code, 0, "{lines:#?}");
    let sequences: Vec<u64> = lines
        .iter()
        .filter(|update| update["type"] == "event")
        .map(|update| update["event"]["sequence"].as_u64().unwrap())
        .collect();
    let journal: Vec<u64> = fleet
        .events(&run)
        .iter()
        .map(|event| event["sequence"].as_u64().unwrap())
        .filter(|sequence| sequences.contains(sequence))
        .collect();
    assert_eq!(sequences, journal, "each once and in order");
    let last = lines
        .iter()
        .rfind(|update| update["type"] == "status")
        .unwrap();
    assert_eq!(last["run"]["outcome"], "completed");
}

#[test]
fn what_a_task_says_is_seen_after_the_coordinator_came_back() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("commands", COMMANDS);
    fleet.host("app-2").hold("first");
    fleet.host("app-2").spoil("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    fleet.restart_coordinator();
    fleet.wait_connected(&BOTH);
    let watching = fleet.follow(&run);
    fleet.host("app-2").let_go("first");
    let (code, lines) = watching.end();
    assert_eq!(code, 1);
    let said = lines.iter().any(|update| {
        let line = &update["line"];
        update["type"] == "line" && line["agent"] == "app-2" && line["line"] == "first is broken"
    });
    assert!(said, "{lines:#?}");
}

#[test]
fn an_agent_dies_in_an_undo() {
    let mut fleet = Fleet::of(&BOTH);
    let before = fleet.snapshot(&BOTH);
    let run = about_to_roll_back(&fleet);
    // Whoever opens the saved file waits while there is a lease on it (fcntl(2)).
    let saved = fleet
        .host("app-1")
        .path("etc/.database.toml.lockstep-previous");
    let saved = File::options().read(true).write(true).open(saved).unwrap();
    // SAFETY: plain system calls. The signal reports that somebody waits, which the
    // lease itself says below; by default it would end the process.
    let lease = |command: libc::c_int, argument: libc::c_int| unsafe {
        libc::signal(libc::SIGIO, libc::SIG_IGN);
        libc::fcntl(saved.as_raw_fd(), command, argument)
    };
    assert_eq!(lease(libc::F_SETLEASE, libc::F_WRLCK), 0);
    fleet.host("app-2").let_go("first");
    until("app-1 to be in its undo", || {
        (lease(libc::F_GETLEASE, 0) != libc::F_WRLCK).then_some(())
    });
    fleet.kill_agent("app-1");
    drop(saved);
    fleet.start_agent("app-1");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 5, "{output}");
    assert_eq!(fleet.snapshot(&BOTH), before);
}
