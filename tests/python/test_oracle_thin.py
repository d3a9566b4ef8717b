"""python-oracledb in thin mode, unmodified, through the listener frontend.

The driver speaks Oracle Net by itself, so it is an independent check of what
the applications of the rehearsal rely on. The simulator is the shipped
binary, started with a configuration of its own; so are the doubles of lsnrctl
and srvctl.
"""

import asyncio
import datetime
import decimal
import json
import os
import pathlib
import socket
import subprocess
import threading
import time

import pytest

oracledb = pytest.importorskip("oracledb")

ROOT = pathlib.Path(__file__).resolve().parents[2]
TARGET = pathlib.Path(os.environ.get("CARGO_TARGET_DIR", ROOT / "target")) / "debug"

# Only a guard against hanging: everything waited for is sure to come.
PATIENCE_SECONDS = 30

INIT_SQL = """
CREATE USER SHOP IDENTIFIED BY "secret";
GRANT CREATE SESSION TO SHOP;
CREATE TABLE SHOP.ITEMS (
  ID NUMBER(18) PRIMARY KEY,
  NAME VARCHAR2(4000),
  PRICE NUMBER(12,2),
  CODE CHAR(4),
  TAG RAW(8),
  MADE_AT DATE,
  SEEN_AT TIMESTAMP
);
CREATE SEQUENCE SHOP.ITEMS_SEQ;
"""

CONFIG = """
database = "ORCL"
data_dir = "{dir}/data"
init_sql = "{dir}/init.sql"
sys_password = "manager"

[[instance]]
name = "ORCL1"
host = "ora-1"
home = "{dir}/ora-1"
[[instance.listener]]
name = "LISTENER"
port = {plain}
[[instance.listener]]
name = "LISTENER_DMS"
port = {dms}
reserved_for = "dms"
services = ["ORCL"]
static = true

[[instance]]
name = "ORCL2"
host = "ora-2"
home = "{dir}/ora-2"
[[instance.listener]]
name = "LISTENER"
port = {clustered}
managed_by = "srvctl"
[[instance.listener]]
name = "LISTENER_SCAN1"
port = {scan}
managed_by = "srvctl"
"""


def free_ports(count):
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def is_open(port):
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


def wait_until(condition, what):
    deadline = time.monotonic() + PATIENCE_SECONDS
    while not condition():
        assert time.monotonic() < deadline, f"never happened: {what}"
        time.sleep(0.02)


class Simulator:
    """A simulator process with two instances and four listeners."""

    def __init__(self, directory):
        self.directory = directory
        names = ["plain", "dms", "clustered", "scan"]
        self.ports = dict(zip(names, free_ports(len(names))))
        for sub in ["data", "ora-1/dbs", "ora-2/dbs"]:
            (directory / sub).mkdir(parents=True)
        (directory / "init.sql").write_text(INIT_SQL)
        config = directory / "simulator.toml"
        config.write_text(CONFIG.format(dir=directory, **self.ports))
        binary = TARGET / "oracle-simulator"
        if not binary.exists():
            pytest.fail(f"build the workspace first: {binary} is missing")
        self.log = open(directory / "log", "wb")
        self.process = subprocess.Popen(
            [binary, "--config", config], stdout=self.log, stderr=self.log
        )
        wait_until(self.is_up, "the simulator opens its frontends")

    def is_up(self):
        log = (self.directory / "log").read_text
        assert self.process.poll() is None, f"the simulator ended: {log()}"
        controls = [self.directory / host / "dbs/control.sock" for host in ["ora-1", "ora-2"]]
        return all(path.exists() for path in controls) and all(map(is_open, self.ports.values()))

    def end(self):
        self.process.terminate()
        self.process.wait(PATIENCE_SECONDS)
        self.log.close()

    def dsn(self, listener="plain", service="ORCL"):
        return f"127.0.0.1:{self.ports[listener]}/{service}"

    def connect(self, listener="plain", user="shop", password="secret", **options):
        return oracledb.connect(user=user, password=password, dsn=self.dsn(listener), **options)

    def run(self, tool, *arguments, host="ora-1"):
        environment = dict(os.environ, ORACLE_HOME=str(self.directory / host))
        return subprocess.run(
            [TARGET / tool, *arguments],
            env=environment,
            capture_output=True,
            text=True,
            timeout=PATIENCE_SECONDS,
        )

    def control(self, request, host="ora-1"):
        with socket.socket(socket.AF_UNIX) as stream:
            stream.connect(str(self.directory / host / "dbs/control.sock"))
            stream.sendall(json.dumps(request).encode() + b"\n")
            return json.loads(stream.makefile().readline())


