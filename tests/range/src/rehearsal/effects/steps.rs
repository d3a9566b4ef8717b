//! What must have been seen of each step, strictly: values and their order in
//! time, not only that something was asked for.

use super::look::Look;
use super::{Effect, Verdict};
use crate::range::{applications, dms};
use serde_json::{Value, json};

/// A report is made every five seconds; one that was left out shows as a gap
/// of nearly two of its intervals.
const REPORT_GAP_MS: i64 = 8_000;

/// The triggers of the shop's schema as the plan wants them.
const BASELINE: [(&str, &str); 4] = [
    ("order_lines.order_lines_check_trg", "A"),
    ("orders.orders_audit_trg", "O"),
    ("orders.orders_note_trg", "D"),
    ("orders.orders_replica_trg", "R"),
];

/// What the plan's alarms watch.
const ALARMS: [&str; 3] = [
    "CDCLatencySource",
    "OldestReplicationSlotLag",
    "TransactionLogsDiskUsage",
];

pub(super) fn judge(look: &Look, step: &str, verdict: &Verdict) -> Effect {
    match step {
        "1" => look.applications_stopped(),
        "2" => look.sessions_killed(),
        "3" => look.listeners_closed(),
        "4" => look.jobs_off(),
        "5" => look.parameter_zero("aq_tm_processes"),
        "6" => look.drained(),
        "7" => look.forward_stopped(),
        "8" => look.reverse_running(),
        "8.1" => look.oracle_triggers_off(),
        "8.2" => look.reverse_created(),
        "8.3" => look.reverse_started(),
        "9" => look.postgres_ready(),
        "10" | "10.1" => look.applications_switched(verdict),
        _ => look.alarms_set(),
    }
}

