//! What the range itself saw of each step of the procedure.
//!
//! A phase that is called done proves nothing here. For every step there is
//! something that can be seen from outside: a unit's stop, a closed port, a
//! parameter's value, a call that DMS received, a row.

use std::collections::BTreeMap;

use serde::Serialize;
use serde_json::{Value, json};

use super::product::RunStatus;
use super::state::State;
use super::workload::Verdict;
use crate::range::{Error, Range, applications};

/// All steps of the procedure, in order.
pub const SEED_STEPS: [&str; 15] = [
    "1", "2", "3", "4", "5", "6", "7", "8", "8.1", "8.2", "8.3", "9", "10", "10.1", "10.2",
];

/// One step as seen from outside.
#[derive(Debug, Clone, Serialize)]
pub struct Effect {
    /// Whether what the step is for has been seen.
    pub seen: bool,
    /// The evidence.
    pub evidence: Value,
}

/// By step of the procedure.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Effects(pub BTreeMap<&'static str, Effect>);

impl Effects {
    /// Judges what a look at the range has brought; empty without one.
    #[must_use]
    pub fn of(look: Option<&Look>, verdict: &Verdict) -> Self {
        let Some(look) = look else {
            return Self::default();
        };
        Self(
            SEED_STEPS
                .into_iter()
                .map(|step| (step, look.at(step, verdict)))
                .collect(),
        )
    }

    /// The steps of which nothing was seen.
    #[must_use]
    pub fn missing(&self) -> Vec<&'static str> {
        SEED_STEPS
            .into_iter()
            .filter(|step| !self.0.get(step).is_some_and(|e| e.seen))
            .collect()
    }
}

/// A look at the range right after the run, while the applications write.
#[derive(Debug)]
pub struct Look {
    oracle: Value,
    calls: Value,
    state: State,
    rows: Value,
    stops: Value,
    health: Option<Value>,
    run_id: String,
}

impl Look {
    /// Looks.
    ///
    /// # Errors
    /// When one of the range's parts does not answer.
    pub fn at_range(range: &Range, run: &RunStatus) -> Result<Self, Error> {
        Ok(Self {
            oracle: range.oracle.observe()?,
            calls: range.dms.get("/control/calls")?,
            state: State::of(range)?,
            rows: rows(range)?,
            stops: stops(range)?,
            health: range.host("app-1").map(|host| health(host.address)),
            run_id: run.id.clone(),
        })
    }

    fn at(&self, step: &str, verdict: &Verdict) -> Effect {
        match step {
            "1" => seen(
                self.stops
                    .as_object()
                    .is_some_and(|units| units.values().all(|at| *at != 0)),
                json!({"last_stop_monotonic_us": self.stops}),
            ),
            "2" => self.sessions_killed(),
            "3" => self.listeners_closed(),
            "4" => self.parameter_zero("job_queue_processes"),
            "5" => self.parameter_zero("aq_tm_processes"),
            "6" => self.drained(),
            "7" => seen(
                self.called("StopReplicationTask") && self.state.dms["forward"] == "stopped",
                json!({"calls": self.calls_of("StopReplicationTask"), "forward": self.state.dms["forward"]}),
            ),
            "8" => seen(
                self.state.dms["reverse"] == "running"
                    && self.state.postgres["slots"][0]["active"] == true,
                json!({"reverse": self.state.dms["reverse"], "slots": self.state.postgres["slots"]}),
            ),
            "8.1" => self.triggers_off(),
            "8.2" => seen(
                self.called("CreateReplicationTask"),
                json!({"calls": self.calls_of("CreateReplicationTask")}),
            ),
            "8.3" => seen(
                self.called("StartReplicationTask") && self.rows["canary_in_postgres"] != 0,
                json!({"calls": self.calls_of("StartReplicationTask"), "canary": self.rows["canary_in_postgres"]}),
            ),
            "9" => self.triggers_on(),
            "10" | "10.1" => seen(
                verdict.postgres_committed > 0 && self.switched(),
                json!({"orders_on_postgres": verdict.postgres_committed, "hosts": self.state.hosts,
                       "health": self.health}),
            ),
            _ => seen(
                self.called("PutMetricAlarm"),
                json!({"calls": self.calls_of("PutMetricAlarm")}),
            ),
        }
    }

    fn sessions_killed(&self) -> Effect {
        let killed = self.oracle["sessions_killed"]
            .as_array()
            .map_or(0, Vec::len);
        let left: Vec<&Value> = self.oracle["sessions"]
            .as_array()
            .into_iter()
            .flatten()
            .filter(|session| matches!(session["user"].as_str(), Some("SHOP" | "BATCH")))
            .collect();
        seen(
            left.is_empty(),
            json!({"killed": killed, "application_sessions_left": left}),
        )
    }