@pytest.fixture(scope="module")
def simulator(tmp_path_factory):
    simulator = Simulator(tmp_path_factory.mktemp("simulator"))
    yield simulator
    simulator.end()


@pytest.fixture
def connection(simulator):
    with simulator.connect() as connection:
        cursor = connection.cursor()
        cursor.execute("delete from items")
        connection.commit()
        yield connection
        connection.rollback()


@pytest.fixture
def admin(simulator):
    with simulator.connect(
        user="sys", password="manager", mode=oracledb.AUTH_MODE_SYSDBA
    ) as connection:
        yield connection


def code_of(error):
    return error.value.args[0].code


def full_code_of(error):
    return error.value.args[0].full_code


def test_login(connection):
    assert oracledb.is_thin_mode()
    assert connection.version == "19.3.0.0.0"
    user, sid = connection.cursor().execute(
        "select user, sys_context('userenv', 'sid') from dual"
    ).fetchone()
    assert user == "SHOP"
    assert int(sid) == connection.session_id


@pytest.mark.parametrize("user, password", [("shop", "wrong"), ("nobody", "secret"), ("shop", "SECRET")])
def test_wrong_password(simulator, user, password):
    with pytest.raises(oracledb.DatabaseError) as error:
        simulator.connect(user=user, password=password)
    assert code_of(error) == 1017


def test_sysdba_needs_the_privilege(simulator):
    with pytest.raises(oracledb.DatabaseError) as error:
        simulator.connect(mode=oracledb.AUTH_MODE_SYSDBA)
    assert code_of(error) in (1017, 1031)


def test_unknown_service_and_sid(simulator):
    for dsn, code in [
        (simulator.dsn(service="NOWHERE"), "DPY-6001"),
        (oracledb.makedsn("127.0.0.1", simulator.ports["plain"], sid="ORCL9"), "DPY-6003"),
    ]:
        with pytest.raises(oracledb.DatabaseError, match=code):
            oracledb.connect(user="shop", password="secret", dsn=dsn)


def test_instance_name_serves_as_sid(simulator):
    dsn = oracledb.makedsn("127.0.0.1", simulator.ports["plain"], sid="ORCL1")
    oracledb.connect(user="shop", password="secret", dsn=dsn).close()


ROW = (
    7,
    "grün 🍀",
    decimal.Decimal("-12.50"),
    "ab  ",
    b"\x00\xff",
    datetime.datetime(2024, 2, 29, 23, 59, 58),
    datetime.datetime(1999, 12, 31, 0, 0, 1, 123456),
)


def insert(cursor, row):
    cursor.setinputsizes(None, None, None, None, None, None, oracledb.DB_TYPE_TIMESTAMP)
    cursor.execute("insert into items values (:1, :2, :3, :4, :5, :6, :7)", row)


def test_every_type_goes_in_and_comes_back(connection):
    cursor = connection.cursor()
    insert(cursor, ROW)
    assert cursor.rowcount == 1
    insert(cursor, (8, None, None, None, None, None, None))
    cursor.execute("select * from items order by id")
    kinds = [column[1] for column in cursor.description]
    assert kinds == [
        oracledb.DB_TYPE_NUMBER,
        oracledb.DB_TYPE_VARCHAR,
        oracledb.DB_TYPE_NUMBER,
        oracledb.DB_TYPE_CHAR,
        oracledb.DB_TYPE_RAW,
        oracledb.DB_TYPE_DATE,
        oracledb.DB_TYPE_TIMESTAMP,
    ]
    assert [column[0] for column in cursor.description][:3] == ["ID", "NAME", "PRICE"]
    assert cursor.fetchall() == [ROW, (8, None, None, None, None, None, None)]


