//! Acceptance of orders, and the life of a promise.

use super::state::PromiseStatus;
use super::{Effect, LivePromise, Participant, Probing, Purpose};
use crate::ids::{Header, Millis, PhaseRef, RunId, StepId, Term, Track};
use crate::message::{Probe, Reply, TaskOrder, Verdict};
use crate::record::{ParticipantRecord, Tombstone};
use lockstep_api::{Code, Diagnosis};
use std::collections::BTreeMap;

impl Participant {
    /// Whether this agent accepts an order: its run, plan, term and decision
    /// must be current. A higher term or decision is persisted first (R1, R9).
    pub(super) fn accept_order(&mut self, header: &Header, effects: &mut Vec<Effect>) -> bool {
        let known = self.state.run(&header.run);
        let right_plan = known
            .and_then(|log| log.digest.as_ref())
            .is_none_or(|digest| *digest == header.digest);
        let free = self.state.locked().is_none_or(|run| *run == header.run);
        right_plan
            && free
            && !self.state.closed.contains_key(&header.run)
            && self.accept_decision(&header.run, header.term, header.decision, effects)
    }

    /// As [`Self::accept_order`], but a Prepare that is rejected for a reason that an
    /// operator can fix is answered with that reason.
    pub(super) fn accept_prepare(&mut self, header: &Header, effects: &mut Vec<Effect>) -> bool {
        if self.is_stale(header.term) {
            return false;
        }
        let other = self.state.locked().filter(|run| **run != header.run);
        if let Some(run) = other {
            let reason = Diagnosis::new(
                Code::LS2015,
                format!(
                    "{} is locked by run {run}, which has not been closed here",
                    self.agent
                ),
            )
            .state_left("nothing was done")
            .remedy("end that run, then retry");
            let verdict = Verdict::Refuse {
                reasons: vec![reason],
            };
            effects.push(vote(header, verdict));
            return false;
        }
        let promised = self.state.run(&header.run).and_then(|l| l.digest.clone());
        if let Some(digest) = promised.filter(|digest| *digest != header.digest) {
            let reason = Diagnosis::new(
                Code::LS2016,
                format!(
                    "{} takes part in this run with plan {digest}, not with {}",
                    self.agent, header.digest
                ),
            )
            .state_left("nothing was done")
            .remedy("abort this run and start a new one");
            let verdict = Verdict::Refuse {
                reasons: vec![reason],
            };
            effects.push(vote(header, verdict));
            return false;
        }
        self.accept_order(header, effects)
    }

    /// A term lower than the highest accepted one, or the same number from
    /// another coordinator (R9).
    pub(super) fn is_stale(&self, term: Term) -> bool {
        let accepted = self.state.term;
        term.number < accepted.number
            || (term.number == accepted.number && term.incarnation != accepted.incarnation)
    }

    pub(super) fn accept_decision(
        &mut self,
        run: &RunId,
        term: Term,
        decision: u64,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let highest = self.state.run(run).map_or(0, |log| log.decision);
        if self.is_stale(term) || decision < highest {
            return false;
        }
        if term != self.state.term || decision > highest {
            let run = run.clone();
            self.persist(
                ParticipantRecord::Accepted {
                    run,
                    term,
                    decision,
                },
                effects,
            );
        }
        true
    }

    /// Answers a Prepare: from the journal if the attempt is known, or by probing.
    pub(super) fn prepare(
        &mut self,
        now: Millis,
        header: Header,
        tasks: Vec<TaskOrder>,
        (lapses, finish_by): (Millis, Millis),
        effects: &mut Vec<Effect>,
    ) {
        let forward = header.phase.track == Track::Forward;
        let closed = self
            .state
            .run(&header.run)
            .is_some_and(|log| log.forward_closed);
        if forward && closed {
            self.tombstone(&header, Tombstone::Undone, effects);
            effects.push(vote(&header, Verdict::Lapsed));
            return;
        }
        if let Some(verdict) = self.recorded_verdict(&header) {
            let promise_age = self.promise_age(now, &header);
            effects.push(vote_with_age(&header, promise_age, verdict));
            return;
        }
        if self.live.execution.is_some() {
            effects.push(vote(&header, Verdict::Busy));
            return;
        }
        if let Some(probing) = &mut self.live.probing {
            let same = probing.header.run == header.run
                && probing.header.phase == header.phase
                && probing.header.attempt == header.attempt;
            if same {
                // The probes are running. The vote must be valid in the term of
                // the latest Prepare.
                probing.header = header;
                return;
            }
        }
        if !forward && !closed {
            let (run, digest) = (header.run.clone(), header.digest.clone());
            self.persist(ParticipantRecord::ForwardClosed { run, digest }, effects);
            self.live
                .promises
                .retain(|(_, phase), _| phase.track != Track::Forward);
        }
        effects.push(Effect::Probe {
            run: header.run.clone(),
            phase: header.phase,
            attempt: header.attempt,
            purpose: Purpose::Vote,
            tasks: tasks.clone(),
            inputs: BTreeMap::new(),
        });
        self.live.probing = Some(Probing {
            header,
            tasks,
            finish_by,
            lapses,
        });
    }

