//! The look at the range right after the run, while the applications write.

use crate::range::layout::{Layout, ports};
use crate::range::{self, Error, Range, applications, oracle};
use crate::rehearsal::state::State;
use serde_json::{Map, Value, json};
use std::collections::BTreeMap;
use std::net::{Ipv4Addr, SocketAddr, TcpStream};
use std::process::Command;
use std::time::Duration;

/// Loopback answers or refuses at once; the bound is for a busy machine.
const CONNECT_LIMIT: Duration = Duration::from_secs(5);

/// The rows that prove something, with the times at which PostgreSQL got them.
const ROWS: &str = "SELECT \
    (SELECT coalesce(json_object_agg(nonce, \
        (extract(epoch FROM pg_xact_commit_timestamp(xmin)) * 1000)::bigint), '{}') \
     FROM lockstep.lockstep_marker) AS markers, \
    (SELECT coalesce(json_agg(nonce), '[]') FROM lockstep.lockstep_canary) AS canaries, \
    (SELECT json_object_agg(schemaname || '.' || sequencename, last_value) \
     FROM pg_sequences WHERE schemaname = 'shop') AS sequences, \
    (SELECT json_build_object('shop.orders', (SELECT max(id) FROM shop.orders), \
        'shop.order_lines', (SELECT max(id) FROM shop.order_lines))) AS highest";

/// What the run's moments are measured against: everything else is the
/// range's own observation.
#[derive(Debug, Clone, Default)]
pub struct Moments {
    /// When the run was started, milliseconds since 1970.
    pub began_ms: i64,
    /// The SCN of the fence: the first that a marker row in Oracle names. None
    /// while there is no marker.
    pub fence_scn: Option<u64>,
}

#[derive(Debug)]
pub struct Look {
    pub(super) moments: Moments,
    pub(super) oracle: Value,
    /// Commits on Oracle after the fence, by user.
    pub(super) commits_after_fence: Value,
    pub(super) calls: Value,
    pub(super) tasks: Value,
    pub(super) state: State,
    /// Markers with their arrival, canaries, sequences.
    pub(super) rows: Value,
    /// Markers with the SCN and time of their commit, canaries on Oracle.
    pub(super) proofs: Value,
    /// When each unit was last seen stopped.
    pub(super) stops: BTreeMap<String, i64>,
    /// When the report ran, by whom it is started.
    pub(super) reports: BTreeMap<&'static str, Vec<i64>>,
    /// Whether each listener's port takes connections.
    pub(super) ports: BTreeMap<String, bool>,
    /// What each application host says about itself.
    pub(super) health: Map<String, Value>,
}

impl Look {
    /// Looks.
    ///
    /// # Errors
    /// When one of the range's parts does not answer.
    pub fn at_range(range: &Range, began_ms: i64) -> Result<Self, Error> {
        let proofs = proofs(range)?;
        let moments = Moments {
            began_ms,
            fence_scn: scns(&proofs).min(),
        };
        let commits_after_fence = match moments.fence_scn {
            Some(scn) => range.oracle.commits_after(scn)?,
            None => Value::Null,
        };
        Ok(Self {
            moments,
            oracle: range.oracle.observe()?,
            commits_after_fence,
            calls: range.dms.get("/control/calls")?,
            tasks: range.dms.get("/control/tasks")?,
            state: State::of(range)?,
            rows: range.postgres.rows(ROWS)?[0].clone(),
            proofs,
            stops: stops(range)?,
            reports: reports(&range.layout),
            ports: listening(),
            health: health(range),
        })
    }

    /// The SCNs that the markers name, as Oracle holds them.
    #[must_use]
    pub fn marker_scns(&self) -> Vec<u64> {
        scns(&self.proofs).collect()
    }

    /// From the first marker's commit on Oracle to its commit in PostgreSQL,
    /// by the clocks of the two databases, which are one here.
    #[must_use]
    pub fn marker_ms(&self) -> Option<u64> {
        let marker = self.proofs["markers"].get(0)?;
        let arrived = self.rows["markers"][marker["nonce"].as_str()?].as_i64()?;
        u64::try_from(arrived - marker["committed_ms"].as_i64()?).ok()
    }
}

fn scns(proofs: &Value) -> impl Iterator<Item = u64> {
    let markers = proofs["markers"].as_array().into_iter().flatten();
    markers.filter_map(|marker| marker["scn"].as_u64())
}

