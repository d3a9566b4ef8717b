//! With messages reordered, lost, repeated or delayed, and crashes of either side
//! at any effect, the invariants hold after every effect, and every run ends once
//! the faults stop.
//!
//! `PROPTEST_CASES` sets the number of cases; the default takes a few seconds. The
//! seeds of failures are saved next to this file and run first.

use crate::support::invariants::RunUpdate;
use crate::support::{self, Sim, plan};
use lockstep_barrier::coordinator::{PhaseStatus, State, TaskStatus, VerbAction, Wait};
use lockstep_barrier::ids::{AgentName, Millis, StepId};
use lockstep_barrier::message::{Mode, Order, Outcome};
use lockstep_barrier::participant;
use lockstep_barrier::record::Resolution;
use lockstep_barrier::resolved_plan::Outputs;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{FileFailurePersistence, TestCaseError};
use std::collections::{BTreeMap, VecDeque};

/// Three agents, three phases, and the rollback. `{policy}` and `{open}` vary.
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

const REGRESSIONS: &str = concat!(
    env!("CARGO_MANIFEST_DIR"),
    "/tests/barrier/property.proptest-regressions"
);

fn config() -> ProptestConfig {
    let wanted = std::env::var("PROPTEST_CASES").ok();
    ProptestConfig {
        cases: wanted.and_then(|text| text.parse().ok()).unwrap_or(400),
        failure_persistence: Some(Box::new(FileFailurePersistence::Direct(REGRESSIONS))),
        ..ProptestConfig::default()
    }
}

/// An event in the simulation, for an agent of the plan.
#[derive(Debug, Clone)]
enum Move {
    /// The message at this index of the queue arrives, modulo its length.
    DeliverOrder {
        to: &'static str,
        at: usize,
    },
    DeliverReply {
        from: &'static str,
        at: usize,
    },
    /// An agent's driver answers a probe or an attestation.
    Chore {
        agent: &'static str,
    },
    /// The running task ends.
    Finish {
        agent: &'static str,
        end: End,
    },
    /// The running task changes its host and keeps running.
    TakeEffect {
        agent: &'static str,
    },
    /// Every message is delivered, and every chore is done.
    Settle,
    LoseOrder {
        to: &'static str,
    },
    LoseReply {
        from: &'static str,
    },
    DuplicateOrder {
        to: &'static str,
    },
    DuplicateReply {
        from: &'static str,
    },
    Pass {
        time: Millis,
    },
    DropSession {
        agent: &'static str,
    },
    /// Whatever is down is started, and the agent connects.
    Reconnect {
        agent: &'static str,
    },
    CrashAgent {
        agent: &'static str,
    },
    CrashCoordinator,
    /// The process that would execute this effect, counted from now, crashes first.
    CrashAfter {
        effects: usize,
    },
    RestartAgent {
        agent: &'static str,
    },
    RestartCoordinator,
    Operator(Request),
    /// The watch on agent `a` sees a session.
    Breach,
    LoseJournal {
        agent: &'static str,
    },
}

/// How a task ends.
#[derive(Debug, Clone)]
enum End {
    Good,
    Failed,
    FailedAfterEffect,
    Unknown,
    UnknownAfterEffect,
}

/// An operator's request for the current phase or the given task.
#[derive(Debug, Clone)]
enum Request {
    Approve,
    Retry,
    Rollback,
    Skip,
    Pause,
    Resume,
    Waive {
        agent: &'static str,
        task: usize,
    },
    Abort,
    /// Checks the hosts, and resolves each unclear task accordingly.
    ResolveAll,
}

fn agent() -> impl Strategy<Value = &'static str> {
    select(vec!["a", "b", "c"])
}

