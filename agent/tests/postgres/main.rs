//! Every action on PostgreSQL against a real server: probe, execute, probe
//! again, undo, and the catalogue is as before; and what goes wrong half-way.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_api::Code;
use serde_json::{Value, json};
use std::time::Duration;

mod fallback;
mod jobs;
mod markers;
mod roles;
mod rows;
mod sequences;
#[path = "../site/mod.rs"]
mod site;
mod triggers;

use site::Site;

/// A guard against waiting for ever; no test waits for it.
const PATIENCE: Duration = Duration::from_secs(20);

const PROOFS: &str = r#"
    CREATE SCHEMA shop; CREATE SCHEMA lockstep; CREATE SCHEMA dms;
    CREATE TABLE shop.orders (id bigint PRIMARY KEY, customer varchar(60), amount numeric(12,2),
        code char(4), paid boolean, placed_at timestamp(0), seen timestamptz, tag bytea);
    CREATE TABLE shop.lines (id bigint PRIMARY KEY, order_id bigint REFERENCES shop.orders);
    CREATE TABLE lockstep.marker (run_id varchar(36), task_id varchar(200), nonce varchar(64),
        scn numeric, written_at timestamp(0), PRIMARY KEY (run_id, task_id, nonce));
    CREATE TABLE lockstep.canary (run_id varchar(36), task_id varchar(200), nonce varchar(64),
        written_at timestamp(0), PRIMARY KEY (run_id, task_id, nonce));
    CREATE TABLE dms.awsdms_apply_exceptions ("TASK_NAME" varchar, "TABLE_OWNER" varchar,
        "TABLE_NAME" varchar, "ERROR_TIME" timestamp, "STATEMENT" text, "ERROR" text);
"#;

fn ready() -> Value {
    json!({"resource": "shop", "marker_table": "lockstep.marker", "canary_table": "lockstep.canary",
        "control_schema": "dms", "schemas": ["shop"], "reverse": {"accept": ["shop.orders.paid"]}})
}

#[tokio::test]
async fn readiness_names_everything_that_is_missing() {
    let site = Site::new("readiness", PROOFS, "").await;
    let (_, outputs) = site.perform("postgres.ready", &ready()).await;
    assert_eq!(outputs["apply_exceptions"], 0);
    assert_eq!(outputs["slots"], json!([]));

    site.sql
        .run(
            "CREATE TABLE shop.keyless (a int); ALTER TABLE lockstep.canary DROP COLUMN nonce; \
             DROP TABLE lockstep.marker; DROP TABLE dms.awsdms_apply_exceptions; \
             CREATE TABLE dms.awsdms_suspended_tables (\"TABLE_OWNER\" text, \"TABLE_NAME\" text); \
             INSERT INTO dms.awsdms_suspended_tables VALUES ('SHOP', 'ORDERS'); \
             CREATE TABLE dms.awsdms_validation_failures_v1 (\"TABLE_OWNER\" text, \
               \"TABLE_NAME\" text); \
             INSERT INTO dms.awsdms_validation_failures_v1 VALUES ('SHOP', 'LINES')",
        )
        .await;
    let story = site
        .try_probe("postgres.ready", &ready())
        .await
        .unwrap_err()
        .report();
    for named in [
        "LS2310",
        "shop.keyless",
        "lockstep.canary lacks the columns nonce",
        "lockstep.marker doesn't exist",
        "dms.awsdms_apply_exceptions doesn't exist",
        "SHOP.ORDERS (1)",
        "SHOP.LINES (1)",
    ] {
        assert!(story.contains(named), "{named}: {story}");
    }
}

#[tokio::test]
async fn readiness_tells_tables_and_sequences_that_the_plan_does_not_name() {
    let more = "CREATE TABLE shop.events (id bigserial PRIMARY KEY, at timestamp) \
                  PARTITION BY RANGE (id); \
                CREATE TABLE shop.events_1 PARTITION OF shop.events FOR VALUES FROM (0) TO (9); \
                CREATE SEQUENCE shop.by_hand; CREATE SEQUENCE shop.numbers; \
                CREATE TABLE shop.awsdms_status (id int PRIMARY KEY); \
                CREATE TABLE shop.labels (id text PRIMARY KEY DEFAULT 'L' || nextval('shop.numbers'))";
    let site = Site::new("unnamed", &format!("{PROOFS}; {more}"), "").await;
    let mut params = ready();
    params["compared"] = json!(["shop.orders"]);
    params["reverse"]["accept"] = json!(["shop.orders", "shop.events"]);
    let (_, outputs) = site.perform("postgres.ready", &params).await;
    assert_eq!(
        outputs["tables"],
        json!(["shop.events", "shop.labels", "shop.lines"])
    );
    let remarks = site.remarks("postgres.ready", &params).await.join("\n");
    for named in [
        "shop.events, shop.labels, shop.lines",
        "shop.events_id_seq of shop.events.id",
        "nobody sets, for no column holds their values: shop.numbers of shop.labels.id, shop.by_hand",
    ] {
        assert!(remarks.contains(named), "{named}: {remarks}");
    }
    params["sequences"] = json!(["shop.events.id"]);
    let remarks = site.remarks("postgres.ready", &params).await.join("\n");
    assert!(!remarks.contains("events_id_seq"), "{remarks}");

    params["sequences"] = json!(["shop.orders.id", "shop.nothing.id"]);
    site.sql
        .run(
            "ALTER SEQUENCE shop.events_id_seq OWNED BY NONE; \
             ALTER SEQUENCE shop.events_id_seq OWNER TO postgres; \
             REVOKE pg_read_all_data FROM unnamed_agent; \
             ALTER TABLE shop.lines OWNER TO postgres",
        )
        .await;
    let obstacles = site.obstacles("postgres.ready", &params).await.join("\n");
    for named in [
        "no sequence feeds shop.orders.id",
        "shop.nothing",
        "may not set shop.events_id_seq",
        "may not count shop.lines",
    ] {
        assert!(obstacles.contains(named), "{named}: {obstacles}");
    }
}

