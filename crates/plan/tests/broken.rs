//! Broken plans: each case breaks an example in one way and names the
//! problems that must be reported, with the word under the caret.

#![expect(clippy::unwrap_used, reason = "tests stop at the first surprise")]

use lockstep_plan::{CODES, Overrides, check};
use std::collections::BTreeSet;
use std::fs;

/// The example, what is replaced in it, by what, and the problems: code, and
/// the text at which it points.
struct Case {
    example: &'static str,
    replace: &'static str,
    by: &'static str,
    reported: &'static [(&'static str, &'static str)],
}

fn case(
    example: &'static str,
    replace: &'static str,
    by: &'static str,
    reported: &'static [(&'static str, &'static str)],
) -> Case {
    Case {
        example,
        replace,
        by,
        reported,
    }
}

fn text(name: &str) -> String {
    let path = format!(
        "{}/../../deploy/plans/{name}.yaml",
        env!("CARGO_MANIFEST_DIR")
    );
    fs::read_to_string(path).unwrap()
}

/// Runs a case and gives the codes that were reported.
fn run(case: &Case) -> Result<Vec<&'static str>, String> {
    let good = text(case.example);
    assert!(
        good.contains(case.replace),
        "{:?} is in the example",
        case.replace
    );
    let broken = good.replacen(case.replace, case.by, 1);
    let mut overrides = Overrides::default();
    if case.example == "plan" {
        overrides.vars.insert("release".into(), "2026-11".into());
    }
    let checked = check("broken.yaml", &broken, &overrides);
    let reported: Vec<(&str, String)> = checked
        .problems
        .iter()
        .map(|problem| {
            let line = broken.lines().nth(problem.line - 1).unwrap_or_default();
            (
                problem.code.as_str(),
                line.chars().skip(problem.column - 1).collect(),
            )
        })
        .collect();
    let as_wanted = reported.len() == case.reported.len()
        && reported
            .iter()
            .zip(case.reported)
            .all(|((code, at), (wanted, word))| code == wanted && at.starts_with(word));
    if !as_wanted {
        return Err(format!(
            "{:?} by {:?}: wanted {:?}, reported\n{}\n",
            case.replace, case.by, case.reported, checked.problems
        ));
    }
    for problem in checked.problems.iter() {
        assert!(!problem.remedy.is_empty(), "{problem}");
    }
    assert_eq!(checked.plan.is_some(), !checked.problems.has_errors());
    Ok(reported.into_iter().map(|(code, _)| code).collect())
}

/// Runs all cases; fails with all that went wrong.
fn run_all() -> BTreeSet<&'static str> {
    let cases = [structure(), references(), sense()];
    let (reported, wrong): (Vec<_>, Vec<_>) =
        cases.iter().flatten().map(run).partition(Result::is_ok);
    let wrong: Vec<String> = wrong.into_iter().filter_map(Result::err).collect();
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
    reported
        .into_iter()
        .filter_map(Result::ok)
        .flatten()
        .collect()
}

#[expect(clippy::too_many_lines, reason = "one flat list of cases")]
fn structure() -> Vec<Case> {
    vec![
        case("plan", "parties:\n", "parties: [\n", &[("LS1001", "")]),
        case("plan", "kind: Plan", "kind: Plans", &[("LS1006", "Plans")]),
        case("plan", "kind: Plan\n", "", &[("LS1006", "name")]),
        case(
            "plan",
            "gate: approval",
            "gates: approval",
            &[("LS1002", "gates")],
        ),
        case(
            "plan",
            "gate: approval",
            "gate: approved",
            &[("LS1004", "approved")],
        ),
        case("plan", "        party: apps\n", "", &[("LS1003", "id")]),
        case(
            "plan",
            "finish_by: 3m",
            "finish_by: 180",
            &[("LS1004", "180")],
        ),
        case(
            "plan",
            "finish_by: 3m",
            "finish_by: 3min",
            &[("LS1004", "3min")],
        ),
        case(
            "plan",
            "start_by: 30s",
            "start_by: 30s\n    start_by: 40s",
            &[("LS1005", "start_by")],
        ),
        case(
            "plan",
            "timeout_secs: 60",
            "timeout_secs: soon",
            &[("LS1004", "soon")],
        ),
        case(
            "plan",
            "timeout_secs: 60",
            "timeout_sec: 60",
            &[("LS1002", "timeout_sec")],
        ),
        // Restarting doesn't change whether a unit is enabled.
        case(
            "plan",
            "action: service.stop\n        params:\n          units: [\"${vars.unit}\"]\n",
            "action: service.restart\n        params:\n          units: [\"${vars.unit}\"]\n          \
             enablement: true\n",
            &[("LS1002", "enablement")],
        ),
        case(
            "plan",
            "units: [\"${vars.unit}\"]\n          timeout",
            "timeout",
            &[("LS1003", "params")],
        ),
        case(
            "cutover",
            "    expected: 2\n",
            "    expected: two\n",
            &[("LS1004", "two")],
        ),
        case("cutover", "  resource: orcl\n", "", &[("LS1003", "oracle")]),
        case(
            "cutover",
            "    canary:\n      labels: {host: app-1}",
            "    canary:\n      labels: {role: postgres}",
            &[("LS1004", "postgres")],
        ),
        case(
            "cutover",
            "canary_table: LOCKSTEP.LOCKSTEP_CANARY",
            "canary_table: LOCKSTEP.LOCKSTEP_MARKER",
            &[("LS1004", "LOCKSTEP.LOCKSTEP_MARKER")],
        ),
        case(
            "cutover",
            "accounts: [SHOP, BATCH]",
            "accounts: SHOP",
            &[("LS1004", "SHOP")],
        ),
        case(
            "cutover",
            "schemas: [SHOP]",
            "schemas: []",
            &[("LS1004", "schemas")],
        ),
        case("cutover", "expected: 3", "expected: 0", &[("LS1004", "0")]),
        case(
            "restart",
            "expected: 3",
            "expected: 3\nstrategy: rolling",
            &[("LS1007", "rolling")],
        ),
    ]
}

