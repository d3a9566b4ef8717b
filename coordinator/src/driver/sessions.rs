//! Agents' sessions: who is admitted, under which term, and what they say.

use super::Driver;
use crate::agents::NotAdmitted;
use crate::handle::{Answer, Refusal, RefusalKind};
use crate::runs::{Happening, Machine, RunCell};
use crate::store::StoreError;
use lockstep_barrier::coordinator::{Event, Run};
use lockstep_barrier::ids::{AgentName, RunId, Term};
use lockstep_barrier::message::Order;
use lockstep_barrier::message::Standing;
use lockstep_proto::{convert, v1};

/// What agents are told in their Welcome.
const HEARTBEAT_MS: u64 = 5_000;

impl Driver {
    pub(super) fn admit(
        &mut self,
        hello: v1::Hello,
        address: String,
        outbox: crate::agents::Outbox,
    ) -> Result<Answer<(u64, v1::Welcome)>, StoreError> {
        let foreign = self.is_foreign(&hello);
        if let Err(refusal) = self.check_term(&hello)? {
            return Ok(Err(refusal));
        }
        let given_up = self.close_unknown(&hello);
        let agent = AgentName(hello.agent.clone());
        let refused = |message| Refusal::new(RefusalKind::Precondition, message);
        let admission = match self
            .agents
            .admit(hello, address, outbox, lockstep_clock::wall_time())
        {
            Ok(admission) => admission,
            Err(NotAdmitted { why, quarantine }) => {
                tracing::error!(%agent, "{why}");
                if let Some(waits) = &quarantine {
                    self.store.quarantine(waits)?;
                }
                return Ok(Err(refused(why)));
            }
        };
        let (journal_position, journal_hash) = admission
            .place
            .map(|place| (place.position, place.hash))
            .unwrap_or_default();
        if let Some(known) = &admission.first_seen {
            self.store.remember(known)?;
        }
        tracing::info!(%agent, session = admission.session, "agent connected");
        for run in self.runs_of(&agent) {
            let lost = self
                .runs
                .get(&run)
                .and_then(RunCell::live)
                .is_some_and(|run| {
                    run.journal_of(&agent)
                        .is_some_and(|journal| *journal != admission.standing.journal)
                });
            if lost {
                self.happen(&run, Event::Quarantined(agent.clone()));
            }
            self.take_over_run(&run, &admission.standing, foreign);
            self.happen(&run, Event::Connected(admission.standing.clone()));
        }
        if let Some(order) = given_up {
            let message = Some(order.into());
            let traceparent = String::new();
            self.agents.send(
                &agent,
                v1::SessionResponse {
                    traceparent,
                    message,
                },
            );
        }
        // What its earlier session was asked, nobody answers any more.
        self.preflights.gone(&agent);
        let welcome = v1::Welcome {
            coordinator: self.name.clone(),
            term: Some(self.term.into()),
            heartbeat_ms: HEARTBEAT_MS,
            journal_position,
            journal_hash,
        };
        Ok(Ok((admission.session, welcome)))
    }

    /// The agent has obeyed a term that this coordinator has never led. That
    /// it is lower than ours is no excuse: each start makes ours higher.
    fn is_foreign(&self, hello: &v1::Hello) -> bool {
        let met: Term = hello.term.unwrap_or_default().into();
        met != Term::default() && !self.terms.contains(&met)
    }

    /// The agent is in a run that this journal doesn't hold: it is of before
    /// the run, and what was decided in it is lost.
    fn lacks_run_of(&self, hello: &v1::Hello) -> bool {
        !hello.run_id.is_empty() && !self.runs.contains_key(&RunId(hello.run_id.clone()))
    }

    /// Taking over, nobody can go on with such a run: its agent lets it go.
    fn close_unknown(&self, hello: &v1::Hello) -> Option<Order> {
        if !self.lacks_run_of(hello) {
            return None;
        }
        tracing::warn!(
            agent = hello.agent,
            run = hello.run_id,
            "closing a run of which this coordinator's journal holds nothing"
        );
        Some(Order::Close {
            run: RunId(hello.run_id.clone()),
            term: self.term,
            decision: hello.decision.saturating_add(1),
        })
    }

    /// Tells a run that what another coordinator has decided in it is lost: it
    /// led this member, or this member has obeyed more than the run's journal
    /// knows (R11).
    fn take_over_run(&mut self, run: &RunId, standing: &Standing, foreign: bool) {
        let lacks = self
            .runs
            .get(run)
            .and_then(RunCell::live)
            .is_some_and(|run| run.is_foreign(standing).is_some());
        if self.take_over && (foreign || lacks) {
            self.happen(run, Event::TakenOver(standing.clone()));
        }
    }