    fn listeners_closed(&self) -> Effect {
        let listeners = &self.state.oracle["listeners"];
        let right = listeners.as_object().is_some_and(|all| {
            all.iter()
                .all(|(name, one)| (one["running"] == true) == name.ends_with("LISTENER_DMS"))
        });
        seen(right, json!({"listeners": listeners}))
    }

    fn parameter_zero(&self, name: &str) -> Effect {
        let values: BTreeMap<&String, &Value> = self.state.oracle["parameters"]
            .as_object()
            .into_iter()
            .flatten()
            .map(|(instance, values)| (instance, &values[name]))
            .collect();
        let zero = !values.is_empty() && values.values().all(|value| *value == "0");
        seen(zero, json!({ name: values }))
    }

    fn drained(&self) -> Effect {
        let checkpoints = &self.oracle["checkpoints"];
        let made = checkpoints.as_array().is_some_and(|all| !all.is_empty());
        let arrived = self.rows["markers"].as_u64().unwrap_or_default();
        seen(
            made && arrived > 0,
            json!({"run": self.run_id, "checkpoints": checkpoints, "archived": self.oracle["archived"],
                   "markers_in_postgres": arrived}),
        )
    }

    fn triggers_off(&self) -> Effect {
        let triggers = &self.state.oracle["triggers"];
        let off = triggers
            .as_object()
            .is_some_and(|all| !all.is_empty() && all.values().all(|status| status == "DISABLED"));
        seen(off, json!({"oracle_triggers": triggers}))
    }

    fn triggers_on(&self) -> Effect {
        let baseline = json!([
            {"name": "order_lines.order_lines_check_trg", "mode": "A"},
            {"name": "orders.orders_audit_trg", "mode": "O"},
            {"name": "orders.orders_note_trg", "mode": "D"},
            {"name": "orders.orders_replica_trg", "mode": "R"},
        ]);
        let triggers = &self.state.postgres["triggers"];
        seen(
            *triggers == baseline,
            json!({"postgres_triggers": triggers}),
        )
    }

    fn switched(&self) -> bool {
        let hosts = self.state.hosts.as_object();
        hosts.is_some_and(|all| {
            all.iter()
                .filter(|(name, _)| name.starts_with("app-"))
                .all(|(_, host)| host["database"] == "postgres.toml")
        })
    }

    fn calls_of(&self, operation: &str) -> Vec<&Value> {
        let calls = self.calls["calls"].as_array();
        calls
            .into_iter()
            .flatten()
            .filter(|call| call["operation"] == operation)
            .collect()
    }

    fn called(&self, operation: &str) -> bool {
        self.calls_of(operation)
            .iter()
            .any(|call| call["error"].is_null())
    }
}

fn seen(seen: bool, evidence: Value) -> Effect {
    Effect { seen, evidence }
}

fn rows(range: &Range) -> Result<Value, Error> {
    let sql = "SELECT (SELECT count(*) FROM lockstep.lockstep_marker) AS markers, \
               (SELECT count(*) FROM lockstep.lockstep_canary) AS canary_in_postgres";
    let rows = range.postgres.rows(sql)?;
    Ok(rows[0].clone())
}

/// When systemd last saw each writer stopped; 0 for one that has run without
/// a break since the range was started.
fn stops(range: &Range) -> Result<Value, Error> {
    let mut all = serde_json::Map::new();
    for host in &range.hosts {
        let Some(unit) = applications::writer_of(&host.name) else {
            continue;
        };
        let properties = host.unit(unit)?;
        let entered = properties
            .get("InactiveEnterTimestampMonotonic")
            .and_then(Value::as_str)
            .and_then(|text| text.parse::<u64>().ok())
            .unwrap_or_default();
        all.insert(format!("{}/{unit}", host.name), json!(entered));
    }
    Ok(Value::Object(all))
}

/// What the application on that host says about itself.
fn health(address: std::net::Ipv4Addr) -> Value {
    use std::io::{Read, Write};
    let talk = || -> std::io::Result<String> {
        let port = crate::range::layout::ports::HEALTH;
        let mut stream = std::net::TcpStream::connect((address, port))?;
        stream.set_read_timeout(Some(std::time::Duration::from_secs(5)))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = talk().unwrap_or_default();
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    serde_json::from_str(body).unwrap_or(Value::Null)
}
