//! What operators decide: retry, skip, abort, pause, resume, approve.

use crate::fleet::{Fleet, Moment, phase, task, until};
use serde_json::{Value, json};
use std::time::{Duration, Instant};

const BOTH: [&str; 2] = ["app-1", "app-2"];

fn two_phases(fleet: &Fleet, of_first: &str, of_second: &str) -> String {
    let text = format!(
        "kind: Plan\n\
         name: decisions\n\
         parties:\n\
         \x20 apps: {{ labels: {{ role: app }}, expected: 2 }}\n\
         phases:\n\
         \x20 - name: one\n\
         \x20   steps:\n\
         \x20     - {{ id: first, party: apps, action: command.run, params: {{ command: first }}{of_first} }}\n\
         \x20 - name: two\n\
         {of_second}\
         \x20   steps:\n\
         \x20     - {{ id: second, party: apps, action: command.run, params: {{ command: second }} }}\n"
    );
    fleet.plan("decisions", &text)
}

/// A run whose first phase holds because app-2 failed.
fn holding(fleet: &Fleet, of_first: &str) -> String {
    let plan = two_phases(fleet, of_first, "");
    fleet.host("app-2").spoil("first");
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 1, "{output}");
    assert_eq!(output.json["outcome"], "waiting");
    assert_eq!(phase(&output.json, "one")["outcome"], "failed");
    output.json["id"].as_str().unwrap().to_owned()
}

#[test]
fn a_retry_runs_only_what_failed() {
    let fleet = Fleet::of(&BOTH);
    let run = holding(&fleet, "");
    fleet.host("app-2").mend("first");
    let output = fleet.then_watch(&["run", "retry", &run, "--reason", "disk was full"]);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(output.json["outcome"], "completed");
    let begun = |agent| fleet.count(agent, "first", Moment::Begins);
    assert_eq!((begun("app-1"), begun("app-2")), (1, 2));
    assert_eq!(task(&output.json, "app-2", "first")["attempt"], 2);
    assert_eq!(task(&output.json, "app-1", "first")["attempt"], 1);
}

#[test]
fn a_skip_needs_a_reason() {
    let fleet = Fleet::of(&BOTH);
    let run = holding(&fleet, "");
    let before = fleet.show(&run)["sequence"].clone();
    fleet
        .lockstep(&["run", "skip", &run])
        .is_refused(&["--reason"]);
    fleet
        .lockstep(&["run", "skip", &run, "--reason", " "])
        .is_refused(&["a reason is required"]);
    assert_eq!(fleet.show(&run)["sequence"], before, "nothing was recorded");
    let output = fleet.then_watch(&["run", "skip", &run, "--reason", "app-2 is retired"]);
    assert_eq!(output.code, 7, "{output}");
    assert_eq!(output.json["outcome"], "completed-with-skips");
    let reason = output.json["reason"].as_str().unwrap();
    let said = "phase one was skipped by ana: app-2 is retired";
    assert_eq!(reason, said);
    assert_eq!(phase(&output.json, "one")["outcome"], "skipped");
    assert_eq!(phase(&output.json, "two")["outcome"], "done");
    assert_eq!(fleet.count("app-2", "first", Moment::Begins), 1);
}

#[test]
fn a_proof_is_never_skipped_and_an_abort_leaves_things_as_they_are() {
    let fleet = Fleet::of(&BOTH);
    let run = holding(&fleet, ", proof: true");
    fleet
        .lockstep(&["run", "skip", &run, "--reason", "it looked well"])
        .is_refused(&["first on app-2", "proof", "retry, roll back or abort"]);
    let output = fleet.then_watch(&["run", "abort", &run, "--reason", "another night"]);
    assert_eq!(output.code, 1, "{output}");
    assert_eq!(output.json["outcome"], "aborted");
    let reason = output.json["reason"].as_str().unwrap();
    assert!(
        reason.contains("ana aborted the run: another night"),
        "{reason}"
    );
    assert_eq!(phase(&output.json, "two")["outcome"], "pending");
    assert_eq!(fleet.count("app-1", "second", Moment::Begins), 0);
    // What is over takes no more verbs.
    fleet.lockstep(&["run", "retry", &run]).is_refused(&[]);
}

#[test]
fn what_later_phases_rely_on_is_reached_and_not_skipped() {
    let fleet = Fleet::of(&BOTH);
    let run = holding(&fleet, ", required: true");
    fleet
        .lockstep(&["run", "skip", &run, "--reason", "we do it tomorrow"])
        .is_refused(&["later phases rely on first on app-2", "retry"]);
    fleet.host("app-2").mend("first");
    let output = fleet.then_watch(&["run", "retry", &run]);
    assert_eq!(output.code, 0, "{output}");
    assert_eq!(output.json["outcome"], "completed");
}

