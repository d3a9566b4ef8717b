//! The `oracle` crate, unmodified, through the client library double to a
//! scripted database: what the frontend itself must get right.

#![expect(clippy::unwrap_used, reason = "a test stops at the first surprise")]

mod support;

use oracle::sql_type::{OracleType, Timestamp};
use oracle::{Connection, Connector, Error, Privilege};
use oracle_simulator::api::{DateTime, Frontend, Kind, OraError, Reply, Value};
use oracle_simulator::wire::{Client, Execute, Logon, Request, Stream, Target};
use std::thread;
use std::time::Duration;
use support::{Instance, column, instance};

fn sysdba() -> (&'static Instance, Connection) {
    let instance = instance();
    let connection = Connector::new("", "", "")
        .external_auth(true)
        .privilege(Privilege::Sysdba)
        .connect()
        .unwrap();
    (instance, connection)
}

/// The session's id, by the one statement that knows it.
fn sid(connection: &Connection) -> u32 {
    connection.set_module("sid").unwrap();
    let database = &instance().database;
    // The scripts do not know who asks; the log does.
    connection.commit().unwrap();
    (1..)
        .find(|sid| database.count(&format!("{sid} is Some(\"sid\") None")) > 0 && claim(*sid))
        .unwrap()
}

/// Every session id is found once.
fn claim(sid: u32) -> bool {
    static CLAIMED: std::sync::Mutex<Vec<u32>> = std::sync::Mutex::new(Vec::new());
    let mut claimed = CLAIMED.lock().unwrap();
    let fresh = !claimed.contains(&sid);
    claimed.push(sid);
    fresh
}

#[track_caller]
fn code(result: Result<impl Sized, Error>) -> i32 {
    result
        .err()
        .expect("an error")
        .oci_code()
        .expect("an ORA code")
}

/// Answers "select every type" with a row of every type and a row of NULLs.
fn answer_every_type(database: &support::Scripted) {
    let day = DateTime {
        year: 2024,
        month: 2,
        day: 29,
        hour: 13,
        minute: 14,
        second: 15,
        nanos: 0,
    };
    database.on_query(
        "select every type",
        vec![
            column("V", Kind::Varchar2(60)),
            column("C", Kind::Char(5)),
            column("I", Kind::Number(9, 0)),
            column("BIG", Kind::Number(38, 0)),
            column("F", Kind::Number(0, -127)),
            column("D", Kind::Date),
            column("T", Kind::Timestamp(6)),
            column("R", Kind::Raw(16)),
            column("EMPTY", Kind::Varchar2(1)),
        ],
        vec![
            vec![
                Value::Text("Grüße".into()),
                Value::Text("ab   ".into()),
                Value::Number("-42".into()),
                Value::Number("12345678901234567890123456789012345678".into()),
                Value::Number("-1234.5678".into()),
                Value::DateTime(day),
                Value::DateTime(DateTime {
                    nanos: 123_456_000,
                    ..day
                }),
                Value::Raw(vec![0, 255, 16]),
                Value::Null,
            ],
            vec![Value::Null; 9],
        ],
    );
}

#[test]
fn values_of_every_type_arrive() {
    let (instance, connection) = sysdba();
    answer_every_type(&instance.database);
    let rows: Vec<_> = connection
        .query("select every type", &[])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    let row = &rows[0];
    assert_eq!(row.get::<_, String>("V").unwrap(), "Grüße");
    assert_eq!(row.get::<_, String>("C").unwrap(), "ab   ");
    assert_eq!(row.get::<_, i64>("I").unwrap(), -42);
    assert_eq!(
        row.get::<_, String>("BIG").unwrap(),
        "12345678901234567890123456789012345678"
    );
    assert_eq!(row.get::<_, String>("F").unwrap(), "-1234.5678");
    assert_eq!(
        row.get::<_, Timestamp>("D").unwrap(),
        Timestamp::new(2024, 2, 29, 13, 14, 15, 0).unwrap()
    );
    let precise = Timestamp::new(2024, 2, 29, 13, 14, 15, 123_456_000).unwrap();
    assert_eq!(row.get::<_, Timestamp>("T").unwrap(), precise);
    assert_eq!(row.get::<_, Vec<u8>>("R").unwrap(), [0, 255, 16]);
    assert_eq!(row.get::<_, Option<String>>("EMPTY").unwrap(), None);
    assert_eq!(
        *row.column_info()[0].oracle_type(),
        OracleType::Varchar2(60)
    );
    assert_eq!(
        *row.column_info()[4].oracle_type(),
        OracleType::Number(0, -127)
    );
    assert_eq!(
        *row.column_info()[6].oracle_type(),
        OracleType::Timestamp(6)
    );
    for index in 0..9 {
        assert!(
            rows[1].get::<_, Option<String>>(index).unwrap().is_none(),
            "column {index}"
        );
    }
}