@pytest.mark.parametrize(
    "number", ["0", "1", "-1", "100", "0.01", "-99.99", "12345678901234567890", "0.000001", "1000000"]
)
def test_numbers_survive(connection, number):
    value = decimal.Decimal(number)
    cursor = connection.cursor()
    cursor.execute("select to_number(to_char(:n)) from dual", n=value)
    (back,) = cursor.fetchone()
    assert decimal.Decimal(str(back)) == value


def fill(connection, rows):
    cursor = connection.cursor()
    data = [(number, "x" * (number % 500 + 1)) for number in range(rows)]
    cursor.executemany("insert into items (id, name) values (:1, :2)", data)
    assert cursor.rowcount == rows
    connection.commit()
    return data


@pytest.mark.parametrize("arraysize, prefetch", [(1, 0), (100, 2), (1000, 1000), (7, 3)])
def test_a_big_result_comes_in_several_fetches(connection, arraysize, prefetch):
    data = fill(connection, 1200)
    cursor = connection.cursor()
    cursor.arraysize, cursor.prefetchrows = arraysize, prefetch
    # Twice: the second execution uses the cursor that is still open.
    for _ in range(2):
        cursor.execute("select id, name from items order by id")
        assert cursor.fetchall() == data


def test_a_small_session_data_unit_cuts_more_packets(simulator, connection):
    data = fill(connection, 300)
    with simulator.connect(sdu=512) as narrow:
        cursor = narrow.cursor()
        assert cursor.execute("select id, name from items order by id").fetchall() == data


def test_a_statement_longer_than_a_packet(connection):
    text = "y" * 3000
    comment = "c" * 40_000
    cursor = connection.cursor()
    cursor.execute(f"select /* {comment} */ '{text}' from dual")
    assert cursor.fetchone() == (text,)


def test_binds_by_name_repeat_and_change_type(connection):
    cursor = connection.cursor()
    for value in ["abc", "longer than before " * 50, None]:
        cursor.execute("select :v, :v, :n from dual", v=value, n=5)
        assert cursor.fetchone() == (value, value, 5)


def test_errors_carry_code_and_text(connection):
    cursor = connection.cursor()
    for _ in range(2):
        with pytest.raises(oracledb.DatabaseError) as error:
            cursor.execute("select * from no_such_table")
        assert code_of(error) == 942
        assert "table or view does not exist" in str(error.value)


def test_errors_point_at_their_place(admin):
    with pytest.raises(oracledb.DatabaseError) as error:
        admin.cursor().execute("alter system set open_cursors 5")
    assert code_of(error) == 927
    assert error.value.args[0].offset == len("alter system set open_cursors ")


def test_executemany_stops_at_the_row_that_fails(connection):
    cursor = connection.cursor()
    with pytest.raises(oracledb.IntegrityError) as error:
        cursor.executemany("insert into items (id) values (:1)", [(1,), (2,), (1,), (3,)])
    assert code_of(error) == 1
    assert cursor.rowcount == 2
    assert connection.transaction_in_progress
    assert cursor.execute("select count(*) from items").fetchone() == (2,)


def test_executemany_with_batch_errors_goes_on(connection):
    cursor = connection.cursor()
    rows = [(1,), (1,), (2,), (2,), (3,)]
    cursor.executemany(
        "insert into items (id) values (:1)", rows, batcherrors=True, arraydmlrowcounts=True
    )
    assert [(error.code, error.offset) for error in cursor.getbatcherrors()] == [(1, 1), (1, 3)]
    assert cursor.getarraydmlrowcounts() == [1, 0, 1, 0, 1]


def test_returning_into(connection):
    cursor = connection.cursor()
    given = cursor.var(int)
    for _ in range(2):
        cursor.execute(
            "insert into items (id, name) values (items_seq.nextval, :name) returning id into :id",
            name="n",
            id=given,
        )
        (number,) = given.getvalue()
        assert cursor.execute("select name from items where id = :1", [number]).fetchone() == ("n",)


