"""Logs in, counts the orders, writes the count to a log, logs out.

Started by a timer on one host and by cron on another: a client that holds no
session most of the time and is missed by whoever looks only once.
"""

import argparse
import json
import time

import databases


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--database", required=True, help="where to look")
    parser.add_argument("--log", required=True, help="where to note the count")
    args = parser.parse_args()
    database = databases.read(args.database)
    with database.connect() as connection:
        cursor = connection.cursor()
        cursor.execute("SELECT COUNT(*) FROM SHOP.ORDERS")
        (orders,) = cursor.fetchone()
    line = {
        "t_epoch_ms": time.time_ns() // 1_000_000,
        "target": database.target,
        "orders": int(orders),
    }
    with open(args.log, "a", encoding="ascii") as log:
        log.write(json.dumps(line) + "\n")


if __name__ == "__main__":
    main()
