"""What was promised to clients against what the databases hold.

Pure: no file, no database. `check.py` collects, this judges. An order number
carries no unique key anywhere, so that an order written twice can be seen.
"""

import collections
import dataclasses


@dataclasses.dataclass(frozen=True)
class Logged:
    """A line of a client's log."""

    order_no: int
    target: str
    t_epoch_ms: int
    outcome: str


@dataclasses.dataclass
class Held:
    """What a database holds: (order_no, content) of every row."""

    rows: list

    def counts(self):
        return collections.Counter(number for number, _ in self.rows)

    def contents(self):
        return dict(self.rows)


def judge(log, oracle, postgres, after_fence=(), final="postgres"):
    """The verdict, as a dict ready for JSON.

    `after_fence` holds the order numbers inserted on Oracle in transactions
    that committed after the fence, with repetitions, whoever wrote them.
    `final` says where the applications write now: in that database nothing
    that was promised may be missing.
    """
    acked = {line.order_no for line in log if line.outcome == "acked"}
    doubtful = {line.order_no for line in log if line.outcome == "in_doubt"} - acked
    sent_to_postgres = {line.order_no for line in log if line.target == "postgres"}
    on_oracle, on_postgres = oracle.counts(), postgres.counts()

    # In doubt for the client; the database that was asked knows.
    asked = {line.order_no: line.target for line in log if line.order_no in doubtful}
    committed_in_doubt = {
        number
        for number in doubtful
        if number in (on_oracle if asked[number] == "oracle" else on_postgres)
    }
    # What the reverse task brought to Oracle was not committed there by a client.
    committed_on_oracle = set(on_oracle) - sent_to_postgres
    promised = acked | committed_in_doubt
    if final == "postgres":
        lost = (promised | committed_on_oracle) - set(on_postgres)
    else:
        lost = promised - set(on_oracle)
    duplicated = {n for counts in (on_oracle, on_postgres) for n, times in counts.items() if times > 1}

    oracle_contents, postgres_contents = oracle.contents(), postgres.contents()
    differing = {
        number
        for number in committed_on_oracle & set(postgres_contents)
        if oracle_contents[number] != postgres_contents[number]
    }
    late = [number for number in after_fence if number not in sent_to_postgres]
    return {
        "oracle_committed": len(committed_on_oracle),
        "postgres_present": len(committed_on_oracle & set(on_postgres)),
        "postgres_committed": len(set(on_postgres) - committed_on_oracle),
        "lost": len(lost),
        "duplicated": len(duplicated),
        "in_doubt": len(doubtful),
        "in_doubt_committed": len(committed_in_doubt),
        "differing": len(differing),
        "oracle_commits_after_fence": len(late),
        "examples": {
            "lost": sorted(lost)[:10],
            "duplicated": sorted(duplicated)[:10],
            "differing": sorted(differing)[:10],
            "oracle_commits_after_fence": sorted(late)[:10],
        },
        **outage(log),
    }


def outage(log):
    """From the last commit that Oracle acknowledged to the first that
    PostgreSQL did, by the clients' own clocks; None while there is no such."""
    on_oracle = [l.t_epoch_ms for l in log if l.target == "oracle" and l.outcome == "acked"]
    on_postgres = [l.t_epoch_ms for l in log if l.target == "postgres" and l.outcome == "acked"]
    last, first = max(on_oracle, default=None), min(on_postgres, default=None)
    gap = None if last is None or first is None else first - last
    return {
        "last_on_oracle_epoch_ms": last,
        "first_on_postgres_epoch_ms": first,
        "write_outage_ms": gap,
        "oracle_orders_per_second": rate(on_oracle),
        "longest_pause_ms": longest_pause(log),
    }


def rate(times):
    """Orders acknowledged in a second, from the first to the last; None for
    fewer than two."""
    span = max(times, default=0) - min(times, default=0)
    return round((len(times) - 1) * 1000 / span, 1) if span else None


def longest_pause(log):
    """The longest time in which no client had a commit acknowledged."""
    times = sorted(line.t_epoch_ms for line in log if line.outcome == "acked")
    return max((b - a for a, b in zip(times, times[1:])), default=None)


def is_good(verdict):
    """Whether nothing was lost, doubled, changed or written too late."""
    return not any(
        verdict[key] for key in ("lost", "duplicated", "differing", "oracle_commits_after_fence")
    )
