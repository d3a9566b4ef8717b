#!/usr/bin/env bash
# One rehearsal, and from its report the numbers that matter.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

report=target/rehearsal/bench.json
target/debug/rehearse --report "$report" || die "the rehearsal failed; see $report"
python3 - "$report" <<'EOF'
import json, sys
with open(sys.argv[1]) as file:
    report = json.load(file)
workload = report["workload"]
rows = [
    ("orders committed on Oracle", workload["oracle_committed"], ""),
    ("  a second", round(workload["oracle_orders_per_second"]), ""),
    ("marker from Oracle to PostgreSQL", report["drain"]["marker_ms"], "ms"),
    ("write outage", report["write_outage_ms"], "ms"),
    ("of it beyond the actions' critical path", report["outage_overhead_ms"], "ms (target: at most 50)"),
    ("barriers of all phases together", sum(p["barrier_ms"] for p in report["phases"]), "ms"),
]
print()
print("measured with a debug build, everything on this machine:")
for name, value, unit in rows:
    print(f"{name:42} {value:>10} {unit}".rstrip())
EOF