    /// Age of the live promise of a phase; 0 if there is none.
    fn promise_age(&self, now: Millis, header: &Header) -> Millis {
        let live = self.live.promises.get(&(header.run.clone(), header.phase));
        live.map_or(0, |live| now.saturating_sub(live.promised))
    }

    /// The verdict that the journal has for this attempt or a later one (R3).
    fn recorded_verdict(&self, header: &Header) -> Option<Verdict> {
        let promise = self.state.promise(&header.run, header.phase)?;
        if header.attempt < promise.attempt {
            return Some(Verdict::Lapsed);
        }
        if header.attempt > promise.attempt {
            return None;
        }
        Some(match &promise.status {
            PromiseStatus::Live | PromiseStatus::Released { .. } => Verdict::Ready {
                probes: promise.probes.clone(),
            },
            PromiseStatus::Refused { reasons } => Verdict::Refuse {
                reasons: reasons.clone(),
            },
            PromiseStatus::Tombstoned { .. } => Verdict::Lapsed,
        })
    }

    /// Promises or refuses, once the probes for a vote have finished.
    pub(super) fn probed_vote(
        &mut self,
        now: Millis,
        run: &RunId,
        (phase, attempt): (PhaseRef, u32),
        mut results: BTreeMap<StepId, Result<Probe, Diagnosis>>,
        effects: &mut Vec<Effect>,
    ) {
        let asked = self.live.probing.as_ref().is_some_and(|probing| {
            let header = &probing.header;
            header.run == *run && header.phase == phase && header.attempt == attempt
        });
        if !asked {
            return;
        }
        let Some(probing) = self.live.probing.take() else {
            return;
        };
        let mut probes = BTreeMap::new();
        let mut reasons = Vec::new();
        for task in &probing.tasks {
            match results.remove(&task.step) {
                Some(Ok(probe)) => {
                    probes.insert(task.step.clone(), probe);
                }
                Some(Err(reason)) => reasons.push(reason),
                None => reasons.push(
                    Diagnosis::new(Code::LS2017, format!("step {} was not probed", task.step))
                        .state_left("nothing was done")
                        .remedy("see the agent's log, then retry"),
                ),
            }
        }
        if reasons.is_empty() {
            self.promise(now, probing, probes, effects);
        } else {
            self.refuse(probing.header, reasons, effects);
        }
    }

    fn promise(
        &mut self,
        now: Millis,
        probing: Probing,
        probes: BTreeMap<StepId, Probe>,
        effects: &mut Vec<Effect>,
    ) {
        let header = probing.header;
        self.persist(
            ParticipantRecord::Promised {
                run: header.run.clone(),
                digest: header.digest.clone(),
                phase: header.phase,
                attempt: header.attempt,
                tasks: probing.tasks,
                finish_by: probing.finish_by,
                probes: probes.clone(),
            },
            effects,
        );
        let live = LivePromise {
            lapses: probing.lapses,
            promised: now,
        };
        self.live
            .promises
            .insert((header.run.clone(), header.phase), live);
        effects.push(vote(&header, Verdict::Ready { probes }));
    }

    fn refuse(&mut self, header: Header, reasons: Vec<Diagnosis>, effects: &mut Vec<Effect>) {
        self.persist(
            ParticipantRecord::Refused {
                run: header.run.clone(),
                digest: header.digest.clone(),
                phase: header.phase,
                attempt: header.attempt,
                reasons: reasons.clone(),
            },
            effects,
        );
        effects.push(vote(&header, Verdict::Refuse { reasons }));
    }

