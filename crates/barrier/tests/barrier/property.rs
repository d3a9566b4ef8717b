//! Whatever order messages come in, whatever is lost, repeated or late, and
//! wherever either side crashes: the invariants hold after every effect, and
//! when the faults are over every run comes to its end.
//!
//! `PROPTEST_CASES` says how many worlds are tried; the default takes a few
//! seconds.

use crate::support::{Sim, plan};
use lockstep_barrier::coordinator::{PhaseStatus, State, TaskStatus, VerbAction, Wait};
use lockstep_barrier::ids::{AgentName, StepId};
use lockstep_barrier::invariants::Happening;
use lockstep_barrier::layout::Outputs;
use lockstep_barrier::message::{Mode, Order, Outcome};
use lockstep_barrier::participant;
use lockstep_barrier::record::Resolution;
use proptest::prelude::*;
use proptest::test_runner::TestCaseError;
use std::collections::VecDeque;

/// Three agents, three phases, and the way back. `{policy}` and `{open}` vary.
const PLAN: &str = "
outage budget=300s from=1 to=2 reserve=20s
detachable c
phase stop on_failure={policy}
  stop-web a,b,c
phase close on_failure={policy}
  lock a
  guard a watch=2
  mark b proof
phase open gate=approval on_failure={policy} {open}
  open b in=mark.scn
  start-web b,c
rollback
phase shut
  un-start b,c undo=start-web
  un-open b undo=open
phase unlock
  un-lock a undo=lock
  check b
phase restart
  un-stop a,b,c undo=stop-web
";

fn cases() -> u32 {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    wanted.and_then(|text| text.parse().ok()).unwrap_or(400)
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    #[test]
    fn no_interleaving_breaks_an_invariant(
        rolls_back in any::<bool>(),
        no_return in any::<bool>(),
        unclear in any::<u8>(),
        turns_back in any::<bool>(),
        moves in prop::collection::vec((any::<u8>(), any::<u16>()), 0..160),
    ) {
        let policy = if rolls_back { "rollback" } else { "hold" };
        let open = if no_return { "no-return" } else { "" };
        let text = PLAN.replace("{policy}", policy).replace("{open}", open);
        let mut sim = Sim::new(plan::begin(&text));
        for (bit, step) in ["stop-web", "lock", "open", "un-stop"].into_iter().enumerate() {
            if unclear & (1 << bit) != 0 {
                // Its probe can't tell, ever: what the protocol knows must do.
                let agents = sim.agents.values_mut();
                agents.for_each(|agent| agent.unclear.extend([step.into()]));
            }
        }
        sim.start();
        for name in sim.names() {
            sim.connect(&name);
        }
        for (what, which) in moves {
            one_move(&mut sim, what, which as usize);
            hold(&sim)?;
        }
        heal(&mut sim, turns_back)?;
    }
}

fn hold(sim: &Sim) -> Result<(), TestCaseError> {
    if sim.violations.is_empty() {
        return Ok(());
    }
    Err(TestCaseError::fail(format!(
        "{}\n{}",
        sim.violations.join("\n"),
        sim.trace.join("\n")
    )))
}

fn one_move(sim: &mut Sim, what: u8, which: usize) {
    let names = sim.names();
    let name = &names[which % names.len()];
    let place = which / names.len();
    let queued = |len: usize| if len == 0 { 0 } else { place % len };
    match what {
        0..=34 => {
            let index = queued(sim.orders[name].len());
            // Mostly in order, as one stream delivers; sometimes not.
            sim.deliver_order(name, if what < 28 { 0 } else { index });
        }
        35..=69 => {
            let index = queued(sim.replies[name].len());
            sim.deliver_reply(name, if what < 63 { 0 } else { index });
        }
        70..=94 => {
            sim.do_chore(name);
        }
        95..=134 => finish(sim, name, place),
        135..=164 => sim.settle(),
        165..=171 => sim.take_effect(name),
        172..=177 => {
            sim.orders.get_mut(name).and_then(|q| q.pop_front());
        }
        178..=181 => {
            sim.replies.get_mut(name).and_then(|q| q.pop_front());
        }
        182..=187 => duplicate(sim, name, place),
        188..=195 => sim.pass([500, 1_500, 4_000, 11_000, 70_000][place % 5]),
        196..=209 => reconnect(sim, name, place),
        210..=221 => crash(sim, name, place),
        222..=250 => random_verb(sim, name, place),
        251..=253 => breach(sim),
        254..=255 => {
            if place.is_multiple_of(4) {
                sim.lose_journal(name);
            }
        }
    }
}

