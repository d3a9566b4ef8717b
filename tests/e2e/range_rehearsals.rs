//! Whole rehearsals: the landscape, the product, and the range's judgement.
//!
//! `make test` runs one of each kind; `make verify` runs every fault and
//! every kill. Each takes the machine to itself.

#![expect(
    clippy::unwrap_used,
    clippy::panic,
    reason = "tests stop at the first surprise; clippy.toml's exemption misses helpers"
)]

use lockstep_tests::range::{Options, Range};
use lockstep_tests::rehearsal::{Fault, Obstacle, Product, Report, Settings, Skip, rehearse, skip};
use std::path::PathBuf;

/// Enough orders for every kind of row to be there, few enough to be quick.
const ORDERS: u64 = 500;

fn settings(name: &str) -> Settings {
    Settings {
        range: Options::default(),
        orders: ORDERS,
        plan: None,
        fault: None,
        kill: None,
        report: PathBuf::from(env!("CARGO_TARGET_TMPDIR")).join(format!("{name}.json")),
        keep: false,
    }
}

fn good(settings: &Settings) -> Report {
    let report = rehearse(settings).unwrap_or_else(|error| panic!("{error}"));
    assert!(report.is_good(), "{:#?}", report.shortcomings);
    report
}

fn rolls_back(fault: Fault) {
    let mut settings = settings(&format!("fault-{fault}"));
    settings.fault = Some(fault);
    let report = good(&settings);
    let run = report.run.as_ref().unwrap();
    assert_eq!(
        (run.outcome.as_str(), run.exit_code),
        ("rolled-back", Some(5))
    );
    assert_eq!(report.not_restored, Vec::<String>::new());
    let workload = &report.workload;
    assert_eq!(workload.postgres_present, workload.oracle_committed);
    for phase in &report.phases {
        let known = ["done", "failed", "skipped", "undone"].contains(&phase.outcome.as_str());
        assert!(known, "{}: {}", phase.name, phase.outcome);
    }
    assert_eq!(
        report.phases[0].outcome, "done",
        "preflight changes nothing"
    );
    assert!(report.write_outage_ms.is_some());
}

/// The run completes, or holds with a named `unknown`; nothing is done twice
/// and nothing is lost.
fn survives(kill: &str) {
    survives_in(
        settings(&format!("kill-{}", kill.replace([':', ' '], "-"))),
        kill,
    );
}

fn survives_in(mut settings: Settings, kill: &str) {
    settings.kill = Some(kill.parse().unwrap());
    let report = rehearse(&settings).unwrap_or_else(|error| panic!("{error}"));
    assert!(report.workload.is_good(), "{:#?}", report.workload);
    let struck = report.kill.as_ref().unwrap();
    assert!(
        struck.between,
        "the step had ended before the kill: {struck:?}"
    );
    let run = report.run.as_ref().unwrap();
    let unknown = || {
        let tasks = report.phases.iter().flat_map(|phase| &phase.tasks);
        tasks.filter(|task| task.outcome == "unknown").count()
    };
    match run.outcome.as_str() {
        "completed" => assert!(report.is_good(), "{:#?}", report.shortcomings),
        "waiting" => {
            assert!(unknown() > 0, "it holds without a named unknown: {run:?}");
            assert_eq!(report.repeated, Vec::<String>::new());
        }
        _ => panic!("{run:?}"),
    }
}

#[test]
#[ignore = "part of every other rehearsal; make verify"]
fn replication_keeps_up_and_loses_nothing() {
    let mut settings = settings("range-only");
    settings.range.product = false;
    let report = good(&settings);
    assert!(report.workload.oracle_committed >= ORDERS);
    assert_eq!(
        report.workload.oracle_committed,
        report.workload.postgres_present
    );
}

fn restart(name: &str) -> Settings {
    let mut settings = settings(name);
    settings.plan =
        Some(PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("range/plans/restart.yaml"));
    settings.orders = 300;
    settings
}

