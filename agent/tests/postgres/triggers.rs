//! Triggers to their baseline and back.

use crate::markers::eventually;
use crate::site::{RUN, Site};
use lockstep_agent::action::Undone;
use lockstep_agent::actions;
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};

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

/// Parameters of `postgres.triggers.restore`.
fn switched() -> Value {
    json!({"resource": "shop", "schemas": ["shop"]})
}

#[tokio::test]
async fn triggers_go_to_their_baseline_and_back() {
    let site = Site::new("triggers", TRIGGERS, "").await;
    let before = site.sql.text(MODES).await;
    let before_image = site
        .perform_once("postgres.triggers.enable", &triggers())
        .await;
    assert_eq!(
        site.sql.text(MODES).await,
        "Odd one=R always=A audit=O note=D"
    );
    site.undo_once("postgres.triggers.enable", &triggers(), before_image)
        .await;
    assert_eq!(site.sql.text(MODES).await, before);

    // Nothing is kept after an undo, so there is nothing to restore.
    let probe = site.probe("postgres.triggers.restore", &switched()).await;
    assert_eq!(probe.finding, Finding::Satisfied);
    site.perform_once("postgres.triggers.enable", &triggers())
        .await;
    site.perform_once("postgres.triggers.restore", &switched())
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
    assert_eq!(error.code(), Code::LS2304, "{}", error.report());
    assert_eq!(site.sql.text(MODES).await, before);
    holder.run("COMMIT").await;
    site.perform_once("postgres.triggers.enable", &triggers())
        .await;
}

#[tokio::test]
async fn a_trigger_that_somebody_else_has_switched_is_left_alone() {
    let site = Site::new("triggerdrift", TRIGGERS, "").await;
    let before_image = site
        .perform_once("postgres.triggers.enable", &triggers())
        .await
        .unwrap();
    site.sql
        .run("ALTER TABLE shop.orders ENABLE REPLICA TRIGGER audit")
        .await;
    let now = site.sql.text(MODES).await;
    let undone = site
        .undo("postgres.triggers.enable", &triggers(), &before_image)
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
        assert!(
            error.report().contains(named),
            "{named}: {}",
            error.report()
        );
    }
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
    assert_eq!(error.code(), Code::LS2305, "{}", error.report());
    assert_eq!(site.sql.text(&ours).await, "0");
}

/// What `ALTER TABLE … DISABLE TRIGGER ALL` before a load leaves behind.
#[tokio::test]
async fn foreign_keys_that_are_not_enforced_are_refused_before_the_run() {
    let site = Site::new("unenforced", TRIGGERS, "").await;
    site.sql
        .run(
            "ALTER TABLE shop.\"Lines\" DISABLE TRIGGER ALL; \
             ALTER TABLE shop.orders DISABLE TRIGGER ALL",
        )
        .await;
    let obstacles = site
        .obstacles("postgres.triggers.enable", &triggers())
        .await
        .join("\n");
    for named in [
        "shop.Lines (Lines_order_id_fkey)",
        "shop.orders (Lines_order_id_fkey)",
        "ENABLE TRIGGER ALL",
    ] {
        assert!(obstacles.contains(named), "{named}: {obstacles}");
    }
    let error = site
        .try_probe("postgres.triggers.enable", &triggers())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2325, "{}", error.report());

    // A superuser's session switches them with the others.
    site.sql.run("ALTER ROLE unenforced_agent SUPERUSER").await;
    let mut params = triggers();
    params["set"] = json!("all");
    site.perform_once("postgres.triggers.enable", &params).await;
    let off = "SELECT count(*) FROM pg_trigger WHERE tgisinternal AND tgenabled <> 'O'";
    assert_eq!(site.sql.text(off).await, "0");
}

/// Only the owner of a table may switch its triggers; PostgreSQL refuses that when
/// they are switched, in the outage.
#[tokio::test]
async fn a_table_of_another_owner_is_refused_before_the_run() {
    let site = Site::new("triggerowner", TRIGGERS, "").await;
    site.sql
        .run("ALTER TABLE shop.\"Lines\" OWNER TO postgres")
        .await;
    let obstacles = site
        .obstacles("postgres.triggers.enable", &triggers())
        .await
        .join("\n");
    assert!(
        obstacles.contains("shop.Lines, owned by postgres"),
        "{obstacles}"
    );
    assert!(!obstacles.contains("shop.orders"), "{obstacles}");
    let error = site
        .try_probe("postgres.triggers.enable", &triggers())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2325, "{}", error.report());

    // A table whose triggers stay as they are needs no right.
    site.sql
        .run("ALTER TABLE shop.\"Lines\" ENABLE REPLICA TRIGGER \"Odd one\"")
        .await;
    site.perform_once("postgres.triggers.enable", &triggers())
        .await;
}

#[tokio::test]
async fn a_misspelt_schema_is_refused_by_every_action_that_takes_one() {
    let site = Site::new("misspelt", TRIGGERS, "").await;
    for name in ["postgres.triggers.enable", "postgres.analyze"] {
        for schemas in [json!(["shopp"]), json!(["shop", "SHOP"])] {
            let params = json!({"resource": "shop", "schemas": schemas});
            let error = site.try_probe(name, &params).await.unwrap_err();
            assert_eq!(error.code(), Code::LS2340, "{name}: {}", error.report());
            let error = site.try_execute(name, &params).await.unwrap_err();
            assert_eq!(error.code(), Code::LS2340, "{name}: {}", error.report());
        }
    }
}
