//! Which task may be the way back, and whose it is.

use super::*;
use lockstep_api::Code;

/// A run before this one.
const EARLIER: &str = "0190c0de-0000-7000-8000-000000000000";

const CREATE: &str = "dms.reverse.create";

async fn refused(range: &Range, create: &Value, code: Code, says: &str) {
    let error = range.site.try_probe(CREATE, create).await.unwrap_err();
    assert_eq!(error.code(), code, "{}", error.report());
    assert!(error.report().contains(says), "{}", error.report());
    let obstacles = range.site.obstacles(CREATE, create).await;
    assert!(obstacles[0].contains(code.as_str()), "{obstacles:?}");
}

#[tokio::test]
async fn an_endpoint_that_stops_the_reverse_task_is_refused_before_anything_is_created() {
    let range = Range::start("unusable").await;
    for (endpoint, code, says) in [
        ("postgres-slot", Code::LS2426, "way_back"),
        ("postgres-attribute", Code::LS2426, "way_back"),
        ("postgres-ddl", Code::LS2428, "captures DDL"),
        // Capturing is DMS's default.
        ("postgres-silent", Code::LS2428, "captures DDL"),
    ] {
        let mut create = range.reverse();
        create["source_endpoint"] = range.endpoint(endpoint);
        refused(&range, &create, code, says).await;
        let error = range.site.try_execute(CREATE, &create).await.unwrap_err();
        assert_eq!(error.code(), code);
    }
    let mut create = range.reverse();
    create["target_endpoint"] = range.endpoint("oracle-escape");
    let table = "/rules/1/object-locator/table-name";
    *create["table_mappings"].pointer_mut(table).unwrap() = json!("canary#_1");
    refused(&range, &create, Code::LS2429, "escapeCharacter=#").await;
    assert_eq!(range.calls("CreateReplicationTask"), 0);
}

#[tokio::test]
async fn settings_that_would_lose_data_are_not_left_to_the_defaults() {
    let range = Range::start("settings").await;
    let (site, create) = (&range.site, range.reverse());
    for (settings, says) in [
        (
            json!({"ChangeProcessingDdlHandlingPolicy": {"HandleSourceTableDropped": true}}),
            "HandleSourceTableDropped is true",
        ),
        (
            json!({"TargetMetadata": {"LimitedSizeLobMode": true}}),
            "32 KB",
        ),
    ] {
        let mut given = create.clone();
        given["settings"] = settings;
        refused(&range, &given, Code::LS2420, says).await;
    }
    let mut chosen = create.clone();
    chosen["settings"] = json!({"TargetMetadata": {"LobMaxSize": 64},
        "ErrorBehavior": {"ApplyErrorInsertPolicy": "LOG_ERROR"}});
    let remarks = site.remarks(CREATE, &chosen).await.join("; ");
    assert!(remarks.contains("64 KB"), "{remarks}");
    assert!(
        remarks.contains("ApplyErrorInsertPolicy is LOG_ERROR"),
        "{remarks}"
    );

    site.perform("dms.task.stop", &range.forward(30)).await;
    let (_, outputs) = site.perform(CREATE, &create).await;
    let log = range.control("GET", "/control/calls", &Value::Null);
    let mut calls = log["calls"].as_array().unwrap().iter();
    let call = calls.find(|call| call["operation"] == "CreateReplicationTask");
    let text = call.unwrap()["parameters"]["ReplicationTaskSettings"].as_str();
    let settings: Value = serde_json::from_str(text.unwrap()).unwrap();
    for what in ["Dropped", "Truncated", "Altered"] {
        let name = format!("HandleSourceTable{what}");
        assert_eq!(settings["ChangeProcessingDdlHandlingPolicy"][name], false);
    }
    assert_eq!(settings["TargetMetadata"]["FullLobMode"], true);

    // An error stops the task, from which it can be resumed, and loses nothing.
    let start = json!({"resource": "dms", "postgres": "shop", "task": outputs["task"],
        "timeout_secs": 30});
    site.perform("dms.reverse.start", &start).await;
    range.fault(
        json!({"kind": "apply_error", "task": "reverse", "schema": "shop",
        "table": "orders", "message": "ORA-01438"}),
    );
    site.sql
        .run("INSERT INTO shop.orders VALUES (2, 'second')")
        .await;
    let failure = eventually("the stop", async || {
        let task = range.task("reverse")?;
        (task["status"] == "failed").then(|| task["last_failure"].to_string())
    })
    .await;
    assert!(failure.contains("ApplyErrorInsertPolicy"), "{failure}");
}