#[test]
#[ignore = "a range of its own; make verify"]
fn a_fleet_is_stopped_everywhere_and_started_again() {
    let report = good(&restart("restart"));
    let outcomes: Vec<&str> = report
        .phases
        .iter()
        .map(|phase| phase.outcome.as_str())
        .collect();
    assert_eq!(outcomes, ["done", "done"]);
}

#[test]
#[ignore = "every kill takes its time; make verify"]
fn a_restart_survives_the_coordinator() {
    survives_in(restart("restart-coordinator"), "coordinator:stop-orders");
}

#[test]
fn a_cutover_carries_out_every_step_and_loses_nothing() {
    let report = good(&settings("cutover"));
    assert!(report.drain.scn.is_some());
    assert_eq!(report.run.unwrap().exit_code, Some(0));
}

/// The preflight names what the plain plan doesn't know of its landscape.
#[test]
fn a_realistic_landscape_refuses_the_plain_plan_with_every_reason() {
    let range = Range::start(Options {
        realistic: true,
        ..Options::default()
    })
    .unwrap_or_else(|error| panic!("{error}"));
    let product = Product::of(&range);
    product.wait_for_agents(range.hosts.len()).unwrap();
    let plan = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("range/plans/rehearsal.yaml");
    let wrong_type = "ALTER TABLE shop.ticks ALTER at TYPE timestamptz";
    range.postgres.query(wrong_type, "shop").unwrap();
    let output = product.preflight(&plan, &[]).unwrap();
    range.stop().unwrap();
    let text = String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(2), "{text}");
    let words: String = text.split_whitespace().collect::<Vec<_>>().join(" ");
    let reasons = [
        "CRM1",
        "60 s to stop, the step 15 s",
        "shop-worker.service",
        "shop.ticks.at is timestamp with time zone",
    ];
    for reason in reasons {
        assert!(words.contains(reason), "{reason} is missing in\n{text}");
    }
}

#[test]
#[ignore = "DMS takes its time there; make verify"]
fn a_realistic_cutover_completes() {
    let mut settings = settings("realistic");
    settings.range.realistic = true;
    good(&settings);
}

/// A skip is refused and the run rolls back, or the run says what was skipped.
fn is_safe(skip: &Skip) {
    let verdict = &skip.verdict;
    assert!(verdict.is_good(), "{skip:#?}");
    let expected = match skip.refused {
        Some(_) => "rolled-back",
        None => "completed-with-skips",
    };
    assert_eq!(skip.run.outcome, expected, "{skip:#?}");
    if skip.refused.is_none() {
        let said = format!("phase {} was skipped by", skip.phase);
        assert!(skip.run.reason.contains(&said), "{}", skip.run.reason);
    }
}

#[test]
fn a_phase_that_stops_dms_is_not_skipped() {
    let skip = skip(Obstacle::Fault(Fault::StopDms)).unwrap_or_else(|error| panic!("{error}"));
    is_safe(&skip);
    assert!(skip.refused.is_some(), "{skip:#?}");
}

#[test]
#[ignore = "a range for each phase; make verify"]
fn every_skip_is_refused_or_safe() {
    for obstacle in Obstacle::all() {
        let skip = skip(obstacle).unwrap_or_else(|error| panic!("{obstacle:?}: {error}"));
        let end = match &skip.refused {
            Some(_) => "refused".to_owned(),
            None => skip.run.reason.clone(),
        };
        println!("{:<30} {:<22} {end}", skip.phase, skip.run.outcome);
        is_safe(&skip);
    }
}

/// Late in the cutover: nearly everything is there to be taken back.
#[test]
fn a_fault_in_the_reverse_task_rolls_back() {
    rolls_back(Fault::ReverseTask);
}

#[test]
fn a_cutover_survives_an_agent_killed_while_it_kills_sessions() {
    survives("ora-1:oracle-sessions-kill");
}

