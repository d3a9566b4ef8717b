//! The plan of the rehearsal is a good plan and covers the whole procedure.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use std::collections::BTreeSet;
use std::path::Path;

use lockstep_plan::{Overrides, Plan};
use lockstep_tests::rehearsal::{Fault, SEED_STEPS};

fn rehearsal() -> Plan {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/rehearsal.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    lockstep_plan::load("rehearsal.yaml", &text, &Overrides::default())
        .unwrap_or_else(|problems| panic!("{problems}"))
}

#[test]
fn every_step_of_the_procedure_is_in_a_phase() {
    let plan = rehearsal();
    let covered: BTreeSet<&str> = plan
        .phases
        .iter()
        .flat_map(|phase| &phase.seed_steps)
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
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("plans/rehearsal.yaml");
    let text = std::fs::read_to_string(&path).unwrap();
    let vars = [("apps".to_owned(), "7".to_owned())].into();
    let plan = lockstep_plan::load("rehearsal.yaml", &text, &Overrides { vars })
        .unwrap_or_else(|problems| panic!("{problems}"));
    assert_eq!(plan.parties["orders"].expected, 7);
}
