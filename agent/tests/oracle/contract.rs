//! Facts about Oracle that the product relies on, checked on the simulator and,
//! if one is named, on a real database: what holds on both isn't an invention of
//! the double.
//!
//! For a real one set `LOCKSTEP_ORACLE_DSN` (`//host:port/service`),
//! `LOCKSTEP_ORACLE_USER` and `LOCKSTEP_ORACLE_PASSWORD`, and let the loader find
//! Oracle's client library. The user needs CREATE SESSION, CREATE TABLE with a
//! quota, SELECT ANY DICTIONARY and ALTER SYSTEM. The tests create and drop the
//! table LOCKSTEP_CONTRACT in its schema, and kill a session of its own.

use crate::range::Range;
use oracle::Connection;
use std::process::Command;
use std::time::Duration;

/// Views with the columns that the actions read (Oracle Database Reference).
const VIEWS: &[(&str, &str)] = &[
    (
        "GV$SESSION",
        "INST_ID, SID, SERIAL#, USERNAME, MACHINE, PROGRAM, MODULE, STATUS, TYPE, SERVICE_NAME, \
         SERVER, TADDR, SADDR, LOGON_TIME",
    ),
    ("GV$TRANSACTION", "INST_ID, SES_ADDR, START_DATE"),
    ("DBA_2PC_PENDING", "LOCAL_TRAN_ID, STATE"),
    ("DBA_SCHEDULER_RUNNING_JOBS", "OWNER, JOB_NAME"),
    (
        "DBA_SCHEDULER_JOBS",
        "OWNER, JOB_NAME, ENABLED, NEXT_RUN_DATE",
    ),
    ("DBA_JOBS_RUNNING", "JOB"),
    ("DBA_JOBS", "JOB, BROKEN, NEXT_DATE"),
    ("DBA_USERS", "USERNAME, ACCOUNT_STATUS, LAST_LOGIN"),
    (
        "DBA_TABLES",
        "OWNER, TABLE_NAME, TEMPORARY, NESTED, SECONDARY, DROPPED",
    ),
    ("DBA_EXTERNAL_TABLES", "OWNER, TABLE_NAME"),
    (
        "DBA_TAB_COLS",
        "OWNER, TABLE_NAME, COLUMN_NAME, DATA_TYPE, HIDDEN_COLUMN, VIRTUAL_COLUMN, COLUMN_ID",
    ),
    (
        "DBA_SEQUENCES",
        "SEQUENCE_OWNER, SEQUENCE_NAME, LAST_NUMBER, INCREMENT_BY, CYCLE_FLAG",
    ),
    ("DBA_LOG_GROUPS", "OWNER, TABLE_NAME, LOG_GROUP_TYPE"),
    (
        "V$DATABASE",
        "LOG_MODE, OPEN_MODE, DATABASE_ROLE, FS_FAILOVER_STATUS, SUPPLEMENTAL_LOG_DATA_MIN, \
         SUPPLEMENTAL_LOG_DATA_PK, SUPPLEMENTAL_LOG_DATA_ALL, CDB, CURRENT_SCN",
    ),
    ("GV$PARAMETER", "INST_ID, NAME, VALUE"),
    ("GV$INSTANCE", "INST_ID, INSTANCE_NAME, LOGINS"),
];

/// How to log in, again and again.
type Login<'a> = &'a dyn Fn() -> Connection;

fn one<T: oracle::sql_type::FromSql>(connection: &Connection, sql: &str) -> T {
    let value = connection.query_row_as(sql, &[]);
    assert!(value.is_ok(), "{sql}: {:?}", value.err());
    value.unwrap()
}

fn views_have_their_columns(login: Login<'_>) {
    let connection = login();
    for (view, columns) in VIEWS {
        let sql = format!("SELECT {columns} FROM {view} WHERE 1 = 0");
        let rows = connection.query(&sql, &[]);
        assert!(rows.is_ok(), "{sql}: {:?}", rows.err());
    }
}

fn texts_have_their_form(login: Login<'_>) {
    let connection = login();
    let scn: String = one(&connection, "SELECT TO_CHAR(CURRENT_SCN) FROM V$DATABASE");
    assert!(scn.parse::<u64>().is_ok(), "{scn}");
    let sql = "SELECT TO_CHAR(SYSTIMESTAMP, 'YYYY-MM-DD HH24:MI:SS.FF3') FROM DUAL";
    let at: String = one(&connection, sql);
    assert_eq!(at.len(), "2026-01-02 03:04:05.678".len(), "{at}");
}

