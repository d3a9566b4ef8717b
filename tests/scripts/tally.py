"""Adds up JUnit reports and the checks into one closing line.

Usage: tally.py passed|failed REPORT.xml...
The checks count as one test. Exit 1 if anything failed or a report is bad.
"""

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


def main(checks, reports):
    totals = [1, 0, 0] if checks == "passed" else [0, 1, 0]
    for report in reports:
        totals = [a + b for a, b in zip(totals, count(report))]
    passed, failed, skipped = totals
    print(f"{passed} passed, {failed} failed, {skipped} skipped")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2:]))
