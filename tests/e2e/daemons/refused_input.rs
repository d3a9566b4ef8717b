//! Input that is refused: with the place, the remedy and exit code 2, and
//! with nothing changed anywhere.

use crate::fleet::{Fleet, Moment, phase};
use serde_json::{Value, json};

const BOTH: [&str; 2] = ["app-1", "app-2"];

const SOUND: &str = r"
kind: Plan
name: sound
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

/// A plan of which each case breaks something: what is replaced, by what,
/// and what must be said, the line among it.
const BROKEN: &[(&str, &str, &str, &[&str])] = &[
    (
        "an unknown action",
        "second, party: apps, action: command.run",
        "second, party: apps, action: command.start",
        &["LS1030", "command.start", "\"line\":12,"],
    ),
    (
        "a missing party",
        "second, party: apps",
        "second, party: databases",
        &["LS1022", "databases", "\"line\":12,"],
    ),
    (
        "a wrong type",
        "expected: 2",
        "expected: two",
        &["LS1004", "two", "\"line\":5,"],
    ),
    (
        "a wrong type in parameters",
        "command: second",
        "command: second, within_secs: soon",
        &["LS1004", "soon", "\"line\":12,"],
    ),
    (
        "a duplicate name",
        "id: second",
        "id: first",
        &["LS1020", "first", "\"line\":12,"],
    ),
    (
        "an output that its action doesn't give",
        "command: second",
        "command: \"${first.name}\"",
        &["LS1012", "first.name", "\"line\":12,"],
    ),
    (
        "no YAML",
        "kind: Plan",
        "kind: [Plan",
        &["LS1001", "broken.yaml"],
    ),
];

/// Outputs that go round in a circle, and one that comes from a later phase.
const LATER: &str = r"
kind: Plan
name: later
parties:
  lead: { labels: { host: app-1 }, expected: 1 }
phases:
  - name: one
    steps:
      - { id: rows, party: lead, action: oracle.rows.digest,
          params: { resource: orcl, scn: '${finalize.scn}', tables: [] } }
  - name: two
    steps:
      - { id: finalize, party: lead, action: oracle.finalize,
          params: { resource: orcl, marker_table: A.B, tasks: [x], fence: { resource: orcl } } }
";

fn nothing_happened(fleet: &Fleet) {
    assert_eq!(fleet.effects(), []);
    assert_eq!(fleet.lockstep(&["run", "list"]).json, json!([]));
    for agent in BOTH {
        assert_eq!(fleet.agent(agent)["run"], json!(null));
    }
}

fn refused_everywhere(fleet: &Fleet, what: &str, plan: &str, named: &[&str]) {
    for command in [&["run", "start", plan][..], &["preflight", plan]] {
        println!("{what}: {command:?}");
        let output = fleet.lockstep(command);
        output.is_refused(named);
        let error: Value = serde_json::from_str(&output.error).unwrap();
        let problems = error["error"]["report"].as_array().into_iter().flatten();
        for problem in problems {
            assert_ne!(problem["remedy"], "", "{output}");
        }
    }
}

#[test]
fn a_broken_plan_is_refused_with_place_and_remedy() {
    let fleet = Fleet::of(&BOTH);
    let before = fleet.snapshot(&BOTH);
    for (what, replaced, by, named) in BROKEN {
        assert!(SOUND.contains(replaced), "{what}");
        let plan = fleet.plan("broken", &SOUND.replacen(replaced, by, 1));
        refused_everywhere(&fleet, what, &plan, named);
    }
    let plan = fleet.plan("broken", LATER);
    refused_everywhere(&fleet, "a later output", &plan, &["LS1013", "\"line\":10,"]);
    let circle = LATER.replace("orcl, marker_table", "'${rows.tables}', marker_table");
    let plan = fleet.plan("broken", &circle);
    refused_everywhere(
        &fleet,
        "a circle of outputs",
        &plan,
        &["LS1014", "broken.yaml"],
    );
    refused_everywhere(&fleet, "no file", "/nowhere/plan.yaml", &[]);
    nothing_happened(&fleet);
    assert_eq!(fleet.snapshot(&BOTH), before);
}