fn effect(seen: bool, evidence: Value) -> Effect {
    Effect { seen, evidence }
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

/// Of the applications, whatever program they connect with.
fn is_application(session: &Value) -> bool {
    matches!(session["user"].as_str(), Some("SHOP" | "BATCH"))
}

impl Look {
    /// When the last word of Oracle was taken: its first checkpoint in the run.
    fn fence_ms(&self) -> i64 {
        let checkpoints = list(&self.oracle["checkpoints"]);
        checkpoints
            .filter_map(|checkpoint| checkpoint["at_ms"].as_i64())
            .find(|at| *at >= self.moments.began_ms)
            .unwrap_or_default()
    }

    fn before_fence(&self, at_ms: i64) -> bool {
        (self.moments.began_ms..=self.fence_ms()).contains(&at_ms)
    }

    /// Statements that contain `text`, in the run and before the fence.
    fn statements<'l>(&'l self, text: &'l str) -> impl Iterator<Item = &'l Value> {
        list(&self.oracle["statements"]).filter(move |statement| {
            let sql = statement["sql"].as_str().unwrap_or_default();
            sql.to_uppercase().contains(text)
                && self.before_fence(statement["at_ms"].as_i64().unwrap_or_default())
        })
    }

    fn calls_of<'l>(&'l self, operation: &'l str) -> impl Iterator<Item = &'l Value> {
        list(&self.calls["calls"])
            .filter(move |call| call["operation"] == operation && call["error"].is_null())
    }

    fn forward(&self) -> &Value {
        let found = list(&self.tasks).find(|task| task["identifier"] == dms::FORWARD);
        found.unwrap_or(&Value::Null)
    }

    fn last_stop(&self) -> i64 {
        self.stops.values().copied().max().unwrap_or_default()
    }

    /// Every unit stopped between the run's start and the fence, and no
    /// report made while Oracle was fenced.
    fn applications_stopped(&self) -> Effect {
        let stopped = self.stops.values().all(|at| self.before_fence(*at));
        let fence = self.fence_ms();
        let gap = |times: &Vec<i64>| {
            let before = times.iter().rev().find(|at| **at <= fence)?;
            let after = times.iter().find(|at| **at > fence);
            Some(after.map_or(i64::MAX, |after| after - before))
        };
        let gaps: Vec<(&&str, Option<i64>)> = self
            .reports
            .iter()
            .map(|(by, times)| (by, gap(times)))
            .collect();
        let quiet = gaps
            .iter()
            .all(|(_, gap)| gap.is_some_and(|gap| gap > REPORT_GAP_MS));
        let gaps: serde_json::Map<String, Value> = gaps
            .into_iter()
            .map(|(by, gap)| ((*by).to_owned(), json!(gap)))
            .collect();
        effect(
            stopped && quiet && !self.stops.is_empty(),
            json!({"units_stopped_epoch_ms": self.stops, "fence_epoch_ms": fence,
                   "longest_without_report_ms": gaps}),
        )
    }

    /// The forgotten client's sessions were killed, and nobody of the
    /// applications is left or has committed since.
    fn sessions_killed(&self) -> Effect {
        let killed: Vec<&Value> = list(&self.oracle["sessions_killed"])
            .filter(|session| is_application(session))
            .filter(|session| self.before_fence(session["at_ms"].as_i64().unwrap_or_default()))
            .collect();
        let forgotten = killed
            .iter()
            .any(|session| session["machine"] == applications::FORGOTTEN_ON);
        let left: Vec<&Value> = list(&self.oracle["sessions"])
            .filter(|session| is_application(session) && session["status"] != "KILLED")
            .collect();
        effect(
            forgotten && left.is_empty() && self.nobody_committed(),
            json!({"killed": killed, "application_sessions_left": left,
                   "commits_after_fence": self.commits_after_fence}),
        )
    }

    fn nobody_committed(&self) -> bool {
        let commits = self.commits_after_fence.as_object();
        commits.is_some_and(|users| !users.contains_key("SHOP") && !users.contains_key("BATCH"))
    }

    /// Only the listener of DMS runs, and only its port takes connections.
    fn listeners_closed(&self) -> Effect {
        let reserved = |name: &str| name.ends_with("LISTENER_DMS");
        let listeners = &self.state.oracle["listeners"];
        let stopped = listeners.as_object().is_some_and(|all| {
            all.iter()
                .all(|(name, one)| (one["running"] == true) == reserved(name))
        });
        let closed = self
            .ports
            .iter()
            .all(|(name, open)| *open == reserved(name));
        effect(
            stopped && closed && !self.ports.is_empty(),
            json!({"listeners": listeners, "ports_open": self.ports}),
        )
    }

    /// Set to zero before the fence, and zero on every instance still.
    fn parameter_zero(&self, name: &str) -> Effect {
        let instances = self.state.oracle["parameters"].as_object();
        let values: serde_json::Map<String, Value> = instances
            .into_iter()
            .flatten()
            .map(|(instance, values)| (instance.clone(), values[name].clone()))
            .collect();
        let zero = !values.is_empty() && values.values().all(|value| *value == "0");
        let assignment = format!("{}=0", name.to_uppercase());
        let set: Vec<&Value> = self.statements(&assignment).collect();
        effect(
            zero && !set.is_empty(),
            json!({"values": values, "statements": set}),
        )
    }

    /// The parameter, no job at work, and none that has committed since.
    fn jobs_off(&self) -> Effect {
        let parameter = self.parameter_zero("job_queue_processes");
        let jobs = &self.oracle["jobs"];
        let at_rest = list(jobs).all(|job| job["state"] != "RUNNING");
        let mut evidence = parameter.evidence;
        evidence["jobs"] = jobs.clone();
        evidence["commits_after_fence"] = self.commits_after_fence.clone();
        effect(
            parameter.seen && at_rest && self.nobody_committed(),
            evidence,
        )
    }

    /// For every marker: a checkpoint not later than the SCN it names, its
    /// commit after that SCN, a log switch after its commit, its arrival.
    fn drained(&self) -> Effect {
        let mut evidence = Vec::new();
        let mut right = true;
        for marker in list(&self.proofs["markers"]) {
            let (named, commit) = (marker["scn"].as_u64(), marker["commit_scn"].as_u64());
            let scn = |value: &Value| value.as_u64();
            let checkpoint = list(&self.oracle["checkpoints"])
                .filter_map(|one| scn(&one["scn"]))
                .filter(|at| Some(*at) <= named)
                .max();
            let switched = list(&self.oracle["archived"])
                .filter_map(|log| scn(&log["next_scn"]))
                .filter(|at| Some(*at) > commit)
                .min();
            let nonce = marker["nonce"].as_str().unwrap_or_default();
            let arrived = &self.rows["markers"][nonce];
            right &= checkpoint.is_some() && named < commit && switched.is_some();
            right &= arrived.is_i64();
            evidence.push(
                json!({"checkpoint_scn": checkpoint, "scn": named, "commit_scn": commit,
                "log_switch_scn": switched, "committed_epoch_ms": marker["committed_ms"],
                "in_postgres_epoch_ms": arrived}),
            );
        }
        let fence = self.moments.fence_scn;
        effect(
            right && fence.is_some(),
            json!({"fence_scn": fence, "markers": evidence}),
        )
    }

    /// Told to stop after the markers had arrived; stopped by request.
    fn forward_stopped(&self) -> Effect {
        let forward = self.forward();
        let arrived = self.rows["markers"].as_object();
        let last = arrived.and_then(|all| all.values().filter_map(Value::as_i64).max());
        let calls: Vec<&Value> = self
            .calls_of("StopReplicationTask")
            .filter(|call| call["parameters"]["ReplicationTaskArn"] == forward["arn"])
            .collect();
        let in_time = calls.iter().any(|call| call["epoch_ms"].as_i64() > last);
        let well = forward["status"] == "stopped"
            && forward["stop_reason"] == "Stop Reason NORMAL"
            && forward["last_failure"].is_null();
        effect(
            in_time && well && last.is_some(),
            json!({"calls": calls, "forward": forward, "last_marker_epoch_ms": last}),
        )
    }

    fn reverse_running(&self) -> Effect {
        let (reverse, slots) = (&self.state.dms["reverse"], &self.state.postgres["slots"]);
        let active = list(slots).count() == 1 && slots[0]["active"] == true;
        effect(
            *reverse == "running" && active,
            json!({"reverse": reverse, "slots": slots}),
        )
    }

    /// All of them off, and off before the reverse task was started.
    fn oracle_triggers_off(&self) -> Effect {
        let triggers = &self.state.oracle["triggers"];
        let off = triggers
            .as_object()
            .is_some_and(|all| !all.is_empty() && all.values().all(|status| status == "DISABLED"));
        let disabled: Vec<&Value> = list(&self.oracle["statements"])
            .filter(|statement| {
                let sql = statement["sql"].as_str().unwrap_or_default().to_uppercase();
                sql.starts_with("ALTER TRIGGER") && sql.ends_with("DISABLE")
            })
            .filter(|statement| statement["at_ms"].as_i64() >= Some(self.moments.began_ms))
            .collect();
        let started = self.reverse_start();
        let first = !disabled.is_empty()
            && disabled
                .iter()
                .all(|statement| statement["at_ms"].as_i64() < started);
        effect(
            off && first,
            json!({"oracle_triggers": triggers, "statements": disabled,
                   "reverse_started_epoch_ms": started}),
        )
    }

    /// When the reverse task was told to start.
    fn reverse_start(&self) -> Option<i64> {
        self.starts_of_reverse()
            .next()
            .and_then(|call| call["epoch_ms"].as_i64())
    }

    fn starts_of_reverse(&self) -> impl Iterator<Item = &Value> {
        let forward = &self.forward()["arn"];
        self.calls_of("StartReplicationTask")
            .filter(move |call| call["parameters"]["ReplicationTaskArn"] != *forward)
    }

    /// Before anybody had to stop working: changes only, onto tables that
    /// are left as they are.
    fn reverse_created(&self) -> Effect {
        let calls: Vec<&Value> = self.calls_of("CreateReplicationTask").collect();
        let right = calls.iter().any(|call| {
            let parameters = &call["parameters"];
            let settings = parameters["ReplicationTaskSettings"].as_str();
            parameters["MigrationType"] == "cdc"
                && settings.is_some_and(|text| text.contains("DO_NOTHING"))
                && call["epoch_ms"].as_i64() < Some(self.last_stop())
        });
        effect(right, json!({"calls": calls}))
    }

    /// Started from the beginning of its slot, and what was written to
    /// PostgreSQL came back to Oracle.
    fn reverse_started(&self) -> Effect {
        let starts: Vec<&Value> = self.starts_of_reverse().collect();
        let how = |call: &Value, kind: &str| call["parameters"]["StartReplicationTaskType"] == kind;
        let right = !starts.is_empty() && starts.iter().all(|call| how(call, "start-replication"));
        let reloads = self
            .calls_of("StartReplicationTask")
            .filter(|call| how(call, "reload-target"))
            .count();
        let written = &self.rows["canaries"];
        let back = &self.proofs["canaries"];
        let returned = list(written).count() > 0
            && list(written).all(|nonce| list(back).any(|one| one == nonce));
        effect(
            right && reloads == 0 && returned,
            json!({"calls": starts, "canaries_in_postgres": written, "canaries_on_oracle": back}),
        )
    }

    /// Triggers exactly as in the plan's baseline; sequences beyond every
    /// value that Oracle or a row has used.
    fn postgres_ready(&self) -> Effect {
        let triggers = &self.state.postgres["triggers"];
        let baseline: Vec<Value> = BASELINE
            .iter()
            .map(|(name, mode)| json!({"name": name, "mode": mode}))
            .collect();
        let (sequences, highest) = (&self.rows["sequences"], &self.rows["highest"]);
        let oracle = &self.oracle["sequences"];
        let beyond = [
            ("shop.orders_seq", "SHOP.ORDERS_SEQ", "shop.orders"),
            (
                "shop.order_lines_id_seq",
                "SHOP.ORDER_LINES_SEQ",
                "shop.order_lines",
            ),
        ]
        .iter()
        .all(|(own, theirs, table)| {
            let value = sequences[own].as_i64();
            value.is_some() && value >= highest[table].as_i64() && value >= oracle[theirs].as_i64()
        });
        effect(
            *triggers == Value::from(baseline) && beyond,
            json!({"postgres_triggers": triggers, "sequences": sequences, "highest_ids": highest,
                   "oracle_sequences": oracle}),
        )
    }

    /// Every host is configured for PostgreSQL, every application host says
    /// that it writes there, and all units are back.
    fn applications_switched(&self, verdict: &Verdict) -> Effect {
        let hosts = self.state.hosts.as_object();
        let right = hosts.is_some_and(|all| {
            all.iter()
                .filter(|(name, _)| applications::writer_of(name).is_some())
                .all(|(_, host)| {
                    let mut units = host["units"].as_object().into_iter().flatten();
                    host["database"] == "postgres.toml"
                        && units.all(|(_, unit)| unit["active"] == "active")
                })
        });
        let writing = !self.health.is_empty()
            && self
                .health
                .values()
                .all(|page| page["target"] == "postgres" && page["acked"].as_u64() > Some(0));
        effect(
            right && writing && verdict.postgres_committed > 0,
            json!({"orders_on_postgres": verdict.postgres_committed, "hosts": self.state.hosts,
                   "health": self.health}),
        )
    }

    fn alarms_set(&self) -> Effect {
        let calls: Vec<&Value> = self.calls_of("PutMetricAlarm").collect();
        let watched = |metric: &&str| {
            calls
                .iter()
                .any(|call| call["parameters"]["MetricName"] == **metric)
        };
        effect(ALARMS.iter().all(watched), json!({"calls": calls}))
    }
}

#[cfg(test)]
mod tests {
    use super::super::look::Moments;
    use super::super::once;
    use super::*;
    use crate::rehearsal::State;

    /// A cutover in small: killed at 1,050 ms, fence at 1,100 ms and SCN 100,
    /// marker committed at SCN 101, there at 1,200 ms, DMS stopped at 1,300 ms.
    fn cutover() -> Look {
        Look {
            moments: Moments {
                began_ms: 1_000,
                fence_scn: Some(100),
            },
            oracle: json!({
                "sessions": [{"user": "DMS_USER"}],
                "sessions_killed": [{"user": "SHOP", "machine": "app-1", "at_ms": 1_050}],
                "checkpoints": [{"scn": 99, "at_ms": 1_100}],
                "archived": [{"next_scn": 102}],
                "statements": [{"sql": "ALTER USER SHOP ACCOUNT LOCK", "at_ms": 1_010}],
            }),
            commits_after_fence: json!({"SYS": 1, "DMS_USER": 40}),
            calls: json!({"calls": [{
                "operation": "StopReplicationTask", "error": null, "epoch_ms": 1_300,
                "parameters": {"ReplicationTaskArn": "arn:forward"},
            }]}),
            tasks: json!([{
                "identifier": "forward", "arn": "arn:forward", "status": "stopped",
                "stop_reason": "Stop Reason NORMAL", "last_failure": null,
            }]),
            state: State {
                oracle: json!({}),
                postgres: json!({}),
                dms: json!({}),
                alarms: json!([]),
                hosts: json!({}),
            },
            rows: json!({"markers": {"n": 1_200}, "canaries": ["c"]}),
            proofs: json!({
                "markers": [{"nonce": "n", "scn": 100, "commit_scn": 101, "committed_ms": 1_110}],
                "canaries": ["c"],
            }),
            stops: [("app-1/shop-orders.service".to_owned(), 1_020)].into(),
            reports: [("cron", vec![500, 12_000])].into(),
            ports: [].into(),
            health: serde_json::Map::new(),
        }
    }

    fn seen(look: &Look, step: &str) -> bool {
        judge(look, step, &Verdict::default()).seen
    }

    #[test]
    fn a_cutover_in_order_is_seen() {
        for step in ["1", "2", "6", "7"] {
            assert!(seen(&cutover(), step), "step {step}");
        }
        assert_eq!(cutover().marker_ms(), Some(90));
    }

    #[test]
    fn a_unit_that_stopped_after_the_fence_or_a_report_behind_it_is_not_enough() {
        let mut look = cutover();
        look.stops.insert("app-2/shop-orders.service".into(), 1_150);
        assert!(!seen(&look, "1"));
        let mut look = cutover();
        look.reports.insert("timer", vec![500, 1_500]);
        assert!(!seen(&look, "1"));
    }

    #[test]
    fn nobody_killed_or_somebody_left_is_not_enough() {
        let mut look = cutover();
        look.oracle["sessions_killed"] = json!([]);
        assert!(!seen(&look, "2"));
        let mut look = cutover();
        look.oracle["sessions"] = json!([{"user": "BATCH"}]);
        assert!(!seen(&look, "2"));
        let mut look = cutover();
        look.commits_after_fence = json!({"SHOP": 1});
        assert!(!seen(&look, "2"));
    }

    #[test]
    fn a_marker_before_its_scn_or_behind_the_log_switch_proves_nothing() {
        let mut look = cutover();
        look.proofs["markers"][0]["commit_scn"] = json!(100);
        assert!(!seen(&look, "6"));
        let mut look = cutover();
        look.oracle["archived"] = json!([{"next_scn": 101}]);
        assert!(!seen(&look, "6"));
        let mut look = cutover();
        look.rows["markers"] = json!({});
        assert!(!seen(&look, "6"));
    }

    #[test]
    fn a_task_that_stopped_too_early_or_badly_is_not_enough() {
        let mut look = cutover();
        look.calls["calls"][0]["epoch_ms"] = json!(1_150);
        assert!(!seen(&look, "7"));
        let mut look = cutover();
        look.tasks[0]["stop_reason"] = json!("Stop Reason FATAL_ERROR");
        assert!(!seen(&look, "7"));
    }

    #[test]
    fn what_was_done_twice_is_named() {
        let mut look = cutover();
        assert_eq!(once::repeated(&look), Vec::<String>::new());
        let lock = look.oracle["statements"][0].clone();
        look.oracle["statements"] = json!([lock, lock]);
        assert_eq!(
            once::repeated(&look),
            ["ALTER USER SHOP ACCOUNT LOCK: 2 times, not once"]
        );
    }
}
