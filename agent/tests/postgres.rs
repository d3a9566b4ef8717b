//! Every action on PostgreSQL against a real server: probe, execute, probe
//! again, undo, and the catalogue is as before; and what goes wrong half-way.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_agent::action::Undone;
use lockstep_agent::actions;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};
use std::time::Duration;

mod site;
use site::{RUN, Site};

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
        "control_schema": "dms", "schemas": ["shop"]})
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
        .story();
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
    assert_eq!(error.code(), "LS2301", "{}", error.story());
    // Not for some other reason: localhost would answer.
    assert!(
        error.story().contains("certificate not valid for name"),
        "{}",
        error.story()
    );
    assert!(!error.story().contains("secret"), "{}", error.story());
}

#[tokio::test]
async fn roles_close_and_open_with_their_sessions() {
    let site = Site::new("roles", "", "").await;
    let params = json!({"resource": "shop", "roles": ["roles_app"]});
    let idle = site.cluster.login("roles_app", "roles").await.unwrap();
    idle.run("BEGIN; SELECT 1").await;

    let capture = site.perform_once("postgres.roles.close", &params).await;
    assert!(
        idle.0.batch_execute("COMMIT").await.is_err(),
        "the session lives on"
    );
    assert!(site.cluster.login("roles_app", "roles").await.is_err());

    let open = site.perform_once("postgres.roles.open", &params).await;
    let session = site.cluster.login("roles_app", "roles").await.unwrap();
    site.undo_once("postgres.roles.open", &params, open).await;
    assert!(
        session.0.batch_execute("SELECT 1").await.is_err(),
        "the session lives on"
    );
    site.undo_once("postgres.roles.close", &params, capture)
        .await;
    assert!(site.cluster.login("roles_app", "roles").await.is_ok());
}

#[tokio::test]
async fn roles_that_somebody_has_opened_meanwhile_are_found() {
    let site = Site::new("rolesmean", "CREATE TABLE public.t (a int)", "").await;
    let params = json!({"resource": "shop", "roles": ["rolesmean_app"]});
    let refused = async |says: &str| {
        let verify = "postgres.roles.verify";
        let error = site.try_probe(verify, &params).await.unwrap_err();
        assert_eq!(error.code(), "LS2319", "{}", error.story());
        assert!(error.story().contains(says), "{}", error.story());
        assert!(site.try_execute(verify, &params).await.is_err());
    };
    refused("the role rolesmean_app may log in").await;
    // What a preflight says before the run has closed them.
    let obstacles = site.obstacles("postgres.roles.verify", &params).await;
    assert_eq!(obstacles, Vec::<String>::new());

    site.perform_once("postgres.roles.close", &params).await;
    let probe = site.probe("postgres.roles.verify", &params).await;
    assert_eq!(probe.finding, Finding::Already);

    site.sql
        .run("GRANT INSERT ON public.t TO rolesmean_app; ALTER ROLE rolesmean_app LOGIN")
        .await;
    refused("the role rolesmean_app may log in").await;
    let app = site.cluster.login("rolesmean_app", "rolesmean").await;
    site.sql.run("ALTER ROLE rolesmean_app NOLOGIN").await;
    refused("session").await;
    let app = app.unwrap();
    app.run("BEGIN; INSERT INTO public.t VALUES (1); PREPARE TRANSACTION 'limbo'")
        .await;
    drop(app);
    refused("limbo").await;
    site.sql.run("ROLLBACK PREPARED 'limbo'").await;
    site.try_execute("postgres.roles.close", &params)
        .await
        .unwrap();
    site.try_execute("postgres.roles.verify", &params)
        .await
        .unwrap();
}