#[test]
fn a_plan_that_fits_no_fleet_is_refused() {
    let fleet = Fleet::of(&BOTH);
    let cases: [(&str, &str, &str, &[&str]); 3] = [
        (
            "no agent matches",
            "role: app",
            "role: oracle",
            &[
                "party apps (role=oracle) expects 2",
                "none",
                "start the missing agents",
            ],
        ),
        (
            "too few match",
            "expected: 2",
            "expected: 3",
            &["expects 3", "2 match: app-1, app-2"],
        ),
        (
            "no policy allows the action",
            "action: command.run, params: { command: second }",
            "action: service.stop, params: { units: [shop.service] }",
            &["policy of agent app-1", "service.stop", "policy.actions"],
        ),
    ];
    for (what, replaced, by, named) in cases {
        let plan = fleet.plan("unfit", &SOUND.replacen(replaced, by, 1));
        println!("{what}");
        let output = fleet.lockstep(&["run", "start", &plan]);
        output.is_refused(named);
        output.is_refused(&["LS4302"]);
        let output = fleet.lockstep(&["preflight", &plan]);
        assert_eq!(output.code, 2, "{output}");
        let obstacles = output.json[0]["obstacles"].to_string();
        for text in named {
            assert!(obstacles.contains(text), "{output}");
        }
    }
    nothing_happened(&fleet);
}

/// What only the agent can know: the coordinator holds no list of commands.
#[test]
fn a_policy_that_refuses_a_command_is_reported_before_anything_is_done() {
    let fleet = Fleet::of(&BOTH);
    let plan = fleet.plan(
        "unfit",
        &SOUND.replacen("command: first", "command: fourth", 1),
    );
    let output = fleet.lockstep(&["preflight", &plan]);
    output.is_refused(&["LS5014", "2 obstacles"]);
    for part in output.json.as_array().unwrap() {
        let task = &part["tasks"][0];
        let obstacle = task["obstacles"][0].as_str().unwrap();
        assert!(obstacle.contains("LS2001"), "{output}");
        assert!(obstacle.contains("[policy.commands.fourth]"), "{output}");
        assert_eq!(part["tasks"][1]["obstacles"], json!([]), "{output}");
    }
    nothing_happened(&fleet);

    // Started all the same, the run holds before its first release.
    let output = fleet.then_watch(&["run", "start", &plan]);
    assert_eq!(output.code, 1, "{output}");
    assert_eq!(phase(&output.json, "one")["outcome"], "failed");
    let reason = output.json["reason"].as_str().unwrap();
    assert!(reason.contains("refused: LS2001"), "{reason}");
    let refusal = &phase(&output.json, "one")["refusals"][0];
    assert_eq!(refusal["diagnosis"]["code"], "LS2001", "{output}");
    assert_eq!(refusal["diagnosis"]["state_left"], "nothing was done");
    assert_eq!(fleet.effects(), []);
    let run = output.json["id"].as_str().unwrap();
    let output = fleet.then_watch(&["run", "abort", run, "--reason", "not that command"]);
    assert_eq!(output.json["outcome"], "aborted", "{output}");
}

