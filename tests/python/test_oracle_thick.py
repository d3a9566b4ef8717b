"""python-oracledb in thick mode through the client library double.

An independent check of the double: python-oracledb brings its own copy of
ODPI-C and asks for functions and attributes that the `oracle` crate does not.
The simulator is the shipped binary, started with a configuration of its own.
"""

import datetime
import os
import pathlib
import shutil
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
CREATE USER SHOP IDENTIFIED BY secret;
GRANT CREATE SESSION TO SHOP;
CREATE TABLE SHOP.ORDERS (
  ID NUMBER(18) PRIMARY KEY,
  CUSTOMER VARCHAR2(60) NOT NULL,
  AMOUNT NUMBER(12,2),
  CODE CHAR(4),
  TAG RAW(8),
  PLACED_AT DATE,
  CHANGED_AT TIMESTAMP
);
"""


def newest(*candidates):
    present = [path for path in candidates if path.exists()]
    if not present:
        pytest.fail(f"build the workspace first: none of {[str(path) for path in candidates]} exists")
    return max(present, key=lambda path: path.stat().st_mtime)


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


@pytest.fixture(scope="session")
def simulator(tmp_path_factory):
    """A running simulator: (home, port)."""
    work = tmp_path_factory.mktemp("oracle")
    home = work / "home"
    (home / "lib").mkdir(parents=True)
    library = newest(TARGET / "libclntsh.so", TARGET / "deps" / "libclntsh.so")
    shutil.copy(library, home / "lib" / "libclntsh.so")
    (work / "init.sql").write_text(INIT_SQL)
    port = free_port()
    (work / "simulator.toml").write_text(
        f"""
