//! The `oracle` crate, unmodified, through the client library double to the
//! simulator's engine: what an agent on the database host does all day.
//!
//! These tests are a contract: where `LOCKSTEP_ORACLE_DSN` and
//! `LOCKSTEP_ORACLE_SYS_PASSWORD` name a real database (19c or later, to be
//! thrown away afterwards), they run against it with the real client library,
//! and say which of the two they ran against.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod under_test;

use oracle::sql_type::{OracleType, Timestamp};
use oracle::{ConnStatus, Connection, Error};
use std::thread;
use std::time::{Duration, Instant};
use under_test::{database, shop, sysdba};

/// How long a test waits for something that is sure to come.
const PATIENCE: Duration = Duration::from_secs(30);

/// SID and SERIAL# of a session. Only SYS may look into V$SESSION.
fn session_of(connection: &Connection, observer: &Connection) -> (u32, u32) {
    let sid = "SELECT TO_NUMBER(SYS_CONTEXT('USERENV', 'SID')) FROM DUAL";
    let sid: u32 = connection.query_row_as(sid, &[]).unwrap();
    let serial = "SELECT SERIAL# FROM V$SESSION WHERE SID = :1";
    (sid, observer.query_row_as(serial, &[&sid]).unwrap())
}

fn wait_until(what: &str, mut ready: impl FnMut() -> bool) {
    let deadline = Instant::now() + PATIENCE;
    while !ready() {
        assert!(Instant::now() < deadline, "{what}");
        thread::sleep(Duration::from_millis(5));
    }
}

#[track_caller]
fn code(result: Result<impl Sized, Error>) -> i32 {
    result
        .err()
        .expect("an error")
        .oci_code()
        .expect("an ORA code")
}

#[test]
fn the_local_login_is_sys_and_shows_in_the_session_view() {
    let connection = sysdba();
    let (sid, _) = session_of(&connection, &connection);
    let sql = "SELECT USERNAME, TYPE, PROCESS FROM V$SESSION WHERE SID = :1";
    let (user, kind, process): (String, String, String) =
        connection.query_row_as(sql, &[&sid]).unwrap();
    assert_eq!((user.as_str(), kind.as_str()), ("SYS", "USER"));
    assert_eq!(process, std::process::id().to_string());
    if database().is_simulator() {
        let info = connection.info().unwrap();
        assert_eq!(
            (info.db_name.as_str(), info.instance_name.as_str()),
            ("ORCL", "ORCL1")
        );
    }
    assert!(connection.server_version().unwrap().0.major() >= 19);
}

#[test]
fn a_wrong_password_is_refused() {
    let dsn = database().dsn();
    assert_eq!(
        code(Connection::connect("lockstep_contract", "wrong", dsn)),
        1017
    );
    assert_eq!(code(Connection::connect("nobody", "secret", dsn)), 1017);
}

#[test]
fn a_locked_account_is_refused_until_it_is_unlocked() {
    let (admin, dsn) = (sysdba(), database().dsn());
    let user = format!("LOCKSTEP_LOCKED_{}", std::process::id());
    admin
        .execute(&format!("CREATE USER {user} IDENTIFIED BY secret"), &[])
        .unwrap();
    admin
        .execute(&format!("GRANT CREATE SESSION TO {user}"), &[])
        .unwrap();
    admin
        .execute(&format!("ALTER USER {user} ACCOUNT LOCK"), &[])
        .unwrap();
    assert_eq!(code(Connection::connect(&user, "secret", dsn)), 28000);
    admin
        .execute(&format!("ALTER USER {user} ACCOUNT UNLOCK"), &[])
        .unwrap();
    Connection::connect(&user, "secret", dsn)
        .unwrap()
        .close()
        .unwrap();
}

