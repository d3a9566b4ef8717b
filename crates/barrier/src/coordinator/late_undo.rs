//! Late undos: an agent that a rollback continued without is back, and its
//! outstanding undos are executed, phase by phase in the plan's order (R5, R18).
//!
//! Each is a round of its own with the one agent: Prepare, a vote, a durable release,
//! outcomes. It neither delays nor fails a phase of the rollback, and may follow its
//! end, as long as the agent has not closed the run.

use super::prepare::BUSY_PAUSE;
use super::state::{LateUndo, State, TaskStatus, task_key};
use super::{
    Effect, LOST_GRACE, LateRound, MAX_RELEASE, MAX_ROUNDS, RELEASE_MARGIN, Run, Vote, Wait,
};
use crate::ids::{AgentName, Header, Millis, PhaseRef, StepId, Term, Track};
use crate::message::{Order, Outcome, Verdict, json_size};
use crate::record::{Ending, OutstandingUndoCause, Record};
use crate::resolved_plan::PhaseSpec;

impl Run {
    /// Takes one step of the late undos; `false` if none is due.
    pub(super) fn step_late_undos(&mut self, now: Millis, effects: &mut Vec<Effect>) -> bool {
        if !self.may_undo_late() {
            return false;
        }
        // An agent that has closed the run does nothing more in it.
        let agents = self.live.connected.difference(&self.state.closed_by);
        let agents: Vec<AgentName> = agents.cloned().collect();
        agents
            .iter()
            .any(|agent| self.step_late_undo(now, agent, effects))
    }

    fn step_late_undo(
        &mut self,
        now: Millis,
        agent: &AgentName,
        effects: &mut Vec<Effect>,
    ) -> bool {
        match self.state.late_undos.get(agent) {
            Some(late) if late.released => false,
            Some(late) => {
                let late = late.clone();
                match self.forestalled() {
                    None => self.evaluate_late_round(now, agent, &late, effects),
                    Some(reason) => {
                        self.leave_outstanding(agent, late.phase, reason, effects);
                        true
                    }
                }
            }
            None => {
                if let Some(phase) = self.never_reported(agent) {
                    let reason = "it isn't locked to this run any more, and doesn't report what \
                                  it did there: another coordinator has closed the run at it";
                    self.leave_outstanding(agent, phase, reason.to_owned(), effects);
                    return true;
                }
                let Some((phase, steps)) = self.due_late_undo(agent) else {
                    return false;
                };
                match self.forestalled() {
                    Some(reason) => self.leave_outstanding(agent, phase, reason, effects),
                    None => self.start_late_round(now, agent, phase, steps, effects),
                }
                true
            }
        }
    }

    /// The first phase with outstanding undos of an agent that will not report its
    /// earlier attempts, see [`Run::is_owed_by`].
    fn never_reported(&self, agent: &AgentName) -> Option<PhaseRef> {
        let silent = self.state.ended.is_some()
            && self.live.unlocked.contains(agent)
            && self.unreported(agent)
            && !self.live.late_blocked.contains(agent);
        let phases = self.state.begin.resolved_plan.rollback.iter().enumerate();
        let mut owed = phases.filter(|(_, spec)| !self.outstanding_steps(spec, agent).is_empty());
        let (index, _) = owed.next().filter(|_| silent)?;
        Some(PhaseRef {
            track: Track::Rollback,
            index: index as u32,
        })
    }

    /// Why no undo is begun any more: the run has ended, and a later one may have
    /// changed the same hosts since.
    fn forestalled(&self) -> Option<String> {
        let by = self.live.superseded.as_ref()?;
        self.state.ended?;
        Some(format!(
            "run {by} has begun since; compare the host with it before you undo anything by hand"
        ))
    }

    /// The rollback has begun, and the run has not been aborted, paused or held.
    fn may_undo_late(&self) -> bool {
        let state = &self.state;
        let began = state.rollback.as_ref().is_some_and(|r| r.began);
        let goes_on = match state.ended {
            None => state.paused.is_none() && state.held.is_empty(),
            Some(Ending::RolledBack) => true,
            Some(Ending::Completed | Ending::Aborted) => false,
        };
        let known = state.decisions_lost.is_empty() && self.live.fenced.is_none();
        began && goes_on && known && state.abort.is_none()
    }