#[test]
fn a_pause_lets_running_work_end_and_releases_nothing_more() {
    let fleet = Fleet::of(&BOTH);
    let plan = two_phases(&fleet, "", "    gate: hold\n");
    fleet.host("app-1").hold("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-1", "first", Moment::Begins);
    let output = fleet.lockstep(&["run", "pause", &run, "--reason", "checking the graphs"]);
    assert_eq!(output.code, 0, "{output}");
    fleet.host("app-1").let_go("first");
    until("the first phase to be done", || {
        (phase(&fleet.show(&run), "one")["outcome"] == "done").then_some(())
    });
    let output = fleet.watch(&run);
    assert_eq!(output.code, 6, "{output}");
    assert!(
        output.json["waits_on"]
            .to_string()
            .contains("the end of the pause by ana")
    );
    assert_eq!(phase(&output.json, "two")["outcome"], "pending");

    // The pause ends, and the phase comes to its own gate.
    let output = fleet.then_watch(&["run", "resume", &run]);
    assert_eq!(output.code, 6, "{output}");
    assert_eq!(phase(&output.json, "two")["outcome"], "gated");
    assert_eq!(fleet.count("app-1", "second", Moment::Begins), 0);
    let output = fleet.then_watch(&["run", "resume", &run]);
    assert_eq!(output.code, 0, "{output}");
}

#[test]
fn an_approval_is_for_one_plan_and_serves_once() {
    let fleet = Fleet::of(&BOTH);
    let other = two_phases(&fleet, ", timeout: 70s", "    gate: approval\n");
    let other_digest = digest(&fleet, &other);
    let plan = two_phases(&fleet, "", "    gate: approval\n");
    fleet.host("app-1").spoil("second");
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 6, "{output}");
    assert_eq!(phase(&output.json, "two")["outcome"], "gated");
    assert_eq!(output.json["waits_on"], json!(["approval of phase two"]));
    let run = output.json["id"].as_str().unwrap();
    let approve = ["run", "approve", run, "--phase", "two"];

    fleet
        .lockstep(&[&approve[..], &["--digest", &other_digest]].concat())
        .is_refused(&["LS5012"]);
    fleet
        .lockstep(&["run", "approve", run, "--phase", "one", "--plan", &plan])
        .is_refused(&["does not wait for an approval"]);
    assert_eq!(fleet.count("app-1", "second", Moment::Begins), 0);

    let with_plan = [&approve[..], &["--plan", &plan]].concat();
    let output = fleet.then_watch(&with_plan);
    assert_eq!(output.code, 1, "app-1 fails: {output}");
    fleet.host("app-1").mend("second");
    let output = fleet.then_watch(&["run", "retry", run]);
    assert_eq!(output.code, 6, "the approval has served: {output}");
    let output = fleet.then_watch(&with_plan);
    assert_eq!(output.code, 0, "{output}");
    let begun = |agent| fleet.count(agent, "second", Moment::Begins);
    assert_eq!((begun("app-1"), begun("app-2")), (2, 1));
}

#[test]
fn an_operator_can_request_a_rollback() {
    let fleet = Fleet::of(&BOTH);
    let before = fleet.snapshot(&BOTH);
    let text = "\
kind: Plan
name: with-rollback
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    steps:
      - id: report
        party: apps
        action: cron.disable
        params: { files: ['@DIR@/${agent.name}/etc/report'] }
  - name: two
    point_of_no_return: true
    steps:
      - { id: second, party: apps, action: command.run, params: { command: second } }
  - name: three
    steps:
      - { id: third, party: apps, action: command.run, params: { command: third } }
";
    let reversible = text.replacen("    point_of_no_return: true\n", "", 1);
    let plan = fleet.plan("with-rollback", &reversible);
    fleet.host("app-1").spoil("third");
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 1, "{output}");
    let run = output.json["id"].as_str().unwrap().to_owned();
    assert_ne!(fleet.snapshot(&BOTH), before);
    let output = fleet.then_watch(&["run", "rollback", &run, "--reason", "too late tonight"]);
    assert_eq!(output.code, 5, "{output}");
    let reason = output.json["reason"].as_str().unwrap();
    assert!(
        reason.contains("ana asked for the rollback: too late tonight"),
        "{reason}"
    );
    assert_eq!(fleet.snapshot(&BOTH), before);

    // Behind the point of no return there is none.
    let plan = fleet.plan("with-rollback", text);
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 1, "{output}");
    assert_eq!(output.json["outcome"], "waiting");
    let run = output.json["id"].as_str().unwrap().to_owned();
    fleet
        .lockstep(&["run", "rollback", &run])
        .is_refused(&["the point of no return is passed"]);
    fleet.host("app-1").mend("third");
    let output = fleet.then_watch(&["run", "retry", &run]);
    assert_eq!(output.code, 0, "{output}");
}

