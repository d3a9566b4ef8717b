//! Steps of the applications: stop them on Oracle, start them on PostgreSQL.

use super::super::{health_checks, step};
use super::{Draft, canary_party};
use crate::catalogue::{
    CheckTcp, CronFiles, DisableCron, PortState, RestoreCron, StartService, StopProcess,
    StopService,
};
use crate::model::Step;
use crate::source::cutover::Application;

/// Default time limit for one unit.
const UNIT_SECS: u64 = 60;

/// Seconds from SIGTERM to SIGKILL for processes that belong to no unit.
const PROCESS_SECS: u64 = 30;

/// Time limit for the check that Oracle's listeners are down. They were stopped
/// minutes ago; retries only allow for a slow network.
const CLOSED_SECS: u64 = 30;

fn unit_secs(application: &Application) -> u64 {
    application
        .unit_timeout
        .map_or(UNIT_SECS, |given| given.secs())
}

fn stop_units(application: &Application, units: &[String]) -> StopService {
    StopService {
        units: units.to_vec(),
        timeout_secs: unit_secs(application),
        enablement: application.disable_units,
    }
}

fn start_units(application: &Application, units: &[String]) -> StartService {
    StartService {
        units: units.to_vec(),
        timeout_secs: unit_secs(application),
        enablement: application.disable_units,
    }
}

/// Health checks before anything is stopped.
pub(super) fn health(draft: &Draft<'_>) -> Vec<Step> {
    draft
        .source
        .applications
        .iter()
        .flat_map(|application| {
            let name = &application.name;
            health_checks(&application.health, &format!("{name}-before"), name)
        })
        .collect()
}

/// Timers and cron first, because they could restart what is being stopped; then
/// services; then processes that belong to no unit.
pub(super) fn stop(draft: &Draft<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    let applications = &draft.source.applications;
    for app in applications.iter().filter(|app| !app.timers.is_empty()) {
        let id = format!("{}-timers-stop", app.name);
        steps.push(step(id, &app.name, &stop_units(app, &app.timers)));
    }
    for app in applications.iter().filter(|app| !app.cron.is_empty()) {
        let files = app.cron.clone();
        let id = format!("{}-cron-disable", app.name);
        steps.push(step(id, &app.name, &DisableCron(CronFiles { files })));
    }
    for app in applications.iter().filter(|app| !app.services.is_empty()) {
        let id = format!("{}-services-stop", app.name);
        steps.push(step(id, &app.name, &stop_units(app, &app.services)));
    }
    for app in applications.iter().filter(|app| !app.processes.is_empty()) {
        let process = StopProcess {
            processes: app.processes.clone(),
            timeout_secs: PROCESS_SECS,
        };
        let id = format!("{}-processes-stop", app.name);
        steps.push(step(id, &app.name, &process));
    }
    steps
}

fn starting<'a>(draft: &'a Draft<'_>) -> impl Iterator<Item = &'a Application> {
    draft.source.applications.iter().filter(|app| app.start)
}

/// Switches the configuration on all hosts, then starts and checks the canary
/// hosts.
pub(super) fn switch(draft: &Draft<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for app in starting(draft) {
        for (index, config) in app.config.iter().enumerate() {
            let id = format!("{}-config-{}", app.name, index + 1);
            steps.push(step(id, &app.name, config).without_undo());
        }
    }
    for app in starting(draft).filter(|app| app.canary.is_some() && !app.services.is_empty()) {
        let party = canary_party(&app.name);
        let id = format!("{party}-start");
        let start = step(id, &party, &start_units(app, &app.services));
        steps.push(start.without_undo());
        steps.extend(health_checks(&app.health, &party, &party));
    }
    steps
}

/// All hosts: services before the timers that use them, cron last. A host whose
/// services already run reports them as unchanged.
pub(super) fn start(draft: &Draft<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for app in starting(draft).filter(|app| !app.services.is_empty()) {
        let id = format!("{}-services-start", app.name);
        let start = step(id, &app.name, &start_units(app, &app.services));
        steps.push(start.without_undo());
    }
    for app in starting(draft).filter(|app| !app.timers.is_empty()) {
        let id = format!("{}-timers-start", app.name);
        let start = step(id, &app.name, &start_units(app, &app.timers));
        steps.push(start.without_undo());
    }
    for app in starting(draft).filter(|app| !app.cron.is_empty()) {
        let files = app.cron.clone();
        let id = format!("{}-cron-restore", app.name);
        steps.push(step(id, &app.name, &RestoreCron(CronFiles { files })));
    }
    steps
}

/// Checks that every host is healthy and can no longer reach Oracle.
pub(super) fn verify(draft: &Draft<'_>) -> Vec<Step> {
    let mut steps = Vec::new();
    for app in starting(draft) {
        let prefix = format!("{}-after", app.name);
        steps.extend(health_checks(&app.health, &prefix, &app.name));
    }
    for app in &draft.source.applications {
        for (index, address) in draft.source.oracle.closed_addresses.iter().enumerate() {
            let closed = CheckTcp {
                address: address.clone(),
                expect: PortState::Closed,
                within_secs: CLOSED_SECS,
            };
            let id = format!("{}-oracle-closed-{}", app.name, index + 1);
            steps.push(step(id, &app.name, &closed));
        }
    }
    steps
}

/// Whether the phase `start-applications` has any steps.
pub(super) fn any_after_open(draft: &Draft<'_>) -> bool {
    [switch, start, verify]
        .iter()
        .any(|part| !part(draft).is_empty())
}

/// Health checks on Oracle after a rollback.
pub(super) fn health_after_rollback(draft: &Draft<'_>) -> Vec<Step> {
    draft
        .source
        .applications
        .iter()
        .flat_map(|application| {
            let name = &application.name;
            health_checks(&application.health, &format!("{name}-back"), name)
        })
        .collect()
}