fn references() -> Vec<Case> {
    let url = "\"http://127.0.0.1:8080/health\"}\n\n  - name: stop";
    vec![
        case(
            "plan",
            "${vars.hosts}",
            "${vars.host}",
            &[("LS1010", "${vars.host}")],
        ),
        case(
            "plan",
            "  unit: shop",
            "  units: shop",
            &[
                ("LS1010", "\"${vars.unit}\""),
                ("LS1010", "\"${vars.unit}\""),
            ],
        ),
        case(
            "plan",
            url,
            "\"${vars\"}\n\n  - name: stop",
            &[("LS1011", "\"${vars\"")],
        ),
        case(
            "plan",
            url,
            "\"${nobody.url}\"}\n\n  - name: stop",
            &[("LS1012", "\"${nobody.url}\"")],
        ),
        case(
            "plan",
            url,
            "\"${stop-orders.url}\"}\n\n  - name: stop",
            &[("LS1012", "\"${stop-orders.url}\"")],
        ),
        case(
            "cutover",
            "name: shop\n",
            "name: ${finalize.scn}\n",
            &[("LS1011", "${finalize.scn}")],
        ),
        case(
            "cutover",
            "rule-name: shop",
            "rule-name: \"${finalize.scn}\"",
            &[("LS1011", "\"${finalize.scn}\"")],
        ),
    ]
}

