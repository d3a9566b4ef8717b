//! The example plans, from which readers start: they load without a warning, and
//! snapshots record their expansion.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a test fails at the first error"
)]

use lockstep_plan::{Gate, Mode, OnFailure, Overrides, Plan, STANDARD_PHASES, check};
use std::collections::{BTreeMap, BTreeSet};
use std::fs;

fn text(name: &str) -> String {
    let path = format!("{}/../../deploy/plans/{name}", env!("CARGO_MANIFEST_DIR"));
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"))
}

fn load(name: &str, vars: &[(&str, &str)]) -> Plan {
    let vars: BTreeMap<String, String> = vars
        .iter()
        .map(|(name, value)| ((*name).to_owned(), (*value).to_owned()))
        .collect();
    let checked = check(name, &text(name), &Overrides { vars });
    assert!(checked.problems.is_empty(), "{}", checked.problems);
    checked.plan.unwrap()
}

fn cutover() -> Plan {
    load("cutover.yaml", &[])
}

#[test]
fn the_cutover_expands_to_the_standard_phases() {
    let plan = cutover();
    insta::assert_snapshot!("cutover-forward", lockstep_plan::render::forward(&plan));
    insta::assert_snapshot!("cutover-rollback", lockstep_plan::render::rollback(&plan));
    let mut standard: Vec<&str> = plan.phases.iter().map(|p| p.standard.as_str()).collect();
    standard.dedup();
    assert_eq!(standard, STANDARD_PHASES);
}

#[test]
fn every_step_of_the_runbook_is_in_a_phase() {
    // Step 5 is off in the example, as Oracle recommends.
    let text = text("cutover.yaml").replace("queue_monitor: false", "queue_monitor: true");
    let plan = lockstep_plan::load("cutover.yaml", &text, &Overrides::default()).unwrap();
    let covered: BTreeSet<&str> = plan
        .phases
        .iter()
        .flat_map(|phase| phase.runbook_steps.iter().map(String::as_str))
        .collect();
    let expected = BTreeSet::from([
        "1", "2", "3", "4", "5", "6", "7", "8", "8.1", "8.2", "8.3", "9", "10", "10.1", "10.2",
    ]);
    assert_eq!(covered, expected);
}

/// Whoever adds a phase decides whether later ones rely on it.
#[test]
fn only_phases_on_which_nothing_relies_can_be_skipped() {
    let plan = cutover();
    let skippable: Vec<&str> = plan
        .phases
        .iter()
        .filter(|phase| !phase.steps.iter().any(|step| step.proof || step.required))
        .map(|phase| phase.name.as_str())
        .collect();
    let expected = [
        "stop-applications",
        "monitoring",
        "open-postgres.jobs",
        "start-applications",
        "start-applications.everywhere",
        "keep-closed",
    ];
    assert_eq!(skippable, expected);
}

/// Index of the phase that contains a step, among the forward or rollback phases.
fn phase_of(plan: &Plan, id: &str) -> usize {
    let tracks = [&plan.phases, &plan.rollback];
    tracks
        .into_iter()
        .find_map(|phases| {
            phases
                .iter()
                .position(|phase| phase.steps.iter().any(|step| step.id == id))
        })
        .unwrap_or_else(|| panic!("no step {id}"))
}

#[test]
fn access_is_blocked_before_sessions_are_killed_and_restored_in_order() {
    let plan = cutover();
    let before = |first: &str, second: &str| {
        assert!(
            phase_of(&plan, first) < phase_of(&plan, second),
            "{first} before {second}"
        );
    };
    for block in [
        "oracle-listeners-stop",
        "oracle-accounts-lock",
        "oracle-jobs-disable",
    ] {
        before(block, "oracle-sessions-kill");
    }
    before("fence", "finalize");
    before("finalize", "marker-await");
    before("marker-await", "forward-drain");
    before("postgres-rows", "forward-stop");
    before("oracle-triggers-disable", "reverse-start");
    before("canary-write", "canary-await");
    before("canary-await", "postgres-roles-open");
    before("postgres-roles-open", "shop-orders-canary-start");
    before("shop-orders-canary-start", "shop-orders-services-start");
    before("back-roles-closed", "undo-oracle-accounts-lock");
    before("undo-reverse-start", "undo-reverse-create");
    before("undo-reverse-start", "back-forward-resume");
    before("undo-oracle-accounts-lock", "undo-oracle-listeners-stop");
    before("undo-oracle-listeners-stop", "undo-oracle-jobs-disable");
    before("undo-oracle-listeners-stop", "back-forward-connections");
    before("back-forward-resume", "undo-shop-orders-services-stop");
}