    /// The first phase with outstanding undos of this agent, and its steps, if they
    /// can be executed now: an earlier attempt at the agent is reported, its earlier
    /// undos have succeeded, and the phase is over for everybody else.
    fn due_late_undo(&self, agent: &AgentName) -> Option<(PhaseRef, Vec<StepId>)> {
        let blocked = self.live.late_blocked.contains(agent)
            || self.unreported(agent)
            || self.takes_part_now(agent);
        if blocked {
            return None;
        }
        let phases = self.state.begin.resolved_plan.rollback.iter().enumerate();
        for (index, spec) in phases {
            let phase = PhaseRef {
                track: Track::Rollback,
                index: index as u32,
            };
            let steps = self.outstanding_steps(spec, agent);
            if steps.is_empty() {
                continue;
            }
            let over = self.state.phase(phase).map(|p| p.status.is_over());
            let ready = steps.iter().all(|step| self.may_run_late(step, agent));
            return (over == Some(true) && ready).then_some((phase, steps));
        }
        None
    }

    /// Steps of a rollback phase that are outstanding at an agent because it was out
    /// of reach; not those that an operator has skipped.
    fn outstanding_steps(&self, spec: &PhaseSpec, agent: &AgentName) -> Vec<StepId> {
        let outstanding = |step: &StepId| {
            self.state.outstanding_undos.iter().any(|undo| {
                let unreachable = match undo.cause {
                    OutstandingUndoCause::Unreachable | OutstandingUndoCause::Waived { .. } => true,
                    OutstandingUndoCause::Skipped | OutstandingUndoCause::Aborted => false,
                };
                unreachable && undo.step == *step && undo.agent == *agent
            })
        };
        let steps = spec.steps.iter().map(|step| &step.id);
        steps.filter(|step| outstanding(step)).cloned().collect()
    }

    /// It was not run yet, or in a way that is retried automatically (R4). A failed or
    /// unclear undo is for the operator.
    fn may_run_late(&self, step: &StepId, agent: &AgentName) -> bool {
        let task = self.state.tasks.get(&task_key(step, agent));
        task.is_some_and(|task| task.outcome().is_none_or(Outcome::is_retried_automatically))
    }

    /// The agent has not reported the end of an earlier attempt, so it may be working
    /// on it.
    fn unreported(&self, agent: &AgentName) -> bool {
        let mut unreported = self.state.unreported_tasks();
        unreported.any(|((_, owner), _)| owner == agent)
    }

    /// The agent may be in the current phase or the next one, and must get no second
    /// Prepare beside that of the phase. An agent that was left out never is.
    fn takes_part_now(&self, agent: &AgentName) -> bool {
        self.state.current().is_some() && !self.has_outstanding_undo(agent)
    }

    fn start_late_round(
        &mut self,
        now: Millis,
        agent: &AgentName,
        phase: PhaseRef,
        steps: Vec<StepId>,
        effects: &mut Vec<Effect>,
    ) {
        let rounds = self.live.late_rounds.entry(agent.clone()).or_default();
        *rounds += 1;
        if *rounds > MAX_ROUNDS {
            let reason = format!("it was not executed in {MAX_ROUNDS} attempts");
            return self.leave_outstanding(agent, phase, reason, effects);
        }
        let attempt = self.state.phase(phase).map_or(1, |p| p.attempt + 1);
        self.persist(
            Record::LateUndoPreparing {
                agent: agent.clone(),
                phase,
                attempt,
                steps,
            },
            effects,
        );
        self.live.late.insert(agent.clone(), LateRound::new(now));
        self.send_late_prepare(agent, effects);
    }

    fn late_header(&self, late: &LateUndo) -> Option<Header> {
        let header = self.header(late.phase)?;
        let attempt = late.attempt;
        Some(Header { attempt, ..header })
    }

    fn send_late_prepare(&self, agent: &AgentName, effects: &mut Vec<Effect>) {
        let Some(late) = self.state.late_undos.get(agent) else {
            return;
        };
        let (Some(header), Some(spec)) = (self.late_header(late), self.state.spec(late.phase))
        else {
            return;
        };
        let order = Order::Prepare {
            header,
            tasks: late
                .steps
                .iter()
                .filter_map(|s| self.task_order(s))
                .collect(),
            start_by: spec.start_by,
            finish_by: spec.finish_by,
            provisional: false,
        };
        self.send(agent, order, effects);
    }

