"""A checker that can't find a planted fault proves nothing."""

import pytest

from verdict import Held, Logged, is_good, judge


def order(number, amount="1.00"):
    return (number, ("customer", amount, None))


def acked(number, target="oracle", t=0):
    return Logged(number, target, t, "acked")


LOG = [acked(1, t=10), acked(2, t=20), acked(3, "postgres", t=520), acked(4, "postgres", t=530)]
ORACLE = [order(1), order(2), order(3)]
POSTGRES = [order(1), order(2), order(3), order(4)]


def verdict(log=LOG, oracle=ORACLE, postgres=POSTGRES, **more):
    return judge(log, Held(list(oracle)), Held(list(postgres)), **more)


def test_a_cutover_without_fault_is_good():
    found = verdict(after_fence=[3])
    assert is_good(found)
    assert (found["oracle_committed"], found["postgres_present"]) == (2, 2)
    assert found["postgres_committed"] == 2
    assert found["write_outage_ms"] == 500
    assert found["oracle_orders_per_second"] == 100.0


@pytest.mark.parametrize("missing", [1, 2, 3, 4])
def test_a_planted_loss_is_found(missing):
    found = verdict(postgres=[row for row in POSTGRES if row[0] != missing])
    assert found["lost"] == 1
    assert found["examples"]["lost"] == [missing]
    assert not is_good(found)


def test_an_order_that_no_client_logged_is_not_lost_silently():
    found = verdict(oracle=[*ORACLE, order(9)])
    assert found["lost"] == 1


@pytest.mark.parametrize("where", ["oracle", "postgres"])
def test_a_planted_duplicate_is_found(where):
    rows = {"oracle": ORACLE, "postgres": POSTGRES}
    found = verdict(**{where: [*rows[where], order(2)]})
    assert found["duplicated"] == 1
    assert found["examples"]["duplicated"] == [2]
    assert not is_good(found)


def test_a_changed_order_is_found():
    found = verdict(postgres=[order(1, "2.00"), *POSTGRES[1:]])
    assert found["differing"] == 1
    assert not is_good(found)


def test_a_commit_after_the_fence_is_found_and_the_reverse_task_is_not_one():
    assert verdict(after_fence=[3])["oracle_commits_after_fence"] == 0
    found = verdict(after_fence=[2, 3])
    assert found["oracle_commits_after_fence"] == 1
    assert not is_good(found)


def test_in_doubt_is_resolved_on_the_database_that_was_asked():
    log = [*LOG, Logged(5, "oracle", 30, "in_doubt"), Logged(6, "oracle", 30, "in_doubt")]
    found = verdict(log=log, oracle=[*ORACLE, order(5)])
    assert (found["in_doubt"], found["in_doubt_committed"]) == (2, 1)
    assert found["examples"]["lost"] == [5]
    found = verdict(log=log, oracle=[*ORACLE, order(5)], postgres=[*POSTGRES, order(5)])
    assert is_good(found)


def test_after_a_rollback_oracle_must_hold_every_promise():
    log = [acked(1), acked(2)]
    both = [order(1), order(2)]
    assert is_good(verdict(log=log, oracle=both, postgres=both, final="oracle"))
    found = verdict(log=log, oracle=[order(1)], postgres=both, final="oracle")
    assert found["lost"] == 1
    assert not is_good(found)


def test_a_planted_gap_after_a_rollback_is_found():
    log = [acked(1), acked(2), acked(3)]
    rows = [order(1), order(2), order(3)]
    # The resumed task passed one over: Oracle has it all, and still it is bad.
    found = verdict(log=log, oracle=rows, postgres=[order(1), order(3)], final="oracle")
    assert (found["lost"], found["postgres_missing"]) == (0, 1)
    assert found["examples"]["postgres_missing"] == [2]
    assert (found["oracle_committed"], found["postgres_present"]) == (3, 2)
    assert not is_good(found)


LINES = {2: [(1, ("product 1", 1, "9.90")), (2, ("product 2", 2, "9.90"))]}


def with_lines(oracle, postgres, final="postgres"):
    log = [acked(1), Logged(2, "oracle", 5, "acked", lines=2)]
    rows = [order(1), order(2)]
    return judge(log, Held(rows, oracle), Held(rows, postgres), final=final)


def test_orders_whose_lines_are_all_there_are_good():
    found = with_lines(LINES, LINES)
    assert is_good(found)
    assert found["order_lines"] == 2


@pytest.mark.parametrize("kept", [[], LINES[2][:1]])
def test_a_planted_loss_of_lines_is_found(kept):
    found = with_lines(LINES, {2: kept})
    assert found["examples"]["lines_lost"] == [2]
    assert not is_good(found)
    found = with_lines(LINES, {2: kept}, final="oracle")
    assert (found["lines_lost"], found["postgres_missing"]) == (0, 1)
    assert not is_good(found)


def test_lines_that_both_databases_lack_are_lost_by_the_clients_word():
    assert with_lines({}, {})["lines_lost"] == 1
    assert with_lines({}, {}, final="oracle")["lines_lost"] == 1


@pytest.mark.parametrize("where", [0, 1])
def test_a_line_that_is_there_twice_is_found(where):
    sides = [LINES, LINES]
    sides[where] = {2: [*LINES[2], LINES[2][0]]}
    found = with_lines(*sides)
    assert found["examples"]["lines_duplicated"] == [2]
    assert not is_good(found)


@pytest.mark.parametrize("line", [(2, ("product 2", 3, "9.90")), (3, ("product 3", 1, "9.90"))])
def test_another_line_is_found(line):
    found = with_lines(LINES, {2: [LINES[2][0], LINES[2][1], line]})
    assert found["examples"]["lines_differing"] == [2]
    assert not is_good(found)


def test_lines_of_no_order_are_found():
    rows = [order(1)]
    found = judge([acked(1)], Held(rows), Held(rows, orphans=1))
    assert found["lines_orphaned"] == 1
    assert not is_good(found)


def test_the_rate_is_that_of_all_clients_before_the_run():
    slow = Logged(100, "oracle", 1_000, "acked", client="late")
    fast = [Logged(n, "oracle", n * 10, "acked", client="early") for n in range(0, 301)]
    after = [Logged(n, "oracle", 10_000 + n, "acked", client="early") for n in range(500, 600)]
    found = judge([slow, *fast, *after], Held([]), Held([]), began_ms=3_000)
    assert found["oracle_orders_before_run"] == 302
    assert found["oracle_orders_per_second"] == 100.5


def test_the_pause_is_the_longest_that_the_run_has_seen():
    log = [acked(1, t=0), acked(2, t=900), acked(3, t=1_000), acked(4, t=1_300), acked(5, t=1_400)]
    found = judge(log, Held([]), Held([]), began_ms=950)
    assert found["longest_pause_ms"] == 300
    assert (found["pause_from_epoch_ms"], found["pause_to_epoch_ms"]) == (1_000, 1_300)
    assert judge([], Held([]), Held([]))["longest_pause_ms"] is None