#[test]
fn binds_arrive_by_position_and_by_name() {
    let (instance, connection) = sysdba();
    instance.database.on("insert :1 :2 :3 :4 :5", |binds| {
        let names: Vec<&str> = binds.iter().map(|bind| bind.name.as_str()).collect();
        assert_eq!(names, ["1", "2", "3", "4", "5"]);
        assert_eq!(binds[0].value, Value::Text("héllo".into()));
        assert_eq!(binds[1].value, Value::Number("42".into()));
        assert_eq!(binds[2].value, Value::Number("-1.25".into()));
        assert_eq!(binds[3].value, Value::Null);
        assert_eq!(binds[4].value, Value::Raw(vec![1, 2]));
        Ok(Reply::Affected {
            rows: 3,
            returned: vec![],
        })
    });
    let raw: &[u8] = &[1, 2];
    let bound: [&dyn oracle::sql_type::ToSql; 5] = [&"héllo", &42, &-1.25, &None::<String>, &raw];
    let statement = connection.execute("insert :1 :2 :3 :4 :5", &bound).unwrap();
    assert_eq!(statement.row_count().unwrap(), 3);

    instance.database.on("update :Day :n", |binds| {
        assert_eq!(binds[0].name, "DAY");
        let day = DateTime {
            year: 2024,
            month: 1,
            day: 2,
            hour: 3,
            minute: 4,
            second: 5,
            nanos: 6,
        };
        assert_eq!(binds[0].value, Value::DateTime(day));
        assert_eq!(
            (binds[1].name.as_str(), &binds[1].value),
            ("N", &Value::Number("7".into()))
        );
        Ok(Reply::Affected {
            rows: 1,
            returned: vec![],
        })
    });
    let day = Timestamp::new(2024, 1, 2, 3, 4, 5, 6).unwrap();
    connection
        .execute_named("update :Day :n", &[("n", &7), ("Day", &day)])
        .unwrap();
}

#[test]
fn a_result_larger_than_a_fetch_comes_whole_and_in_order() {
    let (instance, connection) = sysdba();
    let rows = (0..2_345)
        .map(|n| vec![Value::Number(n.to_string())])
        .collect();
    instance
        .database
        .on_query("select many", vec![column("N", Kind::Number(10, 0))], rows);
    let fetched: Vec<u32> = connection
        .query_as("select many", &[])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(fetched, (0..2_345).collect::<Vec<u32>>());
    // A cursor left half-read does not disturb what follows.
    assert_eq!(
        connection.query_row_as::<u32>("select many", &[]).unwrap(),
        0
    );
    assert_eq!(
        connection
            .query_as::<u32>("select many", &[])
            .unwrap()
            .count(),
        2_345
    );
}

#[test]
fn values_too_long_for_a_static_buffer_go_by_pieces() {
    let (instance, connection) = sysdba();
    let long = "0123456789äöü".repeat(15_000);
    let row = vec![Value::Text(long.clone())];
    instance.database.on_query(
        "select long",
        vec![column("L", Kind::Varchar2(32_767))],
        vec![row; 3],
    );
    let fetched: Vec<String> = connection
        .query_as("select long", &[])
        .unwrap()
        .map(Result::unwrap)
        .collect();
    assert_eq!(fetched, vec![long.clone(); 3]);

    let expected = long.clone();
    instance.database.on("insert long :1", move |binds| {
        assert_eq!(binds[0].value, Value::Text(expected.clone()));
        Ok(Reply::Affected {
            rows: 1,
            returned: vec![],
        })
    });
    connection.execute("insert long :1", &[&long]).unwrap();
}

#[test]
fn blocks_give_out_values_back() {
    let (instance, connection) = sysdba();
    let sql = "begin :text := f(:n); :number := :n; end;";
    instance.database.on(sql, |binds| {
        let names: Vec<&str> = binds.iter().map(|bind| bind.name.as_str()).collect();
        assert_eq!(names, ["TEXT", "N", "NUMBER"]);
        assert_eq!(binds[1].value, Value::Number("5".into()));
        let out = vec![
            ("TEXT".into(), Value::Text("hello".into())),
            ("NUMBER".into(), Value::Number("77".into())),
        ];
        Ok(Reply::Block { out })
    });
    let bound: [&dyn oracle::sql_type::ToSql; 3] =
        [&OracleType::Varchar2(40), &5, &OracleType::Number(0, 0)];
    let statement = connection.execute(sql, &bound).unwrap();
    assert_eq!(statement.bind_value::<_, String>(1).unwrap(), "hello");
    assert_eq!(statement.bind_value::<_, i64>(3).unwrap(), 77);
}

