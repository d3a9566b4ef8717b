//! Nobody starts a phase before everyone has finished the one before it.

use crate::fleet::{Effect, Fleet, Moment, phase, until};

const TWO_PHASES: &str = r"
kind: Plan
name: two-phases
parties:
  apps: { labels: { role: app }, expected: 3 }
phases:
  - name: stop
    steps:
      - { id: stop, party: apps, action: command.run, params: { command: first } }
  - name: start
    steps:
      - { id: start, party: apps, action: command.run, params: { command: second } }
";

const ALL: [&str; 3] = ["app-1", "app-2", "app-3"];

#[test]
fn everyone_waits_for_the_slowest() {
    let fleet = Fleet::of(&ALL);
    let plan = fleet.plan("two-phases", TWO_PHASES);
    fleet.host("app-2").hold("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-1", "first", Moment::Ends);
    fleet.wait_for("app-3", "first", Moment::Ends);
    fleet.wait_for("app-2", "first", Moment::Begins);

    let waiting = fleet.show(&run);
    assert_eq!(phase(&waiting, "stop")["outcome"], "executing");
    assert_eq!(phase(&waiting, "start")["outcome"], "pending");
    assert!(
        fleet
            .effects()
            .iter()
            .all(|effect| effect.command == "first")
    );

    fleet.host("app-2").let_go("first");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(output.json["outcome"], "completed");

    let effects = fleet.effects();
    let last_end = effects.iter().rposition(|effect| effect.command == "first");
    let first_begin = effects.iter().position(|effect| effect.command == "second");
    assert!(last_end < first_begin, "{effects:#?}");
    for agent in ALL {
        for command in ["first", "second"] {
            for moment in [Moment::Begins, Moment::Ends] {
                let wanted = Effect::new(agent, command, moment);
                assert_eq!(
                    effects.iter().filter(|e| **e == wanted).count(),
                    1,
                    "{wanted:?}"
                );
            }
        }
    }
}

#[test]
fn one_run_can_follow_another_at_once() {
    let fleet = Fleet::of(&ALL);
    let plan = fleet.plan("two-phases", TWO_PHASES);
    for count in 1..=3 {
        let output = fleet.then_watch(&["run", "start", &plan]);
        assert_eq!(output.code, 0, "{output}");
        assert_eq!(fleet.count("app-1", "second", Moment::Ends), count);
    }
    let runs = fleet.lockstep(&["run", "list"]).json;
    assert_eq!(runs.as_array().map(Vec::len), Some(3));
}

const ON_ONE: &str = r"
kind: Plan
name: on-one
parties:
  one: { labels: { host: @HOST@ }, expected: 1 }
phases:
  - name: work
    steps:
      - { id: work, party: one, action: command.run, params: { command: first } }
";

#[test]
fn runs_of_different_agents_do_not_wait_for_each_other() {
    let fleet = Fleet::of(&ALL);
    let slow = fleet.plan("slow", &ON_ONE.replace("@HOST@", "app-1"));
    let quick = fleet.plan("quick", &ON_ONE.replace("@HOST@", "app-2"));
    fleet.host("app-1").hold("first");
    let slow = fleet.run(&slow);
    fleet.wait_for("app-1", "first", Moment::Begins);
    let output = fleet.then_watch(&["run", "start", &quick]);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(fleet.show(&slow)["outcome"], "running");
    fleet.host("app-1").let_go("first");
    assert_eq!(fleet.watch(&slow).code, 0);
}

#[test]
fn a_newcomer_takes_no_part_in_a_run_that_has_begun() {
    let mut fleet = Fleet::of(&ALL);
    fleet.kill_agent("app-3");
    until("app-3 to be missed", || {
        (fleet.agent("app-3")["connected"] == false).then_some(())
    });
    let text = TWO_PHASES.replacen("expected: 3", "expected: 2", 1);
    let plan = fleet.plan("two-phases", &text);
    fleet.host("app-2").hold("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-2", "first", Moment::Begins);
    fleet.start_agent("app-3");
    fleet.wait_connected(&ALL);
    fleet.host("app-2").let_go("first");
    let output = fleet.watch(&run);
    assert_eq!(output.code, 0, "{output}");
    assert!(fleet.effects().iter().all(|effect| effect.agent != "app-3"));
}