fn duplicate(sim: &mut Sim, name: &AgentName, place: usize) {
    if place.is_multiple_of(2) {
        let queue = sim.orders.get_mut(name).expect("an agent");
        if let Some(order) = queue.front().cloned() {
            queue.push_back(order);
        }
    } else {
        let queue = sim.replies.get_mut(name).expect("an agent");
        if let Some(reply) = queue.front().cloned() {
            queue.push_back(reply);
        }
    }
}

fn reconnect(sim: &mut Sim, name: &AgentName, place: usize) {
    if sim.agent(name).connected && place.is_multiple_of(2) {
        sim.drop_session(name);
    } else {
        sim.restart_coordinator();
        sim.restart_agent(name);
        sim.connect(name);
    }
}

fn crash(sim: &mut Sim, name: &AgentName, place: usize) {
    match place % 5 {
        0 => sim.crash_agent(name),
        1 => sim.crash_coordinator(),
        2 => sim.crash_after = Some(place / 5 % 6),
        3 => sim.restart_agent(name),
        _ => sim.restart_coordinator(),
    }
}

fn good(sim: &Sim, name: &AgentName) -> Option<(Outcome, Outputs)> {
    let running = sim.agent(name).running.as_ref()?;
    let mut outputs = Outputs::new();
    if running.task.step == StepId::from("mark") {
        outputs.insert("scn".to_owned(), running.attempt.into());
    }
    let outcome = if running.task.watch {
        Outcome::Standing
    } else {
        Outcome::Done
    };
    Some((outcome, outputs))
}

fn finish(sim: &mut Sim, name: &AgentName, place: usize) {
    let Some((outcome, outputs)) = good(sim, name) else {
        return;
    };
    let failed = Outcome::Failed {
        error: "it went wrong".to_owned(),
    };
    let unknown = Outcome::Unknown {
        reason: "no answer".to_owned(),
    };
    let (outcome, takes_effect) = match place % 12 {
        0 => (failed, false),
        1 => (failed, true),
        2 => (unknown, place.is_multiple_of(24)),
        _ => (outcome, false),
    };
    if takes_effect {
        sim.take_effect(name);
    }
    sim.finish(name, outcome, outputs);
}

fn breach(sim: &mut Sim) {
    let a = AgentName::from("a");
    let (run, step) = (sim.begin.run.clone(), StepId::from("guard"));
    let detail = "a session".to_owned();
    sim.participant(&a, participant::Event::WatchBroke { run, step, detail });
}

fn random_verb(sim: &mut Sim, name: &AgentName, place: usize) {
    let Some(state) = sim.run.as_ref().map(|run| run.state().clone()) else {
        return;
    };
    let current = state.current();
    let of_agent: Vec<StepId> = state
        .tasks
        .keys()
        .filter(|(_, whose)| whose == name)
        .map(|(step, _)| step.clone())
        .collect();
    let step = of_agent[place % of_agent.len()].clone();
    let action = match (place / 16 % 16, current) {
        (0..=3, Some(phase)) => VerbAction::Approve {
            phase,
            digest: state.begin.layout.digest.clone(),
        },
        (4..=6, _) => VerbAction::Retry,
        (7 | 8, _) => VerbAction::Rollback,
        (9, _) => VerbAction::Skip,
        (10, _) => VerbAction::Pause,
        (11 | 12, _) => VerbAction::Resume,
        (13, _) => VerbAction::Waive {
            agent: name.clone(),
            step,
        },
        (14, _) if place.is_multiple_of(3) => VerbAction::Abort,
        _ => {
            resolve_all(sim);
            return;
        }
    };
    // A refusal is a right answer; what it may not do is change anything.
    let _ = sim.verb(action, Some("because"));
}

/// The operator looks at the hosts and says what is so.
fn resolve_all(sim: &mut Sim) {
    let Some(run) = &sim.run else { return };
    let unclear: Vec<_> = run
        .state()
        .tasks
        .iter()
        .filter(|(_, task)| task.is_unclear())
        .map(|(key, _)| key.clone())
        .collect();
    for (step, agent) in unclear {
        let Some(run) = &sim.run else { return };
        let mode = run.state().step(&step).map(|(_, spec)| spec.mode.clone());
        let host = &sim.agent(&agent).host;
        let in_effect = match mode {
            Some(Mode::Undo { of }) => !host.contains_key(&of),
            _ => host.contains_key(&step),
        };
        let resolution = if in_effect {
            Resolution::Done
        } else {
            Resolution::Failed
        };
        let action = VerbAction::ResolveUnknown {
            agent,
            step,
            resolution,
        };
        let _ = sim.verb(action, Some("looked at the host"));
    }
}

