//! The rollback of a cutover.
//!
//! It is not simply the reverse order: PostgreSQL is verified to be closed before
//! Oracle opens, and Oracle opens before any call to DMS, so that a failure of DMS
//! never blocks applications from Oracle. Every undo probes first and doesn't touch
//! what was never changed.

use super::super::{phase, step};
use super::{AWS, Draft, POSTGRES, applications, params};
use crate::catalogue::{CloseRoles, DmsConnection, ResumeDmsTask};
use crate::model::{OnFailure, Phase, Step};

pub(super) fn phases(draft: &Draft<'_>) -> Vec<Phase> {
    let mut back = Back {
        draft,
        phases: Vec::new(),
    };
    let roles = CloseRoles(params::roles(draft.source));
    let closed = step("back-roles-closed", POSTGRES, &roles)
        .without_undo()
        .proof();
    back.add("back-postgres-closed", OnFailure::Hold, vec![closed]);
    back.undo(
        "back-postgres",
        OnFailure::Hold,
        &["postgres-triggers-enable", "postgres-jobs-disable"],
    );
    back.undo(
        "back-reverse-stopped",
        OnFailure::Continue,
        &["reverse-start"],
    );
    back.undo(
        "back-reverse-deleted",
        OnFailure::Continue,
        &["reverse-create"],
    );
    back.undo(
        "back-canary",
        OnFailure::Continue,
        &["canary-write", "canary-await"],
    );
    back.undo(
        "back-oracle",
        OnFailure::Hold,
        &[
            "oracle-triggers-disable",
            "oracle-queue-monitor-disable",
            "oracle-accounts-lock",
            "oracle-logins-restrict",
        ],
    );
    back.undo(
        "back-listeners",
        OnFailure::Hold,
        &["oracle-listeners-stop"],
    );
    back.undo("back-jobs", OnFailure::Hold, &["oracle-jobs-disable"]);
    back.add("back-forward-task", OnFailure::Continue, resume(draft));
    let stops: Vec<&str> = draft
        .phases
        .iter()
        .filter(|phase| phase.standard == "stop-applications")
        .flat_map(|phase| phase.steps.iter().rev())
        .map(|step| step.id.as_str())
        .collect();
    back.undo("back-applications", OnFailure::Hold, &stops);
    let health = applications::health_after_rollback(draft);
    back.add("back-health", OnFailure::Hold, health);
    back.undo("back-monitoring", OnFailure::Continue, &["alarms"]);
    back.phases
}

/// Time limit for each connection test and for the request to resume:
/// applications wait meanwhile, and the run holds after a failure.
const RESUME_SECS: u64 = 60;

/// Tests the connections, then resumes the task without waiting until it runs.
fn resume(draft: &Draft<'_>) -> Vec<Step> {
    let source = draft.source;
    let endpoints = [&source.dms.source_endpoint, &source.dms.target_endpoint];
    let connections = DmsConnection {
        timeout_secs: RESUME_SECS,
        ..params::connections(source, &endpoints)
    };
    let reverse = source.dms.reverse.as_ref();
    let task = ResumeDmsTask {
        resource: source.dms.resource.clone(),
        task: source.dms.task.clone(),
        reverse: reverse.map(|reverse| reverse.identifier.clone()),
        timeout_secs: RESUME_SECS,
    };
    vec![
        step("back-forward-connections", AWS, &connections),
        step("back-forward-resume", AWS, &task),
    ]
}

struct Back<'a> {
    draft: &'a Draft<'a>,
    phases: Vec<Phase>,
}

impl Back<'_> {
    fn add(&mut self, name: &str, on_failure: OnFailure, steps: Vec<Step>) {
        if !steps.is_empty() {
            let phase = phase(name, on_failure, &self.draft.parties, steps);
            self.phases.push(phase);
        }
    }

    /// Adds the undos of those named steps that exist in the forward phases.
    fn undo(&mut self, name: &str, on_failure: OnFailure, of: &[&str]) {
        let steps = of
            .iter()
            .filter_map(|id| self.draft.step(id))
            .filter(|step| step.undoable)
            .map(Step::undo)
            .collect();
        self.add(name, on_failure, steps);
    }
}
