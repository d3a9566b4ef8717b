"""The independent checker: compares the clients' logs with both databases.

It shares no code with the product and takes no word of it: the SCN of the fence
is the first that a marker row in Oracle names. Oracle is read through the listener that stays up for DMS, PostgreSQL
over its socket. Prints the verdict as JSON; exit 0 when nothing is wrong, 1
when something is, 2 when it could not look.
"""

import argparse
import json
import sys

from proofs import drain_markers
from verdict import Held, Logged, is_good, judge

ORDERS = "SELECT ID, ORDER_NO, CUSTOMER, AMOUNT, NOTE FROM {}"
LINES = "SELECT ORDER_ID, LINE_NO, PRODUCT, QUANTITY, PRICE FROM {}"
# Beyond every SCN: Oracle was not opened again.
NEVER = 2**53
AFTER_FENCE = (
    "SELECT OPERATION, ROW_DATA FROM V$LOGMNR_CONTENTS "
    "WHERE COMMIT_SCN > :1 AND COMMIT_SCN <= :2 "
    "AND SEG_OWNER = 'SHOP' AND TABLE_NAME = 'ORDERS'"
)


def read_log(path):
    with open(path, encoding="ascii") as file:
        return [Logged(client=path, **json.loads(line)) for line in file]


def held(orders, lines):
    """What a database holds, lines by the number of their order."""
    numbers = {int(row[0]): int(row[1]) for row in orders}
    found = Held([(int(row[1]), content(row[2:])) for row in orders])
    for order_id, line_no, product, quantity, price in lines:
        number = numbers.get(int(order_id))
        if number is None:
            found.orphans += 1
        else:
            values = (product or None, whole(quantity), money(price))
            found.lines.setdefault(number, []).append((int(line_no), values))
    return found


def content(values):
    """Values as text, the way both databases mean them: '' is NULL, 1.50 is 1.5."""
    customer, amount, note = values
    return (customer or None, money(amount), note or None)


def money(value):
    return None if value is None else f"{float(value):.2f}"


def whole(value):
    return None if value is None else int(value)


def read_oracle(dsn, user, password, opened_scn):
    """The orders, the numbers of those committed while the fence stood, and the
    SCN of the fence; None where there is no marker."""
    import oracledb

    with oracledb.connect(dsn=dsn, user=user, password=password) as connection:
        cursor = connection.cursor()
        cursor.arraysize = 1000
        orders = cursor.execute(ORDERS.format("SHOP.ORDERS")).fetchall()
        lines = cursor.execute(LINES.format("SHOP.ORDER_LINES")).fetchall()
        fence_scn = min((one["scn"] for one in drain_markers(cursor)), default=None)
        late = []
        if fence_scn is not None:
            for operation, data in cursor.execute(
                AFTER_FENCE, [fence_scn, NEVER if opened_scn is None else opened_scn]
            ).fetchall():
                if operation == "INSERT":
                    late.append(int(json.loads(data)["after"]["ORDER_NO"]))
    return held(orders, lines), late, fence_scn


def read_postgres(conninfo):
    import psycopg

    with psycopg.connect(conninfo) as connection:
        # Orders and lines as of one moment.
        connection.isolation_level = psycopg.IsolationLevel.REPEATABLE_READ
        orders = connection.execute(ORDERS.format("shop.orders")).fetchall()
        return held(orders, connection.execute(LINES.format("shop.order_lines")).fetchall())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", action="append", required=True, help="a client's log; repeat")
    parser.add_argument("--oracle-dsn", required=True)
    parser.add_argument("--oracle-user", required=True)
    parser.add_argument("--oracle-password-file", required=True)
    parser.add_argument("--postgres", required=True, help="libpq connection string")
    parser.add_argument("--began-ms", type=int, help="when the run began; everything is before it without")
    parser.add_argument("--opened-scn", type=int, help="where the fence was taken down again")
    parser.add_argument("--final", choices=["oracle", "postgres"], default="postgres")
    args = parser.parse_args()
    with open(args.oracle_password_file, encoding="utf-8") as file:
        password = file.read().strip()
    log = [line for path in args.log for line in read_log(path)]
    oracle, late, fence_scn = read_oracle(
        args.oracle_dsn, args.oracle_user, password, args.opened_scn
    )
    postgres = read_postgres(args.postgres)
    verdict = judge(log, oracle, postgres, late, args.final, args.began_ms)
    verdict["fence_scn"] = fence_scn
    print(json.dumps(verdict, indent=2))
    return 0 if is_good(verdict) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:  # noqa: BLE001 - the last resort of a command
        print(f"the checker could not look: {error!r}", file=sys.stderr)
        sys.exit(2)