#[test]
fn roles_are_verified_again_in_the_phase_that_opens_them() {
    let plan = cutover();
    let phase = plan.point_of_no_return().unwrap();
    let steps: Vec<&str> = phase.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(steps[..2], ["postgres-roles-verify", "postgres-roles-open"]);
    assert_eq!(phase.steps[0].party, phase.steps[1].party);
    assert!(!phase.steps[0].proof && !phase.steps[0].undoable);
}

#[test]
fn every_change_before_the_point_of_no_return_is_undone() {
    let plan = cutover();
    let undone: BTreeSet<&str> = plan
        .rollback
        .iter()
        .flat_map(|phase| &phase.steps)
        .filter_map(|step| match &step.mode {
            Mode::Undo { of } => Some(of.as_str()),
            Mode::Execute => None,
        })
        .collect();
    let changing: BTreeSet<&str> = plan
        .phases
        .iter()
        .take_while(|phase| !phase.point_of_no_return)
        .flat_map(|phase| &phase.steps)
        .filter(|step| step.undoable)
        .map(|step| step.id.as_str())
        .collect();
    assert_eq!(undone, changing);
}

#[test]
fn a_failure_rolls_back_before_the_point_of_no_return_and_holds_after_it() {
    let plan = cutover();
    let mut passed = false;
    for phase in &plan.phases {
        passed |= phase.point_of_no_return;
        let expected = if passed {
            OnFailure::Hold
        } else {
            OnFailure::Rollback
        };
        assert_eq!(phase.on_failure, expected, "{}", phase.name);
    }
    let opening = plan.point_of_no_return().unwrap();
    assert_eq!(opening.name, "open-postgres.roles");
}

#[test]
fn a_failure_of_dms_never_keeps_oracle_closed() {
    for phase in cutover().rollback {
        if phase.steps.iter().any(|step| step.party == "aws") {
            assert_eq!(phase.on_failure, OnFailure::Continue, "{}", phase.name);
        }
    }
}

#[test]
fn the_plan_and_the_restart_expand() {
    let plan = load("plan.yaml", &[("release", "2026-11")]);
    insta::assert_snapshot!("plan-forward", lockstep_plan::render::forward(&plan));
    insta::assert_snapshot!("plan-rollback", lockstep_plan::render::rollback(&plan));
    let restart = load("restart.yaml", &[]);
    insta::assert_snapshot!("restart-forward", lockstep_plan::render::forward(&restart));
}

#[test]
fn the_digest_identifies_the_plan_and_unknown_formats_are_refused() {
    let plan = cutover();
    let read = Plan::from_json(&plan.to_json()).unwrap();
    assert_eq!(read, plan);
    assert_eq!(read.digest(), plan.digest());
    let mut other = plan.clone();
    other.phases[3].finish_by_ms += 1;
    assert_ne!(other.digest(), plan.digest());
    let newer = plan.to_json().replace("\"format\":1", "\"format\":2");
    let refused = Plan::from_json(&newer).unwrap_err().to_string();
    assert!(refused.starts_with("unknown plan format 2"), "{refused}");
}

#[test]
fn omitted_options_omit_their_steps() {
    let text = text("cutover.yaml");
    let start = text.find("  # Step 8, optional").unwrap();
    let end = text.find("# Counted on both sides").unwrap();
    let plain = format!("{}{}", &text[..start], &text[end..])
        .replace("    disable: true\n", "    disable: false\n")
        .replace("  task: ", "  second_marker: false\n  task: ");
    let plan = lockstep_plan::load("cutover.yaml", &plain, &Overrides::default()).unwrap();
    let names: Vec<&str> = plan
        .phases
        .iter()
        .map(|phase| phase.name.as_str())
        .collect();
    assert!(!names.iter().any(|name| name.starts_with("reverse-task")));
    assert!(plan.step("finalize-again").is_none());
    assert!(plan.step("oracle-jobs-disable").is_none());
    assert_eq!(
        plan.step("oracle-rows").unwrap().params["scn"],
        "${finalize.scn}"
    );
}

#[test]
fn roles_open_in_a_phase_of_their_own_before_jobs_are_restored() {
    let plan = cutover();
    let opening = plan.point_of_no_return().unwrap();
    let ids: Vec<&str> = opening.steps.iter().map(|step| step.id.as_str()).collect();
    assert_eq!(ids, ["postgres-roles-verify", "postgres-roles-open"]);
    let jobs = phase_of(&plan, "postgres-jobs-restore");
    assert_eq!(jobs, phase_of(&plan, "postgres-roles-open") + 1);
    assert!(jobs < phase_of(&plan, "shop-orders-canary-start"));
}

