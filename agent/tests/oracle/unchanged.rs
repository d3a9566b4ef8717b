//! Oracle's last change: whatever is committed after the proved SCN is found
//! before PostgreSQL is opened.

use crate::range::{Range, action, shop};
use lockstep_api::Code;
use oracle::{Connection, Connector, Privilege};
use serde_json::{Value, json};

const NAME: &str = "oracle.rows.unchanged";

/// SYS at a terminal: a session that the fence never counts.
pub fn by_hand() -> Connection {
    Connector::new("", "", "")
        .external_auth(true)
        .privilege(Privilege::Sysdba)
        .connect()
        .unwrap()
}

fn commit(connection: &Connection, statements: &[&str]) {
    for statement in statements {
        connection.execute(statement, &[]).unwrap();
    }
    connection.commit().unwrap();
}

/// Orders 1 to 6, which are more than one block, then the proved SCN.
async fn proved(range: &Range) -> Value {
    range.sys().await;
    let client = shop("").unwrap();
    for id in 1..=6 {
        let insert = "INSERT INTO SHOP.ORDERS (ID) VALUES (:1)";
        client.execute(insert, &[&id]).unwrap();
    }
    client.commit().unwrap();
    client.close().unwrap();
    prove(range).await
}

/// The parameters of a check against the present state.
async fn prove(range: &Range) -> Value {
    let scn: String = range
        .sys()
        .await
        .row("SELECT TO_CHAR(CURRENT_SCN) FROM V$DATABASE", &[])
        .await
        .unwrap();
    let compared = json!({"resource": "orcl", "scn": scn, "tables": [
        {"oracle": "SHOP.ORDERS", "postgres": "shop.orders", "digest": true}]});
    let outputs = range
        .execute("oracle.rows.digest", &compared)
        .await
        .unwrap();
    json!({
        "resource": "orcl",
        "scn": scn,
        "schemas": ["SHOP", "LOCKSTEP"],
        "except": ["LOCKSTEP.LOCKSTEP_MARKER", "LOCKSTEP.LOCKSTEP_CANARY"],
        "expected": outputs["tables"],
        "exempt": {"users": ["DMS_USER"], "machines": []},
    })
}

async fn refusal(range: &Range, params: &Value) -> String {
    let error = range.execute(NAME, params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2253, "{}", error.report());
    error.report()
}

#[tokio::test(flavor = "multi_thread")]
async fn only_the_marker_and_the_canary_may_change_after_the_scn() {
    let range = Range::start("").await;
    let params = proved(&range).await;
    let canary =
        "INSERT INTO LOCKSTEP.LOCKSTEP_CANARY (RUN_ID, TASK_ID, NONCE) VALUES ('r', 't', 'n')";
    commit(&by_hand(), &[canary]);
    range.probe(NAME, &params).await.unwrap();
    range.execute(NAME, &params).await.unwrap();
    let said = range.said().join("\n");
    assert!(said.contains("nothing was committed after SCN"), "{said}");
}

#[tokio::test(flavor = "multi_thread")]
async fn whatever_sys_commits_after_the_scn_is_named_by_its_table() {
    let range = Range::start("").await;
    let mut params = proved(&range).await;
    let sys = by_hand();
    for (statements, expected) in [
        (
            &["INSERT INTO SHOP.ORDERS (ID) VALUES (7)"][..],
            // The trigger's rows are in a table that wasn't compared.
            "SHOP.ORDERS had 6 rows and has 7; SHOP.ORDER_AUDIT had 6 rows and has 7",
        ),
        (
            &["UPDATE SHOP.ORDERS SET AMOUNT = 1 WHERE ID = 6"],
            "SHOP.ORDERS has 1 later row versions",
        ),
        (
            &[
                "DELETE FROM SHOP.ORDERS WHERE ID = 6",
                "INSERT INTO SHOP.ORDERS (ID) VALUES (8)",
            ],
            "SHOP.ORDERS has 2 later row versions",
        ),
        (
            &["DELETE FROM SHOP.ORDERS WHERE ID > 4"],
            "SHOP.ORDERS had 7 rows and has 4",
        ),
    ] {
        commit(&sys, statements);
        let story = refusal(&range, &params).await;
        assert!(story.contains(expected), "{expected}: {story}");
        params = prove(&range).await;
        range.execute(NAME, &params).await.unwrap();
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_dropped_table_and_an_open_transaction_are_named() {
    let range = Range::start("").await;
    let params = proved(&range).await;
    let sys = by_hand();
    sys.execute("INSERT INTO SHOP.ORDER_AUDIT (ID) VALUES (9)", &[])
        .unwrap();
    let story = refusal(&range, &params).await;
    assert!(
        story.contains("a transaction is open in the session"),
        "{story}"
    );
    assert!(story.contains("of SYS from"), "{story}");
    sys.rollback().unwrap();
    range.execute(NAME, &params).await.unwrap();
    sys.execute("DROP TABLE SHOP.ORDERS", &[]).unwrap();
    let story = refusal(&range, &params).await;
    assert!(
        story.contains("SHOP.ORDERS doesn't exist any more"),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_block_that_is_cleaned_out_late_is_no_change() {
    let range = Range::start("").await;
    let params = proved(&range).await;
    commit(&by_hand(), &["CREATE TABLE SYS.NIGHTLY (ID NUMBER)"]);
    range.control(&json!({"op": "surround", "with": {"delayed_cleanout": true}}));
    range.execute(NAME, &params).await.unwrap();
    // Without undo nobody can say so.
    range.inject("VERSIONS BETWEEN", 1555, 10);
    let story = refusal(&range, &params).await;
    assert!(
        story.contains("a change of SHOP.ORDERS can't be excluded") && story.contains("ORA-01555"),
        "{story}"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn a_table_without_row_scn_is_known_before_the_run_and_read_by_versions() {
    let range = Range::start("").await;
    let mut params = proved(&range).await;
    range.inject(
        "COUNT(ORA_ROWSCN), TO_CHAR(MAX(ORA_ROWSCN)) FROM \"SHOP\".\"ORDERS\"",
        904,
        2,
    );
    range.execute(NAME, &params).await.unwrap();
    for name in ["scn", "expected"] {
        params[name] = json!("${finalize.scn}");
    }
    let cx = range.context();
    let foreseen = action(NAME)
        .describe_unresolved(&cx, &params)
        .await
        .unwrap();
    assert_eq!(foreseen.obstacles, Vec::<String>::new());
    assert_eq!(foreseen.remarks[0], "2 tables, each scanned once");
    assert!(
        foreseen.remarks[1].contains("\"SHOP\".\"ORDERS\" (") && foreseen.remarks.len() == 2,
        "{:?}",
        foreseen.remarks
    );
}
