"""What was promised to clients against what the databases hold.

Pure: no file, no database. `check.py` collects, this judges. An order number
carries no unique key anywhere, so that an order written twice can be seen.
"""

import collections
import dataclasses

# Each of these must be zero; the first ten numbers of each are named.
FAULTS = (
    "lost",
    "duplicated",
    "differing",
    "postgres_missing",
    "lines_lost",
    "lines_duplicated",
    "lines_differing",
    "oracle_commits_after_fence",
)


@dataclasses.dataclass(frozen=True)
class Logged:
    """A line of a client's log."""

    order_no: int
    target: str
    t_epoch_ms: int
    outcome: str
    lines: int = 0
    client: str = ""


@dataclasses.dataclass
class Held:
    """What a database holds: (order_no, content) of every row; by order number
    (line_no, content) of every line; how many lines belong to no order."""

    rows: list
    lines: dict = dataclasses.field(default_factory=dict)
    orphans: int = 0

    def counts(self):
        return collections.Counter(number for number, _ in self.rows)

    def contents(self):
        return dict(self.rows)

    def lines_of(self, number):
        return dict(self.lines.get(number, ()))

    def doubled_lines(self):
        return {number for number, rows in self.lines.items() if len(dict(rows)) < len(rows)}


def judge(log, oracle, postgres, after_fence=(), final="postgres", began_ms=None):
    """The verdict, as a dict ready for JSON.

    `after_fence` holds the order numbers inserted on Oracle in transactions
    that committed after the fence, with repetitions, whoever wrote them.
    `final` says where the applications write now: in that database nothing
    that was promised may be missing. PostgreSQL must in either case hold what
    Oracle holds: after a rollback the forward task goes on.
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
    both = committed_on_oracle & set(on_postgres)
    oracle_contents, postgres_contents = oracle.contents(), postgres.contents()
    found = {
        "lost": lost,
        "duplicated": {
            n for counts in (on_oracle, on_postgres) for n, times in counts.items() if times > 1
        },
        "differing": {n for n in both if oracle_contents[n] != postgres_contents[n]},
        "postgres_missing": (committed_on_oracle - both)
        | {n for n in both if oracle.lines_of(n).keys() - postgres.lines_of(n).keys()},
        **judge_lines(log, promised, both, oracle, postgres, final),
        "oracle_commits_after_fence": [n for n in after_fence if n not in sent_to_postgres],
    }
    held = postgres if final == "postgres" else oracle
    return {
        "oracle_committed": len(committed_on_oracle),
        "postgres_present": len(both),
        "postgres_committed": len(set(on_postgres) - committed_on_oracle),
        "in_doubt": len(doubtful),
        "in_doubt_committed": len(committed_in_doubt),
        "order_lines": sum(len(rows) for rows in held.lines.values()),
        **{fault: len(found[fault]) for fault in FAULTS},
        "lines_orphaned": oracle.orphans + postgres.orphans,
        "examples": {fault: sorted(found[fault])[:10] for fault in FAULTS},
        **outage(log, began_ms),
    }


def judge_lines(log, promised, both, oracle, postgres, final):
    """Orders with lines that are gone, there twice, or others: against what the
    client logged, and where an order is in both databases against each other."""
    held = postgres if final == "postgres" else oracle
    there = held.counts()
    wanted = {line.order_no: line.lines for line in log if line.order_no in promised}
    lost = {n for n, lines in wanted.items() if n in there and len(held.lines_of(n)) < lines}
    if final == "postgres":
        lost |= {n for n in both if oracle.lines_of(n).keys() - held.lines_of(n).keys()}
    differing = set()
    for number in both:
        ours, theirs = oracle.lines_of(number), postgres.lines_of(number)
        # A line that PostgreSQL alone holds differs too; one that it lacks is lost.
        if any(ours.get(line_no) != content for line_no, content in theirs.items()):
            differing.add(number)
    return {
        "lines_lost": lost,
        "lines_duplicated": oracle.doubled_lines() | postgres.doubled_lines(),
        "lines_differing": differing,
    }


def outage(log, began_ms):
    """From the last commit that Oracle acknowledged to the first that
    PostgreSQL did, by the clients' own clocks; None while there is no such."""
    on_oracle = [l for l in log if l.target == "oracle" and l.outcome == "acked"]
    on_postgres = [l.t_epoch_ms for l in log if l.target == "postgres" and l.outcome == "acked"]
    last = max((l.t_epoch_ms for l in on_oracle), default=None)
    first = min(on_postgres, default=None)
    gap = None if last is None or first is None else first - last
    before = [l for l in on_oracle if began_ms is None or l.t_epoch_ms <= began_ms]
    pause = longest_pause(log, began_ms)
    return {
        "last_on_oracle_epoch_ms": last,
        "first_on_postgres_epoch_ms": first,
        "write_outage_ms": gap,
        "oracle_orders_before_run": len(before),
        "oracle_orders_per_second": rate(before),
        "pause_from_epoch_ms": pause and pause[0],
        "pause_to_epoch_ms": pause and pause[1],
        "longest_pause_ms": pause and pause[1] - pause[0],
    }


def rate(lines):
    """Orders acknowledged in a second, from when every client had its first to
    the last of all; None for fewer than two."""
    firsts = {}
    for line in lines:
        firsts[line.client] = min(line.t_epoch_ms, firsts.get(line.client, line.t_epoch_ms))
    begin = max(firsts.values(), default=0)
    times = [line.t_epoch_ms for line in lines if line.t_epoch_ms >= begin]
    span = max(times, default=begin) - begin
    return round((len(times) - 1) * 1000 / span, 1) if span else None


def longest_pause(log, began_ms):
    """The longest time in which no client had a commit acknowledged and that
    was not over when the run began, as (from, to); None without one."""
    times = sorted(line.t_epoch_ms for line in log if line.outcome == "acked")
    pauses = [(a, b) for a, b in zip(times, times[1:]) if began_ms is None or b > began_ms]
    return max(pauses, key=lambda pause: pause[1] - pause[0], default=None)


def is_good(verdict):
    """Whether nothing was lost, doubled, changed or written too late, and
    PostgreSQL holds all that Oracle holds."""
    return not any(verdict[fault] for fault in (*FAULTS, "lines_orphaned"))
