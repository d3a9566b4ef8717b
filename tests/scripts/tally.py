"""Adds up JUnit reports and the checks into one closing line.

Usage: tally.py passed|failed REPORT.xml... [LIST.json...]
The checks count as one test. A list is nextest's of the tests that it ignores
and leaves out of its report: they count as skipped. Exit 1 if anything failed
or a file is bad.
"""

import json
import sys
import xml.etree.ElementTree as ElementTree


def count(path):
    """(passed, failed, skipped) of one JUnit report."""
    passed = failed = skipped = 0
    for case in ElementTree.parse(path).iter("testcase"):
        if case.find("failure") is not None or case.find("error") is not None:
            failed += 1
        elif case.find("skipped") is not None:
            skipped += 1
        else:
            passed += 1
    return passed, failed, skipped


def ignored(path):
    """How many of the tests in a list of nextest's are ignored."""
    with open(path) as file:
        suites = json.load(file)["rust-suites"].values()
    cases = [case for suite in suites for case in suite["testcases"].values()]
    return sum(case["ignored"] for case in cases)


def main(checks, files):
    totals = [1, 0, 0] if checks == "passed" else [0, 1, 0]
    for file in files:
        if str(file).endswith(".json"):
            left_out = ignored(file)
            print(f"{left_out} tests skipped here are the full size of `make verify`")
            totals[2] += left_out
        else:
            totals = [a + b for a, b in zip(totals, count(file))]
    passed, failed, skipped = totals
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