fn a_move() -> impl Strategy<Value = Move> {
    // One stream delivers in order; a new session may overtake an old one.
    let at = || prop_oneof![4 => Just(0_usize), 1 => 0..8_usize];
    prop_oneof![
        70 => (agent(), at()).prop_map(|(to, at)| Move::DeliverOrder { to, at }),
        70 => (agent(), at()).prop_map(|(from, at)| Move::DeliverReply { from, at }),
        50 => agent().prop_map(|agent| Move::Chore { agent }),
        80 => (agent(), end()).prop_map(|(agent, end)| Move::Finish { agent, end }),
        60 => Just(Move::Settle),
        58 => request().prop_map(Move::Operator),
        14 => agent().prop_map(|agent| Move::TakeEffect { agent }),
        12 => agent().prop_map(|to| Move::LoseOrder { to }),
        8 => agent().prop_map(|from| Move::LoseReply { from }),
        6 => agent().prop_map(|to| Move::DuplicateOrder { to }),
        6 => agent().prop_map(|from| Move::DuplicateReply { from }),
        16 => select(vec![500, 1_500, 4_000, 11_000, 70_000]).prop_map(|time| Move::Pass { time }),
        12 => agent().prop_map(|agent| Move::DropSession { agent }),
        18 => agent().prop_map(|agent| Move::Reconnect { agent }),
        24 => crash(),
        6 => Just(Move::Breach),
    ]
}

fn crash() -> impl Strategy<Value = Move> {
    prop_oneof![
        agent().prop_map(|agent| Move::CrashAgent { agent }),
        Just(Move::CrashCoordinator),
        (0..6_usize).prop_map(|effects| Move::CrashAfter { effects }),
        agent().prop_map(|agent| Move::RestartAgent { agent }),
        Just(Move::RestartCoordinator),
    ]
}

fn end() -> impl Strategy<Value = End> {
    prop_oneof![
        18 => Just(End::Good),
        2 => Just(End::Failed),
        2 => Just(End::FailedAfterEffect),
        1 => Just(End::Unknown),
        1 => Just(End::UnknownAfterEffect),
    ]
}

fn request() -> impl Strategy<Value = Request> {
    prop_oneof![
        12 => Just(Request::Approve),
        9 => Just(Request::Retry),
        6 => Just(Request::Rollback),
        3 => Just(Request::Skip),
        3 => Just(Request::Pause),
        6 => Just(Request::Resume),
        3 => (agent(), 0..8_usize).prop_map(|(agent, task)| Request::Waive { agent, task }),
        1 => Just(Request::Abort),
        5 => Just(Request::ResolveAll),
    ]
}

proptest! {
    #![proptest_config(config())]

    #[test]
    fn no_interleaving_breaks_an_invariant(
        rolls_back in any::<bool>(),
        no_return in any::<bool>(),
        unclear in prop::sample::subsequence(vec!["stop-web", "lock", "open", "un-stop"], 0..=4),
        turns_back in any::<bool>(),
        moves in prop::collection::vec(
            prop_oneof![
                500 => a_move(),
                1 => agent().prop_map(|agent| Move::LoseJournal { agent }),
            ],
            0..160,
        ),
    ) {
        let policy = if rolls_back { "rollback" } else { "hold" };
        let open = if no_return { "no-return" } else { "" };
        let text = PLAN.replace("{policy}", policy).replace("{open}", open);
        let mut sim = Sim::new(plan::begin(&text));
        for agent in sim.agents.values_mut() {
            // Their probes are always indeterminate.
            agent.indeterminate.extend(unclear.iter().map(|step| StepId::from(*step)));
        }
        sim.start();
        for name in sim.names() {
            sim.connect(&name);
        }
        for one in moves {
            make(&mut sim, one);
            hold(&sim)?;
        }
        heal(&mut sim, turns_back)?;
    }
}

fn hold(sim: &Sim) -> Result<(), TestCaseError> {
    if sim.violations.is_empty() {
        return Ok(());
    }
    Err(failed(sim, &sim.violations.join("\n")))
}

fn failed(sim: &Sim, what: &str) -> TestCaseError {
    TestCaseError::fail(format!("{what}\n{}", sim.trace.join("\n")))
}

