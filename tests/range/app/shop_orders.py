"""Writes numbered orders all the time, one commit each.

The numbers of a host come from a range of its own and are never used twice,
also not after a restart. What the database acknowledged is logged; what it
left open is logged as in doubt. A connection that dies is replaced at once,
as a connection pool does it. The health page answers 200 while orders can be
written, 503 while not.
"""

import argparse
import decimal
import http.server
import itertools
import json
import signal
import threading
import time
import tomllib

import databases
import order_log

# Orders that may have been sent but not logged when the process was killed.
NUMBERS_SKIPPED_AT_RESTART = 1000
# A database that refuses is asked again after this: at once, to a person.
RECONNECT_SECONDS = 0.1
# The health page calls the service well if an order went through within this.
FRESH_SECONDS = 2.0
# Every so many orders there is one with lines, this many.
LINES_EVERY = 5
LINES = 2
PRICE = decimal.Decimal("9.90")
# How long the threads may take to finish their order in hand at the end.
STOP_SECONDS = 10


class Writer:
    def __init__(self, service, database, log_path):
        self._database = database
        self._log = order_log.OrderLog(log_path)
        last = order_log.highest(log_path)
        first = service["first_order_no"] if last is None else last + NUMBERS_SKIPPED_AT_RESTART
        self._numbers = itertools.count(first + 1)
        self._take_number = threading.Lock()
        self._host = service["host"]
        self._threads = service["threads"]
        self._interval = service["threads"] / service["rate"]
        self.stopping = threading.Event()
        self.acked = 0
        self.in_doubt = 0
        self.last_ack = 0.0
        database.open_pool(self._threads)

    def run(self):
        threads = [threading.Thread(target=self._write_orders) for _ in range(self._threads)]
        for thread in threads:
            thread.start()
        self.stopping.wait()
        for thread in threads:
            thread.join(STOP_SECONDS)
        self._log.close()

    def is_well(self):
        return time.monotonic() - self.last_ack < FRESH_SECONDS

    def _write_orders(self):
        connection = None
        due = time.monotonic()
        while not self.stopping.is_set():
            due = max(due + self._interval, time.monotonic() - 1.0)
            try:
                connection = connection or self._database.connect()
            except self._database.error as error:
                print(f"no connection: {error}", flush=True)
                self.stopping.wait(RECONNECT_SECONDS)
                continue
            if not self._write_order(connection):
                self._database.discard(connection)
                connection = None
            self.stopping.wait(max(0.0, due - time.monotonic()))
        if connection is not None:
            self._database.discard(connection)

    def _write_order(self, connection):
        """One order; whether the connection is still good."""
        with self._take_number:
            number = next(self._numbers)
        lines = LINES if number % LINES_EVERY == 0 else 0
        try:
            cursor = connection.cursor()
            amount = decimal.Decimal(number % 100_000) / 100
            note = None if number % 3 else f"order {number} of {self._host}"
            cursor.execute(self._database.order, [number, f"customer {number % 997}", amount, note])
            for line in range(1, lines + 1):
                cursor.execute(self._database.line, [line, f"product {line}", line, PRICE])
            cursor.close()
        except self._database.error as error:
            # Nothing was committed, so nothing was promised.
            print(f"order {number} refused: {error}", flush=True)
            return False
        try:
            connection.commit()
        except self._database.error as error:
            print(f"order {number} in doubt: {error}", flush=True)
            self._log.record(number, self._database.target, "in_doubt", lines)
            self.in_doubt += 1
            return False
        self._log.record(number, self._database.target, "acked", lines)
        self.acked += 1
        self.last_ack = time.monotonic()
        return True


def serve_health(address, writer, target):
    """The health page, on a thread of its own."""

    class Page(http.server.BaseHTTPRequestHandler):
        def do_GET(self):
            body = {"target": target, "acked": writer.acked, "in_doubt": writer.in_doubt}
            self.send_response(200 if writer.is_well() else 503)
            self.send_header("Content-Type", "application/json")
            self.end_headers()
            self.wfile.write(json.dumps(body).encode())

        def log_message(self, *_):
            pass  # one line a request would bury what matters

    host, port = address.rsplit(":", 1)
    server = http.server.ThreadingHTTPServer((host, int(port)), Page)
    threading.Thread(target=server.serve_forever, daemon=True).start()


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--service", required=True, help="what to write, and how fast")
    parser.add_argument("--database", required=True, help="where to write it")
    parser.add_argument("--log", required=True, help="log of acknowledged commits")
    args = parser.parse_args()
    with open(args.service, "rb") as file:
        service = tomllib.load(file)
    database = databases.read(args.database)
    writer = Writer(service, database, args.log)
    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, lambda *_: writer.stopping.set())
    if "health" in service:
        serve_health(service["health"], writer, database.target)
    print(f"{service['host']}: writing to {database.target}", flush=True)
    writer.run()
    print(f"stopped: {writer.acked} acknowledged, {writer.in_doubt} in doubt", flush=True)


if __name__ == "__main__":
    main()