    /// A new session, or a new term: a round that isn't released begins again, and a
    /// release is sent again.
    pub(super) fn resend_late_undo(
        &mut self,
        now: Millis,
        agent: &AgentName,
        effects: &mut Vec<Effect>,
    ) {
        self.live.late_blocked.remove(agent);
        self.live.late_rounds.remove(agent);
        self.live.late.remove(agent);
        let late = self.state.late_undos.get(agent);
        let Some(late) = late.filter(|late| late.released) else {
            return;
        };
        let order = self.late_release_order(agent, late);
        self.live.late.insert(agent.clone(), LateRound::new(now));
        if let Some(order) = order {
            self.send(agent, order, effects);
        }
    }

    /// A vote for a late undo; it is valid in its own term, attempt and session only.
    pub(super) fn receive_late_vote(
        &mut self,
        now: Millis,
        from: &AgentName,
        (phase, attempt): (PhaseRef, u32),
        (term, promise_age): (Term, Millis),
        verdict: &Verdict,
    ) {
        let late = self.state.late_undos.get(from);
        let asked = term == self.state.term
            && late.is_some_and(|late| {
                late.phase == phase && late.attempt == attempt && !late.released
            });
        let start_by = self.state.spec(phase).map_or(0, |spec| spec.start_by);
        if let (true, Some(round)) = (asked, self.live.late.get_mut(from)) {
            round.vote = Some(Vote {
                verdict: verdict.clone(),
                lapses: round.began.saturating_add(start_by),
                promised: now.saturating_sub(promise_age),
            });
        }
    }

    fn evaluate_late_round(
        &mut self,
        now: Millis,
        agent: &AgentName,
        late: &LateUndo,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let Some(spec) = self.state.spec(late.phase) else {
            return false;
        };
        let start_by = spec.start_by;
        let margin = RELEASE_MARGIN.min(start_by / 5);
        let (phase, steps) = (late.phase, late.steps.clone());
        let Some(round) = self.live.late.get_mut(agent) else {
            // Votes count in their own term and session only.
            self.start_late_round(now, agent, phase, steps, effects);
            return true;
        };
        let overdue = now >= round.began.saturating_add(start_by);
        let reason = match &round.vote {
            Some(vote) => match &vote.verdict {
                Verdict::Ready { .. } if now >= vote.lapses.saturating_sub(margin) => {
                    self.start_late_round(now, agent, phase, steps, effects);
                    return true;
                }
                Verdict::Ready { .. } => return self.release_late(now, agent, late, effects),
                Verdict::Lapsed => {
                    self.start_late_round(now, agent, phase, steps, effects);
                    return true;
                }
                Verdict::Refuse { reasons } => {
                    let reasons: Vec<String> = reasons.iter().map(ToString::to_string).collect();
                    format!("the agent refused: {}", reasons.join("; "))
                }
                Verdict::Busy if overdue => "the agent stayed busy".to_owned(),
                Verdict::Busy if now >= vote.promised.saturating_add(BUSY_PAUSE) => {
                    round.vote = None;
                    self.send_late_prepare(agent, effects);
                    return true;
                }
                Verdict::Busy => return false,
            },
            None if overdue => format!("the agent didn't vote within {start_by} ms"),
            None => return false,
        };
        self.leave_outstanding(agent, phase, reason, effects);
        true
    }

    fn release_late(
        &mut self,
        now: Millis,
        agent: &AgentName,
        late: &LateUndo,
        effects: &mut Vec<Effect>,
    ) -> bool {
        let phase = late.phase;
        if let Err(reason) = self.check_late_release(agent, late) {
            self.leave_outstanding(agent, phase, reason, effects);
            return true;
        }
        let vote = self
            .live
            .late
            .get(agent)
            .and_then(|round| round.vote.as_ref());
        let promised = vote.map_or(now, |vote| vote.promised);
        self.persist(
            Record::LateUndoReleased {
                agent: agent.clone(),
                phase,
                attempt: late.attempt,
                promise_age: now.saturating_sub(promised),
            },
            effects,
        );
        self.live.late.insert(agent.clone(), LateRound::new(now));
        let released = self.state.late_undos.get(agent);
        if let Some(order) = released.and_then(|late| self.late_release_order(agent, late)) {
            self.send(agent, order, effects);
        }
        true
    }

