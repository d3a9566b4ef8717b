"""The parts of the sample application that need no database."""

import json

import cron_runner
import order_log


def test_cron_understands_every_minute_and_reports_the_rest():
    text = "# a comment\n\n* * * * * root echo 'a  b'\n0 4 * * * root backup\n"
    assert cron_runner.commands(text) == (["echo 'a  b'"], ["0 4 * * * root backup"])


def test_cron_ignores_a_crontab_that_was_set_aside(tmp_path):
    ran = tmp_path / "ran.txt"
    (tmp_path / "shop.disabled").write_text(f"* * * * * root touch {ran}\n")
    cron_runner.run_once(tmp_path)
    assert not ran.exists()
    (tmp_path / "shop").write_text(f"* * * * * root touch {ran}\n")
    cron_runner.run_once(tmp_path)
    assert ran.exists()


def test_the_log_holds_what_was_recorded_and_its_highest_number(tmp_path):
    path = tmp_path / "orders.jsonl"
    assert order_log.highest(path) is None
    log = order_log.OrderLog(path)
    log.record(7, "oracle", "acked")
    log.record(9, "oracle", "in_doubt", lines=2)
    log.record(8, "postgres", "acked")
    log.close()
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    assert [line["order_no"] for line in lines] == [7, 9, 8]
    assert lines[1]["outcome"] == "in_doubt"
    assert [line["lines"] for line in lines] == [0, 2, 0]
    assert order_log.highest(path) == 9
