//! What is wrong with a run by the range's own measure: contradictions between
//! the product's word and what was seen, and faults that were not met.

use super::Fault;
use super::product::{self, RunStatus, TaskStatus};

/// Where the product's word and what was seen are not the same.
pub(super) fn contradictions(
    run: &RunStatus,
    exit_code: Option<u8>,
    markers: &[u64],
) -> Vec<String> {
    let mut found = Vec::new();
    if exit_code != run.exit_code {
        found.push(format!(
            "the command ended with exit code {}, the run's status says {}",
            code(exit_code),
            code(run.exit_code)
        ));
    }
    // A proof that was cut short is given anew: one of the markers it must be.
    if let Some(scn) = product::fence_scn(run).filter(|scn| !markers.contains(scn)) {
        found.push(format!(
            "the product puts the fence at SCN {scn}, the markers in Oracle name {markers:?}"
        ));
    }
    found
}

/// An exit code, for people.
pub(super) fn code(code: Option<u8>) -> String {
    code.map_or_else(|| "none".into(), |code| code.to_string())
}

/// Why the run did not meet its fault as it should have: in its own phase,
/// after another task of that phase where the plan has several.
pub(super) fn misses(fault: Fault, run: &RunStatus) -> Vec<String> {
    let (name, part) = (fault.phase(), format!("{}.", fault.phase()));
    let mut found = Vec::new();
    let struck = run.reason.split("; ").any(|reason| {
        let failed = reason.strip_prefix("phase ").unwrap_or_default();
        failed.starts_with(&format!("{name} failed")) || failed.starts_with(&part)
    });
    if !struck {
        found.push(format!("the fault was not met in {name}: {}", run.reason));
    }
    let tasks: Vec<&TaskStatus> = run
        .phases
        .iter()
        .filter(|phase| phase.standard == name && phase.track != "rollback")
        .flat_map(|phase| &phase.tasks)
        .collect();
    let executed = |task: &&TaskStatus| matches!(task.outcome.as_str(), "done" | "armed");
    let failed: Vec<&str> = run
        .phases
        .iter()
        .filter(|phase| phase.outcome == "failed" && phase.track != "rollback")
        .map(|phase| phase.standard.as_str())
        .collect();
    if failed != [name] {
        found.push(format!("failed are the phases of {failed:?}, not {name}"));
    }
    if tasks.len() > 1 && !tasks.iter().any(executed) {
        found.push(format!("no task of {name} was executed before the fault"));
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rehearsal::PhaseStatus;
    use serde_json::json;

    fn phase(outcome: &str) -> PhaseStatus {
        PhaseStatus {
            standard: "stop-dms".into(),
            outcome: outcome.into(),
            ..PhaseStatus::default()
        }
    }

    #[test]
    fn an_exit_code_or_an_scn_that_is_not_the_products_is_named() {
        let mut run = RunStatus {
            exit_code: Some(0),
            phases: vec![PhaseStatus {
                tasks: vec![TaskStatus {
                    action: "oracle.finalize".into(),
                    outputs: json!({"scn": 100}),
                    ..TaskStatus::default()
                }],
                ..PhaseStatus::default()
            }],
            ..RunStatus::default()
        };
        assert_eq!(
            contradictions(&run, Some(0), &[99, 100]),
            Vec::<String>::new()
        );
        assert_eq!(contradictions(&run, Some(1), &[100]).len(), 1);
        assert_eq!(contradictions(&run, None, &[100]).len(), 1);
        assert_eq!(contradictions(&run, Some(0), &[]).len(), 1);
        run.phases.clear();
        assert_eq!(contradictions(&run, Some(0), &[]), Vec::<String>::new());
    }

    #[test]
    fn a_fault_must_fail_its_own_phase() {
        let mut run = RunStatus {
            reason: "phase stop-dms failed and the plan says to roll back".into(),
            phases: vec![phase("failed")],
            ..RunStatus::default()
        };
        assert_eq!(misses(Fault::StopDms, &run), Vec::<String>::new());
        run.phases = vec![phase("undone")];
        assert_eq!(misses(Fault::StopDms, &run).len(), 1);
        run.reason.clear();
        assert_eq!(misses(Fault::StopDms, &run).len(), 2);
    }
}