fn make(sim: &mut Sim, one: Move) {
    match one {
        Move::DeliverOrder { to, at } => {
            let length = sim.orders[&to.into()].len().max(1);
            sim.deliver_order(&to.into(), at % length);
        }
        Move::DeliverReply { from, at } => {
            let length = sim.replies[&from.into()].len().max(1);
            sim.deliver_reply(&from.into(), at % length);
        }
        Move::Chore { agent } => drop(sim.do_chore(&agent.into())),
        Move::Finish { agent, end } => finish(sim, &agent.into(), &end),
        Move::TakeEffect { agent } => sim.take_effect(&agent.into()),
        Move::Settle => sim.settle(),
        Move::LoseOrder { to } => drop(queue(&mut sim.orders, to).pop_front()),
        Move::LoseReply { from } => drop(queue(&mut sim.replies, from).pop_front()),
        Move::DuplicateOrder { to } => duplicate(queue(&mut sim.orders, to)),
        Move::DuplicateReply { from } => duplicate(queue(&mut sim.replies, from)),
        Move::Pass { time } => sim.pass(time),
        Move::DropSession { agent } => {
            if sim.agent(&agent.into()).connected {
                sim.drop_session(&agent.into());
            }
        }
        Move::Reconnect { agent } => {
            sim.restart_coordinator();
            sim.restart_agent(&agent.into());
            sim.connect(&agent.into());
        }
        Move::CrashAgent { agent } => sim.crash_agent(&agent.into()),
        Move::CrashCoordinator => sim.crash_coordinator(),
        Move::CrashAfter { effects } => sim.crash_after = Some(effects),
        Move::RestartAgent { agent } => sim.restart_agent(&agent.into()),
        Move::RestartCoordinator => sim.restart_coordinator(),
        Move::Operator(request) => ask(sim, request),
        Move::Breach => breach(sim),
        Move::LoseJournal { agent } => sim.lose_journal(&agent.into()),
    }
}

fn queue<'a, T>(
    queues: &'a mut BTreeMap<AgentName, VecDeque<T>>,
    agent: &str,
) -> &'a mut VecDeque<T> {
    queues.get_mut(&agent.into()).expect("an agent of the plan")
}

fn duplicate<T: Clone>(queue: &mut VecDeque<T>) {
    if let Some(message) = queue.front().cloned() {
        queue.push_back(message);
    }
}

fn good(sim: &Sim, name: &AgentName) -> Option<(Outcome, Outputs)> {
    let running = sim.agent(name).running.as_ref()?;
    let mut outputs = Outputs::new();
    if running.task.step == StepId::from("mark") {
        outputs.insert("scn".to_owned(), running.attempt.into());
    }
    let outcome = if running.task.watch {
        Outcome::Armed
    } else {
        Outcome::Done
    };
    Some((outcome, outputs))
}

