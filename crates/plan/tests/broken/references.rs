//! References to variables and to outputs of other steps.

use crate::case::{Case, case, codes_of};

/// The URL in the first phase, together with the text up to the next phase.
const HEALTH_URL: &str = "\"http://127.0.0.1:8080/health\"}\n\n  - name: stop";

pub const CASES: &[Case] = &[
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
        HEALTH_URL,
        "\"${vars\"}\n\n  - name: stop",
        &[("LS1011", "\"${vars\"")],
    ),
    case(
        "plan",
        HEALTH_URL,
        "\"${missing.url}\"}\n\n  - name: stop",
        &[("LS1012", "\"${missing.url}\"")],
    ),
    case(
        "plan",
        HEALTH_URL,
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
];

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
fn a_watch_ends_in_a_later_phase() {
    let plan = FLOW
        .replace("oracle.rows.digest", "oracle.fence.watch, watch_until: two")
        .replace(", scn: \"${finalize.scn}\", tables: []", "");
    assert_eq!(codes_of(&plan), [""; 0]);
    for until in ["one", "three"] {
        let broken = plan.replace("watch_until: two", &format!("watch_until: {until}"));
        let expected = if until == "one" { "LS1026" } else { "LS1025" };
        assert_eq!(codes_of(&broken), [expected]);
    }
    assert_eq!(
        codes_of(&plan.replace(", watch_until: two", "")),
        ["LS1026"]
    );
}
