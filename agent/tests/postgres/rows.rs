//! Rows compared with what Oracle counted.

use crate::PROOFS;
use crate::markers::marker;
use crate::site::Site;
use lockstep_api::Code;
use serde_json::{Value, json};

/// What the other side says of `shop.orders` below.
fn expected(rows: u64, amount: &str) -> Value {
    use lockstep_agent::canonical::{Kind, RowDigest};
    use lockstep_agent::key_sketch::Sketch;
    let columns = [
        ("id", Kind::Number),
        ("customer", Kind::Text),
        ("amount", Kind::Number),
        ("code", Kind::Char),
        ("paid", Kind::Number),
        ("placed_at", Kind::Timestamp),
        ("seen", Kind::Instant),
        ("tag", Kind::Bytes),
    ];
    let as_oracle_has_them = [
        [
            "1",
            "Müller",
            amount,
            "AB  ",
            "1",
            "2026-02-03 04:05:06",
            "2026-02-03 05:05:06 +01:00",
            "0AFF",
        ],
        [
            "2",
            "",
            "0",
            "    ",
            "0",
            "2026-02-03",
            "2026-02-03 04:05:06.5 +00:00",
            "",
        ],
    ];
    let mut digest = RowDigest::new();
    let mut sketch = Sketch::default();
    for row in as_oracle_has_them {
        let row: Vec<Option<String>> = columns
            .iter()
            .zip(row)
            .map(|((_, kind), text)| {
                if text.is_empty() {
                    None
                } else {
                    kind.canonical(text).unwrap()
                }
            })
            .collect();
        let hash = digest.add(&row);
        sketch.add_row(&row, &[0], &hash);
    }
    let columns: Vec<Value> = columns
        .iter()
        .map(|(name, kind)| json!({"name": name, "kind": kind}))
        .collect();
    json!({
        "SHOP.ORDERS": {"rows": rows, "digest": digest.finish(), "columns": columns,
            "key": [0], "sketch": sketch.texts(2)},
        "SHOP.LINES": {"rows": 1, "digest": null},
    })
}

fn verify(expected: Value) -> Value {
    json!({"resource": "shop", "schemas": ["shop"], "expected": expected, "tables": [
        {"oracle": "SHOP.ORDERS", "postgres": "shop.orders"},
        {"oracle": "SHOP.LINES", "postgres": "shop.lines", "digest": false},
    ]})
}

/// The rows of [`expected`], as PostgreSQL has them.
async fn filled(name: &str) -> Site {
    let site = Site::new(name, PROOFS, "").await;
    site.sql
        .run(
            "INSERT INTO shop.orders VALUES \
             (1, 'Müller', 12.50, 'AB', true, '2026-02-03 04:05:06', '2026-02-03 04:05:06Z', '\\x0aff'), \
             (2, '', 0.00, '', false, '2026-02-03', '2026-02-03 04:05:06.5Z', NULL); \
             INSERT INTO shop.lines VALUES (1, 1)",
        )
        .await;
    site
}

#[tokio::test]
async fn rows_are_compared_across_types_and_differences_named() {
    let site = filled("rows").await;
    let (_, outputs) = site
        .perform("postgres.rows.verify", &verify(expected(2, "12.5")))
        .await;
    assert_eq!(
        outputs["tables"],
        json!({"shop.orders": {"rows": 2, "compared": "digest"},
            "shop.lines": {"rows": 1, "compared": "count"}})
    );
    let notes = site.notes.lock().unwrap().join("\n");
    assert!(
        notes.contains("shop.lines: 1 rows, only counted"),
        "{notes}"
    );
    assert!(
        notes.contains("shop.orders: 2 rows, the same digest"),
        "{notes}"
    );

    for (wrong, named) in [
        (expected(2, "12.51"), "not the same ones; different: id 1"),
        (expected(3, "12.5"), "has 2 rows, SHOP.ORDERS had 3"),
    ] {
        let error = site
            .try_execute("postgres.rows.verify", &verify(wrong))
            .await
            .unwrap_err();
        assert!(error.report().contains(named), "{}", error.report());
    }
    site.sql
        .run("UPDATE shop.orders SET id = 3 WHERE id = 2")
        .await;
    let error = site
        .try_execute("postgres.rows.verify", &verify(expected(2, "12.5")))
        .await
        .unwrap_err();
    let moved = "not the same ones; missing in PostgreSQL: id 2; only in PostgreSQL: id 3";
    assert!(error.report().contains(moved), "{}", error.report());
    site.sql
        .run("UPDATE shop.orders SET id = 2 WHERE id = 3")
        .await;
}

