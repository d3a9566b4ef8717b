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
    assert is_good(verdict(log=log, oracle=[order(1), order(2)], postgres=[order(1)], final="oracle"))
    found = verdict(log=log, oracle=[order(1)], postgres=[order(1), order(2)], final="oracle")
    assert found["lost"] == 1
