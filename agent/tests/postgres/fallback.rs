//! What the reverse task can't carry is named before the run.

use crate::site::Site;
use crate::{PROOFS, ready};
use serde_json::{Value, json};

/// A table for each thing that DMS loses or changes.
const LOSSES: &str = "CREATE DOMAIN shop.amount AS numeric; CREATE DOMAIN shop.price AS numeric(12,2); \
    CREATE TABLE shop.parted (id bigint PRIMARY KEY) PARTITION BY RANGE (id); \
    CREATE TABLE shop.parted_1 PARTITION OF shop.parted FOR VALUES FROM (0) TO (9); \
    CREATE UNLOGGED TABLE shop.scratch (id bigint PRIMARY KEY); \
    CREATE TABLE shop.odd (id bigint PRIMARY KEY, a int); \
    CREATE UNIQUE INDEX ON shop.odd (coalesce(a, 0)); \
    CREATE TABLE shop.\"Odd\" (id bigint PRIMARY KEY); \
    CREATE TABLE shop.many (id bigint PRIMARY KEY, free numeric, held numeric(20,4), \
      vague shop.amount, exact shop.price, open boolean, big oid, \
      note text, doc jsonb, tags text[], long varchar, short varchar(20), at timestamptz, u uuid)";

fn params(reverse: Value) -> Value {
    let mut params = ready();
    params["reverse"] = reverse;
    params
}

#[tokio::test]
async fn what_the_reverse_task_would_lose_is_an_obstacle_by_table_and_column() {
    let site = Site::new("losses", &format!("{PROOFS}; {LOSSES}"), "").await;
    let cut = json!({"settings": {"TargetMetadata": {"LobMaxSize": 32}}});
    let obstacles = site.obstacles("postgres.ready", &params(cut.clone())).await;
    for (named, why) in [
        ("shop.parted:", "partitioned tables"),
        ("shop.scratch:", "unlogged"),
        ("shop.odd:", "COALESCE"),
        ("shop.Odd, shop.odd:", "only in case"),
        ("shop.many.free, shop.many.vague:", "numeric(28,6)"),
        ("shop.many.open, shop.orders.paid:", "'true' and 'false'"),
        ("shop.many.big:", "large object"),
        (
            "shop.many.note, shop.many.doc, shop.many.tags, shop.many.long, shop.orders.tag:",
            "cut at 32 KB",
        ),
    ] {
        let found = |line: &&String| line.contains(named) && line.contains(why);
        assert_eq!(
            obstacles.iter().filter(found).count(),
            1,
            "{named} {why}: {obstacles:#?}"
        );
    }
    assert_eq!(obstacles.len(), 8, "{obstacles:#?}");
    // The vote is against the phase, too.
    let refused = site.try_probe("postgres.ready", &params(cut)).await;
    assert!(refused.unwrap_err().report().contains("shop.many.free"));

    // Without limits LOBs arrive whole.
    let obstacles = site.obstacles("postgres.ready", &params(json!({}))).await;
    assert_eq!(obstacles.len(), 7, "{obstacles:#?}");
    let off = json!({"settings": {"TargetMetadata": {"SupportLobs": false}}});
    let obstacles = site.obstacles("postgres.ready", &params(off)).await;
    assert!(
        obstacles.join("\n").contains("LOB support is off"),
        "{obstacles:#?}"
    );
}

#[tokio::test]
async fn a_loss_is_accepted_by_name_or_left_out_of_the_mappings() {
    let site = Site::new("accepted", &format!("{PROOFS}; {LOSSES}"), "").await;
    let accept = json!({"accept": ["shop.parted", "shop.scratch", "shop.odd", "shop.Odd",
        "shop.many.free", "shop.many", "shop.orders.paid", "shop.orders.gone"]});
    assert_eq!(
        site.obstacles("postgres.ready", &params(accept.clone()))
            .await,
        Vec::<String>::new()
    );
    let remarks = site
        .remarks("postgres.ready", &params(accept))
        .await
        .join("\n");
    for named in [
        "the plan accepts that a fallback lacks shop.many.free, shop.many.vague: numeric",
        "dms.reverse.accept names shop.orders.gone, where nothing",
        "neither TRUNCATE nor updates of primary keys",
        "shop.many.u arrive in Oracle as text",
        "shop.many.at, shop.orders.seen arrive in Oracle without their time zone",
    ] {
        assert!(remarks.contains(named), "{named}: {remarks}");
    }
    let rule = |action: &str, table: &str| {
        json!({"rule-type": "selection", "rule-action": action,
            "object-locator": {"schema-name": "shop", "table-name": table}})
    };
    let mappings = json!({"rules": [rule("include", "%"), rule("exclude", "parted"),
        rule("exclude", "scratch"), rule("exclude", "_dd"), rule("exclude", "many"),
        rule("exclude", "orders")]});
    for mappings in [mappings.clone(), json!(mappings.to_string())] {
        let given = params(json!({"table_mappings": mappings}));
        let obstacles = site.obstacles("postgres.ready", &given).await;
        assert_eq!(obstacles, Vec::<String>::new());
    }
}

#[tokio::test]
async fn cascading_keys_are_named() {
    let more = "CREATE TABLE shop.notes (id bigint PRIMARY KEY, \
        order_id bigint CONSTRAINT of_order REFERENCES shop.orders ON DELETE CASCADE, \
        line_id bigint CONSTRAINT of_line REFERENCES shop.lines ON UPDATE CASCADE)";
    let site = Site::new("cascades", &format!("{PROOFS}; {more}"), "").await;
    let remarks = site.remarks("postgres.ready", &ready()).await.join("\n");
    for named in [
        "deletes cascade by of_order of shop.notes:",
        "updates of keys cascade by of_line of shop.notes:",
    ] {
        assert!(remarks.contains(named), "{named}: {remarks}");
    }
    // A plan without a reverse task loses nothing by it.
    let mut forward_only = ready();
    forward_only["canary_table"] = Value::Null;
    let remarks = site
        .remarks("postgres.ready", &forward_only)
        .await
        .join("\n");
    assert!(!remarks.contains("cascade"), "{remarks}");
}