def test_block_with_out_variables(connection):
    cursor = connection.cursor()
    text, number = cursor.var(str), cursor.var(int)
    for value in (20, 21):
        cursor.execute("begin :t := 'got ' || :v; :n := :v * 2; end;", t=text, v=value, n=number)
        assert (text.getvalue(), number.getvalue()) == (f"got {value}", value * 2)


def test_transactions_are_known_to_the_driver(simulator, connection):
    cursor = connection.cursor()
    with simulator.connect() as other:
        seen = lambda: other.cursor().execute("select count(*) from items").fetchone()[0]
        cursor.execute("insert into items (id) values (1)")
        assert connection.transaction_in_progress
        assert seen() == 0
        connection.rollback()
        assert not connection.transaction_in_progress
        cursor.execute("insert into items (id) values (2)")
        connection.commit()
        assert seen() == 1
        connection.autocommit = True
        for number in (3, 4):
            cursor.execute("insert into items (id) values (:1)", [number])
            assert not connection.transaction_in_progress
        assert seen() == 3


def test_end_to_end_attributes(connection, admin):
    connection.module, connection.action = "checkout", "pay"
    connection.clientinfo, connection.client_identifier = "till 7", "customer"
    connection.ping()
    row = admin.cursor().execute(
        "select module, action, client_info, client_identifier from v$session where sid = :1",
        [connection.session_id],
    )
    assert row.fetchone() == ("checkout", "pay", "till 7", "customer")


SLEEP = "begin dbms_session.sleep(20); end;"


def test_cancel_interrupts_a_call_and_the_session_goes_on(connection):
    cursor = connection.cursor()
    for _ in range(3):
        timer = threading.Timer(0.1, connection.cancel)
        timer.start()
        with pytest.raises(oracledb.DatabaseError) as error:
            cursor.execute(SLEEP)
        timer.join()
        assert code_of(error) == 1013
        assert cursor.execute("select 1 from dual").fetchone() == (1,)


def test_call_timeout_interrupts_a_call_and_the_session_goes_on(connection):
    cursor = connection.cursor()
    for _ in range(3):
        connection.call_timeout = 100
        with pytest.raises(oracledb.DatabaseError) as error:
            cursor.execute(SLEEP)
        assert full_code_of(error) == "DPY-4024"
        connection.call_timeout = 0
        assert cursor.execute("select 1 from dual").fetchone() == (1,)


def test_cancel_ends_a_wait_for_a_row_lock(simulator, connection):
    fill(connection, 1)
    connection.cursor().execute("update items set name = 'mine' where id = 0")
    with simulator.connect() as other:
        timer = threading.Timer(0.1, other.cancel)
        timer.start()
        with pytest.raises(oracledb.DatabaseError) as error:
            other.cursor().execute("update items set name = 'theirs' where id = 0")
        timer.join()
        assert code_of(error) == 1013


def kill(admin, victim, immediate=True):
    how = " immediate" if immediate else ""
    admin.cursor().execute(
        f"alter system kill session '{victim.session_id},{victim.serial_num}'{how}"
    )


@pytest.mark.parametrize("immediate", [True, False])
def test_a_killed_session_hears_of_it_at_its_next_call(simulator, admin, immediate):
    victim = simulator.connect()
    victim.cursor().execute("insert into items (id) values (4711)")
    kill(admin, victim, immediate)
    with pytest.raises(oracledb.DatabaseError, match="ORA-00028|DPY-4011"):
        victim.cursor().execute("select 1 from dual")
    assert not victim.is_healthy()
    with simulator.connect() as other:
        count = other.cursor().execute("select count(*) from items where id = 4711").fetchone()
        assert count == (0,)


def test_a_kill_ends_the_call_under_way(simulator, admin):
    with simulator.connect() as victim:
        ended = []

        def work():
            try:
                victim.cursor().execute(SLEEP)
            except oracledb.DatabaseError as error:
                ended.append(str(error))

        worker = threading.Thread(target=work)
        worker.start()
        query = "select count(*) from v$session where sid = :1 and status = 'ACTIVE'"
        sid = [victim.session_id]
        is_busy = lambda: admin.cursor().execute(query, sid).fetchone() == (1,)
        wait_until(is_busy, "the call begins")
        kill(admin, victim)
        worker.join(PATIENCE_SECONDS)
        assert len(ended) == 1 and "ORA-00028" in ended[0]


