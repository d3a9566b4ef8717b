//! `kind: Restart`: check health, stop everywhere, start everywhere, check again.

use super::{health_checks, phase, plan::policy, rollback, step};
use crate::catalogue::{StartService, StopService};
use crate::diagnose::{self, Fault};
use crate::model::{FormatVersion, Gate, Kind, Outage, Phase, Plan, Step};
use crate::source::restart::{Restart, Strategy};
use std::collections::BTreeMap;

const FLEET: &str = "fleet";
const CANARY: &str = "canary";

/// Default time limit for one unit.
const UNIT_SECS: u64 = 60;

/// The expanded plan, and the faults of the file.
pub(crate) fn expand(source: &Restart) -> (Plan, Vec<Fault>) {
    let mut parties = BTreeMap::from([(FLEET.to_owned(), source.hosts.party(true))]);
    if let Some(canary) = &source.canary {
        parties.insert(CANARY.to_owned(), canary.party(true));
    }
    let timeout_secs = source.unit_timeout.map_or(UNIT_SECS, |given| given.secs());
    let service_stop = StopService {
        units: source.units.clone(),
        timeout_secs,
        enablement: false,
    };
    let service_start = StartService {
        units: source.units.clone(),
        timeout_secs,
        enablement: false,
    };
    let on_failure = policy(source.on_failure);
    let mut phases: Vec<Phase> = Vec::new();
    let mut push = |name: &str, steps: Vec<Step>| {
        if !steps.is_empty() {
            phases.push(phase(name, on_failure, &parties, steps));
        }
    };
    push("preflight", health_checks(&source.health, "before", FLEET));
    push("stop", vec![step("stop", FLEET, &service_stop)]);
    if source.canary.is_some() {
        let mut steps = vec![step("start-canary", CANARY, &service_start)];
        steps.extend(health_checks(&source.health, "canary", CANARY));
        push("start-canary", steps);
    }
    let mut steps = vec![step("start", FLEET, &service_start)];
    steps.extend(health_checks(&source.health, "after", FLEET));
    push("start", steps);
    if source.approval
        && let Some(stop) = phases.iter_mut().find(|phase| phase.name == "stop")
    {
        stop.gate = Gate::Approval;
    }
    let plan = Plan {
        format: FormatVersion::CURRENT,
        name: source.name.clone(),
        kind: Kind::Restart,
        rollback: rollback::reversed(&phases, &parties),
        parties,
        phases,
        outage: None::<Outage>,
    };
    (plan, faults(source))
}

fn faults(source: &Restart) -> Vec<Fault> {
    if source.strategy != Strategy::Rolling {
        return Vec::new();
    }
    vec![Fault::new(
        diagnose::NOT_IN_THIS_VERSION,
        "/strategy",
        "this version does not support rolling restarts",
        "use all-at-once, or write a plan of kind Plan with a party for each batch",
    )]
}
