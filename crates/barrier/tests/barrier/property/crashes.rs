//! Crashes at every boundary between two effects.

use super::PLAN;
use crate::support::{Sim, plan};
use lockstep_barrier::coordinator::{PhaseStatus, TaskStatus, VerbAction, Wait};

/// The active process is killed after each effect in turn, and each time the run
/// ends as without the crash.
#[test]
fn either_side_may_die_after_any_effect() {
    die_everywhere(|sim, effects| {
        sim.crash_after = Some(effects);
    });
}

fn die_everywhere(arm: impl Fn(&mut Sim, usize)) {
    let text = PLAN
        .replace("{policy}", "hold")
        .replace("{open}", "no-return")
        .replace("{until}", "3");
    for effects in 0..400 {
        let mut sim = Sim::new(plan::begin(&text));
        arm(&mut sim, effects);
        sim.start();
        heal_without_help(&mut sim);
        let run = sim.run.as_ref().expect("it was restarted");
        let waits = run.waits_on();
        assert!(
            run.is_closed(),
            "after {effects}: {waits:?}\n{}",
            sim.trace.join("\n")
        );
        assert!(
            sim.violations.is_empty(),
            "after {effects}: {:?}",
            sim.violations
        );
        for (key, task) in &run.state().tasks {
            let settled = task.is_settled() || task.status == TaskStatus::Waiting;
            assert!(settled, "after {effects}: {key:?} is {:?}", task.status);
        }
        let done = run.state().forward.iter();
        for phase in done {
            assert_eq!(phase.status, PhaseStatus::Completed, "after {effects}");
        }
        if sim.crash_after.is_some() {
            // The run ended before the crash was due: every boundary has been
            // tested.
            assert!(effects > 100, "only {effects} boundaries");
            return;
        }
    }
    panic!("the run has more effects than were tried");
}

fn heal_without_help(sim: &mut Sim) {
    for _ in 0..60 {
        sim.restart_coordinator();
        for name in sim.names() {
            sim.restart_agent(&name);
            sim.connect(&name);
        }
        sim.finish_what_runs();
        let approve = sim.run.as_ref().and_then(|run| {
            run.waits_on().into_iter().find_map(|wait| match wait {
                Wait::Approval { phase } => Some(VerbAction::Approve {
                    phase,
                    digest: run.state().begin.resolved_plan.digest.clone(),
                }),
                _ => None,
            })
        });
        if let Some(action) = approve {
            sim.verb(action, None).expect("everyone is ready");
        }
        sim.pass(100);
    }
}
