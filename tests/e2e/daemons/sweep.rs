//! `kill -9` at one moment after the other through a whole run: wherever it
//! strikes, every command has its effect exactly once.
//!
//! The moments are counted in what the commands themselves write, so they
//! fall into promises, releases, work and reports alike.

use crate::fleet::{CommandOutput, Effect, Fleet, Moment, until};
use serde_json::Value;
use std::time::Duration;

pub const BOTH: [&str; 2] = ["app-1", "app-2"];
const COMMANDS: [&str; 3] = ["first", "second", "third"];

/// What one undisturbed run writes.
const LINES: usize = BOTH.len() * COMMANDS.len() * 2;

pub const PLAN: &str = r"
kind: Plan
name: three-phases
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
  - name: two
    steps:
      - { id: second, party: apps, action: command.run, params: { command: second } }
  - name: three
    steps:
      - { id: third, party: apps, action: command.run, params: { command: third } }
";

/// Asserts that since `before`, each command has had its effect once.
pub fn once_each(fleet: &Fleet, before: usize, output: &CommandOutput) {
    let effects = fleet.effects().split_off(before);
    for agent in BOTH {
        for command in COMMANDS {
            let end = Effect::new(agent, command, Moment::Ends);
            let ends = effects.iter().filter(|effect| **effect == end).count();
            assert_eq!(ends, 1, "{command} on {agent}\n{effects:#?}\n{output}");
        }
    }
}

fn wait_for_lines(fleet: &Fleet, lines: usize) {
    until("the moment to strike", || {
        (fleet.effects().len() >= lines).then_some(())
    });
}

#[test]
fn the_coordinator_may_die_at_any_moment() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("three-phases", PLAN);
    for moment in (0..LINES).step_by(2) {
        let before = fleet.effects().len();
        let run = fleet.run(&plan);
        wait_for_lines(&fleet, before + moment);
        fleet.restart_coordinator();
        let output = fleet.watch(&run);
        assert_eq!(output.code, 0, "killed after {moment} lines: {output}");
        once_each(&fleet, before, &output);
        assert_eq!(
            fleet.effects().len(),
            before + LINES,
            "nothing was begun twice"
        );
    }
}

/// Resolves each task whose outcome is unknown,
/// as the host's own record has it; gives how many there were.
pub fn resolve_unknown(fleet: &Fleet, before: usize, output: &CommandOutput) -> usize {
    let effects = fleet.effects().split_off(before);
    let run = output.json["id"].as_str().unwrap();
    let phases = output.json["phases"].as_array().unwrap().iter();
    let tasks = phases.flat_map(|phase| phase["tasks"].as_array().unwrap());
    let unknown: Vec<&Value> = tasks.filter(|task| task["outcome"] == "unknown").collect();
    for task in &unknown {
        let (agent, step) = (
            task["agent"].as_str().unwrap(),
            task["step"].as_str().unwrap(),
        );
        let had_effect = effects.contains(&Effect::new(agent, step, Moment::Ends));
        let truth = if had_effect { "done" } else { "failed" };
        let output = fleet.lockstep(&[
            "run",
            "resolve",
            run,
            "--agent",
            agent,
            "--step",
            step,
            "--as",
            truth,
            "--reason",
            "so says the host",
        ]);
        assert_eq!(output.code, 0, "{output}");
    }
    unknown.len()
}

#[test]
fn an_agent_may_die_at_any_moment() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("three-phases", PLAN);
    for moment in (0..LINES).step_by(2) {
        let before = fleet.effects().len();
        let run = fleet.run(&plan);
        wait_for_lines(&fleet, before + moment);
        fleet.kill_agent("app-2");
        fleet.start_agent("app-2");
        let mut output = fleet.watch(&run);
        if output.code == 1 {
            let unknown = resolve_unknown(&fleet, before, &output);
            assert_eq!(unknown, 1, "killed after {moment} lines: {output}");
            output = fleet.then_watch(&["run", "retry", &run]);
        }
        assert_eq!(output.code, 0, "killed after {moment} lines: {output}");
        once_each(&fleet, before, &output);
    }
}

pub const WITH_ROLLBACK: &str = r"
kind: Plan
name: with-rollback
parties:
  apps: { labels: { role: app }, expected: 2 }
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
      - { id: first, party: apps, action: command.run, params: { command: first } }
";

/// The delays only spread the moments over the rollback; what must come of
/// it is the same at each.
#[test]
fn a_rollback_may_be_interrupted_at_any_moment() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("with-rollback", WITH_ROLLBACK);
    let before = fleet.snapshot(&BOTH);
    fleet.host("app-2").spoil("first");
    for (count, delay) in (0..80).step_by(8).enumerate() {
        fleet.host("app-2").hold("first");
        let lines = fleet.effects().len();
        let run = fleet.run(&plan);
        // Both have begun, and app-1 has come to its end.
        wait_for_lines(&fleet, lines + 3);
        fleet.host("app-2").let_go("first");
        std::thread::sleep(Duration::from_millis(delay));
        if count % 2 == 0 {
            fleet.restart_coordinator();
        } else {
            fleet.kill_agent("app-1");
            fleet.start_agent("app-1");
        }
        let output = fleet.watch(&run);
        assert_eq!(output.code, 5, "after {delay} ms: {output}");
        assert_eq!(
            output.json["still_changed"].as_array().map(Vec::len),
            Some(0)
        );
        assert_eq!(fleet.snapshot(&BOTH), before, "after {delay} ms: {output}");
        // What ended belongs to the run; whoever was killed is back by then.
        fleet.wait_connected(&BOTH);
    }
}
