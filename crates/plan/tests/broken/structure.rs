//! YAML syntax, kinds, and the names and types of fields.

use crate::case::{Case, case};

pub const CASES: &[Case] = &[
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
];
