#!/usr/bin/env bash
# Builds once, runs every test, then the checks; prints one closing line that
# adds up all runners. Every part runs even if an earlier one failed.
. "$(dirname "${BASH_SOURCE[0]}")/common.sh"

results=$root/target/test-results
rm -rf "$results"
mkdir -p "$results"
status=0

# All targets at once: the daemons and doubles that end-to-end tests start are
# the same build as the tests, and nothing is compiled twice.
say "--- build"
cargo build --workspace --all-targets --quiet

say "--- Rust tests"
rm -f target/nextest/ci/junit.xml
cargo-nextest nextest run --workspace --profile ci --no-tests pass || status=1
cp target/nextest/ci/junit.xml "$results/rust.xml" 2>/dev/null || true
# What nextest leaves out of its report.
cargo-nextest nextest list --workspace --run-ignored only --message-format json \
    >"$results/ignored.json" 2>"$results/ignored.log" || { cat "$results/ignored.log"; status=1; }

say "--- Python tests"
pytest -q --junitxml "$results/python.xml" --ignore tests/python tests || status=1
# A process each: python-oracledb is thin or thick for the life of a process.
for file in tests/python/test_*.py; do
    pytest -q --junitxml "$results/$(basename "$file" .py).xml" "$file" || status=1
done

say "--- checks"
if "$root/tests/scripts/check.sh"; then check=passed; else check=failed; status=1; fi

python3 tests/scripts/tally.py "$check" "$results"/*.xml "$results"/ignored.json || status=1
exit $status