def test_a_pool_connects_again_after_a_kill(simulator, admin):
    pool = oracledb.create_pool(
        user="shop", password="secret", dsn=simulator.dsn(), min=1, max=2, ping_interval=0
    )
    with pool.acquire() as first:
        sid = first.session_id
        kill(admin, first)
    with pool.acquire() as second:
        assert second.cursor().execute("select 1 from dual").fetchone() == (1,)
        assert (second.session_id, second.serial_num) != (sid, None)
    pool.close()


def test_a_client_that_vanishes_leaves_no_session_behind(simulator, admin):
    program = (
        "import oracledb, os, sys;"
        f"c = oracledb.connect(user='shop', password='secret', dsn='{simulator.dsn()}');"
        "c.cursor().execute('insert into items (id) values (815)');"
        "print(c.session_id, flush=True); os._exit(1)"
    )
    ended = subprocess.run([os.sys.executable, "-c", program], capture_output=True, text=True)
    sid = int(ended.stdout)
    query = "select count(*) from v$session where sid = :1 and username = 'SHOP'"
    gone = lambda: admin.cursor().execute(query, [sid]).fetchone() == (0,)
    wait_until(gone, "the session ends")
    count = admin.cursor().execute("select count(*) from shop.items where id = 815").fetchone()
    assert count == (0,)


def test_statements_that_fail_leave_no_cursor_open(connection):
    cursor = connection.cursor()
    # More than OPEN_CURSORS, each with a text of its own.
    for number in range(320):
        with pytest.raises(oracledb.DatabaseError) as error:
            cursor.execute(f"select * from no_such_table_{number}")
        assert code_of(error) == 942
    for number in range(320):
        assert cursor.execute(f"select {number} from dual").fetchone() == (number,)


def test_connections_that_end_are_forgotten(simulator):
    # More than a listener serves at a time.
    for _ in range(600):
        with socket.socket() as client:
            client.connect(("127.0.0.1", simulator.ports["plain"]))
    simulator.connect().close()


def test_what_is_not_oracle_net_is_turned_away(simulator):
    for noise in [b"GET / HTTP/1.1\r\n\r\n", b"\x00\x04\x00\x00\x01\x00\x00\x00", b"LKSX\x01garbage"]:
        with socket.socket() as client:
            client.settimeout(PATIENCE_SECONDS)
            client.connect(("127.0.0.1", simulator.ports["plain"]))
            client.sendall(noise)
            client.shutdown(socket.SHUT_WR)
            while client.recv(4096):
                pass
    simulator.connect().close()


def test_asynchronous_connections_work_alike(simulator):
    async def work():
        async with oracledb.connect_async(
            user="shop", password="secret", dsn=simulator.dsn()
        ) as connection:
            slow = asyncio.create_task(connection.execute(SLEEP))
            await asyncio.sleep(0.1)
            connection.cancel()
            with pytest.raises(oracledb.DatabaseError) as error:
                await slow
            assert code_of(error) == 1013
            return await connection.fetchall("select user from dual")

    assert asyncio.run(work()) == [("SHOP",)]


def test_unsupported_things_are_errors(simulator):
    with simulator.connect() as connection:
        cursor = connection.cursor()
        with pytest.raises(oracledb.DatabaseError, match="ORA-03115"):
            cursor.execute("select :lob from dual", lob=cursor.var(oracledb.DB_TYPE_CLOB))


def test_lsnrctl_stops_and_starts_a_listener(simulator, connection):
    port = simulator.ports["plain"]
    stopped = simulator.run("lsnrctl", "stop")
    assert stopped.returncode == 0
    assert "The command completed successfully" in stopped.stdout
    assert not is_open(port)
    # Established sessions live on, new ones are refused.
    assert connection.cursor().execute("select 1 from dual").fetchone() == (1,)
    with pytest.raises(oracledb.DatabaseError, match="DPY-6005"):
        simulator.connect()
    simulator.connect("dms").close()
    for command in ("stop", "status", "services"):
        refused = simulator.run("lsnrctl", command, "LISTENER")
        assert refused.returncode == 1
        for message in ("TNS-12541", "TNS-12560", "TNS-00511"):
            assert message in refused.stdout
    started = simulator.run("lsnrctl", "start", "listener")
    assert started.returncode == 0, started.stdout
    assert 'Service "ORCL" has 1 instance(s).' in started.stdout
    again = simulator.run("lsnrctl", "start")
    assert (again.returncode, "TNS-01106" in again.stdout) == (1, True)
    simulator.connect().close()