/// The faults are over: everyone is back, every action works, and an operator
/// answers what waits for one. Every run must come to its end.
fn heal(sim: &mut Sim, turns_back: bool) -> Result<(), TestCaseError> {
    sim.crash_after = None;
    for round in 0..80 {
        sim.restart_coordinator();
        for name in sim.names() {
            sim.restart_agent(&name);
            if round % 20 == 0 && sim.agent(&name).connected {
                // A session in which something got lost is replaced.
                sim.drop_session(&name);
            }
            sim.connect(&name);
        }
        sim.settle();
        for name in sim.names() {
            if let Some((outcome, outputs)) = good(sim, &name) {
                sim.finish(&name, outcome, outputs);
            }
        }
        sim.settle();
        hold(sim)?;
        if sim.run.as_ref().is_some_and(|run| run.is_closed()) {
            return Ok(());
        }
        if turns_back && round == 1 {
            // Refused where the run is past it, and that is right as well.
            let _ = sim.verb(VerbAction::Rollback, Some("enough for tonight"));
        }
        operate(sim, round);
        sim.settle();
        sim.pass(if round % 4 == 3 { 70_000 } else { 100 });
        hold(sim)?;
    }
    let waits = sim.run.as_ref().map(|run| run.waits_on());
    Err(TestCaseError::fail(format!(
        "no end; waits on {waits:?}\n{}",
        sim.trace.join("\n")
    )))
}

fn operate(sim: &mut Sim, round: usize) {
    resolve_all(sim);
    let Some(run) = &sim.run else { return };
    let state = run.state().clone();
    for wait in run.waits_on() {
        let because = Some("the night is short");
        let _ = match wait {
            Wait::Approval { phase } => {
                let digest = state.begin.layout.digest.clone();
                sim.verb(VerbAction::Approve { phase, digest }, because)
            }
            Wait::Paused { .. } | Wait::Held { .. } | Wait::HoldGate { .. } => {
                sim.verb(VerbAction::Resume, because)
            }
            Wait::Outcome {
                agent,
                step,
                lost: true,
            } => sim.verb(VerbAction::Waive { agent, step }, because),
            Wait::Disarm { agent, step } if state.journals_lost.contains(&agent) => {
                sim.verb(VerbAction::Waive { agent, step }, because)
            }
            Wait::Decision { .. } if round < 30 => sim.verb(VerbAction::Retry, because),
            Wait::Decision { .. } => sim
                .verb(VerbAction::Skip, because)
                .or_else(|_| sim.verb(VerbAction::Rollback, because))
                .or_else(|_| sim.verb(VerbAction::Abort, because)),
            _ => Ok(()),
        };
    }
}

proptest! {
    #![proptest_config(ProptestConfig {
        cases: cases(),
        failure_persistence: None,
        ..ProptestConfig::default()
    })]

    /// However little of its journal a coordinator has left when it takes over,
    /// it orders nothing but the end, every agent obeys that, nothing runs on,
    /// and what is in effect on a host is owed.
    #[test]
    fn taking_over_with_an_old_journal_only_ends_the_run(
        moves in prop::collection::vec((any::<u8>(), any::<u16>()), 0..160),
        kept in any::<prop::sample::Index>(),
        restarts in 1..12_u8,
    ) {
        let text = PLAN.replace("{policy}", "rollback").replace("{open}", "no-return");
        let mut sim = Sim::new(plan::begin(&text));
        sim.start();
        for name in sim.names() {
            sim.connect(&name);
        }
        for (what, which) in moves {
            // An agent without its journal is another story.
            one_move(&mut sim, what.min(253), which as usize);
        }
        let decided = State::fold(sim.disk.clone()).expect("its own journal");
        if decided.ended.is_some() {
            return Ok(());
        }
        sim.crash_coordinator();
        sim.restore_backup(1 + kept.index(sim.disk.len()));
        sim.observe(&Happening::CoordinatorRestored);
        let restored = State::fold(sim.disk.clone()).expect("a beginning is a journal");
        for _ in 0..restarts {
            sim.restart_coordinator();
            sim.crash_coordinator();
        }
        take_over(&mut sim, &restored)?;
    }
}