#[tokio::test]
async fn roles_are_closed_all_or_none() {
    let site = Site::new("rolesall", "", "").await;
    site.sql
        .run("CREATE ROLE rolesall_super LOGIN SUPERUSER")
        .await;
    let params = json!({"resource": "shop", "roles": ["rolesall_app", "rolesall_super"]});
    let error = site
        .try_execute("postgres.roles.close", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2303", "{}", error.story());
    assert!(site.cluster.login("rolesall_app", "rolesall").await.is_ok());
    // Which the probe would have said.
    let error = site
        .try_probe("postgres.roles.close", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2312", "{}", error.story());
    assert!(
        error.story().contains("rolesall_super"),
        "{}",
        error.story()
    );

    let unknown = json!({"resource": "shop", "roles": ["rolesall_app", "nobody"]});
    let error = site
        .try_probe("postgres.roles.close", &unknown)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2311");
    let own = json!({"resource": "shop", "roles": ["rolesall_agent"]});
    let error = site
        .try_probe("postgres.roles.close", &own)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2312");
}

#[tokio::test]
async fn what_the_agents_role_lacks_to_close_roles_is_told() {
    let site = Site::new("powers", "", "").await;
    let params = json!({"resource": "shop", "roles": ["powers_app"]});
    let told = async || site.obstacles("postgres.roles.close", &params).await;
    assert_eq!(told().await, Vec::<String>::new());
    // A member, but not with its privileges: it couldn't end a session.
    site.sql.run("ALTER ROLE powers_agent NOINHERIT").await;
    let obstacles = told().await.join("\n");
    assert!(obstacles.contains("doesn't inherit"), "{obstacles}");
    // The privileges of the role itself are as good.
    site.sql
        .run(
            "ALTER ROLE powers_agent INHERIT; REVOKE pg_signal_backend FROM powers_agent; \
             GRANT powers_app TO powers_agent",
        )
        .await;
    assert_eq!(told().await, Vec::<String>::new());
    site.sql.run("ALTER ROLE powers_app REPLICATION").await;
    let obstacles = told().await.join("\n");
    assert!(obstacles.contains("NOREPLICATION"), "{obstacles}");
}

#[tokio::test]
async fn a_prepared_transaction_keeps_roles_from_being_closed() {
    let site = Site::new("prepared", "CREATE TABLE public.t (a int)", "").await;
    site.sql
        .run("GRANT INSERT ON public.t TO prepared_app")
        .await;
    let app = site
        .cluster
        .login("prepared_app", "prepared")
        .await
        .unwrap();
    app.run("BEGIN; INSERT INTO public.t VALUES (1); PREPARE TRANSACTION 'limbo'")
        .await;
    let params = json!({"resource": "shop", "roles": ["prepared_app"]});
    let error = site
        .try_execute("postgres.roles.close", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2314", "{}", error.story());
    assert!(error.story().contains("limbo"));
    site.sql.run("ROLLBACK PREPARED 'limbo'").await;
    site.try_execute("postgres.roles.close", &params)
        .await
        .unwrap();
}

#[tokio::test]
async fn a_role_that_somebody_else_has_opened_is_left_alone() {
    let site = Site::new("rolesdrift", "", "").await;
    let params = json!({"resource": "shop", "roles": ["rolesdrift_app"]});
    site.sql.run("ALTER ROLE rolesdrift_app NOLOGIN").await;
    let probe = site.probe("postgres.roles.close", &params).await;
    assert_eq!(probe.finding, Finding::Already);
    site.sql.run("ALTER ROLE rolesdrift_app LOGIN").await;
    let undone = site
        .undo("postgres.roles.close", &params, &probe.capture.unwrap())
        .await;
    assert!(matches!(undone, Undone::Drifted(_)), "{undone:?}");
}

fn marker(timeout_secs: u64) -> Value {
    json!({"resource": "shop", "marker_table": "lockstep.marker", "tasks": ["arn:a", "arn:b"],
        "nonce": "n1", "scn": "4711", "control_schema": "dms", "apply_exceptions": "1",
        "timeout_secs": timeout_secs})
}

#[tokio::test]
async fn markers_are_awaited_with_nothing_pending_or_lost() {
    let site = Site::new("marker", PROOFS, "").await;
    let exception = "INSERT INTO dms.awsdms_apply_exceptions (\"TABLE_OWNER\", \"TABLE_NAME\") \
                     VALUES ('SHOP', 'ORDERS')";
    site.sql.run(exception).await;
    let write = |task: &str, nonce: &str, scn: u32| {
        format!("INSERT INTO lockstep.marker VALUES ('{RUN}', '{task}', '{nonce}', {scn}, now())")
    };
    site.sql.run(&write("arn:a", "n1", 4711)).await;
    // A marker of another attempt proves nothing.
    site.sql.run(&write("arn:b", "n0", 4711)).await;
    let error = site
        .try_execute("postgres.marker.await", &marker(0))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2318");
    assert!(error.story().contains("arn:b"), "{}", error.story());

    site.sql
        .run("CREATE TABLE dms.awsdms_status (\"PENDING_CHANGES\" bigint)")
        .await;
    site.sql
        .run("INSERT INTO dms.awsdms_status VALUES (3)")
        .await;
    let (mut context, params) = (site.context(), marker(60));
    context.tag.attempt = 2;
    let action = actions::find("postgres.marker.await").unwrap();
    let waiting = tokio::spawn(async move { action.execute(&context, &params, None).await });
    // It has looked at least once before anything comes.
    let looks = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%task_id::text%' \
                 AND application_name LIKE 'lockstep %/step/2' AND state = 'idle'";
    eventually(&site, looks).await;
    assert!(!waiting.is_finished());
    site.sql.run(&write("arn:b", "n1", 4711)).await;
    let pending = site
        .try_execute("postgres.marker.await", &marker(0))
        .await
        .unwrap_err();
    assert!(
        pending.story().contains("3 changes are pending"),
        "{}",
        pending.story()
    );
    site.sql
        .run("UPDATE dms.awsdms_status SET \"PENDING_CHANGES\" = 0")
        .await;
    tokio::time::timeout(PATIENCE, waiting)
        .await
        .unwrap()
        .unwrap()
        .unwrap();
    let probe = site.probe("postgres.marker.await", &marker(0)).await;
    assert_eq!(probe.finding, Finding::Already);

    site.sql.run(exception).await;
    let lost = site
        .try_execute("postgres.marker.await", &marker(60))
        .await
        .unwrap_err();
    assert_eq!(lost.code(), "LS2317");
    assert!(lost.story().contains("SHOP.ORDERS (2)"), "{}", lost.story());
}

/// Waits until a query counts one.
async fn eventually(site: &Site, sql: &str) {
    tokio::time::timeout(PATIENCE, async {
        while site.sql.text(sql).await != "1" {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    })
    .await
    .unwrap_or_else(|_| panic!("never: {sql}"));
}

#[tokio::test]
async fn what_fails_between_the_proof_and_the_stop_is_seen() {
    let site = Site::new("drained", PROOFS, "").await;
    let params = json!({"resource": "shop", "control_schema": "dms", "apply_exceptions": "1"});
    let name = "postgres.drain.check";
    let exception = "INSERT INTO dms.awsdms_apply_exceptions (\"TABLE_OWNER\", \"TABLE_NAME\") \
                     VALUES ('SHOP', 'ORDERS')";
    site.sql.run(exception).await;
    site.perform(name, &params).await;
    site.sql
        .run(
            "CREATE TABLE dms.awsdms_status (\"PENDING_CHANGES\" bigint); \
             INSERT INTO dms.awsdms_status VALUES (3)",
        )
        .await;
    let error = site.try_execute(name, &params).await.unwrap_err();
    assert_eq!(error.code(), "LS2326", "{}", error.story());
    site.sql.run("DELETE FROM dms.awsdms_status").await;
    site.sql.run(exception).await;
    let error = site.try_execute(name, &params).await.unwrap_err();
    assert_eq!(error.code(), "LS2317", "{}", error.story());
    assert!(
        error.story().contains("1 changes could not"),
        "{}",
        error.story()
    );
}

#[tokio::test]
async fn a_change_that_fails_just_before_its_marker_comes_is_lost_not_proved() {
    let site = Site::new("markerlate", PROOFS, "").await;
    // A table that, when it is looked at, has its last change fail before its
    // markers are there: what a replicator may do between two statements.
    site.sql
        .run(
            "CREATE FUNCTION lockstep.fail() RETURNS boolean LANGUAGE sql SECURITY DEFINER AS \
             $$INSERT INTO dms.awsdms_apply_exceptions (\"TABLE_OWNER\", \"TABLE_NAME\") \
             VALUES ('SHOP', 'ORDERS'), ('SHOP', 'ORDERS') RETURNING true$$; \
             CREATE VIEW lockstep.late AS SELECT task_id, 'n1' AS nonce, 4711 AS scn \
             FROM unnest(ARRAY['arn:a', 'arn:b']) AS task_id, \
             (SELECT lockstep.fail() OFFSET 0) AS failed (so) WHERE failed.so; \
             GRANT SELECT ON lockstep.late TO PUBLIC; \
             GRANT EXECUTE ON FUNCTION lockstep.fail() TO PUBLIC",
        )
        .await;
    let mut params = marker(60);
    params["marker_table"] = json!("lockstep.late");
    let lost = site
        .try_execute("postgres.marker.await", &params)
        .await
        .unwrap_err();
    assert_eq!(lost.code(), "LS2317", "{}", lost.story());
}

#[tokio::test]
async fn a_marker_with_another_scn_voids_the_proof() {
    let site = Site::new("markerscn", PROOFS, "").await;
    site.sql
        .run(&format!(
            "INSERT INTO lockstep.marker VALUES ('{RUN}', 'arn:a', 'n1', 12, now())"
        ))
        .await;
    let error = site
        .try_execute("postgres.marker.await", &marker(60))
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2316");
}

/// What the other side says of `shop.orders` below.
fn expected(rows: u64, amount: &str) -> Value {
    use lockstep_agent::canonical::{Kind, RowDigest};
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
        digest.add(&row);
    }
    let columns: Vec<Value> = columns
        .iter()
        .map(|(name, kind)| json!({"name": name, "kind": kind}))
        .collect();
    json!({
        "SHOP.ORDERS": {"rows": rows, "digest": digest.finish(), "columns": columns},
        "SHOP.LINES": {"rows": 1, "digest": null},
    })
}

fn verify(expected: Value) -> Value {
    json!({"resource": "shop", "schemas": ["shop"], "expected": expected, "tables": [
        {"oracle": "SHOP.ORDERS", "postgres": "shop.orders", "digest": true},
        {"oracle": "SHOP.LINES", "postgres": "shop.lines"},
    ]})
}

#[tokio::test]
async fn rows_are_compared_across_types_and_differences_named() {
    let site = Site::new("rows", PROOFS, "").await;
    site.sql
        .run(
            "INSERT INTO shop.orders VALUES \
             (1, 'Müller', 12.50, 'AB', true, '2026-02-03 04:05:06', '2026-02-03 04:05:06Z', '\\x0aff'), \
             (2, '', 0.00, '', false, '2026-02-03', '2026-02-03 04:05:06.5Z', NULL); \
             INSERT INTO shop.lines VALUES (1, 1)",
        )
        .await;
    let (_, outputs) = site
        .perform("postgres.rows.verify", &verify(expected(2, "12.5")))
        .await;
    assert_eq!(
        outputs["tables"],
        json!({"shop.orders": {"rows": 2}, "shop.lines": {"rows": 1}})
    );

    for (wrong, named) in [
        (expected(2, "12.51"), "not the same ones"),
        (expected(3, "12.5"), "has 2 rows, SHOP.ORDERS had 3"),
    ] {
        let error = site
            .try_execute("postgres.rows.verify", &verify(wrong))
            .await
            .unwrap_err();
        assert!(error.story().contains(named), "{}", error.story());
    }
    // A table that the plan forgot.
    let mut forgotten = expected(2, "12.5");
    forgotten["SHOP.MARKS"] = json!({"rows": 0, "postgres": "lockstep.marker"});
    let (_, outputs) = site
        .perform("postgres.rows.verify", &verify(forgotten.clone()))
        .await;
    assert_eq!(outputs["tables"]["lockstep.marker"], json!({"rows": 0}));
    forgotten["SHOP.MARKS"]["rows"] = json!(7);
    let error = site
        .try_execute("postgres.rows.verify", &verify(forgotten))
        .await
        .unwrap_err();
    assert!(
        error
            .story()
            .contains("lockstep.marker has 0 rows, SHOP.MARKS had 7"),
        "{}",
        error.story()
    );
    let silent = site
        .try_probe("postgres.rows.verify", &verify(json!({})))
        .await
        .unwrap_err();
    assert_eq!(silent.code(), "LS2320");

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
        assert!(error.story().contains(named), "{named}: {}", error.story());
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

const TRIGGERS: &str = "
    CREATE SCHEMA shop; CREATE TABLE shop.orders (id int PRIMARY KEY);
    CREATE TABLE shop.\"Lines\" (id int, order_id int REFERENCES shop.orders);
    CREATE FUNCTION shop.f() RETURNS trigger LANGUAGE plpgsql AS 'BEGIN RETURN NEW; END';
    CREATE TRIGGER audit BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.f();
    CREATE TRIGGER note BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.f();
    CREATE TRIGGER always BEFORE INSERT ON shop.orders FOR EACH ROW EXECUTE FUNCTION shop.f();
    CREATE TRIGGER \"Odd one\" BEFORE INSERT ON shop.\"Lines\" FOR EACH ROW EXECUTE FUNCTION shop.f();
    ALTER TABLE shop.orders DISABLE TRIGGER USER;
    ALTER TABLE shop.\"Lines\" DISABLE TRIGGER USER";

const MODES: &str = "SELECT string_agg(tgname || '=' || tgenabled::text, ' ' ORDER BY tgname COLLATE \"C\") \
                     FROM pg_trigger WHERE NOT tgisinternal";

fn triggers() -> Value {
    json!({"resource": "shop", "schemas": ["shop"], "baseline": {
        "shop.orders.note": "disabled", "shop.orders.always": "always",
        "shop.Lines.Odd one": "replica"}})
}

#[tokio::test]
async fn triggers_go_to_their_baseline_and_back() {
    let site = Site::new("triggers", TRIGGERS, "").await;
    let before = site.sql.text(MODES).await;
    let capture = site
        .perform_once("postgres.triggers.enable", &triggers())
        .await;
    assert_eq!(
        site.sql.text(MODES).await,
        "Odd one=R always=A audit=O note=D"
    );
    site.undo_once("postgres.triggers.enable", &triggers(), capture)
        .await;
    assert_eq!(site.sql.text(MODES).await, before);

    // Nothing is kept after an undo, so there is nothing to restore.
    let probe = site.probe("postgres.triggers.restore", &triggers()).await;
    assert_eq!(probe.finding, Finding::Already);
    site.perform_once("postgres.triggers.enable", &triggers())
        .await;
    site.perform_once("postgres.triggers.restore", &triggers())
        .await;
    assert_eq!(site.sql.text(MODES).await, before);
}

#[tokio::test]
async fn triggers_are_switched_all_or_none_while_somebody_holds_a_table() {
    let site = Site::new("triggerlock", TRIGGERS, "").await;
    let before = site.sql.text(MODES).await;
    let holder = site.cluster.login("postgres", "triggerlock").await.unwrap();
    holder
        .run("BEGIN; LOCK TABLE shop.orders IN ROW EXCLUSIVE MODE")
        .await;
    let error = site
        .try_execute("postgres.triggers.enable", &triggers())
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2304", "{}", error.story());
    assert_eq!(site.sql.text(MODES).await, before);
    holder.run("COMMIT").await;
    site.perform_once("postgres.triggers.enable", &triggers())
        .await;
}

#[tokio::test]
async fn a_trigger_that_somebody_else_has_switched_is_left_alone() {
    let site = Site::new("triggerdrift", TRIGGERS, "").await;
    let capture = site
        .perform_once("postgres.triggers.enable", &triggers())
        .await
        .unwrap();
    site.sql
        .run("ALTER TABLE shop.orders ENABLE REPLICA TRIGGER audit")
        .await;
    let now = site.sql.text(MODES).await;
    let undone = site
        .undo("postgres.triggers.enable", &triggers(), &capture)
        .await;
    assert!(matches!(undone, Undone::Drifted(_)), "{undone:?}");
    assert_eq!(site.sql.text(MODES).await, now);
}

#[tokio::test]
async fn what_can_not_be_switched_is_refused_before_anything_is() {
    let site = Site::new("triggerall", TRIGGERS, "").await;
    let mut params = triggers();
    params["set"] = json!("all");
    params["baseline"]["shop.orders.gone"] = json!("always");
    site.sql
        .run("ALTER DATABASE triggerall SET session_replication_role = replica")
        .await;
    let error = site
        .try_probe("postgres.triggers.enable", &params)
        .await
        .unwrap_err();
    for named in [
        "LS2325",
        "superuser",
        "shop.orders.gone",
        "session_replication_role",
    ] {
        assert!(error.story().contains(named), "{named}: {}", error.story());
    }
}

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
    assert_eq!(error.code(), "LS2331", "{}", error.story());
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

const JOBS: &str = "
    CREATE SCHEMA cron; CREATE SCHEMA pgagent;
    CREATE TABLE cron.job (jobid bigint PRIMARY KEY, active boolean,
        database text DEFAULT current_database());
    CREATE FUNCTION cron.alter_job(job_id bigint, schedule text DEFAULT NULL, active boolean DEFAULT NULL)
        RETURNS void LANGUAGE sql AS 'UPDATE cron.job SET active = $3 WHERE jobid = $1';
    INSERT INTO cron.job VALUES (1, true), (2, false);
    INSERT INTO cron.job VALUES (3, true, 'another');
    CREATE TABLE pgagent.pga_job (jobid serial PRIMARY KEY, jobenabled boolean);
    INSERT INTO pgagent.pga_job (jobenabled) VALUES (true), (false)";

const ACTIVE: &str = "SELECT (SELECT string_agg(active::text, ' ' ORDER BY jobid) FROM cron.job) \
                      || ' ' || (SELECT string_agg(jobenabled::text, ' ' ORDER BY jobid) FROM pgagent.pga_job)";

#[tokio::test]
async fn jobs_go_off_and_only_those_that_were_on_come_back() {
    // The two schedulers' tables, made by hand: neither is installed here.
    let site = Site::new("jobs", JOBS, "").await;
    let params = json!({"resource": "shop"});
    let before = site.sql.text(ACTIVE).await;
    let capture = site.perform_once("postgres.jobs.disable", &params).await;
    // The third one runs elsewhere.
    assert_eq!(site.sql.text(ACTIVE).await, "false false true false false");
    site.undo_once("postgres.jobs.disable", &params, capture)
        .await;
    assert_eq!(site.sql.text(ACTIVE).await, before);

    site.perform_once("postgres.jobs.disable", &params).await;
    site.perform_once("postgres.jobs.restore", &params).await;
    assert_eq!(site.sql.text(ACTIVE).await, before);
}

#[tokio::test]
async fn jobs_that_pg_cron_keeps_in_another_database_are_found() {
    let home = Site::new("cronhome", JOBS, "").await;
    let site = Site::new("cronaway", "", "").await;
    let params = json!({"resource": "shop"});
    site.sql
        .run("ALTER DATABASE cronaway SET cron.database_name = 'cronhome'")
        .await;
    home.sql
        .run(
            "UPDATE cron.job SET database = 'cronaway' WHERE jobid < 3; \
             REVOKE CONNECT ON DATABASE cronhome FROM PUBLIC",
        )
        .await;
    let refused = site
        .try_probe("postgres.jobs.disable", &params)
        .await
        .unwrap_err();
    assert_eq!(refused.code(), "LS2336", "{}", refused.story());

    home.sql
        .run("GRANT CONNECT ON DATABASE cronhome TO cronaway_agent")
        .await;
    home.sql
        .run(
            "GRANT USAGE ON SCHEMA cron TO cronaway_agent; \
             GRANT UPDATE ON cron.job TO cronaway_agent; \
             ALTER TABLE cron.job ENABLE ROW LEVEL SECURITY",
        )
        .await;
    let blind = site
        .try_probe("postgres.jobs.disable", &params)
        .await
        .unwrap_err();
    assert_eq!(blind.code(), "LS2334", "{}", blind.story());

    site.sql.run("ALTER ROLE cronaway_agent BYPASSRLS").await;
    let before = home.sql.text(ACTIVE).await;
    let capture = site.perform_once("postgres.jobs.disable", &params).await;
    // Its own pgAgent is no matter of the other database.
    assert_eq!(home.sql.text(ACTIVE).await, "false false true true false");
    site.undo_once("postgres.jobs.disable", &params, capture)
        .await;
    assert_eq!(home.sql.text(ACTIVE).await, before);
    site.perform_once("postgres.jobs.disable", &params).await;
    site.perform_once("postgres.jobs.restore", &params).await;
    assert_eq!(home.sql.text(ACTIVE).await, before);
}

#[tokio::test]
async fn without_schedulers_there_is_nothing_to_do() {
    let site = Site::new("nojobs", "", "").await;
    for name in ["postgres.jobs.disable", "postgres.jobs.restore"] {
        let probe = site.probe(name, &json!({"resource": "shop"})).await;
        assert_eq!(probe.finding, Finding::Already, "{name}");
    }
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
    let error = site
        .try_execute("postgres.analyze", &params)
        .await
        .unwrap_err();
    assert_eq!(error.code(), "LS2324", "{}", error.story());
}

#[tokio::test]
async fn a_canary_is_written_and_taken_back() {
    let site = Site::new("canary", PROOFS, "").await;
    let params = json!({"resource": "shop", "canary_table": "lockstep.canary"});
    site.sql
        .run("INSERT INTO lockstep.canary VALUES ('another run', 't', 'n', now())")
        .await;
    let (capture, first) = site.perform("postgres.canary.write", &params).await;
    let (_, second) = site.perform("postgres.canary.write", &params).await;
    assert_ne!(first["nonce"], second["nonce"]);
    site.undo_once("postgres.canary.write", &params, capture)
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

#[tokio::test]
async fn a_cancelled_task_leaves_no_statement_behind() {
    let site = Site::new("cancelled", TRIGGERS, "").await;
    let holder = site.cluster.login("postgres", "cancelled").await.unwrap();
    holder
        .run("BEGIN; LOCK TABLE shop.orders IN ACCESS EXCLUSIVE MODE")
        .await;
    let context = site.context();
    let (cancel, params) = (context.cancel.clone(), triggers());
    let action = actions::find("postgres.triggers.enable").unwrap();
    let waiting = tokio::spawn(async move { action.execute(&context, &params, None).await });
    let ours = format!(
        "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'lockstep {RUN}/step/1' \
         AND wait_event_type = 'Lock'"
    );
    eventually(&site, &ours).await;
    cancel.cancel();
    let error = waiting.await.unwrap().unwrap_err();
    assert_eq!(error.code(), "LS2305", "{}", error.story());
    assert_eq!(site.sql.text(&ours).await, "0");
}