#[test]
fn what_one_session_commits_another_sees() {
    let (writer, reader) = (shop(), sysdba());
    writer
        .execute("DELETE FROM ORDERS WHERE ID BETWEEN 100 AND 199", &[])
        .unwrap();
    writer.commit().unwrap();
    let count = || {
        reader
            .query_row_as::<u32>(
                "SELECT COUNT(*) FROM LOCKSTEP_CONTRACT.ORDERS WHERE ID BETWEEN 100 AND 199",
                &[],
            )
            .unwrap()
    };
    let placed = Timestamp::new(2024, 2, 29, 13, 14, 15, 0).unwrap();
    let insert = "INSERT INTO ORDERS (ID, CUSTOMER, AMOUNT, PLACED_AT) VALUES (:1, :2, :3, :4)";
    let bound: [&dyn oracle::sql_type::ToSql; 4] = [&100, &"Grüße", &"12.50", &placed];
    assert_eq!(
        writer.execute(insert, &bound).unwrap().row_count().unwrap(),
        1
    );
    assert_eq!(count(), 0);
    writer.rollback().unwrap();
    writer.execute(insert, &bound).unwrap();
    writer.commit().unwrap();
    assert_eq!(count(), 1);
    let row: (u64, String, f64, Timestamp) = reader
        .query_row_as_named(
            "SELECT ID, CUSTOMER, AMOUNT, PLACED_AT FROM LOCKSTEP_CONTRACT.ORDERS WHERE ID = :id",
            &[("id", &100)],
        )
        .unwrap();
    assert_eq!((row.0, row.1.as_str(), row.2), (100, "Grüße", 12.5));
    assert_eq!(row.3, placed);
    let update =
        "UPDATE ORDERS SET AMOUNT = AMOUNT * 2 WHERE ID = :id RETURNING AMOUNT INTO :amount";
    let bound: [(&str, &dyn oracle::sql_type::ToSql); 2] =
        [("id", &100), ("amount", &OracleType::Number(0, 0))];
    let statement = writer.execute_named(update, &bound).unwrap();
    assert_eq!(statement.returned_values::<_, i64>("amount").unwrap(), [25]);
    writer.commit().unwrap();
}

#[test]
fn a_batch_goes_in_and_comes_out_over_many_fetches() {
    let connection = shop();
    connection
        .execute("DELETE FROM ORDERS WHERE ID >= 10000", &[])
        .unwrap();
    let insert = "INSERT INTO ORDERS (ID, CUSTOMER) VALUES (:1, :2)";
    let mut batch = connection.batch(insert, 100).build().unwrap();
    for id in 10_000..11_250 {
        batch.append_row(&[&id, &format!("customer {id}")]).unwrap();
    }
    batch.execute().unwrap();
    connection.commit().unwrap();
    let ids: Vec<u32> = connection
        .query_as("SELECT ID FROM ORDERS WHERE ID >= 10000 ORDER BY ID", &[])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(ids, (10_000..11_250).collect::<Vec<u32>>());
}

#[test]
fn timestamps_raw_and_padded_text_keep_their_values() {
    let connection = shop();
    let at = Timestamp::new(2024, 1, 2, 3, 4, 5, 123_456_000).unwrap();
    let tag: &[u8] = &[0, 255];
    let bound: [&dyn oracle::sql_type::ToSql; 4] = [&1, &at, &tag, &"ab"];
    connection
        .execute(
            "INSERT INTO TIMED (ID, AT, TAG, CODE) VALUES (:1, :2, :3, :4)",
            &bound,
        )
        .unwrap();
    connection
        .execute("INSERT INTO TIMED (ID) VALUES (2)", &[])
        .unwrap();
    type Row = (Option<Timestamp>, Option<Vec<u8>>, Option<String>);
    let rows: Vec<Row> = connection
        .query_as("SELECT AT, TAG, CODE FROM TIMED ORDER BY ID", &[])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(
        rows,
        [
            (Some(at), Some(tag.to_vec()), Some("ab  ".into())),
            (None, None, None)
        ]
    );
    connection.rollback().unwrap();
}

#[test]
fn a_block_gives_values_back() {
    let connection = sysdba();
    let bound: [&dyn oracle::sql_type::ToSql; 2] =
        [&OracleType::Varchar2(40), &OracleType::Number(0, 0)];
    let statement = connection
        .execute("BEGIN :text := 'hello'; :n := 5; END;", &bound)
        .unwrap();
    assert_eq!(statement.bind_value::<_, String>(1).unwrap(), "hello");
    assert_eq!(statement.bind_value::<_, i64>(2).unwrap(), 5);
}

