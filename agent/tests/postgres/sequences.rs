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

#[tokio::test]
async fn text_columns_are_compared_as_numbers() {
    let site = Site::new(
        "textsequence",
        "CREATE SCHEMA shop; CREATE SEQUENCE shop.vseq; CREATE SEQUENCE shop.cseq; \
         CREATE TABLE shop.v (no varchar(20) DEFAULT nextval('shop.vseq') PRIMARY KEY); \
         CREATE TABLE shop.c (no char(9) DEFAULT nextval('shop.cseq')); \
         INSERT INTO shop.v SELECT i FROM generate_series(1, 2500) i; \
         INSERT INTO shop.c VALUES ('0090'), ('100')",
        "",
    )
    .await;
    let params = json!({"resource": "shop", "margin": 10, "schemas": ["shop"],
        "sequences": [{"column": "shop.v.no"}]});
    site.perform_once("postgres.sequences.align", &params).await;
    // By the order of text, 999 and 0090 are the greatest.
    for (next, value) in [("shop.vseq", "2511"), ("shop.cseq", "111")] {
        let sql = format!("SELECT nextval('{next}')");
        assert_eq!(site.sql.text(&sql).await, value, "{next}");
    }
}

#[tokio::test]
async fn large_floats_are_not_rounded_down() {
    let site = Site::new(
        "floatsequence",
        "CREATE SCHEMA shop; CREATE SEQUENCE shop.fseq; \
         CREATE TABLE shop.f (id float8 DEFAULT nextval('shop.fseq')); \
         INSERT INTO shop.f VALUES (9007199254740991)",
        "",
    )
    .await;
    let params = json!({"resource": "shop", "margin": 0, "schemas": ["shop"], "sequences": []});
    site.perform_once("postgres.sequences.align", &params).await;
    let next = site.sql.text("SELECT nextval('shop.fseq')").await;
    assert_eq!(next, "9007199254740992");
}

/// Whatever can't be read as a number: refused before the run and in it, and
/// no sequence is moved.
#[tokio::test]
async fn values_that_are_no_numbers_are_an_error() {
    let site = Site::new(
        "nanseq",
        "CREATE SCHEMA shop; CREATE SEQUENCE shop.odd; \
         CREATE TABLE shop.a (id bigserial); INSERT INTO shop.a VALUES (700)",
        "",
    )
    .await;
    let params = json!({"resource": "shop", "margin": 10, "schemas": ["shop"], "sequences": []});
    for (kind, values) in [
        ("numeric", "(5000), ('NaN')"),
        ("float8", "(5000), ('NaN')"),
        ("float4", "(5000), ('Infinity')"),
        ("varchar(20)", "('5000'), ('secret17')"),
        ("text", "('5000'), ('')"),
        ("numeric", "(1e60)"),
    ] {
        site.sql
            .run(&format!(
                "DROP TABLE IF EXISTS shop.n; \
                 CREATE TABLE shop.n (id {kind} DEFAULT nextval('shop.odd')); \
                 INSERT INTO shop.n VALUES {values}"
            ))
            .await;
        let error = site
            .try_execute("postgres.sequences.align", &params)
            .await
            .unwrap_err();
        let report = error.report();
        assert_eq!(error.code(), Code::LS2338, "{kind}: {report}");
        assert!(report.contains("shop.n.id"), "{kind}: {report}");
        assert!(!report.contains("secret"), "{report}");
        let foreseen = site.foreseen("postgres.sequences.align", &params).await;
        assert!(foreseen.join("").contains("LS2338"), "{kind}: {foreseen:?}");
        let moved = "SELECT is_called FROM shop.a_id_seq UNION SELECT is_called FROM shop.odd";
        assert_eq!(site.sql.text(moved).await, "f", "{kind}");
    }
}

/// A sequence counts further than the column that it feeds can hold.
#[tokio::test]
async fn the_bounds_of_columns_count_before_anything_is_moved() {
    let site = Site::new(
        "narrowseq",
        "CREATE SCHEMA shop; CREATE SEQUENCE shop.wide; \
         CREATE TABLE shop.a (id bigserial); INSERT INTO shop.a VALUES (700)",
        "",
    )
    .await;
    let params = json!({"resource": "shop", "margin": 1000, "schemas": ["shop"], "sequences": []});
    for (kind, value) in [
        ("smallint", "32000"),
        ("int", "2147483000"),
        ("numeric(4)", "9100"),
        ("numeric(6,2)", "9100"),
        ("varchar(4)", "'9100'"),
    ] {
        site.sql
            .run(&format!(
                "DROP TABLE IF EXISTS shop.n; \
                 CREATE TABLE shop.n (id {kind} DEFAULT nextval('shop.wide')); \
                 INSERT INTO shop.n VALUES ({value})"
            ))
            .await;
        let report = site
            .try_execute("postgres.sequences.align", &params)
            .await
            .unwrap_err()
            .report();
        assert!(report.contains("LS2331"), "{kind}: {report}");
        assert!(report.contains("shop.n.id"), "{kind}: {report}");
        let foreseen = site.foreseen("postgres.sequences.align", &params).await;
        assert!(foreseen.join("").contains("LS2331"), "{kind}: {foreseen:?}");
        let moved = "SELECT is_called FROM shop.a_id_seq";
        assert_eq!(site.sql.text(moved).await, "f", "{kind}");
    }
}

/// A query that silently left out rows would let a sequence give out values in use.
#[tokio::test]
async fn rows_that_row_security_hides_are_never_taken_for_absent() {
    let more = "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY; \
                ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY";
    let site = Site::new("hiddenrows", &format!("{SEQUENCES}; {more}"), "").await;
    let params = json!({"resource": "shop", "margin": 5, "sequences": [
        {"column": "shop.orders.id"}], "oracle": {}});
    let error = site
        .try_execute("postgres.sequences.align", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2303, "{}", error.report());
    let next = "SELECT nextval('shop.orders_id_seq')";
    assert_eq!(site.sql.text(next).await, "1", "left as it was");
    site.sql.run("ALTER ROLE hiddenrows_agent BYPASSRLS").await;
    site.perform_once("postgres.sequences.align", &params).await;
    assert_eq!(site.sql.text(next).await, "706");
}