#[tokio::test]
async fn a_server_that_can_not_prove_its_name_is_refused() {
    let site = Site::new("misnamed", PROOFS, "").await;
    let mut params = ready();
    params["resource"] = json!("misnamed");
    let error = site.try_probe("postgres.ready", &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2301, "{}", error.report());
    // Not for some other reason: localhost would answer.
    assert!(
        error.report().contains("certificate not valid for name"),
        "{}",
        error.report()
    );
    assert!(!error.report().contains("secret"), "{}", error.report());
}

#[tokio::test]
async fn missing_statistics_are_collected_and_nothing_more() {
    let schema = "CREATE SCHEMA shop; CREATE TABLE shop.a AS SELECT generate_series(1, 100) AS n; \
                  CREATE TABLE shop.b (n int)";
    let site = Site::new("statistics", schema, "").await;
    let params = json!({"resource": "shop", "schemas": ["shop"], "missing_only": true});
    site.perform_once("postgres.analyze", &params).await;
    let stats = "SELECT count(*) FROM pg_stats WHERE schemaname = 'shop'";
    assert_eq!(site.sql.text(stats).await, "1");
    let all = json!({"resource": "shop", "schemas": ["shop"]});
    site.perform("postgres.analyze", &all).await;

    // Neither the table's owner nor the database's: PostgreSQL only warns.
    site.sql
        .run("ALTER DATABASE statistics OWNER TO postgres")
        .await;
    site.sql.run("CREATE TABLE shop.foreign_one (n int)").await;
    let obstacles = site.obstacles("postgres.analyze", &all).await;
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    assert!(obstacles[0].contains("may not analyze shop.foreign_one"));
    let error = site
        .try_execute("postgres.analyze", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2324, "{}", error.report());
}

#[tokio::test]
async fn readiness_names_tables_of_which_row_security_hides_rows() {
    let more = "ALTER TABLE shop.orders ENABLE ROW LEVEL SECURITY; \
                ALTER TABLE shop.orders FORCE ROW LEVEL SECURITY; \
                ALTER TABLE shop.lines ENABLE ROW LEVEL SECURITY";
    let site = Site::new("rowsecurity", &format!("{PROOFS}; {more}"), "").await;
    let obstacles = site.obstacles("postgres.ready", &ready()).await;
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    // The owner's role sees every row unless that is forced.
    assert!(
        obstacles[0].contains("hides rows of shop.orders from"),
        "{obstacles:?}"
    );
}

/// Without the old key in the WAL an update or a delete reaches no row in Oracle, and
/// PostgreSQL writes it by the replica identity, not by the primary key.
#[tokio::test]
async fn readiness_names_tables_whose_old_keys_are_not_in_the_wal() {
    let more = "CREATE TABLE shop.late (id int PRIMARY KEY DEFERRABLE); \
                CREATE TABLE shop.silent (id int PRIMARY KEY); \
                ALTER TABLE shop.silent REPLICA IDENTITY NOTHING; \
                CREATE TABLE shop.gone (id int PRIMARY KEY, other int NOT NULL); \
                CREATE UNIQUE INDEX gone_other ON shop.gone (other); \
                ALTER TABLE shop.gone REPLICA IDENTITY USING INDEX gone_other; \
                DROP INDEX shop.gone_other; \
                CREATE TABLE shop.by_index (a int NOT NULL UNIQUE); \
                ALTER TABLE shop.by_index REPLICA IDENTITY USING INDEX by_index_a_key; \
                CREATE TABLE shop.whole (a int); ALTER TABLE shop.whole REPLICA IDENTITY FULL";
    let site = Site::new("identities", &format!("{PROOFS}; {more}"), "").await;
    let obstacles = site.obstacles("postgres.ready", &ready()).await;
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    assert!(
        obstacles[0].contains("shop.gone, shop.late, shop.silent;"),
        "{obstacles:?}"
    );
}

#[tokio::test]
async fn a_canary_is_written_and_taken_back() {
    let site = Site::new("canary", PROOFS, "").await;
    let params = json!({"resource": "shop", "canary_table": "lockstep.canary"});
    site.sql
        .run("INSERT INTO lockstep.canary VALUES ('another run', 't', 'n', now())")
        .await;
    let (before_image, first) = site.perform("postgres.canary.write", &params).await;
    let (_, second) = site.perform("postgres.canary.write", &params).await;
    assert_ne!(first["nonce"], second["nonce"]);
    site.undo_once("postgres.canary.write", &params, before_image)
        .await;
    let left = site
        .sql
        .text("SELECT string_agg(run_id, ',') FROM lockstep.canary")
        .await;
    assert_eq!(left, "another run");

    // Half of the privileges would leave the row behind.
    site.sql
        .run(
            "ALTER TABLE lockstep.canary OWNER TO postgres; \
             GRANT INSERT ON lockstep.canary TO canary_agent",
        )
        .await;
    let obstacles = site.obstacles("postgres.canary.write", &params).await;
    assert!(obstacles.join("").contains("GRANT DELETE"), "{obstacles:?}");
}