#[expect(clippy::too_many_lines, reason = "one flat list of cases")]
fn sense() -> Vec<Case> {
    vec![
        case(
            "plan",
            "- id: configure",
            "- id: stop-orders",
            &[("LS1020", "stop-orders")],
        ),
        case(
            "plan",
            "- name: start",
            "- name: stop",
            &[("LS1020", "stop")],
        ),
        case(
            "plan",
            "- id: configure",
            "- id: Configure",
            &[("LS1021", "Configure")],
        ),
        case("plan", "party: apps", "party: app", &[("LS1022", "app")]),
        case(
            "plan",
            "labels: {role: app}",
            "labels: {}",
            &[("LS1023", "labels")],
        ),
        case(
            "plan",
            "  apps:\n",
            "  more: {labels: {a: b}, expected: 1}\n  apps:\n",
            &[("LS1024", "more")],
        ),
        case(
            "plan",
            "phases:\n",
            "outage: {budget: 5m, rollback_reserve: 5m, starts_with: stops, ends_with: start}\nphases:\n",
            &[("LS1042", "5m"), ("LS1025", "stops")],
        ),
        case(
            "plan",
            "        timeout: 90s",
            "        watch_until: start",
            &[("LS1026", "start")],
        ),
        case(
            "plan",
            "service.stop",
            "service.halt",
            &[("LS1030", "service.halt")],
        ),
        case(
            "plan",
            "service.stop",
            "oracle.listeners.stop",
            &[("LS1030", "oracle.listeners.stop")],
        ),
        case(
            "plan",
            "finish_by: 3m",
            "finish_by: 1m",
            &[("LS1032", "1m")],
        ),
        case("plan", "timeout: 90s", "timeout: 30s", &[("LS1032", "30s")]),
        case(
            "plan",
            "finish_by: 3m",
            "point_of_no_return: true",
            &[("LS1033", "rollback"), ("LS1033", "rollback")],
        ),
        case(
            "plan",
            "        action: check.http",
            "        undo: true\n        action: check.http",
            &[("LS1034", "true")],
        ),
        case(
            "cutover",
            "  dms_listener: LISTENER_DMS\n",
            "",
            &[("LS1040", "reverse")],
        ),
        case(
            "cutover",
            "  canary_table: LOCKSTEP.LOCKSTEP_CANARY\n",
            "",
            &[("LS1041", "reverse")],
        ),
        case(
            "cutover",
            "table-name: lockstep_canary",
            "table-name: lockstep_canary_1",
            &[("LS1043", "table_mappings")],
        ),
        case(
            "cutover",
            "table-name: lockstep_canary",
            "table-name: \"lockstep[_]%\"",
            &[("LS1043", "table_mappings")],
        ),
        case(
            "cutover",
            "  closed_addresses: [\"ora-1.example.net:1521\", \"ora-2.example.net:1521\"]\n",
            "  closed_addresses: []\n",
            &[("LS1044", "closed_addresses")],
        ),
        case(
            "cutover",
            "dms_machines: [10.20.0.17, 10.20.1.17]",
            "dms_machines: []",
            &[("LS1045", "dms_machines")],
        ),
        case(
            "cutover",
            "rollback_reserve: 8m",
            "rollback_reserve: 40m",
            &[("LS1042", "40m")],
        ),
        case(
            "cutover",
            "open-postgres: approval",
            "open_postgres: approval",
            &[("LS1025", "open_postgres")],
        ),
        case(
            "cutover",
            "- name: shop-report",
            "- name: oracle",
            &[("LS1020", "oracle")],
        ),
        case(
            "cutover",
            "services: [shop-orders.service]",
            "services: [shop-orders]",
            &[("LS1004", "shop-orders")],
        ),
        case(
            "cutover",
            "    timers: [shop-report.timer]\n",
            "",
            &[("LS1031", "shop-report")],
        ),
        case(
            "cutover",
            "accounts: [SHOP, BATCH]",
            "accounts: [SHOP, DMS_USER]",
            &[("LS1004", "DMS_USER")],
        ),
        case(
            "cutover",
            "    - column: shop.order_lines.id",
            "    - {column: shop.orders.id, oracle: SHOP.ORDERS_SEQ}",
            &[("LS1020", "shop.orders.id")],
        ),
        case(
            "cutover",
            "oracle: SHOP.ORDERS_SEQ",
            "oracle: SHOPP.ORDERS_SEQ",
            &[("LS1004", "SHOPP.ORDERS_SEQ")],
        ),
        case(
            "cutover",
            "{oracle: SHOP.ORDER_LINES, postgres: shop.order_lines}",
            "{oracle: SHOP.ORDERS, postgres: shop.orders}",
            &[("LS1020", "SHOP.ORDERS,"), ("LS1020", "shop.orders}")],
        ),
        case(
            "cutover",
            "except: []",
            "except: [shop.old, shop.orders]",
            &[("LS1020", "shop.orders]")],
        ),
        case(
            "cutover",
            "identifier: shop-reverse",
            "identifier: shop--reverse",
            &[("LS1021", "shop--reverse")],
        ),
        case(
            "cutover",
            "identifier: shop-reverse",
            "identifier: shop-reverse-",
            &[("LS1021", "shop-reverse-")],
        ),
        case(
            "cutover",
            "identifier: shop-reverse",
            "identifier: 2shop",
            &[("LS1021", "2shop")],
        ),
        case(
            "cutover",
            "identifier: shop-reverse",
            "identifier: shop_reverse",
            &[("LS1021", "shop_reverse")],
        ),
        case(
            "cutover",
            "marker_table: LOCKSTEP.LOCKSTEP_MARKER",
            "marker_table: MARKER",
            &[("LS1004", "MARKER")],
        ),
        case(
            "cutover",
            "on_failure: rollback",
            "deadlines: {close-oracle: 30s}",
            &[("LS1032", "30s"), ("LS1032", "30s")],
        ),
    ]
}

const FLOW: &str = "\
kind: Plan
name: flow
parties:
  lead: {labels: {role: oracle}, expected: 1}
