//! With messages reordered, lost, repeated or delayed, and crashes of either side
//! at any effect, the invariants hold after every effect, and every run ends once
//! the faults stop.
//!
//! `PROPTEST_CASES` sets the number of cases; the default takes a few seconds. Each
//! run has a new seed, which is printed; `PROPTEST_RNG_SEED` repeats one. The seeds of
//! failures are saved in `regressions.txt` and run first.

mod crashes;
mod recovery;
mod take_over;

use crate::support::{self, Sim, plan};
use lockstep_barrier::coordinator::VerbAction;
use lockstep_barrier::ids::{AgentName, Millis, StepId};
use lockstep_barrier::message::Outcome;
use lockstep_barrier::participant;
use proptest::prelude::*;
use proptest::sample::select;
use proptest::test_runner::{FileFailurePersistence, RngSeed, TestCaseError};
use recovery::heal;
use std::collections::{BTreeMap, VecDeque};
use std::hash::{BuildHasher, Hasher, RandomState};

/// Three agents, four phases, and the rollback. `{policy}`, `{open}` and the phase that
/// ends the watch vary.
const PLAN: &str = "
outage budget=300s from=1 to=2 reserve=20s
detachable c
phase stop on_failure={policy}
  stop-web a,b,c
phase close on_failure={policy}
  lock a
  guard a watch={until}
  mark b proof
phase open gate=approval on_failure={policy} {open}
  open b in=mark.scn
phase apps on_failure={policy}
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
    "/tests/barrier/property/regressions.txt"
);

fn config() -> ProptestConfig {
    let number = |name: &str| std::env::var(name).ok()?.parse::<u64>().ok();
    let cases = number("PROPTEST_CASES").unwrap_or(400);
    let seed =
        number("PROPTEST_RNG_SEED").unwrap_or_else(|| RandomState::new().build_hasher().finish());
    println!("{cases} cases with PROPTEST_RNG_SEED={seed}");
    ProptestConfig {
        cases: u32::try_from(cases).unwrap_or(u32::MAX),
        rng_seed: RngSeed::Fixed(seed),
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
        guarded in any::<bool>(),
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
        let until = if guarded { "3" } else { "2" };
        let text = PLAN.replace("{policy}", policy).replace("{open}", open).replace("{until}", until);
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

fn finish(sim: &mut Sim, name: &AgentName, end: &End) {
    let Some((good, outputs)) = sim.success_of(name) else {
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
        Request::ResolveAll => return sim.resolve_all(),
    };
    // The verb may be rejected, which must change nothing.
    let _ = sim.verb(action, Some("because"));
}
