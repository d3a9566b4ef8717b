"""The closing line must not hide a failure."""

import json

import tally

REPORT = """<testsuites><testsuite name="s">
<testcase name="a"/>
<testcase name="b"><failure/></testcase>
<testcase name="c"><skipped/></testcase>
</testsuite></testsuites>"""


def test_counts_and_fails_when_a_test_failed(tmp_path, capsys):
    report = tmp_path / "r.xml"
    report.write_text(REPORT)
    assert tally.main("passed", [report]) == 1
    assert capsys.readouterr().out == "2 passed, 1 failed, 1 skipped\n"


def test_fails_when_only_the_checks_failed(capsys):
    assert tally.main("failed", []) == 1
    assert capsys.readouterr().out == "0 passed, 1 failed, 0 skipped\n"


def test_succeeds_when_everything_passed(capsys):
    assert tally.main("passed", []) == 0
    assert capsys.readouterr().out == "1 passed, 0 failed, 0 skipped\n"


def test_counts_what_was_left_out_as_skipped_and_says_why(tmp_path, capsys):
    cases = {"a": {"ignored": True}, "b": {"ignored": False}}
    left_out = tmp_path / "ignored.json"
    left_out.write_text(json.dumps({"rust-suites": {"s": {"testcases": cases}}}))
    assert tally.main("passed", [left_out]) == 0
    why, closing = capsys.readouterr().out.splitlines()
    assert "make verify" in why
    assert closing == "1 passed, 0 failed, 1 skipped"
