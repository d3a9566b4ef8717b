//! Listeners in the company in which they are found: with other databases, under
//! Clusterware with its permissions, under Oracle Restart, or out of reach.

use crate::range::{Range, action};
use lockstep_agent::action::{Description, Undone};
use lockstep_api::Code;
use lockstep_barrier::message::Finding;
use serde_json::{Value, json};

const STOP: &str = "oracle.listener.stop";
const START: &str = "oracle.listener.start";

async fn described(range: &Range, name: &str, params: &Value) -> Description {
    let cx = range.context();
    action(name).describe(&cx, params).await.unwrap()
}

/// Stops the listeners of the resource, and undoes that.
async fn there_and_back(range: &Range, params: &Value) {
    let before = range.world();
    let probe = range.probe(STOP, params).await.unwrap();
    assert_eq!(probe.finding, Finding::Pending);
    range.execute(STOP, params).await.unwrap();
    assert_ne!(range.world(), before);
    let before_image = probe.before_image.unwrap();
    range.undo(STOP, params, &before_image).await.unwrap();
    assert_eq!(range.world(), before);
}

#[tokio::test(flavor = "multi_thread")]
async fn other_databases_of_a_listener_are_an_obstacle_unless_the_plan_names_them() {
    let range = Range::start("").await;
    let before = range.world();
    range.arrange(
        "LISTENER",
        &json!({"registered": [
            {"service": "PLSExtProc", "instance": "PLSExtProc", "static": true},
            {"service": "ORCL", "instance": "ORCL2"},
            {"service": "CRM", "instance": "CRM1"},
            {"service": "CRMXDB", "instance": "CRM1"},
        ]}),
    );
    let mut params = json!({"resource": "orcl", "keep": ["LISTENER_DMS"]});
    let description = described(&range, STOP, &params).await;
    let [obstacle] = description.obstacles.as_slice() else {
        panic!("{:?}", description.obstacles);
    };
    let named = "LISTENER also serves the instance CRM1 (service CRM, CRMXDB)";
    assert!(obstacle.starts_with(named), "{obstacle}");
    // Days later an instance may have come.
    let error = range.probe(STOP, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2216, "{}", error.report());
    assert_eq!(range.world(), before);

    params["also_serves"] = json!(["crm1"]);
    let description = described(&range, STOP, &params).await;
    assert_eq!(description.obstacles, Vec::<String>::new());
    assert!(
        description
            .remarks
            .iter()
            .any(|line| line.starts_with(named)),
        "{:?}",
        description.remarks
    );
    there_and_back(&range, &params).await;
}

/// A SCAN listener that runs on another node.
#[tokio::test(flavor = "multi_thread")]
async fn what_a_listener_serves_must_be_known_or_waived() {
    let range = Range::start("").await;
    range.arrange("LISTENER_SCAN1", &json!({"unreachable": 12545}));
    let mut params = json!({"resource": "clustered"});
    let description = described(&range, STOP, &params).await;
    let [obstacle] = description.obstacles.as_slice() else {
        panic!("{:?}", description.obstacles);
    };
    let unknown = "which instances LISTENER_SCAN1 serves isn't known";
    assert!(obstacle.starts_with(unknown), "{obstacle}");
    let error = range.probe(STOP, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2216, "{}", error.report());
    params["also_serves"] = json!(["*"]);
    let description = described(&range, STOP, &params).await;
    assert_eq!(description.obstacles, Vec::<String>::new());
    there_and_back(&range, &params).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_clusterware_protects_is_not_disabled() {
    let range = Range::start("").await;
    let before = range.world();
    let params = json!({"resource": "grid_clustered"});
    let description = described(&range, STOP, &params).await;
    assert_eq!(description.obstacles, Vec::<String>::new());
    let grid = range.directory().join("grid").display().to_string();
    let asked = format!("crsctl {grid}  status resource ora.LISTENER_CRS.lsnr -p");
    assert!(range.grid_ran().contains(&asked), "{:#?}", range.grid_ran());
    // Who may stop it may not yet disable it.
    let acl = "owner:grid:rwx,pgrp:oinstall:r-x,other::r--";
    let caller = "oracle:oinstall,dba";
    range.arrange("LISTENER_CRS", &json!({"acl": acl, "caller": caller}));
    let error = range.execute(STOP, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2211);
    assert!(error.report().contains("PRCR-1012"), "{}", error.report());
    assert_eq!(range.world(), before);
    let acl = format!("{acl},user:oracle:rwx");
    range.arrange("LISTENER_CRS", &json!({"acl": acl, "caller": caller}));
    there_and_back(&range, &params).await;
}

/// Oracle Restart's srvctl has no option -node.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_under_oracle_restart_is_controlled_without_its_node() {
    let range = Range::start("").await;
    range.arrange("LISTENER_CRS", &json!({"oracle_restart": true}));
    there_and_back(&range, &json!({"resource": "grid_clustered"})).await;
}

/// A virtual address that has moved away, or a name that doesn't resolve.
#[tokio::test(flavor = "multi_thread")]
async fn a_listener_that_can_not_be_reached_is_started_but_does_not_count_as_closed() {
    let range = Range::start("").await;
    let before = range.world();
    let params = json!({"resource": "orcl", "keep": ["LISTENER_DMS"]});
    let probe = range.probe(STOP, &params).await.unwrap();
    range.execute(STOP, &params).await.unwrap();
    range.arrange("LISTENER", &json!({"unreachable": 12543}));
    let error = range.probe(STOP, &params).await.unwrap_err();
    assert_eq!(error.code(), Code::LS2211, "{}", error.report());
    let before_image = probe.before_image.unwrap();
    range.undo(STOP, &params, &before_image).await.unwrap();
    assert_eq!(range.world(), before);
}

/// Its undo would stop it otherwise.
#[tokio::test(flavor = "multi_thread")]
async fn a_running_listener_that_can_not_be_reached_does_not_count_as_down_before_a_start() {
    let range = Range::start("").await;
    let before = range.world();
    range.arrange("LISTENER", &json!({"unreachable": 12543}));
    let params = json!({"resource": "orcl", "listeners": ["LISTENER"]});
    let probe = range.probe(START, &params).await.unwrap();
    assert_eq!(probe.finding, Finding::Pending);
    range.execute(START, &params).await.unwrap();
    assert!(!range.said().contains(&"LISTENER: started".to_owned()));
    let before_image = probe.before_image.unwrap();
    let reachable = json!({});
    for with in [json!({"unreachable": 12543}), reachable] {
        range.arrange("LISTENER", &with);
        let undone = range.undo(START, &params, &before_image).await.unwrap();
        assert!(matches!(undone, Undone::Drifted(_)), "{undone:?}");
        assert_eq!(range.world(), before);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn each_change_of_a_listener_is_reported_once() {
    let range = Range::start("").await;
    let params = json!({"resource": "clustered", "listeners": ["LISTENER_CRS"]});
    range.execute(STOP, &params).await.unwrap();
    assert_eq!(
        range.said(),
        ["LISTENER_CRS: disabled", "LISTENER_CRS: stopped"]
    );
    range.execute(STOP, &params).await.unwrap();
    assert_eq!(range.said().len(), 2, "nothing was changed");
}
