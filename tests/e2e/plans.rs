//! The plan of the rehearsal is a good plan and covers the whole procedure.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_plan::{Overrides, Plan};
use lockstep_tests::rehearsal::{Fault, SEED_STEPS};
use std::collections::BTreeSet;
use std::path::Path;

/// The text of a file, by its path from the tests' own directory.
fn text(path: &str) -> String {
    std::fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap()
}

fn load(path: &str) -> Plan {
    lockstep_plan::load(path, &text(path), &Overrides::default())
        .unwrap_or_else(|problems| panic!("{problems}"))
}

fn rehearsal() -> Plan {
    load("range/plans/rehearsal.yaml")
}

#[test]
fn every_step_of_the_procedure_is_in_a_phase() {
    let plan = rehearsal();
    let covered: BTreeSet<&str> = plan
        .phases
        .iter()
        .flat_map(|phase| &phase.runbook_steps)
        .map(String::as_str)
        .collect();
    let missing: Vec<&str> = SEED_STEPS
        .into_iter()
        .filter(|step| !covered.contains(step))
        .collect();
    assert_eq!(missing, Vec::<&str>::new());
}

#[test]
fn every_fault_strikes_a_phase_of_the_plan() {
    let plan = rehearsal();
    for fault in Fault::ALL {
        let struck = plan
            .phases
            .iter()
            .any(|phase| phase.standard == fault.phase());
        assert!(struck, "no phase {fault}");
    }
}

#[test]
fn more_application_hosts_need_no_other_plan() {
    let text = text("range/plans/rehearsal.yaml");
    let vars = [("apps".to_owned(), "7".to_owned())].into();
    let plan = lockstep_plan::load("rehearsal.yaml", &text, &Overrides { vars })
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(plan.parties["orders"].expected, 7);
}

#[test]
fn the_documents_show_the_example_as_it_is() {
    let plan = load("../deploy/plans/cutover.yaml");
    let (forward, back) = (plan.phases.len(), plan.rollback.len());
    let checked = format!(
        "shop (Cutover) can be run: {forward} phases forward, {back} back\ndigest {}\n",
        plan.digest()
    );
    for document in ["../README.md", "../docs/operating.md"] {
        let text: String = text(document)
            .lines()
            .map(|line| format!("{}\n", line.trim_start()))
            .collect();
        assert!(text.contains(&checked), "{document} lacks\n{checked}");
    }
}