#[test]
fn returning_gives_as_many_values_as_rows() {
    let (instance, connection) = sysdba();
    let sql = "update t set a = :a returning id, name into :id, :name";
    instance.database.on(sql, |binds| {
        assert_eq!(binds[0].value, Value::Text("x".into()));
        assert_eq!(binds[1].value, Value::Null);
        let mut returned = Vec::new();
        for (id, name) in [("1", "one"), ("2", "two")] {
            returned.push(("ID".into(), Value::Number(id.into())));
            returned.push(("NAME".into(), Value::Text(name.into())));
        }
        Ok(Reply::Affected { rows: 2, returned })
    });
    let bound: [(&str, &dyn oracle::sql_type::ToSql); 3] = [
        ("a", &"x"),
        ("id", &OracleType::Number(0, 0)),
        ("name", &OracleType::Varchar2(20)),
    ];
    let statement = connection.execute_named(sql, &bound).unwrap();
    assert_eq!(statement.row_count().unwrap(), 2);
    assert_eq!(statement.returned_values::<_, i64>("id").unwrap(), [1, 2]);
    assert_eq!(
        statement.returned_values::<_, String>("name").unwrap(),
        ["one", "two"]
    );
}

#[test]
fn arrays_are_executed_row_by_row() {
    let (instance, connection) = sysdba();
    let sql = "insert array :1 :2";
    instance.database.on(sql, |binds| match &binds[0].value {
        Value::Number(n) if n == "3" => Err(OraError::new(1, "unique constraint violated")),
        _ => Ok(Reply::Affected {
            rows: 1,
            returned: vec![],
        }),
    });
    let mut batch = connection.batch(sql, 10).with_row_counts().build().unwrap();
    for n in [1, 2, 4] {
        batch.append_row(&[&n, &"v"]).unwrap();
    }
    batch.execute().unwrap();
    assert_eq!(batch.row_counts().unwrap(), [1, 1, 1]);

    let mut batch = connection
        .batch(sql, 10)
        .with_batch_errors()
        .with_row_counts()
        .build()
        .unwrap();
    for n in [1, 3, 4, 3] {
        batch.append_row(&[&n, &"v"]).unwrap();
    }
    let error = batch.execute().expect_err("two rows are refused");
    let failed: Vec<_> = error
        .batch_errors()
        .unwrap()
        .iter()
        .map(|error| (error.offset(), error.code()))
        .collect();
    assert_eq!(failed, [(1, 1), (3, 1)]);
    assert_eq!(batch.row_counts().unwrap(), [1, 0, 1, 0]);
}

#[test]
fn an_error_has_code_text_and_place() {
    let (_, connection) = sysdba();
    let error = connection
        .query("select * from nowhere", &[])
        .err()
        .unwrap();
    let db = error.db_error().unwrap();
    assert_eq!((db.code(), db.offset()), (942, 14));
    assert_eq!(db.message(), "ORA-00942: table or view does not exist");
    connection.ping().unwrap();
}

#[test]
fn transactions_end_as_told_and_tags_ride_along() {
    let (instance, connection) = sysdba();
    instance.database.on("delete t", |_| {
        Ok(Reply::Affected {
            rows: 1,
            returned: vec![],
        })
    });
    let sid = sid(&connection);
    connection.set_module("agent").unwrap();
    connection.set_action("probe").unwrap();
    connection.execute("delete t", &[]).unwrap();
    assert_eq!(
        instance
            .database
            .count(&format!("{sid} is Some(\"agent\") Some(\"probe\")")),
        1
    );
    connection.rollback().unwrap();
    assert_eq!(instance.database.count(&format!("{sid} rolls back")), 1);
    // Closing rolls back what is open, and only then.
    connection.execute("delete t", &[]).unwrap();
    connection.close().unwrap();
    instance.database.wait_for(&format!("{sid} is gone"));
    assert_eq!(instance.database.count(&format!("{sid} rolls back")), 2);
    assert_eq!(instance.database.count(&format!("{sid} logs off")), 1);
}

#[test]
fn a_call_timeout_leaves_the_session_usable() {
    let (instance, connection) = sysdba();
    instance.database.on_query(
        "select one",
        vec![column("N", Kind::Number(1, 0))],
        vec![vec![Value::Number("1".into())]],
    );
    connection
        .set_call_timeout(Some(Duration::from_millis(100)))
        .unwrap();
    let error = connection.execute("begin sleep; end;", &[]).err().unwrap();
    assert_eq!(error.dpi_code(), Some(1067), "{error}");
    assert!(error.to_string().contains("ORA-03136"), "{error}");
    assert_eq!(
        connection.query_row_as::<u32>("select one", &[]).unwrap(),
        1
    );
    assert_eq!(
        connection.call_timeout().unwrap(),
        Some(Duration::from_millis(100))
    );
}