    /// Records that this attempt will never be executed here (R3).
    pub(super) fn tombstone(&mut self, header: &Header, why: Tombstone, effects: &mut Vec<Effect>) {
        let known = self.state.promise(&header.run, header.phase);
        let closed = known.is_some_and(|promise| {
            promise.attempt > header.attempt
                || (promise.attempt == header.attempt
                    && matches!(promise.status, PromiseStatus::Tombstoned { .. }))
        });
        self.live
            .promises
            .remove(&(header.run.clone(), header.phase));
        if closed {
            return;
        }
        self.persist(
            ParticipantRecord::Tombstoned {
                run: header.run.clone(),
                digest: header.digest.clone(),
                phase: header.phase,
                attempt: header.attempt,
                why,
            },
            effects,
        );
    }

    /// Tombstones promises that have lapsed by this agent's clock (R12).
    pub(super) fn lapse_overdue(&mut self, now: Millis, effects: &mut Vec<Effect>) {
        let (overdue, live): (BTreeMap<_, _>, _) = std::mem::take(&mut self.live.promises)
            .into_iter()
            .partition(|(_, promise)| now >= promise.lapses);
        self.live.promises = live;
        for (run, phase) in overdue.into_keys() {
            self.tombstone_live(&run, phase, Tombstone::Lapsed, effects);
        }
        if self.live.probing.as_ref().is_some_and(|p| now >= p.lapses)
            && let Some(probing) = self.live.probing.take()
        {
            self.tombstone(&probing.header, Tombstone::Lapsed, effects);
        }
    }

    /// A restart voids promises (R12).
    pub(super) fn void_promises(&mut self, effects: &mut Vec<Effect>) {
        let live: Vec<(RunId, PhaseRef)> = self
            .state
            .runs
            .iter()
            .flat_map(|(run, log)| {
                log.phases
                    .iter()
                    .filter(|(_, promise)| promise.status == PromiseStatus::Live)
                    .map(|(phase, _)| (run.clone(), *phase))
            })
            .collect();
        for (run, phase) in live {
            self.tombstone_live(&run, phase, Tombstone::Restarted, effects);
        }
    }

    fn tombstone_live(
        &mut self,
        run: &RunId,
        phase: PhaseRef,
        why: Tombstone,
        effects: &mut Vec<Effect>,
    ) {
        let Some(log) = self.state.run(run) else {
            return;
        };
        let live = log
            .phases
            .get(&phase)
            .filter(|promise| promise.status == PromiseStatus::Live);
        let (Some(promise), Some(digest)) = (live, log.digest.clone()) else {
            return;
        };
        let record = ParticipantRecord::Tombstoned {
            run: run.clone(),
            digest,
            phase,
            attempt: promise.attempt,
            why,
        };
        self.persist(record, effects);
    }
}

/// A vote, valid in the term of the order that it answers (R9).
pub(super) fn vote(header: &Header, verdict: Verdict) -> Effect {
    vote_with_age(header, 0, verdict)
}