phases:
  - name: one
    steps:
      - {id: rows, party: lead, action: oracle.rows.digest,
         params: {resource: orcl, scn: \"${finalize.scn}\", tables: []}}
  - name: two
    steps:
      - {id: finalize, party: lead, action: oracle.finalize,
         params: {resource: orcl, marker_table: A.B, tasks: [x], fence: {resource: orcl}}}
";

fn codes_of(text: &str) -> Vec<&'static str> {
    let checked = check("flow.yaml", text, &Overrides::default());
    checked
        .problems
        .iter()
        .map(|problem| problem.code.as_str())
        .collect()
}

#[test]
fn an_output_must_come_from_an_earlier_phase_and_from_one_agent() {
    assert_eq!(codes_of(FLOW), ["LS1013"]);
    let circle = FLOW.replace("orcl, marker_table", "\"${rows.tables}\", marker_table");
    assert_eq!(codes_of(&circle), ["LS1014"]);
    let (head, phases) = FLOW.split_once("phases:\n").unwrap();
    let second = phases.find("  - name: two").unwrap();
    let good = format!("{head}phases:\n{}{}", &phases[second..], &phases[..second]);
    assert_eq!(codes_of(&good), [""; 0]);
    assert_eq!(
        codes_of(&good.replace("expected: 1", "expected: 2")),
        ["LS1015"]
    );
    let renamed = good.replace("${finalize.scn}", "${finalize.scm}");
    assert_eq!(codes_of(&renamed), ["LS1012"]);
}

#[test]
fn a_written_out_reverse_task_needs_a_listener_for_dms_too() {
    let plan = "\
kind: Plan
name: reverse
parties:
  lead: {labels: {role: oracle}, expected: 1}
phases:
  - name: close
    steps:
      - {id: listeners, party: lead, action: oracle.listener.stop, params: {resource: orcl}}
  - name: start
    steps:
      - {id: start, party: lead, action: dms.reverse.start,
         params: {resource: dms, task: arn, postgres: shop}}
";
    assert_eq!(codes_of(plan), ["LS1040"]);
    let kept = plan.replace("resource: orcl}", "resource: orcl, keep: [LISTENER_DMS]}");
    assert_eq!(codes_of(&kept), [""; 0]);
}

#[test]
fn a_watch_ends_in_a_later_phase() {
    let plan = FLOW
        .replace("oracle.rows.digest", "oracle.fence.watch, watch_until: two")
        .replace(", scn: \"${finalize.scn}\", tables: []", "");
    assert_eq!(codes_of(&plan), [""; 0]);
    for until in ["one", "three"] {
        let broken = plan.replace("watch_until: two", &format!("watch_until: {until}"));
        let wanted = if until == "one" { "LS1026" } else { "LS1025" };
        assert_eq!(codes_of(&broken), [wanted]);
    }
    assert_eq!(
        codes_of(&plan.replace(", watch_until: two", "")),
        ["LS1026"]
    );
}

#[test]
fn all_problems_are_reported_at_once() {
    let broken = text("cutover")
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

#[test]
fn every_break_is_reported_at_its_place_and_every_code_has_a_case() {
    let mut reported = run_all();
    // Covered by the tests above, each on its own plan.
    reported.extend(["LS1013", "LS1014", "LS1015"]);
    reported.extend(codes_of(&" ".repeat(lockstep_plan::MAX_BYTES + 1)));
    for code in CODES {
        assert!(reported.contains(&code.as_str()), "{code} {}", code.title());
    }
}

#[test]
fn a_plan_that_expands_to_too_much_is_refused_at_its_largest_phase() {
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
    // A byte more in the variable is a thousand in the plan.
    let one = with(1).plan.unwrap().to_json().len();
    let most = (limit - one) / 1_000 + 1;
    let fitting = with(most).plan.unwrap();
    assert!(limit - fitting.to_json().len() < 1_000);
    let checked = with(most + 1);
    assert!(checked.plan.is_none());
    let problem = checked.problems.iter().next().unwrap();
    assert_eq!((problem.code.as_str(), problem.line), ("LS1008", 11));
    assert!(problem.message.contains("\"big\""), "{}", problem.message);
}

#[test]
fn whatever_is_left_of_a_plan_gets_an_answer() {
    for name in ["cutover", "plan", "restart"] {
        let whole = text(name);
        let lines: Vec<&str> = whole.lines().collect();
        for index in 0..lines.len() {
            let mut without = lines.clone();
            without.remove(index);
            for text in [without.join("\n"), lines[..index].join("\n")] {
                let checked = check("left.yaml", &text, &Overrides::default());
                assert_eq!(checked.plan.is_none(), checked.problems.has_errors());
                for problem in checked.problems.iter() {
                    assert!(problem.line >= 1 && problem.line <= lines.len() + 1);
                }
            }
        }
    }
}
