//! `kind: Cutover`: the runbook as phases and steps.
//!
//! The standard phases have fixed names and a fixed order. Where a step depends
//! on the work or output of another agent, the standard phase is split by a
//! further barrier: `final-changes`, `final-changes.arrived`, and so on. Parts
//! without steps are omitted.

mod applications;
mod forward;
mod opening;
mod params;
mod rollback;
mod validate;

use super::plan::policy;
use crate::diagnose::Fault;
use crate::model::{FormatVersion, Gate, Kind, OnFailure, Outage, Party, Phase, Plan, Step};
use crate::source::cutover::Cutover;
use crate::source::{Host, Hosts};
use std::collections::BTreeMap;

/// The standard phases, in order.
pub const STANDARD_PHASES: &[&str] = &[
    "preflight",
    "prepare",
    "stop-applications",
    "close-oracle",
    "final-changes",
    "verify-rows",
    "stop-dms",
    "reverse-task",
    "prepare-postgres",
    "monitoring",
    "open-postgres",
    "start-applications",
    "keep-closed",
];

/// Party of all hosts of the Oracle database.
const ORACLE: &str = "oracle";
/// Party of the one Oracle host that queries the database.
const LEAD: &str = "oracle-lead";
/// Party of the PostgreSQL agent.
const POSTGRES: &str = "postgres";
/// Party of the agent that calls AWS.
const AWS: &str = "aws";

/// The standard phase that contains the point of no return.
const NO_RETURN: &str = "open-postgres";

/// The part of it that can't be rolled back. The parts before it are read-only
/// and fail like the phases before them.
const OPENING: &str = "roles";

/// The expanded plan, and the faults of the file.
pub(crate) fn expand(source: &Cutover) -> (Plan, Vec<Fault>) {
    let faults = validate::check(source);
    let mut draft = Draft {
        source,
        parties: parties(source),
        phases: Vec::new(),
    };
    forward::phases(&mut draft);
    let rollback = rollback::phases(&draft);
    let ends_with = draft
        .phases
        .iter()
        .rfind(|phase| phase.standard == "start-applications")
        .map_or_else(
            || format!("{NO_RETURN}.{OPENING}"),
            |phase| phase.name.clone(),
        );
    let plan = Plan {
        format: FormatVersion::CURRENT,
        name: source.name.clone(),
        kind: Kind::Cutover,
        parties: draft.parties,
        phases: draft.phases,
        rollback,
        outage: Some(Outage {
            budget_ms: source.outage.budget.ms(),
            starts_with: "stop-applications".to_owned(),
            ends_with,
            rollback_reserve_ms: source.outage.rollback_reserve.ms(),
        }),
    };
    (plan, faults)
}

fn parties(source: &Cutover) -> BTreeMap<String, Party> {
    let aws = source.dms.host.as_ref().unwrap_or(&source.postgres.host);
    let mut parties = BTreeMap::from([
        (ORACLE.to_owned(), source.oracle.hosts.party(false)),
        (
            LEAD.to_owned(),
            among(&source.oracle.hosts, &source.oracle.lead, false),
        ),
        (POSTGRES.to_owned(), source.postgres.host.party(false)),
        (AWS.to_owned(), aws.party(true)),
    ]);
    for application in &source.applications {
        parties
            .entry(application.name.clone())
            .or_insert_with(|| application.hosts.party(true));
        if let Some(canary) = &application.canary {
            parties
                .entry(canary_party(&application.name))
                .or_insert_with(|| among(&application.hosts, canary, true));
        }
    }
    parties
}

/// One of several hosts, selected by their labels and its own.
fn among(hosts: &Hosts, one: &Host, detachable: bool) -> Party {
    let mut party = one.party(detachable);
    for (key, value) in &hosts.labels {
        party
            .labels
            .entry(key.clone())
            .or_insert_with(|| value.clone());
    }
    party
}

fn canary_party(application: &str) -> String {
    format!("{application}-canary")
}

/// The plan under construction.
struct Draft<'a> {
    source: &'a Cutover,
    parties: BTreeMap<String, Party>,
    phases: Vec<Phase>,
}

impl Draft<'_> {
    /// Adds a part of a standard phase, if it has steps. `part` is empty for
    /// the first one.
    fn add(&mut self, standard: &str, part: &str, runbook_steps: &[&str], steps: Vec<Step>) {
        if steps.is_empty() {
            return;
        }
        let first = !self.phases.iter().any(|phase| phase.standard == standard);
        // Gates, deadlines and the outage refer to the standard name, so the
        // first part has it even if an earlier part was omitted.
        let name = if first {
            standard.to_owned()
        } else {
            format!("{standard}.{part}")
        };
        let opening = standard == NO_RETURN && part == OPENING;
        let past = opening || self.phases.iter().any(|phase| phase.point_of_no_return);
        let mut phase = super::phase(&name, self.on_failure(past), &self.parties, steps);
        standard.clone_into(&mut phase.standard);
        phase.runbook_steps = runbook_steps.iter().map(|&step| step.to_owned()).collect();
        if first {
            phase.gate = self.gate(standard);
        }
        if let Some(start_by) = self.source.start_by {
            phase.start_by_ms = start_by.ms();
        }
        if let Some(deadline) = self.source.deadlines.get(standard) {
            phase.finish_by_ms = deadline.ms();
        }
        phase.point_of_no_return = opening;
        self.phases.push(phase);
    }

    /// The file sets the policy before the point of no return; after it a failure
    /// holds, because no rollback is possible.
    fn on_failure(&self, past: bool) -> OnFailure {
        if past {
            OnFailure::Hold
        } else {
            policy(self.source.on_failure)
        }
    }

    fn gate(&self, standard: &str) -> Gate {
        let default = if standard == NO_RETURN {
            Gate::Approval
        } else {
            Gate::None
        };
        self.source.gates.get(standard).copied().unwrap_or(default)
    }

    /// The forward step with this id.
    fn step(&self, id: &str) -> Option<&Step> {
        self.phases
            .iter()
            .flat_map(|phase| &phase.steps)
            .find(|step| step.id == id)
    }
}
