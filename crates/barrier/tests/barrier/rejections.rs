//! Inputs that a state machine must reject, and that a simulation doesn't produce:
//! its operators know the state, and its network delivers no message of another
//! plan, run or term.

use crate::support::{Sim, plan};
use lockstep_barrier::coordinator::{self, RejectionCode, Run, Verb, VerbAction};
use lockstep_barrier::ids::{
    AgentName, Digest, Header, JournalId, PhaseRef, RunId, StepId, Term, Track,
};
use lockstep_barrier::message::{AgentState, Finding, Order, Probe, Reply, Verdict};
use lockstep_barrier::participant::{self, Effect};
use std::collections::BTreeMap;
use std::sync::Arc;

const PLAN: &str = "
phase stop gate=approval
  stop a
rollback
phase restart
  un-stop a undo=stop
";

const FIRST: PhaseRef = PhaseRef {
    track: Track::Forward,
    index: 0,
};

/// A run whose only agent is connected and has been sent its Prepare.
fn prepared() -> Sim {
    let mut sim = Sim::new(plan::begin(PLAN));
    sim.start();
    sim.connect(&AgentName::from("a"));
    sim
}

/// A run at its gate.
fn ready() -> Sim {
    let mut sim = prepared();
    sim.settle();
    sim
}

fn run(sim: &mut Sim) -> &mut Run {
    Arc::make_mut(sim.run.as_mut().expect("it was started"))
}

fn approve(digest: &str, request: &str, expected: Option<u64>) -> Verb {
    Verb {
        request: request.to_owned(),
        by: "operator".to_owned(),
        reason: None,
        expected,
        action: VerbAction::Approve {
            phase: FIRST,
            digest: Digest::from(digest),
        },
    }
}

fn code_of(result: Result<Vec<coordinator::Effect>, coordinator::VerbRejected>) -> RejectionCode {
    result.expect_err("it is rejected").code
}

#[test]
fn a_verb_that_was_made_for_an_earlier_state_is_rejected() {
    let mut sim = ready();
    let run = run(&mut sim);
    let before = run.state().decided_at() - 1;
    let verb = approve("d1", "request-1", Some(before));
    assert_eq!(code_of(run.verb(1_000, verb)), RejectionCode::Stale);
    let now = run.state().decided_at();
    let verb = approve("d1", "request-1", Some(now));
    assert!(run.verb(1_000, verb).is_ok());
}

#[test]
fn an_approval_of_another_plan_is_rejected() {
    let mut sim = ready();
    let result = run(&mut sim).verb(1_000, approve("d2", "request-1", None));
    assert_eq!(code_of(result), RejectionCode::WrongDigest);
}

#[test]
fn a_repeated_request_is_executed_once() {
    let mut sim = ready();
    let run = run(&mut sim);
    let pause = Verb {
        action: VerbAction::Pause,
        ..approve("d1", "request-1", None)
    };
    let first = run.verb(1_000, pause.clone()).expect("it is not paused");
    assert!(!first.is_empty());
    assert_eq!(run.verb(1_000, pause), Ok(Vec::new()));
}

fn vote(attempt: u32, term: Term) -> coordinator::Event {
    let probe = Probe {
        finding: Finding::Pending,
        before_image: None,
    };
    coordinator::Event::Reply {
        from: AgentName::from("a"),
        reply: Reply::Vote {
            run: RunId::from("run-1"),
            phase: FIRST,
            attempt,
            term,
            promise_age: 0,
            verdict: Verdict::Ready {
                probes: BTreeMap::from([(StepId::from("stop"), probe)]),
            },
        },
        position: None,
    }
}

#[test]
fn a_vote_counts_in_its_own_term_and_attempt() {
    let mut sim = prepared();
    let run = run(&mut sim);
    let term = run.state().term;
    let other = Term {
        number: term.number,
        incarnation: term.incarnation + 1,
    };
    for late in [vote(1, other), vote(2, term), vote(0, term)] {
        run.handle(1_000, late);
        assert!(run.votes().is_empty());
    }
    run.handle(1_000, vote(1, term));
    assert_eq!(run.votes().len(), 1);
}

fn prepare(sim: &mut Sim, change: impl Fn(&mut Header)) -> Vec<Effect> {
    let a = AgentName::from("a");
    let order = sim.orders[&a].front().cloned();
    let Some(Order::Prepare {
        mut header,
        tasks,
        start_by,
        finish_by,
        provisional,
    }) = order
    else {
        panic!("it was sent a Prepare");
    };
    change(&mut header);
    let order = Order::Prepare {
        header,
        tasks,
        start_by,
        finish_by,
        provisional,
    };
    let participant = sim.agent_mut(&a).participant.as_mut().expect("it is up");
    Arc::make_mut(participant).handle(1_000, participant::Event::Order(order))
}

/// The answer is a refusal with a reason, and nothing is probed or recorded.
fn is_refused(effects: &[Effect]) -> bool {
    let refused = |effect: &Effect| match effect {
        Effect::Send(Reply::Vote { verdict, .. }) => matches!(verdict, Verdict::Refuse { .. }),
        _ => false,
    };
    !effects.is_empty() && effects.iter().all(refused)
}

#[test]
fn a_second_run_and_another_plan_are_refused_with_a_reason() {
    let mut sim = ready();
    sim.run = None;
    let mut again = prepared();
    std::mem::swap(&mut sim.orders, &mut again.orders);
    let second = prepare(&mut sim, |header| header.run = RunId::from("run-2"));
    assert!(is_refused(&second), "{second:?}");
    let other = prepare(&mut sim, |header| header.digest = Digest::from("d2"));
    assert!(is_refused(&other), "{other:?}");
    let a = AgentName::from("a");
    let release = Order::Release {
        header: Header {
            run: RunId::from("run-1"),
            phase: FIRST,
            attempt: 1,
            term: sim
                .agent(&a)
                .participant
                .as_ref()
                .expect("it is up")
                .state()
                .term,
            decision: 9,
            digest: Digest::from("d2"),
        },
        promise_age: 0,
        inputs: BTreeMap::new(),
        before_images: BTreeMap::new(),
    };
    let participant = sim.agent_mut(&a).participant.as_mut().expect("it is up");
    let effects = Arc::make_mut(participant).handle(1_000, participant::Event::Order(release));
    assert_eq!(effects, [], "the release of another plan");
}

/// Even an agent of no run shows that a later coordinator has led it.
#[test]
fn a_term_that_is_not_lower_fences_the_coordinator() {
    let mut sim = prepared();
    let run = run(&mut sim);
    let term = run.state().term;
    let state = |number: u64, incarnation: u64| AgentState {
        agent: AgentName::from("a"),
        journal: JournalId::from("a-1"),
        term: Term {
            number,
            incarnation,
        },
        run: None,
        decision: 0,
        release_age: None,
        release_ages: BTreeMap::new(),
    };
    let own = state(term.number, term.incarnation);
    assert_eq!(run.is_foreign(&own), None);
    let forked = state(term.number, term.incarnation + 1);
    let later = state(term.number + 1, term.incarnation);
    for foreign in [forked, later] {
        assert!(run.is_foreign(&foreign).is_some(), "{foreign:?}");
    }
}
