"""The client's own log of commits: what it was told, and when.

One JSON object a line: {"order_no", "target", "t_epoch_ms", "outcome", "lines"},
where outcome is `acked` (the database acknowledged the commit) or `in_doubt`
(the commit was sent and no answer came), and lines how many the order has. An order that is not in the log was never
promised to anyone. Lines reach the disk in batches, so that the log is not
slower than the database.
"""

import json
import os
import queue
import threading
import time


class OrderLog:
    """Appends to one file from many threads."""

    def __init__(self, path):
        self._file = open(path, "a", encoding="ascii")
        self._lines = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write, name="order log")
        self._thread.start()

    def record(self, order_no, target, outcome, lines=0):
        line = {
            "order_no": order_no,
            "target": target,
            "t_epoch_ms": time.time_ns() // 1_000_000,
            "outcome": outcome,
            "lines": lines,
        }
        self._lines.put(json.dumps(line) + "\n")

    def close(self):
        """Waits until everything recorded is on the disk."""
        self._lines.put(None)
        self._thread.join()
        self._file.close()

    def _write(self):
        while True:
            batch = [self._lines.get()]
            while not self._lines.empty():
                batch.append(self._lines.get())
            self._file.writelines(line for line in batch if line is not None)
            self._file.flush()
            os.fsync(self._file.fileno())
            if None in batch:
                return


def highest(path):
    """The highest order number in the log, or None."""
    try:
        with open(path, encoding="ascii") as file:
            return max((json.loads(line)["order_no"] for line in file), default=None)
    except FileNotFoundError:
        return None
