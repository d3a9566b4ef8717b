//! Sequences past their data.

use crate::site::Site;
use lockstep_api::Code;
use serde_json::json;

const SEQUENCES: &str = "
    CREATE SCHEMA shop;
    CREATE TABLE shop.orders (id bigserial, down int, loose int, odd int GENERATED ALWAYS AS IDENTITY (INCREMENT 2));
    CREATE SEQUENCE shop.down INCREMENT -1; ALTER TABLE shop.orders ALTER down SET DEFAULT nextval('shop.down');
    CREATE SEQUENCE shop.small MAXVALUE 50; ALTER TABLE shop.orders ALTER loose SET DEFAULT nextval('shop.small');
    INSERT INTO shop.orders (id, down, loose, odd) OVERRIDING SYSTEM VALUE VALUES (700, -40, 10, 20)";

#[tokio::test]
async fn sequences_go_past_their_data_whatever_their_kind() {
    let site = Site::new("sequences", SEQUENCES, "").await;
    let params = json!({"resource": "shop", "margin": 5, "sequences": [
        {"column": "shop.orders.id", "oracle": "SHOP.ORDERS_SEQ"},
        {"column": "shop.orders.down"}, {"column": "shop.orders.odd"}],
        "oracle": {"SHOP.ORDERS_SEQ": {"last_number": "9000", "increment_by": "1", "cycle": false}}});
    site.perform_once("postgres.sequences.align", &params).await;
    for (next, value) in [
        ("shop.orders_id_seq", "9006"),
        ("shop.down", "-46"),
        ("shop.orders_odd_seq", "27"),
    ] {
        assert_eq!(
            site.sql.text(&format!("SELECT nextval('{next}')")).await,
            value,
            "{next}"
        );
    }
    let small = json!({"resource": "shop", "margin": 100,
        "sequences": [{"column": "shop.orders.loose"}]});
    let error = site
        .try_execute("postgres.sequences.align", &small)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2331, "{}", error.report());
}

#[tokio::test]
async fn sequences_that_the_plan_does_not_name_go_past_their_columns() {
    let more = "CREATE SEQUENCE shop.loose; \
                CREATE TABLE shop.others (id int DEFAULT nextval('shop.down'), word text \
                  DEFAULT 'w' || nextval('shop.small'), big numeric DEFAULT nextval('shop.loose')); \
                INSERT INTO shop.others VALUES (-70, 'w3', 12)";
    let site = Site::new("allsequences", &format!("{SEQUENCES}; {more}"), "").await;
    let params = json!({"resource": "shop", "margin": 5, "sequences": [], "schemas": ["shop"],
        "oracle": {"SHOP.ORDERS_SEQ": {"last_number": "9000"}}});
    site.perform_once("postgres.sequences.align", &params).await;
    for (next, value) in [
        // Oracle's number isn't guessed.
        ("shop.orders_id_seq", "706"),
        // Two tables share it: the farther one counts.
        ("shop.down", "-76"),
        ("shop.orders_odd_seq", "27"),
        ("shop.loose", "18"),
        // A number in one column, a part of a word in another.
        ("shop.small", "16"),
    ] {
        assert_eq!(
            site.sql.text(&format!("SELECT nextval('{next}')")).await,
            value,
            "{next}"
        );
    }
    // Of what only goes into words nothing says how far it is.
    site.sql
        .run("ALTER TABLE shop.orders ALTER loose DROP DEFAULT")
        .await;
    let remarks = site.remarks("postgres.sequences.align", &params).await;
    assert!(
        remarks.join("").contains("shop.small of shop.others.word"),
        "{remarks:?}"
    );
}