#[test]
#[ignore = "a whole cutover at full size; make verify"]
fn a_cutover_of_five_hosts_at_a_higher_rate_loses_nothing() {
    let mut settings = settings("cutover-large");
    settings.range.apps = 5;
    settings.range.rate = 300;
    settings.orders = 5_000;
    good(&settings);
}

#[test]
#[ignore = "every fault takes its time; make verify"]
fn a_fault_in_prepare_rolls_back() {
    rolls_back(Fault::Prepare);
}

#[test]
#[ignore = "every fault takes its time; make verify"]
fn a_fault_in_stop_applications_rolls_back() {
    rolls_back(Fault::StopApplications);
}

#[test]
#[ignore = "every fault takes its time; make verify"]
fn a_fault_in_close_oracle_rolls_back() {
    rolls_back(Fault::CloseOracle);
}

#[test]
#[ignore = "every fault takes its time; make verify"]
fn a_fault_in_final_changes_rolls_back() {
    rolls_back(Fault::FinalChanges);
}

#[test]
#[ignore = "every fault takes its time; make verify"]
fn a_fault_in_verify_rows_rolls_back() {
    rolls_back(Fault::VerifyRows);
}

#[test]
#[ignore = "every fault takes its time; make verify"]
fn a_fault_in_stop_dms_rolls_back() {
    rolls_back(Fault::StopDms);
}

#[test]
#[ignore = "every fault takes its time; make verify"]
fn a_fault_in_prepare_postgres_rolls_back() {
    rolls_back(Fault::PreparePostgres);
}

#[test]
#[ignore = "every fault takes its time; make verify"]
fn a_fault_in_monitoring_rolls_back() {
    rolls_back(Fault::Monitoring);
}

#[test]
#[ignore = "every kill takes its time; make verify"]
fn an_agent_killed_while_it_stops_an_application_loses_nothing() {
    survives("app-2:orders-services-stop");
}

#[test]
#[ignore = "every kill takes its time; make verify"]
fn an_agent_killed_while_it_takes_oracles_last_word_loses_nothing() {
    survives("ora-1:finalize");
}

#[test]
#[ignore = "every kill takes its time; make verify"]
fn an_agent_killed_while_it_starts_the_reverse_task_loses_nothing() {
    survives("pg-1:reverse-start:starting");
}

#[test]
#[ignore = "every kill takes its time; make verify"]
fn the_coordinator_killed_while_applications_stop_loses_nothing() {
    survives("coordinator:orders-services-stop");
}

#[test]
#[ignore = "every kill takes its time; make verify"]
fn the_coordinator_killed_at_oracles_last_word_loses_nothing() {
    survives("coordinator:finalize");
}

#[test]
#[ignore = "every kill takes its time; make verify"]
fn the_coordinator_killed_while_applications_start_loses_nothing() {
    survives("coordinator:orders-services-start");
}

/// The effect is there, only its outcome is missing: it must not be made anew.
#[test]
#[ignore = "every kill takes its time; make verify"]
fn an_agent_killed_after_its_call_and_before_its_outcome_does_not_call_again() {
    survives("pg-1:forward-stop:stopping");
    survives("pg-1:reverse-create:creating");
}

fn rolls_back_after(fault: Fault, kill: &str) {
    let mut settings = settings(&format!("fault-{fault}-kill-{}", kill.replace(':', "-")));
    settings.fault = Some(fault);
    settings.kill = Some(kill.parse().unwrap());
    let report = good(&settings);
    assert_eq!(report.run.unwrap().exit_code, Some(5));
}

#[test]
#[ignore = "every kill takes its time; make verify"]
fn a_rollback_survives_the_coordinator_and_an_agent() {
    rolls_back_after(Fault::Monitoring, "coordinator:undo-oracle-listeners-stop");
    rolls_back_after(Fault::ReverseTask, "pg-1:undo-reverse-create");
}