/// A later commit is never missed, and a version query counts it.
fn commits_after_an_scn_are_seen(login: Login<'_>) {
    let (connection, sys) = (login(), login());
    // Left by an earlier failure, or not there.
    let _ = connection.execute("DROP TABLE LOCKSTEP_CONTRACT PURGE", &[]);
    let run = |sql: &str| connection.execute(sql, &[]).map(drop).unwrap();
    run("CREATE TABLE LOCKSTEP_CONTRACT (ID NUMBER PRIMARY KEY, TEXT VARCHAR2(10))");
    for id in 1..=3 {
        run(&format!("INSERT INTO LOCKSTEP_CONTRACT (ID) VALUES ({id})"));
    }
    connection.commit().unwrap();
    let scn: u64 = one(&sys, "SELECT CURRENT_SCN FROM V$DATABASE");
    let versions = || -> u64 {
        let sql = "SELECT COUNT(*) FROM LOCKSTEP_CONTRACT VERSIONS BETWEEN SCN :1 AND MAXVALUE \
                   WHERE VERSIONS_STARTSCN > :2";
        connection.query_row_as(sql, &[&scn, &scn]).unwrap()
    };
    let last = || -> u64 { one(&connection, "SELECT MAX(ORA_ROWSCN) FROM LOCKSTEP_CONTRACT") };
    assert_eq!(versions(), 0);
    if last() > scn {
        println!("ORA_ROWSCN is above the commit's SCN: only the version query decides");
    }
    run("UPDATE LOCKSTEP_CONTRACT SET TEXT = 'later' WHERE ID = 1");
    connection.commit().unwrap();
    assert!(last() > scn);
    assert_eq!(versions(), 1);
    run("DELETE FROM LOCKSTEP_CONTRACT WHERE ID = 2");
    connection.commit().unwrap();
    assert_eq!(versions(), 2);
    run("DROP TABLE LOCKSTEP_CONTRACT PURGE");
}

/// A killed session is removed at once, or stays as KILLED with the server
/// PSEUDO until its client uses it.
fn a_killed_session_is_removed_or_a_pseudo_one(login: Login<'_>) {
    let (killer, victim) = (login(), login());
    let own = "SELECT s.SID || ',' || s.SERIAL# FROM V$SESSION s \
               WHERE s.SID = SYS_CONTEXT('USERENV', 'SID')";
    let id: String = one(&victim, own);
    let kill = format!("ALTER SYSTEM KILL SESSION '{id}' IMMEDIATE");
    killer.execute(&kill, &[]).unwrap();
    let sql = "SELECT STATUS, SERVER FROM V$SESSION WHERE SID || ',' || SERIAL# = :1";
    let deadline = std::time::Instant::now() + Duration::from_secs(60);
    loop {
        let left = killer.query_as::<(String, String)>(sql, &[&id]).unwrap();
        let left: Vec<_> = left.map(Result::unwrap).collect();
        println!("after KILL SESSION … IMMEDIATE: {left:?}");
        let ended = |(status, server): &(String, String)| status == "KILLED" && server == "PSEUDO";
        if left.iter().all(ended) {
            break;
        }
        assert!(std::time::Instant::now() < deadline, "{left:?}");
        std::thread::sleep(Duration::from_millis(200));
    }
    let error = victim.query("SELECT 1 FROM DUAL", &[]).err();
    assert!(error.is_some(), "the killed session still works");
}

/// Without this the fence doesn't see a login that ends between two checks.
fn a_login_moves_last_login(login: Login<'_>) {
    let connection = login();
    let sql = "SELECT NVL(TO_CHAR(LAST_LOGIN, 'YYYY-MM-DD HH24:MI:SS'), 'never') FROM DBA_USERS \
               WHERE USERNAME = USER";
    let before: String = one(&connection, sql);
    // LAST_LOGIN has whole seconds.
    std::thread::sleep(Duration::from_millis(1100));
    drop(login());
    let after: String = one(&connection, sql);
    assert_ne!(before, after, "LAST_LOGIN is switched off or thinned out");
}

const FACTS: &[fn(Login<'_>)] = &[
    views_have_their_columns,
    texts_have_their_form,
    commits_after_an_scn_are_seen,
    a_killed_session_is_removed_or_a_pseudo_one,
    a_login_moves_last_login,
];

#[tokio::test(flavor = "multi_thread")]
async fn the_simulator_keeps_the_contract() {
    let grants = "CREATE USER CONTRACT IDENTIFIED BY contract;\nGRANT DBA TO CONTRACT;\n";
    let _range = Range::start(grants).await;
    tokio::task::spawn_blocking(|| {
        let login = || Connection::connect("contract", "contract", "").unwrap();
        FACTS.iter().for_each(|fact| fact(&login));
    })
    .await
    .unwrap();
}

#[test]
fn a_real_oracle_keeps_the_contract() {
    let of = |name: &str| std::env::var(name).ok().filter(|value| !value.is_empty());
    let Some(dsn) = of("LOCKSTEP_ORACLE_DSN") else {
        println!("skipped: LOCKSTEP_ORACLE_DSN isn't set, so no real Oracle was asked");
        return;
    };
    let user = of("LOCKSTEP_ORACLE_USER").unwrap();
    let password = of("LOCKSTEP_ORACLE_PASSWORD").unwrap();
    let login = || Connection::connect(&user, &password, &dsn).unwrap();
    FACTS.iter().for_each(|fact| fact(&login));
    // What a login does to SIGCHLD must not take the exit status of a child.
    let ended = Command::new("true").status();
    println!("a child's exit status after the login: {ended:?}");
}