/// What a coordinator may say in a run of which it has lost decisions.
fn only_ends(order: &Order) -> bool {
    matches!(
        order,
        Order::Revoke { .. } | Order::Ack { .. } | Order::Close { .. }
    )
}

fn take_over(sim: &mut Sim, restored: &State) -> Result<(), TestCaseError> {
    let failed = |sim: &Sim, what: &str| {
        Err(TestCaseError::fail(format!(
            "{what}\n{}",
            sim.trace.join("\n")
        )))
    };
    sim.take_over = true;
    for _ in 0..20 {
        sim.restart_coordinator();
        for name in sim.names() {
            sim.restart_agent(&name);
            sim.connect(&name);
        }
        let kept = restored.decided_at();
        let obeyed_more = sim.agents.values().any(|agent| {
            let log = agent
                .participant
                .as_ref()
                .and_then(|p| p.state().run(&sim.begin.run));
            log.is_some_and(|log| log.decision > kept)
        });
        let lost = |sim: &Sim| {
            let run = sim.run.as_ref();
            run.is_some_and(|run| !run.state().decisions_lost.is_empty())
        };
        let ended = sim
            .run
            .as_ref()
            .is_some_and(|run| run.state().ended.is_some());
        if lost(sim) && !ended {
            sim.orders.values_mut().for_each(VecDeque::clear);
            prop_assert!(sim.verb(VerbAction::Rollback, Some("go back")).is_err());
            prop_assert!(sim.verb(VerbAction::Retry, Some("again")).is_err());
            sim.verb(VerbAction::Abort, Some("its journal is old"))
                .map_err(TestCaseError::fail)?;
            let others: Vec<&Order> = sim.orders.values().flatten().collect();
            if !others.into_iter().all(only_ends) {
                return failed(sim, "it orders more than the end");
            }
        } else if !ended {
            // There is nothing to take over, if no agent has obeyed anything
            // that this journal lacks.
            return if obeyed_more {
                failed(sim, "it is not fenced")
            } else {
                Ok(())
            };
        }
        sim.settle();
        for name in sim.names() {
            if let Some((outcome, outputs)) = good(sim, &name) {
                sim.finish(&name, outcome, outputs);
            }
        }
        sim.settle();
        hold(sim)?;
        if sim.run.as_ref().is_some_and(|run| run.is_closed()) {
            break;
        }
    }
    let Some(state) = sim.run.as_ref().map(|run| run.state().clone()) else {
        return failed(sim, "no coordinator");
    };
    for (name, agent) in &sim.agents {
        let free = agent
            .participant
            .as_ref()
            .is_some_and(|p| p.state().locked().is_none());
        if !free || agent.running.is_some() || !state.closed_by.contains(name) {
            return failed(sim, &format!("{name} is not free"));
        }
    }
    for (step, agent) in sim.world.changed() {
        let undoable = state.step(step).is_some_and(|(_, spec)| spec.undoable);
        let owed = state
            .debts
            .iter()
            .any(|debt| debt.step == *step && debt.agent == *agent);
        if undoable && !owed {
            return failed(sim, &format!("{step} is in effect on {agent} and not owed"));
        }
    }
    Ok(())
}

/// Whichever machine is at work is killed after each effect in turn, and each time
/// the run ends as if nothing had been.
#[test]
fn either_side_may_die_after_any_effect() {
    die_everywhere(|sim, effects| {
        sim.crash_after = Some(effects);
    });
}

fn die_everywhere(arm: impl Fn(&mut Sim, usize)) {
    let text = PLAN
        .replace("{policy}", "hold")
        .replace("{open}", "no-return");
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
            // The run came to its end before the crash was due: every
            // boundary has been tried.
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
        sim.settle();
        for name in sim.names() {
            if let Some((outcome, outputs)) = good(sim, &name) {
                sim.finish(&name, outcome, outputs);
            }
        }
        sim.settle();
        let approve = sim.run.as_ref().and_then(|run| {
            run.waits_on().into_iter().find_map(|wait| match wait {
                Wait::Approval { phase } => Some(VerbAction::Approve {
                    phase,
                    digest: run.state().begin.layout.digest.clone(),
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