#[test]
fn oracle_is_proved_unchanged_after_the_gate_and_before_the_roles_open() {
    let plan = cutover();
    let checked = phase_of(&plan, "oracle-unchanged");
    let opening = phase_of(&plan, "postgres-roles-open");
    assert_eq!(opening, checked + 1);
    let phase = &plan.phases[checked];
    assert_eq!(phase.name, "open-postgres");
    assert_eq!(phase.gate, Gate::Approval);
    assert_eq!(phase.on_failure, OnFailure::Rollback);
    let step = plan.step("oracle-unchanged").unwrap();
    assert!(step.proof && !step.undoable);
    assert_eq!(step.params["scn"], "${finalize-again.scn}");
    let except = &step.params["except"];
    assert_eq!(except.as_array().unwrap().len(), 2, "marker and canary");
}

#[test]
fn oracle_is_proved_unused_after_the_applications_have_started() {
    let plan = cutover();
    let started = phase_of(&plan, "shop-orders-services-start");
    let unused = phase_of(&plan, "oracle-unused");
    assert!(started < unused && unused < phase_of(&plan, "oracle-keep-closed"));
    let step = plan.step("oracle-unused").unwrap();
    assert!(step.proof && !step.undoable);
    assert_eq!(
        (step.party.as_str(), step.action.as_str()),
        ("oracle-lead", "oracle.fence.verify")
    );
    assert_eq!(step.params, plan.step("fence").unwrap().params);
    assert_eq!(plan.phases[unused].on_failure, OnFailure::Hold);
}

#[test]
fn apply_exceptions_are_checked_again_after_the_task_has_stopped() {
    let plan = cutover();
    assert_eq!(
        phase_of(&plan, "drain-check"),
        phase_of(&plan, "forward-stop") + 1
    );
    let check = plan.step("drain-check").unwrap();
    assert!(check.proof);
    assert_eq!(check.party, "postgres");
}

/// The pairs of schemas whose unlisted tables are counted.
fn counted(edit: impl Fn(String) -> String) -> Vec<String> {
    let text = edit(text("cutover.yaml"));
    let plan = lockstep_plan::load("cutover.yaml", &text, &Overrides::default()).unwrap();
    let pairs = &plan.step("oracle-rows").unwrap().params["schemas"];
    let name = |one: &serde_json::Value, side: &str| one[side].as_str().unwrap().to_owned();
    let pairs = pairs.as_array().unwrap().iter();
    pairs
        .map(|one| format!("{}={}", name(one, "oracle"), name(one, "postgres")))
        .collect()
}

#[test]
fn schemas_are_mapped_like_the_compared_tables() {
    assert_eq!(counted(|text| text), ["SHOP=shop"]);
    let public = |text: String| {
        text.replace("schemas: [shop]", "schemas: [public]")
            .replace("postgres: shop.", "postgres: public.")
    };
    assert_eq!(counted(public), ["SHOP=public"]);
    // No compared table, but only one schema on each side.
    let odd = |text: String| text.replace("schemas: [shop]", "schemas: [store]");
    assert_eq!(counted(odd), ["SHOP=store"]);
    let two = |text: String| {
        text.replace("schemas: [SHOP]", "schemas: [SHOP, HR, CRM]")
            .replace("schemas: [shop]", "schemas: [shop, hr]")
    };
    assert_eq!(counted(two), ["HR=hr", "SHOP=shop"]);
}

#[test]
fn every_sequence_is_aligned_even_if_none_is_listed() {
    let text = text("cutover.yaml");
    let start = text.find("  sequences:\n").unwrap();
    let end = text.find("  # pg_cron and pgAgent").unwrap();
    let plain = format!("{}{}", &text[..start], &text[end..]);
    let plan = lockstep_plan::load("cutover.yaml", &plain, &Overrides::default()).unwrap();
    let params = &plan.step("sequences").unwrap().params;
    assert_eq!(params["schemas"], serde_json::json!(["shop"]));
}

#[test]
fn the_preflight_changes_nothing_that_a_rollback_would_undo() {
    let plan = cutover();
    let preflight = plan.phases.first().unwrap();
    assert_eq!(preflight.name, "preflight");
    for step in &preflight.steps {
        assert!(step.proof && !step.undoable, "{}", step.id);
    }
}