/// The largest file and nearly the largest plan, whose last phase every agent
/// refuses with more than a message holds.
#[test]
fn a_plan_near_its_limits_is_started_and_its_refusals_arrive() {
    const STEPS: usize = 700;
    const BIG: usize = 1_000;
    let fleet = Fleet::of(&BOTH);
    let mut text = SOUND.replacen("name: sound", "name: sound\nvars: { big: small }", 1);
    text += "  - name: three\n    steps:\n";
    for id in 0..STEPS {
        text += &format!(
            "      - {{ id: s-{id}, party: apps, action: command.run, \
             params: {{ command: '${{vars.big}}' }} }}\n"
        );
    }
    while text.len() + 100 < lockstep_plan::MAX_BYTES {
        text += &format!("# {}\n", "why ".repeat(20));
    }
    let plan = fleet.plan("large", &text);
    let big = format!("big={}", "x".repeat(BIG));
    let output = fleet.lockstep(&["plan", "check", &plan, "--var", &big]);
    assert_eq!(output.code, 0, "{output}");
    let output = fleet.then_watch(&["run", "start", &plan, "--var", &big]);
    assert_eq!(output.code, 1, "{}", output.error);
    assert_eq!(phase(&output.json, "two")["outcome"], "done");
    let reason = output.json["reason"].as_str().unwrap();
    assert!(reason.contains("refused: LS2001"), "{}", &reason[..200]);
    for agent in BOTH {
        assert_eq!(fleet.agent(agent)["connected"], true);
        assert!(
            !fleet
                .log(agent)
                .contains("session with the coordinator broke")
        );
    }
    let run = output.json["id"].as_str().unwrap();
    let output = fleet.then_watch(&["run", "abort", run, "--reason", "it was a test"]);
    assert_eq!(output.json["outcome"], "aborted", "{}", output.error);
    let output = fleet.then_watch(&["run", "start", &fleet.plan("sound", SOUND)]);
    assert_eq!(output.code, 0, "{output}");

    let output = fleet.lockstep(&[
        "run",
        "start",
        &plan,
        "--var",
        &format!("big={}", "x".repeat(2 * BIG)),
    ]);
    output.is_refused(&["LS1008", "three", "split it"]);
}

#[test]
fn a_preflight_tells_what_would_be_done_and_does_nothing() {
    let fleet = Fleet::of(&BOTH);
    let before = fleet.snapshot(&BOTH);
    let switch = "action: config.switch, params: { \
                  path: '@DIR@/${agent.name}/etc/database.toml', \
                  to: '@DIR@/${agent.name}/etc/postgres.toml' }";
    let text = SOUND.replacen(
        "action: command.run, params: { command: second }",
        switch,
        1,
    );
    let output = fleet.lockstep(&["preflight", &fleet.plan("sound", &text)]);
    assert_eq!(output.code, 0, "{output}");
    for part in output.json.as_array().unwrap() {
        let agent = part["agent"].as_str().unwrap();
        let (command, file) = (&part["tasks"][0], &part["tasks"][1]);
        let script = fleet.host(agent).path("bin/first");
        assert_eq!(
            command["would_do"],
            json!([format!("/bin/sh {}", script.display())])
        );
        assert_eq!(file["finding"], "pending");
        let line = file["would_do"][0].as_str().unwrap();
        let path = fleet.host(agent).path("etc/database.toml");
        assert!(
            line.starts_with(&format!("replace {}", path.display())),
            "{line}"
        );
    }
    nothing_happened(&fleet);
    assert_eq!(fleet.snapshot(&BOTH), before);
}

#[test]
fn an_agent_takes_part_in_one_run_at_a_time() {
    let fleet = Fleet::of(&BOTH);
    let plan = fleet.plan("sound", SOUND);
    fleet.host("app-1").hold("first");
    let run = fleet.run(&plan);
    fleet.wait_for("app-1", "first", Moment::Begins);
    fleet.lockstep(&["run", "start", &plan]).is_refused(&[
        "LS4302",
        "agent app-1 is locked to run",
        &run,
    ]);
    assert_eq!(fleet.agent("app-2")["run"], json!(run));
    let runs = fleet.lockstep(&["run", "list"]).json;
    assert_eq!(runs.as_array().map(Vec::len), Some(1));
    fleet.host("app-1").let_go("first");
    assert_eq!(fleet.watch(&run).code, 0);
}
