//! What a cutover does once only, also when a daemon was killed in the middle.

use super::look::Look;
use serde_json::Value;
use std::collections::BTreeMap;

/// What was done more often than a cutover does it.
pub(super) fn repeated(look: &Look) -> Vec<String> {
    let mut times: BTreeMap<String, usize> = BTreeMap::new();
    let mut count = |what: String| *times.entry(what).or_default() += 1;
    for call in look.calls["calls"].as_array().into_iter().flatten() {
        let operation = call["operation"].as_str().unwrap_or_default();
        let target = match operation {
            "PutMetricAlarm" => &call["parameters"]["AlarmName"],
            "CreateReplicationTask" => &call["parameters"]["ReplicationTaskIdentifier"],
            "StartReplicationTask" | "StopReplicationTask" | "DeleteReplicationTask" => {
                &call["parameters"]["ReplicationTaskArn"]
            }
            _ => continue,
        };
        if call["error"].is_null() {
            let target = target.as_str().unwrap_or_default();
            count(format!("{operation} {target}"));
        }
    }
    for statement in look.oracle["statements"].as_array().into_iter().flatten() {
        let sql = statement["sql"].as_str().unwrap_or_default().to_uppercase();
        let at_ms = statement["at_ms"].as_i64().unwrap_or_default();
        if at_ms >= look.moments.began_ms && changes_state(&sql) {
            count(sql);
        }
    }
    // A proof that was cut short is given anew, under a nonce of its own.
    for marker in list(&look.proofs["markers"]) {
        count(format!("the marker {}", marker["nonce"]));
    }
    for nonce in list(&look.proofs["canaries"]) {
        count(format!("the canary {nonce}"));
    }
    times
        .into_iter()
        .filter(|(_, found)| *found != 1)
        .map(|(what, found)| format!("{what}: {found} times, not once"))
        .collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Locks, triggers, parameters: each of these statements has its effect once.
/// Sessions are killed as often as they come, checkpoints belong to markers,
/// and what keeps Oracle closed is made durable from each of its hosts.
fn changes_state(sql: &str) -> bool {
    let starts = ["ALTER USER", "ALTER TRIGGER", "ALTER SYSTEM SET"];
    starts.iter().any(|start| sql.starts_with(start)) && !sql.contains("SCOPE=SPFILE")
}
