//! The trial of the marker's path, while applications still write.

use crate::range::{Range, shop};
use serde_json::json;

#[tokio::test(flavor = "multi_thread")]
async fn a_trial_marker_is_archived_while_applications_write() {
    let range = Range::start("").await;
    let sys = range.sys().await;
    let client = shop("").unwrap();
    client
        .execute("INSERT INTO SHOP.ORDERS (ID) VALUES (1)", &[])
        .unwrap();
    let params = json!({
        "resource": "orcl",
        "marker_table": "LOCKSTEP.LOCKSTEP_MARKER",
        "tasks": ["arn:forward"],
    });
    range.probe("oracle.marker.write", &params).await.unwrap();
    let outputs = range.execute("oracle.marker.write", &params).await.unwrap();
    let nonce = outputs["nonce"].as_str().unwrap();
    assert!(nonce.starts_with("trial-"), "{nonce}");

    let sql = "SELECT TASK_ID FROM LOCKSTEP.LOCKSTEP_MARKER WHERE NONCE = :1";
    let task: String = sys.row(sql, &[nonce.into()]).await.unwrap();
    assert_eq!(task, "arn:forward");
    let sql = "SELECT MIN(COMMIT_SCN) FROM V$LOGMNR_CONTENTS WHERE TABLE_NAME = 'LOCKSTEP_MARKER'";
    let committed: i64 = sys.row(sql, &[]).await.unwrap();
    let sql = "SELECT COUNT(*) FROM V$ARCHIVED_LOG WHERE FIRST_CHANGE# <= :1 AND NEXT_CHANGE# > :2";
    let archived: i64 = sys
        .row(sql, &[committed.into(), committed.into()])
        .await
        .unwrap();
    assert_eq!(archived, 2, "in the archived logs of both threads");
    // The application was not disturbed.
    client.commit().unwrap();
    client.close().unwrap();
}

#[tokio::test(flavor = "multi_thread")]
async fn a_missing_marker_table_is_found_by_the_probe() {
    let range = Range::start("").await;
    let params = json!({
        "resource": "orcl",
        "marker_table": "LOCKSTEP.NO_MARKER",
        "tasks": ["arn:forward"],
    });
    let error = range
        .probe("oracle.marker.write", &params)
        .await
        .unwrap_err();
    assert!(error.report().contains("LOCKSTEP.NO_MARKER"));
}
