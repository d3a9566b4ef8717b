//! What real landscapes have and the plain range leaves out: DMS that takes tens of
//! seconds to start and stop, metrics a minute apart and late, another database on
//! the listener, a socket that starts its service again, a service that depends on
//! another, and a unit that may take long to stop.
//!
//! The plain plan is refused on such a range; [`plan`] is the plan that names what
//! is there.

use super::error::Error;
use super::host::{Host, Sketch, write};
use super::layout::Layout;
use super::oracle::Oracle;
use serde_json::json;

/// The instance of another database that registers with ora-1's listener.
pub const NEIGHBOUR: &str = "CRM1";

/// `[timing]` of the DMS double. Minutes stay minutes only where waiting for them
/// costs nothing: metrics.
pub const DMS_TIMING: &str = "\n[timing]\ncreating_ms = 10000\nstarting_ms = 20000\n\
     stopping_ms = 15000\ndeleting_ms = 5000\ntesting_ms = 5000\nmetrics_ms = 60000\n\
     metrics_late_ms = 90000\n";

/// A unit's own limit for its stop, longer than the plain plan's `unit_timeout`.
const SLOW_STOP: &str = "[Service]\nTimeoutStopSec=60\n";

/// Units that a host has besides those of the plain range.
fn units(layout: &Layout, host: &str) -> Vec<(&'static str, String)> {
    let wanted = "[Install]\nWantedBy=default.target\n";
    match host {
        // Somebody connects all the time, so the service is back at once unless its
        // socket is stopped too.
        "app-1" => vec![
            (
                "shop-push.socket",
                "[Socket]\nListenStream=%t/shop-push\n\n[Install]\nWantedBy=sockets.target\n"
                    .into(),
            ),
            (
                "shop-push.service",
                "[Service]\nExecStart=/bin/sleep infinity\n".into(),
            ),
            (
                "knock.service",
                format!(
                    "[Service]\nExecStart={} /srv/shop/knock.py %t/shop-push\n\n{wanted}",
                    layout.python().display()
                ),
            ),
        ],
        "app-2" => vec![(
            "shop-worker.service",
            format!(
                "[Unit]\nRequires=shop-orders.service\nAfter=shop-orders.service\n\n\
                 [Service]\nExecStart=/bin/sleep infinity\n\n{wanted}"
            ),
        )],
        "app-3" => vec![("shop-orders.service.d/slow.conf", SLOW_STOP.into())],
        _ => Vec::new(),
    }
}

/// Connects to a socket again and again, as a client would that nobody stopped.
const KNOCK: &str = "\
import socket, sys, time
while True:
    with socket.socket(socket.AF_UNIX) as client:
        try:
            client.connect(sys.argv[1])
        except OSError:
            pass
    time.sleep(0.5)
";

/// Writes the further units of a host.
///
/// # Errors
/// When a file can't be written.
pub fn lay_out(layout: &Layout, sketch: &Sketch) -> Result<(), Error> {
    if sketch.name == "app-1" {
        write(&layout.shop(&sketch.name).join("knock.py"), KNOCK)?;
    }
    let dir = layout.host(&sketch.name).join("config/systemd/user");
    for (name, text) in units(layout, &sketch.name) {
        let path = dir.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(Error::file("create", parent))?;
        }
        write(&path, &text)?;
    }
    Ok(())
}

/// Starts them, as an administrator would have done.
///
/// # Errors
/// When systemd refuses.
pub fn start(layout: &Layout, host: &Host) -> Result<(), Error> {
    let all = units(layout, &host.name);
    let names: Vec<&str> = all
        .iter()
        .map(|(name, _)| *name)
        .filter(|name| !name.contains('/'))
        .collect();
    if names.is_empty() {
        return Ok(());
    }
    host.systemctl(&["daemon-reload"])?;
    host.systemctl(&[&["start"], &names[..]].concat()).map(drop)
}

/// Registers another database's instance with ora-1's listener.
///
/// # Errors
/// When the simulator refuses.
pub fn neighbour(oracle: &Oracle) -> Result<(), Error> {
    let with = json!({"registered": [{"service": "CRM", "instance": NEIGHBOUR}]});
    oracle
        .request(&json!({"op": "arrange", "name": "LISTENER", "with": with}))
        .map(drop)
}

/// The rehearsal's plan with what the landscape has besides.
///
/// # Errors
/// When the plan lacks a place where something is to be named.
pub fn plan(plain: &str) -> Result<String, Error> {
    let push = "  - name: push\n    hosts: { labels: { host: app-1 }, expected: 1 }\n    \
         services: [shop-push.socket, shop-push.service]\n    unit_timeout: 15s\n\nalarms:\n";
    let changes = [
        (
            "  dms_listener: LISTENER_DMS\n",
            format!("  dms_listener: LISTENER_DMS\n  also_serves: [{NEIGHBOUR}]\n"),
        ),
        ("  timeout: 30s\n", "  timeout: 120s\n".to_owned()),
        (
            "    services: [shop-orders.service]\n    unit_timeout: 15s\n",
            "    services: [shop-orders.service]\n    unit_timeout: 70s\n".to_owned(),
        ),
        ("\nalarms:\n", push.to_owned()),
        (
            "outage: { budget: 180s, rollback_reserve: 60s }",
            "outage: { budget: 900s, rollback_reserve: 660s }".to_owned(),
        ),
    ];
    let mut text = plain.to_owned();
    for (from, to) in changes {
        if !text.contains(from) {
            return Err(Error::Answer {
                from: "the rehearsal's plan".into(),
                detail: format!("it lacks {from:?}"),
            });
        }
        text = text.replacen(from, &to, 1);
    }
    Ok(text)
}