#[tokio::test]
async fn forgotten_tables_orphans_and_invalid_objects_are_found() {
    let site = filled("forgotten").await;
    // A table that the plan forgot.
    let mut forgotten = expected(2, "12.5");
    forgotten["SHOP.MARKS"] = json!({"rows": 0, "postgres": "lockstep.marker"});
    let (_, outputs) = site
        .perform("postgres.rows.verify", &verify(forgotten.clone()))
        .await;
    let counted = json!({"rows": 0, "compared": "count"});
    assert_eq!(outputs["tables"]["lockstep.marker"], counted);
    forgotten["SHOP.MARKS"]["rows"] = json!(7);
    let error = site
        .try_execute("postgres.rows.verify", &verify(forgotten))
        .await
        .unwrap_err();
    let report = error.report();
    let uneven = "lockstep.marker has 0 rows, SHOP.MARKS had 7";
    assert!(report.contains(uneven), "{report}");
    let silent = site
        .try_probe("postgres.rows.verify", &verify(json!({})))
        .await
        .unwrap_err();
    assert_eq!(silent.code(), Code::LS2320);

    site.sql
        .run(
            "SET session_replication_role = replica; INSERT INTO shop.lines VALUES (2, 99); \
             ALTER TABLE shop.lines ADD CONSTRAINT small CHECK (id < 10) NOT VALID; \
             UPDATE pg_index SET indisvalid = false \
             WHERE indexrelid = 'shop.lines_pkey'::regclass",
        )
        .await;
    let right = verify(expected(2, "12.5"));
    let error = site
        .try_execute("postgres.rows.verify", &right)
        .await
        .unwrap_err();
    for named in [
        "1 rows of shop.lines point nowhere",
        "small",
        "lines_pkey",
        "has 2 rows",
    ] {
        assert!(
            error.report().contains(named),
            "{named}: {}",
            error.report()
        );
    }
}

#[tokio::test]
async fn what_is_missing_is_seen_before_the_run_gives_its_values() {
    let site = Site::new("foreseen", PROOFS, "").await;
    let rows = verify(json!("${oracle-rows.tables}"));
    let mut marker = marker(1);
    for (field, output) in [
        ("nonce", "nonce"),
        ("scn", "scn"),
        ("apply_exceptions", "n"),
    ] {
        marker[field] = json!(format!("${{finalize.{output}}}"));
    }
    let drain = json!({"resource": "shop", "control_schema": "dms", "apply_exceptions": "${r.n}"});
    let sequences = json!({"resource": "shop", "oracle": "${finalize.sequences}", "sequences": [
        {"column": "shop.orders.id", "oracle": "SHOP.ORDERS_SEQ"},
        {"column": "shop.lines.id"}]});
    site.sql
        .run("ALTER TABLE shop.orders ALTER id ADD GENERATED ALWAYS AS IDENTITY")
        .await;
    site.sql
        .run("CREATE SEQUENCE shop.theirs; ALTER TABLE shop.lines ALTER id SET DEFAULT nextval('shop.theirs')")
        .await;
    let foreseen = async |name: &str, params: &Value| site.foreseen(name, params).await.join("; ");
    for (name, params) in [
        ("postgres.rows.verify", &rows),
        ("postgres.marker.await", &marker),
        ("postgres.drain.check", &drain),
    ] {
        assert_eq!(foreseen(name, params).await, "", "{name}");
    }
    // The superuser's own, which the agent's role may not set.
    let align = "postgres.sequences.align";
    let barred = foreseen(align, &sequences).await;
    assert!(
        barred.starts_with("LS2337: the agent's role may not set shop.theirs"),
        "{barred}"
    );
    site.sql
        .run("ALTER TABLE lockstep.marker DROP nonce; ALTER TABLE shop.lines RENAME TO line")
        .await;
    let missing = foreseen("postgres.rows.verify", &rows).await;
    assert!(
        missing.starts_with("LS2322: no such tables: shop.lines;"),
        "{missing}"
    );
    let missing = foreseen("postgres.marker.await", &marker).await;
    assert!(missing.contains("nonce"), "{missing}");
    let idle = foreseen(
        align,
        &json!({"resource": "shop", "sequences": [
        {"column": "shop.orders.customer"}], "oracle": "${finalize.sequences}"}),
    )
    .await;
    assert!(
        idle.starts_with("LS2333: no sequence feeds shop.orders.customer"),
        "{idle}"
    );
}

