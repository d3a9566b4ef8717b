//! What the forward task must be like before anything is changed.

use super::*;
use lockstep_api::Code;

const READY: &str = "dms.task.ready";

#[tokio::test]
async fn the_marker_table_is_mapped_and_the_canary_table_is_not() {
    let range = Range::start("mapped").await;
    let site = &range.site;
    let ready = |marker: &str, canary: &str| {
        let mut params = range.ready();
        params["marker_table"] = json!(marker);
        params["canary_table"] = json!(canary);
        params
    };
    site.perform(READY, &ready("SHOP.MARKER", "LOCKSTEP.CANARY"))
        .await;
    for (params, says) in [
        (
            ready("LOCKSTEP.MARKER", "LOCKSTEP.CANARY"),
            "takes the marker table LOCKSTEP.MARKER",
        ),
        // As the source spells it.
        (
            ready("shop.marker", "LOCKSTEP.CANARY"),
            "takes the marker table shop.marker",
        ),
        (
            ready("SHOP.MARKER", "SHOP.CANARY"),
            "maps the canary table SHOP.CANARY",
        ),
    ] {
        let obstacles = site.obstacles(READY, &params).await;
        assert_eq!(obstacles.len(), 1, "{obstacles:?}");
        assert!(obstacles[0].starts_with("LS2427"), "{obstacles:?}");
        assert!(obstacles[0].contains(says), "{obstacles:?}");
        let error = site.try_probe(READY, &params).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2427, "{}", error.report());
    }
}

/// The control tables of an earlier task may be there, empty, in another schema.
#[tokio::test]
async fn control_tables_that_are_not_those_of_the_task_are_refused() {
    let range = Range::start("control").await;
    let site = &range.site;
    let mut params = range.ready();
    params["control_schema"] = json!("public");
    site.perform(READY, &params).await;
    let remarks = site.remarks(READY, &params).await.join("\n");
    assert!(
        remarks.contains("DROP, TRUNCATE, ALTER repeated, DataErrorPolicy=LOG_ERROR"),
        "{remarks}"
    );
    params["control_schema"] = json!("dms");
    let obstacles = site.obstacles(READY, &params).await;
    assert_eq!(obstacles.len(), 1, "{obstacles:?}");
    assert!(obstacles[0].contains("in the schema public, and the plan reads those in dms"));
    let error = site.try_probe(READY, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2415, "{}", error.report());
}

#[tokio::test]
async fn sessions_of_a_replica_are_found_in_extra_attributes_too() {
    let range = Range::start("extra").await;
    let remarks = range.site.remarks(READY, &range.ready()).await;
    assert!(
        remarks[0].starts_with("its sessions set session_replication_role"),
        "{remarks:?}"
    );
}

#[tokio::test]
async fn only_a_failure_that_was_not_known_before_spoils_the_stop() {
    let range = Range::start("remembered").await;
    let (site, mut task) = (&range.site, range.forward(30));
    range.fault(json!({"kind": "failure_remembered", "task": "forward", "message": "disk full"}));
    let remarks = site.remarks(READY, &range.ready()).await;
    assert!(
        remarks.join(" ").contains("an earlier failure (disk full)"),
        "{remarks:?}"
    );
    let (_, outputs) = site.perform(READY, &range.ready()).await;
    assert_eq!(outputs["last_failure"], "disk full");

    // What the run adds is all that a preflight has to wait for.
    let mut later = task.clone();
    later["known_failure"] = json!("${forward-ready.last_failure}");
    let foreseen = site.foreseen("dms.task.stop", &later).await;
    assert_eq!(foreseen, Vec::<String>::new());

    task["known_failure"] = outputs["last_failure"].clone();
    site.perform_once("dms.task.stop", &task).await;
    for known in [json!(null), json!(""), json!("network gone")] {
        task["known_failure"] = known;
        let error = site.try_execute("dms.task.stop", &task).await.unwrap_err();
        assert_eq!(error.code(), Code::LS2417, "{}", error.report());
    }
}

#[tokio::test]
async fn what_the_forward_task_does_not_carry_is_named() {
    let range = Range::start("limits").await;
    let remarks = range.site.remarks(READY, &range.ready()).await.join("; ");
    assert!(remarks.contains("with LogMiner"), "{remarks}");
    assert!(remarks.contains("it cuts LOBs at 32 KB"), "{remarks}");
}