/// Nobody knows yet what becomes of work that goes on, so a run never ends or
/// turns round beside it.
#[test]
fn an_abort_and_a_rollback_wait_for_what_is_at_work() {
    let fleet = Fleet::of(&BOTH);
    let before = fleet.snapshot(&BOTH);
    for (verb, outcome, code) in [("abort", "aborted", 1), ("rollback", "rolled-back", 5)] {
        let plan = fleet.plan(
            "at-work",
            "\
kind: Plan
name: at-work
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: one
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
      - id: report
        party: apps
        action: cron.disable
        params: { files: ['@DIR@/${agent.name}/etc/report'] }
",
        );
        fleet.host("app-2").hold("first");
        let begun = fleet.count("app-2", "first", Moment::Begins);
        let run = fleet.run(&plan);
        until("app-1 to be done and app-2 to be at work", || {
            let both = !fleet.host("app-1").has("etc/report")
                && fleet.count("app-2", "first", Moment::Begins) > begun;
            both.then_some(())
        });
        let output = fleet.lockstep(&["run", verb, &run, "--reason", "enough"]);
        assert_eq!(output.code, 0, "{output}");
        assert_eq!(output.json["outcome"], "running", "{output}");
        assert!(
            output.json["waits_on"]
                .to_string()
                .contains("first on app-2"),
            "{output}"
        );
        assert!(!fleet.host("app-1").has("etc/report"));
        fleet.host("app-2").let_go("first");
        let output = fleet.watch(&run);
        assert_eq!(
            (output.code, &output.json["outcome"]),
            (code, &json!(outcome)),
            "{output}"
        );
        assert_eq!(
            task(&output.json, "app-2", "report")["outcome"],
            "not-started"
        );
        if verb == "abort" {
            assert_eq!(output.json["still_changed"], json!(["report on app-1"]));
            let hidden = fleet.host("app-1").path("etc/.report.lockstep-disabled");
            std::fs::rename(hidden, fleet.host("app-1").path("etc/report")).unwrap();
        }
        assert_eq!(fleet.snapshot(&BOTH), before);
    }
}

#[test]
fn a_command_that_waits_in_vain_says_so_and_changes_nothing() {
    let mut fleet = Fleet::of(&BOTH);
    let plan = two_phases(&fleet, "", "");
    fleet.host("app-1").hold("first");
    let run = fleet.run(&plan);
    let output = fleet.lockstep(&["run", "watch", &run, "--timeout", "200ms"]);
    assert_eq!(output.code, 4, "{output}");
    assert!(output.error.contains("the run continues"), "{output}");
    fleet.host("app-1").let_go("first");
    assert_eq!(fleet.watch(&run).code, 0);
    fleet.stop_coordinator();
    let output = fleet.lockstep(&["run", "show", &run]);
    assert_eq!(output.code, 3, "{output}");
    assert!(output.error.contains("LS5001"), "{output}");
}

#[test]
fn a_verb_made_on_an_old_view_is_refused() {
    let fleet = Fleet::of(&BOTH);
    let run = holding(&fleet, "");
    let seen = fleet.show(&run)["sequence"].to_string();
    let output = fleet.then_watch(&["run", "retry", &run, "--if-sequence", &seen]);
    assert_eq!(output.code, 1, "it fails again: {output}");
    fleet
        .lockstep(&["run", "retry", &run, "--if-sequence", &seen])
        .is_refused(&["the run has moved on"]);
    assert_eq!(fleet.count("app-2", "first", Moment::Begins), 2);
}

fn digest(fleet: &Fleet, plan: &str) -> String {
    let output = fleet.lockstep(&["plan", "check", plan]);
    output.json["digest"].as_str().unwrap().to_owned()
}

#[test]
fn a_gate_that_outlives_the_promises_has_them_made_again() {
    let fleet = Fleet::of(&BOTH);
    let plan = two_phases(&fleet, "", "    gate: approval\n    start_by: 4s\n");
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 6, "{output}");
    let run = output.json["id"].as_str().unwrap();
    let began = Instant::now();
    until("every promise to have lapsed", || {
        (began.elapsed() > Duration::from_secs(4)).then_some(())
    });
    let output = fleet.then_watch(&["run", "approve", run, "--phase", "two", "--plan", &plan]);
    assert_eq!(output.code, 0, "{output}");
    let rounds: Vec<Value> = fleet
        .events(run)
        .into_iter()
        .map(|event| event["record"].clone())
        .filter(|record| record["record"] == "preparing" && record["phase"]["index"] == 1)
        .collect();
    assert_eq!(rounds.len(), 2, "{rounds:#?}");
    assert_eq!(rounds[1]["reason"], "margin");
    for agent in BOTH {
        assert_eq!(fleet.count(agent, "second", Moment::Ends), 1);
    }
}