/// Markers and canaries as Oracle holds them.
fn proofs(range: &Range) -> Result<Value, Error> {
    let layout = &range.layout;
    let mut command = Command::new(layout.python());
    command
        .arg(layout.source.join("tests/range/checker/proofs.py"))
        .args([
            "--oracle-dsn",
            &format!("127.0.0.1:{}/ORCL", ports::ORA1_LISTENER_DMS),
        ])
        .args(["--oracle-user", "DMS_USER", "--oracle-password-file"])
        .arg(layout.secret("oracle-dms_user"));
    let text = range::run("read the proofs in Oracle", &mut command)?;
    let mut found: Value = serde_json::from_str(&text).map_err(|error| Error::Answer {
        from: "proofs.py".into(),
        detail: error.to_string(),
    })?;
    for marker in found["markers"].as_array_mut().into_iter().flatten() {
        if let Some(scn) = marker["commit_scn"].as_u64() {
            marker["committed_ms"] = json!(range.oracle.commit_at(scn)?);
        }
    }
    Ok(found)
}

/// When systemd last saw each unit stopped; nothing for one that has run
/// without a break since the range was started.
fn stops(range: &Range) -> Result<BTreeMap<String, i64>, Error> {
    let mut all = BTreeMap::new();
    for host in &range.hosts {
        for unit in applications::units_of(&host.name) {
            let properties = host.unit(unit)?;
            let text = properties.get("InactiveEnterTimestamp");
            let stopped = text.and_then(Value::as_str).and_then(epoch_ms);
            all.insert(format!("{}/{unit}", host.name), stopped.unwrap_or_default());
        }
    }
    Ok(all)
}

/// As systemd writes it with `--timestamp=us+utc`.
fn epoch_ms(text: &str) -> Option<i64> {
    let at = jiff::civil::DateTime::strptime("%a %Y-%m-%d %H:%M:%S%.f UTC", text).ok()?;
    let at = at.to_zoned(jiff::tz::TimeZone::UTC).ok()?;
    Some(at.timestamp().as_millisecond())
}

/// When the report was made, by the timer on app-2 and by cron on app-3.
fn reports(layout: &Layout) -> BTreeMap<&'static str, Vec<i64>> {
    let mut all = BTreeMap::new();
    for (by, host, file) in [
        ("timer", "app-2", "report.jsonl"),
        ("cron", "app-3", "cron.jsonl"),
    ] {
        let path = layout.shop(host).join("log").join(file);
        // A report that never ran has left no log, and proves nothing.
        let text = std::fs::read_to_string(&path).unwrap_or_default();
        let times = text
            .lines()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter_map(|line| line["t_epoch_ms"].as_i64());
        all.insert(by, times.collect());
    }
    all
}

/// Whether each listener's port takes connections.
fn listening() -> BTreeMap<String, bool> {
    let all = oracle::HOSTS.iter().flat_map(|host| {
        let listeners = host.listeners.iter();
        listeners.map(|(name, port)| (format!("{}.{name}", host.host), *port))
    });
    all.map(|(name, port)| {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let open = TcpStream::connect_timeout(&address, CONNECT_LIMIT).is_ok();
        (name, open)
    })
    .collect()
}

/// What the application on each application host says about itself.
fn health(range: &Range) -> Map<String, Value> {
    let applications = range.hosts.iter().filter(|h| h.name.starts_with("app-"));
    applications
        .map(|host| (host.name.clone(), page(host.address)))
        .collect()
}

fn page(address: Ipv4Addr) -> Value {
    use std::io::{Read, Write};
    let talk = || -> std::io::Result<String> {
        let mut stream = TcpStream::connect((address, ports::HEALTH))?;
        stream.set_read_timeout(Some(CONNECT_LIMIT))?;
        stream.write_all(b"GET /health HTTP/1.0\r\n\r\n")?;
        let mut answer = String::new();
        stream.read_to_string(&mut answer)?;
        Ok(answer)
    };
    let answer = talk().unwrap_or_default();
    let body = answer.split("\r\n\r\n").nth(1).unwrap_or_default();
    serde_json::from_str(body).unwrap_or(Value::Null)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_unit_that_has_never_stopped_has_no_stop() {
        assert_eq!(
            epoch_ms("Mon 2026-11-23 04:47:03.123456 UTC"),
            Some(1_795_409_223_123)
        );
        assert_eq!(epoch_ms(""), None);
    }
}