fn finish(sim: &mut Sim, name: &AgentName, end: &End) {
    let Some((good, outputs)) = good(sim, name) else {
        return;
    };
    let failed = support::failed("it went wrong");
    let unknown = Outcome::Unknown {
        reason: "no answer".to_owned(),
    };
    let (outcome, takes_effect) = match end {
        // A successful task takes effect in `finish`.
        End::Good => (good, false),
        End::Failed => (failed, false),
        End::FailedAfterEffect => (failed, true),
        End::Unknown => (unknown, false),
        End::UnknownAfterEffect => (unknown, true),
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

fn ask(sim: &mut Sim, request: Request) {
    let Some(state) = sim.run.as_ref().map(|run| run.state()) else {
        return;
    };
    let action = match request {
        Request::Approve => {
            let Some(phase) = state.current() else { return };
            let digest = state.begin.resolved_plan.digest.clone();
            VerbAction::Approve { phase, digest }
        }
        Request::Retry => VerbAction::Retry,
        Request::Rollback => VerbAction::Rollback,
        Request::Skip => VerbAction::Skip,
        Request::Pause => VerbAction::Pause,
        Request::Resume => VerbAction::Resume,
        Request::Waive { agent, task } => {
            let agent = AgentName::from(agent);
            let keys = state.tasks.keys().filter(|(_, whose)| *whose == agent);
            let steps: Vec<&StepId> = keys.map(|(step, _)| step).collect();
            let step = steps[task % steps.len()].clone();
            VerbAction::Waive { agent, step }
        }
        Request::Abort => VerbAction::Abort,
        Request::ResolveAll => return resolve_all(sim),
    };
    // The verb may be rejected, which must change nothing.
    let _ = sim.verb(action, Some("because"));
}

/// The operator checks the hosts and resolves each unclear task.
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

/// The faults have stopped: every agent is connected, every action succeeds, and an
/// operator responds to every wait. Every run must end.
fn heal(sim: &mut Sim, turns_back: bool) -> Result<(), TestCaseError> {
    sim.crash_after = None;
    for round in 0..80 {
        sim.restart_coordinator();
        for name in sim.names() {
            sim.restart_agent(&name);
            if round % 20 == 0 && sim.agent(&name).connected {
                // A session that has lost a message is replaced.
                sim.drop_session(&name);
            }
            sim.connect(&name);
        }
        finish_what_runs(sim);
        hold(sim)?;
        if sim.run.as_ref().is_some_and(|run| run.is_closed()) {
            return Ok(());
        }
        if turns_back && round == 1 {
            // Rejected if the run has moved on, which is correct as well.
            let _ = sim.verb(VerbAction::Rollback, Some("enough for tonight"));
        }
        operate(sim, round);
        sim.settle();
        sim.pass(if round % 4 == 3 { 70_000 } else { 100 });
        hold(sim)?;
    }
    let waits = sim.run.as_ref().map(|run| run.waits_on());
    Err(failed(sim, &format!("no end; waits on {waits:?}")))
}

fn operate(sim: &mut Sim, round: usize) {
    resolve_all(sim);
    let Some(run) = &sim.run else { return };
    let state = run.state().clone();
    for wait in run.waits_on() {
        let reason = Some("the night is short");
        let _ = match wait {
            Wait::Approval { phase } => {
                let digest = state.begin.resolved_plan.digest.clone();
                sim.verb(VerbAction::Approve { phase, digest }, reason)
            }
            Wait::Paused { .. } | Wait::Held { .. } | Wait::HoldGate { .. } => {
                sim.verb(VerbAction::Resume, reason)
            }
            Wait::Outcome {
                agent,
                step,
                lost: true,
            } => sim.verb(VerbAction::Waive { agent, step }, reason),
            Wait::Disarm { agent, step } if state.journals_lost.contains(&agent) => {
                sim.verb(VerbAction::Waive { agent, step }, reason)
            }
            Wait::Decision { .. } if round < 30 => sim.verb(VerbAction::Retry, reason),
            Wait::Decision { .. } => sim
                .verb(VerbAction::Skip, reason)
                .or_else(|_| sim.verb(VerbAction::Rollback, reason))
                .or_else(|_| sim.verb(VerbAction::Abort, reason)),
            _ => Ok(()),
        };
    }
}

proptest! {
    #![proptest_config(config())]

    /// A coordinator that takes over with any prefix of its journal orders nothing
    /// but the end, every agent accepts that, no task keeps running, and whatever
    /// is in effect on a host is an outstanding undo. No agent loses its journal
    /// here, because then the state of its host is unknown.
    #[test]
    fn taking_over_with_an_old_journal_only_ends_the_run(
        moves in prop::collection::vec(a_move(), 0..160),
        records_left in any::<prop::sample::Index>(),
        restarts in 1..12_u8,
    ) {
        let text = PLAN.replace("{policy}", "rollback").replace("{open}", "no-return");
        let mut sim = Sim::new(plan::begin(&text));
        sim.start();
        for name in sim.names() {
            sim.connect(&name);
        }
        for one in moves {
            make(&mut sim, one);
        }
        let decided = State::fold(sim.disk.clone()).expect("its own journal");
        if decided.ended.is_some() {
            return Ok(());
        }
        sim.crash_coordinator();
        sim.restore_backup(1 + records_left.index(sim.disk.len()));
        sim.observe(&RunUpdate::CoordinatorRestored);
        let restored = State::fold(sim.disk.clone()).expect("a beginning is a journal");
        for _ in 0..restarts {
            sim.restart_coordinator();
            sim.crash_coordinator();
        }
        take_over(&mut sim, &restored)?;
    }
}

/// What a coordinator may send in a run of which it has lost decisions.
fn only_ends(order: &Order) -> bool {
    matches!(
        order,
        Order::Revoke { .. } | Order::Ack { .. } | Order::Close { .. }
    )
}

fn take_over(sim: &mut Sim, restored: &State) -> Result<(), TestCaseError> {
    sim.take_over = true;
    for _ in 0..20 {
        sim.restart_coordinator();
        for name in sim.names() {
            sim.restart_agent(&name);
            sim.connect(&name);
        }
        let Some(state) = sim.run.as_ref().map(|run| run.state()) else {
            return Err(failed(sim, "no coordinator"));
        };
        let (lost, ended) = (!state.decisions_lost.is_empty(), state.ended.is_some());
        if lost && !ended {
            order_the_end(sim)?;
        } else if !ended {
            // There is nothing to take over if no agent has accepted a decision
            // that this journal lacks.
            return if obeyed_since(sim, restored.decided_at()) {
                Err(failed(sim, "it is not fenced"))
            } else {
                Ok(())
            };
        }
        finish_what_runs(sim);
        hold(sim)?;
        if sim.run.as_ref().is_some_and(|run| run.is_closed()) {
            break;
        }
    }
    everyone_is_free(sim)
}

/// An agent has accepted a decision above this one.
fn obeyed_since(sim: &Sim, decision: u64) -> bool {
    let participants = sim.agents.values().filter_map(|a| a.participant.as_ref());
    let mut logs = participants.filter_map(|p| p.state().run(&sim.begin.run));
    logs.any(|log| log.decision > decision)
}

fn order_the_end(sim: &mut Sim) -> Result<(), TestCaseError> {
    sim.orders.values_mut().for_each(VecDeque::clear);
    prop_assert!(sim.verb(VerbAction::Rollback, Some("go back")).is_err());
    prop_assert!(sim.verb(VerbAction::Retry, Some("again")).is_err());
    sim.verb(VerbAction::Abort, Some("its journal is old"))
        .map_err(TestCaseError::fail)?;
    if sim.orders.values().flatten().all(only_ends) {
        Ok(())
    } else {
        Err(failed(sim, "it orders more than the end"))
    }
}

/// No agent is locked to the run, and whatever is in effect is an outstanding undo.
fn everyone_is_free(sim: &Sim) -> Result<(), TestCaseError> {
    let Some(state) = sim.run.as_ref().map(|run| run.state()) else {
        return Err(failed(sim, "no coordinator"));
    };
    for (name, agent) in &sim.agents {
        let participant = agent.participant.as_ref();
        let free = participant.is_some_and(|p| p.state().locked().is_none());
        if !free || agent.running.is_some() || !state.closed_by.contains(name) {
            return Err(failed(sim, &format!("{name} is not free")));
        }
    }
    for (step, agent) in sim.world.changed() {
        let undoable = state.step(step).is_some_and(|(_, spec)| spec.undoable);
        let mut outstanding_undos = state.outstanding_undos.iter();
        let listed = outstanding_undos.any(|outstanding_undo| {
            outstanding_undo.step == *step && outstanding_undo.agent == *agent
        });
        if undoable && !listed {
            let what = format!("{step} is in effect on {agent} without an outstanding undo");
            return Err(failed(sim, &what));
        }
    }
    Ok(())
}

/// Delivers messages, and finishes running tasks successfully.
fn finish_what_runs(sim: &mut Sim) {
    sim.settle();
    for name in sim.names() {
        if let Some((outcome, outputs)) = good(sim, &name) {
            sim.finish(&name, outcome, outputs);
        }
    }
    sim.settle();
}

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
        finish_what_runs(sim);
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