fn vote_with_age(header: &Header, promise_age: Millis, verdict: Verdict) -> Effect {
    Effect::Send(Reply::Vote {
        run: header.run.clone(),
        phase: header.phase,
        attempt: header.attempt,
        term: header.term,
        promise_age,
        verdict,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ids::{AgentName, BootId, Digest, JournalId};
    use crate::message::{Finding, Mode, Order, Outcome};
    use crate::participant::Event;
    use serde_json::Value;

    fn header(run: &str, attempt: u32, term: (u64, u64), decision: u64) -> Header {
        Header {
            run: RunId::from(run),
            phase: PhaseRef {
                track: Track::Forward,
                index: 0,
            },
            attempt,
            term: Term {
                number: term.0,
                incarnation: term.1,
            },
            decision,
            digest: Digest::from("d1"),
        }
    }

    fn prepare(header: Header) -> Event {
        Event::Order(Order::Prepare {
            header,
            tasks: vec![TaskOrder {
                read_only: false,
                step: StepId::from("stop"),
                action: "service.stop".to_owned(),
                mode: Mode::Execute,
                params: Value::Null,
                timeout: 1_000,
                watch: false,
            }],
            start_by: 10_000,
            finish_by: 60_000,
            provisional: false,
        })
    }

    fn probed(header: &Header) -> Event {
        let probe = Probe {
            finding: Finding::Pending,
            before_image: None,
        };
        Event::Probed {
            run: header.run.clone(),
            phase: header.phase,
            attempt: header.attempt,
            purpose: Purpose::Vote,
            results: BTreeMap::from([(StepId::from("stop"), Ok(probe))]),
        }
    }

    fn new_agent() -> Participant {
        Participant::new(
            AgentName::from("a"),
            JournalId::from("j"),
            BootId::from("b"),
        )
    }

    /// An agent that has promised attempt 1 of run-1 in term 2 at time 0.
    fn promised() -> Participant {
        let mut agent = new_agent();
        let first = header("run-1", 1, (2, 7), 5);
        agent.handle(0, prepare(first.clone()));
        agent.handle(0, probed(&first));
        agent
    }

    fn verdicts(effects: Vec<Effect>) -> Vec<Verdict> {
        let mut verdicts = Vec::new();
        for effect in effects {
            if let Effect::Send(Reply::Vote { verdict, .. }) = effect {
                verdicts.push(verdict);
            }
        }
        verdicts
    }

    #[test]
    fn a_second_run_is_refused_with_the_name_of_the_first() {
        let mut agent = promised();
        let effects = agent.handle(1, prepare(header("run-2", 1, (2, 7), 5)));
        let [Verdict::Refuse { reasons }] = &verdicts(effects)[..] else {
            panic!("it must refuse");
        };
        assert!(reasons[0].what.contains("run-1"), "{reasons:?}");
        agent.handle(
            2,
            Event::Order(Order::Close {
                run: RunId::from("run-1"),
                term: Term {
                    number: 2,
                    incarnation: 7,
                },
                decision: 9,
            }),
        );
        let effects = agent.handle(3, prepare(header("run-2", 1, (2, 7), 5)));
        assert!(effects.iter().any(|e| matches!(e, Effect::Probe { .. })));
    }

    #[test]
    fn what_is_stale_is_neither_obeyed_nor_answered() {
        for (order, why) in [
            (header("run-1", 2, (1, 1), 9), "a lower term"),
            (
                header("run-1", 2, (2, 8), 9),
                "the same term number of another coordinator",
            ),
            (header("run-1", 2, (3, 1), 4), "a lower decision"),
        ] {
            let effects = promised().handle(1, prepare(order));
            assert_eq!(effects, [], "{why}");
        }
    }

    #[test]
    fn a_promise_lapses_by_the_agents_own_clock_and_for_ever() {
        let mut agent = promised();
        assert_eq!(agent.next_deadline(), Some(10_000));
        let again = prepare(header("run-1", 1, (2, 7), 5));
        let ready = verdicts(agent.handle(9_999, again.clone()));
        assert!(matches!(ready[..], [Verdict::Ready { .. }]));
        assert_eq!(verdicts(agent.handle(10_000, again)), [Verdict::Lapsed]);
    }

    #[test]
    fn a_probe_that_never_answers_ends_with_its_phase() {
        let mut agent = promised();
        let release = header("run-1", 1, (2, 7), 6);
        let order = Order::Release {
            header: release.clone(),
            promise_age: 1,
            inputs: BTreeMap::new(),
            before_images: BTreeMap::new(),
        };
        let started = agent.handle(1, Event::Order(order));
        assert!(started.iter().any(|e| matches!(e, Effect::Probe { .. })));
        let effects = agent.handle(60_001, Event::Tick);
        assert!(effects.iter().any(|effect| matches!(
            effect,
            Effect::Send(Reply::Outcome(report)) if report.outcome == Outcome::NotStarted
        )));
        // A late probe result starts nothing, and the agent accepts a new attempt.
        let Event::Probed { results, .. } = probed(&release) else {
            unreachable!("it is one");
        };
        let late = Event::Probed {
            run: release.run.clone(),
            phase: release.phase,
            attempt: 1,
            purpose: Purpose::Start,
            results,
        };
        assert_eq!(agent.handle(60_002, late), []);
        let again = agent.handle(60_003, prepare(header("run-1", 2, (2, 7), 7)));
        assert!(again.iter().any(|e| matches!(e, Effect::Probe { .. })));
    }

    #[test]
    fn a_probe_that_says_no_leaves_a_durable_refusal() {
        let mut agent = new_agent();
        let order = header("run-1", 1, (1, 1), 2);
        agent.handle(0, prepare(order.clone()));
        let no_such_unit = Diagnosis::new(Code::LS2101, "no such unit");
        let event = Event::Probed {
            run: order.run.clone(),
            phase: order.phase,
            attempt: 1,
            purpose: Purpose::Vote,
            results: BTreeMap::from([(StepId::from("stop"), Err(no_such_unit.clone()))]),
        };
        let refusal = Verdict::Refuse {
            reasons: vec![no_such_unit],
        };
        let first = verdicts(agent.handle(1, event));
        assert_eq!(first, [refusal]);
        // The repeated Prepare gets the same answer without another probe.
        assert_eq!(verdicts(agent.handle(2, prepare(order))), first);
    }
}
