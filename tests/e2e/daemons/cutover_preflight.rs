//! A cutover doesn't begin while an agent reports an obstacle.

use crate::fleet::{Fleet, Plan};
use serde_json::json;
use std::fs;

const BOTH: [&str; 2] = ["app-1", "app-2"];

/// The smallest cutover; its agents know none of the resources.
const CUTOVER: &str = r"
kind: Cutover
name: blind
oracle:
  hosts: { labels: { host: app-1 }, expected: 1 }
  lead: { labels: { host: app-1 } }
  resource: orcl
  schemas: [SHOP]
  accounts: [SHOP]
  marker_table: LOCKSTEP.LOCKSTEP_MARKER
  dms_users: [DMS_USER]
postgres:
  host: { labels: { host: app-2 } }
  resource: shop
  schemas: [shop]
  roles: [shop_app]
  marker_table: lockstep.lockstep_marker
  triggers: { set: user }
dms:
  resource: dms
  instance: arn:aws:dms:eu-central-1:123456789012:rep:SHOPINSTANCE
  task: arn:aws:dms:eu-central-1:123456789012:task:SHOPFORWARD
  source_endpoint: arn:aws:dms:eu-central-1:123456789012:endpoint:ORACLESOURCE
  target_endpoint: arn:aws:dms:eu-central-1:123456789012:endpoint:POSTGRESTARGET
compare: { tables: [{ oracle: SHOP.ORDERS, postgres: shop.orders }] }
outage: { budget: 10m, rollback_reserve: 3m }
applications:
  - name: shop
    hosts: { labels: { role: app }, expected: 2 }
    cron: ['@DIR@/app-1/etc/report']
";

#[test]
fn a_cutover_with_an_obstacle_is_not_begun() {
    let mut fleet = Fleet::bare(&Plan {
        agents: &BOTH,
        agent_extra: "",
        otlp: "",
    });
    for agent in BOTH {
        let config = fleet.host(agent).path("agent.toml");
        let text = fs::read_to_string(&config).unwrap();
        let actions = "['cron.*', 'oracle.*', 'postgres.*', 'dms.*',";
        fs::write(&config, text.replace("['cron.*',", actions)).unwrap();
    }
    fleet.start_coordinator();
    BOTH.iter().for_each(|agent| fleet.start_agent(agent));
    fleet.wait_connected(&BOTH);
    let before = fleet.snapshot(&BOTH);

    let output = fleet.lockstep(&["run", "start", &fleet.plan("blind", CUTOVER), "--watch"]);
    output.is_refused(&[
        "LS4316",
        "nothing was started",
        ": LS2001: ",
        "; and ",
        " more",
        "see all of them with `lockstep preflight`",
    ]);

    assert_eq!(fleet.lockstep(&["run", "list"]).json, json!([]));
    assert_eq!(fleet.snapshot(&BOTH), before);
}
