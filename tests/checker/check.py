"""The independent checker: compares the clients' logs with both databases.

It shares no code with the product and takes no word of it but the SCN of the
fence. Oracle is read through the listener that stays up for DMS, PostgreSQL
over its socket. Prints the verdict as JSON; exit 0 when nothing is wrong, 1
when something is, 2 when it could not look.
"""

import argparse
import json
import sys

from verdict import Held, Logged, is_good, judge

ORDERS = "SELECT ORDER_NO, CUSTOMER, AMOUNT, NOTE FROM {}"
# Beyond every SCN: Oracle was not opened again.
NEVER = 2**53
AFTER_FENCE = (
    "SELECT OPERATION, ROW_DATA FROM V$LOGMNR_CONTENTS "
    "WHERE COMMIT_SCN > :1 AND COMMIT_SCN <= :2 "
    "AND SEG_OWNER = 'SHOP' AND TABLE_NAME = 'ORDERS'"
)


def read_log(path):
    with open(path, encoding="ascii") as file:
        return [Logged(**json.loads(line)) for line in file]


def held(rows):
    return Held([(int(row[0]), content(row[1:])) for row in rows])


def content(values):
    """Values as text, the way both databases mean them: '' is NULL, 1.50 is 1.5."""
    customer, amount, note = values
    return (customer or None, None if amount is None else f"{float(amount):.2f}", note or None)


def read_oracle(dsn, user, password, fence_scn, opened_scn):
    """The orders, and the numbers of those committed while the fence stood."""
    import oracledb

    with oracledb.connect(dsn=dsn, user=user, password=password) as connection:
        cursor = connection.cursor()
        cursor.arraysize = 1000
        orders = held(cursor.execute(ORDERS.format("SHOP.ORDERS")).fetchall())
        late = []
        if fence_scn is not None:
            for operation, data in cursor.execute(
                AFTER_FENCE, [fence_scn, NEVER if opened_scn is None else opened_scn]
            ).fetchall():
                if operation == "INSERT":
                    late.append(int(json.loads(data)["after"]["ORDER_NO"]))
    return orders, late


def read_postgres(conninfo):
    import psycopg

    with psycopg.connect(conninfo) as connection:
        return held(connection.execute(ORDERS.format("shop.orders")).fetchall())


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--log", action="append", required=True, help="a client's log; repeat")
    parser.add_argument("--oracle-dsn", required=True)
    parser.add_argument("--oracle-user", required=True)
    parser.add_argument("--oracle-password-file", required=True)
    parser.add_argument("--postgres", required=True, help="libpq connection string")
    parser.add_argument("--fence-scn", type=int, help="what committed on Oracle later is late")
    parser.add_argument("--opened-scn", type=int, help="where the fence was taken down again")
    parser.add_argument("--final", choices=["oracle", "postgres"], default="postgres")
    args = parser.parse_args()
    with open(args.oracle_password_file, encoding="utf-8") as file:
        password = file.read().strip()
    log = [line for path in args.log for line in read_log(path)]
    oracle, late = read_oracle(
        args.oracle_dsn, args.oracle_user, password, args.fence_scn, args.opened_scn
    )
    verdict = judge(log, oracle, read_postgres(args.postgres), late, args.final)
    print(json.dumps(verdict, indent=2))
    return 0 if is_good(verdict) else 1


if __name__ == "__main__":
    try:
        sys.exit(main())
    except Exception as error:  # noqa: BLE001 - the last resort of a command
        print(f"the checker could not look: {error!r}", file=sys.stderr)
        sys.exit(2)