#[test]
fn errors_carry_code_and_place() {
    let connection = shop();
    assert_eq!(
        code(connection.query("SELECT * FROM NO_SUCH_TABLE", &[])),
        942
    );
    let error = connection
        .query("SELECT 1 FROM DUAL WHERE = 1", &[])
        .err()
        .unwrap();
    let db = error.db_error().unwrap();
    assert_eq!((db.code(), db.offset()), (936, 25));
    connection
        .execute("INSERT INTO ORDERS (ID, CUSTOMER) VALUES (1, 'a')", &[])
        .unwrap();
    assert_eq!(
        code(connection.execute("INSERT INTO ORDERS (ID, CUSTOMER) VALUES (1, 'b')", &[])),
        1
    );
    assert_eq!(
        code(connection.execute("INSERT INTO ORDERS (ID) VALUES (2)", &[])),
        1400
    );
    assert_eq!(
        code(connection.execute("ALTER SYSTEM CHECKPOINT", &[])),
        1031
    );
    connection.rollback().unwrap();
}

#[test]
fn a_call_timeout_and_a_break_leave_the_session_usable() {
    let (connection, observer) = (shop(), sysdba());
    connection
        .set_call_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = connection
        .execute("BEGIN DBMS_SESSION.SLEEP(30); END;", &[])
        .err()
        .unwrap();
    assert_eq!(error.dpi_code(), Some(1067), "{error}");
    connection.set_call_timeout(None).unwrap();
    let (sid, _) = session_of(&connection, &observer);
    thread::scope(|scope| {
        let caller =
            scope.spawn(|| code(connection.execute("BEGIN DBMS_SESSION.SLEEP(30); END;", &[])));
        wait_until("the call is not seen to run", || {
            let active = "SELECT COUNT(*) FROM V$SESSION WHERE SID = :1 AND STATUS = 'ACTIVE'";
            observer.query_row_as::<u32>(active, &[&sid]).unwrap() == 1
        });
        connection.break_execution().unwrap();
        assert_eq!(caller.join().unwrap(), 1013);
    });
    connection.ping().unwrap();
}

#[test]
fn a_killed_session_is_told_and_its_work_is_undone() {
    let (victim, killer) = (shop(), sysdba());
    victim
        .execute(
            "INSERT INTO ORDERS (ID, CUSTOMER) VALUES (900, 'victim')",
            &[],
        )
        .unwrap();
    let (sid, serial) = session_of(&victim, &killer);
    killer
        .execute(
            &format!("ALTER SYSTEM KILL SESSION '{sid},{serial}' IMMEDIATE"),
            &[],
        )
        .unwrap();
    let error = victim.query("SELECT 1 FROM DUAL", &[]).err().unwrap();
    assert_eq!(error.dpi_code(), Some(1080), "{error}");
    assert!(error.to_string().contains("ORA-00028"), "{error}");
    assert_ne!(victim.status().unwrap(), ConnStatus::Normal);
    let left: u32 = killer
        .query_row_as(
            "SELECT COUNT(*) FROM LOCKSTEP_CONTRACT.ORDERS WHERE ID = 900",
            &[],
        )
        .unwrap();
    assert_eq!(left, 0);
}

#[test]
fn a_connection_that_is_dropped_leaves_no_session_and_no_work() {
    let observer = sysdba();
    let connection = shop();
    let (sid, serial) = session_of(&connection, &observer);
    connection
        .execute(
            "INSERT INTO ORDERS (ID, CUSTOMER) VALUES (901, 'gone')",
            &[],
        )
        .unwrap();
    drop(connection);
    wait_until("the session stays", || {
        let sql = "SELECT COUNT(*) FROM V$SESSION WHERE SID = :1 AND SERIAL# = :2";
        observer.query_row_as::<u32>(sql, &[&sid, &serial]).unwrap() == 0
    });
    let left: u32 = observer
        .query_row_as(
            "SELECT COUNT(*) FROM LOCKSTEP_CONTRACT.ORDERS WHERE ID = 901",
            &[],
        )
        .unwrap();
    assert_eq!(left, 0);
}