database = "ORCL"
data_dir = "{work / 'data'}"
init_sql = "{work / 'init.sql'}"
[[instance]]
name = "ORCL1"
host = "ora-1"
home = "{home}"
[[instance.listener]]
name = "LISTENER"
port = {port}
"""
    )
    binary = newest(TARGET / "oracle-simulator")
    log = open(work / "simulator.log", "w")
    process = subprocess.Popen(
        [binary, "--config", work / "simulator.toml"], stdout=subprocess.PIPE, stderr=log, text=True
    )
    try:
        # The one line it prints, once every frontend is open.
        ready = process.stdout.readline()
        assert ready == "oracle-simulator ready\n", (work / "simulator.log").read_text()
        os.environ["ORACLE_HOME"] = str(home)
        os.environ["ORACLE_SID"] = "ORCL1"
        oracledb.init_oracle_client(lib_dir=str(home / "lib"))
        yield home, port
    finally:
        process.terminate()
        process.wait(PATIENCE_SECONDS)
        log.close()


@pytest.fixture
def sysdba(simulator):
    with oracledb.connect(mode=oracledb.AUTH_MODE_SYSDBA, externalauth=True) as connection:
        yield connection


@pytest.fixture
def dsn(simulator):
    return f"127.0.0.1:{simulator[1]}/ORCL"


@pytest.fixture
def shop(dsn):
    with oracledb.connect(user="shop", password="secret", dsn=dsn) as connection:
        cursor = connection.cursor()
        cursor.execute("delete from orders")
        connection.commit()
        yield connection


def code(error):
    return error.value.args[0].code


def test_the_library_is_thick_and_says_its_release(sysdba):
    assert not oracledb.is_thin_mode()
    assert oracledb.clientversion()[:2] == (19, 3)
    assert sysdba.version.startswith("19.3")


def test_sysdba_logs_in_locally_without_a_password(sysdba):
    (user,) = sysdba.cursor().execute("select user from dual").fetchone()
    assert user == "SYS"
    assert (sysdba.instance_name, sysdba.db_name) == ("ORCL1", "ORCL")


def test_values_of_every_type_come_back(shop):
    placed = datetime.datetime(2024, 2, 29, 13, 14, 15)
    changed = datetime.datetime(2024, 2, 29, 13, 14, 15, 123456)
    cursor = shop.cursor()
    cursor.setinputsizes(None, None, None, None, None, None, oracledb.DB_TYPE_TIMESTAMP)
    cursor.execute(
        "insert into orders values (:1, :2, :3, :4, :5, :6, :7)",
        [10**17, "Grüße", -12.5, "ab", b"\x00\xff", placed, changed],
    )
    assert cursor.rowcount == 1
    cursor.execute("insert into orders (id, customer) values (:id, :customer)", id=2, customer="nobody")
    rows = cursor.execute("select * from orders order by id desc").fetchall()
    assert rows == [
        (10**17, "Grüße", -12.5, "ab  ", b"\x00\xff", placed, changed),
        (2, "nobody", None, None, None, None, None),
    ]
    types = [column.type_code for column in cursor.description]
    assert types == [
        oracledb.DB_TYPE_NUMBER,
        oracledb.DB_TYPE_VARCHAR,
        oracledb.DB_TYPE_NUMBER,
        oracledb.DB_TYPE_CHAR,
        oracledb.DB_TYPE_RAW,
        oracledb.DB_TYPE_DATE,
        oracledb.DB_TYPE_TIMESTAMP,
    ]


def test_arrays_go_in_and_large_results_come_out(shop):
    cursor = shop.cursor()
    cursor.executemany(
        "insert into orders (id, customer, amount) values (:1, :2, :3)",
        [(n, f"customer {n}", n / 4) for n in range(1500)],
    )
    assert cursor.rowcount == 1500
    rows = cursor.execute("select id, customer, amount from orders order by id").fetchall()
    assert rows == [(n, f"customer {n}", n / 4) for n in range(1500)]


def test_failed_rows_of_a_batch_are_named(shop):
    cursor = shop.cursor()
    rows = [(1, "a"), (1, "b"), (2, "c"), (3, None)]
    cursor.executemany(
        "insert into orders (id, customer) values (:1, :2)", rows, batcherrors=True, arraydmlrowcounts=True
    )
    failed = [(error.offset, error.code) for error in cursor.getbatcherrors()]
    assert failed == [(1, 1), (3, 1400)]
    assert cursor.getarraydmlrowcounts() == [1, 0, 1, 0]


def test_another_session_sees_what_was_committed_and_nothing_else(shop, sysdba):
    def count():
        return sysdba.cursor().execute("select count(*) from shop.orders").fetchone()[0]

    shop.cursor().execute("insert into orders (id, customer) values (1, 'x')")
    assert shop.transaction_in_progress
    assert count() == 0
    shop.rollback()
    assert not shop.transaction_in_progress
    shop.cursor().execute("insert into orders (id, customer) values (2, 'y')")
    shop.commit()
    assert count() == 1


def test_returning_and_blocks_give_values_back(shop):
    cursor = shop.cursor()
    identity = cursor.var(int)
    cursor.execute("insert into orders (id, customer) values (7, 'r') returning id into :id", id=identity)
    assert identity.getvalue() == [7]
    text = cursor.var(str, 40)
    number = cursor.var(int)
    cursor.execute("begin :text := 'hello'; :n := 5; end;", text=text, n=number)
    assert (text.getvalue(), number.getvalue()) == ("hello", 5)


def test_errors_have_code_and_place(sysdba):
    with pytest.raises(oracledb.DatabaseError) as error:
        sysdba.cursor().execute("select * from no_such_table")
    assert code(error) == 942
    with pytest.raises(oracledb.DatabaseError) as error:
        sysdba.cursor().execute("select 1 from dual where = 1")
    assert (code(error), error.value.args[0].offset) == (936, 25)
    with pytest.raises(oracledb.DatabaseError) as error:
        sysdba.cursor().execute("select :a from dual", b=1)
    assert code(error) == 1036
    sysdba.ping()


def test_logins_are_refused_in_oracles_words(simulator, dsn):
    with pytest.raises(oracledb.DatabaseError) as error:
        oracledb.connect(user="shop", password="wrong", dsn=dsn)
    assert code(error) == 1017
    with pytest.raises(oracledb.DatabaseError) as error:
        oracledb.connect(user="shop", password="secret", dsn=dsn.replace("/ORCL", "/NOPE"))
    assert code(error) == 12514
    with pytest.raises(oracledb.DatabaseError) as error:
        oracledb.connect(user="shop", password="secret", dsn=f"127.0.0.1:{free_port()}/ORCL")
    assert code(error) == 12541


def test_a_call_that_takes_too_long_is_ended_and_the_session_lives(sysdba):
    sysdba.call_timeout = 200
    with pytest.raises(oracledb.DatabaseError) as error:
        sysdba.cursor().execute("begin dbms_session.sleep(20); end;")
    assert "DPY-4024" in str(error.value)
    sysdba.call_timeout = 0
    sysdba.ping()


def test_another_thread_cancels(sysdba, shop):
    (sid,) = shop.cursor().execute("select sys_context('userenv', 'sid') from dual").fetchone()

    def cancel_once_it_runs():
        deadline = time.monotonic() + PATIENCE_SECONDS
        active = "select count(*) from v$session where sid = :1 and status = 'ACTIVE'"
        while sysdba.cursor().execute(active, [int(sid)]).fetchone() == (0,):
            assert time.monotonic() < deadline
        shop.cancel()

    canceller = threading.Thread(target=cancel_once_it_runs)
    canceller.start()
    with pytest.raises(oracledb.DatabaseError) as error:
        shop.cursor().execute("begin dbms_session.sleep(20); end;")
    canceller.join()
    assert code(error) == 1013
    shop.ping()


def test_a_killed_session_is_told_and_its_work_is_gone(sysdba, dsn):
    victim = oracledb.connect(user="shop", password="secret", dsn=dsn)
    cursor = victim.cursor()
    cursor.execute("insert into orders (id, customer) values (99, 'victim')")
    (sid,) = cursor.execute("select sys_context('userenv', 'sid') from dual").fetchone()
    (serial,) = sysdba.cursor().execute("select serial# from v$session where sid = :1", [int(sid)]).fetchone()
    sysdba.cursor().execute(f"alter system kill session '{sid},{serial}' immediate")
    with pytest.raises(oracledb.DatabaseError) as error:
        cursor.execute("select 1 from dual")
    assert "ORA-00028" in str(error.value)
    assert not victim.is_healthy()
    found = sysdba.cursor().execute("select count(*) from shop.orders where id = 99").fetchone()
    assert found == (0,)


def test_module_and_action_show_in_the_session(sysdba, shop):
    shop.module, shop.action = "shop-orders", "checkout"
    (sid,) = shop.cursor().execute("select sys_context('userenv', 'sid') from dual").fetchone()
    row = sysdba.cursor().execute(
        "select module, action, username, type from v$session where sid = :1", [int(sid)]
    ).fetchone()
    assert row == ("shop-orders", "checkout", "SHOP", "USER")
