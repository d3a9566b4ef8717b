#!/usr/bin/env bash
# One rehearsal, and from its report the numbers that matter.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

report=target/rehearsal/bench.json
target/debug/rehearse --report "$report" || die "the rehearsal failed; see $report"
python3 - "$report" <<'P'
import json, sys
report = json.load(open(sys.argv[1]))
rows = [
    ("orders committed on Oracle", report["workload"]["oracle_committed"], ""),
    ("marker from Oracle to PostgreSQL", report["drain"]["marker_ms"], "ms"),
    ("write outage", report["write_outage_ms"], "ms"),
    ("of it beyond the actions' critical path", report["outage_overhead_ms"], "ms (target: at most 50)"),
]
for name, value, unit in rows:
    print(f"{name:42} {value:>10} {unit}")
P