#[test]
fn a_break_from_another_thread_ends_the_call() {
    let (instance, connection) = sysdba();
    let sid = sid(&connection);
    thread::scope(|scope| {
        let caller = scope.spawn(|| code(connection.execute("begin sleep; end;", &[])));
        instance.database.wait_for(&format!("{sid} sleeps"));
        connection.break_execution().unwrap();
        assert_eq!(caller.join().unwrap(), 1013);
    });
    connection.ping().unwrap();
}

#[test]
fn a_killed_session_is_told_once_and_stays_dead() {
    let (instance, connection) = sysdba();
    let sid = sid(&connection);
    instance.database.kill(sid);
    // ODPI-C wraps what ends a session in a code of its own.
    let error = connection.ping().err().unwrap();
    assert_eq!(error.dpi_code(), Some(1080), "{error}");
    assert!(error.to_string().contains("ORA-00028"), "{error}");
    assert!(connection.commit().is_err());
    assert_ne!(connection.status().unwrap(), oracle::ConnStatus::Normal);
}

#[test]
fn the_listener_frontend_takes_passwords_and_no_operating_system_login() {
    let instance = instance();
    let dsn = format!("127.0.0.1:{}/ORCL", instance.port);
    let connection = Connection::connect("shop", "secret", &dsn).unwrap();
    connection.ping().unwrap();
    let sid = sid(&connection);
    let login = instance.database.login(sid);
    assert_eq!(login.frontend, Frontend::Listener("LISTENER".into()));
    assert_eq!(
        (login.service.as_str(), login.address.as_str()),
        ("ORCL", "127.0.0.1")
    );
    assert_eq!(login.process, std::process::id().to_string());
    let descriptor = format!(
        "(DESCRIPTION=(ADDRESS=(PROTOCOL=TCP)(HOST=127.0.0.1)(PORT={}))(CONNECT_DATA=(SERVICE_NAME=ORCL)))",
        instance.port
    );
    Connection::connect("shop", "secret", &descriptor)
        .unwrap()
        .close()
        .unwrap();

    assert_eq!(code(Connection::connect("shop", "wrong", &dsn)), 1017);
    let unknown = format!("//127.0.0.1:{}/NOPE", instance.port);
    assert_eq!(code(Connection::connect("shop", "secret", unknown)), 12514);
    assert_eq!(
        code(Connection::connect("shop", "secret", "no_such_alias")),
        12154
    );
    let mut outside = Connector::new("", "", &dsn);
    assert_eq!(
        code(
            outside
                .external_auth(true)
                .privilege(Privilege::Sysdba)
                .connect()
        ),
        1017
    );
}

#[test]
fn nobody_listening_is_no_listener() {
    instance();
    // A port that was free a moment ago.
    let port = std::net::TcpListener::bind("127.0.0.1:0")
        .unwrap()
        .local_addr()
        .unwrap()
        .port();
    assert_eq!(
        code(Connection::connect(
            "shop",
            "secret",
            format!("127.0.0.1:{port}/ORCL")
        )),
        12541
    );
}

#[test]
fn a_client_that_dies_in_a_call_leaves_no_session() {
    let instance = instance();
    let target = Target::Tcp {
        host: "127.0.0.1".into(),
        port: instance.port,
    };
    let stream = Stream::connect(&target).unwrap();
    let wire = stream.try_clone().unwrap();
    let client = Client::attach(stream, "ORCL").unwrap();
    let logon = Logon {
        password: Some(("shop".into(), "secret".into())),
        sysdba: false,
        machine: "m".into(),
        program: "p".into(),
        os_user: "u".into(),
        process: "1".into(),
    };
    let answer = client
        .call(Request::Logon(logon), vec![], None, None)
        .unwrap();
    let oracle_simulator::wire::Outcome::Answered(response) = answer else {
        panic!("no timeout was set")
    };
    let Ok(oracle_simulator::wire::Answer::LoggedOn { sid, .. }) = response.result else {
        panic!("{response:?}")
    };
    thread::scope(|scope| {
        scope.spawn(|| {
            let rows = vec![vec![]];
            let sql = "begin sleep; end;".into();
            let execute = Execute {
                sql,
                rows,
                commit: false,
                keep_going: false,
                first_rows: 1,
            };
            assert!(
                client
                    .call(Request::Execute(execute), vec![], None, None)
                    .is_err()
            );
        });
        instance.database.wait_for(&format!("{sid} sleeps"));
        wire.close();
    });
    instance.database.wait_for(&format!("{sid} is gone"));
    assert_eq!(instance.database.count(&format!("{sid} logs off")), 0);
}
