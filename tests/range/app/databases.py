"""How the sample application reaches its database: Oracle or PostgreSQL, as
the configuration file says that it read at start.

The same file is read by the order writer and by the report; each opens what
it needs. Nothing here retries: that is the caller's decision.
"""

import tomllib

ORACLE_ORDER = (
    "INSERT INTO SHOP.ORDERS (ID, ORDER_NO, CUSTOMER, AMOUNT, NOTE, PLACED_AT) "
    "VALUES (SHOP.ORDERS_SEQ.NEXTVAL, :1, :2, :3, :4, SYSDATE)"
)
ORACLE_LINE = (
    "INSERT INTO SHOP.ORDER_LINES (ID, ORDER_ID, LINE_NO, PRODUCT, QUANTITY, PRICE) "
    "VALUES (SHOP.ORDER_LINES_SEQ.NEXTVAL, SHOP.ORDERS_SEQ.CURRVAL, :1, :2, :3, :4)"
)
POSTGRES_ORDER = (
    "INSERT INTO shop.orders (order_no, customer, amount, note, placed_at) "
    "VALUES (%s, %s, %s, %s, now()::timestamp(0))"
)
POSTGRES_LINE = (
    "INSERT INTO shop.order_lines (order_id, line_no, product, quantity, price) "
    "VALUES (currval('shop.orders_seq'), %s, %s, %s, %s)"
)


def read(path):
    """The settings of the file, and the database that they name."""
    with open(path, "rb") as file:
        settings = tomllib.load(file)
    target = settings["target"]
    if target == "oracle":
        return Oracle(settings)
    if target == "postgres":
        return Postgres(settings)
    raise SystemExit(f"{path}: target is {target!r}; it must be oracle or postgres")


class Oracle:
    """Through a listener with the thin driver and a pool; or, where the file
    names an Oracle home, by a local login with the client library."""

    target = "oracle"
    order = ORACLE_ORDER
    line = ORACLE_LINE

    def __init__(self, settings):
        import oracledb

        self.error = oracledb.Error
        self._oracledb = oracledb
        self._login = {"user": settings["user"], "password": settings["password"]}
        self._pool = None
        if "home" in settings:
            import os

            os.environ["ORACLE_HOME"] = settings["home"]
            os.environ["ORACLE_SID"] = settings["sid"]
            oracledb.init_oracle_client(lib_dir=settings["home"] + "/lib")
        else:
            self._login["dsn"] = settings["dsn"]

    def open_pool(self, size):
        """Connections for `size` threads. A local login has no pool: each
        thread keeps one of its own."""
        if "dsn" in self._login:
            self._pool = self._oracledb.create_pool(
                min=0, max=size, increment=1, ping_interval=-1, **self._login
            )

    def connect(self):
        if self._pool is not None:
            return self._pool.acquire()
        return self._oracledb.connect(**self._login)

    def discard(self, connection):
        """Gives a broken connection up, so that the next is a new one."""
        try:
            if self._pool is not None:
                self._pool.drop(connection)
            else:
                connection.close()
        except self.error:
            pass  # it was broken; that is why it goes


class Postgres:
    """Over TLS, verified; every thread keeps a connection of its own."""

    target = "postgres"
    order = POSTGRES_ORDER
    line = POSTGRES_LINE

    def __init__(self, settings):
        import psycopg

        self.error = psycopg.Error
        self._psycopg = psycopg
        self._conninfo = psycopg.conninfo.make_conninfo(
            host=settings["host"],
            port=settings["port"],
            dbname=settings["dbname"],
            user=settings["user"],
            password=settings["password"],
            sslmode="verify-full",
            sslrootcert=settings["ca"],
            connect_timeout=5,
        )

    def open_pool(self, size):
        pass

    def connect(self):
        return self._psycopg.connect(self._conninfo)

    def discard(self, connection):
        try:
            connection.close()
        except self.error:
            pass