#[tokio::test]
async fn a_task_of_an_earlier_run_is_used_if_it_is_the_same_and_left_alone() {
    let range = Range::start("earlier").await;
    let (site, mut create) = (&range.site, range.reverse());
    create["settings"] = json!({"Logging": {"EnableLogging": true}});
    site.execute_as(EARLIER, CREATE, &create).await;

    let mut written = create.clone();
    let mappings = serde_json::to_string_pretty(&create["table_mappings"]).unwrap();
    written["table_mappings"] = json!(mappings);
    let (before_image, _) = site.perform(CREATE, &written).await;
    assert_eq!(range.calls("CreateReplicationTask"), 1);
    let undone = site.undo(CREATE, &create, &before_image.unwrap()).await;
    assert_eq!(undone, Undone::Unchanged);
    assert!(range.task("reverse").is_some());

    let mut mapped = create.clone();
    mapped["table_mappings"]["rules"][0]["object-locator"]["schema-name"] = json!("crm");
    let place = "/rules/0/object-locator/schema-name";
    refused(&range, &mapped, Code::LS2421, place).await;
    let mut set = create.clone();
    set["settings"] = json!({"Logging": {"EnableLogging": false}});
    refused(&range, &set, Code::LS2421, "/Logging/EnableLogging").await;
    let mut elsewhere = create.clone();
    elsewhere["target_endpoint"] = range.endpoint("oracle-slot");
    refused(&range, &elsewhere, Code::LS2421, "its target endpoint is").await;
}

#[tokio::test]
async fn a_task_that_has_run_before_is_no_way_back() {
    let range = Range::start("has_run").await;
    let (site, create) = (&range.site, range.reverse());
    site.perform("dms.task.stop", &range.forward(30)).await;
    let outputs = site.execute_as(EARLIER, CREATE, &create).await;
    let start = json!({"resource": "dms", "postgres": "shop", "task": outputs["task"],
        "timeout_secs": 30});
    let (started, _) = site.perform("dms.reverse.start", &start).await;
    refused(&range, &create, Code::LS2421, "running already").await;
    site.undo_once("dms.reverse.start", &start, started).await;
    refused(&range, &create, Code::LS2421, "it has run before").await;
}

#[tokio::test]
async fn only_what_this_run_created_is_deleted() {
    let range = Range::start("whose").await;
    let (site, create) = (&range.site, range.reverse());
    let before_image = site.probe(CREATE, &create).await.before_image.unwrap();
    // Somebody else is faster, between the probe and the work.
    site.execute_as(EARLIER, CREATE, &create).await;
    site.try_execute(CREATE, &create).await.unwrap();
    let undone = site.undo(CREATE, &create, &before_image).await;
    let Undone::Drifted(why) = undone else {
        panic!("{undone:?}")
    };
    assert!(why.contains("not created by this run"), "{why}");
    assert!(range.task("reverse").is_some());
}

#[tokio::test]
async fn tables_before_their_load_stop_only_a_task_that_loads() {
    let range = Range::start("before_load").await;
    let (site, forward) = (&range.site, range.forward(30));
    range.fault(json!({"kind": "not_loaded", "task": "forward"}));
    let error = site
        .try_probe("dms.task.ready", &range.ready())
        .await
        .unwrap_err();
    assert_eq!(error.code(), Code::LS2415, "{}", error.report());
    assert!(error.report().contains("not loaded yet: SHOP.ORDERS"));

    range.control("DELETE", "/control/faults", &Value::Null);
    site.perform("dms.task.stop", &forward).await;
    let (_, outputs) = site.perform(CREATE, &range.reverse()).await;
    let start = json!({"resource": "dms", "postgres": "shop", "task": outputs["task"],
        "timeout_secs": 30});
    site.perform("dms.reverse.start", &start).await;
    range.fault(json!({"kind": "not_loaded", "task": "reverse"}));
    let changes_only = json!({"resource": "dms", "task": outputs["task"]});
    site.probe("dms.task.ready", &changes_only).await;
}
