//! Broken plans: each case breaks one of the examples in `deploy/plans` and lists
//! the problems that must be reported, each with its location.

#![expect(clippy::unwrap_used, reason = "a test fails at the first error")]

mod case;
mod cutover_rules;
mod plan_rules;
mod references;
mod structure;

use case::{codes_of, example, run};
use lockstep_plan::{CODES, Overrides, check};
use std::collections::BTreeSet;

/// Runs all cases and returns the codes they report. Fails with all wrong cases.
fn run_all() -> BTreeSet<&'static str> {
    let cases = [
        structure::CASES,
        references::CASES,
        plan_rules::CASES,
        cutover_rules::CASES,
    ];
    let (reported, wrong): (Vec<_>, Vec<_>) = cases
        .into_iter()
        .flatten()
        .map(run)
        .partition(Result::is_ok);
    let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    reported
        .into_iter()
        .filter_map(Result::ok)
        .flatten()
        .collect()
}

#[test]
fn every_case_is_reported_at_its_location_and_every_code_has_a_case() {
    let mut reported = run_all();
    // These codes have tests with plans of their own.
    reported.extend(["LS1013", "LS1014", "LS1015"]);
    reported.extend(codes_of(&" ".repeat(lockstep_plan::MAX_BYTES + 1)));
    for code in CODES {
        assert!(reported.contains(&code.as_str()), "{code} {}", code.title());
    }
}

#[test]
fn all_problems_are_reported_at_once() {
    let broken = example("cutover")
        .replace("expected: 2", "expected: two")
        .replace(
            "services: [shop-local.service]",
            "service: [shop-local.service]",
        )
        .replace("set: user", "set: usr")
        .replace("statistic: Average", "statistics: Average")
        .replace("budget: 30m", "budget: half an hour");
    let checked = check("cutover.yaml", &broken, &Overrides::default());
    insta::assert_snapshot!("all-at-once", checked.problems);
    let json = checked.problems.json();
    assert_eq!(json[0]["code"], "LS1004");
    assert_eq!(json[0]["severity"], "error");
    assert_eq!(json[0]["line"], 26);
}

/// As a number, the label 1.10 has the value 1.1, and no agent has that label.
#[test]
fn a_number_in_place_of_a_text_is_shown_as_it_is_written() {
    for written in ["1.10", "0x1F", "1e3", "+5", "True"] {
        let text = format!(
            "kind: Plan\nname: p\nparties:\n  apps: {{labels: {{version: {written}}}, expected: 1}}\n\
             phases: [{{name: a, steps: [{{id: s, party: apps, action: command.run, \
             params: {{command: c}}}}]}}]\n"
        );
        let json = check("p.yaml", &text, &Overrides::default())
            .problems
            .json();
        let shown = json[0].to_string();
        let quoted = format!("put it in quotes: \\\"{written}\\\"");
        assert!(shown.contains(&quoted), "{written}: {shown}");
    }
}

#[test]
fn a_plan_that_expands_to_too_much_is_reported_at_its_largest_phase() {
    let mut text = "kind: Plan
name: large
vars:
  big: small
parties:
  apps: { labels: { role: app }, expected: 2 }
phases:
  - name: small
    steps:
      - { id: first, party: apps, action: command.run, params: { command: first } }
  - name: big
    steps:
"
    .to_owned();
    for id in 0..1_000 {
        text += &format!(
            "      - {{ id: s-{id}, party: apps, action: command.run, \
             params: {{ command: '${{vars.big}}' }} }}\n"
        );
    }
    let with = |bytes: usize| {
        let mut overrides = Overrides::default();
        overrides.vars.insert("big".into(), "x".repeat(bytes));
        check("large.yaml", &text, &overrides)
    };
    let limit = lockstep_plan::check::MAX_EXPANDED;
    // Each byte of the variable occurs a thousand times in the expanded plan.
    let smallest = with(1).plan.unwrap().to_json().len();
    let most = (limit - smallest) / 1_000 + 1;
    let fitting = with(most).plan.unwrap();
    assert!(limit - fitting.to_json().len() < 1_000);
    let checked = with(most + 1);
    assert!(checked.plan.is_none());
    let problem = checked.problems.iter().next().unwrap();
    assert_eq!((problem.code.as_str(), problem.line), ("LS1008", 11));
    assert!(problem.message.contains("\"big\""), "{}", problem.message);
}

#[test]
fn any_part_of_a_plan_can_be_checked() {
    for name in ["cutover", "plan", "restart"] {
        let whole = example(name);
        let lines: Vec<&str> = whole.lines().collect();
        for index in 0..lines.len() {
            let mut without = lines.clone();
            without.remove(index);
            for text in [without.join("\n"), lines[..index].join("\n")] {
                let checked = check("part.yaml", &text, &Overrides::default());
                assert_eq!(checked.plan.is_none(), checked.problems.has_errors());
                for problem in checked.problems.iter() {
                    assert!(problem.line >= 1 && problem.line <= lines.len() + 1);
                }
            }
        }
    }
}
