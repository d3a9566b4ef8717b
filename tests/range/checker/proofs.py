"""What lies in Oracle as proof of single steps: the markers of the drain with
the SCN that each names and the SCN of its own commit, and the canary rows that
came back. Read as the checker reads, through the listener that stays up for
DMS. Prints JSON; exit 2 when it could not look.
"""

import argparse
import json
import sys

MARKERS = (
    "SELECT COMMIT_SCN, ROW_DATA FROM V$LOGMNR_CONTENTS WHERE OPERATION = 'INSERT' "
    "AND SEG_OWNER = 'LOCKSTEP' AND TABLE_NAME = 'LOCKSTEP_MARKER' ORDER BY COMMIT_SCN"
)
CANARIES = "SELECT NONCE FROM LOCKSTEP.LOCKSTEP_CANARY"


def marker(commit_scn, row_data):
    after = json.loads(row_data)["after"]
    return {"nonce": after["NONCE"], "scn": int(after["SCN"]), "commit_scn": int(commit_scn)}


def drain_markers(cursor):
    """The markers of the drain. The trial before the outage, whose nonces begin with
    `trial-`, says nothing of the fence."""
    markers = [marker(*row) for row in cursor.execute(MARKERS).fetchall()]
    return [one for one in markers if not one["nonce"].startswith("trial-")]


def read(dsn, user, password):
    import oracledb

    with oracledb.connect(dsn=dsn, user=user, password=password) as connection:
        cursor = connection.cursor()
        markers = drain_markers(cursor)
        canaries = [nonce for (nonce,) in cursor.execute(CANARIES).fetchall()]
    return {"markers": markers, "canaries": canaries}


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--oracle-dsn", required=True)
    parser.add_argument("--oracle-user", required=True)
    parser.add_argument("--oracle-password-file", required=True)
    args = parser.parse_args()
    with open(args.oracle_password_file, encoding="utf-8") as file:
        password = file.read().strip()
    print(json.dumps(read(args.oracle_dsn, args.oracle_user, password)))


if __name__ == "__main__":
    try:
        main()
    except Exception as error:  # noqa: BLE001 - the last resort of a command
        print(f"could not look: {error!r}", file=sys.stderr)
        sys.exit(2)
