//! Rules of `kind: Plan` on phases, steps, parties and deadlines.

use crate::case::{Case, case, codes_of};

pub const CASES: &[Case] = &[
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
        "action: check.http\n        params: {url: \"http://127.0.0.1:8080/health\"}\n\n  - name: stop",
        "action: check.state\n        params: {action: check.http, params: {url: \"http://h/\"}}\n\n  - name: stop",
        &[("LS1004", "check.http")],
    ),
    case(
        "plan",
        "action: check.http\n        params: {url: \"http://127.0.0.1:8080/health\"}\n\n  - name: stop",
        "action: check.state\n        params: {action: service.stop, params: {unit: a}}\n\n  - name: stop",
        &[("LS1004", "params")],
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
];

/// A written-out reverse task needs a listener for DMS, as in a cutover.
#[test]
fn a_reverse_task_needs_a_listener_for_dms() {
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
    let exempted = plan.replace("resource: orcl}", "resource: orcl, keep: [LISTENER_DMS]}");
    assert_eq!(codes_of(&exempted), [""; 0]);
}