#[tokio::test]
async fn compared_tables_that_can_not_be_read_are_told_before_the_run() {
    let site = Site::new("unreadable", PROOFS, "").await;
    site.sql
        .run(
            "REVOKE pg_read_all_data, unreadable_owner FROM unreadable_agent; \
              GRANT USAGE ON SCHEMA shop TO unreadable_agent; \
              GRANT SELECT ON shop.orders TO unreadable_agent",
        )
        .await;
    let rows = verify(json!("${oracle-rows.tables}"));
    let obstacles = site.foreseen("postgres.rows.verify", &rows).await;
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    let told = "LS2322: the agent's role may not read shop.lines;";
    assert!(obstacles[0].starts_with(told), "{obstacles:?}");
}

#[tokio::test]
async fn constraints_never_validated_are_found_before_the_run() {
    let more = "ALTER TABLE shop.lines ADD CONSTRAINT positive CHECK (id > 0) NOT VALID";
    let site = Site::new("notvalid", &format!("{PROOFS}; {more}"), "").await;
    let params = json!({"resource": "shop", "tables": [], "schemas": ["shop"],
        "expected": "${oracle.tables}"});
    let foreseen = site.foreseen("postgres.rows.verify", &params).await;
    let foreseen = foreseen.join("\n");
    for named in ["positive of shop.lines", "VALIDATE CONSTRAINT"] {
        assert!(foreseen.contains(named), "{named}: {foreseen}");
    }
}

#[tokio::test]
async fn columns_that_can_not_be_compared_are_found_by_their_types() {
    let more = "CREATE TABLE shop.pairs (id bigint PRIMARY KEY, at timestamptz, doc jsonb, u uuid, \
        own int, twice bigint GENERATED ALWAYS AS (id * 2) STORED)";
    let site = Site::new("pairs", &format!("{PROOFS}; {more}"), "").await;
    let described = |name: &str, kind: &str, data_type: &str| json!({"name": name, "kind": kind, "type": data_type});
    let columns = json!({"SHOP.PAIRS": [described("id", "number", "NUMBER"),
        described("at", "timestamp", "TIMESTAMP(6)"), described("doc", "text", "CLOB"),
        described("u", "bytes", "RAW"), described("gone", "text", "VARCHAR2")]});
    let table = json!({"oracle": "SHOP.PAIRS", "postgres": "shop.pairs"});
    let params =
        |table: &Value| json!({"resource": "shop", "tables": [table], "expected": columns});
    let name = "postgres.columns.verify";
    let error = site.try_probe(name, &params(&table)).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2339);
    for named in [
        "shop.pairs.at is timestamp with time zone, which can't be compared with TIMESTAMP(6)",
        "shop.pairs.doc is jsonb, which can't be compared with CLOB",
        "shop.pairs.u is uuid, which can't be compared with RAW",
        "shop.pairs has no column gone",
        "SHOP.PAIRS has no column for shop.pairs.own",
    ] {
        assert!(
            error.report().contains(named),
            "{named}: {}",
            error.report()
        );
    }
    assert!(!error.report().contains("twice"), "{}", error.report());
    // The run's own comparison says the same, of a type and not of a value.
    let rows = json!({"resource": "shop", "tables": [table], "expected": {"SHOP.PAIRS":
        {"rows": 0, "digest": "0:0", "columns": [{"name": "id", "kind": "number"},
            {"name": "at", "kind": "timestamp"}]}}});
    let error = site
        .try_execute("postgres.rows.verify", &rows)
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2339, "{}", error.report());

    let mut counted = table.clone();
    counted["digest"] = json!(false);
    site.perform(name, &params(&counted)).await;
    let mut except = table.clone();
    except["except"] = json!(["at", "doc", "u", "own", "gone"]);
    let mut some = params(&except);
    some["expected"] = json!({"SHOP.PAIRS": [described("id", "number", "NUMBER")]});
    site.perform(name, &some).await;
}