    /// A coordinator that meets a term which it has never led stops deciding
    /// until it is told to take over (R11).
    pub(super) fn check_term(&mut self, hello: &v1::Hello) -> Result<Answer<()>, StoreError> {
        let met: Term = hello.term.unwrap_or_default().into();
        let foreign = self.is_foreign(hello);
        if foreign && self.take_over {
            self.lead_above(met)?;
        } else if foreign && self.fenced.is_none() {
            let why = format!(
                "LS4204: {} has obeyed term {} of another coordinator, and this one leads term {}; \
                 find the other one and stop it, then start this one with --take-over",
                hello.agent, met.number, self.term.number
            );
            tracing::error!("{why}");
            self.fenced = Some(why);
        } else if self.lacks_run_of(hello) && !self.take_over && self.fenced.is_none() {
            let why = format!(
                "LS4204: {} is in run {}, of which this coordinator's journal holds nothing: it \
                 was restored from a backup, or another one leads; find that one and stop it, \
                 then start this one with --take-over, which ends the run",
                hello.agent, hello.run_id
            );
            tracing::error!("{why}");
            self.fenced = Some(why);
        }
        Ok(match &self.fenced {
            Some(why) => Err(Refusal::new(RefusalKind::Precondition, why.clone())),
            None => Ok(()),
        })
    }

    /// Takes every run up again above another coordinator's term. Every
    /// session begins anew, for the machines that knew of them are gone.
    pub(super) fn lead_above(&mut self, other: Term) -> Result<(), StoreError> {
        self.flush()?;
        self.agents.end_sessions();
        self.term = self.store.take_over(&other)?;
        self.terms = self.store.terms()?;
        tracing::warn!(
            term = self.term.number,
            "taking over above another coordinator's term"
        );
        let live: Vec<RunId> = self
            .runs
            .iter()
            .filter(|(_, cell)| cell.live().is_some())
            .map(|(run, _)| run.clone())
            .collect();
        for run in live {
            let stored = self.store.entries(&run, 0)?;
            let entries = stored.iter().map(|stored| stored.entry.clone());
            match Run::resume(lockstep_clock::boot_time(), entries, self.term) {
                Ok((machine, effects)) => {
                    if let Ok(cell) = RunCell::new(Machine::Live(Box::new(machine)), &stored) {
                        self.runs.insert(run.clone(), cell);
                    }
                    self.effects
                        .extend(effects.into_iter().map(|effect| (run.clone(), effect)));
                }
                Err(e) => tracing::error!(%run, error = %e, "the run can't be taken over"),
            }
        }
        Ok(())
    }

    /// Nobody speaks for this agent any more.
    pub(super) fn disconnected(&mut self, agent: &AgentName) {
        tracing::warn!(%agent, "the agent's session ended");
        self.preflights.gone(agent);
        for run in self.runs_of(agent) {
            self.happen(&run, Event::Disconnected(agent.clone()));
        }
    }

    pub(super) fn agent_says(
        &mut self,
        agent: AgentName,
        session: u64,
        message: v1::session_request::Message,
        place: (u64, String),
    ) {
        use v1::session_request::Message as M;
        if !self.agents.is_current(&agent, session) {
            return;
        }
        self.agents.heard(&agent, lockstep_clock::wall_time());
        match message {
            M::Progress(progress) => self.progress(&agent, progress),
            M::PreflightReport(report) => self.preflights.report(&agent, report),
            message => match convert::reply(message) {
                Ok(reply) => {
                    tracing::debug!(%agent, reply = reply.name(), "heard");
                    let run = run_of(&reply).clone();
                    let place = self.agents.place(&agent, place);
                    let from = agent;
                    self.happen(&run, Event::Reply { from, reply, place });
                }
                Err(invalid) => {
                    tracing::error!(%agent, %invalid, "LS4205: the agent sent an invalid message");
                }
            },
        }
    }

    pub(super) fn progress(&self, agent: &AgentName, progress: v1::Progress) {
        let Some(cell) = self.runs.get(&RunId(progress.run_id.clone())) else {
            return;
        };
        let phase = progress.phase.and_then(|phase| phase.try_into().ok());
        let kind = match progress.kind() {
            v1::ProgressKind::Started => "started",
            v1::ProgressKind::Output => "output",
            v1::ProgressKind::Note | v1::ProgressKind::Unspecified => "note",
        };
        cell.tell(Happening::Line(v1::TaskLine {
            agent: agent.to_string(),
            phase: phase
                .map(|phase| cell.phase_name(phase))
                .unwrap_or_default(),
            step_id: progress.step_id,
            kind: kind.to_owned(),
            line: progress.line,
            at_ms: lockstep_clock::wall_time(),
        }));
    }
}

fn run_of(reply: &lockstep_barrier::message::Reply) -> &RunId {
    use lockstep_barrier::message::Reply as R;
    match reply {
        R::Vote { run, .. }
        | R::Attestation { run, .. }
        | R::Breach { run, .. }
        | R::Disarmed { run, .. }
        | R::Closed { run } => run,
        R::Outcome(report) => &report.run,
    }
}