    /// Every output that the undos consume exists, and the order can be sent.
    fn check_late_release(&self, agent: &AgentName, late: &LateUndo) -> Result<(), String> {
        for step in &late.steps {
            let inputs = self.state.step(step).map(|(_, spec)| &spec.inputs);
            for (from, output) in inputs.into_iter().flatten() {
                self.resolve_input(from, output)?;
            }
        }
        let size = match self.late_release_order(agent, late) {
            Some(Order::Release {
                inputs,
                before_images,
                ..
            }) => json_size(&inputs) + json_size(&before_images),
            Some(
                Order::Prepare { .. }
                | Order::Revoke { .. }
                | Order::Attest { .. }
                | Order::Disarm { .. }
                | Order::Ack { .. }
                | Order::Close { .. },
            )
            | None => 0,
        };
        if size > MAX_RELEASE {
            return Err(format!(
                "what it needs of earlier steps has {size} bytes, more than the {MAX_RELEASE} of \
                 one release"
            ));
        }
        Ok(())
    }

    fn late_release_order(&self, agent: &AgentName, late: &LateUndo) -> Option<Order> {
        let header = self.late_header(late)?;
        self.release_of(agent, &late.steps, header, late.promise_age)
    }

    /// The undos of this agent stay outstanding, for a reason that the operator sees.
    /// They are tried again when the agent connects again.
    fn leave_outstanding(
        &mut self,
        agent: &AgentName,
        phase: PhaseRef,
        reason: String,
        effects: &mut Vec<Effect>,
    ) {
        self.live.late.remove(agent);
        self.live.late_blocked.insert(agent.clone());
        let agent = agent.clone();
        self.persist(
            Record::LateUndoLeft {
                agent,
                phase,
                reason,
            },
            effects,
        );
    }

    /// The run has ended, and the agent still has something of it to do or to report.
    /// An agent without a lock on the run has nothing to report and never will: it
    /// has not begun the run, or another coordinator has closed it there.
    pub(super) fn is_owed_by(&self, agent: &AgentName) -> bool {
        let reports = !self.live.unlocked.contains(agent);
        self.state.ended == Some(Ending::RolledBack)
            && self.may_undo_late()
            && (self.state.late_undos.contains_key(agent)
                || (reports && self.unreported(agent))
                || self.due_late_undo(agent).is_some())
    }

    /// A connected agent is executing late undos within its time, or is about to: the
    /// run ends after them, so that its report is complete.
    pub(super) fn end_waits_for_late_undos(&self, now: Millis) -> bool {
        let mut agents = self.live.connected.iter();
        self.may_undo_late()
            && agents.any(|agent| match self.late_limit(agent) {
                Some(limit) => now < limit,
                None => self.due_late_undo(agent).is_some(),
            })
    }

    /// Until when the round of a connected agent may take.
    fn late_limit(&self, agent: &AgentName) -> Option<Millis> {
        let late = self.state.late_undos.get(agent)?;
        let spec = self.state.spec(late.phase)?;
        let round = self.live.late.get(agent)?;
        let within = match late.released {
            true => spec.finish_by.saturating_add(LOST_GRACE),
            false => spec.start_by,
        };
        Some(round.began.saturating_add(within))
    }

    /// When a late undo has to be evaluated.
    pub(super) fn late_deadline(&self) -> Option<Millis> {
        if !self.may_undo_late() {
            return None;
        }
        let at_end = self.state.ended.is_none() && self.state.current().is_none();
        let of_agent = |agent: &AgentName| {
            let late = self.state.late_undos.get(agent)?;
            let limit = self.late_limit(agent)?;
            if late.released {
                return at_end.then_some(limit);
            }
            let vote = self.live.late.get(agent)?.vote.as_ref();
            let busy = vote.filter(|vote| vote.verdict == Verdict::Busy);
            let again = busy.map(|vote| vote.promised.saturating_add(BUSY_PAUSE));
            Some(limit.min(again.unwrap_or(limit)))
        };
        self.live.connected.iter().filter_map(of_agent).min()
    }