def test_lsnrctl_knows_its_own_listeners_alone(simulator):
    assert "UNKNOWN" in simulator.run("lsnrctl", "status", "LISTENER_DMS").stdout
    assert "READY" in simulator.run("lsnrctl", "services", "LISTENER").stdout
    for command, message in [("status", "TNS-01101"), ("start", "TNS-01151"), ("reload", "NL-00853")]:
        refused = simulator.run("lsnrctl", command, "LISTENER_SCAN1")
        assert (refused.returncode, message in refused.stdout) == (1, True)


def test_clusterware_brings_a_listener_back_unless_it_is_disabled(simulator):
    srvctl = lambda *arguments: simulator.run("srvctl", *arguments, host="ora-2")
    port = simulator.ports["clustered"]
    status = srvctl("status", "listener", "-listener", "LISTENER").stdout
    assert "Listener LISTENER is running on node(s): ora-2" in status
    assert srvctl("stop", "listener").returncode == 0
    wait_until(lambda: is_open(port), "Clusterware restarts the listener")
    assert srvctl("disable", "listener", "-node", "ora-2").returncode == 0
    assert srvctl("disable", "listener").returncode == 2
    assert srvctl("stop", "listener", "-l", "listener").returncode == 0
    status = srvctl("status", "listener").stdout
    assert "is disabled" in status and "is not running" in status
    again = srvctl("stop", "listener")
    assert (again.returncode, "PRCR-1005" in again.stdout) == (2, True)
    refused = srvctl("start", "listener")
    assert (refused.returncode, "CRS-2501" in refused.stdout) == (1, True)
    assert not is_open(port)
    assert srvctl("enable", "listener").returncode == 0
    wait_until(lambda: is_open(port), "Clusterware starts what was enabled")
    assert srvctl("start", "listener").returncode == 2


def test_srvctl_knows_scan_listeners_and_no_plain_ones(simulator):
    scan = simulator.run("srvctl", "status", "scan_listener", host="ora-2")
    assert "SCAN listener LISTENER_SCAN1 is running on node ora-2" in scan.stdout
    plain = simulator.run("srvctl", "status", "listener", host="ora-1")
    assert (plain.returncode, "PRCR-1001" in plain.stdout) == (1, True)


def test_restricted_session_blocks_registered_services_alone(simulator, admin):
    cursor = admin.cursor()
    cursor.execute("alter system enable restricted session")
    try:
        with pytest.raises(oracledb.DatabaseError, match="12526"):
            simulator.connect()
        with pytest.raises(oracledb.DatabaseError) as error:
            simulator.connect("dms")
        assert code_of(error) == 1035
        assert "RESTRICTED" in simulator.run("lsnrctl", "status").stdout
    finally:
        cursor.execute("alter system disable restricted session")
    simulator.connect().close()


def test_the_control_socket_observes_and_injects(simulator, connection):
    state = simulator.control({"op": "observe"})["ok"]
    assert {listener["host"] for listener in state["listeners"]} == {"ora-1", "ora-2"}
    assert any(session["user"] == "SHOP" for session in state["sessions"])
    fault = {"statement_contains": "from items /* doomed */", "ora_code": 1555, "times": 1}
    assert simulator.control({"op": "inject", "fault": fault}) == {"ok": None}
    cursor = connection.cursor()
    with pytest.raises(oracledb.DatabaseError) as error:
        cursor.execute("select id from items /* doomed */")
    assert code_of(error) == 1555
    cursor.execute("select id from items /* doomed */")
    assert simulator.control({"op": "inject", "fault": {}})["error"]["kind"] == "fault"
    assert simulator.control({"op": "nonsense"})["error"]["kind"] == "request"
