//! What is looked at: readiness, rows, the canary.

use crate::range::{PATIENCE, Range, action, shop};
use lockstep_agent::action::Undone;
use lockstep_agent::canonical::RowDigest;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};
use std::time::{Duration, Instant};

fn ready() -> Value {
    json!({
        "resource": "orcl",
        "marker_table": "LOCKSTEP.LOCKSTEP_MARKER",
        "canary_table": "LOCKSTEP.LOCKSTEP_CANARY",
        "dms_listener": "LISTENER_DMS",
        "exempt": {"users": ["DMS_USER"], "machines": []},
        "oldest_transaction_secs": 300,
    })
}

#[tokio::test(flavor = "multi_thread")]
async fn a_ready_database_names_its_clients() {
    let range = Range::start("").await;
    range.sys().await;
    let _client = shop(&range.second_listener()).unwrap();
    let _dms = oracle::Connection::connect("dms_user", "dms", range.listener()).unwrap();
    assert_eq!(
        range.finding("oracle.ready", &ready()).await,
        Finding::Pending
    );
    let outputs = range.execute("oracle.ready", &ready()).await.unwrap();
    let clients = outputs["clients"].as_array().unwrap();
    assert_eq!(clients.len(), 1, "{clients:?}");
    assert_eq!(clients[0]["username"], "SHOP");
    assert_eq!(clients[0]["sessions"], 1);
    assert!(
        range
            .said()
            .iter()
            .any(|line| line.starts_with("a session of DMS"))
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn everything_that_stands_in_the_way_is_told_at_once() {
    let range = Range::start("").await;
    range.sys().await;
    let client = shop("").unwrap();
    client
        .execute("INSERT INTO SHOP.ORDERS (ID) VALUES (1)", &[])
        .unwrap();
    let _dms = oracle::Connection::connect("dms_user", "dms", "").unwrap();
    range.control(&json!({"op": "stop", "name": "LISTENER_DMS", "by": "lsnrctl"}));
    let params = json!({
        "resource": "orcl",
        "marker_table": "SHOP.ORDERS",
        "canary_table": "LOCKSTEP.NONE",
        "dms_listener": "LISTENER_DMS",
        "exempt": {"users": ["DMS_USER"], "machines": ["elsewhere"]},
        "oldest_transaction_secs": 0,
    });
    // The age is rounded to whole seconds, so the transaction is not too old at once.
    let deadline = Instant::now() + PATIENCE;
    let story = loop {
        let error = range.probe("oracle.ready", &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2223);
        let report = error.report();
        if report.contains("a transaction has been open for") || Instant::now() >= deadline {
            break report;
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    };
    for obstacle in [
        "the marker table SHOP.ORDERS lacks RUN_ID, TASK_ID, NONCE, SCN, WRITTEN_AT",
        "no supplemental logging of its key",
        "the canary table LOCKSTEP.NONE doesn't exist",
        "the listener LISTENER_DMS reserved for DMS is down",
        "a transaction has been open for",
        "has a user of DMS but not its machine",
    ] {
        assert!(story.contains(obstacle), "{obstacle}: {story}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn rows_are_digested_as_of_the_scn_in_canonical_form() {
    let range = Range::start("").await;
    let sys = range.sys().await;
    let client = shop("").unwrap();
    let insert = "INSERT INTO SHOP.ORDERS (ID, CUSTOMER, AMOUNT, CODE, PLACED_AT, SEEN_AT, TAG) \
         VALUES (1, 'Ann', 12.50, 'ab', TO_DATE('2026-02-03 04:05:06', 'YYYY-MM-DD HH24:MI:SS'), \
         TO_TIMESTAMP('2026-02-03 04:05:06.123456', 'YYYY-MM-DD HH24:MI:SS.FF6'), HEXTORAW('0AFF'))";
    client.execute(insert, &[]).unwrap();
    client
        .execute("INSERT INTO SHOP.ORDERS (ID) VALUES (2)", &[])
        .unwrap();
    client.commit().unwrap();
    let scn: String = sys
        .row("SELECT TO_CHAR(CURRENT_SCN) FROM V$DATABASE", &[])
        .await
        .unwrap();
    client
        .execute("DELETE FROM SHOP.ORDERS WHERE ID = 1", &[])
        .unwrap();
    client.commit().unwrap();

    let params = json!({"resource": "orcl", "scn": scn, "tables": [
        {"oracle": "SHOP.ORDERS", "postgres": "shop.orders"},
        {"oracle": "SHOP.ORDER_AUDIT", "postgres": "shop.order_audit", "digest": false},
    ]});
    range.probe("oracle.rows.digest", &params).await.unwrap();
    let outputs = range.execute("oracle.rows.digest", &params).await.unwrap();
    let mut expected = RowDigest::new();
    let row = |values: [Option<&str>; 7]| values.map(|value| value.map(str::to_owned));
    expected.add(&row([
        Some("1"),
        Some("ANN"),
        Some("12.5"),
        Some("ab"),
        Some("2026-02-03 04:05:06.000000"),
        Some("2026-02-03 04:05:06.123456"),
        Some("0AFF"),
    ]));
    expected.add(&row([Some("2"), None, None, None, None, None, None]));
    let orders = &outputs["tables"]["SHOP.ORDERS"];
    assert_eq!(orders["rows"], 2);
    assert_eq!(orders["digest"], expected.finish());
    assert_eq!(orders["key"], json!([0]));
    assert_eq!(orders["sketch"].as_array().unwrap().len(), 1);
    assert_eq!(
        orders["columns"][0],
        json!({"name": "id", "kind": "number"})
    );
    assert_eq!(
        orders["columns"][5],
        json!({"name": "seen_at", "kind": "timestamp"})
    );
    assert_eq!(
        outputs["tables"]["SHOP.ORDER_AUDIT"],
        json!({"rows": 2, "digest": null})
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_the_plan_forgot_are_counted_where_both_sides_have_them() {
    let range = Range::start("CREATE TABLE SHOP.OLD (ID NUMBER(18));").await;
    let sys = range.sys().await;
    let scn: String = sys
        .row("SELECT TO_CHAR(CURRENT_SCN) FROM V$DATABASE", &[])
        .await
        .unwrap();
    let params = json!({"resource": "orcl", "scn": scn,
        "tables": [{"oracle": "SHOP.ORDERS", "postgres": "shop.orders", "digest": false}],
        "counted": ["shop.order_audit", "shop.fresh"],
        "schemas": [{"oracle": "SHOP", "postgres": "shop"}]});
    let outputs = range.execute("oracle.rows.digest", &params).await.unwrap();
    assert_eq!(
        outputs["tables"],
        json!({
            "SHOP.ORDERS": {"rows": 0, "digest": null},
            "SHOP.ORDER_AUDIT": {"rows": 0, "postgres": "shop.order_audit"},
        })
    );
    let said = range.said().join("\n");
    assert!(
        said.contains("Oracle has no table of that name: shop.fresh"),
        "{said}"
    );
    assert!(said.contains("leaves it out: SHOP.OLD"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn tables_that_are_not_there_are_told() {
    let range = Range::start("").await;
    let params = json!({"resource": "orcl", "scn": "1", "tables": [
        {"oracle": "SHOP.NONE", "postgres": "shop.none", "digest": true}]});
    let error = range
        .execute("oracle.rows.digest", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2270);
    let params = json!({"resource": "orcl", "scn": "F", "tables": []});
    let error = range
        .execute("oracle.rows.digest", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2273);
}

#[tokio::test(flavor = "multi_thread")]
async fn what_can_not_be_compared_is_seen_before_the_run_gives_its_scn() {
    let range = Range::start("").await;
    let rows = json!({"resource": "orcl", "scn": "${finalize.scn}", "counted": "${ready.tables}",
        "tables": [
            {"oracle": "SHOP.NONE", "postgres": "shop.none"},
            {"oracle": "SHOP.ORDERS", "postgres": "shop.orders", "digest": true},
            {"oracle": "SHOP.FEW", "postgres": "shop.few", "digest": true}]});
    let canary = |table: &str| json!({"resource": "orcl", "canary_table": table, "nonce": "${canary-write.nonce}"});
    let foreseen = async |name: &str, params: &Value| {
        let cx = range.context();
        action(name).describe_unresolved(&cx, params).await.unwrap()
    };
    let told = foreseen("oracle.rows.digest", &rows).await;
    assert_eq!(
        told.would_do[1],
        "digest SHOP.ORDERS AS OF SCN ${finalize.scn}"
    );
    assert_eq!(told.obstacles.len(), 2, "{:?}", told.obstacles);
    for (obstacle, table) in told.obstacles.iter().zip(["SHOP.NONE", "SHOP.FEW"]) {
        let begin = format!("LS2270: Oracle has no table {table};");
        assert!(obstacle.starts_with(&begin), "{obstacle}");
    }
    let there = foreseen("oracle.canary.await", &canary("LOCKSTEP.LOCKSTEP_CANARY")).await;
    assert_eq!(there.obstacles, Vec::<String>::new());
    let none = foreseen("oracle.canary.await", &canary("LOCKSTEP.NONE")).await;
    assert!(
        none.obstacles[0].contains("ORA-00942"),
        "{:?}",
        none.obstacles
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn the_canary_is_waited_for_and_removed_again() {
    let range = Range::start("").await;
    let name = "oracle.canary.await";
    let params = |timeout_secs: u64| {
        json!({"resource": "orcl", "canary_table": "LOCKSTEP.LOCKSTEP_CANARY",
               "nonce": "n-1", "timeout_secs": timeout_secs})
    };
    let error = range.execute(name, &params(1)).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2280);
    let params = params(60);
    let probe = range.probe(name, &params).await.unwrap();
    assert_eq!(probe.finding, Finding::Pending);
    let sys = range.sys().await;
    let insert =
        "INSERT INTO LOCKSTEP.LOCKSTEP_CANARY (RUN_ID, TASK_ID, NONCE) VALUES ('r', 't', :1)";
    let arrive = async {
        for nonce in ["n-1", "n-2"] {
            let row = (insert.to_owned(), vec![nonce.into()]);
            sys.transaction(vec![row]).await.unwrap();
        }
    };
    let (awaited, ()) = tokio::join!(range.execute(name, &params), arrive);
    awaited.unwrap();
    let again = range.finding(name, &params).await;
    assert_eq!(again, Finding::Pending, "or its undo would be left out");
    range.execute(name, &params).await.unwrap();
    let before_image = probe.before_image.unwrap();
    assert_eq!(
        range.undo(name, &params, &before_image).await.unwrap(),
        Undone::Restored
    );
    assert_eq!(
        range.undo(name, &params, &before_image).await.unwrap(),
        Undone::Unchanged
    );
    let left: i64 = sys
        .row("SELECT COUNT(*) FROM LOCKSTEP.LOCKSTEP_CANARY", &[])
        .await
        .unwrap();
    assert_eq!(left, 1, "only this run's canary is removed");
}

/// Also of tables that are only counted: the reverse task would stop at their first
/// row, after the point of no return.
#[tokio::test(flavor = "multi_thread")]
async fn identity_columns_that_refuse_the_reverse_task_are_found_in_every_table() {
    let range = Range::start("").await;
    let identity = |table: &str| json!({"owner": "SHOP", "table": table, "column": "ID"});
    let all = ["ORDERS", "EVENTS", "PRIVATE", "KNOWN", "MLOG$_ORDERS"].map(identity);
    range.control(&json!({"op": "surround", "with": {"identities": all}}));
    let rule = |action: &str, table: &str| {
        json!({"rule-type": "selection", "rule-action": action,
            "object-locator": {"schema-name": "shop", "table-name": table}})
    };
    let params = json!({"resource": "orcl", "reverse": true,
        "tables": [{"oracle": "SHOP.ORDERS", "postgres": "shop.orders"}],
        "schemas": [{"oracle": "SHOP", "postgres": "shop"}], "accept": ["shop.known.id"],
        "table_mappings": {"rules": [rule("include", "%"), rule("exclude", "private")]}});
    let name = "oracle.columns.describe";
    let error = range.probe(name, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2275);
    assert!(
        error
            .report()
            .contains("insert into SHOP.EVENTS.ID, SHOP.ORDERS.ID, GENERATED"),
        "{}",
        error.report()
    );
    let described = action(name).describe(&range.context(), &params).await;
    assert_eq!(described.unwrap().obstacles, [error.report()]);
}

/// ORA-54013 and ORA-12081 (Oracle Database Error Messages) end the reverse task's work on
/// a table as ORA-32795 does.
#[tokio::test(flavor = "multi_thread")]
async fn virtual_columns_and_read_only_tables_are_no_targets_of_the_reverse_task() {
    let range = Range::start("").await;
    let column = json!({"owner": "SHOP", "table": "ORDERS", "column": "CODE"});
    range.control(
        &json!({"op": "surround", "with": {"virtual_columns": [column],
        "read_only": [["SHOP", "ORDER_AUDIT"]]}}),
    );
    let mut params = json!({"resource": "orcl", "reverse": true,
        "tables": [{"oracle": "SHOP.ORDERS", "postgres": "shop.orders"}],
        "schemas": [{"oracle": "SHOP", "postgres": "shop"}], "table_mappings": null});
    let name = "oracle.columns.describe";
    let error = range.probe(name, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2275);
    let story = error.report();
    for named in [
        "into SHOP.ORDERS.CODE, virtual (ORA-54013)",
        "into SHOP.ORDER_AUDIT, read-only (ORA-12081)",
    ] {
        assert!(story.contains(named), "{named}: {story}");
    }
    params["accept"] = json!(["shop.orders.code", "shop.order_audit"]);
    range.probe(name, &params).await.unwrap();
    params["accept"] = json!([]);
    params["reverse"] = json!(false);
    range.probe(name, &params).await.unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn columns_are_described_for_the_other_side_and_some_left_out() {
    let range = Range::start("").await;
    let params = json!({"resource": "orcl", "reverse": true, "tables": [
        {"oracle": "SHOP.ORDERS", "postgres": "shop.orders", "except": ["tag"]},
        {"oracle": "SHOP.ORDER_AUDIT", "postgres": "shop.order_audit", "digest": false}]});
    let name = "oracle.columns.describe";
    assert_eq!(range.finding(name, &params).await, Finding::Pending);
    let outputs = range.execute(name, &params).await.unwrap();
    let orders = outputs["columns"]["SHOP.ORDERS"].as_array().unwrap();
    assert_eq!(orders[0]["name"], "id");
    assert_eq!(orders[0]["kind"], "number");
    assert_eq!(orders[0]["type"], "NUMBER");
    assert!(
        orders.iter().all(|column| column["name"] != "tag"),
        "{orders:?}"
    );
    assert!(outputs["columns"].get("SHOP.ORDER_AUDIT").is_none());
}