    /// What the late undos of connected agents wait for.
    pub(super) fn late_waits(&self) -> Vec<Wait> {
        let mut waits = Vec::new();
        if !self.may_undo_late() {
            return waits;
        }
        for (agent, late) in &self.state.late_undos {
            let connected = self.live.connected.contains(agent);
            let agent = agent.clone();
            if late.released {
                let steps = late.steps.iter();
                let open = steps.filter(|step| self.is_open_late(step, &agent));
                waits.extend(open.map(|step| Wait::Outcome {
                    agent: agent.clone(),
                    step: step.clone(),
                    lost: false,
                }));
            } else {
                let round = self.live.late.get(&agent);
                let vote = round.and_then(|round| round.vote.as_ref());
                let busy = vote.is_some_and(|vote| vote.verdict == Verdict::Busy);
                waits.push(Wait::Vote {
                    agent,
                    connected,
                    busy,
                });
            }
        }
        waits
    }

    fn is_open_late(&self, step: &StepId, agent: &AgentName) -> bool {
        let task = self.state.tasks.get(&task_key(step, agent));
        task.is_some_and(|task| task.outcome().is_none())
    }

    /// Closes an ended run at every connected agent that has nothing left to do.
    pub(super) fn close_settled(&mut self, effects: &mut Vec<Effect>) {
        if self.state.ended.is_none() || self.live.fenced.is_some() {
            return;
        }
        let members = self.state.begin.members.keys();
        let due: Vec<AgentName> = members
            .filter(|agent| {
                self.live.connected.contains(*agent)
                    && !self.live.close_sent.contains(*agent)
                    && !self.state.closed_by.contains(*agent)
                    && !self.is_owed_by(agent)
            })
            .cloned()
            .collect();
        for agent in due {
            self.send(&agent, self.close_order(), effects);
            self.live.close_sent.insert(agent);
        }
    }
}

impl State {
    /// Effect of the records of late undos; their outcomes are folded as those of
    /// other tasks.
    pub(super) fn apply_to_late_undos(&mut self, record: &Record) {
        if let Record::LateUndoPreparing {
            agent,
            phase,
            attempt,
            steps,
        } = record
        {
            self.late_undo_preparing(agent, *phase, *attempt, steps);
        }
        if let Record::LateUndoReleased {
            agent, promise_age, ..
        } = record
        {
            self.late_undo_released(agent, *promise_age);
        }
        if let Record::LateUndoLeft {
            agent,
            phase,
            reason,
        } = record
        {
            self.late_undos.remove(agent);
            let left = (*phase, reason.clone());
            self.late_undos_left.insert(agent.clone(), left);
        }
    }

    fn late_undo_preparing(
        &mut self,
        agent: &AgentName,
        phase: PhaseRef,
        attempt: u32,
        steps: &[StepId],
    ) {
        if let Some(state) = self.phase_mut(phase) {
            state.attempt = attempt;
        }
        self.late_undos_left.remove(agent);
        let late = LateUndo {
            phase,
            attempt,
            steps: steps.to_vec(),
            released: false,
            promise_age: 0,
        };
        self.late_undos.insert(agent.clone(), late);
    }

    fn late_undo_released(&mut self, agent: &AgentName, promise_age: Millis) {
        let Some(late) = self.late_undos.get_mut(agent) else {
            return;
        };
        late.released = true;
        late.promise_age = promise_age;
        for step in &late.steps {
            if let Some(task) = self.tasks.get_mut(&task_key(step, agent)) {
                task.status = TaskStatus::UndoOutstanding;
                task.attempt = late.attempt;
                task.resolved = None;
            }
        }
    }

    /// Removes a late undo whose tasks all have an outcome.
    pub(super) fn finish_late_undo(&mut self, agent: &AgentName) {
        let over = self.late_undos.get(agent).is_some_and(|late| {
            let ended = |step: &StepId| {
                let task = self.tasks.get(&task_key(step, agent));
                task.is_none_or(|task| task.reported == Some(late.attempt))
            };
            late.released && late.steps.iter().all(ended)
        });
        if over {
            self.late_undos.remove(agent);
        }
    }
}
